"""Errors in the user's terms, and the nearest legal word."""

import difflib
import re
from collections.abc import Iterable
from typing import TypeVar

T = TypeVar("T")

QUERY = re.compile(r"(https?://[^\s?'\"<>]+)\?[^\s'\"<>]+")


def without_queries(message: str) -> str:
    """Return a message without the queries of addresses: a signature opens a gated file."""
    return QUERY.sub(r"\1?...", message)


class ConfigError(ValueError):
    """A mistake in a configuration: says where, what was given, what is legal."""


class InputError(ValueError):
    """Data of the user, or of the hub, that cannot be used: the message says which and why."""


def nearest(value: object, legal: Iterable[object]) -> str:
    """Return ' Did you mean ...?' for the closest legal word, or an empty string."""
    words = sorted({str(word) for word in legal})
    close = difflib.get_close_matches(str(value), words, n=1, cutoff=0.5)
    return f" Did you mean {close[0]!r}?" if close else ""


def present(value: T | None, message: str) -> T:
    """Return a value that has to be there; None is a ValueError with the message."""
    if value is None:
        raise ValueError(message)
    return value


def unknown(path: str, value: object, what: str, legal: Iterable[object]) -> ConfigError:
    """Build the error for a name that is not defined."""
    words = [str(word) for word in legal]
    listed = ", ".join(words[:40]) + (", ..." if len(words) > 40 else "")
    text = f"{path}: {value!r} is not a known {what}; known: {listed or 'none'}."
    return ConfigError(text + nearest(value, words))
