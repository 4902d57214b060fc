"""Do the clusters explain why answers go together? Bivariate residuals between pairs of questions.

A mixture says that two answers of one person have nothing to do with each other once the cluster (and the person's
terms) is known. Where two questions ask nearly the same, that is wrong: the fit then spends a cluster on the pair of
questions, or misses what it should explain. For each pair the table of both answers is compared with the one that the
fit expects. The residual is Pearson's X² per degree of freedom (Vermunt and Magidson's BVR). It grows with the number
of people and has no simple distribution (Oberski, van Kollenburg and Vermunt 2013,
https://doi.org/10.1007/s11634-013-0146-2), so that the share of people whose pair of answers is unexplained stands
beside it. Knows nothing of traits or models.

Shapes: `R` raters, `I` items, `C` cells (all answers of all items), `S` states of a rater.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy.sparse import coo_array, diags_array

from reward_models.fitting.rater_fit import RaterFit
from reward_models.judgements.encoding import Encoded
from reward_models.raters.observation import Observations
from reward_models.raters.predictors import n_answers
from reward_models.stats.verdicts import MIN_RATERS


__all__ = ["PairResidual", "local_dependence"]

MOST_ITEMS = 200  # of which pairs are formed: the ones with most answers


@dataclass(frozen=True)
class PairResidual:
    """How far the joint answers to two items are from what the clusters explain.

    Attributes:
        first: Item id.
        second: Item id.
        n: Raters who answered both.
        residual: Pearson's X² over its degrees of freedom, for the effective number of raters; about 1 if the fit is
            right.
        unexplained: Total variation between the table of both answers and the expected one, 0 to 1: the share of
            people whose pair of answers would have to be another one.
        alone: The same for the answers of each item as if they had nothing to do with each other, for comparison.

    Example:
        >>> PairResidual("parks", "trees", 120, residual=9.5, unexplained=0.12, alone=0.3).residual
        9.5
    """

    first: str
    second: str
    n: int
    residual: float
    unexplained: float
    alone: float


def local_dependence(fit: RaterFit, enc: Encoded) -> list[PairResidual]:
    """Compute the residuals of all pairs of items that at least twelve raters answered, largest residual first.

    Args:
        fit: A fit of any membership; rater terms are part of what it explains.
        enc: The judgements it was fitted to. Of more than 200 items those with most answers are compared.

    Example:
        Nine questions, and a tenth that everybody answers as the ninth:

        >>> import pandas as pd
        >>> from reward_models import Judgements, fit_mixture, planted_judgements
        >>> frame = planted_judgements("choice", num_raters=200, num_items=9).judgements.frame
        >>> again = frame[frame["item_id"] == frame["item_id"].iloc[8]].assign(item_id="again", prompt="Once more?")
        >>> enc = Judgements.from_frame(pd.concat([frame, again], ignore_index=True), kind="choice").encode()
        >>> worst, second, *_ = local_dependence(fit_mixture(enc, 2), enc)
        >>> worst.first, round(worst.unexplained, 1), worst.residual > 10 * second.residual
        ('again', 0.1, True)
    """
    items = np.sort(np.argsort(-np.bincount(enc.item, minlength=enc.n_items), kind="stable")[:MOST_ITEMS])
    width = n_answers(enc)
    place = np.full(enc.n_items, -1)
    place[items] = np.arange(len(items))
    kept = place[enc.item] >= 0
    n_cells = len(items) * width
    cell = place[enc.item[kept]] * width + enc.item_label[kept]
    answered = coo_array((np.ones(kept.sum()), (enc.rater[kept], cell)), shape=(enc.n_raters, n_cells)).tocsr()
    answered.data[:] = np.minimum(answered.data, 1.0)  # anonymous raters may repeat an answer
    shape = (len(items), width, len(items), width)
    n_both = (answered.T @ answered).toarray().reshape(shape)
    # By sampling weights that add up to the effective number of raters, to which equal weights add up as well.
    scale = enc.effective_raters / enc.rater_weight.sum()
    observed = (answered.T @ diags_array(scale * enc.rater_weight) @ answered).toarray().reshape(shape)
    prior = np.exp(fit.model.log_prior)
    p = _answer_probs(fit, enc, items, width)  # (I, A, S)
    expected = np.einsum("ias,jbs,s->iajb", p, p, prior, optimize=True)
    pairs = [
        _residual(
            observed[i, :, j], expected[i, :, j], n_both[i, :, j].sum(), *(enc.item_ids[items[k]] for k in (i, j))
        )
        for i in range(len(items))
        for j in range(i + 1, len(items))
        if n_both[i, :, j].sum() >= MIN_RATERS
    ]
    return sorted(pairs, key=lambda pair: -pair.residual)


def _answer_probs(fit: RaterFit, enc: Encoded, items: np.ndarray, width: int) -> np.ndarray:
    """(I, A, S) probability of each answer to each item in each state of a rater, 0 where it is not offered."""
    first = np.full(enc.n_items, -1)
    rows = np.arange(len(enc))[~enc.swapped]
    first[enc.item[rows[::-1]]] = rows[::-1]
    questions = Observations.from_encoded(enc.select(first[items]))
    rewards = torch.from_numpy(fit.known_rewards(enc))
    offered = np.ones((len(items), width), dtype=bool)
    if enc.kind == "choice":
        offered[:] = enc.item_alternatives[items] >= 0
    p = np.zeros((len(items), width, fit.model.n_states))
    possible = width if enc.kind != "preference" or "log_tie_mean" in fit.model.shared else 2
    with torch.no_grad():
        for answer in range(possible):
            some = np.flatnonzero(offered[:, answer])
            asked = questions.select(torch.from_numpy(some)).answering(answer)
            p[some, answer] = fit.model.table(asked, rewards).exp().numpy()
    return p


def _residual(observed: np.ndarray, expected: np.ndarray, n_raters: int, first: str, second: str) -> PairResidual:
    n = observed.sum()
    expected = expected / expected.sum()
    possible = expected > 0
    cells = (expected.sum(axis=1) > 0).sum(), (expected.sum(axis=0) > 0).sum()
    degrees = max((cells[0] - 1) * (cells[1] - 1), 1)
    squared = ((observed - n * expected) ** 2)[possible] / (n * expected[possible])
    shares = observed / n
    independent = shares.sum(axis=1, keepdims=True) * shares.sum(axis=0, keepdims=True)
    return PairResidual(
        first,
        second,
        int(n_raters),
        float(squared.sum() / degrees),
        float(np.abs(shares - expected).sum() / 2),
        float(np.abs(shares - independent).sum() / 2),
    )
