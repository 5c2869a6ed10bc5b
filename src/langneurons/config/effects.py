"""Keys without effect, and sizes that cannot work: what the blocks say when read together."""

from collections.abc import Iterable
from typing import Any

from pydantic import BaseModel

from langneurons.base.errors import ConfigError
from langneurons.base.paths import braces
from langneurons.base.settings import doubled
from langneurons.config.check_names import check_template
from langneurons.config.config import Config
from langneurons.config.controls import roles
from langneurons.evaluation.settings import HubTask, TaskEntry
from langneurons.training.settings import FinetuneEntry

# Jobs that load a model; Snakemake needs minutes to plan more.
MOST_JOBS = 20_000
FLOAT16 = 65_504.0  # its largest number
LEAST_ACTIVATION = -0.31  # mish has the lowest of langneurons.models.nonlinearities, -0.3088
PRECISION = {"float32": 2.0**-24, "bfloat16": 2.0**-8, "float16": 2.0**-11}  # of numbers near 1


def check_effects(config: Config) -> None:
    """Raise `ConfigError` for the first key without effect, or size that cannot work."""
    _check_jobs(config)
    _check_corpus(config)
    _check_perplexity(config)
    _check_slices(config)
    _check_amounts(config)
    _check_generated(config)
    _check_chats(config)
    _check_conditions(config)
    _check_trained(config)
    _check_results(config)
    if config.runtime.gres is not None and not any(map(config.gpus, config.models)):
        raise _useless(
            "runtime.gres",
            "no model asks for a GPU",
            "Set runtime.gpu (or `gpus` of a model) to 1 or more, or leave it out.",
        )


def count_jobs(config: Config) -> dict[str, int]:
    """Return the number of jobs of each stage that loads a model."""
    found: dict[str, int] = {}

    def add(stage: str, depends: str, number: int) -> None:
        if number:
            found[stage] = found.get(stage, 0) + number * len(config.variants(depends))

    for model in config.models:
        shards = len(config.model_languages(model)) * config.statistics.shards
        shards = shards if config.statistics.until is None else min(shards, 1)
        found["statistics"] = found.get("statistics", 0) + shards
        for stage, depends, cells in (
            ("perplexity", "perplexity", config.perplexity_cells(model)),
            ("lss", "steering", config.lss_cells(model)),
        ):  # a job covers every intervention
            add(stage, depends, len({cell[:2] for cell in cells}))
        add("tasks", "evaluation", len(config.evaluations(model)))
        add("finetunings", "adapters", len(config.adapters(model)))
        for analysis in ("forcing", "fallback"):
            add(analysis, "generation", len(config.generation_cells(model, analysis)))
        add("lens", "generation", len(config.lens_cells(model)))
        methods = len(config.trials.methods) if config.trials else 0
        add("answers", "answering", 2 * len(config.answer_cells(model)))
        if trials := methods * len(config.trial_sets(model)):
            found["trials"] = found.get("trials", 0) + trials
    return found


def _check_jobs(config: Config) -> None:
    found = count_jobs(config)
    if sum(found.values()) > MOST_JOBS:
        parts = ", ".join(f"{stage} {number}" for stage, number in found.items())
        raise ConfigError(
            f"configuration: {sum(found.values())} jobs that load a model ({parts}); legal: up to"
            f" {MOST_JOBS}. Shorten `sweep`, `selections`, `interventions` or `statistics.shards`,"
            " or split the configuration."
        )


def _useless(path: str, why: str, cure: str = "Leave it out.") -> ConfigError:
    return ConfigError(f"{path}: has no effect, because {why}. {cure}")


def _given(block: BaseModel, keys: Iterable[str]) -> list[str]:
    """Return the keys of a block that differ from their defaults."""
    fields = type(block).model_fields
    return [key for key in keys if getattr(block, key) != fields[key].default]


