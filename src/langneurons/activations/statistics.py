"""Activation statistics of one model on one language: the file, its reader, its merge.

Per site and neuron (arrays are (n_layers, d_mlp); of the residual stream (n_layers + 1, d_model),
row 0 before the first block and row l + 1 after block l): the number of positive activations, the
sums of a, a**2 and |a| as pairs of integers (see `langneurons.activations.kernels`), minimum,
maximum and, where asked for, a histogram. From these follow LAPE's activation probabilities,
P(a > t) for any t, any quantile within the bin's width, and every replacement value. Files of
disjoint parts of a corpus merge by adding integers, so the result does not depend on how the corpus
was split into shards. Rows of the residual stream that are asked for have second moments across
dimensions (`langneurons.activations.outer`). Of a mixture of experts there are also the tokens of
each expert (`langneurons.activations.routing`).

On disk integers are compressed, histograms in frames (`langneurons.activations.frames`), with the
sum over each layer's neurons beside them. A file is read array by array as they are asked for, sums
per document layer by layer, and of a histogram only the frames that a layer's threshold needs, so
that dozens of languages fit into memory.
"""

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from langneurons.activations import histogram as bins
from langneurons.activations.frames import around, compress, pack, unpack
from langneurons.activations.outer import outer_key, square
from langneurons.activations.routing import ARRAYS as OF_ROUTERS
from langneurons.activations.routing import OF_EXPERTS, UNIT, check_file
from langneurons.activations.stored import BY_LAYER, StoredArrays
from langneurons.base.io import MADE, DamagedFile, damaged, expect, read_header, write_tensors
from langneurons.models.nonlinearities import NONLINEARITIES

RESIDUAL = "residual"
SITES = ("gate", "act", "product", RESIDUAL)
PERCENTILES = (5, 10, 25, 50, 75, 90, 95)
MOMENTS = ("mean", "std", "min", "max", "abs_mean", "probability")
OF_DOCUMENTS = ("document_max", "document_median")
STATISTICS = (*MOMENTS, *OF_DOCUMENTS, *(f"p{p:02d}" for p in PERCENTILES))
LIMB = 2.0**40
# Two files may be merged or compared only if they agree on these header keys.
IDENTITY = (
    "model",
    "revision",
    "tokenizer_hash",
    "dtype",
    "quantization",
    "nonlinearity",
    "n_layers",
    "d_mlp",
    "sites",
    "histograms",
    "block_size",
    "bos",
    "batch_blocks",
    "batch_quantiles",
    "schema",
)
# The same of files that hold the residual stream; others lack these keys.
OF_RESIDUAL = ("d_model", "residual_outer")
OF_SOME = (*OF_RESIDUAL, *OF_EXPERTS)
SCHEMA = 2
# What the content digest of statistics covers: header keys, and arrays of each site.
OF_CONTENT = (*IDENTITY, "lang", "corpus_hash", "tokens", "blocks")
SUMS = ("positive", "sum", "square", "absolute", "extremes", "histogram_pooled")
HISTOGRAM = ("histogram", "histogram_ends", "histogram_pooled")


def document_unit(site: str) -> float:
    """Return what a sum per document is counted in: 2**-40, of the residual stream 2**-24.

    Some dimensions of the residual stream reach tens of thousands. Their sums over a document do
    not fit into 64 bits in the smaller unit.
    """
    return 2.0**24 if site == RESIDUAL else LIMB


class Mismatch(ValueError):
    """Two statistics files that must not be combined."""


