"""Training steps: LoRA on chosen neurons against stock PEFT, bfloat16 and 4-bit; peak memory."""

from sections import Check, Row, Setting, apart, check, rows_of, small_model, timing

ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj")
SHARE, RANK = 0.01, 8


def _chosen(sites, share: float) -> list:
    """Return the chosen neurons of each layer, ascending."""
    import numpy as np

    generator = np.random.default_rng(0)
    number = max(1, round(share * sites.d_mlp))
    return [np.sort(generator.choice(sites.d_mlp, number, False)) for _ in range(sites.n_layers)]


def _wrapped(model, route: str, share: float = SHARE):
    """Return the model with what is trained: PEFT's LoRA on all neurons, ours, or their rows."""
    from langneurons.models.sites import MlpSites
    from langneurons.training import lora
    from langneurons.training import neuron_weights as rows

    chosen = {"gate": _chosen(MlpSites(model), share)}
    if route == "rows":
        return rows.attach(model, chosen)
    if route == "masked LoRA":
        return lora.attach(model, ATTENTION, chosen, lora.Size(RANK, 2.0 * RANK))
    wrapped = lora.attach(model, (*ATTENTION, "gate_proj"), None, lora.Size(RANK, 2.0 * RANK))
    if route == "PEFT":
        for layer in wrapped.modules():
            if hasattr(layer, "lora_A"):
                del layer.forward  # PEFT's own is beneath
    return wrapped


def _loss(wrapped, route: str, tokens):
    """Return the mean loss: the model's own for PEFT, else the package's."""
    import torch

    from langneurons.models.sites import MlpSites
    from langneurons.scoring.losses import token_loss

    if route == "PEFT":
        return wrapped(input_ids=tokens, labels=tokens).loss
    total, _ = token_loss(MlpSites(wrapped), tokens, torch.ones_like(tokens), tokens)
    return total / tokens[:, 1:].numel()


@check("training")
def gradients(setting: Setting) -> list[Check]:
    """Loss and every gradient against stock PEFT in float64, all neurons chosen."""
    import torch

    tokens = torch.arange(2 * 19).reshape(2, 19).remainder(509)
    found = {}
    for route, device, dtype in (
        ("PEFT", "cpu", "float64"),
        ("LoRA", setting.device, "float32"),
        ("masked LoRA", setting.device, "float32"),
    ):
        model = _wrapped(small_model(device, dtype), route, share=1.0)
        generator = torch.Generator().manual_seed(1)
        trained = {n: p for n, p in model.named_parameters() if p.requires_grad}
        with torch.no_grad():
            for name in sorted(trained):
                trained[name].copy_(torch.randn(trained[name].shape, generator=generator) * 0.05)
        loss = _loss(model.train(), route, tokens.to(device))
        loss.backward()
        found[route] = {"loss": loss} | {n: p.grad for n, p in trained.items()}
    return [
        Check(
            f"{route}, loss and gradients",
            max(apart(found[route][name], value) for name, value in found["PEFT"].items()),
            1e-4,
        )
        for route in ("LoRA", "masked LoRA")
    ]


def _step(model, route: str, tokens, dtype: str):
    """Return a function that takes one step, and one that ends the training."""
    import torch

    wrapped = _wrapped(model, route).train()
    trained = [p for p in wrapped.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(trained, lr=1e-5)
    kind = {"dtype": getattr(torch, dtype), "enabled": dtype != "float32"}

    def step() -> None:
        with torch.autocast(tokens.device.type, **kind):
            loss = _loss(wrapped, route, tokens)
        loss.backward()
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)

    return step


def _packed(model) -> None:
    """Put 4-bit weights (NF4, double quantisation) into the layers of a model."""
    import bitsandbytes as bnb
    import torch
    from torch import nn

    from langneurons.models.sites import MlpSites

    for layer in MlpSites(model).layers:
        for name, old in list(layer.named_modules()):
            if type(old) is not nn.Linear:
                continue
            new = bnb.nn.Linear4bit(
                old.in_features,
                old.out_features,
                bias=False,
                quant_type="nf4",
                compress_statistics=True,
                compute_dtype=torch.bfloat16,
            )
            new.weight = bnb.nn.Params4bit(
                old.weight.data.cpu(), requires_grad=False, quant_type="nf4"
            )
            parent, _, last = name.rpartition(".")
            setattr(layer.get_submodule(parent), last, new.to(old.weight.device))


def _peaks(setting: Setting, steps: dict) -> dict[str, str]:
    """Return what a step of each route holds at most above what was held before it."""
    import torch

    notes = {}
    for name, step in steps.items():
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        held = torch.cuda.memory_allocated()
        step()
        torch.cuda.synchronize()
        notes[name] = f"{(torch.cuda.max_memory_allocated() - held) / 1e9:.2f} GB above the model"
    return notes


@timing("training")
def steps(setting: Setting) -> list[Row]:
    """Forward, backward, AdamW on a quarter of the batch; in 16 bits, and in 4 on a GPU."""
    import copy

    tokens = setting.batch(max(setting.tokens // setting.length // 4, 1))
    result = []
    for kind in ("", ", 4-bit") if setting.device != "cpu" else ("",):
        # Trained in place, and packed: no model to share with other sections.
        setting.release()
        base = setting.fresh()
        if kind:
            _packed(base)
        tensors = {id(tensor): tensor for tensor in [*base.parameters(), *base.buffers()]}
        variants = {}
        for route in ("PEFT", "LoRA", "masked LoRA", *(() if kind else ("rows",))):
            # The modules again around the same weights: each route starts from a plain model.
            own = copy.deepcopy(base, dict(tensors))
            variants[f"{route}{kind}"] = _step(own, route, tokens, setting.dtype)
        times = setting.interleaved(variants)
        notes = {k: f"{tokens.numel() / Row(k, v).median:,.0f} tokens/s" for k, v in times.items()}
        if setting.device != "cpu":
            peaks = _peaks(setting, variants)
            notes = {name: f"{note}, {peaks[name]}" for name, note in notes.items()}
        goal = {f"masked LoRA{kind}": "below 1"}
        result += rows_of(times, f"PEFT{kind}", note=notes, goal=goal)
        del base, own, tensors, variants
    setting.release()
    return result
