"""Configuration key `hypotheses`: what is claimed before the run, and judged after it."""

from typing import Literal

from pydantic import Field, model_validator

from langneurons.base.settings import Frozen

Measure = Literal[
    "own",
    "specificity",
    "ratio",
    "left",
    "specificity_left",
    "advantage",
    "transfer",
    "exclusive",
    "jaccard",
]
# What each measure is of: keys that it needs beside those of every hypothesis.
NEEDS: dict[str, tuple[str, ...]] = {
    "own": ("method",),
    "specificity": ("method",),
    "ratio": ("method",),
    "left": ("method",),
    "specificity_left": ("method",),
    "advantage": ("method", "over"),
    "transfer": ("method", "variant"),
    "exclusive": ("selection",),
    "jaccard": ("selection", "comparison"),
}


class HypothesisEntry(Frozen):
    """One hypothesis: a measure, a direction and a threshold."""

    says: str = Field(min_length=1, description="The hypothesis in a sentence.")
    measure: Measure = Field(
        description="Means over target languages. own: change of the target's NLL (nats per token);"
        " specificity: own minus the mean of the others'; ratio: own over the mean of the others';"
        " left, specificity_left: share of own, of specificity, that the strongest random control"
        " does not have; advantage:"
        " specificity of `method` minus that of `over`; transfer: change of the target's `variant`"
        " under the target's setting, over own; exclusive: share of a language's neurons that"
        " belong to no other; jaccard: of the neurons of a `comparison` of the key `stability`."
    )
    direction: Literal["above", "below"] = Field(
        description="On which side of the threshold the measure is claimed to be."
    )
    threshold: float = Field(description="What the measure is compared with.")
    method: str | None = Field(None, description="Name from `trials.methods`.")
    over: str | None = Field(None, description="Name from `trials.methods`, of advantage.")
    variant: str | None = Field(None, description="Name from `corpus.variants`, of transfer.")
    selection: str | None = Field(None, description="Name from `selections`.")
    comparison: str | None = Field(
        None, description="`halves`, or a name from `stability.comparisons`, of jaccard."
    )
    language_set: str | None = Field(
        None,
        description="Name from `language_sets`; every set it is measured on if left out.",
    )

    @model_validator(mode="after")
    def _complete(self) -> "HypothesisEntry":
        keys = ("method", "over", "variant", "selection", "comparison")
        for key in keys:
            needed, given = key in NEEDS[self.measure], getattr(self, key) is not None
            if needed and not given:
                raise ValueError(f"{key}: missing; measure {self.measure} needs it")
            if given and not needed:
                raise ValueError(
                    f"{key}: has no effect with measure {self.measure}, which takes"
                    f" {', '.join(NEEDS[self.measure])}"
                )
        return self
