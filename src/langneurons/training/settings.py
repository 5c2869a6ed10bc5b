"""Configuration key `finetunings`: chosen neurons trained on a task or text in one language."""

from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from langneurons.base.errors import nearest
from langneurons.base.protocols import Protocol
from langneurons.base.settings import Frozen, Seed
from langneurons.evaluation.settings import (
    FolderTask,
    HubTask,
    JsonlTask,
    MiniTask,
    PaperRows,
    check_rows,
    replaced,
)

Choice = Literal["none", "source", "target", "source_target", "all"]
Module = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]
Share = Annotated[float, Field(ge=0, lt=1)]
# Hyperparameters without a meaning where the neurons' own weights are trained.
LORA_ONLY = ("modules", "rank", "alpha", "dropout")


class TextRows(Frozen):
    """The language's packed corpus, for plain language modelling."""

    kind: Literal["text"]
    tokens: int | None = Field(
        None, ge=1, description="Tokens of `corpus.tokens` that are trained on; all if left out."
    )
    heldout_tokens: int | None = Field(
        None,
        ge=1,
        description="Held-out tokens whose perplexity is taken before and after training; all if"
        " left out.",
    )
    characters: int | None = Field(
        None,
        ge=1,
        description="One row per document, of which this many characters are kept, in place of"
        " packed blocks (the code of Gurgurov et al. 2025: 512).",
    )
    learn_padding: bool = Field(
        False,
        description="Such rows are padded to `training.max_length`, and the padding is learnt like"
        " any token (the code of Gurgurov et al. 2025).",
    )

    @model_validator(mode="after")
    def _rows_to_pad(self) -> "TextRows":
        if self.learn_padding and self.characters is None:
            raise ValueError(
                "learn_padding: packed blocks have no padding; give `characters` as well"
            )
        return self


TrainingSource = Annotated[
    MiniTask | HubTask | JsonlTask | FolderTask | TextRows, Field(discriminator="kind")
]


class Training(Frozen):
    """How it is trained; the defaults are those of Mondal et al. 2025 for XNLI."""

    parameters: Literal["lora", "rows"] = Field(
        "lora",
        description="lora: low-rank updates of `modules` and of the chosen neurons; rows: the"
        " chosen neurons' own weights (rows of gate and up, columns of down), everything else"
        " frozen, so without modules, rank, alpha and dropout.",
    )
    modules: tuple[Module, ...] = Field(
        ("q_proj", "k_proj", "v_proj", "o_proj"),
        description="Linear layers with plain LoRA, by last name.",
    )
    projections: tuple[Literal["gate", "up", "down"], ...] = Field(
        ("gate",), description="MLP projections that are trained on the chosen neurons."
    )
    rank: int = Field(8, ge=1, le=4096, description="Rank r of B A.")
    alpha: float = Field(16.0, gt=0, le=1e6, description="The update is scaled by alpha / r.")
    dropout: float = Field(0.0, ge=0, lt=1, description="Dropout before A.")
    learning_rate: float = Field(1e-5, gt=0, le=1, description="Peak learning rate.")
    epochs: float = Field(2.0, gt=0, le=10_000, description="Passes over the training rows.")
    max_steps: int | None = Field(
        None, ge=1, le=10_000_000, description="Stop after this many steps instead."
    )
    batch_size: int = Field(8, ge=1, le=65_536, description="Rows per forward pass.")
    accumulate: int = Field(1, ge=1, le=65_536, description="Forward passes per step.")
    bucket: int = Field(
        0,
        ge=0,
        description="Rows of similar length together, for less padding: of so many steps at a time"
        " the rows are sorted by length and the steps shuffled; 0: rows in random order, as in the"
        " papers. 50 leaves little padding.",
    )
    max_length: int = Field(
        256,
        ge=8,
        le=1_048_576,
        description="Tokens of a row: longer ones are left out, text is cut at so many.",
    )
    weight_decay: float = Field(0.1, ge=0, le=1000, description="Weight decay of AdamW.")
    betas: tuple[Share, Share] = Field((0.95, 0.999), description="Betas of AdamW.")
    clip: float = Field(10.0, gt=0, le=1e6, description="Norm at which gradients are clipped.")
    warmup: float = Field(
        0.01,
        ge=0,
        le=1_000_000,
        description="Warm-up: a share of the steps if below 1, else steps.",
    )
    recompute: bool = Field(
        False,
        description="Gradient checkpointing: activations are computed again for the backward pass"
        " instead of being kept.",
    )
    pooling: Literal["last_token", "last_position"] = Field(
        "last_token",
        description="Position that the classification head reads: the last real token, or the last"
        " of the padded row (the paper's code).",
    )
    log_steps: int = Field(10, ge=1, description="Steps between points of the curves.")
    checkpoint_steps: int = Field(500, ge=1, description="Steps between checkpoints.")
    report_to: Literal["none", "tensorboard", "wandb"] = Field(
        "none", description="Where the Trainer reports as well."
    )
    seed: Seed = Field(0, description="Seed of A, of the head and of the order of rows.")

    @model_validator(mode="after")
    def _of_its_parameters(self) -> "Training":
        for key in LORA_ONLY if self.parameters == "rows" else ():
            default = type(self).model_fields[key].default
            if getattr(self, key) != default:
                raise ValueError(
                    f"{key}: belongs to parameters: lora; rows trains the neurons' own weights."
                    " Leave it out"
                )
        return self

    @model_validator(mode="after")
    def _aligned(self) -> "Training":
        if self.checkpoint_steps % self.log_steps:
            raise ValueError(
                f"checkpoint_steps: {self.checkpoint_steps} is not a multiple of log_steps"
                f" ({self.log_steps}); a continued run would draw another curve"
            )
        return self


