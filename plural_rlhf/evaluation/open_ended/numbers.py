"""Every measure of one writer on one prompt, as numbers by measure, jury, cluster and rival.

Knows nothing of intervals, nor of other prompts.

Shapes: `N` texts of a writer, `M` texts of people, `K` clusters, `D` dimensions of a vector.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from plural_rlhf.core.shares import effective_texts
from plural_rlhf.evaluation.diversity.classes import (
    effective_classes,
    largest_classes,
    semantic_classes,
    vendi_score,
)
from plural_rlhf.evaluation.diversity.equivalence import EquivalenceRule
from plural_rlhf.evaluation.diversity.ngrams import distinct_n, self_bleu
from plural_rlhf.evaluation.open_ended.approvals import bridging, win_rate
from plural_rlhf.evaluation.open_ended.distances import (
    classes_covered,
    classifier_two_sample,
    covering_by_scores,
    median_distance,
    mmd_squared,
)
from plural_rlhf.evaluation.open_ended.drift import DEGENERATE, degeneracy, layout, perplexity, word_count
from plural_rlhf.evaluation.open_ended.scored import Judged, Writer
from reward_models.seeds import seeded_rng


__all__ = [
    "DIVERSITY",
    "Key",
    "Numbers",
    "PeoplePanel",
    "distance_numbers",
    "diversity_numbers",
    "drift_numbers",
    "floor_numbers",
    "judged_numbers",
    "mean_numbers",
    "people_panel",
    "rival_numbers",
]

DIVERSITY = ("effective_classes", "largest_classes", "effective_wordings", "distinct_2", "self_bleu", "vendi_score")
"""Measures that depend on how many texts of a prompt are measured."""
HALVES = 4
"""How often people are halved for classes to cover and for the floors."""


class Key(NamedTuple):
    """What a number is of: a measure, and a jury, cluster or rival where it has one.

    Example:
        >>> Key("approval", "heldout", "urban")
        Key(measure='approval', jury='heldout', cluster='urban', rival='')
    """

    measure: str
    jury: str = ""
    cluster: str = ""
    rival: str = ""


Numbers = dict[Key, float]


def mean_numbers(several: Sequence[Numbers]) -> Numbers:
    """Average numbers of the same keys.

    Example:
        >>> mean_numbers([{Key("words"): 3.0}, {Key("words"): 5.0}])[Key("words")]
        4.0
    """
    return {key: float(np.mean([numbers[key] for numbers in several])) for key in several[0]} if several else {}


def judged_numbers(judged: Judged, writer: str, prompt: str, shares: np.ndarray) -> Numbers:
    """Measure approval and share of each cluster, and bridging.

    Args:
        judged: What a jury says.
        writer: Who wrote.
        prompt: The prompt.
        shares: (K + 1,) for whom the texts were written, the last for no cluster in particular.
    """
    approvals = judged.approvals[writer][prompt]
    numbers = {Key("bridging", judged.jury): float(bridging(approvals).mean())}
    for k, cluster in enumerate(judged.names):
        numbers[Key("approval", judged.jury, cluster)] = float(approvals[:, k].mean())
        numbers[Key("answer_share", judged.jury, cluster)] = float(shares[k])
    numbers[Key("share_for_no_cluster", judged.jury)] = float(shares[-1])
    return numbers


def rival_numbers(judged: Judged, writer: str, rival: str, prompt: str, tie_margin: float) -> Numbers:
    """Measure how often each cluster decides for a writer against a rival, and how often it ties."""
    wins, ties = win_rate(judged.rewards[writer][prompt], judged.rewards[rival][prompt], tie_margin)
    numbers: Numbers = {}
    for k, cluster in enumerate(judged.names):
        numbers[Key("win_rate", judged.jury, cluster, rival)] = float(wins[k])
        numbers[Key("ties", judged.jury, cluster, rival)] = float(ties[k])
    return numbers


def diversity_numbers(texts: Sequence[str], vectors: np.ndarray | None, rule: EquivalenceRule) -> Numbers:
    """Measure the diversity of as many texts as everybody is measured on.

    Example:
        >>> from plural_rlhf.evaluation import equivalence_rule
        >>> numbers = diversity_numbers(["more parks", "More parks!", "lower taxes"], None, equivalence_rule("words"))
        >>> round(numbers[Key("effective_classes")], 3), numbers[Key("largest_classes")]
        (1.89, 1.0)
    """
    classes = semantic_classes(texts, rule, vectors)
    numbers = {
        Key("effective_classes"): effective_classes(classes),
        Key("largest_classes"): largest_classes(classes),
        Key("effective_wordings"): effective_texts([texts]),
        Key("distinct_2"): distinct_n(texts, 2),
        Key("self_bleu"): self_bleu(texts),
    }
    if vectors is not None:
        known = np.linalg.norm(vectors, axis=1) > 0
        numbers[Key("vendi_score")] = vendi_score(vectors[known]) if known.any() else float("nan")
    return numbers


def drift_numbers(writer: Writer, prompt: str) -> Numbers:
    """Measure length, layout, texts that are no answers, and perplexity.

    Example:
        >>> writer = Writer("plural", {"What now?": ["Parks.", "..."]}, None, None)
        >>> numbers = drift_numbers(writer, "What now?")
        >>> numbers[Key("words")], numbers[Key("degenerate")], numbers[Key("empty")]
        (0.5, 0.5, 0.5)
    """
    texts, samples = writer.texts[prompt], writer.samples
    ended = None if samples is None or samples.ended is None else samples.ended[prompt]
    kinds = [degeneracy(text, None if ended is None else bool(ended[i])) for i, text in enumerate(texts)]
    numbers = {
        Key("words"): float(np.mean([word_count(text) for text in texts])),
        Key("degenerate"): float(np.mean([kind is not None for kind in kinds])),
        **{Key(kind): float(np.mean([kind == one for one in kinds])) for kind in DEGENERATE},
    }
    if ended is None:
        numbers[Key("truncated")] = float("nan")
    layouts = [layout(text) for text in texts]
    for mark in layouts[0]:
        numbers[Key(mark)] = float(np.mean([one[mark] for one in layouts]))
    if samples is not None and samples.reference_log_probs is not None and samples.num_tokens is not None:
        numbers[Key("perplexity")] = perplexity(samples.reference_log_probs[prompt], samples.num_tokens[prompt])
    return numbers


@dataclass(frozen=True)
class PeoplePanel:
    """What people wrote to a prompt, prepared for distances.

    Attributes:
        texts: `M` texts, sorted.
        vectors: (M, D); None without an embedder.
        rule: When two texts say the same.
        bandwidth: Of the kernel; None without vectors, or for a single text.
        halves: Places of the two halves, several times; the first half has the classes to cover. A single text is
            both the only class and nobody to compare with.
        classes: Class of each text of the first halves.
        scores: (M, M) scores of people's texts by the rule.
    """

    texts: list[str]
    vectors: np.ndarray | None
    rule: EquivalenceRule
    bandwidth: float | None
    halves: list[tuple[np.ndarray, np.ndarray]]
    classes: list[np.ndarray]
    scores: np.ndarray


def people_panel(
    prompt: str, texts: Sequence[str], vectors: np.ndarray | None, rule: EquivalenceRule, seed: int
) -> PeoplePanel:
    """Prepare what people wrote to a prompt; the order of their texts does not matter."""
    order = np.array(sorted(range(len(texts)), key=lambda i: texts[i]))
    ordered = [texts[i] for i in order]
    rows = None if vectors is None else vectors[order]
    rng = seeded_rng(seed, f"halves of people, {prompt}")
    m = len(texts)
    shuffles = [rng.permutation(m) for _ in range(HALVES)]
    halves = [(np.sort(one[: (m + 1) // 2]), np.sort(one[(m + 1) // 2 :])) for one in shuffles]
    classes = [
        semantic_classes([ordered[i] for i in first], rule, None if rows is None else rows[first])
        for first, _ in halves
    ]
    bandwidth = median_distance(rows) if rows is not None and m > 1 else None
    return PeoplePanel(ordered, rows, rule, bandwidth, halves, classes, rule.scores(ordered, ordered, rows, rows))


def distance_numbers(
    panel: PeoplePanel, texts: Sequence[str], vectors: np.ndarray | None, counts: Sequence[int]
) -> tuple[Numbers, Mapping[int, float]]:
    """Measure how far texts are from people's.

    Args:
        panel: What people wrote.
        texts: `N` texts of a policy.
        vectors: (N, D) their vectors; None without an embedder.
        counts: Numbers of texts for the curve of classes covered; the last is that of the measure.

    Returns:
        The measures, and the share of people's answers covered by each number of texts.
    """
    scores = panel.rule.scores(texts, panel.texts, vectors, panel.vectors)
    curve = _covered(panel, [scores[:, first] for first, _ in panel.halves], counts)
    numbers = {Key("human_classes_covered"): curve[counts[-1]]}
    if vectors is not None and panel.vectors is not None:
        apart = float("nan") if panel.bandwidth is None else mmd_squared(vectors, panel.vectors, panel.bandwidth)
        numbers[Key("mmd_to_people")] = apart
        numbers[Key("auc_to_people")] = classifier_two_sample(vectors, panel.vectors)
    return numbers, curve


def floor_numbers(panel: PeoplePanel, counts: Sequence[int]) -> tuple[Numbers, Mapping[int, float]]:
    """Measure how far one half of people is from the other; see `distance_numbers`."""
    curve = _covered(panel, [panel.scores[np.ix_(second, first)] for first, second in panel.halves], counts)
    numbers = {Key("human_classes_covered"): curve[counts[-1]]}
    if panel.vectors is not None:
        several = [
            {
                Key("mmd_to_people"): mmd_squared(panel.vectors[first], panel.vectors[second], panel.bandwidth or 1.0),
                Key("auc_to_people"): classifier_two_sample(panel.vectors[first], panel.vectors[second]),
            }
            for first, second in panel.halves
        ]
        numbers |= mean_numbers(several)
    return numbers, curve


def _covered(panel: PeoplePanel, scores: Sequence[np.ndarray], counts: Sequence[int]) -> dict[int, float]:
    """Average over the halves the share of the first half whose class is covered by each number of texts."""
    curves = []
    for of_half, classes in zip(scores, panel.classes, strict=True):
        covers, shares = covering_by_scores(of_half, classes, panel.rule.threshold)
        curves.append([classes_covered(covers, shares, k) for k in counts])
    return dict(zip(counts, np.mean(curves, axis=0).tolist(), strict=True))
