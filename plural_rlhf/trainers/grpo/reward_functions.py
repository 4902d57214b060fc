"""TRL's list of reward functions: the jury's place in it, what the others add to a reward, and what they forbid.

Everything that needs a completion's whole reward takes it from here, whether the completion was drawn by the policy or
by the reference or is one of a row's `support`. Knows nothing of targets, offsets or models.

Shapes: `N` completions, `F` reward functions, `K` clusters.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from torch import Tensor

from plural_rlhf.rewards.completions import completion_text, rows_of, seen_prompts
from plural_rlhf.rewards.jury_reward import JuryReward
from plural_rlhf.rewards.validity_gate import ValidityGate
from plural_rlhf.trainers.grpo.generation_batch import JuryScores


__all__ = ["JuryColumn", "OtherRewards"]


class JuryColumn:
    """The jury in TRL's list of reward functions: scores completions and hands on the K rewards of each.

    TRL sees and logs the weighted mean, and its table of completions gets a column `jury/<cluster>` for each cluster.
    A `JuryReward` itself would pool the rewards and move the offsets, which here waits for the log-probabilities.

    Args:
        reward: The jury.
        keep: Receives the scores of each call.
        drawn_by: Returns who drew each of so many completions, by name; None where the policy draws all.

    Example:
        >>> import numpy as np
        >>> class Colours:
        ...     cluster_names, prevalence = ["warm", "cold"], np.array([0.75, 0.25])
        ...     def cluster_rewards(self, prompts, completions):
        ...         return torch.tensor([[1.0, 0.0] if "red" in c else [0.0, 1.0] for c in completions])
        >>> kept = []
        >>> JuryColumn(JuryReward(Colours()), kept.append)(["Pick a colour."] * 2, ["red", "blue"])
        [0.75, 0.25]
        >>> kept[0].r.tolist()
        [[1.0, 0.0], [0.0, 1.0]]
    """

    __name__ = "jury"

    def __init__(
        self,
        reward: JuryReward,
        keep: Callable[[JuryScores], None],
        drawn_by: Callable[[int], list[str] | None] = lambda n: None,
    ) -> None:
        self._reward = reward
        self._keep = keep
        self._drawn_by = drawn_by

    def __call__(self, prompts: Sequence[Any], completions: Sequence[Any], **columns: Any) -> list[float]:
        """Return the weighted means `(n,)` of this process's completions."""
        seen = seen_prompts(prompts, columns.get("jury_prompt"))
        r = self._reward.cluster_rewards(seen, completions, columns.get("support"))
        w = self._reward.row_weights(columns.get("weights"), len(completions))
        self._keep(JuryScores(r, w, self._reward.row_rules(columns.get("rule"), len(completions))))
        if (log_extra := columns.get("log_extra")) is not None:
            for k, name in enumerate(self._reward.cluster_names):
                log_extra(f"jury/{name}", r[:, k].tolist())
            if (drawn_by := self._drawn_by(len(completions))) is not None:
                log_extra("drawn_by", drawn_by)
        return (r * w).sum(-1).tolist()


