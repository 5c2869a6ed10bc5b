"""What an edit reruns: for each, the exact number of jobs of every rule that computes."""

import os

import pytest
from test_workflow import SHOWING

NONE: dict[str, int] = {}


def setting(path, value):
    """Return an edit of the configuration: a dotted path gets a value."""

    def change(checkout):
        place = checkout.config
        *above, last = path.split(".")
        for key in above:
            place = place[key]
        place[last] = value

    return change


def appended(file, text):
    """Return an edit of a file of the project."""

    def change(checkout):
        path = checkout.path / file
        path.write_text(path.read_text() + text)

    return change


def replaced(file, old, new):
    """Return an edit of the first place of a text in a file of the project."""

    def change(checkout):
        path = checkout.path / file
        path.write_text(path.read_text().replace(old, new, 1))

    return change


def touched(folder):
    """Return a fresh clone's time stamps."""

    def change(checkout):
        for path in (checkout.path / folder).rglob("*"):
            os.utime(path)

    return change


def both(*changes):
    """Return several edits at once."""

    def change(checkout):
        for one in changes:
            one(checkout)

    return change


CODE = "\nADDED = 1\n"
SRC = "src/langneurons"
# Two sets (en vi hi; en zh), five neuron tables, three protocols (perplexity and evaluation differ
# under each, training and rows under two), two plain tasks, one on three adapters.
# What follows from the neurons of `lape`: texts on one set under two protocols' points, and pages.
WRITTEN = {
    "force_language": 2,
    "fall_back": 2,
    "judge_texts": 4,
    "read_layers": 2,
    "describe_neurons": 1,
}
EDITS = {
    "comment": (appended(f"{SRC}/activations/statistics.py", "\n# A comment.\n"), NONE),
    "docstring": (replaced(f"{SRC}/activations/collect.py", '"""', '"""Said otherwise. '), NONE),
    "blank lines": (appended(f"{SRC}/activations/kernels.py", "\n\n\n"), NONE),
    "clone of the workflow": (touched("workflow"), NONE),
    "clone of the package": (touched("src"), NONE),
    "reorder a set": (setting("language_sets.three", ["hi", "vi", "en"]), NONE),
    "relabel a model": (setting("models.tiny.label", "Tiny"), NONE),
    "relabel a selection": (setting("selections.prob.label", "Act Prob"), NONE),
    "title": (setting("title", "Another"), NONE),
    "more memory": (setting("runtime", {"mem_mb": 9000, "threads": 2, "batch_tokens": 64}), NONE),
    "another engine": (setting("runtime", {"engine": "continuous"}), NONE),
    "confidence": (setting("results.confidence", 0.9), NONE),
    "another figure": (setting("results.venn", [["vi", "en", "hi"]]), NONE),
    "a figure's colour": (appended(f"{SRC}/reporting/figures/canvas.py", CODE), NONE),
    "tables": (appended(f"{SRC}/reporting/tables/tasks.py", CODE), NONE),
    "results page": (appended(f"{SRC}/reporting/page.py", CODE), NONE),
    "what figures there are": (appended(f"{SRC}/reporting/kinds.py", CODE), NONE),
    "a module that no job reaches": (appended(f"{SRC}/jobs/costs.py", CODE), NONE),
    "a protocol that differs in tables only": (
        setting("protocols.ids", {"answers": "paper"}),
        NONE,
    ),
    "add an intervention to perplexity": (
        setting("perplexity.interventions", ["zero", "p90"]),
        {"measure_perplexity": 15},
    ),
    "add an intervention to a task": (
        setting("tasks.xcopa.interventions", ["zero", "p90"]),
        {"evaluate_task": 3},
    ),
    "another percentile": (setting("interventions.p90.value", "p95"), {"evaluate_task": 3}),
    "add a language to a task": (
        setting("tasks.xquad.languages", ["en", "vi"]),
        {"prepare_task": 2, "evaluate_task": 3},
    ),
    "fewer items of a task": (
        setting("tasks.xcopa.limit", 3),
        {"prepare_task": 2, "evaluate_task": 3},
    ),
    "a task's pinned data": (
        setting(
            "tasks.xcopa.source",
            {"kind": "hub", "dataset": "cambridgeltl/xcopa", "revision": "0" * 40},
        ),
        {"prepare_task": 2, "evaluate_task": 3},
    ),
    "a model's pinned revision": (
        setting("models.tiny.source", {"kind": "hub", "repo": "a/b", "revision": "0" * 40}),
        {
            "prepare_model": 1,
            "pack_corpus": 4,
            "collect_statistics": 8,
            "merge_statistics": 4,
            "select_neurons": 5,
            "measure_perplexity": 15,
            "finetune": 6,
            "evaluate_task": 15,
            "force_language": 2,
            "fall_back": 2,
            "judge_texts": 4,
            "read_layers": 4,
            "describe_neurons": 1,
        },
    ),
    "number format of the model": (
        setting("models.tiny.dtype", "bfloat16"),
        {
            "collect_statistics": 8,
            "merge_statistics": 4,
            "select_neurons": 5,
            "measure_perplexity": 15,
            "finetune": 6,
            "evaluate_task": 15,
            "force_language": 2,
            "fall_back": 2,
            "judge_texts": 4,
            "read_layers": 4,
            "describe_neurons": 1,
        },
    ),
    "remove a language of a set": (
        both(
            setting("language_sets.three", ["en", "vi"]),
            setting("results.venn", []),
            setting("forcing.targets", ["vi"]),
        ),
        {
            "select_neurons": 3,
            "measure_perplexity": 9,
            "finetune": 4,
            "evaluate_task": 15,
            "force_language": 2,
            "fall_back": 2,
            "judge_texts": 4,
            "read_layers": 2,
            "describe_neurons": 1,
        },
    ),
    "LoRA rank": (
        setting("finetunings.nli.training.rank", 4),
        {"finetune": 6, "evaluate_task": 9},
    ),
    "other training rows": (
        setting("finetunings.nli.rows", [0, 0.4]),
        {"prepare_training": 1, "finetune": 3, "evaluate_task": 6},
    ),
    "rate of one selection": (
        setting("selections.lape.rate", 0.2),
        {"select_neurons": 1, "measure_perplexity": 3, "evaluate_task": 3} | WRITTEN,
    ),
    "rate of a selection and its control": (
        setting("selections.prob.rate", 0.03),
        {"select_neurons": 4, "measure_perplexity": 12, "finetune": 4, "evaluate_task": 12},
    ),
    "selection module": (
        appended(f"{SRC}/selection/methods/lape.py", CODE),
        {"select_neurons": 1, "measure_perplexity": 3, "evaluate_task": 3} | WRITTEN,
    ),
    "evaluation module": (appended(f"{SRC}/evaluation/conditions.py", CODE), {"evaluate_task": 15}),
    "training module": (
        # Evaluation reads its classifier's input as training does, so it reaches that module.
        appended(f"{SRC}/training/lora.py", CODE),
        {"finetune": 6, "evaluate_task": 15},
    ),
    "longer answers": (
        setting("forcing.max_new_tokens", 5),
        {"force_language": 2, "judge_texts": 2},
    ),
    "one question fewer": (
        setting("forcing.limit", 1),
        {"prepare_questions": 2, "force_language": 2, "judge_texts": 2},
    ),
    "when a text is degenerate": (setting("fallback.degenerate", 0.3), {"judge_texts": 2}),
    "identification": (
        # With `lens.reading: top` the lens identifies tokens.
        appended(f"{SRC}/evaluation/identification.py", CODE),
        {"judge_texts": 4, "read_layers": 4, "describe_neurons": 1},
    ),
    "another order of fallback": (
        setting("fallback.order", ["vi", "hi"]),
        {"fall_back": 2, "judge_texts": 2},
    ),
    "which tokens are a language's": (setting("lens.purity", 0.8), {"read_layers": 4}),
    "more contexts of a neuron": (setting("browser.contexts", 3), {"describe_neurons": 1}),
    "a link to pages elsewhere": (
        setting("browser.links", {"tiny": "https://example.org/{layer}/{neuron}"}),
        NONE,
    ),
    "the page of neurons": (appended(f"{SRC}/reporting/browser/records.py", CODE), NONE),
    "overlap by family": (setting("results.group_by", "family"), NONE),
}


