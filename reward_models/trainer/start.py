"""The start of a training: first memberships, and terms of the likelihood.

New heads cannot tell raters apart, so heads and memberships start from a joint fit of texts and raters on the features
of the backbone, or memberships from the labels alone. Knows nothing of models and training steps.

Shapes: `N` judgements, `R` raters, `K` clusters.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from reward_models.fitting.em import FitConfig
from reward_models.fitting.joint.fit import fit_joint
from reward_models.fitting.mixture import fit_mixture
from reward_models.fitting.running_memberships import RunningMemberships
from reward_models.fitting.starting_point import judged_twice
from reward_models.judgements.encoding import Encoded
from reward_models.jury.configuration_jury import JuryConfig
from reward_models.raters.observation import TERM_SD, Observations, start_terms
from reward_models.seeds import seeded_rng
from reward_models.trainer.jury_reward_config import JuryRewardConfig
from reward_models.trainer.metrics import table_log_lik
from reward_models.trainer.rows import JudgementRows
from reward_models.trainer.terms import JudgementTerms, raw_terms


__all__ = [
    "JointStart",
    "first_terms",
    "joint_start",
    "random_evidence",
    "start_memberships",
    "texts_are_shared",
]

EVIDENCE_SD = 1.0  # nats: standard deviation of the random evidence about a rater
SHARED_SHARE = 0.5  # share of judgements on texts of several raters, above which labels alone tell raters apart


def texts_are_shared(enc: Encoded) -> bool:
    """Return whether most judgements are of texts that other raters judged too: then labels alone tell raters apart.

    Example:
        >>> from reward_models import planted_judgements
        >>> texts_are_shared(planted_judgements().judgements.encode())
        True
    """
    item, n_raters = np.unique(np.unique(np.stack([enc.item, enc.rater]), axis=1)[0], return_counts=True)
    return float(enc.weight[np.isin(enc.item, item[n_raters > 1])].sum()) > SHARED_SHARE * float(enc.weight.sum())


def first_terms(
    enc: Encoded, args: JuryRewardConfig, *, rater_terms: bool, shared: bool, memberships: RunningMemberships | None
) -> JudgementTerms:
    """Estimate the terms of the likelihood that are not reward, and on request memberships, from the labels alone.

    Args:
        enc: The training judgements.
        args: Prior, seed, step size.
        rater_terms: Whether raters have terms of their own.
        shared: Whether raters share texts. Otherwise a free reward for every text would explain everything, and the
            shared terms start at the marginal of the labels.
        memberships: Started in place from a mixture of as many clusters; None if they do not start from labels.

    Returns:
        The terms.

    Example:
        >>> from reward_models import planted_judgements
        >>> enc = planted_judgements("rating").judgements.encode()
        >>> args = JuryRewardConfig("out", bf16=False)
        >>> terms = first_terms(enc, args, rater_terms=True, shared=True, memberships=None)
        >>> sorted(terms.of_raters), sorted(terms.shared)
        (['intercept', 'log_scale'], ['raw_thresholds'])
    """
    wanted = enc.kind == "rating" or (enc.kind == "preference" and ((enc.label == 2).any() or rater_terms))
    if not shared or (memberships is None and not wanted):
        terms = start_terms(Observations.from_encoded(enc), rater_terms) if wanted else {}
        return JudgementTerms(terms, args.term_learning_rate)
    n_clusters = 1 if memberships is None else len(memberships.prevalence)
    fit = fit_mixture(enc, n_clusters, FitConfig(dirichlet=args.dirichlet, nuisance=rater_terms, seed=args.seed))
    if memberships is not None:
        memberships.prevalence = fit.prevalence.copy()
        memberships.record(np.arange(len(enc)), fit.judgement_log_lik(enc))
    order = {rater: i for i, rater in enumerate(fit.rater_ids)}
    position = [order[rater] for rater in enc.rater_ids]
    terms = {name: value[position] if name in TERM_SD else value for name, value in fit.nuisance.items()}
    return JudgementTerms(raw_terms(terms), args.term_learning_rate, fit.model.term_sd)


@dataclass(frozen=True)
class JointStart:
    """Where a training starts that begins with a joint fit; `joint_start` makes it.

    Attributes:
        heads: (K, D) rewards as functions of the backbone's features.
        bias: (K,) constant of them.
        terms: Terms of the likelihood.

    Example:
        >>> JointStart(np.zeros((2, 32)), np.zeros(2), JudgementTerms({}, 0.0)).heads.shape
        (2, 32)
    """

    heads: np.ndarray
    bias: np.ndarray
    terms: JudgementTerms


def joint_start(
    rows: JudgementRows, features: np.ndarray, args: JuryRewardConfig, memberships: RunningMemberships
) -> JointStart:
    """Fit texts and raters in one likelihood, on features of the backbone before training, and start from there.

    Args:
        rows: The training data.
        features: (U, D) rows for the texts of the table.
        args: Prior, seed, step size.
        memberships: Started in place.

    Returns:
        Heads and terms.

    Example:
        >>> from reward_models import planted_judgements
        >>> from reward_models.jury.tiny import tiny_tokenizer
        >>> from reward_models.trainer.data import read_data
        >>> planted = planted_judgements("rating", num_items=20)
        >>> rows = JudgementRows(read_data(planted.judgements), tiny_tokenizer())
        >>> memberships = RunningMemberships(rows.enc, 2, dirichlet=1.5)
        >>> start = joint_start(rows, planted.rewards, JuryRewardConfig("out", bf16=False), memberships)
        >>> start.heads.shape, memberships.posterior().max(axis=1).min() > 0.9
        ((2, 2), np.True_)
    """
    enc = rows.enc
    config = FitConfig(dirichlet=args.dirichlet, nuisance=args.rater_terms is not False, seed=args.seed)
    fit = fit_joint(enc, features, "mixture", len(memberships.prevalence), config=config)
    order = {rater: i for i, rater in enumerate(fit.rater_ids)}
    position = [order[rater] for rater in enc.rater_ids]
    of_raters = {name: value[position] for name, value in fit.placement.terms().items()}
    terms = JudgementTerms(raw_terms(of_raters | fit.model.shared), args.term_learning_rate, fit.model.term_sd)
    memberships.prevalence = fit.prevalence.copy()
    log_lik, _ = table_log_lik(rows, fit.rewards(enc.texts, features)[0], terms)
    memberships.record(np.arange(len(enc)), log_lik)
    return JointStart(fit.heads, fit.bias @ fit.mixing, terms)


def start_memberships(
    rows: JudgementRows, args: JuryRewardConfig, config: JuryConfig, was_jury: bool
) -> tuple[RunningMemberships, JudgementTerms, str]:
    """Start memberships and terms; starts from the model and joint ones are left to the trainer, which runs the model.

    Args:
        rows: The training data.
        args: `memberships_from`, `rater_terms`, priors and seed.
        config: Number of clusters and, if the model came with heads, their prevalence.
        was_jury: Whether the model came with heads.

    Returns:
        Memberships, terms, and where memberships start from: `"joint"`, `"labels"`, `"model"`, `"random"`, or `"none"`
        for one cluster.

    Example:
        >>> from reward_models import planted_judgements
        >>> from reward_models.jury.tiny import tiny_tokenizer
        >>> from reward_models.trainer.data import read_data
        >>> data = read_data(planted_judgements().judgements)
        >>> rows = JudgementRows(data, tiny_tokenizer())
        >>> args = JuryRewardConfig("out", bf16=False)
        >>> memberships, terms, source = start_memberships(rows, args, JuryConfig(num_clusters=2), was_jury=False)
        >>> source, memberships.prevalence.round(1).tolist()
        ('joint', [0.5, 0.5])
    """
    enc, num_clusters, anonymous = rows.enc, config.num_clusters, rows.data.anonymous
    plain_pairs = enc.kind == "preference" and num_clusters == 1 and not (enc.label == 2).any()
    rater_terms = not anonymous and (not plain_pairs if args.rater_terms is None else args.rater_terms)
    shared = not anonymous and texts_are_shared(enc)
    source = args.memberships_from
    if num_clusters == 1 and source != "joint":
        source = "none"
    elif source == "auto":
        joint = not anonymous and enc.kind != "soft" and judged_twice([enc])
        source = "model" if was_jury else "joint" if joint else "random"
    temperature = args.temperature if source == "random" else 1.0
    memberships = RunningMemberships(enc, num_clusters, dirichlet=args.dirichlet, temperature=temperature)
    if was_jury:
        memberships.prevalence = np.asarray(config.prevalence, dtype=np.float64)
    from_labels = memberships if source == "labels" else None
    shared &= source != "joint"  # whose terms come with it
    terms = first_terms(enc, args, rater_terms=rater_terms, shared=shared, memberships=from_labels)
    if source == "random":
        memberships.evidence = random_evidence(enc.n_raters, num_clusters, args.seed)
    return memberships, terms, source


def random_evidence(n_raters: int, num_clusters: int, seed: int) -> np.ndarray:
    """Draw (R, K) nats of evidence about each rater, so that heads see different judgements from the first step.

    Example:
        >>> random_evidence(n_raters=3, num_clusters=2, seed=0).shape
        (3, 2)
    """
    return seeded_rng(seed, "first evidence of raters").normal(scale=EVIDENCE_SD, size=(n_raters, num_clusters))
