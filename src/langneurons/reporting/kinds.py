"""The kinds of figures: the one place that says what exists, where it lies and what it shows.

An entry of `KINDS` holds a kind's title, caption, the keys that its path is made of, the cells that
a configuration has of it, the result files that it reads, and the function that draws it, which is
imported when a job draws. This module loads no plotting library.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

from langneurons.reporting.captions import ANSWERS, LENS, LSS, PERPLEXITY, TARGETS, TRIALS
from langneurons.reporting.cells import (
    Cell,
    Cells,
    Reads,
    answer_cells,
    answer_files,
    carrier_cells,
    compared_sets,
    curve_files,
    dose_cells,
    drawn_triples,
    expert_cells,
    expert_files,
    fallback_cells,
    forcing_cells,
    intervention_cells,
    lens_changes,
    lens_files,
    lens_sets,
    matrix_files,
    neuron_files,
    perplexity_cells,
    score_files,
    scored_tasks,
    shift_cells,
    shift_files,
    stability_files,
    stability_sets,
    statistics_files,
    target_cells,
    trial_cells,
    trial_files,
    until_files,
    until_sets,
)
from langneurons.reporting.labels import Labels, quoted

if TYPE_CHECKING:
    from langneurons.config.config import Config


@dataclass(frozen=True)
class Kind:
    """One kind of figure.

    `keys` are the folders of its path below the model and, with `by_protocol`, the protocol;
    `cells` yields their names for a model. `drawn_by` is `module:function` below
    `reporting.figures`; the function takes result files, cell, labels and the path without suffix.
    `caption` is a Jinja template over the labels of the cell.
    """

    title: str
    category: str
    keys: tuple[str, ...]
    cells: Cells
    reads: Reads
    drawn_by: str
    caption: str
    by_protocol: bool = True

    @property
    def module(self) -> str:
        """The module that draws it."""
        return f"langneurons.reporting.figures.{self.drawn_by.partition(':')[0]}"

    def draw(self, files: list[str], cell: Cell, labels: Labels, stem: str) -> None:
        """Draw one figure as stem.svg and stem.png."""
        function = self.drawn_by.partition(":")[2]
        getattr(import_module(self.module), function)(files, cell, labels, stem)


@dataclass(frozen=True)
class Figure:
    """One figure of a configuration: its kind, its cell, and its path without suffix."""

    kind: str
    cell: Cell
    stem: str


# Which figures a configuration has --------------------------------------------------------------


def figures(config: "Config", model: str, protocol: str = "") -> Iterator[Figure]:
    """Yield the figures of a model under a protocol, or those under none."""
    for name, kind in KINDS.items():
        if kind.by_protocol != bool(protocol):
            continue
        for names in dict.fromkeys(kind.cells(config, model)):
            cell = {"model": model, **({"protocol": protocol} if protocol else {})}
            yield _figure(config, name, cell | dict(zip(kind.keys, names, strict=True)))


def drawing_jobs(config: "Config") -> tuple[str, ...]:
    """Return the protocols by which jobs draw; "" where what is under none has its own job.

    Under a single protocol one job draws all figures of a model.
    """
    return tuple(config.protocols) if len(config.protocols) == 1 else ("", *config.protocols)


def drawn_together(config: "Config", model: str, protocol: str) -> Iterator[Figure]:
    """Yield the figures of a model that one of `drawing_jobs` draws."""
    if "" not in drawing_jobs(config):
        yield from figures(config, model)
    yield from figures(config, model, protocol)


def all_figures(config: "Config") -> list[Figure]:
    """Return every figure of a configuration, those with a name of their own aside."""
    return [
        figure
        for model in config.models
        for protocol in ("", *config.protocols)
        for figure in figures(config, model, protocol)
    ]


def named_figure(config: "Config", name: str) -> Figure:
    """Return the figure that `results.figures` gives a name of its own."""
    one = config.results.figures[name]
    cell = {"model": one.model}
    if KINDS[one.kind].by_protocol:
        cell["protocol"] = one.protocol or next(iter(config.protocols))
    sources = {"sweep": "intervention"}
    keys = KINDS[one.kind].keys
    return _figure(
        config, one.kind, cell | {key: getattr(one, sources.get(key, key)) for key in keys}
    )


def folders(kind: str, cell: Cell) -> list[str]:
    """Return the folders below the configuration's that a figure lies in."""
    return [cell[key] for key in ("model", "protocol", *KINDS[kind].keys) if key in cell]


