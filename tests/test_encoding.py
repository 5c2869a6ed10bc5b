"""What a tokenizer adds and reads, what does not fit: the same rule for every reader of a text."""

import logging

import numpy as np
import pytest
import torch
from tiny import tiny_model, tiny_tokenizer
from tokenizers import AddedToken, Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import LlamaTokenizer, PreTrainedTokenizerFast, XGLMTokenizer

from langneurons.evaluation.definition import Task
from langneurons.evaluation.examples import build as build_examples
from langneurons.evaluation.lens import Lens, read_prompts
from langneurons.evaluation.tasks import encode_examples, score_task
from langneurons.models import encoding
from langneurons.models.encoding import Encoder
from langneurons.models.language_model import LanguageModel
from langneurons.models.sites import MlpSites
from langneurons.scoring.decoding import Decoding
from langneurons.scoring.generation import encode_prompts, generate, penalty_of
from langneurons.scoring.head import NotFinite
from langneurons.scoring.likelihood import encode_requests, loglikelihood
from langneurons.scoring.nll import token_nll
from langneurons.training.batches import items_of

FAMILIES = ("llama", "gpt2", "opt")
ROOM = 128  # positions of the tiny models


def appending(single="<s> $A </s>"):
    """Return the tiny tokenizer with a post-processor that also appends EOS."""
    tokenizer = tiny_tokenizer()
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single=single, pair="$A $B", special_tokens=[("<s>", 1), ("</s>", 2)]
    )
    return tokenizer


def characters(alphabet, merges=(), **specials):
    """Return a BPE tokenizer of single characters and merges, without special tokens of its own."""
    symbols = [*alphabet, *("".join(pair) for pair in merges), "<unk>"]
    backend = Tokenizer(
        models.BPE(
            vocab={symbol: number for number, symbol in enumerate(symbols)},
            merges=list(merges),
            unk_token="<unk>",
        )
    )
    return PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="<unk>", **specials)


def byte_level(**specials):
    """Return a tokenizer of bytes; special tokens come before them."""
    symbols = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {s: i for i, s in enumerate([*specials.values(), *symbols])}
    backend = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    return PreTrainedTokenizerFast(tokenizer_object=backend, **specials)


def choice_task(**changes):
    given = {
        "name": "toy",
        "kind": "multiple_choice",
        "fields": ("text", "label"),
        "context": "{text}",
        "choices": ("w1", "w2", "w3"),
        "gold": "label",
        "metrics": ("accuracy",),
        "words": {"en": {}},
    }
    return Task(**given | changes)


# What a tokenizer adds ---------------------------------------------------------------------------


@pytest.mark.parametrize("single", ["<s> $A", "<s> $A </s>", "$A </s>", "$A", "</s> $A"])
def test_a_text_begins_with_what_the_tokenizer_puts_before_it_and_nothing_comes_after(single):
    tokenizer = appending(single)
    lead = [{"<s>": 1, "</s>": 2}[word] for word in single.partition("$A")[0].split()]
    encoder = Encoder(tokenizer)
    assert encoder.whole("w1 w2") == [*lead, 5, 6]
    assert encoder.whole("") == (lead or [1])
    pair = encoder.pair("w1 w2", " w3 w4")
    assert (pair.context, pair.continuation, pair.apart) == ([*lead, 5, 6], [7, 8], False)
    empty = encoder.pair("", "w3")
    assert (empty.context, empty.continuation) == (lead or [1], [7])


def test_an_appended_eos_changes_no_score_no_answer_and_no_row():
    model, plain, adding = tiny_model("llama"), tiny_tokenizer(), appending()
    pairs = [("w1 w2", " w3 w4"), ("w1 w2", " w5"), ("", "w7"), ("w9", " w1 w2 w3")]
    expected = loglikelihood(LanguageModel(model, plain), pairs, 100)
    assert loglikelihood(LanguageModel(model, adding), pairs, 100) == expected
    prompts = ["w1 w2", "w3", ""]
    assert generate(LanguageModel(model, adding), prompts, Decoding(6), 100) == generate(
        LanguageModel(model, plain), prompts, Decoding(6), 100
    )
    sites = MlpSites(model)
    lens = Lens(["aa"], np.zeros(100, np.int64), "{question}")
    states = [
        read_prompts(LanguageModel(model, tokenizer), [{"id": "a", "question": "w1 w2"}], lens, 40)
        for tokenizer in (plain, adding)
    ]
    assert sites.n_layers == 2 and states[0].equals(states[1])
    task = Task(
        name="toy",
        kind="generation",
        fields=("text", "answer"),
        context="{text}",
        gold="answer",
        metrics=("exact_match",),
        words={"en": {}},
    )
    rows = [{"text": "w1 w2", "answer": "w3"}]
    (item,) = items_of(LanguageModel(tiny_model("llama"), adding), task, rows, "en", 20)
    assert item == {"input_ids": [1, 5, 6, 7, 2], "labels": [-100, -100, -100, 7, 2]}


