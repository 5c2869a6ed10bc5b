"""The validated configuration, and what every rules file needs of it."""

import sys
from functools import cache
from pathlib import Path

from snakemake.exceptions import WorkflowError
from snakemake.iocontainers import Wildcards
from snakemake.logging import logger

from langneurons.base.errors import ConfigError
from langneurons.base.languages import parts_of
from langneurons.base.shipped import project_file
from langneurons.config import read_configs
from langneurons.jobs.files import check_files
from langneurons.jobs.sizes import lora_modules, needed_layers, tight_memory
from langneurons.base.protocols import STAGES as DEPENDS
from langneurons.config.config import entry_languages, spoken
from langneurons.runtime.failures import describe, watch
from langneurons.jobs.code import SOURCES, code_digests
from langneurons.jobs.parameters import stage as stage_parameters
from langneurons.jobs.stages import STAGES
from langneurons.jobs.stages.activations import slice_files, slice_names
from langneurons.reporting.families import FAMILIES, table_families, table_jobs
from langneurons.reporting.kinds import KINDS, drawing_jobs, drawn_together
from langneurons.reporting.kinds import named_figure, report_labels

ROOT = Path(workflow.basedir)
DEFAULT_CONFIG = ROOT / "config" / "config.yaml"
MODEL_MEMORY_CAP = 512_000
MODEL_MINUTES_CAP = 2 * 24 * 60

try:
    cfg = read_configs(
        workflow.overwrite_configfiles or [DEFAULT_CONFIG],
        workflow.config_settings.config,
    )
    if workflow.is_main_process:  # jobs parse this file again
        check_files(cfg)
except ConfigError as error:
    raise WorkflowError(f"configuration: {error}")

WATCH = watch(logger)
# Jobs that fetch at once, unless a profile or --resources says: a login node is shared.
if workflow.global_resources.get("network") is None:
    workflow.register_resource("network", 2)

SOURCES.keep_in(Path.cwd() / ".snakemake" / "sources.json")
SETS = cfg.directory_languages()
PAPER = cfg.name
PRINTED = cfg.results.published and str(project_file(cfg.results.published))
TABLES = table_families(cfg)
NAMED = {name: named_figure(cfg, name).stem for name in cfg.results.figures}


def alternatives(words):
    """Return a wildcard constraint that matches exactly these words."""
    import re

    return "|".join(sorted(map(re.escape, words))) or "-"


wildcard_constraints:
    model=alternatives(cfg.models),
    lang=alternatives(
        {*cfg.language_names(), *cfg.fetched(cfg.language_names())}
        | {l for t in cfg.tasks.values() for l in t.languages}
        | {cell["lang"] for cell in STAGES["prepare_facts"].cells(cfg)}
    ),
    shard=r"\d+",
    langset=alternatives(SETS),
    selection=alternatives(cfg.selections),
    intervention=alternatives(cfg.interventions),
    method=alternatives(
        [
            *(cfg.trials.methods if cfg.trials else ()),
            *(cfg.answers.methods if cfg.answers else ()),
        ]
    ),
    phase="development|test",
    judge=alternatives(cfg.answers.judge.models if cfg.answers and cfg.answers.judge else ()),
    task=alternatives(cfg.tasks),
    adapter=alternatives(["base", *(name for model in cfg.models for name in cfg.adapters(model))]),
    finetuning=alternatives(cfg.finetunings),
    analysis="forcing|fallback|lens|answers",
    variant=alternatives(variant for name in DEPENDS for variant in cfg.variants(name)),


def languages_of(rule):
    """Return a wildcard constraint that matches the languages of a stage's jobs."""
    return alternatives({cell["lang"] for cell in STAGES[rule].cells(cfg)})


def stage(name, **given):
    """Return an input-free parameter function: what the configuration says of a job."""

    def parameters(wc):
        return stage_parameters(cfg, name, **dict(wc.items()), **given)

    return parameters


def code(script, *also):
    """Return the digests of a script and of the modules that it reaches, one word each."""
    digests = code_digests(str(ROOT / "workflow" / "scripts" / script), also)
    return [f"{module}={value}" for module, value in digests.items()]


def of_model(model):
    """Return the wildcards of a model, for a rule that is of one model and has none."""
    return Wildcards(fromdict={"model": model})


def weights(wc):
    """Return the manifest of the weights that a model's jobs load."""
    return cfg.manifest(wc.model)


def gpus(wildcards):
    """Return the GPUs of a model's job; 0 where they are asked for by `--gres`."""
    model = wildcards.get("judge", wildcards.model)
    return 0 if cfg.runtime.gres else cfg.gpus(model)


def gres_gpus(wildcards):
    """Return the GPUs of a model's job that are asked for by `--gres`, for a cap on these."""
    model = wildcards.get("judge", wildcards.model)
    return cfg.gpus(model) if cfg.runtime.gres else 0