def _check_corpus(config: Config) -> None:
    corpus = config.corpus
    blocks = dict(map(config.text_block, config.fetched(config.language_names())))
    for path, block in blocks.items():
        given = block.heldout_source
        if given is None and corpus.heldout_source is not None:
            raise ConfigError(
                f"{path}.heldout_source: missing. The held-out documents of languages come from"
                " corpus.heldout_source, so a variant from a source of its own needs one as well."
            )
        if given is not None and _place(given) == _place(block.source):
            raise ConfigError(
                f"{path}.heldout_source: reads the same documents as {path}.source, so that"
                " nothing is held out; name another file, split or data set, or leave the key out."
            )
    if corpus.heldout_source is not None:
        for key in _given(corpus, ("split", "heldout_fraction", "seed")):
            raise _useless(f"corpus.{key}", "corpus.heldout_source gives the held-out documents")
    if corpus.split == "order":
        if _given(corpus, ("seed",)):
            raise _useless("corpus.seed", "corpus.split: order draws nothing")
    for path, source in {path: source for path, source, _ in config.text_sources()}.items():
        if source.kind == "mini":
            continue
        template = source.config if source.kind == "hub" else source.path
        field = source.text_field if source.kind == "hub" else ""
        if source.codes and "code" not in braces(template) | braces(field):
            name = "config" if source.kind == "hub" else "path"
            raise _useless(
                f"{path}.codes",
                f"{path}.{name} ({template!r}) does not hold {{code}}",
                f"Write {{code}} in {path}.{name}, or leave `codes` out.",
            )
        if source.kind == "hub" and source.seed is None and _given(source, ("buffer",)):
            raise _useless(f"{path}.buffer", "`seed: null` keeps the order of the data set")


def _place(source: Any) -> dict[str, Any]:
    """Return where a source reads its documents."""
    keys = ("kind", "texts", "path", "dataset", "config", "split", "revision", "codes")
    return {key: getattr(source, key, None) for key in keys}


