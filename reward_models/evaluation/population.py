"""Metrics of a whole population: the answers to an item, agreement between raters, and welfare.

These need more than one judgement at a time; `metrics` has those of one. Predictions are averaged over the raters who
answered, so that any `raters.predictors.Predictor` can be measured. Knows nothing of where predictions come from.

Shapes: `N` judgements, `A` answers, `R` raters, `I` items, `U` texts, `P` prompts, `K` clusters.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from scipy.stats import rankdata

from reward_models.errors import JuryError, did_you_mean
from reward_models.evaluation.clusters import check_memberships
from reward_models.evaluation.judgement_bootstrap import (
    Bootstrap,
    Draw,
    Metric,
    average,
    group_sums,
    mean_products,
    tail_mean,
)
from reward_models.evaluation.metrics import BOOTSTRAP, by_item, given_answers
from reward_models.judgements.encoding import Encoded
from reward_models.seeds import seeded_rng
from reward_models.stats.answers import js_divergence, normalise


__all__ = [
    "WELFARE_RULES",
    "agreement",
    "answer_divergence",
    "answer_shares",
    "cluster_utilities",
    "prompt_regrets",
    "welfare",
    "welfare_regret",
]

WelfareRule = Literal["mean", "nash", "min", "cvar"]
WELFARE_RULES: tuple[WelfareRule, ...] = ("mean", "nash", "min", "cvar")
FLOOR_DRAWS = 50
CVAR_SHARE = 0.1


def answer_shares(probs: np.ndarray, enc: Encoded) -> np.ndarray:
    """Compute the share of the vote of each alternative, from probabilities (N, A) of the answers.

    A tie between a and b is half a vote for each; the levels of a rating are evenly spaced from 0 to 1.

    Args:
        probs: (N, A) probabilities.
        enc: The judgements.

    Returns:
        (N, alternatives) in the order of `Encoded.alternatives`.

    Example:
        >>> from reward_models import planted_judgements
        >>> enc = planted_judgements("preference", num_raters=2, num_items=2).judgements.encode()
        >>> answer_shares(np.tile([0.5, 0.3, 0.2], (4, 1)), enc)[0].tolist()
        [0.6, 0.4]
    """
    if enc.kind == "preference":
        return probs[:, :2] + probs[:, 2:] / 2
    return probs @ np.linspace(0, 1, probs.shape[1])[:, None] if enc.kind == "rating" else probs


def answer_divergence(
    log_probs: np.ndarray, enc: Encoded, *, seed: int = 0, bootstrap: Bootstrap = BOOTSTRAP
) -> list[Metric]:
    """Compute the Jensen-Shannon divergence between predicted and given answers to an item, mean over items.

    The prediction is the mean over the raters who answered. An exact model does not score 0, because few people were
    asked: `jsd_floor_nats` is its expected score, from answers drawn from the predictions themselves.

    Args:
        log_probs: (N, A) nats.
        enc: The judgements.
        seed: Random seed of the drawn answers.
        bootstrap: Resampling of the interval.

    Returns:
        `jsd_nats`, and `jsd_floor_nats`, whose interval is the range of an exact model's scores.

    Example:
        >>> from reward_models import planted_judgements
        >>> enc = planted_judgements("rating").judgements.encode()
        >>> divergence, floor = answer_divergence(np.log(np.full((len(enc), 3), 1 / 3)), enc)
        >>> divergence.value > floor.value > 0  # the answers are not uniform
        True
    """
    predicted, given = by_item(np.exp(log_probs), enc), by_item(given_answers(log_probs, enc), enc)

    def divergence(draw: Draw) -> float:
        p, q = (group_sums(rows, enc.item, enc.n_items, draw.weight) for rows in (given, predicted))
        there = (draw.items > 0) & (q.sum(1) > 0)
        return average(js_divergence(normalise(p[there]), normalise(q[there])), draw.items[there])

    numbers = bootstrap.estimate(divergence, enc, (0.0, np.log(2)))[0]
    rng = seeded_rng(seed, "divergence floor")
    # The last edge is 1 up to rounding, and no draw may exceed it: leave it out.
    edges = predicted.cumsum(1)[:, :-1]
    q = normalise(group_sums(predicted, enc.item, enc.n_items, enc.weight))
    there = np.bincount(enc.item, minlength=enc.n_items) > 0
    scores = np.empty(FLOOR_DRAWS)
    for draw in range(FLOOR_DRAWS):
        answers = np.eye(predicted.shape[1])[(rng.random((len(enc), 1)) >= edges).sum(1)]
        p = group_sums(answers, enc.item, enc.n_items, enc.weight)
        scores[draw] = js_divergence(normalise(p[there]), q[there]).mean()
    ends = np.quantile(scores, [(1 - bootstrap.level) / 2, (1 + bootstrap.level) / 2])
    n_items = int(there.sum())
    return [
        Metric.of("jsd_nats", numbers, n_items, "items", "nats", "lower"),
        Metric.of("jsd_floor_nats", np.append(scores.mean(), ends), n_items, "items", "nats", "context"),
    ]


def agreement(log_probs: np.ndarray, enc: Encoded, *, bootstrap: Bootstrap = BOOTSTRAP) -> list[Metric]:
    """Compare predicted and observed agreement: the share of pairs of raters of an item who gave the same answer.

    Items with one answer are ignored.

    Args:
        log_probs: (N, A) nats.
        enc: The judgements.
        bootstrap: Resampling of the intervals.

    Returns:
        `agreement_observed`, `agreement_predicted`, `agreement_gap` (predicted minus observed: above 0, the model
        underestimates disagreement) and `contested_spearman`, the rank correlation over items of predicted and
        observed agreement (below 1 because of noise if items have few raters; nan if all predictions are equal).

    Example:
        >>> from reward_models import planted_judgements
        >>> enc = planted_judgements("rating").judgements.encode()
        >>> observed, predicted, gap, _ = agreement(np.log(np.full((len(enc), 3), 1 / 3)), enc)
        >>> round(predicted.value, 3), bool(gap.value < 0)  # three equally probable answers: 3 * (1/3)^2
        (0.333, True)
    """
    predicted, given = by_item(np.exp(log_probs), enc), by_item(given_answers(log_probs, enc), enc)

    def agree(draw: Draw) -> list[float]:
        p, used = mean_products(predicted, enc.item, enc.n_items, draw.weight)
        o, _ = mean_products(given, enc.item, enc.n_items, draw.weight)
        times = draw.items[used]
        if not times.any():
            return [np.nan] * 4
        mean_p, mean_o = average(p, times), average(o, times)
        repeated = times.astype(np.int64)
        return [mean_o, mean_p, mean_p - mean_o, _spearman(np.repeat(p, repeated), np.repeat(o, repeated))]

    numbers = bootstrap.estimate(agree, enc, (-1.0, 1.0))
    n = int((np.bincount(enc.item) > 1).sum())
    return [
        Metric.of("agreement_observed", numbers[0], n, "items", "share", "context"),
        Metric.of("agreement_predicted", numbers[1], n, "items", "share", "context"),
        Metric.of("agreement_gap", numbers[2], n, "items", "share", "zero"),
        Metric.of("contested_spearman", numbers[3], n, "items", "correlation", "higher"),
    ]


def cluster_utilities(shares: np.ndarray, enc: Encoded, memberships: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Compute the utility of each text to each cluster: its mean share of the vote, from 0 to 1.

    A cluster's mean is shrunk by one judgement towards the text's mean over all raters, and that towards the mean of
    all texts, so that a text with few judgements is neither best nor worst by chance.

    Args:
        shares: (N, A) share of the vote of each alternative, observed or predicted: `answer_shares`.
        enc: The judgements.
        memberships: (R, K) membership of each rater.
        weight: (N,) weight of each judgement.

    Returns:
        (U, K); nan for a text without judgements of positive weight.

    Example:
        >>> from reward_models import planted_judgements
        >>> planted = planted_judgements("preference", num_raters=10, num_items=2)
        >>> enc = planted.judgements.encode()
        >>> shares = answer_shares(np.eye(3)[enc.label], enc)
        >>> utilities = cluster_utilities(shares, enc, np.eye(2)[planted.cluster], enc.weight)
        >>> utilities.shape, utilities[:2].sum(0).round(3).tolist()  # the two responses share the vote
        ((4, 2), [1.0, 1.0])
    """
    offered = enc.alternatives >= 0
    text, value = enc.alternatives[offered], shares[offered]
    rater = np.broadcast_to(enc.rater[:, None], offered.shape)[offered]
    mass = np.broadcast_to(weight[:, None], offered.shape)[offered]
    overall = average(value, mass)
    totals, sums = np.bincount(text, mass, enc.n_texts), np.bincount(text, mass * value, enc.n_texts)
    everyone = (sums + overall) / (totals + 1)
    of_cluster = mass[:, None] * memberships[rater]
    totals_k = group_sums(of_cluster, text, enc.n_texts, np.ones(len(text)))
    sums_k = group_sums(of_cluster * value[:, None], text, enc.n_texts, np.ones(len(text)))
    utilities = (sums_k + everyone[:, None]) / (totals_k + 1)
    return np.where(totals[:, None] > 0, utilities, np.nan)


