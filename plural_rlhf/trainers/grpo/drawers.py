"""Who draws which completion of a group: the policy, then people (the row's given completions), then the reference.

What the policy and the reference draw comes from a mixture of both, whose density is known, so that it can tell log Z
by importance sampling. What was given comes from an unknown distribution: it is learnt from, because the residual is
constant at the target whoever drew a completion, and nothing else is estimated from it. Knows nothing of models or
rewards.

Shapes: `N` completions, `n` rows of this process, `G` a group.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import torch
from torch import Tensor

from reward_models.seeds import seeded_rng


__all__ = [
    "GIVEN",
    "GIVEN_COLUMN",
    "NAMES",
    "POLICY",
    "REFERENCE",
    "GivenCompletions",
    "draw_each",
    "log_drawn",
    "reference_shares",
]

POLICY: Final = 0
REFERENCE: Final = 1
GIVEN: Final = 2

NAMES: Final = ("policy", "reference", "given")
"""Of the drawers, for people."""

GIVEN_COLUMN: Final = "given_completions"
"""Of the data set: texts for a row's prompt, such as what people wrote."""

Draw = Callable[[list[list[int]]], tuple[list[list[int]], list[list[float]]]]
"""From tokens of prompts to tokens of completions, and the log-probability of each."""


def reference_shares(drawn_by: Tensor, group: int) -> Tensor:
    """Return `(N,)` the reference's share of what it and the policy draw together in each completion's group.

    Args:
        drawn_by: `(N,)` of `POLICY`, `REFERENCE` and `GIVEN`; groups are consecutive, and the policy is in each.
        group: G.

    Example:
        >>> reference_shares(torch.tensor([POLICY, POLICY, GIVEN, REFERENCE]), group=4)
        tensor([0.3333, 0.3333, 0.3333, 0.3333])
    """
    groups = drawn_by.view(-1, group)
    known = (groups != GIVEN).sum(-1, keepdim=True)
    return ((groups == REFERENCE).sum(-1, keepdim=True) / known).expand_as(groups).reshape(-1)


def log_drawn(log_pi: Tensor, log_pi_ref: Tensor, reference_share: Tensor | float) -> Tensor:
    """Return the log-probability of each completion under the mixture of policy and reference, `(N,)` nats.

    The ratio of π₀ to the mixture is at most one over the share (defensive importance sampling, Hesterberg 1995).

    Args:
        log_pi: `(N,)` log-probability under the policy, nats.
        log_pi_ref: `(N,)` the same under π₀.
        reference_share: Share of the mixture that π₀ draws, one or `(N,)`.

    Example:
        >>> log_drawn(torch.tensor([0.0]).log(), torch.tensor([0.8]).log(), reference_share=0.25).exp()
        tensor([0.2000])
    """
    share = torch.as_tensor(reference_share, dtype=log_pi.dtype, device=log_pi.device)
    mixed = torch.logaddexp(log_pi + torch.log1p(-share), log_pi_ref + share.log())
    return torch.where(share > 0, mixed, log_pi)


def draw_each(
    prompt_ids: list[list[int]],
    given: Mapping[int, list[int]],
    reference_prompts: Mapping[int, list[int]],
    *,
    by_policy: Draw,
    by_reference: Draw,
) -> tuple[list[list[int]], list[list[float]]]:
    """Return a completion for each row: the given one, or one drawn by the reference or by the policy.

    Args:
        prompt_ids: Tokens of the prompt of each row.
        given: Tokens of the completions that are given, by row.
        reference_prompts: Tokens of the prompt that the reference is shown, by row.
        by_policy: Draws from the policy; called once, for all other rows.
        by_reference: Draws from the reference; called where there are rows for it.

    Returns:
        Tokens of each completion, and the policy's log-probability of each token: NaN where the policy did not draw,
        where it is not known yet.

    Example:
        >>> policy = lambda prompts: ([[1] for _ in prompts], [[-0.5] for _ in prompts])
        >>> reference = lambda prompts: ([[2] for _ in prompts], [[-0.1] for _ in prompts])
        >>> draw_each([[7], [7], [8]], {0: [5]}, {1: [7]}, by_policy=policy, by_reference=reference)
        ([[5], [2], [1]], [[nan], [nan], [-0.5]])
    """
    own = [n for n in range(len(prompt_ids)) if n not in given and n not in reference_prompts]
    ids, log_probs = by_policy([prompt_ids[n] for n in own])
    completions = dict(zip(own, ids, strict=True)) | dict(given)
    known = dict(zip(own, log_probs, strict=True))
    if reference_prompts:
        of_reference, _ = by_reference(list(reference_prompts.values()))
        completions |= dict(zip(reference_prompts, of_reference, strict=True))
    rows = range(len(prompt_ids))
    return [completions[n] for n in rows], [known.get(n) or [math.nan] * len(completions[n]) for n in rows]


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
