"""The record that stands beside each result: what made it, on which versions and device."""

import platform
import time
from collections.abc import Iterable
from typing import Any

from langneurons.base.digests import digest

NAME = "langneurons"


def versions(packages: Iterable[str]) -> dict[str, str]:
    """Return the installed versions of packages."""
    from importlib.metadata import PackageNotFoundError, version

    found = {}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


class Record:
    """What made a result: settings, code, versions, device, seconds, peak memory."""

    def __init__(self, cfg: Any, code: Any):
        self.cfg, self.code = cfg, code
        self.start = time.monotonic()
        self.started = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())

    def finish(self, **more: Any) -> dict[str, Any]:
        """Return the record as plain values."""
        import resource

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        packages = ("torch", "transformers", "numpy", "numba", "pandas", "pyarrow", NAME)
        return {
            "settings": self.cfg,
            "code": self.code,
            "code_digest": digest(self.code),
            "started": self.started,
            "seconds": round(time.monotonic() - self.start, 1),
            "peak_memory_mb": round(peak),
            "python": platform.python_version(),
            "machine": platform.machine(),
            "versions": versions(packages),
        } | more
