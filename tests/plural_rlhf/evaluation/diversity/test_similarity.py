"""Similarities of texts, rules made of them, and diversity of wording, against second methods."""

from __future__ import annotations

import math
from collections import Counter
from functools import cache

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from plural_rlhf.evaluation import (
    EQUIVALENCE_RULES,
    EquivalenceRule,
    default_rule,
    distinct_n,
    equivalence_rule,
    fit_equivalence_rules,
    pair_similarities,
    repetition,
    self_bleu,
)
from plural_rlhf.evaluation.diversity.similarity import SIMILARITIES, cosine, rouge_l, unigram_f1
from tests.paths import NO_SHARED_DATA, SHARED_DATA


WORDS = ["a", "b", "c", "d", "e"]


def random_texts(n: int, seed: int = 0) -> list[str]:
    rng = np.random.default_rng(seed)
    return [" ".join(rng.choice(WORDS, size=rng.integers(1, 9))) for _ in range(n)]


def subsequence(first: list[str], second: list[str]) -> int:
    @cache
    def longest(i: int, j: int) -> int:
        if i == len(first) or j == len(second):
            return 0
        if first[i] == second[j]:
            return 1 + longest(i + 1, j + 1)
        return max(longest(i + 1, j), longest(i, j + 1))

    return longest(0, 0)


def test_rouge_agrees_with_recursion_and_counters():
    texts, others = random_texts(12), random_texts(9, seed=1)
    for (i, text), (j, other) in [(a, b) for a in enumerate(texts) for b in enumerate(others)]:
        first, second = text.split(), other.split()
        n = len(first) + len(second)
        assert rouge_l(texts, others)[i, j] == pytest.approx(2 * subsequence(first, second) / n)
        assert unigram_f1(texts, others)[i, j] == pytest.approx(2 * (Counter(first) & Counter(second)).total() / n)


@pytest.mark.parametrize("similarity", SIMILARITIES.values(), ids=SIMILARITIES)
def test_similarities_are_symmetric_one_for_itself_and_take_empty_texts(similarity):
    texts = ["", *random_texts(6), "Ünïcode, ja!"]
    matrix = similarity(texts, texts)
    assert np.allclose(matrix, matrix.T)
    assert np.allclose(matrix.diagonal(), 1.0)
    assert matrix.min() >= 0
    assert similarity([], texts).shape == (0, len(texts))


def test_one_text_in_two_unicode_forms_is_the_same():
    assert all(similarity(["caf\u00e9"], ["cafe\u0301"])[0, 0] == 1 for similarity in SIMILARITIES.values())


def test_cosine_of_a_zero_vector_is_zero():
    assert cosine(np.zeros((1, 2)), np.ones((1, 2)))[0, 0] == 0.0


def test_rules_say_what_is_missing_or_misspelt():
    with pytest.raises(ValueError, match=r"'cosin' is not one of .*Did you mean 'cosine'"):
        EquivalenceRule("mine", {"cosin": 1.0}, 0.5)
    with pytest.raises(ValueError, match="has no coefficient"):
        EquivalenceRule("mine", {}, 0.5)
    with pytest.raises(ValueError, match="compares vectors of the texts, and there are none"):
        equivalence_rule("vectors").similar(["a"], ["a"])
    with pytest.raises(ValueError, match=r"'wrods' is not one of exact, .*Did you mean 'words'"):
        equivalence_rule("wrods")


def test_fitted_rules_find_a_planted_threshold_and_coefficients():
    rng = np.random.default_rng(0)
    overlap, angle = rng.random(4000), rng.random(4000)
    similar = rng.random(4000) < 1 / (1 + np.exp(-(6 * overlap + 3 * angle - 4.5)))
    train = np.arange(4000) < 3000
    fits = fit_equivalence_rules({"unigram_f1": overlap, "cosine": angle}, similar, train)
    assert [fit.rule.name for fit in fits] == ["words", "vectors", "words and vectors"]
    words, vectors, both = fits
    assert both.rule.coefficients["unigram_f1"] == pytest.approx(6, abs=1)
    assert both.rule.coefficients["cosine"] == pytest.approx(3, abs=1)
    assert words.rule.threshold == pytest.approx(0.5, abs=0.1)
    assert words.auc == pytest.approx(roc_auc_score(similar[~train], overlap[~train]))
    assert both.auc > words.auc > vectors.auc
    assert both.low < both.accuracy < both.high
    assert both.n == 1000


