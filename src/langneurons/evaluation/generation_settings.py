"""Configuration keys `forcing`, `fallback` and `lens`: what a model writes under interventions."""

import os
import string
from typing import Annotated, Literal, Protocol

from pydantic import Field, field_validator, model_validator

from langneurons.base.settings import Frozen, doubled


class MiniQuestions(Frozen):
    """The questions that come with the package."""

    kind: Literal["mini"]
    set: Literal["everyday", "open"] = Field(
        "everyday",
        description="everyday: 6 questions in 24 languages; open: 24 questions that ask for more"
        " than a word, in en, fr, hi, vi, zh.",
    )


class JsonlQuestions(Frozen):
    """A JSONL file per language with the fields id and question; ids are shared by languages."""

    kind: Literal["jsonl"]
    path: str = Field(description="Path with {lang}.")


class TextQuestions(Frozen):
    """A text file per language, one question per line; translations stand in the same order."""

    kind: Literal["text"]
    path: str = Field(description="Path with {lang}. Lines without text are left out.")


class CsvQuestions(Frozen):
    """A CSV file per language, or one per language and part of a benchmark."""

    kind: Literal["csv"]
    path: str = Field(description="Path with {lang}, and with {part} where there are parts.")
    question_field: str = Field("question", min_length=1, description="Column of the question.")
    id_field: str | None = Field(
        None,
        description="Column of its identifier; null: the number of the row. Translations share it.",
    )
    parts: tuple[Annotated[str, Field(min_length=1)], ...] = Field(
        (),
        description="What {part} stands for. A language may lack the files of some parts, and"
        " `limit` is of each. Tables of answers show every part by itself.",
    )

    @model_validator(mode="after")
    def _parts_are_read(self) -> "CsvQuestions":
        if again := doubled(os.path.normpath(part) for part in self.parts):
            raise ValueError(f"parts: {', '.join(again)} listed more than once")
        if bool(self.parts) != ("{part}" in self.path):
            lacks = "parts: missing" if not self.parts else f"path: {self.path!r} lacks {{part}}"
            raise ValueError(f"{lacks}; `parts` and {{part}} in `path` go together")
        return self


# An empty text would end every answer before its first word.
Stop = Annotated[str, Field(min_length=1)]


def one_question(value: str) -> str:
    """Refuse a template that does not hold {question} once, and nothing else to fill in."""
    try:
        fields = [field for _, field, _, _ in string.Formatter().parse(value)]
    except ValueError as error:
        raise ValueError(f"{value!r} cannot be filled in: {error}") from None
    if [field for field in fields if field is not None] != ["question"]:
        raise ValueError(f"{value!r} must hold {{question}} once, and no other braces")
    return value


QuestionSource = Annotated[
    MiniQuestions | JsonlQuestions | TextQuestions | CsvQuestions, Field(discriminator="kind")
]


class Py3langidIdentifier(Frozen):
    """The identifier that comes with its model (langneurons.evaluation.identification)."""

    kind: Literal["py3langid"]


class FasttextIdentifier(Frozen):
    """A fastText model; the one of Gurgurov et al. 2025 is lid.176.bin."""

    kind: Literal["fasttext"]
    path: str = Field(description="File, such as lid.176.bin.")
    threshold: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="A text whose likeliest language is less probable has none (undetermined); the"
        " Language Confusion Benchmark: 0.3.",
    )


Identifier = Annotated[Py3langidIdentifier | FasttextIdentifier, Field(discriminator="kind")]


class Asking(Frozen):
    """Questions, and the plain prompt that asks them."""

    questions: QuestionSource = Field(
        MiniQuestions(kind="mini"), description="Where the questions come from."
    )
    template: str = Field("Q: {question}\nA:", description="The prompt; {question} is filled in.")
    limit: int | None = Field(None, ge=1, description="Only the first questions of a language.")

    _template = field_validator("template")(one_question)


