"""What the pages of neurons hold, as plain values and arrays.

A neuron is named by its place `layer x d_mlp + index`, languages and selections by their place in
the lists of the index. The index holds every neuron of the model in columns; what is shown of a
single neuron lies in its layer.
"""

import base64
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from langneurons.activations.histogram import EDGES
from langneurons.activations.statistics import Statistics
from langneurons.base.io import expect, read_parquet
from langneurons.base.scripts import direction
from langneurons.base.words import UNTOUCHED
from langneurons.reporting.labels import Labels
from langneurons.reporting.layouts import names_of
from langneurons.reporting.tables.perplexity import perplexity_change
from langneurons.selection.table import NeuronTable

BINS = 48  # of a histogram as it is drawn
WHOLE = 65535  # a share of 1 in the columns
NEIGHBOURS = 6
SITE_NAMES = {
    "gate": "before the nonlinearity",
    "act": "after the nonlinearity",
    "product": "input of the down projection",
}


def packed(values: np.ndarray) -> str:
    """Return numbers as base64 of their little-endian bytes."""
    little = np.ascontiguousarray(values).astype(values.dtype.newbyteorder("<"))
    return base64.b64encode(little.tobytes()).decode("ascii")


def shares(values: np.ndarray) -> np.ndarray:
    """Return shares 0..1 as uint16 0..WHOLE."""
    return np.rint(np.clip(values, 0, 1) * WHOLE).astype(np.uint16)


def entropy(probability: np.ndarray) -> np.ndarray:
    """Return the entropy over languages (axis 0) as a share of its largest, log K; 1 where silent.

    0: the neuron fires in one language only (LAPE; Tang et al. 2024, equation 4, over log K).
    """
    total = probability.sum(0)
    share = np.divide(probability, total, out=np.zeros_like(probability), where=total > 0)
    logs = np.log(np.where(share > 0, share, 1.0))
    found = -(share * logs).sum(0) / max(np.log(len(probability)), 1e-12)
    return np.where(total > 0, found, 1.0)


def rebinned(counts: np.ndarray, low: float, high: float, edges: np.ndarray) -> np.ndarray:
    """Return the share of values per bin of `edges`; counts lie in bins of EDGES, seen low..high.

    Values are taken as evenly spread over their bin.
    """
    ends = np.clip(EDGES, low, high)
    below = np.concatenate([[0.0], np.cumsum(counts, dtype=np.float64)])
    total = below[-1]
    if total == 0:
        return np.zeros(len(edges) - 1)
    kept = np.concatenate([np.diff(ends) > 0, [True]])
    below_at = np.interp(edges, ends[kept], below[kept], left=0.0, right=total)
    if not kept[:-1].any():  # all values are equal
        below_at = np.where(edges > low, total, 0.0)
    return np.diff(below_at) / total


def neighbours(probability: np.ndarray, number: int) -> list[list[tuple[int, float]]]:
    """Return of each neuron (columns) the others of most similar profile over languages (rows).

    Similarity is Pearson's correlation over languages; fewer than three languages have none.
    """
    k, n = probability.shape
    if k < 3 or n < 2:
        return [[] for _ in range(n)]
    centred = probability - probability.mean(0)
    norm = np.sqrt((centred**2).sum(0))
    unit = np.divide(centred, norm, out=np.zeros_like(centred), where=norm > 0)
    found = []
    for start in range(0, n, 512):
        similar = unit[:, start : start + 512].T @ unit
        rows = np.arange(len(similar))
        similar[rows, start + rows] = -np.inf
        best = np.argsort(-similar, axis=1, kind="stable")[:, : min(number, n - 1)]
        found += [
            [(int(j), round(float(similar[row, j]), 3)) for j in places]
            for row, places in enumerate(best)
        ]
    return found


