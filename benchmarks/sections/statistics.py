"""The statistics pass: counts, sums, extremes and histogram of every neuron, beside the prefill.

The floor of the pass is the bare prefill plus the time that the card needs to read each site's
activations once more, at its measured bandwidth.
"""

from functools import partial

from sections import Check, Row, Setting, check, rows_of, small_model, timing


def _empty(neurons: int, histogram: bool, device: str) -> list:
    """Return accumulators of one layer, as `kernels.accumulate` takes them."""
    import torch

    from langneurons.activations.histogram import N_BINS
    from langneurons.activations.kernels import MOMENTS

    return [
        torch.zeros(neurons, dtype=torch.int64, device=device),
        torch.zeros(len(MOMENTS), 2, neurons, dtype=torch.int64, device=device),
        torch.tensor([[torch.inf], [-torch.inf]], device=device).repeat(1, neurons),
        torch.zeros(neurons if histogram else 0, N_BINS, dtype=torch.int32, device=device),
    ]


@check("statistics")
def kernel(setting: Setting) -> list[Check]:
    """The kernel of the device against float64 in numpy: odd sizes, masks, ties, zeros, NaN."""
    import numpy as np
    import torch

    from langneurons.activations.histogram import bin_index
    from langneurons.activations.kernels import LIMB, accumulate

    worst = {"counts, extremes and bins that differ": 0.0, "sums": 0.0, "NaN not seen": 0.0}
    generator = torch.Generator().manual_seed(0)
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        for tokens, neurons in ((1, 1), (37, 3), (300, 257), (1025, 130)):
            x = torch.randn(tokens, neurons, generator=generator)
            x = (x * torch.logspace(-4, 2, neurons)).to(dtype)
            x[::5], x[1::7] = 0.0, -0.0
            x[2::3] = x[2 % tokens]
            mask = torch.rand(tokens, generator=generator) < 0.8
            mask[0] = True
            rows = torch.tensor([0, tokens // 3, tokens // 3, tokens], device=setting.device)
            into = _empty(neurons, True, setting.device)
            accumulate(x.to(setting.device), mask.to(setting.device), rows, *into)
            positive, limbs, extremes, histogram = (one.cpu().numpy() for one in into)
            kept = x[mask].double().numpy()
            exact = np.stack([kept.sum(0), (kept**2).sum(0), abs(kept).sum(0)])
            counts = [np.bincount(bin_index(c), minlength=histogram.shape[1]) for c in kept.T]
            wrong = (positive != (kept > 0).sum(0)).sum() + (histogram != np.stack(counts)).sum()
            wrong += (extremes != np.stack([kept.min(0), kept.max(0)])).sum()
            worst["counts, extremes and bins that differ"] += float(wrong)
            scale = 1.0 + abs(kept).sum(0) + (kept**2).sum(0)
            apart = (abs(limbs[:, 0] + limbs[:, 1] / LIMB - exact) / scale).max()
            worst["sums"] = max(worst["sums"], float(apart))
            x[0, neurons // 2] = torch.nan
            accumulate(x.to(setting.device), mask.to(setting.device), rows, *into)
            bad = into[2].isnan().all(0).cpu()
            expected = torch.arange(neurons) == neurons // 2
            worst["NaN not seen"] += float((bad != expected).sum())
    return [Check(what, found, 1e-11 if what == "sums" else 0.0) for what, found in worst.items()]


@check("statistics")
def fallback(setting: Setting) -> list[Check]:
    """That a GPU has the kernel, and does not quietly count with torch operations."""
    import torch

    from langneurons.activations import cuda

    missing = setting.device == "cuda" and not cuda.available(torch.device("cuda"))
    return [Check("kernels that are missing", float(missing), 0.0)]


@check("statistics")
def passes(setting: Setting) -> list[Check]:
    """The hooked pass of a small model in float32 against its pass on the CPU."""
    import numpy as np
    import torch

    from langneurons.activations.collect import Collector, _pass
    from langneurons.activations.settings import StatisticsConfig
    from langneurons.models.sites import MlpSites

    found = {}
    for device in (setting.device, "cpu"):
        collector = Collector(MlpSites(small_model(device)), StatisticsConfig(batch_blocks=4))
        tokens = torch.arange(4 * 33).reshape(4, 33).remainder(509).to(device)
        mask = torch.ones(4, 33, dtype=torch.bool)
        mask[:, 0] = False
        with torch.inference_mode(), collector:
            _pass(collector, tokens, mask, torch.zeros(4, 33, dtype=torch.int64))
        found[device] = collector.arrays()
    ours, theirs = found[setting.device], found["cpu"]
    total = float(theirs["gate.histogram"].sum())
    moved = abs(ours["gate.histogram"] - theirs["gate.histogram"]).sum() / total
    counted = [float(abs(one["gate.histogram"].sum(-1) - 4 * 32).max()) for one in found.values()]
    sums = [one["act.absolute"][0] + one["act.absolute"][1] / 2.0**40 for one in (ours, theirs)]
    return [
        Check("tokens lost of a neuron", max(counted), 0.0),
        Check("share of values in another bin than on the CPU", float(moved), 1e-3),
        Check("sum |act| against the CPU", float(np.max(abs(sums[0] / sums[1] - 1))), 1e-4),
    ]


def _collecting(model, tokens, **changes):
    """Return a function that runs one hooked forward pass."""
    import torch

    from langneurons.activations.collect import Collector, _pass
    from langneurons.activations.settings import StatisticsConfig
    from langneurons.models.sites import MlpSites

    collector = Collector(MlpSites(model), StatisticsConfig(batch_blocks=len(tokens), **changes))
    mask = torch.ones(tokens.shape, dtype=torch.bool)
    mask[:, 0] = False
    documents = torch.zeros(tokens.shape, dtype=torch.int64)

    def run() -> None:
        with torch.inference_mode(), collector:
            _pass(collector, tokens, mask, documents)

    return run


@timing("statistics")
def prefill(setting: Setting) -> list[Row]:
    """Bare prefill without the head, and the same with each set of sites."""
    import torch

    from langneurons.models.sites import MlpSites

    model, tokens = setting.model(), setting.batch()
    backbone, config = MlpSites(model).backbone, setting.config()

    def bare() -> None:
        with torch.inference_mode():
            backbone(input_ids=tokens, use_cache=False)

    sets = {
        "three sites, gate histogram": {},
        "gate and act, gate histogram": {"sites": ("gate", "act")},
        "act, no histogram": {"sites": ("act",), "histograms": ()},
    }
    base = "bare prefill"
    variants = {base: bare, "bare prefill, again": bare}
    flops = dict.fromkeys((*variants, *sets), setting.prefill_flops(*tokens.shape))
    least = None if setting.matrix_rate is None else flops[base] / setting.matrix_rate
    for name, changes in sets.items():
        variants[name] = _collecting(model, tokens, **changes)
    times = setting.interleaved(variants)
    width = torch.finfo(getattr(torch, setting.dtype)).bits // 8
    site = tokens.numel() * config.intermediate_size * config.num_hidden_layers * width
    floors = {name: least for name in (base, "bare prefill, again")}
    bare_seconds = sorted(times[base])[len(times[base]) // 2]
    for name, changes in sets.items():
        read = site * len(changes.get("sites", ("gate", "act", "product")))
        extra = setting.seconds_of_bytes(read)
        floors[name] = None if extra is None else bare_seconds + extra
    limit = "1.05" if setting.device != "cpu" else "1.15"
    return rows_of(
        times,
        base,
        flops=flops,
        floor=floors,
        goal={base: "share 60 %", "three sites, gate histogram": f"at most {limit}"},
    )


@timing("statistics")
def one_layer(setting: Setting) -> list[Row]:
    """The kernel alone on one layer's activations: bytes moved, bandwidth."""
    import torch

    from langneurons.activations.cuda import accumulate_cuda
    from langneurons.activations.histogram import N_BINS
    from langneurons.activations.kernels import accumulate, accumulate_torch

    neurons = setting.config().intermediate_size
    tokens = setting.tokens
    x = torch.randn(tokens, neurons, dtype=getattr(torch, setting.dtype), device=setting.device)
    mask = torch.ones(tokens, dtype=torch.bool, device=setting.device)
    rows = torch.arange(0, tokens + 1, setting.length, device=setting.device)
    variants, moved, floor = {}, {}, {}
    for label, histogram in (("histogram", True), ("no histogram", False)):
        read = x.numel() * x.element_size()
        for name, kernel in (("kernel", accumulate), ("torch operations", accumulate_torch)):
            what = f"one layer, {name}, {label}"
            into = _empty(neurons, histogram, setting.device)
            variants[what] = partial(kernel, x, mask, rows, *into)
            moved[what] = read + (2 * 4 * neurons * N_BINS if histogram else 0)
            floor[what] = setting.seconds_of_bytes(moved[what])
    if setting.device != "cpu":
        what, into = "one layer, kernel, histogram", _empty(neurons, True, setting.device)
        for warps in (4, 16):
            name = f"{what}, {warps} warps"
            variants[name] = partial(accumulate_cuda, x, mask, rows, *into, warps=warps)
            moved[name], floor[name] = moved[what], floor[what]
    times = setting.interleaved(variants)
    return rows_of(times, next(iter(variants)), moved=moved, floor=floor)