def test_one_token_choices_differ_under_a_tokenizer_that_appends_eos():
    model, rows = tiny_model("llama"), [{"text": f"w{i} w{i + 1}", "label": 0} for i in range(20)]
    frames = [
        score_task(LanguageModel(model, tokenizer), choice_task(), "en", rows, 100)
        for tokenizer in (tiny_tokenizer(), appending())
    ]
    assert frames[0].equals(frames[1]) and frames[0]["prediction"].nunique() > 1


def test_a_prompt_that_brings_its_bos_gets_no_second():
    assert Encoder(tiny_tokenizer()).whole("<s> w1") == [1, 5]


def test_a_tokenizer_without_bos_and_eos_has_nothing_for_an_empty_prompt():
    encoder = Encoder(characters("ab1."))
    assert encoder.whole("ab") == [0, 1]
    with pytest.raises(ValueError, match="neither a BOS nor an EOS token"):
        encoder.whole("")
    assert Encoder(characters("ab1.<e>", eos_token="<e>")).start() == [5 + 3]


# What it reads -----------------------------------------------------------------------------------


def test_control_words_are_text_unless_they_are_named():
    tokenizer = byte_level(bos_token="<s>", eos_token="</s>")
    by_bytes = [tokenizer.convert_tokens_to_ids(c) for c in "a</s>b"]
    one, two = by_bytes[0], by_bytes[-1]
    assert Encoder(tokenizer).text("a</s>b") == [one, 1, two]
    assert Encoder(tokenizer, controls={}).text("a</s>b") == by_bytes
    assert Encoder(tokenizer, controls={"</s>": 1}).text("a</s>b") == [one, 1, two]
    assert encoding.plain_text(tokenizer, ["a</s>b", "a"]) == [by_bytes, [one]]
    assert encoding.control_words(tokenizer) == {"<s>": 0, "</s>": 1}


def test_a_field_that_mentions_a_control_word_is_text_and_a_template_is_not():
    model, tokenizer = tiny_model("llama"), byte_level(bos_token="<s>", eos_token="</s>")
    rows = [{"text": "a</s>", "label": 0}]
    plain = tuple(tokenizer.convert_tokens_to_ids(c) for c in "a</s>")
    for context, expected in (("{text}", plain), ("{text}<eos>", (*plain, 1))):
        task = choice_task(context=context)
        (first, *_) = encode_examples(
            LanguageModel(model, tokenizer), task, "en", build_examples(rows, task, "en")
        )
        assert first.tokens[: first.context] == expected


def test_answers_end_at_every_token_that_the_models_files_name():
    model, tokenizer = tiny_model("llama"), tiny_tokenizer()
    (text,) = generate(LanguageModel(model, tokenizer), ["w1 w2"], Decoding(8), 100)
    words = text.split()
    end = next(number for number, word in enumerate(words) if number and word not in words[:number])
    token = tokenizer.convert_tokens_to_ids(words[end])
    model.generation_config.eos_token_id = [2, token]
    # The number of a word that is not an added token comes from elsewhere, and ends nothing.
    assert generate(LanguageModel(model, tokenizer), ["w1 w2"], Decoding(8), 100) == [text]
    tokenizer.add_special_tokens({"additional_special_tokens": [words[end]]})
    (shorter,) = generate(LanguageModel(model, tokenizer), ["w1 w2"], Decoding(8), 100)
    assert shorter.split() == words[:end]
    model.generation_config.eos_token_id = None
    assert encoding.end_tokens(model, tokenizer) == {2}


def test_the_penalty_of_the_models_own_files_is_taken_where_a_task_asks_for_it():
    model = LanguageModel(tiny_model("llama"))
    assert penalty_of(model, "model") == 1.0
    model.model.generation_config.repetition_penalty = 1.05
    assert penalty_of(model, "model") == 1.05
    assert penalty_of(model, 1.2) == 1.2


def test_a_separator_has_no_space_token_of_its_own():
    backend = Tokenizer(
        models.BPE(vocab={"\u2581": 0, "a": 1, "\n": 2, "<unk>": 3}, merges=[], unk_token="<unk>")
    )
    backend.normalizer = normalizers.Sequence(
        [normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")]
    )
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="<unk>")
    assert tokenizer("\n")["input_ids"] == [0, 2]
    assert encoding.following(tokenizer, "\n") == [2]


