"""The statistics pass against a bare forward pass over the same batches.

Both run the decoder body (no head) on the packed mini corpus, in the batches of config/config.yaml.
"bare prefill" is the model alone, without hooks. The others are `langneurons.collect.collect` as
the workflow calls it: hooks, masks, checks, and at the end the packing of the histogram (a fixed
cost per file, so a corpus of real size has a lower ratio). "bare prefill, again" shows the noise.
"""

import time

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

    from langneurons.adapters import MlpSites
    from langneurons.collect import collect
    from langneurons.packing import pack

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
        return lambda: collect(model, corpus, demo_settings(**changes), IDENTITY)

    variants = {
        "bare prefill": bare,
        "bare prefill, again": bare,
        "three sites, gate histogram (config.yaml)": measured(),
        "gate and act, gate histogram": measured(sites=("gate", "act")),
        "act only, no histogram": measured(sites=("act",), histograms=()),
    }
    times = interleaved(variants, given.repeats, clock=clock(given))
    counts = collect(model, corpus, settings, IDENTITY).histogram("gate")
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
    rows = timing_rows(times, "bare prefill", corpus.identification.tokens.size)
    publish("statistics_pass", table("Statistics pass", TIMING_HEADER, rows, note))


if __name__ == "__main__":
    main()
