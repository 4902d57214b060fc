"""Where a joint fit starts: the consensus, and tastes along which raters may differ.

The directions in which raters differ are the principal components of the raters' scores (gradients of their
log-likelihoods) under the prior, which works for dense and sparse tables alike; where each text has many judgements,
the clusters of a fit to labels alone are the better start. Knows nothing of how strong the parts of a reward are.

Shapes: `R` raters, `U` texts, `d` coordinates, `J` tastes, `M` distinct judgements.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from scipy.sparse import coo_array, csr_array

from reward_models.fitting.joint.problem import JointProblem, Params
from reward_models.fitting.joint.strengths import Consensus
from reward_models.fitting.marginal import Problem
from reward_models.fitting.rater_fit import fit_raters
from reward_models.judgements.encoding import Encoded
from reward_models.raters.predictors import positions
from reward_models.seeds import seeded_rng


__all__ = ["start_from", "taste_directions", "taste_starts"]

START_TASTE = 0.7  # root mean square of a taste at the start, in logits
SPARE_DIRECTIONS = 2  # directions beyond the number of tastes that further starts are drawn from


def taste_starts(
    problem: JointProblem, one_cluster: JointProblem, tables: list[Encoded], consensus: Consensus
) -> Iterator[Params]:
    """Yield tastes to start from, `weight` (d, J) and `residual` (U, J), one per restart; one for a factor model.

    Where each text has many judgements, the first are the tastes of a fit to labels alone: features add little to
    them, and other starts often end in modes that predict worse. Directions of raters' scores are found in sparse
    tables too. Further starts draw clusters of raters by their labels, and turn the directions.

    Args:
        problem: The problem to start, with its strengths.
        one_cluster: The same judgements with one cluster.
        tables: The same judgements.
        consensus: Fit of `one_cluster`.

    Example:
        >>> from reward_models import FitConfig, planted_judgements
        >>> from reward_models.fitting.joint.strengths import fit_consensus
        >>> table = planted_judgements("rating").judgements.encode()
        >>> one, two = (JointProblem.of([table], [np.zeros((12, 0))], "mixture", k, FitConfig()) for k in (1, 2))
        >>> [start["residual"].shape for start in taste_starts(two, one, [table], fit_consensus(one))]
        [(12, 1), (12, 1), (12, 1)]
    """
    config = problem.config
    rng = seeded_rng(config.seed, "starts of joint fit")
    n_tastes = problem.n_parts - 1
    directions = taste_directions(one_cluster, consensus, n_tastes + SPARE_DIRECTIONS, rng)

    def turned(number: int) -> Params:
        turn = np.eye(directions["weight"].shape[1], n_tastes)
        if number:
            turn = np.linalg.qr(rng.normal(size=turn.shape))[0]
        return {name: values @ turn for name, values in directions.items()}

    if problem.model.membership == "factor":
        yield turned(0)
        return
    by_labels = Problem.of(tables, problem.model.membership, problem.num_clusters, "linear", config)
    to_tastes = np.linalg.pinv(problem.mixing)[:, 1:]
    dense = problem.density == "many"
    for number in range(config.restarts):
        if dense and number == 0:
            labels = fit_raters(tables, problem.model.membership, problem.num_clusters, config=config)
            yield problem.split(labels.rewards[positions(problem.texts, labels.texts)] @ to_tastes)
        elif (number % 3 == 0) == dense or number % 3 == 2:
            yield problem.split(by_labels.start(rng)["rewards"] @ to_tastes)
        else:
            yield turned(number // 3)


def start_from(problem: JointProblem, consensus: Consensus, tastes: Params) -> Params:
    """Return parameters at the consensus, with tastes of a usual size.

    Example:
        >>> from reward_models import FitConfig, planted_judgements
        >>> from reward_models.fitting.joint.strengths import fit_consensus
        >>> table = planted_judgements("rating").judgements.encode()
        >>> one, two = (JointProblem.of([table], [np.zeros((12, 0))], "mixture", k, FitConfig()) for k in (1, 2))
        >>> tastes = {"weight": np.zeros((0, 1)), "residual": np.ones((12, 1))}
        >>> start_from(two, fit_consensus(one), tastes)["residual"].shape  # texts, consensus and taste
        (12, 2)
    """
    params = problem.start() | {k: v for k, v in consensus.params.items() if "." in k}
    for name in ("weight", "residual"):
        params[name] = np.column_stack([consensus.params[name], tastes[name]])
    with torch.no_grad():
        parts = problem.parts({k: torch.from_numpy(params[k]) for k in ("weight", "residual")}).numpy()[:, 1:]
    size = np.sqrt(np.average(parts**2, axis=0, weights=np.maximum(problem.judged, 1e-9)))
    for name in ("weight", "residual"):
        params[name][:, 1:] *= START_TASTE / np.maximum(size, 1e-9)
    return params


def taste_directions(problem: JointProblem, consensus: Consensus, count: int, rng: np.random.Generator) -> Params:
    """Find the directions of parts along which raters differ most from the consensus, strongest first.

    Args:
        problem: With one cluster.
        consensus: Its fit.
        count: Number of directions.
        rng: Source of the randomised range finder.

    Returns:
        `weight` (d, count) and `residual` (U, count), each direction of unit length.

    Example:
        >>> from reward_models import FitConfig, planted_judgements
        >>> from reward_models.fitting.joint.strengths import fit_consensus
        >>> table = planted_judgements("rating").judgements.encode()
        >>> problem = JointProblem.of([table], [np.zeros((12, 0))], "mixture", 1, FitConfig())
        >>> directions = taste_directions(problem, fit_consensus(problem), 1, np.random.default_rng(0))
        >>> directions["residual"].shape
        (12, 1)
    """
    s, t = consensus.strengths.features[0], consensus.strengths.residual[0]
    scores = _rater_scores(problem.with_strengths(consensus.strengths), consensus.params)
    by_residual, by_weight = scores * t, (scores @ problem.coordinates) * s
    d = by_weight.shape[1]
    basis = rng.normal(size=(d + len(problem.texts), count + 4))
    for _ in range(4):
        basis, _ = np.linalg.qr(basis)
        of_rater = by_weight @ basis[:d] + by_residual @ basis[d:]
        basis = np.vstack([by_weight.T @ of_rater, by_residual.T @ of_rater])
    basis, _ = np.linalg.qr(basis)
    _, _, turn = np.linalg.svd(by_weight @ basis[:d] + by_residual @ basis[d:], full_matrices=False)
    directions = np.zeros((d + len(problem.texts), count))
    directions[:, : min(count, len(turn))] = (basis @ turn.T)[:, :count]
    return {"weight": directions[:d], "residual": directions[d:]}


def _rater_scores(problem: JointProblem, params: Params) -> csr_array:
    """(R, U) derivative of the log-likelihood of each rater by the reward of each text, one reward for all."""
    tensors = {name: torch.from_numpy(value) for name, value in params.items()}
    total = csr_array((len(problem.rater_ids), len(problem.texts)))
    with torch.no_grad():
        rewards = problem.rewards(tensors)
        for kind in problem.kinds:
            posterior = problem.term_posterior(tensors, kind)[:, 0]  # (R, T)
            counts = kind.counts.tocoo()
            rater, cell = counts.coords
            for alternative in range(kind.cells.alternatives.shape[1]):
                slope = problem.slopes(tensors, kind, rewards, alternative)[:, 0]  # (M, T)
                score = counts.data * np.einsum("nt,nt->n", posterior[rater], slope[cell])
                if kind.cells.mask is not None:
                    score = score * kind.cells.mask[:, alternative].numpy()[cell]
                text = kind.cells.alternatives[:, alternative].numpy()[cell]
                total = total + coo_array((score, (rater, text)), shape=total.shape).tocsr()
    return csr_array(total)
