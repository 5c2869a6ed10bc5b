"""Mistakes in a configuration: each is refused before any job, in the user's terms."""

import copy
import json
import os
import subprocess
from pathlib import Path

import pytest
import warm

from langneurons.base.errors import ConfigError
from langneurons.base.yaml import parse_yaml
from langneurons.cli import main
from langneurons.config import build, load_config, read_configs
from langneurons.config.reference import files, schema
from langneurons.interventions.settings import InterventionEntry
from langneurons.jobs.parameters import stage

ROOT = Path(__file__).parent.parent
GOOD = {
    "name": "small",
    "models": {"tiny": {"source": {"kind": "local", "path": "tiny-model"}}},
    "language_sets": {"three": ["en", "vi", "hi"]},
    "corpus": {"source": {"kind": "mini"}},
    "selections": {
        "lape": {"method": "lape"},
        "prob": {"method": "exceedance"},
        "control": {"method": "random", "like": "lape"},
    },
    "interventions": {
        "zero": {"operation": "set", "value": 0},
        "p90": {"operation": "set", "value": "p90"},
    },
    "perplexity": {"interventions": ["zero"]},
    "tasks": {"xnli": {"source": {"kind": "mini"}, "languages": ["vi"], "interventions": ["zero"]}},
}
MASK = {"method": "published", "path": "masks.pth", "order": "tang2024"}


def put(path, value):
    """Return a change that sets a dotted path."""

    def change(raw):
        *above, last = path.split(".")
        for key in above:
            raw = raw.setdefault(key, {})
        raw[last] = value

    return change


def two_sets_beside_the_print(raw):
    """Evaluate adapters on two sets that hold the language, with printed numbers beside them."""
    raw["language_sets"]["pair"] = ["en", "vi"]
    source = {"kind": "mini", "name": "xnli"}
    raw["finetunings"] = {
        "nli": {
            "definition": "config/tasks/xnli_head.yaml",
            "source": source,
            "neurons": ["none"],
        }
    }
    raw["tasks"]["xnli_head"] = {
        "source": source,
        "languages": ["vi"],
        "finetunings": ["nli"],
        "interventions": ["zero"],
        "selections": ["lape"],
    }
    raw["results"] = {"published": "config/published/mondal2025.yaml"}


def both_of(*changes):
    """Return several changes at once."""

    def change(raw):
        for one in changes:
            one(raw)

    return change


def drop(path):
    """Return a change that removes a dotted path."""

    def change(raw):
        *above, last = path.split(".")
        for key in above:
            raw = raw[key]
        del raw[last]

    return change


