"""The models and data sets that config/ names, tiny, in the layouts of the real ones.

`MODELS` and `DATASETS` say by name how each is made; `fill` puts all of them into a hub, at the
commits that the configuration names (`newest`: at `NEWEST`).
"""

import io
import json
import random
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import yaml

NEWEST = "0123456789abcdef0123456789abcdef01234567"
MINI = Path(__file__).parents[2] / "src" / "langneurons" / "data" / "mini"
Files = dict[str, bytes | str]
LFS = "*.safetensors filter=lfs diff=lfs merge=lfs -text\n*.parquet filter=lfs\n"


def mini(folder: str, lang: str) -> list[dict]:
    """Return mini rows of a language, or English ones where it has none."""
    path = MINI / folder / f"{lang}.jsonl"
    path = path if path.is_file() else MINI / folder / "en.jsonl"
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


# Models -------------------------------------------------------------------------------------------

SIZE = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
GATED = SIZE | {"intermediate_size": 128, "num_key_value_heads": 2, "head_dim": 8}


@cache
def _byte_level(specials: tuple[str, ...], bos: str | None) -> str:
    """Return tokenizer.json of byte-level BPE; `bos` is put before every text."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=500, special_tokens=list(specials), initial_alphabet=alphabet
    )
    made.train_from_iterator(_texts(), trainer)
    if bos is None:
        made.post_processor = processors.ByteLevel(trim_offsets=False)
    else:
        ids = [(bos, made.token_to_id(bos))]
        made.post_processor = processors.TemplateProcessing(
            single=f"{bos} $A", pair=f"{bos} $A {bos} $B", special_tokens=ids
        )
    return made.to_str()


@cache
def _pieces(gemma: bool) -> tuple[bytes, str]:
    """Return tokenizer.model and tokenizer.json of a SentencePiece tokenizer with byte fallback."""
    import sentencepiece
    from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, processors

    order = {"unk_id": 0, "bos_id": 1, "eos_id": 2, "pad_id": -1}
    if gemma:
        order = {"pad_id": 0, "eos_id": 1, "bos_id": 2, "unk_id": 3}
    names = {"bos_piece": "<bos>", "eos_piece": "<eos>"} if gemma else {}
    written = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=(row["text"] for row in mini("corpus", "en")),
        model_writer=written,
        vocab_size=700,
        model_type="bpe",
        byte_fallback=True,
        character_coverage=0.98,
        normalization_rule_name="identity",
        num_threads=1,
        minloglevel=2,
        hard_vocab_limit=False,
        **order,
        **names,
    )
    proto = sentencepiece.SentencePieceProcessor(model_proto=written.getvalue())
    pieces = {proto.id_to_piece(number): number for number in range(proto.vocab_size())}
    merges = []
    for piece in pieces:
        for cut in range(1, len(piece)):
            if piece[:cut] in pieces and piece[cut:] in pieces:
                merges.append((piece[:cut], piece[cut:]))
    merges.sort(key=lambda pair: pieces["".join(pair)])
    made = Tokenizer(
        models.BPE(pieces, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True)
    )
    mark = [] if gemma else [normalizers.Prepend("\u2581")]
    made.normalizer = normalizers.Sequence([*mark, normalizers.Replace(" ", "\u2581")])
    strip = [] if gemma else [decoders.Strip(" ", 1, 0)]
    made.decoder = decoders.Sequence(
        [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse(), *strip]
    )
    bos = "<bos>" if gemma else "<s>"
    specials = ("<pad>", "<eos>", "<bos>", "<unk>") if gemma else ("<unk>", "<s>", "</s>")
    made.add_special_tokens([AddedToken(one, special=True, normalized=False) for one in specials])
    made.post_processor = processors.TemplateProcessing(
        single=f"{bos} $A", pair=f"{bos} $A {bos} $B", special_tokens=[(bos, pieces[bos])]
    )
    return written.getvalue(), made.to_str()


def _texts() -> list[str]:
    return [row["text"] for lang in ("en", "fr", "vi", "zh", "hi") for row in mini("corpus", lang)]


def _tokenizer(cls: str, text: str, **settings: Any) -> Files:
    size = len(json.loads(text)["model"]["vocab"])
    assert size > 100
    settings = {"tokenizer_class": cls, "model_max_length": 10**30} | settings
    words = {key: value for key, value in settings.items() if key.endswith("_token") and value}
    return {
        "tokenizer.json": text,
        "tokenizer_config.json": json.dumps(settings),
        "special_tokens_map.json": json.dumps(words),
    }


def _saved(data: dict, pickled: bool) -> bytes:
    if not pickled:
        from safetensors.torch import save

        return save(data, metadata={"format": "pt"})
    import torch

    written = io.BytesIO()
    torch.save(data, written)
    return written.getvalue()


def _model(
    kind: str,
    tokenizer: Files,
    values: dict[str, Any],
    shards: int = 2,
    safetensors: bool = True,
    pickled: bool = False,
    dtype: str = "bfloat16",
    prefix: str = "",
    more: Callable[[dict], Files] = lambda state: {},
) -> Files:
    """Return the files of a repository; `prefix` is left off the names of its weights."""
    import torch
    import transformers

    size = len(json.loads(tokenizer["tokenizer.json"])["model"]["vocab"])
    config = transformers.CONFIG_MAPPING[kind](**(values | {"vocab_size": size + 8}))
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(config).to(getattr(torch, dtype))
    state = {name: one.contiguous() for name, one in model.state_dict().items()}
    if model.config.tie_word_embeddings:
        state.pop("lm_head.weight", None)
    state = {name.removeprefix(prefix): one for name, one in state.items()}
    names = sorted(state)
    written = model.config.to_dict() | {"architectures": [type(model).__name__]}
    written |= {"torch_dtype": dtype, "transformers_version": "4.43.0"}
    written.pop("dtype", None)
    files: Files = {"config.json": json.dumps(written), "README.md": "---\nlicense: other\n---\n"}
    files["generation_config.json"] = json.dumps({"_from_model_config": True})
    files |= {".gitattributes": LFS} | tokenizer | more(state)
    for binary in [False] * safetensors + [True] * pickled:
        stem, end = ("pytorch_model", "bin") if binary else ("model", "safetensors")
        where = {}
        for shard in range(shards):
            part = names[shard::shards]
            name = (
                f"{stem}-{shard + 1:05d}-of-{shards:05d}.{end}" if shards > 1 else f"{stem}.{end}"
            )
            files[name] = _saved({one: state[one] for one in part}, binary)
            where |= dict.fromkeys(part, name)
        if shards > 1:
            index = {"metadata": {"total_size": 1}, "weight_map": where}
            files[f"{stem}.{end}.index.json"] = json.dumps(index)
    return files


def llama3(instruct: bool = False) -> Files:
    """Llama 3.1: a gated repository with the weights once more under original/."""
    text = _byte_level(("<|begin_of_text|>", "<|end_of_text|>", "<|eot_id|>"), "<|begin_of_text|>")
    eos = "<|eot_id|>" if instruct else "<|end_of_text|>"
    chat = {"chat_template": "{{ messages }}"} if instruct else {}
    names = {"bos_token": "<|begin_of_text|>", "eos_token": eos, "model_max_length": 131072}
    tokenizer = _tokenizer("PreTrainedTokenizerFast", text, **names, **chat)
    rope = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0}
    rope |= {"high_freq_factor": 4.0, "original_max_position_embeddings": 8192}
    values = GATED | {"max_position_embeddings": 131072, "rope_theta": 500000.0}
    values |= {"bos_token_id": 0, "eos_token_id": [1, 2] if instruct else 1, "rope_scaling": rope}

    def original(state):
        weights = {"original/consolidated.00.pth": _saved(state, True)}
        return weights | {"original/params.json": "{}", "LICENSE": "terms", "USE_POLICY.md": "use"}

    return _model("llama", tokenizer, values, 4, more=original)


def llama2() -> Files:
    """Llama 2: SentencePiece, weights as safetensors and as pickles."""
    model, text = _pieces(False)
    names = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": None}
    tokenizer = _tokenizer("LlamaTokenizer", text, add_bos_token=True, legacy=False, **names)
    values = GATED | {"max_position_embeddings": 4096, "bos_token_id": 1, "eos_token_id": 2}
    more = {"tokenizer.model": model, "LICENSE.txt": "terms", "USE_POLICY.md": "use"}
    return _model(
        "llama", tokenizer, values, dtype="float16", pickled=True, more=lambda state: more
    )


def nemo() -> Files:
    """Mistral Nemo: the weights once more in one consolidated file, and a tekken tokenizer."""
    text = _byte_level(("<unk>", "<s>", "</s>", "[INST]", "[/INST]", "<pad>"), "<s>")
    names = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    tokenizer = _tokenizer("PreTrainedTokenizerFast", text, **names)
    # 4-bit weights come in groups of 64.
    values = GATED | {"hidden_size": 64, "head_dim": 64, "num_key_value_heads": 1}
    values |= {"max_position_embeddings": 131072, "sliding_window": None}
    values |= {"bos_token_id": 1, "eos_token_id": 2, "num_attention_heads": 1}

    def others(state):
        weights = {"consolidated.safetensors": _saved(state, False)}
        return weights | {"params.json": "{}", "tekken.json": "{}"}

    return _model("mistral", tokenizer, values, 5, more=others)


def mistral() -> Files:
    """Mistral 7B: SentencePiece, safetensors and pickles."""
    model, text = _pieces(False)
    names = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    tokenizer = _tokenizer("LlamaTokenizer", text, add_bos_token=True, legacy=True, **names)
    values = GATED | {"max_position_embeddings": 32768, "sliding_window": 4096}
    values |= {"bos_token_id": 1, "eos_token_id": 2}
    more = {"tokenizer.model": model}
    return _model("mistral", tokenizer, values, pickled=True, more=lambda state: more)


def aya() -> Files:
    """Aya Expanse: gated, several chat templates."""
    specials = ("<PAD>", "<UNK>", "<BOS_TOKEN>", "<EOS_TOKEN>", "<|END_OF_TURN_TOKEN|>")
    names = {"bos_token": "<BOS_TOKEN>", "eos_token": "<|END_OF_TURN_TOKEN|>"}
    chat = [{"name": "default", "template": "{{ messages }}"}]
    text = _byte_level(specials, "<BOS_TOKEN>")
    tokenizer = _tokenizer(
        "CohereTokenizer", text, pad_token="<PAD>", unk_token=None, chat_template=chat, **names
    )
    values = GATED | {"max_position_embeddings": 8192, "bos_token_id": 2, "eos_token_id": 4}
    values |= {"pad_token_id": 0, "tie_word_embeddings": True}
    return _model("cohere", tokenizer, values, 4, dtype="float16")


def gemma(layers: int) -> Files:
    """Gemma 2: gated, SentencePiece, two ends of a turn."""
    model, text = _pieces(True)
    names = {"bos_token": "<bos>", "eos_token": "<eos>", "pad_token": "<pad>"}
    tokenizer = _tokenizer("GemmaTokenizer", text, add_bos_token=True, unk_token="<unk>", **names)
    values = GATED | {"max_position_embeddings": 8192, "num_hidden_layers": layers}
    values |= {"bos_token_id": 2, "eos_token_id": [1, 107], "pad_token_id": 0}
    values |= {"query_pre_attn_scalar": 256, "hidden_activation": "gelu_pytorch_tanh"}
    more = {"tokenizer.model": model}
    return _model("gemma2", tokenizer, values, more=lambda state: more)


def qwen(shards: int, tied: bool, family: str = "qwen2") -> Files:
    """Qwen 2.5 and 3: no BOS token, more rows of embeddings than tokens."""
    text = _byte_level(("<|endoftext|>", "<|im_start|>", "<|im_end|>"), None)
    names = {"bos_token": None, "eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"}
    tokenizer = _tokenizer("Qwen2Tokenizer", text, unk_token=None, add_bos_token=False, **names)
    parts = json.loads(text)["model"]
    tokenizer |= {"vocab.json": json.dumps(parts["vocab"]), "merges.txt": _merges(parts)}
    values = GATED | {"max_position_embeddings": 32768, "tie_word_embeddings": tied}
    values |= {"bos_token_id": 0, "eos_token_id": 2}
    return _model(family, tokenizer, values, shards, more=lambda state: {"LICENSE": "terms"})


def _merges(parts: dict) -> str:
    return "#version: 0.2\n" + "".join(" ".join(pair) + "\n" for pair in parts["merges"])


def bloom() -> Files:
    """BLOOM: weights without the prefix of the model, safetensors and pickles."""
    text = _byte_level(("<unk>", "<s>", "</s>", "<pad>"), None)
    names = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"}
    tokenizer = _tokenizer("BloomTokenizerFast", text, padding_side="left", **names)
    values = {"hidden_size": 32, "n_layer": 2, "n_head": 4, "bos_token_id": 1, "eos_token_id": 2}
    return _model("bloom", tokenizer, values, dtype="float16", pickled=True, prefix="transformer.")


def opt() -> Files:
    """OPT: pickles only, no tokenizer.json, weights of another framework beside them."""
    text = _byte_level(("<s>", "<pad>", "</s>", "<unk>"), None)
    names = {"bos_token": "</s>", "eos_token": "</s>", "unk_token": "</s>", "pad_token": "<pad>"}
    tokenizer = _tokenizer("GPT2Tokenizer", text, add_bos_token=True, **names)
    values = {"hidden_size": 32, "ffn_dim": 128, "num_hidden_layers": 2, "num_attention_heads": 4}
    values |= {"word_embed_proj_dim": 32, "max_position_embeddings": 2048}
    values |= {"bos_token_id": 2, "eos_token_id": 2, "pad_token_id": 1}
    others = {"flax_model-00001-of-00002.msgpack": b"flax", "flax_model.msgpack.index.json": "{}"}
    files = _model(
        "opt",
        tokenizer,
        values,
        dtype="float16",
        safetensors=False,
        pickled=True,
        prefix="model.",
        more=lambda state: others | {"LICENSE.md": "terms"},
    )
    parts = json.loads(files.pop("tokenizer.json"))["model"]
    return files | {"vocab.json": json.dumps(parts["vocab"]), "merges.txt": _merges(parts)}


def phi() -> Files:
    """Phi-2: one token for beginning, end and unknown."""
    text = _byte_level(("<|endoftext|>",), None)
    names = dict.fromkeys(("bos_token", "eos_token", "unk_token"), "<|endoftext|>")
    tokenizer = _tokenizer("CodeGenTokenizer", text, add_prefix_space=False, **names)
    parts = json.loads(text)["model"]
    tokenizer |= {"vocab.json": json.dumps(parts["vocab"]), "merges.txt": _merges(parts)}
    values = SIZE | {"intermediate_size": 128, "max_position_embeddings": 2048}
    values |= {"hidden_size": 40, "partial_rotary_factor": 0.4, "bos_token_id": 0}
    more = {"added_tokens.json": "{}", "NOTICE.md": "notice", "CODE_OF_CONDUCT.md": "code"}
    return _model(
        "phi", tokenizer, values | {"eos_token_id": 0}, dtype="float16", more=lambda state: more
    )


MODELS: dict[str, tuple[Callable[[], Files], str | bool]] = {
    "meta-llama/Llama-3.1-8B": (llama3, "manual"),
    "meta-llama/Llama-3.1-8B-Instruct": (lambda: llama3(True), "manual"),
    "meta-llama/Llama-2-7b-hf": (llama2, "manual"),
    "meta-llama/Llama-2-13b-hf": (llama2, "manual"),
    "meta-llama/Llama-2-70b-hf": (llama2, "manual"),
    "mistralai/Mistral-Nemo-Base-2407": (nemo, False),
    "mistralai/Mistral-7B-v0.1": (mistral, False),
    "CohereLabs/aya-expanse-8b": (aya, "auto"),
    "CohereLabs/aya-expanse-32b": (aya, "auto"),
    "google/gemma-2-2b-it": (lambda: gemma(26), "manual"),
    "google/gemma-2-9b-it": (lambda: gemma(2), "manual"),
    "Qwen/Qwen2.5-0.5B-Instruct": (lambda: qwen(1, True), False),
    "Qwen/Qwen2.5-7B-Instruct": (lambda: qwen(4, False), False),
    "Qwen/Qwen3-8B": (lambda: qwen(5, False, "qwen3"), False),
    "SeaLLMs/SeaLLMs-v3-1.5B-Chat": (lambda: qwen(1, True), False),
    "SeaLLMs/SeaLLMs-v3-7B-Chat": (lambda: qwen(4, False), False),
    "bigscience/bloom-7b1": (bloom, False),
    "facebook/opt-6.7b": (opt, False),
    "microsoft/phi-2": (phi, False),
}


# Data sets ----------------------------------------------------------------------------------------


def parquet(rows: list[dict], group: int = 20) -> bytes:
    """Return the bytes of a parquet file."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    written = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), written, row_group_size=group)
    return written.getvalue()


