"""Corpora: documents of a language, split by document, packed into blocks of tokens.

A document goes to the held-out part by the hash of its identifier, so translations of a document
(which share it) fall on the same side in every language, and no document is in both parts.
Documents are tokenised without special tokens, joined with the separator, and cut into blocks of
fixed length; the last block may be shorter. BOS stands where the policy says; it is never counted
and never predicted.
"""

import hashlib
import itertools
import json
import logging
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from langneurons.encoding import Encoder, plain_text, separator_tokens
from langneurons.io import (
    DamagedFile,
    damaged,
    expect,
    read_jsonl,
    read_tensors,
    write_jsonl,
    write_tensors,
)
from langneurons.paths import user_path

if TYPE_CHECKING:
    from langneurons.config.corpus import CorpusConfig

log = logging.getLogger(__name__)
MINI = Path(__file__).parent / "mini"
PARTS = ("identification", "heldout")
ARRAYS = ("tokens", "lengths", "document", "scored")


def split_of(identifier: str, fraction: float, seed: int) -> str:
    """Return the part of a document: a hash of seed and identifier, not of its position."""
    value = hashlib.sha256(f"{seed}:{identifier}".encode()).digest()
    held_out = int.from_bytes(value[:8], "big") < fraction * 2**64
    return "heldout" if held_out else "identification"


def documents(source, lang: str, key: str = "corpus.source") -> Iterator[tuple[str, str]]:
    """Yield (identifier, text) of a language from the source of a configuration key."""
    names = {} if source.kind == "mini" else {"lang": lang, "code": source.codes.get(lang, lang)}
    if source.kind == "mini":
        for row in read_jsonl(MINI / "corpus" / f"{lang}.jsonl"):
            yield row["id"], row["text"]
    elif source.kind == "jsonl":
        path = _file(source, names, key)
        yield from _fields(read_jsonl(path), source, path)
    elif source.kind == "text":
        path = _file(source, names, key)
        for number, line in enumerate(Path(path).read_text(encoding="utf-8").split("\n")):
            if line.strip():
                yield f"{number:09d}", line
    elif source.kind == "folder":
        from datasets import load_from_disk

        path = str(user_path(source.path, names))
        rows = load_from_disk(path)
        if isinstance(rows, dict):
            raise ValueError(
                f"{key}.path: {path} holds the splits {', '.join(rows)}; name the folder"
                " of one of them."
            )
        yield from _fields(rows, source, path)
    else:
        from datasets import load_dataset

        name = source.config.format(**names)
        stream = load_dataset(
            source.dataset, name, split=source.split, revision=source.revision, streaming=True
        )
        if source.seed is not None:
            stream = stream.shuffle(seed=source.seed, buffer_size=source.buffer)
        characters = 0
        for identifier, text in _fields(stream, source, f"{source.dataset}/{name}"):
            yield identifier, text
            characters += len(text)
            if characters >= source.characters:
                return


def _split_in_order(rows: list[dict], fraction: float) -> None:
    """Hold out the documents that end in the last share of a language's characters."""
    total = sum(len(row["text"]) for row in rows)
    seen = 0
    for row in rows:
        seen += len(row["text"])
        row["split"] = PARTS[1] if seen > (1 - fraction) * total else PARTS[0]


def _file(source, names: dict[str, str], key: str) -> str:
    path = str(user_path(source.path, names))
    if not Path(path).is_file():
        raise FileNotFoundError(f"{key}.path: {path} does not exist ({names['lang']}).")
    return path


def _fields(rows: Iterable[dict], source, where: str) -> Iterator[tuple[str, str]]:
    for number, row in enumerate(rows):
        for field in (source.text_field, source.id_field):
            if field is not None and field not in row:
                raise ValueError(
                    f"{where}, row {number}: no field {field!r}; fields: {', '.join(row)}."
                )
        identifier = str(row[source.id_field]) if source.id_field else f"{number:09d}"
        yield identifier, row[source.text_field]