class PaperTraining(PaperRows):
    """What replaces rows and hyperparameters where the protocol follows the paper."""

    training: dict[str, float | int | str] = Field(
        default_factory=dict, description="Hyperparameters that differ; see Training."
    )


class FinetuneEntry(Frozen):
    """One fine-tuning: data, neuron choices, hyperparameters; one adapter per choice."""

    definition: str | None = Field(
        None, description="YAML file of the task; left out: config/tasks/<name>.yaml."
    )
    source: TrainingSource = Field(
        description="Where the training rows come from; kind `text`: the language's packed corpus."
    )
    language: str = Field("en", description="Language of the training rows (the source).")
    rows: tuple[float, float] = Field(
        (0.0, 1.0), description="Share of the rows, in their order: from, to."
    )
    neurons: tuple[Choice, ...] = Field(
        ("none", "target"),
        min_length=1,
        description="Whose neurons the projections are trained on: none, those of the source, of"
        " the target, of both, or all.",
    )
    targets: tuple[str, ...] = Field((), description="Target languages of the choices.")
    selections: tuple[str, ...] | None = Field(None, description="Names; all if left out.")
    language_sets: tuple[str, ...] | None = Field(
        None, description="Sets whose neurons are trained; all that hold the languages."
    )
    training: Training = Field(default_factory=Training, description="Hyperparameters.")
    paper: PaperTraining | None = Field(
        None,
        description="Source and rows (`split`) and hyperparameters (`training`) under a protocol"
        " that follows the paper.",
    )
    label: str | None = Field(None, description="Name in tables and figures.")

    _rows = field_validator("rows")(check_rows)

    @property
    def is_text(self) -> bool:
        """Whether it is language modelling on the packed corpus."""
        return self.source.kind == "text"

    @model_validator(mode="after")
    def _text(self) -> "FinetuneEntry":
        if self.is_text:
            paper = self.paper and (self.paper.source or self.paper.rows)
            given = {
                "definition": self.definition,
                "rows": self.rows != (0.0, 1.0),
                "paper": paper,
            }
            for key, value in given.items():
                if value:
                    raise ValueError(
                        f"{key}: text has none; what is read are the first `source.tokens`"
                        " of the corpus"
                    )
        return self

    @model_validator(mode="after")
    def _known_training(self) -> "FinetuneEntry":
        for key in self.paper.training if self.paper else ():
            if key not in Training.model_fields:
                hint = nearest(key, Training.model_fields)
                raise ValueError(f"paper.training: {key!r} is not a hyperparameter.{hint}")
        self.under(Protocol(training="paper"))
        return self

    def under(self, protocol: Protocol) -> "FinetuneEntry":
        """Return the entry as a protocol has it, without `paper`."""
        made = replaced(self, protocol)
        training = made.training.model_dump()
        if protocol.training == "paper" and self.paper is not None:
            training |= self.paper.training
        if protocol.pooling == "paper":
            training["pooling"] = "last_position"
        return made.model_copy(update={"training": Training.model_validate(training)})


class Adapter(Frozen):
    """One adapter of a fine-tuning: which neurons it is trained on."""

    finetuning: str
    choice: Choice
    selection: str | None = None
    langset: str | None = None
    target: str | None = None

    @property
    def name(self) -> str:
        """Name of its folder: unique, and the same whatever the sets are called."""
        parts = (self.finetuning, self.choice, self.selection, self.langset, self.target)
        return "+".join(part for part in parts if part is not None)

    def languages(self, source: str) -> tuple[str, ...]:
        """Return the languages whose neurons are trained."""
        target = () if self.target is None else (self.target,)
        own = {"source": (source,), "target": target, "source_target": (source, *target)}
        return own.get(self.choice, ())
