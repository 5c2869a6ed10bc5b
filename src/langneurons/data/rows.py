"""Rows, which know where they stand."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any


class Row(dict):
    """The fields of a row; `place` names its file or data set and its line or row.

    names: what the numbers of a field stand for, where the data set says so.
    """

    def __init__(
        self,
        fields: Mapping[str, Any],
        place: str,
        names: Mapping[str, Sequence[str]] = MappingProxyType({}),
    ):
        super().__init__(fields)
        self.place, self.names = place, names


class Rows:
    """Rows that are read as they are iterated over, and `origin`: where they come from."""

    def __init__(self, rows: Iterable[Row], origin: Mapping[str, Any]):
        self._rows, self.origin = rows, dict(origin)

    def __iter__(self) -> Iterator[Row]:
        return iter(self._rows)


def place_of(row: Mapping[str, Any], other: str) -> str:
    """Return where a row stands, or another name where it does not know."""
    return getattr(row, "place", other)
