"""What the evaluations of one model have in common."""

from dataclasses import dataclass, field
from typing import Any

from langneurons.base.store import SideStore
from langneurons.models.language_model import LanguageModel
from langneurons.scoring.engine import Engine


@dataclass(frozen=True)
class Run:
    """A model and the store that keeps what it has computed.

    key: identity of the model and digest of the code, part of the key of everything kept;
    batch_tokens: tokens of one forward pass; engine: what decodes answers.
    """

    model: LanguageModel
    store: SideStore
    key: dict[str, Any]
    batch_tokens: int
    engine: Engine = field(default_factory=Engine)
