"""A jury's prediction of a person from a few judgements: the posterior over clusters, and what they answer.

The rival of a model that reads the same judgements, and its help where they are few. Knows no language model.

Shapes: `K` clusters, `A` options of a question, `C` cells (all options of all questions).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import logsumexp

from plural_rlhf.evaluation.in_context.sequences import Example, PersonSequence
from reward_models.errors import JuryError
from reward_models.fitting.em import FitConfig
from reward_models.fitting.latent_class import fit_latent_classes
from reward_models.raters.adaptation import information_gain
from reward_models.raters.observation import Observations
from reward_models.raters.rater_model import KindTerms, RaterModel


__all__ = ["JuryReader"]

Key = tuple[str, tuple[str, ...]]


@dataclass(frozen=True)
class JuryReader:
    """Clusters of people and their answers; `fit` makes it.

    Attributes:
        first_cell: First cell of each question, by its name and options.
        log_p: (C, K) log-probability of each answer in each cluster: the rewards of its texts.
        model: A rater belongs to one cluster, with the prevalence as prior.

    Example:
        >>> from plural_rlhf.evaluation.in_context.sequences import judgement_sequences
        >>> from reward_models import planted_judgements
        >>> planted = planted_judgements("choice", num_raters=60, num_items=8, strength=4.0)
        >>> people = judgement_sequences(planted.judgements)
        >>> jury = JuryReader.fit(people[:40], 2)
        >>> nats = [
        ...     np.mean([-np.log(jury.shares(p, range(n), 7)[p.examples[7].options.index(p.examples[7].output)])
        ...              for p in people[40:]])
        ...     for n in (0, 6)
        ... ]
        >>> bool(nats[1] < nats[0] - 0.2)  # six answers read
        True
    """  # fmt: skip

    first_cell: Mapping[Key, int]
    log_p: np.ndarray
    model: RaterModel

    @classmethod
    def fit(cls, people: Sequence[PersonSequence], num_clusters: int, *, seed: int = 0) -> JuryReader:
        """Fit latent classes to the answers of people.

        Args:
            people: Training people.
            num_clusters: `K`.
            seed: Random seed.

        Raises:
            JuryError: There are fewer people than clusters.
        """
        if not 1 <= num_clusters <= len(people):
            raise JuryError(f"num_clusters={num_clusters} with {len(people)} people. Fix: use 1 to {len(people)}")
        first_cell: dict[Key, int] = {}
        cells = 0
        cell_item: list[int] = []
        for person in people:
            for example in person.examples:
                if _key(example) not in first_cell:
                    first_cell[_key(example)] = cells
                    cell_item += [len(first_cell) - 1] * len(example.options)
                    cells += len(example.options)
        given = [(u, first_cell[_key(e)] + _given(e)) for u, person in enumerate(people) for e in person.examples]
        rater, cell = np.array(given).T
        fit = fit_latent_classes(
            rater,
            cell,
            np.ones(len(cell)),
            len(people),
            np.array(cell_item),
            num_clusters,
            FitConfig(seed=seed),
        )
        prior = np.log(np.maximum(fit.prevalence, 1e-300))
        return cls(first_cell, fit.log_p, RaterModel("mixture", np.eye(num_clusters), prior, {"choice": KindTerms()}))

    @property
    def prevalence(self) -> np.ndarray:
        """(K,) share of each cluster."""
        return np.exp(self.model.code_log_prior)

    def posterior(self, person: PersonSequence, read: Sequence[int]) -> np.ndarray:
        """Return (K,) the probability of each cluster, given the judgements at some positions."""
        log_joint = self.model.code_log_prior
        for position in read:
            example = person.examples[position]
            first = self.first_cell.get(_key(example))
            if first is not None:  # a question that nobody in training was asked tells nothing
                log_joint = log_joint + self.log_p[first + _given(example)]
        return np.exp(log_joint - logsumexp(log_joint))

    def shares(self, person: PersonSequence, read: Sequence[int], target: int) -> np.ndarray:
        """Return (A,) the probability of each answer to the target; uniform for a question that nobody was asked."""
        return self._by_cluster(person.examples[target]) @ self.posterior(person, read)

    def predict(
        self, people: Sequence[PersonSequence], read: Sequence[Sequence[int]], targets: Sequence[int]
    ) -> list[np.ndarray]:
        """Return (A,) `shares` of each person's target, as a predictor that can be compared with others."""
        return [self.shares(p, shown, t) for p, shown, t in zip(people, read, targets, strict=True)]

    def information(self, person: PersonSequence, read: Sequence[int], positions: Sequence[int]) -> np.ndarray:
        """Return (P,) the nats that the answer at each of `P` positions is expected to tell about the cluster."""
        gain = np.zeros(len(positions))  # a question that nobody in training was asked tells nothing
        cells = {
            row: range(first, first + len(person.examples[position].options))
            for row, position in enumerate(positions)
            if (first := self.first_cell.get(_key(person.examples[position]))) is not None
        }
        if cells:
            questions = Observations.of_questions("choice", list(cells.values()))
            gain[list(cells)] = information_gain(self.model, self.posterior(person, read), questions, self.log_p)
        return gain

    def _by_cluster(self, example: Example) -> np.ndarray:
        """Return (A, K) what each cluster answers."""
        first, n = self.first_cell.get(_key(example)), len(example.options)
        return np.full((n, len(self.prevalence)), 1 / n) if first is None else np.exp(self.log_p[first : first + n])


def _key(example: Example) -> Key:
    return example.question, example.options


def _given(example: Example) -> int:
    return example.options.index(example.output)
