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
        (["convert", "a.pth", "b.txt"], ["a.pth to b.txt", ".parquet"]),
        (["convert", "a.pth", "b.parquet"], ["a.pth: there is no such file"]),
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
