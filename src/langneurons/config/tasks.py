"""Configuration keys `perplexity`, `tasks`, `results` and `runtime`."""

from typing import Annotated, Literal

from pydantic import Field, field_validator

from langneurons.config.base import Frozen


class PerplexityConfig(Frozen):
    """The matrix of perplexity changes: one language's neurons overwritten, each language read."""

    interventions: tuple[str, ...] = Field(("zero",), description="Names from `interventions`.")
    selections: tuple[str, ...] | None = Field(None, description="Names; all if left out.")
    tokens: int | None = Field(
        None, ge=1, description="Held-out tokens per language; all that are packed if left out."
    )


class MiniTask(Frozen):
    """The items that come with the package."""

    kind: Literal["mini"]
    name: Literal["xnli", "xquad", "xcopa"] | None = Field(
        None, description="Which of them; left out: those of the task's own name."
    )


class HubTask(Frozen):
    """The data set that the task's definition names, from the hub."""

    kind: Literal["hub"]
    split: str | None = Field(None, description="Split; left out: that of the definition.")


class JsonlTask(Frozen):
    """A JSONL file per language with the fields of the hub's version."""

    kind: Literal["jsonl"]
    path: str = Field(description="Path with {lang}.")


class FolderTask(Frozen):
    """A folder that `datasets.save_to_disk` wrote, one per language."""

    kind: Literal["folder"]
    path: str = Field(description="Path with {lang}.")


TaskSource = Annotated[MiniTask | HubTask | JsonlTask | FolderTask, Field(discriminator="kind")]


def check_rows(value: tuple[float, float]) -> tuple[float, float]:
    """Refuse a share of rows that is empty or outside 0..1."""
    if not 0 <= value[0] < value[1] <= 1:
        raise ValueError(f"{list(value)} is not [from, to] with 0 <= from < to <= 1")
    return value


class TaskEntry(Frozen):
    """One benchmark: its definition, data, languages, and the conditions it is run under."""

    definition: str | None = Field(
        None, description="YAML file of the task; left out: config/tasks/<name>.yaml."
    )
    source: TaskSource = Field(HubTask(kind="hub"), description="Where the items come from.")
    languages: tuple[str, ...] = Field(min_length=1, description="Languages evaluated.")
    interventions: tuple[str, ...] = Field((), description="Beside the untouched model.")
    selections: tuple[str, ...] | None = Field(None, description="Names; all if left out.")
    language_sets: tuple[str, ...] | None = Field(
        None, description="Sets whose neurons are overwritten; all that hold the language."
    )
    finetunings: tuple[str, ...] | None = Field(
        None, description="Evaluate the adapters of these `finetunings` instead of the model."
    )
    rows: tuple[float, float] = Field(
        (0.0, 1.0), description="Share of the items, in their order: from, to."
    )
    limit: int | None = Field(None, ge=1, description="Evaluate only the first items.")

    label: str | None = Field(None, description="Name in tables and figures.")

    _rows = field_validator("rows")(check_rows)


class ResultsConfig(Frozen):
    """How results are summed up."""

    bootstrap: int = Field(1000, ge=100, description="Bootstrap replicates.")
    confidence: float = Field(0.95, gt=0, lt=1, description="Level of the intervals.")
    alpha: float = Field(0.05, gt=0, lt=1, description="Level of the tests, after Holm.")
    seed: int = Field(0, description="Seed of the bootstrap.")
    published: str | None = Field(
        None, description="YAML file of printed numbers, to stand beside the task scores."
    )
    venn: tuple[tuple[str, str, str], ...] = Field(
        (), description="Triples of languages drawn as Venn diagrams."
    )


class RuntimeConfig(Frozen):
    """How jobs are run; nothing here changes a result or reruns a job."""

    batch_tokens: int = Field(2048, ge=1, description="Tokens per forward pass in evaluation.")
    checkpoint_seconds: float = Field(300, gt=0, description="Seconds between saved states.")
    threads: int = Field(1, ge=1, description="CPU threads of a model job.")
    mem_mb: int = Field(4000, ge=500, description="Memory of a model job, first attempt.")
    runtime_minutes: int = Field(120, ge=1, description="Time limit of a model job.")
    gpu: int = Field(0, ge=0, description="GPUs of a model job.")
