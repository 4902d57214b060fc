"""The default scorer, prompt and tokenizer of the environments: numbers from 0 to 10.

60 % of the population prefer a number below 4, 30 % one from 4 to 7, and 10 % one from 8 up, by 8 logits. Knows
nothing of environments.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch


__all__ = ["ANSWERS", "PROMPT", "DigitTokenizer", "NumberJury"]

PROMPT = "Pick a number from 0 to 10."
ANSWERS = [str(number) for number in range(11)]

_GAP = 8.0


class NumberJury:
    """A scorer of three clusters that prefer low, middle and high numbers; other texts get 0 from all of them.

    Example:
        >>> jury = NumberJury()
        >>> jury.cluster_rewards(["Pick a number."] * 3, ["2", "9", "none"]).tolist()
        [[8.0, 0.0, 0.0], [0.0, 0.0, 8.0], [0.0, 0.0, 0.0]]
    """

    def __init__(self) -> None:
        self.cluster_names = ["low", "middle", "high"]
        self.prevalence = np.array([0.6, 0.3, 0.1])

    def cluster_rewards(self, prompts: Sequence[Any], completions: Sequence[str]) -> torch.Tensor:
        """Score completions: 8 logits from the cluster that prefers the number, else 0; `(N, 3)` float32."""
        rewards = torch.zeros(len(completions), 3)
        for row, text in zip(rewards, completions, strict=True):
            if text in ANSWERS:
                row[np.searchsorted([4, 8], int(text), side="right")] = _GAP
        return rewards


class DigitTokenizer:
    """A tokenizer of the ten digits and an end token, number 10; other characters are dropped.

    Example:
        >>> tokenizer = DigitTokenizer()
        >>> tokenizer.encode("No. 42"), tokenizer.decode([4, 2, 10])
        ([4, 2], '42')
    """

    eos_token_id = 10

    def __len__(self) -> int:
        return 11

    def encode(self, text: str) -> list[int]:
        """Return the token of each digit in a text."""
        return [int(character) for character in text if character in "0123456789"]

    def decode(self, token_ids: Sequence[int]) -> str:
        """Return the digits as text, without end tokens."""
        return "".join(str(token) for token in token_ids if token != self.eos_token_id)
