"""Memory on the device and bytes on disk of the statistics of an 8B model.

The collector runs on a decoder of that shape where it counts (32 layers x 14336 neurons; hidden
size 16, so that it fits anywhere), with activations of the right shape put straight through each
layer's nonlinearity and down projection. Its accumulators depend on shape and settings alone.

The file grows with the tokens, as counts per bin get larger. So it is measured twice: after those
few tokens, and with the counts that a whole corpus would leave (synthetic, see common.py).
"""

import tempfile
from pathlib import Path

from common import (
    demo_settings,
    parser,
    peak_memory,
    publish,
    set_threads,
    synthetic_statistics,
    table,
)


def main() -> None:
    """Fill the accumulators, count their bytes, write the files."""
    options = parser(__doc__)
    options.add_argument("--layers", type=int, default=32)
    options.add_argument("--neurons", type=int, default=14336)
    options.add_argument(
        "--tokens", type=int, default=2048, help="tokens put through, default 2048"
    )
    options.add_argument(
        "--corpus-tokens", type=int, default=100_000_000, help="tokens of the synthetic counts"
    )
    given = options.parse_args()
    set_threads(given.threads)

    settings = demo_settings()
    kept, allocated, small = _collected(given, settings)
    large = synthetic_statistics(given.layers, given.neurons, given.corpus_tokens, "l00", 0)
    rows = [["accumulators on the device", f"{kept / 1e6:.0f} MB", "1,000 MB"]]
    if allocated is not None:
        rows.append(["the same, as the allocator counts", f"{allocated / 1e6:.0f} MB", "1,000 MB"])
    for tokens, statistics in ((given.tokens, small), (given.corpus_tokens, large)):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "one.safetensors")
            statistics.write(path)
            size = path.stat().st_size
        rows.append([f"file of one language, {tokens:,} tokens", f"{size / 1e6:.0f} MB", "250 MB"])
        packed = statistics.arrays["gate.histogram"].nbytes
        rows.append(["of that, the packed histogram", f"{packed / 1e6:.0f} MB", ""])
    note = (
        f"{given.layers} layers x {given.neurons} neurons, sites {', '.join(settings.sites)},"
        f" histogram of {', '.join(settings.histograms)}. Decimal units. Peak memory of this script"
        f" {peak_memory() / 1e9:.1f} GB."
    )
    header = ["what", "size", "goal, at most"]
    publish("memory", table("Memory of the statistics", header, rows, note))


def _collected(given, settings):
    """Return bytes of the accumulators, bytes as the GPU's allocator counts, the statistics."""
    import numpy as np
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from langneurons.activations.collect import Collector
    from langneurons.activations.statistics import Statistics, histogram_arrays
    from langneurons.models.sites import MlpSites

    config = LlamaConfig(
        vocab_size=64,
        hidden_size=16,
        intermediate_size=given.neurons,
        num_hidden_layers=given.layers,
        num_attention_heads=2,
        num_key_value_heads=2,
    )
    torch.manual_seed(0)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    sites = MlpSites(LlamaForCausalLM(config).to(device).eval())
    before = torch.cuda.memory_allocated() if device == "cuda" else 0
    collector = Collector(sites, settings)
    allocated = torch.cuda.memory_allocated() - before if device == "cuda" else None
    kept = sum(
        tensor.numel() * tensor.element_size()
        for accumulators in collector.accumulators.values()
        for group in vars(accumulators).values()
        for tensor in group
    )
    block = 512
    mask = torch.ones(block, dtype=torch.bool)
    with torch.inference_mode(), collector:
        for _ in range(given.tokens // block):
            collector.observe(mask, torch.tensor([0, block]), torch.zeros(block, dtype=torch.int64))
            for layer in range(given.layers):
                noise = torch.randn(1, block, given.neurons, device=device)
                act = sites.act[layer](noise - 0.8)
                sites.down[layer](act * noise)
    if collector.fired != given.layers * (given.tokens // block):
        raise SystemExit("the collector's hooks did not fire")
    arrays = collector.arrays()
    for site in settings.histograms:
        counts = arrays.pop(f"{site}.histogram")
        if (counts.sum(-1, dtype=np.int64) != given.tokens // block * block).any():
            raise SystemExit(f"the histogram of {site} does not hold every token")
        arrays |= histogram_arrays(site, counts)
    header = {"n_layers": given.layers, "d_mlp": given.neurons, "sites": list(settings.sites)}
    return kept, allocated, Statistics(arrays, header)


if __name__ == "__main__":
    main()
