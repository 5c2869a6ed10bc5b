"""Statistics of several parts of a corpus together: merged into one, or pooled as they are read.

Shards and slices are parts that follow one another; `joined` adds their integers. Pooled parts may
be any, and one may be drawn more than once: halves of a corpus, bootstrap draws. All parts of a
corpus give, pooled or joined, the statistics of the whole.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np

from langneurons.activations import histogram as bins
from langneurons.activations.statistics import (
    HISTOGRAM,
    IDENTITY,
    Mismatch,
    Statistics,
    check_compatible,
    histogram_arrays,
)
from langneurons.activations.stored import BY_LAYER, FRAMES
from langneurons.base.digests import digest


def merge(parts: Iterable[Statistics]) -> Statistics:
    """Merge the shards of one corpus; exact and independent of their order.

    The shards must cover the blocks 0..n without gap or overlap.
    """
    found = joined(parts, first=0)
    expected = found.header["blocks"][1]
    if expected != found.header["corpus_blocks"]:
        raise Mismatch(
            f"the shards cover {expected} of {found.header['corpus_blocks']} blocks of"
            f" {found.lang}; remove them and run snakemake again."
        )
    return found


def joined(parts: Iterable[Statistics], first: int | None = None) -> Statistics:
    """Add parts of one corpus that follow one another; exact and independent of their order.

    first: the block at which they have to begin; any if None.
    """
    parts = sorted(parts, key=lambda part: part.header["blocks"])
    check_compatible(parts, (*IDENTITY, "lang", "corpus_hash", "corpus_blocks"))
    begin = parts[0].header["blocks"][0] if first is None else first
    expected = begin
    for part in parts:
        start, stop = part.header["blocks"]
        if start != expected:
            raise Mismatch(
                f"{part.path} covers blocks {start}..{stop}, expected {expected}..; remove this"
                " language's shards and run snakemake again."
            )
        expected = stop
    header: dict[str, Any] = dict(parts[0].header)
    header["blocks"] = [begin, expected]
    for key in ("tokens", "batches"):
        header[key] = sum(part.header[key] for part in parts)
    arrays = {}
    for key in parts[0].arrays:
        if key.endswith(tuple(f".{name}" for name in HISTOGRAM)):
            continue
        arrays[key] = added(key, (part.arrays[key] for part in parts))
    for site in header["histograms"]:
        if len(parts) == 1:
            names = [f"{site}.{name}" for name in HISTOGRAM]
            arrays |= {name: parts[0].arrays[name] for name in names}
            continue
        total = np.zeros((*parts[0].shape, bins.N_BINS), np.int32)
        for part in parts:
            total += part._counts(site)
        arrays |= histogram_arrays(site, total)
    return Statistics(arrays, header, f"merged {parts[0].lang}")


def added(key: str, values: Iterable[np.ndarray]) -> np.ndarray:
    """Return the array of the whole from those of its parts: sums, or the outer extremes.

    One part is held beside the sum at a time.
    """
    values = iter(values)
    total = next(values)
    for one in values:
        if key.endswith(".extremes"):
            low, high = np.minimum(total[:, 0], one[:, 0]), np.maximum(total[:, 1], one[:, 1])
            total = np.stack([low, high], axis=1)
        else:
            total = total + one
    return total


# Pooled ------------------------------------------------------------------------------------------

OF_DOCUMENTS = "document_tokens"


class _Sums(Mapping[str, np.ndarray]):
    """Sums over the arrays of parts, each computed when it is asked for and then kept."""

    def __init__(self, parts: Sequence[Statistics]):
        self._parts = parts
        kept = parts[0].arrays
        self._keys = [
            key for key in kept if not key.endswith((*FRAMES, BY_LAYER)) and key != OF_DOCUMENTS
        ]
        self._found: dict[str, np.ndarray] = {}

    def __getitem__(self, key: str) -> np.ndarray:
        if key not in self._keys:
            raise KeyError(key)
        if key not in self._found:
            self._found[key] = added(key, (part.arrays[key] for part in self._parts))
        return self._found[key]

    def __contains__(self, key: object) -> bool:
        return key in self._keys

    def __iter__(self) -> Iterator[str]:
        return iter(self._keys)

    def __len__(self) -> int:
        return len(self._keys)


class PooledStatistics(Statistics):
    """The statistics of parts of one corpus together, added where they are read.

    Means per document are left out: of a part that is drawn twice they would count once.
    """

    def __init__(self, parts: Sequence[Statistics]):
        check_compatible(parts, (*IDENTITY, "lang", "corpus_hash", "corpus_blocks"))
        header: dict[str, Any] = dict(parts[0].header)
        header |= {key: sum(one.header[key] for one in parts) for key in ("tokens", "batches")}
        header["blocks"] = [0, sum(one.blocks for one in parts)]
        header.pop("documents", None)
        self.header, self.parts = header, list(parts)
        self.path = f"{len(parts)} slices of {parts[0].lang}"
        self.arrays = _Sums(self.parts)

    @cached_property
    def digest(self) -> str:
        """A digest of the digests of the parts; their sums are not read for it."""
        return digest(sorted(one.digest for one in self.parts), 64)

    def _layer_counts(self, layer: int, site: str) -> np.ndarray:
        total = self.parts[0]._layer_counts(layer, site).copy()
        for one in self.parts[1:]:
            total += one._layer_counts(layer, site)
        return total

    def _around(self, site: str, number: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        below, within = self.parts[0]._around(site, number)
        for one in self.parts[1:]:
            more = one._around(site, number)
            below, within = below + more[0], within + more[1]
        return below, within

    def _counts(self, site: str) -> np.ndarray:
        total = self.parts[0]._counts(site).copy()
        for one in self.parts[1:]:
            total += one._counts(site)
        return total
