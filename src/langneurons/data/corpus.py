"""Corpora: documents of a language, split by document, packed into blocks of tokens.

A document goes to the held-out part by the hash of its identifier, so translations of a document
(which share it) fall on the same side in every language, and no document is in both parts.
Documents are tokenised without special tokens, joined with the separator, and cut into blocks of
fixed length; the last block may be shorter. BOS stands where the policy says: the token or tokens
with which the tokenizer begins every text, or its BOS token. They are never counted and never
predicted.
"""

import hashlib
import itertools
import json
import logging
import os
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from langneurons.base.errors import InputError
from langneurons.base.io import (
    DamagedFile,
    atomic,
    damaged,
    expect,
    iterate_jsonl,
    read_tensors,
    write_json,
    write_tensors,
)
from langneurons.data import sources, typed
from langneurons.data.mini_data import mini_file
from langneurons.data.rows import Row, Rows
from langneurons.models.encoding import Encoder, beginning, check_length, following, plain_text

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from langneurons.data.settings import CorpusConfig, TextSource

log = logging.getLogger(__name__)
PARTS = ("identification", "heldout")
ARRAYS = ("tokens", "lengths", "document", "scored")


def split_of(identifier: str, fraction: float, seed: int) -> str:
    """Return the part of a document: a hash of seed and identifier, not of its position."""
    value = hashlib.sha256(f"{seed}:{identifier}".encode()).digest()
    held_out = int.from_bytes(value[:8], "big") < fraction * 2**64
    return "heldout" if held_out else "identification"


def documents(source: "TextSource", lang: str, key: str = "corpus.source") -> Rows:
    """Return the rows of a language from the source of a configuration key."""
    if source.kind == "mini":
        return sources.read({"kind": "mini"}, key, lang, mini=mini_file(source.texts, lang))
    fields = [field for field in _fields(source) if field is not None]
    code = source.codes.get(lang, lang)
    return sources.read(source.model_dump(), key, lang, code, fields=fields, needed=fields)


def of_language(source: "TextSource", lang: str) -> "TextSource":
    """Return the source with the language's code in the name of its text field."""
    if source.kind != "hub":
        return source
    code = source.codes.get(lang, lang)
    return source.model_copy(update={"text_field": source.text_field.format(lang=lang, code=code)})


def _fields(source: "TextSource") -> tuple[str, str | None]:
    """Return the fields of text and identifier; None: a document is named by its position."""
    if source.kind == "mini":
        return "text", "id"
    return ("text", None) if source.kind == "text" else (source.text_field, source.id_field)


def document(row: Row, source: "TextSource", number: int) -> tuple[str, str]:
    """Return the identifier and text of a row; a text that is null is blank.

    number: the row's position, from 0, which names it where the source has no identifiers.
    """
    text_field, id_field = _fields(source)
    value = typed.need(row, text_field, row.place)
    text = typed.optional_text(value, row.place, text_field)
    name = f"{number:09d}"
    if id_field is not None:
        value = typed.need(row, id_field, row.place)
        name = typed.identifier(value, row.place, id_field)
    return name, text or ""


class _Texts:
    """The documents of a language as they are read: what is dropped is counted.

    Yields (identifier, text), stops at the source's number of characters, and passes over
    blank texts, those that an earlier document of any source has, and those of the hub that hold
    NUL characters; in a file of the user's own they are an error.
    """

    def __init__(self, lang: str):
        self.lang = lang
        self.dropped = {"blank": 0, "doubled": 0, "nul": 0}
        self._seen = typed.Unique("text")
        self._names = typed.Unique("id")

    def read(self, source: "TextSource", rows: Rows, prefix: str = "") -> Iterator[tuple[str, str]]:
        """Yield the documents of one source."""
        text_field, id_field = _fields(source)
        most, characters = getattr(source, "characters", None), 0
        for number, row in enumerate(rows):
            if source.kind == "hub" and "\0" in str(row.get(text_field)):
                self.dropped["nul"] += 1
                continue
            name, text = document(row, source, number)
            kept = text.strip()
            characters += len(text)
            key = hashlib.sha256(kept.encode()).digest()[:16]
            if typed.blank(kept):
                self.dropped["blank"] += 1
            elif self._seen.first(key, "") is not None:
                self.dropped["doubled"] += 1
            else:
                if id_field is not None:
                    self._names.add(prefix + name, row.place)
                yield prefix + name, kept
            if most is not None and characters >= most:
                return