HUB = {"kind": "hub", "repo": "a/b", "revision": "0" * 40}
GGUF = {"kind": "gguf", "package": "p", "version": "1", "file": "f", "sha256": "0" * 64}
# name: change, words of the message (key path, value, what is legal or the nearest match)
BAD = {
    "top-level key": (put("modles", {}), ["modles", "unknown key", "models"]),
    "key of a model": (put("models.tiny.dtpe", "float32"), ["models.tiny.dtpe", "dtype"]),
    "key of a source": (
        put("models.tiny.source.revison", "0"),
        ["models.tiny.source.revison", "unknown key", "kind, path"],
    ),
    "key of the corpus": (put("corpus.token", 5), ["corpus.token", "tokens"]),
    "key of a corpus source": (put("corpus.source.path", "x"), ["corpus.source.path", "kind"]),
    "key of statistics": (put("statistics.sits", ["act"]), ["statistics.sits", "sites"]),
    "key of a selection": (put("selections.lape.rat", 0.1), ["selections.lape.rat", "rate"]),
    "key of another method": (
        put("selections.lape.threshold", "p90"),
        ["selections.lape.threshold", "unknown key", "filter_level"],
    ),
    "key of an intervention": (
        put("interventions.zero.valu", 1),
        ["interventions.zero", "valu", "value"],
    ),
    "key of perplexity": (put("perplexity.token", 5), ["perplexity.token", "tokens"]),
    "key of a task": (put("tasks.xnli.language", ["vi"]), ["tasks.xnli.language", "languages"]),
    "key of results": (put("results.bootstraps", 5), ["results.bootstraps", "bootstrap"]),
    "key of runtime": (put("runtime.thread", 2), ["runtime.thread", "threads"]),
    "key of the protocol": (
        put("protocols", {"mine": {"quantile": "paper"}}),
        ["protocols.mine.quantile", "quantiles"],
    ),
    "a point where a protocol's name belongs": (
        put("protocols", {"quantiles": "paper"}),
        ["protocols.quantiles", "mine: {quantiles: paper}"],
    ),
    "two equal protocols": (
        put("protocols", {"one": {}, "two": "corrected"}),
        ["protocols.two", "protocols.one"],
    ),
    "a sample per cell of all there is": (
        put("protocols", {"mine": {"perplexity_text": "paper"}}),
        ["protocols.mine.perplexity_text", "perplexity.tokens", "heldout_tokens"],
    ),
    "looks at samples of every cell": (
        both_of(
            put("protocols", {"mine": {"perplexity_text": "paper"}}),
            put("perplexity.until", {"width": 0.1}),
        ),
        ["perplexity.until", "protocols.mine", "samples blocks"],
    ),
    "hyperparameter of the paper's code": (
        put(
            "finetunings.nli",
            {"source": {"kind": "mini", "name": "xnli"}, "paper": {"training": {"epoch": 1}}},
        ),
        ["paper.training", "'epoch'", "epochs"],
    ),
    "rows of the paper's split": (
        put("tasks.xnli.paper", {"rows": [0.5, 0.5]}),
        ["tasks.xnli.paper.rows", "0.5"],
    ),
    "another data set without a revision": (
        put("tasks.xnli.source", {"kind": "hub", "dataset": "rajpurkar/squad"}),
        ["tasks.xnli.source", "dataset", "revision"],
    ),
    "claim": (
        put("results.claims", ["zero_is_no_deactivatio"]),
        ["results.claims[0]", "zero_is_no_deactivation"],
    ),
    "two sets beside one printed number": (
        two_sets_beside_the_print,
        ["tasks.xnli_head.language_sets", "'lape'", "'three'", "'pair'", "'vi'"],
    ),
    "stand-in": (
        put("results.stand_ins", {"llama-3.1-8b": "gema"}),
        ["results.stand_ins.llama-3.1-8b", "gema"],
    ),
    "figure of an unknown set": (
        put("results.figures", {"f1": {"kind": "neurons", "model": "tiny", "languages": "seven"}}),
        ["results.figures.f1"],
    ),
    "figure that lacks its selection": (
        put("results.figures", {"f1": {"kind": "layers", "model": "tiny", "languages": "three"}}),
        ["results.figures.f1.selection", "layers"],
    ),
    "figure with too many keys": (
        put(
            "results.figures",
            {"f1": {"kind": "neurons", "model": "tiny", "languages": "three", "selection": "lape"}},
        ),
        ["results.figures.f1.selection", "neurons"],
    ),
    "missing name": (drop("name"), ["name: missing"]),
    "missing models": (drop("models"), ["models: missing"]),
    "missing sets": (drop("language_sets"), ["language_sets: missing"]),
    "missing selections": (drop("selections"), ["selections: missing"]),
    "missing source": (drop("models.tiny.source"), ["models.tiny.source: missing"]),
    "missing operation": (
        put("interventions.zero", {"value": 0}),
        ["interventions.zero"],
    ),
    "missing value": (
        put("interventions.zero", {"operation": "set"}),
        ["interventions.zero", "value", "missing"],
    ),
    "no models": (put("models", {}), ["models", "at least 1"]),
    "no sets": (put("language_sets", {}), ["language_sets", "at least 1"]),
    "no selections": (put("selections", {}), ["selections", "at least 1"]),
    "name with a slash": (put("name", "a/b"), ["name", "a/b"]),
    "name with a space": (
        put("language_sets", {"my set": ["en", "vi"]}),
        ["my set", "letters, digits"],
    ),
    "kind of source": (
        put("models.tiny.source", {"kind": "hubb"}),
        ["models.tiny.source.kind", "hubb", "hub, local, gguf", "'hub'?"],
    ),
    "source without kind": (
        put("models.tiny.source", {"path": "x"}),
        ["models.tiny.source", "kind"],
    ),
    "revision is a branch": (
        put("models.tiny.source", HUB | {"revision": "main"}),
        ["models.tiny.source.revision", "main", "newest"],
    ),
    "repository without owner": (
        put("models.tiny.source", HUB | {"repo": "llama"}),
        ["models.tiny.source.repo", "llama"],
    ),
    "bad sha256": (
        put("models.tiny.source", GGUF | {"sha256": "abc"}),
        ["models.tiny.source.sha256", "abc"],
    ),
    "gguf of nothing": (
        put("models.tiny.source", {"kind": "gguf"}),
        ["models.tiny.source", "path", "package"],
    ),
    "gguf without checksum": (
        put("models.tiny.source", {k: v for k, v in GGUF.items() if k != "sha256"}),
        ["models.tiny.source", "sha256 missing"],
    ),
    "dtype": (
        put("models.tiny.dtype", "float23"),
        ["models.tiny.dtype", "float23", "bfloat16", "float32"],
    ),
    "quantisation": (
        put("models.tiny.quantization", "nf5"),
        ["models.tiny.quantization", "nf5", "none, nf4"],
    ),
    "model on an unknown set": (
        put("models.tiny.language_sets", ["thre"]),
        ["models.tiny.language_sets", "thre", "three"],
    ),
    "model on no set": (put("models.tiny.language_sets", []), ["models.tiny.language_sets"]),
    "unknown language": (
        put("language_sets.three", ["en", "vi", "hh"]),
        ["language_sets.three", "hh", "language"],
    ),
    "empty set": (put("language_sets.three", []), ["language_sets.three", "empty"]),
    "set of one": (put("language_sets.three", ["en"]), ["language_sets.three", "at least two"]),
    "doubled language": (
        put("language_sets.three", ["en", "vi", "en"]),
        ["language_sets.three", "en", "more than once"],
    ),
    "languages as text": (put("language_sets.three", "en vi"), ["language_sets.three", "en vi"]),
    "language not in mini": (
        put("language_sets.three", ["en", "vi", "de"]),
        ["language_sets.three", "de", "mini"],
    ),
    "set that no model uses": (
        lambda raw: (
            raw["language_sets"].update(other=["en", "zh"]),
            raw["models"]["tiny"].update(language_sets=["three"]),
        ),
        ["language_sets.other", "no model"],
    ),
    "set that no selection uses": (
        lambda raw: (
            raw["language_sets"].update(other=["en", "zh"]),
            [entry.update(language_sets=["three"]) for entry in raw["selections"].values()],
        ),
        ["language_sets.other", "uses it"],
    ),
    "method": (
        put("selections.lape.method", "lappe"),
        ["selections.lape.method", "lappe", "exceedance", "'lape'?"],
    ),
    "no method": (put("selections.lape", {"rate": 0.1}), ["selections.lape", "method"]),
    "rate above one": (put("selections.lape.rate", 1.5), ["selections.lape.rate", "1.5"]),
    "rate of zero": (put("selections.lape.rate", 0), ["selections.lape.rate", "0"]),
    "rate as text": (put("selections.lape.rate", "much"), ["selections.lape.rate", "much"]),
    "threshold": (
        put("selections.prob.threshold", "p9o"),
        ["selections.prob", "p9o", "p01-p99"],
    ),
    "pool": (
        put("selections.prob.pool", "layers"),
        ["selections.prob.pool", "layers", "'layer'?"],
    ),
    "like nothing": (
        put("selections.control.like", "lapp"),
        ["selections.control.like", "lapp", "lape"],
    ),
    "like a control": (
        put("selections.second", {"method": "random", "like": "control"}),
        ["selections.second.like", "control"],
    ),
    "combined with nothing": (
        put("selections.both", {"method": "combined", "selections": ["lape", "porb"]}),
        ["selections.both.selections", "'porb'", "'prob'?"],
    ),
    "selections in a circle": (
        lambda raw: raw["selections"].update(
            a={"method": "combined", "selections": ["lape", "b"]},
            b={"method": "combined", "selections": ["prob", "c"]},
            c={"method": "random", "like": "a"},
        ),
        ["selections.a.selections", "a -> b -> c -> a"],
    ),
    "selection that waits for itself": (
        put("selections.a", {"method": "combined", "selections": ["lape", "a"]}),
        ["selections.a.selections", "a -> a"],
    ),
    "combined on a set that one lacks": (
        lambda raw: (
            raw["language_sets"].update(other=["en", "zh"]),
            raw["selections"]["lape"].update(language_sets=["three"]),
            raw["selections"].pop("control"),
            put("selections.both", {"method": "combined", "selections": ["prob", "lape"]})(raw),
        ),
        ["selections.both.selections", "'lape'", "'other'", "three"],
    ),
    "means per document are not kept": (
        put("selections.ap", {"method": "average_precision", "rate": 0.1}),
        ["selections.ap.site", "'act'", "statistics.document_means: none"],
    ),
    "means per document of another site": (
        lambda raw: (
            put("statistics.document_means", ["act"])(raw),
            put("selections.plnd", {"method": "plnd"})(raw),
        ),
        ["selections.plnd.site", "'product'", "statistics.document_means: act"],
    ),
    "two sizes": (
        put("selections.ap", {"method": "average_precision", "rate": 0.1, "number": 3}),
        ["selections.ap", "number, rate, like, threshold", "number and rate"],
    ),
    "mask that is not there": (
        lambda raw: (
            raw["language_sets"].update(three=["en", "vi", "id"]),
            put("selections.mask", MASK | {"path": "{model}.pth"})(raw),
        ),
        ["selections.mask.path", "'tiny.pth'", "model tiny"],
    ),
    "mask of other languages": (
        put("selections.mask", MASK),
        ["selections.mask.language_sets", "'hi'", "'three'", "en, zh, fr"],
    ),
    "mask in the order of nobody": (
        put("selections.mask", MASK | {"order": "tang"}),
        ["selections.mask.order", "'tang'", "tang2024"],
    ),
    "random with both": (
        put("selections.control.rate", 0.1),
        ["selections.control", "either"],
    ),
    "selection on an unknown set": (
        put("selections.lape.language_sets", ["tree"]),
        ["selections.lape.language_sets", "tree", "three"],
    ),
    "selection named none": (put("selections.none", {"method": "lape"}), ["selections.none"]),
    "selected site is not measured": (
        put("statistics", {"sites": ["gate"], "histograms": ["gate"]}),
        ["selections.lape.site", "act", "statistics.sites"],
    ),
    "threshold without histogram": (
        put("statistics", {"histograms": []}),
        ["selections.prob", "statistics.histograms"],
    ),
    "batch quantile is not kept": (
        put("selections.prob.pool", "batch"),
        ["selections.prob", "batch quantile 0.9", "statistics.batch_quantiles"],
    ),
    "site": (put("statistics.sites", ["gates"]), ["statistics.sites[0]", "gates", "'gate'?"]),
    "histogram of no site": (
        put("statistics", {"sites": ["act"], "histograms": ["gate"]}),
        ["histograms", "gate", "sites"],
    ),
    "quantile level": (
        put("statistics.batch_quantiles", [90]),
        ["batch_quantiles", "90"],
    ),
    "no shards": (put("statistics.shards", 0), ["statistics.shards", "0"]),
    "operation": (
        put("interventions.zero.operation", "sett"),
        ["interventions.zero", "sett", "set, add, scale"],
    ),
    "statistic": (
        put("interventions.p90.value", "p9"),
        ["interventions.p90", "p9", "p90"],
    ),
    "add of zero": (
        put("interventions.zero", {"operation": "add", "value": 0}),
        ["interventions.zero", "changes nothing"],
    ),
    "scale by one": (
        put("interventions.zero", {"operation": "scale", "value": 1}),
        ["interventions.zero", "changes nothing"],
    ),
    "no steps": (put("interventions.zero", {"steps": []}), ["interventions.zero.steps"]),
    "layers backwards": (
        put("interventions.zero.layers", [5, 2]),
        ["interventions.zero", "[5, 2]"],
    ),
    "neurons of an unknown language": (
        put("interventions.zero.neurons", "targt"),
        ["interventions.zero", "targt", "target"],
    ),
    "site mismatch": (
        put("interventions.p90.statistic_site", "gate"),
        ["interventions.p90", "gate", "act", "protocols.corrected.intervention_site"],
    ),
    "paper quantiles that are not kept": (
        put("protocols", {"mine": {"quantiles": "paper", "intervention_site": "paper"}}),
        ["interventions.p90", "batch_quantiles"],
    ),
    "paper quantiles of the activation": (
        put("protocols", {"mine": {"quantiles": "paper"}}),
        ["interventions.p90", "measured at the gate only", "intervention_site: paper"],
    ),
    "intervention named none": (
        put("interventions.none", {"operation": "set", "value": 0}),
        ["interventions.none"],
    ),
    "protocol": (put("protocols", "papers"), ["protocols", "papers", "paper"]),
    "perplexity under nothing": (
        put("perplexity.interventions", []),
        ["perplexity.interventions", "empty"],
    ),
    "perplexity under an unknown intervention": (
        put("perplexity.interventions", ["zeor"]),
        ["perplexity.interventions", "zeor", "zero"],
    ),
    "perplexity of an unknown selection": (
        put("perplexity.selections", ["lap"]),
        ["perplexity.selections", "lap", "lape"],
    ),
    "task under an unknown intervention": (
        put("tasks.xnli.interventions", ["p9"]),
        ["tasks.xnli.interventions", "p9", "p90"],
    ),
    "task of an unknown selection": (
        put("tasks.xnli.selections", ["contrl"]),
        ["tasks.xnli.selections", "contrl", "control"],
    ),
    "task in no language": (put("tasks.xnli.languages", []), ["tasks.xnli.languages"]),
    "task in an unknown language": (
        put("tasks.xnli.languages", ["vii"]),
        ["tasks.xnli.languages", "vii", "vi"],
    ),
    "task in a language without neurons": (
        put("tasks.xnli.languages", ["zh"]),
        ["tasks.xnli.languages", "zh", "no language set"],
    ),
    "task that mini lacks": (
        put("tasks.xnlii", {"source": {"kind": "mini"}, "languages": ["vi"]}),
        ["tasks.xnlii", "xnli"],
    ),
    "limit of zero": (put("tasks.xnli.limit", 0), ["tasks.xnli.limit", "0"]),
    "no tokens": (put("corpus.tokens", 0), ["corpus.tokens", "0"]),
    "everything held out": (
        put("corpus.heldout_fraction", 1),
        ["corpus.heldout_fraction", "1"],
    ),
    "tiny blocks": (put("corpus.block_size", 4), ["corpus.block_size", "4"]),
    "bos": (put("corpus.bos", "blok"), ["corpus.bos", "blok", "'block'?"]),
    "path without language": (
        put("corpus.source", {"kind": "jsonl", "path": "text.jsonl"}),
        ["corpus.source.path", "text.jsonl", "{lang}"],
    ),
    "confidence in per cent": (put("results.confidence", 95), ["results.confidence", "95"]),
    "printed numbers that are not there": (
        put("results.published", "config/published/mondal2026.yaml"),
        ["results.published", "mondal2026", "config/published/mondal2025.yaml"],
    ),
    "few replicates": (put("results.bootstrap", 10), ["results.bootstrap", "10"]),
    "venn of an unknown language": (
        put("results.venn", [["en", "vi", "hy"]]),
        ["results.venn", "hy", "hi"],
    ),
    "venn of two": (put("results.venn", [["en", "vi", "vi"]]), ["results.venn"]),
    "negative threads": (put("runtime.threads", -1), ["runtime.threads", "-1"]),
    "memory as text": (put("runtime.mem_mb", "8 GB"), ["runtime.mem_mb", "8 GB"]),
    "models as a list": (put("models", ["tiny"]), ["models", "tiny"]),
    # Values that pydantic alone would convert
    "number as a truth value": (put("corpus.tokens", True), ["corpus.tokens", "True", "number"]),
    "number in quotes": (put("corpus.tokens", "500"), ["corpus.tokens", "'500'", "quotes"]),
    "rate as a truth value": (put("selections.lape.rate", True), ["selections.lape.rate", "True"]),
    "truth value as a word": (
        put("selections.lape.exclusive", "yes"),
        ["selections.lape.exclusive", "'yes'", "true or false"],
    ),
    "value of an intervention as a truth value": (
        put("interventions.zero.value", True),
        ["interventions.zero.value", "True"],
    ),
    "number in quotes in a list": (
        put("statistics.batch_quantiles", ["0.9"]),
        ["statistics.batch_quantiles[0]", "'0.9'"],
    ),
    "fraction of a token": (put("corpus.tokens", 1.5), ["corpus.tokens", "1.5", "whole number"]),
    "not a number": (
        put("interventions.zero.value", float("nan")),
        ["interventions.zero.value", "nan", "finite"],
    ),
    "endless seconds": (
        put("runtime.checkpoint_seconds", float("inf")),
        ["runtime.checkpoint_seconds", "inf", "finite"],
    ),
    # Blocks, lists and text in each other's place
    "block as text": (put("corpus", "mini"), ["corpus", "'mini'", "block of keys", "tokens"]),
    "intervention as text": (
        put("interventions.zero", "set"),
        ["interventions.zero", "'set'", "label, models, shared, steps, sweep"],
    ),
    "value as a list": (
        put("interventions.zero.value", [1]),
        ["interventions.zero.value:", "[1]", "expected a number"],
    ),
    "null as a language": (
        put("language_sets.three", ["en", None]),
        ["language_sets.three[1]", "None", "expected text"],
    ),
    "name as a number": (put("name", 5), ["name: expected text", "5"]),
    "set named by a number": (
        put("language_sets", {2024: ["en", "vi"]}),
        ["language_sets[2024]", "expected text"],
    ),
    "venn of four": (
        put("results.venn", [["en", "vi", "hi", "ur"]]),
        ["results.venn[0]", "it takes 3"],
    ),
    "key in a list of steps": (
        put("interventions.zero", {"steps": [{"operation": "set", "value": 0, "sit": "act"}]}),
        ["interventions.zero.steps[0].sit", "'site'?"],
    ),
    "typo of operation": (
        put("interventions.zero", {"opration": "set", "value": 0}),
        ["interventions.zero.opration", "unknown key", "'operation'?", "label"],
    ),
    "selection named as its method": (
        put("selections.lape.rate", 7),
        ["selections.lape.rate: ", "7"],
    ),
    # Names that become folders
    "language that leaves its folder": (
        put("languages", {"../x": {"name": "X"}}),
        ["languages", "../x", "letters, digits"],
    ),
    "language named none": (
        put("languages", {"none": {"name": "None"}}),
        ["languages.none", "neurons, target, source, others"],
    ),
    "model named tables": (
        lambda raw: raw["models"].update(tables=raw["models"]["tiny"]),
        ["models.tables", "results/tables"],
    ),
    "name with a line end": (
        lambda raw: raw["models"].update({"tiny\n": raw["models"]["tiny"]}),
        ["models", "'tiny\\n'", "letters, digits"],
    ),
    "name of 61 characters": (
        lambda raw: raw["models"].update({"m" * 61: raw["models"]["tiny"]}),
        ["models", "m" * 61, "60 characters"],
    ),
    "two sets in one folder": (
        lambda raw: (
            raw.update(
                languages={"a-b": {"name": "A"}, "a": {"name": "B"}, "b-en": {"name": "C"}},
                language_sets={"first": ["a-b", "en"], "second": ["a", "b-en"]},
            ),
        ),
        ["language_sets.second", "'a-b-en'", "language_sets.first"],
    ),
    # Lists that say a thing twice, or nothing
    "set listed twice": (
        put("models.tiny.language_sets", ["three", "three"]),
        ["models.tiny.language_sets", "three", "more than once"],
    ),
    "site listed twice": (
        put("statistics.sites", ["gate", "gate", "act"]),
        ["statistics.sites", "gate", "more than once"],
    ),
    "task language listed twice": (
        put("tasks.xnli.languages", ["vi", "vi"]),
        ["tasks.xnli.languages", "vi", "more than once"],
    ),
    "intervention listed twice": (
        put("perplexity.interventions", ["zero", "zero"]),
        ["perplexity.interventions", "zero", "more than once"],
    ),
    "perplexity of no selection": (
        put("perplexity.selections", []),
        ["perplexity.selections", "empty"],
    ),
    "task of no selection": (put("tasks.xnli.selections", []), ["tasks.xnli.selections", "empty"]),
    "selection on no set": (
        put("selections.lape.language_sets", []),
        ["selections.lape.language_sets", "empty"],
    ),
    # What would only fail inside a job
    "batch quantiles of the activation": (
        lambda raw: (
            put("statistics.batch_quantiles", [0.9])(raw),
            raw["selections"]["prob"].update(pool="batch", site="act"),
        ),
        ["selections.prob", "'act'", "gate"],
    ),
    "hub text without language": (
        put(
            "corpus.source",
            {"kind": "hub", "dataset": "a/b", "config": "20231101.en", "revision": "0" * 40},
        ),
        ["corpus.source.config", "20231101.en", "{lang}"],
    ),
    "path with another word in braces": (
        put("corpus.source", {"kind": "jsonl", "path": "{lang}/{langg}.jsonl"}),
        ["corpus.source.path", "{langg}", "legal: {lang}"],
    ),
    "path with an open brace": (
        put("corpus.source", {"kind": "jsonl", "path": "{lang.jsonl"}),
        ["corpus.source.path", "{lang.jsonl", "cannot be filled in"],
    ),
    "text files that are the same for every language": (
        put(
            "tasks.flores",
            {
                "source": {"kind": "text", "fields": {"sentence_src": "en", "sentence_tgt": "x"}},
                "languages": ["vi", "hi"],
            },
        ),
        ["tasks.flores.source.fields.sentence_src", "lacks {lang}"],
    ),
    "text files with another word in braces": (
        put(
            "tasks.flores",
            {
                "source": {
                    "kind": "text",
                    "fields": {"sentence_src": "{cod}", "sentence_tgt": "x"},
                },
                "languages": ["vi"],
            },
        ),
        ["tasks.flores.source.fields.sentence_src", "{cod}", "legal: {lang}, {code}"],
    ),
    "a paper's definition that is not there": (
        put("tasks.xnli.paper", {"definition": "config/tasks/xnli_generat.yaml"}),
        ["tasks.xnli.paper.definition", "xnli_generat.yaml", "'config/tasks/xnli_generate.yaml'?"],
    ),
    "a paper's definition without a prompt in the language": (
        put("tasks.xnli.paper", {"definition": "config/tasks/xwinograd.yaml"}),
        ["tasks.xnli.languages", "'vi'", "xwinograd.yaml", "en, fr, ja"],
    ),
    "a paper's definition of another kind": (
        put("tasks.xnli.paper", {"definition": "config/tasks/xnli_head.yaml"}),
        ["tasks.xnli.paper.definition", "classification", "multiple_choice"],
    ),
    "task without definition": (
        put("tasks.xnlii", {"languages": ["vi"]}),
        [
            "tasks.xnlii",
            "task definition",
            "xcopa, xnli, xnli_generate, xnli_head, xquad",
            "'xnli'?",
        ],
    ),
    "definition that is not there": (
        put("tasks.xnli.definition", "config/tasks/nothing.yaml"),
        ["tasks.xnli.definition", "config/tasks/nothing.yaml"],
    ),
    "task without a prompt in the language": (
        put("tasks.xquad", {"languages": ["fr"]}),
        ["tasks.xquad.languages", "'fr'", "xquad.yaml", "en, ar, de"],
    ),
    "neurons of a language outside the set": (
        lambda raw: (
            raw["language_sets"].update(other=["en", "zh"]),
            put("interventions.zero.neurons", "zh")(raw),
        ),
        ["interventions.zero", "neurons 'zh'", "three", "perplexity"],
    ),
    "excepted language outside the set": (
        lambda raw: (
            raw["language_sets"].update(other=["en", "zh"]),
            put("interventions.zero.without", ["en", "zh"])(raw),
        ),
        ["interventions.zero", "without 'zh'", "three", "perplexity"],
    ),
    "role that is misspelt": (
        put("interventions.zero.neurons", "targets"),
        ["interventions.zero.neurons", "'targets'", "target, source, others, en", "'target'?"],
    ),
    "role in a list that is misspelt": (
        put("interventions.zero.neurons", ["target", "sorce"]),
        ["interventions.zero.neurons", "'sorce'", "'source'?"],
    ),
    "no neurons": (put("interventions.zero.neurons", []), ["interventions.zero.neurons", "empty"]),
    "doubled neurons": (
        put("interventions.zero.neurons", ["en", "en"]),
        ["interventions.zero.neurons", "en listed more than once"],
    ),
    "neurons as a number": (
        put("interventions.zero.neurons", 5),
        ["interventions.zero.neurons: expected text", "interventions.zero.neurons: expected a"],
    ),
    "neurons with a number": (
        put("interventions.zero.neurons", ["en", 5]),
        ["interventions.zero.neurons[1]: expected text", "5"],
    ),
    "all neurons left out": (
        put("interventions.zero.without", ["vi", "target"]),
        ["interventions.zero.without", "none are left"],
    ),
    "source of a held-out text": (
        put("interventions.zero.neurons", "source"),
        ["perplexity.interventions", "'zero'", "`source`", "Legal here: target, others"],
    ),
    "source of a task": (
        lambda raw: (
            put("interventions.pair", {"operation": "set", "value": 0, "without": "source"})(raw),
            put("tasks.xnli.interventions", ["pair"])(raw),
        ),
        ["tasks.xnli.interventions", "'pair'", "`source`", "Legal here: target, others"],
    ),
    "statistic of several languages": (
        put("interventions.p90.neurons", "others"),
        ["interventions.p90.statistic_language", "others", "target, source or a language code"],
    ),
    "statistic of others": (
        put("interventions.p90.statistic_language", "others"),
        ["interventions.p90.statistic_language", "'others'", "more than one"],
    ),
    "means of documents that are not kept": (
        put("interventions.p90.value", "document_max"),
        ["interventions.p90", "document_max", "'act'", "statistics.document_means: none"],
    ),
    "probability of a site that is not measured": (
        lambda raw: (
            put("interventions.p90.value", "probability")(raw),
            put("interventions.p90.site", "product")(raw),
            put("statistics.sites", ["gate", "act"])(raw),
        ),
        ["interventions.p90", "'product'", "statistics.sites: gate, act"],
    ),
    "value of the layer that is misspelt": (
        put("interventions.p90.value", "layer_maximum"),
        ["interventions.p90.value", "layer_maximum", "'layer_max'?"],
    ),
    "scaled by a value of the layer": (
        put("interventions.p90", {"operation": "scale", "value": "layer_max"}),
        ["interventions.p90.operation", "layer_max", "set, add"],
    ),
    "site of a value of the layer": (
        put(
            "interventions.p90", {"operation": "set", "value": "layer_p10", "statistic_site": "act"}
        ),
        ["interventions.p90.statistic_site", "the layer's own"],
    ),
    "language of a number": (
        put("interventions.zero.statistic_language", "en"),
        ["interventions.zero.statistic_language", "a number"],
    ),
    "policy of one group": (
        put("interventions.zero.shared", "neither"),
        ["interventions.zero.shared", "'neither'", "the same neurons"],
    ),
    "policy that is misspelt": (
        put(
            "interventions.zero",
            {"steps": [{"neurons": n, "operation": "set", "value": 0} for n in ("en", "target")]}
            | {"shared": "targt"},
        ),
        ["interventions.zero.shared", "'targt'", "in_order, neither, en, target", "'target'?"],
    ),
    "pages of an unknown selection": (
        put("browser", {"selections": ["lap"]}),
        ["browser.selections", "'lap'", "Did you mean"],
    ),
    "pages of no selection": (put("browser", {"selections": []}), ["browser.selections: empty"]),
    "pages on an unknown set": (
        put("browser", {"language_sets": ["nowhere"]}),
        ["browser.language_sets", "'nowhere'"],
    ),
    "strength at a site that is not measured": (
        both_of(put("browser", {"site": "product"}), put("statistics.sites", ["gate", "act"])),
        ["browser.site", "'product'", "gate, act"],
    ),
    "a link of an unknown model": (
        put("browser", {"links": {"nobody": "https://example.org/{layer}/{neuron}"}}),
        ["browser.links", "'nobody'"],
    ),
    "sweep of no layers": (put("interventions.zero.sweep", 0), ["interventions.zero.sweep", "0"]),
    "sweep of an empty list": (put("interventions.zero.sweep", []), ["zero.sweep", "empty"]),
    "sweep as text": (put("interventions.zero.sweep", "layers"), ["zero.sweep", "'layers'"]),
    "sweep of true": (put("interventions.zero.sweep", True), ["zero.sweep", "True"]),
    "sweep of ranges that end before they begin": (
        put("interventions.zero.sweep", [[0, 3], [5, 4]]),
        ["interventions.zero.sweep", "[5, 4]"],
    ),
    "sweep of a range of one end": (
        put("interventions.zero.sweep", [[0, 3], [5]]),
        ["interventions.zero.sweep[1]"],
    ),
    "sweep with doubled ranges": (
        put("interventions.zero.sweep", [[0, 3], [0, 3]]),
        ["interventions.zero.sweep", "[0, 3] listed more than once"],
    ),
    "sweep of steps with layers": (
        lambda raw: (
            put("interventions.zero.sweep", 4)(raw),
            put("interventions.zero.layers", [0, 1])(raw),
        ),
        ["interventions.zero.sweep", "leave out `layers`"],
    ),
    "sweep into a name that is taken": (
        lambda raw: (
            put("interventions.zero.sweep", 4)(raw),
            raw["interventions"].update({"zero.L02": {"operation": "set", "value": 1}}),
        ),
        ["interventions.zero.sweep", "'zero.L02'", "is defined as well"],
    ),
    "sweep into too long a name": (
        lambda raw: (
            put("interventions." + "z" * 58, {"operation": "set", "value": 0, "sweep": 1})(raw),
        ),
        ["interventions.zzz", "not a legal name"],
    ),
    "prompt tokens of a held-out text": (
        put("interventions.zero.tokens", "prompt"),
        ["perplexity.interventions", "'zero'", "'prompt'", "all"],
    ),
    "venn across sets": (
        lambda raw: (
            raw["language_sets"].update(other=["en", "zh"]),
            put("results.venn", [["en", "vi", "zh"]])(raw),
        ),
        ["results.venn", "zh", "no language set together", "three, other"],
    ),
    "set of a selection that no model uses": (
        lambda raw: (
            raw["language_sets"].update(other=["en", "zh"]),
            raw["models"]["tiny"].update(language_sets=["three"]),
            raw["selections"]["lape"].update(language_sets=["other"]),
            raw["selections"]["control"].update(like="prob"),
        ),
        ["language_sets.other", "no model"],
    ),
}


