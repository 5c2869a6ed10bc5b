"""One pass with gradients over a corpus: the sum of a dL/da of every neuron.

L is the summed negative log-likelihood of the identification text. Gradients flow to the embeddings
only, weights are frozen; an activation and its gradient meet in the backward pass, layer by layer,
so no two layers' products exist at once. Per block the products are summed in float64 and rounded
to fixed point: a sum of blocks is exact and in any order, and blocks that did not fit into memory
together are read one by one.
"""

import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from langneurons.activations.attribution import SCHEMA, Attribution
from langneurons.activations.settings import AttributionConfig
from langneurons.activations.statistics import LIMB
from langneurons.base.io import read_tensors, write_tensors
from langneurons.data.corpus import Corpus
from langneurons.models.encoding import check_length
from langneurons.models.language_model import LanguageModel
from langneurons.models.sites import MlpSites
from langneurons.runtime.halving import Batches
from langneurons.runtime.job import deferred_termination
from langneurons.runtime.progress import Progress
from langneurons.scoring.losses import IGNORED, token_loss

log = logging.getLogger(__name__)


class _Products:
    """Hooks that give each block's sum of a dL/da, float64 (blocks, d_mlp), layer by layer."""

    def __init__(self, sites: MlpSites, site: str):
        self.sums: dict[int, torch.Tensor] = {}
        self.blocks = 1
        self._handles = [sites.backbone.get_input_embeddings().register_forward_hook(_with_grad)]
        for layer in range(sites.n_layers):
            if site == "act":
                hook = self._on_output(layer)
                self._handles.append(sites.act[layer].register_forward_hook(hook))
            else:
                before = self._on_input(layer)
                self._handles.append(sites.down[layer].register_forward_pre_hook(before))

    def _on_output(self, layer: int) -> Callable[..., None]:
        def hook(_module: nn.Module, _inputs: tuple, output: torch.Tensor) -> None:
            self._watch(layer, output)

        return hook

    def _on_input(self, layer: int) -> Callable[..., None]:
        def hook(_module: nn.Module, inputs: tuple) -> None:
            self._watch(layer, inputs[0])

        return hook

    def _watch(self, layer: int, values: torch.Tensor) -> None:
        kept = values.detach()

        def meet(gradient: torch.Tensor) -> None:
            product = (kept.float() * gradient.float()).reshape(self.blocks, -1, kept.shape[-1])
            self.sums[layer] = product.sum(dim=1, dtype=torch.float64)

        values.register_hook(meet)

    def remove(self) -> None:
        """Take the hooks off."""
        for handle in self._handles:
            handle.remove()


def _with_grad(_module: nn.Module, _inputs: tuple, output: torch.Tensor) -> torch.Tensor:
    return output if output.requires_grad else output.detach().requires_grad_()


def attribute(
    model: LanguageModel,
    corpus: Corpus,
    settings: AttributionConfig,
    checkpoint: Path | None = None,
    checkpoint_seconds: float = 300.0,
    blocks: tuple[int, int] | None = None,
) -> Attribution:
    """Return the attributions of a model's neurons on the identification part of a corpus.

    `blocks` are the first block that is read and the one after the last; all if left out. With
    `checkpoint`, the running sums are saved there every `checkpoint_seconds` and at SIGTERM, and
    picked up after a kill.

    Raises:
        RuntimeError: A gradient is not finite, or a layer has none.
    """
    sites, part = model.sites, corpus.identification.first(settings.tokens)
    check_length(int(part.lengths.max()), model.max_positions, f"blocks of {corpus.lang}")
    begin, end = (0, len(part.lengths)) if blocks is None else blocks
    total = np.zeros((2, sites.n_layers, sites.d_mlp), np.int64)
    first, counted = begin, 0
    if checkpoint is not None and checkpoint.exists():
        arrays, state = read_tensors(checkpoint)
        total, first, counted = arrays["sums"], state["next_block"], state["counted"]
        log.info("%s: resumed at block %d of %d", corpus.lang, first - begin, end - begin)
    progress = Progress(f"attribution {corpus.lang}", end - begin, "blocks", done=first - begin)
    saved, products = time.monotonic(), _Products(sites, settings.site)
    try:
        with deferred_termination() as terminated, torch.enable_grad():
            for start in range(first, end, settings.batch_blocks):
                chosen = range(start, min(start + settings.batch_blocks, end))
                work = Batches([list(chosen)], [int(length) for length in part.lengths])
                for group in work:
                    with work.fitting():
                        sums, predicted = _of_blocks(sites, products, part, list(group))
                        total += sums
                        counted += predicted
                progress.update(len(chosen))
                due = terminated() or time.monotonic() - saved > checkpoint_seconds
                if checkpoint is not None and due:
                    state = {"next_block": chosen.stop, "counted": counted}
                    write_tensors(checkpoint, {"sums": total}, state)
                    saved = time.monotonic()
                if terminated():
                    break
    finally:
        products.remove()
    progress.finish()
    carry = total[1] // int(LIMB)
    header = model.known_as | {
        "schema": SCHEMA,
        "lang": corpus.lang,
        "tokenizer_hash": corpus.header["tokenizer_hash"],
        "corpus_hash": corpus.header["corpus_hash"],
        "bos": corpus.header["bos"],
        "block_size": part.tokens.shape[1],
        "blocks": [begin, end],
        "n_layers": sites.n_layers,
        "d_mlp": sites.d_mlp,
        "site": settings.site,
        "batch_blocks": settings.batch_blocks,
        "tokens": counted,
    }
    return Attribution(np.stack([total[0] + carry, total[1] - carry * int(LIMB)]), header)


def _of_blocks(
    sites: MlpSites, products: _Products, part: Any, rows: list[int]
) -> tuple[np.ndarray, int]:
    """Return the fixed-point sums of some blocks, int64 (2, n_layers, d_mlp), and their tokens."""
    longest = int(part.lengths[rows].max())
    tokens = torch.from_numpy(part.tokens[rows, :longest].astype(np.int64))
    scored = torch.from_numpy(part.scored[rows, :longest])
    valid = torch.arange(longest) < torch.from_numpy(part.lengths[rows].astype(np.int64))[:, None]
    labels = tokens.masked_fill(~scored, IGNORED)
    predicted = int((labels[:, 1:] != IGNORED).sum())
    products.sums, products.blocks = {}, len(rows)
    found = np.zeros((2, sites.n_layers, sites.d_mlp), np.int64)
    if not predicted:
        return found, 0
    loss, _ = token_loss(sites, tokens, valid.long(), labels)
    loss.backward()
    for layer in range(sites.n_layers):
        if layer not in products.sums:
            raise RuntimeError(f"no gradient reached layer {layer}")
        sums = products.sums[layer]
        if not bool(torch.isfinite(sums).all()):
            raise RuntimeError(f"the gradient of layer {layer} is not finite")
        whole = sums.floor()
        found[0, layer] = whole.long().sum(dim=0).cpu().numpy()
        found[1, layer] = ((sums - whole) * LIMB).round().long().sum(dim=0).cpu().numpy()
    return found, predicted