def jsonl(rows: list[dict]) -> str:
    """Return the text of a JSONL file."""
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def card(configs: dict[str, dict[str, str]], files: Files) -> Files:
    """Return a data set with the header that lists its configurations: split -> path."""
    listed = [
        {
            "config_name": name,
            "data_files": [{"split": split, "path": path} for split, path in splits.items()],
        }
        for name, splits in configs.items()
    ]
    head = yaml.safe_dump({"license": "other", "configs": listed}, allow_unicode=True)
    return files | {"README.md": f"---\n{head}---\n# A data set\n", ".gitattributes": LFS}


def documents(lang: str, number: int, seed: int = 0) -> list[str]:
    """Return documents that differ, a few sentences each."""
    pool = [row["text"] for row in mini("corpus", lang)]
    draw = random.Random(f"{lang}{seed}")
    return [
        f"{lang} {i}. " + " ".join(draw.sample(pool, draw.randint(2, 5))) for i in range(number)
    ]


def wikipedia(langs: set[str]) -> Files:
    """Shards of parquet per language, with columns that nobody reads."""
    files, configs = {}, {}
    for lang in langs:
        shards = 3 if lang in ("en", "fr") else 1
        for shard in range(shards):
            rows = [
                {"id": f"{shard}{i:04d}", "url": "https://x", "title": f"{i}", "text": text}
                for i, text in enumerate(documents(lang, 60, shard))
            ]
            path = f"20231101.{lang}/train-{shard:05d}-of-{shards:05d}.parquet"
            files[path] = parquet(rows)
        configs[f"20231101.{lang}"] = {"train": f"20231101.{lang}/train-*"}
    return card(configs, files)