FINETUNING = {
    "definition": "config/tasks/xnli_head.yaml",
    "source": {"kind": "mini", "name": "xnli"},
    "targets": ["vi"],
}


def with_finetuning(**changes):
    """Return a change that adds a fine-tuning and a task that evaluates its adapters."""

    def change(raw):
        raw["finetunings"] = {"nli": copy.deepcopy(FINETUNING) | changes}
        raw["tasks"]["xnli_head"] = {
            "source": {"kind": "mini", "name": "xnli"},
            "languages": ["vi"],
            "finetunings": ["nli"],
            "interventions": ["zero"],
        }

    return change


BAD_FINETUNING = {
    "key": (with_finetuning(target=["vi"]), ["finetunings.nli.target", "targets"]),
    "choice": (with_finetuning(neurons=["targets"]), ["finetunings.nli.neurons", "target"]),
    "no choice": (with_finetuning(neurons=[]), ["finetunings.nli.neurons", "at least 1"]),
    "doubled choice": (with_finetuning(neurons=["all", "all"]), ["finetunings.nli.neurons", "all"]),
    "no targets": (with_finetuning(targets=[]), ["finetunings.nli.targets", "empty"]),
    "unknown target": (with_finetuning(targets=["vii"]), ["finetunings.nli", "vii", "vi"]),
    "target in no set": (with_finetuning(targets=["zh"]), ["finetunings.nli.neurons", "zh"]),
    "source in no set": (
        with_finetuning(language="zh", neurons=["source"]),
        ["finetunings.nli.neurons", "'zh'"],
    ),
    "selection": (
        with_finetuning(selections=["lap"]),
        ["finetunings.nli.selections", "lap", "lape"],
    ),
    "rows": (with_finetuning(rows=[0.5, 0.5]), ["finetunings.nli.rows", "[0.5, 0.5]"]),
    "learning rate": (
        with_finetuning(training={"learning_rate": -1}),
        ["finetunings.nli.training.learning_rate", "-1"],
    ),
    "hyperparameter": (
        with_finetuning(training={"rnk": 4}),
        ["finetunings.nli.training.rnk", "rank"],
    ),
    "checkpoints off the curve": (
        with_finetuning(training={"checkpoint_steps": 15}),
        ["finetunings.nli.training", "15", "log_steps"],
    ),
    "fine-tuning that no task evaluates": (
        put("finetunings", {"nli": copy.deepcopy(FINETUNING)}),
        ["finetunings.nli", "no task"],
    ),
    "head that is not trained": (
        lambda raw: (with_finetuning()(raw), raw["tasks"]["xnli_head"].pop("finetunings")),
        ["finetunings.nli"],
    ),
    "classification of the model itself": (
        put("tasks.xnli_head", {"source": {"kind": "mini", "name": "xnli"}, "languages": ["vi"]}),
        ["tasks.xnli_head.finetunings", "missing"],
    ),
    "choices cannot be trained": (
        with_finetuning(definition="config/tasks/xnli.yaml"),
        ["finetunings.nli.definition", "multiple_choice"],
    ),
    "training in a language without prompt": (
        with_finetuning(language="yy"),
        ["finetunings.nli", "yy"],
    ),
    "training task that nothing defines": (
        with_finetuning(definition="config/tasks/xnli_heat.yaml"),
        ["finetunings.nli.definition", "xnli_head.yaml"],
    ),
    "set": (
        with_finetuning(language_sets=["thre"]),
        ["finetunings.nli.language_sets", "thre", "three"],
    ),
    "no set": (with_finetuning(language_sets=[]), ["finetunings.nli.language_sets", "empty"]),
    "set of a task": (
        put("tasks.xnli.language_sets", ["thre"]),
        ["tasks.xnli.language_sets", "thre", "three"],
    ),
    "task of an unknown fine-tuning": (
        lambda raw: (with_finetuning()(raw), raw["tasks"]["xnli"].update(finetunings=["nlii"])),
        ["tasks.xnli.finetunings", "nlii", "nli"],
    ),
}
ROWS = {"parameters": "rows", "projections": ["gate", "up", "down"]}
TEXT = {"source": {"kind": "text"}, "language": "vi", "neurons": ["source"], "training": ROWS}


