"""The attributions of a model's neurons on one language's corpus."""

from pathlib import Path

from langneurons.activations.attribution import Attribution
from langneurons.activations.settings import AttributionConfig
from langneurons.base.digests import digest
from langneurons.data.corpus import Corpus
from langneurons.jobs.common import STORE, ModelJob
from langneurons.scoring.attribution import attribute


def attribution_cell(job: ModelJob, checkpoint_seconds: float) -> tuple[Attribution, Path]:
    """Return the attributions, and the file of the pass's state, which is no longer needed.

    checkpoint_seconds: how often the state is saved, from which a killed job goes on.
    """
    settings = AttributionConfig.model_validate(job.cfg["attribution"])
    model, lang = job.model(), job.wildcards["lang"]
    corpus = Corpus.read(job.inputs["corpus"], lang=lang, tokenizer_hash=model.tokenizer_hash)
    key = [settings.model_dump(mode="json"), model.identity, corpus.header, job.code]
    state = Path(STORE, "attribution", f"{digest(key, 32)}.safetensors")
    return attribute(model, corpus, settings, state, checkpoint_seconds), state
