"""The nonlinearities of gated and plain MLPs, in numpy, by the name that model configs use."""

import math
from functools import lru_cache
from typing import Any

import numpy as np


def _erf(x: np.ndarray) -> np.ndarray:
    """Return the error function of each value."""
    return np.vectorize(math.erf, otypes=[np.float64])(x)


def silu(x: np.ndarray) -> np.ndarray:
    """X * sigmoid(x)."""
    x = np.asarray(x, np.float64)
    return x * 0.5 * (1.0 + np.tanh(x / 2))


def gelu(x: np.ndarray) -> np.ndarray:
    """X * Phi(x), exact."""
    x = np.asarray(x, np.float64)
    return 0.5 * x * (1.0 + _erf(x / np.sqrt(2.0)))


def gelu_tanh(x: np.ndarray) -> np.ndarray:
    """The tanh approximation of GELU."""
    x = np.asarray(x, np.float64)
    return 0.5 * x * (1.0 + np.tanh(np.sqrt(2.0 / np.pi) * (x + 0.044715 * x**3)))


def relu(x: np.ndarray) -> np.ndarray:
    """max(x, 0)."""
    return np.maximum(np.asarray(x, np.float64), 0.0)


def quick_gelu(x: np.ndarray) -> np.ndarray:
    """X * sigmoid(1.702 x)."""
    x = np.asarray(x, np.float64)
    return x * 0.5 * (1.0 + np.tanh(1.702 * x / 2))


def relu2(x: np.ndarray) -> np.ndarray:
    """max(x, 0) squared."""
    return relu(x) ** 2


def relu6(x: np.ndarray) -> np.ndarray:
    """min(max(x, 0), 6)."""
    return np.minimum(relu(x), 6.0)


def mish(x: np.ndarray) -> np.ndarray:
    """X * tanh(log(1 + exp(x)))."""
    x = np.asarray(x, np.float64)
    return x * np.tanh(np.logaddexp(0.0, x))


NONLINEARITIES = {
    "silu": silu,
    "swish": silu,
    "gelu": gelu,
    "gelu_python": gelu,
    "gelu_python_tanh": gelu_tanh,
    "gelu_accurate": gelu_tanh,
    "gelu_new": gelu_tanh,
    "gelu_fast": gelu_tanh,
    "gelu_pytorch_tanh": gelu_tanh,
    "relu": relu,
    "relu2": relu2,
    "relu6": relu6,
    "quick_gelu": quick_gelu,
    "mish": mish,
}


@lru_cache
def minimum(name: str) -> float:
    """Return the lowest value of a nonlinearity, to 1e-6: -0.2785 for SiLU, 0 for ReLU."""
    return float(NONLINEARITIES[name](np.linspace(-4.0, 0.0, 4001)).min())


def nonlinearity_name(config: Any) -> str:
    """Return the activation's name from a model config."""
    for key in ("hidden_activation", "hidden_act", "activation_function"):
        name = getattr(config, key, None)
        if name is not None:
            break
    else:
        name = "gelu_new" if config.model_type == "bloom" else None
    if name not in NONLINEARITIES:
        raise ValueError(
            f"activation function {name!r} of model type {config.model_type!r} is not known;"
            f" known: {', '.join(NONLINEARITIES)}. Add it to langneurons/models/nonlinearities.py."
        )
    return name
