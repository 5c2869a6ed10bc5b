"""Memory on the device and bytes on disk of the statistics of an 8B model.

The collector runs on an MLP stack of that shape (32 layers x 14336 neurons) whose activations are
drawn at random: what it keeps depends on the shape and on the spread of values, not on the weights.
"""

import tempfile
from pathlib import Path

from common import parser, publish, set_threads, table


def main() -> None:
    """Fill the accumulators, count their bytes, write the file."""
    options = parser(__doc__)
    options.add_argument("--layers", type=int, default=32)
    options.add_argument("--neurons", type=int, default=14336)
    options.add_argument("--tokens", type=int, default=4096)
    given = options.parse_args()
    set_threads(given.threads)
    import numpy as np
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from langneurons.adapters import MlpSites
    from langneurons.collect import Collector, Settings
    from langneurons.statistics import Statistics, pack

    shape = LlamaConfig(
        vocab_size=64,
        hidden_size=16,
        intermediate_size=given.neurons,
        num_hidden_layers=given.layers,
        num_attention_heads=2,
        num_key_value_heads=2,
    )
    torch.manual_seed(0)
    sites = MlpSites(LlamaForCausalLM(shape).eval())
    collector = Collector(sites, Settings())
    kept = [
        tensor
        for accumulators in collector.accumulators.values()
        for group in vars(accumulators).values()
        for tensor in group
    ]
    device = sum(tensor.numel() * tensor.element_size() for tensor in kept)
    generator = torch.Generator().manual_seed(0)
    mask = torch.ones(512, dtype=torch.bool)
    rows, documents = np.array([0, 512]), torch.zeros(512, dtype=torch.int64)
    spread = torch.rand(given.layers, given.neurons, generator=generator) + 0.3
    centre = torch.randn(given.layers, given.neurons, generator=generator) * 0.3 - 0.3
    with torch.inference_mode(), collector:
        for _ in range(given.tokens // 512):
            collector.observe(mask, rows, documents)
            for layer in range(given.layers):
                noise = torch.randn(1, 512, given.neurons, generator=generator)
                act = sites.act[layer](noise * spread[layer] + centre[layer])
                collector._on_down(layer)(None, (act * noise,))
    arrays = collector.arrays()
    for key in [key for key in arrays if key.endswith(".histogram")]:
        arrays[key] = pack(arrays[key])
    header = {"n_layers": given.layers, "d_mlp": given.neurons, "sites": ["gate", "act", "product"]}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "one.safetensors")
        Statistics(arrays, header).write(path)
        disk = path.stat().st_size
    body = [
        ["accumulators on the device", f"{device / 1e6:.0f} MB", "1,000 MB"],
        ["file of one language", f"{disk / 1e6:.0f} MB", "250 MB"],
    ]
    note = f"{given.layers} x {given.neurons}, three sites, gate histogram, {given.tokens} tokens."
    publish("memory", table("Memory of the statistics", ["what", "size", "bound"], body, note))


if __name__ == "__main__":
    main()
