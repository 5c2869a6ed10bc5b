"""The files of a shared adapter: a LoRA in PEFT's form (docs/format.md, Adapters)."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from langneurons.base.errors import InputError
from langneurons.base.io import METADATA_KEY, atomic, read_json, write_json
from langneurons.sharing.headers import AdapterHeader, header_of
from langneurons.sharing.tensors import check_start

if TYPE_CHECKING:
    import torch

NAME = "adapter_model.safetensors"
CONFIG = "adapter_config.json"
PREFIX = "base_model.model."


def write_adapter(
    folder: Path,
    pairs: "Mapping[str, tuple[torch.Tensor, torch.Tensor]]",
    header: AdapterHeader,
    transposed: bool,
) -> list[str]:
    """Write the two files into a folder; return their names.

    pairs: A (rank, d_mlp) and B (d_model, rank) by the module's name; transposed: whether the
    module stores its weight as (d_mlp, d_model).
    """
    from safetensors.torch import save_file

    arrays = {}
    for module, (a, b) in pairs.items():
        arrays[f"{PREFIX}{module}.lora_A.weight"] = a.contiguous()
        arrays[f"{PREFIX}{module}.lora_B.weight"] = b.contiguous()
    text = json.dumps(header.plain(), sort_keys=True, ensure_ascii=False)
    with atomic(folder / NAME) as temporary:
        save_file(arrays, temporary, metadata={METADATA_KEY.decode(): text})
    write_json(folder / CONFIG, peft_config(header, transposed))
    return [NAME, CONFIG]


def peft_config(header: AdapterHeader, transposed: bool) -> dict[str, Any]:
    """Return what PEFT reads of an adapter."""
    revision = header.revision or ""
    return {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": header.model,
        "revision": revision if len(revision) == 40 else None,
        "r": header.rank,
        "lora_alpha": header.rank,
        "lora_dropout": 0.0,
        "target_modules": list(header.modules),
        "fan_in_fan_out": transposed,
        "bias": "none",
        "inference_mode": True,
        "modules_to_save": None,
        "use_dora": False,
        "use_rslora": False,
    }


def read_adapter(
    folder: Path,
) -> "tuple[dict[str, tuple[torch.Tensor, torch.Tensor]], AdapterHeader]":
    """Return A (rank, d_mlp) and B (d_model, rank) by the module's name, and the header.

    Raises:
        InputError: The files are damaged, misshapen, not finite, disagree, or A picks other than
            single neurons.
    """
    import torch
    from safetensors import SafetensorError, safe_open

    path = folder / NAME
    check_start(path)
    try:
        with safe_open(path, framework="pt") as opened:
            text = (opened.metadata() or {}).get(METADATA_KEY.decode(), "null")
            arrays = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
        content = json.loads(text)
    except (OSError, ValueError, SafetensorError) as error:
        raise InputError(f"{path}: cannot be read ({str(error).splitlines()[0]}).") from None
    header = header_of(content, str(path), "adapters")
    assert isinstance(header, AdapterHeader)
    shapes = {"A": (header.rank, header.d_mlp), "B": (header.d_model, header.rank)}
    wanted = {
        f"{PREFIX}{module}.lora_{half}.weight": shape
        for module in header.modules
        for half, shape in shapes.items()
    }
    found = {name: tuple(one.shape) for name, one in arrays.items()}
    for name in sorted({*wanted, *found}):
        if wanted.get(name) != found.get(name):
            raise InputError(
                f"{path}: {name} has the shape {found.get(name, 'nothing')}; the header says"
                f" {wanted.get(name, 'nothing')}."
            )
    picked = 0
    for name, one in arrays.items():
        if not torch.isfinite(one).all():
            raise InputError(f"{path}: {name} is not finite everywhere.")
        if ".lora_A." in name:
            rows = one.count_nonzero(dim=1)
            picked += int(rows.sum())
            if rows.max() > 1 or not torch.equal(one, one.ne(0).to(one.dtype)):
                raise InputError(f"{path}: a row of {name} does not pick one neuron.")
    if picked != header.neurons:
        raise InputError(f"{path}: it scales {picked} neurons; the header says {header.neurons}.")
    _check_config(folder / CONFIG, header)
    pairs = {
        module: (
            arrays[f"{PREFIX}{module}.lora_A.weight"],
            arrays[f"{PREFIX}{module}.lora_B.weight"],
        )
        for module in header.modules
    }
    return pairs, header


def _check_config(path: Path, header: AdapterHeader) -> None:
    """Refuse a configuration of PEFT that is not the one of the header."""
    given = read_json(path)
    wanted = peft_config(header, bool(given.get("fan_in_fan_out")))
    for key in sorted({*given, *wanted}):
        if given.get(key) != wanted.get(key):
            raise InputError(
                f"{path}: {key} is {given.get(key)!r}; the header asks for {wanted.get(key)!r}."
            )
