"""From free rewards per text to rewards that are linear in frozen features, so that new texts can be scored.

A penalised regression on the label-level memberships: `r_k(text) = w_k . h(text) + b_k`, `w_k = w_0 + delta_k` with
`sum_k pi_k delta_k = 0`. The strength of the penalty is chosen by leaving questions out, because a new question is
what the linear heads are for; the texts that were judged keep what they are known for in a residual memory (see
`memory`). Where responses recur across questions ("too little", whatever the question), linear functions of the
features that recognise them are added as features of their own and penalised less, so that a new question falls back
to the usual answers rather than to all answers alike. Knows nothing of where the features come from.

There are far fewer texts than features, so the regression runs in the span of the centred features (their singular
vectors), which is the same problem exactly (representer theorem) with at most U coordinates.

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
from reward_models.judgements.texts import prompt_groups
from reward_models.raters.lbfgs import minimise
from reward_models.raters.memberships import mixture_posterior, predictive_log_lik
from reward_models.raters.observation import TERM_SD, Observations
from reward_models.stats.groups import centre_within_groups


__all__ = ["FeatureFit", "fit_features"]

L2_GRID = tuple(10.0 ** np.arange(0.5, -4.1, -0.5))  # strong to weak, each fit starting at the last
DEVIATION_GRID = (1.0, 5.0)
MAIN_EFFECT_GRID = (1.0, 0.03, 0.001)
RESIDUAL_SD = 1.0  # logits, while the heads are fitted
RESIDUAL_SD_GRID = (0.1, 0.3, 1.0, 3.0)
RECOGNITION_RIDGE = 0.1  # of the regression that reads a recurring response off the features
RECURRING = 3  # questions that must offer a response before it counts as shared
MAX_FOLDS = 12
BETWEEN_SHARE = 0.01  # of a feature's variance between questions that counts as spread: see `_span`


@dataclass(frozen=True)
class FeatureFit:
    """Linear reward heads on raw features, and a memory of the judged texts.

    Attributes:
        weight: (K, D) heads; the features' mean and scale are folded in.
        bias: (K,) so that rewards average zero over the texts (pairs and choices) or fit the thresholds (ratings).
        prevalence: (K,) in the order of the initial fit's clusters; the initial fit's own unless EM went on.
        consensus_weight: (D,) `w_0`, the prevalence-weighted mean of `weight`.
        l2: Strength of the penalty, per judgement.
        deviation_penalty: How many times stronger deviations from the consensus are penalised than the consensus;
            1 where residuals were fitted beside the heads.
        main_effect_penalty: Penalty of what responses share across questions, relative to that of other directions.
        responsibilities: (R, K) posterior memberships that the heads were fitted to.
        rewards: (U, K) `features @ weight.T + bias`, plus `memory.rewards(features)` if there is a memory. For
            choices and pairs only differences within a question mean anything.
        cv: Leave-questions-out table of the linear heads: `l2`, `deviation_penalty`, `main_effect_penalty`, `nll`
            (nats per held-out judgement), `se` (over questions).
        memory: Residual rewards of the judged texts; None without.
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
    """The strengths that the regression needs; see `FeatureFit`."""

    l2: float
    deviation: float = 1.0
    main_effect: float = 1.0
    residual_sd: float = 0.0  # 0: no residuals beside the heads

    def per_coordinate(self, problem: _Problem) -> Tensor:
        """(d,) relative penalty of each coordinate."""
        factor = torch.ones(problem.coordinates.shape[1], dtype=torch.float64)
        factor[: problem.n_main] = self.main_effect
        return factor


