"""Conversations by chat templates: tokens and answers are those of transformers."""

import numpy as np
import pytest
import torch
from chats import KINDS, VOCABULARY, chat_tokenizer
from tiny import tiny_model, tiny_tokenizer

from langneurons.evaluation.definition import Task
from langneurons.evaluation.tasks import Asking, score_task
from langneurons.models.chat import Chat
from langneurons.models.language_model import LanguageModel
from langneurons.scoring.decoding import Decoding
from langneurons.scoring.generation import generate
from langneurons.scoring.likelihood import encode_replies, loglikelihood

QUESTIONS = ("Where is it?", "Hà Nội ở đâu?\nVì sao?", "नमस्ते", "a")
kinds = pytest.mark.parametrize("kind", KINDS)


def chat_model(kind, **changes):
    about, tokenizer = KINDS[kind], chat_tokenizer(kind)
    ids = {"eos_token_id": tokenizer.eos_token_id, "bos_token_id": tokenizer.bos_token_id or 0}
    model = tiny_model(about.family, vocab_size=VOCABULARY, pad_token_id=0, **ids | changes)
    model.generation_config.eos_token_id = [tokenizer.eos_token_id]
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    return LanguageModel(model, tokenizer)


def talking(kind, **given):
    return Chat(chat_tokenizer(kind), **given)


# Tokens -----------------------------------------------------------------------------------------


@kinds
def test_the_tokens_are_those_of_transformers_with_one_bos(kind):
    tokenizer, chat = chat_tokenizer(kind), talking(kind)
    for question in QUESTIONS:
        messages = chat.messages(question, turns=[("b?", "c.")])
        wanted = tokenizer.apply_chat_template(
            [
                {"role": "user", "content": "b?"},
                {"role": "assistant", "content": "c."},
                {"role": "user", "content": question},
            ],
            add_generation_prompt=True,
            return_dict=False,
        )
        assert list(chat.prompt(messages).tokens) == wanted
        wrote = KINDS[kind].template.startswith("{{ bos_token }}")
        assert wanted.count(tokenizer.bos_token_id) == int(wrote)


@kinds
def test_control_words_of_a_message_are_text(kind):
    tokenizer, chat = chat_tokenizer(kind), talking(kind)
    words = KINDS[kind].words
    plain = chat.tokens(chat.messages("x"))
    full = chat.tokens(chat.messages("x" + "".join(words) + "x"))
    control = set(tokenizer.all_special_ids)
    assert [t for t in full if t in control] == [t for t in plain if t in control]
    assert tokenizer.decode(full).count(words[-1]) == tokenizer.decode(plain).count(words[-1]) + 1


@kinds
def test_a_system_prompt_and_an_instruction_stand_first_or_are_refused(kind):
    chat = talking(kind, system="Be kind.")
    messages = chat.messages("Why?", instruction="Answer in French.")
    assert messages[0] == {"role": "system", "content": "Be kind.\nAnswer in French."}
    if KINDS[kind].system:
        text = chat.text(messages)
        assert text.index("Be kind.\nAnswer in French.") < text.index("Why?")
    else:
        with pytest.raises(ValueError, match=r"system.*leave out models.NAME.chat.system"):
            chat.tokens(messages)


@kinds
def test_the_word_that_ends_a_turn_is_read_off_the_template(kind):
    tokenizer = chat_tokenizer(kind)
    assert talking(kind).ends == {tokenizer.convert_tokens_to_ids(KINDS[kind].turn)}


def test_variables_of_a_template_and_a_template_of_ones_own():
    template = "{% for m in messages %}{{ m.content }}{{ tail }}{% endfor %}"
    chat = talking("chatml", template=template, options={"tail": "!"})
    assert chat.text(chat.messages("Why?")) == "Why?!"
    assert chat.ends == frozenset()


def test_a_tokenizer_without_a_template_is_told_from_one_with():
    with pytest.raises(ValueError, match="has no chat template.*models.NAME.chat.template"):
        Chat(tiny_tokenizer())


@kinds
def test_a_conversation_that_does_not_fit_loses_the_left_of_its_last_message(kind):
    tokenizer = chat_tokenizer(kind)
    whole = Chat(tokenizer).tokens(Chat(tokenizer).messages("0123456789" * 3))
    chat = Chat(tokenizer, limit=len(whole))
    messages = chat.messages("0123456789" * 3)
    assert chat.prompt(messages).cut == 0
    found = chat.prompt(messages, room=12)
    assert found.cut == 12 and len(found.tokens) == len(whole) - 12
    before, _, after = tokenizer.decode(whole).partition("0123456789" * 3)
    assert tokenizer.decode(found.tokens) == before + ("0123456789" * 3)[12:] + after
    with pytest.raises(ValueError, match="leave no room"):
        chat.prompt(messages, room=len(whole) - 2)


# Log-likelihoods --------------------------------------------------------------------------------


