"""Configuration key `results`: how results are summed up, and figures with names of their own."""

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from langneurons.base.settings import Frozen, Seed
from langneurons.reporting.kinds import KINDS, named_keys

Claim = Literal[
    "interventions_do_not_help",
    "zero_is_no_deactivation",
    "perplexity_does_not_carry_over",
    "language_neurons_equal_random",
]


def _kinds(key: str) -> str:
    """Return the kinds of figures that a key belongs to, as its description names them."""
    return ", ".join(kind for kind in KINDS if key in named_keys(kind))


if TYPE_CHECKING:
    Kind = str
else:
    Kind = Literal[tuple(KINDS)]


class FigureEntry(Frozen):
    """A figure under a name of its own: which of the figures drawn it is."""

    kind: Kind = Field(description="What it shows.")
    model: str = Field(description="Name from `models`.")
    languages: str | None = Field(
        None, description=f"Name from `language_sets` ({_kinds('languages')})."
    )
    selection: str | None = Field(
        None, description=f"Name from `selections` ({_kinds('selection')})."
    )
    intervention: str | None = Field(
        None,
        description=f"Name from `interventions` ({_kinds('intervention')}); of lss_layers and"
        " task_layers the name of a sweep.",
    )
    task: str | None = Field(None, description=f"Name from `tasks` ({_kinds('task')}).")
    finetuning: str | None = Field(
        None, description=f"Name from `finetunings` ({_kinds('finetuning')})."
    )
    protocol: str | None = Field(
        None,
        description=f"Name from `protocols` ({_kinds('protocol')}); the first if left out.",
    )
    item: str = Field("", description="What the paper calls it, such as Figure 8.")


class ResultsConfig(Frozen):
    """How results are summed up."""

    bootstrap: int = Field(
        1000,
        ge=100,
        le=100_000,
        description="Replicates behind standard errors of corpus scores and averages of cells.",
    )
    confidence: float = Field(0.95, ge=0.5, le=0.9999, description="Level of the intervals.")
    alpha: float = Field(0.05, ge=1e-6, le=0.5, description="Level of the tests, after Holm.")
    seed: Seed = Field(0, description="Seed of the bootstrap and of permutation tests.")
    paper: str = Field(
        "",
        description="The paper that the configuration repeats, such as Mondal et al. 2025: captions"
        " then say what corresponds to it, and where it differs.",
    )
    published: str | None = Field(
        None,
        description="YAML file of published numbers (scores, statistics, counts of neurons), to"
        " stand beside ours.",
    )
    stand_ins: dict[str, str] = Field(
        default_factory=dict,
        description="For a model of the paper, the model of `models` that is set beside its printed"
        " numbers.",
    )
    claims: tuple[Claim, ...] = Field(
        (), description="Claims of the paper that are tested (langneurons.reporting.claims)."
    )
    margin: float = Field(
        0.01, gt=0, lt=1, description="Difference of scores that counts as none (0.01: one point)."
    )
    venn: tuple[tuple[str, str, str], ...] = Field(
        (), description="Triples of languages drawn as Venn diagrams."
    )
    group_by: Literal["none", "family"] = Field(
        "none",
        description="Order of the overlap figures: none, that of the set; family, by language"
        " family (languages.*.family), with lines between families.",
    )
    figures: dict[str, FigureEntry] = Field(
        default_factory=dict,
        description="Figures that get a name of their own, such as fig08_overlap.",
    )
