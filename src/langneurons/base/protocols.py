"""Configuration key `protocols`: what is done as the paper's code does it, what is corrected."""

from typing import Any, Literal, get_args

from pydantic import Field, model_validator

from langneurons.base.errors import nearest
from langneurons.base.settings import Frozen

Choice = Literal["paper", "corrected"]

# The points on which a stage depends: what a job of it must be run again for.
STAGES = {
    "rows": ("split",),
    "items": ("prompts", "split"),
    "adapters": ("pooling", "split", "training"),
    "evaluation": ("intervention_site", "pooling", "prompts", "quantiles", "split", "training"),
    "generation": ("intervention_site", "quantiles"),
    "perplexity": ("intervention_site", "perplexity_text", "quantiles"),
    "steering": ("intervention_site", "lss", "quantiles"),
    "answering": ("intervention_site", "judging", "quantiles", "shared_neurons", "tuning"),
}


class Protocol(Frozen):
    """Point by point: as the code of Mondal et al. 2025 does it, or corrected."""

    intervention_site: Choice = Field(
        "corrected",
        description="paper: statistics of the gate (before the nonlinearity) are written over the"
        " activation (after it); corrected: a value is written where it was measured.",
    )
    quantiles: Choice = Field(
        "corrected",
        description="paper: each batch's own quantile, averaged over batches (needs"
        " statistics.batch_quantiles), and layer_p10 is the value of rank int(0.1 n); corrected:"
        " the quantile of the whole corpus, and the value of rank ceil(0.1 n).",
    )
    pooling: Choice = Field(
        "corrected",
        description="paper: a classification head reads the last position of the padded row;"
        " corrected: what `training.pooling` of the fine-tuning says (the last real token).",
    )
    answers: Choice = Field(
        "corrected",
        description="Score of XQuAD that tables set beside the print. paper: on token ids;"
        " corrected: on normalised words. Both are always measured.",
    )
    prompts: Choice = Field(
        "corrected",
        description="paper: the definition under `paper` of a task (prompt, data, how answers are"
        " read) replaces its own; corrected: its own.",
    )
    split: Choice = Field(
        "corrected",
        description="paper: rows and source under `paper` of tasks and fine-tunings replace their"
        " own; corrected: their own.",
    )
    training: Choice = Field(
        "corrected",
        description="paper: hyperparameters under `paper.training` of a fine-tuning replace its"
        " own (what the code does where it departs from the text); corrected: its own.",
    )
    perplexity_text: Choice = Field(
        "corrected",
        description="paper: every cell of the matrix reads its own random sample of the held-out"
        " blocks; corrected: the same text in a column, untouched and overwritten.",
    )
    lss: Choice = Field(
        "corrected",
        description="paper: of a template the literal ' [Y]' is cut out and what follows it stays,"
        " a space joins the object, equal objects count as failures, the diagonal is 0; corrected:"
        " the premise ends before [Y], the join is that of the template and of the language, facts"
        " with equal objects are left out and counted, the diagonal is undefined.",
    )

    tuning: Choice = Field(
        "corrected",
        description="paper: the settings of a method of `answers` are those under its `paper`, and"
        " are chosen on the questions that test them; corrected: equal numbers of settings, chosen"
        " on development questions.",
    )
    judging: Choice = Field(
        "corrected",
        description="paper: a judge's rating is drawn (temperature 0.7, top-p 0.8); corrected: the"
        " likeliest.",
    )
    shared_neurons: Choice = Field(
        "corrected",
        description="paper: in `answers`, neurons that several steps write are written by each in"
        " order, so that one may be overwritten and then added to; corrected: as `shared` of the"
        " intervention says.",
    )
    aggregate: Choice = Field(
        "corrected",
        description="Score of `answers`. paper: harmonic mean of the share in the target language"
        " and of the mean relevance; corrected: mean of the answers' own harmonic means.",
    )
    percent: Choice = Field(
        "corrected",
        description="paper: with `aggregate: paper`, a percentage of up to 1 is taken for a share"
        " (0.9 per cent counts as 90); corrected: it is not.",
    )

    @model_validator(mode="before")
    @classmethod
    def _one_word(cls, value: Any) -> Any:
        """Accept one word for all points."""
        if isinstance(value, str):
            if value not in get_args(Choice):
                hint = nearest(value, get_args(Choice))
                raise ValueError(f"{value!r} is not legal; legal: paper, corrected.{hint}")
            return {point: value for point in cls.model_fields}
        return value

    def variant(self, stage: str) -> str:
        """Return which points of a stage follow the paper, as the name of a folder.

        `corrected`, `paper`, or the points that follow the paper joined by '+'.
        """
        relevant = STAGES[stage]
        chosen = [point for point in relevant if getattr(self, point) == "paper"]
        if len(chosen) in (0, len(relevant)):
            return "paper" if chosen else "corrected"
        return "+".join(chosen)

    def of(self, stage: str) -> "Protocol":
        """Return the protocol with the points of other stages corrected."""
        return Protocol(**{point: getattr(self, point) for point in STAGES[stage]})
