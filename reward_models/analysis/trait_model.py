"""All traits together: an additive model of answers, shrunk towards the population.

    log p(a | i, u) = log p_i(a) + sum_t delta_{t, g_t(u), i, a} + const,    delta ~ N(0, tau_t^2),

with `p_i` the answers of everybody to item `i` and `g_t(u)` the rater's group by trait `t`. It is the strongest use of
demographic groups that a table supports: the traits add up, and a trait that predicts nothing is shrunk to nothing.
Each `tau` is chosen on held-out training raters (`stats.spreads`). Knows nothing of clusters.

Shapes: `N` answers, `R` raters, `I` items, `S` cells (all options of all items), `T` traits, `G` groups of all traits,
`A` most options of an item.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize
from scipy.sparse import csr_array
from scipy.special import log_softmax

from reward_models.seeds import seeded_rng
from reward_models.stats.spreads import choose_spreads


__all__ = ["fit_traits"]

TRAIT_SDS = (0.1, 0.2, 0.4, 0.8, 1.6)  # logits
PADDING = -1e9  # log-probability of an option that an item does not have
FOLDS = 4


def fit_traits(
    rater: np.ndarray,
    cell: np.ndarray,
    weight: np.ndarray,
    groups: np.ndarray,
    log_base: np.ndarray,
    cell_item: np.ndarray,
    *,
    seed: int = 0,
) -> TraitModel:
    """Fit the model to the answers of training raters.

    Args:
        rater: (N,) rater of each answer.
        cell: (N,) the answer, an option of an item.
        weight: (N,) its weight.
        groups: (R, T) group of each rater by each trait, from 0; a group of its own where the trait is unknown.
        log_base: (S,) log-probability of each option among everybody.
        cell_item: (S,) item of each cell, ascending.
        seed: Random seed of the folds.

    Returns:
        The model, at the posterior mode of the deviations.

    Example:
        >>> rater, item = np.divmod(np.arange(200 * 4), 4)  # 200 raters, 4 items of two options
        >>> town = (np.arange(200) % 2)[:, None]
        >>> cell = 2 * item + town[rater, 0]  # every item divides the two towns
        >>> model = fit_traits(rater, cell, np.ones(800), town, np.log(np.full(8, 0.5)), np.repeat(np.arange(4), 2))
        >>> np.exp(model.log_probs(rater[:4], cell[:4])).round(1).tolist()
        [1.0, 1.0, 1.0, 1.0]
    """
    design = _Design.of(groups, log_base, cell_item)
    fold = seeded_rng(seed, "folds of traits").permutation(len(groups))[rater] % FOLDS
    known = [_Answers(design, rater[fold != k], cell[fold != k], weight[fold != k]) for k in range(FOLDS)]
    deltas = [design.nothing()] * FOLDS

    def heldout_losses(taus: np.ndarray) -> np.ndarray:
        """Return the (R,) loss of each rater under the fit to the other folds; each fit begins at the last one."""
        deltas[:] = [answers.fit(taus, begin) for answers, begin in zip(known, deltas, strict=True)]
        loss = np.empty(len(rater))
        for k, delta in enumerate(deltas):
            loss[fold == k] = -design.log_probs(delta, rater[fold == k], cell[fold == k])
        return np.bincount(rater, weight * loss, len(groups))

    taus = choose_spreads(heldout_losses, groups.shape[1], TRAIT_SDS)
    return TraitModel(design, _Answers(design, rater, cell, weight).fit(taus, deltas[0]), taus)


@dataclass(frozen=True)
class _Design:
    """Rows of the model: the groups of a rater, and the options of an item.

    Attributes:
        groups: (R, T) columns of the deviations, each trait with columns of its own.
        of_trait: (G,) trait of each group.
        log_base: (I, A); `PADDING` where there is no option.
        place: (S,) place of each cell among the options of its item.
        cell_item: (S,) item of each cell.
    """

    groups: np.ndarray
    of_trait: np.ndarray
    log_base: np.ndarray
    place: np.ndarray
    cell_item: np.ndarray

    @classmethod
    def of(cls, groups: np.ndarray, log_base: np.ndarray, cell_item: np.ndarray) -> _Design:
        sizes = groups.max(0) + 1
        start = np.concatenate([[0], np.cumsum(sizes)[:-1]])
        first = np.searchsorted(cell_item, np.arange(cell_item[-1] + 1))
        place = np.arange(len(cell_item)) - first[cell_item]
        table = np.full((len(first), place.max() + 1), PADDING)
        table[cell_item, place] = log_base
        return cls(groups + start, np.repeat(np.arange(len(sizes)), sizes), table, place, cell_item)

    def nothing(self) -> np.ndarray:
        """Return deviations (G * I, A) of 0."""
        return np.zeros((len(self.of_trait) * len(self.log_base), self.log_base.shape[1]))

    def log_probs(self, delta: np.ndarray, rater: np.ndarray, cell: np.ndarray) -> np.ndarray:
        """Return the (N,) log-probability of answers."""
        item = self.cell_item[cell]
        log_p = log_softmax(self.log_base[item] + self.matrix(self.groups[rater], item) @ delta, axis=1)
        return log_p[np.arange(len(cell)), self.place[cell]]

    def matrix(self, groups: np.ndarray, item: np.ndarray) -> csr_array:
        """Return (rows, G * I) ones at the deviations of each row, from its groups (rows, T) and item (rows,)."""
        n_items = len(self.log_base)
        columns = groups * n_items + item[:, None]
        indptr = np.arange(0, columns.size + 1, groups.shape[1])
        return csr_array(
            (np.ones(columns.size), columns.ravel(), indptr), shape=(len(item), len(self.of_trait) * n_items)
        )


@dataclass(frozen=True)
class _Answers:
    """Answers (N,) that the model is fitted to."""

    design: _Design
    rater: np.ndarray
    cell: np.ndarray
    weight: np.ndarray

    def fit(self, taus: np.ndarray, start: np.ndarray) -> np.ndarray:
        """Return the deviations (G * I, A) at their posterior mode; those of traits with `tau` 0 are 0."""
        n_items = len(self.design.log_base)
        sd = np.repeat(taus[self.design.of_trait], n_items)[:, None]
        free = np.broadcast_to(sd > 0, start.shape)
        delta = np.zeros(start.shape)
        if not free.any():
            return delta
        base, design, counts = self._counts(taus > 0)
        transposed, total = design.T.tocsr(), counts.sum(1, keepdims=True)
        precision = np.divide(1.0, sd**2, out=np.zeros_like(sd), where=sd > 0)
        share = np.exp(base)
        # In units of its own curvature every deviation is about as far from its start as any other.
        unit = 1 / np.sqrt((precision + transposed @ (total * share * (1 - share)))[free])

        def objective(values: np.ndarray) -> tuple[float, np.ndarray]:
            delta[free] = values * unit
            logits = base + design @ delta
            top = logits.max(1, keepdims=True)
            odds = np.exp(logits - top)
            sums = odds.sum(1, keepdims=True)
            penalty = delta * precision
            gradient = penalty - transposed @ (counts - total / sums * odds)
            log_lik = (counts * logits).sum() - (total * (top + np.log(sums))).sum()
            return 0.5 * (penalty * delta).sum() - log_lik, gradient[free] * unit

        options = {"maxiter": 100, "ftol": 1e-8}
        found = minimize(objective, start[free] / unit, jac=True, method="L-BFGS-B", options=options)
        delta[free] = found.x * unit
        return delta

    def _counts(self, active: np.ndarray) -> tuple[np.ndarray, csr_array, np.ndarray]:
        """Count the answers by item and by groups of the active traits.

        Returns:
            Log-probabilities without traits (rows, A), the deviations of each row (rows, G * I) and counts (rows, A).
        """
        n_items, n_options = self.design.log_base.shape
        profiles, profile = np.unique(self.design.groups[:, active], axis=0, return_inverse=True)
        item = self.design.cell_item[self.cell]
        key, row = np.unique(profile.ravel()[self.rater] * n_items + item, return_inverse=True)
        of_profile, item = np.divmod(key, n_items)
        counts = np.bincount(row * n_options + self.design.place[self.cell], self.weight, len(key) * n_options)
        matrix = self.design.matrix(profiles[of_profile], item)
        return self.design.log_base[item], matrix, counts.reshape(-1, n_options)


@dataclass(frozen=True)
class TraitModel:
    """The fitted model; `fit_traits` has an example.

    Attributes:
        design: Groups of the raters and options of the items.
        delta: (G * I, A) deviations.
        taus: (T,) standard deviation of each trait's deviations, in logits; 0 where the trait is left out.
    """

    design: _Design
    delta: np.ndarray
    taus: np.ndarray

    def log_probs(self, rater: np.ndarray, cell: np.ndarray) -> np.ndarray:
        """Return the (N,) log-probability of answers of raters whose traits are known, in training or not."""
        return self.design.log_probs(self.delta, rater, cell)
