"""A jury: seats by cluster, composed explicitly, changed counterfactually, or drawn at random.

A `Jury` is a mapping from cluster name to seats (or shares: only their proportions count) and works wherever weights
over clusters are written as a mapping. Composing a jury openly, and comparing its verdict with that of another one, is
the proposal of Gordon et al., "Jury Learning" (CHI 2022, https://arxiv.org/abs/2202.02950). Knows nothing of welfare
rules or verdicts; those are in `evaluation.decisions`.

Shapes: `K` clusters, `R` raters, `U` texts.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from plural_rlhf.core.clones import clone_robust_weights, kernel_similarity
from reward_models.errors import JuryError
from reward_models.seeds import seeded_rng
from reward_models.weights import named_weights


if TYPE_CHECKING:
    from reward_models.jury.protocol import ClusterScorer

__all__ = ["Jury", "sample_seats"]


class Jury(Mapping[str, float]):
    """Seats by cluster name; immutable, hashable and picklable.

    The names are checked against a reward model's clusters where the jury is used, and so are seats that are negative,
    NaN or all zero.

    Args:
        seats: Seats or shares by cluster.
        name: Name in reports.

    Example:
        >>> jury = Jury.compose({"progressive": 7, "rural": 5})
        >>> jury.counterfactual({"rural": +3})
        Jury({'progressive': 7.0, 'rural': 8.0})
        >>> Jury.compose({"progressive": 18, "rural": 2}, floors={"rural": 0.25}).shares()
        {'progressive': 0.75, 'rural': 0.25}
    """

    def __init__(self, seats: Mapping[str, float], name: str | None = None) -> None:
        self._seats = {str(cluster): float(number) for cluster, number in seats.items()}
        self._label = name

    @property
    def name(self) -> str | None:
        """Its name in reports."""
        return self._label

    @property
    def size(self) -> float:
        """Number of seats in all."""
        return sum(self.values())

    def __getitem__(self, cluster: str) -> float:
        return self._seats[cluster]

    def __iter__(self) -> Iterator[str]:
        return iter(self._seats)

    def __len__(self) -> int:
        return len(self._seats)

    def __hash__(self) -> int:
        return hash(frozenset(self._seats.items()))

    def __repr__(self) -> str:
        return f"Jury({self._seats}{f', name={self.name!r}' if self.name else ''})"

    @classmethod
    def compose(
        cls, seats: Mapping[str, float], *, floors: float | Mapping[str, float] | None = None, name: str | None = None
    ) -> Jury:
        """Compose a jury in which no cluster falls below its floor.

        Clusters below their floor are raised to it, and the others give up seats in proportion; the total number of
        seats stays the same. The result is the jury that satisfies the floors and is nearest to `seats` by
        Kullback-Leibler divergence.

        Args:
            seats: Seats or shares by cluster.
            floors: The least share of the seats: one number for every cluster of `seats`, or by cluster. A cluster
                with a floor need not be among `seats`.
            name: Name in reports.

        Raises:
            JuryError: If a floor is negative or NaN, the floors sum to more than 1, or the seats are no weights.

        Example:
            >>> Jury.compose({"urban": 17, "rural": 2, "remote": 1}, floors=0.1)
            Jury({'urban': 16.0, 'rural': 2.0, 'remote': 2.0})
        """
        least = dict(floors) if isinstance(floors, Mapping) else dict.fromkeys(seats, floors or 0.0)
        names = [*seats, *(cluster for cluster in least if cluster not in seats)]
        share = named_weights(seats, names)
        floor = np.array([least.get(cluster, 0.0) for cluster in names], dtype=np.float64)
        if not (floor >= 0).all():
            raise JuryError(f"floors are {least}: every one must be a share of the seats, a number of at least 0.")
        if floor.sum() > 1 + 1e-9:
            raise JuryError(
                f"the floors {least} sum to {floor.sum():.4g}: more than all the seats. Lower them until they sum to "
                "at most 1."
            )
        raised = share < floor
        while True:
            others = share[~raised].sum()
            factor = (1 - floor[raised].sum()) / others if others > 0 else 0.0
            short = ~raised & (factor * share < floor)
            if not short.any():
                break
            raised |= short
        kept = np.where(raised, floor, factor * share)
        # Rounded, so that nine tenths of 20 seats are 18 and not 17.999999999999996.
        composed = (sum(seats.values()) * kept / kept.sum()).round(12)
        return cls(dict(zip(names, composed.tolist(), strict=True)), name)

    @classmethod
    def population(cls, clusters: ClusterScorer | Sequence[str], prevalence: ArrayLike | None = None) -> Jury:
        """Return the jury in which every cluster has its share of the population.

        Args:
            clusters: A `ClusterScorer` (it knows its prevalence), or `K` names.
            prevalence: `(K,)` shares, if names are given.

        Raises:
            JuryError: If names are given without one share for each.

        Example:
            >>> Jury.population(["urban", "rural"], [0.8, 0.2])
            Jury({'urban': 0.8, 'rural': 0.2}, name='population')
        """
        if not isinstance(clusters, Sequence):
            prevalence, clusters = clusters.prevalence, clusters.cluster_names
        if prevalence is None or np.shape(prevalence) != (len(clusters),):
            raise JuryError(
                f"{len(clusters)} names need as many shares, not {prevalence!r}: Jury.population(names, prevalence)."
            )
        return cls._from_shares(clusters, np.asarray(prevalence, dtype=np.float64), "population")

    @classmethod
    def from_memberships(
        cls, cluster_names: Sequence[str], memberships: ArrayLike, rater_weights: ArrayLike | None = None
    ) -> Jury:
        """Return the jury of a set of raters: the mean of their memberships.

        Args:
            cluster_names: `K` names.
            memberships: `(R, K)` probability or share of each rater in each cluster.
            rater_weights: `(R,)`, e.g. from `reward_models.judgements.raking.rake`; None for equal weights.

        Raises:
            JuryError: If shapes do not fit, memberships are no shares, or weights are negative or all zero.

        Example:
            >>> Jury.from_memberships(["urban", "rural"], [[1.0, 0.0], [0.5, 0.5]], rater_weights=[1, 3]).shares()
            {'urban': 0.625, 'rural': 0.375}
        """
        m = np.asarray(memberships, dtype=np.float64)
        w = np.ones(len(m)) if rater_weights is None else np.asarray(rater_weights, dtype=np.float64)
        if m.ndim != 2 or m.shape[1] != len(cluster_names) or w.shape != m.shape[:1]:
            raise JuryError(
                f"memberships {m.shape} and rater weights {w.shape} do not fit {len(cluster_names)} clusters: give "
                "(R, K) and (R,)."
            )
        if not ((m >= 0).all() and np.allclose(m.sum(axis=1), 1, atol=1e-3)):
            rater = int(np.argmax((~(m >= 0)).any(axis=1) | ~np.isclose(m.sum(axis=1), 1, atol=1e-3)))
            raise JuryError(
                f"the memberships of rater {rater} are {m[rater].tolist()}, and they must be shares of at least 0 "
                "that sum to one. Leave the rater out, or divide by the sum."
            )
        if not (np.isfinite(w).all() and (w >= 0).all() and w.any()):
            raise JuryError("rater weights: every one must be a number of at least 0, and not all may be 0.")
        return cls._from_shares(cluster_names, w @ m / w.sum())

    @classmethod
    def clone_robust(
        cls,
        cluster_names: Sequence[str],
        prevalence: ArrayLike,
        rewards: ArrayLike,
        *,
        group: ArrayLike | None = None,
        threshold: float = 0.9,
    ) -> Jury:
        """Return the jury in which clusters with the same preferences share one weight.

        For a list of objectives or personas, where one that is listed twice must not count twice. Clusters of raters
        need it less: if one cluster was fitted as two, each already has half of its prevalence.

        Args:
            cluster_names: `K` names.
            prevalence: `(K,)` weights that would hold if no two clusters were alike.
            rewards: `(U, K)` rewards of many different texts.
            group: `(U,)` prompt of each text: rewards are then compared within prompts.
            threshold: Correlation of two clusters' rewards at which they begin to share a weight. At correlation 1
                they share it fully, in between by the degree `((r − threshold) / (1 − threshold))²`.

        Raises:
            JuryError: If shapes do not fit, or a cluster gives all texts of a prompt the same reward.
            ValueError: If the threshold is not below 1.

        Example:
            >>> rewards = [[1.0, 2.0, -1.0], [0.0, 0.0, 0.0], [-1.0, -2.0, -1.0]]  # the first two agree
            >>> Jury.clone_robust(["safe", "harmless", "brief"], [1, 1, 1], rewards).shares()
            {'safe': 0.25, 'harmless': 0.25, 'brief': 0.5}
        """
        r = np.array(rewards, dtype=np.float64)
        prior = named_weights(np.asarray(prevalence, dtype=np.float64), cluster_names)
        prompt = np.zeros(len(r), dtype=np.int64) if group is None else np.unique(group, return_inverse=True)[1]
        if r.ndim != 2 or r.shape[1] != len(prior) or prompt.shape != r.shape[:1]:
            raise JuryError(
                f"rewards {r.shape} and group {prompt.shape} do not fit {len(prior)} clusters: give (U, K) and (U,)."
            )
        if not threshold < 1:
            raise ValueError(f"threshold: got {threshold:g}; it is a correlation below 1")
        for number in range(prompt.max(initial=-1) + 1):
            r[prompt == number] -= r[prompt == number].mean(axis=0)
        length = np.linalg.norm(r, axis=0)
        flat = np.flatnonzero(~(length > 1e-9 * max(1.0, np.abs(r).max(initial=0.0))))
        if len(flat):
            raise JuryError(
                f"cluster {cluster_names[flat[0]]!r} gives all texts of a prompt the same reward, or a NaN, so it has "
                "no correlation with another. Give more texts, or leave the cluster out."
            )
        # For unit vectors ‖x_k − x_l‖² = 2 (1 − r_kl).
        similarity = kernel_similarity((r / length).T, bandwidth=np.sqrt(2 * (1 - threshold)))
        return cls._from_shares(cluster_names, clone_robust_weights(similarity, prior=prior), "clone-robust")

    def shares(self) -> dict[str, float]:
        """Return each cluster's share of the seats.

        Raises:
            JuryError: If seats are negative, NaN or all zero.
        """
        return dict(zip(self, named_weights(self, list(self)).tolist(), strict=True))

    def replace(self, seats: Mapping[str, float] | None = None, /, **more: float) -> Jury:
        """Return the jury with other seats for some clusters: `replace(rural=8)`, `replace({"rural north": 8})`."""
        return Jury({**self, **(seats or {}), **more})

    def counterfactual(self, changes: Mapping[str, float]) -> Jury:
        """Return the jury after a change of seats, positive or negative, by cluster.

        Raises:
            JuryError: If a cluster would lose more seats than it has.

        Example:
            >>> Jury({"urban": 7, "rural": 5}).counterfactual({"urban": -2, "rural": +2})
            Jury({'urban': 5.0, 'rural': 7.0})
        """
        seats = {cluster: self.get(cluster, 0.0) + change for cluster, change in changes.items()}
        for cluster, number in seats.items():
            if number < 0:
                raise JuryError(
                    f"{cluster!r} has {self.get(cluster, 0.0):g} seats and cannot lose {-changes[cluster]:g}: remove "
                    "at most as many as it has."
                )
        return self.replace(seats)

    def mix(self, other: Mapping[str, float], share: float) -> Jury:
        """Mix two juries, `1 − share` of this one and `share` of the other, with this one's number of seats.

        Raises:
            JuryError: If the share is outside of 0 to 1, or seats are no weights.

        Example:
            >>> Jury({"urban": 8}).mix({"rural": 1}, share=0.25)
            Jury({'urban': 6.0, 'rural': 2.0})
        """
        if not 0 <= share <= 1:
            raise JuryError(f"share is {share:g}: it is the other jury's part of the mixture, from 0 to 1.")
        names = [*self, *(cluster for cluster in other if cluster not in self)]
        mixed = (1 - share) * named_weights(self, names) + share * named_weights(other, names)
        return Jury(dict(zip(names, (self.size * mixed).tolist(), strict=True)))

    def sample(
        self, n_seats: int = 12, draws: int = 200, seed: int = 0, *, cluster_names: Sequence[str] | None = None
    ) -> np.ndarray:
        """Draw juries of people at random; each seat goes to cluster k with the probability of its share.

        Args:
            n_seats: Seats of each drawn jury.
            draws: Number of juries.
            seed: Random seed.
            cluster_names: Order of the columns; None for the order of this jury.

        Returns:
            `(draws, K)` whole seats, `n_seats` per row.

        Raises:
            JuryError: If seats are no weights, `n_seats` is below one, or `cluster_names` lacks a cluster.

        Example:
            >>> Jury({"urban": 7, "rural": 5}).sample(n_seats=12, draws=3).tolist()
            [[8, 4], [5, 7], [8, 4]]
        """
        if n_seats < 1:
            raise JuryError(f"n_seats is {n_seats}: a jury has at least one.")
        shares = named_weights(self, list(self) if cluster_names is None else cluster_names)
        return sample_seats(shares, n_seats, draws, seed)

    @classmethod
    def _from_shares(cls, cluster_names: Sequence[str], shares: np.ndarray, name: str | None = None) -> Jury:
        return cls(dict(zip(cluster_names, shares.tolist(), strict=True)), name)


def sample_seats(shares: np.ndarray, n_seats: int, draws: int, seed: int) -> np.ndarray:
    """Draw juries: `(draws, K)` whole seats, each of which goes to cluster k with probability `shares[k]`.

    Example:
        >>> sample_seats(np.array([1.0, 0.0]), n_seats=12, draws=2, seed=0).tolist()
        [[12, 0], [12, 0]]
    """
    return seeded_rng(seed, "seats of juries").multinomial(n_seats, shares, size=draws)
