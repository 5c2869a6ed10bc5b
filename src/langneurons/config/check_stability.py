"""Checks of the keys `stability` and `statistics.until`: what slices of statistics can answer."""

from functools import partial

from langneurons.base.errors import ConfigError, present, unknown
from langneurons.config.check_names import check_doubled, check_sets
from langneurons.config.config import Config
from langneurons.selection.stability_settings import matched


def check_stability(config: Config) -> None:
    """Refuse selections that do not follow from slices, and budgets that end within one."""
    entry, slices = config.stability, config.statistics.slices
    if entry is None:
        return
    if slices < 2:
        raise ConfigError(
            f"stability: statistics.slices is {slices}; halves need 2 or more, budgets and"
            " bootstrap draws some ten."
        )
    for name in entry.selections:
        if name not in config.selections:
            raise unknown("stability.selections", name, "selection", config.selections)
        for one in config.with_dependencies(name):
            reason = _not_measurable(config, one)
            if reason:
                through = "" if one == name else f", which reads {one!r}"
                raise ConfigError(
                    f"stability.selections: {name!r}{through}: {reason}. Leave it out."
                )
    check_doubled("stability.selections", entry.selections)
    check_sets(config, "stability", entry.language_sets)
    for share in entry.budgets:
        if abs(share * slices - round(share * slices)) > 1e-6 or round(share * slices) < 1:
            legal = ", ".join(f"{number / slices:g}" for number in range(1, min(slices, 12) + 1))
            raise ConfigError(
                f"stability.budgets: {share:g} of {slices} slices is not whole slices; legal:"
                f" multiples of 1/{slices} ({legal}{', ...' if slices > 12 else ''}), or change"
                " statistics.slices."
            )
    if not any(config.stability_cells(model) for model in config.models):
        raise ConfigError(
            "stability: none of its selections is made on one of its language sets, so nothing"
            f" would be measured; language sets: {', '.join(config.language_sets)}."
        )
    _check_comparisons(config)


def check_until(config: Config) -> None:
    """Refuse a selection that cannot be made again while text is read, or is made nowhere."""
    until = config.statistics.until
    if until is None:
        return
    path, name = "statistics.until.selection", until.selection
    if name not in config.selections:
        raise unknown(path, name, "selection", config.selections)
    usable = [
        one
        for one in config.selections
        if not any(map(partial(_not_stable, config), config.with_dependencies(one)))
    ]
    for one in config.with_dependencies(name):
        reason = _not_stable(config, one)
        if reason:
            through = "" if one == name else f", which reads {one!r}"
            raise ConfigError(
                f"{path}: {name!r}{through}: {reason}. Legal: {', '.join(usable) or 'none'}."
            )
    for model in config.models:
        if config.cells(model) and not config.until_sets(model):
            raise ConfigError(
                f"{path}: {name!r} is not made on a language set of models.{model}, so its"
                f" reading would never stop; its sets: {', '.join(config.model_sets(model))}."
            )


def _not_stable(config: Config, name: str) -> str | None:
    """Return why the neurons of a selection cannot tell when enough is read, if they cannot."""
    if config.selections[name].units == "dimensions":
        return "it gives directions, and a Jaccard index is of neurons"
    return _not_measurable(config, name)


def _check_comparisons(config: Config) -> None:
    entry = present(config.stability, "stability: left out of the configuration")
    for name, pair in entry.comparisons.items():
        path = f"stability.comparisons.{name}"
        for langset in pair:
            if langset not in config.language_sets:
                raise unknown(path, langset, "language set", config.language_sets)
        first, second = (config.directory(langset) for langset in pair)
        if first == second:
            raise ConfigError(f"{path}: {pair[0]!r} and {pair[1]!r} are the same languages.")
        members = [config.directory_languages()[folder] for folder in (first, second)]
        try:
            pairs = matched(*members)
        except ValueError as error:
            raise ConfigError(f"{path}: {error}.") from error
        if not pairs:
            raise ConfigError(
                f"{path}: {pair[0]!r} ({', '.join(members[0])}) and {pair[1]!r}"
                f" ({', '.join(members[1])}) have no language in common, nor variants of one."
            )
        if not any(
            name in config.comparisons(model, folder, selection)
            for model in config.models
            for folder, selection in config.stability_cells(model)
        ):
            raise ConfigError(
                f"{path}: no selection of `stability` is measured on {pair[0]!r} and made on"
                f" {pair[1]!r}. Selections: {', '.join(entry.selections)}."
            )


def _not_measurable(config: Config, name: str) -> str | None:
    """Return why a selection cannot be made again on slices, if it cannot."""
    one = config.selections[name]
    if one.random:
        return "it is drawn, and follows from no statistics"
    if one.method == "published":
        return "its neurons are given, and follow from no statistics"
    if one.needs_document_means:
        return f"{one.method} reads means per document, which sums of slices do not hold"
    if "attributions" in one.needs_more:
        return f"{one.method} reads attributions, of which no slices are kept"
    return None
