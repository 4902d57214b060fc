"""Best-of-n: what selection by a jury gains, and what it loses, as the number of candidates grows.

Of n candidates the one with the highest score is kept, and another jury says what it is worth: other raters, and
vectors of another model, so that a score that is good at pleasing itself gains nothing. The expectation over all
subsets of n candidates is computed in closed form from one pool, without simulation and without bias (the estimator of
Nakano and others 2021, WebGPT, appendix I); candidates of equal score count alike. Optimising selection costs at most
`log n - (n - 1) / n` nats of KL divergence from the policy that made the candidates (Beirami and others 2024).

Knows nothing of language models or files.

Shapes: `P` prompts, `M` candidates of a prompt, `K` clusters of the jury that scores the selected response, `N`
numbers of candidates.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import gammaln

from reward_models.errors import JuryError, did_you_mean
from reward_models.evaluation.candidates.pools import Pool
from reward_models.evaluation.sheets import Sheet, interval_text, number_text
from reward_models.stats.means import UnitMean


__all__ = ["COUNTS", "BestOfN", "best_of_n", "expected_best", "selection_kl"]

COUNTS = (1, 2, 4, 8, 16, 32, 64, 128)
MEAN = "mean"


def expected_best(scores: np.ndarray, values: np.ndarray, counts: Sequence[int] = COUNTS) -> np.ndarray:
    """Compute the expected value of the best-scored of n candidates, over all subsets of the pool.

    The candidate of rank i (from the lowest) is the best of a random subset with probability
    `C(i - 1, n - 1) / C(M, n)`. Candidates of equal score share the probability of their ranks.

    Args:
        scores: (M,) scores to select by.
        values: (M, C) what each candidate is worth, in `C` respects.
        counts: `N` numbers of candidates.

    Returns:
        (N, C); nan where the pool has fewer than n candidates.

    Example:
        >>> values = np.array([[0.0], [1.0], [2.0]])
        >>> expected_best(np.array([1.0, 2.0, 3.0]), values, [1, 2, 3, 4])[:, 0].round(3).tolist()
        [1.0, 1.667, 2.0, nan]
        >>> expected_best(np.zeros(3), values, [2])[0, 0].round(3)  # equal scores: at random
        np.float64(1.0)
    """
    order = np.argsort(scores, kind="stable")
    _, group = np.unique(scores[order], return_inverse=True)
    sizes = np.bincount(group)
    means = np.stack([np.bincount(group, column) / sizes for column in values[order].T], axis=1)[group]
    total, rank = len(scores), np.arange(1, len(scores) + 1)
    out = np.full((len(counts), values.shape[1]), np.nan)
    for row, n in enumerate(counts):
        if n <= total:
            usable = rank >= n
            log_share = _log_choose(rank[usable] - 1, n - 1) - _log_choose(np.array(total), n)
            out[row] = np.exp(log_share) @ means[usable]
    return out


def _log_choose(total: np.ndarray, chosen: int) -> np.ndarray:
    return gammaln(total + 1) - gammaln(chosen + 1) - gammaln(total - chosen + 1)


def selection_kl(n: int) -> float:
    """Return the largest KL divergence, in nats, of best-of-n from the policy that made the candidates.

    Example:
        >>> round(selection_kl(16), 3)
        1.835
    """
    return float(np.log(n) - (n - 1) / n)


@dataclass(frozen=True)
class BestOfN:
    """Gains and regrets of selecting the best of n, by method; `best_of_n` computes it.

    Attributes:
        counts: `N` numbers of candidates.
        columns: `C` names of what a response is worth: the clusters of the jury that scores it, and its mean.
        gains: By method, (P, N, C) expected value of the selected response minus that of a random one, in logits.
        regrets: By method, (P, N, C) value of the best response of the pool minus that of the selected one.
        base: The method that the others are compared with.
        judge: In words, who says what a response is worth.

    Example:
        See `best_of_n`.

        >>> nothing = BestOfN((1,), ("mean",), {}, {}, "one reward", "a held-out jury")
        >>> nothing.rows()
        []
    """

    counts: tuple[int, ...]
    columns: tuple[str, ...]
    gains: Mapping[str, np.ndarray]
    regrets: Mapping[str, np.ndarray]
    base: str
    judge: str

    def mean(self, method: str, n: int, column: str, *, regret: bool = False) -> UnitMean:
        """Return the mean gain, or regret, of a method over the prompts that have n candidates."""
        values = (self.regrets if regret else self.gains)[method]
        return UnitMean.of(values[:, self.counts.index(n), self.columns.index(column)])

    def difference(self, method: str, n: int, column: str) -> UnitMean:
        """Return the mean difference to the base, paired by prompt."""
        row, at = self.counts.index(n), self.columns.index(column)
        return UnitMean.of(self.gains[method][:, row, at] - self.gains[self.base][:, row, at])

    def rows(self) -> list[dict[str, Any]]:
        """Return flat rows of `results.json`: gain, regret and the paired difference to the base."""
        out = []
        for method in self.gains:
            for n in self.counts:
                for column in self.columns:
                    about = ("best of n", method)
                    gain, regret = self.mean(method, n, column), self.mean(method, n, column, regret=True)
                    if not gain.n:
                        continue
                    more = {"candidates": n, "kl_at_most": selection_kl(n), "scored_by": self.judge}
                    kind = ("logits", "higher", "prompts")
                    out.append(gain.row(*about, f"best_of_{n}_gain[{column}]", *kind) | more)
                    kind = ("logits", "lower", "prompts")
                    out.append(regret.row(*about, f"best_of_{n}_regret[{column}]", *kind) | more)
                    if method != self.base and n > 1:
                        apart = self.difference(method, n, column)
                        name = f"best_of_{n}_gain[{column}]_vs_{self.base}"
                        out.append(
                            apart.row(*about, name, "logits", "higher", "prompts")
                            | more
                            | {"outcome": apart.outcome, "minimum_detectable": apart.detectable}
                        )
        return out

    def sheets(self) -> list[Sheet | str]:
        """Return the curves, and the paired differences to the base, as tables."""
        used = [n for n in self.counts if any(self.mean(m, n, self.columns[0]).n for m in self.gains)]
        curves = [
            [method, column, *(number_text(self.mean(method, n, column).value) for n in used)]
            for method in self.gains
            for column in self.columns
        ]
        fewest = min(self.mean(m, used[-1], self.columns[0]).n for m in self.gains)
        note = (
            f"Gain over a random response in logits of {self.judge}; mean over prompts ({fewest} have "
            f"{used[-1]} candidates). 'each' selects once per cluster, by scores for that cluster."
        )
        sheets: list[Sheet | str] = [
            Sheet("Best of n", ["selected by", "worth to", *(f"n={n}" for n in used)], curves, note, words=2)
        ]
        shown = [n for n in used if n > 1 and n in (used[-1], 16, 4)]
        lines = []
        for method in self.gains:
            for column in self.columns if method != self.base else ():
                for n in shown:
                    apart, regret = self.difference(method, n, column), self.mean(method, n, column, regret=True)
                    row = apart.row("", method, "", "", "", "")
                    lines.append(
                        [
                            method,
                            column,
                            str(n),
                            interval_text(row),
                            number_text(apart.detectable),
                            apart.outcome,
                            number_text(regret.value),
                        ]
                    )
        header = ["selected by", "worth to", "n", "difference, 95 % interval", "detectable", "outcome", "regret"]
        note = (
            "Paired by prompt; the interval is about other prompts. detectable: the smallest true difference that so "
            "many prompts would show four times in five. regret: what the best response of the pool would add."
        )
        if lines:
            sheets.append(Sheet(f"Best of n against selection by {self.base}", header, lines, note, words=2))
        return sheets


def best_of_n(
    selections: Mapping[str, Sequence[np.ndarray]],
    worth: Sequence[Pool],
    names: Sequence[str],
    weights: np.ndarray,
    *,
    base: str,
    judge: str = "the jury",
    counts: Sequence[int] = COUNTS,
) -> BestOfN:
    """Compute what selecting the best of n candidates is worth, by several methods of selection.

    Args:
        selections: By name of the method, for each prompt (M,) scores; or (M, K), a score for each cluster that the
            selected response is worth something to, which selects once per cluster.
        worth: For each prompt the same candidates with the (M, K) rewards that say what they are worth.
        names: `K` names of these clusters.
        weights: (K,) weights of their mean.
        base: Name of the method that the others are compared with.
        judge: In words, whose rewards say what a response is worth.
        counts: Numbers of candidates; a prompt with fewer candidates is left out for these.

    Returns:
        Curves with intervals over prompts, for each cluster and for the mean.

    Raises:
        JuryError: The base is not among the methods, scores do not match the prompts or candidates, weights do not
            match the clusters, or no prompt has as many candidates as are asked for.

    Example:
        Two clusters want opposite things. One reward cannot serve both, a jury can:

        >>> rng = np.random.default_rng(0)
        >>> taste = [rng.normal(size=40) for _ in range(10)]
        >>> worth = [Pool(f"{i}?", [str(j) for j in range(40)], np.stack([t, -t], 1)) for i, t in enumerate(taste)]
        >>> selections = {"one reward": [t for t in taste], "each cluster": [pool.rewards for pool in worth]}
        >>> curves = best_of_n(selections, worth, ["city", "country"], np.array([0.7, 0.3]), base="one reward")
        >>> curves.mean("one reward", 16, "country").outcome, curves.mean("each cluster", 16, "country").outcome
        ('worse', 'better')
    """
    if base not in selections:
        raise JuryError(
            f"base={base!r} is not among the methods ({', '.join(selections)}).{did_you_mean(base, selections)} Fix: "
            "name one of them as base"
        )
    most = max((len(pool.responses) for pool in worth), default=0)
    if min(counts) > most:
        raise JuryError(
            f"counts={tuple(counts)}, but no prompt has more than {most} candidates. Fix: a number from 1 to {most}"
        )
    if len(weights) != len(names):
        raise JuryError(f"{len(weights)} weights for {len(names)} clusters. Fix: one weight per cluster")
    gains: dict[str, np.ndarray] = {}
    regrets: dict[str, np.ndarray] = {}
    for method, of_prompts in selections.items():
        gain, regret = [], []
        if len(of_prompts) != len(worth):
            raise JuryError(f"{method!r} has scores for {len(of_prompts)} of {len(worth)} prompts. Fix: one for each")
        for scores, pool in zip(of_prompts, worth, strict=True):
            if len(scores) != len(pool.responses) or (scores.ndim == 2 and scores.shape[1] != len(names)):
                raise JuryError(
                    f"{method!r} has scores of shape {scores.shape} for the prompt {pool.prompt!r}, which has "
                    f"{len(pool.responses)} candidates and {len(names)} clusters. Fix: one score per candidate, or a "
                    "column per cluster of the jury that says what they are worth"
                )
            selected = _per_cluster(scores, pool.rewards, counts)
            best, mean = pool.rewards.max(0), pool.rewards.mean(0)
            gain.append(_with_mean(selected - mean, weights))
            if scores.ndim == 2:  # each cluster has a response of its own
                best_mean = best @ weights
            else:
                best_mean = pool.weighted(weights).max()
            ends = np.append(best, best_mean)
            regret.append(ends - _with_mean(selected, weights))
        gains[method], regrets[method] = np.stack(gain), np.stack(regret)
    return BestOfN(tuple(counts), (*names, MEAN), gains, regrets, base, judge)


def _per_cluster(scores: np.ndarray, rewards: np.ndarray, counts: Sequence[int]) -> np.ndarray:
    """(N, K) expected reward of the selected response for each cluster."""
    if scores.ndim == 1:
        return expected_best(scores, rewards, counts)
    return np.concatenate(
        [expected_best(column, rewards[:, [k]], counts) for k, column in enumerate(scores.T)], axis=1
    )


def _with_mean(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """(N, K + 1) values with their weighted mean as the last column."""
    return np.column_stack([values, values @ weights])
