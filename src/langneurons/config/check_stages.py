"""Checks of what is measured: protocols, interventions, tasks, training, generated text."""

from collections.abc import Collection, Iterable

from langneurons.base.errors import ConfigError, unknown
from langneurons.base.languages import parts_of
from langneurons.base.paths import braces
from langneurons.base.protocols import Protocol
from langneurons.base.words import UNTOUCHED
from langneurons.config.check_languages import check_language, check_spoken
from langneurons.config.check_names import (
    check_doubled,
    check_histogram,
    check_paths,
    check_sets,
    check_template,
)
from langneurons.config.config import Config, entry_languages
from langneurons.data.mini_data import FACTS, mini_languages, mini_tasks, question_part
from langneurons.evaluation.generation_settings import Answering, Asking, Conditioned
from langneurons.evaluation.identification import PY3LANGID
from langneurons.evaluation.settings import (
    TaskEntry,
)
from langneurons.interventions.settings import ROLES, percentile, statistic_site
from langneurons.training.settings import FinetuneEntry

MINI_LANGUAGES = ("en", "fr", "es", "vi", "id", "ja", "zh", "hi", "ur")


def check_protocols(config: Config) -> None:
    """Refuse protocols that are alike, or that lack what they need."""
    seen: dict[Protocol, str] = {}
    for name, protocol in config.protocols.items():
        if name in Protocol.model_fields:
            raise ConfigError(
                f"protocols.{name}: {name!r} is a point of a protocol, not a name; write"
                f" protocols: {{mine: {{{name}: {getattr(protocol, name)}}}}}."
            )
        if protocol in seen:
            raise ConfigError(f"protocols.{name}: the same as protocols.{seen[protocol]}.")
        seen[protocol] = name
        if protocol.perplexity_text == "paper" and config.perplexity is not None:
            if config.perplexity.documents is not None:
                raise ConfigError(
                    f"perplexity.documents: {config.perplexity.documents}, but under"
                    f" protocols.{name} every cell samples blocks (perplexity_text: paper); leave"
                    " it out, or set perplexity_text to corrected."
                )
            if config.perplexity.until is not None:
                raise ConfigError(
                    f"perplexity.until: under protocols.{name} every cell samples blocks"
                    " (perplexity_text: paper), so no documents are read in looks; leave it out, or"
                    " set perplexity_text to corrected."
                )
            tokens = config.perplexity.tokens
            if tokens is None or tokens >= config.corpus.heldout_tokens:
                raise ConfigError(
                    f"protocols.{name}.perplexity_text: paper draws a sample for every cell, so"
                    f" perplexity.tokens ({tokens}) must be given and lie below"
                    f" corpus.heldout_tokens ({config.corpus.heldout_tokens})."
                )


def check_interventions(config: Config, called: str, protocol: Protocol) -> None:
    """Refuse steps that name nothing, under one protocol."""
    codes = {lang for members in config.language_sets.values() for lang in members}
    for name, entry in config.interventions.items():
        if name == UNTOUCHED:
            raise ConfigError(
                "interventions.none: `none` is the untouched model; rename the entry."
            )
        for model in entry.models or ():
            if model not in config.models:
                raise unknown(f"interventions.{name}.models", model, "model", config.models)
        for number, step in enumerate(entry.steps):
            path = f"interventions.{name}"
            path += f".steps[{number}]" if len(entry.steps) > 1 else ""
            for key, word in step.words:
                if word not in ROLES and word not in codes:
                    words = ROLES if key != "statistic_language" else ("neurons", *ROLES[:2])
                    raise unknown(f"{path}.{key}", word, "language", [*words, *sorted(codes)])
            if step.statistic is None:
                continue
            site = statistic_site(step, protocol)
            if site != step.site and protocol.intervention_site == "corrected":
                raise ConfigError(
                    f"{path}: statistic of site {site!r} written at site {step.site!r}. A value"
                    " belongs where it was measured; to repeat the paper's mismatch set"
                    f" protocols.{called}.intervention_site: paper."
                )
            if site not in config.statistics.sites:
                raise ConfigError(
                    f"{path}: needs statistics of site {site!r}; statistics.sites:"
                    f" {', '.join(config.statistics.sites)}."
                )
            kept = config.statistics.document_means
            if step.statistic.startswith("document_") and site not in kept:
                raise ConfigError(
                    f"{path}: {step.statistic} needs the document means of site {site!r};"
                    f" statistics.document_means: {', '.join(kept) or 'none'}. Add it there."
                )
            percent = percentile(step.statistic)
            if percent is not None:
                check_histogram(config, path, site)
                level = percent / 100
                levels = config.statistics.batch_quantiles
                if protocol.quantiles == "paper" and site != "gate":
                    raise ConfigError(
                        f"{path}: protocols.{called}.quantiles: paper averages quantiles of"
                        f" batches, which are measured at the gate only, and {step.statistic} is"
                        f" read at site {site!r}. Set intervention_site: paper as well, or write at"
                        " site: gate."
                    )
                if protocol.quantiles == "paper" and level not in levels:
                    raise ConfigError(
                        f"{path}: protocols.{called}.quantiles: paper needs the gate's batch"
                        f" quantile {level}; statistics.batch_quantiles: {list(levels)}."
                    )


