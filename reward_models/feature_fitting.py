"""From free rewards per text to rewards that are linear in frozen features, so that new texts can be scored.

Soft EM whose M-step is a penalised regression: `r_k(text) = w_k . h(text) + b_k`, `w_k = w_0 + delta_k` with
`sum_k pi_k delta_k = 0`. The strength of the penalty is chosen by leaving questions out, because a new question is
what the rewards are for. Knows nothing of where the features come from.

There are far fewer texts than features, so the regression runs in the span of the centred features (their singular
vectors), which is the same problem exactly (representer theorem) with at most U coordinates.

Shapes: `N` judgements, `R` raters, `U` texts, `D` features, `d` coordinates of the span, `K` clusters.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from reward_models.em import FitConfig
from reward_models.encoding import Encoded
from reward_models.errors import JuryError
from reward_models.memberships import mixture_posterior, predictive_log_lik
from reward_models.mixture import MixtureFit, check_num_clusters, fit_mixture, soft_as_choice
from reward_models.observation import Observations, minimise


__all__ = ["FeatureFit", "fit_features"]

L2_GRID = tuple(10.0 ** np.arange(0.5, -4.1, -0.5))  # strong to weak, each fit starting at the last
DEVIATION_GRID = (1.0, 5.0)
MAX_FOLDS = 12
BETWEEN_SHARE = 0.01  # of a feature's variance between questions that counts as spread: see `_span`


@dataclass(frozen=True)
class FeatureFit:
    """Linear reward heads on raw features.

    Attributes:
        weight: (K, D) heads; the features' mean and scale are folded in.
        bias: (K,) so that rewards average zero over the texts (pairs and choices) or fit the thresholds (ratings).
        prevalence: (K,) in the order of the initial fit's clusters.
        consensus_weight: (D,) `w_0`, the prevalence-weighted mean of `weight`.
        l2: Strength of the penalty, per judgement.
        deviation_penalty: How many times stronger deviations from the consensus are penalised than the consensus.
        responsibilities: (R, K) posterior memberships under these rewards.
        rewards: (U, K) `features @ weight.T + bias`. For choices and pairs only differences within a question mean
            anything.
        cv: Leave-questions-out table: `l2`, `deviation_penalty`, `nll` (nats per held-out judgement), `se` (over
            questions).
    """

    weight: np.ndarray
    bias: np.ndarray
    prevalence: np.ndarray
    consensus_weight: np.ndarray
    l2: float
    deviation_penalty: float
    responsibilities: np.ndarray
    rewards: np.ndarray
    cv: list[dict[str, float]]


@dataclass(frozen=True)
class _Problem:
    """What the regression sees: distinct judgements (M) of texts with coordinates (U, d)."""

    rows: Observations
    row: Tensor
    coordinates: Tensor
    terms: dict[str, Tensor]

    def log_lik(self, rewards: Tensor) -> Tensor:
        """(M, K) log-likelihood of the distinct judgements."""
        return self.rows.log_lik(self.rows.gather(rewards), self.terms)

    def rewards(self, heads: dict[str, Tensor]) -> Tensor:
        """(U, K) rewards of heads in coordinates (K, d); only ratings, which have a zero, have a bias (K,)."""
        rewards = self.coordinates @ heads["weight"].T
        return rewards + heads["bias"] if "bias" in heads else rewards

    def expected_counts(self, membership: np.ndarray, weight: np.ndarray) -> Tensor:
        """(M, K) weight of each distinct judgement in each cluster, from (N, K) memberships."""
        counts = torch.zeros((len(self.rows.label), membership.shape[1]), dtype=torch.float64)
        return counts.index_add(0, self.row, torch.from_numpy(weight[:, None] * membership))


def fit_features(
    enc: Encoded,
    features: np.ndarray,
    num_clusters: int,
    *,
    init: MixtureFit | None = None,
    l2: float | Literal["auto"] = "auto",
    em_iterations: int = 10,
    seed: int = 0,
) -> FeatureFit:
    """Fit K linear reward heads on frozen features.

    The penalty is `l2 / 2 (|w_0|^2 + c sum_k pi_k |delta_k|^2)` against the mean negative log-likelihood per
    judgement, on features scaled so that texts answering the same question are one unit apart on average.

    Args:
        enc: The judgements.
        features: (U, D) one row per text of `enc.texts`.
        num_clusters: `K`; 1 without penalty is Bradley-Terry / multinomial logit with linear rewards.
        init: Label-level fit to start from, which also gives the rater terms; None: fitted here.
        l2: Strength, or `"auto"`: chosen with `c` on left-out questions. A number fixes `c = 1`.
        em_iterations: Most EM steps with the linear rewards.
        seed: Seed of the folds and of the initial fit.

    Returns:
        The heads, in the order of `init`'s clusters.

    Raises:
        JuryError: Features that do not match the texts or are not finite, a negative `l2`, K as in `fit_mixture`, an
        initial fit
            with another K, or a single question with `l2="auto"`.
    """
    check_num_clusters(enc, num_clusters)
    _check(enc, features, num_clusters, init, l2)
    init = init or fit_mixture(enc, num_clusters, FitConfig(seed=seed))
    if enc.kind == "soft":
        enc = soft_as_choice(enc)
    features = features.astype(np.float64)
    posterior, terms = init.adapt(enc)
    coordinates, to_features = _span(enc, features)
    rows, row = Observations.from_encoded(enc).distinct()
    problem = _Problem(
        rows=rows,
        row=row,
        coordinates=torch.from_numpy(coordinates),
        terms={name: torch.from_numpy(value) for name, value in terms.items()},
    )
    cv: list[dict[str, float]] = []
    deviation = 1.0
    if l2 == "auto":
        cv = _leave_questions_out(enc, problem, init, init.judgement_log_lik(enc, terms), seed)
        best = min(cv, key=lambda line: line["nll"])
        l2, deviation = best["l2"], best["deviation_penalty"]

    prevalence, heads = init.prevalence, None
    for _ in range(em_iterations if num_clusters > 1 else 1):
        heads = _regress(problem, posterior[enc.rater], enc.weight, prevalence, l2, deviation, heads)
        with torch.no_grad():
            log_lik = problem.log_lik(problem.rewards(heads))[row].numpy()
        previous = posterior
        posterior = mixture_posterior(enc.weight[:, None] * log_lik, enc.rater, enc.n_raters, prevalence)
        prevalence = (posterior.sum(0) + 0.5) / (enc.n_raters + 0.5 * num_clusters)
        if np.abs(posterior - previous).mean() < 1e-4:
            break
    assert heads is not None
    weight = heads["weight"].numpy() @ to_features
    bias = -weight @ features.mean(0)
    if "bias" in heads:
        bias = bias + heads["bias"].numpy()
    return FeatureFit(
        weight=weight,
        bias=bias,
        prevalence=prevalence,
        consensus_weight=prevalence @ weight,
        l2=float(l2),
        deviation_penalty=deviation,
        responsibilities=posterior if init.rater_ids else posterior[:0],
        rewards=features @ weight.T + bias,
        cv=cv,
    )


def _regress(
    problem: _Problem,
    membership: np.ndarray,
    weight: np.ndarray,
    prevalence: np.ndarray,
    l2: float,
    deviation: float,
    start: dict[str, Tensor] | None,
) -> dict[str, Tensor]:
    """M-step: heads (K, d) and biases (K,) that minimise the penalised expected loss per judgement."""
    counts = problem.expected_counts(membership, weight)
    total = counts.sum()
    pi = torch.from_numpy(prevalence)[:, None]
    shape = (membership.shape[1], problem.coordinates.shape[1])

    def loss(heads: dict[str, Tensor]) -> Tensor:
        consensus = (pi * heads["weight"]).sum(0)
        spread = (pi * (heads["weight"] - consensus).square()).sum()
        fit = -(counts * problem.log_lik(problem.rewards(heads))).sum() / total
        return fit + 0.5 * l2 * (consensus.square().sum() + deviation * spread)

    if start is None:
        start = {"weight": torch.zeros(shape, dtype=torch.float64)}
        if problem.rows.kind == "rating":
            start["bias"] = torch.zeros(shape[0], dtype=torch.float64)
    heads = minimise(loss, {name: value.numpy() for name, value in start.items()}, max_iter=500, tol=1e-9)
    return {name: torch.from_numpy(value) for name, value in heads.items()}


def _leave_questions_out(
    enc: Encoded, problem: _Problem, init: MixtureFit, label_log_lik: np.ndarray, seed: int
) -> list[dict[str, float]]:
    """Score every penalty on questions that neither the heads nor the memberships have seen."""
    questions, fold_of = _folds(enc, seed)
    deviations: Sequence[float] = DEVIATION_GRID if init.num_clusters > 1 else (1.0,)
    losses = {(l2, c): np.zeros(questions.max() + 1) for c in deviations for l2 in L2_GRID}
    size = np.bincount(questions, enc.weight)
    for fold in range(fold_of.max() + 1):
        out = fold_of[questions] == fold
        known = np.where(out, 0.0, enc.weight)
        posterior = mixture_posterior(known[:, None] * label_log_lik, enc.rater, enc.n_raters, init.prevalence)
        for c in deviations:
            heads = None
            for l2 in L2_GRID:
                heads = _regress(problem, posterior[enc.rater], known, init.prevalence, l2, c, heads)
                with torch.no_grad():
                    log_lik = problem.log_lik(problem.rewards(heads))[problem.row[torch.from_numpy(out)]].numpy()
                score = enc.weight[out] * predictive_log_lik(posterior[enc.rater[out]], log_lik)
                losses[l2, c] -= np.bincount(questions[out], score, len(size))
    return [
        {
            "l2": float(l2),
            "deviation_penalty": float(c),
            "nll": float(loss.sum() / size.sum()),
            "se": float((loss / size).std(ddof=1) / np.sqrt(len(size))),
        }
        for (l2, c), loss in losses.items()
    ]


def _folds(enc: Encoded, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """(N,) question of each judgement, and the fold of each question.

    A question is a prompt with all its responses. Where there are hardly any prompts (statements under one heading)
    it is an item.
    """
    prompts = {text.prompt: i for i, text in enumerate(enc.texts)}
    prompt = np.array([prompts[enc.texts[i].prompt] for i in enc.alternatives[:, 0]])
    question = np.unique(prompt if len(np.unique(prompt)) >= 3 else enc.item, return_inverse=True)[1]
    n_questions = question.max() + 1
    if n_questions < 2:
        raise JuryError(
            'l2="auto" chooses the penalty on left-out questions, but the judgements are about 1 question; pass a '
            "number, e.g. l2=0.01"
        )
    fold_of = np.random.default_rng(seed).permutation(n_questions) % min(n_questions, MAX_FOLDS)
    return question, fold_of


def _span(enc: Encoded, features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Coordinates (U, d) of the texts in the span of the centred features, and the map (d, D) back to features.

    Choices and pairs compare answers to one question, so features are centred and scaled by their spread within
    questions, and only within-question directions are kept: nothing else changes the likelihood. A hundredth of the
    variance between questions is added to the scale, so that a feature which hardly varies within a question is not
    blown up.
    """
    centred = features - features.mean(0)
    within = centred
    if enc.kind != "rating":
        prompts = {text.prompt: i for i, text in enumerate(enc.texts)}
        group = np.unique([prompts[text.prompt] for text in enc.texts], return_inverse=True)[1]
        sums = np.zeros((group.max() + 1, features.shape[1]))
        np.add.at(sums, group, centred)
        within = centred - (sums / np.bincount(group)[:, None])[group]
    scale = np.sqrt(within.var(0) + BETWEEN_SHARE * centred.var(0))
    inverse = np.divide(1.0, scale, out=np.zeros_like(scale), where=scale > 1e-12 * max(scale.max(), 1e-300))
    unit = np.sqrt(((within * inverse) ** 2).sum(1).mean())
    inverse = inverse / (unit if unit > 0 else 1.0)
    _, singular, right = np.linalg.svd(within * inverse, full_matrices=False)
    basis = right[singular > 1e-8 * max(singular.max(initial=0.0), 1e-300)]
    return (centred * inverse) @ basis.T, basis * inverse


def _check(
    enc: Encoded, features: np.ndarray, num_clusters: int, init: MixtureFit | None, l2: float | Literal["auto"]
) -> None:
    if features.ndim != 2 or len(features) != enc.n_texts:
        raise JuryError(
            f"features have shape {features.shape}, but there are {enc.n_texts} unique texts; pass one row per entry "
            "of Encoded.texts, in that order"
        )
    if not np.isfinite(features).all():
        bad = int((~np.isfinite(features)).any(1).sum())
        raise JuryError(
            f"{bad} of {len(features)} rows of features hold NaN or infinity; compute them in float32 rather than "
            "float16"
        )
    if l2 != "auto" and (isinstance(l2, str) or l2 < 0):
        raise JuryError(f'l2={l2!r}: needs a number >= 0, or "auto" to choose it on left-out questions')
    if init is not None and init.num_clusters != num_clusters:
        raise JuryError(
            f"num_clusters={num_clusters}, but the initial fit has {init.num_clusters} clusters; pass the same number"
        )
