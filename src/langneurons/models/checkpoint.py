"""What a checkpoint is, by its own files: asked once, when it is prepared, before anything runs.

Refused, each with the reason: weights that are quantised already, families whose neurons are not
modules of their own, nonlinearities that are unknown or are not what the configuration names,
tokenizers that have no token for an empty prompt or tokens that the model has no embedding for,
files that are pointers to files.
"""

import json
import logging
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from safetensors import SafetensorError, safe_open

from langneurons.base.io import LFS_POINTER
from langneurons.models.encoding import Encoder, control_words, max_positions, name_of
from langneurons.models.families import family_for
from langneurons.models.nonlinearities import NONLINEARITIES, nonlinearity_name
from langneurons.models.sites import MlpSites

log = logging.getLogger(__name__)
GENERATION = "generation_config.json"
# What a model cannot do without, by the end of its name.
NEEDED = (".json", ".model", ".safetensors", ".bin", ".tiktoken", "merges.txt", "vocab.txt")
FLOATS = frozenset({"F64", "F32", "F16", "BF16"})
# Masks and positions that some checkpoints store beside their weights.
BUFFERS = frozenset({"BOOL", "I64", "U8"})
# What a generation configuration may ask for beyond greedy decoding; a task names its own penalty.
IGNORED = (
    "bad_words_ids",
    "begin_suppress_tokens",
    "encoder_repetition_penalty",
    "forced_bos_token_id",
    "forced_eos_token_id",
    "min_length",
    "min_new_tokens",
    "no_repeat_ngram_size",
    "sequence_bias",
    "suppress_tokens",
)


def is_pointer(path: Path) -> bool:
    """Return whether a file is a Git LFS pointer in place of the file itself."""
    with Path(path).open("rb") as opened:
        return opened.read(len(LFS_POINTER)) == LFS_POINTER


def check_files(folder: Path, names: Iterable[str]) -> None:
    """Refuse broken files, files of another kind and Git LFS pointers among a model's files."""
    for name in names:
        path = Path(folder) / name
        if not path.stat().st_size:
            if not name.endswith(NEEDED):
                continue  # licences, templates, lists of requirements
            raise ValueError(f"{path}: the file is empty")
        if is_pointer(path):
            raise ValueError(
                f"{path}: a Git LFS pointer, not the file itself. Fetch the file with `git lfs"
                " pull` in that folder, or name the repository on the hub as the source."
            )
        if name.endswith(".safetensors"):
            _check_safetensors(path)
        if name in (GENERATION, "config.json", "tokenizer_config.json"):
            own_json(path)
        if name.endswith(".index.json"):
            _check_shards(path)


def own_json(path: Path) -> dict[str, Any]:
    """Return the object of a JSON file among a model's files."""
    try:
        found = json.loads(path.read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: cannot be read as JSON ({error})") from None
    if not isinstance(found, dict):
        raise ValueError(f"{path}: {type(found).__name__} in place of a JSON object")
    return found


def _check_safetensors(path: Path) -> None:
    """Refuse a file whose header does not fit its length, as of a download that broke off."""
    try:
        with safe_open(path, framework="numpy") as opened:
            kinds = {opened.get_slice(name).get_dtype(): name for name in opened.keys()}
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path}: not a whole safetensors file ({error})") from None
    packed = sorted(set(kinds) - FLOATS - BUFFERS)
    if packed:
        raise ValueError(
            f"{path}: the weights are quantised already ({kinds[packed[0]]} is {packed[0]}), and"
            f" results would not say so. Expected: {', '.join(sorted(FLOATS))}."
        )


def _check_shards(index: Path) -> None:
    """Refuse an index that names files which are not there."""
    given = own_json(index)
    places = given.get("weight_map")
    if not isinstance(places, dict):
        raise ValueError(f"{index}: no object 'weight_map' of tensors and the files that hold them")
    shards = set(places.values())
    absent = sorted(name for name in shards if not (index.parent / name).is_file())
    # A repository may hold the same weights twice; those of the other format are not needed.
    if absent and len(absent) < len(shards):
        raise ValueError(
            f"{index}: {len(absent)} of the {len(shards)} files that it names are not there, such"
            f" as {absent[0]}"
        )


def check_config(config: transformers.PretrainedConfig) -> None:
    """Refuse a configuration whose model this project cannot look into."""
    family_for(config.model_type, config)
    code = getattr(config, "auto_map", None) or {}
    if "AutoModelForCausalLM" in code:
        log.warning(
            "the repository brings code of its own (%s), which is not run: the model is that of"
            " transformers for %r",
            code["AutoModelForCausalLM"],
            config.model_type,
        )
    own = getattr(config, "quantization_config", None)
    if own is not None:
        raise ValueError(
            f"the weights are quantised already ({described(own)}), and results would not say so."
            " Use the repository of the unquantised weights; `quantization: nf4` makes 4-bit"
            " weights of them."
        )
    nonlinearity_name(config.get_text_config(decoder=True))


def described(quantization: Any) -> str:
    """Return the words that a checkpoint has for its own quantisation."""
    given = quantization if isinstance(quantization, Mapping) else quantization.to_dict()
    method = str(given.get("quant_method", "unknown method")).rpartition(".")[2].lower()
    if given.get("load_in_4bit"):
        return f"{method}, 4 bits, {given.get('bnb_4bit_quant_type', 'fp4')}"
    if given.get("load_in_8bit"):
        return f"{method}, 8 bits"
    bits = given.get("bits") or given.get("w_bit")
    return f"{method}, {bits} bits" if bits else method


