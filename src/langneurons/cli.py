"""The command `langneurons`: find, steer and judge language neurons; check, plan and run."""

import json
import subprocess
import sys
from dataclasses import asdict
from enum import StrEnum
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer

from langneurons.base.errors import ConfigError, InputError
from langneurons.base.io import DamagedFile
from langneurons.base.shipped import PROJECT, project_file

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Language-specific neurons of multilingual models: find, test, train, share, judge.",
)
Configs = Annotated[
    list[str], typer.Argument(metavar="CONFIG", help="Configuration files; later over earlier.")
]
MODEL = "Repository of the hub (owner/name), folder, GGUF file, or the embedded gemma3-270m."
Directory = Annotated[Path, typer.Option(help="Working directory of the run.")]


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; return the exit status. A user's mistake ends in words."""
    try:
        app(args=arguments, prog_name="langneurons")
    except SystemExit as ended:
        return int(ended.code or 0)
    except (ConfigError, InputError, DamagedFile, FileNotFoundError, IsADirectoryError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def _needs(extra: str, *modules: str) -> None:
    """Refuse a command whose optional packages are not installed."""
    missing = [name for name in modules if find_spec(name) is None]
    if missing:
        raise InputError(
            f"this command needs {', '.join(missing)}, which is not installed. Install it with:"
            f" pip install 'langneurons[{extra}]'."
        )


@app.command(short_help="Run the workflow on the embedded model.")
def demo(
    cores: Annotated[int, typer.Option(min=1, help="Processor cores.")] = 2,
    directory: Directory = Path(),
    dry_run: Annotated[bool, typer.Option("--dry-run", "-n", help="Show the jobs only.")] = False,
) -> None:
    """Run the whole workflow on the embedded model: neurons, interventions, tables, report.

    Example: langneurons demo --cores 4 --directory demo
    """
    _needs("workflow,model", "snakemake", "matplotlib")
    directory.mkdir(parents=True, exist_ok=True)
    config = str(PROJECT / "config" / "config.yaml")
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(PROJECT / "Snakefile")]
    command += ["--configfile", config, "--cores", str(cores), "--directory", str(directory)]
    command += ["--rerun-incomplete", "--rerun-triggers", "mtime", "params", "input"]
    done = subprocess.run([*command, *(["--dry-run"] if dry_run else [])])
    if done.returncode:
        raise typer.Exit(done.returncode)
    if not dry_run:
        print(f"Open {directory / 'results/reports/demo.html'}")


class Match(StrEnum):
    """How random neurons are drawn."""

    NONE = "none"
    LAYER = "layer"
    FREQUENCY = "frequency"


@app.command(short_help="Find the neurons of languages in a model.")
def find(
    model: Annotated[str, typer.Argument(help=MODEL)],
    languages: Annotated[str, typer.Option(help="Codes of two or more languages, by commas.")],
    text: Annotated[
        Path | None,
        typer.Option(
            help="Folder with {language}.txt (a document per line) or {language}.jsonl (field"
            " `text`); left out: the parallel sentences that come with the package."
        ),
    ] = None,
    method: Annotated[str, typer.Option(help="Selection method.")] = "lape",
    parameter: Annotated[
        list[str] | None,
        typer.Option(help="Parameter of the method, name=value; repeatable.", metavar="NAME=VALUE"),
    ] = None,
    output: Annotated[Path, typer.Option(help="Folder to write the neurons to.")] = Path("neurons"),
    statistics: Annotated[
        Path | None, typer.Option(help="Folder to write the activation statistics to.")
    ] = None,
    control: Annotated[
        Match | None,
        typer.Option(help="Write as many random neurons too, matched in this way."),
    ] = None,
    device: Annotated[str | None, typer.Option(help="Such as cpu or cuda:1.")] = None,
) -> None:
    """Find the neurons of languages in a model and write them to a folder.

    Example: langneurons find gemma3-270m --languages fr,vi --parameter rate=0.01
    --control frequency
    """
    import langneurons as api
    from langneurons.api.command import counted, method_of, texts_of
    from langneurons.reporting.tables.write import to_markdown
    from langneurons.sharing.folder import check_free

    texts = texts_of(text, [code.strip() for code in languages.split(",") if code.strip()])
    given, needs = method_of(method, parameter or ())
    random = None if control is None else output.with_name(f"{output.name}-control")
    for folder, kind in ((output, "neurons"), (random, "neurons"), (statistics, "statistics")):
        if folder is not None:
            check_free(folder, kind)
    measured = api.collect(api.load(model, device=device), texts, **needs)
    if statistics is not None:
        measured.save(statistics)
    neurons = api.select(measured, method, **given)
    neurons.save(output)
    print(to_markdown(counted(neurons, measured)))
    print(f"{neurons.unique} neurons of {neurons.n_layers * neurons.d_mlp}: {output}")
    if control is not None and random is not None:
        neurons.control(control.value).save(random)
        print(f"as many random neurons (match: {control.value}): {random}")


