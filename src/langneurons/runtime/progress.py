"""Progress lines with rate and time left, through logging, at most one every few seconds."""

import logging
import time

log = logging.getLogger(__name__)


def duration(seconds: float) -> str:
    """Format seconds as 42s, 3m10s or 2h05m."""
    seconds = int(round(seconds))
    if seconds < 60:
        return f"{seconds}s"
    if seconds < 3600:
        return f"{seconds // 60}m{seconds % 60:02d}s"
    return f"{seconds // 3600}h{seconds % 3600 // 60:02d}m"


class Progress:
    """Count units of work towards `total` and log rate and ETA every `every` seconds."""

    def __init__(self, label: str, total: int, unit: str, done: int = 0, every: float = 15.0):
        self.label, self.total, self.unit, self.every = label, total, unit, every
        self.done = self._first = done
        self.tokens = 0
        self._start = self._last = time.monotonic()

    def update(self, units: int = 1, tokens: int = 0) -> None:
        """Add finished units and, where known, the tokens in them."""
        self.done += units
        self.tokens += tokens
        now = time.monotonic()
        if now - self._last >= self.every and self.done < self.total:
            self._last = now
            self._log()

    def finish(self) -> None:
        """Log the totals."""
        self._log()

    def _log(self) -> None:
        elapsed = max(time.monotonic() - self._start, 1e-9)
        rate = (self.done - self._first) / elapsed
        left = (self.total - self.done) / rate if rate > 0 else float("nan")
        tokens = f", {self.tokens / elapsed:,.0f} tokens/s" if self.tokens else ""
        ending = f"in {duration(elapsed)}" if self.done >= self.total else f"ETA {left:,.0f}s"
        log.info(
            "%s: %d/%d %s (%.1f/s%s), %s",
            self.label,
            self.done,
            self.total,
            self.unit,
            rate,
            tokens,
            ending,
        )
