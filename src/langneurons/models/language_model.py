"""A language model as one object: its modules, tokenizer, MLP sites and identity."""

import hashlib
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedTokenizerBase

from langneurons.base.errors import present
from langneurons.base.io import read_json
from langneurons.models.encoding import Encoder, end_tokens, max_positions
from langneurons.models.load import identity as identity_of
from langneurons.models.load import load_model, tokenizer_hash
from langneurons.models.settings import ModelEntry
from langneurons.models.sites import MlpSites

SAMPLED = 64  # values at either end of a parameter that tell models in memory apart


class LanguageModel:
    """A causal language model with its tokenizer, neurons and identity.

    Args:
        model: A loaded model of Hugging Face, with or without an adapter inside its layers.
        tokenizer: Its tokenizer; nothing that reads text works without one.
        identity: Which model in which number format it is: model, revision, dtype, quantization;
            files that the model makes hold these keys. Left out: read off the weights.

    Raises:
        ValueError: The neurons of the model's family cannot be reached; the error says why.

    Example:
        >>> import langneurons as ln
        >>> other = ln.LanguageModel(ln.load("gemma3-270m").model)
        >>> other.n_layers, other.d_mlp
        (18, 2048)
    """

    def __init__(
        self,
        model: nn.Module,
        tokenizer: PreTrainedTokenizerBase | None = None,
        identity: Mapping[str, str] | None = None,
    ):
        """Find the neurons of a loaded model."""
        self.model, self._tokenizer = model, tokenizer
        self.identity: dict[str, str] = dict(identity or {})
        self.sites = MlpSites(model)

    def tuned(self, model: nn.Module) -> "LanguageModel":
        """Return a language model of other modules under the same tokenizer and identity."""
        return LanguageModel(model, self._tokenizer, self.identity)

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The tokenizer; a ValueError where the model was made without one."""
        return present(
            self._tokenizer, "the model has no tokenizer; give one: LanguageModel(model, tokenizer)"
        )

    @property
    def config(self) -> Any:
        """The configuration of the text model."""
        return self.sites.config

    @property
    def head(self) -> nn.Module:
        """The output embedding; a ValueError where the model has none."""
        return self.sites.head

    @property
    def device(self) -> torch.device:
        """Where token ids go; layers may lie on several devices."""
        return self.sites.device

    @property
    def n_layers(self) -> int:
        """Number of layers."""
        return self.sites.n_layers

    @property
    def d_mlp(self) -> int:
        """Number of neurons of a layer."""
        return self.sites.d_mlp

    @property
    def vocabulary(self) -> int:
        """Number of logits, which may exceed the number of tokens of the tokenizer."""
        head: Any = self.head
        return getattr(head, "out_features", None) or head.weight.shape[0]

    @property
    def max_positions(self) -> int | None:
        """How many tokens the model reads at most, None without a limit."""
        return max_positions(self.config)

    @property
    def end_tokens(self) -> frozenset[int]:
        """The tokens that end an answer (see `langneurons.models.encoding.end_tokens`)."""
        return end_tokens(self.model, self.tokenizer)

    @property
    def pad(self) -> int:
        """The token that fills rows of a batch; what it holds is never read."""
        return getattr(self._tokenizer, "pad_token_id", None) or 0

    @cached_property
    def tokenizer_hash(self) -> str:
        """A digest of how the tokenizer splits text."""
        return tokenizer_hash(self.tokenizer)

    @cached_property
    def known_as(self) -> dict[str, str]:
        """The identity; of a model that was made in memory, one read off its weights."""
        if self.identity:
            return self.identity
        digest, first = hashlib.sha256(), next(self.model.parameters())
        for name, parameter in self.model.named_parameters():
            values = parameter.detach().reshape(-1)
            ends = torch.cat([values[:SAMPLED], values[-SAMPLED:]]).cpu()
            digest.update(f"{name}:{tuple(parameter.shape)}:".encode())
            digest.update(ends.view(torch.uint8).numpy().tobytes())
        return {
            "model": getattr(self.model, "name_or_path", "") or type(self.model).__name__,
            "revision": f"in memory, {digest.hexdigest()[:16]}",
            "dtype": str(first.dtype).removeprefix("torch."),
            "quantization": "none",
        }

    def encoder(self, controls: Mapping[str, int] | None = None) -> Encoder:
        """Return the encoder of texts for this model; see `langneurons.models.encoding.Encoder`."""
        return Encoder(self.tokenizer, self.max_positions, controls)


def load(
    entry: ModelEntry,
    manifest: str | Path,
    device: str | torch.device | Sequence[str | torch.device] | None = None,
) -> LanguageModel:
    """Return a prepared model; see `langneurons.models.load.load_model`."""
    model, tokenizer = load_model(entry, Path(manifest), device)
    return LanguageModel(model, tokenizer, identity_of(entry, read_json(manifest)))
