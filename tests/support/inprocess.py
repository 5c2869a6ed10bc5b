"""A run in one process: Snakemake plans it, its scripts are called in the order of the graph.

What takes seconds per job otherwise (a process, torch) is paid once, so that whole runs of small
configurations cost a second or two.
"""

import contextlib
import io
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numba

from langneurons.integrations import inprocess
from langneurons.integrations.inprocess import planned


class JobFailed(AssertionError):
    """A job of an accepted configuration failed."""


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


def run(folder: Path, config: Path, targets: tuple[str, ...] = ()) -> list[str]:
    """Run every job of a configuration; return the names of their rules.

    Raises:
        WorkflowError: the configuration is refused.
        JobFailed: a job failed; its cause says why.
    """
    done = []
    with _as_it_was(folder):
        for job in planned(folder, [config], targets):
            done.append(job.rule.name)
            call(job)
    return done


def call(job: Any) -> None:
    """Run the script of a job; say which job failed."""
    try:
        # The number of threads of numba, which no job can change in a process that runs.
        inprocess.call(job, numba.config.NUMBA_NUM_THREADS)
    except (Exception, SystemExit) as error:
        places = f"{job.rule.name} {dict(job.wildcards.items())}"
        raise JobFailed(f"{places}: {type(error).__name__}: {error}") from error
    missing = [path for path in job.output if not Path(path).exists()]
    if missing:
        raise JobFailed(f"{job.rule.name}: made no {missing[0]}")
