"""What the options of `langneurons find` and `langneurons export` stand for."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from langneurons.base.errors import InputError, nearest, unknown
from langneurons.base.messages import defined
from langneurons.base.yaml import plain_value
from langneurons.data.files import lines, objects
from langneurons.data.typed import text as text_of
from langneurons.selection.methods import METHODS

if TYPE_CHECKING:  # torch takes seconds, which no mistake in an option waits for
    import pandas as pd

    from langneurons.activations.statistics import Statistics as LanguageStatistics
    from langneurons.api.neurons import Neurons
    from langneurons.api.statistics import Statistics
    from langneurons.interventions.plan import Plan


def method_of(method: str, parameters: Sequence[str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the parameters of a method, and what it needs of the statistics."""
    if method not in METHODS:
        raise unknown("--method", method, "method", METHODS)
    given: dict[str, Any] = {}
    for one in parameters:
        name, found, value = one.partition("=")
        if not found:
            raise InputError(f"--parameter {one!r}: expected name=value, such as rate=0.01.")
        given[name] = plain_value(value)
    selection = defined(METHODS[method], {"method": method, **given}, f"--method {method}")
    if selection.depends_on:
        raise InputError(
            f"--method {method}: it is made from other selections, which the command line does not"
            " take. Use --control for random neurons, or langneurons.select in Python."
        )
    needs = {
        "histograms": tuple({"gate", *selection.needs_histograms}),
        "document_means": tuple(selection.needs_document_means),
    }
    return given, needs


def texts_of(folder: Path | None, languages: list[str]) -> dict[str, list[str]]:
    """Return the documents of each language."""
    if len(set(languages)) < 2:
        raise InputError(
            "--languages: a neuron is one language's against others; name two or more, such as"
            " fr,vi."
        )
    if folder is None:
        from langneurons.api.statistics import mini_texts

        return mini_texts(languages)
    found = {}
    for lang in languages:
        plain, rows = folder / f"{lang}.txt", folder / f"{lang}.jsonl"
        if plain.is_file():
            found[lang] = [line for _, line in lines(plain)]
        elif rows.is_file():
            found[lang] = [text_of(row.get("text"), row.place, "text") for row in objects(rows)]
        else:
            there = sorted(path.name for path in folder.glob("*")) if folder.is_dir() else []
            raise FileNotFoundError(
                f"--text {folder}: neither {plain.name} nor {rows.name} is there."
                f"{nearest(plain.name, there)}"
            )
    return found


def counted(neurons: "Neurons", statistics: "Statistics") -> "pd.DataFrame":
    """Return a row per language: neurons, those of no other language, tokens, deepest layers."""
    import pandas as pd

    own = neurons.frame.drop_duplicates(["layer", "neuron"], keep=False)
    rows = [
        {
            "language": lang,
            "tokens": statistics[lang].tokens,
            "neurons": number,
            "of no other": int((own["lang"] == lang).sum()),
        }
        for lang, number in neurons.counts().items()
    ]
    return pd.DataFrame(rows)


def read_units(path: Path) -> "Neurons":
    """Return neurons, or directions as neurons of which each is a dimension, from a folder or file.

    Raises:
        ValueError: What is there is neither.
        FileNotFoundError: There is nothing.
    """
    if not path.exists():
        raise FileNotFoundError(f"{path}: there is no such folder; `langneurons find` writes one.")
    from langneurons.api.directions import Directions
    from langneurons.api.neurons import Neurons
    from langneurons.sharing.card import CARD, read_card

    if path.is_dir() and (path / CARD).is_file() and read_card(path / CARD)[0].kind == "directions":
        return Directions.load(path).dimensions()
    return Neurons.load(path)


def plans_of(
    neurons: "Neurons",
    languages: str,
    text: str,
    statistics: "Mapping[str, LanguageStatistics] | None" = None,
) -> "dict[str, Plan]":
    """Return a plan for each language that has neurons.

    languages: codes by commas, or `all`, which leaves out languages without neurons; text: an
    operation, a value and more keys of a step, such as `add unit_direction coefficient=4
    layers=10-12`.

    Raises:
        ValueError: A language is unknown or has no neurons, or the text is not such a step.
    """
    from langneurons.api.neurons import plan as planned

    operation, step = _step(text)
    counts = neurons.counts()
    if languages == "all":
        named = [lang for lang in neurons.languages if counts[lang]]
        if not named:
            raise InputError("--language all: no language has neurons.")
    else:
        named = list(dict.fromkeys(one.strip() for one in languages.split(",") if one.strip()))
        for lang in named:
            if lang not in neurons.languages:
                raise unknown("--language", lang, "language", [*neurons.languages, "all"])
            if not counts[lang]:
                raise InputError(f"--language {lang}: it has no {neurons.units}.")
        if not named:
            raise InputError(f"--language: none named; known: {', '.join(neurons.languages)}.")
    found = {}
    for lang in named:
        found[lang] = planned(neurons, lang, operation, statistics=statistics, **step)
        found[lang].name = " ".join(text.split())
    return found


def _step(text: str) -> tuple[str, dict[str, Any]]:
    """Return the operation of a step, and its other keys, from `OPERATION VALUE NAME=VALUE ...`."""
    words = text.split()
    if len(words) < 2 or "=" in words[0] or "=" in words[1]:
        raise InputError(
            f"--write {text!r}: expected an operation and a value, such as `set 0` or"
            " `add unit_direction coefficient=4 layers=10-12`."
        )
    step: dict[str, Any] = {"value": plain_value(words[1])}
    for word in words[2:]:
        name, found, value = word.partition("=")
        if not found or not name or name in step:
            raise InputError(f"--write {text!r}: {word!r} is not NAME=VALUE, or is given twice.")
        if name == "layers":
            first, _, last = value.partition("-")
            if not first.isdigit() or not (last or first).isdigit():
                raise InputError(f"--write {text!r}: layers are FIRST-LAST, such as 10-12.")
            step[name] = (int(first), int(last or first))
        else:
            step[name] = plain_value(value)
    return words[0], step
