"""A forward pass with 1 % of the neurons overwritten: against none, a loop, and three libraries.

All variants write the same values over the outputs of the nonlinearity of the same random neurons
of every layer, at every token of the same packed blocks (decoder body, no head). Their hidden
states must be equal to 1e-4 of the largest, and differ from the untouched model's, or the script
fails. nnsight, pyvene and TransformerLens are used where they are installed
(benchmarks/requirements.txt names the versions that were tried); each wraps its own copy of the
model, so its hooks weigh on nobody else. TransformerLens has no hook between nonlinearity and
product, and computes attention without fused kernels: its users write the product.
"untouched, again" shows the noise; the loop assigns neuron by neuron in a hook. Ours includes
putting the hooks on and off in each run.
"""

import importlib.metadata

from common import (
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
    """Check that the outputs agree, then time."""
    options = parser(__doc__)
    options.add_argument("--blocks", type=int, default=4, help="blocks of 512 tokens, default 4")
    options.add_argument("--lang", default="en", help="language of the mini corpus")
    options.add_argument("--share", type=float, default=0.01, help="share of neurons overwritten")
    given = options.parse_args()
    set_threads(given.threads)
    import numpy as np
    import torch

    from langneurons.interventions.apply import applied
    from langneurons.interventions.plan import Plan, Write
    from langneurons.models.language_model import LanguageModel

    model = load(given.model)
    lm = LanguageModel(model)
    sites = lm.sites
    device = next(sites.backbone.parameters()).device
    corpus = packed_corpus(given.model, given.blocks, given.lang)
    batches = token_batches(corpus, demo_settings().batch_blocks, device)
    generator = np.random.default_rng(0)
    number = round(given.share * sites.d_mlp)
    plan = Plan("benchmark")
    for layer in range(sites.n_layers):
        index = np.sort(generator.choice(sites.d_mlp, number, replace=False))
        plan.writes.append(Write(layer, "act", "set", index, generator.normal(0, 0.1, number)))
    writes = [
        (
            torch.from_numpy(write.index).to(device),
            torch.from_numpy(write.value).to(device, torch.float32),
        )
        for write in plan.writes
    ]

    def forward() -> list[torch.Tensor]:
        with torch.inference_mode():
            return [
                sites.backbone(input_ids=tokens, use_cache=False).last_hidden_state
                for tokens in batches
            ]

    def ours() -> list[torch.Tensor]:
        with applied(lm, plan):
            return forward()

    def loop() -> list[torch.Tensor]:
        handles = []
        for layer, (index, value) in enumerate(writes):
            pairs = list(zip(index.tolist(), value.tolist(), strict=True))

            def hook(_module, _inputs, output, pairs=pairs):
                for neuron, wanted in pairs:
                    output[..., neuron] = wanted

            handles.append(sites.act[layer].register_forward_hook(hook))
        try:
            return forward()
        finally:
            for handle in handles:
                handle.remove()

    variants = {"untouched": forward, "untouched, again": forward, "langneurons": ours}
    variants["a loop over the neurons"] = loop
    untouched, expected = forward(), ours()
    if _apart(loop(), expected):
        raise SystemExit("the loop over the neurons gives other hidden states")
    change = _apart(untouched, expected)
    if not change > 1e-2:
        raise SystemExit(f"the intervention changes hidden states by {change:.1e} only")
    exact = _in_float64(model, batches[0][:1, :64], writes)
    with torch.inference_mode(), applied(lm, plan):
        short = sites.backbone(input_ids=batches[0][:1, :64], use_cache=False).last_hidden_state
    rounding = _apart([short.double()], [exact])
    if not rounding < 1e-4:
        raise SystemExit(f"hidden states are apart from float64 by {rounding:.1e}")
    notes = [
        f"The overwrite moves hidden states by {change:.2f} of the largest; they are apart from"
        f" float64 and a loop over the neurons by {rounding:.0e}."
    ]
    peers = {"nnsight": _nnsight, "pyvene": _pyvene, "transformer-lens": _transformer_lens}
    for name, build in peers.items():
        try:
            label = f"{name} {importlib.metadata.version(name)}"
        except importlib.metadata.PackageNotFoundError:
            notes.append(f"{name} is not installed (benchmarks/requirements.txt).")
            continue
        variants[label] = build(load(given.model), given.model, batches, writes)
        apart = _apart(variants[label](), expected)
        if not apart < 1e-4:
            raise SystemExit(f"{label} gives other hidden states: apart by {apart:.1e}")
        notes.append(f"{label} agrees with langneurons to {apart:.0e}.")
    times = interleaved(variants, given.repeats, clock=clock(given))
    if _apart(forward(), untouched):
        raise SystemExit("the untouched model changed during the run")
    tokens = corpus.identification.tokens
    note = (
        f"{number} of {sites.d_mlp} neurons in each of {sites.n_layers} layers,"
        f" {tokens.shape[0]} x {tokens.shape[1]} tokens ({given.lang}), {given.repeats} interleaved"
        " rounds; medians; ratio to untouched, goal 1.03. "
        + " ".join(notes)
        + (" Seconds are those of the processor, all threads together." * given.processor_time)
    )
    rows = timing_rows(times, "untouched", tokens.size)
    publish("intervention", table("Overwriting neurons", TIMING_HEADER, rows, note))


def _apart(found, expected) -> float:
    """Return the largest difference as a share of the largest value."""
    largest = max(float(values.abs().max()) for values in expected)
    return max(float((a - b).abs().max()) for a, b in zip(found, expected, strict=True)) / largest


def _in_float64(model, tokens, writes):
    """Return hidden states in float64, the neurons overwritten one by one."""
    import copy

    import torch

    from langneurons.models.sites import MlpSites

    sites = MlpSites(copy.deepcopy(model).double())
    for layer, (index, value) in enumerate(writes):

        def hook(_module, _inputs, output, index=index, value=value):
            for neuron, wanted in zip(index.tolist(), value.tolist(), strict=True):
                output[..., neuron] = wanted

        sites.act[layer].register_forward_hook(hook)
    with torch.inference_mode():
        return sites.backbone(input_ids=tokens, use_cache=False).last_hidden_state


def _path(sites) -> tuple[str, str]:
    """Return the dotted paths of the layers in the backbone and of the nonlinearity in a layer."""
    return sites.family.layers, sites.family.act


def _nnsight(model, _folder, batches, writes):
    """Assign inside a trace, as nnsight's documentation shows."""
    from functools import reduce

    import torch
    from nnsight import NNsight

    from langneurons.models.sites import MlpSites

    sites = MlpSites(model)
    wrapped = NNsight(sites.backbone)
    layers, act = (path.split(".") for path in _path(sites))
    modules = [reduce(getattr, act, layer) for layer in reduce(getattr, layers, wrapped)]

    def one(tokens) -> torch.Tensor:
        with wrapped.trace(input_ids=tokens, use_cache=False):
            for module, (index, value) in zip(modules, writes, strict=True):
                module.output[..., index] = value
            hidden = wrapped.output.last_hidden_state.save()
        return hidden

    def work() -> list[torch.Tensor]:
        with torch.inference_mode():
            return [one(tokens) for tokens in batches]

    return work


def _pyvene(model, _folder, batches, writes):
    """Use plain functions as interventions, the lightest form that pyvene offers."""
    import pyvene
    import torch

    from langneurons.models.sites import MlpSites

    sites = MlpSites(model)

    def writer(index, value):
        def write(base, _source=None, _subspaces=None):
            base[..., index] = value
            return base

        return write

    layers, act = _path(sites)
    places = [
        {"component": f"{layers}[{layer}].{act}.output", "intervention": writer(*write)}
        for layer, write in enumerate(writes)
    ]
    wrapped = pyvene.IntervenableModel(places, model=sites.backbone)

    def work() -> list[torch.Tensor]:
        with torch.inference_mode():
            return [
                wrapped({"input_ids": tokens, "use_cache": False})[1].last_hidden_state
                for tokens in batches
            ]

    return work


def _transformer_lens(model, folder, batches, writes):
    """Keep the up projection and write value x up over the product, in hooks of the bridge."""
    import torch
    from transformer_lens.model_bridge import TransformerBridge
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    bridge = TransformerBridge.boot_transformers(
        str(folder), hf_model=model, tokenizer=tokenizer, device=str(model.device)
    )
    hooks = []
    for layer, (index, value) in enumerate(writes):
        kept = {}

        def keep(up, hook, kept=kept):
            kept["up"] = up

        def write(product, hook, kept=kept, index=index, value=value):
            product[..., index] = value * kept.pop("up")[..., index]
            return product

        hooks.append((f"blocks.{layer}.mlp.in.hook_out", keep))
        hooks.append((f"blocks.{layer}.mlp.out.hook_in", write))

    def work() -> list[torch.Tensor]:
        with torch.inference_mode(), bridge.hooks(fwd_hooks=hooks):
            return [
                model.model(input_ids=tokens, use_cache=False).last_hidden_state
                for tokens in batches
            ]

    return work


if __name__ == "__main__":
    main()
