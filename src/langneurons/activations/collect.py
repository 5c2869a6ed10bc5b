"""One pass of a model over packed blocks of a corpus, into activation statistics.

A hook on each layer's nonlinearity sees the gate (its input) and the activation (its output); where
the site `product` is asked for, one on the down projection sees its input; where `residual` is, one
before the first block and one after each block see the residual stream. Of a mixture of experts one
on each layer's experts sees the routing. The head is never computed.
Padding and special tokens are masked out; the number of counted tokens is asserted.

The batches are those of the whole corpus whatever the shard, so a shard computes exactly what a
single job would have computed there. Full blocks follow their order, `batch_blocks` at a time;
blocks of documents by themselves are sorted by length, as many to a batch as take the tokens of
`batch_blocks` full ones. So hardly any padding is read, and attention needs no mask: rows end where
documents do, and the causal kernel hides what is padded after them.

On a GPU the host only queues work: nothing is read back before a checkpoint or the end, so layers
follow each other, and batches too, without a gap.
"""

import logging
import time
from collections.abc import Callable, Set
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import nn

from langneurons.activations import histogram as bins
from langneurons.activations.kernels import LIMB, MOMENTS, accumulate
from langneurons.activations.outer import add_outer, counted_of, outer_key, square, triangle
from langneurons.activations.routing import ARRAYS, OF_EXPERTS, add_routed, check_routed
from langneurons.activations.settings import StatisticsConfig
from langneurons.activations.statistics import (
    RESIDUAL,
    SCHEMA,
    Statistics,
    document_unit,
    histogram_arrays,
)
from langneurons.base.batching import batches
from langneurons.base.errors import InputError
from langneurons.base.io import read_tensors, write_tensors
from langneurons.data.corpus import Corpus, Part
from langneurons.models.encoding import check_length
from langneurons.models.language_model import LanguageModel
from langneurons.models.nonlinearities import nonlinearity_name
from langneurons.models.sites import MlpSites
from langneurons.runtime.halving import TooLarge, out_of_memory, release
from langneurons.runtime.job import deferred_termination
from langneurons.runtime.progress import Progress

log = logging.getLogger(__name__)


@dataclass
class Accumulators:
    """The running integers of one site: arrays per layer, on the layer's device."""

    positive: list[torch.Tensor] = field(default_factory=list)
    limbs: list[torch.Tensor] = field(default_factory=list)
    extremes: list[torch.Tensor] = field(default_factory=list)
    histogram: list[torch.Tensor] = field(default_factory=list)
    batch_quantiles: list[torch.Tensor] = field(default_factory=list)
    document_sum: list[torch.Tensor] = field(default_factory=list)


