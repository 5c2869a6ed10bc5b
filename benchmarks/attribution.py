"""The pass with gradients of the method attribution against a bare forward pass, same batches.

The bare pass runs the decoder body (no head) on the packed mini corpus. "loss alone" adds the head
and the negative log-likelihood of every token, without gradients. "attribution" is `attribute` of
`langneurons.scoring.attribution` as the job `attribute_neurons` calls it: the forward pass, the
loss, the backward pass to every layer's products, and their sums. "bare prefill, again" shows the
noise.

Before that, the sums of one block must be those of plain autograd over whole logits, or the script
ends with an error.
"""

from common import (
    TIMING_HEADER,
    clock,
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
    """Time all and print the ratios."""
    options = parser(__doc__)
    options.add_argument("--blocks", type=int, default=4, help="blocks of the corpus, default 4")
    options.add_argument("--lang", default="en", help="language of the mini corpus")
    options.add_argument("--batch-blocks", type=int, default=2, help="blocks of a batch, default 2")
    given = options.parse_args()
    set_threads(given.threads)
    import torch

    from langneurons.activations.settings import AttributionConfig
    from langneurons.models.language_model import LanguageModel
    from langneurons.scoring.attribution import attribute
    from langneurons.scoring.nll import token_nll

    model = LanguageModel(load(given.model), identity=IDENTITY)
    corpus = packed_corpus(given.model, given.blocks, given.lang)
    part = corpus.identification
    block = part.tokens.shape[1]
    batches = token_batches(corpus, given.batch_blocks, model.device)

    def bare() -> None:
        with torch.inference_mode():
            for tokens in batches:
                model.sites.backbone(input_ids=tokens, use_cache=False)

    def loss() -> None:
        token_nll(model, part.tokens, part.lengths, part.scored, given.batch_blocks * block)

    def of(site: str):
        settings = AttributionConfig(site=site, batch_blocks=given.batch_blocks)
        return lambda: attribute(model, corpus, settings)

    _check(model, packed_corpus(given.model, 1, given.lang))
    variants = {
        "bare prefill": bare,
        "bare prefill, again": bare,
        "loss alone": loss,
        "attribution at product": of("product"),
        "attribution at act": of("act"),
    }
    times = interleaved(variants, given.repeats, clock=clock(given))
    note = (
        f"{given.blocks} blocks of {block} tokens ({given.lang}), {given.batch_blocks} per batch;"
        f" {given.repeats} interleaved rounds; medians; ratio to bare prefill."
        + (" Seconds are those of the processor, all threads together." * given.processor_time)
    )
    rows = timing_rows(times, "bare prefill", part.tokens.size)
    publish("attribution", table("Attribution of neurons", TIMING_HEADER, rows, note))


def _check(model, corpus) -> None:
    """Compare with autograd over the whole logits of one block."""
    import numpy as np
    import torch

    from langneurons.activations.settings import AttributionConfig
    from langneurons.scoring.attribution import attribute

    part, kept = corpus.identification, []
    handles = [
        down.register_forward_pre_hook(lambda _m, given: kept.append(given[0]))
        for down in model.sites.down
    ]
    embeddings = model.sites.backbone.get_input_embeddings()
    handles.append(
        embeddings.register_forward_hook(lambda _m, _i, out: out.detach().requires_grad_())
    )
    tokens = torch.from_numpy(part.tokens.astype(np.int64)).to(model.device)
    with torch.enable_grad():
        logits = model.model(input_ids=tokens, use_cache=False).logits[0, :-1].double()
        counted = torch.from_numpy(part.scored[0, 1:]).to(logits.device)
        nll = torch.nn.functional.cross_entropy(logits, tokens[0, 1:], reduction="none")
        gradients = torch.autograd.grad(nll[counted].sum(), kept)
    for handle in handles:
        handle.remove()
    expected = torch.stack(
        [(a.double() * b.double()).sum((0, 1)) for a, b in zip(kept, gradients, strict=True)]
    )
    expected = expected.detach().cpu().numpy()
    own = attribute(model, corpus, AttributionConfig(site="product"))
    found = own.mean() * own.tokens
    apart = np.abs(found - expected).max() / np.abs(expected).max()
    if not apart < 1e-3:
        raise SystemExit(f"attributions are not those of autograd: {apart:.2g} of the largest")


IDENTITY = {"model": "benchmark", "revision": "none", "dtype": "float32", "quantization": "none"}


if __name__ == "__main__":
    main()