def fetch_text(
    config: "CorpusConfig",
    lang: str,
    path: str | os.PathLike,
    about: str | os.PathLike | None = None,
    key: str = "corpus",
) -> None:
    """Write the documents of a language as JSONL: id, split, text. Doubled texts are dropped.

    With a `heldout_source`, all of it is held out and nothing of `source` is; its identifiers get a
    prefix, since two sources may number their documents alike. Documents are written as they come,
    so that memory does not grow with the text. about: a JSON file for where the documents come
    from, how many they are and what was dropped. key: the place of the sources in the
    configuration, which errors name.
    """
    apart = config.heldout_source is not None
    texts, origins = _Texts(lang), []
    in_order = config.split == "order" and not apart
    counts, total = dict.fromkeys(PARTS, 0), 0
    with atomic(path) as temporary, temporary.open("w", encoding="utf-8") as written:
        for source, part in ((config.source, PARTS[0]), (config.heldout_source, PARTS[1])):
            if source is None:
                continue
            source = of_language(source, lang)
            rows = documents(source, lang, f"{key}.{'' if part == PARTS[0] else 'heldout_'}source")
            origins.append(rows.origin)
            prefix = "heldout:" if apart and part == PARTS[1] else ""
            for name, text in texts.read(source, rows, prefix):
                split = part
                if not apart and not in_order:
                    split = split_of(name, config.heldout_fraction, config.seed)
                written.write(line(name, split, text))
                counts[split] += 1
                total += len(text)
        if in_order:
            written.flush()
            counts = _split_in_order(temporary, total, config.heldout_fraction)
        documents_, held_out = sum(counts.values()), counts[PARTS[1]]
        if held_out == 0 or held_out == documents_:
            raise InputError(
                f"{lang}: {documents_} documents, {held_out} of them held out; both parts need"
                " some. Change corpus.heldout_fraction or give more documents."
            )
    found = {"documents": documents_, "heldout": held_out, "characters": total}
    if about is not None:
        write_json(about, {"sources": origins, "dropped": texts.dropped} | found)
    dropped = texts.dropped
    log.info(
        "%s: %d documents of %d characters, %d held out; dropped: %d blank, %d doubled, %d with"
        " NUL characters",
        lang,
        documents_,
        total,
        held_out,
        dropped["blank"],
        dropped["doubled"],
        dropped["nul"],
    )


def line(name: str, split: str, text: str) -> str:
    """Return a document as a line of JSONL."""
    row = {"id": name, "split": split, "text": text}
    return json.dumps(row, ensure_ascii=False) + "\n"


def _split_in_order(path: Path, total: int, fraction: float) -> dict[str, int]:
    """Hold out the documents that end in the last share of a language's characters.

    The total is known when all are written: they are read again and written with their part.
    """
    seen, counts = 0, dict.fromkeys(PARTS, 0)
    with atomic(path) as again, again.open("w", encoding="utf-8") as written:
        for row in iterate_jsonl(path):
            seen += len(row["text"])
            split = PARTS[1] if seen > (1 - fraction) * total else PARTS[0]
            counts[split] += 1
            written.write(line(row["id"], split, row["text"]))
    return counts


