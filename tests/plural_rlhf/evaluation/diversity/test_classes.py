"""Classes of texts: published figures, order of texts, sizes of one, and agreement with second methods."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pandas as pd
import pytest

from plural_rlhf.core.shares import effective_texts
from plural_rlhf.evaluation import (
    distinct_k,
    effective_classes,
    greedy_classes,
    largest_classes,
    semantic_classes,
    utility_k,
    vendi_score,
)
from plural_rlhf.evaluation.diversity.novelty import mean_novelty, prompt_novelty, utility_levels
from tests.paths import ROOT


TEXTS = ["more parks", "More parks!", "lower taxes now", "more and more parks", "lower taxes", "nobody asked me", "?"]


def test_noveltybench_published_figures():
    """Its summary says 0.83 distinct, the largest class counted from 0; utility is reproduced to the last digit."""
    table = pd.read_csv(ROOT / "tests" / "data" / "noveltybench" / "gemini-1.5-pro.csv")
    classes = [np.array(row.split(), int) for row in table["classes"]]
    scores = [np.array(row.split(), float) for row in table["scores"]]
    assert len(classes) == 100
    assert np.mean([distinct_k(of) for of in classes]) == pytest.approx(1.83)
    assert np.mean([of.max() for of in classes]) == pytest.approx(0.83)
    utility = np.mean([utility_k(of, s) for of, s in zip(classes, scores, strict=True)])
    assert utility == pytest.approx(2.8658255953362204, abs=1e-12)


def same_partition(first, second) -> bool:
    return all((a == b) == (c == d) for (a, c), (b, d) in itertools.combinations(zip(first, second, strict=True), 2))


def test_classes_do_not_depend_on_the_order_of_texts():
    classes = semantic_classes(TEXTS)
    rng = np.random.default_rng(0)
    for _ in range(20):
        order = rng.permutation(len(TEXTS))
        assert same_partition(semantic_classes([TEXTS[i] for i in order]), classes[order])
    assert classes.tolist() == [0, 0, 1, 0, 1, 2, 3]


def test_average_linkage_does_not_chain():
    """Each text says nearly what its neighbour says, and the ends share no word: single linkage makes one class."""
    texts = ["a b c d", "a b c e", "a b f e", "a g f e", "h g f e"]
    classes = semantic_classes(texts)
    assert classes[0] != classes[-1]


def test_greedy_classes_join_the_first_text_that_says_the_same():
    assert greedy_classes(["a b", "c d", "a b.", "C D", "e"], "same words").tolist() == [0, 1, 0, 1, 2]


@pytest.mark.parametrize("group", [semantic_classes, greedy_classes])
def test_no_text_and_one_text(group):
    assert group([]).tolist() == []
    assert group(["parks"]).tolist() == [0]
    assert group(["", " "]).tolist() == [0, 0]  # two texts without a word say the same


def test_effective_classes_are_hill_numbers():
    classes = [0, 0, 0, 1, 2]
    p = np.array([0.6, 0.2, 0.2])
    assert effective_classes(classes) == pytest.approx(math.exp(-(p * np.log(p)).sum()))
    assert effective_classes(classes, order=2) == pytest.approx(1 / (p**2).sum())
    assert largest_classes(classes, most=1) == pytest.approx(0.6)
    assert effective_classes([3]) == 1.0


def test_vendi_score_of_wordings_is_effective_texts():
    """Vectors of counts of words and word pairs give the number that `effective_texts` computes from texts."""
    vectors = np.array([[1, 1, 1, 0, 0, 0], [1, 0, 0, 1, 1, 0]], float)  # a b, "a b"; a c, "a c"
    assert vendi_score(vectors) == pytest.approx(effective_texts([["a b", "a c"]]))
    assert vendi_score(np.ones((4, 3))) == pytest.approx(1.0)
    assert vendi_score(np.eye(5)) == pytest.approx(5.0)


TEN = list(range(10))


@pytest.mark.parametrize(
    ("measure", "message"),
    [
        (lambda: prompt_novelty([]), "there is no text. Fix"),
        (lambda: prompt_novelty("abc"), "texts='abc' is no list of texts. Fix"),
        (lambda: prompt_novelty(["a", None]), "is no list of texts. Fix"),
        (lambda: prompt_novelty(["a", "b"], utilities=[1.0]), r"2 texts have the utilities \[1.0\]. Fix"),
        (
            lambda: prompt_novelty(["a", "b"], utilities=[float("nan"), 1.0]),
            r"2 texts have the utilities \[nan, 1.0\]",
        ),
        (lambda: mean_novelty([]), "there is no prompt, or"),
        (lambda: mean_novelty([{"distinct": 1.0}, {"utility": 1.0}]), "other measures than the first"),
        (lambda: utility_levels([1.0], TEN[:5]), "5 reference texts are too few for deciles"),
        (lambda: utility_levels([1.0, float("nan")], TEN), "which lie in no tenth. Fix"),
        (lambda: utility_levels([1.0], [float("inf"), *TEN]), "which lie in no tenth. Fix"),
        (lambda: utility_levels([[1.0, 2.0]], TEN), r"shape \(1, 2\) and those of the reference \(10,\). Fix"),
    ],
)
def test_novelty_of_what_cannot_be_measured_is_refused(measure, message):
    with pytest.raises(ValueError, match=message):
        measure()