def test_fitting_needs_both_sorts_and_heldout_pairs():
    with pytest.raises(ValueError, match="2 of 4 judged pairs are for fitting, of which 2 say the same"):
        fit_equivalence_rules({"exact": np.ones(4)}, [True] * 4, [True, True, False, False])
    with pytest.raises(ValueError, match="4 of 4 judged pairs"):
        fit_equivalence_rules({"exact": np.ones(4)}, [True, True, False, False], [True] * 4)


@pytest.mark.slow
def test_shipped_rules_of_words_on_peoples_judgements():
    """The constants are those that the training pairs give, and heldout accuracy beats exact match."""
    file = SHARED_DATA / "noveltybench" / "equivalence.parquet"
    if not file.exists():
        pytest.skip(NO_SHARED_DATA)
    pairs = pd.read_parquet(file)
    similarities = pair_similarities(pairs["generation_0"], pairs["generation_1"])
    similar, train = pairs["similar"].to_numpy(bool), (pairs["split"] == "train").to_numpy()
    fits = {fit.rule.name: fit for fit in fit_equivalence_rules(similarities, similar, train)}
    for name, fit in fits.items():
        assert fit.rule.threshold == pytest.approx(EQUIVALENCE_RULES[name].threshold, abs=1e-4)
    assert fits["exact"].accuracy == pytest.approx(0.51)
    assert fits["words"].accuracy == pytest.approx(0.69)
    assert fits["words"].low > fits["exact"].accuracy


def bleu(text: list[str], references: list[list[str]]) -> float:
    logs = []
    for n in range(1, 5):
        ours = Counter(tuple(text[i : i + n]) for i in range(len(text) - n + 1))
        if not ours:
            break
        theirs = [Counter(tuple(r[i : i + n]) for i in range(len(r) - n + 1)) for r in references]
        clipped = sum(min(c, max(r[g] for r in theirs)) for g, c in ours.items())
        logs.append(math.log(max(clipped, 0.1) / ours.total()))
    closest = min((abs(len(r) - len(text)), len(r)) for r in references)[1]
    return math.exp(min(0.0, 1 - closest / len(text)) + sum(logs) / len(logs))


LENGTHS = {
    "random": random_texts(15, seed=3),
    "one slightly longer, one much shorter": ["a b c d e", "a", "a b c d e a"],
    "one shorter and one longer by as much": ["a b c d e", "a b c", "a b c d e a b"],
    "all others longer": ["a b", "a b c d e", "a b c d e a b"],
}


@pytest.mark.parametrize("texts", LENGTHS.values(), ids=LENGTHS)
def test_self_bleu_agrees_with_one_bleu_at_a_time(texts):
    rows = [text.split() for text in texts]
    expected = np.mean([bleu(row, rows[:i] + rows[i + 1 :]) for i, row in enumerate(rows)])
    assert self_bleu(texts) == pytest.approx(expected)
    assert self_bleu(texts[::-1]) == pytest.approx(expected)
    assert math.isnan(self_bleu(["one"]))


def test_distinct_n_and_repetition_at_the_ends():
    assert distinct_n(["a b", "a b"]) == 0.5
    assert math.isnan(distinct_n(["a"]))
    assert distinct_n([]) != distinct_n([])  # nan
    assert repetition("a a") == 0.0
    assert repetition("") == 0.0


def test_vectors_that_all_point_one_way_are_not_read():
    rng = np.random.default_rng(0)
    texts = [f"text {i}" for i in range(400)]
    spread = rng.normal(size=(400, 16))
    assert default_rule(texts, spread).reads_vectors
    assert not default_rule(texts, spread + 4).reads_vectors
    assert default_rule(texts, spread).name != default_rule([text * 90 for text in texts], spread).name
    assert default_rule(["one"], spread[:1]).name == "vectors of short texts"