@dataclass(frozen=True)
class Sources:
    """The result files behind the pages of a model and language set.

    names: the names of the cell; link: the address of a neuron's page elsewhere, or empty.
    """

    names: Mapping[str, str]
    labels: Labels
    link: str
    neurons: Sequence[str]
    statistics: Sequence[str]
    contexts: str
    written: str
    costs: str

    @cached_property
    def languages(self) -> list[str]:
        """The languages of the set, in the configuration's order."""
        return self.labels.order(self.labels.sets[self.names["langset"]])

    @cached_property
    def by_language(self) -> dict[str, Statistics]:
        """The statistics of the set."""
        read = [
            Statistics.read(path, lang=names_of(path, "activations")["lang"])
            for path in self.statistics
        ]
        found = {one.lang: one for one in read}
        return {lang: found[lang] for lang in self.languages}

    @property
    def header(self) -> Mapping[str, Any]:
        """The header of the first language's statistics: model, revision, sizes."""
        return self.by_language[self.languages[0]].header

    @cached_property
    def tables(self) -> dict[str, NeuronTable]:
        """The neuron tables by selection, in the configuration's order."""
        same = {key: self.header[key] for key in ("model", "revision", "n_layers", "d_mlp")}
        found = {
            names_of(path, "neurons")["selection"]: NeuronTable.from_parquet(path, **same)
            for path in self.neurons
        }
        return {name: found[name] for name in self.labels.sequence["selections"] if name in found}

    def records(self, kind: str) -> tuple[pd.DataFrame, dict]:
        """Return a file of records of single neurons."""
        path = getattr(self, kind)
        frame, metadata = read_parquet(path)
        expect(path, metadata, {"model": self.names["model"], "langset": self.names["langset"]})
        return frame, metadata