@app.command(short_help="Let a model write with neurons overwritten.")
def steer(
    model: Annotated[str, typer.Argument(help=MODEL)],
    neurons: Annotated[Path, typer.Argument(help="Folder of neurons, or a neuron table.")],
    prompt: Annotated[list[str], typer.Option(help="Text to continue; repeatable.")],
    language: Annotated[str, typer.Option(help="The language whose neurons are overwritten.")],
    operation: Annotated[str, typer.Option(help="set, add, scale, at_least or at_most.")] = "set",
    value: Annotated[
        str, typer.Option(help="A number, or a statistic of each neuron: mean, p90, ...")
    ] = "0",
    statistics: Annotated[
        Path | None, typer.Option(help="Folder of statistics; needed where the value is one.")
    ] = None,
    tokens: Annotated[int, typer.Option(min=1, help="Tokens of an answer, at most.")] = 40,
    chat: Annotated[
        bool, typer.Option(help="Ask by the model's chat template: an instruction-tuned model.")
    ] = False,
    device: Annotated[str | None, typer.Option(help="Such as cpu or cuda:1.")] = None,
) -> None:
    """Let a model continue prompts, untouched and with a language's neurons overwritten.

    Example: langneurons steer gemma3-270m neurons --language vi --value 0
    --prompt "Hà Nội là"
    """
    import langneurons as api
    from langneurons.base.yaml import plain_value

    if not neurons.exists():
        raise FileNotFoundError(
            f"{neurons}: there is no such folder; `langneurons find` writes one."
        )
    table = api.Neurons.load(neurons)
    known = None if statistics is None else api.Statistics.load(statistics)
    plan_ = api.plan(table, language, operation, plain_value(value), known)
    loaded = api.load(model, device=device)
    asked_as = [[{"role": "user", "content": one}] for one in prompt] if chat else prompt
    answers = api.generate(loaded, asked_as, [None, plan_], tokens)
    for asked, untouched, written in zip(prompt, *answers, strict=True):
        print(f"prompt:    {asked}\nuntouched: {untouched}\nsteered:   {written}\n")
    print(f"{operation} {value}: {plan_.neurons} neurons of {language} overwritten")


class To(StrEnum):
    """Formats of other tools."""

    LORA = "lora"
    GGUF_LORA = "gguf-lora"
    STEER = "steer"
    CONTROL_VECTOR = "control-vector"
    NNSIGHT = "nnsight"


