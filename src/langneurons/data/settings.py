"""Configuration key `corpus`: the text on which neurons are found and perplexity is measured."""

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, field_validator

from langneurons.base.paths import braces
from langneurons.base.settings import (
    COMMIT,
    DATASET,
    KEPT_COMMIT,
    NAME_LENGTH,
    Frozen,
    Seed,
    is_name,
)


class MiniText(Frozen):
    """The parallel sentences that come with the package (nine languages)."""

    kind: Literal["mini"]
    texts: Literal["corpus", "parallel"] = Field(
        "corpus",
        description="corpus: 265 sentences of about 35 tokens; parallel: 60 others of about 13.",
    )


CODES: Any = Field(
    default_factory=dict,
    description="The data set's own code of a language, for {code}; ours where not named.",
)


class HubText(Frozen):
    """A data set of the hub, streamed and shuffled."""

    kind: Literal["hub"]
    dataset: str = Field(pattern=DATASET, description="Repository of the data set.")
    config: str = Field("{lang}", description="Configuration name with {lang} or {code}.")
    split: str = Field("train", description="Split to stream.")
    revision: str = Field(
        pattern=COMMIT,
        description=f"The commit of the data set (40 hexadecimal digits); or {KEPT_COMMIT}.",
    )
    text_field: str = Field(
        "text",
        description="Field with the document's text; with {lang} or {code} where a data set has a"
        " field per language.",
    )

    @field_validator("text_field")
    @classmethod
    def _braces(cls, value: str) -> str:
        for name in braces(value):
            if name not in ("lang", "code"):
                raise ValueError(
                    f"{value!r}: {{{name}}} is not filled in; legal: {{lang}}, {{code}}"
                )
        return value

    id_field: str | None = Field("id", description="Field with its identifier; null: the position.")
    seed: Seed | None = Field(
        42, description="Seed of the shuffle; null: the data set's own order."
    )
    buffer: int = Field(10_000, ge=1, description="Documents in the shuffle buffer.")
    shards: int = Field(
        2,
        ge=1,
        description="Files that the buffer is filled from in turns, which decides the sample as the"
        " seed does; each that is open takes memory (some 20 MB).",
    )
    characters: int = Field(
        600_000_000, ge=1, description="Stop after this many characters per language."
    )
    codes: dict[str, str] = CODES


class FolderText(Frozen):
    """A folder that `datasets.save_to_disk` wrote."""

    kind: Literal["folder"]
    path: str = Field(description="Path with {lang} or {code}.")
    text_field: str = Field("text", description="Field with the document's text.")
    id_field: str | None = Field(None, description="Field with its identifier; null: the position.")
    codes: dict[str, str] = CODES


class JsonlText(Frozen):
    """A JSONL file per language, one document per line."""

    kind: Literal["jsonl"]
    path: str = Field(description="Path with {lang} or {code}.")
    text_field: str = Field("text", description="Field with the document's text.")
    id_field: str | None = Field(None, description="Field with its identifier; null: the position.")
    codes: dict[str, str] = CODES


class LinesText(Frozen):
    """A plain text file per language, one document per line, such as FLORES-200's."""

    kind: Literal["text"]
    path: str = Field(description="Path with {lang} or {code}.")
    codes: dict[str, str] = CODES


TextSource = Annotated[
    MiniText | HubText | FolderText | JsonlText | LinesText, Field(discriminator="kind")
]


class VariantEntry(Frozen):
    """What every text control has: where it is made, and what is shown of it."""

    # The job that makes it: of the source, of the base's documents, or of the base's tokens.
    made: ClassVar[Literal["fetched", "changed", "packed"]]
    label: str | None = Field(
        None,
        min_length=1,
        description="Shown after the name of the language; the variant's name if left out.",
    )


class Romanised(VariantEntry):
    """Every letter in Latin script, by uroman (docs/languages.md)."""

    made = "changed"
    kind: Literal["romanised"]