def with_text(**changes):
    """Return a change that adds a fine-tuning on text; None takes a key away."""

    def change(raw):
        entry = copy.deepcopy(TEXT) | changes
        kept = {key: value for key, value in entry.items() if value is not None}
        raw["finetunings"] = {"more": kept}

    return change


def head_of_a_text_model(raw):
    with_text()(raw)
    raw["tasks"]["xnli_head"] = {
        "source": {"kind": "mini", "name": "xnli"},
        "languages": ["vi"],
        "finetunings": ["more"],
    }


BAD_FINETUNING |= {
    "parameters": (
        with_finetuning(training={"parameters": "row"}),
        ["finetunings.nli.training.parameters", "'row'", "lora, rows"],
    ),
    "rank of rows": (
        with_text(training=ROWS | {"rank": 16}),
        ["finetunings.more.training.rank", "belongs to parameters: lora"],
    ),
    "modules of rows": (
        with_text(training=ROWS | {"modules": ["q_proj"]}),
        ["finetunings.more.training.modules", "belongs to parameters: lora"],
    ),
    "nothing to train": (
        with_text(neurons=["source", "none"]),
        ["finetunings.more.neurons", "'none'", "legal: source, target"],
    ),
    "nothing to train in a generation task": (
        with_finetuning(
            definition="config/tasks/xquad_instruct.yaml",
            neurons=["none"],
            targets=[],
            training=ROWS,
        ),
        ["finetunings.nli.neurons", "'none'", "parameters: rows"],
    ),
    "key of text": (with_text(source={"kind": "text", "token": 5}), ["token", "tokens"]),
    "definition of text": (
        with_text(definition="config/tasks/xnli_head.yaml"),
        ["finetunings.more.definition", "text has none"],
    ),
    "rows of text": (with_text(rows=[0, 0.5]), ["finetunings.more.rows", "source.tokens"]),
    "text in the paper's split": (
        with_text(paper={"rows": [0, 0.5]}),
        ["finetunings.more.paper", "text has none"],
    ),
    "text in a language without a corpus": (
        with_text(language="zh", neurons=["all"]),
        ["finetunings.more.language", "'zh'", "en, vi, hi"],
    ),
    "more text than is packed": (
        lambda raw: (
            with_text(source={"kind": "text", "tokens": 2000})(raw),
            raw["corpus"].update(tokens=1000),
        ),
        ["finetunings.more.source.tokens", "2000", "corpus.tokens: 1000"],
    ),
    "more held-out text than is packed": (
        with_text(source={"kind": "text", "heldout_tokens": 10**9}),
        ["finetunings.more.source.heldout_tokens", "corpus.heldout_tokens"],
    ),
    "head of a model tuned on text": (
        head_of_a_text_model,
        ["tasks.xnli_head.finetunings", "'more' trains no head"],
    ),
}
BAD |= {f"fine-tuning: {name}": case for name, case in BAD_FINETUNING.items()}


