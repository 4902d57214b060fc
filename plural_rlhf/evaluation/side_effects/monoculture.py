"""Generative monoculture: are a policy's texts less diverse than the texts that it learnt from?

For every prompt the diversity of a policy's texts is divided by that of the sources, at one number of texts (Wu et al.
2024, https://arxiv.org/abs/2407.02209). Sources are what people wrote, training texts, or a base model's samples.
Knows nothing of where texts come from.

Shapes: `R` prompts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from plural_rlhf.core.shares import effective_texts
from plural_rlhf.evaluation.diversity.classes import effective_classes, semantic_classes
from plural_rlhf.evaluation.diversity.equivalence import EquivalenceRule, equivalence_rule
from plural_rlhf.evaluation.intervals import bca_interval, sign_test
from reward_models.evaluation.comparisons import holm
from reward_models.seeds import seeded_rng
from reward_models.stats.answers import Interval


__all__ = ["DiversityRatio", "diversities", "monoculture"]

Diversity = Callable[[Sequence[str]], float]


@dataclass(frozen=True)
class DiversityRatio:
    """Diversity of outputs against sources.

    Attributes:
        measure: The measure of diversity.
        ratio: Geometric mean over prompts of outputs by sources; below 1 the policy narrows; BCa interval.
        narrower: Share of the prompts on which outputs are less diverse.
        p_value: Sign test over prompts, two-sided.
        p_holm: The same, corrected for the number of measures.
        k: Texts per prompt that were compared.
        by_prompt: Ratio of each prompt.

    Example:
        >>> sources = {f"q{i}": ["parks", "roads", "taxes", "schools"] for i in range(6)}
        >>> [wordings, classes] = monoculture({prompt: ["parks"] * 4 for prompt in sources}, sources)
        >>> classes.measure, round(classes.ratio.value, 3), classes.narrower, classes.k
        ('effective_classes', 0.25, 1.0, 4)
    """

    measure: str
    ratio: Interval
    narrower: float
    p_value: float
    p_holm: float
    k: int
    by_prompt: Mapping[str, float] = field(default_factory=dict)


def monoculture(
    outputs: Mapping[str, Sequence[str]],
    sources: Mapping[str, Sequence[str]],
    *,
    measures: Mapping[str, Diversity] | None = None,
    rule: str | EquivalenceRule = "words",
    repeats: int = 8,
    seed: int = 0,
) -> list[DiversityRatio]:
    """Compare the diversity of a policy's texts with that of its sources, prompt by prompt.

    Args:
        outputs: Texts of the policy by prompt.
        sources: Source texts by prompt; prompts that only one side has are left out.
        measures: Measures of diversity, above 0, by name; None: `diversities`.
        rule: When two texts say the same, for classes.
        repeats: How often `k` texts are drawn from a side with more.
        seed: Random seed.

    Returns:
        One per measure.

    Raises:
        ValueError: No prompt is on both sides, or one has fewer than two texts.

    Example:
        >>> texts = {f"q{i}": ["more parks", "lower taxes", "new roads"] for i in range(5)}
        >>> [ratio.ratio.value for ratio in monoculture(texts, texts)]
        [1.0, 1.0]
    """
    prompts = [prompt for prompt in outputs if prompt in sources]
    k = min((len(side[prompt]) for prompt in prompts for side in (outputs, sources)), default=0)
    if k < 2:
        raise ValueError(
            f"{len(prompts)} prompts are on both sides, the least with {k} texts. Fix: at least two texts of "
            "both sides to the same prompts."
        )
    used = measures or diversities(rule)
    log_ratio = np.array(
        [
            _mean_log(outputs[prompt], k, used, repeats, seed, number)
            - _mean_log(sources[prompt], k, used, repeats, seed, number)
            for number, prompt in enumerate(prompts)
        ]
    )  # (R, measures)
    narrower, wider = (log_ratio < -1e-9).sum(axis=0), (log_ratio > 1e-9).sum(axis=0)
    p_values = [sign_test(int(a), int(b)) for a, b in zip(narrower, wider, strict=True)]
    corrected = holm(p_values)
    rows = []
    for m, name in enumerate(used):
        interval = bca_interval(log_ratio[:, m])
        ratio = Interval(
            float(np.exp(interval.value)), float(np.exp(interval.low)), float(np.exp(interval.high)), 0, len(prompts)
        )
        by_prompt = dict(zip(prompts, np.exp(log_ratio[:, m]).tolist(), strict=True))
        share = float(narrower[m] / len(prompts))
        rows.append(DiversityRatio(name, ratio, share, p_values[m], float(corrected[m]), k, by_prompt))
    return rows


def diversities(rule: str | EquivalenceRule = "words") -> dict[str, Diversity]:
    """Return measures of the diversity of texts by name: the effective numbers of wordings and of classes.

    Args:
        rule: When two texts say the same, for classes.

    Example:
        >>> {name: measure(["parks", "parks", "roads"]) for name, measure in diversities().items()}
        {'effective_wordings': 1.88..., 'effective_classes': 1.88...}
    """
    same = equivalence_rule(rule)
    return {
        "effective_wordings": lambda texts: float(effective_texts([texts])),
        "effective_classes": lambda texts: effective_classes(semantic_classes(texts, same)),
    }


def _mean_log(
    texts: Sequence[str], k: int, measures: Mapping[str, Diversity], repeats: int, seed: int, number: int
) -> np.ndarray:
    """Compute the mean logarithm of each measure over draws of `k` of the texts."""
    rng = seeded_rng(seed, "monoculture", number)
    draws = [range(k)] if len(texts) == k else [rng.permutation(len(texts))[:k] for _ in range(repeats)]
    return np.mean([np.log([measure([texts[i] for i in d]) for measure in measures.values()]) for d in draws], axis=0)