def check_perplexity(config: Config) -> None:
    """Refuse matrices without languages, text or interventions."""
    entry = config.perplexity
    if entry is None:
        return
    if not entry.interventions:
        raise ConfigError("perplexity.interventions: empty; name at least one intervention.")
    _check_conditions(config, "perplexity", entry)
    for name in entry.interventions:
        for step in config.interventions[name].steps:
            if step.tokens != "all":
                raise ConfigError(
                    f"perplexity.interventions: {name!r} acts on {step.tokens!r} tokens only; a"
                    " held-out text has no prompt. Legal here: tokens: all."
                )
    for model in config.models:
        for folder, selection, name in config.perplexity_cells(model):
            check_members(config, "perplexity", folder, selection, name)


def check_lss(config: Config) -> None:
    """Check the conditions and the languages of the Language Steering Shift."""
    entry = config.lss
    if entry is None:
        return
    _check_conditions(config, "lss", entry)
    check_sets(config, "lss", entry.language_sets)
    for key in ("bases", "targets"):
        for lang in getattr(entry, key) or ():
            check_spoken(config, f"lss.{key}", lang)
        check_doubled(f"lss.{key}", getattr(entry, key) or ())
    cells = {model: config.lss_cells(model) for model in config.models}
    if not any(cells.values()):
        raise ConfigError(
            "lss: no model has one of its selections on one of its language sets, so nothing would"
            f" be measured; selections: {', '.join(config.selections)}."
        )
    found = [cell for of_model in cells.values() for cell in of_model]
    members = {lang for cell in found for lang in config.directory_languages()[cell[0]]}
    for lang in entry.targets or ():
        if lang not in members:
            raise unknown("lss.targets", lang, "language of its sets", sorted(members))
    for folder, selection, name in found:
        check_members(config, "lss", folder, selection, name)
        bases, targets = config.lss_languages(folder)
        if not any(base != target for base in bases for target in targets):
            raise ConfigError(
                f"lss: on language set {config.labels()[folder]!r} no target language differs from"
                f" a base (bases: {', '.join(bases)}; targets: {', '.join(targets) or 'none'})."
            )
    languages = sorted({lang for cell in found for lang in config.lss_languages(cell[0])[0]})
    if entry.source.kind == "mini":
        others = {lang for cell in found for lang in config.lss_languages(cell[0])[1]}
        there = mini_languages(FACTS)
        for lang in sorted({*languages, *others}):
            if lang not in there:
                raise unknown("lss", lang, "language of the mini facts", there)
    else:
        key = "config" if entry.source.kind == "hub" else "path"
        check_template(f"lss.source.{key}", getattr(entry.source, key), len(languages))


