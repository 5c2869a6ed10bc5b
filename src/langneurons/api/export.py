"""Plans in the formats of tools that run them without hooks (docs/exports.md)."""

import json
import logging
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast, get_args

import numpy as np

from langneurons.api.models import EMBEDDED
from langneurons.base.errors import InputError, unknown
from langneurons.exports import gguf_files, nnsight_script, steering
from langneurons.exports.lora import VLLM_RANKS, Lora, lora_of, vllm_rank
from langneurons.exports.streams import stream_writes
from langneurons.interventions.plan import Plan
from langneurons.models.language_model import LanguageModel
from langneurons.selection.table import NeuronTable
from langneurons.sharing.card import table
from langneurons.sharing.folder import check_free, write_folder
from langneurons.sharing.headers import (
    FORMAT,
    LIBRARY,
    UNKNOWN,
    VERSION,
    AdapterHeader,
    header_of,
)

log = logging.getLogger(__name__)

Format = Literal["lora", "gguf-lora", "steer", "control-vector", "nnsight"]
SUFFIXES = {
    "lora": "",
    "gguf-lora": ".gguf",
    "steer": ".pt",
    "control-vector": ".gguf",
    "nnsight": ".py",
}


@dataclass(frozen=True)
class Exported:
    """What was written for a language: where, what, the rank of a LoRA (None of other formats)."""

    path: Path
    what: str
    rank: int | None = None


def export(
    model: LanguageModel,
    plans: Mapping[str, Plan],
    folder: str | os.PathLike[str],
    to: Format = "lora",
    neurons: NeuronTable | None = None,
    license: str | None = None,
) -> dict[str, Exported]:
    """Write plans for tools that run them without hooks; return what was written by language.

    Every plan is checked before anything is written. docs/exports.md lists the formats, what each
    can hold, and how exact it is.

    Args:
        model: The model, in the precision whose weights are exported.
        plans: A plan for each language, by `plan`.
        folder: Where `{language}` is written: a folder of PEFT (`lora`), a file .gguf, .pt or .py.
        to: `lora`: a LoRA for PEFT, vLLM and others; `gguf-lora`: the same for llama.cpp; `steer`:
            `steer_path` of the EleutherAI harness; `control-vector`: of llama.cpp; `nnsight`: a
            script.
        neurons: What the plans were made from, which the card of a LoRA names.
        license: Licence for the card of a LoRA, as the hub names it.

    Raises:
        ValueError: The format cannot hold what a plan writes; the error says why and what can be
            exported. Or the neurons are of another model, or a file is there already.

    Example:
        >>> import langneurons as ln
        >>> import tempfile
        >>> model = ln.load("gemma3-270m")
        >>> statistics = ln.collect(model, ln.mini_texts(["fr", "vi"], 30))
        >>> neurons = ln.select(statistics, "lape", rate=0.01)
        >>> plans = {"vi": ln.plan(neurons, "vi", "set", 0)}
        >>> found = ln.export(model, plans, tempfile.mkdtemp(), "lora", neurons)
        >>> found["vi"].rank == max(map(len, neurons.indices("vi")))
        True
    """
    if to not in SUFFIXES:
        raise unknown("export: to", to, "format", get_args(Format))
    if not plans:
        raise InputError("export: plans is empty; give a plan for each language.")
    if neurons is not None:
        _check_model(neurons, model)
    folder = Path(folder)
    for one in (folder, *folder.parents):
        if one.exists() and not one.is_dir():
            raise InputError(f"{one}: it is a file; name a folder.")
    paths = {lang: folder / f"{_file_name(lang)}{SUFFIXES[to]}" for lang in plans}
    for path in paths.values():
        if to == "lora":
            check_free(path, "adapters")
        elif path.exists():
            raise InputError(f"{path}: it is there already; name a new folder.")
    writers = {
        lang: _FORMATS[to](model, plan, lang, neurons, license) for lang, plan in plans.items()
    }
    return {lang: write(paths[lang]) for lang, write in writers.items()}


Writer = Callable[[Path], Exported]


def _lora(
    model: LanguageModel, plan: Plan, lang: str, neurons: NeuronTable | None, license: str | None
) -> Writer:
    lora = _of_rank(model, plan, lang)
    header = _header(lora, plan, lang, neurons)

    def write(path: Path) -> Exported:
        write_folder(
            path,
            header,
            lambda made: lora.write(made, header),
            lambda _made: False,
            lambda _drawn: _body(lora, header),
            license,
        )
        return Exported(path, _scaled(lora), lora.rank)

    return write


def _gguf_lora(
    model: LanguageModel, plan: Plan, lang: str, neurons: NeuronTable | None, license: str | None
) -> Writer:
    lora = _of_rank(model, plan, lang)
    gguf_files.architecture(model)

    def write(path: Path) -> Exported:
        gguf_files.write_lora(path, lora, f"{model.known_as['model']}, {lang}, {plan.name}")
        return Exported(path, _scaled(lora), lora.rank)

    return write


def _steer(
    model: LanguageModel, plan: Plan, lang: str, neurons: NeuronTable | None, license: str | None
) -> Writer:
    entries = steering.steering(stream_writes(plan, model.sites), model)

    def write(path: Path) -> Exported:
        steering.write_steering(path, entries)
        return Exported(path, f"vectors of {len(entries)} layers")

    return write


def _control_vector(
    model: LanguageModel, plan: Plan, lang: str, neurons: NeuronTable | None, license: str | None
) -> Writer:
    vectors = gguf_files.control_vectors(stream_writes(plan, model.sites), plan.name)
    gguf_files.architecture(model)

    def write(path: Path) -> Exported:
        gguf_files.write_control_vector(path, vectors, model)
        return Exported(path, f"vectors of {len(vectors)} layers")

    return write


