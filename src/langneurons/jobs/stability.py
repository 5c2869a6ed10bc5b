"""How stable a selection is on a language set."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from pydantic import TypeAdapter

from langneurons.activations.statistics import Statistics
from langneurons.activations.stored import KeptArrays, StoredArrays
from langneurons.models.weights import read_weights
from langneurons.selection.method import More
from langneurons.selection.methods import Selection
from langneurons.selection.stability import OtherSet, measure_stability
from langneurons.selection.stability_settings import StabilityConfig


def stability_cell(
    cfg: Mapping[str, Any], inputs: Mapping[str, Sequence[str]]
) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Return the records of a selection, and their metadata.

    inputs: slices of the set and of those that it is compared with, whose folders are named by
    their language; the manifest of the weights.
    """
    slices: dict[str, list[Statistics]] = {}
    for path in inputs["slices"]:
        lang = Path(path).parent.name
        one = Statistics.read(path, lang=lang)
        if isinstance(one.arrays, StoredArrays):  # every draw reads them again
            one.arrays = KeptArrays(one.arrays)
        slices.setdefault(lang, []).append(one)
    ordered = {
        lang: sorted(parts, key=lambda one: one.header["blocks"]) for lang, parts in slices.items()
    }
    adapter: TypeAdapter[Selection] = TypeAdapter(Selection)
    selections = {name: adapter.validate_python(one) for name, one in cfg["selections"]}
    manifest = next(iter(inputs.get("weights", [])), None)
    more = More(None if manifest is None else read_weights(manifest))
    settings = StabilityConfig.model_validate(cfg["stability"])
    own = {lang: ordered[lang] for lang in cfg["languages"]}
    others = [
        OtherSet(
            one["name"],
            {lang: ordered[lang] for lang in one["languages"]},
            one["pairs"],
            one["same"],
        )
        for one in cfg["comparisons"]
    ]
    frame = measure_stability(selections, own, settings, more, others)
    first = next(iter(own.values()))[0].header
    metadata = {
        "languages": sorted(own),
        "slices": len(next(iter(own.values()))),
        "unmatched": {one["name"]: one["unmatched"] for one in cfg["comparisons"]},
        "units": selections[cfg["selections"][-1][0]].units,
        "revision": first["revision"],
    }
    return frame, metadata
