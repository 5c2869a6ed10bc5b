"""What is shown of names: labels, and the check that no two names are shown alike.

Names are identities; labels stand in tables, figures and captions. Two names of one kind that look
the same there could not be told apart, nor could a name and a word that tables reserve.
"""

import unicodedata
from collections.abc import Mapping
from typing import TYPE_CHECKING

from langneurons.base.errors import ConfigError
from langneurons.base.words import UNTOUCHED, UNTRAINED

if TYPE_CHECKING:  # the definition checks its own labels
    from langneurons.config.config import Config

SECTIONS = ("models", "selections", "interventions", "tasks", "finetunings")


def looks(text: str) -> str:
    """Return a text as a reader sees it: compatible characters and white space made equal."""
    return " ".join(unicodedata.normalize("NFKC", text).split())


def shown(config: "Config", section: str) -> dict[str, str]:
    """Return what is shown of each name of a section: its label, or the name itself."""
    return {key: entry.label or key for key, entry in getattr(config, section).items()}


def method_labels(config: "Config") -> dict[str, str]:
    """Return what is shown of each method, on trial or compared by answers."""
    found: dict[str, str] = {}
    for path, section in (("trials", config.trials), ("answers", config.answers)):
        for name, entry in (section.methods if section else {}).items():
            label = entry.label or name
            if found.setdefault(name, label) != label:
                raise ConfigError(
                    f"{path}.methods.{name}.label: {label!r}, and {found[name]!r} in"
                    " trials.methods; one name has one label."
                )
    return found


def prompt_labels(config: "Config") -> dict[str, str]:
    """Return what is shown of each prompt of `answers`."""
    prompts = config.answers.prompts if config.answers else {}
    return {name: entry.label or name for name, entry in prompts.items()}


def adapter_labels(config: "Config") -> dict[str, str]:
    """Return what is shown of each adapter: fine-tuning, neurons, their selection and set."""
    labels = {UNTRAINED: UNTRAINED}
    for model in config.models:
        for name, one in config.adapters(model).items():
            entry = config.finetunings[one.finetuning]
            whose: str = one.choice
            if one.selection is not None and one.langset is not None:
                langs = " + ".join(one.languages(entry.language))
                selection = config.selections[one.selection].label or one.selection
                whose = f"{selection} {langs}"
                if len(config.language_sets) > 1:
                    whose += f" ({config.labels()[one.langset]})"
            labels[name] = f"{entry.label or one.finetuning}: {whose}"
    return labels


def check_labels(config: "Config") -> None:
    """Refuse labels that look like another name's, or like a word that tables reserve."""
    for section in SECTIONS:
        entries = getattr(config, section)
        for key, entry in entries.items():
            _check_text(f"{section}.{key}.label", entry.label)
        _check_alike(section, shown(config, section))
    for name, label in (methods := method_labels(config)).items():
        _check_text(f"methods.{name}.label", label)
    _check_alike("methods", methods)
    for name, label in (prompts := prompt_labels(config)).items():
        _check_text(f"answers.prompts.{name}.label", label)
    _check_alike("answers.prompts", prompts)
    for section in ("selections", "interventions"):
        for key, label in shown(config, section).items():
            if looks(label) == UNTOUCHED:
                raise ConfigError(
                    f"{section}.{key}.label: {label!r} stands for the untouched model in tables;"
                    " choose another label."
                )
    for name in config.language_sets:
        if name == UNTOUCHED:
            raise ConfigError(
                f"language_sets.{name}: {name!r} stands for the untouched model in tables; choose"
                " another name."
            )
    _check_text("title", config.title)
    for name, variant in config.corpus.variants.items():
        _check_text(f"corpus.variants.{name}.label", variant.label)
    variants = {name: one.label or name for name, one in config.corpus.variants.items()}
    _check_alike("corpus.variants", variants)
    for code, language in config.languages.items():
        _check_text(f"languages.{code}.name", language.name)
        _check_text(f"languages.{code}.family", language.family)
    _check_alike("adapters", adapter_labels(config))
    for name, protocol in config.protocols.items():
        papers = [point for point, choice in protocol if choice == "paper"]
        if name == "paper" and not papers:
            raise ConfigError(
                "protocols.paper: every point is `corrected`, so `paper` would head results that"
                " do not follow the paper; set a point to `paper`, or choose another name."
            )
        if name == "corrected" and papers:
            raise ConfigError(
                f"protocols.corrected: {', '.join(papers)} follow the paper, so `corrected` would"
                " head results that are not; set them to `corrected`, or choose another name."
            )


def _check_text(path: str, text: str | None) -> None:
    """Refuse a text with characters that neither a figure nor a table can hold."""
    if text is None:
        return
    for character in text:
        if unicodedata.category(character) in ("Cc", "Cs") and character not in "\t\n\r":
            raise ConfigError(
                f"{path}: {text!r} holds the control character U+{ord(character):04X}; remove it."
            )
    if text and not looks(text):
        raise ConfigError(f"{path}: {text!r} shows nothing; leave the key out, or write a text.")


def _check_alike(section: str, labels: Mapping[str, str]) -> None:
    """Refuse two names that are shown alike, and a label that is another's name."""
    names: dict[str, str] = {}
    for key, label in labels.items():
        for place, text in {looks(key): key, looks(label): key}.items():
            first = names.setdefault(place, text)
            if first == key:
                continue
            one, two = (
                f"{section}.{name} ({_called(name, labels[name])})" for name in (first, key)
            )
            raise ConfigError(
                f"{section}: {one} and {two} are shown alike, so tables and figures could not tell"
                f" them apart; change one of the labels."
            )


def _called(name: str, label: str) -> str:
    return "no label" if label == name else f"label {label!r}"
