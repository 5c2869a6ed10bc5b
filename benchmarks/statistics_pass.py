"""The statistics pass against a bare forward pass of the same batches.

Both run the decoder body (no head) on the same blocks. The pass adds its hooks: counts, sums,
squares, extremes at three sites and the gate's histogram, as in config/config.yaml.
"""

from common import interleaved, load, paired_ratio, parser, publish, set_threads, table


def main() -> None:
    """Time both and print the ratio."""
    options = parser(__doc__)
    options.add_argument("--blocks", type=int, default=4, help="blocks per forward pass")
    options.add_argument("--length", type=int, default=512, help="tokens per block")
    given = options.parse_args()
    set_threads(given.threads)
    import numpy as np
    import torch

    from langneurons.adapters import MlpSites
    from langneurons.collect import Collector, Settings

    model = load(given.model)
    sites = MlpSites(model)
    torch.manual_seed(0)
    device = next(model.parameters()).device
    shape = (given.blocks, given.length)
    tokens = torch.randint(10, model.config.vocab_size, shape, device=device)
    mask = torch.ones(tokens.numel(), dtype=torch.bool)
    rows = np.arange(given.blocks + 1, dtype=np.int64) * given.length
    documents = torch.zeros(tokens.numel(), dtype=torch.int64)

    def bare() -> None:
        with torch.inference_mode():
            sites.backbone(input_ids=tokens, use_cache=False)

    def measured(settings: Settings):
        collector = Collector(sites, settings)

        def work() -> None:
            with torch.inference_mode(), collector:
                collector.observe(mask, rows, documents)
                sites.backbone(input_ids=tokens, use_cache=False)

        return work

    variants = {
        "bare prefill": bare,
        "three sites, histogram of the gate": measured(Settings()),
        "gate and act, histogram": measured(Settings(sites=("gate", "act"))),
        "act only, no histogram": measured(Settings(sites=("act",), histograms=())),
    }
    medians, times = interleaved(variants, given.repeats)
    per_thousand = 1000 / tokens.numel()
    body = [
        [name, f"{value * per_thousand:.3f}", f"{paired_ratio(times, name, 'bare prefill'):.3f}"]
        for name, value in medians.items()
    ]
    note = f"{given.repeats} interleaved runs of {given.blocks} x {given.length} tokens; medians."
    header = ["variant", "s per 1,000 tokens", "ratio to bare"]
    publish("statistics_pass", table("Statistics pass", header, body, note))


if __name__ == "__main__":
    main()
