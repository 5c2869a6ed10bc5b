import csv
import itertools
import json
import re
from math import exp, log

import numpy as np
import pandas as pd
import pytest
from sacrebleu.metrics import BLEU, CHRF
from scored import counts, sentence_bleu

from langneurons.reporting.tables.neurons import (
    activation_statistics,
    layer_counts,
    neuron_counts,
    overlap_counts,
    selection_overlap,
)
from langneurons.reporting.tables.perplexity import (
    matrix,
    perplexity_change,
    perplexity_notes,
    perplexity_summary,
)
from langneurons.reporting.tables.tasks import CONDITION, task_scores
from langneurons.reporting.tables.votes import votes
from langneurons.reporting.tables.write import (
    escape_latex,
    escape_markdown,
    format_value,
    plain_markdown,
    to_latex,
    to_markdown,
    write_table,
)
from langneurons.selection.table import NeuronTable

RESULTS = {"bootstrap": 200, "confidence": 0.95, "alpha": 0.05, "seed": 0}


def small_table():
    rows = [("en", 0, 1), ("en", 1, 3), ("fr", 0, 1), ("fr", 1, 2), ("fr", 1, 0)]
    frame = pd.DataFrame(rows, columns=["lang", "layer", "neuron"]).assign(score=1.0)
    return NeuronTable(frame, {"languages": ["en", "fr", "de"], "n_layers": 2, "d_mlp": 4})


LABELS = {"model": "m", "langset": "s", "selection": "lape"}


def test_neuron_counts():
    counts = neuron_counts([(LABELS, small_table())])
    assert list(counts) == [
        *LABELS, "lang", "neurons", "exclusive", "unique", "pairs",
        "exactly_one_language", "max_languages",
    ]  # fmt: skip
    assert counts["neurons"].tolist() == [2, 3, 0]
    assert counts["exclusive"].tolist()[:2] == [1 / 2, 2 / 3] and np.isnan(counts["exclusive"][2])
    assert counts.iloc[0, 6:].tolist() == [4, 5, 3, 2]


def voting(seed: int, shares: list[float], n_layers: int = 3, width: int = 400):
    """Return the masks of two languages by selections that draw independently, and their tables."""
    rng, masks, tables = np.random.default_rng(seed), [], []
    for number, share in enumerate(shares):
        own = rng.random((2, n_layers, width)) < share * np.array([1.0, 0.5])[:, None, None]
        masks.append(own)
        lang, layer, neuron = np.nonzero(own)
        frame = pd.DataFrame({"lang": np.array(["en", "fr"])[lang], "layer": layer})
        frame = frame.assign(neuron=neuron, score=1.0)
        metadata = {"languages": ["en", "fr"], "n_layers": n_layers, "d_mlp": width}
        names = {"model": "m", "languages": "s", "selection": f"s{number}"}
        tables.append((names, NeuronTable(frame, metadata | {"method": "lape"})))
    return np.stack(masks), tables


def test_votes_count_selections_and_say_what_chance_gives():
    masks, tables = voting(0, [0.1, 0.3, 0.6])
    found = votes(tables)
    assert len(found) == 2 * 3 and (found["selections"] == 3).all()
    for row in found.to_dict("records"):
        own = masks[:, ["en", "fr"].index(row["lang"])]
        assert row["neurons"] == (own.sum(axis=0) == row["votes"]).sum()
        expected = 0.0
        for layer in range(3):  # by hand: over which selections give the vote
            p = own[:, layer].mean(axis=1)
            for given in itertools.product((0, 1), repeat=3):
                if sum(given) == row["votes"]:
                    each = [one if yes else 1 - one for one, yes in zip(p, given, strict=True)]
                    expected += 400 * np.prod(each)
        assert row["chance"] == pytest.approx(expected)
        assert abs(row["neurons"] - expected) < 5 * np.sqrt(expected + 1)