def culturax(langs: set[str]) -> Files:
    """No identifiers, a time stamp; the Norwegian configuration is a quoted `no`."""
    files: Files = {}
    for lang in langs:
        rows = [
            {"text": text, "timestamp": "2020/01/01 00:00:00", "url": "https://x", "source": "mC4"}
            for text in documents(lang, 60)
        ]
        files[f"{lang}/{lang}_part_00000.parquet"] = parquet(rows)
    return card({lang: {"train": f"{lang}/*.parquet"} for lang in langs}, files)


def flores_plus(codes: set[str]) -> Files:
    """JSONL per split and code, rows parallel by position."""
    files, configs = {}, {}
    for code in {*codes, "eng_Latn"}:
        for split, number in (("dev", 60), ("devtest", 30)):
            rows = [
                {"id": i, "iso_639_3": code[:3], "text": text, "last_updated": "1.0"}
                for i, text in enumerate(documents(code, number, len(split)))
            ]
            files[f"{split}/{code}.jsonl"] = jsonl(rows)
        configs[code] = {split: f"{split}/{code}.jsonl" for split in ("dev", "devtest")}
    return card(configs, files)


def xnli(langs: set[str]) -> Files:
    """Premise, hypothesis and the number of the label; no identifier."""
    files, configs = {}, {}
    for lang in langs:
        rows = [{k: r[k] for k in ("premise", "hypothesis", "label")} for r in mini("xnli", lang)]
        for split in ("train", "test", "validation"):
            files[f"{lang}/{split}-00000-of-00001.parquet"] = parquet(rows)
        configs[lang] = {one: f"{lang}/{one}-*" for one in ("train", "test", "validation")}
    return card(configs, files)


