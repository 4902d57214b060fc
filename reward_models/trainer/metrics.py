"""What an evaluation of a jury in training reports, from the rewards of the texts.

Works on a whole table at once, after every text was scored once. Knows nothing of models or processes.

Shapes: `N` judgements, `R` raters, `U` texts, `K` clusters.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch
from scipy.special import entr, log_softmax, logsumexp

from reward_models.judgements.records import Judgements
from reward_models.judgements.splits import adaptation_split
from reward_models.raters.memberships import rater_totals
from reward_models.raters.observation import Observations
from reward_models.trainer.rows import JudgementRows
from reward_models.trainer.terms import JudgementTerms, answer_log_probs


__all__ = ["batch_metrics", "jury_metrics", "table_log_lik"]


def batch_metrics(
    obs: Observations, rewards: torch.Tensor, terms: dict[str, torch.Tensor], log_membership: torch.Tensor
) -> dict[str, torch.Tensor]:
    """What TRL's reward trainer logs of a batch, for clusters.

    Args:
        obs: `N` judgements.
        rewards: (N, A, K) rewards of their alternatives.
        terms: As for `Observations.log_lik`.
        log_membership: (N, K) log membership of each judgement's rater.

    Returns:
        `accuracy` of the most probable answer and, for pairs, `margin`: the mean lead of the preferred response.
    """
    answer, membership = obs.label[:, 0], log_membership.exp()
    best = (answer_log_probs(obs, rewards, terms) + log_membership).logsumexp(2).argmax(0)
    metrics = {"accuracy": (best == answer).float().mean()}
    if obs.kind == "preference":
        lead = ((rewards[:, 0] - rewards[:, 1]) * membership).sum(1) * (1 - 2 * answer)
        decided = answer < 2
        metrics["margin"] = (lead * decided).sum() / decided.sum().clamp(min=1)
    return metrics


def table_log_lik(rows: JudgementRows, rewards: np.ndarray, terms: JudgementTerms) -> tuple[np.ndarray, np.ndarray]:
    """Log-likelihood of a whole table, given the rewards of its texts.

    Args:
        rows: The table.
        rewards: (U, K).
        terms: Terms of the raters as numbered in the training data.

    Returns:
        (N, K) of the answers given, less their margins, and (answers, N, K) of all answers without, nats.
    """
    obs = Observations.from_encoded(rows.enc)
    nobody = len(next(iter(terms.of_raters.values()), [0])) - 1
    obs = dataclasses.replace(obs, rater=torch.from_numpy(np.where(rows.rater < 0, nobody, rows.rater)))
    of_alternatives = obs.gather(torch.from_numpy(rewards.astype(np.float64)))
    all_terms = terms.tensors(of_alternatives)
    of_answers = answer_log_probs(obs, of_alternatives, all_terms).numpy()
    of_alternatives[:, 0] -= torch.from_numpy(rows.margin)[:, None]
    return obs.log_lik(of_alternatives, all_terms).numpy(), of_answers


def jury_metrics(
    rows: JudgementRows,
    rewards: np.ndarray,
    terms: JudgementTerms,
    log_membership: np.ndarray,
    prevalence: np.ndarray,
    names: Sequence[str],
    *,
    adaptation: float = 0.0,
    seed: int = 0,
) -> dict[str, float]:
    """Score a jury on judgements it was not trained on.

    Args:
        rows: The table.
        rewards: (U, K) rewards of its texts.
        terms: Terms of the raters as numbered in the training data.
        log_membership: (N, K) log membership of each judgement's rater from the training data.
        prevalence: (K,).
        names: `K` names of clusters.
        adaptation: Share of each rater's judgements that place the rater first and are not scored.
        seed: Of the choice of those.

    Returns:
        `loss`, nats per judgement of the mixture; `accuracy` of its most probable answer; `accuracy_<cluster>` of each
        cluster's, weighted by how much the rater belongs to it; `prevalence_<cluster>`; `membership_entropy`, nats,
        mean over raters; `mean_reward`, `min_reward`, `max_reward` of the prevalence-weighted mean; for pairs also
        `margin`, the mean lead of the preferred response.
    """
    enc = rows.enc
    given, of_answers = table_log_lik(rows, rewards, terms)
    scored = np.ones(len(enc), dtype=bool)
    if adaptation > 0 and rows.data.judgements.kind != "soft":
        # A split within raters looks at nothing but raters; the column tells which judgements it drew.
        frame = pd.DataFrame({"rater_id": enc.rater, "row": np.arange(len(enc))})
        numbered = Judgements(enc.kind, frame, enc.levels)
        scored[adaptation_split(numbered, adaptation, seed)[0].frame["row"]] = False
        known = np.where(scored, 0.0, enc.weight)[:, None] * given
        log_membership = log_softmax(log_membership + rater_totals(known, enc.rater, enc.n_raters)[enc.rater], axis=1)
    weight, label, m = enc.weight[scored], enc.label[scored], np.exp(log_membership[scored])
    total = weight.sum()
    nll = -logsumexp(log_membership[scored] + given[scored], axis=1)
    best = logsumexp(log_membership[scored] + of_answers[:, scored], axis=2).argmax(0)
    metrics = {"loss": float(weight @ nll / total), "accuracy": float(weight @ (best == label) / total)}
    right = of_answers[:, scored].argmax(0) == label[:, None]
    share = weight[:, None] * m
    for k, name in enumerate(names):
        metrics[f"accuracy_{name}"] = float(share[:, k] @ right[:, k] / max(share[:, k].sum(), 1e-12))
        metrics[f"prevalence_{name}"] = float(prevalence[k])
    _, one_each = np.unique(enc.rater[scored], return_index=True)
    metrics["membership_entropy"] = float(entr(m[one_each]).sum(1).mean())
    consensus = rewards @ prevalence
    metrics |= {f"{name}_reward": float(getattr(consensus, name)()) for name in ("min", "mean", "max")}
    if enc.kind == "preference":
        decided = label < 2
        a, b = consensus[enc.alternatives[scored][decided]].T
        lead = np.where(label[decided] == 0, a - b, b - a)
        metrics["margin"] = float(np.average(lead, weights=weight[decided])) if decided.any() else 0.0
    return metrics
