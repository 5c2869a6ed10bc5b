"""A training step of neuron-masked LoRA, y = W x + (M * (B A)) x * alpha / r: seven routes.

Every route trains LoRA on q k v o of a Llama of random weights; on the gate projection:

    PEFT        LoRA on all neurons, no mask, in stock PEFT's own layers: the reference
    no LoRA     none on the gate projection: below it no route can come that trains there
    all         the same parameters in our layers (langneurons.training.lora.attach)
    rows        our layers; only the chosen rows of B exist
    rows, loss  the same, and the package's loss, which takes the head a block of tokens at a time
    dense mask  the formula as written: M * (B A) becomes a full matrix, multiplied with x
    masked B    B's rows times the mask, in torch.nn.utils.parametrize: B_masked (A x)

First the routes with a mask must agree with the formula as written in float64, from the same A and
B: logits, loss, the gradient of every A and of the chosen rows of B, the other rows' gradient being
zero; with all neurons chosen, so must PEFT's plain LoRA, and all. In float32 they may differ by
2e-5 of the largest value of a tensor, in bfloat16 by 5e-2. float32 is always checked (on at most
`--check-layers` layers), bfloat16 when it is what is timed.

Then all routes take turns in one process, on the same frozen weights: forward, backward, AdamW.
In bfloat16 this runs under autocast and the trained parameters are float32, as in the package's own
training. Last, each takes three steps in a process of its own, for the memory: the peak of these
steps above what was held before the first. On a CPU that is the process's resident memory, on a
GPU what PyTorch's allocator counts; mask or indices are held before the first step and are counted
apart. "PEFT, again" is the noise of both.

An 8B shape on a GPU (by its sizes about 40 GB; --check-layers and --shares make it less):

    benchmarks/masked_lora.py --device cuda --dtype bfloat16 --layers 32 --hidden 4096 \
        --intermediate 14336 --heads 32 --kv-heads 8 --batch 4 --length 512 --shares 0.00125 0.01
"""

import copy
import ctypes
import json
import logging
import os
import re
import warnings
from concurrent.futures import ProcessPoolExecutor
from contextlib import nullcontext
from multiprocessing import get_context
from pathlib import Path
from statistics import quantiles

from common import (
    RESULTS,
    interleaved,
    machine,
    median,
    parser,
    peak_memory,
    publish,
    set_threads,
    synchronize,
    table,
)

ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj")
MASKED = ("rows", "dense mask", "masked B")
FORMULA = "dense mask"
PLAIN, ALL, LOSS, FLOOR = "PEFT", "all", "rows, loss", "no LoRA"
OURS = (ALL, "rows", LOSS)
TOLERANCE = {"float32": 2e-5, "bfloat16": 5e-2}
STEPS = 3  # for the memory


def main() -> None:
    """Check that the routes agree, time them, measure their memory, print."""
    options = parser(__doc__)
    options.add_argument("--layers", type=int, default=4)
    options.add_argument("--hidden", type=int, default=1024)
    options.add_argument("--intermediate", type=int, default=3584, help="neurons of a layer")
    options.add_argument("--heads", type=int, default=16)
    options.add_argument("--kv-heads", type=int, default=8)
    options.add_argument("--vocabulary", type=int, default=1000)
    options.add_argument("--batch", type=int, default=4)
    options.add_argument("--length", type=int, default=128, help="tokens of a row")
    options.add_argument("--rank", type=int, default=8)
    options.add_argument("--shares", type=float, nargs="+", default=[0.00125, 0.01, 0.1, 1.0])
    options.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    options.add_argument("--dtype", default="float32", choices=list(TOLERANCE))
    options.add_argument("--check-layers", type=int, default=4, help="of the check in float32")
    given = options.parse_args()
    if not all(0 < share <= 1 for share in given.shares):
        options.error("--shares lie above 0 and up to 1")
    if given.device == "cpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""  # or synchronize() would wait for an idle GPU
    set_threads(given.threads)
    agreement = _child(_check, given, "float32", min(given.layers, given.check_layers))
    if given.dtype != "float32":
        agreement |= _child(_check, given, given.dtype, given.layers)
    before = os.getloadavg()[0]
    results = _child(_time, given)
    between = os.getloadavg()[0]
    for result in results:
        result |= _child(_memory, given, result["route"], result["share"])
    _report(given, agreement, results, f"{before:.1f} before and {between:.1f} after the timing")