def test_text_needs_no_task_and_gives_an_adapter_per_selection():
    raw = copy.deepcopy(GOOD)
    with_text(neurons=["source", "target", "source_target", "all"], targets=["hi"])(raw)
    found = build(raw).adapters("tiny")
    assert len(found) == 3 * 3 + 1
    assert "more+source+control+en-hi-vi" in found
    assert found["more+source_target+lape+en-hi-vi+hi"].languages("vi") == ("vi", "hi")


def test_the_shipped_example_of_rows_is_legal():
    text = (ROOT / "docs/adding.md").read_text(encoding="utf-8")
    block = text.split("### Neurons' own weights")[1].split("```yaml\n")[1].split("```")[0]
    raw = copy.deepcopy(GOOD) | parse_yaml(block)
    entry = build(raw).finetunings["language_arithmetics"]
    training = entry.training
    assert training.parameters == "rows" and training.projections == ("gate", "up", "down")
    assert (training.learning_rate, training.weight_decay, training.clip) == (1e-4, 0.01, 1.0)
    assert (training.epochs, training.batch_size, training.max_length) == (3, 8, 512)


def test_adapters_follow_from_choices_selections_and_targets():
    raw = copy.deepcopy(GOOD)
    with_finetuning(neurons=["none", "source", "target", "all"], selections=["lape"])(raw)
    config = build(raw)
    assert list(config.adapters("tiny")) == [
        "nli+none",
        "nli+source+lape+en-hi-vi",
        "nli+target+lape+en-hi-vi+vi",
        "nli+all",
    ]
    jobs = config.evaluations("tiny")
    assert ("base", "xnli", "vi") in jobs
    assert ("nli+all", "xnli_head", "vi") in jobs
    one = config.adapters("tiny")["nli+target+lape+en-hi-vi+vi"]
    conditions = config.task_conditions("tiny", "xnli_head", "vi", one)
    assert conditions == [("en-hi-vi", "lape", "zero", "vi")]
    every = config.task_conditions("tiny", "xnli_head", "vi", config.adapters("tiny")["nli+all"])
    assert {selection for _, selection, _, _ in every} == {"lape", "prob", "control"}