def _squad(lang: str) -> list[dict]:
    rows = []
    for row in mini("xquad", lang):
        texts = row["answers"]["text"]
        answers = {"text": texts, "answer_start": [0] * len(texts)}
        rows.append({k: row[k] for k in ("id", "context", "question")} | {"answers": answers})
    return rows


def xquad(langs: set[str]) -> Files:
    """Answers as a list of texts and one of places."""
    files = {
        f"xquad.{lang}/validation-00000-of-00001.parquet": parquet(_squad(lang)) for lang in langs
    }
    configs = {f"xquad.{lang}": {"validation": f"xquad.{lang}/validation-*"} for lang in langs}
    return card(configs, files)


def squad(_langs: set[str]) -> Files:
    """One configuration with two splits."""
    rows = [{"title": "t"} | row for row in _squad("en")]
    splits = {split: f"plain_text/{split}-*" for split in ("train", "validation")}
    files = {f"plain_text/{one}-00000-of-00001.parquet": parquet(rows) for one in splits}
    return card({"plain_text": splits}, files)


def xcopa(langs: set[str]) -> Files:
    """Two choices, the kind of question, the number of the right one."""
    names = ("premise", "choice1", "choice2", "question", "label")
    files: Files = {}
    for lang in langs:
        rows = [
            {k: row[k] for k in names} | {"idx": i, "changed": False}
            for i, row in enumerate(mini("xcopa", lang))
        ]
        for split in ("validation", "test"):
            files[f"{lang}/{split}-00000-of-00001.parquet"] = parquet(rows)
    splits = ("validation", "test")
    return card({lang: {s: f"{lang}/{s}-*" for s in splits} for lang in langs}, files)


