"""Sizes that a configuration asks for, against those of its models: layers, lengths, memory."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from langneurons.base.errors import ConfigError
from langneurons.base.paths import user_path
from langneurons.base.shipped import PROJECT, definition_file, project_file
from langneurons.base.yaml import read_yaml
from langneurons.config.config import Config
from langneurons.evaluation.definition import load_task
from langneurons.models import geometry
from langneurons.models.families import NO_GGUF, NO_NF4
from langneurons.models.needs import has_experts, layer_errors, module_errors, no_training, unread
from langneurons.models.settings import LocalSource

SIZES = "config/plan.yaml"
PROMPT = 2  # tokens of the shortest prompt: what begins a text, and one more


def known_sizes() -> Mapping[str, Any]:
    """Return the sizes of known models and data sets."""
    path = PROJECT / SIZES
    return read_yaml(path) if path.is_file() else {}


def depths(config: Config, work: Path = Path()) -> dict[str, int]:
    """Return the number of layers of every model of which it is known."""
    found, table = {}, known_sizes().get("models", {})
    for name, entry in config.models.items():
        for folder in geometry.folders(name, entry.source, work):
            layers = geometry.depth(folder)
            if layers is not None:
                found[name] = layers
                break
        else:
            known = geometry.read(name, entry.source, table, work)
            if known is not None:
                found[name] = known.layers
    return found


def deepest_layers(config: Config, model: str) -> dict[str, int]:
    """Return, by the key of the configuration, the deepest layer that it names of a model."""
    found: dict[str, int] = {}
    used, swept = _used_interventions(config, model), config.swept()
    for name, entry in config.interventions.items():
        if (entry.models is not None and model not in entry.models) or name not in used:
            continue
        sweep = swept.get(name)
        key = f"interventions.{sweep}.sweep" if sweep else f"interventions.{name}.layers"
        for step in entry.steps:
            if step.layers is not None:
                found[key] = max(found.get(key, 0), step.layers[1])
    return found


def _used_interventions(config: Config, model: str) -> set[str]:
    used = {name for _, _, name in config.perplexity_cells(model)}
    used |= {name for _, _, name in config.lss_cells(model)}
    for analysis in ("forcing", "fallback"):
        used |= {name for _, _, name in config.generation_cells(model, analysis)}
    for rows in config.lens_cells(model).values():
        used |= {name for _, name, _ in rows}
    for task in config.tasks.values():
        used |= set(config.usable(task, model))
    for method in config.trials.methods.values() if config.trials else ():
        used |= set(method.interventions)
    for own in config.answers.methods.values() if config.answers else ():
        used |= {*own.interventions, *(own.paper.interventions if own.paper else ())}
    return used


def lora_modules(config: Config, model: str) -> dict[str, str]:
    """Return the linear layers that fine-tunings of a model train, each with its key."""
    found: dict[str, str] = {}
    for name in dict.fromkeys(one.finetuning for one in config.adapters(model).values()):
        for protocol in config.protocols.values():
            training = config.finetunings[name].under(protocol).training
            for module in training.modules if training.parameters == "lora" else ():
                found.setdefault(module, f"finetunings.{name}.training.modules")
    return found


def check_modules(config: Config, work: Path) -> Iterator[tuple[str, str]]:
    """Yield the linear layers that are trained and that a model does not have."""
    for model, entry in config.models.items():
        modules = lora_modules(config, model)
        for folder in geometry.folders(model, entry.source, work) if modules else ():
            if (folder / "config.json").is_file():
                for reason in module_errors(model, folder, modules):
                    yield reason.split(":")[0], reason
                break


def trained_neurons(config: Config, model: str) -> Iterator[str]:
    """Yield the keys by which chosen neurons of a model are trained."""
    for one in config.adapters(model).values():
        if one.choice != "none":
            yield f"finetunings.{one.finetuning}.neurons"


def check_experts(config: Config, work: Path) -> Iterator[tuple[str, str]]:
    """Yield models that cannot be read, and what is asked of experts, or of a model without."""
    table = known_sizes().get("models", {})
    for model, entry in config.models.items():
        source, key = entry.source, f"models.{model}"
        if source.kind == "gguf" and source.path is not None:
            path = user_path(source.path)
            if path.is_file() and geometry.gguf_experts(path):
                yield f"{key}.source.path", f"{key}.source.path: {NO_GGUF.format(model=key)}"
        if isinstance(source, LocalSource):
            reason = unread(user_path(source.path))
            if reason is not None:
                yield f"{key}.source.path", f"{key}.source.path: {source.path!r}: {reason}"
                continue
        folders = geometry.folders(model, source, work)
        there = next((one for one in folders if (one / "config.json").is_file()), None)
        size = geometry.read(model, source, table, work)
        if size is None and there is None:
            continue
        if there is not None and has_experts(there) or size is not None and size.experts:
            if entry.quantization == "nf4":
                yield f"{key}.quantization", f"{key}.quantization: {NO_NF4.format(model=key)}"
            for own in dict.fromkeys(trained_neurons(config, model)):
                yield own, f"{own}: {no_training(model)}"
        else:
            for name in dict.fromkeys(name for _, name in config.cells(model)):
                if config.selections[name].method == "experts":
                    own = f"selections.{name}"
                    yield own, f"{own}: its method reads experts, and {key} has none."


def needed_layers(config: Config, model: str) -> int:
    """Return the number of layers that the interventions of a model need; 0 without any."""
    return max(deepest_layers(config, model).values(), default=-1) + 1


def check_masks(config: Config, work: Path) -> Iterator[tuple[str, str]]:
    """Yield the selections whose `neurons_per_layer` is not the model's."""
    table = known_sizes().get("models", {})
    for model, entry in config.models.items():
        for name in dict.fromkeys(name for _, name in config.cells(model)):
            given = getattr(config.selections[name], "neurons_per_layer", None)
            size = given and geometry.read(model, entry.source, table, work)
            if size and size.intermediate != given:
                key = f"selections.{name}.neurons_per_layer"
                yield (
                    key,
                    f"{key}: {given}, but models.{model} has {size.intermediate} neurons per layer."
                    f" Write {size.intermediate}, or leave the key out.",
                )


