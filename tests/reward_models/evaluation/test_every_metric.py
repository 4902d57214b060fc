"""What holds of every metric of judgements: an interval around its value that it can have, and what it counts.

Models that are as wrong as can be put the values at their far ends, where a bound that is off cuts the interval.
"""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest

from reward_models.evaluation import calibration_metrics, metrics, population
from reward_models.evaluation.judgement_bootstrap import Bootstrap
from reward_models.judgements.records import Judgements


pytestmark = pytest.mark.filterwarnings("ignore::reward_models.errors.JudgementWarning")
FEW = Bootstrap(draws=60)
RATERS = 24
GROUPS = np.repeat(np.eye(2), RATERS // 2, axis=0)
MOST = {"jsd_nats": math.log(2), "jsd_floor_nats": math.log(2)}
BELOW_ZERO = ("agreement_gap", "contested_spearman", "tie_rate_gap", "tie_calibration", "share_calibration")


def table(kind: str) -> Judgements:
    """Raters in two halves who mostly agree. One answers but twice, and one item is the first rater's alone."""
    rng = np.random.default_rng(1)
    rows = []
    for rater in range(RATERS):
        for item in range(7) if rater == 0 else range(2) if rater == 6 else range(6):
            likes = item % 2 == 0 and (rater < RATERS // 2 or item > 1)  # they differ about the first item
            if kind == "preference":
                answer = "tie" if rng.random() < 0.3 else "a" if likes else "b"
                rows.append((f"r{rater}", f"q{item // 2}", f"x{item}", f"y{item}", answer))
            else:
                level = int(rng.random() < (0.95 if likes else 0.05))
                rows.append((f"r{rater}", f"q{item // 2}", f"x{item}", level))
    names = ["response_a", "response_b", "choice"] if kind == "preference" else ["response", "rating"]
    frame = pd.DataFrame(rows, columns=["rater_id", "prompt", *names])
    return Judgements.from_frame(frame, kind=kind, levels=None if kind == "preference" else [0, 1])


def measured(enc, log_probs) -> list[metrics.Metric]:
    rows = [f(log_probs, enc) for f in (metrics.accuracy, metrics.nll, metrics.brier)]
    rows += [metrics.accuracy(log_probs, enc, over="raters")]
    rows += metrics.worst_raters(log_probs, enc, share=0.3, min_judgements=3, bootstrap=FEW)
    rows += metrics.by_cluster(log_probs, enc, GROUPS, ["left", "right"], bootstrap=FEW)
    rows += population.answer_divergence(log_probs, enc, bootstrap=FEW)
    rows += population.agreement(log_probs, enc, bootstrap=FEW)
    rows += population.welfare_regret(log_probs, enc, GROUPS, np.array([0.5, 0.5]), bootstrap=FEW)
    rows += [calibration_metrics.calibration_error(log_probs, enc, n_bins=2, bootstrap=FEW)]
    rows += [calibration_metrics.share_calibration(log_probs, enc, bootstrap=FEW)]
    if enc.kind == "preference":
        rows += calibration_metrics.tie_calibration(log_probs, enc, bootstrap=FEW)
        share = population.answer_shares(np.exp(log_probs), enc)[:, 0]
        rows += [calibration_metrics.pairwise_calibration(share, enc, corrected=False, bootstrap=FEW)]
    return rows


def models(enc) -> dict[str, np.ndarray]:
    """(N, A) nats: what was answered, its opposite, one answer to all, and what knows nothing."""
    right = metrics.given_answers(np.zeros((len(enc), 3 if enc.kind == "preference" else 2)), enc)
    answers = right.shape[1]
    sure = {"right": right, "wrong": np.roll(right, 1, axis=1), "always the last": np.eye(answers)[[-1] * len(enc)]}
    by_chance = np.random.default_rng(0).dirichlet(np.ones(answers), size=enc.n_items)[enc.item]
    return {
        name: np.log(0.998 * p + 0.002 / answers)
        for name, p in {**sure, "by chance": by_chance, "uniform": np.full_like(right, 1 / answers)}.items()
    }


@pytest.mark.parametrize("kind", ["preference", "rating"])
def test_intervals_hold_their_value_and_what_it_can_be(kind):
    enc = table(kind).encode()
    touched: dict[str, set[float]] = {}
    for model, log_probs in models(enc).items():
        for row in measured(enc, log_probs):
            if math.isnan(row.low):
                continue
            least = -1.0 if row.name in BELOW_ZERO else 0.0
            most = MOST.get(row.name, math.inf if row.name.startswith("nll") else 2.0 if row.name == "brier" else 1.0)
            if row.name == "share_calibration":
                least, most = -2.0, 2.0  # no two distributions are farther apart
            assert least <= row.low <= row.value + 1e-9, (model, row)
            assert row.value <= row.high + 1e-9, (model, row)
            assert row.high <= most, (model, row)
            touched.setdefault(row.name, set()).update((row.low, row.high))
    assert set(touched) == {row.name for row in measured(enc, models(enc)["by chance"])}
    assert min(touched["agreement_gap"]) < -0.1
    assert max(touched["jsd_nats"]) > 0.45
    assert max(touched["nll_nats_worst_cluster"]) > 2
    assert 0.0 in touched["ece"]
    if kind == "rating":
        assert 2.0 in touched["share_calibration"]
    if kind == "preference":
        assert min(touched["tie_rate_gap"]) < -0.1
        assert max(touched["tie_rate_gap"]) > 0.5


@pytest.mark.parametrize("kind", ["preference", "rating"])
def test_a_row_says_of_how_many_it_is(kind):
    """One item was judged once, and one rater of those who are known not at all."""
    enc = table(kind).encode()
    enc = enc.select(enc.rater != enc.rater_ids.index("r5"))
    counts = {row.name: (row.n, row.counted) for row in measured(enc, models(enc)["by chance"])}
    n = 7 + 2 + (RATERS - 3) * 6
    decided = n if kind == "rating" else int((enc.label < 2).sum())
    assert counts["nll_nats"] == (n, "judgements")
    assert counts["accuracy"] == counts["ece"] == (decided, "judgements")
    assert counts["accuracy_per_rater"] == (RATERS - 1, "raters")
    assert counts["nll_nats_worst_30_percent"] == (RATERS - 2, "raters")  # one has two judgements
    assert counts["nll_nats[left]"] == (RATERS // 2 - 1, "raters")
    assert counts["nll_nats[right]"] == (RATERS // 2, "raters")
    assert counts["nll_nats_worst_cluster"] == (RATERS - 1, "raters")
    assert counts["jsd_nats"] == (7, "items")
    assert counts["agreement_gap"] == counts["share_calibration"] == (6, "items")  # one has a single judgement
    assert counts["regret_mean"] == (3 if kind == "rating" else 4, "prompts")  # the fourth has one response alone
    if kind == "preference":
        assert counts["pairwise_calibration"] == (7, "pairs")
        assert counts["tie_calibration"] == (RATERS - 1, "raters")