def welfare(utilities: np.ndarray, weights: np.ndarray, rule: WelfareRule, share: float = CVAR_SHARE) -> np.ndarray:
    """Aggregate utilities of K clusters to one number, in the unit of the utilities.

    Args:
        utilities: (..., K); positive for `"nash"`.
        weights: (K,) shares of the population; a cluster of weight 0 is ignored.
        rule: `"mean"`: weighted mean; `"nash"`: weighted geometric mean; `"min"`: the worst-off cluster; `"cvar"`:
            mean of the worst-off `share` of the population.
        share: Share of the population, for `"cvar"`.

    Returns:
        (...).

    Raises:
        JuryError: An unknown rule.

    Example:
        >>> utilities, weights = np.array([0.9, 0.1]), np.array([0.75, 0.25])
        >>> [round(float(welfare(utilities, weights, rule)), 2) for rule in ("mean", "nash", "min", "cvar")]
        [0.7, 0.52, 0.1, 0.1]
    """
    counted = weights > 0
    u, w = utilities[..., counted], weights[counted] / weights.sum()
    if rule == "mean":
        return u @ w
    if rule == "nash":
        return np.exp(np.log(u) @ w)
    if rule == "min":
        return u.min(-1)
    if rule == "cvar":
        return tail_mean(u, w, share)
    raise JuryError(f"rule={rule!r} is not one of {', '.join(WELFARE_RULES)}.{did_you_mean(rule, WELFARE_RULES)}")


