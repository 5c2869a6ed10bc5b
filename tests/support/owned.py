"""What a user shares: statistics, neurons and directions of a tiny model with a name on the hub."""

import numpy as np
import pytest
from test_encoding import byte_level
from tiny import tiny_model

import langneurons as ln

TEXTS = {"aa": ["a b c d " * 40, "b c d a " * 40], "bb": "x y z w " * 80}
IDENTITY = {"model": "owner/tiny", "revision": "7" * 40, "dtype": "float32", "quantization": "none"}


def owned_model():
    """Return the model."""
    tokenizer = byte_level(pad_token="<pad>", bos_token="<s>", eos_token="</s>")
    made = tiny_model("llama", num_hidden_layers=2, vocab_size=300)
    return ln.LanguageModel(made, tokenizer, IDENTITY)


def owned_statistics(model):
    """Return the statistics of two languages."""
    with pytest.warns(UserWarning, match="tokens are few"):
        return ln.collect(model, TEXTS, block_size=64)


def owned_neurons(statistics):
    """Return LAPE neurons."""
    return ln.select(statistics, "lape", rate=0.1, filter_level=0.5, assign_level=0.5)


def owned_directions(**known):
    """Return drawn directions; known: what the folder says of them beside the type."""
    drawn = np.random.default_rng(0).normal(size=(2, 2, 32)).astype(np.float32)
    arrays = dict(zip(("aa", "bb"), drawn, strict=True))
    metadata = {"dtype": "float32"} | known
    return ln.Directions(arrays, "owner/tiny", "residual_out", "mean", {"k": 1}, metadata)