def test_random_selections_and_directions_do_not_vote():
    masks, tables = voting(1, [0.2, 0.2, 0.2, 0.2])
    for metadata in ({"method": "random"}, {"units": "dimensions", "width": 400}):
        tables[3][1].metadata.update(metadata)
        found = votes(tables)
        assert (found["selections"] == 3).all() and found["votes"].max() == 3
        expected = (masks[:3, 0].sum(axis=0) == 3).sum()
        assert found["neurons"][2] == expected
        assert votes(tables[1:]).empty


def test_overlap_counts():
    overlap = overlap_counts([(LABELS, small_table())])
    assert overlap["lang"].tolist() == ["en", "en", "fr"]
    assert overlap["shared"].tolist() == [1, 0, 0]
    assert overlap["jaccard"].tolist() == [0.25, 0, 0]
    # English has 1 neuron in each layer of 4, French 1 and 2: 1 * 1 / 4 + 1 * 2 / 4.
    assert overlap["chance"].tolist() == [0.75, 0, 0]


def test_layer_counts():
    counts = layer_counts([(LABELS, small_table())])
    assert counts[["layer_0", "layer_1"]].to_numpy().tolist() == [[1, 1], [1, 2], [0, 0]]
    assert counts["lang"].tolist() == ["en", "fr", "de"]


class FakeStatistics:
    lang, tokens = "en", 900

    def value(self, name, site):
        assert site == "act"
        return np.array([[1.0, 3.0]]) * (2 if name == "p95" else 1)


def test_activation_statistics():
    table = activation_statistics([({"model": "m"}, FakeStatistics())], "act")
    assert table.loc[0, ["mean", "p95", "p05"]].tolist() == [2.0, 4.0, 2.0]


def perplexity_records(langs=("en", "fr"), documents=3, own=1.0):
    rows = []
    for evaluated in langs:
        for deactivated in ("none", *langs):
            added = own if deactivated == evaluated else 0.0
            for document in range(documents):
                tokens = 10 * (document + 1)
                nll = tokens * (2.0 + added) + document
                rows.append((deactivated, evaluated, f"d{document}", nll, tokens, 4 * tokens))
    columns = ["deactivated", "evaluated", "document", "nll", "tokens", "bytes"]
    return pd.DataFrame(rows, columns=columns)


def test_perplexity_change_by_hand():
    cells = perplexity_change(perplexity_records(), RESULTS)
    assert len(cells) == 4
    cell = cells.set_index(["deactivated", "evaluated"]).loc[("en", "en")]
    before = (2 * 60 + 3) / 60  # documents of 10, 20, 30 tokens; 0 + 1 + 2 nats on top
    assert cell["nll_baseline"] == pytest.approx(before)
    # Every document changes by 1 nat per token: there is no spread, and no interval.
    assert cell["nll_change"] == pytest.approx(1) and np.isnan([cell["low"], cell["high"]]).all()
    assert cell["ppl_change"] == pytest.approx(exp(before + 1) - exp(before))
    assert cell["bits_per_byte"] == pytest.approx(before * 60 / log(2) / 240)
    assert cell["bits_per_byte_change"] == pytest.approx(1 * 60 / log(2) / 240)
    # Three documents prove nothing; twenty do.
    assert cell["p"] == 2 / 2**3 and cell["p_holm"] == 1 == cell["p_least"]
    many = perplexity_change(perplexity_records(documents=20), RESULTS)
    assert many.set_index(["deactivated", "evaluated"]).loc[("en", "en"), "p_holm"] < 0.05
    other = cells.set_index(["deactivated", "evaluated"]).loc[("en", "fr")]
    assert (other["nll_change"], other["p"], other["p_holm"]) == (0, 1, 1)
    assert (many["p_least"] == 4 * 2.0**-19).all()


