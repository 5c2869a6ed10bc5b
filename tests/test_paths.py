"""Paths as users write them: home, variables, braces."""

from pathlib import Path

import pytest

from langneurons.base.paths import braces, unset, user_path
from langneurons.data.corpus import documents
from langneurons.data.settings import JsonlText


@pytest.fixture(autouse=True)
def environment(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("DATA", "/data/{old}")
    monkeypatch.delenv("NOT_SET", raising=False)


@pytest.mark.parametrize(
    "given, names, expected",
    [
        ("a/b.jsonl", None, "a/b.jsonl"),
        ("~/b", None, "{home}/b"),
        ("$HOME/b", None, "{home}/b"),
        ("${HOME}/{lang}.jsonl", {"lang": "vi"}, "{home}/vi.jsonl"),
        ("$DATA/{lang}", {"lang": "vi"}, "/data/{old}/vi"),
        ("$DATA/{model}", None, "/data/{old}/{model}"),
        ("$NOT_SET/{lang}", {"lang": "vi"}, "$NOT_SET/vi"),
        ("${NOT_SET}/{lang}", {"lang": "vi"}, "${NOT_SET}/vi"),
        ("cost$5/{code}", {"lang": "vi", "code": "vie"}, "cost$5/vie"),
    ],
)
def test_a_path_is_filled_in(given, names, expected, tmp_path):
    assert user_path(given, names) == Path(expected.replace("{home}", str(tmp_path)))


def test_variables_that_are_not_set_and_braces_are_named():
    assert unset("$NOT_SET/$HOME/${NOT_SET}/{lang}") == ["NOT_SET"]
    assert braces("${HOME}/{lang}/{code}") == {"lang", "code"}
    assert braces("{lang!r}{lang:>3}") == {"lang!r", "lang:>3"}


def test_a_corpus_below_home_is_read(tmp_path):
    (tmp_path / "en.jsonl").write_text('{"text": "one"}\n')
    source = JsonlText(kind="jsonl", path="~/{lang}.jsonl")
    assert [row["text"] for row in documents(source, "en")] == ["one"]
    source = JsonlText(kind="jsonl", path="${HOME}/{lang}.jsonl")
    assert [row["text"] for row in documents(source, "en")] == ["one"]
