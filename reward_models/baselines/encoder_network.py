"""The network behind `encoder`: from the labels of a rater to a normal posterior over code and rater terms.

One learnt step of Bayes' rule. At the population's rewards, with the rater terms inferred from the labels, every
judgement y of a rater has a score (the gradient of its log-likelihood by rewards and terms) and an information (the
variance of the score over the possible answers). With loadings V of the texts, code and terms in units
of their prior standard deviations,

    precision = I + c' sum_i E_y[u_iy u_iy'] c,    mean = precision^-1 sum_i u_iy,    u_iy = (score by rewards) V,

a sum over judgements, hence independent of their order, and the prior without judgements; then
`mean + tanh(mean W_1) W_2`, an odd function. V, c, W_1 and W_2 are learnt by predicting other labels of the rater.

Swap consistency, m(swapped labels) = -m(labels), is exact: the code is the difference between the codes of the labels
D and of their mirror image, each weighted by its probability for a rater of this population,

    m(D) = w mu(D) - (1 - w) mu(swap D),    w = P(D) / (P(D) + P(swap D)),

where P sums the rater terms out. For a rater with twenty labels w is near 0 or 1, and the constraint costs nothing.
Choices among options have no mirror image and no such constraint.

Knows nothing of training, of tables of texts or of predictions.

Shapes: `N` judgements, `Y` answers, `A` alternatives, `R` raters, `B` code dimensions, `T` rater terms, `P = B + T`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from scipy.sparse import csr_array
from scipy.special import logsumexp
from torch import Tensor, nn

from reward_models.judgements.encoding import Encoded
from reward_models.raters.observation import Observations
from reward_models.raters.predictors import n_answers, n_possible_answers
from reward_models.raters.rater_model import RaterModel


__all__ = ["CodeNetwork", "LabelScores", "Side", "score_labels"]

HIDDEN = 16


@dataclass(frozen=True)
class Side:
    """Scores of judgements, either as they are or mirrored.

    Attributes:
        label: (N,) answer.
        prob: (N, Y) probability of each answer.
        by_reward: (N, Y, A) score of each answer by the rewards of the alternatives.
        by_term: (N, Y, T) score by the rater terms, in units of their standard deviations.
        terms: (R, T) posterior mean of the rater terms, in the same units.
        log_evidence: (R,) log-likelihood of the rater's labels, the terms summed out.
    """

    label: Tensor
    prob: Tensor
    by_reward: Tensor
    by_term: Tensor
    terms: Tensor
    log_evidence: Tensor


@dataclass(frozen=True)
class LabelScores:
    """Input of the network; `score_labels` makes it.

    Attributes:
        alternatives: (N, A) text index, 0 at the padding, whose score is 0.
        count: (N,) how often each judgement was given.
        straight: Scores of the labels as they are.
        mirrored: Scores of their mirror image; None if there is none, or without swap consistency.
    """

    alternatives: Tensor
    count: Tensor
    straight: Side
    mirrored: Side | None


def score_labels(
    enc: Encoded, model: RaterModel, rewards: np.ndarray, *, context: np.ndarray | None = None, swap: bool = True
) -> LabelScores:
    """Score judgements at the population's rewards and the terms of their raters.

    Args:
        enc: `N` judgements.
        model: The population: one reward for everybody, and how rater terms vary around it.
        rewards: (U, 1) the population's rewards of `enc.texts`.
        context: (N,) True for judgements that the rater terms are inferred from; None: all.
        swap: Score the mirror image too, where the kind has one.

    Returns:
        Scores of all `N` judgements; only the context was used to infer the rater terms.

    Example:
        A coin that shows heads has the score +1/2 for the reward of heads and -1/2 for that of tails:

        >>> from reward_models import planted_judgements
        >>> from reward_models.raters.rater_model import KindTerms
        >>> model = RaterModel("mixture", np.eye(1), np.zeros(1), {"preference": KindTerms()})
        >>> enc = planted_judgements("preference", num_raters=2, num_items=2).judgements.encode()
        >>> scores = score_labels(enc, model, np.zeros((4, 1)))
        >>> scores.straight.by_reward[0, 0].tolist(), scores.straight.prob[0].tolist()
        ([0.5, -0.5], [0.5, 0.5])
    """
    model.check(enc, rewards)
    obs = Observations.from_encoded(enc)
    cells, cell = obs.distinct()
    known = np.ones(len(enc), dtype=bool) if context is None else context
    counts = csr_array(
        (enc.count[known], (enc.rater[known], cell.numpy()[known])), shape=(enc.n_raters, len(cells.label))
    )
    answers = n_possible_answers(enc, model.shared)
    reward = torch.from_numpy(rewards)

    def side(mirror: bool) -> Side:
        judged = replace(cells, label=_mirror(enc, cells.label)) if mirror else cells
        with torch.no_grad():
            joint = np.tile(model.log_prior, (enc.n_raters, 1))
            if len(enc):
                joint += counts @ model.table(judged, reward).numpy()
        evidence = logsumexp(joint, axis=1)
        terms = np.exp(joint - evidence[:, None]) @ model.term_grid[0]
        prob, by_reward, by_term = _scores(obs, model, obs.gather(reward)[:, :, 0], torch.from_numpy(terms), answers)
        label = _mirror(enc, obs.label) if mirror else obs.label
        return Side(label[:, 0], prob, by_reward, by_term, torch.from_numpy(terms), torch.from_numpy(evidence))

    mirrored = side(True) if swap and enc.kind != "choice" else None
    return LabelScores(obs.alternatives, obs.count, side(False), mirrored)


def _mirror(enc: Encoded, label: Tensor) -> Tensor:
    """Opposite answers: the other response of a pair, the level mirrored in the scale; a tie stays a tie."""
    if enc.kind == "preference":
        return torch.where(label < 2, 1 - label, label)
    return n_answers(enc) - 1 - label


@torch.enable_grad()
def _scores(
    obs: Observations, model: RaterModel, rewards: Tensor, terms: Tensor, answers: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Probability (N, Y) of each answer and its scores by rewards (N, Y, A) and terms (N, Y, T)."""
    names = list(model.term_sd)
    shared = {name: torch.from_numpy(value) for name, value in model.shared.items()}
    prob, by_reward, by_term = [], [], []
    for answer in range(answers):
        r = rewards[:, :, None].clone().requires_grad_()
        z = [terms[obs.rater, i, None].clone().requires_grad_() for i in range(len(names))]
        terms_of = {name: model.term_sd[name] * z[i] for i, name in enumerate(names)}
        log_lik = obs.answering(answer).state_log_lik(r, shared | terms_of)
        gradients = torch.autograd.grad(log_lik.sum(), [r, *z], allow_unused=True, materialize_grads=True)
        prob.append(log_lik.detach()[:, 0].exp())
        by_reward.append(gradients[0][:, :, 0])
        by_term.append(torch.cat([r.new_zeros(len(r), 0), *gradients[1:]], dim=1))
    return torch.stack(prob, 1), torch.stack(by_reward, 1), torch.stack(by_term, 1)


