"""A training step of chosen neurons' own weights (rows of gate and up, columns of down).

    rows        langneurons.training.neuron_weights: written in place, gradients and state of the
                chosen neurons only
    mask        full training of the MLP weights, the gradient times a mask, as in torch hooks
    clone       the trained rows put into a clone of every weight, in every forward pass
    masked LoRA langneurons.training.lora on the same neurons, gate, up and down (other parameters)
    forward     no training: the forward pass of the frozen model, under no_grad
    ..., rows   the same through the attached layers

First rows, mask and clone must agree with mask in float64: logits, loss and the gradient of every
chosen neuron, to 2e-5 of the largest value in float32 (5e-2 in bfloat16), and the mask's other
gradients be zero. Then all take turns on the same frozen weights: forward, backward, AdamW. Last,
each takes three steps in a process of its own for the memory, as in masked_lora.py, from which the
measuring comes.
"""

import json
import os
from pathlib import Path

import masked_lora as shared
from common import (
    RESULTS,
    interleaved,
    machine,
    parser,
    peak_memory,
    publish,
    set_threads,
    synchronize,
    table,
)

SITES = ("gate", "up", "down")
TRAINING = ("rows", "mask", "clone", "masked LoRA")
FORWARD = ("forward", "forward, rows")


def main() -> None:
    """Check that the routes agree, time them, measure their memory, print."""
    options = parser(__doc__)
    options.add_argument("--layers", type=int, default=4)
    options.add_argument("--hidden", type=int, default=512)
    options.add_argument("--intermediate", type=int, default=1792, help="neurons of a layer")
    options.add_argument("--heads", type=int, default=8)
    options.add_argument("--kv-heads", type=int, default=4)
    options.add_argument("--vocabulary", type=int, default=1000)
    options.add_argument("--batch", type=int, default=2)
    options.add_argument("--length", type=int, default=128, help="tokens of a row")
    options.add_argument("--rank", type=int, default=8)
    options.add_argument("--shares", type=float, nargs="+", default=[0.01, 1.0])
    options.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    options.add_argument("--dtype", default="float32", choices=list(shared.TOLERANCE))
    given = options.parse_args()
    if not all(0 < share <= 1 for share in given.shares):
        options.error("--shares lie above 0 and up to 1")
    if given.device == "cpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    set_threads(given.threads)
    before = os.getloadavg()[0]
    apart = shared._child(_check, given)
    results = shared._child(_time, given)
    between = os.getloadavg()[0]
    for result in results:
        result |= shared._child(_memory, given, result["route"], result["share"])
    _report(given, apart, results, f"{before:.1f} before and {between:.1f} after the timing")


def _report(given, apart: float, results: list[dict], load: str) -> None:
    rows = []
    for result in results:
        base = next(
            one["seconds"]
            for one in results
            if one["share"] == result["share"]
            and one["route"] == ("forward" if result["route"] in FORWARD else "rows")
        )
        ratios = [own / other for own, other in zip(result["seconds"], base, strict=True)]
        seconds, (low, high) = shared._spread(result["seconds"])
        ratio, quartiles = shared._spread(ratios)
        rows.append(
            [
                result["route"],
                f"{result['share']:g}",
                f"{seconds * 1000:.0f}",
                f"{low * 1000:.0f}-{high * 1000:.0f}",
                f"{ratio:.3f}",
                "-".join(f"{value:.3f}" for value in quartiles),
                f"{result['trainable']:,}",
                f"{result['state_bytes'] / 1e6:.1f}",
                f"{result['step_bytes'] / 1e6:.0f}",
            ]
        )
    note = (
        f"{given.layers} layers, hidden size {given.hidden}, {given.intermediate} neurons,"
        f" vocabulary {given.vocabulary}, {given.batch} x {given.length} tokens, {given.dtype} on"
        f" {given.device}, LoRA rank {given.rank}; {given.repeats} interleaved rounds; medians and"
        " quartiles; ratio to rows (to forward for the forward passes) in the same round. MB"
        " (decimal): state is trained parameters and AdamW's moments; peak is what three steps hold"
        " at most beyond what was held before them, in a process of its own. Logits, loss and"
        f" gradients of rows, mask and clone are apart from float64 by at most {apart:.0e} of the"
        f" largest value. Load average {load}."
    )
    header = ["route", "share", "ms", "quartiles", "ratio", "quartiles"]
    header += ["trained parameters", "state, MB", "peak, MB"]
    publish("selected_rows", table("Training step of chosen neurons", header, rows, note))
    settings = {key: value for key, value in vars(given).items() if key != "model"}
    found = {"machine": machine(), "settings": settings, "apart": apart, "routes": results}
    path = Path(RESULTS, "selected_rows.json")
    path.write_text(json.dumps(found | {"load": load}, indent=1) + "\n", encoding="utf-8")