def _figure(config: "Config", kind: str, cell: Cell) -> Figure:
    stem = "/".join(["results/figures", config.name, *folders(kind, cell), kind])
    return Figure(kind, cell, stem)


def named_keys(kind: str) -> tuple[str, ...]:
    """Return the keys of `results.figures` that a kind of figure needs, `model` aside."""
    keys = tuple("intervention" if key == "sweep" else key for key in KINDS[kind].keys)
    return (*keys, "protocol") if KINDS[kind].by_protocol else keys


def caption(kind: str, cell: Cell, labels: Labels, quote: Callable[[str], str] = str) -> str:
    """Return the caption of a figure in one line; `quote` is applied to labels."""
    import jinja2

    sections = {"model": "models", "languages": "language_sets", "protocol": "protocols"}
    sections |= {"selection": "selections", "intervention": "interventions", "task": "tasks"}
    sections |= {"finetuning": "finetunings", "sweep": "sweeps"}
    shown: dict[str, Any] = {
        key: quote(
            name if key in ("languages", "protocol", "sweep") else labels.of(sections[key], name)
        )
        for key, name in cell.items()
    }
    shown |= {"paper": labels.results["paper"], "results": labels.results, "under": ""}
    if "protocol" in cell:
        shown["points"] = labels.protocols[cell["protocol"]]
        if len(labels.protocols) > 1:
            shown["under"] = f", protocol {shown['protocol']}"
    template = jinja2.Template(KINDS[kind].caption, undefined=jinja2.StrictUndefined)
    return " ".join(template.render(shown).split())


def described(kind: str, cell: Cell, labels: Labels) -> str:
    """Return the title of a figure on the results page: its kind, and the labels of its cell."""
    order = ("model", "languages", "selection", "intervention", "sweep", "task", "finetuning")
    sections = {"model": "models", "selection": "selections", "task": "tasks"}
    sections["intervention"] = "interventions"
    shown = [
        labels.of(sections[key], cell[key]) if key in sections else cell[key]
        for key in (*order, "protocol")
        if key in cell
    ]
    return f"{KINDS[kind].title}: {', '.join(' '.join(one.split()) for one in shown)}"


def report_labels(cell: Cell) -> Cell:
    """Return the columns by which Snakemake's report lists a figure."""
    return {"intervention" if key == "sweep" else key: name for key, name in cell.items()}