def test_mini_items_are_those_of_the_entry_under_every_definition():
    raw = copy.deepcopy(GOOD)
    raw["tasks"]["xnli"]["paper"] = {"definition": "config/tasks/xnli_generate.yaml"}
    raw["protocols"] = {"corrected": "corrected", "paper": {"prompts": "paper"}}
    config = build(raw)
    for variant in config.variants("items"):
        job = stage(config, "prepare_task", variant=variant, task="xnli", lang="vi")
        assert job["source"] == {"kind": "mini", "name": "xnli"}


def test_a_task_meets_the_neurons_of_other_languages():
    raw = copy.deepcopy(GOOD)
    raw["tasks"]["xnli"] |= {"languages": ["vi", "zh"], "targets": "all", "selections": ["lape"]}
    raw["interventions"]["swap"] = {
        "steps": [
            {"neurons": "source", "operation": "set", "value": 0},
            {"neurons": "target", "operation": "add", "value": "mean"},
        ]
    }
    config = build(raw)
    cell = ("en-hi-vi", "lape", "zero")
    # Chinese is in no set: it is evaluated all the same, with the neurons of the others.
    for lang in ("vi", "zh"):
        found = config.task_conditions("tiny", "xnli", lang)
        assert found == [(*cell, target) for target in ("en", "hi", "vi")]
    assert config.target_cells("tiny") == [("xnli", "three", "zero")]
    raw["tasks"]["xnli"]["targets"] = ["vi", "hi"]
    found = build(raw).task_conditions("tiny", "xnli", "vi")
    assert found == [(*cell, "hi"), (*cell, "vi")]
    raw["tasks"]["xnli"]["targets"] = ["xx"]
    with pytest.raises(ConfigError, match="tasks.xnli.targets"):
        build(raw)
    raw["tasks"]["xnli"] |= {"targets": "all", "interventions": ["swap"]}
    with pytest.raises(ConfigError, match="'zh' is not in language set 'three'"):
        build(raw)
    raw["tasks"]["xnli"]["languages"] = ["vi"]
    assert len(build(raw).task_conditions("tiny", "xnli", "vi")) == 3


