"""The checks across the keys of a configuration, in their order."""

from langneurons.base.errors import ConfigError, unknown
from langneurons.base.words import UNTOUCHED
from langneurons.config.check_answers import check_answers
from langneurons.config.check_languages import check_language, check_variants
from langneurons.config.check_names import (
    check_cycles,
    check_directories,
    check_doubled,
    check_figures,
    check_selections,
)
from langneurons.config.check_stability import check_stability, check_until
from langneurons.config.check_stages import (
    check_browser,
    check_finetunings,
    check_generation,
    check_interventions,
    check_lss,
    check_mini,
    check_perplexity,
    check_protocols,
    check_tasks,
    check_use,
)
from langneurons.config.check_trials import check_hypotheses, check_trials
from langneurons.config.config import Config
from langneurons.config.labels import check_labels
from langneurons.interventions.settings import ROLES

# Words with a meaning of their own where a language or a model is named.
RESERVED_LANGUAGES = (UNTOUCHED, "neurons", *ROLES)
RESERVED_MODELS = ("tables", "figures")


def check(config: Config) -> None:
    """Raise `ConfigError` for the first name that refers to nothing, or to something unused."""
    for code in config.languages:
        if code in RESERVED_LANGUAGES:
            raise ConfigError(
                f"languages.{code}: {code!r} cannot be a language code: it is a reserved word"
                f" (reserved: {', '.join(RESERVED_LANGUAGES)})."
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
            check_language(config, path, lang)
        check_doubled(path, members)
    check_variants(config)
    check_directories(config)
    for name, model in config.models.items():
        if name in RESERVED_MODELS:
            raise ConfigError(
                f"models.{name}: results/{name} holds the {name} of all models; choose another"
                " name."
            )
        path = f"models.{name}.language_sets"
        judges = config.answers.judge.models if config.answers and config.answers.judge else ()
        if model.language_sets == () and name not in judges:
            raise ConfigError(
                f"{path}: empty, and answers.judge.models does not name the model. Leave the key"
                " out to run every set, or name the model there if it only judges."
            )
        for langset in model.language_sets or ():
            if langset not in config.language_sets:
                raise unknown(path, langset, "language set", config.language_sets)
        check_doubled(path, model.language_sets or ())
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
    check_protocols(config)
    check_selections(config)
    check_cycles(config)
    check_stability(config)
    check_until(config)
    for name, protocol in config.protocols.items():
        check_interventions(config, name, protocol)
    check_perplexity(config)
    check_lss(config)
    check_tasks(config)
    check_finetunings(config)
    check_generation(config)
    check_trials(config)
    check_answers(config)
    check_hypotheses(config)
    check_browser(config)
    check_mini(config)
    check_use(config)
    check_figures(config)
    check_labels(config)
