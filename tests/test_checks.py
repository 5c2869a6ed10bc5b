"""What is refused before the first job: numbers, keys without effect, files, what they hold."""

import copy
import json

import numpy as np
import pytest
from test_config import GOOD, put, refused

from langneurons.base.errors import ConfigError
from langneurons.config import build, read_configs
from langneurons.config.effects import MOST_JOBS, count_jobs
from langneurons.jobs.shared_parameters import written


def both(*changes):
    """Return a change that makes several."""

    def change(raw):
        for one in changes:
            one(raw)

    return change


def trained(**fields):
    """Return a change that adds a fine-tuning and a task that evaluates it."""
    source = {"kind": "mini", "name": "xnli"}
    entry = {"definition": "config/tasks/xnli_head.yaml", "source": source, "targets": ["vi"]}
    task = {"source": source, "languages": ["vi"], "finetunings": ["nli"]}
    return both(put("finetunings.nli", entry | fields), put("tasks.xnli_head", task))


HELD_OUT = put("corpus.heldout_source", {"kind": "mini", "texts": "parallel"})
HUB_TEXT = {"kind": "hub", "dataset": "a/b", "revision": "0" * 40}
# name: change, words of the message
NUMBERS = {
    "seed of results": (put("results.seed", -1), ["results.seed", "0", "-1"]),
    "seed beyond 32 bits": (put("corpus.seed", 2**32), ["corpus.seed", "4294967295"]),
    "seed of a control": (put("selections.control.seed", -1), ["selections.control.seed", "-1"]),
    "seed of a training": (trained(training={"seed": -1}), ["finetunings.nli.training.seed"]),
    "bootstrap without end": (
        put("results.bootstrap", 10**12),
        ["results.bootstrap", "100000", str(10**12)],
    ),
    "empty stop": (
        put("forcing", {"interventions": ["zero"], "stop": [""]}),
        ["forcing.stop[0]", "at least 1 character"],
    ),
    "value": (put("interventions.zero.value", 1e308), ["interventions.zero.value", "1e+308"]),
    "negative value": (put("interventions.zero.value", -1e30), ["interventions.zero", "-1e+06"]),
    "coefficient of a number": (
        both(put("interventions.zero.value", 10), put("interventions.zero.coefficient", 1e308)),
        ["interventions.zero.coefficient", "1e+308", "1e+06"],
    ),
    "coefficient of a statistic": (
        put("interventions.p90.coefficient", 1e308),
        ["interventions.p90.coefficient", "1e+308"],
    ),
    "value x coefficient": (
        both(put("interventions.zero.value", 1e5), put("interventions.zero.coefficient", 1e5)),
        ["interventions.zero.value", "100000 x coefficient 100000", "1e+06"],
    ),
    "value beyond float16": (
        both(put("models.tiny.dtype", "float16"), put("interventions.zero.value", 70000)),
        ["interventions.zero.value", "70000", "float16", "models.tiny", "65504"],
    ),
    "scale that bfloat16 rounds away": (
        put("interventions.zero", {"operation": "scale", "value": 1.001}),
        ["interventions.zero.value", "1.001", "bfloat16", "0.0039"],
    ),
    "rows that hold none": (
        put("tasks.xnli.rows", [0, 1e-9]),
        ["tasks.xnli.rows", "[0.0, 1e-09]", "at least one row"],
    ),
    "rows of the paper that hold none": (
        put("tasks.xnli.paper", {"rows": [0.5, 0.5000000001]}),
        ["tasks.xnli.paper.rows", "at least one row"],
    ),
    "more text than is held out": (
        put("perplexity.tokens", 2_000_000),
        ["perplexity.tokens", "2000000", "corpus.heldout_tokens: 1000000"],
    ),
    "rank": (trained(training={"rank": 10**9}), ["finetunings.nli.training.rank", "4096"]),
    "beta of 1": (trained(training={"betas": [0.9, 1.0]}), ["training.betas[1]", "less than 1"]),
    "learning rate": (
        trained(training={"learning_rate": 1e308}),
        ["training.learning_rate", "1e+308"],
    ),
    "memory": (put("runtime.mem_mb", 10**12), ["runtime.mem_mb", "16000000"]),
    "threads": (put("runtime.threads", 10**6), ["runtime.threads", "1024"]),
    "GPUs": (put("models.tiny.gpus", 1000), ["models.tiny.gpus", "64"]),
    "block": (put("corpus.block_size", 10**12), ["corpus.block_size", "1048576"]),
}
NO_EFFECT = {
    "frequency of no selection": (
        put("selections.control", {"method": "random", "rate": 0.1, "match": "frequency"}),
        ["selections.control.match", "frequency", "like"],
    ),
    "neighbours of no frequency": (
        put("selections.control.neighbours", 3),
        ["selections.control.neighbours", "match: layer"],
    ),
    "split of a held-out source": (
        both(HELD_OUT, put("corpus.split", "order")),
        ["corpus.split", "no effect", "heldout_source"],
    ),
    "fraction of a held-out source": (
        both(HELD_OUT, put("corpus.heldout_fraction", 0.5)),
        ["corpus.heldout_fraction", "heldout_source"],
    ),
    "seed of no draw": (
        both(put("corpus.split", "order"), put("corpus.seed", 3)),
        ["corpus.seed", "order"],
    ),
    "codes of no template": (
        put("corpus.source", HUB_TEXT | {"codes": {"vi": "vie"}}),
        ["corpus.source.codes", "{code}", "'{lang}'"],
    ),
    "buffer of no shuffle": (
        put("corpus.source", HUB_TEXT | {"seed": None, "buffer": 5}),
        ["corpus.source.buffer", "seed: null"],
    ),
    "a triple twice": (
        put("results.venn", [["en", "vi", "hi"], ["hi", "en", "vi"]]),
        ["results.venn", "listed more than once"],
    ),
    "a claim without its random neurons": (
        put("results.claims", ["language_neurons_equal_random"]),
        ["results.claims", "language_neurons_equal_random", "method random"],
    ),
    "a claim without a low quantile": (
        put("results.claims", ["zero_is_no_deactivation"]),
        ["results.claims", "zero_is_no_deactivation", "p01 to p25"],
    ),
    "a claim without perplexity": (
        both(put("results.claims", ["perplexity_does_not_carry_over"]), put("perplexity", None)),
        ["results.claims", "perplexity_does_not_carry_over", "`perplexity`"],
    ),
    "a claim without interventions": (
        both(
            put("results.claims", ["interventions_do_not_help"]),
            put("tasks.xnli.interventions", []),
        ),
        ["results.claims", "interventions_do_not_help", "under an intervention"],
    ),
    "margin of no claim": (put("results.margin", 0.2), ["results.margin", "claims"]),
    "stand-in of no print": (
        put("results.stand_ins", {"llama": "tiny"}),
        ["results.stand_ins", "published"],
    ),
    "selections of an untouched task": (
        both(put("tasks.xnli.interventions", []), put("tasks.xnli.selections", ["lape"])),
        ["tasks.xnli.selections", "interventions"],
    ),
    "targets of an untouched task": (
        both(put("tasks.xnli.interventions", []), put("tasks.xnli.targets", "all")),
        ["tasks.xnli.targets", "interventions"],
    ),
    "targets that no choice names": (
        trained(neurons=["source"], language="vi"),
        ["finetunings.nli.targets", "source"],
    ),
    "selections that no choice uses": (
        trained(neurons=["none"], targets=[], selections=["lape"]),
        ["finetunings.nli.selections", "none"],
    ),
}

