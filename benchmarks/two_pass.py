"""One pass with a histogram against two passes with nine quantiles per layer and batch.

The scheme that is compared with: a first pass counts activations above zero; a second pass takes
mean, standard deviation and nine quantiles of each batch's gate outputs with `torch.quantile`,
layer by layer, and averages them over batches. Both run without the head. The
averaged quantiles of that scheme depend on the batch size; the histogram's do not.
"""

import time

from common import load, parser, publish, set_threads, table

LEVELS = (0.05, 0.10, 0.25, 0.50, 0.75, 0.90, 0.95, 0.99, 0.01)


def main() -> None:
    """Time both and print the ratio and the agreement."""
    options = parser(__doc__)
    options.add_argument("--batches", type=int, default=2, help="batches of tokens")
    options.add_argument("--blocks", type=int, default=4, help="blocks per batch")
    options.add_argument("--length", type=int, default=512, help="tokens per block")
    given = options.parse_args()
    set_threads(given.threads)
    import numpy as np
    import torch

    from langneurons import histogram as bins
    from langneurons.adapters import MlpSites
    from langneurons.collect import Collector, Settings

    model = load(given.model)
    sites = MlpSites(model)
    torch.manual_seed(0)
    device = next(model.parameters()).device
    shape = (given.blocks, given.length)
    tokens = [
        torch.randint(10, model.config.vocab_size, shape, device=device)
        for _ in range(given.batches)
    ]
    n_tokens = sum(batch.numel() for batch in tokens)
    rows = np.arange(given.blocks + 1, dtype=np.int64) * given.length
    mask = torch.ones(given.blocks * given.length, dtype=torch.bool)
    documents = torch.zeros(given.blocks * given.length, dtype=torch.int64)

    def forward(batch: torch.Tensor, hook) -> None:
        handles = [
            sites.act[layer].register_forward_pre_hook(
                lambda _m, inputs, layer=layer: hook(layer, inputs[0].flatten(0, -2))
            )
            for layer in range(sites.n_layers)
        ]
        sites.backbone(input_ids=batch, use_cache=False)
        for handle in handles:
            handle.remove()

    def two_pass() -> tuple[torch.Tensor, torch.Tensor]:
        positive = torch.zeros(sites.n_layers, sites.d_mlp, dtype=torch.int64, device=device)
        quantiles = torch.zeros(len(LEVELS), sites.n_layers, sites.d_mlp, device=device)
        moments = torch.zeros(2, sites.n_layers, sites.d_mlp, device=device)
        levels = torch.tensor(LEVELS, device=device)

        def count(layer, gate):
            positive[layer] += (gate > 0).sum(0)

        def measure(layer, gate):
            moments[0, layer] += gate.mean(0) / given.batches
            moments[1, layer] += gate.std(0) / given.batches
            for index, level in enumerate(levels):
                quantiles[index, layer] += torch.quantile(gate, level, dim=0) / given.batches

        with torch.inference_mode():
            for batch in tokens:
                forward(batch, count)
            for batch in tokens:
                forward(batch, measure)
        return positive, quantiles

    def one_pass() -> Collector:
        collector = Collector(sites, Settings())
        with torch.inference_mode(), collector:
            for batch in tokens:
                collector.observe(mask, rows, documents)
                sites.backbone(input_ids=batch, use_cache=False)
        return collector

    one_pass()
    begin = time.perf_counter()
    positive, quantiles = two_pass()
    slow = time.perf_counter() - begin
    fast = []
    for _ in range(given.repeats):
        begin = time.perf_counter()
        arrays = one_pass().arrays()
        fast.append(time.perf_counter() - begin)
    median = sorted(fast)[len(fast) // 2]
    same = bool((torch.from_numpy(arrays["gate.positive"]) == positive.cpu()).all())
    low, high = arrays["gate.extremes"][:, 0], arrays["gate.extremes"][:, 1]
    mine = bins.quantile(arrays["gate.histogram"], 0.9, low, high)
    apart = np.abs(mine - quantiles[LEVELS.index(0.9)].cpu().numpy())
    body = [
        ["two passes, nine quantiles", f"{slow / n_tokens * 1000:.2f}", f"{slow / median:.1f}"],
        ["one pass, three sites, histogram", f"{median / n_tokens * 1000:.3f}", "1"],
    ]
    note = (
        f"{n_tokens} tokens, both with the forward pass; counts above zero equal: {same}; P90"
        f" apart by {np.median(apart):.4f} in the median (batch averages against the whole corpus)."
    )
    header = ["scheme", "s per 1,000 tokens", "times as long"]
    publish("two_pass", table("One pass against two", header, body, note))


if __name__ == "__main__":
    main()
