"""`ValidityGate`: a reward function as a hard gate, for facts, formats and safety. Knows nothing of clusters."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Sequence
from typing import Any


__all__ = ["ValidityGate", "is_async"]


def is_async(function: Callable[..., Any]) -> bool:
    """Return whether TRL awaits a reward function: it, or its `__call__`, is a coroutine function.

    Example:
        >>> async def ask_a_server(prompts, completions, **columns): ...
        >>> is_async(ask_a_server), is_async(print)
        (True, False)
    """
    while isinstance(function, functools.partial):
        function = function.func
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(type(function).__call__)


class ValidityGate:
    """Mark a reward function as a hard gate: a completion that it scores below `threshold` gets probability 0.

    `PluralGRPOTrainer` accepts it among its `reward_funcs`, beside the scorer: for facts, formats and safety, which
    are not a matter of taste. The shares of the clusters then hold among valid answers. A score of `None` counts as
    valid.

    Args:
        function: A TRL reward function, `(prompts, completions, **columns)` to one number (or `None`) per completion.
            The gate of an async function is async.
        threshold: The lowest valid score.

    Example:
        >>> gate = ValidityGate(lambda prompts, completions, **columns: [float(c.isdigit()) for c in completions])
        >>> gate(prompts=["Pick a number."] * 2, completions=["7", "seven"])
        [1.0, 0.0]
    """

    def __new__(cls, function: Callable[..., Any], threshold: float = 0.5) -> ValidityGate:
        """Return an instance of an async subclass for an async function: TRL inspects `__call__`."""
        return super().__new__(_AsyncValidityGate if cls is ValidityGate and is_async(function) else cls)

    def __getnewargs__(self) -> tuple[Callable[..., Any], float]:
        return self.function, self.threshold

    def __init__(self, function: Callable[..., Any], threshold: float = 0.5) -> None:
        self.function = function
        self.threshold = threshold
        self.__name__ = getattr(function, "__name__", type(function).__name__)

    def __call__(self, prompts: Sequence[Any], completions: Sequence[Any], **columns: Any) -> Any:
        """Return 1.0 for each valid completion, else 0.0: a list, or a coroutine of one if the function is async."""
        return self._valid(self.function(prompts=prompts, completions=completions, **columns))

    def _valid(self, scores: Sequence[float | None]) -> list[float]:
        return [1.0 if score is None or score >= self.threshold else 0.0 for score in scores]


class _AsyncValidityGate(ValidityGate):
    async def __call__(self, prompts: Sequence[Any], completions: Sequence[Any], **columns: Any) -> list[float]:
        return self._valid(await self.function(prompts=prompts, completions=completions, **columns))
