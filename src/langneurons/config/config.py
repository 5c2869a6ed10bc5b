"""The whole configuration: its keys, the checks across keys, and what follows from them."""

import re
from collections.abc import Iterable

from pydantic import Field, field_validator

from langneurons.activations.settings import StatisticsConfig
from langneurons.base.errors import ConfigError, unknown
from langneurons.base.languages import KNOWN_LANGUAGES, Language, set_directory
from langneurons.base.paths import braces
from langneurons.base.protocols import Protocol, stage_points
from langneurons.base.settings import NAME, NAME_LENGTH, Frozen, doubled, is_name
from langneurons.config.labels import check_labels
from langneurons.data.settings import CorpusConfig
from langneurons.evaluation.generation_settings import (
    FallbackConfig,
    ForcingConfig,
    LensConfig,
    Prompted,
)
from langneurons.evaluation.identification import PY3LANGID
from langneurons.evaluation.lss_settings import LssConfig
from langneurons.evaluation.settings import (
    PerplexityConfig,
    ResultsConfig,
    RuntimeConfig,
    TaskEntry,
    source_paths,
)
from langneurons.interventions.settings import ROLES, InterventionEntry, Step, percentile
from langneurons.models.settings import ModelEntry
from langneurons.selection.methods import Selection
from langneurons.training.settings import Adapter, FinetuneEntry

BASELINE = "none"
SWEPT = re.compile(r"\d+(-\d+)?")
# Keys whose own keys are names that the user chooses.
NAMED = (
    "models",
    "languages",
    "language_sets",
    "selections",
    "interventions",
    "tasks",
    "finetunings",
    "protocols",
)
# Words with a meaning of their own where a language or a model is named.
RESERVED_LANGUAGES = (BASELINE, "neurons", *ROLES)
RESERVED_MODELS = ("tables", "figures")
# What has pairs of a source and a target language.
PAIRED = ("forcing", "lens")
MINI_LANGUAGES = ("en", "fr", "es", "vi", "id", "ja", "zh", "hi", "ur")
# Languages of the forcing questions: those of the corpus, and the others of Gurgurov et al. 2025.
MINI_QUESTIONS = (
    *MINI_LANGUAGES,
    *("mt", "it", "de", "ar", "af", "nl", "pt", "ru", "ko", "tr", "pl", "sv", "da", "no", "bo"),
)
MINI_TASK_LANGUAGES = dict.fromkeys(("xnli", "xquad", "xcopa"), ("en", "vi", "hi", "ur", "zh"))
MINI_TASK_LANGUAGES["flores"] = tuple(lang for lang in MINI_LANGUAGES if lang != "en")


