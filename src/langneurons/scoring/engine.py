"""Which engine decodes answers, and how many answers came from where. Light: no torch."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

PADDED, CONTINUOUS = "padded", "continuous"
STORED = "stored"


@dataclass
class Engine:
    """Which engine decodes answers, and how many answers came from where.

    name: `padded` or `continuous`; answers: by the engine that decoded them, or `stored` for those
    that were kept from an earlier run.
    """

    name: str = PADDED
    answers: Counter[str] = field(default_factory=Counter)

    def record(self) -> dict[str, Any]:
        """Return what the record of a job holds."""
        return {"engine": self.name, "answers": dict(sorted(self.answers.items()))}