class Collector:
    """Hooks on every layer of a model that add what passes to accumulators.

    Use as a context manager; call `observe(mask, rows, documents)` before each forward pass.
    """

    def __init__(self, sites: MlpSites, settings: StatisticsConfig, n_documents: int = 0):
        self.mlp = sites
        self.settings = settings
        self.n_documents = n_documents
        self.fired = 0
        self._handles: list = []
        self.added: set[tuple[str, int]] = set()
        self._observed: tuple[torch.Tensor, ...] = ()
        self._on_device: dict[torch.device, tuple[torch.Tensor, ...]] = {}
        self._counted: dict[torch.device, list[torch.Tensor]] = {}
        self.accumulators: dict[str, Accumulators] = {
            site: self._empty(site) for site in settings.sites
        }
        self.outer: dict[int, torch.Tensor] = {
            row: torch.zeros(
                2,
                sites.d_model,
                sites.d_model,
                dtype=torch.int64,
                device=self._devices(RESIDUAL)[row],
            )
            for row in settings.residual_outer
        }
        self.routed = [
            torch.zeros(2, sites.n_experts, dtype=torch.int64, device=sites.device_of(layer))
            for layer in range(len(sites.experts))
        ]

    def _devices(self, site: str) -> list[torch.device]:
        """Return where each row of a site's arrays lies: that of the residual stream has one more.

        Row 0 of the residual stream lies with the first layer, row l + 1 with layer l.
        """
        devices = [self.mlp.device_of(layer) for layer in range(self.mlp.n_layers)]
        return [devices[0], *devices] if site == RESIDUAL else devices

    def _empty(self, site: str) -> Accumulators:
        d = self.mlp.d_model if site == RESIDUAL else self.mlp.d_mlp
        result = Accumulators()
        n_levels = len(self.settings.batch_quantiles) if site == "gate" else 0
        n_bins = d if site in self.settings.histograms else 0
        n_documents = self.n_documents if site in self.settings.document_means else 0
        for device in self._devices(site):
            extremes = torch.stack([torch.full((d,), np.inf), torch.full((d,), -np.inf)])
            result.positive.append(torch.zeros(d, dtype=torch.int64, device=device))
            result.limbs.append(torch.zeros(len(MOMENTS), 2, d, dtype=torch.int64, device=device))
            result.extremes.append(extremes.to(device))
            result.histogram.append(
                torch.zeros(n_bins, bins.N_BINS, dtype=torch.int32, device=device)
            )
            result.batch_quantiles.append(
                torch.zeros(n_levels, 2, d, dtype=torch.int64, device=device)
            )
            result.document_sum.append(
                torch.zeros(n_documents, d, dtype=torch.int64, device=device)
            )
        return result

    def __enter__(self) -> "Collector":
        for layer in range(self.mlp.n_layers):
            handle = self.mlp.act[layer].register_forward_hook(self._on_act(layer))
            self._handles.append(handle)
            if "product" in self.settings.sites:
                handle = self.mlp.down[layer].register_forward_pre_hook(self._on_down(layer))
                self._handles.append(handle)
        for layer, experts in enumerate(self.mlp.experts):
            self._handles.append(experts.register_forward_pre_hook(self._on_experts(layer)))
        if RESIDUAL in self.settings.sites:
            for row in range(self.mlp.n_layers + 1):
                self._handles.append(self.mlp.on_stream(row, self._on_stream(row)))
        return self

    def __exit__(self, *_: object) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    def _on_act(self, layer: int) -> Callable[..., None]:
        def hook(_module: nn.Module, inputs: tuple, output: torch.Tensor) -> None:
            self.fired += 1
            if "gate" in self.settings.sites:
                self._add("gate", layer, inputs[0])
            if "act" in self.settings.sites:
                self._add("act", layer, output)

        return hook

    def _on_down(self, layer: int) -> Callable[..., None]:
        def hook(_module: nn.Module, inputs: tuple) -> None:
            self._add("product", layer, inputs[0])

        return hook

    def _on_experts(self, layer: int) -> Callable[..., None]:
        def hook(_module: nn.Module, inputs: tuple) -> None:
            if ("experts", layer) not in self.added:
                sums = self.routed[layer]
                index, weights = (one.to(sums.device) for one in inputs[1:3])
                add_routed(index, weights, self._moved(sums.device)[0], sums)
                self.added.add(("experts", layer))

        return hook

    def _on_stream(self, row: int) -> Callable[[torch.Tensor], None]:
        def function(values: torch.Tensor) -> None:
            self._add(RESIDUAL, row, values)
            if row in self.outer:
                self._add_outer(row, values)

        return function

    def _add_outer(self, row: int, values: torch.Tensor) -> None:
        if ("outer", row) in self.added:
            return
        limbs = self.outer[row]
        if limbs.device not in self._counted:
            places = counted_of(*self._observed[:2])
            self._counted[limbs.device] = [_to(one, limbs.device) for one in places]
        flat = values.reshape(-1, values.shape[-1]).to(limbs.device)
        add_outer(flat, self._counted[limbs.device], limbs)
        self.added.add(("outer", row))

    def _add(self, site: str, layer: int, values: torch.Tensor) -> None:
        if (site, layer) in self.added:
            return
        kept = self.accumulators[site]
        flat = values.reshape(-1, values.shape[-1]).to(kept.limbs[layer].device)
        mask, rows, numbers = self._moved(flat.device)
        histogram = kept.histogram[layer]
        levels = self.settings.batch_quantiles if site == "gate" else ()
        target, extremes = histogram, kept.extremes[layer]
        documents = None
        if kept.document_sum[layer].shape[0]:
            chosen = (mask & (numbers >= 0))[:, None]
            fixed = torch.where(chosen, (flat.double() * document_unit(site)).round(), 0.0).long()
            documents = numbers.clamp(min=0), fixed
        if levels:
            # A batch's quantile must not depend on the batches before it: shards start afresh.
            target = torch.zeros_like(histogram)
            extremes = torch.full_like(extremes, torch.inf)
            extremes[1].neg_()
        accumulate(
            flat,
            mask,
            rows,
            kept.positive[layer],
            kept.limbs[layer],
            extremes,
            target,
        )
        for index, level in enumerate(levels):
            value = bins.quantile_tensor(target, level, extremes[0], extremes[1])
            whole = value.floor()
            kept.batch_quantiles[layer][index, 0] += whole.long()
            kept.batch_quantiles[layer][index, 1] += ((value - whole) * LIMB).round().long()
        if levels:
            torch.minimum(kept.extremes[layer][0], extremes[0], out=kept.extremes[layer][0])
            torch.maximum(kept.extremes[layer][1], extremes[1], out=kept.extremes[layer][1])
            histogram += target
        if documents is not None:
            kept.document_sum[layer].index_add_(0, *documents)
        self.added.add((site, layer))

    def _moved(self, device: torch.device) -> tuple[torch.Tensor, ...]:
        """Return mask, borders and documents of the pass on a device, brought there once."""
        if device not in self._on_device:
            self._on_device[device] = tuple(_to(one, device) for one in self._observed)
        return self._on_device[device]

    def observe(
        self,
        mask: torch.Tensor,
        rows: torch.Tensor,
        documents: torch.Tensor,
        added: Set[tuple[str, int]] = frozenset(),
    ) -> None:
        """Announce the next forward pass: which tokens count, block borders, their documents.

        On the host: bool (tokens,), int64 (blocks + 1,), int64 (tokens,), -1 being no document.
        `added` names sites and layers to which these tokens were added before, by a pass that ran
        out of memory further up; they are passed over.
        """
        self._observed, self._on_device, self._counted = (mask, rows, documents), {}, {}
        self.added = set(added)

    def check_stream(self) -> None:
        """Refuse a pass in which a border of blocks was not seen."""
        rows = range(self.mlp.n_layers + 1) if RESIDUAL in self.settings.sites else ()
        missing = [row for row in rows if (RESIDUAL, row) not in self.added]
        if missing:
            raise RuntimeError(
                f"the residual stream was not seen at rows {missing} of {len(rows)}; is the model"
                " compiled, or the adapter of its model_type wrong"
                " (langneurons/models/families.py)?"
            )

    def arrays(self) -> dict[str, np.ndarray]:
        """Return the accumulators as arrays stacked over layers, histograms not yet packed."""
        result: dict[str, np.ndarray] = {}
        for site, kept in self.accumulators.items():
            stacked = {
                "positive": torch.stack([t.cpu() for t in kept.positive]),
                "extremes": torch.stack([t.cpu() for t in kept.extremes]),
            }
            limbs = torch.stack([t.cpu() for t in kept.limbs], dim=2)
            stacked |= {name: limbs[i] for i, name in enumerate(MOMENTS)}
            if site in self.settings.histograms:
                stacked["histogram"] = torch.stack([t.cpu() for t in kept.histogram])
            if site == "gate" and self.settings.batch_quantiles:
                stacked["batch_quantiles"] = torch.stack(
                    [t.cpu() for t in kept.batch_quantiles], dim=2
                )
            if site in self.settings.document_means:
                stacked["document_sum"] = torch.stack([t.cpu() for t in kept.document_sum], dim=1)
            result |= {f"{site}.{name}": tensor.numpy() for name, tensor in stacked.items()}
        if self.routed:
            sums = torch.stack([one.cpu() for one in self.routed], dim=1).numpy()
            result |= dict(zip(ARRAYS, sums, strict=True))
        return result | {
            outer_key(row): triangle(limbs.cpu().numpy()) for row, limbs in self.outer.items()
        }

    def restore(self, arrays: dict[str, np.ndarray]) -> None:
        """Continue from arrays that `arrays` returned."""
        for site, kept in self.accumulators.items():
            for layer in range(len(kept.positive)):
                _copy(kept.positive[layer], arrays[f"{site}.positive"][layer])
                _copy(kept.extremes[layer], arrays[f"{site}.extremes"][layer])
                for i, name in enumerate(MOMENTS):
                    _copy(kept.limbs[layer][i], arrays[f"{site}.{name}"][:, layer])
                if site in self.settings.histograms:
                    _copy(kept.histogram[layer], arrays[f"{site}.histogram"][layer])
                if site == "gate" and self.settings.batch_quantiles:
                    _copy(
                        kept.batch_quantiles[layer], arrays[f"{site}.batch_quantiles"][:, :, layer]
                    )
                if site in self.settings.document_means:
                    _copy(kept.document_sum[layer], arrays[f"{site}.document_sum"][:, layer])
        for layer, sums in enumerate(self.routed):
            _copy(sums, np.stack([arrays[key][layer] for key in ARRAYS]))
        for row, limbs in self.outer.items():
            _copy(limbs, square(arrays[outer_key(row)], self.mlp.d_model))


