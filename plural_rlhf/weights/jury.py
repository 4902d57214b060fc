"""Who sits: a jury as an object that can be composed, drawn at random, and asked who else might have sat.

A `Jury` is a mapping from cluster name to seats (or shares: only their proportions count) and works wherever weights
over clusters are written as a mapping. Composing one openly, and asking what another one would have said, is the
proposal of Gordon et al., "Jury Learning" (CHI 2022, https://arxiv.org/abs/2202.02950). Knows nothing of welfare
rules or verdicts; those are in `evaluation.verdicts`.

Shapes: `K` clusters, `R` raters, `U` texts.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from plural_rlhf.core.clones import clone_robust_weights, kernel_similarity
from reward_models.errors import JuryError
from reward_models.weights import named_weights


if TYPE_CHECKING:
    from reward_models.jury.protocol import ClusterScorer

__all__ = ["Jury"]


class Jury(Mapping[str, float]):
    """Seats by cluster name; immutable, hashable and picklable.

    Whether the names are those of a reward model's clusters is found out where the jury is used, and so are seats that
    are negative, NaN or all zero.

    Args:
        seats: Seats or shares by cluster.
        name: For reports.

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
        """What reports call it."""
        return self._label

    @property
    def size(self) -> float:
        """Seats in all."""
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
        """Seats a jury in which no cluster falls below its floor.

        Clusters below their floor are raised to it, and the others give up seats in proportion; the number of seats
        stays. It is the jury nearest to the given one, by Kullback-Leibler divergence from it, that keeps the floors.

        Args:
            seats: Seats or shares by cluster.
            floors: The least share of the seats: one number for every cluster of `seats`, or by cluster. A cluster
                with a floor need not be among `seats`.
            name: For reports.

        Raises:
            JuryError: A floor that is negative or NaN, floors of more than 1 together, or seats that are no weights.

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
        # Rounded, so that 20 seats less a tenth are 18 and not 17.999999999999996.
        composed = (sum(seats.values()) * kept / kept.sum()).round(12)
        return cls(dict(zip(names, composed.tolist(), strict=True)), name)

    @classmethod
    def population(cls, clusters: ClusterScorer | Sequence[str], prevalence: ArrayLike | None = None) -> Jury:
        """The jury in which every cluster has its share of the population.

        Args:
            clusters: Anything that scores for clusters and knows their prevalence, or `K` names.
            prevalence: `(K,)` shares, with names.

        Raises:
            JuryError: Names without shares, or not one share a name.
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
        """The jury that a set of raters make up: the mean of their memberships.

        Args:
            cluster_names: `K` names.
            memberships: `(R, K)` probability or share of each rater in each cluster.
            rater_weights: `(R,)`, e.g. of `reward_models.judgements.raking.rake`; None for equal ones.

        Raises:
            JuryError: Shapes that do not fit, memberships that are no shares, or weights that are negative or all
                zero.

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
                f"the memberships of rater {rater} are {m[rater].tolist()}: shares of at least 0 that sum to one are "
                "needed. Leave the rater out, or divide by the sum."
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
        """The jury in which clusters that want the same share one weight.

        For objectives or personas that somebody listed, where a wish listed twice must not count twice. Clusters of
        raters need it less: where a cluster was fitted as two, each has half of its prevalence already.

        Args:
            cluster_names: `K` names.
            prevalence: `(K,)` weights as they would be if nothing were alike.
            rewards: `(U, K)` of many different texts.
            group: `(U,)` prompt of each text: rewards are then compared within prompts.
            threshold: Correlation of two clusters' rewards from which on they begin to share; at 1 they share fully,
                and in between by degrees, `((r − threshold) / (1 − threshold))²`.

        Raises:
            JuryError: Shapes that do not fit, or a cluster that gives all texts of a prompt the same reward.
            ValueError: A threshold that is not below 1.
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
                f"cluster {cluster_names[flat[0]]!r} gives all texts of a prompt the same reward, or one that is no "
                "number, so it is like no other. Give more texts, or leave the cluster out."
            )
        # For unit vectors ‖x_k − x_l‖² = 2 (1 − r_kl).
        similarity = kernel_similarity((r / length).T, bandwidth=np.sqrt(2 * (1 - threshold)))
        return cls._from_shares(cluster_names, clone_robust_weights(similarity, prior=prior), "clone-robust")

    def shares(self) -> dict[str, float]:
        """Each cluster's share of the seats.

        Raises:
            JuryError: Seats that are negative, NaN or all zero.
        """
        return dict(zip(self, named_weights(self, list(self)).tolist(), strict=True))

    def replace(self, seats: Mapping[str, float] | None = None, /, **more: float) -> Jury:
        """The jury with other seats for some clusters: `replace(rural=8)` or `replace({"rural north": 8})`."""
        return Jury({**self, **(seats or {}), **more})

    def counterfactual(self, changes: Mapping[str, float]) -> Jury:
        """Who would sit instead: seats added to some clusters, or taken away.

        Raises:
            JuryError: More seats taken from a cluster than it has.
        """
        seats = {cluster: self.get(cluster, 0.0) + change for cluster, change in changes.items()}
        for cluster, number in seats.items():
            if number < 0:
                raise JuryError(
                    f"{cluster!r} has {self.get(cluster, 0.0):g} seats and cannot lose {-changes[cluster]:g}: take "
                    "away at most what it has."
                )
        return self.replace(seats)

    def mix(self, other: Mapping[str, float], share: float) -> Jury:
        """A jury between two: `1 − share` of this one's shares and `share` of the other's, with as many seats.

        Raises:
            JuryError: A share outside of 0 to 1, or seats that are no weights.
        """
        if not 0 <= share <= 1:
            raise JuryError(f"share is {share:g}: it is the other jury's part of the mixture, from 0 to 1.")
        names = [*self, *(cluster for cluster in other if cluster not in self)]
        mixed = (1 - share) * named_weights(self, names) + share * named_weights(other, names)
        return Jury(dict(zip(names, (self.size * mixed).tolist(), strict=True)))

    def sample(
        self, n_seats: int = 12, draws: int = 200, seed: int = 0, *, cluster_names: Sequence[str] | None = None
    ) -> np.ndarray:
        """Draws juries of people at random, each seat from cluster k with its share.

        Args:
            n_seats: Seats of each drawn jury.
            draws: How many juries.
            seed: Of the draws.
            cluster_names: Order of the columns; None for the jury's own.

        Returns:
            `(draws, K)` whole seats, `n_seats` a row.

        Raises:
            JuryError: Seats that are no weights, fewer than one seat, or a cluster that `cluster_names` lacks.
        """
        if n_seats < 1:
            raise JuryError(f"n_seats is {n_seats}: a jury has at least one.")
        shares = named_weights(self, list(self) if cluster_names is None else cluster_names)
        return np.random.default_rng(seed).multinomial(n_seats, shares, size=draws)

    @classmethod
    def _from_shares(cls, cluster_names: Sequence[str], shares: np.ndarray, name: str | None = None) -> Jury:
        return cls(dict(zip(cluster_names, shares.tolist(), strict=True)), name)
