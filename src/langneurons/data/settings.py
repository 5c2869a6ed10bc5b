"""Configuration key `corpus`: the text on which neurons are found and perplexity is measured."""

from typing import Annotated, Any, Literal

from pydantic import Field

from langneurons.base.settings import COMMIT, DATASET, KEPT_COMMIT, Frozen, Seed


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
    text_field: str = Field("text", description="Field with the document's text.")
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