# Where texts are joined --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "context, continuation, expected",
    [
        ("cb", "a", ([2, 1], [0], False)),
        ("回答：", "是", ([4, 5, 6], [7], True)),  # ：是 is one token
        ("回答：", "是a", ([4, 5, 6], [7, 0], True)),
        ("回答：", "a", ([4, 5, 6], [0], False)),
    ],
)
def test_a_token_across_the_join_leaves_the_continuation_by_itself(context, continuation, expected):
    alphabet = ["a", "b", "c", "x", "回", "答", "：", "是"]
    tokenizer = characters(alphabet, [("：", "是")])
    pair = Encoder(tokenizer).pair(context, continuation)
    assert (pair.context, pair.continuation, pair.apart) == expected


def test_items_whose_choices_stand_by_themselves_are_named_and_counted(caplog):
    backend = Tokenizer(
        models.BPE(
            vocab={c: i for i, c in enumerate(["<s>", "a", "b", "c", "ab", "<unk>"])},
            merges=[("a", "b")],
            unk_token="<unk>",
        )
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, unk_token="<unk>", bos_token="<s>", eos_token="<s>"
    )
    task = choice_task(delimiter="", choices=("b", "c"), identifier="id")
    rows = [{"id": "one", "text": "ca", "label": 0}, {"id": "two", "text": "cc", "label": 0}]
    with caplog.at_level(logging.WARNING):
        frame = score_task(LanguageModel(tiny_model("llama"), tokenizer), task, "en", rows, 100)
    assert list(frame["apart"]) == [1, 0] and list(frame["cut"]) == [0, 0]
    assert "1 choices of toy, en" in caplog.text and "(one)" in caplog.text


# What does not fit -------------------------------------------------------------------------------


def words(size):
    return " ".join(f"w{i % 90}" for i in range(size))


def logprob(model, ids, size):
    """Return the log-probability of the last `size` tokens, by the model's own logits."""
    with torch.no_grad():
        logits = model(torch.tensor([ids[:-1]])).logits[0].double().log_softmax(-1)
    return sum(float(logits[place - 1, ids[place]]) for place in range(len(ids) - size, len(ids)))


@pytest.mark.parametrize("family", FAMILIES)
def test_long_contexts_lose_their_oldest_tokens_and_say_so(family):
    model, tokenizer = tiny_model(family), tiny_tokenizer()
    whole = Encoder(tokenizer).whole(words(300))
    # The model reads 128 tokens: BOS, the last of the context, and all but the last scored one.
    kept = [1, *whole[-126:], *tokenizer("w5 w6", add_special_tokens=False)["input_ids"]]
    (found,) = loglikelihood(LanguageModel(model, tokenizer), [(words(300), " w5 w6")], 400)
    assert found[0] == pytest.approx(logprob(model, kept, 2), abs=1e-4)
    (request,) = encode_requests(LanguageModel(model, tokenizer), [(words(300), " w5 w6")])
    assert request.cut == 300 + 1 + 2 - 1 - ROOM and len(request.read) == ROOM
    assert request.tokens == tuple(kept)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("size", [125, 300])
def test_long_prompts_leave_room_for_the_answer(family, size):
    model, tokenizer = tiny_model(family), tiny_tokenizer()
    (prompt,) = encode_prompts(LanguageModel(model, tokenizer), [words(size)], 10)
    whole = Encoder(tokenizer).whole(words(size))
    assert prompt.tokens == (1, *whole[-(ROOM - 10 - 1) :])
    assert prompt.cut == size + 1 - (ROOM - 10)
    (text,) = generate(LanguageModel(model, tokenizer), [words(size)], Decoding(10), 400)
    ids = list(prompt.tokens)
    for _ in range(10):
        with torch.no_grad():
            ids.append(int(model(torch.tensor([ids])).logits[0, -1].argmax()))
        if ids[-1] == 2:
            ids.pop()
            break
    assert text == tokenizer.decode(ids[len(prompt.tokens) :], skip_special_tokens=True)


def test_models_without_a_limit_read_everything():
    model, tokenizer = tiny_model("bloom"), tiny_tokenizer()
    (request,) = encode_requests(LanguageModel(model, tokenizer), [(words(300), " w5")])
    assert request.cut == 0 and len(request.read) == 301


def test_what_cannot_fit_is_refused_with_the_numbers():
    model, tokenizer = tiny_model("gpt2"), tiny_tokenizer()
    with pytest.raises(ValueError, match=r"127 new tokens leave no room.*up to 126"):
        generate(LanguageModel(model, tokenizer), ["w1"], Decoding(127), 400)
    assert generate(LanguageModel(model, tokenizer), ["w1"], Decoding(126), 400)
    with pytest.raises(ValueError, match="continuation of 128 tokens does not fit the 128 tokens"):
        loglikelihood(LanguageModel(model, tokenizer), [("w1", " " + words(128))], 400)
    blocks = np.ones((1, 129), np.int64)
    with pytest.raises(ValueError, match="longest block: 129 tokens; the model reads 128 at most"):
        token_nll(LanguageModel(model), blocks, np.array([129]), blocks > 0, 400)


