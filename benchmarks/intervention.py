"""A forward pass with 1 % of the neurons overwritten: against none, nnsight and pyvene.

All variants set the same random neurons of every layer to zero on the same tokens (decoder body, no
head) and must give the same hidden states. nnsight and pyvene are used where they are installed
(benchmarks/requirements.txt names the versions that were tried).
"""

from common import interleaved, load, paired_ratio, parser, publish, set_threads, table


def main() -> None:
    """Check that the outputs agree, then time."""
    options = parser(__doc__)
    options.add_argument("--blocks", type=int, default=4)
    options.add_argument("--length", type=int, default=256)
    options.add_argument("--share", type=float, default=0.01, help="share of neurons overwritten")
    given = options.parse_args()
    set_threads(given.threads)
    import numpy as np
    import torch

    from langneurons.adapters import MlpSites
    from langneurons.interventions import Plan, Write, applied

    model = load(given.model)
    sites = MlpSites(model)
    torch.manual_seed(0)
    device = next(model.parameters()).device
    shape = (given.blocks, given.length)
    tokens = torch.randint(10, model.config.vocab_size, shape, device=device)
    generator = np.random.default_rng(0)
    number = round(given.share * sites.d_mlp)
    chosen = [
        np.sort(generator.choice(sites.d_mlp, number, replace=False)) for _ in range(sites.n_layers)
    ]
    plan = Plan(
        "zero",
        [Write(i, "act", "set", index, np.zeros(number)) for i, index in enumerate(chosen)],
    )
    indices = [torch.from_numpy(index).to(device) for index in chosen]

    def forward() -> torch.Tensor:
        with torch.inference_mode():
            return sites.backbone(input_ids=tokens, use_cache=False).last_hidden_state

    def ours() -> torch.Tensor:
        with applied(sites, plan):
            return forward()

    variants = {"untouched": forward, "langneurons": ours}
    notes = []
    for name, build in (("nnsight", _nnsight), ("pyvene", _pyvene)):
        try:
            variants[name] = build(model, sites, tokens, indices)
        except ImportError:
            notes.append(f"{name} is not installed.")
    expected = ours()
    assert not torch.equal(expected, forward())
    for name, work in list(variants.items())[2:]:
        found = work()
        apart = float((found - expected).abs().max() / expected.abs().max())
        notes.append(f"{name} agrees with langneurons to {apart:.1e}.")
        if not apart < 1e-4:
            raise SystemExit(f"{name} gives other hidden states: {apart}")
    medians, times = interleaved(variants, given.repeats)
    body = [
        [
            name,
            f"{value / tokens.numel() * 1000:.3f}",
            f"{paired_ratio(times, name, 'untouched'):.3f}",
        ]
        for name, value in medians.items()
    ]
    note = (
        f"{number} of {sites.d_mlp} neurons in each of {sites.n_layers} layers, {given.blocks} x"
        f" {given.length} tokens, {given.repeats} interleaved runs; medians. " + " ".join(notes)
    )
    header = ["variant", "s per 1,000 tokens", "ratio to untouched"]
    publish("intervention", table("Overwriting neurons", header, body, note))


def _nnsight(model, sites, tokens, indices):
    import torch
    from nnsight import NNsight

    wrapped = NNsight(sites.backbone)

    def work() -> torch.Tensor:
        with torch.inference_mode(), wrapped.trace(input_ids=tokens, use_cache=False):
            for layer, index in zip(wrapped.layers, indices, strict=True):
                layer.mlp.act_fn.output[..., index] = 0
            hidden = wrapped.output.last_hidden_state.save()
        return hidden

    return work


def _pyvene(model, sites, tokens, indices):
    import pyvene
    import torch

    def zeroing(index):
        def write(base, _source=None, _subspaces=None):
            base = base.clone()
            base[..., index] = 0
            return base

        return write

    places = [
        {"component": f"layers[{layer}].mlp.act_fn.output", "intervention": zeroing(index)}
        for layer, index in enumerate(indices)
    ]
    wrapped = pyvene.IntervenableModel(places, model=sites.backbone)

    def work() -> torch.Tensor:
        with torch.inference_mode():
            _, changed = wrapped({"input_ids": tokens, "use_cache": False})
        return changed.last_hidden_state

    return work


if __name__ == "__main__":
    main()
