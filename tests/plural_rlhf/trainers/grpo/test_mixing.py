"""Rows with and without a support in one batch, without a model: what is drawn, what is scored, and who counts."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from plural_rlhf.trainers.grpo.mixing import exact_columns, exact_share, mixed_micro_batches


GROUP = 2


def rows(kinds: str) -> list[dict[str, Any]]:
    """A group of rows for every letter; capitals have a support."""
    return [
        {"name": kind, "support": ["yes", "no"] if kind.isupper() else None} for kind in kinds for _ in range(GROUP)
    ]


def collate(answered: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
    return {"answer_ids": torch.tensor([ord(row["name"]) for row in answered])}


def micro_batches(kinds: str, parts: int) -> tuple[list[list[str]], list[dict[str, Any]]]:
    drawn = []

    def draw(sampled: list[dict[str, Any]]) -> dict[str, Any]:
        drawn.append([row["name"] for row in sampled])
        return {"row": torch.arange(len(sampled)), "steps": 3, "one": torch.tensor(1.0)}

    return drawn, mixed_micro_batches(rows(kinds), parts, GROUP, draw, collate)


def test_all_completions_are_drawn_at_once_and_stay_in_their_micro_batch():
    drawn, found = micro_batches("aBcD", 2)
    assert drawn == [["a", "a", "c", "c"]]
    assert [part["row"].tolist() for part in found] == [[0, 1], [2, 3]]
    assert [exact_columns(part)["answer_ids"].tolist() for part in found] == [[ord("B")], [ord("D")]]
    assert set(found[0]) == {"row", "exact/answer_ids"}  # numbers that belong to no completion are left out


def test_a_micro_batch_of_one_kind_has_no_columns_of_the_other():
    _, (sampled, exact) = micro_batches("abCD", 2)
    assert set(sampled) == {"row"}
    assert set(exact_columns(exact)) == {"answer_ids"}
    assert "row" not in exact
    assert exact_columns(sampled) == {}
    drawn, _ = micro_batches("AB", 1)
    assert drawn == []  # nothing to draw: the policy is not asked


@pytest.mark.parametrize(("n_exact", "n_sampled", "share"), [(1, 2, 1 / 2), (1, 6, 1 / 4), (3, 2, 3 / 4)])
def test_a_row_with_a_support_counts_like_its_group(n_exact, n_sampled, share):
    assert exact_share(n_exact, n_sampled, GROUP) == pytest.approx(share)
