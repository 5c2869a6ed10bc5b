"""Methods on trial: tuned on development documents, tested on others, beside random controls."""

from typing import Any

from langneurons.base.errors import present
from langneurons.base.protocols import Protocol
from langneurons.config.config import Config
from langneurons.evaluation.trial_settings import TrialsConfig
from langneurons.jobs.estimates import RECORD_BYTES, Sizes
from langneurons.jobs.shared_parameters import all_written, model_settings
from langneurons.jobs.stage import Cell, Need, Stage, Work
from langneurons.reporting.layouts import LAYOUTS

SOLVING = 5  # passes over the text of a dose, for each plan
DOCUMENT = 40  # tokens of a held-out document, where no text is here


def _entry(config: Config) -> TrialsConfig:
    return present(config.trials, "trials: left out of the configuration")


def _cells(config: Config) -> list[Cell]:
    return [
        {"model": model, "langset": folder, "method": method}
        for model in config.models
        for folder in config.trial_sets(model)
        for method in (config.trials.methods if config.trials else ())
    ]


def _tried(config: Config, model: str, langset: str, method: str) -> dict[str, Any]:
    """Return the settings of a method, its controls, and how it is tried."""
    entry = _entry(config)
    own = entry.methods[method]
    return {
        "selections": list(own.selections),
        "interventions": all_written(config, own.interventions, Protocol()),
        "doses": list(entry.doses),
        "matches": list(entry.controls.matches),
        "draws": entry.controls.draws,
        "protocol": {
            "dose_tokens": entry.dose_tokens,
            "documents": entry.documents,
            "development": entry.development,
            "choose": entry.choose,
            "seed": entry.seed,
        }
        | ({"kl": True} if entry.kl else {})
        | ({"dose_by": "kl", "dose_language": entry.dose_text} if entry.dose_text else {}),
        "evaluated": list(entry.evaluated),
        "model": model_settings(config, model),
    }


def _work(sizes: Sizes, cell: Cell) -> Work:
    config = sizes.config
    entry = _entry(config)
    targets = len(config.directory_languages()[cell["langset"]])
    langs = targets + len(entry.evaluated)
    heldout = config.corpus.heldout_tokens
    if entry.documents is not None:
        heldout = min(heldout, entry.documents * DOCUMENT)
    first = config.selections[entry.methods[cell["method"]].selections[0]]
    kinds = len(entry.controls.matches) if first.units == "neurons" else 1
    draws, settings = kinds * entry.controls.draws, entry.settings(cell["method"])
    chosen = max(len(entry.doses), 1)
    test = heldout * (1 - entry.development)
    read = langs * heldout + targets * targets * heldout * entry.development * settings
    # A divergence takes a pass of its own, and the untouched model beside each plan.
    read += targets * test * (langs * chosen * (1 + 2 * entry.kl) + draws)
    if entry.doses:
        # The untouched model is read beside the plans of a divergence.
        beside = 2 if entry.dose_text else 1
        read += targets * entry.dose_tokens * SOLVING * beside * (settings + draws)
    seconds = sizes.load + sizes.seconds(read, 2, "perplexity")
    return Work(read, seconds, RECORD_BYTES * read / DOCUMENT)


TRY = Stage(
    rule="try_method",
    order=56,
    output=LAYOUTS["trials"],
    cells=_cells,
    parameters=_tried,
    loads_model=True,
    work=_work,
    need=lambda sizes: Need(sizes.on_each(sizes.held, sizes.scores + sizes.states), sizes.host + 3),
)