def _child(function, *arguments):
    """Call a function in a fresh process: its peak memory is its own, and is given back."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn"), initializer=_quiet) as pool:
        return pool.submit(function, *arguments).result()


def _quiet() -> None:
    """Keep back what libraries say about themselves at every start."""
    warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")
    logging.getLogger("bitsandbytes").setLevel(logging.CRITICAL)


def _report(given, agreement: dict, results: list[dict], load: str) -> None:
    base = results[0]["seconds"]
    for result in results:
        result["ratios"] = [own / other for own, other in zip(result["seconds"], base, strict=True)]
        result["seconds_median"], result["seconds_quartiles"] = _spread(result["seconds"])
        result["ratio_median"], result["ratio_quartiles"] = _spread(result["ratios"])
    rows = []
    for result in results:
        low, high = (f"{value * 1000:.0f}" for value in result["seconds_quartiles"])
        rows.append(
            [
                result["label"],
                "" if result["share"] is None else f"{result['share']:g}",
                f"{result['seconds_median'] * 1000:.0f}",
                f"{low}-{high}",
                f"{result['ratio_median']:.3f}",
                "-".join(f"{value:.3f}" for value in result["ratio_quartiles"]),
                f"{result['trainable']:,}",
                f"{result['gate_trainable']:,}",
                f"{result['state_bytes'] / 1e6:.1f}",
                f"{result['mask_bytes'] / 1e6:.1f}",
                f"{result['step_bytes'] / 1e6:.0f}",
            ]
        )
    apart = ", ".join(f"{worst:.0e} in {dtype}" for dtype, worst in agreement.items())
    note = (
        f"{given.layers} layers, hidden size {given.hidden}, {given.intermediate} neurons,"
        f" vocabulary {given.vocabulary}, {given.batch} x {given.length} tokens, rank {given.rank},"
        f" {given.dtype} on {given.device}; {given.repeats} interleaved rounds; medians and"
        " quartiles; ratio to PEFT in the same round. MB (decimal): state is trained parameters"
        " and AdamW's moments; peak is what the steps hold at most beyond what was held before the"
        " first one, in a process of its own. Logits, loss and gradients of the masked routes are"
        f" apart from float64 by at most {apart} of the largest value. Load average {load}."
    )
    header = [
        "gate projection",
        "share",
        "ms",
        "quartiles",
        "ratio",
        "quartiles",
        "trained parameters",
        "of the gate",
        "state, MB",
        "mask, MB",
        "peak, MB",
    ]
    publish("masked_lora", table("Training step of masked LoRA", header, rows, note))
    settings = {key: value for key, value in vars(given).items() if key != "model"}
    found = {
        "machine": machine(),
        "settings": settings,
        "agreement": agreement,
        "load": load,
        "routes": results,
    }
    path = Path(RESULTS, "masked_lora.json")
    path.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


def _spread(values: list[float]) -> tuple[float, tuple[float, float]]:
    """Return the median, and the first and third quartile."""
    if len(values) == 1:
        return values[0], (values[0], values[0])
    low, _, high = quantiles(values, n=4, method="inclusive")
    return median(values), (low, high)


# ---- the routes


def _base(given, dtype: str, layers: int):
    """Return the frozen model, random weights from a fixed seed."""
    import torch
    from transformers import AutoModelForCausalLM, LlamaConfig

    config = LlamaConfig(
        vocab_size=given.vocabulary,
        hidden_size=given.hidden,
        intermediate_size=given.intermediate,
        num_hidden_layers=layers,
        num_attention_heads=given.heads,
        num_key_value_heads=given.kv_heads,
        max_position_embeddings=max(given.length, 16),
        use_cache=False,
        tie_word_embeddings=False,
    )
    torch.manual_seed(0)
    with torch.device(given.device):
        model = AutoModelForCausalLM.from_config(config, dtype=getattr(torch, dtype))
    return model.requires_grad_(False).train()


def _sharing(base):
    """Return a copy of the modules around the very same tensors."""
    tensors = [*base.parameters(), *base.buffers()]
    return copy.deepcopy(base, {id(tensor): tensor for tensor in tensors})


def _chosen(given, share: float, layers: int) -> list:
    """Return the chosen neurons of each layer, ascending."""
    import numpy as np

    generator = np.random.default_rng(0)
    number = max(1, round(share * given.intermediate))
    return [
        np.sort(generator.choice(given.intermediate, number, replace=False)) for _ in range(layers)
    ]


def _route(base, route: str, chosen: list | None, rank: int):
    """Return the model with LoRA of one route around the weights of `base`, and its gates."""
    import torch
    from torch.nn.utils import parametrize

    from langneurons.models.sites import MlpSites
    from langneurons.training.lora import Size, attach

    options = {"size": Size(rank, 2.0 * rank)}
    if route == FLOOR:
        return attach(base, ATTENTION, **options), []
    if route in ("rows", LOSS):
        model = attach(base, ATTENTION, {"gate": chosen}, **options)
        return model, list(MlpSites(model).gate)
    model = attach(base, (*ATTENTION, "gate_proj"), **options)
    if route not in OURS:
        for layer in model.modules():
            if hasattr(layer, "lora_A"):
                del layer.forward  # PEFT's own is beneath
    layers, gates = MlpSites(model), []
    for k, gate in enumerate(layers.gate):
        if route not in (PLAIN, ALL):
            weight = gate.lora_B["default"].weight
            keep = torch.zeros(len(weight), 1, dtype=weight.dtype, device=weight.device)
            keep[torch.from_numpy(chosen[k]).to(weight.device)] = 1
        if route == "masked B":
            parametrize.register_parametrization(
                gate.lora_B["default"], "weight", _reference("MaskedRows")(keep)
            )
        elif route == "dense mask":
            gate = _reference("DenseMask")(gate, keep)
            model.get_base_model().model.layers[k].mlp.gate_proj = gate
        gates.append(gate)
    return model, gates


def _reference(name: str):
    """Return a class of the reference routes (torch may be imported only after the threads)."""
    import torch
    from torch import nn

    class DenseMask(nn.Module):
        """W x + (M * (B A)) x * alpha / r, M and the product being full matrices."""

        def __init__(self, gate, keep: torch.Tensor):
            super().__init__()
            self.base_layer, self.scale = gate.base_layer, gate.scaling["default"]
            self.lora_A, self.lora_B = gate.lora_A, gate.lora_B
            # In the dtype of W, so that under autocast no product is in float32.
            keep = keep.to(gate.get_base_layer().weight.dtype)
            mask = keep.expand(-1, gate.in_features).contiguous()
            self.register_buffer("mask", mask, persistent=False)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            full = self.mask * (self.lora_B["default"].weight @ self.lora_A["default"].weight)
            added = nn.functional.linear(x, full) * self.scale
            result = self.base_layer(x)
            return result + added.to(result.dtype)

    class MaskedRows(nn.Module):
        """Multiply the rows of B."""

        def __init__(self, keep: torch.Tensor):
            super().__init__()
            self.register_buffer("mask", keep, persistent=False)

        def forward(self, weight: torch.Tensor) -> torch.Tensor:
            return weight * self.mask

    return {"DenseMask": DenseMask, "MaskedRows": MaskedRows}[name]


def _half(gate):
    """Return the trained B of a gate: the chosen rows, or all."""
    half = gate.lora_B["default"]
    if hasattr(half, "parametrizations"):
        return half.parametrizations.weight.original
    return half.weight


def _tokens(given, batch: int, length: int):
    import torch

    generator = torch.Generator().manual_seed(0)
    return torch.randint(given.vocabulary, (batch, length), generator=generator).to(given.device)


def _autocast(given, dtype: str):
    """Return what the package's training runs under: autocast if the weights are bfloat16."""
    import torch

    if dtype != "bfloat16":
        return nullcontext()
    return torch.autocast(given.device, dtype=getattr(torch, dtype))


