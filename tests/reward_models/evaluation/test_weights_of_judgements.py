"""Counts and sampling weights in metrics, tests and calibration: each obeys its own law, for every kind of judgement.

- A count of `c` is the same judgement given `c` times.
- A rater of sampling weight `w` is `w` people who answer alike; only ratios of weights matter.
- What is measured between pairs of judgements (agreement, errors without their noise) knows that one person is not
  two: there a weight is only a weight, and 0 leaves a rater out.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from reward_models.evaluation.calibration_metrics import (
    calibration_error,
    pairwise_calibration,
    share_calibration,
    tie_calibration,
)
from reward_models.evaluation.comparisons import compare, sign_flip_p_value
from reward_models.evaluation.controls import marginal_log_probs
from reward_models.evaluation.judgement_bootstrap import Bootstrap
from reward_models.evaluation.metrics import accuracy, brier, by_cluster, nll, worst_raters
from reward_models.evaluation.population import agreement, answer_divergence, welfare_regret
from reward_models.judgements.records import Judgements
from reward_models.jury.calibration import fit_temperature
from reward_models.sources import planted_judgements
from reward_models.stats.design import SamplingDesign


KINDS = ("preference", "rating", "choice")
FEW = Bootstrap(draws=3)
R = 12


def table(kind: str):
    """Judgements of twelve raters, random predictions of them, and what is known of raters and texts."""
    planted = planted_judgements(kind, num_raters=R, num_items=9)
    enc = planted.judgements.encode()
    log_probs = np.log(np.random.default_rng(1).dirichlet(np.full(3, 2.0), size=len(enc)))
    return enc, log_probs, np.eye(2)[planted.cluster], planted.rewards


def values(metrics, prefix: str = "") -> dict[str, float]:
    return {prefix + m.name: m.value for m in (metrics if isinstance(metrics, list) else [metrics])}


def means(enc, log_probs, memberships, rewards) -> dict[str, float]:
    """Every estimate that is a mean over judgements or people, and what is fitted or counted."""
    found = values(brier(log_probs, enc)) | values(calibration_error(log_probs, enc, bootstrap=FEW))
    for over in ("judgements", "raters"):
        found |= values(accuracy(log_probs, enc, over=over), f"{over}: ")
        found |= values(nll(log_probs, enc, over=over), f"{over}: ")
    found |= values(by_cluster(log_probs, enc, memberships, ["one", "two"], bootstrap=FEW))
    found |= values(answer_divergence(log_probs, enc, bootstrap=FEW)[0])
    found |= values(welfare_regret(log_probs, enc, memberships, np.array([0.6, 0.4]), bootstrap=FEW))
    if enc.kind == "preference":
        found |= values(tie_calibration(log_probs, enc, bootstrap=FEW)[:3])
    terms = {"thresholds": np.array([-0.7, 0.7])} if enc.kind == "rating" else {"log_tie_mean": np.zeros(1)}
    temperature = fit_temperature(enc, rewards, memberships, {} if enc.kind == "choice" else terms)
    return found | {f"temperature {k}": float(t) for k, t in enumerate(temperature)}


def pairs(enc, log_probs) -> dict[str, float]:
    """Every estimate over pairs of judgements."""
    found = values(agreement(log_probs, enc, bootstrap=FEW)[:3]) | values(
        share_calibration(log_probs, enc, bootstrap=FEW)
    )
    if enc.kind == "preference":
        share = np.exp(log_probs[:, 0])
        found |= values(pairwise_calibration(share, enc, bootstrap=FEW))
        found |= values(tie_calibration(log_probs, enc, bootstrap=FEW)[3])
    return found


def with_rows(enc, rows, **changes):
    columns = {name: getattr(enc, name)[rows] for name in ("rater", "item", "alternatives", "label", "count")}
    shown = None if enc.shown_first is None else enc.shown_first[rows]
    return dataclasses.replace(enc, **(columns | {"shown_first": shown} | changes))


def weighed(enc, weight):
    return dataclasses.replace(enc, design=SamplingDesign(np.asarray(weight, dtype=float)))


@pytest.mark.parametrize("kind", KINDS)
def test_a_count_is_as_many_equal_judgements(kind):
    enc, log_probs, memberships, rewards = table(kind)
    count = np.random.default_rng(3).integers(1, 4, size=len(enc))
    counted = dataclasses.replace(enc, count=count.astype(float))
    rows = np.repeat(np.arange(len(enc)), count)
    twin = with_rows(enc, rows)
    found = means(counted, log_probs, memberships, rewards)
    assert found == pytest.approx(means(twin, log_probs[rows], memberships, rewards), rel=1e-6, nan_ok=True)
    once = means(enc, log_probs, memberships, rewards)
    assert sum(abs(found[name] - once[name]) > 1e-4 for name in found) > 0.5 * len(found)  # so it is not ignored
    asked = marginal_log_probs(counted, enc)
    np.testing.assert_allclose(asked, marginal_log_probs(twin, enc))
    assert np.abs(asked - marginal_log_probs(enc, enc)).max() > 0.01
    difference = np.random.default_rng(4).normal(size=len(enc))
    p = sign_flip_p_value(difference, counted)
    assert p == sign_flip_p_value(difference[rows], twin)
    assert p != sign_flip_p_value(difference, enc)


@pytest.mark.parametrize("kind", KINDS)
def test_a_sampling_weight_is_as_many_people_who_answer_alike(kind):
    enc, log_probs, memberships, rewards = table(kind)
    weight = np.array([1, 2, 1, 1, 3, 1, 1, 2, 1, 1, 1, 1])
    heavy = weighed(enc, weight)
    copies = [np.flatnonzero(weight[enc.rater] > n) for n in range(3)]
    rows = np.concatenate(copies)
    rater = np.concatenate([enc.rater[some] + n * R for n, some in enumerate(copies)])
    crowd = with_rows(enc, rows, rater=rater, rater_ids=[f"{n}:{r}" for n in range(3) for r in enc.rater_ids])
    of_crowd = np.tile(memberships, (3, 1))
    found = means(heavy, log_probs, memberships, rewards)
    expected = means(crowd, log_probs[rows], of_crowd, rewards)
    temperature = [name for name in found if name.startswith("temperature")]
    # The prior of a temperature counts people, and the bins of the calibration error are those of the sample.
    for name in [*temperature, "ece"]:
        found.pop(name), expected.pop(name)
    assert found == pytest.approx(expected, rel=1e-6, nan_ok=True)
    alike = means(enc, log_probs, memberships, rewards)
    assert sum(abs(found[name] - alike[name]) > 1e-4 for name in found) > 0.5 * len(found)
    difference = np.random.default_rng(4).normal(size=len(enc))
    assert sign_flip_p_value(difference, heavy) != sign_flip_p_value(difference, enc)


@pytest.mark.parametrize("kind", KINDS)
def test_only_ratios_of_sampling_weights_matter(kind):
    """Through the table: a survey's weights may be of any unit, and weights that are all the same are none."""
    frame = planted_judgements(kind, num_raters=R, num_items=9).judgements.frame
    _, log_probs, memberships, rewards = table(kind)
    weight = dict(zip(frame["rater_id"].unique(), np.random.default_rng(6).uniform(0.5, 3, size=R), strict=True))

    def measured(unit: float, weight=weight) -> dict[str, float]:
        heavy = frame.assign(rater_weight=unit * frame["rater_id"].map(weight))
        enc = Judgements.from_frame(heavy, levels=(-1, 0, 1) if kind == "rating" else None).encode()
        found = means(enc, log_probs, memberships, rewards) | pairs(enc, log_probs)
        found |= values(worst_raters(log_probs, enc, share=0.4, min_judgements=1, bootstrap=FEW))
        compared = compare({"a": log_probs, "b": np.roll(log_probs, 1, axis=0)}, enc, "a")
        return found | {f"{c.metric}: {name}": getattr(c, name) for c in compared for name in ("value", "p_value")}

    found = measured(1.0)
    assert found == pytest.approx(measured(1000.0), rel=1e-6, nan_ok=True)
    alike = measured(1000.0, dict.fromkeys(weight, 0.37))
    assert alike == pytest.approx(measured(1.0, dict.fromkeys(weight, 1.0)), rel=1e-6, nan_ok=True)
    assert sum(abs(found[name] - alike[name]) > 1e-4 for name in found) > 0.5 * len(found)


@pytest.mark.parametrize("kind", KINDS)
def test_a_rater_of_weight_0_is_not_there(kind):
    enc, log_probs, memberships, rewards = table(kind)
    heavy = weighed(enc, np.where(np.arange(R) == 4, 0.0, np.random.default_rng(6).uniform(0.5, 3, size=R)))
    kept = np.flatnonzero(enc.rater != 4)
    without = with_rows(heavy, kept)
    expected = means(without, log_probs[kept], memberships, rewards) | pairs(without, log_probs[kept])
    assert means(heavy, log_probs, memberships, rewards) | pairs(heavy, log_probs) == pytest.approx(
        expected, rel=1e-6, nan_ok=True
    )
