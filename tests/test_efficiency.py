"""What jobs used against what they asked for."""

from pathlib import Path

import pytest

from langneurons.cli import main
from langneurons.jobs import efficiency
from langneurons.jobs.efficiency import used

CONFIG = """
name: small
models: {tiny: {source: {kind: local, path: tiny-model}}}
language_sets: {two: [en, vi]}
selections: {lape: {method: lape}}
runtime: {mem_mb: 4000, runtime_minutes: 60}
"""
HEAD = "s\th:m:s\tmax_rss\tmean_load\n"


@pytest.fixture
def run(tmp_path):
    (tmp_path / "small.yaml").write_text(CONFIG)
    for rule, number, row in (
        ("collect_statistics", 0, "3600\t1:00:00\t1000\t180"),
        ("collect_statistics", 1, "5400\t1:30:00\tNA\t220"),
        ("draw_layers", 0, "6\t0:00:06\t200\t90"),
    ):
        path = tmp_path / f"benchmarks/results/{rule}/tiny/{number}.tsv"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(HEAD + row + "\n")
    return tmp_path


def test_a_rule_is_the_sum_of_its_jobs(run):
    first, second = used(run / "benchmarks/results")
    assert (first.rule, second.rule) == ("collect_statistics", "draw_layers")
    assert (first.seconds, first.memory, first.load) == ([3600, 5400], [1000], [180, 220])


def test_the_report_says_what_to_ask_for(run, capsys):
    assert main(["efficiency", str(run / "small.yaml"), "--directory", str(run)]) == 0
    line = next(x for x in capsys.readouterr().out.splitlines() if x.startswith("collect"))
    # 2.5 hours in two jobs; 90 of 60 minutes; 1 of 4 GB; two cores.
    assert line.split()[1:8] == ["2", "2.50", "90.0", "150%", "1.00", "25%", "2.0"]
    assert "runtime_minutes: 135, mem_mb: 1500" in line


def test_without_a_run_it_says_what_to_do(tmp_path, capsys):
    (tmp_path / "small.yaml").write_text(CONFIG)
    file = str(tmp_path / "small.yaml")
    assert main(["efficiency", file, "--directory", str(tmp_path)]) == 1
    said = capsys.readouterr().err
    assert "No job has finished here" in said and f"snakemake --configfile {file}" in said


SAID = """\
11|COMPLETED|120|60|4000M||/runs/a|rule_finetune_wildcards_tiny_nli+none
11.batch|COMPLETED|120||||/runs/a|
11.0|COMPLETED|118|||1500000K||
12|TIMEOUT|3600|60|4G||/runs/a|rule_finetune_wildcards_tiny_nli|target
12.batch|CANCELLED|3600|||3G||
13|CANCELLED by 0|5|120|2000Mn||/runs/a|rule_pack_corpus_wildcards_tiny_en
14|COMPLETED|50|60|4000M||/runs/b|rule_finetune_wildcards_tiny_x
15|PREEMPTED|7|UNLIMITED|||/runs/a|None
"""


def test_what_slurm_says_is_summed_by_rule(tmp_path):
    first, second, third = efficiency.accounted(SAID, Path("/runs/a"))
    assert (first.rule, second.rule, third.rule) == ("finetune", "unnamed", "pack_corpus")
    assert first.states == {"COMPLETED": 1, "TIMEOUT": 1} and first.seconds == 3720
    assert first.time == pytest.approx([2 / 60, 1.0])
    assert first.memory == pytest.approx([1500000 / 1024 / 4000, 0.75])
    assert second.states == {"PREEMPTED": 1} and second.time == []
    assert third.states == {"CANCELLED": 1} and third.memory == []
    text = efficiency.accounts_table([first])
    assert "1 COMPLETED, 1 TIMEOUT" in text and "100%" in text and "75%" in text


def test_sizes_of_sacct():
    assert efficiency.megabytes("4000Mn") == 4000 and efficiency.megabytes("2G") == 2048
    assert efficiency.megabytes("512K") == 0.5 and efficiency.megabytes("1048576") == 1
    assert efficiency.megabytes("") is None