def _check_slices(config: Config) -> None:
    """Refuse more slices than the tokens that are asked for can fill batches."""
    corpus, statistics = config.corpus, config.statistics
    key, slices = "statistics.slices", statistics.slices
    if statistics.until is not None:
        key, slices = "statistics.until.slices", statistics.until.slices
    if corpus.packing != "joined" or slices == 1:
        return
    batch = (corpus.block_size - 1) * statistics.batch_blocks
    most = -(-corpus.tokens // batch)
    if slices > most:
        raise ConfigError(
            f"{key}: {slices} of {corpus.tokens} tokens in batches of"
            f" {batch}; legal: up to {most}. Lower statistics.batch_blocks or corpus.block_size,"
            " or raise corpus.tokens."
        )


def _check_perplexity(config: Config) -> None:
    entry = config.perplexity
    if entry is None:
        return
    held = config.corpus.heldout_tokens
    if entry.tokens is not None and entry.tokens > held:
        raise ConfigError(
            f"perplexity.tokens: {entry.tokens} is more than is held out; corpus.heldout_tokens:"
            f" {held}. Raise corpus.heldout_tokens, or lower perplexity.tokens."
        )
    if not any(config.perplexity_cells(model) for model in config.models):
        raise ConfigError(
            "perplexity: no model has one of its selections and interventions on a language set,"
            " so nothing would be measured."
        )


def check_generated(config: Config, path: str, names: Iterable[str], why: str) -> None:
    """Refuse interventions on generated tokens where none is read.

    why: why there are none, in words.
    """
    for name in names:
        for step in config.interventions[name].steps:
            if step.tokens == "generated":
                raise ConfigError(
                    f"{path}.interventions: {name!r} acts on generated tokens, and {why}. Legal"
                    " here: tokens: all or prompt."
                )


def _check_generated(config: Config) -> None:
    if config.lens is not None:
        why = "the lens reads prompts only"
        check_generated(config, "lens", config.lens.interventions, why)
    written: dict[str, tuple[str, ...]] = {}
    for key in ("forcing", "fallback"):
        entry = getattr(config, key)
        written[key] = () if entry is None else entry.interventions
    if config.answers is not None:
        for name, method in config.answers.methods.items():
            written[f"answers.methods.{name}"] = method.interventions
    for path, names in written.items():
        key = path.partition(".")[0]
        block = getattr(config, key)
        if block is not None and block.max_new_tokens == 1:
            why = f"{key}.max_new_tokens is 1: the only new token is read by no forward pass"
            check_generated(config, path, names, why)


def _check_chats(config: Config) -> None:
    """Refuse chat templates that nothing asks by, and messages of plain prompts."""
    blocks = [getattr(config, key) for key in ("forcing", "fallback", "answers")]
    asking = any(block.chat for block in [*config.tasks.values(), *filter(None, blocks)])
    judges = config.answers.judge.models if config.answers and config.answers.judge else ()
    for name, model in config.models.items():
        if model.chat is not None and not asking and name not in judges:
            raise _useless(
                f"models.{name}.chat",
                "no task has chat: true, nor has forcing, fallback or answers",
                "Write chat: true there, or leave it out.",
            )
    for key, block in zip(("forcing", "fallback", "answers"), blocks, strict=True):
        if block is not None and not block.chat and _given(block, ("message",)):
            raise _useless(
                f"{key}.message", f"{key}.chat is false", f"Write {key}: {{chat: true}}."
            )


def _check_amounts(config: Config) -> None:
    """Refuse written numbers that the format of a model does not hold, or rounds away."""
    for name, entry in config.interventions.items():
        models = config.models if entry.models is None else entry.models
        for number, step in enumerate(entry.steps):
            if not isinstance(step.value, float):
                continue
            place = f"interventions.{name}"
            place += f".steps[{number}].value" if len(entry.steps) > 1 else ".value"
            amount = step.value * step.coefficient
            for model in models:
                dtype = config.models[model].dtype
                if dtype == "float16" and abs(amount) > FLOAT16:
                    raise ConfigError(
                        f"{place}: {amount:g} is beyond float16, the dtype of models.{model};"
                        f" legal: {-FLOAT16:g} to {FLOAT16:g}, or dtype: bfloat16."
                    )
                if (
                    step.operation == "at_least"
                    and step.site == "act"
                    and amount < LEAST_ACTIVATION
                ):
                    raise ConfigError(
                        f"{place}: no activation lies below {LEAST_ACTIVATION:g} (the lowest value"
                        f" of any supported nonlinearity), so at_least {amount:g} changes nothing;"
                        " legal: a higher value, or site: gate."
                    )
                if step.operation == "scale" and abs(amount - 1) < PRECISION[dtype]:
                    raise ConfigError(
                        f"{place}: scaling by {amount!r} changes nothing in {dtype}, the dtype of"
                        f" models.{model}; legal: a factor that differs from 1 by"
                        f" {PRECISION[dtype]:g} or more."
                    )


def _check_conditions(config: Config) -> None:
    """Refuse selections, sets and targets of a task that has no intervention to use them."""
    for name, task in config.tasks.items():
        if task.interventions:
            continue
        for key in _given(task, ("selections", "language_sets", "targets")):
            raise _useless(
                f"tasks.{name}.{key}",
                "the task has no `interventions`",
                "Add interventions, or leave it out.",
            )
    for name, task in config.tasks.items():
        _check_kinds(f"tasks.{name}", task)
    for name, entry in config.finetunings.items():
        _check_kinds(f"finetunings.{name}", entry)


def _check_kinds(path: str, entry: TaskEntry | FinetuneEntry) -> None:
    """Refuse shares that hold no row of any data, and names of the hub that cannot be filled in."""
    paper = None if entry.paper is None else entry.paper.source
    for key, source in (("source", entry.source), ("paper.source", paper)):
        if isinstance(source, HubTask) and source.config is not None:
            check_template(f"{path}.{key}.config", source.config, 1, ("lang", "code"))
    shares = [(f"{path}.rows", entry.rows)]
    if entry.paper is not None and entry.paper.rows is not None:
        shares.append((f"{path}.paper.rows", entry.paper.rows))
    for place, (first, last) in shares:
        if last - first < 1e-6:
            raise ConfigError(
                f"{place}: {[first, last]} is less than a millionth of the rows; legal: a share"
                " that holds at least one row."
            )


def _check_trained(config: Config) -> None:
    for model, one in config.models.items():
        if one.dtype == "float16" and config.adapters(model):
            raise ConfigError(
                f"models.{model}.dtype: float16 cannot be trained in: small gradients become 0 and"
                " the loss becomes NaN. Legal with finetunings: bfloat16, float32."
            )
    for name, entry in config.finetunings.items():
        for protocol in config.protocols.values():
            training = entry.under(protocol).training
            if training.parameters == "rows" and not training.projections:
                raise ConfigError(
                    f"finetunings.{name}.training.projections: empty, so nothing is trained; legal:"
                    " gate, up, down, or several of these."
                )
            chosen = [one for one in entry.neurons if one == "none" or not training.projections]
            if training.parameters == "lora" and not training.modules and chosen:
                raise ConfigError(
                    f"finetunings.{name}.training.modules: empty, so neurons: {chosen[0]} trains"
                    " nothing; name linear layers, such as q_proj, or leave the key out."
                )
    for name, entry in config.finetunings.items():
        path, choices = f"finetunings.{name}", set(entry.neurons)
        if entry.targets and not {"target", "source_target"} & choices:
            raise _useless(
                f"{path}.targets", f"`neurons` ({', '.join(entry.neurons)}) names no target"
            )
        if choices <= {"none", "all"}:
            for key in _given(entry, ("selections", "language_sets")):
                raise _useless(
                    f"{path}.{key}",
                    f"`neurons` ({', '.join(entry.neurons)}) uses no selected neurons",
                )


# What a claim compares, in words for the error.
COMPARED = {
    "interventions_do_not_help": "a task under an intervention",
    "zero_is_no_deactivation": "a task under an intervention that sets 0 and, with the same"
    " selection and language, under one that sets p01 to p25",
    "perplexity_does_not_carry_over": "a task and `perplexity` with an intervention and a"
    " selection in common",
    "language_neurons_equal_random": "a task on adapters of `neurons: [target]`, for a selection"
    " and for a selection of method random",
}


def compared(config: Config, claim: str) -> bool:
    """Return whether a configuration makes what a claim compares."""
    words = roles(config)
    for model in config.models:
        own: set[tuple[str, str, str, str]] = set()
        adapters: set[tuple[str, str, str, str | None, str | None]] = set()
        known = config.adapters(model)
        for adapter, task, lang in config.evaluations(model):
            one = known.get(adapter)
            if one is not None and one.choice == "target":
                place = (task, lang, one.finetuning, one.langset, one.selection)
                adapters.add(place)
            own |= {
                (f"{task} {lang} {adapter}", folder, selection, name)
                for folder, selection, name, target in config.task_conditions(
                    model, task, lang, one
                )
                if target == lang
            }
        if claim == "interventions_do_not_help" and own:
            return True
        if claim == "zero_is_no_deactivation" and any(
            (*cell[:3], low) in own
            for cell in own
            if cell[3] in words["zero"]
            for low in words["low"]
        ):
            return True
        measured = set(config.perplexity_cells(model))
        if claim == "perplexity_does_not_carry_over" and any(cell[1:] in measured for cell in own):
            return True
        if claim == "language_neurons_equal_random" and any(
            (*cell[:4], other) in adapters
            for cell in adapters
            if cell[4] not in words["random"]
            for other in words["random"]
        ):
            return True
    return False


def _check_results(config: Config) -> None:
    results = config.results
    for claim in results.claims:
        if not compared(config, claim):
            raise ConfigError(
                f"results.claims: {claim!r} has nothing to compare; it needs {COMPARED[claim]}."
                " Define that, or leave the claim out."
            )
    if not results.claims and _given(results, ("margin",)):
        raise _useless("results.margin", "`results.claims` is empty")
    if results.stand_ins and results.published is None:
        raise _useless("results.stand_ins", "`results.published` is not given")
    again = doubled("-".join(sorted(triple)) for triple in results.venn)
    if again:
        triple = next(one for one in results.venn if "-".join(sorted(one)) == again[0])
        raise ConfigError(
            f"results.venn: {list(triple)} is listed more than once (the order of the languages"
            " does not count)."
        )