class Browser:
    """The content of the pages: `index()`, and `layer(i)` for each layer."""

    def __init__(self, sources: Sources):
        self.sources, self.labels = sources, sources.labels
        self.languages = sources.languages
        header = sources.header
        self.n_layers, self.d_mlp = header["n_layers"], header["d_mlp"]
        self.site = sources.by_language[self.languages[0]].counted_site
        self.probability = np.stack(
            [one.probability(self.site) for one in sources.by_language.values()]
        )
        self.entropy = entropy(self.probability)
        self.contexts, metadata = sources.records("contexts")
        self.read = metadata["browser"]
        self.written, _ = sources.records("written")
        self.costs = self._costs()
        places = self.written[["layer", "neuron"]].drop_duplicates()
        self.shown = np.sort(
            places["layer"].to_numpy(np.int64) * self.d_mlp + places["neuron"].to_numpy(np.int64)
        )

    # The index ---------------------------------------------------------------------------------

    def index(self) -> dict[str, Any]:
        """Return what the list, the map and the search need."""
        flat = self.probability.reshape(len(self.languages), -1)
        best = flat.argmax(0)
        return {
            "title": self.labels.title or self.labels.name,
            "model": self.labels.of("models", self.sources.names["model"]),
            "source": {
                key: str(self.sources.header[key]) for key in ("model", "revision", "dtype")
            },
            "set": self.labels.sets[self.sources.names["langset"]],
            "layers": self.n_layers,
            "width": self.d_mlp,
            "site": SITE_NAMES[self.site],
            "read": self.read,
            "link": self.sources.link,
            "languages": [self._language(lang) for lang in self.languages],
            "selections": [self._selection(name) for name in self.sources.tables],
            "entropy": packed(shares(self.entropy.ravel())),
            "best": packed(best.astype(np.uint8)),
            "top": packed(shares(flat.max(0))),
            "shown": self.shown.tolist(),
            "words": self._words(),
            "costs": self._index_of_costs(),
        }

    def _language(self, lang: str) -> dict[str, Any]:
        one = self.sources.by_language[lang]
        return {
            "code": lang,
            "name": self.labels.language_names.get(lang, lang),
            "family": self.labels.families.get(lang, ""),
            "tag": self.labels.tags.get(lang, lang),
            "direction": direction(self.labels.tags.get(lang, lang)),
            "tokens": one.tokens,
            "common": self._common(lang),
        }

    def _common(self, lang: str) -> list[tuple[int, str]]:
        """Return the documents that most of a language's own neurons are strongest in."""
        table = self.sources.tables[self.read["selections"][0]]
        own = table.frame[table.frame["lang"] == lang][["layer", "neuron"]]
        mine = self.contexts[self.contexts["lang"] == lang].merge(own, on=["layer", "neuron"])
        counts = mine.groupby("document").size().sort_values(ascending=False, kind="stable")
        longest = mine.assign(size=mine["pieces"].map(len)).sort_values("size", ascending=False)
        texts = longest.drop_duplicates("document").set_index("document")["pieces"]
        return [
            (int(n), "".join(map(str, texts[document]))) for document, n in counts.head(3).items()
        ]

    def _selection(self, name: str) -> dict[str, Any]:
        """Return a selection: by language the places of its neurons, and their scores."""
        table, labels = self.sources.tables[name], self.labels
        frame = table.frame
        place = frame["layer"].to_numpy(np.int64) * self.d_mlp + frame["neuron"].to_numpy(np.int64)
        own = {lang: (frame["lang"] == lang).to_numpy() for lang in self.languages}
        score = frame["score"].to_numpy(np.float64)
        scored = bool(len(score)) and np.isfinite(score).all() and np.ptp(score) > 0
        return {
            "name": name,
            "label": labels.of("selections", name),
            "random": name in labels.roles["random"],
            "method": str(table.metadata.get("method", "")),
            "neurons": [place[own[lang]].tolist() for lang in self.languages],
            "scores": [[_short(v) for v in score[own[lang]]] for lang in self.languages]
            if scored
            else None,
        }

    def _words(self) -> list[str]:
        """Return of each shown neuron the tokens that a search finds it by."""
        peaks: dict[int, list[str]] = {}
        for row in self.contexts.sort_values("value", ascending=False).itertuples():
            kept = peaks.setdefault(self._place(row), [])
            token = row.pieces[row.peak].strip() if len(row.pieces) else ""
            if token and token not in kept and len(kept) < len(self.languages):
                kept.append(token)
        raised = self.written[self.written["group"] == "raised"]
        for row in raised[raised["rank"] < 5].itertuples():
            peaks.setdefault(self._place(row), []).append(row.token.strip())
        return ["\t".join(dict.fromkeys(peaks.get(place, []))) for place in self.shown.tolist()]

    def _place(self, row: Any) -> int:
        return int(row.layer) * self.d_mlp + int(row.neuron)

    def _costs(self) -> dict[int, dict[str, tuple]]:
        """Return of each neuron that was zeroed the change of NLL by language: value, low, high."""
        frame, _ = self.sources.records("costs")
        if (frame["deactivated"] == UNTOUCHED).all():
            return {}
        names = frame.drop_duplicates("deactivated")
        of = dict(zip(names["deactivated"], map(self._place, names.itertuples()), strict=True))
        found: dict[int, dict[str, tuple]] = {}
        for row in perplexity_change(frame, self.labels.results).itertuples():
            values = tuple(map(_short, (row.nll_change, row.low, row.high, row.p_holm)))
            found.setdefault(of[row.deactivated], {})[str(row.evaluated)] = values
        return found

    def _index_of_costs(self) -> dict[str, list]:
        """Return the neurons that were zeroed, and each one's largest change and its language."""
        place, lang, change = [], [], []
        for neuron, cells in sorted(self.costs.items()):
            own = [cells[code][0] for code in self.languages]
            best = int(np.argmax(own))
            place.append(neuron)
            lang.append(best)
            change.append(own[best])
        return {"place": place, "lang": lang, "change": change}

    # Layers ------------------------------------------------------------------------------------

    def layers(self) -> Iterator[dict[str, Any]]:
        """Yield what is shown of the neurons of each layer, from the first on."""
        histograms = self._histograms()
        similar = neighbours(
            self.probability.reshape(len(self.languages), -1)[:, self.shown], NEIGHBOURS
        )
        near = {
            place: [(int(self.shown[j]), value) for j, value in found]
            for place, found in zip(self.shown.tolist(), similar, strict=True)
        }
        contexts, written = self._grouped_contexts(), self._grouped_written()
        for layer in range(self.n_layers):
            first, last = np.searchsorted(
                self.shown, [layer * self.d_mlp, (layer + 1) * self.d_mlp]
            )
            details = {
                str(place): {
                    "histogram": histograms.get(place),
                    "contexts": contexts.get(place, {}),
                    "written": written.get(place, {}),
                    "costs": self.costs.get(place),
                    "near": near[place],
                }
                for place in self.shown[first:last].tolist()
            }
            yield {
                "probability": packed(shares(self.probability[:, layer].T.ravel())),
                "neurons": details,
            }

    def _histograms(self) -> dict[int, dict[str, Any]]:
        """Return of each shown neuron its distribution per language, on one axis."""
        header = self.sources.header
        if not header["histograms"]:
            return {}
        site = header["histograms"][0]
        layer, neuron = np.divmod(self.shown, self.d_mlp)
        every = self.sources.by_language.values()
        low = np.min([one.min(site)[layer, neuron] for one in every], axis=0)
        high = np.max([one.max(site)[layer, neuron] for one in every], axis=0)
        bars = np.zeros((len(self.shown), len(self.languages), BINS))
        for number, one in enumerate(every):
            counts = one.histogram(site)[layer, neuron]
            least, most = one.min(site)[layer, neuron], one.max(site)[layer, neuron]
            for row in range(len(self.shown)):
                edges = np.linspace(low[row], max(high[row], low[row] + 1e-6), BINS + 1)
                bars[row, number] = rebinned(counts[row], least[row], most[row], edges)
        tallest = bars.max(axis=(1, 2), keepdims=True)
        # Square roots keep the tail visible; the page says so.
        drawn = np.sqrt(np.divide(bars, tallest, out=np.zeros_like(bars), where=tallest > 0))
        drawn = np.rint(drawn * 255).astype(np.uint8)
        return {
            place: {
                "site": SITE_NAMES[site],
                "low": _short(low[row]),
                "high": _short(high[row]),
                "bars": [packed(drawn[row, k]) for k in range(len(self.languages))],
            }
            for row, place in enumerate(self.shown.tolist())
        }

    def _grouped_contexts(self) -> dict[int, dict[str, list]]:
        """Return by neuron and language the contexts: value, peak, pieces, strengths 0-9."""
        found: dict[int, dict[str, list]] = {}
        for row in self.contexts.sort_values(["lang", "layer", "neuron", "rank"]).itertuples():
            strength = np.clip(np.asarray(row.strengths, np.float64) / max(row.value, 1e-12), 0, 1)
            digits = "".join(str(int(round(9 * one))) for one in strength)
            own = found.setdefault(self._place(row), {}).setdefault(str(row.lang), [])
            own.append([_short(row.value), int(row.peak), list(map(str, row.pieces)), digits])
        return found

    def _grouped_written(self) -> dict[int, dict[str, list]]:
        """Return by neuron and group the tokens, with their z."""
        found: dict[int, dict[str, list]] = {}
        for row in self.written.sort_values(["layer", "neuron", "group", "rank"]).itertuples():
            own = found.setdefault(self._place(row), {}).setdefault(str(row.group), [])
            own.append([str(row.token), round(float(row.z), 1)])
        return found


def _short(value: float) -> float | None:
    """Return a number with four significant digits; None where there is none."""
    return float(f"{value:.4g}") if np.isfinite(value) else None
