"""Where chosen neurons are strongest: a second pass over a corpus that keeps their contexts.

Of each chosen neuron and language the `k` documents are kept in which its activation is largest,
with the strongest token of each and the activations around it. Only activations above 0 count.
Ties go to the earlier token. What is kept depends on no order or size of batches, so parts of a
corpus that were read apart merge to what one pass gives.

The hooks copy the chosen columns; everything else is done once per batch, after the pass.
"""

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import nn
from transformers import PreTrainedTokenizerBase

from langneurons.base.batching import batches
from langneurons.base.io import read_tensors, write_tensors
from langneurons.data.corpus import Corpus, Part
from langneurons.models.encoding import check_length
from langneurons.models.language_model import LanguageModel
from langneurons.models.sites import MlpSites
from langneurons.runtime.halving import Batches
from langneurons.runtime.job import deferred_termination
from langneurons.runtime.progress import Progress

log = logging.getLogger(__name__)
CELLS = 4_000_000  # activations that are compared at once
REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
ARRAYS = ("layer", "neuron", "value", "position", "document", "around")


@dataclass(frozen=True)
class Wanted:
    """What is kept of each neuron: k documents, `reach` tokens before and after the strongest.

    site: where the activation is read (`statistics.sites`).
    """

    k: int
    reach: int
    site: str = "act"


