"""Metrics of a jury in training, from the rewards of the texts.

An evaluation works on a whole table at once, after every text was scored once. Knows nothing of models or processes.

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
    obs: Observations,
    rewards: torch.Tensor,
    terms: dict[str, torch.Tensor],
    log_membership: torch.Tensor,
    scalar: torch.Tensor,
    row: torch.Tensor,
) -> dict[str, torch.Tensor]:
    """Compute what TRL's reward trainer logs of a batch, for clusters, as sums and counts.

    Batches and processes may hold different numbers of judgements: add the sums and the counts, and divide at the end.

    Args:
        obs: `N` judgements.
        rewards: (N, A, K) rewards of their alternatives.
        terms: As for `Observations.log_lik`.
        log_membership: (N, K) log membership of each judgement's rater.
        scalar: (N, A) mean reward of the population of their alternatives.
        row: (N,) row of the batch that each judgement came from, not decreasing.

    Returns:
        (2,) sum and count by name. `accuracy` counts judgements whose answer was the most probable one, by their
        weight; `mean_reward` the alternatives of each row once; for pairs, `margin` the judgements that are not ties,
        by their weight: how far the reward of the preferred response is above that of the other one.

    Example:
        >>> from reward_models import planted_judgements
        >>> obs = Observations.from_encoded(planted_judgements(num_raters=2, num_items=2).judgements.encode())
        >>> rewards = torch.tensor([[[3.0], [1.0]]]).expand(4, 2, 1)  # a is 2 logits above b
        >>> sums = batch_metrics(obs, rewards, {}, torch.zeros(4, 1), rewards[:, :, 0], torch.tensor([0, 0, 1, 1]))
        >>> obs.label[:, 0].tolist(), {name: value.tolist() for name, value in sums.items()}
        ([0, 1, 0, 1], {'accuracy': [2.0, 4.0], 'mean_reward': [8.0, 4.0], 'margin': [0.0, 4.0]})
    """
    answer, membership, weight = obs.label[:, 0], log_membership.exp(), obs.weight.to(rewards)
    best = (answer_log_probs(obs, rewards, terms) + log_membership).logsumexp(2).argmax(0)
    offered = scalar.new_ones(scalar.shape) if obs.mask is None else obs.mask.to(scalar)
    once = torch.cat([row.new_ones(1), row.diff()]).to(scalar)[:, None] * offered
    sums = {
        "accuracy": torch.stack([((best == answer) * weight).sum(), weight.sum()]),
        "mean_reward": torch.stack([(scalar * once).sum(), once.sum()]),
    }
    if obs.kind == "preference":
        lead = ((rewards[:, 0] - rewards[:, 1]) * membership).sum(1) * (1 - 2 * answer)
        decided = (answer < 2) * weight
        sums["margin"] = torch.stack([(lead * decided).sum(), decided.sum()])
    return sums


def table_log_lik(rows: JudgementRows, rewards: np.ndarray, terms: JudgementTerms) -> tuple[np.ndarray, np.ndarray]:
    """Compute the log-likelihood of a whole table from the rewards of its texts.

    Args:
        rows: The table.
        rewards: (U, K).
        terms: Terms of the raters as numbered in the training data.

    Returns:
        (N, K) nats of the answers that were given, with margins subtracted, and (answers, N, K) of all answers,
        without margins.

    Example:
        >>> from reward_models import planted_judgements
        >>> from reward_models.jury.tiny import tiny_tokenizer
        >>> from reward_models.trainer import data
        >>> planted = planted_judgements(num_raters=4, num_items=3)
        >>> table = data.read_data(planted.judgements)
        >>> rows = JudgementRows(table, tiny_tokenizer())
        >>> of_given, of_all = table_log_lik(rows, planted.rewards, JudgementTerms({}, 0.0))
        >>> of_given.shape, of_all.shape
        ((12, 2), (2, 12, 2))
    """
    obs = Observations.from_encoded(rows.enc)
    unknown = len(next(iter(terms.of_raters.values()), [0])) - 1  # the last entry of the rater terms
    obs = dataclasses.replace(obs, rater=torch.from_numpy(np.where(rows.rater < 0, unknown, rows.rater)))
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
        adaptation: Share of each rater's judgements that the jury adapts by; they are not scored.
        seed: Random seed of their choice.

    Returns:
        `loss`, nats per judgement of the mixture; `accuracy` of its most probable answer; `accuracy_<cluster>` of each
        cluster's, weighted by the raters' memberships; `prevalence_<cluster>`; `membership_entropy`, nats, mean over
        raters; `mean_reward`, `min_reward`, `max_reward` of the prevalence-weighted mean, over the judged texts; for
        pairs also `margin`, the mean distance of the preferred response from the other one.

    Example:
        >>> from reward_models import planted_judgements
        >>> from reward_models.jury.tiny import tiny_tokenizer
        >>> from reward_models.trainer.data import read_data
        >>> planted = planted_judgements(num_raters=20, num_items=30)
        >>> rows = JudgementRows(read_data(planted.judgements), tiny_tokenizer())
        >>> log_membership = np.log(np.full((len(rows.enc), 2), 0.5))
        >>> data = (rows, planted.rewards, JudgementTerms({}, 0.0), log_membership, np.array([0.5, 0.5]), ["a", "b"])
        >>> strangers, adapted = jury_metrics(*data), jury_metrics(*data, adaptation=0.5)
        >>> adapted["accuracy"] > strangers["accuracy"], adapted["membership_entropy"] < 0.01
        (True, True)
    """
    enc = rows.enc
    log_lik, of_answers = table_log_lik(rows, rewards, terms)
    scored = np.ones(len(enc), dtype=bool)
    if adaptation > 0 and rows.data.judgements.kind != "soft":
        # A split within raters looks at nothing but raters; the column tells which judgements it drew.
        frame = pd.DataFrame({"rater_id": enc.rater, "row": np.arange(len(enc))})
        numbered = Judgements(enc.kind, frame, enc.levels)
        scored[adaptation_split(numbered, adaptation, seed)[0].frame["row"]] = False
        known = np.where(scored, 0.0, enc.count)[:, None] * log_lik
        log_membership = log_softmax(log_membership + rater_totals(known, enc.rater, enc.n_raters)[enc.rater], axis=1)
    weight, label, m = enc.weight[scored], enc.label[scored], np.exp(log_membership[scored])
    total = weight.sum()
    nll = -logsumexp(log_membership[scored] + log_lik[scored], axis=1)
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
    judged = consensus[np.unique(enc.alternatives[enc.alternatives >= 0])]  # others may not have been read
    metrics |= {f"{name}_reward": float(getattr(judged, name)()) for name in ("min", "mean", "max")}
    if enc.kind == "preference":
        decided = label < 2
        a, b = consensus[enc.alternatives[scored][decided]].T
        lead = np.where(label[decided] == 0, a - b, b - a)
        metrics["margin"] = float(np.average(lead, weights=weight[decided])) if decided.any() else 0.0
    return metrics
