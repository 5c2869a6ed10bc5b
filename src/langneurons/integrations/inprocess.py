"""Jobs of the graph in this process: Snakemake plans them, their scripts are called.

For a debugger (`langneurons job FILE`), and for whole runs of small configurations, in which a
process and a start of torch per job would take most of the time.
"""

import contextlib
import importlib.util
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from snakemake.api import SnakemakeApi
from snakemake.exceptions import RuleException, WorkflowError
from snakemake.settings.types import (
    ConfigSettings,
    DAGSettings,
    OutputSettings,
    Quietness,
    ResourceSettings,
)

from langneurons.base.errors import InputError
from langneurons.base.shipped import PROJECT

RULES = PROJECT / "workflow" / "rules"


@cache
def _script(path: Path) -> Callable[[Any], None]:
    """Return the `main` of a script."""
    spec = importlib.util.spec_from_file_location(f"script_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise FileNotFoundError(path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.main


def planned(
    folder: Path, configs: Sequence[Path], targets: Iterable[str] = (), again: bool = False
) -> list[Any]:
    """Return the jobs of a run that have a script, in the order in which they can run.

    again: with those of the targets that are up to date.

    Raises:
        WorkflowError: The configuration is refused, or no rule makes a target.
    """
    output = OutputSettings(quiet={Quietness.ALL}, enable_file_logging=False)
    with SnakemakeApi(output) as api:
        workflow = api.workflow(
            resource_settings=ResourceSettings(cores=1),
            config_settings=ConfigSettings(configfiles=list(configs)),
            snakefile=PROJECT / "Snakefile",
            workdir=folder,
        )
        settings = DAGSettings(targets=set(targets), forcetargets=again)
        dag = workflow.dag(dag_settings=settings)
        dag.execute_workflow(executor="dryrun")
        graph = workflow._workflow.dag
        ordered = [job for level in graph.toposorted() for job in level]
        return [job for job in ordered if job.rule.script and graph.needrun(job)]


def call(job: Any, threads: int | None = None) -> None:
    """Run the script of a job as Snakemake would, in this process."""
    for path in (*job.output, *job.log):
        Path(path).parent.mkdir(parents=True, exist_ok=True)
    given = SimpleNamespace(
        input=job.input,
        output=job.output,
        params=job.params,
        wildcards=job.wildcards,
        threads=job.threads if threads is None else threads,
        log=job.log,
        resources=job.resources,
        rule=job.rule.name,
    )
    _script((RULES / job.rule.script).resolve())(given)


def run_job(target: str, configs: Sequence[Path], folder: Path = Path()) -> Any:
    """Run the job that makes a file, with the inputs that are there; return the job.

    Raises:
        InputError: No rule makes the file, or other jobs must run first.
    """
    configs = [path.resolve() for path in configs]
    with contextlib.chdir(folder):
        try:
            *before, job = planned(Path(), configs, [target], again=True)
        except (RuleException, WorkflowError) as error:
            raise InputError(f"{target}: {str(error).splitlines()[0]}") from None
        missing = [path for path in job.input if not Path(path).exists()]
        if missing:
            named = " ".join(str(path) for path in configs)
            raise InputError(
                f"{target}: its input {missing[0]} is not there ({len(before)} jobs come first)."
                f" Run: snakemake --configfile {named} -c 2 {missing[0]}"
            )
        call(job)
    return job