KINDS: Mapping[str, Kind] = {
    "neurons": Kind(
        title="Neurons per language",
        category="Neurons",
        keys=("languages",),
        cells=lambda config, model: ((one[0],) for one in config.neuron_cells(model)),
        reads=neuron_files,
        drawn_by="neurons:neurons_per_language",
        by_protocol=False,
        caption="Neurons per language, {{ model }}. A bar is the number of feed-forward neurons"
        " that a selection assigns to a language; a neuron may belong to several. Counted on"
        " identification text alone. Every panel has a scale of its own. Activation statistics come"
        " from a histogram of all tokens of a language, unless the selection says otherwise."
        "{% if paper == 'Mondal et al. 2025' %} Corresponds to figures 2-7 of the paper, where"
        " statistics are averages over batches.{% endif %}",
    ),
    "overlap": Kind(
        title="Shared neurons",
        category="Overlap",
        keys=("languages", "selection"),
        cells=lambda config, model: config.neuron_cells(model),
        reads=neuron_files,
        drawn_by="neurons:shared_neurons",
        by_protocol=False,
        caption="Overlap of the languages' neurons, {{ model }}, selection {{ selection }}. Left:"
        " neurons that two languages share; the diagonal is a language's own number. Middle: the"
        " Jaccard index, shared over union, in per cent, which does not grow with the size of the"
        " sets. Right: shared neurons in multiples of chance, which is what two random sets with as"
        " many neurons in each layer share on average.{% if results.group_by == 'family' %}"
        " Languages stand by family, with lines between families.{% endif %}"
        "{% if paper == 'Mondal et al. 2025' %} The left panel corresponds to figures 8-13 of the"
        " paper; the others are added.{% elif paper == 'Gurgurov et al. 2025' %} The paper draws"
        " the left panel.{% endif %}",
    ),
    "layers": Kind(
        title="Neurons by layer",
        category="Layers",
        keys=("languages", "selection"),
        cells=lambda config, model: config.neuron_cells(model),
        reads=neuron_files,
        drawn_by="neurons:neurons_by_layer",
        by_protocol=False,
        caption="Neurons per layer and language, {{ model }}, selection {{ selection }}. Layer 0 is"
        " nearest to the input. The bars above count distinct neurons of each layer: a neuron of"
        " several languages counts once there, and once per language in the cells."
        "{% if paper == 'Mondal et al. 2025' %} Corresponds to figures 14-19 of the paper; the"
        " profile of the distinct neurons is added.{% endif %}",
    ),
    "stability": Kind(
        title="Stability of selections",
        category="Neurons",
        keys=("languages",),
        cells=stability_sets,
        reads=stability_files,
        drawn_by="stability:stability_of_selections",
        by_protocol=False,
        caption="Stability of selections, {{ model }}, language set {{ languages }}. The text of"
        " each language lies in slices of equal size, and a selection is made again on some of"
        " them. Lines: on the beginning of the text, compared with all of it, so a line ends at 1."
        " Strip on the right: two random halves, compared with each other; a bar holds"
        " {{ results.confidence }} of the draws. The same slices are drawn of every language."
        " Compared are a language's neurons by the Jaccard index, shared over union; of directions"
        " the cosine, averaged over layers.",
    ),
    "comparisons": Kind(
        title="Neurons found again",
        category="Neurons",
        keys=("languages",),
        cells=compared_sets,
        reads=stability_files,
        drawn_by="comparisons:comparisons_of_sets",
        by_protocol=False,
        caption="How many of a language's neurons are found again, {{ model }}, language set"
        " {{ languages }}. Compared are the neurons of a language on this set with those of the"
        " same language on other text or beside other languages: the Jaccard index, shared over"
        " union (cosine of directions). Large dots are means over languages, with the middle"
        " {{ results.confidence }} of draws of slices; small dots are languages. Two halves hold"
        " half of the text each, the other rows all of it. Chance: random neurons, as many in each"
        " layer.",
    ),
    "until": Kind(
        title="Text that was needed",
        category="Neurons",
        keys=("languages",),
        cells=until_sets,
        reads=until_files,
        drawn_by="until:text_needed",
        by_protocol=False,
        caption="How much text the neurons of a language set needed, {{ model }}, language set"
        " {{ languages }}. Reading doubled the text of every language until the selection was"
        " stable. Points are languages: the Jaccard index, shared over union, of their neurons on"
        " two parts of what was read. The black line is the mean over languages. Reading stopped"
        " where it had reached the dashed line twice in a row, on every language set of the model."
        " The grey part of the text was not read.",
    ),
    "carriers": Kind(
        title="Neurons that carry a direction",
        category="Layers",
        keys=("languages", "selection"),
        cells=carrier_cells,
        reads=neuron_files,
        drawn_by="carriers:neurons_that_carry",
        by_protocol=False,
        caption="How many neurons carry a language's direction, {{ model }}, selection"
        " {{ selection }}. The direction of a layer is the difference of means between the language"
        " and the others of the set. Each neuron writes a part of it; the parts add up to its"
        " length where the direction is that of the MLP's output. Shown is the fewest neurons of a"
        " layer whose parts reach 50 and 90 per cent of the length.",
    ),
    "experts": Kind(
        title="Frequency of experts",
        category="Layers",
        keys=("languages", "selection"),
        cells=expert_cells,
        reads=expert_files,
        drawn_by="experts:experts_by_language",
        by_protocol=False,
        caption="How often the router sends a language's tokens to each expert, {{ model }}, set"
        " {{ languages }}: the share of tokens routed to the expert, minus the mean of the other"
        " languages' shares, in percentage points. Rings: experts that selection {{ selection }}"
        " gives to the language. The shares of a layer add up to the number of experts that a token"
        " passes.",
    ),
    "venn": Kind(
        title="Three languages at a time",
        category="Overlap",
        keys=("languages", "selection"),
        cells=drawn_triples,
        reads=neuron_files,
        drawn_by="neurons:three_languages",
        by_protocol=False,
        caption="Neurons of three languages at a time, {{ model }}, selection {{ selection }}. The"
        " seven regions hold the numbers of neurons in exactly those languages of the three; other"
        " languages of the set are not looked at. Areas are not to scale."
        "{% if paper == 'Mondal et al. 2025' %} The paper prints none of these diagrams; its code"
        " draws them.{% endif %}",
    ),
    "activations": Kind(
        title="Activations",
        category="Activations",
        keys=(),
        cells=lambda config, model: (
            [()] if config.statistics.histograms and config.cells(model) else []
        ),
        reads=statistics_files,
        drawn_by="neurons:activations_by_language",
        by_protocol=False,
        caption="Activations per language, {{ model }}. Each quantile and the mean is taken per"
        " neuron over all tokens of a language's identification text, then averaged over all"
        " neurons, so a range is that of an average neuron, not of pooled activations. Quantiles"
        " come from one histogram of all tokens, with a bounded error."
        "{% if paper == 'Mondal et al. 2025' %} Corresponds to the paper's tables of activation"
        " statistics, which average per-batch quantiles.{% endif %}",
    ),
    "perplexity": Kind(
        title="Change of perplexity",
        category="Perplexity",
        keys=("languages", "intervention"),
        cells=intervention_cells(perplexity_cells),
        reads=matrix_files("perplexity", "perplexity", perplexity_cells),
        drawn_by="perplexity:change_of_perplexity",
        caption=PERPLEXITY,
    ),
    "cross_entropy": Kind(
        title="Change of cross-entropy",
        category="Perplexity",
        keys=("languages", "intervention"),
        cells=intervention_cells(perplexity_cells),
        reads=matrix_files("perplexity", "perplexity", perplexity_cells),
        drawn_by="perplexity:change_of_cross_entropy",
        caption=PERPLEXITY,
    ),
    "methods": Kind(
        title="Methods compared",
        category="Trials",
        keys=("languages",),
        cells=trial_cells,
        reads=trial_files,
        drawn_by="trials:methods_compared",
        by_protocol=False,
        caption=TRIALS,
    ),
    "answers": Kind(
        title="Methods by their answers",
        category="Answers",
        keys=("languages",),
        cells=answer_cells,
        reads=answer_files,
        drawn_by="answers:methods_by_answers",
        caption=ANSWERS,
    ),
    "doses": Kind(
        title="Changes by dose",
        category="Trials",
        keys=("languages",),
        cells=dose_cells,
        reads=trial_files,
        drawn_by="trials:changes_by_dose",
        by_protocol=False,
        caption=TRIALS,
    ),
    "lss": Kind(
        title="Language Steering Shift",
        category="Steering",
        keys=("languages", "intervention"),
        cells=shift_cells(swept=False),
        reads=shift_files,
        drawn_by="steering_shift:shift_matrix",
        caption=LSS,
    ),
    "lss_factors": Kind(
        title="Language Steering Shift by intervention",
        category="Steering",
        keys=("languages",),
        cells=lambda config, model: ((one[0],) for one in shift_cells(False)(config, model)),
        reads=shift_files,
        drawn_by="steering_shift:shift_by_intervention",
        caption=LSS,
    ),
    "lss_layers": Kind(
        title="Language Steering Shift by layer",
        category="Steering",
        keys=("languages", "sweep"),
        cells=shift_cells(swept=True),
        reads=shift_files,
        drawn_by="steering_shift:shift_by_layer",
        caption=LSS,
    ),
    "scores": Kind(
        title="Task scores",
        category="Tasks",
        keys=("task",),
        cells=scored_tasks,
        reads=score_files,
        drawn_by="tasks:scores_under_interventions",
        caption="Effect on {{ task }}, {{ model }}{{ under }}. A point or a cell is the score with"
        " the neurons of that language overwritten minus the score of the untouched model with the"
        " same adapter, on the same items; a line is its interval (confidence"
        " {{ results.confidence }}), and the untouched score is in parentheses. Filled points and"
        " bold numbers differ from 0 (level {{ results.alpha }}) after Holm's correction over all"
        " languages and conditions of the task and metric: exact McNemar test with Tango's interval"
        " where items score 0 or 1, Student's t over items elsewhere."
        "{% if points.intervention_site == 'paper' %} As in the published code, statistics of the"
        " gate are written over the activation.{% endif %}{% if points.pooling == 'paper' %} A"
        " classification head reads the last position of the padded row, as in the published code."
        "{% endif %}{% if paper %} The paper compares two means without intervals.{% endif %}",
    ),
    "targets": Kind(
        title="Task scores by target language",
        category="Tasks",
        keys=("task", "languages", "intervention"),
        cells=target_cells(swept=False),
        reads=score_files,
        drawn_by="tasks:scores_by_target",
        caption=TARGETS,
    ),
    "task_layers": Kind(
        title="Task scores by layer",
        category="Tasks",
        keys=("task", "languages", "sweep"),
        cells=target_cells(swept=True),
        reads=score_files,
        drawn_by="tasks:scores_by_layer",
        caption=TARGETS,
    ),
    "curves": Kind(
        title="Training curves",
        category="Fine-tuning",
        keys=("finetuning",),
        cells=lambda config, model: ((name,) for name in config.finetunings),
        reads=curve_files,
        drawn_by="training:training_curves",
        caption="Fine-tuning {{ finetuning }}, {{ model }}{{ under }}: loss and accuracy on the"
        " training rows, averaged between points; one line per choice of neurons on which the MLP"
        " projections are trained (attention is trained in every case). Accuracy is that of the"
        " class, or of the answer's tokens. Each line is one run.",
    ),
    "forcing": Kind(
        title="Language forcing",
        category="Generation",
        keys=("languages", "intervention"),
        cells=intervention_cells(forcing_cells),
        reads=matrix_files("generation", "generation", forcing_cells, analysis="forcing"),
        drawn_by="generation:success_of_forcing",
        caption="Language forcing, {{ model }}, intervention {{ intervention }}{{ under }}. Rows:"
        " the language of the question. Columns: the language whose neurons are activated while the"
        " answer is decoded. Left: per cent of answers that are identified as the target language."
        " Middle: the same with degenerate answers counted as failures: those that hold no letter,"
        " or that repeat themselves in more than the configured share; a model that loops on one"
        " word of a language is not a success. Right: the untouched model's answers to the same"
        " questions, read against each target.{% if paper == 'Gurgurov et al. 2025' %} The paper"
        " draws the left panel; its evaluation identifies languages with fastText lid.176 and has"
        " no untouched row.{% endif %}",
    ),
    "fallback": Kind(
        title="Fallback order",
        category="Generation",
        keys=("languages", "intervention"),
        cells=intervention_cells(fallback_cells),
        reads=matrix_files("generation", "generation", fallback_cells, analysis="fallback"),
        drawn_by="generation:languages_of_answers",
        caption="Fallback order, {{ model }}, intervention {{ intervention }}{{ under }}. Questions"
        " in one language are answered while the neurons of one more language are overwritten at"
        " each row; the first row is the untouched model. Cells: per cent of answers identified as"
        " each language (rest: all others, und: no letter). Behind the line: the share of"
        " degenerate answers, which any identifier gives some language. Of neurons that several"
        " languages share each is written once, as by the first of them."
        "{% if paper == 'Gurgurov et al. 2025' %} The published evaluation has no untouched row and"
        " no count of degenerate answers.{% endif %}",
    ),
    "lens": Kind(
        title="Logit lens",
        category="Generation",
        keys=("languages",),
        cells=lens_sets,
        reads=lens_files,
        drawn_by="generation:lens_of_the_untouched_model",
        caption=LENS,
    ),
    "lens_change": Kind(
        title="Logit lens with neurons written",
        category="Generation",
        keys=("languages", "intervention"),
        cells=lens_changes,
        reads=lens_files,
        drawn_by="generation:lens_under_an_intervention",
        caption=LENS,
    ),
}


def named_caption(figure: Figure, labels: Labels, item: str) -> str:
    """Return the caption of a figure under a name of its own, as reStructuredText."""
    parts = [
        f"{word} {quoted(labels.of(section, figure.cell[key]) if section else figure.cell[key])}"
        for key, word, section in (
            ("languages", "languages", ""),
            ("selection", "selection", "selections"),
            ("intervention", "intervention", "interventions"),
            ("sweep", "intervention", ""),
            ("task", "task", "tasks"),
        )
        if key in figure.cell
    ]
    model = quoted(labels.of("models", figure.cell["model"]))
    kind = figure.kind.replace("_", " ")
    return (
        f"{quoted(item)}: {', '.join([kind, model, *parts])}. The same picture as the one of its"
        " kind in the other categories, under the name that it has in the paper's order. Its"
        " caption there says how it was made and where it differs from the paper."
    )
