"""Configuration keys `perplexity`, `tasks` and `runtime`."""

from collections.abc import Iterable
from typing import Annotated, Any, Literal, TypeVar

from pydantic import Field, field_validator, model_validator

from langneurons.base.protocols import Protocol
from langneurons.base.settings import COMMIT, DATASET, KEPT_COMMIT, Frozen

T = TypeVar("T", bound=Any)


class UntilEntry(Frozen):
    """When enough documents are read: as soon as every interval is narrow."""

    width: float = Field(
        gt=0, description="Nats per token: width of the interval of each cell's change."
    )
    looks: int = Field(
        4,
        ge=2,
        le=20,
        description="Equal portions of the documents; after each the intervals are looked at. They"
        " and p are corrected for this number (Bonferroni), so the error rate is kept.",
    )


class PerplexityConfig(Frozen):
    """The matrix of perplexity changes: one language's neurons overwritten, each language read."""

    interventions: tuple[str, ...] = Field(("zero",), description="Names from `interventions`.")
    selections: tuple[str, ...] | None = Field(None, description="Names; all if left out.")
    tokens: int | None = Field(
        None, ge=1, description="Held-out tokens per language; all that are packed if left out."
    )
    documents: int | None = Field(
        None,
        ge=2,
        description="The first documents of the held-out text, of the tokens above; all if left"
        " out. They are the units of intervals and tests: a matrix of nine languages needs 12.",
    )
    until: UntilEntry | None = Field(
        None,
        description="Stop reading before the end when every interval of a job's matrices is"
        " narrow; left out: all documents are read.",
    )


class MiniTask(Frozen):
    """The items that come with the package."""

    kind: Literal["mini"]
    name: Literal["xnli", "xquad", "xcopa", "flores"] | None = Field(
        None, description="Which of them; left out: those of the task's own name."
    )


class HubTask(Frozen):
    """The data set that the task's definition names, from the hub."""

    kind: Literal["hub"]
    dataset: str | None = Field(
        None,
        pattern=DATASET,
        description="Another data set with the same fields; left out: the definition's.",
    )
    config: str | None = Field(None, description="Its configuration name, if it has one.")
    revision: str | None = Field(
        None,
        pattern=COMMIT,
        description=f"Its commit (40 hexadecimal digits); or {KEPT_COMMIT}.",
    )
    split: str | None = Field(None, description="Split; left out: that of the definition.")

    @model_validator(mode="after")
    def _pinned(self) -> "HubTask":
        if (self.dataset is None) != (self.revision is None):
            raise ValueError("`dataset` and `revision` go together")
        return self


class JsonlTask(Frozen):
    """A JSONL file per language with the fields of the hub's version."""

    kind: Literal["jsonl"]
    path: str = Field(description="Path with {lang}, or {code}: the data set's own code.")


class FolderTask(Frozen):
    """A folder that `datasets.save_to_disk` wrote, one per language."""

    kind: Literal["folder"]
    path: str = Field(description="Path with {lang}, or {code}: the data set's own code.")


class TextTask(Frozen):
    """Plain text files, one item a line; files of several fields are aligned by line."""

    kind: Literal["text"]
    fields: dict[str, str] = Field(
        min_length=1,
        description="Field -> path with {lang}, or {code}: the data set's own code.",
    )


TaskSource = Annotated[
    MiniTask | HubTask | JsonlTask | FolderTask | TextTask, Field(discriminator="kind")
]


def source_paths(source: TaskSource) -> dict[str, str]:
    """Return the key and path of each file template of a source."""
    if isinstance(source, TextTask):
        return {f"fields.{field}": path for field, path in source.fields.items()}
    return {"path": source.path} if isinstance(source, (JsonlTask, FolderTask)) else {}


def check_rows(value: tuple[float, float]) -> tuple[float, float]:
    """Refuse a share of rows that is empty or outside 0..1."""
    if not 0 <= value[0] < value[1] <= 1:
        raise ValueError(f"{list(value)} is not [from, to] with 0 <= from < to <= 1")
    return value


class PaperRows(Frozen):
    """What replaces the rows where the protocol's `split` follows the paper."""

    source: TaskSource | None = Field(None, description="Left out: the same source.")
    rows: tuple[float, float] | None = Field(None, description="Left out: the same share.")

    @field_validator("rows")
    @classmethod
    def _rows(cls, value: tuple[float, float] | None) -> tuple[float, float] | None:
        return value if value is None else check_rows(value)


class PaperTask(PaperRows):
    """What replaces rows and prompts where the protocol follows the paper."""

    definition: str | None = Field(
        None, description="YAML file of the task (`prompts`); left out: the same."
    )


