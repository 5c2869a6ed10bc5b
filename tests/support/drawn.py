"""Configurations drawn from the definition of `Config`: legal, at borders, beyond them, broken.

`Drawer` walks the fields of a block, whatever they are, so that a new key is drawn without an edit
here. Names that refer to another block come from that block mostly. `misses` is how often a value
is one that the definition forbids, or a name that nothing defines.
"""

import math
import random
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

from langneurons.base.settings import bare, blocks
from langneurons.config.config import Config
from langneurons.interventions.operations import OPERATIONS
from langneurons.interventions.settings import EXAMPLES, InterventionEntry, Step
from langneurons.models.settings import LocalSource
from langneurons.selection.methods import METHODS

LANGS = ("en", "vi", "hi", "zh", "fr")
STRANGE = ("Ü", "日本", "a b", "", ".x", "x" * 61, "none", "a/b", "{lang}", "$HOME", "-", "p+q")
WRONG = (None, True, "", "twelve", -1, 1.5, [], {}, [1], {"a": 1}, math.inf, math.nan, 10**30, "5")
TEXTS = ("text", "", " ", "日本語", "a\nb", "{question}", "$x$ $", "é" * 200, "\x00", "%s {0}")
SITES = ("gate", "act", "product")
# Names that stand at a key refer to these blocks.
REFERS = {
    "language_sets": "language_sets",
    "selections": "selections",
    "interventions": "interventions",
    "models": "models",
    "finetunings": "finetunings",
    "like": "selections",
    "model": "models",
    "selection": "selections",
    "intervention": "interventions",
    "task": "tasks",
    "protocol": "protocols",
}
TEXTLESS = ("definition", "rows", "paper", "targets")
# Keys of which a small number keeps a configuration quick to plan and to run.
SMALL = {
    "tokens": (64, 200, 1000),
    "heldout_tokens": (64, 200, 1000),
    "block_size": (8, 32, 64),
    "heldout_block_size": (8, 32, 64),
    "shards": (1, 2, 3),
    "sweep": (1, 2),
    "limit": (1, 2, 3),
    "max_new_tokens": (1, 3),
    "max_steps": (1, 2),
    "batch_size": (1, 2),
    "max_length": (64, 128),
    "bootstrap": (100, 200),
    "max_documents": (1, 5, 50),
    "number": (1, 3, 8),
}


