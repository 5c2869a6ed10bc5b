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
from langneurons.jobs.stages import STAGES
from langneurons.reporting.kinds import drawing_jobs

ROOT = Path(__file__).parents[2]
ASSUMED = parse_yaml((ROOT / ASSUMPTIONS).read_text(encoding="utf-8"))


def _python(name: str) -> str:
    """Return the functions, imports and constants of a rules file."""
    source = (ROOT / "workflow/rules" / name).read_text(encoding="utf-8")
    # A line that begins with a closing bracket ends the statement before it.
    blocks = re.split(r"^(?=[^\s)\]}])", source, flags=re.M)
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
    """Return (rule, wildcards) of every job."""
    found = [(rule, cell) for rule, one in STAGES.items() for cell in one.cells(config)]
    found += [(rule, {}) for rule in ("labels", "name_figures", "page")]
    pairs = ((model, protocol) for model in config.models for protocol in drawing_jobs(config))
    return found + [("draw_figures", {"model": one, "protocol": two}) for one, two in pairs]


def plan(config: Config, folder: Path) -> Counter:
    """Compute everything that planning a run computes; return the number of jobs by rule."""
    names = namespace(config)
    for target in ("table", "figure", "report", "resource", "final", "all_score"):
        assert all(isinstance(path, str) for path in names[f"{target}_files"]())
    names["one_table_per_model"]()
    drawn = names["figure_files"]()
    assert all(f"{stem}.svg" in drawn for stem in names["NAMED"].values())
    for families in names["table_jobs"](config).values():
        inputs = names["table_inputs"](families)
        assert all(read(None) is not None for read in inputs.values())
        assert inputs and names["table_outputs"](families)
    for model in config.models:
        for protocol in drawing_jobs(config):
            read = names["drawing_inputs"](model, protocol)(None)
            assert bool(read) == bool(names["drawn"](model, protocol))
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
        assert text(planner.lines(), planner)
    except ConfigError as error:  # a model of the hub that nothing here names
        assert "size of models." in str(error)
    return counts
