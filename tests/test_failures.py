"""The last words of a failed run: which jobs, why, where to look, what to type."""

import json
import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest
import warm
from snakemake_interface_logger_plugins.common import LogEvent

from langneurons.runtime.failures import Failure, describe, watch

ROOT = Path(__file__).parent.parent


@pytest.fixture
def logger():
    return logging.Logger("snakemake.of.a.test")


def fail(logger, job, rule, log=(), message=None, output=("a.parquet", "b.json")):
    more = {"event": LogEvent.JOB_ERROR, "jobid": job, "rule_name": rule, "rule_msg": message}
    logger.error("Error", extra=more | {"output": list(output), "log": list(log)})


def test_jobs_that_finished_later_did_not_fail(logger):
    seen = watch(logger)
    assert watch(logger) is seen
    fail(logger, 7, "collect_statistics")
    fail(logger, 9, "finetune")
    logger.info("Finished", extra={"event": LogEvent.JOB_FINISHED, "job_id": 70})
    assert [one.rule for one in seen.failures] == ["collect_statistics", "finetune"]
    logger.info("Finished", extra={"event": LogEvent.JOB_FINISHED, "job_id": 7})
    assert [one.rule for one in seen.failures] == ["finetune"]


def test_the_words_name_reason_log_and_command(tmp_path, logger):
    log = tmp_path / "a.log"
    log.write_text("15:25:50 loaded\nTraceback ...\nValueError: no rows of 'vi'\n\n")
    seen = watch(logger)
    message = "SLURM-job '2' failed, SLURM status is: 'TIMEOUT'."
    fail(logger, 7, "collect_statistics", [log, "slurm/2.log (check log file(s))"], message)
    fail(logger, 9, "finetune", ["no/such.log"])
    text = describe(seen.failures, ["--configfile", "my runs/a.yaml", "-c", "2"])
    assert "2 job(s) failed" in text
    assert "collect_statistics -> a.parquet" in text
    assert "reason: ValueError: no rows of 'vi'" in text
    assert "TIMEOUT" in text and f"log: {log}" in text and "log: slurm/2.log\n" in text
    assert "reason: no log was written" in text
    assert text.splitlines()[-1] == "  snakemake --configfile 'my runs/a.yaml' -c 2"


def test_many_failures_are_counted_and_none_is_said():
    many = [Failure("finetune", "x", (), "killed")] * 12
    assert "12 job(s) failed" in describe(many, []) and "... and 2 more" in describe(many, [])
    text = describe([], ["-c2"], ["snakemake.log"])
    assert "ended early" in text and "log: snakemake.log" in text and "0 job(s)" not in text


@pytest.mark.parametrize("quiet", [[], ["--quiet"], ["--quiet", "all"], ["--quiet", "progress"]])
def test_a_quiet_run_names_its_failed_job(tmp_path, quiet):
    (tmp_path / "model").mkdir()
    (tmp_path / "model/config.json").write_text("{}")
    (tmp_path / "en.jsonl").write_text('{"text": "one"}\n{"text": \n')
    (tmp_path / "vi.jsonl").write_text('{"text": "one"}\n')
    config = {
        "name": "small",
        "models": {"tiny": {"source": {"kind": "local", "path": "model"}}},
        "language_sets": {"two": ["en", "vi"]},
        "corpus": {"source": {"kind": "jsonl", "path": "{lang}.jsonl"}},
        "selections": {"lape": {"method": "lape"}},
    }
    (tmp_path / "mine.yaml").write_text(json.dumps(config))
    command = [
        "-s",
        str(ROOT / "Snakefile"),
        "resources/text/en.jsonl",
        "-c1",
        "--configfile",
        "mine.yaml",
        *quiet,
    ]
    done = subprocess.run(
        [warm.python(), "-m", "snakemake", *command],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT / "src")},
    )
    assert done.returncode != 0
    last = done.stderr[done.stderr.index("langneurons: 1 job(s) failed") :]
    assert "fetch_text -> resources/text/en.jsonl" in last
    assert "en.jsonl" in last.split("reason: ")[1].splitlines()[0]
    assert "log: logs/fetch_text/en.log" in last
    assert f"  snakemake {' '.join(command)}\n" in last


def test_numba_takes_the_threads_of_the_job_before_any_loop_runs(tmp_path):
    """A loop from numba's cache begins its threads; one that is compiled later asks again."""
    code = """
import sys, types
from pathlib import Path
from langneurons.activations import loops  # imports numba, before the job says its threads
from langneurons.runtime.job import start
import numpy as np
from numba.core import config
here = Path(sys.argv[1])
given = types.SimpleNamespace(log=[str(here / "log")], resources={}, threads=3, params={})
start(given)
counts = np.ones((4, 274)); found = np.empty(4)
for again in (False, True):
    if again:
        loops.exceedance.recompile()
    loops.exceedance(counts, np.zeros(4), np.zeros(4), np.ones(4), np.linspace(0, 1, 275), found)
print(config.NUMBA_NUM_THREADS)
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True
    )
    assert done.returncode == 0 and done.stdout.strip() == "3", done.stderr[-2000:]
