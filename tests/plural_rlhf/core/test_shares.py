"""Shares of clusters and effective numbers of answers, by hand."""

from __future__ import annotations

import math

import pytest
import torch

from plural_rlhf.core.shares import (
    cluster_shares,
    effective_answers,
    effective_number,
    effective_texts,
    retention,
    share_error,
)
from reward_models.errors import JuryError


def test_a_share_is_the_mass_of_the_answers_a_cluster_is_responsible_for():
    pi = torch.tensor([0.5, 0.25, 0.25])
    gamma = torch.tensor([[1.0, 0.0], [0.5, 0.5], [0.0, 1.0]])
    assert cluster_shares(pi, gamma).tolist() == [0.625, 0.375]


def test_share_error_sees_what_is_missing_and_what_is_too_much():
    weights = [0.6, 0.3, 0.1]
    shares = torch.tensor([[0.6, 0.3, 0.1], [0.6, 0.35, 0.05], [0.45, 0.3, 0.25], [0.7, 0.3, 0.0]])
    assert share_error(shares, weights).tolist() == pytest.approx([0.0, 0.5, 1.5, 1.0], abs=1e-6)
    # A cluster that got more than its weight is an error, and no loss of anybody else's share beyond 25 %.
    assert float(retention(shares[2], weights)) == pytest.approx(0.75)


def test_clusters_without_weight_have_no_error():
    assert float(share_error(torch.tensor([0.5, 0.4, 0.1]), [5, 5, 0])) == pytest.approx(0.2)


@pytest.mark.parametrize(
    ("order", "expected"),
    [
        (0, 3.0),
        (1, math.exp(0.5 * math.log(2) + 0.5 * math.log(4))),
        (2, 1 / (0.25 + 0.0625 + 0.0625)),
        (3, (0.125 + 2 * 0.015625) ** -0.5),
        (math.inf, 2.0),
    ],
)
def test_hill_numbers_by_hand(order, expected):
    counts = torch.tensor([2, 1, 1, 0])
    assert float(effective_number(counts, order)) == pytest.approx(expected)
    assert float(effective_number(counts / 4, order)) == pytest.approx(expected)  # counts or probabilities


@pytest.mark.parametrize("order", [0, 0.5, 1, 2, math.inf])
def test_equal_answers_count_fully_and_a_single_one_counts_one(order):
    values = torch.tensor([[0.2] * 5, [0, 0, 7, 0, 0]])
    assert effective_number(values, order).tolist() == pytest.approx([5.0, 1.0])


def test_order_one_is_the_limit_of_its_neighbours():
    p = torch.tensor([0.6, 0.3, 0.1], dtype=torch.float64)
    low, one, high = (float(effective_number(p, q)) for q in (1 - 1e-5, 1, 1 + 1e-5))
    assert high < one < low
    assert low - high < 1e-4


def test_effective_answers_are_averaged_over_groups():
    groups = [["7"] * 4, ["3", "7", "3", "7"], [(1, 2), (1, 2), (1, 2), (2, 1)]]
    third = math.exp(-(0.75 * math.log(0.75) + 0.25 * math.log(0.25)))
    assert effective_answers(groups) == pytest.approx((1 + 2 + third) / 3)
    # Pooling the groups would hide that each prompt has one answer.
    assert effective_answers([["a"] * 4, ["b"] * 4]) == 1.0


def test_a_group_shows_at_most_its_size():
    assert effective_answers([[str(n) for n in range(8)]]) == pytest.approx(8)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([0.5, -0.7], r"got -0\.7.*not their logarithms"),
        ([0.5, math.nan], r"got nan.*finite"),
        ([[1, 2], [0, 0]], r"all of a row are 0.*leave empty groups out"),
    ],
)
def test_values_that_are_no_distribution_are_refused(values, message):
    with pytest.raises(JuryError, match=message):
        effective_number(torch.tensor(values))


def test_a_negative_order_is_refused():
    with pytest.raises(ValueError, match=r"order is -1.*0 or more"):
        effective_number(torch.tensor([1.0]), -1)


@pytest.mark.parametrize("groups", [[], [["a"], []]])
def test_groups_without_completions_are_refused(groups):
    with pytest.raises(JuryError, match="give every group at least one"):
        effective_answers(groups)


def test_effective_texts_of_texts_without_a_common_word_are_the_effective_answers():
    groups = [["red", "red", "blue", "green"], ["1", "2", "3", "3"]]
    assert effective_texts(groups) == pytest.approx(effective_answers(groups))


def test_effective_texts_see_wordings_come_together_where_no_two_texts_are_equal():
    apart = ["cut taxes now", "more buses please", "plant a tree", "who cares"]
    alike = [f"we should build {n} parks in the old town" for n in ("two", "three", "four", "five")]
    assert effective_answers([apart]) == pytest.approx(4) == effective_answers([alike])
    assert effective_texts([apart]) == pytest.approx(4)
    assert effective_texts([alike]) < 2
    assert effective_texts([["Café!", "CAFE\u0301", "..."]]) == pytest.approx(effective_answers([["c", "c", "."]]))
    with pytest.raises(JuryError, match="give every group at least one"):
        effective_texts([[]])
