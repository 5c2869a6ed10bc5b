"""Methods on trial: what they name, and whether their settings can be brought to a dose."""

from langneurons.base.errors import ConfigError, unknown
from langneurons.config.check_names import check_doubled
from langneurons.config.config import Config
from langneurons.evaluation.trial_settings import MethodEntry, TrialsConfig
from langneurons.interventions.operations import LINES
from langneurons.reporting.hypothesis_settings import HypothesisEntry
from langneurons.selection.stability_settings import HALVES


def check_trials(config: Config) -> None:
    """Refuse methods of names that are not there, of mixed units, or on trial on no set."""
    entry = config.trials
    if entry is None:
        return
    for langset in entry.language_sets or ():
        if langset not in config.language_sets:
            raise unknown("trials.language_sets", langset, "language set", config.language_sets)
    check_doubled("trials.language_sets", entry.language_sets or ())
    for name, method in entry.methods.items():
        _check_method(config, f"trials.methods.{name}", method, bool(entry.doses))
    if "write_norm" in entry.controls.matches or "frequency" in entry.controls.matches:
        if "act" not in config.statistics.sites:
            raise ConfigError(
                "trials.controls.matches: frequency and write_norm need the site act;"
                f" statistics.sites: {', '.join(config.statistics.sites)}."
            )
    check_doubled("trials.controls.matches", entry.controls.matches)
    _check_sets(config, entry)


def _check_method(config: Config, path: str, method: MethodEntry, dosed: bool) -> None:
    for name in method.selections:
        if name not in config.selections:
            raise unknown(f"{path}.selections", name, "selection", config.selections)
        if config.selections[name].random:
            raise ConfigError(
                f"{path}.selections: {name!r} is itself random; trials draw their own controls."
            )
    check_doubled(f"{path}.selections", method.selections)
    check_doubled(f"{path}.interventions", method.interventions)
    units = {config.selections[name].units for name in method.selections}
    if len(units) > 1:
        raise ConfigError(f"{path}.selections: neurons and dimensions in one method; split it.")
    for name in method.interventions:
        if name not in config.interventions:
            raise unknown(f"{path}.interventions", name, "intervention", config.interventions)
        intervention = config.interventions[name]
        if intervention.units not in units:
            raise ConfigError(
                f"{path}.interventions: {name!r} writes {intervention.units}, and its selections"
                f" hold {', '.join(units)}."
            )
        if "source" in intervention.roles:
            raise ConfigError(
                f"{path}.interventions: {name!r} speaks of `source`, the first language of a pair,"
                " and trials have no pairs. Legal here: target, others, language codes."
            )
        for step in intervention.steps:
            if step.tokens != "all":
                raise ConfigError(
                    f"{path}.interventions: {name!r} acts on {step.tokens!r} tokens only; a"
                    " held-out text has no prompt. Legal here: tokens: all."
                )
            if dosed and step.operation not in LINES:
                raise ConfigError(
                    f"{path}.interventions: {name!r}: {step.operation} has one strength, so no dose"
                    f" can be solved for; legal with trials.doses: {', '.join(LINES)}."
                )


def _check_sets(config: Config, entry: TrialsConfig) -> None:
    for model in config.models:
        for folder in config.trial_sets(model):
            members = config.directory_languages()[folder]
            if (read := entry.dose_text) not in (None, *members, *entry.evaluated):
                legal = [*members, *entry.evaluated]
                raise unknown("trials.dose_language", read, "language that trials read", legal)
            for lang in entry.evaluated:
                if lang in members:
                    raise ConfigError(
                        f"trials.evaluated: {lang!r} is in the set"
                        f" {config.labels()[folder]!r} already; name languages of other sets."
                    )
                known = config.model_languages(model)
                if lang not in known:
                    raise unknown("trials.evaluated", lang, f"language of models.{model}", known)
    if not any(config.trial_sets(model) for model in config.models):
        needed = list(dict.fromkeys(n for one in entry.methods.values() for n in one.selections))
        raise ConfigError(
            "trials: no model has a language set on which all selections of its methods are made"
            f" ({', '.join(needed)})."
        )


def check_hypotheses(config: Config) -> None:
    """Refuse hypotheses about what is not there, or is not measured."""
    for name, entry in config.hypotheses.items():
        path = f"hypotheses.{name}"
        methods = config.trials.methods if config.trials else {}
        for key in ("method", "over"):
            own = getattr(entry, key)
            if own is not None and own not in methods:
                raise unknown(f"{path}.{key}", own, "method of `trials`", methods)
        if entry.method is not None and entry.method == entry.over:
            raise ConfigError(f"{path}.over: {entry.over!r} is `method` itself; name another.")
        if entry.selection is not None:
            if entry.selection not in config.selections:
                raise unknown(f"{path}.selection", entry.selection, "selection", config.selections)
            if config.selections[entry.selection].units != "neurons":
                raise ConfigError(
                    f"{path}.selection: {entry.selection!r} gives dimensions; name neurons."
                )
        if entry.language_set is not None and entry.language_set not in config.language_sets:
            raise unknown(
                f"{path}.language_set", entry.language_set, "language set", config.language_sets
            )
        if entry.comparison is not None:
            _check_comparison(config, path, entry)
        if entry.variant is not None:
            if entry.variant not in config.corpus.variants:
                raise unknown(f"{path}.variant", entry.variant, "variant", config.corpus.variants)
            read = config.trials.evaluated if config.trials else ()
            if not any(lang.endswith(f"@{entry.variant}") for lang in read):
                raise ConfigError(
                    f"{path}.variant: no language of trials.evaluated is of the variant"
                    f" {entry.variant!r}, so nothing would be measured. Evaluated:"
                    f" {', '.join(read) or 'none'}."
                )


def _check_comparison(config: Config, path: str, entry: HypothesisEntry) -> None:
    """Refuse a comparison that is not there, or is not made of the selection."""
    stability, name, selection = config.stability, entry.comparison, entry.selection
    if stability is None:
        raise ConfigError(f"{path}: jaccard needs the key `stability`, which is left out.")
    if name not in (HALVES, *stability.comparisons):
        known = (HALVES, *stability.comparisons)
        raise unknown(f"{path}.comparison", str(name), "comparison of `stability`", known)
    if selection not in stability.selections:
        raise unknown(
            f"{path}.selection", str(selection), "selection of `stability`", stability.selections
        )
    folders = {
        folder
        for model in config.models
        for folder, own in config.stability_cells(model)
        if own == selection
        if name == HALVES or name in config.comparisons(model, folder, selection)
    }
    wanted = entry.language_set
    if not folders or (wanted is not None and config.directory(wanted) not in folders):
        sets = ", ".join(config.labels()[folder] for folder in sorted(folders)) or "none"
        on = "any language set" if wanted is None else f"{wanted!r}"
        raise ConfigError(
            f"{path}: {name!r} of selection {selection!r} is not measured on {on}."
            f" Measured on: {sets}."
        )
