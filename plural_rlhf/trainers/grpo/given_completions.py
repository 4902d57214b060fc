"""Completions that a data set brings along: what people wrote, for a policy to learn from without drawing it.

A row's column `given_completions` lists texts for its prompt. Some of them join every group of the prompt. Knows
nothing of rewards or of how a policy draws.

Shapes: `n` rows of this process, `G` a group.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from reward_models.seeds import seeded_rng


__all__ = ["GIVEN_COLUMN", "GivenCompletions"]

GIVEN_COLUMN = "given_completions"


class GivenCompletions:
    """Chooses and tokenises the given completions of each group.

    A completion is the text with the end token, as the policy would say it. One that has more tokens than the policy
    may use could never be drawn, so it is left out, with one warning.

    Args:
        draws: Completions of each group that are given, if the row has so many.
        encode: Tokenises completions, each with the end token.
        max_length: Longest completion of the policy in tokens.
        seed: Random seed of the choice.

    Example:
        >>> given = GivenCompletions(1, lambda texts: [[ord(c) for c in text] for text in texts], max_length=2, seed=0)
        >>> given.of_rows([{"given_completions": ["a"]}] * 3, group=3, last=2, keys=(0,))  # before the last
        {1: [97]}
    """

    def __init__(
        self, draws: int, encode: Callable[[Sequence[str]], list[list[int]]], max_length: int, seed: int
    ) -> None:
        self.draws = draws
        self._encode = encode
        self._max_length = max_length
        self._seed = seed
        self._tokens: dict[str, list[int]] = {}
        self._warned = False

    def of_rows(
        self, rows: Sequence[Mapping[str, Any]], *, group: int, last: int, keys: Sequence[int]
    ) -> dict[int, list[int]]:
        """Return tokens of the given completions by row; those of a group have its places before `last`.

        They are drawn without replacement, by a stream of their own, so that a resumed training draws the same.

        Args:
            rows: Rows of the data set, one per completion; groups are whole and consecutive.
            group: G.
            last: Place in the group after that of its last given completion.
            keys: What tells this generation from others: the step, and the number of the first group.
        """
        chosen: dict[int, list[int]] = {}
        *step, first_group = keys
        for number, start in enumerate(range(0, len(rows), group)):
            tokens = self._of_row(rows[start])
            count = min(self.draws, len(tokens), last)
            rng = seeded_rng(self._seed, "given completions", *step, first_group + number)
            places = range(start + last - count, start + last)
            chosen |= {place: tokens[i] for place, i in zip(places, rng.permutation(len(tokens)), strict=False)}
        return chosen

    def _of_row(self, row: Mapping[str, Any]) -> list[list[int]]:
        texts = list(dict.fromkeys(row.get(GIVEN_COLUMN) or ()))
        new = [text for text in texts if text not in self._tokens]
        self._tokens.update(zip(new, self._encode(new), strict=True))
        tokens = [self._tokens[text] for text in texts]
        short = [ids for ids in tokens if len(ids) <= self._max_length]
        if len(short) < len(tokens) and not self._warned:
            self._warned = True
            warnings.warn(
                f"{len(tokens) - len(short)} of the {len(tokens)} given completions of the prompt {row['prompt']!r} "
                f"have more than max_completion_length={self._max_length} tokens, which the policy could never say: "
                "they are left out, and so are such ones of other prompts. Raise max_completion_length to learn from "
                "them.",
                UserWarning,
                stacklevel=2,
            )
        return short