class CodeNetwork(nn.Module):
    """The trained parameters of the network described in the module.

    Attributes:
        num_codes: `B`.
        num_terms: `T`.
    """

    def __init__(self, num_codes: int, num_terms: int) -> None:
        super().__init__()
        self.num_codes, self.num_terms = num_codes, num_terms
        self.log_trust = nn.Parameter(torch.zeros(num_codes + num_terms, dtype=torch.float64))
        self.inward = nn.Parameter(0.3 * torch.randn(num_codes, HIDDEN, dtype=torch.float64))
        self.outward = nn.Parameter(torch.zeros(HIDDEN, num_codes, dtype=torch.float64))

    def forward(
        self, scores: LabelScores, loadings: Tensor, rows: Tensor, rater: Tensor, raters: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Infer the codes and terms of raters.

        Args:
            scores: Scores of the table.
            loadings: (U, B) loadings `V` of the texts.
            rows: (n,) judgements to infer them from.
            rater: (n,) position of their rater in `raters`.
            raters: (r,) raters to adapt.

        Returns:
            (r, P) means of code and terms, in units of their prior, and (r, P, P) covariances.
        """
        mean, precision = self._one_side(scores, scores.straight, loadings, rows, rater, raters)
        code, terms = mean.split([self.num_codes, self.num_terms], dim=1)
        if scores.mirrored is not None:
            opposite, _ = self._one_side(scores, scores.mirrored, loadings, rows, rater, raters)
            likelier = torch.sigmoid(scores.straight.log_evidence[raters] - scores.mirrored.log_evidence[raters])[
                :, None
            ]
            code = likelier * code - (1.0 - likelier) * opposite[:, : self.num_codes]
        return torch.cat([code, terms], dim=1), torch.linalg.inv(precision)

    def _one_side(
        self, scores: LabelScores, side: Side, loadings: Tensor, rows: Tensor, rater: Tensor, raters: Tensor
    ) -> tuple[Tensor, Tensor]:
        """(r, P) mean and (r, P, P) precision from the labels or from their mirror image."""
        of_text = loadings[scores.alternatives[rows]]
        u = torch.cat([torch.einsum("nya,nab->nyb", side.by_reward[rows], of_text), side.by_term[rows]], dim=-1)
        count = scores.count[rows, None]
        of_label = u[torch.arange(len(rows)), side.label[rows]]
        information = torch.einsum("ny,nyp,nyq->npq", side.prob[rows], u, u).flatten(1)
        size = u.shape[-1]
        total = u.new_zeros(len(raters), size).index_add(0, rater, count * of_label)
        summed = u.new_zeros(len(raters), size * size).index_add(0, rater, count * information)
        trust = (0.5 * self.log_trust).exp()
        precision = torch.eye(size, dtype=u.dtype) + trust[:, None] * trust * summed.reshape(-1, size, size)
        # The scores were computed at the inferred terms; the prior pulls from there to 0.
        prior = nn.functional.pad(side.terms[raters], (self.num_codes, 0))
        step = torch.linalg.solve(precision, (total - prior)[:, :, None])[:, :, 0]
        code = step[:, : self.num_codes]
        code = code + torch.tanh(code @ self.inward) @ self.outward
        return torch.cat([code, side.terms[raters] + step[:, self.num_codes :]], dim=1), precision
