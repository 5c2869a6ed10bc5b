"""The command line: each command's help and example, what it prints, mistakes in words."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from langneurons.cli import app, main

ROOT = Path(__file__).parent.parent
COMMANDS = sorted(command.name or command.callback.__name__ for command in app.registered_commands)


@pytest.fixture(autouse=True)
def in_the_root(monkeypatch):
    monkeypatch.chdir(ROOT)


@pytest.mark.parametrize("command", COMMANDS)
def test_the_help_of_each_command_has_an_example_that_it_takes(command, capsys):
    assert main([command, "--help"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    example = re.search(rf"Example: (langneurons {command}.*?) (?:Arguments|Options):", text)
    assert example is not None
    options = set(re.findall(r"--[a-z-]+", example[1]))
    assert options <= set(re.findall(r"--[a-z-]+", text.split("Options:")[1]))


def test_without_a_command_the_commands_are_listed(capsys):
    main([])
    shown = capsys.readouterr()
    assert all(name in shown.out + shown.err for name in COMMANDS)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["check", "config/confg.yaml"], ["config/confg.yaml: there is no such file", "config"]),
        (["plan", "nowhere.yaml"], ["nowhere.yaml: there is no such file"]),
        (["plan", "config/config.yaml", "--assumptions", "no.yaml"], ["no.yaml"]),
        (["plan", "config/config.yaml", "--cores", "2"], ["No such option", "--cores"]),
        (["plan"], ["Missing argument", "CONFIG"]),
        (["demo", "--cores", "0"], ["--cores", "equal to 1"]),
        (["convert", "a.pth", "b.txt"], ["a.pth to b.txt", "two different forms", ".parquet"]),
        (["convert", "a.pth", "b.parquet"], ["a.pth: no file or folder has this name"]),
        (["check", "nowhere.safetensors"], ["nowhere.safetensors: there is no such file"]),
        (["check", "docs"], ["docs: no README.md in it", "not a shared folder"]),
        (["push", "docs", "owner/name"], ["docs: no README.md in it", "adding.md"]),
        (["pull", "name"], ["'name' is not a repository", "owner/name"]),
        (["efficiency", "config/config.yaml", "--directory", "nowhere"], ["No job has finished"]),
        (["prune", "docs", "--max-mb", "1"], ["docs is not a store"]),
        (["fnd"], ["fnd"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_mistakes_end_in_words(arguments, words, capsys):
    assert main(arguments) in (1, 2)
    shown = capsys.readouterr()
    assert "Traceback" not in shown.err and shown.out == ""
    assert all(word in shown.err for word in words)


def test_a_mistake_in_a_configuration_ends_in_its_error(tmp_path, capsys):
    text = (ROOT / "config/config.yaml").read_text().replace("selections:", "selektions:")
    (tmp_path / "mine.yaml").write_text(text)
    assert main(["check", str(tmp_path / "mine.yaml")]) == 1
    assert "selektions: unknown key" in capsys.readouterr().err


def test_the_command_is_installed_under_its_name():
    command = Path(sys.executable).with_name("langneurons")
    done = subprocess.run([command, "check", "config/config.yaml"], capture_output=True, text=True)
    assert done.returncode == 0 and "demo: gemma3-270m" in done.stdout


def test_the_module_is_the_same_command(tmp_path):
    """From another folder a configuration that comes with the package is found by its name."""
    done = subprocess.run(
        [sys.executable, "-m", "langneurons", "check", "config/papers/tang2024.yaml"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "tang2024" in done.stdout


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """Return a folder with a tiny model, and texts in two languages beside it."""
    pytest.importorskip("torch")
    from tiny import tiny_model, tiny_tokenizer

    folder = tmp_path_factory.mktemp("tiny")
    tiny_model("llama").save_pretrained(folder / "model")
    tiny_tokenizer().save_pretrained(folder / "model")
    for lang, words in {"aa": range(0, 40), "bb": range(40, 80)}.items():
        lines = [" ".join(f"w{(k * n) % 40 + words[0]}" for k in words) for n in range(1, 40)]
        (folder / f"{lang}.txt").write_text("\n".join(lines))
    return folder


def test_neurons_are_found_and_steer(tiny, tmp_path, capsys, monkeypatch):
    import numpy as np

    from langneurons import Neurons, Statistics

    monkeypatch.setenv("LANGNEURONS_CACHE", str(tmp_path / "cache"))
    out, statistics = tmp_path / "found", tmp_path / "statistics"
    arguments = ["find", str(tiny / "model"), "--languages", "aa,bb", "--text", str(tiny)]
    arguments += ["--method", "mean_difference", "--parameter", "rate=0.2", "--output", str(out)]
    arguments += ["--statistics", str(statistics), "--control", "layer"]
    assert main(arguments) == 0
    shown = capsys.readouterr().out
    neurons, control = Neurons.load(out), Neurons.load(tmp_path / "found-control")
    measured = Statistics.load(statistics)
    difference = measured["aa"].mean("act") - measured["bb"].mean("act")
    mask = neurons.mask("aa")
    assert mask.any() and difference[mask].min() >= np.sort(difference[~mask])[-1]
    assert (control.counts() == neurons.counts()).all() and not (control.mask("aa") & mask).any()
    assert f"{neurons.counts()['aa']}" in shown and f"{neurons.unique} neurons of" in shown
    steer = ["steer", str(tiny / "model"), str(out), "--language", "aa", "--prompt", "w1 w2"]
    assert main([*steer, "--value", "3", "--tokens", "3"]) == 0
    shown = capsys.readouterr().out
    assert "untouched:" in shown and f"{neurons.counts()['aa']} neurons of aa" in shown
    assert main([*steer, "--value", "mean", "--statistics", str(statistics)]) == 0
    assert main([*steer, "--value", "mean"]) == 1
    assert "give the statistics" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"--languages": "aa"}, ["name two or more"]),
        ({"--languages": "aa,cc"}, ["neither cc.txt nor cc.jsonl"]),
        ({"--method": "lapee"}, ["'lapee'", "'lape'?"]),
        ({"--method": "random"}, ["--method random"]),
        ({"--parameter": "rte=1"}, ["rte: unknown key", "'rate'?"]),
        ({"--parameter": "rate=2"}, ["rate", "2"]),
        ({"--parameter": "rate"}, ["name=value"]),
        ({"--control": "lyer"}, ["--control", "frequency"]),
        ({"--output": "docs"}, ["docs: the folder holds other files", "adding.md"]),
        ({"--output": "n.parquet"}, ["n.parquet: neurons are written as a folder"]),
        ({"--statistics": "docs"}, ["docs: the folder holds other files"]),
    ],
)
def test_mistakes_of_find_end_in_words_before_a_model_is_loaded(tiny, change, words, capsys):
    given = {"--languages": "aa,bb", "--text": str(tiny)} | change
    flat = [word for pair in given.items() for word in pair]
    assert main(["find", "nowhere", *flat]) in (1, 2)
    shown = capsys.readouterr().err
    assert all(word in shown for word in words) and "nowhere" not in shown


def test_a_model_that_is_none_is_named(tiny, capsys):
    given = ["--languages", "aa,bb", "--text", str(tiny)]
    assert main(["find", str(tiny / "nothing"), *given]) == 1
    assert "nothing" in capsys.readouterr().err
    assert main(["steer", "x", "no.parquet", "--language", "aa", "--prompt", "a"]) == 1
    assert "langneurons find" in capsys.readouterr().err


def command(*arguments):
    """Run the command in a process of its own; Snakemake's logger keeps streams open."""
    line = [sys.executable, "-m", "langneurons", *arguments]
    return subprocess.run(line, capture_output=True, text=True)


def test_a_job_runs_in_this_process(tmp_path):
    target = "resources/text/fr.jsonl"
    done = command("job", target, "--directory", str(tmp_path))
    assert "fetch_text: resources/text/fr.jsonl" in done.stdout, done.stderr
    first = (tmp_path / target).stat().st_mtime_ns
    command("job", target, "--directory", str(tmp_path))  # again, though it is there
    assert (tmp_path / target).stat().st_mtime_ns > first


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ("resources/text/frr.jsonl", ["frr.jsonl", "No rule"]),
        ("results/gemma3-270m/corpora/fr.safetensors", ["is not there", "snakemake --configfile"]),
    ],
)
def test_a_job_that_cannot_run_says_why(target, words, tmp_path):
    done = command("job", target, "--directory", str(tmp_path))
    assert done.returncode == 1
    assert all(word in done.stderr for word in words) and "Traceback" not in done.stderr