def _check_conditions(
    config: Config,
    path: str,
    entry: Conditioned,
    pairs: bool = False,
) -> None:
    """Check the interventions and selections under which something is measured.

    `pairs`: whether it is measured for pairs of languages, so that there is a `source`.
    """
    for name in entry.interventions:
        if name not in config.interventions:
            raise unknown(f"{path}.interventions", name, "intervention", config.interventions)
        if "source" in config.interventions[name].roles and not pairs:
            raise ConfigError(
                f"{path}.interventions: {name!r} speaks of `source`, the first language of a pair,"
                f" and {path} has no pairs. Legal here: target, others, language codes."
            )
    check_doubled(f"{path}.interventions", entry.interventions)
    if entry.selections is not None and not entry.selections:
        raise ConfigError(f"{path}.selections: empty; leave the key out to use every selection.")
    for name in entry.selections or ():
        if name not in config.selections:
            raise unknown(f"{path}.selections", name, "selection", config.selections)
    check_doubled(f"{path}.selections", entry.selections or ())
    _check_units(config, path, entry)


def _check_units(config: Config, path: str, entry: Conditioned) -> None:
    """Refuse interventions and selections of a stage that fit none of the others."""
    used = {name: config.selections[name].units for name in entry.selections or config.selections}
    for name in entry.interventions:
        written = config.interventions[name].units
        if written not in used.values():
            site = "residual" if written == "neurons" else "gate, act or product"
            raise ConfigError(
                f"{path}.interventions: {name!r} writes {written}, and its selections"
                f" ({', '.join(used) or 'none'}) hold no {written}. Write at site {site}, or name a"
                f" selection of {written}."
            )
    written_here = {config.interventions[name].units for name in entry.interventions}
    for name in entry.selections or () if written_here else ():
        if used[name] not in written_here:
            site = "residual" if used[name] == "dimensions" else "gate, act or product"
            raise ConfigError(
                f"{path}.selections: {name!r} holds {used[name]}, and none of its interventions"
                f" ({', '.join(entry.interventions)}) writes them. Name one at site {site}."
            )


def check_neurons_only(config: Config, path: str, names: Iterable[str] | None, what: str) -> None:
    """Refuse selections of dimensions of the residual stream where neurons are needed."""
    for name in names or ():
        if name in config.selections and config.selections[name].units != "neurons":
            raise ConfigError(
                f"{path}.selections: {name!r} holds dimensions of the residual stream, and {what}"
                " neurons. Name selections of neurons."
            )


def check_members(config: Config, path: str, folder: str, selection: str, name: str) -> None:
    """Refuse a step on a language that the set, on which it would be used, does not hold."""
    members = config.directory_languages()[folder]
    for step in config.interventions[name].steps:
        for key, lang in step.words:
            if lang not in ROLES and lang not in members:
                raise ConfigError(
                    f"interventions.{name}: {key} {lang!r} is not in language set"
                    f" {config.labels()[folder]!r} ({', '.join(members)}), on which {path} uses it"
                    f" with selection {selection!r}."
                )


def check_tasks(config: Config) -> None:
    """Refuse tasks in languages, sets or conditions that are not there."""
    for name, task in config.tasks.items():
        path = f"tasks.{name}"
        _check_conditions(config, path, task, pairs=task.targets is not None)
        check_sets(config, path, task.language_sets)
        _check_targets(config, path, task)
        for lang in task.languages:
            check_spoken(config, f"{path}.languages", lang)
            conditions = [
                condition
                for model in config.models
                for condition in config.task_conditions(model, name, lang)
            ]
            if task.interventions and not conditions:
                raise ConfigError(
                    f"{path}.languages: {lang!r} is in no language set of the selections"
                    f" used, so no neurons of it can be overwritten; sets:"
                    f" {', '.join(config.language_sets)}."
                )
            for folder, selection, written in dict.fromkeys(one[:3] for one in conditions):
                check_members(config, path, folder, selection, written)
                if "source" in config.interventions[written].roles:
                    members = config.directory_languages()[folder]
                    if lang not in members:
                        raise ConfigError(
                            f"{path}.languages: {lang!r} is not in language set"
                            f" {config.labels()[folder]!r} ({', '.join(members)}), and {written!r}"
                            " writes the neurons of the evaluated language (`source`)."
                        )
        check_doubled(f"{path}.languages", task.languages)
        if task.finetunings is not None and not task.finetunings:
            raise ConfigError(f"{path}.finetunings: empty; leave the key out to run the model.")
        for finetuning in task.finetunings or ():
            if finetuning not in config.finetunings:
                raise unknown(f"{path}.finetunings", finetuning, "fine-tuning", config.finetunings)
        for place, source in _sources(path, task):
            check_paths(place, source, len(task.languages))
        if task.chat:
            check_chat(config, path)


