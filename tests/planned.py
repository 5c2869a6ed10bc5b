"""All that planning a run computes, in process: files of targets, parameters of jobs, costs.

The functions are those of the rules files themselves: their top-level functions and constants are
executed over a configuration, their rules are left out.
"""

import ast
import json
import re
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from langneurons.base.errors import ConfigError
from langneurons.base.yaml import parse_yaml
from langneurons.config import Config
from langneurons.jobs.costs import ASSUMPTIONS, Planner, text
from langneurons.jobs.parameters import stage

ROOT = Path(__file__).parent.parent
ASSUMED = parse_yaml((ROOT / ASSUMPTIONS).read_text(encoding="utf-8"))
TARGETS = ("table", "figure", "report", "neuron", "statistics", "resource", "perplexity", "lss")
TARGETS += ("evaluation", "all_score")


def _python(name: str) -> str:
    """Return the functions, imports and constants of a rules file."""
    source = (ROOT / "workflow/rules" / name).read_text(encoding="utf-8")
    blocks = re.split(r"^(?=\S)", source, flags=re.M)
    kept = []
    for block in blocks:
        try:
            statements = ast.parse(block).body
        except SyntaxError:
            continue
        kinds = (ast.FunctionDef, ast.Import, ast.ImportFrom, ast.Assign)
        if statements and all(isinstance(one, kinds) for one in statements):
            kept.append(block)
    return "\n".join(kept)


_CODE = {name: compile(_python(name), name, "exec") for name in ("common.smk", "inputs.smk")}


def namespace(config: Config) -> dict[str, Any]:
    """Return the rules files' functions over a configuration."""
    names: dict[str, Any] = {
        "cfg": config,
        "workflow": SimpleNamespace(basedir=str(ROOT), is_main_process=False),
        "report": lambda path, **_: path,
        "ensure": lambda path, **_: path,
        "expand": lambda path, **_: path,
    }
    for code in _CODE.values():
        exec(code, names)
    return names


class Wildcards(dict):
    """Wildcards by attribute and by key, as Snakemake gives them."""

    def __getattr__(self, key: str) -> Any:
        try:
            return self[key]
        except KeyError as error:
            raise AttributeError(key) from error


def jobs(config: Config) -> list[tuple[str, dict[str, str]]]:
    """Return (rule, wildcards) of every job that computes."""
    found: list[tuple[str, dict[str, str]]] = []

    def add(rule: str, **wildcards: str) -> None:
        found.append((rule, wildcards))

    langs = {lang for model in config.models for lang in config.model_languages(model)}
    for lang in sorted(langs):
        add("fetch_text", lang=lang)
    for name in config.finetunings:
        for variant in config.variants("rows"):
            if not config.finetunings[name].is_text:
                add("prepare_training", variant=variant, finetuning=name)
    for variant in config.variants("items"):
        for task, entry in config.tasks.items():
            for lang in entry.languages:
                add("prepare_task", variant=variant, task=task, lang=lang)
    for model in config.models:
        add("prepare_model", model=model)
        add("quantize_model", model=model)
        for lang in config.model_languages(model):
            add("pack_corpus", model=model, lang=lang)
            add("merge_statistics", model=model, lang=lang)
            add("collect_statistics", model=model, lang=lang, shard="0")
        for langset, selection in config.cells(model):
            folder = config.directory(langset)
            add("select_neurons", model=model, langset=folder, selection=selection)
        cells = [("perplexity", "measure_perplexity", config.perplexity_cells(model))]
        cells.append(("steering", "measure_lss", config.lss_cells(model)))
        cells.append(("generation", "force_language", config.generation_cells(model, "forcing")))
        cells.append(("generation", "fall_back", config.generation_cells(model, "fallback")))
        for kind, rule, places in cells:
            for variant in config.variants(kind):
                for langset, selection, intervention in places:
                    where = {"langset": langset, "selection": selection}
                    add(rule, model=model, variant=variant, intervention=intervention, **where)
        for variant in config.variants("generation"):
            for langset in config.lens_cells(model):
                add("read_layers", model=model, variant=variant, langset=langset)
        for variant in config.variants("adapters"):
            for adapter in config.adapters(model):
                add("finetune", model=model, variant=variant, adapter=adapter)
        for variant in config.variants("evaluation"):
            for adapter, task, lang in config.evaluations(model):
                where = {"adapter": adapter, "task": task, "lang": lang}
                add("evaluate_task", model=model, variant=variant, **where)
    for analysis in ("forcing", "fallback"):
        if getattr(config, analysis) is not None:
            add("judge_texts", analysis=analysis)
    from langneurons.jobs.files import fact_languages, question_languages

    if config.lss is not None:
        for lang in fact_languages(config):
            add("prepare_facts", lang=lang)
    for analysis in ("forcing", "fallback", "lens"):
        if getattr(config, analysis) is not None:
            for lang in question_languages(config, analysis):
                add("prepare_questions", analysis=analysis, lang=lang)
    for rule in ("labels", "name_figures", "page"):
        add(rule)
    for model in config.models:
        for protocol in ("", *config.protocols):
            add("draw_figures", model=model, protocol=protocol)
    return found


def plan(config: Config, folder: Path) -> Counter:
    """Compute everything that planning a run computes; return the number of jobs by rule."""
    names = namespace(config)
    for target in TARGETS:
        files = names[f"{target}_files"]()
        assert all(isinstance(path, str) for path in files)
    names["one_table_per_model"]()
    drawn = names["figure_files"]()
    assert all(f"{stem}.svg" in drawn for stem in names["NAMED"].values())
    for family, tables in names["TABLES"].items():
        assert names["table_inputs"](family) and names["table_outputs"](tables)
    for model in config.models:
        for protocol in ("", *config.protocols):
            assert names["drawing_inputs"](model, protocol) or not names["drawn"](model, protocol)
            assert set(names["drawing_outputs"](model, protocol)[::3]) <= set(drawn)
        names["memory"](Wildcards(model=model), 2)
        names["minutes"](Wildcards(model=model), 3)
        names["layers_needed"](Wildcards(model=model))
    counts: Counter = Counter()
    for rule, wildcards in jobs(config):
        parameters = stage(config, rule, **wildcards)
        assert json.loads(json.dumps(parameters)) == parameters
        counts[rule] += 1
    planner = Planner(config, ASSUMED, folder)
    try:
        assert text(planner.stages(), planner)
    except ConfigError as error:  # a model of the hub that nothing here names
        assert "size of models." in str(error)
    return counts
