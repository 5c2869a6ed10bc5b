r"""A model under one of our interventions as a model of the EleutherAI LM Evaluation Harness.

The harness runs its own tasks; every forward pass of it has the intervention's hooks on. Scores of
tasks that both define agree (`tests/test_harness.py`), so this is for tasks that only the harness
has. Needs `pip install 'langneurons[harness]'`.

`langneurons evaluate` runs it from the command line. Neurons and statistics come from the
`results/` of a run of that configuration. In Python: `lm_eval.simple_evaluate(model="langneurons",
model_args={"config": ..., ...}, tasks=[...])` after `import langneurons.integrations.harness`, or
`InterventionLM(model, plan)`.
"""

import json
import os
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import Any

try:
    from lm_eval import __version__ as harness_version
    from lm_eval import simple_evaluate
    from lm_eval.api.registry import register_model
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager
    from lm_eval.utils import simple_parse_args_string
except ModuleNotFoundError as error:
    hint = (
        f"langneurons.integrations.harness needs the EleutherAI harness, and the module"
        f" {error.name!r} is not installed. Install it with:"
        " pip install 'langneurons[harness]' (in a clone: make .venv/harness, which takes"
        " requirements-harness.txt)."
    )
    raise ModuleNotFoundError(hint, name=error.name) from None

from langneurons import __version__
from langneurons.base.digests import digest
from langneurons.base.errors import ConfigError, present, unknown
from langneurons.base.words import UNTOUCHED
from langneurons.config import Config, read_configs
from langneurons.interventions.apply import applied
from langneurons.interventions.hooks import NoEffect
from langneurons.interventions.plan import Plan, untouched
from langneurons.jobs.common import plan as planned
from langneurons.jobs.common import read_statistics, read_table
from langneurons.jobs.shared_parameters import written
from langneurons.models.language_model import LanguageModel, load
from langneurons.models.settings import ModelEntry


@register_model("langneurons")
class InterventionLM(HFLM):
    """A causal model whose chosen neurons are overwritten in every forward pass.

    `fingerprint` names model, numeric format and every value written; it is part of what the
    harness stores about the model. A cache of answers (`use_cache`) is keyed by the harness on the
    request alone, so one whose path does not hold the fingerprint is refused: it could return the
    answers of another intervention.
    """

    def __init__(
        self, model: LanguageModel, plan: Plan, batch_size: int | str = 1, **arguments: Any
    ):
        """Wrap a model that runs under a plan."""
        limited = sorted({write.tokens for write in plan.writes} - {"all"})
        if limited:
            raise ConfigError(
                f"intervention {plan.name!r}: it writes at {limited[0]} tokens only, and the"
                " harness does not say which those are; legal: tokens: all."
            )
        factors = sorted({write.factor.name for write in plan.writes if write.factor is not None})
        if factors:
            raise ConfigError(
                f"intervention {plan.name!r}: its value is {factors[0]}, taken over the tokens of a"
                " sequence without padding, and the harness does not say which those are; legal: a"
                " number or a statistic."
            )
        super().__init__(
            pretrained=model.model, tokenizer=model.tokenizer, batch_size=batch_size, **arguments
        )
        self.plan, self.identity, self._language_model = plan, model.identity, model
        self.fingerprint = digest(
            {
                "model": self.identity,
                "plan": plan.digest,
                "langneurons": __version__,
                "lm_eval": harness_version,
            }
        )[:16]
        self._changed = False

    def _model_call(self, *arguments: Any, **named: Any) -> Any:
        with applied(self._language_model, self.plan, strict=False) as running:
            result = super()._model_call(*arguments, **named)
        self._changed |= bool(running.changed)
        return result

    def _model_generate(self, *arguments: Any, **named: Any) -> Any:
        with applied(self._language_model, self.plan, strict=False) as running:
            result = super()._model_generate(*arguments, disable_compile=True, **named)
        self._changed |= bool(running.changed)
        return result

    def _checked(self, results: list, requests: Sequence) -> list:
        """Refuse answers that no write has changed anything of."""
        if requests and not self.plan.empty and not self._changed:
            raise NoEffect(
                f"intervention {self.plan.name!r}: {self.plan.neurons} neurons were written, and"
                " every value was already there; the scores are the untouched model's."
            )
        return results

    def loglikelihood(self, requests: Sequence, disable_tqdm: bool = False) -> list:
        """Return (log-probability, is greedy) of each request."""
        return self._checked(super().loglikelihood(requests, disable_tqdm), requests)

    def loglikelihood_rolling(self, requests: Sequence, disable_tqdm: bool = False) -> list:
        """Return the log-probability of each whole text."""
        return self._checked(super().loglikelihood_rolling(requests, disable_tqdm), requests)

    def generate_until(self, requests: Sequence, disable_tqdm: bool = False) -> list:
        """Return the continuation of each prompt."""
        return self._checked(super().generate_until(requests, disable_tqdm), requests)

    def get_model_info(self) -> dict:
        """Return what the harness stores about the model, with the intervention."""
        own = {
            "intervention": self.plan.name,
            "intervention_neurons": self.plan.neurons,
            "intervention_fingerprint": self.fingerprint,
        }
        return super().get_model_info() | self.identity | own

    def cache_path(self, folder: str | os.PathLike) -> str:
        """Return a `use_cache` path that holds the fingerprint."""
        return str(Path(folder) / f"{self.plan.name}-{self.fingerprint}")

    def set_cache_hook(self, cache_hook: Any) -> None:
        """Take a cache of the harness, unless it may be of another intervention."""
        store = getattr(cache_hook, "dbdict", None)
        if store is not None and self.fingerprint not in Path(store.filename).name:
            raise ConfigError(
                f"use_cache: {store.filename} does not hold the fingerprint {self.fingerprint}, so"
                f" it may return answers of another model or intervention; give"
                f" use_cache={self.cache_path(Path(store.filename).parent)!r}."
            )
        super().set_cache_hook(cache_hook)

    @classmethod
    def create_from_arg_obj(
        cls, arg_dict: dict, additional_config: dict | None = None
    ) -> "InterventionLM":
        """Build from what `from_config` takes; the harness calls this for its model's name."""
        more = additional_config or {}
        given = {"batch_size": more["batch_size"]} if more.get("batch_size") else {}
        return cls.from_config(**given | arg_dict)

    @classmethod
    def create_from_arg_string(
        cls, arg_string: str, additional_config: dict | None = None
    ) -> "InterventionLM":
        """Build from `config=...,model=...,intervention=...`."""
        return cls.create_from_arg_obj(simple_parse_args_string(arg_string), additional_config)

    @classmethod
    def from_config(
        cls,
        config: str | Iterable[str],
        model: str,
        intervention: str = UNTOUCHED,
        language_set: str | None = None,
        selection: str | None = None,
        language: str | None = None,
        protocol: str | None = None,
        batch_size: int | str = 1,
        **arguments: Any,
    ) -> "InterventionLM":
        """Build from a configuration and the results of its run in this folder.

        `language` is the one whose neurons are overwritten; all names are the configuration's
        (`none`: the untouched model).
        """
        cfg = read_configs([config] if isinstance(config, str) else list(config))
        _check_name("model", model, cfg.models)
        entry = ModelEntry.model_validate(cfg.models[model].model_dump(mode="json"))
        manifest = _made(cfg.manifest(model))
        if intervention == UNTOUCHED:
            return cls(load(entry, manifest), untouched(), batch_size, **arguments)
        settings, table, statistics = _parts(
            cfg, model, intervention, language_set, selection, language, protocol
        )
        made = load(entry, manifest)
        plan = planned(
            intervention,
            settings,
            present(language, "language: missing"),
            read_table(table, made),
            read_statistics(statistics, made),
        )
        return cls(made, plan, batch_size, **arguments)