def check_chat(config: Config, path: str) -> None:
    """Refuse `chat: true` where no model is spoken to by a chat template."""
    if not any(model.chat for model in config.models.values()):
        raise ConfigError(
            f"{path}.chat: true, but no model has the key `chat`"
            f" ({', '.join(config.models)}). Give it to the instruction-tuned ones:"
            " models: {NAME: {chat: {}}}."
        )


def _check_targets(config: Config, path: str, task: TaskEntry) -> None:
    """Refuse targets that are not languages of a set."""
    if task.targets in (None, "all"):
        return
    if not task.targets:
        raise ConfigError(f"{path}.targets: empty; leave the key out, or write `all`.")
    check_doubled(f"{path}.targets", task.targets)
    members = {lang for langs in config.language_sets.values() for lang in langs}
    for lang in task.targets:
        if lang not in members:
            raise unknown(f"{path}.targets", lang, "language of a set", sorted(members))


def _sources(path: str, entry: TaskEntry | FinetuneEntry) -> list:
    """Return (key path, source) of an entry's rows, also those under `paper`."""
    found = [(f"{path}.source", entry.source)]
    if entry.paper is not None and entry.paper.source is not None:
        found.append((f"{path}.paper.source", entry.paper.source))
    return found


def check_finetunings(config: Config) -> None:
    """Refuse trainings of neurons or languages that are not there."""
    for name, entry in config.finetunings.items():
        path = f"finetunings.{name}"
        for key, langs in (("language", (entry.language,)), ("targets", entry.targets)):
            for lang in langs:
                check = check_language if entry.is_text else check_spoken
                check(config, f"{path}.{key}", lang)
        for selection in entry.selections or ():
            if selection not in config.selections:
                raise unknown(f"{path}.selections", selection, "selection", config.selections)
        check_neurons_only(config, path, entry.selections, "a fine-tuning trains")
        check_sets(config, path, entry.language_sets)
        for key in ("neurons", "targets", "selections"):
            check_doubled(f"{path}.{key}", getattr(entry, key) or ())
        if {"target", "source_target"} & set(entry.neurons) and not entry.targets:
            raise ConfigError(f"{path}.targets: empty, but neurons of the target are asked for.")
        choices = set(entry.neurons)
        same = {"source", "target"} <= choices or "source_target" in choices
        if same and entry.language in entry.targets:
            raise ConfigError(
                f"{path}.targets: {entry.language!r} is the language of the rows as well, so that"
                " source and target are the same neurons; leave it out of `targets`, or name"
                " `neurons: [target]` alone."
            )
        for choice in entry.neurons:
            made = [
                adapter
                for model in config.models
                for adapter in config.adapters(model).values()
                if adapter.finetuning == name and adapter.choice == choice
            ]
            if not made:
                raise ConfigError(
                    f"{path}.neurons: {choice!r}: no language set of the selections used holds"
                    f" {entry.language!r} or a target ({', '.join(entry.targets) or 'none'})."
                )
        for place, source in _sources(path, entry):
            check_paths(place, source, 1)
        if entry.is_text:
            _check_text(config, path, entry)
        used = any(name in (task.finetunings or ()) for task in config.tasks.values())
        if not used and not entry.is_text:
            raise ConfigError(
                f"{path}: no task evaluates it; name it under `finetunings` of a task."
            )


