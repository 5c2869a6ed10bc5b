"""Fine-tuning: training rows, and adapters on chosen neurons."""

from typing import Any

from langneurons.base.errors import present
from langneurons.base.protocols import Protocol
from langneurons.config.config import Config
from langneurons.jobs.estimates import Sizes, definition
from langneurons.jobs.shared_parameters import model_settings
from langneurons.jobs.stage import Cell, Need, Stage, Work, by_model
from langneurons.training.settings import Adapter, FinetuneEntry, TextRows, Training

DEFAULT_RATE = 0.01  # share of the neurons that a selection without a rate is taken to choose
MANY_LOGITS = 2**27  # as in langneurons.scoring.losses, which this module may not import


def _rows(config: Config, variant: str, finetuning: str) -> dict[str, Any]:
    """Return where the training rows come from."""
    entry = config.finetunings[finetuning].under(config.under("rows", variant))
    source = entry.source.model_dump(mode="json", exclude_none=True)
    return {"source": source, "limit": None, "lang": entry.language, "rows": list(entry.rows)}


def _training(config: Config, model: str, variant: str, adapter: str) -> dict[str, Any]:
    """Return the hyperparameters and whose neurons are trained."""
    one = config.adapters(model)[adapter]
    entry = trained(config, one, config.under("adapters", variant))
    training = entry.training.model_dump(mode="json", exclude={"report_to"})
    return {
        "choice": one.choice,
        "lang": entry.language,
        "languages": list(one.languages(entry.language)),
        "model": model_settings(config, model),
        "training": training,
    } | ({"source": entry.source.model_dump(mode="json")} if entry.is_text else {})


def trained(config: Config, adapter: Adapter, protocol: Protocol) -> FinetuneEntry:
    """Return the fine-tuning of an adapter under a protocol."""
    return config.finetunings[adapter.finetuning].under(protocol)


def _fetched(config: Config) -> list[Cell]:
    return [
        {"variant": variant, "finetuning": name}
        for variant in config.variants("rows")
        for name, entry in config.finetunings.items()
        if not entry.is_text
    ]


def _adapters(config: Config) -> list[Cell]:
    return [
        cell | {"adapter": adapter}
        for cell in by_model(config, "adapters")
        for adapter in config.adapters(cell["model"])
    ]


def _read(sizes: Sizes, name: str, entry: FinetuneEntry) -> tuple[float, float]:
    """Return how many rows are trained on, and their tokens."""
    training, source = entry.training, entry.source
    if isinstance(source, TextRows):
        tokens = source.tokens or sizes.config.corpus.tokens
        return tokens / training.max_length, training.max_length
    task = definition(name, entry)
    width = min(training.max_length, sizes.item_tokens(task["name"]))
    if training.pooling == "last_position" and task["kind"] == "classification":
        width = training.max_length
    return sizes.rows(task, entry, None), width


def _saved(sizes: Sizes, one: Adapter, training: Training) -> float:
    """Return the bytes of what is saved."""
    projections, geometry = len(training.projections), sizes.geometry
    if training.parameters == "rows":
        share = {"all": 1.0, "none": 0.0}.get(one.choice)
        if share is None:
            name = present(one.selection, f"adapter {one.name}: it names no selection")
            selection = sizes.config.selections[name]
            others = [sizes.config.selections[name] for name in selection.depends_on]
            selection = others[0] if others else selection
            share = getattr(selection, "rate", DEFAULT_RATE)
        return 2 * share * sizes.neurons * geometry.hidden * projections
    size = 4 * training.rank * geometry.layers * geometry.hidden * 8
    if one.choice != "none":
        wide = geometry.hidden + geometry.intermediate
        size += 4 * training.rank * geometry.layers * wide * projections
    return size


def _work(sizes: Sizes, cell: Cell) -> Work:
    config = sizes.config
    one = config.adapters(cell["model"])[cell["adapter"]]
    entry = trained(config, one, config.under("adapters", cell["variant"]))
    training = entry.training
    rows, width = _read(sizes, one.finetuning, entry)
    tokens = rows * training.epochs * width
    if training.max_steps:
        steps = training.batch_size * training.accumulate
        tokens = min(tokens, training.max_steps * steps * width)
    seconds = sizes.load + sizes.seconds(tokens, 4, "training")
    if isinstance(entry.source, TextRows):
        heldout = entry.source.heldout_tokens or config.corpus.heldout_tokens
        seconds += sizes.seconds(2 * heldout, 2, "perplexity")
    return Work(tokens, seconds, _saved(sizes, one, training))


def _need(sizes: Sizes) -> Need:
    config, geometry = sizes.config, sizes.geometry
    longest = max(
        (e.training.batch_size * e.training.max_length for e in config.finetunings.values()),
        default=0,
    )
    per_token = geometry.hidden * 14 + geometry.intermediate * 4
    kept = longest * geometry.layers * per_token * sizes.wide
    own = [cell for cell in _adapters(config) if cell["model"] == sizes.model]
    # Rows: values, gradients and two moments in float32, eight times what is saved.
    states = 8 * max((_work(sizes, cell).disk for cell in own), default=0) + 0.02 * sizes.stored
    # Logits in float32, their softmax, and gradients, of a block of positions.
    logits = 16 * min(longest * geometry.vocabulary, MANY_LOGITS)
    return Need(sizes.on_each(sizes.held + kept + states, logits), sizes.host + 2)


PREPARE = Stage(
    rule="prepare_training",
    order=2,
    output="resources/training/{variant}/{finetuning}.jsonl",
    cells=_fetched,
    parameters=_rows,
)
TRAIN = Stage(
    rule="finetune",
    order=70,
    output="results/{model}/adapters/{variant}/{adapter}/adapter_model.safetensors",
    cells=_adapters,
    parameters=_training,
    loads_model=True,
    work=_work,
    need=_need,
)
