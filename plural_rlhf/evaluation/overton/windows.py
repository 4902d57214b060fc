"""Windows of views: how much of a window an answer covers, how much of an answer lies in it, and sets of answers.

An answer is pluralistic in Overton's sense if it says all views of the window and nothing outside it (Sorensen et al.
2024, https://arxiv.org/abs/2402.05070): recall and precision are 1. Knows nothing of models; an entailment model is
any callable.

Shapes: `N` answers, `S` sentences of an answer, `W` views of a window.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from plural_rlhf.evaluation.open_ended.distances import classes_covered


__all__ = [
    "Entailment",
    "WindowFit",
    "answers_needed",
    "nli_coverage",
    "recall_at_k",
    "sentences",
    "window_fit",
]

Entailment = Callable[[Sequence[str], Sequence[str]], Sequence[float]]
"""Maps premises and hypotheses, two lists of one length, to the probabilities that each premise entails its
hypothesis."""

_END = re.compile(r"(?:(?<=[.!?])|(?<=[.!?][\"'”’)\]]))\s+|(?<=[。！？])|\n+")
_NO_END = re.compile(r"(?:\b(?:[A-Za-z]|Mr|Mrs|Ms|Dr|Prof|St|vs|etc|e\.g|i\.e)\.|^\s*\d+\.|^\s*[-*•]+)\s*$")


@dataclass(frozen=True)
class WindowFit:
    """How an answer fits a window of views.

    Attributes:
        recall: Share of the views that the answer says.
        precision: Share of its sentences that say a view of the window; nan for an answer without sentences.

    Example:
        >>> window_fit([[True, False, False], [False, False, False]])  # two sentences, three views
        WindowFit(recall=0.3333333333333333, precision=0.5)
    """

    recall: float
    precision: float


def sentences(text: str) -> list[str]:
    r"""Split a text into sentences and lines; abbreviations, initials and numbers of a list do not end one.

    Example:
        >>> sentences("Dr. Lee says yes. I disagree!\n1. It costs 3.5 billion.")
        ['Dr. Lee says yes.', 'I disagree!', '1. It costs 3.5 billion.']
    """
    parts: list[str] = []
    for part in _END.split(text):
        if parts and _NO_END.search(parts[-1]):
            parts[-1] = f"{parts[-1]} {part}"
        else:
            parts.append(part)
    return [part.strip() for part in parts if re.search(r"\w", part)]


def window_fit(says: np.ndarray | Sequence[Sequence[bool]]) -> WindowFit:
    """Compute recall and precision of an answer.

    Args:
        says: (S, W) whether a sentence says a view.

    Raises:
        ValueError: The window has no view, or what is said is neither true nor false.

    Example:
        >>> window_fit([[True, True]])  # one sentence may say several views
        WindowFit(recall=1.0, precision=1.0)
    """
    said = _said(says, "sentences")
    return WindowFit(float(said.any(axis=0).mean()), float(said.any(axis=1).mean()) if len(said) else float("nan"))


def _said(says: np.ndarray | Sequence[Sequence[bool]], rows: str) -> np.ndarray:
    """Return what is said as truth values; a text such as "no", NaN and a probability would be taken for true."""
    said = np.asarray(says)
    if said.ndim != 2 or not said.shape[1]:
        raise ValueError(f"says has shape {said.shape}: no view. Fix: give ({rows}, views).")
    if said.dtype != bool and not np.isin(said, (0, 1)).all():
        raise ValueError("says holds something else than true and false. Fix: compare scores with a threshold first.")
    return said.astype(bool)


def nli_coverage(
    answers: Sequence[str],
    windows: Sequence[Sequence[str]],
    entails: Entailment,
    *,
    direction: str = "view to sentence",
) -> list[np.ndarray]:
    """Compute how strongly each answer says each view of its window, by an entailment model.

    The score of a view is the highest probability of entailment over the answer's sentences. Its mean over views is
    the score of Modular Pluralism (Feng et al. 2024, https://arxiv.org/abs/2406.15951), whose "accuracy" is the share
    of answers with a mean above .33; there the view is the premise and the sentence the hypothesis.

    Args:
        answers: `N` answers.
        windows: The views of each, as texts.
        entails: The entailment model; asked once for all pairs.
        direction: "view to sentence", as published; or "sentence to view", which asks whether the answer says the view
            and is not satisfied by a platitude that every view entails.

    Returns:
        For each answer (S, W) the probabilities, from which `window_fit(scores > threshold)` and
        `scores.max(axis=0).mean()` follow; (0, W) for an answer without a sentence.

    Raises:
        ValueError: Lists of unequal lengths, a window that is one text, an unknown direction, or something else than a
            probability per pair.

    Example:
        >>> def same_words(premises, hypotheses):
        ...     return [float(p.strip(".").lower() in h.lower()) for p, h in zip(premises, hypotheses)]
        >>> [scores] = nli_coverage(["We need more parks. And roads."], [["More parks.", "Lower taxes."]], same_words)
        >>> scores.tolist(), float(scores.max(axis=0).mean())
        ([[1.0, 0.0], [0.0, 0.0]], 0.5)
    """
    if len(answers) != len(windows):
        raise ValueError(f"there are {len(answers)} answers and {len(windows)} windows. Fix: one window each.")
    if any(isinstance(window, str) for window in windows):
        raise ValueError("a window is one text, of which each letter would be a view. Fix: give a list of views.")
    if direction not in ("view to sentence", "sentence to view"):
        raise ValueError(f"direction={direction!r} is unknown. Fix: 'view to sentence' or 'sentence to view'.")
    split = [sentences(answer) for answer in answers]
    said = [s for of, window in zip(split, windows, strict=True) for s in of for _ in window]
    views = [view for of, window in zip(split, windows, strict=True) for _ in of for view in window]
    pair = (views, said) if direction == "view to sentence" else (said, views)
    probabilities = np.asarray(entails(*pair) if said else [], dtype=np.float64)
    if probabilities.shape != (len(said),):
        raise ValueError(
            f"the entailment model gave shape {probabilities.shape} for {len(said)} pairs. Fix: return one number "
            "per pair."
        )
    if not ((probabilities >= -1e-6) & (probabilities <= 1 + 1e-6)).all():
        raise ValueError(
            f"the entailment model gave {probabilities.min():.4g} to {probabilities.max():.4g}. Fix: return the "
            "probability of entailment, from 0 to 1."
        )
    if not windows:
        return []  # np.split would make one part of nothing
    ends = np.cumsum([len(of) * len(window) for of, window in zip(split, windows, strict=True)])
    return [
        part.reshape(len(of), len(window))
        for part, of, window in zip(np.split(probabilities, ends[:-1]), split, windows, strict=True)
    ]


def recall_at_k(says: np.ndarray, shares: np.ndarray | Sequence[float] | None = None) -> np.ndarray:
    """Compute the recall of the window by `k` of the answers together, on average over all choices of `k`.

    Args:
        says: (N, W) whether an answer says a view.
        shares: (W,) weights of the views, which sum to 1; None: all alike.

    Returns:
        (N,) recall of `k = 1 .. N` answers.

    Raises:
        ValueError: There is no view, what is said is neither true nor false, or the shares do not fit the views.

    Example:
        >>> recall_at_k(np.array([[True, False], [True, False], [False, True]])).round(3).tolist()
        [0.5, 0.833, 1.0]
    """
    said = _said(says, "answers")
    weights = np.full(said.shape[1], 1 / said.shape[1]) if shares is None else np.asarray(shares, dtype=np.float64)
    if weights.shape != said.shape[1:] or not (weights >= 0).all() or abs(weights.sum() - 1) > 1e-6:
        raise ValueError(
            f"{said.shape[1]} views have the shares {weights.tolist()}. Fix: give one of at least 0 per view, which "
            "sum to 1."
        )
    return np.array([classes_covered(said, weights, k) for k in range(1, len(said) + 1)])


def answers_needed(curve: np.ndarray | Sequence[float], recall: float) -> int | None:
    """Find how many answers of one policy reach the recall that another has with one.

    One aligned answer may hold what a base model says over many samples (Lake et al. 2024,
    https://arxiv.org/abs/2406.17692).

    Args:
        curve: Recall of `k = 1, 2, ...` answers of the base model (`recall_at_k`).
        recall: Mean recall of one answer of the tuned model on the same windows.

    Returns:
        The least `k`; None if the curve does not reach it.

    Example:
        >>> answers_needed([0.2, 0.35, 0.5], recall=0.4), answers_needed([0.2, 0.35], recall=0.4)
        (3, None)
    """
    reached = np.flatnonzero(np.asarray(curve) >= recall - 1e-12)
    return int(reached[0]) + 1 if len(reached) else None
