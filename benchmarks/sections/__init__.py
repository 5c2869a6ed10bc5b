"""Sections of `gpu.py`: what is checked and what is timed, one module per subject.

A module of this folder that is named in MODULES registers functions that take a Setting:

    @check("subject")
    def name(setting) -> list[Check]     compares with a float64 or CPU reference, on small shapes

    @timing("subject")
    def name(setting) -> list[Row]       times work at the shape of the setting

Both return what they found; they neither print nor raise for a result that is wrong. Timings take
the shared model of random weights (`setting.model()`) and leave it as it was, or their own
(`setting.fresh()`); `setting.interleaved` stops its rounds when the time is up. The section `card`
comes first and leaves the measured matrix rate and bandwidth in the setting, for floors.
"""

import importlib
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import common

MODULES = ("card", "statistics", "interventions", "evaluation", "training")

_LLAMA = {"rms_norm_eps": 1e-5, "tie_word_embeddings": False, "rope_theta": 500_000.0}
SHAPES: dict[str, tuple[str, dict]] = {
    "llama-3.1-8b": (
        "llama",
        _LLAMA
        | {
            "vocab_size": 128_256,
            "hidden_size": 4096,
            "intermediate_size": 14_336,
            "num_hidden_layers": 32,
            "num_attention_heads": 32,
            "num_key_value_heads": 8,
            "max_position_embeddings": 131_072,
        },
    ),
    "mistral-nemo": (
        "mistral",
        {
            "vocab_size": 131_072,
            "hidden_size": 5120,
            "intermediate_size": 14_336,
            "num_hidden_layers": 40,
            "num_attention_heads": 32,
            "num_key_value_heads": 8,
            "head_dim": 128,
            "max_position_embeddings": 131_072,
            "rms_norm_eps": 1e-5,
            "rope_theta": 1_000_000.0,
            "sliding_window": None,
            "tie_word_embeddings": False,
        },
    ),
    "small": (
        "llama",
        _LLAMA
        | {
            "vocab_size": 32_000,
            "hidden_size": 1024,
            "intermediate_size": 3584,
            "num_hidden_layers": 8,
            "num_attention_heads": 16,
            "num_key_value_heads": 8,
            "max_position_embeddings": 4096,
        },
    ),
    "tiny": (
        "llama",
        _LLAMA
        | {
            "vocab_size": 512,
            "hidden_size": 64,
            "intermediate_size": 176,
            "num_hidden_layers": 3,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "max_position_embeddings": 2048,
        },
    ),
}


@dataclass(frozen=True)
class Check:
    """A difference from a reference, and how much of it is allowed."""

    what: str
    found: float
    allowed: float

    @property
    def passed(self) -> bool:
        """Whether the difference is small enough; NaN is not."""
        return self.found <= self.allowed


@dataclass(frozen=True)
class Row:
    """One line of the table.

    seconds: of every round; ratios: to the base, round by round; flops, moved: operations and
    bytes (read and written) of one round; floor: seconds below which the hardware cannot go;
    goal: of the ratio, as text.
    """

    what: str
    seconds: list[float]
    ratios: list[float] = field(default_factory=list)
    flops: float | None = None
    moved: float | None = None
    floor: float | None = None
    goal: str = ""
    note: str = ""

    @property
    def median(self) -> float:
        """The median of the rounds, in seconds."""
        return common.median(self.seconds)