class Prompted(Asking):
    """What forcing, fallback and lens share: the conditions under which prompts are read."""

    selections: tuple[str, ...] | None = Field(None, description="Names; all if left out.")


class Conditioned(Protocol):
    """A block that lists interventions and selections."""

    @property
    def interventions(self) -> tuple[str, ...]:
        """Names from `interventions`."""

    @property
    def selections(self) -> tuple[str, ...] | None:
        """Names from `selections`; None: all."""


class Answering(Asking):
    """Greedy decoding, and how its texts are judged."""

    repetition_penalty: Annotated[float, Field(ge=0.01, le=100)] | Literal["model"] = Field(
        1.1,
        description="Divides positive logits of tokens that came before; 1: none; `model`: what the"
        " model's own files ask for.",
    )
    chat: bool = Field(
        False,
        description="On models with `chat`, ask by their chat template: the user says `message`,"
        " and an answer ends where the template ends one too.",
    )
    message: str = Field(
        "{question}",
        description="What the user says where `chat` is true; {question} is filled in.",
    )
    stop: tuple[Stop, ...] = Field(
        ("\nQ:", "\nA:"), description="Texts before which an answer ends (as does EOS)."
    )
    identifier: Identifier = Field(
        Py3langidIdentifier(kind="py3langid"), description="How the language of a text is told."
    )
    degenerate: float = Field(
        0.5,
        gt=0,
        lt=1,
        description="A text counts as degenerate if more than this share of it repeats what came"
        " before (langneurons.evaluation.texts), or if it holds no letter.",
    )

    _message = field_validator("message")(one_question)


class Generating(Answering, Prompted):
    """Answers under interventions, beside those of the untouched model."""

    interventions: tuple[str, ...] = Field(
        min_length=1, description="Names from `interventions`, beside the untouched model."
    )


class ForcingConfig(Generating):
    """Questions in a source language, a target language forced upon the answer."""

    sources: tuple[str, ...] | None = Field(
        None, description="Languages of the questions; all of the set if left out."
    )
    targets: tuple[str, ...] | None = Field(
        None, description="Languages that are forced; all of the set if left out."
    )
    max_new_tokens: int = Field(
        256, ge=1, le=1_048_576, description="Length of an answer, at most."
    )


class FallbackConfig(Generating):
    """Questions in one language while the neurons of more and more languages are overwritten."""

    order: tuple[str, ...] = Field(
        ("en", "fr", "es", "it", "pt", "ru", "de", "ar", "zh", "ko", "ja"),
        min_length=1,
        description="Languages in the order in which their neurons join; a set keeps those that it"
        " holds.",
    )
    language: str = Field("en", description="Language of the questions.")
    max_new_tokens: int = Field(
        128, ge=1, le=1_048_576, description="Length of an answer, at most."
    )


class LensConfig(Prompted):
    """What every layer would say next: its state at the prompt's end, through norm and head."""

    languages: tuple[str, ...] | None = Field(
        None, description="Languages of the prompts; all of the set if left out."
    )
    interventions: tuple[str, ...] = Field(
        (), description="Names from `interventions`, beside the untouched model."
    )
    targets: tuple[str, ...] = Field(
        (), description="Languages whose neurons the interventions write."
    )
    purity: float = Field(
        0.9,
        gt=0.5,
        le=1,
        description="A token belongs to the language that holds this share of its frequencies in"
        " the corpora of the set, each language weighing the same.",
    )
    min_count: int = Field(
        2, ge=1, description="Times that a token must occur in its language's corpus."
    )
    reading: Literal["corpora", "top"] = Field(
        "corpora",
        description="Whose a token is. corpora: as `purity` and `min_count` say, over the whole"
        " distribution. top: the code of Gurgurov et al. 2025, where the five most probable tokens"
        " are identified one by one, the last layer is normed twice, and the model's logit scale or"
        " cap is left out.",
    )
    identifier: Identifier = Field(
        Py3langidIdentifier(kind="py3langid"),
        description="How the language of a token is told with `reading: top`.",
    )