def check_modules(model: transformers.PreTrainedModel) -> MlpSites:
    """Refuse a model without the modules of its family, or with another nonlinearity than named.

    The model may be without memory for its weights; its nonlinearities have none.
    """
    config, sites = model.config, MlpSites(model)
    limit = max_positions(sites.config)
    if limit is not None and limit < 1:
        raise ValueError(f"its configuration names {limit} positions")
    name = nonlinearity_name(sites.config)
    values = torch.linspace(-6, 6, 49)
    with torch.no_grad():
        found = sites.act[0](values)
    if not np.allclose(found.numpy(), NONLINEARITIES[name](values.numpy()), atol=2e-4):
        raise ValueError(
            f"model type {config.model_type!r}: its configuration names the activation function"
            f" {name!r}, and the model computes another ({type(sites.act[0]).__name__})"
        )
    return sites


def check_tokenizer(
    tokenizer: transformers.PreTrainedTokenizerBase, config: transformers.PretrainedConfig
) -> None:
    """Refuse a tokenizer that cannot begin an empty prompt, or whose tokens the model lacks."""
    dropout = getattr(getattr(tokenizer, "backend_tokenizer", None), "model", None)
    dropout = getattr(dropout, "dropout", None)
    if dropout:
        raise ValueError(
            f"tokenizer {name_of(tokenizer)}: dropout {dropout} of its merges gives other tokens at"
            " each call. Set `dropout` of `model` in tokenizer.json to null."
        )
    Encoder(tokenizer).start()
    rows = int(config.get_text_config(decoder=True).vocab_size)
    beyond = {w: n for w, n in tokenizer.get_vocab().items() if n >= rows}
    # Added words are read where a template names them; padding is never embedded (`pad_within`).
    added = {str(token) for token in tokenizer.added_tokens_decoder.values()}
    used = {tokenizer.bos_token, tokenizer.eos_token} | (beyond.keys() - added)
    beyond = {word: number for word, number in beyond.items() if word in used}
    if beyond:
        word = min(beyond, key=beyond.__getitem__)
        raise ValueError(
            f"tokenizer {name_of(tokenizer)}: {len(beyond)} of its tokens have no embedding, such"
            f" as {word!r} ({beyond[word]}); the model has {rows} embeddings. The tokenizer belongs"
            " to another model, or was extended without it."
        )


def pad_within(
    tokenizer: transformers.PreTrainedTokenizerBase, config: transformers.PretrainedConfig
) -> None:
    """Pad with EOS where there is no padding token, or the model has no embedding for it."""
    rows = int(config.get_text_config(decoder=True).vocab_size)
    if tokenizer.pad_token is not None and tokenizer.pad_token_id >= rows:
        log.warning(
            "%s: the padding token %r has no embedding; padded with EOS",
            name_of(tokenizer),
            tokenizer.pad_token,
        )
        tokenizer.pad_token = None
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.bos_token


def generation_settings(
    folder: Path, tokenizer: transformers.PreTrainedTokenizerBase
) -> dict[str, Any]:
    """Return what a model's own files say of its answers: their end, and a repetition penalty.

    What greedy decoding here leaves out is logged, and ends that are not added tokens.
    """
    path = Path(folder) / GENERATION
    given = own_json(path) if path.is_file() else {}
    ends = given.get("eos_token_id")
    for end in ends if isinstance(ends, list) else [ends]:
        if end is not None and (type(end) is not int or end < 0):
            raise ValueError(
                f"{path}: eos_token_id {ends!r}. Expected: a token's number, or a list"
            )
        if end is not None and end not in tokenizer.added_tokens_decoder:
            log.warning("%s: eos_token_id %s is not an added token, and ends no answer", path, end)
    penalty = given.get("repetition_penalty")
    number = isinstance(penalty, int | float) and not isinstance(penalty, bool)
    if penalty is not None and not (number and 0 < penalty < 100):
        raise ValueError(f"{path}: repetition_penalty {penalty!r}. Expected: a number above 0")
    left_out = {key: given[key] for key in IGNORED if given.get(key)}
    if left_out:
        log.warning("%s asks for %s, which is not applied here", GENERATION, left_out)
    return {
        "eos_token_id": given.get("eos_token_id"),
        "repetition_penalty": given.get("repetition_penalty"),
        "not_applied": left_out,
    }


# Buffers that older checkpoints store and models compute.
COMPUTED = ("inv_freq", "masked_bias", ".attn.bias", ".attention.bias", "position_ids")


def check_unused(names: Iterable[str], layers: str) -> None:
    """Refuse weights of layers that the model does not have; log others that it does not use.

    names: of the tensors that loading left over; layers: the path of the layers, dotted.
    """
    left = sorted(name for name in names if not name.endswith(COMPUTED))
    own = [name for name in left if f".{layers}." in f".{name}"]
    if own:
        raise ValueError(
            f"{len(own)} tensors of the layers have no place in the model, such as {own[0]}: its"
            " configuration describes another model than its weights"
        )
    if left:
        log.warning("%d tensors are not part of the text model, such as %s", len(left), left[0])


def facts(
    config: transformers.PretrainedConfig,
    sites: MlpSites,
    tokenizer: transformers.PreTrainedTokenizerBase,
) -> dict[str, Any]:
    """Return what later jobs ask of a model before they load it."""
    return {
        "model_type": config.model_type,
        "n_layers": sites.n_layers,
        "d_mlp": sites.d_mlp,
        "max_positions": max_positions(sites.config),
        "nonlinearity": nonlinearity_name(sites.config),
        "control_words": len(control_words(tokenizer)),
    }