NO_EFFECT |= {
    "held-out text that is the text": (
        both(HELD_OUT, put("corpus.heldout_source", {"kind": "mini", "texts": "corpus"})),
        ["corpus.heldout_source", "same documents", "corpus.source"],
    ),
}
LATE = put("interventions.late", {"operation": "set", "value": 0, "tokens": "generated"})
NO_EFFECT |= {
    "generated tokens under the lens": (
        both(LATE, put("lens", {"interventions": ["late"], "targets": ["vi"]})),
        ["lens.interventions", "'late'", "prompts only", "tokens: all"],
    ),
    "generated tokens of a single new one": (
        both(LATE, put("forcing", {"interventions": ["late"], "max_new_tokens": 1})),
        ["forcing.interventions", "'late'", "max_new_tokens is 1"],
    ),
    "generated tokens of a classifier": (
        both(LATE, trained(), put("tasks.xnli_head.interventions", ["late"])),
        ["tasks.xnli_head.interventions", "'late'", "classifier"],
    ),
    "at least what all activations are": (
        put("interventions.zero", {"operation": "at_least", "value": -0.5}),
        ["interventions.zero.value", "-0.31", "site: gate"],
    ),
}

MASK = {"method": "published", "languages": ["en", "vi", "hi"]}
HUB_ROWS = {"kind": "hub", "dataset": "a/b", "revision": "0" * 40}
NO_EFFECT |= {
    "brace of a mask": (
        put("selections.mask", MASK | {"path": "masks/{lang}.pth"}),
        ["selections.mask.path", "{lang}", "legal: {model}"],
    ),
    "open brace of a mask": (
        put("selections.mask", MASK | {"path": "masks/{model.pth"}),
        ["selections.mask.path", "cannot be filled in"],
    ),
    "brace of a data set's configuration": (
        put("tasks.xnli.source", HUB_ROWS | {"config": "{language}"}),
        ["tasks.xnli.source.config", "{language}", "{lang}, {code}"],
    ),
    "a target that is the source": (
        trained(neurons=["source", "target"], language="vi"),
        ["finetunings.nli.targets", "'vi'", "source and target are the same"],
    ),
    "both of one language": (
        trained(neurons=["source_target"], language="vi"),
        ["finetunings.nli.targets", "'vi'"],
    ),
    "training in float16": (
        both(trained(), put("models.tiny.dtype", "float16")),
        ["models.tiny.dtype", "float16", "bfloat16"],
    ),
    "nothing to train": (
        trained(neurons=["none"], targets=[], training={"modules": []}),
        ["finetunings.nli.training.modules", "neurons: none", "q_proj"],
    ),
    "neurons without a projection": (
        trained(neurons=["target"], training={"modules": [], "projections": []}),
        ["finetunings.nli.training.modules", "neurons: target"],
    ),
    "rows without a projection": (
        trained(neurons=["target"], training={"parameters": "rows", "projections": []}),
        ["finetunings.nli.training.projections", "gate, up, down"],
    ),
}