def test_an_intervention_of_one_model_is_used_on_that_model_only():
    raw = copy.deepcopy(GOOD)
    raw["models"]["other"] = raw["models"]["tiny"]
    raw["interventions"]["zero"] |= {"models": ["other"], "sweep": 2}
    config = build(raw)
    assert config.task_conditions("tiny", "xnli", "vi") == []
    assert {name for _, _, name, _ in config.task_conditions("other", "xnli", "vi")} == {
        "zero.L00",
        "zero.L01",
    }
    assert config.sweeps() == {"zero": {"00": "zero.L00", "01": "zero.L01"}}
    raw["interventions"]["zero"]["models"] = ["tini"]
    with pytest.raises(ConfigError, match="interventions.zero.*models.*tiny"):
        build(raw)


def test_the_good_configuration_is_good():
    config = build(GOOD)
    assert config.cells("tiny") == [("three", "lape"), ("three", "prob"), ("three", "control")]
    assert config.perplexity_cells("tiny")[0] == ("en-hi-vi", "lape", "zero")


def refused(change, words):
    """Check that a change of the good configuration is refused with certain words."""
    raw = copy.deepcopy(GOOD)
    change(raw)
    with pytest.raises(ConfigError) as caught:
        build(raw)
    message = str(caught.value)
    for word in words:
        assert word in message, f"{word!r} not in: {message}"
    assert "pydantic" not in message


def test_there_are_enough_cases():
    assert len(BAD) >= 60


@pytest.mark.parametrize("case", BAD)
def test_mistakes_are_refused_in_the_users_terms(case):
    refused(*BAD[case])


def test_unused_model_is_named():
    raw = copy.deepcopy(GOOD)
    raw["language_sets"]["other"] = ["en", "zh"]
    for entry in raw["selections"].values():
        entry["language_sets"] = ["three"]
    raw["models"]["second"] = copy.deepcopy(raw["models"]["tiny"])
    raw["models"]["second"]["language_sets"] = ["other"]
    with pytest.raises(ConfigError, match="other"):
        build(raw)


@pytest.mark.parametrize(
    "text, words",
    [
        ("name: a\nname: b\n", "line 2: key 'name' is given twice"),
        ("name: [a\n", "not valid YAML"),
        ("- a\n- b\n", "expected keys and values"),
        ("", "the file is empty"),
        ("# nothing but a comment\n", "the file is empty"),
        ("name: a\nmodels: {a: 1, a: 2}\n", "line 2: key 'a' is given twice"),
        ("{[a]: 1}\n", "line 1: a key must be one word"),
        ("a:\n\tb: 1\n", "line 2: not valid YAML"),
        ("a: *b\n", "undefined alias"),
        ("a: \x01\n", "not valid YAML"),
        ("a: 1\n---\nb: 2\n", "another document"),
        ("a: !!python/name:os.system {}\n", "not valid YAML"),
    ],
)
def test_broken_files(tmp_path, text, words):
    path = tmp_path / "broken.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    assert words in str(caught.value) and "broken.yaml" in str(caught.value)


def test_a_file_that_is_not_text(tmp_path):
    path = tmp_path / "broken.yaml"
    path.write_bytes(b"name: \xe9")
    with pytest.raises(ConfigError, match="broken.yaml: not a text file in UTF-8"):
        load_config(path)


def test_missing_file_names_its_neighbours(tmp_path):
    (tmp_path / "mine.yaml").write_text("name: a\n")
    with pytest.raises(ConfigError, match="mine.yaml"):
        load_config(tmp_path / "mime.yaml")


def test_no_is_norwegian():
    assert parse_yaml("languages: [no, en, yes]")["languages"] == ["no", "en", "yes"]


def test_norwegian_in_a_set():
    raw = copy.deepcopy(GOOD)
    raw["corpus"] = {"source": {"kind": "jsonl", "path": "text/{lang}.jsonl"}}
    raw["language_sets"] = parse_yaml("three: [en, vi, no]")
    assert build(raw).language_names()["no"] == "Norwegian"


def test_numbers_dates_and_merged_blocks_of_yaml():
    text = "a: 1e-3\nb: 1e8\nc: 2024-13-45\nd: &d {x: 1}\ne: {<<: *d, y: true}\n"
    read = parse_yaml(text)
    assert (read["a"], read["b"], read["c"]) == (0.001, 1e8, "2024-13-45")
    assert read["e"] == {"x": 1, "y": True}
    assert build(GOOD | {"corpus": {"tokens": 1e8}}).corpus.tokens == 100_000_000


def test_later_files_and_overrides_win(tmp_path):
    first, second = tmp_path / "a.yaml", tmp_path / "b.yaml"
    first.write_text(json.dumps(GOOD))
    second.write_text("perplexity: {tokens: 7}\n")
    config = read_configs([first, second], {"name": "over"})
    assert (config.name, config.perplexity.tokens) == ("over", 7)
    assert config.perplexity.interventions == ("zero",)


def test_a_block_of_another_kind_replaces_the_block(tmp_path):
    over = {"tasks": {"xnli": {"source": {"kind": "jsonl", "path": "{lang}.jsonl"}, "limit": 3}}}
    over["selections"] = {"prob": {"method": "magnitude"}}
    first, second = tmp_path / "a.yaml", tmp_path / "b.yaml"
    raw = copy.deepcopy(GOOD)
    raw["tasks"]["xnli"]["source"]["name"] = "xnli"
    raw["selections"]["prob"]["rate"] = 0.5
    first.write_text(json.dumps(raw))
    second.write_text(json.dumps(over))
    config = read_configs([first, second])
    assert config.tasks["xnli"].source.path == "{lang}.jsonl"
    assert config.tasks["xnli"].languages == ("vi",)
    assert config.selections["prob"].method == "magnitude"