@dataclass(frozen=True)
class _Problem:
    """What the regression sees: distinct judgements (M) of texts with coordinates (U, d), main effects first."""

    rows: Observations
    row: Tensor
    group: Tensor
    coordinates: Tensor
    n_main: int
    terms: dict[str, Tensor]

    def log_lik(self, rewards: Tensor) -> Tensor:
        """(M, K) log-likelihood of the distinct judgements."""
        return self.rows.log_lik(self.rows.gather(rewards), self.terms)

    def rewards(self, heads: dict[str, Tensor]) -> Tensor:
        """(U, K) rewards of heads in coordinates (K, d); only ratings, which have a zero, have a bias (K,)."""
        rewards = self.coordinates @ heads["weight"].T
        return rewards + heads["bias"] if "bias" in heads else rewards

    def judged(self, counts: Tensor) -> Tensor:
        """(U,) group of each text, see `_groups`; -1 where no judgement counts."""
        seen = self.rows.alternatives[counts.sum(1) > 0]
        if self.rows.mask is not None:
            seen = seen[self.rows.mask[counts.sum(1) > 0]]
        group = torch.full_like(self.group, -1)
        group[seen.flatten()] = self.group[seen.flatten()]
        return group

    def expected_counts(self, membership: np.ndarray, weight: np.ndarray) -> Tensor:
        """(M, K) weight of each distinct judgement in each cluster, from (N, K) memberships."""
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

    With a memory and `l2="auto"` heads and residuals are fitted together instead, see `memory.fit_beside_residuals`.

    Args:
        enc: The judgements.
        features: (U, D) one row per text of `enc.texts`.
        num_clusters: `K`; 1 without penalty is Bradley-Terry / multinomial logit with linear rewards.
        init: Label-level fit to start from, which also gives the rater terms; None: fitted here.
        l2: Strength, or `"auto"`: chosen with `c` and the main-effect penalty on left-out questions. A number means
            `c = 1` and no main effects.
        em_iterations: Most EM steps with the linear rewards; 0 keeps the memberships and prevalence of `init`.
        memory: Let the judged texts keep what their judgements say beyond the linear heads. Never for `soft`
            judgements, nor for more than `memory.MAX_ANCHORS` texts.
        seed: Seed of the folds and of the initial fit.

    Returns:
        The heads, in the order of `init`'s clusters.

    Raises:
        JuryError: Features that do not match the texts or are not finite, a negative `l2`, K as in `fit_mixture`, an
            initial fit with another K, or a single question with `l2="auto"`.
    """
    check_num_clusters(enc, num_clusters)
    _check(enc, features, num_clusters, init, l2)
    memory = memory and enc.kind != "soft" and enc.n_texts <= MAX_ANCHORS
    init = init or fit_mixture(enc, num_clusters, FitConfig(seed=seed))
    if enc.kind == "soft":
        enc = soft_as_choice(enc)
    features = features.astype(np.float64)
    posterior, terms = init.point_estimates(enc)
    coordinates, to_features, scale = _span(enc, features)
    rows = Observations.from_encoded(enc)
    # Judgements that differ only in who made them are one, unless who made them enters the likelihood.
    rows, row = (rows, torch.arange(len(enc))) if terms.keys() & TERM_SD.keys() else rows.distinct()
    problem = _Problem(
        rows=rows,
        row=row,
        group=torch.from_numpy(_groups(enc)),
        coordinates=torch.from_numpy(coordinates),
        n_main=0,
        terms={name: torch.from_numpy(value) for name, value in terms.items()},
    )
    label_log_lik = init.judgement_log_lik(enc, terms)
    cv: list[dict[str, float]] = []
    penalty = _Penalty(0.0 if l2 == "auto" else float(l2), residual_sd=RESIDUAL_SD if memory and l2 == "auto" else 0.0)
    if l2 == "auto":
        cv, best = _leave_questions_out(enc, problem, init, label_log_lik, penalty.residual_sd, seed)
        problem, readout = _with_main_effects(problem, enc, np.arange(enc.n_texts))
        to_features = np.concatenate([readout @ to_features, to_features])
        penalty = _Penalty(best["l2"], best["deviation_penalty"], best["main_effect_penalty"], penalty.residual_sd)

    prevalence = init.prevalence
    heads = _regress(problem, posterior[enc.rater], enc.weight, prevalence, penalty, None)
    for _ in range(em_iterations if num_clusters > 1 else 0):
        with torch.no_grad():
            log_lik = problem.log_lik(problem.rewards(heads))[row].numpy()
        previous = posterior
        posterior = mixture_posterior(enc.weight[:, None] * log_lik, enc.rater, enc.n_raters, prevalence)
        prevalence = (posterior.sum(0) + 0.5) / (enc.n_raters + 0.5 * num_clusters)
        heads = _regress(problem, posterior[enc.rater], enc.weight, prevalence, penalty, heads)
        if np.abs(posterior - previous).mean() < 1e-4:
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
    """M-step: heads (K, d) and biases (K,) that minimise the penalised expected loss per judgement."""
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


def _leave_questions_out(
    enc: Encoded, problem: _Problem, init: RaterFit, label_log_lik: np.ndarray, residual_sd: float, seed: int
) -> tuple[list[dict[str, float]], dict[str, float]]:
    """Score every penalty on questions that neither the heads nor the memberships have seen.

    Returns:
        The table, and the line to use: the strongest penalty whose loss is not above the least by more than the
        standard error of their paired difference over questions. A dozen questions cannot tell more.
    """
    questions, fold_of = _folds(enc, seed)
    size = np.bincount(questions, enc.weight)

    def score(main_effect: float, deviation: float) -> list[tuple[dict[str, float], np.ndarray]]:
        losses = {l2: np.zeros(len(size)) for l2 in L2_GRID}
        for fold in range(fold_of.max() + 1):
            out = fold_of[questions] == fold
            known = np.where(out, 0.0, enc.weight)
            posterior = mixture_posterior(known[:, None] * label_log_lik, enc.rater, enc.n_raters, init.prevalence)
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

    mains = MAIN_EFFECT_GRID if _recurring(enc).shape[1] else (1.0,)
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
    chosen = min(allowed, key=lambda row: (-row["l2"], row["nll"]))
    return [row for row, _ in scored], chosen


def _residual_sd(
    enc: Encoded, problem: _Problem, prevalence: np.ndarray, label_log_lik: np.ndarray, linear: np.ndarray, seed: int
) -> float:
    """Choose how far judged texts may leave the linear heads: the best guess of a left-out fifth of the judgements."""
    out = np.random.default_rng(seed).random(len(enc)) < 0.2
    if not out.any() or out.all():
        return RESIDUAL_SD_GRID[0]
    known = np.where(out, 0.0, enc.weight)
    posterior = mixture_posterior(known[:, None] * label_log_lik, enc.rater, enc.n_raters, prevalence)
    counts = problem.expected_counts(posterior[enc.rater], known)
    losses = {}
    for sd in RESIDUAL_SD_GRID:
        rewards = linear + fit_residuals(problem.log_lik, counts, linear, sd)
        with torch.no_grad():
            log_lik = problem.log_lik(torch.from_numpy(rewards))[problem.row[torch.from_numpy(out)]].numpy()
        losses[sd] = -float(enc.weight[out] @ predictive_log_lik(posterior[enc.rater[out]], log_lik))
    return min(losses, key=losses.__getitem__)


def _folds(enc: Encoded, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """(N,) question of each judgement, and the fold of each question.

    A question is a prompt with all its responses. Where there are hardly any prompts (statements under one heading)
    it is an item.
    """
    prompt = prompt_groups(enc.texts)[enc.alternatives[:, 0]]
    question = np.unique(prompt if len(np.unique(prompt)) >= 3 else enc.item, return_inverse=True)[1]
    n_questions = question.max() + 1
    if n_questions < 2:
        raise JuryError(
            'l2="auto" chooses the penalty on left-out questions, but the judgements are about 1 question; pass a '
            "number, e.g. l2=0.01"
        )
    fold_of = np.random.default_rng(seed).permutation(n_questions) % min(n_questions, MAX_FOLDS)
    return question, fold_of


def _span(enc: Encoded, features: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Coordinates (U, d) in the span of the centred features, the map (d, D) back, and the (D,) scale of features.

    Choices and pairs compare answers to one question, so features are centred and scaled by their spread within
    questions, and only within-question directions are kept: nothing else changes the likelihood. A hundredth of the
    variance between questions is added to the scale, so that a feature which hardly varies within a question is not
    blown up.
    """
    centred = features - features.mean(0)
    group = _groups(enc)
    within = centre_within_groups(centred, group)
    spread = np.sqrt(within.var(0) + BETWEEN_SHARE * centred.var(0))
    inverse = np.divide(1.0, spread, out=np.zeros_like(spread), where=spread > 1e-12 * max(spread.max(), 1e-300))
    unit = np.sqrt(((within * inverse) ** 2).sum(1).mean())
    inverse = inverse / (unit if unit > 0 else 1.0)
    _, singular, right = np.linalg.svd(within * inverse, full_matrices=False)
    basis = right[singular > 1e-8 * max(singular.max(initial=0.0), 1e-300)]
    return (centred * inverse) @ basis.T, basis * inverse, inverse


