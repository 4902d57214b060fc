"""Candidate profiles of a split of raters: the tables of random training raters, and whom each predicts how well.

What Algorithm 2 chooses clusters from. Knows nothing of traits, words or pages.

Shapes: `N` answers, `R` raters, `S` cells (all options of all items), `V` candidate profiles, `K` clusters.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import logsumexp

from plural_rlhf.methods.value_profiles.clustering import ProfileClusters, cluster_by_losses
from plural_rlhf.methods.value_profiles.decoder import ProfileTables, answer_losses
from plural_rlhf.methods.value_profiles.encoders import RaterEncoder
from plural_rlhf.methods.value_profiles.splits import RaterSplit
from reward_models.analysis.answer_cells import AnswerCells, shrunken_tables
from reward_models.fitting.latent_class import population
from reward_models.seeds import seeded_rng


__all__ = ["CandidateProfiles"]


@dataclass(frozen=True)
class CandidateProfiles:
    """Candidate profiles of one split, and how well each predicts the fit judgements of every rater; `of` makes them.

    Attributes:
        cells: All answers.
        split: Who trains, and what may be read.
        tables: The decoder, fitted to the training raters.
        vectors: (R, D) profile of each rater.
        log_base: (S,) log-probability of each cell among the training raters.
        raters: (V,) the training raters whose profiles are candidates.
        log_p: (S, V) the table of each candidate.
        losses: (R, V) of the fit judgements.
        seed: Random seed of the clusters.

    Example:
        >>> from plural_rlhf.methods.value_profiles import AnswerEncoder, split_raters
        >>> from reward_models import planted_judgements
        >>> from reward_models.analysis.answer_cells import answer_cells
        >>> cells = answer_cells(planted_judgements("choice", num_raters=80, num_items=12).judgements.encode())
        >>> profiles = CandidateProfiles.of(cells, split_raters(cells), AnswerEncoder(), candidates=20)
        >>> profiles.losses.shape, profiles.clusters(2).medoids.shape
        ((80, 20), (2,))
    """

    cells: AnswerCells
    split: RaterSplit
    tables: ProfileTables
    vectors: np.ndarray
    log_base: np.ndarray
    raters: np.ndarray
    log_p: np.ndarray
    losses: np.ndarray
    seed: int = 0

    @classmethod
    def of(
        cls, cells: AnswerCells, split: RaterSplit, encoder: RaterEncoder, candidates: int = 100, seed: int = 0
    ) -> CandidateProfiles:
        """Encode all raters, fit the decoder, and draw candidates.

        Args:
            cells: All answers.
            split: Who trains, and what may be read.
            encoder: Makes profiles of fit judgements.
            candidates: `V`, at most the number of training raters.
            seed: Random seed.
        """
        rng = seeded_rng(seed, "candidate profiles")
        vectors = encoder.vectors(cells, split.fit)
        train = cells.select(split.train)
        base = population(np.bincount(train.cell, train.weight, len(cells.cell_item)), cells.cell_item)
        tables = ProfileTables.fit(train, cells.select(split.train & ~split.fit), vectors, base)
        people = np.unique(train.rater)
        chosen = rng.choice(people, size=min(candidates, len(people)), replace=False)
        log_p = np.log(tables.probabilities(vectors[chosen])).T
        losses = answer_losses(cells.select(split.fit), log_p)
        return cls(cells, split, tables, vectors, np.log(base), chosen, log_p, losses, seed)

    @property
    def train_raters(self) -> np.ndarray:
        """The raters that train."""
        return np.unique(self.cells.rater[self.split.train])

    def clusters(self, size: int) -> ProfileClusters:
        """Cluster the training raters by Algorithm 2; at most as many clusters as candidates."""
        raters = self.train_raters
        return cluster_by_losses(
            self.losses[raters],
            min(size, self.losses.shape[1]),
            weight=self.cells.rater_weight[raters],
            seed=self.seed,
        )

    def cluster_log_p(self, size: int) -> np.ndarray:
        """Return (N,) log-probabilities of the scored judgements: clusters assigned by fit judgements, tables anew."""
        found = self.clusters(size)
        group = found.assign(self.losses)
        # As a decoder is trained in the paper: on judgements that the cluster was not chosen by, which would make it
        # too sure.
        unread = self.cells.select(self.split.train & ~self.split.fit)
        table = shrunken_tables(unread, group, len(found.medoids), self.log_base)
        scored = self.cells.select(self.split.scored)
        return table[scored.cell, group[scored.rater]]

    def own_log_p(self) -> np.ndarray:
        """Return (N,) log-probabilities of the scored judgements by the table of the rater's own profile."""
        scored = self.cells.select(self.split.scored)
        raters, row = np.unique(scored.rater, return_inverse=True)
        return np.log(self.tables.probabilities(self.vectors[raters])[row, scored.cell])

    def mixture_log_p(self, steps: int = 50) -> np.ndarray:
        """Return (N,) log-probabilities averaged over all candidates by their posterior given all fit judgements."""
        log_prior = np.full(self.losses.shape[1], -np.log(self.losses.shape[1]))
        of_train = -self.losses[self.train_raters]
        for _ in range(steps):  # EM for the shares of the candidates
            joint = of_train + log_prior
            log_prior = logsumexp(joint - logsumexp(joint, axis=1, keepdims=True), axis=0) - np.log(len(joint))
        scored = self.cells.select(self.split.scored)
        joint = (log_prior - self.losses)[scored.rater]
        return logsumexp(joint - logsumexp(joint, axis=1, keepdims=True) + self.log_p[scored.cell], axis=1)
