"""Apply a selection to the statistics of a language set."""

import json
import logging
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from pydantic import TypeAdapter

from langneurons.activations.statistics import IDENTITY, Mismatch, check_compatible
from langneurons.selection.experts import with_expert
from langneurons.selection.method import More
from langneurons.selection.methods import Selection

if TYPE_CHECKING:
    from collections.abc import Mapping

    from langneurons.activations.attribution import Attribution
    from langneurons.activations.statistics import Statistics
    from langneurons.selection.table import NeuronTable

log = logging.getLogger(__name__)
NOTHING_MORE = More()


def run_selection(
    parameters: dict[str, Any],
    statistics: "dict[str, Statistics]",
    tables: "Sequence[NeuronTable]" = (),
    mask: str = "none",
    more: More = NOTHING_MORE,
) -> "NeuronTable":
    """Return the neuron table; languages are taken in sorted order, so a set's order is nothing.

    `tables` are those of the selections that it depends on, in the order of `depends_on`; `mask` is
    the file of published neurons, where it is not at the `path` of the parameters; `more` is read
    by the methods that need it.
    Statistics of different models, tokenizers or settings are refused.
    """
    fetched = parameters.get("repo") is not None
    if mask != "none" and not fetched:
        parameters = parameters | {"path": mask}
    selection = TypeAdapter(Selection).validate_python(parameters)
    if mask != "none" and fetched:
        selection = selection.model_copy(update={"path": mask})
    others = dict(zip(selection.depends_on, tables, strict=True))
    table = selected(selection, statistics, others, more)
    counts = table.counts()
    found = selection.method, table.unique, table.units, int(counts.sum())
    log.info("%s: %d %s, %d pairs", *found)
    for lang in counts[counts == 0].index:
        if lang == getattr(selection, "against", None):
            continue
        warnings.warn(f"{lang} has no {table.units} under {selection.method}", stacklevel=2)
        log.warning("NO %s of %s under %s", table.units.upper(), lang, selection.method)
    return table


def selected(
    selection: Selection,
    statistics: "Mapping[str, Statistics]",
    others: "Mapping[str, NeuronTable]",
    more: More = NOTHING_MORE,
) -> "NeuronTable":
    """Return the neuron table of a selection, whatever it holds.

    others: the tables of the selections that it depends on, by name.
    """
    from langneurons.selection.table import NeuronTable

    check_compatible(statistics.values(), IDENTITY)
    languages = sorted(statistics)
    ordered = {lang: statistics[lang] for lang in languages}
    first = ordered[languages[0]]
    for name, table in others.items():
        if (table.n_layers, table.d_mlp) != first.shape or set(languages) - set(table.languages):
            raise Mismatch(
                f"selection {name!r} is of {table.n_layers} x {table.d_mlp} neurons and of"
                f" {', '.join(table.languages)}; the statistics are of"
                f" {first.shape[0]} x {first.shape[1]} and of {', '.join(languages)}."
            )
    for name in selection.needs_more:
        if getattr(more, name) is None:
            raise ValueError(f"{selection.method}: it reads the model's {name}; none were given")
    if more.attributions is not None:
        _check_attributions(more.attributions, ordered)
    frame = (
        selection.select_by(ordered, dict(others), more)
        if selection.needs_more
        else selection.select(ordered, dict(others))
    )
    if first.n_experts and selection.units == "neurons":
        frame.attrs["n_experts"] = first.n_experts
        frame = with_expert(frame, first.shape[1] // first.n_experts)
    metadata = {
        "languages": languages,
        "n_layers": first.shape[0],
        "d_mlp": first.shape[1],
        "method": selection.method,
        "parameters": json.dumps(selection.identity(), sort_keys=True),
        "model": first.header["model"],
        "revision": first.header["revision"],
        "tokens": {lang: ordered[lang].tokens for lang in languages},
        "sites": list(selection.needs_sites),
        "corpora": {lang: ordered[lang].header.get("corpus_hash", "") for lang in languages},
        "statistics": {lang: ordered[lang].digest for lang in languages},
        **{key: first.header.get(key) for key in ("tokenizer_hash", "dtype", "quantization")},
        **frame.attrs,
    }
    if selection.units == "dimensions":
        metadata |= {"units": "dimensions", "width": first.header["d_model"]}
    return NeuronTable(frame, metadata)


def _check_attributions(
    attributions: "Mapping[str, Attribution]", statistics: "Mapping[str, Statistics]"
) -> None:
    """Refuse attributions of another model, text or language than the statistics."""
    for lang, one in statistics.items():
        if lang not in attributions:
            raise Mismatch(f"no attributions of {lang}; there are {', '.join(attributions)}")
        for key in ("model", "revision", "tokenizer_hash", "dtype", "n_layers", "d_mlp", "lang"):
            found, known = attributions[lang].header.get(key), one.header.get(key)
            if found != known:
                raise Mismatch(f"attributions of {lang}: {key} {found!r}, statistics {known!r}")