def _with_main_effects(problem: _Problem, enc: Encoded, known: np.ndarray) -> tuple[_Problem, np.ndarray]:
    """Put functions in front of the coordinates that recognise recurring responses.

    They are ridge regressions, within questions, of which response a text holds, learnt on the `known` texts. Returns
    the problem with p more coordinates, and their map (p, d) from the others.
    """
    coordinates = problem.coordinates.numpy()
    group = problem.group.numpy()[known]
    inputs, targets = (centre_within_groups(x, group) for x in (coordinates[known], _recurring(enc)[known]))
    gram = inputs.T @ inputs + RECOGNITION_RIDGE * np.eye(inputs.shape[1])
    readout = np.linalg.solve(gram, inputs.T @ targets).T
    together = torch.from_numpy(np.concatenate([coordinates @ readout.T, coordinates], axis=1))
    return dataclasses.replace(problem, coordinates=together, n_main=len(readout)), readout


def _recurring(enc: Encoded) -> np.ndarray:
    """(U, S) whether a text holds each of the `S` responses that recur in several questions."""
    names = {text.response: i for i, text in enumerate(enc.texts)}
    response = np.unique([names[text.response] for text in enc.texts], return_inverse=True)[1]
    counts = np.bincount(response)  # texts are unique, so a response comes once in a question
    return (response[:, None] == np.flatnonzero(counts >= RECURRING)).astype(np.float64)


def _groups(enc: Encoded) -> np.ndarray:
    """(U,) number of the texts among which rewards compare: those of one prompt, or all texts for ratings."""
    if enc.kind == "rating":
        return np.zeros(enc.n_texts, dtype=np.int64)
    return prompt_groups(enc.texts)


def _check(
    enc: Encoded, features: np.ndarray, num_clusters: int, init: RaterFit | None, l2: float | Literal["auto"]
) -> None:
    check_features(enc, features)
    if l2 != "auto" and (isinstance(l2, str) or l2 < 0):
        raise JuryError(f'l2={l2!r}: needs a number >= 0, or "auto" to choose it on left-out questions')
    if init is not None and init.num_clusters != num_clusters:
        raise JuryError(
            f"num_clusters={num_clusters}, but the initial fit has {init.num_clusters} clusters; pass the same number"
        )
