"""The start of a training: first memberships, and terms of the likelihood.

New heads cannot tell raters apart, so memberships start from the labels alone, if raters share texts. Knows nothing of
models and training steps.

Shapes: `N` judgements, `R` raters, `K` clusters.
"""

from __future__ import annotations

import numpy as np

from reward_models.fitting.em import FitConfig
from reward_models.fitting.mixture import fit_mixture
from reward_models.fitting.running_memberships import RunningMemberships
from reward_models.judgements.encoding import Encoded
from reward_models.jury.configuration_jury import JuryConfig
from reward_models.raters.observation import TERM_SD, Observations, start_terms
from reward_models.seeds import seeded_rng
from reward_models.trainer.jury_reward_config import JuryRewardConfig
from reward_models.trainer.rows import JudgementRows
from reward_models.trainer.terms import JudgementTerms, raw_terms


__all__ = ["first_terms", "random_evidence", "start_memberships", "texts_are_shared"]

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
    return JudgementTerms(raw_terms(terms), args.term_learning_rate)


def start_memberships(
    rows: JudgementRows, args: JuryRewardConfig, config: JuryConfig, was_jury: bool
) -> tuple[RunningMemberships, JudgementTerms, str]:
    """Start memberships and terms; a start from the model is left to the trainer, because it must score every text.

    Args:
        rows: The training data.
        args: `memberships_from`, `rater_terms`, priors and seed.
        config: Number of clusters and, if the model came with heads, their prevalence.
        was_jury: Whether the model came with heads.

    Returns:
        Memberships, terms, and where memberships start from: `"labels"`, `"model"`, `"random"`, or `"none"` for one
        cluster.

    Example:
        >>> from reward_models import planted_judgements
        >>> from reward_models.jury.tiny import tiny_tokenizer
        >>> from reward_models.trainer.data import read_data
        >>> data = read_data(planted_judgements().judgements)
        >>> rows = JudgementRows(data, tiny_tokenizer())
        >>> args = JuryRewardConfig("out", bf16=False)
        >>> memberships, terms, source = start_memberships(rows, args, JuryConfig(num_clusters=2), was_jury=False)
        >>> source, memberships.prevalence.round(1).tolist()
        ('labels', [0.5, 0.5])
    """
    enc, num_clusters, anonymous = rows.enc, config.num_clusters, rows.data.anonymous
    plain_pairs = enc.kind == "preference" and num_clusters == 1 and not (enc.label == 2).any()
    rater_terms = not anonymous and (not plain_pairs if args.rater_terms is None else args.rater_terms)
    shared = not anonymous and texts_are_shared(enc)
    source = args.memberships_from
    if num_clusters == 1:
        source = "none"
    elif source == "auto":
        source = "model" if was_jury else "labels" if shared else "random"
    temperature = args.temperature if source == "random" else 1.0
    memberships = RunningMemberships(enc, num_clusters, dirichlet=args.dirichlet, temperature=temperature)
    if was_jury:
        memberships.prevalence = np.asarray(config.prevalence, dtype=np.float64)
    from_labels = memberships if source == "labels" else None
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
