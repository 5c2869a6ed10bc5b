"""Text to the tokens that a model reads: what a tokenizer adds, what it reads, what does not fit.

A prompt begins with what the tokenizer puts before a text (BOS, where it puts one) and never ends
in what it puts after one: a model that has read the end of a text does not go on with it. An empty
prompt is BOS, or EOS for a tokenizer without BOS. A continuation holds no such tokens.

Words such as `<s>` or `<|endoftext|>` within a text are read as control tokens only where a caller
names them (`controls`): a document or an answer that mentions one is text.

A model with `max_positions` reads no more tokens. What is longer loses tokens at its left, after
the tokens that the tokenizer put there; `cut` says how many.
"""

import logging
import re
import weakref
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

log = logging.getLogger(__name__)
# Word that stands for the tokenizer's EOS in a template.
EOS = "<eos>"
NAMED = 5
# Texts of which a tokenizer has tokens.
PROBES = ("a", "1", ".")


def max_positions(config: Any) -> int | None:
    """Return how many tokens a model reads at most by its (text) config, None without a limit.

    Learned positions cannot go further; rotary ones were not trained to.
    """
    found = getattr(config, "max_position_embeddings", None)
    return int(found) if found else None


@dataclass(frozen=True)
class _Added:
    """What a tokenizer's vocabulary was given beyond its words; asking it takes tens of ms.

    named: the special tokens that it had then; numbers: of all added tokens; words: of the special
    ones; read: numbers of those that a text must not hold.
    """

    named: tuple[str, ...]
    numbers: frozenset[int]
    words: Mapping[str, int]
    read: frozenset[int]


_KNOWN: weakref.WeakKeyDictionary[Any, _Added] = weakref.WeakKeyDictionary()


def _added(tokenizer: "PreTrainedTokenizerBase") -> _Added:
    named = tuple(tokenizer.all_special_tokens)
    known = _KNOWN.get(tokenizer)
    if known is None or known.named != named:
        decoder = tokenizer.added_tokens_decoder
        words = {str(t): n for n, t in decoder.items() if t.special or str(t) in named}
        read = frozenset(n for word, n in words.items() if word != tokenizer.unk_token)
        known = _Added(named, frozenset(decoder), words, read)
        _KNOWN[tokenizer] = known
    return known


def control_words(tokenizer: "PreTrainedTokenizerBase") -> Mapping[str, int]:
    """Return the tokenizer's special tokens by the words that stand for them in a text."""
    return _added(tokenizer).words


def controls_of(tokenizer: "PreTrainedTokenizerBase", templates: Iterable[str]) -> dict[str, int]:
    """Return the control words that templates hold, with `<eos>` for the tokenizer's own EOS."""
    words = dict(control_words(tokenizer))
    if tokenizer.eos_token_id is not None:
        words.setdefault(EOS, tokenizer.eos_token_id)
    whole = "\0".join(templates)
    return {word: number for word, number in words.items() if word in whole}


def end_tokens(model: Any, tokenizer: "PreTrainedTokenizerBase") -> frozenset[int]:
    """Return the tokens that end an answer: EOS of the tokenizer, the generation and text config.

    An instruction-tuned model ends a turn by another token than a text; its generation
    configuration lists both. A number that is not an added token of the tokenizer comes from the
    default of a configuration class and ends nothing.
    """
    found: set[int | None] = set()
    for config in (getattr(model, "generation_config", None), _text_config(model)):
        own = getattr(config, "eos_token_id", None)
        found |= set(own) if isinstance(own, (list, tuple)) else {own}
    found &= _added(tokenizer).numbers
    return frozenset({*found, tokenizer.eos_token_id} - {None})


def stop_tokens(tokenizer: "PreTrainedTokenizerBase", stop: Iterable[str]) -> frozenset[int]:
    """Return the tokens of stop words that are control words: decoding leaves these out."""
    words = control_words(tokenizer)
    return frozenset(words[word] for word in stop if word in words)


def _text_config(model: Any) -> Any:
    config: Any = getattr(model, "config", None)
    return config.get_text_config(decoder=True) if hasattr(config, "get_text_config") else config


@dataclass(frozen=True)
class Prompt:
    """Tokens of a prompt, and how many it lost because it did not fit."""

    tokens: tuple[int, ...]
    cut: int = field(default=0, compare=False)


@dataclass(frozen=True)
class Pair:
    """Tokens of a context and of its continuation.

    apart: a token would span the two, so that the continuation is encoded by itself.
    """

    context: list[int]
    continuation: list[int]
    apart: bool = False


