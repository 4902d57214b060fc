"""Is one model better than another on the same judgements? Paired differences, p-values and a verdict in words.

Every model is compared with one base. The interval of a difference is for other raters and items; the p-value is that
of a permutation test over raters; Holm's correction covers all comparisons of one call. Knows nothing of models: it
sees one number per judgement and model.

Shapes: `N` judgements, `R` raters.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from reward_models.errors import JuryError, did_you_mean
from reward_models.evaluation.judgement_bootstrap import mean_ends
from reward_models.evaluation.metrics import credit
from reward_models.judgements.encoding import Encoded
from reward_models.raters.predictors import answer_log_lik
from reward_models.seeds import seeded_rng
from reward_models.stats.verdicts import minimum_detectable, outcome


__all__ = ["Comparison", "compare", "flipped_totals_p_value", "holm", "in_words", "sign_flip_p_value"]

Outcome = Literal["better", "undecided", "worse", "not comparable"]
PERMUTATIONS = 9_999
ALPHA = 0.05  # below it, a p-value beside an interval with 0 is explained
BLOCK = 4_000_000  # signs that are drawn at once


@dataclass(frozen=True)
class Comparison:
    """One model against the base, on the same judgements; `compare` has an example.

    Attributes:
        method: Name of the model.
        base: Name of the base.
        metric: `"delta_nll_nats"` (below 0 is better) or `"delta_accuracy"` (above 0 is better): method minus base.
        value: Mean difference per judgement; nan where it is not finite.
        low: Lower end of its interval, for other raters and items (`judgement_bootstrap.mean_ends`).
        high: Upper end.
        n: Judgements compared.
        p_value: Two-sided, see `sign_flip_p_value`.
        p_holm: The same, corrected for the family.
        outcome: `"better"` if the whole interval is on the good side (its worst end may be 0), `"worse"` if it is on
            the bad side, `"undecided"` if it contains 0 (whatever the p-value, which is about other raters only) or if
            raters or items are too few for an interval (`stats.verdicts`).
        level: Coverage of the interval.

    Example:
        >>> better = Comparison("two clusters", "bt", "delta_nll_nats", -0.1, -0.15, -0.05, 240, 0.01, 0.02, "better")
        >>> better.row("unseen rater, seen prompt")["metric"]
        'delta_nll_nats_vs_bt'
    """

    method: str
    base: str
    metric: str
    value: float
    low: float
    high: float
    n: int
    p_value: float
    p_holm: float
    outcome: Outcome
    level: float = 0.95

    @property
    def detectable(self) -> float:
        """Smallest true difference that judgements like these would show four times in five; nan without interval."""
        return minimum_detectable(self.low, self.high, self.level)

    def row(self, case: str) -> dict[str, Any]:
        """Return the comparison as a flat row of `results.json`."""
        accuracy = self.metric == "delta_accuracy"
        return {
            "case": case,
            "method": self.method,
            "metric": f"{self.metric}_vs_{self.base}",
            "value": self.value,
            "ci_low": self.low,
            "ci_high": self.high,
            "n": self.n,
            "counted": "judgements",
            "unit": "share" if accuracy else "nats",
            "direction": "higher" if accuracy else "lower",
            "p_value": self.p_value,
            "p_holm": self.p_holm,
            "outcome": self.outcome,
            "minimum_detectable": self.detectable,
        }


def compare(
    log_probs: Mapping[str, np.ndarray],
    enc: Encoded,
    base: str,
    *,
    level: float = 0.95,
    permutations: int = PERMUTATIONS,
    seed: int = 0,
) -> list[Comparison]:
    """Compare every model with the base by loss and by accuracy.

    Args:
        log_probs: (N, A) predictions by name of the model.
        enc: The judgements, predicted by all of them.
        base: Name of the model to compare with.
        level: Coverage of the intervals.
        permutations: Draws of the permutation test.
        seed: Its random seed.

    Returns:
        Two comparisons per model other than the base, in the order given; Holm's family is all of them.

    Raises:
        JuryError: The base is not among the models.

    Example:
        >>> from reward_models import planted_judgements
        >>> enc = planted_judgements("rating").judgements.encode()
        >>> uniform = np.log(np.full((len(enc), 3), 1 / 3))
        >>> informed = np.log(np.eye(3)[enc.label] * 0.4 + 0.2)  # probability .6 for the answer that was given
        >>> loss, accuracy = compare({"uniform": uniform, "informed": informed}, enc, base="uniform")
        >>> loss.outcome, round(loss.value, 3), round(accuracy.value, 3)  # log(1/3) - log(.6), 1 - 1/3
        ('better', -0.588, 0.667)
    """
    if base not in log_probs:
        raise JuryError(
            f"base={base!r} is not among the models ({', '.join(log_probs)}).{did_you_mean(base, log_probs)} Fix: add "
            "it, or name another base"
        )
    scores = {name: (-answer_log_lik(lp, enc), credit(lp, enc)) for name, lp in log_probs.items()}
    comparisons = []
    for name in log_probs:
        if name == base:
            continue
        for column, metric in enumerate(("delta_nll_nats", "delta_accuracy")):
            with np.errstate(invalid="ignore"):  # inf - inf: both rule an answer out
                difference = scores[name][column] - scores[base][column]
            impossible = column == 0 and not np.isfinite(difference).all()
            value, low, high, p_value = (np.nan,) * 4
            if not impossible:
                value, low, high = mean_ends(difference, enc, level=level)
                p_value = sign_flip_p_value(difference, enc, permutations=permutations, seed=seed)
            decided = _outcome(value, low, high, sign=-1 if column else 1)
            n = int((~np.isnan(difference)).sum())
            ends = float(value), float(low), float(high)
            comparisons.append(Comparison(name, base, metric, *ends, n, p_value, np.nan, decided, level))
    corrected = holm([comparison.p_value for comparison in comparisons])
    return [replace(comparison, p_holm=float(p)) for comparison, p in zip(comparisons, corrected, strict=True)]


def sign_flip_p_value(
    difference: np.ndarray, enc: Encoded, *, permutations: int = PERMUTATIONS, seed: int = 0
) -> float:
    """Compute the two-sided p-value of a paired difference by flipping signs rater by rater.

    Null hypothesis: for every rater, swapping the two models would not change the distribution of the rater's total
    difference, independently of other raters. The totals are then symmetric around zero, whatever their sizes and
    however the judgements of one rater depend on each other. The items are fixed: the claim is about other raters
    judging these items. (The interval of `compare` is for other items too, and may contain 0 where this p-value is
    small.)

    Args:
        difference: (N,) difference per judgement; nan is ignored.
        enc: The judgements.
        permutations: Number of random flips; all `2^R` flips if they are fewer.
        seed: Random seed of the flips.

    Returns:
        Share of flips, the observed signs included, whose total is at least as far from zero; at least
        `1 / (permutations + 1)`.

    Example:
        >>> from reward_models import planted_judgements
        >>> enc = planted_judgements("rating", num_raters=3, num_items=2).judgements.encode()
        >>> sign_flip_p_value(np.ones(6), enc)  # 2 of the 8 ways to flip 3 raters are as far from zero
        0.25
    """
    used = ~np.isnan(difference)
    totals = np.bincount(enc.rater[used], enc.weight[used] * difference[used], enc.n_raters)
    return flipped_totals_p_value(
        totals[np.bincount(enc.rater[used], minlength=enc.n_raters) > 0], permutations=permutations, seed=seed
    )


def flipped_totals_p_value(totals: np.ndarray, *, permutations: int = PERMUTATIONS, seed: int = 0) -> float:
    """Compute the two-sided p-value of a sum whose terms are symmetric around zero under the null hypothesis.

    Args:
        totals: (U,) one paired difference per independent unit, e.g. rater or item.
        permutations: As for `sign_flip_p_value`.
        seed: Random seed of the flips.

    Example:
        >>> flipped_totals_p_value(np.array([1.0, 2.0, 3.0]))  # 2 of the 8 ways to flip are as far from zero
        0.25
    """
    if not len(totals):
        return 1.0
    observed = abs(totals.sum()) * (1 - 1e-9)  # equal up to rounding counts as at least as far
    if 2 ** min(len(totals), 60) <= permutations + 1:
        flips = np.arange(2 ** len(totals))[:, None] >> np.arange(len(totals)) & 1
        return float(np.mean(np.abs((1 - 2 * flips) @ totals) >= observed))
    rng = seeded_rng(seed, "sign flips")
    as_far = 0
    step = max(1, BLOCK // len(totals))
    for start in range(0, permutations, step):
        flips = rng.integers(0, 2, size=(min(step, permutations - start), len(totals)), dtype=np.int8)
        as_far += int((np.abs(totals.sum() - 2 * (flips @ totals)) >= observed).sum())
    return (as_far + 1) / (permutations + 1)


def holm(p_values: Sequence[float]) -> np.ndarray:
    """Holm's step-down correction (Holm 1979): p-values that keep the family-wise error at their level.

    The i-th smallest of m is multiplied by `m - i + 1`, and none may fall below a smaller one's result.

    Args:
        p_values: m p-values; nan is not part of the family and stays nan.

    Returns:
        (m,) corrected values, at most 1.

    Example:
        >>> holm([0.01, 0.04, 0.03]).round(2).tolist()
        [0.03, 0.06, 0.06]
    """
    p = np.asarray(p_values, dtype=np.float64)
    out = np.full(len(p), np.nan)
    family = np.flatnonzero(~np.isnan(p))
    order = family[np.argsort(p[family], kind="stable")]
    out[order] = np.minimum(np.maximum.accumulate(p[order] * np.arange(len(order), 0, -1)), 1.0)
    return out


def in_words(comparisons: Sequence[Comparison]) -> str:
    """Say by their loss which models are better than the base, worse, or undecided.

    Args:
        comparisons: Results of `compare`, for one case or several.

    Example:
        >>> better = Comparison("two clusters", "bt", "delta_nll_nats", -0.1, -0.15, -0.05, 240, 0.01, 0.02, "better")
        >>> in_words([better])
        'two clusters is better than bt (-0.100 nats per judgement [-0.150, -0.050])'
    """
    losses = [c for c in comparisons if c.metric == "delta_nll_nats"]
    if not losses:
        return "nothing was compared"
    sentences = []
    for method in dict.fromkeys(c.method for c in losses):
        cases = [c for c in losses if c.method == method]
        counts = {which: sum(c.outcome == which for c in cases) for which in ("better", "undecided", "worse")}
        base, n = cases[0].base, sum(counts.values())
        if n == 0:
            sentences.append(
                f"{method} cannot be compared with {base}: one of them rules out an answer that was given"
            )
        elif len(cases) == 1:
            c = cases[0]
            change = f"{c.value:+.3f} nats per judgement"
            change += "; too few raters or items for an interval" if np.isnan(c.low) else _interval(c)
            finding = f"{method} is {c.outcome} than {base}"
            if c.value == c.low == c.high == 0:
                finding = f"{method} and {base} predict the same"
            elif c.outcome == "undecided":
                finding = f"whether {method} is better or worse than {base} is undecided"
                if c.p_holm < ALPHA and not np.isnan(c.low):
                    change += f", p = {c.p_holm:.3f} is about other raters on these very items, the interval about"
                    change += " other items, too"
            sentences.append(f"{finding} ({change})")
        else:
            outcomes = ", ".join(f"{which} in {count}" for which, count in counts.items() if count)
            sentences.append(f"{method} against {base} in {n} case{'s' * (n > 1)}: {outcomes}")
    return "; ".join(sentences)


def _interval(comparison: Comparison) -> str:
    return f" [{comparison.low:+.3f}, {comparison.high:+.3f}]"


def _outcome(value: float, low: float, high: float, sign: int) -> Outcome:
    """Return the outcome of a difference; `sign` is 1 if below zero is better, -1 if above is."""
    if np.isnan(value):
        return "not comparable"
    return outcome(-high, -low) if sign > 0 else outcome(low, high)