@app.command(short_help="Write what is overwritten for PEFT, vLLM, llama.cpp, ...")
def export(
    model: Annotated[str, typer.Argument(help=MODEL)],
    neurons: Annotated[
        Path, typer.Argument(help="Folder of neurons or directions, or a neuron table.")
    ],
    language: Annotated[str, typer.Option(help="Codes, by commas; or all.")],
    to: Annotated[
        To,
        typer.Option(
            help="lora: PEFT, vLLM; gguf-lora, control-vector: llama.cpp; steer: steer_path of the"
            " EleutherAI harness; nnsight: a script."
        ),
    ] = To.LORA,
    write: Annotated[
        str,
        typer.Option(
            metavar="'OPERATION VALUE [NAME=VALUE ...]'",
            help="What is written, and more keys of a step: site, layers, coefficient, ...",
        ),
    ] = "set 0",
    statistics: Annotated[
        Path | None, typer.Option(help="Folder of statistics; needed where the value is one.")
    ] = None,
    output: Annotated[Path, typer.Option(help="Folder to write to.")] = Path("exports"),
) -> None:
    """Write neurons or directions of languages for tools that run them without hooks.

    Each language becomes a folder or file of OUTPUT. docs/exports.md says what fits where.

    Example: langneurons export gemma3-270m neurons --language fr,vi --to lora --write "set 0"
    """
    import langneurons as api
    from langneurons.api.command import plans_of, read_units

    units = read_units(neurons)
    known = None if statistics is None else api.Statistics.load(statistics)
    plans = plans_of(units, language, write, known)
    loaded = api.load(model, dtype="float32", device="cpu")
    for lang, one in api.export(loaded, plans, output, to.value, units).items():
        rank = "" if one.rank is None else f", rank {one.rank}"
        print(f"{lang}: {one.what}{rank}: {one.path}")


@app.command(short_help="Check configurations, or shared folders; nothing runs.")
def check(
    configs: Annotated[
        list[str],
        typer.Argument(metavar="CONFIG", help="Configuration files; or shared folders and files."),
    ],
) -> None:
    """Check configurations without running anything: keys, names, files, layers, lengths.

    Of a folder of statistics, neurons or directions, or a file of one (.safetensors, .parquet,
    .pth), print what it is and its sizes, or what is wrong with it.

    Example: langneurons check config/config.yaml
    """
    from langneurons.sharing.check import described, is_shared

    shared = [Path(one) for one in configs if is_shared(Path(one))]
    for path in shared:
        print(described(path))
    rest = [one for one in configs if Path(one) not in shared]
    if rest:
        _check_configs(rest)


def _check_configs(configs: list[str]) -> None:
    """Check configurations, and print what they ask for."""
    from langneurons.config import read_configs
    from langneurons.jobs.evidence import thin_evidence
    from langneurons.jobs.files import check_files
    from langneurons.jobs.sizes import tight_memory

    config = read_configs(configs)
    check_files(config)
    for model in config.models:
        langs = config.model_languages(model)
        cells = config.perplexity_cells(model)
        print(
            f"{config.name}: {model}: {len(langs)} languages, {len(config.cells(model))} neuron"
            f" tables, {len(cells)} perplexity matrices, {len(config.tasks)} tasks"
        )
    for text in [*thin_evidence(config), *tight_memory(config)]:
        print(f"warning: {text}", file=sys.stderr)


