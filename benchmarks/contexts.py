"""The pass that keeps the contexts of chosen neurons against a bare forward pass, same batches.

Both run the decoder body (no head) on the packed mini corpus. "contexts" is `strongest` of
`langneurons.activations.contexts` as the job `describe_neurons` calls it, with neurons drawn at
random over all layers: hooks, masks, the search for each neuron's strongest documents, and what
surrounds them. "bare prefill, again" shows the noise.

Before that, values, positions and documents must be those of a search over all activations, or the
script ends with an error.
"""

import time

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

K, REACH = 5, 24


def main() -> None:
    """Time both and print the ratio."""
    options = parser(__doc__)
    options.add_argument("--blocks", type=int, default=8, help="blocks of the corpus, default 8")
    options.add_argument("--lang", default="en", help="language of the mini corpus")
    options.add_argument("--batch-blocks", type=int, default=2, help="blocks of a batch, default 2")
    given = options.parse_args()
    set_threads(given.threads)
    import torch

    from langneurons.activations.contexts import Wanted, strongest, texts
    from langneurons.models.language_model import LanguageModel

    model = LanguageModel(load(given.model))
    corpus = packed_corpus(given.model, given.blocks, given.lang)
    block = corpus.identification.tokens.shape[1]
    batches = token_batches(corpus, given.batch_blocks, model.device)

    def bare() -> None:
        with torch.inference_mode():
            for tokens in batches:
                model.sites.backbone(input_ids=tokens, use_cache=False)

    def kept(share: float):
        chosen = drawn(model, share)
        wanted = Wanted(K, REACH)
        return lambda: strongest(model, corpus, chosen, wanted, given.batch_blocks * block)

    _check(model, packed_corpus(given.model, 1, given.lang))
    variants = {
        "bare prefill": bare,
        "bare prefill, again": bare,
        "contexts of 1 % of the neurons": kept(0.01),
        "contexts of 10 %": kept(0.1),
    }
    times = interleaved(variants, given.repeats, clock=clock(given))
    found = kept(0.01)()
    begin = time.perf_counter()
    n_rows = len(texts(found, corpus, _tokenizer(given.model), 12))
    seconds = time.perf_counter() - begin
    note = (
        f"{given.blocks} blocks of {block} tokens ({given.lang}), {given.batch_blocks} per batch;"
        f" {given.repeats} interleaved rounds; medians; ratio to bare prefill, goal 1.2. The"
        f" text of {n_rows} contexts, once per language, takes {seconds:.2f} s beside it."
        + (" Seconds are those of the processor, all threads together." * given.processor_time)
    )
    rows = timing_rows(times, "bare prefill", corpus.identification.tokens.size)
    publish("contexts", table("Contexts of neurons", TIMING_HEADER, rows, note))


def drawn(model, share: float) -> list:
    """Return neurons drawn at random, by layer."""
    import numpy as np

    size = model.n_layers * model.d_mlp
    flat = np.random.default_rng(0).permutation(size)[: round(share * size)]
    return [
        np.sort(flat[flat // model.d_mlp == layer] % model.d_mlp) for layer in range(model.n_layers)
    ]


def _tokenizer(folder):
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder)


def _check(model, corpus) -> None:
    """Compare with a search over all activations of one block."""
    import numpy as np
    import torch

    from langneurons.activations.contexts import Wanted, strongest

    part, chosen, seen, handles = corpus.identification, drawn(model, 0.002), {}, []
    for layer in range(model.n_layers):
        handles.append(
            model.sites.act[layer].register_forward_hook(
                lambda _m, _i, output, at=layer: seen.__setitem__(at, output.detach().clone())
            )
        )
    with torch.inference_mode():
        tokens = torch.from_numpy(part.tokens.astype(np.int64)).to(model.device)
        model.sites.backbone(input_ids=tokens, use_cache=False)
    for handle in handles:
        handle.remove()
    found = strongest(model, corpus, chosen, Wanted(K, REACH), part.tokens.size)
    scored = (part.scored & (part.document >= 0)).ravel()
    document = part.document.ravel()
    for row, (layer, neuron) in enumerate(zip(found.layer, found.neuron, strict=True)):
        values = seen[int(layer)].reshape(len(scored), -1)[:, int(neuron)].float().cpu().numpy()
        best: dict[int, tuple[float, int]] = {}
        for at in np.flatnonzero(scored & (values > 0)):
            if values[at] > best.get(int(document[at]), (0.0, 0))[0]:
                best[int(document[at])] = (float(values[at]), int(at))
        ranked = sorted(best.values(), key=lambda pair: (-pair[0], pair[1]))[:K]
        if found.position[row, : len(ranked)].tolist() != [at for _, at in ranked]:
            raise SystemExit(f"contexts of layer {layer}, neuron {neuron} are not the strongest")


if __name__ == "__main__":
    main()