@pytest.mark.parametrize("case", NUMBERS | NO_EFFECT)
def test_nonsense_is_refused_before_any_job(case):
    refused(*(NUMBERS | NO_EFFECT)[case])


def test_claims_with_all_that_they_compare_are_accepted():
    raw = copy.deepcopy(GOOD)
    trained(selections=["lape", "control"], neurons=["target"])(raw)
    raw["interventions"]["low"] = {"operation": "set", "value": "p10"}
    raw["tasks"]["xnli"]["interventions"] = ["zero", "low"]
    claims = ["interventions_do_not_help", "zero_is_no_deactivation"]
    claims += ["perplexity_does_not_carry_over", "language_neurons_equal_random"]
    raw["results"] = {"claims": claims, "margin": 0.02}
    assert build(raw).results.claims == tuple(claims)


def test_a_graph_of_too_many_jobs_is_refused_with_their_number():
    raw = copy.deepcopy(GOOD)
    raw["interventions"]["zero"]["sweep"] = 900
    raw["forcing"] = {"interventions": ["zero"]}
    config = build(raw)
    # Three selections by 900 layers, all of a selection in one job of perplexity; three languages
    # of statistics; one task in one language.
    found = {"statistics": 3, "perplexity": 3, "tasks": 1, "forcing": 2700}
    assert count_jobs(config) == found
    for number in range(7):
        raw["selections"][f"more{number}"] = {"method": "magnitude", "rate": 0.1}
    with pytest.raises(ConfigError) as caught:
        raw["protocols"] = {"one": {}, "two": {"intervention_site": "paper"}}
        raw["protocols"]["three"] = {"quantiles": "paper"}
        raw["statistics"] = {"batch_quantiles": [0.9]}
        raw["interventions"].pop("p90")
        build(raw)
    words = str(caught.value)
    assert "perplexity 30, " in words and "forcing 27000" in words
    assert f"up to {MOST_JOBS}" in words and "sweep" in words