def fetch_text(config: "CorpusConfig", lang: str, path: str | os.PathLike) -> None:
    """Write the documents of a language as JSONL: id, split, text. Doubled texts are dropped.

    With a `heldout_source`, all of it is held out and nothing of `source` is; its identifiers get a
    prefix, since two sources may number their documents alike.
    """
    rows, seen = [], set()
    apart = config.heldout_source is not None
    for source, part in ((config.source, PARTS[0]), (config.heldout_source, PARTS[1])):
        place = "corpus.source" if part == PARTS[0] else "corpus.heldout_source"
        for identifier, text in documents(source, lang, place) if source is not None else ():
            key = hashlib.sha256(text.strip().encode()).digest()
            if not text.strip() or key in seen:
                continue
            seen.add(key)
            split = part if apart else split_of(identifier, config.heldout_fraction, config.seed)
            name = f"heldout:{identifier}" if apart and part == PARTS[1] else identifier
            rows.append({"id": name, "split": split, "text": text.strip()})
    if config.split == "order" and not apart:
        _split_in_order(rows, config.heldout_fraction)
    held_out = sum(row["split"] == "heldout" for row in rows)
    if held_out == 0 or held_out == len(rows):
        raise ValueError(
            f"{lang}: {len(rows)} documents, {held_out} of them held out; both parts need some."
            " Change corpus.heldout_fraction or give more documents."
        )
    write_jsonl(path, rows)
    log.info("%s: %d documents, %d held out", lang, len(rows), held_out)


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

    def first(self, tokens: int | None) -> "Part":
        """Return the first blocks that hold `tokens` scored tokens (whole blocks), or all."""
        if tokens is None:
            return self
        counts = np.cumsum(self.scored.sum(axis=1))
        n_blocks = min(int(np.searchsorted(counts, tokens)) + 1, len(counts))
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
                    *(tensors[f"{name}.{key}"] for key in ARRAYS),
                    header.pop(f"{name}.documents"),
                    header.pop(f"{name}.document_bytes"),
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
    bos_id: int | None,
    separator: list[int],
    pad_id: int,
    packing: str = "joined",
    prefix: Sequence[int] = (),
) -> Part:
    """Pack (identifier, token ids, bytes) into blocks until `budget` scored tokens are reached.

    A document that would exceed the budget is cut there. With BOS per document, BOS precedes each
    document; per block, it is each block's first token. With `packing` document, each document
    begins a block, without a separator before it. `prefix` stands before each document, unscored.
    """
    if bos != "none" and bos_id is None:
        raise ValueError(f"bos {bos!r} needs the id of a BOS token, got None")
    stream: list[int] = []
    owner: list[int] = []
    scored: list[bool] = []
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
        if packing == "document" and stream:
            starts.append(len(stream))
        if bos == "document":
            stream.append(bos_id)
            owner.append(-1)
            scored.append(False)
            joint = []
        stream += prefix
        owner += [-1] * len(prefix)
        scored += [False] * len(prefix)
        take = ids[: max(remaining - len(joint), 0)]
        if not take:
            break
        stream += joint + take
        owner += [-1] * len(joint) + [len(names)] * len(take)
        scored += [True] * (len(joint) + len(take))
        remaining -= len(joint) + len(take)
        names.append(identifier)
        sizes.append(n_bytes if len(take) == len(ids) else round(n_bytes * len(take) / len(ids)))
    body = block_size - 1 if bos == "block" else block_size
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
            tokens[block, 0] = bos_id
        tokens[block, offset : offset + size] = stream[piece]
        document[block, offset : offset + size] = owner[piece]
        mask[block, offset : offset + size] = scored[piece]
        lengths[block] = offset + size
    return Part(tokens, lengths, document, mask, names, sizes)


def bos_policy(asked: str, tokenizer, lang: str) -> str:
    """Return where BOS goes in one model's blocks: nowhere if its tokenizer has no BOS token."""
    if asked == "none" or tokenizer.bos_token_id is not None:
        return asked
    log.warning("%s: the tokenizer has no BOS token, so none is read (corpus.bos: %s)", lang, asked)
    return "none"


def pack_corpus(
    config: "CorpusConfig", lang: str, text_path: str | os.PathLike, tokenizer, tokenizer_hash: str
) -> Corpus:
    """Tokenise and pack the documents that `fetch_text` wrote."""
    rows = read_jsonl(text_path)
    bos = bos_policy(config.bos, tokenizer, lang)
    eos = tokenizer.eos_token_id
    if config.separator == "eos" and eos is None:
        raise ValueError("the tokenizer has no EOS token; set corpus.separator: newline")
    separators = {
        "none": [],
        "newline": separator_tokens(tokenizer, "\n"),
        "eos": [eos],
    }
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else (eos or 0)
    budgets = {
        "identification": (config.tokens, config.block_size),
        "heldout": (config.heldout_tokens, config.heldout_block_size),
    }
    parts, digest = {}, hashlib.sha256()
    for name, (budget, block_size) in budgets.items():
        chosen = (row for row in rows if row["split"] == name)
        part = pack_documents(
            _encode(chosen, tokenizer),
            block_size,
            budget,
            bos,
            tokenizer.bos_token_id,
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
        for array in (part.tokens, part.lengths, part.scored):
            digest.update(np.ascontiguousarray(array).tobytes())
        digest.update(json.dumps(part.documents).encode())
        parts[name] = part
    if overlap := set(parts["identification"].documents) & set(parts["heldout"].documents):
        raise ValueError(f"{lang}: documents {sorted(overlap)[:3]} are in both parts")
    header = {
        "lang": lang,
        "tokenizer_hash": tokenizer_hash,
        "corpus_hash": digest.hexdigest()[:16],
        "bos": bos,
        "bos_asked": config.bos,
        "separator": config.separator,
        "packing": config.packing,
        "prefix": config.prefix,
        "tokens": {name: int(part.scored.sum()) for name, part in parts.items()},
    }
    return Corpus(lang, parts["identification"], parts["heldout"], header)


def _encode(rows: Iterable[dict], tokenizer, chunk: int = 256) -> Iterator[tuple[str, list, int]]:
    rows = iter(rows)
    while batch := list(itertools.islice(rows, chunk)):
        encoded = plain_text(tokenizer, [row["text"] for row in batch])
        for row, ids in zip(batch, encoded, strict=True):
            yield row["id"], ids, len(row["text"].encode())