@dataclass
class Setting:
    """Where and on what is measured.

    tokens: of a batch, in rows of `length`; deadline: on time.monotonic(), after which no round is
    begun; matrix_rate (flop/s) and bandwidth (byte/s) are measured by the section `card`.
    """

    device: str
    dtype: str
    shape: str
    repeats: int
    tokens: int
    length: int
    deadline: float = math.inf
    matrix_rate: float | None = None
    bandwidth: float | None = None
    _shared: dict = field(default_factory=dict)

    def config(self, **changes):
        """Return the configuration of the shape."""
        from transformers import AutoConfig

        family, values = SHAPES[self.shape]
        values = values | changes
        theta = values.pop("rope_theta")
        values["rope_parameters"] = {"rope_type": "default", "rope_theta": theta}
        return AutoConfig.for_model(family, **values)

    def fresh(self, **changes):
        """Return a frozen model of the shape and dtype with random weights from a fixed seed."""
        import torch
        from transformers import AutoModelForCausalLM

        torch.manual_seed(0)
        with torch.device(self.device):
            model = AutoModelForCausalLM.from_config(
                self.config(**changes), dtype=getattr(torch, self.dtype)
            )
        return model.eval().requires_grad_(False)

    def model(self):
        """Return the model that sections share: leave it as it was."""
        if "model" not in self._shared:
            self._shared["model"] = self.fresh()
        return self._shared["model"]

    def release(self) -> None:
        """Give up the shared model and the accelerator's cached memory."""
        import gc

        import torch

        self._shared.clear()
        gc.collect()
        if self.device != "cpu":
            torch.cuda.empty_cache()

    def batch(self, rows: int | None = None, length: int | None = None, seed: int = 0):
        """Return random tokens, int64 (rows, length), without special meaning."""
        import torch

        length = length or self.length
        generator = torch.Generator().manual_seed(seed)
        size = (rows or max(self.tokens // length, 1), length)
        return torch.randint(8, self.config().vocab_size, size, generator=generator).to(self.device)

    def interleaved(self, variants: dict[str, Callable], repeats: int | None = None) -> dict:
        """Run variants in turn; return seconds by variant. Ends early when the time is up."""
        return common.interleaved(variants, repeats or self.repeats, deadline=self.deadline)

    def prefill_flops(self, rows: int, length: int, head: bool = False) -> float:
        """Return the floating-point operations of a forward pass; attention is causal."""
        config = self.config()
        width = getattr(config, "head_dim", None) or (
            config.hidden_size // config.num_attention_heads
        )
        queries, keys = config.num_attention_heads * width, config.num_key_value_heads * width
        hidden, neurons = config.hidden_size, config.intermediate_size
        weights = hidden * (2 * queries + 2 * keys) + 3 * hidden * neurons
        attention = 2 * queries * (length + 1)
        per_token = config.num_hidden_layers * (2 * weights + attention)
        if head:
            per_token += 2 * hidden * config.vocab_size
        return float(per_token) * rows * length

    def seconds_of_bytes(self, moved: float) -> float | None:
        """Return how long the card takes to move so many bytes, at the measured bandwidth."""
        return None if self.bandwidth is None else moved / self.bandwidth


def rows_of(times: dict[str, list[float]], base: str, **by_name: dict) -> list[Row]:
    """Return a row per variant with its ratio to `base`; `flops={name: ...}` and so on."""
    result = []
    for name, seconds in times.items():
        pairs = [own / other for own, other in zip(seconds, times[base], strict=True)]
        more = {key: values[name] for key, values in by_name.items() if name in values}
        result.append(Row(name, seconds, pairs if name != base else [], **more))
    return result


CHECKS: list[tuple[str, Callable[[Setting], list[Check]]]] = []
TIMINGS: list[tuple[str, Callable[[Setting], list[Row]]]] = []


def check(section: str):
    """Register a function that compares with a reference."""

    def keep(function):
        CHECKS.append((section, function))
        return function

    return keep


def timing(section: str):
    """Register a function that times."""

    def keep(function):
        TIMINGS.append((section, function))
        return function

    return keep


def load(names: tuple[str, ...] = MODULES) -> None:
    """Import the modules of the sections, in their order."""
    for name in names:
        importlib.import_module(f"sections.{name}")


def small_model(device: str = "cpu", dtype: str = "float32", family: str = "llama", **changes):
    """Return a small frozen model for checks; equal weights on every device."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    values = SHAPES["tiny"][1] | changes
    values.pop("rope_theta")
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(family, **values))
    for parameter in model.parameters():
        # The default initialisation leaves activations near zero.
        torch.nn.init.normal_(parameter, std=0.2)
    return model.to(device, getattr(torch, dtype)).eval().requires_grad_(False)


def apart(found, expected) -> float:
    """Return the largest difference as a share of the largest value; tensors or arrays."""
    import torch

    found, expected = (torch.as_tensor(x).detach().double().cpu() for x in (found, expected))
    if found.shape != expected.shape:
        return math.inf
    return float((found - expected).abs().max() / expected.abs().max().clamp(min=1e-30))


def time_left(setting: Setting) -> float:
    """Return the seconds until the deadline."""
    return setting.deadline - time.monotonic()