def test_tables_say_which_families_no_cell_can_be_significant_in():
    labels = dict.fromkeys(("model", "protocol", "languages", "selection"), "x")
    frames = [
        perplexity_change(perplexity_records(documents=n), RESULTS).assign(
            **labels, intervention=name
        )
        for n, name in ((4, "few"), (12, "many"))
    ]
    notes = perplexity_notes(pd.concat(frames, ignore_index=True), RESULTS)
    assert len(notes) == 2 and "Student's t over documents" in notes[0]
    assert notes[1] == (
        "x, x, x, x, few: with 4 documents no cell of 4 can reach 0.05: the smallest p is 0.12,"
        " after Holm 0.5; use 8 documents or more."
    )


def test_perplexity_change_ignores_the_order_of_rows():
    records = perplexity_records()
    shuffled = records.sample(frac=1, random_state=0)
    pd.testing.assert_frame_equal(
        perplexity_change(records, RESULTS), perplexity_change(shuffled, RESULTS)
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda records: records[records["deactivated"] != "none"], "no baseline"),
        (lambda records: records.iloc[1:], "paired"),
        (lambda records: pd.concat([records, records.iloc[:1]]), "occurs twice"),
        (lambda records: records.assign(tokens=range(len(records))), "tokens differ"),
        (lambda records: records[records["deactivated"] == "none"], "no intervened"),
    ],
)
def test_perplexity_change_refuses_unpaired_records(change, message):
    with pytest.raises(ValueError, match=message):
        perplexity_change(change(perplexity_records()), RESULTS)


def test_perplexity_summary_by_hand():
    values = {
        ("a", "a"): 3, ("a", "b"): 1, ("a", "c"): 0,
        ("b", "a"): 0, ("b", "b"): 2, ("b", "c"): 3,
        ("c", "a"): 5, ("c", "b"): 5, ("c", "c"): 1,
    }  # fmt: skip
    rows = [(*key, value) for key, value in values.items()]
    cells = pd.DataFrame(rows, columns=["deactivated", "evaluated", "nll_change"])
    summary = perplexity_summary(cells, 0.95).iloc[0]
    assert summary["mean_own"] == 2
    # Own changes 3, 2, 1: standard deviation 1, t of 2 degrees at 97.5 %: 4.302653.
    half = 4.302653 / np.sqrt(3)
    assert (summary["own_low"], summary["own_high"]) == pytest.approx((2 - half, 2 + half))
    assert summary["mean_others"] == pytest.approx(14 / 6)
    assert summary["own_above_mean_of_others"] == 2
    assert summary["own_largest"] == 1
    assert summary["n_languages"] == 3
    wide = matrix(cells, "nll_change", ["c", "a"])
    assert wide.to_numpy().tolist() == [[1, 5], [0, 3]]


def task_records():
    baseline = [1, 1, 1, 1, 1, 1, 0, 0]
    changed = [0, 0, 0, 0, 0, 0, 0, 1]
    frames = []
    for condition, scores in (("none", baseline), ("zero", changed), ("mean", baseline)):
        labels = ["none"] * 4 if condition == "none" else ["set", "lape", condition, "en"]
        frame = pd.DataFrame({"accuracy": np.array(scores, float), "f1": np.array(scores) / 2})
        frame = frame.assign(item=[f"i{k}" for k in range(8)], prediction="", gold="")
        frame = frame.assign(task="xnli", lang="en", adapter="base")
        frames.append(frame.assign(**dict(zip(CONDITION, labels, strict=True))))
    return pd.concat(frames)