def check_shared(config: Config, work: Path) -> Iterator[tuple[str, str]]:
    """Yield the files of shared neurons that cannot be those of a model and its language sets."""
    for model in config.models:
        for langset, name in config.cells(model):
            selection = config.selections[name]
            path = selection.file_of(model)
            if path is None or not path.endswith(".safetensors"):
                continue
            reason = _shared_reason(
                config, model, config.language_sets[langset], project_file(path), selection
            )
            if reason is not None:
                yield f"selections.{name}.path", f"selections.{name}.path: {reason}"


def _shared_reason(
    config: Config, model: str, langs: Sequence[str], path: Path, selection: Any
) -> str | None:
    """Return why shared neurons are not those of a model, None if nothing speaks against them."""
    from langneurons.base.io import read_header
    from langneurons.sharing.headers import NeuronsHeader, header_of
    from langneurons.sharing.tensors import check_start

    if not path.is_file():
        return None  # told elsewhere
    try:
        check_start(path)
        header = header_of(read_header(path), str(path), "neurons")
    except ValueError as error:
        return str(error)
    lacking = sorted(set(langs) - set(header.languages))
    if lacking:
        return f"{path}: no neurons of {', '.join(lacking)}; it has {', '.join(header.languages)}."
    source = config.models[model].source
    repo: str | None = selection.model or getattr(source, "repo", None)
    if repo is not None and header.model != repo:
        return (
            f"{path}: neurons of model {header.model!r}, and models.{model} is {repo!r}. If it is"
            " the same model under another name, give its name there as `model`."
        )
    size = geometry.read(model, source, known_sizes().get("models", {}), Path())
    assert isinstance(header, NeuronsHeader)
    if header.units != "neurons":
        return f"{path}: it holds {header.units} of the residual stream, not neurons."
    if size is not None and (size.layers, size.intermediate) != (header.n_layers, header.d_mlp):
        return (
            f"{path}: neurons of {header.n_layers} layers x {header.d_mlp}, and models.{model} has"
            f" {size.layers} x {size.intermediate}."
        )
    return None


def check_layers(config: Config, work: Path) -> Iterator[tuple[str, str]]:
    """Yield the layers, and rows of the residual stream, beyond a model's last one."""
    row, key = max(config.statistics.residual_outer, default=0), "statistics.residual_outer"
    if not row and not any(deepest_layers(config, model) for model in config.models):
        return
    for model, layers in depths(config, work).items():
        if row > layers:
            yield (
                key,
                f"{key}: row {row} is beyond models.{model}, which has {layers} layers; legal: 0"
                f" (before the first block) to {layers} (after the last).",
            )
        for reason in layer_errors(model, layers, deepest_layers(config, model)):
            yield reason.split(":")[0], reason


def _lengths(config: Config) -> Iterator[tuple[str, int, int]]:
    """Yield (key, tokens, tokens that must fit beside them) of every length that is fixed."""
    yield "corpus.block_size", config.corpus.block_size, 0
    yield "corpus.heldout_block_size", config.corpus.heldout_block_size, 0
    for part in ("forcing", "fallback", "answers"):
        entry = getattr(config, part)
        if entry is not None:
            yield f"{part}.max_new_tokens", entry.max_new_tokens, PROMPT
    for name, entry in config.tasks.items():
        try:
            task = load_task(definition_file(name, entry.definition))
        except (ConfigError, OSError):
            continue  # told elsewhere
        if task.kind == "generation":
            yield f"tasks.{name}: max_new_tokens of its definition", task.max_new_tokens, PROMPT
    for name, entry in config.finetunings.items():
        yield f"finetunings.{name}.training.max_length", entry.training.max_length, 0


def check_lengths(config: Config, work: Path) -> Iterator[tuple[str, str]]:
    """Yield lengths beyond what a model reads, where that is known."""
    lengths = None
    for name, entry in config.models.items():
        found = map(geometry.positions, geometry.folders(name, entry.source, work))
        limit = next(filter(None, found), None)
        if limit is None:
            continue
        lengths = list(_lengths(config)) if lengths is None else lengths
        for key, tokens, beside in lengths:
            if tokens + beside > limit:
                yield (
                    key,
                    f"{key}: {tokens} tokens, and models.{name} reads {limit} at most; legal: up to"
                    f" {limit - beside}.",
                )


def tight_memory(config: Config, work: Path = Path()) -> list[str]:
    """Return a warning for each model that takes more memory to load than its jobs ask for."""
    asked, table, found = config.runtime.mem_mb, known_sizes().get("models", {}), []
    for name, entry in config.models.items():
        size = geometry.read(name, entry.source, table, work)
        if size is None:
            continue
        needed = geometry.host_bytes(size, entry.dtype, entry.quantization) / 1e6
        if needed > asked:
            enough = -(-needed // 500) * 500
            found.append(
                f"models.{name}: a job needs about {needed / 1000:.1f} GB of host memory to load"
                f" {size.parameters:.3g} parameters in {entry.dtype}, and runtime.mem_mb asks for"
                f" {asked / 1000:.1f} GB at first. Set runtime.mem_mb: {enough:.0f}."
            )
    return found