@app.command(short_help="Print what a run would cost.")
def plan(
    configs: Configs,
    assumptions: Annotated[
        Path | None, typer.Option(help="YAML file of devices and models; shipped: config/plan.yaml")
    ] = None,
    directory: Directory = Path(),
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Print what a run would cost before anything runs: jobs, GPU hours, memory, disk.

    Example: langneurons plan config/papers/mondal2025.yaml
    """
    from langneurons.base.yaml import read_yaml
    from langneurons.config import read_configs
    from langneurons.jobs.costs import ASSUMPTIONS, Planner, text
    from langneurons.jobs.evidence import thin_evidence

    assumed = read_yaml(assumptions or project_file(ASSUMPTIONS))
    planner = Planner(read_configs(configs), assumed, directory)
    stages = planner.lines()
    if as_json:
        print(json.dumps([asdict(stage) for stage in stages], indent=1))
        return
    print(text(stages, planner))
    for warning in thin_evidence(planner.config):
        print(f"warning: {warning}", file=sys.stderr)


@app.command(short_help="Print what finished jobs used.")
def efficiency(configs: Configs, directory: Directory = Path()) -> None:
    """Print what finished jobs used of what they asked for, by rule.

    Example: langneurons efficiency config/config.yaml --directory demo
    """
    from langneurons.config import read_configs
    from langneurons.jobs.efficiency import report

    print(report(read_configs(configs), directory, configs))


@app.command(short_help="Run one job of the graph in this process.")
def job(
    file: Annotated[str, typer.Argument(help="A file that the graph makes.")],
    configfile: Annotated[
        list[Path] | None, typer.Option(help="Configuration files; left out: the default.")
    ] = None,
    directory: Directory = Path(),
) -> None:
    """Run the job that makes a file in this process, so that a debugger can stop in its script.

    In an editor: debug the module langneurons with these arguments. Input files must be there.

    Example: langneurons job results/gemma3-270m/activations/fr.safetensors
    """
    _needs("workflow", "snakemake")
    from langneurons.integrations.inprocess import run_job

    configs = configfile or [PROJECT / "config" / "config.yaml"]
    done = run_job(file, configs, directory)
    print(f"{done.rule.name}: {', '.join(map(str, done.output))}")


@app.command(short_help="Convert neurons between their forms.")
def convert(
    source: Annotated[
        Path, typer.Argument(help="Folder of neurons, neuron table (.parquet) or masks (.pth).")
    ],
    target: Annotated[Path, typer.Argument(help="Folder or file to write, of another form.")],
    languages: Annotated[
        str | None,
        typer.Option(help="Codes in the order of the .pth file, by commas, or a known order."),
    ] = None,
    neurons_per_layer: Annotated[
        int | None, typer.Option(min=1, help="Intermediate size of the model.")
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="Model of masks (owner/name), which do not name theirs.")
    ] = None,
) -> None:
    """Convert neurons between a folder to share, a table of the graph, and published masks.

    Example: langneurons convert masks.pth neurons --languages en,zh --model owner/name
    --neurons-per-layer 11008
    """
    from langneurons.api.convert import convert as converted

    converted(source, target, languages, neurons_per_layer, model)


Repository = Annotated[str, typer.Argument(help="Repository of the hub, owner/name.")]


@app.command(short_help="Bring a shared folder to the hub.")
def push(
    folder: Annotated[
        Path, typer.Argument(help="Folder of statistics, neurons, directions, adapter.")
    ],
    repo: Repository,
    private: Annotated[bool, typer.Option("--private", help="Make a private repository.")] = False,
    collection: Annotated[
        bool, typer.Option("--collection", help="Add it to your collection of the model.")
    ] = False,
) -> None:
    """Bring a shared folder into a repository of the hub, which is made if need be.

    The token is that of `hf auth login`, or of HF_TOKEN in the environment.

    Example: langneurons push neurons owner/gemma-3-270m-neurons --private --collection
    """
    from langneurons.sharing.hub import push as pushed

    print(f"{repo} at {pushed(folder, repo, private, collection)}")


@app.command(short_help="Fetch a shared folder from the hub.")
def pull(
    repo: Repository,
    folder: Annotated[
        Path | None, typer.Argument(help="New folder; left out: the name of the repository.")
    ] = None,
    revision: Annotated[
        str | None, typer.Option(help="Commit, branch or tag; left out: the newest commit.")
    ] = None,
) -> None:
    """Fetch statistics, neurons or directions from a repository of the hub, and check them.

    Example: langneurons pull owner/gemma-3-270m-neurons neurons --revision main
    """
    from langneurons.sharing.check import described
    from langneurons.sharing.hub import pull_to

    print(described(pull_to(repo, folder or Path(repo.split("/")[-1]), revision)))


@app.command(short_help="Compare two runs, or two shared folders.")
def compare(
    first: Annotated[
        Path, typer.Argument(help="Folder of a run, its results, results/MODEL, or shared folder.")
    ],
    second: Annotated[Path, typer.Argument(help="Another one.")],
    html: Annotated[Path | None, typer.Option(help="Page to write.")] = None,
    csv: Annotated[Path | None, typer.Option(help="Folder to write all tables to.")] = None,
    confidence: Annotated[float, typer.Option(min=0.5, max=0.999, help="Of intervals.")] = 0.95,
) -> None:
    """Compare two runs: settings, masks, perplexity, steering shift, task scores, with intervals.

    Differences are second minus first. Two shared folders of one kind are compared as well.

    Example: langneurons compare demo demo-rate2 --html comparison.html --csv comparison
    """
    from langneurons.reporting.compare import compare as compared
    from langneurons.reporting.compare_page import comparison_text, write_csv, write_page

    found = compared(first, second, confidence)
    print(comparison_text(found))
    if html is not None:
        write_page(found, html)
    if csv is not None:
        print(f"\n{csv}: {', '.join(write_csv(found, csv))}")


@app.command(short_help="Run tasks of the EleutherAI harness.")
def evaluate(
    configs: Configs,
    model: Annotated[str, typer.Option(help="Name from `models`.")],
    task: Annotated[list[str], typer.Option(help="Task of the EleutherAI harness; repeatable.")],
    intervention: Annotated[str, typer.Option(help="Name from `interventions`, or none.")] = "none",
    language_set: Annotated[str | None, typer.Option(help="Whose neurons were selected.")] = None,
    selection: Annotated[str | None, typer.Option(help="How they were selected.")] = None,
    language: Annotated[
        str | None, typer.Option(help="The language whose neurons are overwritten.")
    ] = None,
    protocol: Annotated[
        str | None, typer.Option(help="Name from `protocols`; left out: the first.")
    ] = None,
    include_path: Annotated[
        Path | None, typer.Option(help="Folder with task files of your own.")
    ] = None,
    only_included: Annotated[bool, typer.Option(help="None of the harness's own tasks.")] = False,
    limit: Annotated[int | None, typer.Option(min=1, help="First items only.")] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Requests per batch.")] = 8,
    cache: Annotated[
        Path | None, typer.Option(help="Folder for answers; the fingerprint is added.")
    ] = None,
    output: Annotated[Path | None, typer.Option(help="JSON file; left out: printed.")] = None,
) -> None:
    """Run tasks of the EleutherAI harness on a model of a finished run, under an intervention.

    Example: langneurons evaluate config/config.yaml --model gemma3-270m --language-set mini
    --selection lape --intervention zero --language zh --task xcopa_zh --limit 20
    """
    _needs("harness", "lm_eval")
    from langneurons.base.io import write_text
    from langneurons.integrations.harness import InterventionLM, scores

    lm = InterventionLM.from_config(
        configs, model, intervention, language_set, selection, language, protocol, batch_size
    )
    text = json.dumps(scores(lm, task, include_path, only_included, limit, cache), indent=1)
    if output is None:
        print(text)
    else:
        write_text(output, text + "\n")


@app.command(short_help="Shrink the store of finished parts.")
def prune(
    root: Annotated[Path, typer.Argument(help="The store, such as results/.work.")],
    max_mb: Annotated[float, typer.Option(min=0, help="Size in MB that is left at most.")],
) -> None:
    """Delete the oldest finished parts of jobs until a store has a size. Results stay.

    Example: langneurons prune results/.work --max-mb 5000
    """
    from langneurons.base.store import prune as pruned

    count, freed = pruned(root, max_mb)
    print(f"{root}: {count} files, {freed / 2**20:.1f} MB deleted")


@app.command(short_help="Keep generated files in step.")
def reference(
    write: Annotated[bool, typer.Option(help="Write the files in place of comparing.")] = False,
) -> None:
    """Compare (or write) the files that follow from the definition of configurations.

    Example: langneurons reference --write
    """
    from langneurons.config.reference import files

    stale = []
    for path, content in files().items():
        file = PROJECT / path
        current = file.read_text(encoding="utf-8") if file.exists() else ""
        if current != content:
            stale.append(path)
            if write:
                file.write_text(content, encoding="utf-8")
    if write:
        print("written:", ", ".join(stale) or "nothing, all in step")
    elif stale:
        print(f"out of date: {', '.join(stale)}; run langneurons reference --write")
    if stale and not write:
        raise typer.Exit(1)


if __name__ == "__main__":
    sys.exit(main())