def xwinograd(codes: set[str]) -> Files:
    """A blank in the sentence, two options, the number of the right one as text."""
    rows = [
        {"sentence": f"The cup {i} did not fit the bag because _ was large.", "option1": "the cup"}
        | {"option2": "the bag", "answer": str(1 + i % 2)}
        for i in range(20)
    ]
    files = {f"{code}/test-00000-of-00001.parquet": parquet(rows) for code in codes}
    return card({code: {"test": f"{code}/test-*"} for code in codes}, files)


def belebele(codes: set[str]) -> Files:
    """JSONL with a column of dates; the number of the answer is text."""
    files: Files = {}
    for code in codes:
        rows = [
            {"link": "https://x", "question_number": 1, "flores_passage": row["context"]}
            | {"question": row["question"]}
            | {f"mc_answer{k}": f"answer {k}" for k in range(1, 5)}
            | {"correct_answer_num": str(1 + i % 4), "dialect": code, "ds": "2023-05-03"}
            for i, row in enumerate(mini("xquad", "en"))
        ]
        files[f"data/{code}.jsonl"] = jsonl(rows)
    files["unused/belebele.py"] = "# the script of earlier days\n"
    return card({code: {"test": f"data/{code}.jsonl"} for code in codes}, files)


def include(codes: set[str], lite: bool) -> Files:
    """Options by name in the base set, and as a list in the lite one; names with a space."""
    options = {f"option_{letter}": f"option {letter}" for letter in "abcd"}
    options = {"choices": list(options.values())} if lite else options
    files, configs = {}, {}
    for code in codes:
        rows = [
            {"language": code, "domain": "STEM", "question": f"Question {i}?", "answer": i % 4}
            | options
            for i in range(20)
        ]
        for split in ("test",) if lite else ("test", "validation"):
            files[f"{code}/{split}-00000-of-00001.parquet"] = parquet(rows)
        configs[code] = {"test": f"{code}/test-*"}
    return card(configs, files)


