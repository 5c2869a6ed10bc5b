"""Claims: verdicts on scores made so that the answer is known."""

import numpy as np
import pandas as pd
import pytest
from labelled import labels

from langneurons.reporting.claims import CLAIMS, HOLDS, VERDICTS, decide, pooled, spearman

RESULTS = {"bootstrap": 500, "confidence": 0.95, "alpha": 0.05, "seed": 0, "margin": 0.01}
SHOW = labels(
    **{
        "results": RESULTS,
        "roles": {"zero": ["zero"], "low": ["p10"], "random": {"random": "lape"}},
        "models": {"m": "M"},
        "tasks": {"t": "T"},
        "adapter_fields": {
            "+".join(("x+y", choice, *rest)): dict(
                zip(
                    ("finetuning", "choice", "selection", "langset", "target"),
                    ("x+y", choice, *(rest or (None, None, None))),
                    strict=True,
                )
            )
            for choice, *rest in (
                ("none",),
                ("target", "lape", "s", "vi"),
                ("target", "random", "s", "vi"),
                ("target", "other", "s", "vi"),
            )
        },
    }
)
NONE = ("none", "none", "none")


def cell(adapter, lang, condition, scores):
    langset, selection, intervention = condition
    return pd.DataFrame(
        {
            "task": "t",
            "lang": lang,
            "adapter": adapter,
            "langset": langset,
            "selection": selection,
            "intervention": intervention,
            "item": [f"{i:04d}" for i in range(len(scores))],
            "accuracy": scores,
        }
    )


def scores(right, n=2000):
    return np.r_[np.ones(right), np.zeros(n - right)]


def verdict(name, frame, perplexity=None):
    table = decide(
        [name],
        {("corrected", "m", "t"): ("accuracy", frame)},
        {} if perplexity is None else {("corrected", "m"): perplexity},
        SHOW,
    )
    (row,) = table.to_dict("records")
    return row


def intervened(change_zero, change_low=0, n=2000):
    parts = []
    for lang in ("vi", "hi"):
        parts += [
            cell("t+none", lang, NONE, scores(1000, n)),
            cell("t+none", lang, ("s", "lape", "zero"), scores(1000 + change_zero, n)),
            cell("t+none", lang, ("s", "lape", "p10"), scores(1000 + change_low, n)),
        ]
    return pd.concat(parts)


@pytest.mark.parametrize(
    "change, expected", [(0, "holds"), (-100, "holds"), (100, "contradicted"), (16, "contradicted")]
)
def test_interventions_help_or_not(change, expected):
    row = verdict("interventions_do_not_help", intervened(change))
    assert row["verdict"] == expected
    assert row["cells"] == 4
    assert row["estimate"] == pytest.approx(change / 2000 / 2)


def test_no_effect_on_few_items_is_undecided_not_proved():
    noisy = np.random.default_rng(0).permutation(scores(10, 20))
    parts = [cell("t+none", "vi", NONE, scores(10, 20))]
    parts.append(cell("t+none", "vi", ("s", "lape", "zero"), noisy))
    assert verdict("interventions_do_not_help", pd.concat(parts))["verdict"] == "undecided"


@pytest.mark.parametrize(
    "zero, low, expected", [(0, 0, "holds"), (0, -100, "holds"), (-100, 0, "contradicted")]
)
def test_zero_hurts_more_than_a_low_quantile_or_not(zero, low, expected):
    row = verdict("zero_is_no_deactivation", intervened(zero, low))
    assert row["verdict"] == expected
    assert row["estimate"] == pytest.approx((zero - low) / 2000)


def risen(changes):
    return pd.DataFrame(
        [
            {
                "deactivated": lang,
                "evaluated": lang,
                "langset": "s",
                "selection": selection,
                "intervention": "zero",
                "nll_change": change,
                "p_holm": 0.001 if change > 0 else 0.5,
            }
            for (lang, selection), change in changes.items()
        ]
    )


def graded(per_cell):
    parts = [cell("t+none", lang, NONE, scores(1000)) for lang in {key[0] for key in per_cell}]
    for (lang, selection), right in per_cell.items():
        parts.append(cell("t+none", lang, ("s", selection, "zero"), scores(right)))
    return pd.concat(parts)


CELLS = [(lang, selection) for lang in ("vi", "hi", "ur") for selection in ("a", "b")]