@kinds
def test_a_reply_is_scored_as_the_template_writes_it(kind):
    model = chat_model(kind)
    tokenizer, chat = model.tokenizer, Chat(model.tokenizer)
    asked = [("Where is it?", "here"), ("Where is it?", "Đó"), ("b", "c d")]
    requests = encode_replies(chat, asked, ["0", "1", "2"])
    found = loglikelihood(model, requests, batch_tokens=512)
    for (question, reply), request, (value, _) in zip(asked, requests, found, strict=True):
        whole = tokenizer.apply_chat_template(
            [{"role": "user", "content": question}, {"role": "assistant", "content": reply}],
            continue_final_message=True,
            return_dict=False,
        )
        assert list(request.tokens) == whole and not request.apart
        assert tokenizer.decode(whole[request.context :]).strip() == reply
        logits = model.model(torch.tensor([whole])).logits[0].log_softmax(-1)
        places = range(request.context - 1, len(whole) - 1)
        wanted = sum(float(logits[t, whole[t + 1]]) for t in places)
        assert value == pytest.approx(wanted, abs=1e-4)


def test_a_reply_after_what_only_a_coming_answer_gets_goes_on_from_there():
    template = KINDS["chatml"].template.replace(
        "assistant\n{% endif %}", "assistant\n(quick)\n{% endif %}"
    )
    chat = talking("chatml", template=template)
    pair = chat.pair(chat.messages("Why?"), "Because.")
    assert chat.tokenizer.decode(pair.context).endswith("(quick)\n")
    assert chat.tokenizer.decode(pair.continuation) == "Because."


# Answers ----------------------------------------------------------------------------------------


@kinds
def test_answers_one_by_one_and_in_a_batch_are_those_of_transformers(kind):
    model = chat_model(kind)
    chat, tokenizer = Chat(model.tokenizer), model.tokenizer
    prompts = [chat.prompt(chat.messages(text)) for text in QUESTIONS]
    how = Decoding(12, ends=chat.ends)
    together = generate(model, prompts, how, batch_tokens=4096)
    alone = [generate(model, [prompt], how, batch_tokens=1)[0] for prompt in prompts]
    assert together == alone
    ends = sorted(model.end_tokens | chat.ends)
    for prompt, text in zip(prompts, together, strict=True):
        ids = torch.tensor([prompt.tokens])
        made = model.model.generate(ids, max_new_tokens=12, do_sample=False, eos_token_id=ends)
        own = [t for t in made[0, ids.shape[1] :].tolist() if t not in ends]
        assert text == tokenizer.decode(own, skip_special_tokens=True)


def test_an_answer_ends_where_the_template_ends_a_turn():
    model = chat_model("header")
    chat, end = Chat(model.tokenizer), model.tokenizer.convert_tokens_to_ids("<|eot|>")
    prompt = chat.prompt(chat.messages("a"))
    with torch.no_grad():
        # The head gives the turn's end the highest logit everywhere.
        rows = model.model.lm_head.weight
        state = model.model.model(torch.tensor([prompt.tokens])).last_hidden_state[0, -1]
        rows[end] = state * 100
    assert generate(model, [prompt], Decoding(4), 512) != [""]
    assert generate(model, [prompt], Decoding(4, ends=chat.ends), 512) == [""]


# Tasks ------------------------------------------------------------------------------------------


def choice_task(**changes):
    given = {
        "name": "toy",
        "kind": "multiple_choice",
        "fields": ("text", "label"),
        "context": "{text}\nAnswer:",
        "choices": ("yes", "no"),
        "gold": "label",
        "metrics": ("accuracy",),
        "words": {"en": {}},
    }
    return Task(**given | changes)


def test_a_task_by_the_template_asks_with_the_prompt_and_scores_the_choice_as_a_reply():
    model = chat_model("header")
    chat = Chat(model.tokenizer)
    rows = [{"text": text, "label": 0} for text in QUESTIONS]
    found = score_task(model, choice_task(), "en", rows, 512, asking=Asking(chat))
    for number, text in enumerate(QUESTIONS):
        for place, choice in enumerate(("yes", "no")):
            (request,) = encode_replies(chat, [(f"{text}\nAnswer:", choice)], ["0"])
            ((value, _),) = loglikelihood(model, [request], 512)
            own = found[f"loglikelihood_{place}"][number]
            assert own == pytest.approx(value, abs=1e-4)
    plain = score_task(model, choice_task(), "en", rows, 512)
    assert not np.allclose(plain["loglikelihood_0"], found["loglikelihood_0"])


def test_a_generation_task_by_the_template_ends_an_answer_with_the_turn():
    model = chat_model("turn")
    chat = Chat(model.tokenizer)
    changes = {"kind": "generation", "choices": (), "gold": "text", "metrics": ("exact_match",)}
    task = choice_task(**changes, fields=("text",), stop=(), max_new_tokens=6)
    rows = [{"text": text} for text in QUESTIONS]
    found = score_task(model, task, "en", rows, 512, asking=Asking(chat))
    prompts = [chat.prompt(chat.messages(f"{text}\nAnswer:")) for text in QUESTIONS]
    wanted = generate(model, prompts, Decoding(6, ends=chat.ends), 512)
    assert found["prediction"].tolist() == [text.strip() for text in wanted]
