"""Configuration key `lss`: the Language Steering Shift on cloze facts."""

from typing import Annotated, Literal

from pydantic import Field

from langneurons.base.settings import COMMIT, DATASET, KEPT_COMMIT, NEWEST, Frozen


class MiniFacts(Frozen):
    """The facts that come with the package (nine languages)."""

    kind: Literal["mini"]


class HubFacts(Frozen):
    """A data set of the hub in the fields of mLAMA, one configuration per premise language."""

    kind: Literal["hub"]
    dataset: str = Field(
        "inayarhmns/MLAMA-dod-185", pattern=DATASET, description="Repository of the data set."
    )
    config: str = Field("{lang}", description="Configuration name; {lang} is filled in.")
    split: str = Field("test", description="Split.")
    revision: str = Field(
        NEWEST,
        pattern=COMMIT,
        description=f"The commit of the data set (40 hexadecimal digits); or {KEPT_COMMIT}.",
    )


class JsonlFacts(Frozen):
    """A JSONL file per premise language in the fields of mLAMA."""

    kind: Literal["jsonl"]
    path: str = Field(description="Path with {lang}.")


FactSource = Annotated[MiniFacts | HubFacts | JsonlFacts, Field(discriminator="kind")]


class LssConfig(Frozen):
    """Whether a language's neurons shift answers into it, from premises in other languages."""

    source: FactSource = Field(
        MiniFacts(kind="mini"),
        description="Where the facts come from: fields template (with [X] and [Y]), sub_<lang>,"
        " obj_<lang>, predicate_id.",
    )
    interventions: tuple[str, ...] = Field(
        min_length=1, description="Names from `interventions`: the factors that are compared."
    )
    selections: tuple[str, ...] | None = Field(None, description="Names; all if left out.")
    language_sets: tuple[str, ...] | None = Field(
        None, description="Sets whose neurons are overwritten; all if left out."
    )
    bases: tuple[str, ...] | None = Field(
        None, min_length=1, description="Languages of the premises; left out: those of the set."
    )
    targets: tuple[str, ...] | None = Field(
        None,
        min_length=1,
        description="Languages whose neurons are overwritten; left out: those of the set.",
    )
    limit: int | None = Field(None, ge=1, description="Use only the first facts.")