def test_there_are_enough_edits():
    assert len(EDITS) >= 20


@pytest.mark.parametrize("name", EDITS)
def test_an_edit_reruns_exactly_what_it_touches(edit, name):
    change, expected = EDITS[name]
    change(edit)
    edit.save()
    planned = edit.planned()
    computing = {rule: n for rule, n in planned.items() if not rule.startswith(SHOWING)}
    assert computing == expected


PROTOCOLS = ("corrected", "site", "rows")


@pytest.mark.parametrize(
    ("file", "redone"),
    [
        ("figures/neurons.py", {"draw_figures@tiny@-"}),
        ("figures/perplexity.py", {f"draw_figures@tiny@{name}" for name in PROTOCOLS}),
        ("tables/generation.py", {"tabulate_results"}
         | {f"draw_figures@tiny@{name}" for name in PROTOCOLS}),
        ("tables/neurons.py", {"tabulate_statistics", "tabulate_published", "tabulate_claims",
                               "draw_figures@tiny@-"}),
        ("sources.py", {"tabulate_statistics"}),
        ("tables/published.py", {"tabulate_published"}),
        ("tables/claims.py", {"tabulate_claims"}),
    ],
)  # fmt: skip
def test_an_edit_of_a_figure_or_table_redoes_that_alone(edit, file, redone):
    change = appended(f"{SRC}/reporting/{file}", CODE)
    change(edit)
    assert set(edit.planned()) - {"write_report", "name_figures"} == redone
