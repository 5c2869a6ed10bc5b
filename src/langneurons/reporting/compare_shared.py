"""Two shared folders side by side: headers, and neurons, statistics or directions.

Settings and masks of two runs are compared by the same functions (`reporting.compare`).
"""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd

from langneurons.base.errors import InputError
from langneurons.selection.shared import shared_table
from langneurons.selection.table import NeuronTable
from langneurons.sharing.directions import read_directions
from langneurons.sharing.folder import read_folder
from langneurons.sharing.headers import StatisticsHeader
from langneurons.sharing.statistics import read_statistics

SIZES = ("n_layers", "d_mlp", "d_model")


def compare_folders(first: Path, second: Path) -> tuple[dict[str, pd.DataFrame], list[str]]:
    """Return tables by name, and remarks, on two shared folders of one kind.

    Raises:
        InputError: A folder is damaged, or they hold different kinds.
    """
    header, _, paths = read_folder(first)
    other, _, others = read_folder(second)
    if header.kind != other.kind:
        raise InputError(
            f"{first} holds {header.kind}, {second} holds {other.kind}; name two of one kind."
        )
    if header.kind == "adapters":
        raise InputError(
            f"{first} and {second} hold adapters, which are not compared; compare the neurons that"
            " they were made from."
        )
    columns = ["key", "first", "second"]
    settings = pd.DataFrame(differences(header.plain(), other.plain()), columns=columns)
    sizes = [tuple(getattr(one, key, None) for key in SIZES) for one in (header, other)]
    remarks = [] if sizes[0] == sizes[1] else ["Models of different sizes: nothing is paired."]
    langs = [lang for lang in header.languages if lang in other.languages]
    if not langs:
        raise InputError(f"{first} and {second} have no language in common.")
    tables = {"settings": settings}
    if header.kind == "neurons":
        rows = mask_rows(shared_table(paths[0]), shared_table(others[0]))
        tables["masks"] = pd.DataFrame(list(rows))
    elif sizes[0] == sizes[1]:
        if header.kind == "directions":
            tables["directions"] = _directions(paths[0], others[0], langs)
        else:
            headers = [cast(StatisticsHeader, one) for one in (header, other)]
            left, right = read_statistics(paths, headers[0]), read_statistics(others, headers[1])
            shared = set(headers[0].sites) & set(headers[1].sites) - {"residual"}
            sites = [site for site in headers[0].sites if site in shared]
            rows_of = [_probabilities(left[lang], right[lang], sites) for lang in langs]
            tables["statistics"] = pd.DataFrame([row for rows in rows_of for row in rows])
    return tables, remarks


def _directions(first: Path, second: Path, langs: list[str]) -> pd.DataFrame:
    """Return the cosines of the directions of each language, over layers."""
    left, right = read_directions(first)[0], read_directions(second)[0]
    rows = []
    for lang in langs:
        one, other = (side[lang].astype(np.float64) for side in (left, right))
        lengths = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
        with np.errstate(invalid="ignore", divide="ignore"):
            cosine = (one * other).sum(axis=1) / lengths
        row: dict[str, Any] = {"lang": lang, "layers": len(cosine)}
        row |= {"mean_cosine": float(np.nanmean(cosine)), "least_cosine": float(np.nanmin(cosine))}
        rows.append(row)
    return pd.DataFrame(rows)


def _probabilities(first: Any, second: Any, sites: Sequence[str]) -> list[dict[str, Any]]:
    """Return, of each site, how the activation probabilities of all neurons differ."""
    rows = []
    for site in sites:
        left, right = (one.probability(site).ravel() for one in (first, second))
        gap = np.abs(right - left)
        row: dict[str, Any] = {"lang": first.lang, "site": site}
        row |= {"first_tokens": first.tokens, "second_tokens": second.tokens}
        row |= {"first": left.mean(), "second": right.mean()}
        row |= {"mean_gap": gap.mean(), "largest_gap": gap.max()}
        rows.append(row)
    return rows


# Of runs as well ----------------------------------------------------------------------------------


def flattened(value: Any, place: str = "") -> dict[str, Any]:
    """Return the leaves of nested mappings by their keys, joined by dots; a list is a leaf."""
    if isinstance(value, Mapping) and value:
        found: dict[str, Any] = {}
        for key, inner in value.items():
            found |= flattened(inner, f"{place}.{key}" if place else str(key))
        return found
    return {place: value}


def differences(first: Any, second: Any) -> list[dict[str, str]]:
    """Return a row for each key on which two settings differ: key, first, second."""
    left, right = flattened(first), flattened(second)
    return [
        {"key": key, "first": _value(left, key), "second": _value(right, key)}
        for key in sorted({*left, *right})
        if left.get(key, ...) != right.get(key, ...)
    ]


def _value(values: Mapping[str, Any], key: str) -> str:
    return json.dumps(values[key], ensure_ascii=False) if key in values else "not given"


def mask_rows(first: NeuronTable, second: NeuronTable) -> Iterator[dict[str, Any]]:
    """Yield neurons, shared ones and the Jaccard index of each language, and of all together.

    Two languages without neurons are equal: 1. Of models of different sizes there is no index.
    """
    sizes = [(one.n_layers, one.d_mlp, one.units, one.width) for one in (first, second)]
    same = sizes[0] == sizes[1]
    for lang in [one for one in first.languages if one in second.languages]:
        yield {"lang": lang} | _jaccard(first.mask(lang), second.mask(lang), same)
    if len(first.languages) > 1:
        both = [
            np.logical_or.reduce([one.mask(lang) for lang in one.languages])
            for one in (first, second)
        ]
        yield {"lang": "all"} | _jaccard(both[0], both[1], same)


def _jaccard(left: np.ndarray, right: np.ndarray, same: bool) -> dict[str, Any]:
    row: dict[str, Any] = {"first": int(left.sum()), "second": int(right.sum())}
    if not same:
        return row | {"shared": math.nan, "jaccard": math.nan}
    shared, union = int((left & right).sum()), int((left | right).sum())
    return row | {"shared": shared, "jaccard": shared / union if union else 1.0}