@dataclass
class Part:
    """Packed blocks: tokens, document, scored are (n_blocks, block_size), lengths (n_blocks,).

    document: index into `documents`, -1 on BOS, separators and pads. scored: False on BOS and pads.
    """

    tokens: np.ndarray
    lengths: np.ndarray
    document: np.ndarray
    scored: np.ndarray
    documents: list[str]
    document_bytes: list[int]

    def fault(self) -> str | None:
        """Say what is wrong with the arrays, if anything is."""
        shape = self.tokens.shape
        if len(shape) != 2 or any(a.shape != shape for a in (self.document, self.scored)):
            return "arrays of different shapes"
        if self.lengths.shape != shape[:1] or len(self.documents) != len(self.document_bytes):
            return "arrays of different lengths"
        if self.lengths.size and not (1 <= self.lengths.min() <= self.lengths.max() <= shape[1]):
            return "lengths outside the blocks"
        if self.tokens.size and self.tokens.min() < 0:
            return "negative tokens"
        if self.document.size and not (
            -1 <= self.document.min() <= self.document.max() < len(self.documents)
        ):
            return "documents that are not listed"
        beyond = np.arange(shape[1]) >= self.lengths[:, None]
        return "scored tokens beyond the end of a block" if (self.scored & beyond).any() else None

    def sample(self, tokens: int, seed: int) -> "Part":
        """Return random blocks, without replacement, that hold `tokens` scored tokens."""
        order = np.random.default_rng(seed).permutation(len(self.lengths))
        counts = np.cumsum(self.scored[order].sum(axis=1))
        chosen = np.sort(order[: int(np.searchsorted(counts, tokens)) + 1])
        return Part(
            self.tokens[chosen],
            self.lengths[chosen],
            self.document[chosen],
            self.scored[chosen],
            self.documents,
            self.document_bytes,
        )

    def first(self, tokens: int | None, documents: int | None = None) -> "Part":
        """Return the first blocks that hold `tokens` scored tokens (whole blocks), or all.

        Of these, with `documents`, only the first documents: what follows them is cut off.
        """
        if documents is not None:
            return self.first(tokens)._first_documents(documents)
        if tokens is None:
            return self
        counts = np.cumsum(self.scored.sum(axis=1))
        n_blocks = min(int(np.searchsorted(counts, tokens)) + 1, len(counts))
        return self._cut(n_blocks)

    def _first_documents(self, number: int) -> "Part":
        kept = (self.document >= 0) & (self.document < number)
        blocks = np.flatnonzero(kept.any(axis=1))
        if not len(blocks):
            return self._cut(0)
        part = self._cut(int(blocks[-1]) + 1)
        inside = kept[: len(part.lengths)]
        ends = inside.shape[1] - np.argmax(inside[:, ::-1], axis=1)  # past each block's last one
        part.lengths = np.where(inside.any(axis=1), np.minimum(part.lengths, ends), 1)
        part.lengths = part.lengths.astype(self.lengths.dtype)
        part.scored = part.scored & inside
        return part

    def only(self, chosen: np.ndarray) -> "Part":
        """Return the blocks that hold chosen documents, in which only these are scored.

        chosen: bool (documents,). What stands before a document in its block is read as before.
        """
        kept = (self.document >= 0) & chosen[np.maximum(self.document, 0)]
        blocks = np.flatnonzero((kept & self.scored).any(axis=1))
        return Part(
            self.tokens[blocks],
            self.lengths[blocks],
            self.document[blocks],
            (self.scored & kept)[blocks],
            self.documents,
            self.document_bytes,
        )

    def _cut(self, n_blocks: int) -> "Part":
        return Part(
            self.tokens[:n_blocks],
            self.lengths[:n_blocks],
            self.document[:n_blocks],
            self.scored[:n_blocks],
            self.documents,
            self.document_bytes,
        )


@dataclass
class Corpus:
    """The packed corpus of one language under one tokenizer."""

    lang: str
    identification: Part
    heldout: Part
    header: dict

    def write(self, path: str | os.PathLike) -> None:
        """Write both parts, atomically."""
        tensors, header = {}, dict(self.header)
        for name in PARTS:
            part = getattr(self, name)
            for key in ARRAYS:
                tensors[f"{name}.{key}"] = getattr(part, key)
            header[f"{name}.documents"] = part.documents
            header[f"{name}.document_bytes"] = part.document_bytes
        write_tensors(path, tensors, header)

    @classmethod
    def read(cls, path: str | os.PathLike, **expected: Any) -> "Corpus":
        """Read a corpus whose header must say what is `expected`, such as tokenizer_hash."""
        tensors, header = read_tensors(path)
        expect(path, header, expected)
        parts = {}
        for name in PARTS:
            try:
                parts[name] = Part(
                    documents=header.pop(f"{name}.documents"),
                    document_bytes=header.pop(f"{name}.document_bytes"),
                    **{key: tensors[f"{name}.{key}"] for key in ARRAYS},
                )
            except KeyError as error:
                raise DamagedFile(damaged(path, f"lacks {error}")) from error
            reason = parts[name].fault()
            if reason:
                raise DamagedFile(damaged(path, f"{name}: {reason}"))
        return cls(header["lang"], parts["identification"], parts["heldout"], header)


