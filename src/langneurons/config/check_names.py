"""Checks across keys: language sets, selections, figures, paths."""

from collections.abc import Iterable

from langneurons.base.errors import ConfigError, unknown
from langneurons.base.languages import set_directory
from langneurons.base.paths import braces
from langneurons.base.settings import doubled, is_name
from langneurons.base.words import UNTOUCHED
from langneurons.config.config import Config
from langneurons.evaluation.settings import TaskSource, source_paths
from langneurons.reporting.kinds import all_figures, named_figure, named_keys
from langneurons.selection.direction import OTHERS, DirectionBase, SecondMoments


def check_one_set(config: Config) -> None:
    """Refuse a selection whose cells on two language sets would stand beside one printed number."""
    for model in config.models:
        for adapter, task, lang in config.evaluations(model):
            if adapter == "base":
                continue
            seen: dict[tuple[str, str], str] = {}
            one = config.adapters(model)[adapter]
            for folder, selection, name, _ in config.task_conditions(model, task, lang, one):
                other = seen.setdefault((selection, name), folder)
                if other != folder:
                    labels = config.labels()
                    raise ConfigError(
                        f"tasks.{task}.language_sets: with results.published, a selection is"
                        f" evaluated on one set; {selection!r} is on {labels[other]!r} and"
                        f" {labels[folder]!r} in {lang!r}. Name one of them."
                    )


def check_figures(config: Config) -> None:
    """Refuse a stand-in that is not a model, and a named figure that is not drawn."""
    for printed, model in config.results.stand_ins.items():
        if model not in config.models:
            raise unknown(f"results.stand_ins.{printed}", model, "model", config.models)
    if config.results.published is not None:
        check_one_set(config)
    if config.results.claims and not config.tasks:
        raise ConfigError("results.claims: they are about task scores; define `tasks`.")
    check_doubled("results.claims", config.results.claims)
    drawn: set[str] = set()
    for name, figure in config.results.figures.items():
        path = f"results.figures.{name}"
        if not is_name(name):
            raise ConfigError(
                f"{path}: {name!r} is not a name (letters, digits, '.', '_', '+', '-')."
            )
        groups = (
            ("model", "model", config.models),
            ("languages", "language set", config.language_sets),
            ("selection", "selection", config.selections),
            ("intervention", "intervention", {**config.interventions, **config.sweeps()}),
            ("protocol", "protocol", config.protocols),
            ("task", "task", config.tasks),
            ("finetuning", "fine-tuning", config.finetunings),
        )
        for key, what, known in groups:
            value = getattr(figure, key)
            if value is not None and value not in known:
                raise unknown(f"{path}.{key}", value, what, known)
            needed = key == "model" or key in named_keys(figure.kind)
            if value is None and needed and key != "protocol":
                raise ConfigError(f"{path}.{key}: missing; a figure of {figure.kind} needs it.")
            if value is not None and not needed:
                raise ConfigError(f"{path}.{key}: a figure of {figure.kind} takes none.")
        drawn = drawn or {one.stem for one in all_figures(config)}
        if named_figure(config, name).stem not in drawn:
            raise ConfigError(f"{path}: this configuration draws no such figure.")


def check_doubled(path: str, values: Iterable[object]) -> None:
    """Refuse a list that names something twice."""
    again = doubled(values)
    if again:
        raise ConfigError(f"{path}: {', '.join(again)} listed more than once.")


def check_directories(config: Config) -> None:
    """Refuse two sets whose codes, joined by '-', read the same."""
    seen: dict[str, tuple[str, frozenset[str]]] = {}
    for name, members in config.language_sets.items():
        folder = set_directory(members)
        other, codes = seen.setdefault(folder, (name, frozenset(members)))
        if codes != frozenset(members):
            raise ConfigError(
                f"language_sets.{name}: {list(members)} would share the folder {folder!r} with"
                f" language_sets.{other}; rename a code that holds a '-'."
            )


def check_paths(place: str, source: TaskSource, languages: int) -> None:
    """Refuse templates of a task's files that cannot be filled in or serve one language only."""
    paths = source_paths(source)
    varied = any("{lang}" in path or "{code}" in path for path in paths.values())
    for key, path in paths.items():
        check_template(f"{place}.{key}", path, 1 if varied else languages, ("lang", "code"))


def check_template(
    path: str, text: str, languages: int, legal: tuple[str, ...] = ("lang",)
) -> None:
    """Refuse braces other than {lang}, and a template without it for several languages."""
    try:
        fields = braces(text)
    except ValueError as error:
        raise ConfigError(f"{path}: {text!r} cannot be filled in: {error}.") from None
    wrong = sorted(fields - set(legal))
    if wrong:
        named = ", ".join(f"{{{one}}}" for one in legal)
        raise ConfigError(f"{path}: {text!r}: {{{wrong[0]}}} is not legal; legal: {named}.")
    if languages > 1 and not fields & {"lang", "code"}:
        raise ConfigError(
            f"{path}: {text!r} lacks {{lang}}, so every language would read the same text."
        )


