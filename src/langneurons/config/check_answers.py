"""Methods compared by answers: what they name, equal tuning, languages that can be told."""

from langneurons.base.errors import ConfigError, unknown
from langneurons.config.check_languages import check_language, check_spoken
from langneurons.config.check_names import check_doubled
from langneurons.config.check_stages import (
    check_chat,
    check_members,
    check_questions,
    check_told,
)
from langneurons.config.config import Config, entry_languages
from langneurons.evaluation.answer_settings import AnswersConfig, Options, PromptEntry


def check_answers(config: Config) -> None:
    """Refuse methods of names that are not there, of unequal tuning, or without a set."""
    entry = config.answers
    if entry is None:
        return
    for langset in entry.language_sets or ():
        if langset not in config.language_sets:
            raise unknown("answers.language_sets", langset, "language set", config.language_sets)
    if entry.chat:
        check_chat(config, "answers")
    members = {lang for langs in config.language_sets.values() for lang in langs}
    for key in ("sources", "targets"):
        langs = getattr(entry, key)
        if langs is not None and not langs:
            raise ConfigError(f"answers.{key}: empty; leave the key out.")
        for lang in langs or ():
            check_spoken(config, f"answers.{key}", lang, members)
    printed = {one.tuning == "paper" for one in config.protocols.values()}
    for name, method in entry.methods.items():
        path = f"answers.methods.{name}"
        _check_options(config, entry, path, method)
        if method.paper is not None:
            if True not in printed:
                raise ConfigError(f"{path}.paper: no protocol has tuning: paper. Leave it out.")
            _check_options(config, entry, f"{path}.paper", method.paper)
    if False in printed:
        numbers = {name: method.settings for name, method in entry.methods.items()}
        if len(set(numbers.values())) > 1:
            shown = ", ".join(f"{name} {number}" for name, number in numbers.items())
            raise ConfigError(
                "answers.methods: every method needs the same number of settings (selections x"
                f" interventions, or prompts), but they have: {shown}."
            )
    used = {name for method in entry.methods.values() for name in _prompts(method)}
    for name in entry.prompts:
        if name not in used:
            raise ConfigError(f"answers.prompts.{name}: no method names it. Leave it out.")
    _check_judge(config, entry)
    _check_languages(config, entry)


def _prompts(method: Options) -> tuple[str, ...]:
    return (*method.prompts, *(getattr(method, "paper", None) or Options.model_construct()).prompts)


def _check_options(config: Config, entry: AnswersConfig, path: str, method: Options) -> None:
    for name in method.prompts:
        if name not in entry.prompts:
            raise unknown(f"{path}.prompts", name, "prompt of `answers`", entry.prompts)
    asked: dict[tuple, str] = {}
    for name in method.prompts:
        same = asked.setdefault(_asking(entry, entry.prompts[name]), name)
        if same != name:
            raise ConfigError(
                f"{path}.prompts: {same!r} and {name!r} ask the same, so the method has a setting"
                " less than it seems. Change one of them."
            )
    for name in method.selections:
        if name not in config.selections:
            raise unknown(f"{path}.selections", name, "selection", config.selections)
        if config.selections[name].random:
            raise ConfigError(
                f"{path}.selections: {name!r} is itself random; controls are drawn for each method."
            )
    check_doubled(f"{path}.selections", method.selections)
    units = {config.selections[name].units for name in method.selections}
    if len(units) > 1:
        raise ConfigError(f"{path}.selections: neurons and dimensions in one method; split it.")
    for name in method.interventions:
        if name not in config.interventions:
            raise unknown(f"{path}.interventions", name, "intervention", config.interventions)
        own = config.interventions[name].units
        if own not in units:
            raise ConfigError(
                f"{path}.interventions: {name!r} writes {own}, and its selections hold"
                f" {', '.join(units)}."
            )
    if units == {"neurons"} and entry.controls.match != "layer":
        if "act" not in config.statistics.sites:
            raise ConfigError(
                f"answers.controls.match: {entry.controls.match} needs the site act;"
                f" statistics.sites: {', '.join(config.statistics.sites)}."
            )


def _asking(entry: AnswersConfig, prompt: PromptEntry) -> tuple:
    """Return what tells prompts apart."""
    system = prompt.place == "system" and entry.chat
    place = "system" if system else prompt.place.replace("system", "before")
    return str(prompt.instruction), place, str(sorted(prompt.turns.items()))