def check_generation(config: Config) -> None:
    """Refuse forcing, fallback and lens without languages or interventions."""
    members = {lang for langs in config.language_sets.values() for lang in langs}
    for path in ("forcing", "fallback", "lens"):
        entry = getattr(config, path)
        if entry is None:
            continue
        if path != "lens" and entry.chat:
            check_chat(config, path)
        if path != "lens" and not entry.interventions:
            raise ConfigError(f"{path}.interventions: empty; name at least one intervention.")
        _check_conditions(config, path, entry, pairs=path in ("forcing", "lens"))
        for key in ("sources", "targets", "languages", "order"):
            langs = getattr(entry, key, None)
            if langs is not None and not langs and (path, key) != ("lens", "targets"):
                raise ConfigError(f"{path}.{key}: empty; leave the key out.")
            check_doubled(f"{path}.{key}", langs or ())
            for lang in langs or ():
                if key == "order":
                    check_language(config, f"{path}.{key}", lang)
                elif (path, key) != ("lens", "targets"):
                    check_spoken(config, f"{path}.{key}", lang, members)
                elif lang not in members:
                    raise unknown(f"{path}.{key}", lang, "language of a set", sorted(members))
        if path == "lens" and bool(entry.interventions) != bool(entry.targets):
            raise ConfigError("lens: `interventions` and `targets` go together.")
        for name in entry.interventions if path == "fallback" else ():
            if any(step.direction for step in config.interventions[name].steps):
                raise ConfigError(
                    f"fallback.interventions: {name!r} writes the direction of a language, and"
                    " fallback adds up languages neuron by neuron. Name one that writes numbers or"
                    " statistics."
                )
        if path == "fallback":
            check_spoken(config, "fallback.language", entry.language)
        asked: set[str] = set()
        for model in config.models:
            lens = path == "lens"
            cells = [] if lens else config.generation_cells(model, path)
            if lens:
                cells = [
                    (folder, selection, name)
                    for folder, rows in config.lens_cells(model).items()
                    for selection, name, _ in rows
                ]
            for folder, selection, name in cells:
                check_members(config, path, folder, selection, name)
            folders = [folder for folder, _, _ in cells] + list(config.lens_cells(model)) * lens
            for folder in folders:
                asked.update(entry_languages(entry, config.directory_languages()[folder])[0])
        if not asked:
            raise ConfigError(
                f"{path}: no language set of the selections used holds its languages; sets:"
                f" {', '.join(config.language_sets)}."
            )
        if path == "forcing":
            cells_of = (config.generation_cells(model, path) for model in config.models)
            used = {folder for cells in cells_of for folder, _, _ in cells}
            sets = (config.directory_languages()[folder] for folder in used)
            check_told(
                path, entry, {lang for one in sets for lang in entry_languages(entry, one)[1]}
            )
        check_questions(path, entry, asked)


def check_told(path: str, entry: Answering, targets: Iterable[str]) -> None:
    """Refuse target languages that the identifier does not know."""
    for lang in sorted(targets):
        if entry.identifier.kind == "py3langid" and lang not in PY3LANGID:
            what = "language that py3langid tells"
            raise unknown(f"{path}.targets", lang, what, sorted(PY3LANGID))


def check_questions(path: str, entry: Asking, asked: Collection[str]) -> None:
    """Refuse languages without questions."""
    source = entry.questions
    if source.kind != "mini":
        legal = ("lang", "part") if source.kind == "csv" and source.parts else ("lang",)
        check_template(f"{path}.questions.path", source.path, len(asked), legal)
        return
    known = mini_languages(question_part(source.model_dump()))
    for lang in sorted(asked):
        if lang not in known:
            raise unknown(f"{path}.questions", lang, "language of the mini questions", known)


def check_browser(config: Config) -> None:
    """Refuse pages of neurons of nothing, and links without a place for the neuron."""
    entry = config.browser
    if entry is None:
        return
    if entry.selections is not None and not entry.selections:
        raise ConfigError("browser.selections: empty; leave the key out for all but random ones.")
    for name in entry.selections or ():
        if name not in config.selections:
            raise unknown("browser.selections", name, "selection", config.selections)
    check_doubled("browser.selections", entry.selections or ())
    check_neurons_only(config, "browser", entry.selections, "its pages show")
    check_sets(config, "browser", entry.language_sets)
    if not any(config.browsed(model) for model in config.models):
        pairs = {pair for model in config.models for pair in config.cells(model)}
        made = ", ".join(sorted(f"{name} on {langset}" for langset, name in pairs))
        raise ConfigError(
            "browser: none of its selections is made on one of its language sets, so there would be"
            f" no page. Made are: {made}."
        )
    if entry.site not in config.statistics.sites:
        raise ConfigError(
            f"browser.site: {entry.site!r} is not among statistics.sites"
            f" ({', '.join(config.statistics.sites)})."
        )
    for model, link in entry.links.items():
        if model not in config.models:
            raise unknown("browser.links", model, "model", config.models)
        path = f"browser.links.{model}"
        if not link.startswith(("https://", "http://")):
            raise ConfigError(f"{path}: {link!r} is not an address; it begins with https://.")
        for word in ("{layer}", "{neuron}"):
            if word not in link:
                raise ConfigError(f"{path}: {link!r} lacks {word}, so it names no neuron.")


