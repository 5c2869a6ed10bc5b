"""The sizes of a model and of data from which stages estimate what their jobs cost."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from langneurons.base.errors import ConfigError, nearest
from langneurons.base.paths import user_path
from langneurons.base.shipped import project_file
from langneurons.base.yaml import parse_yaml
from langneurons.config.config import Config
from langneurons.data.mini_data import mini_file
from langneurons.evaluation.settings import source_paths
from langneurons.models import geometry
from langneurons.models.geometry import Geometry, host_bytes

GB = 1e9
RECORD_BYTES = 60.0  # a compressed row of records


def model_geometry(
    config: Config, assumed: Mapping[str, Any], folder: Path, model: str
) -> Geometry:
    """Return a model's size: from its files, the assumptions, or those of another size.

    Raises:
        ConfigError: nothing names the size of the model.
    """
    source = config.models[model].source
    found = geometry.read(model, source, assumed["models"], folder)
    if found is None:
        key, known = geometry.table_key(model, source), assumed["models"]
        raise ConfigError(
            f"plan: the size of models.{model} is unknown: its files are not here, and {key!r}"
            f" is not among `models` of the assumptions ({', '.join(known)})."
            f"{nearest(key, known)} Add a line there, or run"
            f" `snakemake -c 1 resources/models/{model}/manifest.json` first."
        )
    return found


@dataclass(frozen=True)
class Sizes:
    """What a stage's estimates rest on: configuration, assumptions, and one model on some GPUs."""

    config: Config
    assumed: Mapping[str, Any]
    folder: Path
    model: str
    gpus: int

    @cached_property
    def geometry(self) -> Geometry:
        """The size of the model."""
        return model_geometry(self.config, self.assumed, self.folder, self.model)

    @cached_property
    def wide(self) -> int:
        """Bytes of a number of the model."""
        return 4 if self.config.models[self.model].dtype == "float32" else 2

    @cached_property
    def stored(self) -> float:
        """Bytes of the weights as fetched."""
        return self.geometry.parameters * self.wide

    @cached_property
    def held(self) -> float:
        """Bytes of the weights as loaded."""
        if self.config.models[self.model].quantization != "nf4":
            return self.stored
        embeddings = self.geometry.vocabulary * self.geometry.hidden * 2
        return (self.geometry.parameters - embeddings) * 0.56 + embeddings * 2

    @cached_property
    def load(self) -> float:
        """Seconds to load the model."""
        return self.held / GB / self.assumed["load_gb_per_second"]

    @cached_property
    def host(self) -> float:
        """GB of host memory that loading takes."""
        entry = self.config.models[self.model]
        return host_bytes(self.geometry, entry.dtype, entry.quantization) / GB

    @cached_property
    def neurons(self) -> int:
        """Neurons of the model."""
        return self.geometry.layers * self.geometry.intermediate

    @cached_property
    def scores(self) -> float:
        """Bytes of the logits of a batch in float32."""
        return self.config.runtime.batch_tokens * self.geometry.vocabulary * 4

    @cached_property
    def states(self) -> float:
        """Bytes of the hidden states of a batch."""
        per_token = self.geometry.hidden * 8 + self.geometry.intermediate * 3
        return self.config.runtime.batch_tokens * per_token * self.wide

    @cached_property
    def kept(self) -> float:
        """Bytes of keys and values of a batch, which its prompts' continuations read."""
        batch = self.config.runtime.batch_tokens
        return 2 * batch * self.geometry.layers * self.geometry.shared * self.wide

    def on_each(self, spread: float, own: float) -> float:
        """Return GB on one GPU: its share of what lies with the layers, and what is whole."""
        coarse = self.held / self.geometry.layers if self.gpus > 1 else 0
        return (spread / max(self.gpus, 1) + coarse + own) / GB

    def seconds(self, tokens: float, operations: int, stage: str) -> float:
        """Return the seconds of a forward pass (2 operations per parameter) or a step (4).

        Of a mixture of experts the parameters that a token passes.
        """
        speed = self.assumed["device"]["tflops"] * 1e12 * self.assumed["utilisation"][stage]
        slow = self.config.models[self.model].quantization == "nf4"
        factor = self.assumed["nf4_slowdown"] if slow else 1.0
        return tokens * operations * self.geometry.passed * factor / speed

    @cached_property
    def decode(self) -> float:
        """Seconds to decode a token of a batch."""
        bandwidth = self.assumed["device"]["bandwidth_gb"] * GB
        return self.held / (bandwidth * self.assumed["utilisation"]["decoding"])

    def item_tokens(self, task: str) -> int:
        """Return the tokens of an item of a task."""
        return self.assumed["tokens_per_item"].get(task, self.assumed["default_tokens_per_item"])

    def lines(self, path: Path, default: float, limit: int | None) -> float:
        """Return how many rows of a file are used, `default` where it is not here."""
        rows = sum(1 for _ in path.open("rb")) if path.is_file() else default
        return min(rows, limit) if limit else rows

    def rows(self, task: Mapping[str, Any], entry: Any, limit: int | None) -> float:
        """Return how many rows an entry uses of its data set."""
        source = entry.source
        lang = getattr(entry, "language", None) or entry.languages[0]
        if source.kind == "hub":
            hub = task.get("hub", {})
            sizes = self.assumed["rows"].get(source.dataset or hub.get("dataset"), {})
            split = source.split or hub.get("split", "test")
            rows = sizes.get(split, self.assumed["default_rows"])
        elif source.kind == "mini":
            path = mini_file(source.name or task["name"], lang)
            rows = sum(1 for _ in path.open("rb"))
        else:
            code = task.get("codes", {}).get(lang, lang)
            file = next(iter(source_paths(source).values()))
            path = user_path(file, {"lang": lang, "code": code})
            rows = self.lines(path, self.assumed["default_rows"], None)
        rows = round(rows * entry.rows[1]) - round(rows * entry.rows[0])
        return min(rows, limit) if limit else rows


@cache
def parsed(text: str, source: str) -> Mapping[str, Any]:
    """Parse the text of a definition once, however many entries and cells are of it."""
    return parse_yaml(text, source)


def definition(name: str, entry: Any) -> Mapping[str, Any]:
    """Return the definition of the task of an entry."""
    path = project_file(entry.definition or f"config/tasks/{name}.yaml")
    return parsed(path.read_text(encoding="utf-8"), str(path))
