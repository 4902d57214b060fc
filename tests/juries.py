"""Juries without a language model: rewards read from a table of answers, the same for every prompt."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch


CPU = {
    "use_cpu": True,
    "bf16": False,
    "report_to": "none",
    "activation_checkpointing": False,
    "save_strategy": "no",
    "disable_tqdm": True,
    "logging_steps": 10_000,
}
"""Settings of every trainer in the tests."""


class TableJury:
    """`K` clusters whose rewards for an answer stand in a table; an answer that is not there gets `otherwise`."""

    def __init__(
        self,
        table: Mapping[str, Sequence[float]],
        names: Sequence[str],
        prevalence: Sequence[float],
        otherwise: float = -3.0,
        calibrated: bool = False,
    ) -> None:
        self.table, self.cluster_names, self.otherwise = dict(table), list(names), otherwise
        self.prevalence = np.asarray(prevalence, dtype=np.float64)
        self.calibrated = calibrated
        self.asked: list[tuple[Any, str]] = []

    def cluster_rewards(self, prompts: Sequence[Any], completions: Sequence[Any]) -> torch.Tensor:
        texts = [c if isinstance(c, str) else c[0]["content"] for c in completions]
        self.asked += list(zip(prompts, texts, strict=True))
        unknown = [self.otherwise] * len(self.cluster_names)
        return torch.tensor([self.table.get(text.strip(), unknown) for text in texts])


ELEVEN = [str(n) for n in range(11)]


def eleven_answers() -> TableJury:
    """Answers '0' to '10'; clusters of weight .6, .3 and .1 whose only favourites are 2, 5 and 9, by 8 logits."""
    favourites = (2, 5, 9)
    return TableJury(
        {a: [8.0 * (int(a) == f) for f in favourites] for a in ELEVEN}, ["most", "some", "few"], [0.6, 0.3, 0.1]
    )


def flat_jury(like: TableJury) -> TableJury:
    """The same clusters, to whom all answers are equal."""
    return TableJury(
        dict.fromkeys(like.table, [0.0] * len(like.cluster_names)), like.cluster_names, like.prevalence, 0.0
    )
