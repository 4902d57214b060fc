"""What is known of some raters: a posterior over the states of a `RaterModel`, and the predictions that follow.

Memberships, intervals and rater terms are read off the posterior; the probability of an answer is averaged over it.
Knows nothing of how the posterior was obtained.

Shapes: `N` questions, `M` distinct judgements, `R` raters, `U` texts, `B` basis rewards, `C` codes, `T` combinations
of rater terms, `S = C T` states, `A` answers.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from scipy.sparse import csr_array
from scipy.special import logsumexp
from torch import Tensor

from reward_models.judgements.encoding import Encoded
from reward_models.raters.observation import Observations
from reward_models.raters.predictors import n_answers, n_possible_answers, positions
from reward_models.raters.state_grid import normal_grid, slices
from reward_models.raters.uncertain_choice import uncertain_choice


if TYPE_CHECKING:
    from reward_models.raters.rater_model import RaterModel


__all__ = ["OfRaters", "Placement"]


NODES_BY_SPREAD = ((1.5, 5), (5.0, 31), (np.inf, 61))
"""Nodes of the average over an uncertain reward, by its largest standard deviation in logits. Answers change within a
logit or two, and nodes that lie further apart jump over that: of five nodes at 7 logits one has half of the mass."""


@dataclass(frozen=True)
class Placement:
    """Posterior over the states of each of some raters; `RaterModel.adapt` makes it.

    Attributes:
        model: How raters vary.
        rater_ids: `R` names.
        posterior: (R, S) over the model's states.
        strangers: (S,) what is taken for raters who are not known; None: the model's prior. See `by_judgements`.

    Example:
        A population with two equally large clusters, and one rater who almost surely belongs to the first:

        >>> from reward_models import RaterModel
        >>> from reward_models.raters.rater_model import KindTerms
        >>> model = RaterModel("mixture", np.eye(2), np.log([0.5, 0.5]), {"choice": KindTerms()})
        >>> placement = Placement(model, ["ann"], np.array([[0.99, 0.01]]))
        >>> placement.memberships().tolist()
        [[0.99, 0.01]]
        >>> placement.select(["ann", "somebody else"]).round(2).tolist()
        [[0.99, 0.01], [0.5, 0.5]]
    """

    model: RaterModel
    rater_ids: list[str]
    posterior: np.ndarray
    strangers: np.ndarray | None = None

    def code_posterior(self) -> np.ndarray:
        """Sum the rater terms out: (R, C) posterior over codes."""
        return self._by_code().sum(2)

    def _by_code(self) -> np.ndarray:
        """(R, C, T) posterior."""
        return self.posterior.reshape(len(self.posterior), len(self.model.codes), len(self.model.term_grid[1]))

    def memberships(self) -> np.ndarray:
        """Return the (R, B) posterior mean of the code; for a mixture the probability of each cluster."""
        return self.code_posterior() @ self.model.codes

    def intervals(self, level: float = 0.95) -> tuple[np.ndarray, np.ndarray]:
        """Return the (R, B) lower and upper ends of the posterior interval of each coordinate of the code.

        For a mixture each coordinate is 0 or 1; its interval is [0, 1] unless one of the two values has at least
        `level` of the probability.
        """
        posterior = self.code_posterior()
        low, high = (np.empty((len(posterior), self.model.n_basis)) for _ in range(2))
        for column in range(self.model.n_basis):
            values, group = np.unique(self.model.codes[:, column], return_inverse=True)
            mass = np.zeros((len(posterior), len(values)))
            np.add.at(mass.T, group, posterior.T)
            cumulative = mass.cumsum(1)
            last = len(values) - 1
            low[:, column] = values[np.minimum((cumulative < (1 - level) / 2).sum(1), last)]
            high[:, column] = values[np.minimum((cumulative < (1 + level) / 2 - 1e-12).sum(1), last)]
        return low, high

    def terms(self) -> dict[str, np.ndarray]:
        """Return the posterior mean (R,) of each rater term; named `kind.term` if there are several kinds."""
        points, _ = self.model.term_grid
        weight = self._by_code().sum(1)
        several = len(self.model.terms) > 1
        return {
            f"{kind}.{name}" if several else name: weight @ (self.model.terms[kind].sd[name] * points[:, i])
            for i, (kind, name) in enumerate(self.model.term_names)
        }

    def of_kind(self, kind: str) -> Placement:
        """Sum the terms of other kinds of judgements out: what a prediction of one kind needs."""
        if list(self.model.terms) == [kind]:
            return self
        sizes = [len(self.model.of_kind(other).term_grid[1]) for other in self.model.terms]
        others = tuple(2 + i for i, other in enumerate(self.model.terms) if other != kind)

        def summed(posterior: np.ndarray) -> np.ndarray:
            by_kind = posterior.reshape(len(posterior), len(self.model.codes), *sizes)
            return by_kind.sum(others).reshape(len(by_kind), -1)

        strangers = None if self.strangers is None else summed(self.strangers[None])[0]
        return Placement(self.model.of_kind(kind), self.rater_ids, summed(self.posterior), strangers)

    def select(self, rater_ids: Sequence[str]) -> np.ndarray:
        """Return the (len, S) posterior of the named raters; `strangers` or the prior for a rater who is not known."""
        unknown = np.exp(self.model.log_prior) if self.strangers is None else self.strangers
        table = np.concatenate([self.posterior, unknown[None]])
        return table[positions(rater_ids, self.rater_ids)]

    def by_judgements(self, enc: Encoded | Sequence[Encoded]) -> Placement:
        """Return the same with strangers predicted as whoever gave a random judgement, not as a random rater.

        The prior counts raters. Where a few raters gave most of the judgements, what is scored later is mostly theirs,
        too, and a model that counts judgements, such as plain Bradley-Terry, then predicts strangers better. Here the
        posteriors of the known raters, memberships and terms together, are averaged with the number of their
        judgements as weights. How known raters are predicted, and new ones adapted, does not change.

        Args:
            enc: The judgements of the known raters, in one table or one of each kind.

        Example:
            >>> from reward_models import fit_raters, planted_judgements
            >>> enc = planted_judgements("rating", num_raters=10).judgements.encode()
            >>> fit = fit_raters(enc)
            >>> busy = enc.select(np.isin(enc.rater, np.flatnonzero(fit.responsibilities[:, 0] > 0.5)))
            >>> placement = fit.placement.by_judgements(busy)  # all judgements are of the first cluster
            >>> (placement.select(["somebody"]).reshape(2, -1).sum(1) > 0.9).tolist()
            [True, False]
        """
        weight = np.zeros(len(self.rater_ids) + 1)  # the last entry is of raters who are not known
        for table in [enc] if isinstance(enc, Encoded) else enc:
            np.add.at(weight, positions(table.rater_ids, self.rater_ids)[table.rater], table.weight)
        weight = weight[:-1]
        if not weight.sum():
            return self
        return replace(self, strangers=weight @ self.posterior / weight.sum())

    def adapt(self, enc: Encoded | Sequence[Encoded], rewards: np.ndarray | Sequence[np.ndarray]) -> Placement:
        """Return the placement of the raters of other judgements; strangers are predicted as before.

        Args:
            enc: Their judgements, in one table or one of each kind.
            rewards: (U, B) basis rewards of the texts of each table.
        """
        return replace(self.model.adapt(enc, rewards), strangers=self.strangers)

    def log_probs(
        self,
        enc: Encoded,
        rewards: np.ndarray,
        variance: np.ndarray | None = None,
        *,
        code_variance: np.ndarray | None = None,
    ) -> np.ndarray:
        """Compute the log-probability of every possible answer, averaged over the posterior of the rater.

        Args:
            enc: `N` questions; their labels are ignored.
            rewards: (U, B) basis rewards of `enc.texts`.
            variance: (U, B) variance of basis rewards that are predictions themselves, independent of each other;
                averaged over. None: the rewards are exact.
            code_variance: (U, C) variance of the reward of each text for a rater with each code, where basis rewards
                share a part of their uncertainty; replaces `variance`.

        Returns:
            (N, A) nats; see `predictors.Predictor`.
        """
        if list(self.model.terms) != [enc.kind]:
            return self.of_kind(enc.kind).log_probs(enc, rewards, variance, code_variance=code_variance)
        answers = n_answers(enc)
        if code_variance is None and variance is not None:
            code_variance = variance @ (self.model.codes**2).T
        posterior = self.select(enc.rater_ids)
        questions, question = Observations.from_encoded(enc).questions()
        log_p = np.full((len(enc), answers), -np.inf)
        order = np.argsort(question, kind="stable")
        start = 0
        basis = torch.from_numpy(rewards)
        possible = n_possible_answers(enc, self.model.terms[enc.kind].shared)
        with torch.no_grad(), np.errstate(divide="ignore"):
            for part in slices(len(questions.label), self.model.n_states * answers):
                block = questions.select(part)
                stop = start + int(np.searchsorted(question[order[start:]], part.stop))
                rows = order[start:stop]
                for answer, table in enumerate(self._answer_probs(block, possible, basis, code_variance)):
                    for some in slices(len(rows), self.model.n_states):
                        at = rows[some]
                        p = np.einsum("ns,ns->n", posterior[enc.rater[at]], table[question[at] - part.start])
                        log_p[at, answer] = np.log(p)
                start = stop
        return log_p - logsumexp(log_p, axis=1, keepdims=True)

    def _answer_probs(
        self, questions: Observations, answers: int, basis: Tensor, code_variance: np.ndarray | None
    ) -> Iterator[np.ndarray]:
        """Yield the (M, S) probability of each answer in each state, averaged over uncertain rewards."""
        cells = [questions.answering(answer) for answer in range(answers)]
        if code_variance is None:
            yield from (self.model.table(of_answer, basis).exp().numpy() for of_answer in cells)
        elif questions.kind == "choice":
            logits = torch.stack([self.model.table(of_answer, basis) for of_answer in cells], dim=1)
            sd = questions.gather(torch.from_numpy(code_variance)).sqrt()  # (M, A, C)
            probs = uncertain_choice(logits, sd.repeat_interleave(self.model.n_states // sd.shape[2], dim=2))
            yield from probs.movedim(1, 0).numpy()
        else:
            yield from (self._averaged(of_answer, basis, code_variance) for of_answer in cells)

    def _averaged(self, cells: Observations, basis: Tensor, code_variance: np.ndarray) -> np.ndarray:
        """(M, S) probability of ratings or pairs in each state, averaged over uncertain rewards."""
        # Of a rating's reward, or of the gap between two rewards; (M, C).
        sd = cells.gather(torch.from_numpy(code_variance)).sum(1).sqrt()
        shared = self.model.terms[cells.kind].shared
        widest = sd.amax(1) * float(np.exp(shared.get("log_scale_mean", np.zeros(1))[0]))
        averaged = torch.zeros((len(sd), self.model.n_states), dtype=torch.float64)
        narrowest = -1.0
        for limit, nodes in NODES_BY_SPREAD:
            rows = torch.nonzero((widest > narrowest) & (widest <= limit))[:, 0]
            narrowest = limit
            if not len(rows):
                continue
            block, spread = cells.select(rows), sd[rows]
            values, log_weight = normal_grid(nodes)
            for z, weight in zip(values, np.exp(log_weight), strict=True):
                averaged[rows] += weight * self.model.table(block, basis, 0, float(z) * spread).exp()
        return averaged.numpy()

    def information(self, enc: Encoded, rewards: np.ndarray) -> np.ndarray:
        """Compute how much judgements of these raters tell about each basis reward, the others held fixed.

        Args:
            enc: Judgements of these raters.
            rewards: (U, B) basis rewards of `enc.texts`.

        Returns:
            (U, B) Fisher information, in 1 / logits squared.
        """
        if list(self.model.terms) != [enc.kind]:
            return self.of_kind(enc.kind).information(enc, rewards)
        cells, cell = Observations.from_encoded(enc).distinct()
        shape = (enc.n_raters, len(cells.label))
        counts = csr_array((enc.weight, (enc.rater, cell.numpy())), shape=shape)
        expected = counts.T @ self.select(enc.rater_ids)
        basis = torch.from_numpy(rewards)
        with torch.no_grad():
            return self.model.reward_information(
                cells,
                expected,
                enc.n_texts,
                lambda a, step: self.model.table(cells, basis, a, step),
            )


class OfRaters:
    """What every fitted jury says of its raters, whatever it was fitted to.

    Attributes:
        model: States of a rater and their prior.
        placement: Posterior of the training raters.

    Example:
        >>> from reward_models import fit_raters, planted_judgements
        >>> fit = fit_raters(planted_judgements("rating").judgements.encode(), "mixture", 2)
        >>> fit.num_clusters, fit.prevalence.round(1).tolist(), fit.responsibilities.shape
        (2, [0.5, 0.5], (30, 2))
    """

    model: RaterModel
    placement: Placement

    @property
    def num_clusters(self) -> int:
        """Number of clusters `K` of a mixture or simplex; the rank of a factor model."""
        return self.model.n_basis - (self.model.membership == "factor")

    @property
    def prevalence(self) -> np.ndarray:
        """Mean code (B,) of the population; for a mixture the share of raters in each cluster."""
        return np.exp(self.model.code_log_prior) @ self.model.codes

    @property
    def rater_ids(self) -> list[str]:
        """Names of the training raters."""
        return self.placement.rater_ids

    @property
    def responsibilities(self) -> np.ndarray:
        """Posterior mean code (R, B) of `rater_ids`; for a mixture the posterior over clusters."""
        return self.placement.memberships()
