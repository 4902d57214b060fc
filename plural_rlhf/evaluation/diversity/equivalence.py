"""When two texts say the same: rules whose thresholds were chosen on people's judgements of pairs.

A rule adds up similarities of a pair (`similarity`) and compares the sum with a threshold. The numbers of
`EQUIVALENCE_RULES` were fitted to the 1,000 training pairs of NoveltyBench (Zhang et al. 2025,
https://arxiv.org/abs/2504.05228; `benchmarks/equivalence.py`); `fit_equivalence_rules` does the same on pairs and
vectors of your own. Knows nothing of policies, people or how texts are grouped.

Shapes: `N` and `M` texts, `P` judged pairs, `D` dimensions of a vector.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import rankdata

from plural_rlhf.core.shares import words
from reward_models.errors import did_you_mean
from reward_models.stats.shares import share_interval

from .similarity import SIMILARITIES, cosine


__all__ = [
    "EQUIVALENCE_RULES",
    "EquivalenceRule",
    "RuleAccuracy",
    "default_rule",
    "equivalence_rule",
    "fit_equivalence_rules",
    "pair_similarities",
    "rank_auc",
]


@dataclass(frozen=True)
class EquivalenceRule:
    """A rule for whether two texts say the same: `sum_s coefficients[s] similarity_s >= threshold`.

    Attributes:
        name: How tables call the rule.
        coefficients: A number for each similarity that the rule reads: `exact`, `same_words`, `unigram_f1`, `rouge_l`,
            or `cosine` of the vectors of the texts.
        threshold: The least score of two texts that say the same.

    Raises:
        ValueError: A similarity that is not known, or no coefficient.

    Example:
        >>> rule = EquivalenceRule("half of the words", {"unigram_f1": 1.0}, threshold=0.5)
        >>> rule.similar(["more parks"], ["more and more parks", "lower taxes"]).tolist()
        [[True, False]]
    """

    name: str
    coefficients: Mapping[str, float]
    threshold: float

    def __post_init__(self) -> None:
        if not self.coefficients:
            raise ValueError(f"the equivalence rule {self.name!r} has no coefficient. Fix: name a similarity to read.")
        for similarity in self.coefficients:
            if similarity != "cosine" and similarity not in SIMILARITIES:
                known = [*SIMILARITIES, "cosine"]
                raise ValueError(
                    f"similarity {similarity!r} is not one of {', '.join(known)}.{did_you_mean(similarity, known)}"
                )

    @property
    def reads_vectors(self) -> bool:
        """Whether the rule needs vectors of the texts."""
        return "cosine" in self.coefficients

    def scores(
        self,
        texts: Sequence[str],
        others: Sequence[str],
        vectors: np.ndarray | None = None,
        other_vectors: np.ndarray | None = None,
    ) -> np.ndarray:
        """Score every pair of two lists.

        Args:
            texts: `N` texts.
            others: `M` texts.
            vectors: (N, D) vectors of `texts`, for a rule that reads them.
            other_vectors: (M, D) vectors of `others`.

        Returns:
            (N, M), in the unit of the threshold.

        Raises:
            ValueError: The rule reads vectors and there are none.
        """
        total = np.zeros((len(texts), len(others)))
        for similarity, coefficient in self.coefficients.items():
            if similarity != "cosine":
                total += coefficient * SIMILARITIES[similarity](texts, others)
            elif vectors is None or other_vectors is None:
                raise ValueError(
                    f"the equivalence rule {self.name!r} compares vectors of the texts, and there are none. Fix: pass "
                    'vectors (`embed=` of `evaluate_open_ended`), or use a rule without, e.g. "words".'
                )
            else:
                total += coefficient * cosine(vectors, other_vectors)
        return total

    def similar(
        self,
        texts: Sequence[str],
        others: Sequence[str],
        vectors: np.ndarray | None = None,
        other_vectors: np.ndarray | None = None,
    ) -> np.ndarray:
        """Decide for every pair whether it says the same, (N, M); arguments as for `scores`."""
        return self.scores(texts, others, vectors, other_vectors) >= self.threshold


@dataclass(frozen=True)
class RuleAccuracy:
    """A fitted rule, and how it does on judged pairs that it was not fitted to.

    Attributes:
        rule: The rule.
        accuracy: Share of heldout pairs on which rule and person agree.
        low: Lower end of its interval (Wilson).
        high: Upper end.
        auc: Probability that a heldout pair that says the same scores higher than one that does not; ties count half.
        n: Heldout pairs.

    Example:
        >>> similarities = {"exact": np.array([1.0, 0.0, 1.0, 0.0])}
        >>> [fit] = fit_equivalence_rules(
        ...     similarities, similar=[True, False, True, False], train=[True, True, False, False],
        ...     candidates={"exact": ["exact"]},
        ... )
        >>> fit.rule.threshold, fit.accuracy, fit.auc, fit.n
        (0.5, 1.0, 1.0, 2)
    """

    rule: EquivalenceRule
    accuracy: float
    low: float
    high: float
    auc: float
    n: int


CANDIDATES: Mapping[str, Sequence[str]] = {
    "exact": ["exact"],
    "same words": ["same_words"],
    "words": ["unigram_f1"],
    "order of words": ["rouge_l"],
    "vectors": ["cosine"],
    "words and vectors": ["unigram_f1", "cosine"],
}
"""The rules that are offered, and what each reads."""

EQUIVALENCE_RULES: Mapping[str, EquivalenceRule] = {
    rule.name: rule
    for rule in (
        EquivalenceRule("exact", {"exact": 1.0}, 0.5),
        EquivalenceRule("same words", {"same_words": 1.0}, 0.5),
        EquivalenceRule("words", {"unigram_f1": 1.0}, 0.5148),
        EquivalenceRule("order of words", {"rouge_l": 1.0}, 0.2881),
        EquivalenceRule("vectors", {"cosine": 1.0}, 0.8377),
        EquivalenceRule("words and vectors", {"unigram_f1": 6.217, "cosine": 2.820}, 5.531),
        EquivalenceRule("vectors of short texts", {"cosine": 1.0}, 0.7197),
    )
}
"""The fitted rules by name. Cosines are those of MiniLM (all-MiniLM-L6-v2, mean of the first 256 tokens); vectors of
another model have another scale, for which `fit_equivalence_rules` finds a threshold. "vectors of short texts" was
fitted to the training pairs of at most `SHORT_WORDS` words a text: in short texts people find the same said at lower
cosines, mostly in other words."""
SHORT_WORDS = 80
"""Most words of a short text."""
MOST_ALIKE = 0.6
"""Highest median cosine of vectors that rules can read: answers to one question have .2 to .5 by MiniLM."""


def pair_similarities(
    texts: Sequence[str],
    others: Sequence[str],
    vectors: np.ndarray | None = None,
    other_vectors: np.ndarray | None = None,
) -> dict[str, np.ndarray]:
    """Compute every similarity of `P` pairs of texts, (P,) each; `cosine` where there are vectors.

    Example:
        >>> pairs = pair_similarities(["more parks", "Parks."], ["lower taxes", "parks"])
        >>> pairs["exact"].tolist(), pairs["same_words"].tolist()
        ([0.0, 0.0], [0.0, 1.0])
    """
    pairs = list(zip(texts, others, strict=True))
    found = {
        name: np.array([similarity([text], [other])[0, 0] for text, other in pairs])
        for name, similarity in SIMILARITIES.items()
    }
    if vectors is not None and other_vectors is not None:
        rows = zip(np.asarray(vectors), np.asarray(other_vectors), strict=True)
        found["cosine"] = np.array([cosine(row[None], other[None])[0, 0] for row, other in rows])
    return found


def fit_equivalence_rules(
    similarities: Mapping[str, np.ndarray],
    similar: Sequence[bool] | np.ndarray,
    train: Sequence[bool] | np.ndarray,
    *,
    candidates: Mapping[str, Sequence[str]] = CANDIDATES,
    level: float = 0.95,
) -> list[RuleAccuracy]:
    """Fit rules to people's judgements of pairs, and measure them on pairs that took no part.

    A rule that reads one similarity keeps it as it is; one that reads several adds them by logistic regression. The
    threshold is the one with the highest balanced accuracy on the training pairs (the mean of the shares that are
    right among pairs that say the same and among others), so that it does not depend on how many of either were shown.

    Args:
        similarities: (P,) each, as `pair_similarities` returns them.
        similar: (P,) whether people say that the pair says the same.
        train: (P,) whether the pair may be fitted to; the others are held out.
        candidates: What each rule reads, by its name; rules that read something that is not in `similarities` are
            left out.
        level: Level of the interval of the accuracy.

    Returns:
        The rules in the order of `candidates`.

    Raises:
        ValueError: The training pairs are all alike, or no pair is held out.

    Example:
        >>> overlap, similar = np.array([0.9, 0.8, 0.3, 0.2, 0.7, 0.1]), np.array([1, 1, 0, 0, 1, 0], bool)
        >>> [fit] = fit_equivalence_rules(
        ...     {"unigram_f1": overlap}, similar, np.arange(6) < 4, candidates={"words": ["unigram_f1"]}
        ... )
        >>> round(fit.rule.threshold, 3), fit.accuracy  # halfway between .3 and .8
        (0.55, 1.0)
    """
    similar, train = np.asarray(similar, dtype=bool), np.asarray(train, dtype=bool)
    if train.all() or len(set(similar[train].tolist())) < 2:
        raise ValueError(
            f"{int(train.sum())} of {len(train)} judged pairs are for fitting, of which {int(similar[train].sum())} "
            "say the same. Fix: give pairs of both sorts for fitting, and hold some out."
        )
    fits = []
    for name, parts in candidates.items():
        if not all(part in similarities for part in parts):
            continue
        columns = np.stack([similarities[part] for part in parts], axis=1)
        coefficients = _logistic(columns[train], similar[train]) if len(parts) > 1 else np.ones(1)
        score = columns @ coefficients
        threshold = _best_threshold(score[train], similar[train])
        rule = EquivalenceRule(name, dict(zip(parts, coefficients.tolist(), strict=True)), threshold)
        right = ((score >= threshold) == similar)[~train]
        low, high = share_interval(right.mean(), np.array(len(right)), level)
        auc = rank_auc(score[~train], similar[~train])
        fits.append(RuleAccuracy(rule, float(right.mean()), float(low), float(high), auc, len(right)))
    return fits


def equivalence_rule(rule: str | EquivalenceRule) -> EquivalenceRule:
    """Return a rule of `EQUIVALENCE_RULES` by its name; a rule is returned as it is.

    Raises:
        ValueError: There is no rule of that name.

    Example:
        >>> equivalence_rule("words").coefficients
        {'unigram_f1': 1.0}
    """
    if isinstance(rule, EquivalenceRule):
        return rule
    if rule not in EQUIVALENCE_RULES:
        raise ValueError(
            f"equivalence rule {rule!r} is not one of {', '.join(EQUIVALENCE_RULES)}."
            f"{did_you_mean(rule, EQUIVALENCE_RULES)}"
        )
    return EQUIVALENCE_RULES[rule]


def default_rule(texts: Sequence[str], vectors: np.ndarray | None = None) -> EquivalenceRule:
    """Choose a rule by what there is to read: "words" without vectors, else by the median length of the texts.

    The rules of vectors were fitted to those of a sentence embedder. Where most texts have nearly one direction, as
    hidden states of language models have, all texts would say the same, so these vectors are not read either.

    Args:
        texts: `N` texts, at best to several prompts.
        vectors: (N, D).

    Example:
        >>> default_rule(["More parks.", "lower taxes"]).name
        'words'
        >>> default_rule(["More parks.", "lower taxes"], np.eye(2)).name
        'vectors of short texts'
        >>> default_rule(["more " * 100, "less " * 100], np.eye(2)).name
        'words and vectors'
        >>> default_rule(["More parks.", "lower taxes"], np.eye(2) + 5).name
        'words'
    """
    if vectors is None or _alike(vectors) > MOST_ALIKE:
        return EQUIVALENCE_RULES["words"]
    short = np.median([len(words(text)) for text in texts]) <= SHORT_WORDS
    return EQUIVALENCE_RULES["vectors of short texts" if short else "words and vectors"]


def _alike(vectors: np.ndarray) -> float:
    """Return the median cosine of two different vectors, of at most 300 spread over the rows."""
    some = np.unique(np.asarray(vectors, dtype=np.float64), axis=0)
    some = some[:: len(some) // 300 + 1]
    cosines = cosine(some, some)[np.triu_indices(len(some), 1)]
    return float(np.median(cosines)) if len(cosines) else 0.0


def _logistic(columns: np.ndarray, similar: np.ndarray) -> np.ndarray:
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression(C=100.0, class_weight="balanced").fit(columns, similar).coef_[0]


def _best_threshold(score: np.ndarray, similar: np.ndarray) -> float:
    """Return the cut of the highest balanced accuracy, halfway between two scores."""
    values = np.unique(score)
    cuts = (values[1:] + values[:-1]) / 2 if len(values) > 1 else values
    above = score[None] >= cuts[:, None]
    balanced = above[:, similar].mean(axis=1) + 1 - above[:, ~similar].mean(axis=1)
    return float(cuts[balanced.argmax()])


def rank_auc(score: np.ndarray, positive: np.ndarray) -> float:
    """Compute the area under the ROC curve, the probability that a positive scores higher; ties count half.

    Example:
        >>> rank_auc(np.array([3.0, 1.0, 1.0, 0.0]), np.array([True, True, False, False]))  # 1 + 1 + .5 + 1, of 4
        0.875
    """
    n = int(positive.sum())
    if n in (0, len(positive)):
        return float("nan")
    ranks = rankdata(score)
    return float((ranks[positive].sum() - n * (n + 1) / 2) / (n * (len(positive) - n)))
