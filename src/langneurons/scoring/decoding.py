"""What greedy decoding is, whatever engine runs it: limits, ends of answers, the next token."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from transformers import PreTrainedTokenizerBase

from langneurons.models.language_model import LanguageModel
from langneurons.scoring.head import NOT_FINITE, NotFinite, logit_blocks


@dataclass(frozen=True)
class Decoding:
    """How answers are decoded: their length in tokens, what ends them, the repetition penalty.

    stop: strings before which an answer ends. repetition_penalty (Keskar et al. 2019): acts on each
    row's own prompt and generated tokens; 1 is none. ends: tokens that end an answer beside the
    model's `end_tokens`, such as those of a chat template.
    """

    max_new_tokens: int
    stop: Sequence[str] = ()
    repetition_penalty: float = 1.0
    ends: frozenset[int] = frozenset()


@dataclass(frozen=True)
class Answer:
    """The text of an answer and its tokens, the one that ended it included."""

    text: str
    tokens: tuple[int, ...]


class Ends:
    """When an answer ends, and its text."""

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, stop: Sequence[str], tokens: frozenset[int]
    ):
        self.tokenizer, self.stop, self.tokens = tokenizer, list(stop), tokens
        self._lasts = {word[-1] for word in self.stop if word}
        self._ending: dict[int, bool] = {}

    def text(self, before: list[int], token: int, last: bool) -> str | None:
        """Add a token to those before it; return the text if the answer ends here.

        last: whether there may be no more tokens.
        """
        before.append(token)
        if token in self.tokens:
            return self._decoded(before[:-1])
        if not last and not self._may_end(token):
            return None
        text = self._decoded(before)
        cuts = [text.find(word) for word in self.stop if word in text]
        if cuts:
            return text[: min(cuts)]
        return text if last else None

    def _decoded(self, tokens: list[int]) -> str:
        return str(self.tokenizer.decode(tokens, skip_special_tokens=True)) if tokens else ""

    def _may_end(self, token: int) -> bool:
        """Return whether a stop string can be complete at this token: it writes its last character.

        A decoder may drop or add white space between tokens, and a token may hold a part of a
        character only: these may end anything.
        """
        if not self._lasts:
            return False
        if token not in self._ending:
            text = str(self.tokenizer.decode([token]))
            open_ended = "\ufffd" in text or not text.strip()
            spaced = any(last.isspace() for last in self._lasts if last not in "\n\r")
            self._ending[token] = open_ended or spaced or any(c in text for c in self._lasts)
        return self._ending[token]


class Seen:
    """Which tokens each row has had, bool (row, vocabulary)."""

    def __init__(self, encoded: Sequence[Sequence[int]], size: int, device: torch.device):
        self.had = torch.zeros(len(encoded), size, dtype=torch.bool, device=device)
        for row, ids in enumerate(encoded):
            self.had[row, torch.tensor(ids, device=device)] = True

    def keep(self, rows: torch.Tensor) -> None:
        """Drop the other rows."""
        self.had = self.had[rows.to(self.had.device)]

    def add(self, tokens: torch.Tensor) -> None:
        """Add one token (row, 1) per row."""
        self.had.scatter_(1, tokens.to(self.had.device), True)

    def penalised(self, logits: torch.Tensor, start: int, penalty: float) -> torch.Tensor:
        """Return the logits (row, block) from `start` with those of earlier tokens lowered."""
        had = self.had[:, start : start + logits.shape[1]]
        lowered = torch.where(logits > 0, logits / penalty, logits * penalty)
        return torch.where(had, lowered, logits)


@dataclass(frozen=True)
class Asked:
    """Prompts as tokens and how their answers are decoded, within a budget of tokens."""

    prompts: Sequence[tuple[int, ...]]
    decoding: Decoding
    ends: Ends
    batch_tokens: int


def greedy(
    model: LanguageModel, hidden: torch.Tensor, seen: Seen | None, penalty: float
) -> list[int]:
    """Return the most probable token of each row after the repetition penalty.

    hidden: last states (row, d_model). Of equal logits the lowest token wins.
    """
    hidden = hidden.to(model.sites.head_device)
    value = torch.full((len(hidden),), -torch.inf, device=hidden.device)
    best = torch.zeros(len(hidden), dtype=torch.int64, device=hidden.device)
    for start, logits in logit_blocks(model.head, hidden, model.config):
        if seen is not None:
            logits = seen.penalised(logits, start, penalty)
        top, where = logits.max(1)
        better = top > value
        best = torch.where(better, where + start, best)
        value = torch.where(better, top, value)
    if not torch.isfinite(value).all():
        raise NotFinite(NOT_FINITE)
    return best.tolist()