def _route(base, route: str, chosen: list, rank: int):
    """Return the model of one route, and the trained tensors, site by site."""
    import torch
    from torch import nn

    from langneurons.models.sites import MlpSites
    from langneurons.training import lora
    from langneurons.training import neuron_weights as rows

    neurons = dict.fromkeys(SITES, chosen)
    if route == "forward":
        return base, []
    if route == "masked LoRA":
        model = lora.attach(base, (), neurons, lora.Size(rank, 2.0 * rank))
        return model, [p for p in model.parameters() if p.requires_grad]
    if route in ("rows", "forward, rows"):
        model = rows.attach(base, neurons)
        found = [getattr(MlpSites(base), site) for site in SITES]
        return model, [layer.values for layers in found for layer in layers]

    class Clone(nn.Module):
        """W with the trained rows or columns in a clone, multiplied with x."""

        def __init__(self, layer, index, dim: int):
            super().__init__()
            self.layer, self.index, self.dim = layer, index, dim
            self.in_features = layer.in_features
            self.values = nn.Parameter(layer.weight.detach().index_select(dim, index).float())

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            own = self.values.to(self.layer.weight.dtype)
            full = self.layer.weight.clone().index_copy(self.dim, self.index, own)
            return nn.functional.linear(x, full)

    trained = []
    for site in SITES:
        for k, layer in enumerate(getattr(MlpSites(base), site)):
            dim = int(site == "down")
            index = torch.from_numpy(chosen[k]).to(layer.weight.device)
            if route == "clone":
                made = Clone(layer, index, dim)
                setattr(base.model.layers[k].mlp, f"{site}_proj", made)
                trained.append(made.values)
                continue
            weight = layer.weight = nn.Parameter(layer.weight.detach().clone())
            line = torch.zeros(weight.shape[dim], 1, dtype=weight.dtype, device=weight.device)
            line[index] = 1
            keep = line.T if dim else line
            weight.register_hook(lambda gradient, keep=keep: gradient * keep)
            trained.append(weight)
    return base, trained


def _check(given) -> float:
    """Compare rows, mask and clone with mask in float64; return the largest difference."""
    import copy

    base, worst = shared._base(given, given.dtype, given.layers), 0.0
    exact = copy.deepcopy(base).double()
    tokens = shared._tokens(given, 2, min(given.length, 16))
    for share in given.shares:
        chosen = shared._chosen(given, share, given.layers)
        expected = _outcome(given, exact, "float64", "mask", chosen, tokens)
        for route in TRAINING[:3]:
            found = _outcome(given, base, given.dtype, route, chosen, tokens)
            for own, other in zip(found, expected, strict=True):
                apart = float((own - other).abs().max() / other.abs().max())
                if not apart <= shared.TOLERANCE[given.dtype]:
                    raise RuntimeError(f"{route}, share {share:g}: {apart:.1e} apart from float64")
                worst = max(worst, apart)
    return worst


def _outcome(given, base, dtype: str, route: str, chosen: list, tokens) -> list:
    """Return logits, loss and the gradients of the chosen neurons' weights, in float32."""
    import torch

    model, trained = _route(shared._sharing(base), route, chosen, given.rank)
    with shared._autocast(given, dtype):
        output = model(input_ids=tokens, labels=tokens)
    output.loss.backward()
    found = [output.logits.detach().float(), output.loss.detach().float()]
    for number, tensor in enumerate(trained):
        dim = int(number >= 2 * given.layers)
        index = torch.from_numpy(chosen[number % given.layers]).to(tokens.device)
        gradient = tensor.grad.float()
        if route == "mask":
            off = gradient.index_fill(dim, index, 0)
            if off.any():
                raise RuntimeError(f"{route}: a gradient off the chosen neurons")
            gradient = gradient.index_select(dim, index)
        # rows keeps a column of down as a row.
        found.append(gradient.T if dim and route == "rows" else gradient)
    return found


def _step(given, base, route: str, share: float, tokens):
    """Return a function that takes one step, and the optimiser."""
    import torch

    chosen = shared._chosen(given, share, given.layers)
    model, trained = _route(base, route, chosen, given.rank)
    optimiser = torch.optim.AdamW(trained, lr=1e-4, weight_decay=0.01) if trained else None
    autocast = shared._autocast(given, given.dtype)
    if route in FORWARD:

        def run() -> None:
            with torch.no_grad(), autocast:
                model(input_ids=tokens)

        return run, None

    def run() -> None:
        with autocast:
            loss = model(input_ids=tokens, labels=tokens).loss
        loss.backward()
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)

    return run, optimiser


def _time(given) -> list[dict]:
    """Let the routes take turns; return the seconds of each."""
    base = shared._base(given, given.dtype, given.layers)
    tokens = shared._tokens(given, given.batch, given.length)
    variants = {
        (route, share): _step(given, shared._sharing(base), route, share, tokens)[0]
        for share in given.shares
        for route in (*TRAINING, *FORWARD)
    }
    times = interleaved(variants, given.repeats)
    return [{"route": key[0], "share": key[1], "seconds": times[key]} for key in variants]


def _memory(given, route: str, share: float) -> dict:
    """Take a few steps; return bytes and numbers of parameters."""
    import torch

    shared._warm_up(given)
    base = shared._base(given, given.dtype, given.layers)
    tokens = shared._tokens(given, given.batch, given.length)
    run, optimiser = _step(given, base, route, share, tokens)
    on_gpu = given.device == "cuda"
    synchronize()
    if on_gpu:
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
    else:
        before = shared._forget_peak()
    for _ in range(shared.STEPS):
        run()
    synchronize()
    peak = torch.cuda.max_memory_allocated() if on_gpu else peak_memory()
    groups = optimiser.param_groups if optimiser else ()
    trained = [p for group in groups for p in group["params"]]
    states = optimiser.state.values() if optimiser else ()
    held = [*trained, *(value for state in states for value in state.values())]
    return {
        "trainable": sum(p.numel() for p in trained),
        "state_bytes": sum(value.nbytes for value in held),
        "step_bytes": peak - before,
    }


if __name__ == "__main__":
    main()