def _check_text(config: Config, path: str, entry: FinetuneEntry) -> None:
    """Refuse text in a language without a corpus, and more of it than is packed."""
    if entry.language not in config.language_names():
        raise unknown(f"{path}.language", entry.language, "language", config.language_names())
    for key in ("tokens", "heldout_tokens"):
        asked, packed = getattr(entry.source, key), getattr(config.corpus, key)
        if asked is not None and asked > packed:
            raise ConfigError(
                f"{path}.source.{key}: {asked} is more than is packed; corpus.{key}: {packed}."
            )


def check_mini(config: Config) -> None:
    """Refuse languages and tasks that the mini data lacks."""
    found: dict[str, list[str]] = {}
    sources = {}
    for path, source, lang in config.text_sources():
        base, sources[path] = parts_of(lang)[0], source
        found.setdefault(path, []).append(base)
        if source.kind == "mini" and base not in mini_languages(source.texts):
            sets = config.language_sets.items()
            name = next(one for one, members in sets if lang in config.fetched(members))
            what = "language of the mini corpus"
            raise unknown(f"language_sets.{name}", base, what, mini_languages(source.texts))
    for path, source in sources.items():
        if source.kind == "mini":
            continue
        key = "config" if source.kind == "hub" else "path"
        # A field per language tells them apart as well.
        number = 1 if source.kind == "hub" and braces(source.text_field) else len(found[path])
        check_template(f"{path}.{key}", getattr(source, key), number, ("lang", "code"))
        for lang in source.codes:
            if lang not in found[path]:
                raise unknown(f"{path}.codes", lang, "language", found[path])
    for name, task in config.tasks.items():
        check_mini_rows(f"tasks.{name}", task, name, task.languages, "languages")


def check_mini_rows(
    path: str, entry: TaskEntry | FinetuneEntry, name: str, langs: Iterable[str], key: str
) -> None:
    """Refuse rows of the mini data, also those under `paper`, that are not among them.

    name: what the mini data is called where the source does not say.
    """
    for place, source in _sources(path, entry):
        if source.kind != "mini":
            continue
        known = mini_languages(source.name or name)
        if (source.name or name) not in mini_tasks():
            error = unknown(place, name, "task of the mini data", mini_tasks())
            raise ConfigError(f"{error} Name one: {{kind: mini, name: ...}}.")
        for lang in langs:
            if lang not in known:
                raise unknown(f"{path}.{key}", lang, f"language of the mini data ({place})", known)


def check_use(config: Config) -> None:
    """Refuse what is defined and used by nothing."""
    used = {langset for model in config.models for langset, _ in config.cells(model)}
    for langset in config.language_sets:
        if langset not in used:
            raise ConfigError(
                f"language_sets.{langset}: no model and selection uses it; name it under"
                " `language_sets` of a selection and a model, or remove it."
            )
    for model in config.models:
        if not config.cells(model) and config.models[model].language_sets != ():
            raise ConfigError(
                f"models.{model}: no selection works on its language sets"
                f" ({', '.join(config.model_sets(model))})."
            )
    sets = [set(members) for members in config.language_sets.values()]
    for triple in config.results.venn:
        for lang in triple:
            if not any(lang in members for members in sets):
                raise unknown("results.venn", lang, "language of a set", sorted(set().union(*sets)))
        if len(set(triple)) < 3:
            raise ConfigError(f"results.venn: {list(triple)} does not name three languages.")
        if not any(members.issuperset(triple) for members in sets):
            raise ConfigError(
                f"results.venn: {list(triple)} are in no language set together; sets:"
                f" {', '.join(config.language_sets)}."
            )