def test_task_scores_by_hand():
    scores = task_scores(task_records(), RESULTS)
    scores = scores.set_index(["metric", "intervention"])
    zero = scores.loc[("accuracy", "zero")]
    assert (zero["n"], zero["mean"], zero["baseline"]) == (8, 1 / 8, 6 / 8)
    assert zero["difference"] == -5 / 8
    assert zero["p"] == pytest.approx(2 * (1 + 7) / 2**7)  # 6 lost, 1 won
    assert zero["p_holm"] == pytest.approx(2 * zero["p"])
    assert zero["test"] == "McNemar"
    assert zero["difference_low"] <= -5 / 8 <= zero["difference_high"]
    same = scores.loc[("accuracy", "mean")]
    assert (same["difference"], same["p"]) == (0, 1)
    # No item of 8 changed: Tango's interval of none is z^2 / (n + z^2) to either side.
    assert same["difference_high"] == -same["difference_low"] == pytest.approx(0.3244, abs=1e-4)
    assert (scores["p_least"].dropna() == 2 * 2 / 2**8).all()
    untouched = scores.loc[("accuracy", "none")]
    assert np.isnan([untouched["difference"], untouched["p"], untouched["p_holm"]]).all()
    assert scores.loc[("f1", "zero"), "test"] == "paired t"
    assert scores.loc[("f1", "zero"), "difference"] == pytest.approx(-5 / 16)


SENTENCES = ["the old boat sank in the bay", "a red bird sang all day long", "we ate fresh bread"]
WORSE = ["the old boat was in a bay", "a bird all day long", "they ate bread"]


def translation_records():
    frames = []
    for condition, texts in (("none", SENTENCES), ("zero", WORSE)):
        labels = ["none"] * 4 if condition == "none" else ["set", "lape", condition, "en"]
        rows = [
            {"item": str(i), "prediction": text, "gold": gold}
            | counts("chrf++", text, [gold])
            | counts("bleu", text, [gold])
            for i, (text, gold) in enumerate(zip(texts, SENTENCES, strict=True))
        ]
        frame = pd.DataFrame(rows).assign(task="flores", lang="de", adapter="base")
        frames.append(frame.assign(**dict(zip(CONDITION, labels, strict=True))))
    return pd.concat(frames)


def test_corpus_metrics_are_scored_from_summed_counts():
    records = pd.concat([task_records(), translation_records()])
    scores = task_scores(records, RESULTS)
    assert set(scores.query("task == 'xnli'")["metric"]) == {"accuracy", "f1"}
    own = scores.query("task == 'flores'").set_index(["metric", "intervention"])
    assert set(own.index.get_level_values(0)) == {"bleu", "chrf++"}
    for metric, scorer in (("bleu", BLEU()), ("chrf++", CHRF(word_order=2))):
        expected = scorer.corpus_score(WORSE, [SENTENCES]).score / 100
        row = own.loc[metric, "zero"]
        assert row["mean"] == pytest.approx(expected) and row["n"] == 3
        assert row["baseline"] == pytest.approx(1) == own.loc[(metric, "none"), "mean"]
        assert row["difference"] == pytest.approx(expected - 1)
        assert 0 <= row["low"] <= row["mean"] <= row["high"] <= 1
        # Three sentences cannot reject, so the interval holds 0.
        assert row["difference_high"] >= 0 and row["p"] >= 1 / 4 and row["test"] == "bootstrap t"
    mean_of_sentences = np.mean(
        [sentence_bleu(a, [b]) for a, b in zip(WORSE, SENTENCES, strict=True)]
    )
    assert abs(own.loc[("bleu", "zero"), "mean"] - mean_of_sentences) > 0.01
    shuffled = task_scores(records.sample(frac=1, random_state=1), RESULTS)
    pair = [
        table.set_index(["task", "metric", "intervention"])["mean"] for table in (scores, shuffled)
    ]
    pd.testing.assert_series_equal(*(one.sort_index() for one in pair))


def test_task_scores_need_the_same_items():
    records = task_records()
    with pytest.raises(ValueError, match="different items"):
        task_scores(records.iloc[:-1], RESULTS)
    with pytest.raises(ValueError, match="no baseline"):
        task_scores(records[records["intervention"] != "none"], RESULTS)