# ---- agreement


def _check(given, dtype: str, layers: int) -> dict[str, float]:
    """Compare the routes from the same A and B, none zero; return the largest difference."""
    base = _base(given, dtype, layers)
    exact = copy.deepcopy(base).double()
    tokens, worst = _tokens(given, 2, min(given.length, 16)), 0.0
    for share in given.shares:
        chosen = _chosen(given, share, layers)
        whole = len(chosen[0]) == given.intermediate
        expected = _outcome(given, "float64", exact, FORMULA, chosen, tokens)
        for route in (*MASKED, PLAIN, ALL) if whole else MASKED:
            found = _outcome(given, dtype, base, route, chosen, tokens)
            if found.keys() != expected.keys():
                raise RuntimeError(f"{route}: other gradients than {FORMULA}")
            for name, value in found.items():
                apart = float((value - expected[name]).abs().max() / expected[name].abs().max())
                # Written so that a comparison with NaN fails.
                if not apart <= TOLERANCE[dtype]:
                    raise RuntimeError(
                        f"{route}, share {share:g}, {dtype}: {name} differs from {FORMULA} in"
                        f" float64 by {apart:.1e} of the largest value"
                    )
                worst = max(worst, apart)
    return {dtype: worst}


def _outcome(given, dtype: str, base, route: str, chosen: list, tokens) -> dict:
    """Return logits, loss and gradients, of a gate's B those of the chosen rows, in float32."""
    import torch

    model, gates = _route(_sharing(base), route, chosen, given.rank)
    generator = torch.Generator().manual_seed(1)
    halves = {id(_half(gate)): rows for gate, rows in zip(gates, chosen, strict=True)}
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name and "gate_proj" not in name:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.1)
        for gate, rows in zip(gates, chosen, strict=True):
            full = torch.randn(given.intermediate, given.rank, generator=generator) * 0.1
            _half(gate).copy_(full[torch.from_numpy(rows)] if route == "rows" else full)
    with _autocast(given, dtype):
        output = model(input_ids=tokens, labels=tokens)
    output.loss.backward()
    found = {"logits": output.logits.detach().float(), "loss": output.loss.detach().float()}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        gradient = parameter.grad.float()
        rows = halves.get(id(parameter))
        if rows is not None and route != "rows":
            off = torch.ones(len(gradient), dtype=torch.bool)
            off[torch.from_numpy(rows)] = False
            if route not in (PLAIN, ALL) and gradient[off.to(gradient.device)].any():
                raise RuntimeError(f"{route}: rows off the mask of {name} have a gradient")
            gradient = gradient[torch.from_numpy(rows).to(gradient.device)]
        if not gradient.any():
            raise RuntimeError(f"{route}: the gradient of {name} is zero")
        found[re.sub(r"parametrizations\.weight\.original$", "weight", name)] = gradient
    return found