class Statistics:
    """Read access to the statistics of one language.

    `header` names model, revision, tokenizer and corpus hashes, BOS policy, block size, dtype,
    nonlinearity, sites, tokens, and the blocks covered. `path` appears in error messages.
    """

    def __init__(self, arrays: Mapping[str, np.ndarray], header: dict, path: str = "statistics"):
        self.arrays: Mapping[str, np.ndarray] = (
            arrays if isinstance(arrays, StoredArrays) else dict(arrays)
        )
        self.header = header
        self.path = str(path)

    @property
    def tokens(self) -> int:
        """The number of tokens that were counted."""
        return self.header["tokens"]

    @property
    def blocks(self) -> int:
        """The number of packed blocks that were read."""
        first, last = self.header["blocks"]
        return last - first

    @property
    def lang(self) -> str:
        """The language of the corpus."""
        return self.header["lang"]

    @property
    def shape(self) -> tuple[int, int]:
        """(n_layers, d_mlp)."""
        return self.header["n_layers"], self.header["d_mlp"]

    def shape_of(self, site: str) -> tuple[int, int]:
        """Return the shape of a site's arrays: of the residual stream (n_layers + 1, d_model)."""
        if site != RESIDUAL:
            return self.shape
        self._measured(site)
        return self.header["n_layers"] + 1, self.header["d_model"]

    @property
    def sites(self) -> list[str]:
        """The sites that were measured."""
        return self.header["sites"]

    @cached_property
    def digest(self) -> str:
        """The content digest: SHA-256 of what identifies the statistics and of their sums."""
        identity = {key: self.header.get(key) for key in OF_CONTENT}
        identity |= {key: self.header[key] for key in OF_SOME if key in self.header}
        found = hashlib.sha256(json.dumps(identity, sort_keys=True, ensure_ascii=False).encode())
        keys: list[str] = []
        for site in sorted(self.sites):
            keys += [f"{site}.{name}" for name in SUMS]
            keys += map(outer_key, self._outer_rows if site == RESIDUAL else ())
        for key in (*keys, *OF_ROUTERS):
            if key in self.arrays:
                array = np.ascontiguousarray(self.arrays[key])
                found.update(f"{key} {array.dtype.str} {list(array.shape)}\n".encode())
                found.update(array.data)
        return found.hexdigest()

    def verify(self) -> None:
        """Read all sums and compare them with the digest that the file holds.

        Raises:
            DamagedFile: They are not what was written.
        """
        stated = self.digest
        found = Statistics(self.arrays, self.header, self.path).digest
        if stated != found:
            raise DamagedFile(damaged(self.path, f"its digest is {found}, the file says {stated}"))

    def _measured(self, site: str) -> None:
        """Refuse a site that is not known or was not measured."""
        if site not in SITES:
            raise ValueError(f"site {site!r} is not one of {', '.join(SITES)}")
        if site not in self.sites:
            raise ValueError(
                f"{self.path}: site {site!r} was not measured, only {', '.join(self.sites)};"
                " add it to statistics.sites in the configuration."
            )

    def _array(self, site: str, name: str) -> np.ndarray:
        self._measured(site)
        return self.arrays[f"{site}.{name}"]

    def positive(self, site: str = "act") -> np.ndarray:
        """Return the number of activations above zero, int64 (n_layers, d_mlp)."""
        return self._array(site, "positive")

    @property
    def counted_site(self) -> str:
        """The site whose P(a > 0) is shown: act, or where it was not measured, gate or product."""
        for site in ("act", "gate", "product"):
            if site in self.header["sites"]:
                return site
        raise ValueError(
            f"{self.path}: no activations of neurons were measured, only the residual stream; add"
            " act, gate or product to statistics.sites in the configuration."
        )

    def probability(self, site: str = "act") -> np.ndarray:
        """Return P(a > 0), float64 (n_layers, d_mlp)."""
        return self.positive(site) / self.tokens

    def _sum(self, site: str, moment: str) -> np.ndarray:
        whole, fraction = self._array(site, moment)
        return whole.astype(np.float64) + fraction.astype(np.float64) / LIMB

    def mean(self, site: str = "act") -> np.ndarray:
        """Return the mean activation."""
        return self._sum(site, "sum") / self.tokens

    def abs_mean(self, site: str = "act") -> np.ndarray:
        """Return the mean absolute activation."""
        return self._sum(site, "absolute") / self.tokens

    def std(self, site: str = "act") -> np.ndarray:
        """Return the standard deviation (of the population)."""
        variance = self._sum(site, "square") / self.tokens - self.mean(site) ** 2
        return np.sqrt(np.maximum(variance, 0.0))

    def min(self, site: str = "act") -> np.ndarray:
        """Return the smallest activation."""
        return self._array(site, "extremes")[:, 0].astype(np.float64)

    def max(self, site: str = "act") -> np.ndarray:
        """Return the largest activation."""
        return self._array(site, "extremes")[:, 1].astype(np.float64)

    @property
    def n_experts(self) -> int:
        """Experts of a layer; 0 where the model is not a mixture of experts."""
        return self.header.get("n_experts", 0)

    def expert_tokens(self) -> np.ndarray:
        """Return the number of tokens that are routed to each expert, int64 (n_layers, n_experts).

        Raises:
            ValueError: The model is not a mixture of experts.
        """
        return self._routers(OF_ROUTERS[0])

    def expert_frequency(self) -> np.ndarray:
        """Return the share of tokens routed to each expert, float64 (n_layers, n_experts).

        A layer's shares add up to the number of experts that a token passes.
        """
        return self.expert_tokens() / self.tokens

    def expert_weight(self) -> np.ndarray:
        """Return each expert's routing weight, mean over all tokens, float64 (n_layers, n_experts).

        It is 0 at tokens that are not routed to the expert.
        """
        return self._routers(OF_ROUTERS[1]) / UNIT / self.tokens

    def _routers(self, key: str) -> np.ndarray:
        if not self.n_experts:
            raise ValueError(
                f"{self.path}: {self.header['model']} is not a mixture of experts, so there are no"
                " statistics of experts."
            )
        return self.arrays[key]

    @property
    def _outer_rows(self) -> list[int]:
        return self.header.get("residual_outer", [])

    def second_moment(self, row: int) -> np.ndarray:
        """Return the mean of h h^T over tokens, float64 (d_model, d_model).

        row: of the residual stream, 0 before the first block, l + 1 after block l.

        Raises:
            ValueError: The second moments of this row were not measured.
        """
        if row not in self._outer_rows:
            rows = ", ".join(map(str, self._outer_rows)) or "none"
            raise ValueError(
                f"{self.path}: no second moments of row {row} of the residual stream (measured:"
                f" {rows}); add the row to statistics.residual_outer in the configuration."
            )
        whole, fraction = self.arrays[outer_key(row)]
        sums = whole.astype(np.float64) + fraction.astype(np.float64) / LIMB
        return square(sums / self.tokens, self.header["d_model"])

    def covariance(self, row: int) -> np.ndarray:
        """Return the covariance of the dimensions (of the population), as `second_moment`."""
        mean = self.mean(RESIDUAL)[row]
        return self.second_moment(row) - np.outer(mean, mean)

    def histogram(self, site: str = "act") -> np.ndarray:
        """Return counts per bin, (n_layers, d_mlp, N_BINS).

        The activation's follows from the gate's, as it is a function of the gate: int32 counts
        where the site has its own histogram, float64 shares of counts where it is derived. The
        last two that were asked for, of any statistics, stay in memory.
        """
        return _histogram(self, site)

    def layer_histogram(self, layer: int, site: str = "gate") -> np.ndarray:
        """Return counts per bin of one layer, (d_mlp, N_BINS); the others are not unpacked.

        As of `histogram`, they are shares of counts where the site follows from the gate.
        """
        if site == "act" and site not in self.header["histograms"]:
            return self.layer_histogram(layer, "gate") @ _image(self)
        if site not in self.header["histograms"]:
            return self.histogram(site)[layer]  # says what is missing
        return self._layer_counts(layer, site)

    def _layer_counts(self, layer: int, site: str) -> np.ndarray:
        ends = self._array(site, "histogram_ends")
        start, end = int(ends[layer - 1, -1]) if layer else 0, int(ends[layer, -1])
        with self._sliced(f"{site}.histogram") as read:
            packed = read(start, end)
        return unpack(
            packed, ends[layer : layer + 1] - start, (1, self.shape[1], bins.N_BINS), self.path
        )[0]

    def quantile(self, q: float, site: str = "act") -> np.ndarray:
        """Return each neuron's q-quantile, within the bound of `activations.histogram`."""
        return self._per_layer(
            site, lambda histogram, low, high, _: bins.quantile(histogram, q, low, high)
        )

    def exceedance(self, threshold: np.ndarray | float, site: str = "act") -> np.ndarray:
        """Return P(a > threshold) per neuron; `threshold` broadcasts to (n_layers, d_mlp)."""
        from langneurons.activations.loops import exceedance

        threshold = np.asarray(threshold, np.float64)
        by_layer = threshold.ndim == 0 or threshold.shape[-1] == 1
        if by_layer and site in self.header["histograms"]:
            return self._layer_exceedance(np.broadcast_to(threshold, (self.shape[0], 1)), site)
        thresholds = np.broadcast_to(threshold, self.shape)
        result = np.empty(self.shape)
        exceedance(
            self.histogram(site).reshape(-1, bins.N_BINS),
            thresholds.ravel(),
            self.min(site).ravel(),
            self.max(site).ravel(),
            bins.EDGES,
            result.ravel(),
        )
        return result

    def _layer_exceedance(self, threshold: np.ndarray, site: str) -> np.ndarray:
        """Return `exceedance` for one threshold per layer, (n_layers, 1), from a frame each."""
        number = np.searchsorted(bins.EDGES, threshold[:, 0], side="right") - 1
        number = number.clip(0, bins.N_BINS - 1)
        below, within = self._around(site, number)
        low, high = self.min(site), self.max(site)
        lower = bins.EDGES[number][:, None].clip(low, high)
        upper = bins.EDGES[number + 1][:, None].clip(low, high)
        width = upper - lower
        share = (upper - threshold) / np.where(width > 0, width, 1.0)
        share = np.where(width > 0, share.clip(0.0, 1.0), lower > threshold)
        above = (self.tokens - below - within) + share * within
        above = np.where(low > threshold, self.tokens, np.where(high > threshold, above, 0.0))
        return above / self.tokens if self.tokens else np.full(self.shape, np.nan)

    def _around(self, site: str, number: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the counts below a bin of each layer, and in it (`frames.around`)."""
        ends = self._array(site, "histogram_ends")
        with self._sliced(f"{site}.histogram") as read:
            return around(read, ends, number, self.shape[1], self.path)

    def _counts(self, site: str) -> np.ndarray:
        """Return the counts per bin of a site that has its own histogram."""
        packed, ends = (self._array(site, name) for name in HISTOGRAM[:2])
        return unpack(packed, ends, (*self.shape, bins.N_BINS), self.path)

    def _sliced(self, key: str) -> AbstractContextManager[Callable[[int, int], np.ndarray]]:
        if isinstance(self.arrays, StoredArrays):
            return self.arrays.sliced(key)
        whole = self.arrays[key]
        return nullcontext(lambda start, end: whole[start:end])

    def _per_layer(self, site: str, function: Callable[..., np.ndarray]) -> np.ndarray:
        histogram, low, high = self.histogram(site), self.min(site), self.max(site)
        layers = range(self.shape[0])
        return np.stack([function(histogram[i], low[i], high[i], i) for i in layers])

    def pooled_quantile(self, q: float, site: str = "act", by_layer: bool = False) -> np.ndarray:
        """Return the quantile of all activations of each layer, or of the model, (n_layers, 1)."""
        pooled = _pooled(self, site)
        low, high = self.min(site).min(axis=1), self.max(site).max(axis=1)
        if not by_layer:
            pooled, low, high = pooled.sum(axis=0), low.min(), high.max()
        value = bins.quantile(pooled, q, low, high)
        return np.broadcast_to(np.asarray(value), (self.shape[0],))[:, None].copy()

    def batch_quantile(self, q: float, site: str = "gate") -> np.ndarray:
        """Return the mean over batches of each batch's own quantile, as the first paper's code."""
        levels = self.header["batch_quantiles"]
        if q not in levels:
            raise ValueError(
                f"{self.path}: no batch quantile {q}; measured: {levels or 'none'}."
                " Add it to statistics.batch_quantiles in the configuration."
            )
        whole, fraction = self._array(site, "batch_quantiles")[levels.index(q)]
        total = whole.astype(np.float64) + fraction.astype(np.float64) / LIMB
        return total / self.header["batches"]

    def value(self, name: str, site: str = "act") -> np.ndarray:
        """Return a statistic by its name in configurations, (n_layers, d_mlp)."""
        if name in (*MOMENTS, *OF_DOCUMENTS):
            return getattr(self, name)(site)
        if name.startswith("p") and name[1:].isdigit() and 0 < int(name[1:]) < 100:
            return self.quantile(int(name[1:]) / 100, site)
        if name == "normal":
            return np.random.default_rng(0).standard_normal(self.mean(site).shape)
        raise ValueError(f"unknown statistic {name!r}; known: {', '.join(STATISTICS)}, p01-p99")

    @property
    def documents(self) -> list[str]:
        """Identifiers of the documents whose means were kept and of which a token was counted."""
        names = self.header.get("documents", [])
        return [names[i] for i in np.flatnonzero(self.arrays["document_tokens"])] if names else []

    def document_means(self, site: str = "act", layer: int | None = None) -> np.ndarray:
        """Return the mean activation of each of `documents`, float64.

        (documents, n_layers, d_mlp); with `layer` that layer's, (documents, d_mlp), for which
        nothing of the others is read.
        """
        key = f"{site}{BY_LAYER}"
        if key not in self.arrays:
            raise ValueError(
                f"{self.path}: no means per document of site {site!r}; add it to"
                " statistics.document_means in the configuration."
            )
        if layer is None:
            sums = self.arrays[key]
        elif isinstance(self.arrays, StoredArrays):
            sums = self.arrays.layer(key, layer)
        else:
            sums = self.arrays[key][:, layer]
        tokens = self.arrays["document_tokens"]
        counted = tokens > 0
        return (
            sums[counted]
            / document_unit(site)
            / tokens[counted].reshape(-1, *[1] * (sums.ndim - 1))
        )

    def document_max(self, site: str = "act") -> np.ndarray:
        """Return the largest mean activation of a document: Rahmanisa et al. 2025, p_max."""
        return self._of_documents("max", site, lambda means: means.max(axis=0))

    def document_median(self, site: str = "act") -> np.ndarray:
        """Return the lower median of the means of documents: Rahmanisa et al. 2025, p_median."""

        def lower(means: np.ndarray) -> np.ndarray:
            middle = (len(means) - 1) // 2
            return np.partition(means, middle, axis=0)[middle]

        return self._of_documents("median", site, lower)

    @cached_property
    def _patches(self) -> dict[tuple[str, str], np.ndarray]:
        return {}

    def _of_documents(
        self, name: str, site: str, function: Callable[[np.ndarray], np.ndarray]
    ) -> np.ndarray:
        if (name, site) not in self._patches:
            rows = range(self.shape_of(site)[0])
            found = [function(self.document_means(site, row)) for row in rows]
            self._patches[name, site] = np.stack(found)
        return self._patches[name, site]

    def write(self, path: str | os.PathLike) -> None:
        """Write the file, atomically; counts and sums are compressed."""
        arrays, packed = {}, {}
        for whole, stored in self.arrays.items():
            parts = {whole: stored}
            if whole.endswith(BY_LAYER):
                parts = {f"{whole}.{i}": stored[:, i] for i in range(stored.shape[1])}
            for key, array in parts.items():
                arrays[key] = array
                if array.dtype == np.int64:
                    arrays[key], packed[key] = compress(array), list(array.shape)
        write_tensors(path, arrays, self.header | {"packed": packed, "digest": self.digest})

    @classmethod
    def read(cls, path: str | os.PathLike, **expected: Any) -> "Statistics":
        """Check that a file is whole and its header as `expected`; give access to its arrays."""
        header = read_header(path)
        expect(path, header, expected)
        arrays, digest = StoredArrays(path, header.pop("packed", {})), header.pop("digest", None)
        missing = [key for key in (*IDENTITY, "lang", "tokens", "blocks") if key not in header]
        if missing:
            raise DamagedFile(damaged(path, f"header lacks {', '.join(missing)}"))
        if header["schema"] != SCHEMA:
            raise DamagedFile(damaged(path, f"schema {header['schema']}, expected {SCHEMA}"))
        _check_outer(path, header, arrays)
        check_file(path, header, arrays)
        for site in header["sites"]:
            shape = (header["n_layers"], header["d_mlp"])
            if site == RESIDUAL:
                shape = (header["n_layers"] + 1, header["d_model"])
            positive = arrays.get(f"{site}.positive")
            if positive is None or positive.shape != shape:
                raise DamagedFile(damaged(path, f"counts of site {site} missing or misshapen"))
            if positive.min() < 0 or positive.max() > header["tokens"]:
                raise DamagedFile(damaged(path, f"counts of site {site} outside 0..tokens"))
            extremes = arrays.get(f"{site}.extremes")
            if extremes is None or extremes.shape != (shape[0], 2, shape[1]):
                raise DamagedFile(damaged(path, f"extremes of site {site} missing or misshapen"))
            if header["tokens"] and not np.isfinite(extremes).all():
                raise DamagedFile(damaged(path, f"extremes of site {site} are not finite"))
            for moment in ("sum", "square", "absolute"):
                if arrays.packed_shape(f"{site}.{moment}") != (2, *shape):
                    raise DamagedFile(
                        damaged(path, f"{moment} of site {site} missing or misshapen")
                    )
        found = cls(arrays, header, str(path))
        if digest is not None:
            found.digest = digest
        return found


def _check_outer(path: str | os.PathLike, header: Mapping[str, Any], arrays: StoredArrays) -> None:
    """Refuse a header that does not fit the residual stream, and second moments of other shapes."""
    there = RESIDUAL in header["sites"]
    for name in OF_RESIDUAL:
        if (name in header) != there:
            what = "lacks" if there else "has"
            raise DamagedFile(damaged(path, f"header {what} {name}, sites {header['sites']}"))
    stored = {key for key in arrays if key.startswith(outer_key(""))}
    wanted = {outer_key(row) for row in header.get("residual_outer", ())}
    if stored != wanted:
        raise DamagedFile(damaged(path, f"second moments of {stored}, header names {wanted}"))
    d_model = header.get("d_model", 0)
    for key in sorted(wanted):
        if arrays.packed_shape(key) != (2, d_model * (d_model + 1) // 2):
            raise DamagedFile(damaged(path, f"{key} is misshapen"))


def histogram_arrays(site: str, histogram: np.ndarray) -> dict[str, np.ndarray]:
    """Return the arrays that a file holds of a site's counts, int32 (n_layers, d_mlp, N_BINS)."""
    values = (*pack(histogram), histogram.sum(axis=1, dtype=np.int64))
    return {f"{site}.{name}": value for name, value in zip(HISTOGRAM, values, strict=True)}


def _pooled(one: Statistics, site: str) -> np.ndarray:
    """Return the counts per bin of all of a layer's neurons, (n_layers, N_BINS)."""
    if site == "act" and site not in one.header["histograms"]:
        return _pooled(one, "gate") @ _image(one)
    if site not in one.header["histograms"]:
        one.histogram(site)  # says what is missing
    return one.arrays[f"{site}.histogram_pooled"]


def _image(one: Statistics) -> np.ndarray:
    return bins.image(NONLINEARITIES[one.header["nonlinearity"]])


@lru_cache(maxsize=2)
def _histogram(one: Statistics, site: str) -> np.ndarray:
    # At 8B an unpacked histogram has half a gigabyte, and a set may have dozens of languages.
    if site in one.header["histograms"]:
        return one._counts(site)
    if site == "act" and "gate" in one.header["histograms"]:
        return one.histogram("gate") @ _image(one)
    if site == RESIDUAL:
        raise ValueError(
            f"{one.path}: no histogram is kept of the residual stream, so it has no quantiles and"
            " no P(a > t); its statistics: mean, std, min, max, abs_mean."
        )
    raise ValueError(
        f"{one.path}: no histogram of site {site!r} (histograms of"
        f" {', '.join(one.header['histograms']) or 'none'}); add it to"
        " statistics.histograms in the configuration."
    )


def check_compatible(files: Iterable[Statistics], keys: Iterable[str] = IDENTITY) -> None:
    """Refuse files that disagree on a header key, naming files, key and values."""
    files, keys = list(files), (*keys, *OF_SOME)
    for other in files[1:]:
        for key in keys:
            first, second = files[0].header.get(key), other.header.get(key)
            if first != second:
                made = MADE & {*Path(files[0].path).parts, *Path(other.path).parts}
                rebuild = " Remove the stale one and run snakemake again." if made else ""
                raise Mismatch(
                    f"{files[0].path} and {other.path} disagree on {key}: {first!r} against"
                    f" {second!r}. They must come from the same model, tokenizer and settings."
                    f"{rebuild}"
                )
