"""Recall and precision of windows of views, with entailment models that are stubs."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from plural_rlhf.evaluation.overton.windows import (
    answers_needed,
    nli_coverage,
    recall_at_k,
    sentences,
    window_fit,
)


VIEWS = ["parks matter", "roads matter", "taxes matter"]


def contains(premises, hypotheses):
    return [float(h.rstrip(".") in p or p.rstrip(".") in h) for p, h in zip(premises, hypotheses, strict=True)]


def test_a_missing_view_lowers_the_recall_by_its_share_and_a_stranger_the_precision():
    whole = " ".join(f"{view}." for view in VIEWS)
    part = " ".join(f"{view}." for view in VIEWS[:2])
    strange = f"{whole} cats are nice."
    fits = [window_fit(scores > 0.33) for scores in nli_coverage([whole, part, strange, "!"], [VIEWS] * 4, contains)]
    assert [(fit.recall, fit.precision) for fit in fits[:3]] == [(1, 1), (2 / 3, 1), (1, 3 / 4)]
    assert fits[3].recall == 0
    assert np.isnan(fits[3].precision)


def test_the_direction_of_entailment_is_the_published_one_unless_asked():
    asked = []

    def stub(premises, hypotheses):
        asked.append((list(premises), list(hypotheses)))
        return [0.5] * len(premises)

    nli_coverage(["One. Two."], [["view"]], stub)
    nli_coverage(["One. Two."], [["view"]], stub, direction="sentence to view")
    assert asked == [(["view", "view"], ["One.", "Two."]), (["One.", "Two."], ["view", "view"])]


def test_scores_lie_at_their_sentence_and_view_for_windows_of_any_size():
    def length(premises, hypotheses):
        return [(len(p) + len(h) / 10) / 10 for p, h in zip(premises, hypotheses, strict=True)]

    first, second = nli_coverage(["a bc. d.", "efg."], [["xx"], ["y", "zzz"]], length)
    np.testing.assert_allclose(first, [[0.25], [0.22]])
    np.testing.assert_allclose(second, [[0.14, 0.34]])


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="1 answers and 2 windows"):
        nli_coverage(["a."], [["x"], ["y"]], contains)
    with pytest.raises(ValueError, match="gave shape \\(2,\\) for 1 pairs"):
        nli_coverage(["a."], [["x"]], lambda p, h: [0.1, 0.2])
    for given in (7.5, -0.5, float("nan")):
        with pytest.raises(ValueError, match=r"the entailment model gave .*\. Fix: return the probability of entail"):
            nli_coverage(["a."], [["x"]], lambda p, h, given=given: [given])
    with pytest.raises(ValueError, match=r"a window is one text, of which each letter would be a view"):
        nli_coverage(["a."], ["parks"], contains)
    assert nli_coverage([], [], contains) == []
    with pytest.raises(ValueError, match="direction='back' is unknown"):
        nli_coverage(["a."], [["x"]], contains, direction="back")
    with pytest.raises(ValueError, match=": no view"):
        window_fit(np.zeros((2, 0)))


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("One. Two? Three!", ["One.", "Two?", "Three!"]),
        ("Mr. Lee, e.g. J. Lee, agrees.", ["Mr. Lee, e.g. J. Lee, agrees."]),
        ("1. Parks\n2. Roads\n", ["1. Parks", "2. Roads"]),
        ("It costs 3.5 million.", ["It costs 3.5 million."]),
        ('He said "No." Then he left.', ['He said "No."', "Then he left."]),
        ("No end", ["No end"]),
        ("我同意。他不同意！", ["我同意。", "他不同意！"]),
        (" \n...\n", []),
    ],
)
def test_sentences(text, parts):
    assert sentences(text) == parts


def test_recall_of_sets_is_the_mean_over_all_choices():
    rng = np.random.default_rng(0)
    says = rng.random((5, 4)) < 0.3
    by_hand = [
        np.mean([says[list(choice)].any(axis=0).mean() for choice in combinations(range(5), k)]) for k in range(1, 6)
    ]
    assert recall_at_k(says) == pytest.approx(by_hand)
    shares = np.array([0.4, 0.3, 0.2, 0.1])
    assert recall_at_k(says, shares)[0] == pytest.approx((says @ shares).mean())
    assert answers_needed(recall_at_k(says), recall_at_k(says)[2]) == 3


@pytest.mark.parametrize("says", [[[float("nan"), 1.0]], [[0.4, 1.0]], [["no", "yes"]], [[2, -1]]])
def test_what_is_neither_true_nor_false_is_refused(says):
    for measure in (window_fit, recall_at_k):
        with pytest.raises(ValueError, match=r"something else than true and false. Fix: compare scores"):
            measure(np.array(says))
    assert window_fit(np.array([[1, 0]])) == window_fit([[True, False]])


@pytest.mark.parametrize("shares", [[1.0], [float("nan"), 1.0], [-1.0, 2.0], [0.0, 0.0], [0.5, 0.25, 0.25]])
def test_shares_that_do_not_fit_the_views_are_refused(shares):
    with pytest.raises(ValueError, match=r"2 views have the shares .*Fix: give one of at least 0 per view"):
        recall_at_k(np.array([[True, False]]), shares)