def test_cuts_are_logged_and_stand_in_the_records(caplog):
    model, tokenizer = tiny_model("gpt2"), tiny_tokenizer()
    rows = [{"text": words(n), "label": 0} for n in (20, 300)]
    with caplog.at_level(logging.WARNING):
        frame = score_task(LanguageModel(model, tokenizer), choice_task(), "en", rows, 400)
    # BOS, the text and the choice but for the choice's own token, which is predicted and not read.
    assert list(frame["cut"]) == [0, 1 + 300 - ROOM]
    assert "3 of 6 prompts of toy, en, do not fit the 128 tokens" in caplog.text


def test_added_words_that_are_not_special_stay_words():
    tokenizer = tiny_tokenizer()
    tokenizer.add_tokens([AddedToken("<tool>", special=False)])
    number = tokenizer.convert_tokens_to_ids("<tool>")
    assert encoding.plain_text(tokenizer, ["w1 <tool>"])[0][-1] == number
    assert "<tool>" not in encoding.control_words(tokenizer)


def test_byte_level_tokenizers_without_a_template_are_read():
    assert encoding.leading_tokens(byte_level()) == []


@pytest.mark.parametrize(
    "text, expected",
    [
        ("ab<s>ab</s>cd", "\u2581 a b <s> a b </s> c d"),
        ("<s>ab", "<s> a b"),
        ("ab", "\u2581 a b"),
    ],
)
def test_text_after_a_control_word_is_that_of_the_tokenizer(text, expected):
    pieces = ["<unk>", "<s>", "</s>", "\u2581", *"abcdefgh1."]
    tokenizer = LlamaTokenizer(vocab={p: i for i, p in enumerate(pieces)}, merges=[])
    encoder = Encoder(tokenizer, controls=encoding.controls_of(tokenizer, [text]))
    assert tokenizer.convert_ids_to_tokens(encoder.text(text)) == expected.split(" ")


def test_space_beside_a_control_word_follows_the_flags_of_the_token():
    tokenizer = byte_level(bos_token="<s>", eos_token="</s>")
    marks = [AddedToken("<m>", rstrip=True, special=True), AddedToken("<k>", single_word=True)]
    tokenizer.add_special_tokens({"additional_special_tokens": marks})
    for text in ("a<m>\nb", "a<k>b", "a <k> b"):
        encoder = Encoder(tokenizer, controls=encoding.controls_of(tokenizer, [text]))
        assert encoder.text(text) == tokenizer(text, add_special_tokens=False)["input_ids"]


def test_a_vocabulary_of_words_that_holds_control_words_reads_them_as_text():
    pieces = [("<s>", 0.0), ("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("\u2581", -1.0)]
    pieces += [(c, -5.0) for c in "ab<s>/1."]
    tokenizer = XGLMTokenizer(vocab=pieces)
    read = tokenizer("a</s>b", split_special_tokens=True, add_special_tokens=False)["input_ids"]
    assert 2 in read
    (ids,) = encoding.plain_text(tokenizer, ["a</s>b"])
    assert tokenizer.convert_ids_to_tokens(ids)[1:] == list("a</s>b")


def test_a_stop_word_that_is_a_control_word_ends_an_answer():
    model, tokenizer = tiny_model("llama"), tiny_tokenizer()
    (text,) = generate(LanguageModel(model, tokenizer), ["w1 w2"], Decoding(8), 100)
    words = text.split()
    end = next(number for number, word in enumerate(words) if number and word not in words[:number])
    tokenizer.add_special_tokens({"additional_special_tokens": [words[end]]})
    (shorter,) = generate(
        LanguageModel(model, tokenizer), ["w1 w2"], Decoding(8, [words[end]]), 100
    )
    assert shorter.split() == words[:end]


def test_numbers_that_are_no_answer_are_an_error_in_every_primitive():
    model, tokenizer = tiny_model("llama"), tiny_tokenizer()
    model.model.layers[0].mlp.up_proj.weight[0, 0] = float("nan")
    with pytest.raises(NotFinite):
        loglikelihood(LanguageModel(model, tokenizer), [("w1 w2", " w3")], 100)
    with pytest.raises(NotFinite):
        generate(LanguageModel(model, tokenizer), ["w1 w2"], Decoding(3), 100)
    with pytest.raises(NotFinite):
        lens = Lens(["aa"], np.zeros(100, np.int64), "{question}")
        read_prompts(LanguageModel(model, tokenizer), [{"id": "a", "question": "w1"}], lens, 40)