def _check_judge(config: Config, entry: AnswersConfig) -> None:
    for name in entry.judge.models if entry.judge else ():
        if name not in config.models:
            raise unknown("answers.judge.models", name, "model", config.models)
        if name == "scored":
            raise ConfigError(
                "answers.judge.models: 'scored' names the files of scored answers; rename the"
                " model."
            )


def _check_languages(config: Config, entry: AnswersConfig) -> None:
    """Refuse sets without pairs, and instructions that lack a target."""
    cells = {cell for model in config.models for cell in config.answer_cells(model)}
    for name in entry.methods:
        if name not in {method for _, method in cells}:
            needed = ", ".join(config.answer_selections(name)) or "none"
            raise ConfigError(
                f"answers.methods.{name}: no model has a language set that holds its languages and"
                f" on which all its selections are made ({needed})."
            )
    targets = {
        lang
        for folder, _ in cells
        for lang in entry_languages(entry, config.directory_languages()[folder])[1]
    }
    asked = {
        lang
        for folder, _ in cells
        for lang in entry_languages(entry, config.directory_languages()[folder])[0]
    }
    check_questions("answers", entry, asked)
    check_told("answers", entry, targets)
    for model in config.models:
        for folder, method in config.answer_cells(model):
            _check_written(config, entry, model, folder, method)
    if entry.pairs == "same":
        _check_same(config, entry, cells)
    elif not any(source != target for source in asked for target in targets):
        raise ConfigError(
            f"answers: no target differs from a source (sources: {', '.join(sorted(asked))};"
            f" targets: {', '.join(sorted(targets))}), and scores are of questions in other"
            " languages than the target. Questions that are in the language of the answer, or ask"
            " for it, are asked with `pairs: same`."
        )
    for name, prompt in entry.prompts.items():
        _check_prompt(config, f"answers.prompts.{name}", prompt, targets)


def _check_same(config: Config, entry: AnswersConfig, cells: set[tuple[str, str]]) -> None:
    """Refuse sources that differ from the targets where each is asked with itself."""
    for folder in sorted({folder for folder, _ in cells}):
        sources, targets = entry_languages(entry, config.directory_languages()[folder])
        if odd := sorted(set(sources) ^ set(targets)):
            raise ConfigError(
                f"answers.pairs: same asks every language with itself, but {', '.join(odd)} is not"
                f" both a source and a target (sources: {', '.join(sorted(sources))}; targets:"
                f" {', '.join(sorted(targets))}). Leave both keys out, or give both the same."
            )


def _check_written(
    config: Config, entry: AnswersConfig, model: str, folder: str, method: str
) -> None:
    """Refuse interventions that are not for a model, or name languages that a set lacks."""
    path, own = f"answers.methods.{method}", entry.methods[method]
    for part in (own, own.paper):
        for name in part.interventions if part else ():
            models = config.interventions[name].models
            if models is not None and model not in models:
                raise ConfigError(
                    f"{path}.interventions: {name!r} is for {', '.join(models)} only"
                    f" (interventions.{name}.models), and models.{model} would lack settings of the"
                    " method. Leave that key out, or name another intervention."
                )
            for selection in part.selections if part else ():
                check_members(config, path, folder, selection, name)


def _check_prompt(config: Config, path: str, prompt: PromptEntry, targets: set[str]) -> None:
    """Refuse texts that lack a target, are the same for all, or name languages not known."""
    given, known = prompt.instruction, config.language_names()
    if isinstance(given, str) and given.strip() and "{language" not in given and len(targets) > 1:
        raise ConfigError(
            f"{path}.instruction: {given!r} is the same for every target"
            f" ({', '.join(sorted(targets))}). Write {{language}} in it, or a text by target."
        )
    for key, texts in (("instruction", given), ("turns", prompt.turns)):
        if isinstance(texts, str) or not texts:
            continue
        for lang in texts:
            check_language(config, f"{path}.{key}", lang)
        for lang in sorted(targets):
            if lang not in texts:
                raise ConfigError(
                    f"{path}.{key}: none for the target {lang!r} ({known.get(lang, lang)}); it has:"
                    f" {', '.join(texts)}."
                )
