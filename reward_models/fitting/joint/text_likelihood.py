"""How probable the judgements of each text are, its reward moved, when raters are known from their other judgements.

Everything else stays at the mode of a joint fit. A judgement is averaged over the states of its rater, weighted by
what the rater's other judgements say of them: with the judgement itself counted in, a rater who gave two judgements
would explain both, and rewards would look surer than they are. Knows nothing of priors of rewards.

Shapes: `N` judgements, `M` distinct ones, `R` raters, `U` texts, `C` codes, `T` combinations of rater terms of a kind.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from reward_models.fitting.joint.problem import JointProblem, KindCounts, Params
from reward_models.raters.state_grid import slices


__all__ = ["TextLikelihood"]

SMALLEST = 1e-300


@dataclass(frozen=True)
class _OfKind:
    """Judgements of one kind: (N,) distinct judgement and weight of each, and (N, C T) states of its rater."""

    kind: KindCounts
    cell: np.ndarray
    weight: np.ndarray
    states: np.ndarray


@dataclass(frozen=True)
class TextLikelihood:
    """Log-likelihood of the judgements of each text as its reward moves; `TextLikelihood.at` makes it.

    Example:
        Votes that agree are more probable under a higher reward:

        >>> from reward_models import FitConfig, planted_judgements
        >>> table = planted_judgements("rating").judgements.encode()
        >>> agreed = table.select((table.label == 2) & (table.alternatives[:, 0] == 0))
        >>> problem = JointProblem.of([agreed], [np.zeros((12, 0))], "mixture", 1, FitConfig())
        >>> likelihood = TextLikelihood.at(problem, problem.start())
        >>> low, high = (likelihood.log_lik(np.ones(1), np.full(12, step))[0] for step in (-1.0, 1.0))
        >>> bool(high > low)
        True
    """

    problem: JointProblem
    tensors: dict[str, Tensor]
    rewards: Tensor
    kinds: list[_OfKind]

    @classmethod
    def at(cls, problem: JointProblem, params: Params) -> TextLikelihood:
        """Take the states of all raters at parameters of the problem."""
        tensors = {name: torch.from_numpy(value) for name, value in params.items()}
        with torch.no_grad():
            rewards = problem.rewards(tensors)
            of_code = problem.by_code(tensors).softmax(1).numpy()
            kinds = []
            for kind in problem.kinds:
                counts = kind.counts.tocoo()
                rater, cell = counts.coords
                posterior = problem.term_posterior(tensors, kind) * of_code[:, :, None]
                states = np.log(posterior.reshape(len(posterior), -1) + SMALLEST)[rater]
                states -= problem.table(tensors, kind, rewards).numpy().reshape(len(kind.cells.label), -1)[cell]
                states -= states.max(1, keepdims=True)
                np.exp(states, out=states)
                states /= states.sum(1, keepdims=True)
                # Sampling weights stand outside the likelihood of a rater, so they leave the states as they are.
                kinds.append(_OfKind(kind, cell, counts.data * problem.rater_weight[rater], states))
        return cls(problem, tensors, rewards, kinds)

    def log_lik(self, of_code: np.ndarray, steps: np.ndarray) -> np.ndarray:
        """Compute the (U,) log-likelihood of the judgements of each text, every other text at the mode.

        Args:
            of_code: (C,) by which a step moves the reward for a rater with each code.
            steps: (U,) steps of the texts.
        """
        total = np.zeros(len(self.problem.texts))
        for part in self.kinds:
            cells = part.kind.cells
            for alternative in range(cells.alternatives.shape[1]):
                text = cells.alternatives[:, alternative].numpy()
                step = torch.from_numpy(steps[text][:, None] * of_code)
                with torch.no_grad():
                    table = self.problem.table(self.tensors, part.kind, self.rewards, alternative, step)
                probability = table.exp().numpy().reshape(len(text), -1)
                log_lik = np.empty(len(part.cell))
                for rows in slices(len(part.cell), probability.shape[1]):
                    summed = np.einsum("ns,ns->n", part.states[rows], probability[part.cell[rows]])
                    log_lik[rows] = part.weight[rows] * np.log(summed + SMALLEST)
                if cells.mask is not None:
                    log_lik *= cells.mask[:, alternative].numpy()[part.cell]
                total += np.bincount(text[part.cell], log_lik, len(total))
        return total