class Encoder:
    """One tokenizer's texts as tokens for one model.

    controls: words that are read as control tokens, with their ids; None reads all that the
    tokenizer knows. limit: see `max_positions`.
    """

    def __init__(
        self,
        tokenizer: "PreTrainedTokenizerBase",
        limit: int | None = None,
        controls: Mapping[str, int] | None = None,
    ):
        """Ask the tokenizer what it puts before a text."""
        self.tokenizer, self.limit, self.controls = tokenizer, limit, controls
        self.lead = leading_tokens(tokenizer)
        self._words = {} if controls is None else control_words(tokenizer)

    def text(self, text: str) -> list[int]:
        """Return the tokens of a text by itself, without what the tokenizer adds.

        Where it holds no control words but those that are named, the tokenizer splits at them by
        its own rules (spaces beside them, whole words).
        """
        if self.controls is None:
            return self.tokenizer(text, add_special_tokens=False)["input_ids"]
        if not any(word in text for word in self.controls):
            return plain_text(self.tokenizer, [text])[0]
        others = self._words.keys() - self.controls.keys()
        eos = self.tokenizer.eos_token
        if not any(word in text for word in others) and (EOS not in self.controls or eos):
            whole = text.replace(EOS, eos) if EOS in self.controls else text
            return self.tokenizer(whole, add_special_tokens=False)["input_ids"]
        ids: list[int] = []
        for piece in self._pieces(text):
            if piece in self.controls:
                ids.append(self.controls[piece])
            elif piece:
                ids += following(self.tokenizer, piece) if ids else self._plain(piece)
        return ids

    def _plain(self, text: str) -> list[int]:
        return plain_text(self.tokenizer, [text])[0]

    def _pieces(self, text: str) -> list[str]:
        if not self.controls:
            return [text]
        words = sorted(self.controls, key=len, reverse=True)
        return re.split(f"({'|'.join(map(re.escape, words))})", text)

    def whole(self, text: str) -> list[int]:
        """Return the tokens of a prompt of any length."""
        ids = self.text(text)
        if self.lead and ids[: len(self.lead)] == self.lead:
            return ids
        return [*self.lead, *ids] if ids else self.start()

    def start(self) -> list[int]:
        """Return what stands for no text: what the tokenizer puts before one, or BOS, or EOS."""
        found = self.lead or beginning(self.tokenizer)
        if found:
            return list(found)
        if self.tokenizer.eos_token_id is not None:
            return [self.tokenizer.eos_token_id]
        raise ValueError(
            f"tokenizer {name_of(self.tokenizer)}: it has neither a BOS nor an EOS token, so"
            " nothing can stand for an empty prompt"
        )

    def prompt(self, text: str, room: int = 0) -> Prompt:
        """Return a prompt that fits with `room` tokens after it."""
        ids = self.whole(text)
        if self.limit is None:
            return Prompt(tuple(ids))
        most = self.limit - room
        kept = self._leading(ids)
        if most <= kept:
            raise ValueError(
                f"{room} new tokens leave no room for a prompt: the model reads {self.limit} tokens"
                f" at most. Legal: up to {self.limit - kept - 1} new tokens."
            )
        return Prompt(tuple(_cut(ids, most, kept)), max(0, len(ids) - most))

    def _leading(self, ids: Sequence[int]) -> int:
        """Return how many of the first tokens are what the tokenizer puts before a text."""
        return len(self.lead) if list(ids[: len(self.lead)]) == self.lead else 0

    def pair(self, context: str, continuation: str, joint: bool = True) -> Pair:
        """Return the tokens of a context and its continuation.

        `joint`: both are encoded together and split at the context's length; spaces at the
        context's end move to the continuation. Where a token spans the split, the continuation is
        encoded by itself, since no tokens of the whole are the continuation's alone. Not `joint`:
        each is encoded as it is, by itself.
        """
        if not joint and context:
            return self._filled(self.whole(context), continuation, self.text(continuation))
        stripped = context.rstrip()
        continuation, context = context[len(stripped) :] + continuation, stripped
        if not context:
            return self._filled(self.start(), continuation, self.text(continuation))
        first, both = self.whole(context), self.whole(context + continuation)
        second = both[len(first) :]
        if continuation and (not second or both[: len(first)] != first):
            return self._filled(first, continuation, self.text(continuation), apart=True)
        return self._filled(first, continuation, second)

    @staticmethod
    def _filled(
        first: list[int], continuation: str, second: list[int], apart: bool = False
    ) -> Pair:
        if not second:
            raise ValueError(f"empty continuation {continuation!r}: it has no tokens")
        return Pair(first, second, apart)

    def fitted(self, pair: Pair) -> tuple[list[int], int]:
        """Return the tokens of a pair, cut to what the model reads, and how many were cut.

        The last token is predicted and not read.
        """
        whole = [*pair.context, *pair.continuation]
        if self.limit is None or len(whole) - 1 <= self.limit:
            return whole, 0
        kept = self._leading(pair.context)
        if len(pair.continuation) > self.limit - kept:
            raise ValueError(
                f"a continuation of {len(pair.continuation)} tokens does not fit the"
                f" {self.limit} tokens that the model reads at most"
            )
        return _cut(whole, self.limit + 1, kept), len(whole) - 1 - self.limit