def mlama(langs: set[str]) -> Files:
    """A template with its subject in one language, objects in all."""
    files: Files = {}
    for lang in langs:
        rows = [
            {"template": "[X] is in [Y] .", f"sub_{lang}": f"subject {i}", "predicate_id": "P1"}
            | {f"obj_{other}": f"{other} object {i % 11}" for other in sorted(langs)}
            for i in range(30)
        ]
        files[f"{lang}/test-00000-of-00001.parquet"] = parquet(rows)
    return card({lang: {"test": f"{lang}/test-*"} for lang in langs}, files)


# By name: how it is made from the languages or codes that are asked of it, and whether it is gated.
DATASETS: dict[str, tuple[Callable[[set[str]], Files], str | bool]] = {
    "wikimedia/wikipedia": (wikipedia, False),
    "uonlp/CulturaX": (culturax, "auto"),
    "openlanguagedata/flores_plus": (flores_plus, "auto"),
    "facebook/xnli": (xnli, False),
    "google/xquad": (xquad, False),
    "rajpurkar/squad": (squad, False),
    "cambridgeltl/xcopa": (xcopa, False),
    "Muennighoff/xwinograd": (xwinograd, False),
    "facebook/belebele": (belebele, False),
    "CohereLabs/include-base-44": (lambda codes: include(codes, False), False),
    "CohereLabs/include-lite-44": (lambda codes: include(codes, True), False),
    "inayarhmns/MLAMA-dod-185": (mlama, False),
}
