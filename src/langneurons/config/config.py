"""The whole configuration: its keys, the checks across keys, and what follows from them."""

from collections.abc import Iterable, Iterator
from typing import Any

from pydantic import Field, field_validator

from langneurons.activations.settings import AttributionConfig, StatisticsConfig
from langneurons.base.errors import present
from langneurons.base.languages import KNOWN_LANGUAGES, Language, parts_of, set_directory
from langneurons.base.protocols import Protocol
from langneurons.base.settings import NAME, NAME_LENGTH, Frozen, is_name
from langneurons.data.settings import CorpusConfig, OtherText, TextSource, Variant
from langneurons.evaluation.answer_settings import AnswersConfig
from langneurons.evaluation.generation_settings import (
    Conditioned,
    FallbackConfig,
    ForcingConfig,
    LensConfig,
)
from langneurons.evaluation.lss_settings import LssConfig
from langneurons.evaluation.neuron_settings import BrowserConfig
from langneurons.evaluation.settings import (
    PerplexityConfig,
    RuntimeConfig,
    TaskEntry,
)
from langneurons.evaluation.trial_settings import TrialsConfig
from langneurons.interventions.settings import InterventionEntry
from langneurons.models.settings import ModelEntry
from langneurons.reporting.hypothesis_settings import HypothesisEntry
from langneurons.reporting.settings import ResultsConfig
from langneurons.selection.methods import Selection
from langneurons.selection.stability_settings import StabilityConfig
from langneurons.training.settings import Adapter, FinetuneEntry

