"""Tiny tokenizers of bytes with the kinds of chat template that instruction-tuned models have."""

from dataclasses import dataclass

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast


@dataclass(frozen=True)
class Kind:
    """A kind of template: its control words, what ends a text and a turn, and its template."""

    family: str
    words: tuple[str, ...]
    bos: str | None
    eos: str
    turn: str
    template: str
    system: bool = True


_EACH = "{% for one in messages %}"
_ROLE = _EACH + "{% set role = 'model' if one.role == 'assistant' else one.role %}"
KINDS = {
    "chatml": Kind(
        "qwen3",
        ("<|endoftext|>", "<|im_start|>", "<|im_end|>"),
        None,
        "<|endoftext|>",
        "<|im_end|>",
        _EACH + "<|im_start|>{{ one.role }}\n{{ one.content }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}",
    ),
    "header": Kind(
        "llama",
        ("<|bos|>", "<|eos|>", "<|header|>", "<|/header|>", "<|eot|>"),
        "<|bos|>",
        "<|eos|>",
        "<|eot|>",
        "{{ bos_token }}" + _EACH + "<|header|>{{ one.role }}<|/header|>\n\n"
        "{{ one.content | trim }}<|eot|>{% endfor %}"
        "{% if add_generation_prompt %}<|header|>assistant<|/header|>\n\n{% endif %}",
    ),
    "inst": Kind(
        "mistral",
        ("<s>", "</s>"),
        "<s>",
        "</s>",
        "</s>",
        "{{ bos_token }}" + _EACH + "{% if one.role == 'user' %}[INST] {{ one.content }} [/INST]"
        "{% elif one.role == 'system' %}{{ raise_exception('no system role') }}"
        "{% else %} {{ one.content }}{{ eos_token }}{% endif %}{% endfor %}",
        system=False,
    ),
    "turn": Kind(
        "gemma3_text",
        ("<bos>", "<eos>", "<start>", "<end>"),
        "<bos>",
        "<eos>",
        "<end>",
        "{{ bos_token }}" + _ROLE + "{% if role == 'system' %}"
        "{{ raise_exception('System role not supported') }}{% endif %}"
        "<start>{{ role }}\n{{ one.content | trim }}<end>\n{% endfor %}"
        "{% if add_generation_prompt %}<start>model\n{% endif %}",
        system=False,
    ),
    "tokens": Kind(
        "cohere2",
        ("<BOS>", "<EOS>", "<|TURN|>", "<|/TURN|>", "<|USER|>", "<|BOT|>", "<|SYSTEM|>"),
        "<BOS>",
        "<EOS>",
        "<|/TURN|>",
        "{{ bos_token }}" + _EACH + "<|TURN|>{% if one.role == 'user' %}<|USER|>"
        "{% elif one.role == 'system' %}<|SYSTEM|>{% else %}<|BOT|>{% endif %}"
        "{{ one.content }}<|/TURN|>{% endfor %}"
        "{% if add_generation_prompt %}<|TURN|><|BOT|>{% endif %}",
    ),
    "lines": Kind(
        "stablelm",
        ("<s>", "</s>", "<|user|>", "<|assistant|>", "<|system|>"),
        "<s>",
        "</s>",
        "</s>",
        _EACH + "<|{{ one.role }}|>\n{{ one.content }}{{ eos_token }}\n{% endfor %}"
        "{% if add_generation_prompt %}<|assistant|>\n{% endif %}",
    ),
}
VOCABULARY = 270


def chat_tokenizer(kind: str) -> PreTrainedTokenizerFast:
    """Return a tokenizer of bytes that puts BOS before a text, with a kind's template."""
    about = KINDS[kind]
    symbols = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {symbol: i for i, symbol in enumerate([*about.words, *symbols])}
    backend = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    if about.bos is not None:
        special = [(about.bos, vocabulary[about.bos])]
        backend.post_processor = processors.TemplateProcessing(
            single=f"{about.bos} $A", pair=f"{about.bos} $A $B", special_tokens=special
        )
    others = [word for word in about.words if word not in (about.bos, about.eos)]
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token=about.bos,
        eos_token=about.eos,
        pad_token=about.eos,
        additional_special_tokens=others,
        chat_template=about.template,
    )
