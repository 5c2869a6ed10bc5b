"""The statistics pass against a bare forward pass over the same batches.

Both run the decoder body (no head) on the packed mini corpus, in the batches of config/config.yaml.
"bare prefill" is the model alone, without hooks. The others are `collect` of
`langneurons.activations.collect` as the workflow calls it: hooks, masks, checks, and at the end the
packing of the histogram (a fixed cost per file, so a corpus of real size has a lower ratio). "bare
prefill, again" shows the noise.

The note divides the seconds with the site `residual` by those without it, round by round, and says
what share of a pass each site's counting takes on the processor (median of three passes).

Before that, counts, sums and extremes of one block must be those of the same activations in
float64 (sums to 1e-9 of their terms), or the script ends with an error.
"""

import statistics
import time
from collections.abc import Callable

from common import (
    IDENTITY,
    TIMING_HEADER,
    clock,
    demo_settings,
    interleaved,
    load,
    packed_corpus,
    parser,
    publish,
    set_threads,
    table,
    timing_rows,
    token_batches,
)


def main() -> None:
    """Time both and print the ratio."""
    options = parser(__doc__)
    options.add_argument("--blocks", type=int, default=8, help="blocks of the corpus, default 8")
    options.add_argument("--lang", default="en", help="language of the mini corpus")
    given = options.parse_args()
    set_threads(given.threads)
    import torch

    from langneurons.activations.collect import collect
    from langneurons.activations.frames import pack
    from langneurons.models.language_model import LanguageModel
    from langneurons.models.sites import MlpSites

    model = load(given.model)
    sites = MlpSites(model)
    corpus = packed_corpus(given.model, given.blocks, given.lang)
    settings = demo_settings()
    batches = token_batches(corpus, settings.batch_blocks, next(sites.backbone.parameters()).device)

    def bare() -> None:
        with torch.inference_mode():
            for tokens in batches:
                sites.backbone(input_ids=tokens, use_cache=False)

    def measured(**changes):
        asked = demo_settings(**changes)
        return lambda: collect(LanguageModel(model, identity=IDENTITY), corpus, asked)

    _check(model, sites, packed_corpus(given.model, 1, given.lang))
    without = "three sites, gate histogram (config.yaml)"
    stream, outer = "the same and residual", "the same and second moments of one row"
    four = (*settings.sites, "residual")
    variants = {
        "bare prefill": bare,
        "bare prefill, again": bare,
        without: measured(),
        stream: measured(sites=four),
        outer: measured(sites=four, residual_outer=(sites.n_layers // 2,)),
        "gate and act, gate histogram": measured(sites=("gate", "act")),
        "act only, no histogram": measured(sites=("act",), histograms=()),
    }
    times = interleaved(variants, given.repeats, clock=clock(given))
    counts = collect(LanguageModel(model, identity=IDENTITY), corpus, settings).histogram("gate")
    begin = time.perf_counter()
    pack(counts)
    fixed = time.perf_counter() - begin
    shape = corpus.identification.tokens.shape
    note = (
        f"{shape[0]} blocks of {shape[1]} tokens ({given.lang}), {settings.batch_blocks} per"
        f" batch; {given.repeats} interleaved rounds; medians; ratio to bare prefill, goal 1.15."
        f" Packing the histogram, once per file, is {fixed:.2f} s of it."
        + (" Seconds are those of the processor, all threads together." * given.processor_time)
    )
    for variant in (stream, outer):
        apart = sorted(b / a for a, b in zip(times[without], times[variant], strict=True))
        note += (
            f" With {variant.removeprefix('the same and ')}: {statistics.median(apart):.3f} times"
            f" the seconds without the residual stream ({apart[0]:.3f}-{apart[-1]:.3f})."
        )
    shares = _shares(measured(sites=four))
    note += " Counting, of a pass: " + ", ".join(f"{k} {v:.2%}" for k, v in shares.items()) + "."
    rows = timing_rows(times, "bare prefill", corpus.identification.tokens.size)
    publish("statistics_pass", table("Statistics pass", TIMING_HEADER, rows, note))


def _shares(run: Callable[[], object]) -> dict[str, float]:
    """Return the share of a pass that the counting of each site takes, in processor time."""
    from langneurons.activations.collect import Collector

    plain, passes = Collector._add, []

    def timed(self, site, row, values) -> None:
        begin = time.process_time()
        plain(self, site, row, values)
        passes[-1][site] = passes[-1].get(site, 0.0) + time.process_time() - begin

    Collector._add = timed
    try:
        for _ in range(3):
            passes.append({})
            begin = time.process_time()
            run()
            total = time.process_time() - begin
            passes[-1] = {site: seconds / total for site, seconds in passes[-1].items()}
    finally:
        Collector._add = plain
    return {site: statistics.median(one[site] for one in passes) for site in passes[0]}


def _check(model, sites, corpus) -> None:
    """Compare with every activation of one block, kept whole and summed in float64."""
    import numpy as np
    import torch

    from langneurons.activations.collect import collect
    from langneurons.models.language_model import LanguageModel

    kept: dict[tuple[str, int], np.ndarray] = {}

    def keep(site: str, layer: int, values) -> None:
        kept[site, layer] = values.detach().reshape(-1, values.shape[-1]).double().cpu().numpy()

    handles = []
    for layer, (act, down) in enumerate(zip(sites.act, sites.down, strict=True)):

        def on_act(_module, inputs, output, layer=layer) -> None:
            keep("gate", layer, inputs[0])
            keep("act", layer, output)

        handles.append(act.register_forward_hook(on_act))
        handles.append(
            down.register_forward_pre_hook(
                lambda _m, inputs, layer=layer: keep("product", layer, inputs[0])
            )
        )
    for row in range(sites.n_layers + 1):
        handles.append(sites.on_stream(row, lambda values, row=row: keep("residual", row, values)))
    part = corpus.identification
    device = next(sites.backbone.parameters()).device
    with torch.inference_mode():
        sites.backbone(
            input_ids=torch.from_numpy(part.tokens.astype(np.int64)).to(device), use_cache=False
        )
    for handle in handles:
        handle.remove()
    asked = demo_settings()
    asked = demo_settings(sites=(*asked.sites, "residual"))
    found = collect(LanguageModel(model, identity=IDENTITY), corpus, asked)
    scored = part.scored.reshape(-1)
    for (site, layer), values in kept.items():
        values = values[scored]
        exact = found.positive(site)[layer] == (values > 0).sum(0)
        exact &= found.min(site)[layer] == values.min(0)
        exact &= found.max(site)[layer] == values.max(0)
        apart = abs(found.mean(site)[layer] - values.mean(0)) / abs(values).mean(0)
        spread = abs(found.std(site)[layer] - values.std(0)) / values.std(0)
        if not (exact.all() and apart.max() < 1e-9 and spread.max() < 1e-6):
            raise SystemExit(f"{site} of layer {layer} differs from float64")


if __name__ == "__main__":
    main()