def pack_documents(
    encoded: Iterable[tuple[str, list[int], int]],
    block_size: int,
    budget: int,
    bos: str,
    begin: Sequence[int],
    separator: list[int],
    pad_id: int,
    packing: str = "joined",
    prefix: Sequence[int] = (),
) -> Part:
    """Pack (identifier, token ids, bytes) into blocks until `budget` scored tokens are reached.

    The document or separator that would exceed the budget is cut there. `begin` is BOS: per
    document, it precedes each document; per block, it begins each block; with `none` it is not
    read. With `packing` document, each document begins a block, without a separator before it.
    `prefix` stands before each document, unscored.
    """
    if bos != "none" and not begin:
        raise ValueError(f"bos {bos!r} needs the tokens of BOS, got none")
    if bos == "block" and len(begin) >= block_size:
        raise ValueError(
            f"blocks of {block_size} tokens hold no text: the tokenizer begins each with"
            f" {len(begin)} tokens. Make corpus.block_size and corpus.heldout_block_size larger."
        )
    # 100 M tokens are lists of several GB, and arrays of less than one.
    stream, owner, scored = array("i"), array("i"), bytearray()
    names: list[str] = []
    sizes: list[int] = []
    remaining = budget
    starts: list[int] = [0]
    for identifier, ids, n_bytes in encoded:
        if remaining <= 0:
            break
        if not ids:
            continue
        joint = separator if names and packing == "joined" else []
        if bos == "document":
            joint = []
        if len(joint) >= remaining:  # the budget ends in the separator
            stream.extend(joint[:remaining])
            owner.extend([-1] * remaining)
            scored += b"\1" * remaining
            break
        if packing == "document" and stream:
            starts.append(len(stream))
        if bos == "document":
            stream.extend(begin)
            owner.extend([-1] * len(begin))
            scored += bytes(len(begin))
        stream.extend(prefix)
        owner.extend([-1] * len(prefix))
        scored += bytes(len(prefix))
        take = ids[: remaining - len(joint)]
        stream.extend(joint + take)
        owner.extend([-1] * len(joint) + [len(names)] * len(take))
        scored += b"\1" * (len(joint) + len(take))
        remaining -= len(joint) + len(take)
        names.append(identifier)
        sizes.append(n_bytes if len(take) == len(ids) else round(n_bytes * len(take) / len(ids)))
    body = block_size - len(begin) if bos == "block" else block_size
    cuts = [
        cut
        for first, last in itertools.pairwise([*starts, len(stream)])
        for cut in range(first, last, body)
    ]
    pieces = [slice(*pair) for pair in itertools.pairwise([*cuts, len(stream)])]
    n_blocks = len(pieces)
    shape = (n_blocks, block_size)
    tokens = np.full(shape, pad_id, np.int32)
    document = np.full(shape, -1, np.int32)
    mask = np.zeros(shape, bool)
    lengths = np.zeros(n_blocks, np.int32)
    offset = block_size - body
    for block, piece in enumerate(pieces):
        size = len(stream[piece])
        if offset:
            tokens[block, :offset] = begin
        tokens[block, offset : offset + size] = stream[piece]
        document[block, offset : offset + size] = owner[piece]
        mask[block, offset : offset + size] = np.frombuffer(scored[piece], bool)
        lengths[block] = offset + size
    return Part(tokens, lengths, document, mask, names, sizes)