class Drawer:
    """Draws one configuration.

    files: where the files lie that may be named; misses: share of values that are forbidden.
    """

    def __init__(self, generator: random.Random, files: dict[str, str], misses: float = 0.02):
        self.random, self.files, self.misses = generator, files, misses
        self.known: dict[str, list[str]] = {}

    def chance(self, share: float) -> bool:
        return self.random.random() < share

    def pick(self, values):
        return self.random.choice(list(values))

    # A whole configuration -------------------------------------------------------------------

    def configuration(self) -> dict[str, Any]:
        """Return the plain values of a configuration file."""
        langs = list(LANGS[: self.random.randint(2, len(LANGS))])
        self.langs = langs
        made: dict[str, Any] = {"name": self.pick(("drawn", "a+b", "x.1"))}
        self.known["models"] = self.names("models", 2)
        self.known["language_sets"] = self.names("sets", 2)
        self.known["selections"] = self.names("selections", 4)
        self.known["interventions"] = self.names("interventions", 4, least=0)
        self.known["protocols"] = ["corrected"]
        self.known["finetunings"] = ["nli", "more"][: self.random.randint(0, 2)]
        tasks = ["xnli", "xcopa", "xquad", "flores"]
        self.known["tasks"] = self.random.sample(tasks, self.random.randint(0, 2))
        made["models"] = {name: self.model() for name in self.known["models"]}
        made["language_sets"] = {
            name: self.random.sample(langs, self.random.randint(2, len(langs)))
            for name in self.known["language_sets"]
        }
        if self.known["language_sets"]:
            made["language_sets"][self.known["language_sets"][0]] = langs
        made["corpus"] = self.block(Config.model_fields["corpus"].annotation, 0.2)
        if self.chance(0.7):
            made["corpus"]["source"] = {"kind": "mini"}
        made["corpus"].setdefault("source", {"kind": "mini"})
        if made["corpus"].get("heldout_source"):
            for key in ("heldout_fraction", "split", "seed"):
                made["corpus"].pop(key, None)
        elif self.chance(0.9):
            made["corpus"]["heldout_fraction"] = 0.25
        made["corpus"].setdefault("tokens", 200)
        made["corpus"].setdefault("heldout_tokens", 100)
        statistics = self.block(Config.model_fields["statistics"].annotation, 0.2)
        if self.chance(0.8):
            statistics |= {"sites": SITES, "histograms": ("gate", "act"), "document_means": SITES}
        made["statistics"] = statistics
        made["selections"] = {name: self.selection(name) for name in self.known["selections"]}
        made["interventions"] = {name: self.intervention() for name in self.known["interventions"]}
        if self.chance(0.3):
            made["protocols"] = self.protocols()
        for key, share in (("perplexity", 0.6), ("lss", 0.25), ("forcing", 0.3)):
            if self.chance(share) and self.known["interventions"]:
                made[key] = self.block(Config.model_fields[key].annotation, 0.25)
                made[key].setdefault("interventions", self.refer("interventions"))
        for key, share in (("fallback", 0.25), ("lens", 0.25)):
            if self.chance(share) and self.known["interventions"]:
                made[key] = self.block(Config.model_fields[key].annotation, 0.25)
                made[key].setdefault("interventions", self.refer("interventions"))
                if key == "lens" and self.chance(0.9):
                    made[key]["targets"] = [self.pick(langs)]
        made["tasks"] = {name: self.task(name) for name in self.known["tasks"]}
        if self.known["finetunings"]:
            made["finetunings"] = {name: self.finetuning() for name in self.known["finetunings"]}
            source = {"kind": "mini", "name": "xnli"}
            made["tasks"]["xnli_head"] = {
                "source": source,
                "languages": [self.pick(langs)],
                "finetunings": self.known["finetunings"],
            }
        if self.chance(0.5):
            made["results"] = self.block(Config.model_fields["results"].annotation, 0.15)
        if self.chance(0.4):
            made["runtime"] = self.block(Config.model_fields["runtime"].annotation, 0.2)
        while self.chance(self.misses * 5):
            self.break_one(made)
        return made

    def overlay(self, below: dict[str, Any]) -> dict[str, Any]:
        """Return a later file: entries taken away, blocks drawn anew, keys over others."""
        made: dict[str, Any] = {}
        for key in ("tasks", "interventions", "selections", "models"):
            entries = below.get(key) if isinstance(below.get(key), dict) else {}
            if entries and self.chance(0.3):
                made[key] = {self.pick(entries): None}
        if self.chance(0.3):
            made[self.pick(("tasks", "perplexity", "lss", "finetunings", "lens"))] = None
        if self.chance(0.3):
            made["corpus"] = self.block(Config.model_fields["corpus"].annotation, 0.1)
        return made or {"title": "over"}

    # Blocks -----------------------------------------------------------------------------------

    def names(self, kind: str, most: int, least: int = 1) -> list[str]:
        number = self.random.randint(least, most)
        found = [f"{kind[:3]}{index}" for index in range(number)]
        if found and self.chance(self.misses * 2):
            found[0] = self.pick(STRANGE)
        return found

    def model(self) -> dict[str, Any]:
        made = self.block(Config.model_fields["models"].annotation, 0.1, inner=True)
        if self.chance(0.9):
            made["source"] = {"kind": "local", "path": self.files["model"]}
        made.setdefault("dtype", "float32")
        return made

    def selection(self, name: str) -> dict[str, Any]:
        kind = self.pick(METHODS)
        made = self.block(METHODS[kind], 0.3)
        others = [one for one in self.known["selections"] if one != name]
        if kind in ("random", "average_precision") and self.chance(0.9):
            made.pop("rate", None), made.pop("like", None), made.pop("threshold", None)
            made.pop("number", None)
            made |= {"like": self.pick(others)} if others else {"rate": 0.1}
        if kind == "combined" and self.chance(0.95):
            if len(others) < 2:
                return {"method": "magnitude"}
            made["selections"] = self.random.sample(others, 2)
        if kind == "exceedance" and self.chance(0.8):
            made |= {"pool": "layer"}
        if kind == "random" and made.get("match") != "frequency":
            made.pop("neighbours", None)
        if kind == "published":
            made |= {"path": self.files["mask"], "languages": list(LANGS)}
            made.pop("order", None)
        return made | {"method": kind}

    def intervention(self) -> dict[str, Any]:
        if self.chance(0.5):
            simple = {"operation": "set", "value": self.pick((0, 1.5, "mean", "p90", "layer_max"))}
            return simple | ({"sweep": 2} if self.chance(0.1) else {})
        made = self.block(InterventionEntry, 0.1)
        if self.chance(0.8):
            made["steps"] = [self.step() for _ in range(self.random.randint(1, 2))]
            made.pop("shared", None)
        return made

    def step(self) -> dict[str, Any]:
        """Return a step; keys of statistics only where the value is one."""
        made = self.block(Step, 0.25)
        if not isinstance(made.get("value"), str) or "layer" in made["value"]:
            made.pop("statistic_language", None), made.pop("statistic_site", None)
        if self.chance(0.8):
            made.pop("without", None), made.pop("statistic_site", None)
        return made

    def task(self, name: str) -> dict[str, Any]:
        made = self.block(Config.model_fields["tasks"].annotation, 0.15, inner=True)
        legal = [lang for lang in self.langs if lang != ("en" if name == "flores" else "fr")]
        made["languages"] = self.random.sample(legal, 1)
        if self.chance(0.8):
            made["source"] = {"kind": "mini"}
        if self.chance(0.9):
            for key in ("definition", "finetunings", "paper"):
                made.pop(key, None)
        if not made.get("interventions") and self.chance(0.9):
            for key in ("selections", "language_sets", "targets"):
                made.pop(key, None)
        return made

    def finetuning(self) -> dict[str, Any]:
        made = self.block(Config.model_fields["finetunings"].annotation, 0.15, inner=True)
        made |= {"definition": "config/tasks/xnli_head.yaml", "language": self.pick(self.langs)}
        if self.chance(0.8):
            made["source"] = {"kind": "mini", "name": "xnli"}
            made["neurons"] = self.pick((["none"], ["source"], ["none", "all"]))
            made.pop("targets", None)
        source = made.get("source")
        if isinstance(source, dict) and source.get("kind") == "text":
            made = {key: value for key, value in made.items() if key not in TEXTLESS}
            made["neurons"] = ["source"]
        if self.chance(0.8):
            made["training"] = self.pick(({}, {"max_steps": 2, "rank": 2}, {"bucket": 2}))
        return made

    def protocols(self) -> Any:
        if self.chance(0.5):
            return self.pick(("paper", "corrected", ["corrected", "paper"], ["paper"]))
        return {
            "corrected": {},
            "mine": self.block(Config.model_fields["protocols"].annotation, 0.2, inner=True),
        }

    def block(self, annotation: Any, share: float, inner: bool = False) -> dict[str, Any]:
        """Return a block: what it must have, and a share of what it may have."""
        if inner:
            annotation = get_args(bare(annotation))[-1]
        options = blocks(annotation)
        model = self.pick(options)
        made: dict[str, Any] = {}
        for key, field in model.model_fields.items():
            if field.is_required() or self.chance(share):
                made[key] = self.value(key, field.annotation, field.metadata, share)
        if model is LocalSource:
            made["path"] = self.files["model"]
        for tag in ("kind", "method"):
            if tag in model.model_fields:
                made[tag] = get_args(model.model_fields[tag].annotation)[0]
        if self.chance(self.misses):
            made[self.pick(("nonsense", "langs", "Kind"))] = self.pick(WRONG)
        return made

    # Values -----------------------------------------------------------------------------------

    def refer(self, block: str) -> list[str]:
        """Return some names of a block."""
        known = self.known.get(block, [])
        if not known or self.chance(self.misses):
            return [self.pick(("nobody", *STRANGE))]
        return self.random.sample(known, self.random.randint(1, len(known)))

    def value(self, key: str, annotation: Any, metadata: Any = (), share: float = 0.2) -> Any:
        """Return a value for a key: legal mostly."""
        if self.chance(self.misses):
            return self.pick(WRONG)
        if key in SMALL and get_origin(bare(annotation)) is None and self.chance(0.9):
            return self.pick(SMALL[key])
        options = get_args(annotation) if get_origin(annotation) in (Union, UnionType) else ()
        if NoneType in options and self.chance(0.2):
            return None
        plain = bare(annotation)
        if get_origin(annotation) is not None and not metadata:
            metadata = getattr(annotation, "__metadata__", ())
        if get_origin(plain) is Literal:
            return self.pick(get_args(plain))
        if get_origin(plain) is tuple:
            return self.listed(key, plain, metadata, share)
        if get_origin(plain) is dict:
            return self.mapped(key, plain, share)
        if blocks(plain):
            return self.block(plain, share)
        if get_origin(plain) in (Union, UnionType):
            kept = [one for one in get_args(plain) if one is not NoneType]
            return self.value(key, self.pick(kept), metadata, share)
        return self.scalar(key, plain, metadata)

    def listed(self, key: str, plain: Any, metadata: Any, share: float) -> Any:
        inner = [one for one in get_args(plain) if one is not Ellipsis]
        if key in REFERS:
            return self.refer(REFERS[key])
        if key in ("languages", "sources", "targets", "bases", "order"):
            return self.random.sample(self.langs, self.random.randint(1, len(self.langs)))
        if key == "rows":
            odd = ([0, 1e-9], [0.9, 0.1], [0, 2])
            return self.pick(odd if self.chance(self.misses) else ([0, 0.5], [0.5, 1], [0, 1]))
        if key == "venn":
            return [self.random.sample(self.langs, min(3, len(self.langs)))]
        if key in ("layers", "sweep"):
            odd = ([5, 9], [1, 0], [-1, 1], [0, 10**9])
            return self.pick(odd if self.chance(self.misses) else ([0, 0], [0, 1], [1, 1]))
        if key == "batch_quantiles":
            return self.pick(([0.9], [0.1, 0.9], [0.05, 0.1, 0.9]))
        if Ellipsis not in get_args(plain):
            return [self.value(key, one, (), share) for one in inner]
        values = [self.value("", inner[0], (), share) for _ in range(self.random.randint(1, 2))]
        if all(isinstance(value, str) for value in values):
            values = list(dict.fromkeys(values))
        return [] if self.chance(self.misses) else values

    def mapped(self, key: str, plain: Any, share: float) -> Any:
        inner = get_args(plain)[1]
        if key == "codes":
            return {self.pick(self.langs): "eng"}
        if key == "fields":
            return {"sentence_src": self.files["text"], "sentence_tgt": self.files["text"]}
        if key == "training":
            return self.pick(({}, {"epochs": 1}, {"epoch": 1}, {"rank": 0}))
        return {f"k{index}": self.value("", inner, (), share) for index in range(2)}

    def scalar(self, key: str, plain: Any, metadata: Any) -> Any:
        if key in REFERS:
            return self.refer(REFERS[key])[0]
        if plain is bool:
            return self.chance(0.5)
        if plain in (int, float):
            return self.number(plain, metadata)
        if key == "path":
            return self.pick((self.files["jsonl"], self.files["text"], "nowhere/{lang}", "~/no"))
        if key == "operation":
            return "halve" if self.chance(self.misses) else self.pick(OPERATIONS)
        if key == "value":
            return 1e9 if self.chance(self.misses) else self.pick((0, 1.5, -2, *EXAMPLES))
        if key == "label":
            return self.pick((f"label {self.random.random():.4f}", "日本 %$ {0} é"))
        if key in ("neurons", "without", "statistic_language", "shared"):
            return self.pick(("target", "source", "others", "neurons", "in_order", *self.langs))
        if key == "language":
            return self.pick(self.langs)
        if key == "definition":
            odd = ("config/config.yaml", "no.yaml", "config/tasks/flores.yaml", "config")
            return self.pick(odd if self.chance(0.3) else ("config/tasks/xnli.yaml",))
        if key == "published":
            return self.pick(("config/published/mondal2025.yaml", "config/plan.yaml"))
        if key == "template":
            odd = ("{answer}", "none", "{question", "{question}{question}", "")
            return self.pick(odd if self.chance(0.1) else ("Q: {question}\nA:", "{question}"))
        if key == "threshold":
            return self.pick(("zero", "mean", "p90", "p90", "p00"))
        for item in metadata:
            pattern = getattr(item, "pattern", None)
            if pattern and "{40}" in str(pattern):
                return "0" * 40
            if pattern and "{64}" in str(pattern):
                return "0" * 64
        if key in ("repo", "dataset"):
            return self.pick(("a/b", "google/gemma-3-270m"))
        return self.pick(TEXTS)

    def number(self, plain: type, metadata: Any) -> Any:
        """Return a number within its bounds, at a border, or just beyond it."""
        low = high = None
        strict = set()
        for item in metadata:
            for name in ("ge", "gt"):
                if getattr(item, name, None) is not None:
                    low = getattr(item, name)
                    strict |= {"low"} if name == "gt" else set()
            for name in ("le", "lt"):
                if getattr(item, name, None) is not None:
                    high = getattr(item, name)
                    strict |= {"high"} if name == "lt" else set()
        step = 1 if plain is int else 1e-3
        least = -3 if low is None else low + (step if "low" in strict else 0)
        most = least + 5 if high is None else high - (step if "high" in strict else 0)
        if self.chance(self.misses * 2):
            return self.pick((least - 1, most + 1, low, high, 0, -1, 10**15, 1e-12))
        middle = least + (min(most, least + 10) - least) / 2
        return plain(self.pick((least, middle, min(least + step, most), min(most, least + 10))))

    def break_one(self, made: dict[str, Any]) -> None:
        """Put a wrong value at a random place, or take a key away."""
        place: Any = made
        while True:
            keys = list(place) if isinstance(place, dict) else list(range(len(place)))
            if not keys:
                return
            key = self.pick(keys)
            below = place[key]
            if isinstance(below, (dict, list)) and below and self.chance(0.7):
                place = below
                continue
            if isinstance(place, dict) and self.chance(0.3):
                del place[key]
            else:
                place[key] = self.pick(WRONG)
            return
