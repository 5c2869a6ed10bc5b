"""A run in one process: Snakemake plans it, its scripts are called in the order of the graph.

What takes seconds per job otherwise (a process, torch) is paid once, so that whole runs of small
configurations cost a second or two.
"""

import contextlib
import importlib.util
import io
import logging
import os
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numba
from snakemake.api import SnakemakeApi
from snakemake.settings.types import (
    ConfigSettings,
    DAGSettings,
    OutputSettings,
    Quietness,
    ResourceSettings,
)

ROOT = Path(__file__).parent.parent


class JobFailed(AssertionError):
    """A job of an accepted configuration failed."""


@cache
def _script(path: str) -> Callable[[Any], None]:
    """Return the `main` of a script."""
    spec = importlib.util.spec_from_file_location(f"script_{Path(path).stem}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.main


@contextlib.contextmanager
def _as_it_was(folder: Path) -> Iterator[None]:
    """Work in a folder; put back what scripts set in their process."""
    environment, here = dict(os.environ), Path.cwd()
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    os.chdir(folder)
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        os.chdir(here)
        os.environ.clear()
        os.environ.update(environment)
        for handler in root.handlers:
            if handler not in handlers:
                handler.close()
        root.handlers[:], root.level = handlers, level


def planned(folder: Path, config: Path, targets: tuple[str, ...] = ()) -> list[Any]:
    """Return the jobs of a run in the order in which they can run.

    Raises:
        WorkflowError: the configuration is refused.
    """
    output = OutputSettings(quiet={Quietness.ALL}, enable_file_logging=False)
    with SnakemakeApi(output) as api:
        workflow = api.workflow(
            resource_settings=ResourceSettings(cores=1),
            config_settings=ConfigSettings(configfiles=[config]),
            snakefile=ROOT / "Snakefile",
            workdir=folder,
        )
        dag = workflow.dag(dag_settings=DAGSettings(targets=set(targets)))
        dag.execute_workflow(executor="dryrun")
        graph = workflow._workflow.dag
        ordered = [job for level in graph.toposorted() for job in level]
        return [job for job in ordered if job.rule.script and graph.needrun(job)]


def run(folder: Path, config: Path, targets: tuple[str, ...] = ()) -> list[str]:
    """Run every job of a configuration; return the names of their rules.

    Raises:
        WorkflowError: the configuration is refused.
        JobFailed: a job failed; its cause says why.
    """
    done = []
    with _as_it_was(folder):
        for job in planned(folder, config, targets):
            done.append(job.rule.name)
            call(job)
    return done


def call(job: Any) -> None:
    """Run the script of a job as Snakemake would."""
    for path in (*job.output, *job.log):
        Path(path).parent.mkdir(parents=True, exist_ok=True)
    given = SimpleNamespace(
        input=job.input,
        output=job.output,
        params=job.params,
        wildcards=job.wildcards,
        threads=numba.config.NUMBA_NUM_THREADS,  # which no job can change in a process that runs
        log=job.log,
        resources=job.resources,
        rule=job.rule.name,
    )
    path = ROOT / "workflow/rules" / job.rule.script
    try:
        _script(str(path.resolve()))(given)
    except (Exception, SystemExit) as error:
        places = f"{job.rule.name} {dict(job.wildcards.items())}"
        raise JobFailed(f"{places}: {type(error).__name__}: {error}") from error
    missing = [path for path in job.output if not Path(path).exists()]
    if missing:
        raise JobFailed(f"{job.rule.name}: made no {missing[0]}")