# ---- time and memory


def _variants(given) -> list[tuple[str, str, float | None]]:
    """Return label, route, share."""
    result: list = [(PLAIN, PLAIN, None), (f"{PLAIN}, again", PLAIN, None)]
    result += [(FLOOR, FLOOR, None), (ALL, ALL, None)]
    routes = [("rows", "rows"), (LOSS, LOSS)] + [(route, route) for route in MASKED[1:]]
    return result + [(*names, share) for share in given.shares for names in routes]


def _trainer(given, base, route: str, share: float | None, tokens):
    """Return a function that takes one step, the model and the optimiser."""
    import torch

    from langneurons.models.sites import MlpSites
    from langneurons.scoring.losses import token_loss

    chosen = None if share is None else _chosen(given, share, base.config.num_hidden_layers)
    model, gates = _route(base, route, chosen, given.rank)
    trained = [p for p in model.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(trained, lr=1e-4, weight_decay=0.1)
    autocast = _autocast(given, given.dtype)

    mask = torch.ones_like(tokens)

    def step() -> None:
        with autocast:
            if route == LOSS:
                loss = token_loss(MlpSites(model), tokens, mask, tokens)[0] / tokens[:, 1:].numel()
            else:
                loss = model(input_ids=tokens, labels=tokens).loss
        loss.backward()
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)

    return step, model, gates, optimiser


