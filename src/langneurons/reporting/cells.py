"""Which cells of each kind of figure a configuration has, and which files a cell reads."""

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING

from langneurons.reporting.layouts import place

if TYPE_CHECKING:
    from langneurons.config.config import Config

Cell = dict[str, str]
Cells = Callable[["Config", str], Iterable[tuple[str, ...]]]
Reads = Callable[["Config", Cell], list[str]]
VOTERS = 3  # selections of neurons on a set, from which on they vote


# What they read -----------------------------------------------------------------------------------


def _variant(config: "Config", cell: Cell, stage: str) -> str:
    return config.protocols[cell["protocol"]].variant(stage)


def with_set_names(config: "Config", names: Iterable[tuple[str, ...]]) -> Iterator[tuple[str, ...]]:
    """Yield cells with the name of a set in place of its folder, which comes first."""
    labels = config.labels()
    for folder, *others in names:
        yield labels[folder], *others


def statistics_files(config: "Config", cell: Cell) -> list[str]:
    """Return the statistics of every language of a model."""
    model = cell["model"]
    langs = config.model_languages(model)
    return [place("activations", model=model, lang=lang) for lang in langs]


def neuron_files(config: "Config", cell: Cell) -> list[str]:
    """Return the neuron tables of a set, or that of one selection."""
    folder = config.directory(cell["languages"])
    return [
        place("neurons", model=cell["model"], langset=folder, selection=selection)
        for languages, selection in config.neuron_cells(cell["model"])
        if languages == cell["languages"] and cell.get("selection", selection) == selection
    ]


def stability_files(config: "Config", cell: Cell) -> list[str]:
    """Return the stability of every selection on a set."""
    folder = config.directory(cell["languages"])
    return [
        place("stability", model=cell["model"], langset=langset, selection=selection)
        for langset, selection in config.stability_cells(cell["model"])
        if langset == folder
    ]


def stability_sets(config: "Config", model: str) -> Iterable[tuple[str, ...]]:
    """Yield the language sets on which stability is measured."""
    return with_set_names(config, ((folder,) for folder, _ in config.stability_cells(model)))


def compared_sets(config: "Config", model: str) -> Iterator[tuple[str, ...]]:
    """Yield the language sets that are compared with others."""
    cells = config.stability_cells(model)
    found = ((folder,) for folder, name in cells if config.comparisons(model, folder, name))
    yield from with_set_names(config, dict.fromkeys(found))


def until_files(config: "Config", cell: Cell) -> list[str]:
    """Return how stable a selection was while the text of a model's languages was read."""
    return [place("until", model=cell["model"])]


def until_sets(config: "Config", model: str) -> Iterator[tuple[str, ...]]:
    """Yield the language sets whose stability stopped the reading."""
    yield from with_set_names(config, ((folder,) for folder in config.until_sets(model)))


def carrier_cells(config: "Config", model: str) -> Iterator[tuple[str, ...]]:
    """Yield the sets and selections by write score, which hold how many neurons carry what."""
    for languages, selection in config.neuron_cells(model):
        if config.selections[selection].method == "write_score":
            yield languages, selection


def expert_cells(config: "Config", model: str) -> Iterator[tuple[str, ...]]:
    """Yield the sets and selections of whole experts; one language has no others."""
    for languages, selection in config.neuron_cells(model):
        several = len(config.language_sets[languages]) > 1
        if config.selections[selection].method == "experts" and several:
            yield languages, selection


def expert_files(config: "Config", cell: Cell) -> list[str]:
    """Return the neuron table of a selection of experts, and the statistics of its languages."""
    langs = config.language_sets[cell["languages"]]
    statistics = [place("activations", model=cell["model"], lang=lang) for lang in langs]
    return [*neuron_files(config, cell), *statistics]


def matrix_files(stage: str, kind: str, cells: Cells, **more: str) -> Reads:
    """Return the files of one set that hold one intervention."""

    def reads(config: "Config", cell: Cell) -> list[str]:
        folder, variant = config.directory(cell["languages"]), _variant(config, cell, stage)
        return [
            place(
                kind,
                **(cell | more),
                variant=variant,
                langset=langset,
                selection=selection,
            )
            for langset, selection, intervention in cells(config, cell["model"])
            if langset == folder and intervention == cell["intervention"]
        ]

    return reads


def shift_files(config: "Config", cell: Cell) -> list[str]:
    """Return the steering shift of every selection on a set."""
    folder, variant = config.directory(cell["languages"]), _variant(config, cell, "steering")
    cells = config.lss_cells(cell["model"])
    selections = dict.fromkeys(selection for langset, selection, _ in cells if langset == folder)
    where = {"model": cell["model"], "variant": variant, "langset": folder}
    return [place("steering", **where, selection=selection) for selection in selections]


def score_files(config: "Config", cell: Cell) -> list[str]:
    """Return the scores of a task."""
    return [place("scores", paper=config.name, **cell)]


def trial_files(config: "Config", cell: Cell) -> list[str]:
    """Return the trials of every method on a set."""
    where = {"model": cell["model"], "langset": config.directory(cell["languages"])}
    methods = config.trials.methods if config.trials else ()
    return [place("trials", **where, method=method) for method in methods]