def _check_name(option: str, value: str | None, legal: Collection[str]) -> str:
    if value is None or value not in legal:
        raise unknown(option, value, option.replace("_", " "), legal)
    return value


def _made(path: str) -> str:
    """Refuse a result that has not been made."""
    if not Path(path).is_file():
        raise FileNotFoundError(f"{path}: not made yet; run `snakemake --configfile ... {path}`.")
    return path


def _parts(
    cfg: Config,
    model: str,
    intervention: str,
    language_set: str | None,
    selection: str | None,
    language: str | None,
    protocol: str | None,
) -> tuple[dict[str, Any], str, list[str]]:
    """Return the intervention's settings and the files of its neurons and statistics."""
    _check_name("intervention", intervention, [UNTOUCHED, *cfg.interventions])
    named = _check_name("language_set", language_set, cfg.language_sets)
    langset, langs = cfg.directory(named), cfg.language_sets[named]
    legal = [name for label, name in cfg.cells(model) if label == named]
    chosen = _check_name("selection", selection, legal)
    _check_name("language", language, langs)
    protocol = next(iter(cfg.protocols)) if protocol is None else protocol
    _check_name("protocol", protocol, cfg.protocols)
    settings = written(cfg, intervention, cfg.protocols[protocol].of("perplexity"))
    table = _made(f"results/{model}/neurons/{langset}/{chosen}.parquet")
    return (
        settings,
        table,
        [_made(f"results/{model}/activations/{lang}.safetensors") for lang in langs],
    )


def scores(
    lm: InterventionLM,
    tasks: Sequence[str],
    include_path: str | os.PathLike | None = None,
    only_included: bool = False,
    limit: int | None = None,
    cache: str | os.PathLike | None = None,
) -> dict[str, Any]:
    """Return what the harness scores, as plain values: `model` and `results`.

    include_path: a folder of task definitions; only_included: none of the harness's own. cache: a
    folder for answers, to whose name the fingerprint is added.
    """
    found = simple_evaluate(
        model=lm,
        tasks=list(tasks),
        task_manager=TaskManager(
            include_path=None if include_path is None else str(include_path),
            include_defaults=not only_included,
        ),
        limit=limit,
        use_cache=None if cache is None else lm.cache_path(str(cache)),
        bootstrap_iters=0,
        log_samples=False,
    )
    plain = {"model": lm.get_model_info(), "results": found["results"]}
    return json.loads(json.dumps(plain, default=str))