class Config(Frozen):
    """A run: models, languages, how neurons are found, what is done to them, what is measured."""

    name: str = Field(
        pattern=NAME, description="Names the folders of tables and figures of this configuration."
    )
    title: str = Field("", description="One line that the report shows.")
    models: dict[str, ModelEntry] = Field(min_length=1, description="Models by short name.")
    languages: dict[str, Language] = Field(
        default_factory=dict,
        description="Names of languages that are not in the built-in table, or other names.",
    )
    language_sets: dict[str, tuple[str, ...]] = Field(
        min_length=1, description="Language sets by name; the order is that of the figures."
    )
    corpus: CorpusConfig = Field(
        default_factory=CorpusConfig,
        description="The text on which neurons are found and perplexity is measured.",
    )
    statistics: StatisticsConfig = Field(
        default_factory=StatisticsConfig, description="What is kept of the activations."
    )
    selections: dict[str, Selection] = Field(
        min_length=1, description="Ways to select neurons, by name."
    )
    interventions: dict[str, InterventionEntry] = Field(
        default_factory=dict, description="Interventions by name (`none` is the untouched model)."
    )
    protocols: dict[str, Protocol] = Field(
        default_factory=lambda: {"corrected": Protocol()},
        min_length=1,
        description="How the papers' own ways are treated: by name `paper`, `corrected`, or point"
        " by point. Also a word or a list of these two. Results are made under each.",
    )
    perplexity: PerplexityConfig | None = Field(None, description="Left out: no such matrix.")
    lss: LssConfig | None = Field(None, description="Left out: no Language Steering Shift.")
    tasks: dict[str, TaskEntry] = Field(default_factory=dict, description="Benchmarks by name.")
    finetunings: dict[str, FinetuneEntry] = Field(
        default_factory=dict, description="Training of chosen neurons, by name."
    )
    forcing: ForcingConfig | None = Field(None, description="Left out: no language forcing.")
    fallback: FallbackConfig | None = Field(
        None, description="Left out: no fallback under cumulative deactivation."
    )
    lens: LensConfig | None = Field(None, description="Left out: no logit lens.")
    results: ResultsConfig = Field(
        default_factory=ResultsConfig, description="Intervals, tests, Venn diagrams."
    )
    runtime: RuntimeConfig = Field(
        default_factory=RuntimeConfig,
        description="Batch sizes, memory, time, GPUs; changes no result and reruns no job.",
    )

    @field_validator("protocols", mode="before")
    @classmethod
    def _words(cls, value):
        """Accept `paper`, or [corrected, paper]."""
        value = [value] if isinstance(value, str) else value
        if isinstance(value, list) and all(isinstance(word, str) for word in value):
            return {word: word for word in value}
        return value

    @field_validator(*NAMED)
    @classmethod
    def _names(cls, value: dict) -> dict:
        for key in value:
            if not is_name(key):
                raise ValueError(
                    f"name {key!r}: names hold letters, digits, '.', '_', '+', '-' and begin with"
                    f" a letter or digit ({NAME_LENGTH} characters at most)"
                )
        return value

    # What follows from the configuration ------------------------------------------------------

    def language_names(self) -> dict[str, str]:
        """Return the English name of every language that a set uses, in the sets' order."""
        known = KNOWN_LANGUAGES | self.languages
        codes = [lang for members in self.language_sets.values() for lang in members]
        return {code: known[code].name for code in dict.fromkeys(codes)}

    def language_families(self) -> dict[str, str]:
        """Return the family of every language that a set uses."""
        known = KNOWN_LANGUAGES | self.languages
        return {code: known[code].family for code in self.language_names()}

    def model_sets(self, model: str) -> tuple[str, ...]:
        """Return the names of the language sets on which a model is run."""
        chosen = self.models[model].language_sets
        return tuple(self.language_sets) if chosen is None else chosen

    def cells(self, model: str) -> list[tuple[str, str]]:
        """Return (language set, selection) for each neuron table of a model."""
        sets = self.model_sets(model)
        pairs = (
            (langset, name)
            for name, selection in self.selections.items()
            for langset in (selection.language_sets or self.language_sets)
            if langset in sets
        )
        return list(dict.fromkeys(pairs))

    def model_languages(self, model: str) -> tuple[str, ...]:
        """Return every language whose activations a model needs."""
        return tuple(
            dict.fromkeys(
                lang for langset, _ in self.cells(model) for lang in self.language_sets[langset]
            )
        )

    def manifest(self, model: str) -> str:
        """Return the manifest of the weights that a model's jobs load."""
        kind = self.models[model].quantization
        return f"resources/models/{model}/{'' if kind == 'none' else kind + '/'}manifest.json"

    def gpus(self, model: str) -> int:
        """Return the GPUs of each of a model's jobs."""
        own = self.models[model].gpus
        return self.runtime.gpu if own is None else own

    def directory(self, langset: str) -> str:
        """Return the folder name of a language set: its content, not its name or order."""
        return set_directory(self.language_sets[langset])

    def directory_languages(self) -> dict[str, tuple[str, ...]]:
        """Return the sorted languages behind each folder name."""
        return {
            set_directory(members): tuple(sorted(members))
            for members in self.language_sets.values()
        }

    def labels(self) -> dict[str, str]:
        """Return the label of each folder name (of sets equal in content, the first's name)."""
        result: dict[str, str] = {}
        for name, members in self.language_sets.items():
            result.setdefault(set_directory(members), name)
        return result

    def usable(self, entry, model: str) -> tuple[str, ...]:
        """Return the interventions that a stage lists and that are meant for a model."""
        meant = {
            name: one.models is None or model in one.models
            for name, one in self.interventions.items()
        }
        return tuple(name for name in entry.interventions if meant.get(name, True))

    def sweeps(self) -> dict[str, dict[str, str]]:
        """Return, by the name of a sweep, its interventions by layer or range of layers."""
        found: dict[str, dict[str, str]] = {}
        for name in self.interventions:
            base, _, layers = name.rpartition(".L")
            if base and base not in self.interventions and SWEPT.fullmatch(layers):
                found.setdefault(base, {})[layers] = name
        return found

    def sweep_of(self, name: str) -> str | None:
        """Return the sweep that an intervention belongs to, if to any."""
        members = {one: base for base, parts in self.sweeps().items() for one in parts.values()}
        return members.get(name)

    def target_cells(self, model: str) -> list[tuple[str, str, str]]:
        """Return (task, set name, intervention) of each matrix of evaluated x target languages."""
        found = []
        for task, entry in self.tasks.items():
            if entry.targets is None or entry.finetunings is not None:
                continue
            cells = (
                (langset, intervention)
                for lang in entry.languages
                for langset, _, intervention, _ in self.task_conditions(model, task, lang)
            )
            labels = self.labels()
            found += [(task, labels[langset], name) for langset, name in dict.fromkeys(cells)]
        return found

    def perplexity_cells(self, model: str) -> list[tuple[str, str, str]]:
        """Return (set folder, selection, intervention) for each perplexity matrix of a model."""
        if self.perplexity is None:
            return []
        chosen = self.perplexity.selections
        cells = (
            (self.directory(langset), selection, intervention)
            for langset, selection in self.cells(model)
            if chosen is None or selection in chosen
            for intervention in self.usable(self.perplexity, model)
        )
        return list(dict.fromkeys(cells))

    def lss_languages(self, folder: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Return the sorted base and target languages of the steering shift on a set's folder."""
        members = self.directory_languages()[folder]
        bases, targets = self.lss.bases, self.lss.targets
        return (
            tuple(sorted(bases or members)),
            tuple(lang for lang in members if targets is None or lang in targets),
        )

    def lss_cells(self, model: str) -> list[tuple[str, str, str]]:
        """Return (set folder, selection, intervention) for each matrix of the steering shift."""
        if self.lss is None:
            return []
        chosen, sets = self.lss.selections, self.lss.language_sets
        cells = (
            (self.directory(langset), selection, intervention)
            for langset, selection in self.cells(model)
            if (chosen is None or selection in chosen) and (sets is None or langset in sets)
            for intervention in self.usable(self.lss, model)
        )
        return list(dict.fromkeys(cells))

    def generation_cells(self, model: str, analysis: str) -> list[tuple[str, str, str]]:
        """Return (set folder, selection, intervention) for each job of `forcing` or `fallback`."""
        entry = getattr(self, analysis)
        if entry is None:
            return []
        cells = (
            (self.directory(langset), selection, intervention)
            for langset, selection in self.cells(model)
            if entry.selections is None or selection in entry.selections
            if all(entry_languages(entry, self.language_sets[langset]))
            for intervention in self.usable(entry, model)
        )
        return list(dict.fromkeys(cells))

    def lens_cells(self, model: str) -> dict[str, list[tuple[str, str, str]]]:
        """Return, by set folder, the (selection, intervention, target) of the logit lens."""
        if self.lens is None:
            return {}
        found: dict[str, list[tuple[str, str, str]]] = {}
        for langset, selection in self.cells(model):
            members = self.language_sets[langset]
            if not all(entry_languages(self.lens, members)):
                continue
            conditions = found.setdefault(self.directory(langset), [])
            if self.lens.selections is None or selection in self.lens.selections:
                conditions += [
                    (selection, intervention, target)
                    for intervention in self.usable(self.lens, model)
                    for target in self.lens.targets
                    if target in members
                ]
        return {folder: list(dict.fromkeys(rows)) for folder, rows in found.items()}

    def task_conditions(
        self, model: str, task: str, lang: str, adapter: Adapter | None = None
    ) -> list[tuple[str, str, str, str]]:
        """Return (set folder, selection, intervention, target) under which a task is run.

        An adapter that was trained on the neurons of one selection and set meets these only.
        """
        entry = self.tasks[task]
        cells = (
            (self.directory(langset), selection, intervention, target)
            for langset, selection in self.cells(model)
            if (entry.selections is None or selection in entry.selections)
            and (entry.language_sets is None or langset in entry.language_sets)
            and (adapter is None or adapter.selection in (None, selection))
            and (adapter is None or adapter.langset in (None, self.directory(langset)))
            for intervention in self.usable(entry, model)
            for target in entry.written(lang, self.language_sets[langset])
        )
        return list(dict.fromkeys(cells))

    def adapters(self, model: str) -> dict[str, Adapter]:
        """Return every adapter that is trained for a model, by name."""
        found: dict[str, Adapter] = {}
        for name, entry in self.finetunings.items():
            cells = [
                (self.directory(langset), selection, set(self.language_sets[langset]))
                for langset, selection in self.cells(model)
                if entry.selections is None or selection in entry.selections
                if entry.language_sets is None or langset in entry.language_sets
            ]
            for choice in entry.neurons:
                made = []
                if choice in ("none", "all"):
                    made = [Adapter(finetuning=name, choice=choice)]
                for langset, selection, members in cells if not made else ():
                    targets = [None] if choice == "source" else entry.targets
                    for target in targets:
                        adapter = Adapter(
                            finetuning=name,
                            choice=choice,
                            selection=selection,
                            langset=langset,
                            target=target,
                        )
                        if members.issuperset(adapter.languages(entry.language)):
                            made.append(adapter)
                found |= {adapter.name: adapter for adapter in made}
        return found

    def evaluations(self, model: str) -> list[tuple[str, str, str]]:
        """Return (adapter, task, language) for each evaluation job; `base` is no adapter."""
        jobs = []
        for task, entry in self.tasks.items():
            if entry.finetunings is None:
                jobs += [("base", task, lang) for lang in entry.languages]
                continue
            for name, adapter in self.adapters(model).items():
                if adapter.finetuning in entry.finetunings:
                    jobs += [
                        (name, task, lang)
                        for lang in entry.languages
                        if adapter.target in (None, lang)
                    ]
        return jobs

    def points(self, stage: str) -> tuple[str, ...]:
        """Return the folders of a stage: its results under every protocol, each once."""
        return stage_points(self.protocols.values(), stage)


def entry_languages(
    entry: ForcingConfig | FallbackConfig | LensConfig, members: Iterable[str]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the languages of the questions and of the neurons that a set takes part with, sorted.

    The order of fallback keeps its own. Either may be empty: then the set takes no part.
    """
    members = set(members)
    if isinstance(entry, FallbackConfig):
        return (entry.language,), tuple(lang for lang in entry.order if lang in members)
    if isinstance(entry, LensConfig):
        asked = members if entry.languages is None else members.intersection(entry.languages)
        return tuple(sorted(asked)), tuple(sorted(members))
    asked = members if entry.sources is None else members.intersection(entry.sources)
    forced = members if entry.targets is None else members.intersection(entry.targets)
    return tuple(sorted(asked)), tuple(sorted(forced))


def statistic_site(step: Step, protocol: Protocol) -> str:
    """Return the site at which the step's statistic is read, after the protocol."""
    if step.statistic_site is not None:
        return step.statistic_site
    if protocol.intervention_site == "paper" and step.site == "act":
        return "gate"
    return step.site


def check(config: Config) -> None:
    """Raise `ConfigError` for the first name that refers to nothing, or to something unused."""
    known = KNOWN_LANGUAGES | config.languages
    for code in config.languages:
        if code in RESERVED_LANGUAGES:
            raise ConfigError(
                f"languages.{code}: {code!r} is no language code; it has a meaning of its own, as"
                f" have {', '.join(word for word in RESERVED_LANGUAGES if word != code)}."
            )
    for name, members in config.language_sets.items():
        path = f"language_sets.{name}"
        if not members:
            raise ConfigError(f"{path}: the set is empty; list at least two languages.")
        if len(members) < 2:
            raise ConfigError(
                f"{path}: {list(members)} has one language; a language-specific neuron is one"
                " against others, so list at least two."
            )
        for lang in members:
            if lang not in known:
                raise unknown(path, lang, "language", known)
        _check_doubled(path, members)
    _check_directories(config)
    for name, model in config.models.items():
        if name in RESERVED_MODELS:
            raise ConfigError(
                f"models.{name}: results/{name} holds the {name} of all models; choose another"
                " name."
            )
        path = f"models.{name}.language_sets"
        if model.language_sets is not None and not model.language_sets:
            raise ConfigError(f"{path}: empty; leave the key out to run every set.")
        for langset in model.language_sets or ():
            if langset not in config.language_sets:
                raise unknown(path, langset, "language set", config.language_sets)
        _check_doubled(path, model.language_sets or ())
        source = model.source
        if source.kind == "gguf":
            fields = ("package", "version", "file", "sha256")
            given = [key for key in fields if getattr(source, key) is not None]
            if (source.path is None) == (source.package is None):
                raise ConfigError(
                    f"models.{name}.source: a gguf source takes either `path` or `package`."
                )
            if source.package is not None and len(given) < len(fields):
                lacking = sorted(set(fields) - set(given))
                raise ConfigError(
                    f"models.{name}.source: {', '.join(lacking)} missing; a package is pinned by"
                    " version and by the SHA-256 of the file."
                )
    _check_protocols(config)
    _check_selections(config)
    _check_cycles(config)
    for name, protocol in config.protocols.items():
        _check_interventions(config, name, protocol)
    _check_perplexity(config)
    _check_lss(config)
    _check_tasks(config)
    _check_finetunings(config)
    _check_generation(config)
    _check_mini(config)
    _check_use(config)
    _check_figures(config)
    check_labels(config)


FIGURE_KEYS = {
    "neurons": (),
    "overlap": ("selection",),
    "layers": ("selection",),
    "venn": ("selection",),
    "perplexity": ("intervention", "protocol"),
    "cross_entropy": ("intervention", "protocol"),
    "forcing": ("intervention", "protocol"),
    "fallback": ("intervention", "protocol"),
    "lens": ("protocol",),
    "lens_change": ("intervention", "protocol"),
    "lss": ("intervention", "protocol"),
    "lss_factors": ("protocol",),
    "lss_layers": ("intervention", "protocol"),
    "scores": ("task", "protocol"),
    "targets": ("task", "intervention", "protocol"),
    "task_layers": ("task", "intervention", "protocol"),
}
# Figures that show a task, not the neurons of a language set.
WITHOUT_SET = ("scores",)


def _check_one_set(config: Config) -> None:
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


def _check_figures(config: Config) -> None:
    """Refuse a stand-in that is no model, and a named figure that is not drawn."""
    for printed, model in config.results.stand_ins.items():
        if model not in config.models:
            raise unknown(f"results.stand_ins.{printed}", model, "model", config.models)
    if config.results.published is not None:
        _check_one_set(config)
    if config.results.claims and not config.tasks:
        raise ConfigError("results.claims: they are about task scores; define `tasks`.")
    _check_doubled("results.claims", config.results.claims)
    for name, figure in config.results.figures.items():
        path = f"results.figures.{name}"
        if not is_name(name):
            raise ConfigError(f"{path}: {name!r} is no name (letters, digits, '.', '_', '+', '-').")
        groups = (
            ("model", "model", config.models),
            ("languages", "language set", config.language_sets),
            ("selection", "selection", config.selections),
            ("intervention", "intervention", {**config.interventions, **config.sweeps()}),
            ("protocol", "protocol", config.protocols),
            ("task", "task", config.tasks),
        )
        for key, what, known in groups:
            value = getattr(figure, key)
            if value is not None and value not in known:
                raise unknown(f"{path}.{key}", value, what, known)
            needed = key == "model" or key in FIGURE_KEYS[figure.kind]
            needed = needed or (key == "languages" and figure.kind not in WITHOUT_SET)
            if value is None and needed and key != "protocol":
                raise ConfigError(f"{path}.{key}: missing; a figure of {figure.kind} needs it.")
            if value is not None and not needed:
                raise ConfigError(f"{path}.{key}: a figure of {figure.kind} takes none.")
        if figure.kind == "scores":
            if not config.tasks[figure.task].interventions:
                raise ConfigError(f"{path}: this configuration draws no such figure.")
            continue
        members = config.language_sets[figure.languages]
        cells = config.cells(figure.model)
        sets = {langset for langset, _ in cells}
        drawn = figure.languages in sets
        if figure.selection is not None:
            drawn = (figure.languages, figure.selection) in cells
        if figure.kind == "venn":
            drawn = drawn and any(set(members).issuperset(t) for t in config.results.venn)
        folder = config.directory(figure.languages)
        if figure.intervention is not None:
            drawn = (folder, figure.intervention) in _written(config, figure.model, figure.kind)
        if figure.kind == "lss_factors":
            drawn = any(cell[0] == folder for cell in config.lss_cells(figure.model))
        if figure.task is not None:
            sweeps = config.sweeps().get(figure.intervention, {}).values()
            drawn = any(
                (figure.task, figure.languages, name) in config.target_cells(figure.model)
                for name in (sweeps if figure.kind == "task_layers" else [figure.intervention])
            )
        if figure.kind == "lens":
            drawn = folder in config.lens_cells(figure.model)
        if not drawn:
            raise ConfigError(f"{path}: this configuration draws no such figure.")


def _written(config: Config, model: str, kind: str) -> set[tuple[str, str]]:
    """Return the (set folder, intervention) of which there are figures of a kind."""
    if kind == "lens_change":
        cells = config.lens_cells(model)
        return {(folder, name) for folder, rows in cells.items() for _, name, _ in rows}
    if kind == "lss":
        return {(folder, name) for folder, _, name in config.lss_cells(model)}
    if kind == "lss_layers":
        return {(folder, config.sweep_of(name)) for folder, _, name in config.lss_cells(model)}
    if kind in ("forcing", "fallback"):
        return {(folder, name) for folder, _, name in config.generation_cells(model, kind)}
    return {(folder, name) for folder, _, name in config.perplexity_cells(model)}


def _check_doubled(path: str, values: Iterable[object]) -> None:
    again = doubled(values)
    if again:
        raise ConfigError(f"{path}: {', '.join(again)} listed more than once.")


def _check_directories(config: Config) -> None:
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


def _check_paths(place: str, source, languages: int) -> None:
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
    if not fields and languages > 1:
        raise ConfigError(
            f"{path}: {text!r} lacks {{lang}}, so every language would read the same text."
        )


def _check_selections(config: Config) -> None:
    for name, selection in config.selections.items():
        path = f"selections.{name}"
        if name == BASELINE:
            raise ConfigError(f"{path}: `none` names the untouched model; choose another name.")
        if selection.language_sets is not None and not selection.language_sets:
            raise ConfigError(f"{path}.language_sets: empty; leave the key out to use every set.")
        for langset in selection.language_sets or ():
            if langset not in config.language_sets:
                raise unknown(
                    f"{path}.language_sets", langset, "language set", config.language_sets
                )
        _check_doubled(f"{path}.language_sets", selection.language_sets or ())
        own = selection.language_sets or tuple(config.language_sets)
        for other in selection.depends_on:
            key = f"{path}.{selection.depends_key}"
            if other not in config.selections:
                raise unknown(key, other, "selection", config.selections)
            if selection.method == config.selections[other].method == "random":
                raise ConfigError(f"{key}: {other!r} is itself random; name what it mirrors.")
            there = config.selections[other].language_sets or tuple(config.language_sets)
            lacking = [langset for langset in own if langset not in there]
            if lacking:
                raise ConfigError(
                    f"{key}: {other!r} is not selected on language set {lacking[0]!r}; it is"
                    f" selected on: {', '.join(there)}."
                )
        for langset in own if selection.knows is not None else ():
            for lang in config.language_sets[langset]:
                if lang not in selection.knows:
                    what = f"language of the mask (language set {langset!r})"
                    raise unknown(f"{path}.language_sets", lang, what, selection.knows)
        for site in selection.needs_sites:
            if site not in config.statistics.sites:
                raise ConfigError(
                    f"{path}.site: {site!r} is not measured; statistics.sites:"
                    f" {', '.join(config.statistics.sites)}."
                )
        for site in selection.needs_histograms:
            _check_histogram(config, f"{path}.threshold", site)
        for site in selection.needs_document_means:
            if site not in config.statistics.document_means:
                raise ConfigError(
                    f"{path}.site: needs means per document of site {site!r};"
                    f" statistics.document_means:"
                    f" {', '.join(config.statistics.document_means) or 'none'}. Add it there."
                )
        for level in selection.needs_batch_quantiles:
            if level not in config.statistics.batch_quantiles:
                raise ConfigError(
                    f"{path}: needs the batch quantile {level}; statistics.batch_quantiles:"
                    f" {list(config.statistics.batch_quantiles)}. Add it there."
                )


def _check_cycles(config: Config) -> None:
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


def _check_histogram(config: Config, path: str, site: str) -> None:
    kept = config.statistics.histograms
    if site not in kept and not (site == "act" and "gate" in kept):
        raise ConfigError(
            f"{path}: needs the distribution of site {site!r}; statistics.histograms:"
            f" {', '.join(kept) or 'none'}. Add it there."
        )


def _check_protocols(config: Config) -> None:
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
            tokens = config.perplexity.tokens
            if tokens is None or tokens >= config.corpus.heldout_tokens:
                raise ConfigError(
                    f"protocols.{name}.perplexity_text: paper draws a sample for every cell, so"
                    f" perplexity.tokens ({tokens}) must be given and lie below"
                    f" corpus.heldout_tokens ({config.corpus.heldout_tokens})."
                )


def _check_interventions(config: Config, called: str, protocol: Protocol) -> None:
    codes = {lang for members in config.language_sets.values() for lang in members}
    for name, entry in config.interventions.items():
        if name == BASELINE:
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
            if percentile(step.statistic) is not None:
                _check_histogram(config, path, site)
                level = percentile(step.statistic) / 100
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


def _check_perplexity(config: Config) -> None:
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
            _check_members(config, "perplexity", folder, selection, name)


def _check_lss(config: Config) -> None:
    """Check the conditions and the languages of the Language Steering Shift."""
    entry = config.lss
    if entry is None:
        return
    _check_conditions(config, "lss", entry)
    _check_sets(config, "lss", entry.language_sets)
    known = KNOWN_LANGUAGES | config.languages
    for key in ("bases", "targets"):
        for lang in getattr(entry, key) or ():
            if lang not in known:
                raise unknown(f"lss.{key}", lang, "language", known)
        _check_doubled(f"lss.{key}", getattr(entry, key) or ())
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
        _check_members(config, "lss", folder, selection, name)
        bases, targets = config.lss_languages(folder)
        if not any(base != target for base in bases for target in targets):
            raise ConfigError(
                f"lss: on language set {config.labels()[folder]!r} no target language differs from"
                f" a base (bases: {', '.join(bases)}; targets: {', '.join(targets) or 'none'})."
            )
    languages = sorted({lang for cell in found for lang in config.lss_languages(cell[0])[0]})
    if entry.source.kind == "mini":
        targets = {lang for cell in found for lang in config.lss_languages(cell[0])[1]}
        for lang in sorted({*languages, *targets}):
            if lang not in MINI_LANGUAGES:
                raise unknown("lss", lang, "language of the mini facts", MINI_LANGUAGES)
    else:
        key = "config" if entry.source.kind == "hub" else "path"
        check_template(f"lss.source.{key}", getattr(entry.source, key), len(languages))


def _check_conditions(
    config: Config,
    path: str,
    entry: PerplexityConfig | LssConfig | TaskEntry | Prompted,
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
    _check_doubled(f"{path}.interventions", entry.interventions)
    if entry.selections is not None and not entry.selections:
        raise ConfigError(f"{path}.selections: empty; leave the key out to use every selection.")
    for name in entry.selections or ():
        if name not in config.selections:
            raise unknown(f"{path}.selections", name, "selection", config.selections)
    _check_doubled(f"{path}.selections", entry.selections or ())


def _check_members(config: Config, path: str, folder: str, selection: str, name: str) -> None:
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


def _check_tasks(config: Config) -> None:
    known = KNOWN_LANGUAGES | config.languages
    for name, task in config.tasks.items():
        path = f"tasks.{name}"
        _check_conditions(config, path, task, pairs=task.targets is not None)
        _check_sets(config, path, task.language_sets)
        _check_targets(config, path, task)
        for lang in task.languages:
            if lang not in known:
                raise unknown(f"{path}.languages", lang, "language", known)
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
            for folder, selection, written, _ in conditions:
                _check_members(config, path, folder, selection, written)
                if "source" in config.interventions[written].roles:
                    members = config.directory_languages()[folder]
                    if lang not in members:
                        raise ConfigError(
                            f"{path}.languages: {lang!r} is not in language set"
                            f" {config.labels()[folder]!r} ({', '.join(members)}), and {written!r}"
                            " writes the neurons of the evaluated language (`source`)."
                        )
        _check_doubled(f"{path}.languages", task.languages)
        if task.finetunings is not None and not task.finetunings:
            raise ConfigError(f"{path}.finetunings: empty; leave the key out to run the model.")
        for finetuning in task.finetunings or ():
            if finetuning not in config.finetunings:
                raise unknown(f"{path}.finetunings", finetuning, "fine-tuning", config.finetunings)
        for place, source in _sources(path, task):
            _check_paths(place, source, len(task.languages))


def _check_targets(config: Config, path: str, task: TaskEntry) -> None:
    """Refuse targets that are no language of a set."""
    if task.targets in (None, "all"):
        return
    if not task.targets:
        raise ConfigError(f"{path}.targets: empty; leave the key out, or write `all`.")
    _check_doubled(f"{path}.targets", task.targets)
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


def _check_sets(config: Config, path: str, chosen: Iterable[str] | None) -> None:
    if chosen is None:
        return
    if not tuple(chosen):
        raise ConfigError(f"{path}.language_sets: empty; leave the key out to use every set.")
    for langset in chosen:
        if langset not in config.language_sets:
            raise unknown(f"{path}.language_sets", langset, "language set", config.language_sets)


def _check_finetunings(config: Config) -> None:
    known = KNOWN_LANGUAGES | config.languages
    for name, entry in config.finetunings.items():
        path = f"finetunings.{name}"
        for lang in (entry.language, *entry.targets):
            if lang not in known:
                raise unknown(path, lang, "language", known)
        for selection in entry.selections or ():
            if selection not in config.selections:
                raise unknown(f"{path}.selections", selection, "selection", config.selections)
        _check_sets(config, path, entry.language_sets)
        for key in ("neurons", "targets", "selections"):
            _check_doubled(f"{path}.{key}", getattr(entry, key) or ())
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
            _check_paths(place, source, 1)
        if entry.is_text:
            _check_text(config, path, entry)
        used = any(name in (task.finetunings or ()) for task in config.tasks.values())
        if not used and not entry.is_text:
            raise ConfigError(
                f"{path}: no task evaluates it; name it under `finetunings` of a task."
            )


def _check_generation(config: Config) -> None:
    known = KNOWN_LANGUAGES | config.languages
    members = {lang for langs in config.language_sets.values() for lang in langs}
    for path in ("forcing", "fallback", "lens"):
        entry = getattr(config, path)
        if entry is None:
            continue
        if path != "lens" and not entry.interventions:
            raise ConfigError(f"{path}.interventions: empty; name at least one intervention.")
        _check_conditions(config, path, entry, pairs=path in PAIRED)
        for key in ("sources", "targets", "languages", "order"):
            langs = getattr(entry, key, None)
            if langs is not None and not langs and (path, key) != ("lens", "targets"):
                raise ConfigError(f"{path}.{key}: empty; leave the key out.")
            _check_doubled(f"{path}.{key}", langs or ())
            for lang in langs or ():
                legal = known if key == "order" else members
                if lang not in legal:
                    what = "language" if key == "order" else "language of a set"
                    raise unknown(f"{path}.{key}", lang, what, sorted(legal))
        if path == "lens" and bool(entry.interventions) != bool(entry.targets):
            raise ConfigError("lens: `interventions` and `targets` go together.")
        if path == "fallback" and entry.language not in known:
            raise unknown("fallback.language", entry.language, "language", known)
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
                _check_members(config, path, folder, selection, name)
            folders = [folder for folder, _, _ in cells] + list(config.lens_cells(model)) * lens
            for folder in folders:
                asked.update(entry_languages(entry, config.directory_languages()[folder])[0])
        if not asked:
            raise ConfigError(
                f"{path}: no language set of the selections used holds its languages; sets:"
                f" {', '.join(config.language_sets)}."
            )
        if path == "forcing" and entry.identifier.kind == "py3langid":
            folders = {cell[0] for m in config.models for cell in config.generation_cells(m, path)}
            sets = (config.directory_languages()[folder] for folder in folders)
            for lang in sorted({lang for one in sets for lang in entry_languages(entry, one)[1]}):
                if lang not in PY3LANGID:
                    raise unknown(
                        f"{path}.targets", lang, "language that py3langid tells", sorted(PY3LANGID)
                    )
        if entry.questions.kind == "jsonl":
            check_template(f"{path}.questions.path", entry.questions.path, len(asked))
            continue
        for lang in sorted(asked):
            if lang not in MINI_QUESTIONS:
                raise unknown(
                    f"{path}.questions", lang, "language of the mini questions", MINI_QUESTIONS
                )


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


def _check_mini(config: Config) -> None:
    for place in ("source", "heldout_source"):
        source = getattr(config.corpus, place)
        if source is None:
            continue
        if source.kind == "mini":
            for name, members in config.language_sets.items():
                for lang in members:
                    if lang not in MINI_LANGUAGES:
                        what = "language of the mini corpus"
                        raise unknown(f"language_sets.{name}", lang, what, MINI_LANGUAGES)
            continue
        key = "config" if source.kind == "hub" else "path"
        text, path = getattr(source, key), f"corpus.{place}"
        check_template(f"{path}.{key}", text, len(config.language_names()), ("lang", "code"))
        for lang in source.codes:
            if lang not in config.language_names():
                raise unknown(f"{path}.codes", lang, "language", config.language_names())
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
        known = MINI_TASK_LANGUAGES.get(source.name or name)
        if known is None:
            error = unknown(place, name, "task of the mini data", MINI_TASK_LANGUAGES)
            raise ConfigError(f"{error} Name one: {{kind: mini, name: ...}}.")
        for lang in langs:
            if lang not in known:
                raise unknown(f"{path}.{key}", lang, f"language of the mini data ({place})", known)


def _check_use(config: Config) -> None:
    used = {langset for model in config.models for langset, _ in config.cells(model)}
    for langset in config.language_sets:
        if langset not in used:
            raise ConfigError(
                f"language_sets.{langset}: no model and selection uses it; name it under"
                " `language_sets` of a selection and a model, or remove it."
            )
    for model in config.models:
        if not config.cells(model):
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
