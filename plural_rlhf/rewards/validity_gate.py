"""`ValidityGate`: a reward function as a hard gate, for facts, formats and safety."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Sequence
from typing import Any


__all__ = ["ValidityGate", "is_async"]


def is_async(function: Callable[..., Any]) -> bool:
    """Whether calling a reward function gives a coroutine: a function or an object with one as `__call__`, as TRL."""
    while isinstance(function, functools.partial):
        function = function.func
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(type(function).__call__)


class ValidityGate:
    """Marks a reward function as a hard gate: what it scores below `threshold` is worth nothing to any cluster.

    `PluralGRPOTrainer` takes it among its `reward_funcs`, beside the jury: for facts, formats and safety, which are
    not a matter of taste. The shares of the clusters then hold among valid answers. `None` from the function is
    valid.

    Args:
        function: A TRL reward function, `(prompts, completions, **columns)` to one number (or `None`) a completion.
            The gate of an async function is async.
        threshold: The lowest number that is valid.

    Example:
        >>> gate = ValidityGate(lambda prompts, completions, **columns: [float(c.isdigit()) for c in completions])
        >>> gate(prompts=["Pick a number."] * 2, completions=["7", "seven"])
        [1.0, 0.0]
    """

    def __new__(cls, function: Callable[..., Any], threshold: float = 0.5) -> ValidityGate:
        """A gate of a class of its own for an async function: TRL looks at `__call__` to know what to await."""
        return super().__new__(_AsyncValidityGate if cls is ValidityGate and is_async(function) else cls)

    def __getnewargs__(self) -> tuple[Callable[..., Any], float]:
        return self.function, self.threshold

    def __init__(self, function: Callable[..., Any], threshold: float = 0.5) -> None:
        self.function = function
        self.threshold = threshold
        self.__name__ = getattr(function, "__name__", type(function).__name__)

    def __call__(self, prompts: Sequence[Any], completions: Sequence[Any], **columns: Any) -> Any:
        """1.0 where a completion is valid, 0.0 where it is not; a list, of an async function a coroutine of one."""
        return self._valid(self.function(prompts=prompts, completions=completions, **columns))

    def _valid(self, scores: Sequence[float | None]) -> list[float]:
        return [1.0 if score is None or score >= self.threshold else 0.0 for score in scores]


class _AsyncValidityGate(ValidityGate):
    async def __call__(self, prompts: Sequence[Any], completions: Sequence[Any], **columns: Any) -> list[float]:
        return self._valid(await self.function(prompts=prompts, completions=completions, **columns))
