"""Configuration key `browser`: what is found out about each selected neuron, for its page."""

from typing import Literal

from pydantic import Field

from langneurons.base.settings import Frozen


class BrowserConfig(Frozen):
    """The neuron browser: contexts, tokens written, and what single neurons cost."""

    selections: tuple[str, ...] | None = Field(
        None,
        description="Selections whose neurons get pages, names; left out: all but random ones.",
    )
    language_sets: tuple[str, ...] | None = Field(
        None, description="Names; left out: all on which one of the selections is made."
    )
    contexts: int = Field(
        5, ge=1, le=50, description="Documents of a language that are kept of each neuron."
    )
    words: int = Field(12, ge=1, le=64, description="Words kept before and after a token.")
    tokens: int | None = Field(
        1_000_000,
        ge=1,
        description="Tokens of each language in which contexts are looked for; null: all.",
    )
    site: Literal["act", "product"] = Field(
        "act", description="Where a neuron's strength is read (`statistics.sites`)."
    )
    written: int = Field(
        10, ge=1, le=100, description="Tokens listed that a neuron raises and lowers."
    )
    zeroed: int = Field(
        8,
        ge=0,
        le=1000,
        description="Neurons of each language that are set to zero one at a time: those whose"
        " activation probability exceeds that of the other languages most.",
    )
    links: dict[str, str] = Field(
        default_factory=dict,
        description="By model, the address of a neuron's page elsewhere: {layer} and {neuron} are"
        " filled in.",
    )
