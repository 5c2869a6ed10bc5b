"""What the card can do: matrix products of the model's own sizes, and memory traffic.

The best matrix rate and the best rate of a copy (bytes read and written) are the yardsticks of the
other sections: no forward pass can be faster than its operations at that rate.
"""

from sections import Check, Row, Setting, apart, check, timing


@check("card")
def products(setting: Setting) -> list[Check]:
    """A product of matrices in the dtype against float64."""
    import torch

    generator = torch.Generator().manual_seed(0)
    dtype = getattr(torch, setting.dtype)
    a = torch.randn(257, 384, generator=generator).to(dtype)
    b = torch.randn(384, 130, generator=generator).to(dtype)
    found = a.to(setting.device) @ b.to(setting.device)
    allowed = {"float32": 1e-5, "bfloat16": 1e-2, "float16": 2e-3}[setting.dtype]
    return [
        Check(f"matrix product, {setting.dtype}", apart(found, a.double() @ b.double()), allowed)
    ]


@timing("card")
def yardsticks(setting: Setting) -> list[Row]:
    """Matrix rate at the sizes of the MLP and of attention; bandwidth of a copy and of reading."""
    import torch

    config, dtype = setting.config(), getattr(torch, setting.dtype)
    tokens, hidden = setting.tokens, config.hidden_size
    on = {"dtype": dtype, "device": setting.device}
    x = torch.randn(tokens, hidden, **on)
    h = torch.randn(tokens, config.intermediate_size, **on)
    up = torch.randn(hidden, config.intermediate_size, **on)
    square = torch.randn(hidden, hidden, **on)
    # Larger than any cache: 2 GiB on a GPU, 256 MB on a CPU.
    large = torch.ones((1 << 29) if setting.device != "cpu" else (1 << 26), device=setting.device)
    target = torch.empty_like(large)
    works = {
        f"({tokens}, {hidden}) @ ({hidden}, {up.shape[1]})": (lambda: x @ up, x, up),
        f"({tokens}, {up.shape[1]}) @ ({up.shape[1]}, {hidden})": (lambda: h @ up.T, h, up),
        f"({tokens}, {hidden}) @ ({hidden}, {hidden})": (lambda: x @ square, x, square),
    }
    times = setting.interleaved(
        {name: work[0] for name, work in works.items()}
        | {"copy of memory": lambda: target.copy_(large), "sum over memory": lambda: large.sum()}
    )
    rows = [
        Row(name, times[name], flops=2.0 * tokens * weight.numel())
        for name, (_, _, weight) in works.items()
    ]
    moved = large.numel() * 4.0
    copy = Row("copy of memory", times["copy of memory"], moved=2 * moved)
    read = Row("sum over memory", times["sum over memory"], moved=moved)
    setting.matrix_rate = max(row.flops / row.median for row in rows)
    setting.bandwidth = max(row.moved / row.median for row in (copy, read))
    return [*rows, copy, read]
