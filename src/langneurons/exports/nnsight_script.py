"""A plan as a script for nnsight, with every index and value in it.

nnsight runs what the script writes inside the model's own forward pass. So every operation is
exported, also one that no LoRA can be. A value of the layer itself is not, and neither are writes
at some tokens only.
"""

import json
from pathlib import Path

from langneurons.base.errors import InputError
from langneurons.base.io import write_text
from langneurons.exports.scaling import check_everywhere, check_experts
from langneurons.interventions.hooks import check_depth
from langneurons.interventions.plan import Plan
from langneurons.models.language_model import LanguageModel

# Sites in the order in which a forward pass comes to them.
SITES = ("gate", "act", "product", "residual")
SCRIPT = '''"""A plan of langneurons, with nnsight 0.8 and later: python SCRIPT PROMPT."""

import sys

import torch
from nnsight import TransformersModel

ABOUT = {about}
MODEL, REVISION = {model}, {revision}
# Module, side, operation, coefficient, index, value; in the order of the forward pass.
WRITES = [
{writes}
]


def module(model, path):
    """Return the module of a dotted path."""
    for part in path.split("."):
        model = model[int(part)] if part.isdigit() else getattr(model, part)
    return model


def steer(model):
    """Write the plan; call it inside a trace, before anything later is read."""
    for path, side, operation, coefficient, index, value in WRITES:
        place = module(model, path)
        found = place.output if side == "output" else place.input
        values = found[0] if isinstance(found, tuple) else found
        old = values[..., index]
        new = torch.tensor(value, dtype=old.dtype, device=old.device)
        if operation == "add":
            new = old + new
        elif operation == "scale":
            new = old * new
        elif operation == "at_least":
            new = old.maximum(new)
        elif operation == "at_most":
            new = old.minimum(new)
        elif operation == "project_out":
            wide, unit = old.double(), torch.tensor(value, dtype=torch.float64, device=old.device)
            along = (wide * unit).sum(-1, keepdim=True)
            new = (wide - coefficient * along * unit).to(old.dtype)
        values[..., index] = new


if __name__ == "__main__":
    prompt = sys.argv[1] if len(sys.argv) > 1 else "The"
    model = TransformersModel(MODEL, revision=REVISION, task="text-generation")
    with model.trace(prompt):
        untouched = {head}.output.save()
    with model.trace(prompt):
        steer(model)
        steered = {head}.output.save()
    print(ABOUT)
    for name, logits in (("untouched", untouched), ("steered", steered)):
        best = logits[0, -1].topk(5).indices.tolist()
        print(name, [model.tokenizer.decode([token]) for token in best])
'''


def write_script(path: Path, plan: Plan, model: LanguageModel, about: str) -> None:
    """Write the script of a plan; about: what it is, in a line.

    Raises:
        InputError: The plan writes nothing, at some tokens only, or a value of the layer.
    """
    known = model.known_as
    revision = known.get("revision") or ""
    head = _names(model)[id(model.head)]
    filled = {
        "about": json.dumps(about),
        "model": json.dumps(known["model"]),
        "revision": json.dumps(revision) if len(revision) == 40 else "None",
        "writes": "\n".join(script_lines(plan, model)),
        "head": f"model.{head}",
    }
    write_text(path, SCRIPT.format(**filled))


def script_lines(plan: Plan, model: LanguageModel) -> list[str]:
    """Return the lines of WRITES."""
    sites, names = model.sites, _names(model)
    check_depth(sites, plan)
    check_experts(plan, sites, "the script")
    if plan.empty:
        raise InputError(
            f"plan {plan.name!r} changes nothing, so that there is nothing to export; name a"
            " language that has neurons."
        )
    lines = []
    for write in sorted(plan.writes, key=lambda one: (one.layer, SITES.index(one.site))):
        check_everywhere(plan.name, write, "the script")
        place = {
            "gate": sites.act,
            "act": sites.act,
            "product": sites.down,
            "residual": sites.layers,
        }[write.site][write.layer]
        width = sites.d_model if write.site == "residual" else sites.d_mlp
        if len(write.index) and int(write.index.max()) >= width:
            raise InputError(
                f"plan {plan.name!r} writes number {int(write.index.max())} of {width} at site"
                f" {write.site}; it is a plan of another model."
            )
        side = "output" if write.site in ("act", "residual") else "input"
        parts = (names[id(place)], side, write.operation, write.amount)
        values = [*parts, write.index.tolist(), write.value.tolist()]
        lines.append(f"    ({', '.join(json.dumps(one) for one in values)}),")
    return lines


def _names(model: LanguageModel) -> dict[int, str]:
    return {id(module): name for name, module in model.model.named_modules()}
