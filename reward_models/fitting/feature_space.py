"""Coordinates of texts for the regression of rewards on features, and the questions that it is validated on.

Knows nothing of rewards or raters.

Shapes: `N` judgements, `U` texts, `D` features, `d` coordinates, `S` recurring responses.
"""

from __future__ import annotations

import numpy as np

from reward_models.errors import JuryError
from reward_models.judgements.encoding import Encoded
from reward_models.judgements.texts import prompt_groups
from reward_models.seeds import seeded_rng
from reward_models.stats.groups import centre_within_groups


__all__ = ["comparable_texts", "question_folds", "recurring_responses", "within_question_span"]

RECURRING = 3  # number of questions from which on a response counts as recurring
MAX_FOLDS = 12
BETWEEN_SHARE = 0.01  # share of a feature's variance between questions that counts as spread


def comparable_texts(enc: Encoded) -> np.ndarray:
    """Return the (U,) group of each text; rewards compare within a group: one prompt, or all texts for ratings.

    Example:
        >>> from reward_models import planted_judgements
        >>> comparable_texts(planted_judgements("preference", num_items=3).judgements.encode()).tolist()
        [0, 0, 1, 1, 2, 2]
    """
    if enc.kind == "rating":
        return np.zeros(enc.n_texts, dtype=np.int64)
    return prompt_groups(enc.texts)


def question_folds(enc: Encoded, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the (N,) question of each judgement, and the fold of each question.

    A question is a prompt with all its responses; with fewer than three prompts (statements under one heading) it is
    an item.

    Args:
        enc: `N` judgements.
        seed: Random seed of the folds.

    Raises:
        JuryError: A single question.

    Example:
        >>> from reward_models import planted_judgements
        >>> enc = planted_judgements("choice", num_raters=2, num_items=4).judgements.encode()
        >>> question, fold = question_folds(enc, seed=0)
        >>> question.tolist(), sorted(fold.tolist())
        ([0, 1, 2, 3, 0, 1, 2, 3], [0, 1, 2, 3])
    """
    prompt = prompt_groups(enc.texts)[enc.alternatives[:, 0]]
    question = np.unique(prompt if len(np.unique(prompt)) >= 3 else enc.item, return_inverse=True)[1]
    n_questions = question.max() + 1
    if n_questions < 2:
        raise JuryError(
            'l2="auto" chooses the penalty on held-out questions, but there is 1 question. Fix: pass a number, '
            "e.g. l2=0.01"
        )
    fold_of = seeded_rng(seed, "folds of questions").permutation(n_questions) % min(n_questions, MAX_FOLDS)
    return question, fold_of


def recurring_responses(enc: Encoded) -> np.ndarray:
    """Return (U, S) indicators of the `S` responses that occur in at least three questions.

    Example:
        >>> from reward_models import planted_judgements
        >>> recurring_responses(planted_judgements("preference", num_items=3).judgements.encode())[:2].tolist()
        [[1.0, 0.0], [0.0, 1.0]]
    """
    names = {text.response: i for i, text in enumerate(enc.texts)}
    response = np.unique([names[text.response] for text in enc.texts], return_inverse=True)[1]
    counts = np.bincount(response)  # texts are unique, so a response occurs once per question
    return (response[:, None] == np.flatnonzero(counts >= RECURRING)).astype(np.float64)


def within_question_span(enc: Encoded, features: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return coordinates (U, d) in the span of the centred features, the map (d, D) back, and the (D,) feature scale.

    Choices and pairs compare answers to one question, so features are centred and scaled by their spread within
    questions, and only within-question directions are kept: no other direction changes the likelihood. A hundredth of
    the variance between questions is added, so that a feature with hardly any variance within them is not amplified.

    Example:
        >>> from reward_models import planted_judgements
        >>> enc = planted_judgements("preference", num_items=3).judgements.encode()
        >>> features = np.random.default_rng(0).normal(size=(6, 2))
        >>> coordinates, to_features, _ = within_question_span(enc, features)
        >>> np.allclose(coordinates @ np.linalg.pinv(to_features.T), features - features.mean(0))
        True
    """
    centred = features - features.mean(0)
    group = comparable_texts(enc)
    within = centre_within_groups(centred, group)
    spread = np.sqrt(within.var(0) + BETWEEN_SHARE * centred.var(0))
    inverse = np.divide(1.0, spread, out=np.zeros_like(spread), where=spread > 1e-12 * max(spread.max(), 1e-300))
    unit = np.sqrt(((within * inverse) ** 2).sum(1).mean())
    inverse = inverse / (unit if unit > 0 else 1.0)
    _, singular, right = np.linalg.svd(within * inverse, full_matrices=False)
    basis = right[singular > 1e-8 * max(singular.max(initial=0.0), 1e-300)]
    return (centred * inverse) @ basis.T, basis * inverse, inverse