def bos_policy(
    asked: str, tokenizer: "PreTrainedTokenizerBase", lang: str
) -> tuple[str, list[int]]:
    """Return where BOS goes in one model's blocks, and its tokens.

    It goes nowhere if the tokenizer puts nothing before a text and has no BOS token.
    """
    if asked == "none":
        return asked, []
    begin = beginning(tokenizer)
    if not begin:
        log.warning(
            "%s: the tokenizer has no BOS token, so none is read (corpus.bos: %s)", lang, asked
        )
        return "none", []
    if begin != [tokenizer.bos_token_id]:
        log.info(
            "%s: texts begin with %s, as the tokenizer has it; its BOS token is %s",
            lang,
            " ".join(tokenizer.convert_ids_to_tokens(begin)),
            tokenizer.bos_token,
        )
    return asked, begin


def pack_corpus(
    config: "CorpusConfig",
    lang: str,
    text_path: str | os.PathLike,
    tokenizer: "PreTrainedTokenizerBase",
    tokenizer_hash: str,
    limit: int | None = None,
    about: Mapping[str, Any] | None = None,
) -> Corpus:
    """Tokenise and pack the documents that `fetch_text` wrote.

    limit: how many tokens the model reads at most; longer blocks are refused. about: where the
    documents come from, as `fetch_text` noted it.
    """
    for key in ("block_size", "heldout_block_size"):
        check_length(getattr(config, key), limit, f"corpus.{key}")
    bos, begin = bos_policy(config.bos, tokenizer, lang)
    words = tokenizer.convert_ids_to_tokens(begin)
    eos = tokenizer.eos_token_id
    if config.separator == "eos" and eos is None:
        raise ValueError("the tokenizer has no EOS token; set corpus.separator: newline")
    separators = {
        "none": [],
        "newline": following(tokenizer, "\n"),
        "eos": [eos],
    }
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else (eos or 0)
    budgets = {
        "identification": (config.tokens, config.block_size),
        "heldout": (config.heldout_tokens, config.heldout_block_size),
    }
    parts = {}
    for name, (budget, block_size) in budgets.items():
        chosen = (row for row in iterate_jsonl(text_path) if row["split"] == name)
        part = pack_documents(
            _encode(chosen, tokenizer),
            block_size,
            budget,
            bos,
            begin,
            separators[config.separator],
            pad,
            config.packing,
            Encoder(tokenizer).text(config.prefix) if config.prefix else [],
        )
        total = int(part.scored.sum())
        level = logging.WARNING if total < budget else logging.INFO
        log.log(level, "%s: %s has %d tokens of %d asked for", lang, name, total, budget)
        if not total:
            raise ValueError(f"{lang}: the {name} part holds no tokens")
        parts[name] = part
    if overlap := set(parts["identification"].documents) & set(parts["heldout"].documents):
        raise ValueError(f"{lang}: documents {sorted(overlap)[:3]} are in both parts")
    header = {
        "lang": lang,
        "tokenizer_hash": tokenizer_hash,
        "corpus_hash": corpus_hash(parts.values()),
        "bos": bos,
        "bos_asked": config.bos,
        "bos_tokens": begin,
        "bos_words": [] if begin == [tokenizer.bos_token_id] else words,
        "separator": config.separator,
        "packing": config.packing,
        "prefix": config.prefix,
        "tokens": {name: int(part.scored.sum()) for name, part in parts.items()},
        "text": dict(about or {}),
    }
    return Corpus(lang, parts["identification"], parts["heldout"], header)


def corpus_hash(parts: Iterable[Part]) -> str:
    """Return a digest of the tokens of both parts and of the names of their documents."""
    digest = hashlib.sha256()
    for part in parts:
        for one in (part.tokens, part.lengths, part.scored):
            digest.update(np.ascontiguousarray(one).tobytes())
        digest.update(json.dumps(part.documents).encode())
    return digest.hexdigest()[:16]


def _encode(
    rows: Iterable[dict], tokenizer: "PreTrainedTokenizerBase", chunk: int = 256
) -> Iterator[tuple[str, list, int]]:
    rows = iter(rows)
    while batch := list(itertools.islice(rows, chunk)):
        encoded = plain_text(tokenizer, [row["text"] for row in batch])
        for row, ids in zip(batch, encoded, strict=True):
            yield row["id"], ids, len(row["text"].encode())
