"""The logit lens against the model's own logits, and tokens of languages counted by hand."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from test_interventions import write
from tiny import HIDDEN, VOCAB_SIZE, tiny_model, tiny_tokenizer

from langneurons.base.store import SideStore
from langneurons.data.corpus import Corpus, pack_documents
from langneurons.evaluation.lens import (
    Lens,
    by_language,
    coverage,
    distributions,
    layer_states,
    read_layers,
    read_prompts,
    token_languages,
)
from langneurons.evaluation.run import Run
from langneurons.interventions.factors import Factor
from langneurons.interventions.plan import Plan
from langneurons.models.families import FAMILIES
from langneurons.models.language_model import LanguageModel
from langneurons.models.sites import MlpSites

PROMPTS = ["w1", "w2 w3 w4 w5 w6 w7", "w3 w4", "w5 w6 w7 w8"]
ROWS = [{"id": name, "question": text} for name, text in zip("abcd", PROMPTS, strict=True)]
SETTINGS = {"template": "{question}", "purity": 0.9, "min_count": 2}


def corpus(lang, first, second):
    parts = [
        pack_documents([(f"{lang}{part}", ids, 10)], 16, 10**6, "block", [1], [3], 0)
        for part, ids in enumerate((first, second))
    ]
    return Corpus(lang, *parts, {"corpus_hash": lang})


CORPORA = {
    # 4: only aa; 5: only bb; 6: shared; 7: once in bb; 8: 9 to 1 of the frequencies of 10 each.
    "aa": corpus("aa", [4, 4, 4, 6, 6, 8, 8, 8, 8, 8, 8, 8, 8, 8, 6, 6, 6, 6, 6, 6], [4, 6, 4, 5]),
    "bb": corpus("bb", [5, 5, 6, 7, 8, 6, 6, 6, 6, 6, 6, 6, 5, 5, 5, 5, 5, 5, 5, 5], [5, 7, 5, 5]),
}


def test_tokens_of_one_language():
    found = token_languages(CORPORA, VOCAB_SIZE, 0.9, 2)
    assert {k: v for k, v in enumerate(found) if v >= 0} == {4: 0, 5: 1, 8: 0}
    assert token_languages(CORPORA, VOCAB_SIZE, 0.95, 2)[8] == -1
    assert token_languages(CORPORA, VOCAB_SIZE, 0.9, 1)[7] == 1
    # BOS (1) and the separator (3) are nobody's although they occur.
    assert found[1] == found[3] == -1


def test_coverage_is_of_held_out_tokens():
    frame = coverage(CORPORA, token_languages(CORPORA, VOCAB_SIZE, 0.9, 2)).set_index("language")
    assert frame.loc["aa", ["own", "others", "nobody"]].tolist() == [0.5, 0.25, 0.25]
    assert frame.loc["bb", ["own", "others", "nobody"]].tolist() == [0.75, 0.0, 0.25]
    assert frame["vocabulary"].tolist() == [2, 1]


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_the_last_layer_says_what_the_model_says(family):
    overrides = {"final_logit_softcapping": 5.0} if family in ("gemma2", "gemma3_text") else {}
    model, tokenizer = tiny_model(family, **overrides), tiny_tokenizer()
    lm = LanguageModel(model, tokenizer)
    sites = lm.sites
    encoded = [tokenizer(prompt)["input_ids"] for prompt in PROMPTS]
    for budget in (1, 1000):
        states = layer_states(lm, encoded, budget)
        assert states[0].shape == (2, HIDDEN)
        found = distributions(sites, torch.stack([one[-1] for one in states]))
        for row, ids in enumerate(encoded):
            with torch.inference_mode():
                expected = model(input_ids=torch.tensor([ids])).logits[0, -1].float()
            torch.testing.assert_close(found[row], expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("family", ["llama", "gpt2", "cohere"])
def test_an_earlier_layer_equals_a_model_cut_after_it(family):
    model, tokenizer = tiny_model(family), tiny_tokenizer()
    lm = LanguageModel(model, tokenizer)
    sites = lm.sites
    ids = tokenizer(PROMPTS[1])["input_ids"]
    (states,) = layer_states(lm, [ids], 100)
    found = distributions(sites, states[:1])
    layers = sites.backbone.get_submodule(sites.family.layers)
    del layers[1:]
    with torch.inference_mode():
        expected = model(input_ids=torch.tensor([ids]), use_cache=False).logits[:, -1].float()
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_mass_rank_and_entropy_by_hand():
    p = torch.tensor([[0.5, 0.25, 0.125, 0.125], [0.25, 0.25, 0.25, 0.25]])
    languages = torch.tensor([-1, 1, 0])  # the head has one row more than the corpus has tokens
    mass, rank, entropy = by_language(p.log() + 3.0, languages, 3)
    np.testing.assert_allclose(mass[0], [0.125, 0.25, 0.0], atol=1e-7)
    assert rank[0].tolist() == [3, 2, 0] and rank[1].tolist() == [1, 1, 0]
    np.testing.assert_allclose(entropy, [1.75 * np.log(2), np.log(4)], atol=1e-6)


def test_records_do_not_depend_on_the_batch():
    model, tokenizer = tiny_model("llama"), tiny_tokenizer()
    lens = Lens(["aa", "bb"], token_languages(CORPORA, VOCAB_SIZE, 0.9, 2), "{question}")
    frames = [
        read_prompts(LanguageModel(model, tokenizer), ROWS, lens, budget) for budget in (1, 9, 1000)
    ]
    assert len(frames[0]) == 4 * 2 * 2
    for frame in frames[1:]:
        pd.testing.assert_frame_equal(frame, frames[0], rtol=1e-4)


def test_conditions_share_the_untouched_model_and_come_from_the_store(tmp_path):
    model, tokenizer = tiny_model("llama"), tiny_tokenizer()
    questions = {
        "aa": [{"id": "q1", "question": "w1 w2"}, {"id": "q2", "question": "w3"}],
        "bb": [{"id": "q1", "question": "w4"}],
    }
    plan = Plan("late", [write("set", 5.0, 1, index=np.arange(48))])
    plans = {("lape", "late", "bb"): {"aa": plan, "bb": plan}}
    store, calls = SideStore(tmp_path, "lens"), []
    MlpSites(model).backbone.register_forward_hook(lambda *_: calls.append(1))

    def run():
        job = Run(LanguageModel(model, tokenizer), store, {"model": "tiny"}, 100)
        return read_layers(job, questions, plans, CORPORA, SETTINGS)

    frame, covered = run()
    first = len(calls)
    again, _ = run()
    assert first == 4 and len(calls) == first
    pd.testing.assert_frame_equal(frame, again)
    assert set(frame["target"]) == {"none", "bb"} and len(covered) == 2
    wide = frame.pivot(
        index=["lang", "id", "layer", "language"], columns="target", values="entropy"
    )
    changed = (wide["none"] - wide["bb"]).abs().groupby("layer").max()
    # The write is in the second layer: what the first says is untouched.
    assert changed[0] < 1e-12 and changed[1] > 1e-3


def test_the_papers_reading_identifies_the_five_most_probable_tokens_one_by_one(monkeypatch):
    """Last layer normed twice, no cap; the probability of a language is that of its tokens."""
    model, tokenizer = tiny_model("gemma2", final_logit_softcapping=5.0), tiny_tokenizer()

    def by_number(texts, settings):
        assert settings == {"kind": "py3langid"}
        return [("aa", "bb", "und")[int("0" + "".join(filter(str.isdigit, t))) % 3] for t in texts]

    monkeypatch.setattr("langneurons.evaluation.lens.identify", by_number)
    nobody = np.full(VOCAB_SIZE, -1)
    lens = Lens(["aa", "bb"], nobody, "{question}", {"kind": "py3langid"})
    frame = read_prompts(LanguageModel(model, tokenizer), ROWS, lens, 100)
    lm = LanguageModel(model, tokenizer)
    sites = lm.sites
    norm = sites.backbone.norm
    ids = tokenizer(PROMPTS[1])["input_ids"]
    (states,) = layer_states(lm, [ids], 100)
    for layer, hidden in enumerate([norm(states[0]), norm(norm(states[1]))]):
        p = sites.head(hidden).double().softmax(-1)
        best = p.argsort(descending=True)[:5].tolist()
        named = by_number([tokenizer.decode([one]) for one in best], {"kind": "py3langid"})
        rows = frame[(frame["id"] == "b") & (frame["layer"] == layer)].set_index("language")
        for lang in ("aa", "bb"):
            own = [i for i, one in enumerate(named) if one == lang]
            assert rows.loc[lang, "mass"] == pytest.approx(sum(float(p[best[i]]) for i in own))
            assert rows.loc[lang, "rank"] == (own[0] + 1 if own else 0)
        assert rows["entropy"].iloc[0] == pytest.approx(float(-(p * p.log()).sum()), rel=1e-5)


def test_the_reading_and_its_identifier_reach_the_records_and_their_key(tmp_path):
    model, tokenizer = tiny_model("llama"), tiny_tokenizer()
    questions = {"aa": [{"id": "q1", "question": "w1 w2"}]}
    store = SideStore(tmp_path, "lens")
    job = Run(LanguageModel(model, tokenizer), store, {"model": "tiny"}, 100)
    given = job, questions, {}, CORPORA
    plain, _ = read_layers(*given, SETTINGS)
    top = SETTINGS | {"reading": "top", "identifier": {"kind": "py3langid"}}
    made, _ = read_layers(*given, top)
    # Neither aa nor bb is a language that an identifier knows.
    assert (made["mass"] == 0).all() and (plain["mass"] > 0).any()


@pytest.mark.parametrize("word", ["layer_max", "layer_mean", "layer_median"])
def test_values_of_the_layer_do_not_see_the_padding(word):
    """Each prompt of a padded batch gets what it would get alone."""
    model, tokenizer = tiny_model("llama"), tiny_tokenizer()
    lm = LanguageModel(model, tokenizer)
    writes = [replace(write("set", 1.0, layer), factor=Factor(word)) for layer in (0, 1)]
    plan = Plan("factor", writes)
    encoded = [tokenizer(prompt)["input_ids"] for prompt in PROMPTS]
    together = layer_states(lm, encoded, 10**6, plan)
    for ids, states in zip(encoded, together, strict=True):
        (alone,) = layer_states(lm, [ids], 10**6, plan)
        torch.testing.assert_close(states, alone, rtol=1e-5, atol=1e-5)
    untouched = layer_states(lm, encoded, 10**6)
    assert not torch.allclose(torch.stack(together), torch.stack(untouched), atol=1e-3)