def _copy(tensor: torch.Tensor, array: np.ndarray) -> None:
    tensor.copy_(torch.from_numpy(np.ascontiguousarray(array)))


def _to(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Bring a tensor of the host to a device; on a GPU behind the work that is queued there."""
    if device.type != "cuda":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


def _pass(
    collector: Collector,
    tokens: torch.Tensor,
    mask: torch.Tensor,
    documents: torch.Tensor,
    added: Set[tuple[str, int]] = frozenset(),
) -> None:
    """Run blocks (blocks, length) through the model, in halves where they do not fit into memory.

    What a failed pass has added stays: the halves pass over these layers, so every token is added
    once to each.
    """
    n_blocks, length = tokens.shape
    borders = torch.arange(n_blocks + 1) * length
    collector.observe(mask.reshape(-1), borders, documents.reshape(-1), added)
    fired, n_layers = collector.fired, collector.mlp.n_layers
    try:
        collector.mlp.backbone(input_ids=tokens, use_cache=False)
    except RuntimeError as error:
        if not out_of_memory(error):
            raise
        if n_blocks == 1:
            raise TooLarge("block", error) from error
        if collector.settings.batch_quantiles:
            raise TooLarge(
                f"batch of {n_blocks} blocks (quantiles averaged over batches, as the paper's code"
                " does, need whole batches: lower statistics.batch_blocks)",
                error,
            ) from error
    else:
        if collector.fired - fired != n_layers:
            raise RuntimeError(
                f"{collector.fired - fired} of {n_layers} layer hooks fired; is the model"
                " compiled, or the adapter of its model_type wrong"
                " (langneurons/models/families.py)?"
            )
        collector.check_stream()
        return
    done = frozenset(collector.added)
    log.warning("out of memory with a batch of %d blocks; halved", n_blocks)
    release()
    middle = (n_blocks + 1) // 2
    for part in (slice(middle), slice(middle, None)):
        _pass(collector, tokens[part], mask[part], documents[part], done)


def batches_of(part: Part, settings: StatisticsConfig) -> list[np.ndarray]:
    """Return the blocks of each batch.

    Where quantiles are averaged over batches, as the first paper's code does, a batch is
    `batch_blocks` consecutive blocks, however long they are.
    """
    return [batch for one in slices_of(part, settings) for batch in one]


def slices_of(part: Part, settings: StatisticsConfig) -> list[list[np.ndarray]]:
    """Return the blocks of each batch of each slice; slices follow the order of the corpus.

    Full blocks are shared out in whole batches. Blocks of documents by themselves are shared out
    one by one, and sorted by length within a slice only: slices hold the same documents in every
    language that has them in the same order.
    """
    n_blocks, size = part.tokens.shape
    number = settings.batch_blocks
    if settings.batch_quantiles or (part.lengths[:-1] == size).all():
        found = [np.arange(i, min(i + number, n_blocks)) for i in range(0, n_blocks, number)]
        ranges = (shard_batches(len(found), i, settings.slices) for i in range(settings.slices))
        return [found[own.start : own.stop] for own in ranges]
    slices = []
    for i in range(settings.slices):
        own = shard_batches(n_blocks, i, settings.slices)
        sizes = [int(length) for length in part.lengths[own.start : own.stop]]
        groups = batches(sizes, number * size)
        slices.append([np.array(sorted(group)) + own.start for group in groups])
    return slices


def _batches_of_shard(slices: list[list[np.ndarray]], shard: int, n_shards: int) -> range:
    """Return the batches of a shard: those of whole slices where slices are shared out evenly."""
    ends = np.cumsum([0, *map(len, slices)]).tolist()
    if len(slices) % n_shards:
        return shard_batches(ends[-1], shard, n_shards)
    own = shard_batches(len(slices), shard, n_shards)
    return range(ends[own.start], ends[own.stop])


def shard_batches(n_batches: int, shard: int, n_shards: int) -> range:
    """Return the batches of a shard: contiguous, sizes differing by at most one."""
    if not 0 <= shard < n_shards:
        raise ValueError(f"shard {shard} is not in 0..{n_shards - 1}")
    return range(n_batches * shard // n_shards, n_batches * (shard + 1) // n_shards)


def collect(
    model: LanguageModel,
    corpus: Corpus,
    settings: StatisticsConfig,
    shard: int = 0,
    n_shards: int = 1,
    checkpoint: Path | None = None,
    checkpoint_seconds: float = 300.0,
) -> Statistics:
    """Measure a model on the identification part of a corpus (or on one shard of it).

    With `checkpoint`, the running sums are saved there every `checkpoint_seconds` and at SIGTERM,
    and picked up after a kill; the result is the same as that of an undisturbed run.
    """
    mlp = model.sites
    part = corpus.identification
    n_blocks, block_size = part.tokens.shape
    nonlinearity = nonlinearity_name(mlp.config)
    _check_rows(settings, mlp.n_layers)
    check_length(int(part.lengths.max()), model.max_positions, f"blocks of {corpus.lang}")
    slices = slices_of(part, settings)
    groups = [batch for one in slices for batch in one]
    todo = _batches_of_shard(slices, shard, n_shards)
    n_documents = min(len(part.documents), settings.max_documents) if settings.document_means else 0
    device = mlp.device
    first, counted, document_tokens = todo.start, 0, np.zeros(n_documents, np.int64)
    collector = Collector(mlp, settings, n_documents)
    if checkpoint is not None and checkpoint.exists():
        arrays, state = read_tensors(checkpoint)
        collector.restore(arrays)
        first, counted = state["next_batch"], state["counted"]
        document_tokens = arrays["document_tokens"]
        log.info("%s: resumed at batch %d of %d", corpus.lang, first - todo.start, len(todo))
    progress = Progress(f"statistics {corpus.lang}", len(todo), "batches", done=first - todo.start)
    saved = time.monotonic()
    with deferred_termination() as terminated, torch.inference_mode(), collector:
        for batch in range(first, todo.stop):
            rows = groups[batch]
            length = int(part.lengths[rows].max())
            tokens = _to(torch.from_numpy(part.tokens[rows, :length].astype(np.int64)), device)
            mask = torch.from_numpy(part.scored[rows, :length])
            documents = part.document[rows, :length].astype(np.int64)
            documents = np.where(documents < n_documents, documents, -1)
            if n_documents:
                chosen = documents[mask.numpy() & (documents >= 0)]
                document_tokens += np.bincount(chosen, minlength=n_documents)
            _pass(collector, tokens, mask, torch.from_numpy(documents))
            counted += int(mask.sum())
            progress.update(tokens=int(mask.sum()))
            due = terminated() or time.monotonic() - saved > checkpoint_seconds
            if checkpoint is not None and due:
                state = collector.arrays() | {"document_tokens": document_tokens}
                write_tensors(checkpoint, state, {"next_batch": batch + 1, "counted": counted})
                saved = time.monotonic()
            if terminated():
                break
    blocks = [sum(map(len, groups[:end])) for end in (todo.start, todo.stop)]
    expected = sum(int(part.scored[rows].sum()) for rows in groups[todo.start : todo.stop])
    if counted != expected:
        raise RuntimeError(f"counted {counted} tokens, the corpus part holds {expected}")
    arrays = collector.arrays()
    if counted:
        _check_finite(arrays, corpus.lang)
    per_expert = (mlp.n_experts, mlp.experts_per_token)
    if mlp.experts and (wrong := check_routed(arrays, counted, per_expert[1])):
        raise RuntimeError(f"{corpus.lang}: {wrong}")
    for site in settings.histograms:
        counts = arrays.pop(f"{site}.histogram")
        _check_histogram(counts, counted, f"{site}.histogram")
        arrays |= histogram_arrays(site, counts)
    header = model.known_as | {
        "schema": SCHEMA,
        "lang": corpus.lang,
        "tokenizer_hash": corpus.header["tokenizer_hash"],
        "corpus_hash": corpus.header["corpus_hash"],
        "bos": corpus.header["bos"],
        "nonlinearity": nonlinearity,
        "text": corpus.header.get("text", {}),
        "n_layers": mlp.n_layers,
        "d_mlp": mlp.d_mlp,
        "sites": list(settings.sites),
        "histograms": list(settings.histograms),
        "batch_quantiles": list(settings.batch_quantiles),
        "batch_blocks": settings.batch_blocks,
        "block_size": block_size,
        "blocks": blocks,
        "corpus_blocks": n_blocks,
        "batches": len(todo),
        "tokens": counted,
    }
    if RESIDUAL in settings.sites:
        header |= {"d_model": mlp.d_model, "residual_outer": list(settings.residual_outer)}
    if mlp.experts:
        header |= dict(zip(OF_EXPERTS, per_expert, strict=True))
    if n_documents:
        arrays["document_tokens"] = document_tokens
        header["documents"] = part.documents[:n_documents]
    progress.finish()
    return Statistics(arrays, header, f"statistics of {corpus.lang}")


def _check_rows(settings: StatisticsConfig, n_layers: int) -> None:
    beyond = max(settings.residual_outer, default=0)
    if beyond > n_layers:
        raise InputError(
            f"statistics.residual_outer: row {beyond} is beyond the model of {n_layers} layers;"
            f" legal: 0 (before the first block) to {n_layers} (after the last)."
        )


def _check_histogram(histogram: np.ndarray, counted: int, key: str) -> None:
    if (histogram.sum(axis=-1, dtype=np.int64) != counted).any():
        raise RuntimeError(f"{key} does not hold every one of {counted} tokens")


def _check_finite(arrays: dict[str, np.ndarray], lang: str) -> None:
    for key, array in arrays.items():
        if key.endswith(".extremes"):
            bad = np.argwhere(~np.isfinite(array).all(axis=1))
            if len(bad):
                row, column = bad[0]
                site, named = key.split(".")[0], ("layer", "neuron")
                if site == RESIDUAL:
                    named = ("row", "dimension")
                raise RuntimeError(
                    f"{lang}: {site} of {named[0]} {row}, {named[1]} {column} is not finite"
                    f" ({len(bad)} {named[1]}s in all): overflow in this dtype, or damaged weights."
                )