def _nnsight(
    model: LanguageModel, plan: Plan, lang: str, neurons: NeuronTable | None, license: str | None
) -> Writer:
    lines = nnsight_script.script_lines(plan, model)

    def write(path: Path) -> Exported:
        about = f"{plan.name}: {lang} in {model.known_as['model']}, written by {LIBRARY}"
        nnsight_script.write_script(path, plan, model, about)
        return Exported(path, f"{len(lines)} writes")

    return write


_FORMATS: dict[str, Callable[..., Writer]] = {
    "lora": _lora,
    "gguf-lora": _gguf_lora,
    "steer": _steer,
    "control-vector": _control_vector,
    "nnsight": _nnsight,
}


def _file_name(lang: str) -> str:
    if not re.fullmatch(r"\w[\w@+.-]*", lang):
        raise InputError(f"export: {lang!r} cannot be the name of a file; give a language code.")
    return lang


def _of_rank(model: LanguageModel, plan: Plan, lang: str) -> Lora:
    """Return the LoRA of a plan; warn of a rank that vLLM does not take."""
    lora = lora_of(plan, model)
    if vllm_rank(lora.rank) is None:
        log.warning(
            "%s: rank %d is above %d, the largest that vLLM takes; PEFT and llama.cpp take it",
            lang,
            lora.rank,
            VLLM_RANKS[-1],
        )
    return lora


def _scaled(lora: Lora) -> str:
    return f"{lora.neurons} neurons in {len(lora.scaled)} layers"


def _check_model(neurons: NeuronTable, model: LanguageModel) -> None:
    """Refuse neurons of another model, as far as they name theirs."""
    known: dict[str, Any] = {key: model.known_as.get(key) for key in ("model", "revision")}
    known["n_layers"] = model.n_layers
    wide = neurons.units == "dimensions"
    known |= {"width": model.sites.d_model} if wide else {"d_mlp": model.d_mlp}
    for key, value in known.items():
        given = neurons.metadata.get(key)
        if given is not None and given != value:
            raise InputError(
                f"export: the neurons are of {key} {given!r}, the model has {value!r}; load the"
                " model that they were found in."
            )


def _header(lora: Lora, plan: Plan, lang: str, neurons: NeuronTable | None) -> AdapterHeader:
    model = lora.model
    metadata = {} if neurons is None else neurons.metadata
    content: dict[str, Any] = {key: metadata.get(key) for key in UNKNOWN}
    for key in ("tokens", "corpora", "statistics"):
        content[key] = {lang: content[key][lang]} if lang in (content[key] or {}) else None
    known = model.known_as
    content |= {key: known.get(key) for key in ("revision", "dtype", "quantization")}
    content |= {
        "format": FORMAT,
        "version": VERSION,
        "kind": "adapters",
        "library": LIBRARY,
        "model": known["model"],
        "n_layers": model.n_layers,
        "d_mlp": model.d_mlp,
        "d_model": model.sites.d_model,
        "languages": [lang],
        "method": metadata.get("method", "not known"),
        "parameters": _parameters(metadata),
        "plan": plan.name,
        "neurons": lora.neurons,
        "rank": lora.rank,
        "modules": [lora.modules[layer] for layer in lora.scaled],
    }
    return cast(AdapterHeader, header_of(content, "export", "adapters"))


def _parameters(metadata: Mapping[str, Any]) -> dict[str, Any]:
    return json.loads(metadata.get("parameters", "{}"))


def _loading(header: AdapterHeader) -> list[str]:
    """Return the lines that load the model of a LoRA."""
    packages = {source.package: name for name, source in EMBEDDED.items()}
    if header.model in packages:
        return [
            "import langneurons as ln",
            f'model = ln.load("{packages[header.model]}").model',
        ]
    commit = header.revision or ""
    revision = f', revision="{commit}"' if len(commit) == 40 else ""
    return [
        "import transformers",
        f'model = transformers.AutoModelForCausalLM.from_pretrained("{header.model}"{revision})',
    ]


def _body(lora: Lora, header: AdapterHeader) -> list[str]:
    """Return the lines of a LoRA's card."""
    lang, model = header.languages[0], header.model
    revision = f" at revision `{header.revision}`" if header.revision else ""
    given = ", ".join(f"{key}: {one}" for key, one in sorted(header.parameters.items()))
    every = np.concatenate([factor for _, factor in lora.scaled.values()])
    spread = f"{every.min():g}" if np.ptp(every) == 0 else f"{every.min():g} to {every.max():g}"
    largest = vllm_rank(header.rank)
    served = f"`--max-lora-rank {largest}`" if largest else "no rank of vLLM is large enough"
    rows = [[layer, len(index)] for layer, (index, _) in lora.scaled.items()]
    return [
        f"# Neurons of {lang} in {model}: {header.plan}",
        "",
        f"This LoRA does what `{header.plan}` on the neurons of `{lang}` does: it multiplies what"
        f" {header.neurons} neurons of the MLPs write by {spread}.",
        "It was computed from the weights. It was not trained.",
        "",
        f"Model: `{model}`{revision}, {header.n_layers} layers of {header.d_mlp} neurons.",
        f"Neurons: method `{header.method}`. Parameters: {given or 'none'}.",
        f"Rank: {header.rank}, alpha: {header.rank}. vLLM: {served}.",
        "",
        "## Neurons by layer",
        "",
        *table(["layer", "neurons"], rows),
        "",
        "## Load",
        "",
        "```python",
        "import peft",
        *_loading(header),
        'model = peft.PeftModel.from_pretrained(model, "owner/name")',
        "```",
        "",
        "`owner/name` is the repository of this card, or the path of its folder.",
    ]