def test_perplexity_that_carries_over_is_seen():
    rises = dict(zip(CELLS, [0.1, 0.2, 0.3, 0.4, 0.5, 0.6], strict=True))
    falling = {key: round(1000 - 1000 * value) for key, value in rises.items()}
    row = verdict("perplexity_does_not_carry_over", graded(falling), risen(rises))
    assert (row["verdict"], row["estimate"]) == ("contradicted", pytest.approx(-1.0))
    flat = graded(dict.fromkeys(CELLS, 1000))
    assert verdict("perplexity_does_not_carry_over", flat, risen(rises))["verdict"] == "holds"
    calm = risen(dict.fromkeys(CELLS, -0.1))
    assert verdict("perplexity_does_not_carry_over", flat, calm)["verdict"] == "undecided"
    assert verdict("perplexity_does_not_carry_over", flat)["verdict"] == "not run"


def trained(language, random, n=4000):
    return pd.concat(
        [
            cell("x+y+none", "vi", NONE, scores(n // 2, n)),
            cell("x+y+target+lape+s+vi", "vi", NONE, scores(language, n)),
            cell("x+y+target+random+s+vi", "vi", NONE, scores(random, n)),
            # A selection that the random neurons do not mirror stands beside none of them.
            cell("x+y+target+other+s+vi", "vi", NONE, scores(n // 4, n)),
        ]
    )


@pytest.mark.parametrize(
    "language, random, expected",
    [(2000, 2000, "holds"), (2010, 2000, "holds"), (2400, 2000, "contradicted")],
)
def test_language_neurons_against_random_ones(language, random, expected):
    row = verdict("language_neurons_equal_random", trained(language, random))
    assert (row["verdict"], row["cells"]) == (expected, 1)
    assert row["estimate"] == pytest.approx((language - random) / 4000)


def test_adapters_that_do_not_exist_are_not_judged():
    row = verdict("language_neurons_equal_random", intervened(0))
    assert row["verdict"] == "not run"


def test_pooling_is_the_mean_of_cells_and_ignores_dropped_items():
    frame = pd.DataFrame({"a": [1.0, 0.0, np.nan, np.nan], "b": [0.0, 0.0, 0.0, 1.0]})
    mean, low, high, _ = pooled(frame, RESULTS)
    assert mean == pytest.approx((0.5 + 0.25) / 2)
    assert low < mean < high
    one, *rest, p = pooled(frame.iloc[:1], RESULTS)
    assert one == 0.5 and np.isnan(rest).all() and p == 1.0


def test_interval_narrows_with_items_resampled_together():
    generator = np.random.default_rng(0)
    base = generator.normal(size=(400, 1))
    same = pooled(pd.DataFrame(np.repeat(base, 6, axis=1)), RESULTS)
    independent = pooled(pd.DataFrame(generator.normal(size=(400, 6))), RESULTS)
    # Six copies of one column hold no more information than one; six columns hold more.
    single = pooled(pd.DataFrame(base), RESULTS)
    assert same[2] - same[1] == pytest.approx(single[2] - single[1])
    assert independent[2] - independent[1] < 0.6 * (single[2] - single[1])


@pytest.mark.parametrize("n, expected", [(6, "undecided"), (200, "undecided"), (2000, "holds")])
def test_no_change_at_all_is_no_proof_on_few_items(n, expected):
    row = verdict("interventions_do_not_help", intervened(0, n=n) if n > 1000 else few(n))
    assert row["verdict"] == expected
    assert row["high"] == pytest.approx(1 - 0.025 ** (1 / n), abs=1e-9)


def few(n):
    plain = cell("t+none", "vi", NONE, scores(n // 2, n))
    return pd.concat([plain, cell("t+none", "vi", ("s", "lape", "zero"), scores(n // 2, n))])


def test_spearman_equals_the_ranks_correlation():
    x = np.array([3.0, 1.0, 4.0, 1.5, 9.0, 2.0])
    y = np.array([1.0, 2.0, 3.0, 4.0, 5.0, 6.0])
    rho, p = spearman(x, y, 0)
    ranks = np.array([4, 1, 5, 2, 6, 3])
    assert rho == pytest.approx(1 - 6 * ((ranks - y) ** 2).sum() / (6 * 35))
    assert 0.2 < p <= 1
    assert spearman(np.arange(8.0), np.arange(8.0), 0)[1] < 0.001
    assert np.isnan(spearman(x[:3], y[:3], 0)).all()
    assert np.isnan(spearman(np.ones(6), y, 0)).all()


def test_every_claim_states_its_test():
    assert HOLDS in VERDICTS
    for claim in CLAIMS.values():
        assert "holds" in claim.test.lower() and "contradicted" in claim.test.lower()
