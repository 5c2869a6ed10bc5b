"""What jobs used against what they asked for."""

import pytest

from langneurons.efficiency import main, used

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
    assert main([str(run / "small.yaml"), "--directory", str(run)]) == 0
    line = next(x for x in capsys.readouterr().out.splitlines() if x.startswith("collect"))
    # 2.5 hours in two jobs; 90 of 60 minutes; 1 of 4 GB; two cores.
    assert line.split()[1:8] == ["2", "2.50", "90.0", "150%", "1.00", "25%", "2.0"]
    assert "runtime_minutes: 135, mem_mb: 1500" in line


def test_nothing_has_run(tmp_path, capsys):
    (tmp_path / "small.yaml").write_text(CONFIG)
    assert main([str(tmp_path / "small.yaml"), "--directory", str(tmp_path)]) == 1
    assert "no finished jobs" in capsys.readouterr().err
