"""Configuration key `trials`: methods compared at equal doses and with equal tuning."""

from typing import Literal

from pydantic import Field, model_validator

from langneurons.base.settings import NAME_LENGTH, Frozen, Seed, doubled, is_name

Match = Literal["layer", "frequency", "write_norm"]


class MethodEntry(Frozen):
    """A method that is judged: the settings among which it is tuned."""

    selections: tuple[str, ...] = Field(
        min_length=1, description="Names from `selections`: rates, layers or variants of a method."
    )
    interventions: tuple[str, ...] = Field(
        min_length=1, description="Names from `interventions`, each applied to each selection."
    )
    label: str | None = Field(None, description="Name in tables and figures.")


class ControlsEntry(Frozen):
    """Random controls of a method's chosen settings, at the same dose."""

    draws: int = Field(20, ge=2, description="Random draws of each control.")
    matches: tuple[Match, ...] = Field(
        ("layer", "frequency", "write_norm"),
        description="What random neurons share with the selected ones, as `match` of the selection"
        " method random. Of a method that gives directions the control is random directions of the"
        " same length.",
    )


class TrialsConfig(Frozen):
    """Methods judged by held-out text: tuned on some documents, tested on the others."""

    methods: dict[str, MethodEntry] = Field(
        min_length=1,
        description="By name. Every method has the same number of settings: selections x"
        " interventions x doses.",
    )
    language_sets: tuple[str, ...] | None = Field(
        None, description="Sets whose languages are targets; all if left out."
    )
    evaluated: tuple[str, ...] = Field(
        (), description="More languages that are read, such as variants of those of the set."
    )
    doses: tuple[float, ...] = Field(
        (),
        description="Doses, as `dose_by` measures them; strengths are solved for. Left out: every"
        " intervention as it is.",
    )
    dose_by: Literal["stream", "kl"] = Field(
        "stream",
        description="stream: the mean change of the residual stream after the last block, as a"
        " share of its length, on the target's text. kl: KL(untouched || under the plan) of"
        " next-token distributions, in nats per token, on text of `dose_language`.",
    )
    dose_language: str | None = Field(
        None,
        description="Language of the text of `dose_by: kl`; en if left out. It is one of the set,"
        " or of `evaluated`.",
    )
    dose_tokens: int = Field(
        256, ge=1, description="Identification tokens on which doses are measured."
    )
    documents: int | None = Field(
        None, ge=4, description="Held-out documents per language, at most; all if left out."
    )
    development: float = Field(
        1 / 3, gt=0, lt=1, description="Share of the documents on which settings are chosen."
    )
    choose: Literal["specificity", "own"] = Field(
        "specificity",
        description="What a setting is chosen by, in nats per token: the change of the target's NLL"
        " minus the mean of the other languages', or the target's alone.",
    )
    kl: bool = Field(
        False,
        description="Whether to measure KL(untouched || under the plan) of next-token distributions"
        " under the chosen settings, in every language, on test documents.",
    )
    controls: ControlsEntry = Field(default_factory=ControlsEntry, description="Random controls.")
    seed: Seed = Field(0, description="Seed of the split into development and test documents.")

    @model_validator(mode="after")
    def _consistent(self) -> "TrialsConfig":
        for key in ("doses", "evaluated"):
            if again := doubled(getattr(self, key)):
                raise ValueError(f"{key}: {', '.join(again)} listed more than once")
        most, what = {"stream": (2, "a share of the stream"), "kl": (20, "nats")}[self.dose_by]
        for dose in self.doses:
            if not 0 < dose <= most:
                raise ValueError(f"doses: {dose:g} is not {what}; legal: 0 to {most}")
        if self.dose_language is not None and self.dose_by != "kl":
            raise ValueError("dose_language: it belongs to `dose_by: kl`")
        for name in self.methods:
            if not is_name(name):
                raise ValueError(
                    f"methods: name {name!r}: names hold letters, digits, '.', '_', '+', '-' and"
                    f" begin with a letter or digit ({NAME_LENGTH} characters at most)"
                )
        numbers = {name: self.settings(name) for name in self.methods}
        if len(set(numbers.values())) > 1:
            shown = ", ".join(f"{name} {number}" for name, number in numbers.items())
            raise ValueError(
                f"methods: every method needs the same number of settings (selections x"
                f" interventions x doses), but they have: {shown}"
            )
        return self

    @property
    def dose_text(self) -> str | None:
        """The language on whose text doses are measured; None: each target's own."""
        return (self.dose_language or "en") if self.dose_by == "kl" else None

    def settings(self, method: str) -> int:
        """Return the number of settings among which a method is tuned."""
        entry = self.methods[method]
        return len(entry.selections) * len(entry.interventions) * max(len(self.doses), 1)
