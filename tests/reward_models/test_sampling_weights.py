"""What results must not depend on: the unit of sampling weights, the order of rows, how often a judgement is a row.

Sampling weights of raters stand outside the likelihood of a rater; counts of judgements inside. Both are checked for
every fit, metric and calibration that takes a table.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest

from reward_models import Judgements, fit_raters, headroom, planted_judgements
from reward_models.analysis.groupings import predictive_information
from reward_models.baselines.demographics import fit_demographics
from reward_models.baselines.frequencies import fit_item_mean
from reward_models.baselines.k_models import fit_k_models
from reward_models.evaluation import calibration_metrics, metrics, population
from reward_models.evaluation.judgement_bootstrap import Bootstrap
from reward_models.evaluation.saved_jury import fit_rater_model
from reward_models.fitting.em import FitConfig
from reward_models.fitting.joint.fit import fit_joint
from reward_models.fitting.mixture import fit_mixture
from reward_models.fitting.running_memberships import RunningMemberships
from reward_models.fitting.selection import select_num_clusters
from reward_models.judgements.encoding import Encoded
from reward_models.judgements.texts import Text
from reward_models.jury.calibration import fit_temperature
from reward_models.raters.predictors import n_answers
from reward_models.stats.answers import resample_people
from reward_models.stats.design import SamplingDesign
from reward_models.stats.judgement_means import two_way_intervals


KINDS = ("preference", "rating", "choice")
N_RATERS, N_ITEMS = 16, 5
CONFIG = FitConfig(restarts=1, tol=1e-9)
FEW = Bootstrap(draws=20)


def planted(kind: str, seed: int = 0) -> Judgements:
    """Two clusters, 16 raters, 5 items; the region of a rater agrees with the cluster for three quarters of them."""
    table = planted_judgements(kind, num_raters=N_RATERS, num_items=N_ITEMS, strength=2.5, seed=seed).judgements
    number = table.frame["rater_id"].str[1:].astype(int)
    region = np.where((number % 2 == 0) ^ (number % 4 == 3), "north", "south")
    return Judgements.from_frame(table.frame.assign(**{"rater:region": region}), kind, table.levels)


def weighted(table: Judgements, factor: float = 1.0) -> Judgements:
    """Sampling weights from .5 to 3, which favour the first cluster, times a factor."""
    number = table.frame["rater_id"].str[1:].astype(int)
    weight = 0.5 + 2.5 * (number % 2 == 0) * (number % 5) / 4
    frame = table.frame.assign(rater_weight=factor * weight)
    return Judgements.from_frame(frame, table.kind, table.levels)


def by_text(enc: Encoded) -> np.ndarray:
    """Order of the texts that does not depend on the order of rows."""
    return np.array(sorted(range(enc.n_texts), key=lambda text: repr(enc.texts[text])))


def features_of(enc: Encoded) -> np.ndarray:
    """Four numbers per text, the same for the same text in every table."""

    def row(text: Text) -> np.ndarray:
        return np.random.default_rng(list(repr(text).encode())).normal(size=4)

    return np.stack([row(text) for text in enc.texts])


def true_rewards(enc: Encoded) -> np.ndarray:
    truth = planted_judgements(enc.kind, num_raters=N_RATERS, num_items=N_ITEMS, strength=2.5)
    return np.stack([truth.rewards[truth.texts.index(text)] for text in enc.texts])


def probabilities(enc: Encoded) -> np.ndarray:
    """(N, A) log-probabilities that depend on the item and the rater, whatever the order of rows."""
    rng = np.random.default_rng(7)
    raters, items = sorted({name.split(" ")[0] for name in enc.rater_ids}), sorted(enc.item_ids)
    logits = rng.normal(size=(len(raters), len(items), n_answers(enc)))
    rater = np.array([raters.index(name.split(" ")[0]) for name in enc.rater_ids])[enc.rater]
    item = np.array([items.index(name) for name in enc.item_ids])[enc.item]
    logits = logits[rater, item]
    return logits - np.log(np.exp(logits).sum(1, keepdims=True))


def memberships(enc: Encoded) -> np.ndarray:
    number = np.array([int(name.split(" ")[0][1:]) for name in enc.rater_ids])
    return np.stack([0.5 + 0.4 * (-1.0) ** number, 0.5 - 0.4 * (-1.0) ** number], axis=1)


def values(found) -> np.ndarray:
    return np.array([metric.value for metric in (found if isinstance(found, list) else [found])])


def rater_fit(membership: str, num_clusters: int) -> Callable[[Encoded], np.ndarray]:
    def fitted(enc: Encoded) -> np.ndarray:
        fit = fit_raters(enc, membership, num_clusters, config=CONFIG)
        rewards = fit.rewards[by_text(enc)]
        if membership == "simplex":  # and so is the order of prototypes
            rewards = rewards[:, np.argsort(rewards[0])]
        if membership == "factor":  # the sign of a taste is arbitrary
            rewards = np.column_stack([rewards[:, 0], np.abs(rewards[:, 1])])
        return np.concatenate([np.sort(fit.prevalence), rewards.ravel()]) if membership != "factor" else rewards

    return fitted


def mixture(enc: Encoded) -> np.ndarray:
    fit = fit_mixture(enc, 2, CONFIG)
    return np.concatenate([fit.prevalence, fit.rewards[by_text(enc)].ravel()])


def heads(enc: Encoded) -> np.ndarray:
    fit = fit_joint(enc, features_of(enc), "mixture", 2, config=CONFIG)
    return np.concatenate([fit.prevalence, fit.heads.ravel()])


def k_models(enc: Encoded) -> np.ndarray:
    fit = fit_k_models(enc, 2, precision=1.0, assignment=memberships(enc).argmax(1))
    return np.concatenate([fit.prevalence, fit.table.values[by_text(enc)].ravel()])


def frequencies(enc: Encoded) -> np.ndarray:
    fit = fit_item_mean(enc)
    return np.concatenate([np.sort(fit.probs.ravel()), fit.marginal])


def rater_terms(enc: Encoded) -> np.ndarray:
    rewards = true_rewards(enc)
    model = fit_rater_model(enc, rewards, np.array([0.5, 0.5]))
    return np.concatenate([np.ravel(value) for value in (*model.shared.values(), *model.term_sd.values())])


def temperature(enc: Encoded) -> np.ndarray:
    terms = {"thresholds": np.array([-1.0, 1.0])} if enc.kind == "rating" else {}
    return fit_temperature(enc, true_rewards(enc), memberships(enc), terms)


def running(enc: Encoded) -> np.ndarray:
    table = RunningMemberships(enc, 2, dirichlet=1.0)
    table.record(np.arange(len(enc)), probabilities(enc)[:, :2])
    return table.prevalence


FITS: dict[str, Callable[[Encoded], np.ndarray]] = {
    "latent classes, or a mixture": mixture,
    "mixture": rater_fit("mixture", 2),
    "simplex": rater_fit("simplex", 2),
    "factor": rater_fit("factor", 1),
    "one reward": rater_fit("mixture", 1),
    "heads": heads,
    "k models": k_models,
    "frequencies": frequencies,
    "rater terms": rater_terms,
    "temperature": temperature,
    "running memberships": running,
}
METRICS: dict[str, Callable[[np.ndarray, Encoded], object]] = {
    "accuracy": lambda p, enc: metrics.accuracy(p, enc),
    "accuracy per rater": lambda p, enc: metrics.accuracy(p, enc, over="raters"),
    "nll": lambda p, enc: metrics.nll(p, enc),
    "brier": lambda p, enc: metrics.brier(p, enc),
    "worst raters": lambda p, enc: metrics.worst_raters(p, enc, min_judgements=1, share=0.5, bootstrap=FEW),
    "by cluster": lambda p, enc: metrics.by_cluster(p, enc, memberships(enc), ["a", "b"], bootstrap=FEW),
    "calibration": lambda p, enc: calibration_metrics.calibration_error(p, enc, n_bins=3, bootstrap=FEW),
    "divergence": lambda p, enc: population.answer_divergence(p, enc, bootstrap=FEW)[:1],
    "agreement": lambda p, enc: population.agreement(p, enc, bootstrap=FEW),
    "welfare regret": lambda p, enc: population.welfare_regret(
        p, enc, memberships(enc), np.array([0.5, 0.5]), bootstrap=FEW
    ),
}


def close(found: np.ndarray, expected: np.ndarray, tol: float) -> None:
    np.testing.assert_allclose(found, expected, rtol=tol, atol=tol)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", FITS)
def test_the_unit_of_weights_does_not_matter_to_fits(kind, name):
    one, thousand = (FITS[name](weighted(planted(kind), factor).encode()) for factor in (1.0, 1000.0))
    close(thousand, one, 2e-3)
    plain = FITS[name](planted(kind).encode())
    if (name, kind) != ("rater terms", "choice"):  # choices have one shared scale, at which the rewards are true
        assert not np.allclose(plain, one, rtol=1e-3, atol=1e-3)  # weights do matter


@pytest.mark.parametrize("kind", KINDS)
def test_the_unit_of_weights_does_not_matter_to_metrics(kind):
    one, thousand, plain = weighted(planted(kind)), weighted(planted(kind), 1000.0), planted(kind)
    p = probabilities(one.encode())
    moved = []
    for name, metric in METRICS.items():
        first, second = metric(p, one.encode()), metric(p, thousand.encode())
        rows = (first, second) if isinstance(first, list) else ([first], [second])
        for a, b in zip(*rows, strict=True):
            close(np.array([b.value, b.low, b.high]), np.array([a.value, a.low, a.high]), 1e-9)
        if not np.allclose(values(metric(p, plain.encode())), values(first)):
            moved.append(name)
    assert len(moved) >= len(METRICS) - 2  # weights do matter


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["preference", "choice"])
def test_the_unit_of_weights_does_not_matter_to_verdicts(kind):
    one, thousand = (weighted(planted(kind), factor) for factor in (1.0, 1000.0))
    ladders = [headroom(table, max_clusters=2) for table in (one, thousand)]
    assert ladders[0].verdict == ladders[1].verdict
    close(*(np.array([rung["info"] for rung in ladder.rungs]) for ladder in ladders), 1e-3)
    reports = [predictive_information(table, 2, seeds=1, config=CONFIG) for table in (one, thousand)]
    close(*(np.array([row["info"] for row in report.rows]) for report in reports), 1e-6)
    choices = [select_num_clusters(table, (1, 2), CONFIG) for table in (one, thousand)]
    assert choices[0].num_clusters == choices[1].num_clusters
    close(*(np.array([row["nll"] for row in choice.table]) for choice in choices), 1e-4)
    fits = [fit_demographics(table.encode(), table) for table in (one, thousand)]
    close(*(fit.log_probs(one.encode()) for fit in fits), 1e-3)


def repeated(enc: Encoded, times: np.ndarray) -> Encoded:
    return enc.select(np.repeat(np.arange(len(enc)), times))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", FITS)
def test_a_count_is_so_many_rows_to_fits(kind, name):
    enc = planted(kind).encode()
    times = 1 + np.arange(len(enc)) % 3
    counted = dataclasses.replace(enc, count=times.astype(float))
    close(FITS[name](counted), FITS[name](repeated(enc, times)), 5e-3)


@pytest.mark.parametrize("kind", KINDS)
def test_a_count_is_so_many_rows_to_metrics(kind):
    enc = weighted(planted(kind)).encode()
    times = 1 + np.arange(len(enc)) % 3
    counted, rows = dataclasses.replace(enc, count=times.astype(float)), repeated(enc, times)
    for name, metric in METRICS.items():
        if name == "agreement":  # of pairs of different judgements: copies of one judgement agree with each other
            continue
        close(values(metric(probabilities(counted), counted)), values(metric(probabilities(rows), rows)), 1e-9)


def twice(enc: Encoded, twins: np.ndarray) -> Encoded:
    """The raters of `twins` there twice, under two names; in sum they weigh as much as the table with weight 2."""
    again = enc.select(np.isin(enc.rater, twins), drop_raters=True)
    names = [*enc.rater_ids, *(f"{name} again" for name in again.rater_ids)]
    columns = {
        column: np.concatenate([getattr(enc, column), getattr(again, column)])
        for column in ("item", "alternatives", "label", "count")
    }
    rater = np.concatenate([enc.rater, again.rater + enc.n_raters])
    design = SamplingDesign(np.full(len(names), enc.n_raters / len(names)))
    return dataclasses.replace(enc, rater_ids=names, rater=rater, design=design, **columns)


def of_weight_two(enc: Encoded, twins: np.ndarray) -> Encoded:
    weight = np.where(np.isin(np.arange(enc.n_raters), twins), 2.0, 1.0)
    return dataclasses.replace(enc, design=SamplingDesign(weight / weight.mean()))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", FITS)
def test_a_rater_of_weight_two_is_the_same_rater_twice(kind, name):
    enc, twins = planted(kind).encode(), np.array([0, 2, 4, 7])
    close(FITS[name](of_weight_two(enc, twins)), FITS[name](twice(enc, twins)), 5e-3)


@pytest.mark.parametrize("kind", KINDS)
def test_a_rater_of_weight_two_is_the_same_rater_twice_to_metrics(kind):
    enc, twins = planted(kind).encode(), np.array([0, 2, 4, 7])
    one, two = of_weight_two(enc, twins), twice(enc, twins)
    for name, metric in METRICS.items():
        if name == "agreement":  # of pairs of different raters: a rater and the copy are such a pair
            continue
        close(values(metric(probabilities(one), one)), values(metric(probabilities(two), two)), 1e-9)


def test_a_group_of_ninety_percent_has_ninety_percent_of_the_prevalence():
    """Before, weights multiplied the evidence about a rater, and the prevalence stayed near one half."""
    planted = planted_judgements("choice", num_raters=60, num_items=10, strength=4.0)
    weight = np.where(planted.cluster == 0, 9.0, 1.0)
    number = planted.judgements.frame["rater_id"].str[1:].astype(int)
    frame = planted.judgements.frame.assign(rater_weight=weight[number])
    enc = Judgements.from_frame(frame, "choice").encode()
    fit = fit_mixture(enc, 2)
    assert fit.prevalence[0] == pytest.approx(0.9, abs=0.02)
    assert enc.effective_raters == pytest.approx(60 * 25 / 41)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", FITS)
def test_the_order_of_rows_and_raters_does_not_matter_to_fits(kind, name):
    table = weighted(planted(kind))
    shuffled = table.select(np.random.default_rng(3).permutation(len(table)))
    close(FITS[name](shuffled.encode()), FITS[name](table.encode()), 5e-3)


@pytest.mark.parametrize("kind", KINDS)
def test_the_order_of_rows_and_raters_does_not_matter_to_metrics(kind):
    table = weighted(planted(kind))
    shuffled = table.select(np.random.default_rng(3).permutation(len(table))).encode()
    enc = table.encode()
    for metric in METRICS.values():
        close(values(metric(probabilities(shuffled), shuffled)), values(metric(probabilities(enc), enc)), 1e-9)


def test_resampled_people_carry_their_weights():
    answers = np.repeat([[0], [1]], [10, 30], axis=0)
    design = SamplingDesign(np.where(answers[:, 0] == 0, 3.0, 1.0) / 1.5)
    people = resample_people(answers, 2, draws=400, design=design)
    assert people.human[0] == pytest.approx(np.full((1, 2), 0.5))
    spread = people.human[1:, 0, 0].std()
    # A share of .5 of 40 people whose weights are worth 30 of equal weight (Kish).
    assert spread == pytest.approx(np.sqrt(0.25 / 30), rel=0.25)


def test_units_within_strata_are_resampled_together():
    """Answers that units share: an interval over single raters would be far too narrow."""
    rater, item = np.divmod(np.arange(40 * 6), 6)
    unit = np.arange(40) // 4
    gains = np.random.default_rng(0).normal(size=10)[unit][rater][:, None]
    alone = two_way_intervals(gains, rater, item, items=False)[0]
    units = two_way_intervals(gains, rater, item, items=False, design=SamplingDesign(np.ones(40), psu=unit))[0]
    assert units.high - units.low > 1.5 * (alone.high - alone.low)
    # Each stratum a unit's value of its own: nothing varies between resamples.
    strata = SamplingDesign(np.ones(40), stratum=unit, psu=np.arange(40))
    within = two_way_intervals(gains, rater, item, items=False, design=strata)[0]
    assert within.high - within.low == pytest.approx(0.0, abs=1e-9)


def test_strata_and_units_are_read_from_the_table():
    table = planted("choice")
    number = table.frame["rater_id"].str[1:].astype(int)
    frame = table.frame.assign(rater_stratum=number % 3, rater_psu=number // 2)
    design = Judgements.from_frame(frame, "choice").encode().design
    assert design.stratum.tolist()[:4] == [0, 1, 2, 0]
    assert design.psu.tolist()[:4] == [0, 0, 1, 1]
    assert design.weight.tolist() == [1.0] * N_RATERS


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (
            {"weight": [1.0, 2.0, 1.0, 1.0]},
            r"'weight' does not say what is weighed.*'rater_weight'.*'count'",
        ),
        ({"rater_weight": [1.0, 2.0, 1.0, 1.0]}, r"2\.0 differs from the 1\.0 in another row of rater 'ann'"),
        ({"rater_weight": [0.0] * 4}, "'rater_weight' is 0 in all rows"),
        ({"rater_psu": ["a", "b", "a", "a"]}, "'b' differs from the 'a' in another row of rater 'ann'"),
        (
            {"count": [1, 2, 0.5, 1]},
            r"0\.5 is not a whole number of at least 1.*'rater_weight'",
        ),
    ],
)
def test_weights_that_cannot_be_meant_are_refused(columns, message):
    frame = pd.DataFrame({"rater_id": ["ann", "ann", "bob", "bob"], "prompt": ["p", "q"] * 2, "response": "x"})
    with pytest.raises(ValueError, match=message):
        Judgements.from_frame(frame.assign(rating=[1, 2, 2, 1], **columns))


def test_a_column_weight_of_ones_is_left_out():
    frame = planted("choice").frame.assign(weight=1.0)
    assert "weight" not in Judgements.from_frame(frame, "choice").frame