def test_values_of_the_command_line_get_their_type(tmp_path):
    path = tmp_path / "a.yaml"
    path.write_text(json.dumps(GOOD))
    over = {"perplexity": {"tokens": "7"}, "language_sets": {"three": ["en", "vi", "hi"]}}
    over |= {"selections": {"lape": {"exclusive": "true", "rate": "1e-2"}}, "title": "a: b"}
    config = read_configs([path], over)
    assert config.perplexity.tokens == 7 and config.title == "a: b"
    assert config.selections["lape"].exclusive and config.selections["lape"].rate == 0.01


def test_a_sweep_is_one_intervention_per_layer_wherever_it_is_listed():
    raw = copy.deepcopy(GOOD)
    raw["interventions"]["zero"] |= {"sweep": 3, "label": "silenced"}
    raw["interventions"]["p90"]["sweep"] = [[0, 3], [4, 7], [8, 8]]
    raw["tasks"]["xnli"]["interventions"] = ["p90", "zero"]
    config = build(raw)
    layers = ["zero.L00", "zero.L01", "zero.L02"]
    ranges = ["p90.L00-03", "p90.L04-07", "p90.L08"]
    assert sorted(config.interventions) == sorted([*layers, *ranges])
    assert config.perplexity.interventions == (*layers,)
    assert config.tasks["xnli"].interventions == (*ranges, *layers)
    found = {name: entry.steps[0].layers for name, entry in config.interventions.items()}
    assert found["zero.L02"] == (2, 2) and found["p90.L04-07"] == (4, 7)
    labels = stage(config, "labels")["interventions"]
    assert labels["zero.L02"] == "silenced, layer 02"
    assert labels["p90.L04-07"] == "p90, layers 04-07"
    conditions = config.task_conditions("tiny", "xnli", "vi")
    assert {name for _, _, name, _ in conditions} == {*layers, *ranges}
    # Written out by hand it is the same job.
    raw["interventions"] = {
        name: {"operation": "set", "value": 0 if name in layers else "p90", "layers": found[name]}
        for name in [*layers, *ranges]
    }
    raw["perplexity"]["interventions"], raw["tasks"]["xnli"]["interventions"] = layers, ranges
    job = {"variant": "corrected", "langset": "en-hi-vi", "selection": "lape", "model": "tiny"}
    found = stage(config, "measure_perplexity", **job)
    assert stage(build(raw), "measure_perplexity", **job) == found
    assert list(found["interventions"]) == layers


def test_an_intervention_of_pairs_may_be_defined_and_reaches_the_job_whole():
    raw = copy.deepcopy(GOOD)
    steps = [
        {"neurons": "source", "operation": "set", "value": 0},
        {"neurons": ["target", "en"], "without": "vi", "operation": "add", "value": "layer_p10"},
    ]
    raw["interventions"]["pair"] = {"steps": steps, "shared": "source"}
    entry = build(raw).interventions["pair"]
    assert entry.roles == {"source", "target"} and entry.shared == "source"
    raw["interventions"]["pair"] = {"steps": steps[1:], "label": "x"}
    raw["perplexity"]["interventions"] = ["pair", "p90"]
    job = {"variant": "corrected", "langset": "en-hi-vi", "selection": "lape", "model": "tiny"}
    found = stage(build(raw), "measure_perplexity", **job)["interventions"]["pair"]
    assert found["quantiles"] == "corrected" and "shared" not in found
    assert found["steps"][0]["neurons"] == ["target", "en"]
    assert found["steps"][0]["statistic_site"] is None
    assert InterventionEntry.model_validate({"steps": found["steps"]}).steps[0] == entry.steps[1]
    raw["interventions"]["pair"] = {"steps": [steps[1] | {"value": "probability"}] + steps[1:]}
    raw["interventions"]["pair"]["steps"][0] |= {"neurons": "hi", "statistic_language": "vi"}
    raw["interventions"]["pair"]["shared"] = "hi"
    found = stage(build(raw), "measure_perplexity", **job)["interventions"]["pair"]
    assert found["shared"] == "hi"


def test_a_set_is_known_by_its_content():
    raw = copy.deepcopy(GOOD)
    raw["language_sets"] = {"renamed": ["hi", "en", "vi"]}
    assert build(raw).directory("renamed") == build(GOOD).directory("three") == "en-hi-vi"


def test_configurations_are_frozen():
    with pytest.raises(Exception, match="frozen"):
        build(GOOD).name = "other"


@pytest.mark.parametrize("path", files())
def test_generated_files_are_in_step(path):
    current = (ROOT / path).read_text(encoding="utf-8")
    assert current == files()[path], "run: langneurons reference --write"


SHIPPED = [
    path for name in ("papers", "studies") for path in (ROOT / "config" / name).glob("*.yaml")
]


def test_the_schema_agrees():
    jsonschema = pytest.importorskip("jsonschema")
    validator = jsonschema.Draft202012Validator(json.loads(schema()))
    for path in [ROOT / "config/config.yaml", *SHIPPED]:
        raw = json.loads(json.dumps(parse_yaml(path.read_text(encoding="utf-8"))))
        assert list(validator.iter_errors(raw)) == []
    assert list(validator.iter_errors(GOOD | {"nam": 1}))


def test_command_line(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny-model").mkdir()
    (tmp_path / "tiny-model/config.json").write_text("{}")
    path = tmp_path / "mine.yaml"
    path.write_text(json.dumps(GOOD))
    assert main(["check", str(path)]) == 0
    assert "3 languages, 3 neuron tables" in capsys.readouterr().out
    path.write_text(json.dumps(GOOD | {"modles": {}}))
    assert main(["check", str(path)]) == 1
    assert "modles: unknown key" in capsys.readouterr().err


@pytest.mark.parametrize("bad", [{"modles": {}}, {"language_sets": {"three": ["en", "xx"]}}])
def test_snakemake_shows_the_message_and_no_traceback(tmp_path, bad):
    path = tmp_path / "bad.yaml"
    path.write_text(json.dumps(GOOD | bad))
    done = subprocess.run(
        [warm.python(), "-m", "snakemake", "-n", "--configfile", str(path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT / "src")},
    )
    output = done.stdout + done.stderr
    assert done.returncode != 0
    assert str(path) in output and "Traceback" not in output
    assert next(iter(bad)) in output


def test_a_papers_prompts_replace_a_definition_by_their_own_point():
    raw = copy.deepcopy(GOOD)
    raw["tasks"]["xnli"]["paper"] = {"definition": "config/tasks/xnli_generate.yaml"}
    raw["protocols"] = {
        "corrected": {},
        "asked": {"prompts": "paper"},
        "rows": {"split": "paper"},
    }
    config = build(raw)
    entry = config.tasks["xnli"]
    found = {name: entry.under(protocol).definition for name, protocol in config.protocols.items()}
    assert found == {
        "corrected": None,
        "rows": None,
        "asked": raw["tasks"]["xnli"]["paper"]["definition"],
    }
    assert config.variants("items") == ("corrected", "prompts", "split")
    assert config.variants("evaluation") == ("corrected", "prompts", "split")
    assert config.variants("rows") == ("corrected", "paper")
    assert config.variants("adapters") == ("corrected", "split")
    both = {"mine": {"prompts": "paper", "split": "paper"}}
    assert build(raw | {"protocols": both}).variants("items") == ("paper",)


def test_one_text_file_may_serve_all_languages_beside_one_that_does_not():
    raw = copy.deepcopy(GOOD)
    fields = {"sentence_src": "eng_Latn.devtest", "sentence_tgt": "{code}.devtest"}
    source = {"kind": "text", "fields": fields}
    raw["tasks"]["flores"] = {"source": source, "languages": ["vi", "hi"]}
    assert build(raw).tasks["flores"].source.fields == fields
