"""How many different answers a policy gives to prompts with many good ones, as NoveltyBench counts them.

For every prompt `k` texts: classes that say the same, the share of the largest three, the effective numbers of
classes and of vectors; where utilities are known, `utility_k`. Texts are grouped by a rule that was calibrated on
people's judgements (`equivalence`). Knows nothing of models.

Shapes: `k` texts of a prompt, `D` dimensions of a vector.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from plural_rlhf.evaluation.diversity.classes import (
    distinct_k,
    effective_classes,
    greedy_classes,
    largest_classes,
    utility_k,
    vendi_score,
)
from plural_rlhf.evaluation.diversity.equivalence import EquivalenceRule
from plural_rlhf.evaluation.intervals import bca_interval
from reward_models.stats.answers import Interval


__all__ = ["mean_novelty", "prompt_novelty", "utility_levels"]

LEVELS = 10


def prompt_novelty(
    texts: Sequence[str],
    rule: str | EquivalenceRule = "words",
    vectors: np.ndarray | None = None,
    utilities: Sequence[float] | None = None,
) -> dict[str, float]:
    """Measure the texts of one prompt.

    Args:
        texts: `k` texts in the order in which they were drawn.
        rule: When two texts say the same.
        vectors: (k, D) vectors of the texts, for the Vendi score and rules that read them.
        utilities: (k,) what each text is worth.

    Returns:
        `distinct`, `effective_classes`, `largest_3`; `vendi_score` with vectors, `utility` with utilities.

    Raises:
        ValueError: There is no text, something is no text, or there is not one finite utility per text.

    Example:
        >>> jokes = ["Why did the chicken cross the road?"] * 8 + ["Knock knock.", "A man walks into a bar."]
        >>> prompt_novelty(jokes, "exact", utilities=[5.0] * 10)
        {'distinct': 3.0, 'effective_classes': 1.8946..., 'largest_3': 1.0, 'utility': 1.4586...}
    """
    if not len(texts):
        raise ValueError("there is no text. Fix: draw some, 10 as a rule.")
    if isinstance(texts, str) or not all(isinstance(text, str) for text in texts):
        raise ValueError(f"texts={texts!r:.80} is no list of texts. Fix: give one, e.g. ['red', 'blue'].")
    worth = None if utilities is None else np.asarray(utilities, dtype=np.float64)
    if worth is not None and not (worth.shape == (len(texts),) and np.isfinite(worth).all()):
        raise ValueError(f"{len(texts)} texts have the utilities {worth.tolist()}. Fix: give a finite one per text.")
    classes = greedy_classes(texts, rule, vectors)
    numbers = {
        "distinct": float(distinct_k(classes)),
        "effective_classes": effective_classes(classes),
        "largest_3": largest_classes(classes, 3),
    }
    if vectors is not None:
        known = np.linalg.norm(vectors, axis=1) > 0
        numbers["vendi_score"] = vendi_score(np.asarray(vectors)[known]) if known.any() else float("nan")
    if worth is not None:
        numbers["utility"] = utility_k(classes, worth)
    return numbers


def mean_novelty(prompts: Sequence[Mapping[str, float]], level: float = 0.95) -> dict[str, Interval]:
    """Average the measures of prompts, with BCa intervals over them.

    Raises:
        ValueError: There is no prompt, or not all have the same measures.

    Example:
        >>> prompts = [prompt_novelty(["a", "b", "a"]), prompt_novelty(["a", "a", "a"])]
        >>> mean_novelty(prompts)["distinct"].value
        1.5
    """
    if not prompts or any(set(numbers) != set(prompts[0]) for numbers in prompts):
        raise ValueError(
            "there is no prompt, or prompts have other measures than the first. Fix: give all of them vectors and "
            "utilities, or none."
        )
    return {name: bca_interval(np.array([numbers[name] for numbers in prompts]), level=level) for name in prompts[0]}


def utility_levels(rewards: Sequence[float] | np.ndarray, reference: Sequence[float] | np.ndarray) -> np.ndarray:
    """Turn rewards into utilities from 1 to 10, as NoveltyBench does: by the deciles of rewards of reference texts.

    So any reward gives utilities on one scale: 1 is below the worst tenth of the reference, 10 above the best. The
    published thresholds are those of one reward model.

    Args:
        rewards: (N,) or (N, K) rewards of texts.
        reference: (M,) or (M, K) rewards of reference texts.

    Returns:
        Utilities of the shape of `rewards`.

    Raises:
        ValueError: Fewer than ten reference texts, rewards that are not finite, or another number of columns.

    Example:
        >>> utility_levels([-1.0, 0.5, 9.5], np.linspace(0, 1, 101)).tolist()
        [1.0, 5.0, 10.0]
    """
    values, of_reference = np.asarray(rewards, dtype=np.float64), np.asarray(reference, dtype=np.float64)
    if len(of_reference) < LEVELS:
        raise ValueError(f"{len(of_reference)} reference texts are too few for deciles. Fix: give at least {LEVELS}.")
    if not (np.isfinite(values).all() and np.isfinite(of_reference).all()):
        raise ValueError("rewards hold NaN or an infinity, which lie in no tenth. Fix: leave these texts out.")
    if values.shape[1:] != of_reference.shape[1:]:
        raise ValueError(
            f"rewards have shape {values.shape} and those of the reference {of_reference.shape}. Fix: give the same "
            "columns."
        )
    cuts = np.quantile(of_reference, np.arange(1, LEVELS) / LEVELS, axis=0)  # (9,) or (9, K)
    return 1.0 + (values[None] > cuts[:, None]).sum(axis=0)