def gres(wildcards):
    """Return what a model's job asks for by `--gres`, such as gpu:2; empty without `runtime.gres`."""
    number = gres_gpus(wildcards)
    return f"{cfg.runtime.gres}:{number}" if number else ""


def layers_needed(wildcards):
    """Return how many layers the interventions of a model need; 0 if they name none."""
    return needed_layers(cfg, wildcards.model)


def modules_needed(wildcards):
    """Return the linear layers of a model that fine-tunings train."""
    return " ".join(lora_modules(cfg, wildcards.model))


def memory(wildcards, attempt):
    """Return the memory of a model job in MB: doubled at each attempt, up to a cap."""
    asked = cfg.runtime.mem_mb
    return max(asked, min(MODEL_MEMORY_CAP, asked * 2 ** (attempt - 1)))


def minutes(wildcards, attempt):
    """Return the time limit of a model job in minutes: grows with the attempt, up to a cap."""
    asked = cfg.runtime.runtime_minutes
    return max(asked, min(MODEL_MINUTES_CAP, asked * attempt))


def statistics_of_set(wc):
    """Return the statistics of every language of a set."""
    return {lang: f"results/{wc.model}/activations/{lang}.safetensors" for lang in SETS[wc.langset]}


def one_table_per_model():
    """Return a neuron table of every model."""
    cells = {model: cfg.cells(model)[0] for model in cfg.models if cfg.cells(model)}
    return [
        f"results/{model}/neurons/{cfg.directory(langset)}/{selection}.parquet"
        for model, (langset, selection) in cells.items()
    ]


def resource_files():
    """Return everything that is fetched: models, text, tasks. Nothing is quantised for it."""
    rules = ("prepare_model", "prepare_mask", "fetch_text", "prepare_task", "prepare_facts")
    return [path for rule in (*rules, "prepare_training") for path in files(rule)]


def files(rule):
    """Return the files of a stage: the first of every job."""
    return STAGES[rule].files(cfg)


def statistics_files():
    """Return the statistics of every model and language."""
    return [path for model in cfg.models for path in statistics_of(model)]


def statistics_of(model):
    """Return the statistics of every language of a model."""
    return [
        f"results/{model}/activations/{lang}.safetensors" for lang in cfg.model_languages(model)
    ]


def final_files():
    """Return the files of stages that no table or figure reads."""
    return [path for stage in STAGES.values() if stage.final for path in stage.files(cfg)]


def table_files():
    """Return every table of this configuration."""
    return [f"results/tables/{PAPER}/{name}.csv" for names in TABLES.values() for name in names]


@cache
def drawn(model, protocol):
    """Return the figures that a job draws of a model."""
    return list(drawn_together(cfg, model, protocol))


def figure_files():
    """Return every figure of this configuration."""
    pairs = [(model, protocol) for model in cfg.models for protocol in drawing_jobs(cfg)]
    stems = [one.stem for pair in pairs for one in drawn(*pair)]
    named = [f"results/figures/{PAPER}/{name}" for name in NAMED]
    return sorted(f"{stem}.svg" for stem in [*stems, *named])


def report_files():
    """Return the results page."""
    return [f"results/reports/{PAPER}.html"]


def browser_files():
    """Return the pages of neurons: one of each model and language set."""
    return [
        f"results/browser/{PAPER}/{cell['model']}/{cell['langset']}/index.html"
        for cell in STAGES["describe_neurons"].cells(cfg)
    ]


onstart:
    print(
        f"langneurons: {cfg.name} ({len(cfg.models)} model(s), {len(SETS)} language set(s))."
        " Logs: logs/, results: results/.",
        file=sys.stderr,
    )
    from langneurons.jobs.evidence import thin_evidence

    for text in [*thin_evidence(cfg), *tight_memory(cfg)]:
        print(f"langneurons: warning: {text}", file=sys.stderr)


def ended():
    """Return the words at the end of a run: where what it was asked for lies."""
    rules_run = {job.rule.name for job in workflow.dag.jobs}
    if "write_report" in rules_run:
        return (
            f"Open results/reports/{PAPER}.html. Tables: results/tables/{PAPER}/, figures:"
            f" results/figures/{PAPER}/."
        )
    asked = sorted(str(path) for path in workflow.dag.targetfiles)
    if not asked:
        names = {job.rule.name for job in workflow.dag.targetjobs}
        return f"What it was asked for is there: {', '.join(sorted(names))}."
    more = f" and {len(asked) - 3} more" if len(asked) > 3 else ""
    return f"What it was asked for is there: {', '.join(asked[:3])}{more}."


onsuccess:
    print(f"langneurons: {cfg.name} finished. {ended()}", file=sys.stderr)


onerror:
    print(describe(WATCH.failures, sys.argv[1:], log), file=sys.stderr)
