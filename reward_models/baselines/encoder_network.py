"""The network behind `encoder`: from the labels of a rater to a normal posterior over code and rater terms.

One step of Bayes' rule, learnt. At the population's rewards, with the rater terms that the labels suggest, every
judgement y of a rater has a score (the gradient of its log-likelihood by rewards and terms) and an information (the
score's variance over the answers that could have been given). With loadings V of the texts, code and terms in units
of their prior standard deviations,

    precision = I + c' sum_i E_y[u_iy u_iy'] c,    mean = precision^-1 sum_i u_iy,    u_iy = (score by rewards) V,

a sum over judgements, hence the same in any order and the prior when there are none; then
`mean + tanh(mean W_1) W_2`, an odd function. V, c, W_1 and W_2 are learnt by predicting other labels of the rater.

Swap consistency, m(swapped labels) = -m(labels), is exact: the code is the difference of what the labels D and their
mirror image say, each as far as it is the likelier of the two for a rater of this population,

    m(D) = w mu(D) - (1 - w) mu(swap D),    w = P(D) / (P(D) + P(swap D)),

where P sums the rater terms out. A rater with twenty labels has w near 0 or 1, so that the constraint costs nothing.
Choices among options have no mirror image, and no such constraint.

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
from reward_models.raters.predictors import n_answers
from reward_models.raters.rater_model import RaterModel


__all__ = ["CodeNetwork", "LabelScores", "Side", "score_labels"]

HIDDEN = 16


@dataclass(frozen=True)
class Side:
    """Scores of judgements as they are, or as their mirror image.

    Attributes:
        label: (N,) answer given.
        prob: (N, Y) probability of each answer.
        by_reward: (N, Y, A) score of each answer by the rewards of the alternatives.
        by_term: (N, Y, T) score by the rater terms, in units of their standard deviations.
        terms: (R, T) rater terms that the labels suggest, in the same units.
        log_evidence: (R,) log-likelihood of the rater's labels, terms summed out.
    """

    label: Tensor
    prob: Tensor
    by_reward: Tensor
    by_term: Tensor
    terms: Tensor
    log_evidence: Tensor


@dataclass(frozen=True)
class LabelScores:
    """What the network sees of a table.

    Attributes:
        alternatives: (N, A) text index, 0 at the padding, whose score is 0.
        weight: (N,) weight of each judgement.
        straight: The labels as they are.
        mirrored: Their mirror image; None where there is none, or swap consistency is not asked for.
    """

    alternatives: Tensor
    weight: Tensor
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
        context: (N,) judgements that place their rater; None: all.
        swap: Score the mirror image too, where the kind has one.

    Returns:
        Scores of all `N` judgements; only the context has told anything about the raters.
    """
    model.check(enc, rewards)
    obs = Observations.from_encoded(enc)
    cells, cell = obs.distinct()
    known = np.ones(len(enc), dtype=bool) if context is None else context
    counts = csr_array(
        (enc.weight[known], (enc.rater[known], cell.numpy()[known])), shape=(enc.n_raters, len(cells.label))
    )
    answers = n_answers(enc)
    if enc.kind == "preference" and "log_tie_mean" not in model.shared:
        answers = 2
    reward = torch.from_numpy(rewards)

    def side(mirror: bool) -> Side:
        seen = replace(cells, label=_mirror(enc, cells.label)) if mirror else cells
        with torch.no_grad():
            joint = np.tile(model.log_prior, (enc.n_raters, 1))
            if len(enc):
                joint += counts @ model.table(seen, reward).numpy()
        evidence = logsumexp(joint, axis=1)
        terms = np.exp(joint - evidence[:, None]) @ model.term_grid[0]
        prob, by_reward, by_term = _scores(obs, model, obs.gather(reward)[:, :, 0], torch.from_numpy(terms), answers)
        label = _mirror(enc, obs.label) if mirror else obs.label
        return Side(label[:, 0], prob, by_reward, by_term, torch.from_numpy(terms), torch.from_numpy(evidence))

    mirrored = side(True) if swap and enc.kind != "choice" else None
    return LabelScores(obs.alternatives, obs.weight, side(False), mirrored)


def _mirror(enc: Encoded, label: Tensor) -> Tensor:
    """The opposite answers: the other response of a pair, the level as far from the other end; a tie stays one."""
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
        own = {name: model.term_sd[name] * z[i] for i, name in enumerate(names)}
        log_lik = obs.answering(answer).state_log_lik(r, shared | own)
        gradients = torch.autograd.grad(log_lik.sum(), [r, *z], allow_unused=True, materialize_grads=True)
        prob.append(log_lik.detach()[:, 0].exp())
        by_reward.append(gradients[0][:, :, 0])
        by_term.append(torch.cat([r.new_zeros(len(r), 0), *gradients[1:]], dim=1))
    return torch.stack(prob, 1), torch.stack(by_reward, 1), torch.stack(by_term, 1)


class CodeNetwork(nn.Module):
    """The learnt part; see the module.

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
        """Place raters.

        Args:
            scores: The table.
            loadings: (U, B) loadings `V` of the texts.
            rows: (n,) judgements that place the raters.
            rater: (n,) position of their rater in `raters`.
            raters: (r,) raters to place.

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
        """(r, P) mean and (r, P, P) precision from one reading of the labels."""
        of_text = loadings[scores.alternatives[rows]]
        u = torch.cat([torch.einsum("nya,nab->nyb", side.by_reward[rows], of_text), side.by_term[rows]], dim=-1)
        weight = scores.weight[rows, None]
        given = u[torch.arange(len(rows)), side.label[rows]]
        information = torch.einsum("ny,nyp,nyq->npq", side.prob[rows], u, u).flatten(1)
        size = u.shape[-1]
        total = u.new_zeros(len(raters), size).index_add(0, rater, weight * given)
        summed = u.new_zeros(len(raters), size * size).index_add(0, rater, weight * information)
        trust = (0.5 * self.log_trust).exp()
        precision = torch.eye(size, dtype=u.dtype) + trust[:, None] * trust * summed.reshape(-1, size, size)
        # The scores were taken at the terms the labels suggest: from there the prior pulls back to 0.
        prior = nn.functional.pad(side.terms[raters], (self.num_codes, 0))
        step = torch.linalg.solve(precision, (total - prior)[:, :, None])[:, :, 0]
        code = step[:, : self.num_codes]
        code = code + torch.tanh(code @ self.inward) @ self.outward
        return torch.cat([code, side.terms[raters] + step[:, self.num_codes :]], dim=1), precision