class TaskEntry(Frozen):
    """One benchmark: its definition, data, languages, and the conditions it is run under."""

    definition: str | None = Field(
        None, description="YAML file of the task; left out: config/tasks/<name>.yaml."
    )
    source: TaskSource = Field(HubTask(kind="hub"), description="Where the items come from.")
    languages: tuple[str, ...] = Field(min_length=1, description="Languages evaluated.")
    interventions: tuple[str, ...] = Field((), description="Beside the untouched model.")
    targets: tuple[str, ...] | Literal["all"] | None = Field(
        None,
        description="Languages whose neurons are overwritten, one after the other: a list, or `all`"
        " of the set, which makes a matrix of evaluated x target languages, where `source` is the"
        " evaluated one. Left out: the evaluated language alone.",
    )
    selections: tuple[str, ...] | None = Field(None, description="Names; all if left out.")
    language_sets: tuple[str, ...] | None = Field(
        None,
        description="Sets whose neurons are overwritten; all that hold the language (or a target).",
    )
    finetunings: tuple[str, ...] | None = Field(
        None, description="Evaluate the adapters of these `finetunings` instead of the model."
    )
    rows: tuple[float, float] = Field(
        (0.0, 1.0), description="Share of the items, in their order: from, to."
    )
    limit: int | None = Field(None, ge=1, description="Evaluate only the first items.")
    paper: PaperTask | None = Field(
        None,
        description="Source and rows (`split`) and definition (`prompts`) under a protocol that"
        " follows the paper.",
    )
    chat: bool = Field(
        False,
        description="On models with `chat`, ask by their chat template: the prompt is what the user"
        " says, a choice or answer what the model replies, without the task's delimiter.",
    )
    label: str | None = Field(None, description="Name in tables and figures.")

    _rows = field_validator("rows")(check_rows)

    def written(self, lang: str, members: Iterable[str]) -> tuple[str, ...]:
        """Return the languages of a set whose neurons are overwritten, sorted."""
        wanted = (lang,) if self.targets is None else self.targets
        return tuple(one for one in sorted(members) if wanted == "all" or one in wanted)

    def under(self, protocol: Protocol) -> "TaskEntry":
        """Return the entry as a protocol has it, without `paper`."""
        made = replaced(self, protocol)
        if protocol.prompts == "paper" and self.paper is not None and self.paper.definition:
            return made.model_copy(update={"definition": self.paper.definition})
        return made


def replaced(entry: T, protocol: Protocol) -> T:
    """Return an entry whose source and rows are those of its `paper`, if the split follows it."""
    update: dict = {"paper": None}
    if protocol.split == "paper" and entry.paper is not None:
        given = {"source": entry.paper.source, "rows": entry.paper.rows}
        update |= {key: value for key, value in given.items() if value is not None}
    return entry.model_copy(update=update)


class RuntimeConfig(Frozen):
    """How jobs are run; nothing here changes a result or reruns a job."""

    batch_tokens: int = Field(
        2048, ge=1, le=16_777_216, description="Tokens per forward pass in evaluation."
    )
    engine: Literal["padded", "continuous"] = Field(
        "padded",
        description="What decodes answers: batches padded to one length, or batches that new"
        " requests join as others end. Answers can differ where two tokens are equally probable up"
        " to rounding.",
    )
    checkpoint_seconds: float = Field(
        300, ge=0.1, le=86_400, description="Seconds between saved states."
    )
    threads: int = Field(1, ge=1, le=1024, description="CPU threads of a model job.")
    mem_mb: int = Field(
        4000, ge=500, le=16_000_000, description="Memory of a model job, first attempt."
    )
    runtime_minutes: int = Field(120, ge=1, le=86_400, description="Time limit of a model job.")
    gpu: int = Field(0, ge=0, le=64, description="GPUs of a model job.")
    gres: str | None = Field(
        None,
        pattern=r"^[A-Za-z0-9_]+(:[A-Za-z0-9_.]+)?$",
        description="For clusters that take only `--gres`: what SLURM calls a GPU, such as `gpu` or"
        " `gpu:a100`. Model jobs then ask for `--gres=gpu:a100:N`, N of `gpu`, and for no `--gpus`."
        " Left out: `--gpus=N`.",
    )

    @field_validator("gres")
    @classmethod
    def _no_number(cls, value: str | None) -> str | None:
        if value is not None and value.partition(":")[2].isdigit():
            raise ValueError(
                f"gres: {value!r} holds a number; the number of GPUs is `runtime.gpu` (or `gpus` of"
                " a model). Write the name alone, such as gpu or gpu:a100"
            )
        return value
