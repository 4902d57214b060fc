"""What people answer to a question that nobody was asked yet: the mean over known questions, weighted by wording.

The marginal, the mean of the known questions' shares, is hard to beat on a new question. This keeps the mean and lets
the weights depend on how alike the texts are (ordinary kriging: Cressie 1993, Statistics for Spatial Data, §3.2). With
correlations `C = (1 - ρ) I + ρ K` of the known questions, `K` a kernel of their texts, and `c = ρ k` with the new one,
the weights are `C⁻¹ (c + λ 1)`, with `λ` such that they sum to 1. Where wording tells nothing (ρ = 0) all weights are
alike, and the prediction is the marginal itself.

How much wording tells (ρ) and how near is near (the width of the kernel) are not chosen but averaged over, each pair
by its evidence on the known questions: with a dozen questions the best pair is too often one that fits by chance.

Needs vectors of the questions' texts, and nothing else; knows neither raters nor models.

Shapes: `Q` known questions, `J` new questions, `A` options, `D` numbers of a vector.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from scipy.special import softmax

from reward_models.errors import JudgementError


__all__ = ["SimilarQuestions", "fit_similar_questions"]

RELIANCES = (0.0, 0.05, 0.1, 0.2, 0.35, 0.5, 0.65, 0.8, 0.9)
"""Candidates of ρ, the part of the differences between questions that their texts tell; all alike beforehand."""
WIDTHS = (0.25, 0.5, 1.0, 2.0)
"""Candidates of a kernel's width, as multiples of the median distance between the known questions' vectors."""
FEWEST_QUESTIONS = 3
"""With fewer known questions nothing says how much wording tells, and the prediction is the marginal."""
_NOISE = 0.05
"""Differences in log shares that count as none: the sampling error of some hundreds of people."""
_LEAST_SHARE = 0.002
"""Added to shares before the logarithm, so that an answer that nobody gave says no more than a very rare one."""
_LEAST_PART = 1e-3
"""A predicted share is at least this part of the marginal: weights may be negative, shares may not."""


@dataclass(frozen=True)
class SimilarQuestions:
    """Known questions, and how much their wording tells of what people answer.

    Attributes:
        known: `(Q, A)` shares of the known questions.
        vectors: By name of the source, `(Q, D)` vectors of the known questions' texts.
        evidence: By name of the source, `(W, P)` posterior probability of each kernel width and each ρ; all sources
            together sum to 1.

    Example:
        >>> lengths = np.array([[1.0], [2.0], [3.0]])  # nothing to do with the answers, which are all alike
        >>> fit = fit_similar_questions(np.array([[0.7, 0.3]] * 3), lengths)
        >>> fit.weights(lengths[:1]).sum().round(6), fit.shares(np.array([[9.0]])).round(3).tolist()
        (np.float64(1.0), [[0.7, 0.3]])
    """

    known: np.ndarray
    vectors: Mapping[str, np.ndarray]
    evidence: Mapping[str, np.ndarray]

    @property
    def marginal(self) -> np.ndarray:
        """The mean of the known questions' shares, `(A,)`."""
        return self.known.mean(axis=0)

    @property
    def reliance(self) -> float:
        """Expected ρ: 0 where wording tells nothing of the answers, 1 where it tells all."""
        return float(sum((p @ RELIANCES).sum() for p in self.evidence.values()))

    def weights(self, vectors: np.ndarray | Mapping[str, np.ndarray]) -> np.ndarray:
        """Return the weight of each known question for each new one, `(J, Q)`; each row sums to 1.

        Args:
            vectors: Vectors of the new questions, `(J, D)`, or by name of the source, as in the fit.

        Raises:
            JudgementError: The sources or the lengths of the vectors are not those of the fit.
        """
        new = _by_source(vectors)
        lengths = {name: rows.shape[1] for name, rows in self.vectors.items()}
        if (given := {name: rows.shape[1] for name, rows in new.items()}) != lengths:
            raise JudgementError(
                f"the new questions have vectors of {given} numbers, the known ones of {lengths}. Fix: encode both "
                "with the same model."
            )
        number = len(next(iter(new.values())))
        weights = np.zeros((number, len(self.known)))
        for name, rows in self.vectors.items():
            kernels = _Kernels(rows)
            for posterior, width in zip(self.evidence[name], WIDTHS, strict=True):
                spectrum, near = kernels.spectrum(width), kernels.near(new[name], width)
                for probability, reliance in zip(posterior, RELIANCES, strict=True):
                    weights += probability * _kriging_weights(*spectrum, reliance * near, reliance)
        return weights

    def shares(self, vectors: np.ndarray | Mapping[str, np.ndarray]) -> np.ndarray:
        """Predict what people answer to new questions, `(J, A)`; each row sums to 1.

        Args:
            vectors: As for `weights`.

        Raises:
            JudgementError: As for `weights`.
        """
        predicted = np.maximum(self.weights(vectors) @ self.known, _LEAST_PART * self.marginal)
        return predicted / predicted.sum(axis=1, keepdims=True)