def trial_cells(config: "Config", model: str) -> Iterator[tuple[str, ...]]:
    """Yield the sets on which methods are on trial."""
    yield from with_set_names(config, ((folder,) for folder in config.trial_sets(model)))


def dose_cells(config: "Config", model: str) -> Iterator[tuple[str, ...]]:
    """Yield the sets on which methods are tried at several doses."""
    if config.trials and len(config.trials.doses) > 1:
        yield from trial_cells(config, model)


def answer_cells(config: "Config", model: str) -> Iterator[tuple[str, ...]]:
    """Yield the sets on which methods are compared by answers."""
    folders = dict.fromkeys(folder for folder, _ in config.answer_cells(model))
    yield from with_set_names(config, ((folder,) for folder in folders))


def answer_files(config: "Config", cell: Cell) -> list[str]:
    """Return the scored test answers of every method on a set."""
    variant, folder = _variant(config, cell, "answering"), config.directory(cell["languages"])
    where = {"model": cell["model"], "variant": variant, "langset": folder, "phase": "test"}
    methods = [own for one, own in config.answer_cells(cell["model"]) if one == folder]
    return [place("answers", **where, method=method) for method in methods]


def lens_files(config: "Config", cell: Cell) -> list[str]:
    """Return the records of the logit lens on a set."""
    variant, folder = _variant(config, cell, "generation"), config.directory(cell["languages"])
    return [place("lens", model=cell["model"], variant=variant, langset=folder)]


def curve_files(config: "Config", cell: Cell) -> list[str]:
    """Return the curves of every adapter of a fine-tuning."""
    variant = _variant(config, cell, "adapters")
    return [
        place("curves", model=cell["model"], variant=variant, adapter=name)
        for name, adapter in config.adapters(cell["model"]).items()
        if adapter.finetuning == cell["finetuning"]
    ]


# Which cells there are -------------------------------------------------------------------------


def drawn_triples(config: "Config", model: str) -> Iterator[tuple[str, ...]]:
    """Yield (set, selection) of which three languages are drawn together."""
    for languages, selection in config.neuron_cells(model):
        members = set(config.language_sets[languages])
        if any(members.issuperset(triple) for triple in config.results.venn):
            yield languages, selection


def intervention_cells(cells: Cells) -> Cells:
    """Return the (set, intervention) of cells (folder, selection, intervention)."""

    def found(config: "Config", model: str) -> Iterator[tuple[str, ...]]:
        yield from with_set_names(config, ((one[0], one[2]) for one in cells(config, model)))

    return found


def perplexity_cells(config: "Config", model: str) -> Iterable[tuple[str, ...]]:
    """Return (folder, selection, intervention) of the perplexity matrices."""
    return config.perplexity_cells(model)


def forcing_cells(config: "Config", model: str) -> Iterable[tuple[str, ...]]:
    """Return (folder, selection, intervention) of language forcing."""
    return config.generation_cells(model, "forcing")


def fallback_cells(config: "Config", model: str) -> Iterable[tuple[str, ...]]:
    """Return (folder, selection, intervention) of the fallback order."""
    return config.generation_cells(model, "fallback")


def shift_cells(swept: bool) -> Cells:
    """Return the (set, intervention) of the steering shift, or the (set, sweep)."""

    def found(config: "Config", model: str) -> Iterator[tuple[str, ...]]:
        sweeps = config.swept()
        for folder, _, name in config.lss_cells(model):
            sweep = sweeps.get(name)
            if swept == (sweep is not None):
                yield config.labels()[folder], sweep or name

    return found


def target_cells(swept: bool) -> Cells:
    """Return the (task, set, intervention), or sweep, of tasks on other languages' neurons."""

    def found(config: "Config", model: str) -> Iterator[tuple[str, ...]]:
        sweeps = config.swept()
        for task, languages, name in config.target_cells(model):
            sweep = sweeps.get(name)
            if swept == (sweep is not None):
                yield task, languages, sweep or name

    return found


def scored_tasks(config: "Config", model: str) -> Iterator[tuple[str]]:
    """Yield the tasks that are run with a language's own neurons overwritten, sweeps aside."""
    swept = config.swept()
    for task, entry in config.tasks.items():
        if any(
            target == lang and name not in swept
            for lang in entry.languages
            for _, _, name, target in config.task_conditions(model, task, lang)
        ):
            yield (task,)


def lens_sets(config: "Config", model: str) -> Iterator[tuple[str, ...]]:
    """Yield the sets of the logit lens."""
    yield from with_set_names(config, ((folder,) for folder in config.lens_cells(model)))


def lens_changes(config: "Config", model: str) -> Iterator[tuple[str, ...]]:
    """Yield the (set, intervention) of the logit lens with neurons written.

    The figure is of prompts in other languages than the target's; where there are none, it is not
    drawn.
    """
    chosen = None if config.lens is None else config.lens.languages
    for folder, conditions in config.lens_cells(model).items():
        members = set(config.directory_languages()[folder])
        asked = members if chosen is None else members.intersection(chosen)
        names = ((folder, name) for _, name, target in conditions if asked - {target})
        yield from with_set_names(config, names)