# Keys whose own keys are names that the user chooses.
NAMED = (
    "models",
    "languages",
    "language_sets",
    "selections",
    "interventions",
    "tasks",
    "finetunings",
    "hypotheses",
    "protocols",
)


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
    attribution: AttributionConfig = Field(
        default_factory=AttributionConfig,
        description="The pass with gradients that selections of method attribution read.",
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
    stability: StabilityConfig | None = Field(
        None, description="Left out: selections are not made again on other parts of the text."
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
    trials: TrialsConfig | None = Field(None, description="Left out: no methods on trial.")
    answers: AnswersConfig | None = Field(
        None, description="Left out: methods are not compared by the answers that they lead to."
    )
    hypotheses: dict[str, HypothesisEntry] = Field(
        default_factory=dict, description="What is claimed before the run, by name."
    )
    browser: BrowserConfig | None = Field(None, description="Left out: no pages of single neurons.")
    results: ResultsConfig = Field(
        default_factory=ResultsConfig, description="Intervals, tests, Venn diagrams."
    )
    runtime: RuntimeConfig = Field(
        default_factory=RuntimeConfig,
        description="Batch sizes, memory, time, GPUs; changes no result and reruns no job.",
    )

    @field_validator("protocols", mode="before")
    @classmethod
    def _words(cls, value: Any) -> Any:
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

    def known_languages(self) -> dict[str, Language]:
        """Return the built-in languages and those of the configuration, by code."""
        return KNOWN_LANGUAGES | self.languages

    def variant(self, lang: str) -> Variant | None:
        """Return the variant that a code names, such as `hi@romanised`; None: a language."""
        _, name = parts_of(lang)
        return self.corpus.variants[name] if name else None

    def language_names(self) -> dict[str, str]:
        """Return the English name of every language that a set uses, in the sets' order."""
        known = self.known_languages()
        codes = [lang for members in self.language_sets.values() for lang in members]
        return {code: self._name(known, code) for code in dict.fromkeys(codes)}

    def _name(self, known: dict[str, Language], lang: str) -> str:
        base, name = parts_of(lang)
        one = self.variant(lang)
        return known[base].name if one is None else f"{known[base].name}, {one.label or name}"

    def language_families(self) -> dict[str, str]:
        """Return the family of every language that a set uses; a variant has its language's."""
        known = self.known_languages()
        return {code: known[parts_of(code)[0]].family for code in self.language_names()}

    def language_tags(self) -> dict[str, str]:
        """Return the BCP 47 tag of every language that a set uses: `hi-Latn` of `hi@romanised`."""
        found = {}
        for code in self.language_names():
            base, one = parts_of(code)[0], self.variant(code)
            script = getattr(one, "script", None)
            if one is not None and one.kind == "romanised":
                script = "Latn"
            found[code] = f"{base}-{script}" if script else base
        return found

    def text_of(self, lang: str) -> str:
        """Return the code whose documents a corpus is packed from: some variants change tokens."""
        one = self.variant(lang)
        return parts_of(lang)[0] if one is not None and one.made == "packed" else lang

    def fetched(self, langs: Iterable[str]) -> list[str]:
        """Return the codes whose documents are fetched for the corpora of languages, each once."""
        kept = []
        for lang in langs:
            one = self.variant(lang)
            kept.append(lang if one is None or one.made == "fetched" else parts_of(lang)[0])
        return list(dict.fromkeys(kept))

    def text_sources(self) -> Iterator[tuple[str, TextSource, str]]:
        """Yield key, source and code of all documents that are fetched."""
        for lang in self.fetched(self.language_names()):
            key, block = self.text_block(lang)
            for part in ("source", "heldout_source"):
                source = getattr(block, part)
                if source is not None:
                    yield f"{key}.{part}", source, lang

    def text_block(self, lang: str) -> tuple[str, CorpusConfig | OtherText]:
        """Return key and block that name the sources of documents that are fetched."""
        one = self.variant(lang)
        if isinstance(one, OtherText):
            return f"corpus.variants.{parts_of(lang)[1]}", one
        return "corpus", self.corpus

    def tokens(self, lang: str) -> int:
        """Return the identification tokens of a language, at most."""
        return getattr(self.variant(lang), "tokens", self.corpus.tokens)

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

    def neuron_cells(self, model: str) -> list[tuple[str, str]]:
        """Return the cells of a model whose selection gives neurons, not dimensions."""
        return [cell for cell in self.cells(model) if self.selections[cell[1]].units == "neurons"]

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

    def with_dependencies(self, selection: str) -> list[str]:
        """Return a selection after those that it depends on, and they after theirs."""
        found: dict[str, None] = {}
        for other in self.selections[selection].depends_on:
            found |= dict.fromkeys(self.with_dependencies(other))
        return [*found, selection]

    def until_sets(self, model: str) -> dict[str, tuple[str, ...]]:
        """Return, by folder, the languages of each set on which `statistics.until` is judged."""
        until, members = self.statistics.until, self.directory_languages()
        found = (
            self.directory(one)
            for one, name in self.cells(model)
            if until is not None and name == until.selection
        )
        return {folder: members[folder] for folder in sorted(set(found))}

    def stability_cells(self, model: str) -> list[tuple[str, str]]:
        """Return (set folder, selection) of each measured stability of a model."""
        entry = self.stability
        if entry is None:
            return []
        cells = (
            (self.directory(langset), selection)
            for langset, selection in self.cells(model)
            if selection in entry.selections
            if entry.language_sets is None or langset in entry.language_sets
        )
        return list(dict.fromkeys(cells))

    def comparisons(self, model: str, folder: str, selection: str) -> dict[str, str]:
        """Return the folder of the other set of each comparison of a measured stability."""
        if self.stability is None:
            return {}
        made = {(self.directory(langset), name) for langset, name in self.cells(model)}
        named = self.stability.comparisons.items()
        pairs = {name: (self.directory(one), self.directory(two)) for name, (one, two) in named}
        return {
            name: second
            for name, (first, second) in pairs.items()
            if first == folder and (second, selection) in made
        }

    def same_documents(self, one: str, two: str) -> bool:
        """Return whether the corpora of two codes are made of the same documents in their order."""
        kinds = {getattr(self.variant(code), "kind", "plain") for code in (one, two)}
        return one == two or kinds <= {"plain", "romanised", "shuffled_words"}

    def usable(self, entry: Conditioned, model: str) -> tuple[str, ...]:
        """Return the interventions that a stage lists and that are meant for a model."""
        meant = {
            name: one.models is None or model in one.models
            for name, one in self.interventions.items()
        }
        return tuple(name for name in entry.interventions if meant.get(name, True))

    def fits(self, selection: str, intervention: str) -> bool:
        """Return whether what a selection holds, neurons or dimensions, is what is written."""
        entry = self.interventions.get(intervention)
        return entry is None or self.selections[selection].units == entry.units

    def sweeps(self) -> dict[str, dict[str, str]]:
        """Return, by the name of a sweep, its interventions by layer or range of layers."""
        found: dict[str, dict[str, str]] = {}
        for name, entry in self.interventions.items():
            if entry.part is not None:
                base, layers = entry.part
                found.setdefault(base, {})[layers] = name
        return found

    def swept(self) -> dict[str, str]:
        """Return the sweep of each intervention that belongs to one."""
        return {one: base for base, parts in self.sweeps().items() for one in parts.values()}

    def target_cells(self, model: str) -> list[tuple[str, str, str]]:
        """Return (task, set name, intervention) of each matrix of evaluated x target languages."""
        found = []
        for task, entry in self.tasks.items():
            if entry.targets is None or entry.finetunings is not None:
                continue
            cells = (
                (langset, intervention)
                for lang in entry.languages
                for langset, selection, targets in self._written_sets(model, entry, lang)
                if targets
                for intervention in self.usable(entry, model)
                if self.fits(selection, intervention)
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
            if self.fits(selection, intervention)
        )
        return list(dict.fromkeys(cells))

    def lss_languages(self, folder: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Return the sorted base and target languages of the steering shift on a set's folder."""
        members = self.directory_languages()[folder]
        entry = present(self.lss, "lss: the configuration measures no steering shift")
        bases, targets = entry.bases, entry.targets
        return (
            tuple(sorted(bases or spoken(members))),
            tuple(lang for lang in spoken(members) if targets is None or lang in targets),
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
            if self.fits(selection, intervention)
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
            if self.fits(selection, intervention)
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
                    if self.fits(selection, intervention)
                    for target in self.lens.targets
                    if target in members
                ]
        return {folder: list(dict.fromkeys(rows)) for folder, rows in found.items()}

    def trial_sets(self, model: str) -> tuple[str, ...]:
        """Return the folders of the sets on whose languages a model's methods are on trial."""
        if self.trials is None:
            return ()
        wanted = self.trials.language_sets or tuple(self.language_sets)
        needed = {name for one in self.trials.methods.values() for name in one.selections}
        cells = set(self.cells(model))
        found = [
            self.directory(langset)
            for langset in self.model_sets(model)
            if langset in wanted and all((langset, name) in cells for name in needed)
        ]
        return tuple(dict.fromkeys(found))

    def answer_cells(self, model: str) -> list[tuple[str, str]]:
        """Return (set folder, method) of the methods that are compared by a model's answers."""
        entry = self.answers
        if entry is None:
            return []
        cells = set(self.cells(model))
        found = [
            (self.directory(langset), method)
            for langset in self.model_sets(model)
            if entry.language_sets is None or langset in entry.language_sets
            if all(entry_languages(entry, self.language_sets[langset]))
            for method in entry.methods
            if all((langset, name) in cells for name in self.answer_selections(method))
        ]
        return list(dict.fromkeys(found))

    def answer_selections(self, method: str) -> tuple[str, ...]:
        """Return the selections among which a method of `answers` is tuned, by any protocol."""
        entry = present(self.answers, "answers: left out of the configuration")
        printed = {one.tuning == "paper" for one in self.protocols.values()}
        names = [name for one in printed for name in entry.options(method, one).selections]
        return tuple(dict.fromkeys(names))

    def browsed(self, model: str) -> dict[str, list[str]]:
        """Return, by set folder, the selections whose neurons get pages.

        Where the configuration names none, the random ones are left out.
        """
        entry, found = self.browser, dict[str, list[str]]()
        if entry is None:
            return found
        for langset, selection in self.cells(model):
            if entry.language_sets is not None and langset not in entry.language_sets:
                continue
            chosen = self.selections[selection]
            usual = not chosen.random and chosen.units == "neurons"
            if usual if entry.selections is None else (selection in entry.selections):
                found.setdefault(self.directory(langset), []).append(selection)
        return {folder: list(dict.fromkeys(names)) for folder, names in found.items()}

    def task_conditions(
        self, model: str, task: str, lang: str, adapter: Adapter | None = None
    ) -> list[tuple[str, str, str, str]]:
        """Return (set folder, selection, intervention, target) under which a task is run.

        An adapter that was trained on the neurons of one selection and set meets these only.
        """
        entry = self.tasks[task]
        names = self.usable(entry, model)
        cells = (
            (langset, selection, intervention, target)
            for langset, selection, targets in self._written_sets(model, entry, lang)
            if adapter is None or adapter.selection in (None, selection)
            if adapter is None or adapter.langset in (None, langset)
            for intervention in names
            if self.fits(selection, intervention)
            for target in targets
        )
        return list(dict.fromkeys(cells))

    def _written_sets(
        self, model: str, entry: TaskEntry, lang: str
    ) -> Iterator[tuple[str, str, tuple[str, ...]]]:
        """Yield set folder, selection, and the languages whose neurons a task overwrites."""
        for langset, selection in self.cells(model):
            if entry.selections is not None and selection not in entry.selections:
                continue
            if entry.language_sets is None or langset in entry.language_sets:
                members = self.language_sets[langset]
                yield self.directory(langset), selection, entry.written(lang, members)

    def adapters(self, model: str) -> dict[str, Adapter]:
        """Return every adapter that is trained for a model, by name."""
        found: dict[str, Adapter] = {}
        for name, entry in self.finetunings.items():
            cells = [
                (self.directory(langset), selection, set(self.language_sets[langset]))
                for langset, selection in self.cells(model)
                if entry.selections is None or selection in entry.selections
                if entry.language_sets is None or langset in entry.language_sets
                if self.selections[selection].units == "neurons"
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
        """Return (adapter, task, language) for each evaluation job; `base` is not an adapter."""
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

    def variants(self, stage: str) -> tuple[str, ...]:
        """Return the folders of a stage: its results under every protocol, each once."""
        return tuple(dict.fromkeys(one.variant(stage) for one in self.protocols.values()))

    def under(self, stage: str, variant: str) -> Protocol:
        """Return the protocol behind a folder of a stage; points of other stages are corrected."""
        return next(
            one.of(stage) for one in self.protocols.values() if one.variant(stage) == variant
        )


def spoken(members: Iterable[str]) -> tuple[str, ...]:
    """Return the languages without their variants, which have a corpus and nothing else."""
    return tuple(lang for lang in members if not parts_of(lang)[1])


def entry_languages(
    entry: ForcingConfig | FallbackConfig | LensConfig | AnswersConfig, members: Iterable[str]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the languages of the questions and of the neurons that a set takes part with, sorted.

    Variants are left out: none is asked in, answered in or identified. The order of fallback keeps
    its own. Either may be empty: then the set takes no part.
    """
    members = set(members)
    if isinstance(entry, FallbackConfig):
        return (entry.language,), tuple(lang for lang in entry.order if lang in members)
    members = set(spoken(members))
    if isinstance(entry, LensConfig):
        if len(members) < 2:  # one language's tokens would all be its own
            return (), ()
        asked = members if entry.languages is None else members.intersection(entry.languages)
        return tuple(sorted(asked)), tuple(sorted(members))
    asked = members if entry.sources is None else members.intersection(entry.sources)
    forced = members if entry.targets is None else members.intersection(entry.targets)
    return tuple(sorted(asked)), tuple(sorted(forced))