def prompt_regrets(
    predicted: np.ndarray, observed: np.ndarray, prompt: np.ndarray, weights: np.ndarray, rule: WelfareRule
) -> np.ndarray:
    """Compute the welfare lost at each prompt by choosing the response that is predicted to be best.

    Args:
        predicted: (U, K) predicted utilities; only their order under the rule matters.
        observed: (U, K) observed utilities; nan rows are ignored.
        prompt: (U,) prompt of each text.
        weights: (K,) shares of the population.
        rule: The welfare rule, see `welfare`.

    Returns:
        (P,) observed welfare of the best response minus that of the chosen one (the mean of those chosen if several
        are predicted to be best); nan for a prompt with fewer than two responses.

    Example:
        >>> predicted, observed = np.array([[0.9], [0.2]]), np.array([[0.5], [0.75]])
        >>> prompt_regrets(predicted, observed, np.array([0, 0]), np.ones(1), "mean").tolist()
        [0.25]
    """
    n_prompts = int(prompt.max(initial=-1)) + 1
    known = np.flatnonzero(~np.isnan(observed).any(1) & ~np.isnan(predicted).any(1))
    prompt = prompt[known]
    by_prediction, truly = welfare(predicted[known], weights, rule), welfare(observed[known], weights, rule)
    best_predicted, best = np.full(n_prompts, -np.inf), np.full(n_prompts, -np.inf)
    np.maximum.at(best_predicted, prompt, by_prediction)
    np.maximum.at(best, prompt, truly)
    chosen = by_prediction >= best_predicted[prompt] - 1e-12
    several = np.bincount(prompt, minlength=n_prompts) > 1
    picks = np.bincount(prompt[chosen], minlength=n_prompts)
    total = np.bincount(prompt[chosen], truly[chosen], n_prompts)
    return np.where(several, best - np.divide(total, picks, out=np.zeros(n_prompts), where=picks > 0), np.nan)


