"""One pass with a histogram against the two-pass, many-quantile scheme of the first paper's code.

The scheme, written anew from a description of what that code computes (Mondal et al. 2025):

- Each pass runs the model over all batches, 4 blocks of 512 tokens. Hooks keep the gate outputs of
  every layer; after the forward pass each layer is reduced in turn.
- Per layer and batch: the mean, the standard deviation, and for each level one `torch.quantile`
  call in float32, which sorts the layer's activations anew. The result is the average of the
  batches' own values.
- The second pass exists because P(a > own P90) needs the P90 of the first; it computes the
  statistics again.

Three forms are timed, as descriptions of the scheme differ: seven levels (those of the paper's
table: P5 to P95) in each pass, nine (P1 and P99 as well) in each, and nine in the first with a
second that only compares. Left out of all, in the scheme's favour: the head with its loss, 4-bit
weights, and a further pass per relevance measure (P(a > 0) is counted in the first pass instead).
Special tokens are masked as in ours, so that results can be compared; the paper's code counts them.

Ours is `collect` as the workflow calls it: as in config/config.yaml, and with the quantiles per
batch that the protocol `paper` adds. The results must agree or the script fails: counts above zero
equal, means to rounding, quantiles within the bound that `langneurons.activations.histogram`
states.
"""

from collections.abc import Iterator

from common import (
    IDENTITY,
    demo_settings,
    interleaved,
    load,
    median,
    packed_corpus,
    parser,
    publish,
    ratios,
    set_threads,
    table,
    token_batches,
)

SEVEN = (0.05, 0.10, 0.25, 0.50, 0.75, 0.90, 0.95)
NINE = (0.01, *SEVEN, 0.99)
FORMS = {
    "two passes, seven quantiles in each": (SEVEN, SEVEN),
    "two passes, nine quantiles in each": (NINE, NINE),
    "two passes, nine quantiles in the first": (NINE, ()),
}


def main() -> None:
    """Time, check the agreement, print."""
    options = parser(__doc__, repeats=1)
    options.add_argument("--batches", type=int, default=2, help="batches of blocks, default 2")
    options.add_argument("--lang", default="en", help="language of the mini corpus")
    given = options.parse_args()
    set_threads(given.threads)

    from langneurons.activations.collect import collect
    from langneurons.models.language_model import LanguageModel
    from langneurons.models.sites import MlpSites

    model = load(given.model)
    sites = MlpSites(model)
    settings = demo_settings()
    with_quantiles = demo_settings(batch_quantiles=SEVEN)
    corpus = packed_corpus(given.model, given.batches * settings.batch_blocks, given.lang)
    device = next(sites.backbone.parameters()).device
    batches = token_batches(corpus, settings.batch_blocks, device)
    masks = token_batches(corpus, settings.batch_blocks, device, "scored")
    ours, paper = "one pass (config.yaml)", "one pass, quantiles per batch as well"
    functions = {
        name: lambda levels=levels: two_pass(sites, batches, masks, *levels)
        for name, levels in FORMS.items()
    }
    functions[ours] = lambda: collect(LanguageModel(model, identity=IDENTITY), corpus, settings)
    functions[paper] = lambda: collect(
        LanguageModel(model, identity=IDENTITY), corpus, with_quantiles
    )
    results: dict[str, object] = {}

    def keeping(name):
        def run() -> None:
            results[name] = functions[name]()

        return run

    # Only ours has something to warm up (the compiled loop); a round of the others takes minutes.
    functions[ours]()
    times = interleaved({name: keeping(name) for name in functions}, given.repeats, warm_up=False)
    tokens = corpus.identification.tokens
    rows = [
        [name, f"{median(values) / tokens.size * 1000:.3f}", *ratios(times, name, ours)]
        for name, values in times.items()
    ]
    bounds = error_bounds(sites, batches, masks)
    note = (
        f"{len(batches)} batches of {settings.batch_blocks} x {tokens.shape[1]} tokens"
        f" ({given.lang}), {given.repeats} interleaved rounds; medians; goal 20 times. "
        + agreement([results[name] for name in FORMS], results[ours], results[paper], bounds)
    )
    header = ["scheme", "s per 1,000 tokens", "times ours", "range"]
    publish("two_pass", table("One pass against two", header, rows, note))


def two_pass(sites, batches, masks, first, second) -> dict:
    """Return the scheme's averages over batches, float64 (n_layers, d_mlp), by name or level."""
    one = _one_of_two(sites, batches, masks, first, None)
    two = _one_of_two(sites, batches, masks, second, one[0.90])
    both = one | {"exceedance": two["exceedance"]}
    return {name: values.double().cpu().numpy() for name, values in both.items()}


