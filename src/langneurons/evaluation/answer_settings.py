"""Configuration key `answers`: methods that make a model answer in a language, compared."""

import hashlib
import string
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from langneurons.base.settings import NAME_LENGTH, Frozen, Seed, doubled, is_name
from langneurons.evaluation.generation_settings import Answering, Identifier

Match = Literal["layer", "frequency", "write_norm"]
Version = Literal["1", "2"]
DEVELOPMENT, TEST = "development", "test"
PHASES = (DEVELOPMENT, TEST)
Said = Annotated[str, Field(pattern=r"\S")]


def side(question: str, development: float, seed: int) -> str:
    """Return the side on which a question falls, by its identifier."""
    text = f"answers:{seed}:{question}".encode()
    share = int.from_bytes(hashlib.sha256(text).digest()[:8], "big") / 2**64
    return DEVELOPMENT if share < development else TEST


class PromptEntry(Frozen):
    """An instruction in place of neurons: the model is asked to answer in the target language."""

    instruction: str | dict[str, str] = Field(
        "Answer in {language}.",
        description="Text, in which {language} is the English name of the target language; or a"
        " text by target language, such as each in its own. Empty: `turns` alone.",
    )
    place: Literal["before", "after", "system"] = Field(
        "after",
        description="Where it stands: before or after the question, or in the system prompt of a"
        " chat model (of others: before).",
    )
    turns: dict[str, Annotated[tuple[tuple[Said, Said], ...], Field(min_length=1)]] = Field(
        default_factory=dict,
        description="Questions and answers that come before, by target language (few-shot).",
    )
    label: str | None = Field(None, description="Name in tables and figures.")

    @field_validator("instruction")
    @classmethod
    def _fields(cls, value: str | dict[str, str]) -> str | dict[str, str]:
        for text in [value] if isinstance(value, str) else value.values():
            try:
                named = {field for _, field, _, _ in string.Formatter().parse(text)} - {None}
            except ValueError as error:
                raise ValueError(f"{text!r} cannot be filled in: {error}") from None
            if wrong := sorted(str(field) for field in named - {"language"}):
                raise ValueError(f"{text!r}: {{{wrong[0]}}}; legal: {{language}}")
        return value

    @model_validator(mode="after")
    def _asks(self) -> "PromptEntry":
        given = self.instruction
        texts = {"": given} if isinstance(given, str) else given
        for lang, text in texts.items():
            if not text.strip() and not self.turns:
                where = f" of {lang!r}" if lang else ""
                raise ValueError(
                    f"the instruction{where} is blank and there are no `turns`, so the prompt would"
                    " be the question alone; write a text"
                )
        return self


class Options(Frozen):
    """The settings among which a method is tuned."""

    selections: tuple[str, ...] = Field(
        (), description="Names from `selections`: rates, layers or variants of a method."
    )
    interventions: tuple[str, ...] = Field(
        (), description="Names from `interventions`, each applied to each selection: strengths."
    )
    prompts: tuple[str, ...] = Field(
        (), description="Names from `answers.prompts`, in place of the two."
    )

    @model_validator(mode="after")
    def _consistent(self) -> "Options":
        if bool(self.selections) != bool(self.interventions):
            raise ValueError("`selections` and `interventions` go together")
        if bool(self.selections) == bool(self.prompts):
            raise ValueError("name either selections and interventions, or prompts")
        for key in ("selections", "interventions", "prompts"):
            if again := doubled(getattr(self, key)):
                raise ValueError(f"{key}: {', '.join(again)} listed more than once")
        return self

    @property
    def settings(self) -> int:
        """The number of settings."""
        return len(self.selections) * len(self.interventions) + len(self.prompts)


class AnswerMethod(Options):
    """A method, with the settings among which it is tuned."""

    paper: Options | None = Field(
        None,
        description="Its settings under a protocol whose `tuning` follows the paper, where numbers"
        " of settings may differ; left out: the same.",
    )
    label: str | None = Field(None, description="Name in tables and figures.")