def test_write_table(tmp_path):
    frame = pd.DataFrame({"lang": ["a|b", "c_d"], "n": [1, 20], "p_holm": [0.0001, np.nan]})
    stem = tmp_path / "deep" / "table.v1"
    write_table(frame, stem, "50 % & more", "One note.")
    with open(f"{stem}.csv", newline="") as lines:
        assert list(csv.reader(lines))[1] == ["a|b", "1", "0.0001"]
    markdown = open(f"{stem}.md").read()
    assert "**50 % & more**" in markdown and r"a\|b" in markdown and "<0.001" in markdown
    latex = open(f"{stem}.tex").read()
    assert r"\caption{50 \% \& more}" in latex and r"c\_d & 20 &  \\" in latex
    assert r"\textless{}0.001" in latex and r"\toprule" in latex and "One note." in latex
    assert sorted(path.name for path in stem.parent.iterdir()) == [
        "table.v1.csv", "table.v1.md", "table.v1.tex",
    ]  # fmt: skip


def test_long_and_empty_tables():
    long = to_latex(pd.DataFrame({"n": range(60)}))
    assert long.count("longtable") == 2 and r"\endhead" in long
    assert "| a | b |" in to_markdown(pd.DataFrame(columns=["a", "b"]))


@pytest.mark.parametrize(
    "text, escaped",
    [
        (
            r"\~^&%$#_{}<>|`",
            r"\textbackslash{}\textasciitilde{}\textasciicircum{}\&\%\$\#\_\{\}\textless{}"
            r"\textgreater{}\textbar{}\textasciigrave{}",
        ),
        ("a\r\nb", "a b"),
        ("[x] * y", "{}[x] * y"),
        ("*", "{}*"),
        ("a--b", "a-{}-b"),
        ("\N{MINUS SIGN}3", "$-$3"),
        ("中文", "中文"),
    ],
)
def test_latex_shows_text_as_it_is(text, escaped):
    assert escape_latex(text) == escaped


@pytest.mark.parametrize(
    "text, escaped",
    [
        ("$$", r"\$\$"),
        ("10% $^ 20% $_", r"10% \$^ 20% \$\_"),
        ("a|b", r"a\|b"),
        ("a\r\nb\n\nc", "a b c"),
        ("**bold** _em_ `code`", r"\*\*bold\*\* \_em\_ \`code\`"),
        ("p_holm", "p_holm"),
        ("<b>x</b> & &amp; <0.001", r"\<b>x\</b> & \&amp; <0.001"),
        ("[0.1, 0.2]", "[0.1, 0.2]"),
        ("[text](address)", r"[text]\(address)"),
        ("# head", r"\# head"),
        ("> quote", r"\> quote"),
        ("- item", r"\- item"),
        ("-0.3", "-0.3"),
        ("1. first", r"1\. first"),
        ("1.5", "1.5"),
        (r"a\b", r"a\\b"),
        ("~~gone~~", r"\~\~gone\~\~"),
    ],
)
def test_markdown_shows_text_as_it_is(text, escaped):
    assert escape_markdown(text) == escaped
    assert plain_markdown(escaped) == " ".join(text.split())
    table = to_markdown(pd.DataFrame({text: [text], "n": [1]}), text, [text])
    lines = [line for line in table.splitlines() if line.startswith("|")]
    assert len(lines) == 3
    bars = [len(re.findall(r"(?<!\\)(?:\\\\)*\|", line)) for line in lines]
    assert bars == [3, 3, 3]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (3, "3"),
        (0.123456, "0.1235"),
        (0.0, "0"),
        (np.nan, ""),
        (None, ""),
        (2.0, "2.0"),
        ("x", "x"),
    ],
)
def test_format_value(value, text):
    assert format_value(value) == text


def made(rows):
    frame = pd.DataFrame(rows, columns=["lang", "layer", "neuron"]).assign(score=1.0)
    return NeuronTable(frame, small_table().metadata)