def _time(given) -> list[dict]:
    """Let the variants take turns on the same frozen weights; return the seconds of each."""
    base = _base(given, given.dtype, given.layers)
    tokens = _tokens(given, given.batch, given.length)
    variants = {
        (label, share): (_trainer(given, _sharing(base), route, share, tokens)[0], route)
        for label, route, share in _variants(given)
    }
    times = interleaved({key: step for key, (step, _) in variants.items()}, given.repeats)
    return [
        {"label": key[0], "route": route, "share": key[1], "seconds": times[key]}
        for key, (_, route) in variants.items()
    ]


def _memory(given, route: str, share: float | None) -> dict:
    """Take a few steps; return bytes and numbers of parameters."""
    import torch

    _warm_up(given)
    base = _base(given, given.dtype, given.layers)
    tokens = _tokens(given, given.batch, given.length)
    step, model, gates, optimiser = _trainer(given, base, route, share, tokens)
    on_gpu = given.device == "cuda"
    synchronize()
    if on_gpu:
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
    else:
        before = _forget_peak()
    for _ in range(STEPS):
        step()
    synchronize()
    peak = torch.cuda.max_memory_allocated() if on_gpu else peak_memory()
    trained = [p for p in model.parameters() if p.requires_grad]
    held = [*trained, *(v for s in optimiser.state.values() for v in s.values())]
    extra = [
        value
        for name, value in model.named_buffers()
        if name.rsplit(".", 1)[-1] in ("mask", "index")
    ]
    in_gates = [p for gate in gates for p in gate.parameters() if p.requires_grad]
    return {
        "trainable": sum(p.numel() for p in trained),
        "gate_trainable": sum(p.numel() for p in in_gates),
        "state_bytes": sum(value.nbytes for value in held),
        "mask_bytes": sum(value.nbytes for value in extra),
        "held_bytes": before,
        "step_bytes": peak - before,
    }


def _warm_up(given) -> None:
    """Train a tiny model once, so that libraries, threads and workspaces are there already."""
    tiny = copy.copy(given)
    tiny.hidden, tiny.intermediate, tiny.layers = 64, 96, 1
    tiny.heads, tiny.kv_heads, tiny.vocabulary, tiny.rank = 4, 2, 50, 2
    for route in (PLAIN, ALL, LOSS, *MASKED):
        base = _base(tiny, tiny.dtype, 1)
        _trainer(tiny, base, route, 0.5, _tokens(tiny, 2, 8))[0]()


def _forget_peak() -> int:
    """Set the peak of the resident memory back to what is held now (Linux), and return it.

    Where that cannot be done, the peak so far is what the steps must exceed.
    """
    try:
        ctypes.CDLL(None).malloc_trim(0)  # freed but kept, it would hide what the steps take
        Path("/proc/self/clear_refs").write_text("5")
    except (AttributeError, OSError):
        pass
    return peak_memory()


if __name__ == "__main__":
    main()