class AnswerControls(Frozen):
    """Random controls of a method's chosen settings."""

    draws: int = Field(
        20,
        ge=2,
        description="Random draws. Draw n answers the n-th of every `draws` test questions, so that"
        " all together cost as much as the method.",
    )
    match: Match = Field(
        "write_norm",
        description="What random neurons share with the selected ones. Of directions the control is"
        " random directions of the same length.",
    )


class JudgeEntry(Frozen):
    """Who rates how far an answer is one to its question."""

    models: Annotated[tuple[str, ...], Field(min_length=1, max_length=2)] = Field(
        description="Names from `models`; the first one's ratings are the relevance, a second one's"
        " show how far judges agree."
    )
    prompts: Annotated[tuple[Version, ...], Field(min_length=1, max_length=2)] = Field(
        ("1", "2"),
        description="Versions of the prompt (langneurons.evaluation.judge); the first one's ratings"
        " are the relevance, another's show how far two passes agree.",
    )

    @model_validator(mode="after")
    def _once(self) -> "JudgeEntry":
        for key in ("models", "prompts"):
            if again := doubled(getattr(self, key)):
                raise ValueError(f"{key}: {', '.join(again)} listed more than once")
        return self


class AnswersConfig(Answering):
    """Questions in source languages, answers wanted in target languages, methods compared."""

    methods: dict[str, AnswerMethod] = Field(
        min_length=1,
        description="By name. Every method has the same number of settings: selections x"
        " interventions, or prompts.",
    )
    prompts: dict[str, PromptEntry] = Field(
        default_factory=dict, description="Instructions, by name: methods without a selection."
    )
    language_sets: tuple[str, ...] | None = Field(
        None, description="Sets whose languages are targets; all if left out."
    )
    sources: tuple[str, ...] | None = Field(
        None, description="Languages of the questions; all of the set if left out."
    )
    targets: tuple[str, ...] | None = Field(
        None, description="Languages of the answers; all of the set if left out."
    )
    pairs: Literal["all", "same"] = Field(
        "all",
        description="all: every source with every target; scores are of those in other languages"
        " than the target. same: the questions of each language with itself as target, as of a"
        " benchmark whose questions are in the language of the answer or ask for it.",
    )
    max_new_tokens: int = Field(
        256, ge=1, le=1_048_576, description="Length of an answer, at most."
    )
    second_identifier: Identifier | None = Field(
        None,
        description="Another identifier beside the first; tables say how often the two agree.",
    )
    english_words: str | None = Field(
        None,
        min_length=1,
        description="File of English words, one per line, for word_pass: those of four and more"
        " letters without a capital count as English. Left out: every word in Latin letters.",
    )
    development: float = Field(
        1 / 3,
        gt=0,
        lt=1,
        description="Share of the questions on which settings are chosen; the others test.",
    )
    choose: Literal["score", "forced"] = Field(
        "score",
        description="What a setting is chosen by, for each target language: the mean score, or the"
        " share of answers in the target language.",
    )
    controls: AnswerControls = Field(
        default_factory=AnswerControls, description="Random controls of the chosen settings."
    )
    judge: JudgeEntry | None = Field(
        None,
        description="Left out: degeneracy and overlap with the question stand in for relevance, and"
        " tables say so.",
    )
    seed: Seed = Field(0, description="Seed of the split of the questions.")

    @model_validator(mode="after")
    def _consistent(self) -> "AnswersConfig":
        for section in ("methods", "prompts"):
            for name in getattr(self, section):
                if not is_name(name):
                    raise ValueError(
                        f"{section}: name {name!r}: names hold letters, digits, '.', '_', '+', '-'"
                        f" and begin with a letter or digit ({NAME_LENGTH} characters at most)"
                    )
        if self.second_identifier == self.identifier:
            raise ValueError("second_identifier: the same as `identifier`, so both always agree")
        for key in ("language_sets", "sources", "targets"):
            if again := doubled(getattr(self, key) or ()):
                raise ValueError(f"{key}: {', '.join(again)} listed more than once")
        return self

    def options(self, method: str, as_printed: bool = False) -> Options:
        """Return the settings of a method; as_printed: those under `paper`."""
        entry = self.methods[method]
        return entry.paper if as_printed and entry.paper is not None else entry
