"""What a shared folder says of itself: the headers of its files and of its card (docs/format.md).

Every key is required. A key that may be unknown (a mask that was published without a word on its
tokenizer, say) holds null.
"""

import re
from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field, field_validator, model_validator

import langneurons
from langneurons.activations.settings import Site
from langneurons.base.errors import InputError, nearest
from langneurons.base.messages import defined
from langneurons.base.settings import Frozen, doubled

if TYPE_CHECKING:
    from langneurons.models.language_model import LanguageModel

FORMAT, VERSION = "langneurons", 1
KINDS = ("statistics", "neurons", "directions", "adapters")
LIBRARY = f"langneurons {langneurons.__version__}"
# What of a neuron table's metadata is known of every selection, and of no imported mask.
UNKNOWN = ("revision", "tokenizer_hash", "dtype", "quantization", "tokens", "corpora", "statistics")
Stream = Literal["residual_in", "residual_out"]


class Origin(Frozen):
    """What is common to all kinds: which model, which text, who wrote it."""

    NAMED: ClassVar[str] = ""  # the key of the width of a layer

    format: Literal["langneurons"]
    version: Literal[1]
    kind: Literal["statistics", "neurons", "directions", "adapters"]
    library: str = Field(min_length=1, description="Name and version of what wrote the file.")
    model: str = Field(min_length=1, description="Repository of the model, or its name.")
    revision: str | None = Field(description="Commit of the model, or a digest of its weights.")
    tokenizer_hash: str | None = Field(description="Digest of the tokenizer's rules.")
    dtype: str | None = Field(description="Number format of weights and activations.")
    quantization: str | None = Field(description="Quantisation of the weights, or none.")
    n_layers: int = Field(ge=1, description="Layers of the model.")
    languages: tuple[str, ...] = Field(min_length=1, description="Codes, in their order.")
    tokens: dict[str, int] | None = Field(description="Tokens of each language that were counted.")
    corpora: dict[str, str] | None = Field(description="Digest of each language's tokens.")
    statistics: dict[str, str] | None = Field(
        description="Content digest of each language's statistics."
    )

    @property
    def width(self) -> int:
        """Size of a layer: neurons, or numbers of the residual stream."""
        return getattr(self, self.NAMED)

    @field_validator("languages")
    @classmethod
    def _once(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        again = doubled(value)
        if again:
            raise ValueError(f"{', '.join(again)} listed more than once")
        return value

    @model_validator(mode="after")
    def _of_these_languages(self) -> "Origin":
        for key in ("tokens", "corpora", "statistics"):
            found = getattr(self, key)
            if found is not None and set(found) != set(self.languages):
                raise ValueError(
                    f"{key}: of {', '.join(sorted(found))}, but languages are"
                    f" {', '.join(sorted(self.languages))}"
                )
        return self

    def plain(self) -> dict[str, Any]:
        """Return the header as plain values."""
        return self.model_dump(mode="json")


class NeuronsHeader(Origin):
    """Neurons of languages."""

    NAMED: ClassVar[str] = "d_mlp"

    kind: Literal["neurons"]
    d_mlp: int = Field(ge=1, description="Neurons of a layer.")
    units: Literal["neurons", "dimensions"] = Field(
        description="neurons of the MLP, or dimensions of the residual stream after the layer."
    )
    d_model: int | None = Field(
        ge=1, description="Dimensions of the residual stream; null where units are neurons."
    )
    sites: tuple[Site, ...] = Field(description="Sites whose statistics the method read.")
    method: str = Field(min_length=1, description="How the neurons were chosen.")
    parameters: dict[str, Any] = Field(description="Parameters of the method.")
    columns: tuple[str, ...] = Field(description="Numbers kept of each neuron; score is one.")

    @property
    def width(self) -> int:
        """Units of a layer."""
        return self.d_mlp if self.d_model is None else self.d_model

    @model_validator(mode="after")
    def _of_units(self) -> "NeuronsHeader":
        if (self.units == "dimensions") != (self.d_model is not None):
            raise ValueError(
                f"d_model: {self.d_model} with units {self.units}; dimensions have a d_model,"
                " neurons have null"
            )
        return self

    @field_validator("columns")
    @classmethod
    def _others(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        wrong = doubled(value) or sorted({"lang", "layer", "neuron"} & set(value))
        if wrong:
            raise ValueError(f"{', '.join(wrong)} cannot be listed, or is listed twice")
        return value


class DirectionsHeader(Origin):
    """A direction of the residual stream per language and layer."""

    NAMED: ClassVar[str] = "d_model"

    kind: Literal["directions"]
    d_model: int = Field(ge=1, description="Numbers of the residual stream.")
    site: Stream = Field(description="residual_in: before the layer; residual_out: after it.")
    method: str = Field(min_length=1, description="How the directions were found.")
    parameters: dict[str, Any] = Field(description="Parameters of the method.")


class StatisticsHeader(Origin):
    """Activation statistics of every neuron."""

    NAMED: ClassVar[str] = "d_mlp"

    kind: Literal["statistics"]
    d_mlp: int = Field(ge=1, description="Neurons of a layer.")
    sites: tuple[Site, ...] = Field(min_length=1, description="Sites that were measured.")
    settings: dict[str, Any] = Field(description="The other keys on which all files agree.")


class AdapterHeader(Origin):
    """A LoRA that does what a plan on neurons of one language does."""

    NAMED: ClassVar[str] = "d_mlp"

    kind: Literal["adapters"]
    d_mlp: int = Field(ge=1, description="Neurons of a layer.")
    d_model: int = Field(ge=1, description="Numbers of the residual stream.")
    method: str = Field(min_length=1, description="How the neurons were chosen.")
    parameters: dict[str, Any] = Field(description="Parameters of the method.")
    plan: str = Field(min_length=1, description="What the plan writes, such as `set 0`.")
    neurons: int = Field(ge=1, description="Neurons whose factor is not 1, over all layers.")
    rank: int = Field(ge=1, description="Rank of every module: neurons of the fullest layer.")
    modules: tuple[str, ...] = Field(min_length=1, description="Names of the modules, by layer.")


HEADERS: dict[str, type[Origin]] = {
    "statistics": StatisticsHeader,
    "neurons": NeuronsHeader,
    "directions": DirectionsHeader,
    "adapters": AdapterHeader,
}


def header_of(content: Any, shown: str, kind: str | None = None) -> Origin:
    """Return the header that plain values hold.

    Raises:
        ValueError: Another format, version or kind than is read here, or a key that is missing,
            unknown or of the wrong type. Messages begin with `shown`.
    """
    if not isinstance(content, Mapping) or content.get("format") != FORMAT:
        given = content.get("format") if isinstance(content, Mapping) else content
        raise InputError(f"{shown}: format is {given!r}; this library reads {FORMAT!r} only.")
    if content.get("version") != VERSION:
        raise InputError(
            f"{shown}: version {content.get('version')!r} of the format; this library reads version"
            f" {VERSION}. Install the version of langneurons that wrote it"
            f" ({content.get('library', 'not named')})."
        )
    found = content.get("kind")
    if found not in KINDS:
        raise InputError(
            f"{shown}: kind {found!r} is not known; known: {', '.join(KINDS)}."
            f"{nearest(found, KINDS)}"
        )
    if kind is not None and found != kind:
        raise InputError(f"{shown}: it holds {found}, not {kind}.")
    return defined(HEADERS[found], content, shown)


def check_model(header: Origin, model: "LanguageModel | str | None", shown: str) -> None:
    """Refuse what was made from another model, revision, tokenizer or geometry.

    model: a loaded model, of which all of these are compared as far as they are known; or its
    repository or name, which is compared alone.
    """
    if model is None:
        return
    if isinstance(model, str):
        if header.model != model:
            raise InputError(f"{shown}: {header.kind} of model {header.model!r}, not {model!r}.")
        return
    known: dict[str, Any] = dict(model.known_as) | {"n_layers": model.n_layers}
    known |= {"d_model": model.sites.d_model, "d_mlp": model.d_mlp}
    given = header.plain()
    with suppress(ValueError):  # a model without a tokenizer
        known["tokenizer_hash"] = model.tokenizer_hash
    for key in ("model", "n_layers", "d_mlp", "d_model", "revision", "tokenizer_hash"):
        if key in known and given.get(key) is not None and given[key] != known[key]:
            raise InputError(
                f"{shown}: {header.kind} of {_words(key)} {given[key]!r}; the loaded model has"
                f" {known[key]!r}. Load the model that they were made from:"
                f" {header.model} at {header.revision or 'a revision that is not known'}."
            )


def _words(key: str) -> str:
    return key.replace("_", " ") if key.startswith("tokenizer") else key


def hub_languages(languages: tuple[str, ...]) -> list[str]:
    """Return the codes that the hub takes as the languages of a repository."""
    return [lang for lang in languages if re.fullmatch("[a-z]{2,3}", lang)]
