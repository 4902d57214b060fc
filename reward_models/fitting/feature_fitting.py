"""Fit rewards that are linear in frozen features, so that new texts can be scored, and a memory of the judged texts.

A penalised regression on the label-level memberships: `r_k(text) = w_k . h(text) + b_k`, `w_k = w_0 + delta_k` with
`sum_k pi_k delta_k = 0`. The strength of the penalty is chosen on held-out questions, because new questions are what
the linear heads are for; a residual memory (see `residual_memory`) keeps what the judgements tell about the judged
texts beyond the heads. Where responses recur across questions ("too little", whatever the question), linear functions
of the features that recognise them are added as features and penalised less: for a new question the fallback is then
the usual answers instead of equal rewards. Knows nothing of where the features come from.

There are far fewer texts than features, so the regression runs in the span of the centred features (their singular
vectors): the same problem exactly (representer theorem), with at most U coordinates.

Shapes: `N` judgements, `R` raters, `U` texts, `D` features, `d` coordinates of the span, `K` clusters.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from reward_models.errors import JuryError
from reward_models.fitting.em import FitConfig
from reward_models.fitting.feature_space import (
    comparable_texts,
    question_folds,
    recurring_responses,
    within_question_span,
)
from reward_models.fitting.mixture import fit_mixture
from reward_models.fitting.rater_fit import RaterFit
from reward_models.fitting.residual_memory import (
    MAX_ANCHORS,
    ResidualMemory,
    fit_beside_residuals,
    fit_residuals,
    remember,
)
from reward_models.fitting.starting_point import check_num_clusters
from reward_models.fitting.text_table import check_features
from reward_models.judgements.encoding import Encoded, soft_as_choice
from reward_models.progress import track
from reward_models.raters.lbfgs import minimise
from reward_models.raters.memberships import mixture_posterior, predictive_log_lik
from reward_models.raters.observation import TERM_SD, Observations
from reward_models.seeds import seeded_rng
from reward_models.stats.groups import centre_within_groups


__all__ = ["FeatureFit", "fit_features"]

L2_GRID = tuple(10.0 ** np.arange(0.5, -4.1, -0.5))  # strong to weak, each fit starts at the one before
DEVIATION_GRID = (1.0, 5.0)
MAIN_EFFECT_GRID = (1.0, 0.03, 0.001)
RESIDUAL_SD = 1.0  # logits, while the heads are fitted
RESIDUAL_SD_GRID = (0.1, 0.3, 1.0, 3.0)
RECOGNITION_RIDGE = 0.1  # of the regression that reads a recurring response off the features


@dataclass(frozen=True)
class FeatureFit:
    """Linear reward heads on raw features, and a memory of the judged texts; `fit_features` makes it.

    Attributes:
        weight: (K, D) heads on raw features.
        bias: (K,) so that rewards average zero over the texts (pairs and choices) or fit the thresholds (ratings).
        prevalence: (K,) in the order of the initial fit's clusters; that of the initial fit if `em_iterations=0`.
        consensus_weight: (D,) `w_0`, the prevalence-weighted mean of `weight`.
        l2: Strength of the penalty, per judgement.
        deviation_penalty: Penalty of deviations from the consensus, relative to that of the consensus; 1 where
            residuals were fitted beside the heads.
        main_effect_penalty: Penalty of what responses share across questions, relative to that of other directions.
        responsibilities: (R, K) posterior memberships that the heads were fitted to.
        rewards: (U, K) `features @ weight.T + bias`, plus `memory.rewards(features)` if there is a memory. For
            choices and pairs only differences within a question are meaningful.
        cv: Cross-validation of the linear heads over questions: `l2`, `deviation_penalty`, `main_effect_penalty`,
            `nll` (nats per held-out judgement), `se` (over questions).
        memory: Residual rewards of the judged texts; None without a memory.

    Example:
        >>> from reward_models import planted_judgements
        >>> planted = planted_judgements("rating", num_items=20)
        >>> fit = fit_features(planted.judgements.encode(), planted.rewards, num_clusters=2)
        >>> new_text = np.array([[-2.0, 2.0]])  # its features are its rewards in the two planted clusters
        >>> np.sign(new_text @ fit.weight.T + fit.bias).tolist()
        [[-1.0, 1.0]]
    """

    weight: np.ndarray
    bias: np.ndarray
    prevalence: np.ndarray
    consensus_weight: np.ndarray
    l2: float
    deviation_penalty: float
    main_effect_penalty: float
    responsibilities: np.ndarray
    rewards: np.ndarray
    cv: list[dict[str, float]]
    memory: ResidualMemory | None


@dataclass(frozen=True)
class _Penalty:
    """Penalties of the regression; see `FeatureFit`."""

    l2: float
    deviation: float = 1.0
    main_effect: float = 1.0
    residual_sd: float = 0.0  # 0: no residuals beside the heads

    def per_coordinate(self, problem: _Problem) -> Tensor:
        """Return the (d,) relative penalty of each coordinate."""
        factor = torch.ones(problem.coordinates.shape[1], dtype=torch.float64)
        factor[: problem.n_main] = self.main_effect
        return factor


@dataclass(frozen=True)
class _Problem:
    """Input of the regression: distinct judgements (M) of texts with coordinates (U, d), main effects first."""

    rows: Observations
    row: Tensor
    group: Tensor
    coordinates: Tensor
    n_main: int
    terms: dict[str, Tensor]

    def log_lik(self, rewards: Tensor) -> Tensor:
        """Compute the (M, K) log-likelihood of the distinct judgements."""
        return self.rows.log_lik(self.rows.gather(rewards), self.terms)

    def rewards(self, heads: dict[str, Tensor]) -> Tensor:
        """Compute the (U, K) rewards of heads in coordinates (K, d); only ratings, which have a zero, have a bias."""
        rewards = self.coordinates @ heads["weight"].T
        return rewards + heads["bias"] if "bias" in heads else rewards

    def judged(self, counts: Tensor) -> Tensor:
        """Return the (U,) group of each text, see `comparable_texts`; -1 for texts without a counted judgement."""
        seen = self.rows.alternatives[counts.sum(1) > 0]
        if self.rows.mask is not None:
            seen = seen[self.rows.mask[counts.sum(1) > 0]]
        group = torch.full_like(self.group, -1)
        group[seen.flatten()] = self.group[seen.flatten()]
        return group

    def expected_counts(self, membership: np.ndarray, weight: np.ndarray) -> Tensor:
        """Compute the (M, K) weight of each distinct judgement in each cluster, from (N, K) memberships."""
        counts = torch.zeros((len(self.rows.label), membership.shape[1]), dtype=torch.float64)
        return counts.index_add(0, self.row, torch.from_numpy(weight[:, None] * membership))


def fit_features(
    enc: Encoded,
    features: np.ndarray,
    num_clusters: int,
    *,
    init: RaterFit | None = None,
    l2: float | Literal["auto"] = "auto",
    em_iterations: int = 0,
    memory: bool = True,
    seed: int = 0,
) -> FeatureFit:
    """Fit K linear reward heads on frozen features.

    The penalty is `l2 / 2 (|w_0|^2 + c sum_k pi_k |delta_k|^2)` against the mean negative log-likelihood per
    judgement, on features scaled so that texts answering the same question are one unit apart on average. With
    `l2="auto"`, functions that recognise recurring responses join the features, penalised `main_effect_penalty`
    times as much.

    With a memory and `l2="auto"`, heads and residuals are fitted together; see `residual_memory.fit_beside_residuals`.

    Args:
        enc: The judgements.
        features: (U, D) one row per text of `enc.texts`.
        num_clusters: `K`; 1 without penalty is Bradley-Terry or multinomial logit with linear rewards.
        init: Label-level fit to start from, which also provides the rater terms; None: it is fitted here.
        l2: Strength, or `"auto"`: chosen on held-out questions, together with `c` and the main-effect penalty. A
            number implies `c = 1` and no main effects.
        em_iterations: Most EM steps with the linear rewards; 0 keeps the memberships and prevalence of `init`.
        memory: Remember what the judgements tell about the judged texts beyond the linear heads. Off for `soft`
            judgements and for more than `residual_memory.MAX_ANCHORS` texts.
        seed: Random seed of the folds and of the initial fit.

    Returns:
        The heads, in the order of `init`'s clusters.

    Raises:
        JuryError: Features that do not match the texts or are not finite, a negative `l2`, K as in `fit_mixture`, an
            initial fit with another K, or a single question with `l2="auto"`.

    Example:
        >>> from reward_models import planted_judgements
        >>> planted = planted_judgements("choice")
        >>> features = np.random.default_rng(0).normal(size=(len(planted.texts), 4))
        >>> fit = fit_features(planted.judgements.encode(), features, 2, l2=0.01)
        >>> fit.weight.shape, fit.rewards.shape
        ((2, 4), (36, 2))
    """
    check_num_clusters(enc, num_clusters)
    _check(enc, features, num_clusters, init, l2)
    memory = memory and enc.kind != "soft" and enc.n_texts <= MAX_ANCHORS
    init = init or fit_mixture(enc, num_clusters, FitConfig(seed=seed))
    if enc.kind == "soft":
        enc = soft_as_choice(enc)
    features = features.astype(np.float64)
    posterior, terms = init.point_estimates(enc)
    coordinates, to_features, scale = within_question_span(enc, features)
    rows = Observations.from_encoded(enc)
    # Merge judgements that differ in the rater only, unless the rater's terms enter the likelihood.
    rows, row = (rows, torch.arange(len(enc))) if terms.keys() & TERM_SD.keys() else rows.distinct()
    problem = _Problem(
        rows=rows,
        row=row,
        group=torch.from_numpy(comparable_texts(enc)),
        coordinates=torch.from_numpy(coordinates),
        n_main=0,
        terms={name: torch.from_numpy(value) for name, value in terms.items()},
    )
    label_log_lik = init.judgement_log_lik(enc, terms)
    cv: list[dict[str, float]] = []
    penalty = _Penalty(0.0 if l2 == "auto" else float(l2), residual_sd=RESIDUAL_SD if memory and l2 == "auto" else 0.0)
    if l2 == "auto":
        cv, best = _cross_validate(enc, problem, init, label_log_lik, penalty.residual_sd, seed)
        problem, readout = _with_main_effects(problem, enc, np.arange(enc.n_texts))
        to_features = np.concatenate([readout @ to_features, to_features])
        penalty = _Penalty(best["l2"], best["deviation_penalty"], best["main_effect_penalty"], penalty.residual_sd)

    prevalence = init.prevalence
    heads = _regress(problem, posterior[enc.rater], enc.weight, prevalence, penalty, None)
    for _ in track(range(em_iterations if num_clusters > 1 else 0), "fitting the heads"):
        with torch.no_grad():
            log_lik = problem.log_lik(problem.rewards(heads))[row].numpy()
        previous = posterior
        posterior = mixture_posterior(enc.count[:, None] * log_lik, enc.rater, enc.n_raters, prevalence)
        prevalence = enc.rater_weight @ posterior + 0.5
        prevalence = prevalence / prevalence.sum()
        heads = _regress(problem, posterior[enc.rater], enc.weight, prevalence, penalty, heads)
        if np.average(np.abs(posterior - previous).mean(1), weights=enc.rater_weight) < 1e-4:
            break
    weight = heads["weight"].numpy() @ to_features
    bias = -weight @ features.mean(0)
    if "bias" in heads:
        bias = bias + heads["bias"].numpy()
    rewards = features @ weight.T + bias
    residual = None
    if memory:
        sd = _residual_sd(enc, problem, init.prevalence, label_log_lik, rewards, seed)
        counts = problem.expected_counts(posterior[enc.rater], enc.weight)
        residual = remember(features, scale, fit_residuals(problem.log_lik, counts, rewards, sd), sd)
        rewards = rewards + residual.rewards(features)
    return FeatureFit(
        weight=weight,
        bias=bias,
        prevalence=prevalence,
        consensus_weight=prevalence @ weight,
        l2=penalty.l2,
        deviation_penalty=penalty.deviation,
        main_effect_penalty=penalty.main_effect,
        responsibilities=posterior if init.rater_ids else posterior[:0],
        rewards=rewards,
        cv=cv,
        memory=residual,
    )


def _regress(
    problem: _Problem,
    membership: np.ndarray,
    weight: np.ndarray,
    prevalence: np.ndarray,
    penalty: _Penalty,
    start: dict[str, Tensor] | None,
    tol: float = 1e-9,
) -> dict[str, Tensor]:
    """M-step: fit heads (K, d) and biases (K,) that minimise the penalised expected loss per judgement."""
    counts = problem.expected_counts(membership, weight)
    if penalty.residual_sd:
        return fit_beside_residuals(
            problem.log_lik,
            counts,
            problem.coordinates,
            problem.judged(counts),
            penalty.l2 * penalty.per_coordinate(problem),
            sd=penalty.residual_sd,
            with_bias=problem.rows.kind == "rating",
            start=start,
        )
    total = counts.sum()
    pi = torch.from_numpy(prevalence)[:, None]
    shape = (membership.shape[1], problem.coordinates.shape[1])
    per_coordinate = penalty.per_coordinate(problem)

    def loss(heads: dict[str, Tensor]) -> Tensor:
        consensus = (pi * heads["weight"]).sum(0)
        size = (per_coordinate * consensus.square()).sum()
        spread = (pi * per_coordinate * (heads["weight"] - consensus).square()).sum()
        fit = -(counts * problem.log_lik(problem.rewards(heads))).sum() / total
        return fit + 0.5 * penalty.l2 * (size + penalty.deviation * spread)

    if start is None:
        start = {"weight": torch.zeros(shape, dtype=torch.float64)}
        if problem.rows.kind == "rating":
            start["bias"] = torch.zeros(shape[0], dtype=torch.float64)
    heads = minimise(loss, {name: value.numpy() for name, value in start.items()}, max_iter=500, tol=tol)
    return {name: torch.from_numpy(value) for name, value in heads.items()}


def _cross_validate(
    enc: Encoded, problem: _Problem, init: RaterFit, label_log_lik: np.ndarray, residual_sd: float, seed: int
) -> tuple[list[dict[str, float]], dict[str, float]]:
    """Score every penalty on questions that neither the heads nor the memberships have seen.

    Returns:
        The table, and the row to use: the strongest penalty whose loss exceeds the lowest by at most the standard
        error of their paired difference over questions. A dozen questions cannot tell more.
    """
    questions, fold_of = question_folds(enc, seed)
    size = np.bincount(questions, enc.weight)

    def score(main_effect: float, deviation: float) -> list[tuple[dict[str, float], np.ndarray]]:
        losses = {l2: np.zeros(len(size)) for l2 in L2_GRID}
        for fold in track(range(fold_of.max() + 1), "penalties of the heads: held-out questions"):
            out = fold_of[questions] == fold
            known = np.where(out, 0.0, enc.weight)
            evidence = np.where(out, 0.0, enc.count)[:, None] * label_log_lik
            posterior = mixture_posterior(evidence, enc.rater, enc.n_raters, init.prevalence)
            used = np.unique(enc.alternatives[~out])
            seen, _ = _with_main_effects(problem, enc, used[used >= 0])
            heads = None
            for l2, loss in losses.items():
                penalty = _Penalty(l2, deviation, main_effect, residual_sd)
                heads = _regress(seen, posterior[enc.rater], known, init.prevalence, penalty, heads, tol=1e-6)
                with torch.no_grad():
                    log_lik = seen.log_lik(seen.rewards(heads))[seen.row[torch.from_numpy(out)]].numpy()
                predicted = predictive_log_lik(posterior[enc.rater[out]], log_lik)
                loss -= np.bincount(questions[out], enc.weight[out] * predicted, len(size))
        rows = [
            {
                "l2": float(l2),
                "deviation_penalty": deviation,
                "main_effect_penalty": main_effect,
                "nll": float(loss.sum() / size.sum()),
                "se": float((loss / size).std(ddof=1) / np.sqrt(len(size))),
            }
            for l2, loss in losses.items()
        ]
        return list(zip(rows, losses.values(), strict=True))

    mains = MAIN_EFFECT_GRID if recurring_responses(enc).shape[1] else (1.0,)
    scored = [line for f in mains for line in score(f, 1.0)]
    if init.num_clusters > 1 and not residual_sd:
        best = min(scored, key=lambda line: line[0]["nll"])[0]
        scored += [line for c in DEVIATION_GRID[1:] for line in score(best["main_effect_penalty"], c)]
    _, least = min(scored, key=lambda line: line[0]["nll"])
    allowed = []
    for row, loss in scored:
        excess = (loss - least) / size.mean()
        if excess.mean() <= excess.std(ddof=1) / np.sqrt(len(size)) or loss is least:
            allowed.append(row)
    return [row for row, _ in scored], min(allowed, key=lambda row: (-row["l2"], row["nll"]))


def _residual_sd(
    enc: Encoded, problem: _Problem, prevalence: np.ndarray, label_log_lik: np.ndarray, linear: np.ndarray, seed: int
) -> float:
    """Choose the spread of the residuals by the likelihood of a held-out fifth of the judgements."""
    out = seeded_rng(seed, "heldout labels of residuals").random(len(enc)) < 0.2
    if not out.any() or out.all():
        return RESIDUAL_SD_GRID[0]
    known = np.where(out, 0.0, enc.weight)
    evidence = np.where(out, 0.0, enc.count)[:, None] * label_log_lik
    posterior = mixture_posterior(evidence, enc.rater, enc.n_raters, prevalence)
    counts = problem.expected_counts(posterior[enc.rater], known)
    losses = {}
    for sd in RESIDUAL_SD_GRID:
        rewards = linear + fit_residuals(problem.log_lik, counts, linear, sd)
        with torch.no_grad():
            log_lik = problem.log_lik(torch.from_numpy(rewards))[problem.row[torch.from_numpy(out)]].numpy()
        losses[sd] = -float(enc.weight[out] @ predictive_log_lik(posterior[enc.rater[out]], log_lik))
    return min(losses, key=losses.__getitem__)


def _with_main_effects(problem: _Problem, enc: Encoded, known: np.ndarray) -> tuple[_Problem, np.ndarray]:
    """Insert functions that recognise recurring responses before the coordinates.

    They are ridge regressions, within questions, of the indicators of the responses, fitted to the `known` texts.
    Return the problem with p more coordinates, and their map (p, d) from the others.
    """
    coordinates = problem.coordinates.numpy()
    group = problem.group.numpy()[known]
    inputs, targets = (centre_within_groups(x, group) for x in (coordinates[known], recurring_responses(enc)[known]))
    gram = inputs.T @ inputs + RECOGNITION_RIDGE * np.eye(inputs.shape[1])
    readout = np.linalg.solve(gram, inputs.T @ targets).T
    together = torch.from_numpy(np.concatenate([coordinates @ readout.T, coordinates], axis=1))
    return dataclasses.replace(problem, coordinates=together, n_main=len(readout)), readout


def _check(
    enc: Encoded, features: np.ndarray, num_clusters: int, init: RaterFit | None, l2: float | Literal["auto"]
) -> None:
    check_features(enc, features)
    if l2 != "auto" and (isinstance(l2, str) or l2 < 0):
        raise JuryError(f'l2={l2!r} is no strength. Fix: use a number >= 0, or "auto" to choose on held-out questions')
    if init is not None and init.num_clusters != num_clusters:
        raise JuryError(
            f"num_clusters={num_clusters}, but the initial fit has {init.num_clusters} clusters. Fix: pass the same "
            "number"
        )