class OtherRewards:
    """The reward functions beside the jury: they add to every cluster's reward, and gates forbid completions.

    Args:
        reward: The jury.
        functions: All reward functions in TRL's order, among them the jury or its `JuryColumn`.
        weights: One number per function, 1 by default. The jury's multiplies its rewards, a gate's is not read.
        context: Returns what TRL passes to every function besides columns of the data set, such as `trainer_state`.

    Example:
        >>> from types import SimpleNamespace
        >>> import numpy as np
        >>> reward = JuryReward(SimpleNamespace(cluster_names=["all"], prevalence=np.ones(1), cluster_rewards=None))
        >>> gate = ValidityGate(lambda prompts, completions, **columns: [float(c != "?") for c in completions])
        >>> others = OtherRewards(reward, [reward, lambda completions, **columns: [len(c) for c in completions], gate])
        >>> scores = others.scores({"prompt": "A colour."}, ["red", "?"], [[5], [6]])
        >>> others.together(torch.tensor([[1.0], [2.0]]), scores, ["p", "p"]).tolist()  # "?" is forbidden
        [[4.0], [-6.0]]
    """

    def __init__(
        self,
        reward: JuryReward,
        functions: Sequence[Any],
        weights: Sequence[float] | None = None,
        context: Callable[[], Mapping[str, Any]] = dict,
    ) -> None:
        self._reward = reward
        self._functions = list(functions)
        self._context = context
        weights = [1.0] * len(functions) if weights is None else list(weights)
        self._jury = next(n for n, f in enumerate(functions) if f is reward or isinstance(f, JuryColumn))
        self._gates = [n for n, f in enumerate(functions) if isinstance(f, ValidityGate)]
        added = [w * (n != self._jury and n not in self._gates) for n, w in enumerate(weights)]
        self._jury_weight = weights[self._jury]
        self._added = torch.tensor(added, dtype=torch.float64)

    @property
    def gated(self) -> bool:
        """Whether a gate is among the functions."""
        return bool(self._gates)

    def check_callable(self) -> None:
        """Raise if a function cannot score completions other than those that TRL passes to it.

        Raises:
            ValueError: One is a reward model, which TRL runs itself.
        """
        for n, function in enumerate(self._functions):
            if n != self._jury and (isinstance(function, str | torch.nn.Module) or not callable(function)):
                raise ValueError(
                    f"reward_funcs[{n}] is the reward model {_name(function)!r}, which TRL runs on completions of the "
                    "policy only, but answers of a support and completions of the reference must be scored, too: pass "
                    "a function (prompts, completions, **columns) that calls it, or leave out support, n_ref and "
                    "offsets='exact'."
                )

    def scores(
        self, row: Mapping[str, Any], completions: Sequence[Any], completion_ids: Sequence[list[int]]
    ) -> Tensor:
        """Return what every function gives completions of one row, `(N, F)` float64; NaN for None, and for the jury.

        Args:
            row: A row of the data set; its columns are passed on, as TRL does.
            completions: `N` strings, or lists with the assistant's message.
            completion_ids: Their tokens.

        Raises:
            ValueError: A function returned another number of values than of completions, or an infinite one.
        """
        scores = torch.full((len(completions), len(self._functions)), torch.nan, dtype=torch.float64)
        columns = {k: [v] * len(completions) for k, v in row.items() if k not in ("prompt", "completion")}
        columns |= {"prompts": [row["prompt"]] * len(completions), "completion_ids": list(completion_ids)}
        for n, function in enumerate(self._functions):
            if n == self._jury:
                continue
            values = _awaited(function(completions=completions, **columns, **self._context()))
            if len(values) != len(completions):
                raise ValueError(
                    f"the reward function {_name(function)!r} returned {len(values)} values for {len(completions)} "
                    "completions: return one number, or None, for each."
                )
            scores[:, n] = torch.tensor([torch.nan if value is None else value for value in values]).double()
        self.check_finite(scores, completions)
        return scores

    def check_finite(self, scores: Tensor, completions: Sequence[Any]) -> None:
        """Raise if a score is infinite, because no target follows from that; NaN stands for None.

        Args:
            scores: `(N, F)`.
            completions: The completions of the first rows.

        Raises:
            ValueError: Says the function, the value and the completion.
        """
        infinite = scores[: len(completions)].isinf().nonzero().tolist()
        if infinite:
            n, f = infinite[0]
            raise ValueError(
                f"the reward function {_name(self._functions[f])!r} gives {float(scores[n, f])} to the completion "
                f"{completion_text(completions[n])!r}, and no target follows from that: return a finite number of "
                "logits, None where it has no opinion, or wrap it in a ValidityGate to forbid completions."
            )

    def together(self, r: Tensor, scores: Tensor, keys: Sequence[str]) -> Tensor:
        """Return the jury's rewards times their weight, plus what the other functions add, `(N, K)` logits.

        A completion that does not pass a gate is below all valid ones of its prompt, for every cluster.

        Args:
            r: `(N, K)` the jury's rewards, logits.
            scores: `(N, F)` from `scores`, or from TRL.
            keys: Key of each completion's prompt.
        """
        r = self._jury_weight * r + (scores.nan_to_num(0.0) @ self._added)[:, None]
        if not self._gates:
            return r
        valid = self.valid(scores)
        for rows in rows_of(keys).values():
            held = torch.tensor(rows)[valid[rows]]
            floor = r[held].amin(dim=0) if len(held) else r.new_zeros(r.shape[-1])
            r[torch.tensor(rows)[~valid[rows]]] = floor + self._reward.invalid_reward * self._reward.target.beta
        return r

    def valid(self, scores: Tensor) -> Tensor:
        """Return `(N,)` whether each completion passes all gates."""
        return (scores[:, self._gates].nan_to_num(1.0) > 0).all(dim=-1)


def _awaited(values: Any) -> Any:
    """Return the values of a function, also of an `async` one; in a thread, because a notebook has a running loop."""
    if not inspect.iscoroutine(values):
        return values
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(asyncio.run, values).result()


def _name(function: Any) -> str:
    return function if isinstance(function, str) else getattr(function, "__name__", type(function).__name__)