def _gates(sites, tokens, mask) -> Iterator:
    """Run the model on a batch, keeping all gates; then yield them, (tokens, d_mlp) per layer."""
    import torch

    stored = {}

    def hook(layer):
        def store(_module, inputs) -> None:
            stored[layer] = inputs[0]

        return store

    handles = [act.register_forward_pre_hook(hook(i)) for i, act in enumerate(sites.act)]
    try:
        with torch.inference_mode():
            sites.backbone(input_ids=tokens, use_cache=False)
    finally:
        for handle in handles:
            handle.remove()
    for layer in range(sites.n_layers):
        yield stored[layer].reshape(-1, sites.d_mlp)[mask.reshape(-1)]


def _one_of_two(sites, batches, masks, levels, threshold) -> dict:
    """Average a pass's statistics over the batches; without `threshold` it is the first pass."""
    import torch

    sums: dict = {}
    for tokens, mask in zip(batches, masks, strict=True):
        rows: dict = {}
        for layer, gate in enumerate(_gates(sites, tokens, mask)):
            if threshold is None:
                rows.setdefault("positive", []).append((gate > 0).sum(0))
            else:
                above = (gate > threshold[layer]).float().mean(0)
                rows.setdefault("exceedance", []).append(above)
            if levels:
                rows.setdefault("mean", []).append(gate.mean(0))
                rows.setdefault("std", []).append(gate.std(0))
            for level in levels:
                rows.setdefault(level, []).append(torch.quantile(gate.float(), level, dim=0))
        for name, values in rows.items():
            sums[name] = sums.get(name, 0) + torch.stack(values)
    return {k: total if k == "positive" else total / len(batches) for k, total in sums.items()}


def error_bounds(sites, batches, masks) -> dict:
    """Return the stated error bound of each level's averaged batch quantile, (n_layers, d_mlp).

    For a batch it is the wider bin of the two order statistics between which the quantile lies.
    """
    import numpy as np

    from langneurons.activations.histogram import bin_width

    bounds = {level: np.zeros((sites.n_layers, sites.d_mlp)) for level in SEVEN}
    for tokens, mask in zip(batches, masks, strict=True):
        for layer, gate in enumerate(_gates(sites, tokens, mask)):
            ordered = gate.float().sort(0).values
            for level in SEVEN:
                rank = level * (len(ordered) - 1)
                ends = ordered[[int(np.floor(rank)), int(np.ceil(rank))]].cpu().numpy()
                bounds[level][layer] += bin_width(ends).max(0) / len(batches)
    return bounds


def agreement(forms: list[dict], ours, paper, bounds: dict) -> str:
    """Compare the results; return sentences, or end with what disagrees."""
    import numpy as np

    scheme = forms[0]
    for other in forms[1:]:
        if any(not np.array_equal(values, other[name]) for name, values in scheme.items()):
            raise SystemExit("the forms of the scheme disagree with each other")
    if not np.array_equal(scheme["positive"], ours.positive("gate")):
        raise SystemExit("counts above zero differ")
    scale = np.maximum(ours.std("gate"), 1e-6)
    mean = float((np.abs(scheme["mean"] - ours.mean("gate")) / scale).max())
    if mean > 1e-4:
        raise SystemExit(f"means differ by {mean:.1e} standard deviations")
    share, typical, corpus = 0.0, [], []
    for level in SEVEN:
        apart = np.abs(scheme[level] - paper.batch_quantile(level, "gate"))
        share = max(share, float((apart / bounds[level]).max()))
        typical.append(np.median(apart / scale))
        corpus.append(np.median(np.abs(scheme[level] - ours.quantile(level, "gate")) / scale))
    if share > 1.001:
        raise SystemExit(f"a quantile is off by {share:.2f} times its bound")
    exceedance = np.abs(scheme["exceedance"] - ours.exceedance(scheme[0.90], "gate"))
    return (
        f"Counts above zero are equal; means differ by at most {mean:.0e} of a neuron's standard"
        f" deviation. Quantiles averaged over batches differ by at most {share:.2f} of their error"
        f" bound, in the median by {max(typical):.4f} of a standard deviation (worst level); the"
        f" corpus's own quantiles from these averages by {max(corpus):.4f}. P(a > P90) differs by"
        f" {np.median(exceedance):.4f} in the median, by {exceedance.max():.3f} at most."
    )


if __name__ == "__main__":
    main()