def check_selections(config: Config) -> None:
    """Refuse selections of sets, sites and selections that are not there."""
    for name, selection in config.selections.items():
        path = f"selections.{name}"
        if name == UNTOUCHED:
            raise ConfigError(f"{path}: `none` names the untouched model; choose another name.")
        for model in getattr(selection, "names", ()):
            if model not in config.models:
                raise unknown(f"{path}.names", model, "model", config.models)
        if selection.language_sets is not None and not selection.language_sets:
            raise ConfigError(f"{path}.language_sets: empty; leave the key out to use every set.")
        for langset in selection.language_sets or ():
            if langset not in config.language_sets:
                raise unknown(
                    f"{path}.language_sets", langset, "language set", config.language_sets
                )
        check_doubled(f"{path}.language_sets", selection.language_sets or ())
        own = selection.language_sets or tuple(config.language_sets)
        for other in selection.depends_on:
            key = f"{path}.{selection.depends_key}"
            if other not in config.selections:
                raise unknown(key, other, "selection", config.selections)
            if selection.random and config.selections[other].random:
                raise ConfigError(f"{key}: {other!r} is itself random; name what it mirrors.")
            if selection.units != config.selections[other].units:
                raise ConfigError(
                    f"{key}: {other!r} gives {config.selections[other].units}, and"
                    f" {selection.method} is of {selection.units}."
                )
            there = config.selections[other].language_sets or tuple(config.language_sets)
            lacking = [langset for langset in own if langset not in there]
            if lacking:
                raise ConfigError(
                    f"{key}: {other!r} is not selected on language set {lacking[0]!r}; it is"
                    f" selected on: {', '.join(there)}."
                )
        knows = selection.knows
        for langset in () if knows is None else own:
            for lang in config.language_sets[langset]:
                if knows is not None and lang not in knows:
                    what = f"language of the mask (language set {langset!r})"
                    raise unknown(f"{path}.language_sets", lang, what, knows)
        for site in selection.needs_sites:
            if site not in config.statistics.sites:
                raise ConfigError(
                    f"{path}.site: {site!r} is not measured; statistics.sites:"
                    f" {', '.join(config.statistics.sites)}."
                )
        for site in selection.needs_histograms:
            check_histogram(config, f"{path}.threshold", site)
        for site in selection.needs_document_means:
            if site not in config.statistics.document_means:
                raise ConfigError(
                    f"{path}.site: needs means per document of site {site!r};"
                    f" statistics.document_means:"
                    f" {', '.join(config.statistics.document_means) or 'none'}. Add it there."
                )
        if isinstance(selection, DirectionBase):
            _check_direction(config, path, selection, own)
        for level in selection.needs_batch_quantiles:
            if level not in config.statistics.batch_quantiles:
                raise ConfigError(
                    f"{path}: needs the batch quantile {level}; statistics.batch_quantiles:"
                    f" {list(config.statistics.batch_quantiles)}. Add it there."
                )


def _check_direction(
    config: Config, path: str, selection: DirectionBase, sets: Iterable[str]
) -> None:
    """Refuse directions away from a language that is not there, or without second moments."""
    for langset in sets if selection.against != OTHERS else ():
        members = config.language_sets[langset]
        if selection.against not in members:
            what = f"language of the set {langset!r}"
            raise unknown(f"{path}.against", selection.against, what, [OTHERS, *members])
    if not isinstance(selection, SecondMoments):
        return
    outer, layers = config.statistics.residual_outer, selection.layers
    wanted = range(layers[0] + 1, layers[1] + 2) if layers else ()
    lacking = [str(row) for row in wanted if row not in outer]
    if lacking or not any(outer):
        raise ConfigError(
            f"{path}: {selection.method} needs second moments after its layers;"
            f" statistics.residual_outer (rows: layer + 1): {', '.join(map(str, outer)) or 'none'}."
            f" Add {lacking[0] if lacking else 'rows'} there, or name other layers."
        )


def check_cycles(config: Config) -> None:
    """Refuse selections that wait for one another, showing the way round."""
    done: set[str] = set()

    def follow(name: str, way: tuple[str, ...]) -> None:
        if name in way:
            shown = " -> ".join((*way[way.index(name) :], name))
            key = config.selections[name].depends_key
            raise ConfigError(
                f"selections.{name}.{key}: {shown}: a selection cannot depend on itself; break the"
                " circle."
            )
        if name not in done:
            for other in config.selections[name].depends_on:
                follow(other, (*way, name))
            done.add(name)

    for name in config.selections:
        follow(name, ())


def check_histogram(config: Config, path: str, site: str) -> None:
    """Refuse a site of which no histogram is kept."""
    kept = config.statistics.histograms
    if site not in kept and not (site == "act" and "gate" in kept):
        raise ConfigError(
            f"{path}: needs the distribution of site {site!r}; statistics.histograms:"
            f" {', '.join(kept) or 'none'}. Add it there."
        )


def check_sets(config: Config, path: str, chosen: Iterable[str] | None) -> None:
    """Refuse language sets that are not there, or that no model is run on."""
    if chosen is None:
        return
    if not tuple(chosen):
        raise ConfigError(f"{path}.language_sets: empty; leave the key out to use every set.")
    for langset in chosen:
        if langset not in config.language_sets:
            raise unknown(f"{path}.language_sets", langset, "language set", config.language_sets)