def welfare_regret(
    log_probs: np.ndarray,
    enc: Encoded,
    memberships: np.ndarray,
    weights: np.ndarray,
    rules: Sequence[WelfareRule] = WELFARE_RULES,
    *,
    bootstrap: Bootstrap = BOOTSTRAP,
) -> list[Metric]:
    """Compute the mean over prompts of the welfare lost by choosing responses by prediction instead of by the answers.

    Utilities are a cluster's shares of the vote, predicted and observed for the same raters, hence on one scale; 0.1
    means a loss of a tenth of the vote. The response that is best by the given answers is partly best by chance, so
    even an exact model has some regret; compare models on the same judgements.

    Args:
        log_probs: (N, A) nats.
        enc: The judgements, with several responses to a prompt.
        memberships: (R, K) membership of each rater, learnt without the scored labels.
        weights: (K,) shares of the population.
        rules: Welfare rules, see `welfare`.
        bootstrap: Resampling of the intervals; the raters behind the utilities and the prompts are resampled, each
            prompt keeping its responses.

    Returns:
        `regret_<rule>` for each rule; nan if no prompt has two responses.

    Raises:
        JuryError: Memberships of another shape, or an unknown rule.

    Example:
        >>> from reward_models import planted_judgements
        >>> planted = planted_judgements("preference")
        >>> enc = planted.judgements.encode()
        >>> exact = np.log(np.eye(3)[enc.label] * 0.98 + 0.01)  # the answers themselves
        >>> regrets = welfare_regret(exact, enc, np.eye(2)[planted.cluster], np.array([0.5, 0.5]))
        >>> {metric.name: round(metric.value, 3) for metric in regrets[:2]}
        {'regret_mean': 0.0, 'regret_nash': 0.0}
    """
    check_memberships(memberships, enc, len(weights))
    shares = answer_shares(np.exp(log_probs), enc), answer_shares(given_answers(log_probs, enc), enc)
    prompts: dict[object, int] = {}
    prompt = np.array([prompts.setdefault(text.prompt, len(prompts)) for text in enc.texts], dtype=np.int64)
    rng = seeded_rng(bootstrap.seed, "bootstrap of prompts")
    values: list[list[float]] = []
    n_prompts = 0
    for draw in bootstrap.samples(enc):
        weight = enc.count * draw.raters[enc.rater]
        predicted, observed = (cluster_utilities(s, enc, memberships, weight) for s in shares)
        regrets = [prompt_regrets(predicted, observed, prompt, weights, rule) for rule in rules]
        times = np.ones(len(prompts))
        if values:
            times = rng.multinomial(len(prompts), times / len(prompts)).astype(np.float64)
        else:
            n_prompts = int((~np.isnan(regrets[0])).sum())
        values.append([average(of_rule, times) for of_rule in regrets])
    ends = bootstrap.interval(np.array(values), (0.0, 1.0))
    return [
        Metric.of(f"regret_{rule}", row, n_prompts, "prompts", "share of the vote", "lower")
        for rule, row in zip(rules, ends, strict=True)
    ]


def _spearman(a: np.ndarray, b: np.ndarray) -> float:
    """Compute the rank correlation; nan if either is constant."""
    a, b = rankdata(np.round(a, 12)), rankdata(np.round(b, 12))
    if np.ptp(a) == 0 or np.ptp(b) == 0:
        return np.nan
    return float(np.corrcoef(a, b)[0, 1])