def test_selections_share_what_a_count_by_hand_says():
    first = made([("en", 0, 0), ("en", 0, 1), ("en", 1, 3), ("fr", 1, 2)])
    second = made([("en", 0, 1), ("en", 1, 3), ("de", 0, 0)])
    labels = {"model": "m", "languages": "s"}
    table = selection_overlap(
        [(labels | {"selection": "a"}, first), (labels | {"selection": "b"}, second)]
    ).set_index("lang")
    row = table.loc["en"]
    assert (row["neurons"], row["other_neurons"], row["shared"]) == (3, 2, 2)
    assert row["jaccard"] == pytest.approx(2 / 3)
    assert row["chance"] == pytest.approx(3 * 2 / 8)
    assert table.loc["fr", "shared"] == 0
    other = selection_overlap([(labels | {"selection": "a"}, first)])
    assert other.empty and "jaccard" in other


def random_like(rows, match):
    table = made(rows)
    parameters = json.dumps({"like": "a", "match": match, "method": "random"})
    table.metadata |= {"name": "r", "method": "random", "parameters": parameters}
    return table


@pytest.mark.parametrize(
    "match, with_a, with_b, with_r",
    [
        # Model of 2 x 4 neurons; a holds 2 of layer 0 and 2 of layer 1, so 2 and 2 are free. In
        # English the control has 2 of layer 0 and 1 of layer 1; b has 2 free ones of layer 0 and
        # one of a's. Layer by layer: 2 x 2/2; r drawn twice: 2 x (2/2)^2 + 2 x (1/2)^2.
        ("layer", 0.0, 2.0, 2.5),
        # From all 4 free ones: 2 x 3/4; twice: 4 x (3/4)^2.
        ("none", 0.0, 1.5, 2.25),
    ],
)
def test_chance_counts_only_neurons_that_a_control_may_contain(match, with_a, with_b, with_r):
    a = made([("en", 0, 0), ("en", 0, 1), ("en", 1, 3), ("fr", 1, 2)])
    a.metadata["name"] = "a"
    b = made([("en", 0, 1), ("en", 0, 2), ("en", 0, 3)])
    r = random_like([("en", 0, 2), ("en", 0, 3), ("en", 1, 0)], match)
    labels = {"model": "m", "languages": "s"}
    members = [
        (labels | {"selection": name}, one) for name, one in zip("abrs", (a, b, r, r), strict=True)
    ]
    table = selection_overlap(members)
    chance = table[table["lang"] == "en"].set_index(["selection", "other"])["chance"]
    assert chance["a", "b"] == pytest.approx(3 * 3 / 8)
    assert chance["a", "r"] == pytest.approx(with_a)
    assert chance["b", "r"] == pytest.approx(with_b)
    assert chance["r", "s"] == pytest.approx(with_r)


def test_only_metrics_are_summed_up_and_items_that_lost_tokens_are_counted():
    rows = []
    for intervention, right in (("none", 1.0), ("zero", 0.0)):
        for item, (cut, apart) in enumerate([(0, 0), (7, 0), (3, 2)]):
            rows.append(
                {
                    "task": "toy",
                    "lang": "en",
                    "adapter": "base",
                    "langset": "none" if intervention == "none" else "s",
                    "selection": "none" if intervention == "none" else "lape",
                    "intervention": intervention,
                    "target": "none" if intervention == "none" else "en",
                    "item": str(item),
                    "prediction": "0",
                    "gold": "0",
                    "accuracy": right,
                    "cut": cut,
                    "apart": apart,
                    "loglikelihood_0": -1.5,
                    "length_0": 3,
                }
            )
    results = {"bootstrap": 100, "confidence": 0.95, "alpha": 0.05, "seed": 0}
    table = task_scores(pd.DataFrame(rows), results)
    assert set(table["metric"]) == {"accuracy"}
    assert table["cut"].tolist() == [2, 2] and table["apart"].tolist() == [1, 1]
    assert table["left_out"].tolist() == [0, 0]