def _cut(ids: Sequence[int], size: int, kept: int) -> list[int]:
    """Return at most `size` tokens: the first `kept` and the last ones."""
    if len(ids) <= size:
        return list(ids)
    return [*ids[:kept], *ids[len(ids) - (size - kept) :]]


def leading_tokens(tokenizer: "PreTrainedTokenizerBase") -> list[int]:
    """Return the tokens that a tokenizer puts before a text."""
    for probe in PROBES:
        plain = tokenizer(probe, add_special_tokens=False)["input_ids"]
        whole = tokenizer(probe)["input_ids"]
        for start in range(len(whole) - len(plain) + 1):
            if plain and whole[start : start + len(plain)] == plain:
                return whole[:start]
    raise ValueError(
        f"tokenizer {name_of(tokenizer)}: what it puts before a text cannot be read off"
        f" {', '.join(PROBES)}: their tokens are none, or change when special tokens are added"
    )


def beginning(tokenizer: "PreTrainedTokenizerBase") -> list[int]:
    """Return the tokens with which texts begin: what the tokenizer puts before one, else any BOS.

    The two differ: XGLM's tokenizer has a BOS token `<s>`, and puts `</s>` before every text.
    """
    bos = tokenizer.bos_token_id
    return leading_tokens(tokenizer) or ([] if bos is None else [bos])


def plain_text(tokenizer: "PreTrainedTokenizerBase", texts: Sequence[str]) -> list[list[int]]:
    """Return the tokens of texts, none of them a control token.

    A tokenizer whose vocabulary of words holds control words (Unigram) reads them all the same:
    each such word is then encoded in two parts.
    """
    encoded = tokenizer(list(texts), add_special_tokens=False, split_special_tokens=True)
    read = _added(tokenizer).read
    return [
        ids if read.isdisjoint(ids) else _without_controls(tokenizer, text)
        for text, ids in zip(texts, encoded["input_ids"], strict=True)
    ]


def _without_controls(tokenizer: "PreTrainedTokenizerBase", text: str) -> list[int]:
    """Return the tokens of a text, cut after the first character of each control word."""
    added = _added(tokenizer)
    words = [word for word, number in added.words.items() if number in added.read]
    pattern = "|".join(map(re.escape, sorted(words, key=len, reverse=True)))
    cuts = [found.start() + 1 for found in re.finditer(pattern, text)]
    ends = [*cuts, len(text)]
    ids: list[int] = []
    for start, end in zip([0, *cuts], ends, strict=True):
        piece = text[start:end]
        ids += following(tokenizer, piece) if start else _split(tokenizer, piece)
    if not added.read.isdisjoint(ids):
        raise ValueError(
            f"tokenizer {name_of(tokenizer)}: a control word within {text[:60]!r} cannot be read as"
            " text"
        )
    return ids


def text_ids(tokenizer: "PreTrainedTokenizerBase", text: str) -> list[int]:
    """Return the tokens of a text by itself, with the control words that it holds."""
    return tokenizer(text, add_special_tokens=False)["input_ids"]


def _split(tokenizer: "PreTrainedTokenizerBase", text: str) -> list[int]:
    return tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]


def following(tokenizer: "PreTrainedTokenizerBase", text: str) -> list[int]:
    """Return the tokens of a text as it stands after another, none of them a control token.

    A tokenizer that begins every text with a space token puts none within one.
    """
    for probe in PROBES:
        before, both = _split(tokenizer, probe), _split(tokenizer, probe + text)
        if before and both[: len(before)] == before and len(both) > len(before):
            return both[len(before) :]
    return _split(tokenizer, text)


def name_of(tokenizer: "PreTrainedTokenizerBase") -> str:
    """Return the name by which a tokenizer is known in an error: its folder or its class."""
    return repr(getattr(tokenizer, "name_or_path", "") or type(tokenizer).__name__)


def check_length(tokens: int, limit: int | None, what: str) -> None:
    """Refuse a length that is fixed by the configuration and that a model does not read."""
    if limit is not None and tokens > limit:
        raise ValueError(f"{what}: {tokens} tokens; the model reads {limit} at most.")


def report_cuts(what: str, cuts: Sequence[int], limit: int | None) -> None:
    """Log how many texts did not fit, and how many tokens they lost."""
    affected = [cut for cut in cuts if cut]
    if affected:
        log.warning(
            "%d of %d %s do not fit the %s tokens that the model reads: %d tokens cut at their"
            " left, %d at most of one",
            len(affected),
            len(cuts),
            what,
            limit,
            sum(affected),
            max(affected),
        )


def report_apart(what: str, names: Sequence[str]) -> None:
    """Log which continuations were encoded by themselves."""
    if names:
        some = ", ".join(names[:NAMED]) + (", ..." if len(names) > NAMED else "")
        log.warning(
            "%d %s: a token spans context and continuation, so the continuation is encoded by"
            " itself (%s)",
            len(names),
            what,
            some,
        )