# Overlays -----------------------------------------------------------------------------------------


def merged(tmp_path, *overlays, first=GOOD):
    paths = []
    for number, raw in enumerate((first, *overlays)):
        path = tmp_path / f"{number}.yaml"
        path.write_text(json.dumps(raw))
        paths.append(path)
    return read_configs(paths)


def test_a_later_file_takes_entries_away(tmp_path):
    more = {"tasks": {"xquad": {"source": {"kind": "mini"}, "languages": ["en"]}}}
    less = {"tasks": {"xnli": None}, "selections": {"prob": None}}
    config = merged(tmp_path, more, less)
    assert list(config.tasks) == ["xquad"]
    assert list(config.selections) == ["lape", "control"]
    assert list(merged(tmp_path, {"tasks": None}).tasks) == []
    assert merged(tmp_path, {"perplexity": None}).perplexity is None
    again = merged(tmp_path, less, {"tasks": {"xnli": GOOD["tasks"]["xnli"]}})
    assert list(again.tasks) == ["xnli"]


def test_named_figures_and_codes_are_taken_away_as_well(tmp_path):
    raw = copy.deepcopy(GOOD)
    figure = {"kind": "neurons", "model": "tiny", "languages": "three"}
    raw["results"] = {"figures": {"one": figure, "two": figure}}
    raw["corpus"]["source"] = {"kind": "jsonl", "path": "{code}.jsonl"}
    raw["corpus"]["source"]["codes"] = {"vi": "vie", "hi": "hin"}
    raw["tasks"] = {}
    over = {"results": {"figures": {"one": None}}, "corpus": {"source": {"codes": {"vi": None}}}}
    config = merged(tmp_path, over, first=raw)
    assert list(config.results.figures) == ["two"]
    assert config.corpus.source.codes == {"hi": "hin"}


@pytest.mark.parametrize(
    "overlay, words",
    [
        ({"tasks": {"xnl": None}}, ["1.yaml", "tasks.xnl", "earlier file", "'xnli'"]),
        ({"selections": {"lape": None}}, ["selections.control.like", "'lape'"]),
        ({"models": {"tiny": None}}, ["models"]),
        ({"corpus": {"tokens": None}}, ["corpus.tokens", "whole number"]),
    ],
)
def test_what_an_overlay_cannot_take_away(tmp_path, overlay, words):
    with pytest.raises(ConfigError) as caught:
        merged(tmp_path, overlay)
    for word in words:
        assert word in str(caught.value)


def test_null_in_the_first_file_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"0\.yaml: tasks\.xnli: null .* earlier file"):
        merged(tmp_path, first=GOOD | {"tasks": {"xnli": None}})


def test_the_lowest_activation_is_that_of_the_nonlinearities():
    from langneurons.config.effects import LEAST_ACTIVATION
    from langneurons.models.nonlinearities import NONLINEARITIES

    x = np.linspace(-20, 20, 400_001)
    lowest = min(function(x).min() for function in NONLINEARITIES.values())
    assert LEAST_ACTIVATION <= lowest < LEAST_ACTIVATION + 0.005


def test_a_configuration_without_perplexity_still_names_its_interventions():
    config = build(GOOD | {"perplexity": None})
    assert written(config, "zero", config.protocols["corrected"])["steps"][0]["value"] == 0