@dataclass(frozen=True)
class Strongest:
    """The strongest documents of n neurons, strongest first.

    layer, neuron: int32 (n,). value: float32 (n, k), the largest activation in the document; 0
    where a neuron was above 0 in fewer documents. position: int64 (n, k), block x size of a block +
    place; document: int32 (n, k), its number in the corpus; both -1 there. around: float32
    (n, k, 2 reach + 1), the activations around the position; NaN outside its document or block.
    """

    layer: np.ndarray
    neuron: np.ndarray
    value: np.ndarray
    position: np.ndarray
    document: np.ndarray
    around: np.ndarray

    @classmethod
    def empty(cls, chosen: Sequence[np.ndarray], k: int, reach: int) -> "Strongest":
        """Return the start of a pass; chosen: neurons by layer."""
        layer = np.repeat(np.arange(len(chosen)), [len(one) for one in chosen]).astype(np.int32)
        neuron = np.concatenate(chosen).astype(np.int32)
        size = (len(layer), k)
        return cls(
            layer,
            neuron,
            np.zeros(size, np.float32),
            np.full(size, -1, np.int64),
            np.full(size, -1, np.int32),
            np.full((*size, 2 * reach + 1), np.nan, np.float32),
        )

    @property
    def reach(self) -> int:
        """How many tokens are kept before and after the strongest."""
        return self.around.shape[2] // 2

    def add(
        self,
        row: np.ndarray,
        value: np.ndarray,
        position: np.ndarray,
        document: np.ndarray,
        around: Callable[[np.ndarray], np.ndarray],
    ) -> None:
        """Take in candidates (m,) in place; row: their neurons, 0..n-1.

        around: of the places of candidates that are kept, their activations, (kept, 2 reach + 1).
        """
        touched, local = np.unique(row, return_inverse=True)
        n, k = len(touched), self.value.shape[1]
        old = self.position[touched] >= 0
        where = np.flatnonzero(old.ravel())
        owner = np.concatenate([where // k, local])
        values = np.concatenate([self.value[touched][old], value])
        positions = np.concatenate([self.position[touched][old], position])
        documents = np.concatenate([self.document[touched][old], document])
        order = np.lexsort((positions, -values, owner))
        pair = owner[order] * (int(documents.max()) + 1) + documents[order]
        _, first = np.unique(pair, return_index=True)  # a document's strongest token
        order = order[np.sort(first)]
        rank = np.arange(len(order)) - np.searchsorted(owner[order], np.arange(n))[owner[order]]
        kept, rank = order[rank < k], rank[rank < k]
        new = kept >= len(where)
        windows = np.empty((len(kept), self.around.shape[2]), np.float32)
        windows[~new] = self.around[touched][old][kept[~new]]
        windows[new] = around(kept[new] - len(where))
        at = touched[owner[kept]], rank
        for array, blank, found in (
            (self.value, 0, values[kept]),
            (self.position, -1, positions[kept]),
            (self.document, -1, documents[kept]),
            (self.around, np.nan, windows),
        ):
            array[touched] = blank
            array[at] = found

    def arrays(self) -> dict[str, np.ndarray]:
        """Return the arrays by name."""
        return {name: getattr(self, name) for name in ARRAYS}


def merge(parts: Sequence[Strongest]) -> Strongest:
    """Merge what passes over parts of one corpus found, in any order.

    Raises:
        ValueError: They are of other neurons, or keep another number or reach.
    """
    first = parts[0]
    for other in parts[1:]:
        same = first.around.shape == other.around.shape and all(
            np.array_equal(getattr(first, name), getattr(other, name))
            for name in ("layer", "neuron")
        )
        if not same:
            raise ValueError("contexts of other neurons, or of another number or reach, do not add")
    merged = Strongest(**{name: array.copy() for name, array in first.arrays().items()})
    for other in parts[1:]:
        row, rank = np.nonzero(other.position >= 0)
        if len(row):
            windows = other.around[row, rank]
            merged.add(
                row,
                other.value[row, rank],
                other.position[row, rank],
                other.document[row, rank],
                windows.__getitem__,
            )
    return merged


class _Columns:
    """Hooks that copy the chosen neurons of a site as a batch passes."""

    def __init__(self, sites: MlpSites, chosen: Sequence[np.ndarray], site: str):
        self._seen: dict[int, torch.Tensor] = {}
        self._layers = [layer for layer, one in enumerate(chosen) if len(one)]
        self._handles = []
        for layer in self._layers:
            down, act = sites.down[layer], sites.act[layer]
            index = torch.from_numpy(np.asarray(chosen[layer], np.int64))
            index = index.to(sites.device_of(layer))
            if site == "act":
                handle = act.register_forward_hook(self._of_output(layer, index))
            else:
                module = act if site == "gate" else down
                handle = module.register_forward_pre_hook(self._of_input(layer, index))
            self._handles.append(handle)

    def _of_output(self, layer: int, index: torch.Tensor) -> Callable[..., None]:
        def hook(_module: nn.Module, _inputs: tuple, output: torch.Tensor) -> None:
            self._keep(layer, index, output)

        return hook

    def _of_input(self, layer: int, index: torch.Tensor) -> Callable[..., None]:
        def hook(_module: nn.Module, inputs: tuple) -> None:
            self._keep(layer, index, inputs[0])

        return hook

    def _keep(self, layer: int, index: torch.Tensor, values: torch.Tensor) -> None:
        self._seen[layer] = values.reshape(-1, values.shape[-1]).index_select(1, index)

    def taken(self, device: torch.device) -> torch.Tensor:
        """Return the activations of the last pass, float32 (tokens, n), and forget them."""
        silent = [layer for layer in self._layers if layer not in self._seen]
        if silent:
            raise RuntimeError(
                f"no hook fired in layers {silent}; is the model compiled, or its adapter wrong"
                " (langneurons/models/families.py)?"
            )
        values = torch.cat([self._seen[layer].to(device) for layer in self._layers], 1)
        self._seen.clear()
        return values.float()

    def remove(self) -> None:
        """Take the hooks off."""
        for handle in self._handles:
            handle.remove()


def strongest(
    model: LanguageModel,
    corpus: Corpus,
    chosen: Sequence[np.ndarray],
    wanted: Wanted,
    batch_tokens: int,
    checkpoint: tuple[Path, float] | None = None,
) -> Strongest:
    """Return the documents of the identification part in which chosen neurons are strongest.

    chosen: neurons by layer, each once; checkpoint: a file of the running state, from which a
    killed pass goes on, and how many seconds lie between two writes.
    """
    part = corpus.identification
    found = Strongest.empty(chosen, wanted.k, wanted.reach)
    if not len(found.layer) or not part.scored.any():
        return found
    check_length(int(part.lengths.max()), model.max_positions, f"blocks of {corpus.lang}")
    sizes = [int(length) for length in part.lengths]
    todo = batches(sizes, batch_tokens)
    done: set[int] = set()
    if checkpoint is not None and checkpoint[0].exists():
        arrays, _ = read_tensors(checkpoint[0])
        done = set(arrays.pop("done").tolist())
        found = Strongest(**arrays)
        log.info("%s: %d of %d blocks were read before", corpus.lang, len(done), len(sizes))
    groups = [rest for group in todo if (rest := [i for i in group if i not in done])]
    work = Batches(groups, sizes, "block")
    progress = Progress(f"contexts {corpus.lang}", len(sizes), "blocks", done=len(done))
    columns, saved = _Columns(model.sites, chosen, wanted.site), time.monotonic()
    try:
        with deferred_termination() as terminated, torch.inference_mode():
            for group in work:
                with work.fitting():
                    length = max(sizes[i] for i in group)
                    tokens = torch.from_numpy(part.tokens[group, :length].astype(np.int64))
                    model.sites.backbone(input_ids=tokens.to(model.device), use_cache=False)
                    _update(found, columns.taken(model.device), part, np.asarray(group), length)
                done.update(group)
                progress.update(len(group), tokens=int(part.scored[group].sum()))
                if checkpoint is not None and (
                    terminated() or time.monotonic() - saved > checkpoint[1]
                ):
                    state = found.arrays() | {"done": np.array(sorted(done))}
                    write_tensors(checkpoint[0], state, {})
                    saved = time.monotonic()
                if terminated():
                    break
    finally:
        columns.remove()
    progress.finish()
    return found


def _update(
    found: Strongest, values: torch.Tensor, part: Part, group: np.ndarray, length: int
) -> None:
    """Take in the activations (tokens, n) of the blocks of a batch, cut at `length`."""
    inside = np.arange(length) < part.lengths[group][:, None]
    document = np.where(inside, part.document[group, :length], -1)
    counted = (part.scored[group, :length] & (document >= 0)).ravel()
    owner = document.ravel()
    size = part.tokens.shape[1]
    position = (group[:, None] * size + np.arange(length)).ravel().astype(np.int64)
    step = max(1, CELLS // max(values.shape[1], 1))
    on_device = torch.from_numpy(counted).to(values.device)
    if not torch.isfinite(values[on_device]).all():
        raise RuntimeError(
            "an activation is not finite: overflow in this dtype, or damaged weights"
        )
    for start in range(0, len(values), step):
        some = values[start : start + step]
        bar = torch.from_numpy(found.value[:, -1]).to(values.device)
        candidate = (some >= bar) & (some > 0) & on_device[start : start + step, None]
        token, row = (one.cpu().numpy() for one in torch.nonzero(candidate, as_tuple=True))
        if not len(token):
            continue
        token += start
        value = values[torch.from_numpy(token), torch.from_numpy(row)].cpu().numpy()

        def around(
            kept: np.ndarray, token: np.ndarray = token, row: np.ndarray = row
        ) -> np.ndarray:
            return _around(values, owner, token[kept], row[kept], length, found.reach)

        found.add(row, value, position[token], owner[token], around)


def _around(
    values: torch.Tensor,
    owner: np.ndarray,
    token: np.ndarray,
    row: np.ndarray,
    length: int,
    reach: int,
) -> np.ndarray:
    """Return activations around tokens, (m, 2 reach + 1); NaN outside their document or block."""
    place = token[:, None] + np.arange(-reach, reach + 1)
    inside = (place >= 0) & (place < len(values)) & (place // length == token[:, None] // length)
    place = np.where(inside, place, token[:, None])
    inside &= owner[place] == owner[token][:, None]
    taken = values[torch.from_numpy(place), torch.from_numpy(row)[:, None]].cpu().numpy()
    return np.where(inside, taken, np.nan)


# Text ------------------------------------------------------------------------------------------


def texts(
    found: Strongest, corpus: Corpus, tokenizer: PreTrainedTokenizerBase, words: int
) -> pd.DataFrame:
    """Return the contexts as text, a row per neuron and rank.

    Columns layer, neuron, rank (from 0), value, document (its identifier), block, place, and the
    context: `pieces` of text, their activations `strengths`, and which piece is the strongest
    token's, `peak`. A character that several tokens write is one piece, of their largest
    activation. Before and after the peak stand at most `words` words.
    """
    part = corpus.identification
    flat, size = part.tokens.ravel(), part.tokens.shape[1]
    rows = []
    for one, rank in zip(*np.nonzero(found.position >= 0), strict=True):
        position = int(found.position[one, rank])
        strength = found.around[one, rank]
        inside = np.flatnonzero(np.isfinite(strength))
        lead = inside[0] - found.reach
        ids = flat[position + lead : position + inside[-1] - found.reach + 1]
        pieces, strengths, peak = pieces_of(ids.tolist(), strength[inside], -lead, tokenizer)
        pieces, strengths, peak = _cut(pieces, strengths, peak, words)
        rows.append(
            {
                "layer": int(found.layer[one]),
                "neuron": int(found.neuron[one]),
                "rank": int(rank),
                "value": float(found.value[one, rank]),
                "document": part.documents[int(found.document[one, rank])],
                "block": position // size,
                "place": position % size,
                "peak": peak,
                "pieces": pieces,
                "strengths": strengths,
            }
        )
    columns = ["layer", "neuron", "rank", "value", "document", "block", "place", "peak"]
    return pd.DataFrame(rows, columns=[*columns, "pieces", "strengths"])


def pieces_of(
    ids: Sequence[int], strength: np.ndarray, peak: int, tokenizer: PreTrainedTokenizerBase
) -> tuple[list[str], list[float], int]:
    """Return the text of tokens piece by piece, the strength of each, and the piece of the peak."""
    pieces: list[str] = []
    strengths: list[float] = []
    begun, at, before = 0, 0, ""
    for end in range(1, len(ids) + 1):
        # The last token of the piece before stands first: it keeps the space of the next one.
        text = _decoded(tokenizer, ids[max(begun - 1, 0) : end])
        whole = text.rstrip(REPLACEMENT) if end < len(ids) else text
        if len(whole) > len(before):
            if begun <= peak < end:
                at = len(pieces)
            pieces.append(whole[len(before) :])
            strengths.append(float(np.max(strength[begun:end])))
            begun, before = end, _decoded(tokenizer, ids[end - 1 : end])
    if begun <= peak and begun < len(ids):  # tokens that write nothing end the context
        at = max(len(pieces) - 1, 0)
    return pieces, strengths, at


def _decoded(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int]) -> str:
    return str(tokenizer.decode(list(ids), clean_up_tokenization_spaces=False))


def _cut(
    pieces: list[str], strengths: list[float], peak: int, words: int
) -> tuple[list[str], list[float], int]:
    """Keep `words` words before and after the peak."""
    begins = [piece[:1].isspace() for piece in pieces]
    first = last = peak
    left = words + (not begins[peak]) if pieces else 0
    while first > 0 and left:
        first -= 1
        left -= begins[first]
    left = words
    while last + 1 < len(pieces) and (left > 0 or not begins[last + 1]):
        last += 1
        left -= begins[last]
    kept = slice(first, last + 1)
    return pieces[kept], strengths[kept], peak - first