def fit_similar_questions(shares: np.ndarray, vectors: np.ndarray | Mapping[str, np.ndarray]) -> SimilarQuestions:
    """Learn from known questions how much wording tells of the answers.

    Args:
        shares: `(Q, A)` answer shares of the known questions, which all offer the same answers.
        vectors: `(Q, D)` vectors of their texts, e.g. of a sentence embedder; or several by name, such as a language
            model's log-probabilities of the answers. The evidence then also says which of them to believe.

    Raises:
        JudgementError: A question has no vector or no shares, or a number is not finite.

    Example:
        >>> vectors = np.array([[0.0, 0.1], [0.1, 0.0], [0.0, 0.0], [1.0, 1.1], [1.1, 1.0], [1.0, 1.0]])
        >>> agree = np.array([0.81, 0.79, 0.8, 0.2, 0.21, 0.19])  # two topics, and people like the first
        >>> fit = fit_similar_questions(np.stack([agree, 1 - agree], axis=1), vectors)
        >>> fit.shares(np.array([[0.1, 0.1], [1.1, 1.1]])).round(1).tolist(), fit.marginal.round(1).tolist()
        ([[0.8, 0.2], [0.2, 0.8]], [0.5, 0.5])
    """
    known, by_source = np.asarray(shares, dtype=np.float64), _by_source(vectors)
    if (
        known.ndim != 2
        or not len(known)
        or not np.isfinite(known).all()
        or (known < 0).any()
        or not known.sum(axis=1).all()
    ):
        raise JudgementError(
            f"shares have the shape {known.shape} and must be (questions, options), finite and not negative. Fix: "
            "pass a row of shares per known question, and leave out questions that nobody answered."
        )
    for name, rows in by_source.items():
        if len(rows) != len(known) or not np.isfinite(rows).all():
            raise JudgementError(
                f"{len(known)} questions have {len(rows)} vectors {name!r}, which must be as many and finite. Fix: "
                "pass a vector per question, in the order of the shares."
            )
    known = known / known.sum(axis=1, keepdims=True)
    log_evidence = {name: _log_evidence(known, _Kernels(rows)) for name, rows in by_source.items()}
    posterior = softmax(np.stack(list(log_evidence.values())))
    return SimilarQuestions(
        known, MappingProxyType(by_source), MappingProxyType(dict(zip(by_source, posterior, strict=True)))
    )


class _Kernels:
    """Likeness of texts: a Gaussian kernel of the directions of their vectors from the known questions' mean."""

    def __init__(self, known: np.ndarray) -> None:
        self._centre = known.mean(axis=0)
        self._known = self._directions(known)
        distances = self._squared_distances(self._known)
        apart = distances[np.triu_indices(len(known), 1)]
        self._scale = float(np.median(apart)) if len(apart) else 0.0

    def spectrum(self, width: float) -> tuple[np.ndarray, np.ndarray]:
        """Eigenvalues and eigenvectors of the known questions' kernel."""
        values, basis = np.linalg.eigh(self.near(None, width))
        return np.maximum(values, 0.0), basis

    def near(self, new: np.ndarray | None, width: float) -> np.ndarray:
        """Kernel of new questions, or of the known ones, with the known ones; 0 where all texts are the same."""
        rows = self._known if new is None else self._directions(new)
        if not self._scale:
            return np.eye(len(rows)) if new is None else np.zeros((len(rows), len(self._known)))
        return np.exp(-self._squared_distances(rows) / (2 * width**2 * self._scale))

    def _directions(self, rows: np.ndarray) -> np.ndarray:
        away = rows - self._centre
        length = np.linalg.norm(away, axis=1, keepdims=True)
        return away / np.where(length > 0, length, 1.0)

    def _squared_distances(self, rows: np.ndarray) -> np.ndarray:
        squares = (rows**2).sum(axis=1)[:, None] + (self._known**2).sum(axis=1) - 2 * rows @ self._known.T
        return np.maximum(squares, 0.0)


def _kriging_weights(values: np.ndarray, basis: np.ndarray, near: np.ndarray, reliance: float) -> np.ndarray:
    """Weights `(J, Q)` by the eigenvalues `(Q,)` and eigenvectors `(Q, Q)` of the kernel and covariances `(J, Q)`."""
    inverse = (basis / (1 - reliance + reliance * values)) @ basis.T
    alike = inverse.sum(axis=1)
    weights = near @ inverse
    return weights + (1 - weights.sum(axis=1, keepdims=True)) / alike.sum() * alike


def _log_evidence(known: np.ndarray, kernels: _Kernels) -> np.ndarray:
    """Log evidence `(W, P)` of widths and reliances: mean and spread of every direction of the log shares summed out.

    A direction counts the less, the less questions differ in it by more than noise.
    """
    log_evidence = np.zeros((len(WIDTHS), len(RELIANCES)))
    if len(known) < FEWEST_QUESTIONS:
        log_evidence[:, 1:] = -np.inf
        return log_evidence
    logs = np.log(known + _LEAST_SHARE)
    logs = logs - logs.mean(axis=1, keepdims=True)
    logs = (logs - logs.mean(axis=0)) @ np.linalg.svd(logs - logs.mean(axis=0), full_matrices=False)[2].T
    variance = logs.var(axis=0)
    counts = variance / (variance + _NOISE**2)
    for row, width in enumerate(WIDTHS):
        values, basis = kernels.spectrum(width)
        for column, reliance in enumerate(RELIANCES):
            diagonal = 1 - reliance + reliance * values
            ones, rotated = basis.sum(axis=0), basis.T @ logs
            precision = (ones**2 / diagonal).sum()
            rotated = rotated - np.outer(ones, (ones / diagonal) @ rotated / precision)
            spread = (rotated**2 / diagonal[:, None]).sum(axis=0) / (len(known) - 1)
            volume = np.log(diagonal).sum() + np.log(precision)
            log_evidence[row, column] = -(counts * ((len(known) - 1) * np.log(spread + 1e-9) + volume)).sum() / 2
    return log_evidence


def _by_source(vectors: np.ndarray | Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    named = vectors if isinstance(vectors, Mapping) else {"text": vectors}
    rows = {name: np.asarray(value, dtype=np.float64) for name, value in named.items()}
    if not rows or any(value.ndim != 2 for value in rows.values()):
        shapes = {name: value.shape for name, value in rows.items()}
        raise JudgementError(
            f"vectors have the shapes {shapes} and must be (questions, numbers). Fix: a row per question."
        )
    return rows