class ShuffledWords(VariantEntry):
    """The words of each sentence in another order; characters where a script has no spaces."""

    made = "changed"
    kind: Literal["shuffled_words"]
    seed: Seed = Field(0, description="Seed of the orders; each document has one of its own.")


class RandomTokens(VariantEntry):
    """Tokens drawn by their frequencies in the identification text; documents keep their length."""

    made = "packed"
    kind: Literal["random_tokens"]
    seed: Seed = Field(0, description="Seed of the tokens; each document has one of its own.")


class OtherText(VariantEntry):
    """The same language from another text, such as one in another script."""

    made = "fetched"
    kind: Literal["source"]
    source: TextSource = Field(
        description="Where the documents come from; {lang} and {code} are those of the language."
    )
    heldout_source: TextSource | None = Field(
        None, description="Where the held-out documents come from; left out: a share of `source`."
    )
    script: str | None = Field(
        None,
        pattern="^[A-Z][a-z]{3}$",
        description="ISO 15924 code of its script, such as Latn; the language's if left out.",
    )


class EqualTokens(VariantEntry):
    """Exactly this many identification tokens; the held-out text is the language's."""

    made = "packed"
    kind: Literal["tokens"]
    tokens: int = Field(
        ge=1, description="Identification tokens. A language with fewer is refused."
    )


Variant = Annotated[
    Romanised | ShuffledWords | RandomTokens | OtherText | EqualTokens,
    Field(discriminator="kind"),
]


class CorpusConfig(Frozen):
    """The corpus of every language."""

    source: TextSource = Field(MiniText(kind="mini"), description="Where the documents come from.")
    tokens: int = Field(
        100_000_000, ge=1, description="Tokens per language on which neurons are found, at most."
    )
    heldout_tokens: int = Field(
        1_000_000, ge=1, description="Held-out tokens per language for perplexity, at most."
    )
    heldout_fraction: float = Field(
        0.02,
        gt=0,
        lt=1,
        description="Share of documents held out, drawn by the hash of their identifier, so that"
        " translations of a document fall on the same side in every language.",
    )
    split: Literal["hash", "order"] = Field(
        "hash",
        description="order: the last documents of each language are held out instead, by their"
        " characters (translations then fall on different sides).",
    )
    heldout_source: TextSource | None = Field(
        None,
        description="Where the held-out documents come from; left out: a share of `source`.",
    )
    block_size: int = Field(
        512, ge=8, le=1_048_576, description="Tokens per packed block, BOS included."
    )
    heldout_block_size: int = Field(
        256, ge=8, le=1_048_576, description="The same for held-out blocks."
    )
    bos: Literal["block", "document", "none"] = Field(
        "block",
        description="Where the beginning-of-sequence token goes: at the start of every block, of"
        " every document, or nowhere. It is what the tokenizer puts before every text (XGLM:"
        " `</s>`), or its BOS token. It is never counted and never predicted. A model whose"
        " tokenizer has neither reads none; the log and the table `corpora` show which.",
    )
    packing: Literal["joined", "document"] = Field(
        "joined",
        description="joined: documents follow one another in a block; document: each begins a block"
        " of its own, so that none sees another.",
    )
    prefix: str = Field(
        "",
        description="Text that stands before every document, tokenised by itself; read, not counted"
        " and not predicted.",
    )
    separator: Literal["none", "newline", "eos"] = Field(
        "newline", description="What stands between two documents of a block."
    )
    seed: Seed = Field(0, description="Seed of the split by document.")
    variants: dict[str, Variant] = Field(
        default_factory=dict,
        description="Changed texts by name. `hi@romanised` in a language set is the variant"
        " `romanised` of Hindi, with a corpus and statistics of its own.",
    )

    @field_validator("variants")
    @classmethod
    def _names(cls, value: dict) -> dict:
        for key in value:
            if not is_name(key):
                raise ValueError(
                    f"name {key!r}: names hold letters, digits, '.', '_', '+', '-' and begin with"
                    f" a letter or digit ({NAME_LENGTH} characters at most)"
                )
        return value
