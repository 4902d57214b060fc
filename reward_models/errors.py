"""Exceptions and warnings of both packages, and the "did you mean" of their messages.

Knows nothing of tables, models or YAML: only how a refusal is worded.
"""

from __future__ import annotations

import difflib
import functools
from collections.abc import Callable, Iterable
from typing import ParamSpec, TypeVar


__all__ = ["JudgementError", "JudgementWarning", "JuryError", "MissingExtraError", "did_you_mean", "renamed_arguments"]

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")


class JudgementError(ValueError):
    """A table of judgements that cannot be used; the message lists every fault with its row, column, value and fix."""


class JudgementWarning(UserWarning):
    """A table of judgements that can be used but says less than its owner may think."""


class JuryError(ValueError):
    """A jury, weights over its clusters, or a number of clusters that cannot be used."""


class MissingExtraError(ImportError, ValueError):
    """A package of an optional extra is not installed; the message holds the command that installs it."""


def did_you_mean(name: object, valid: Iterable[object]) -> str:
    """Suggest the valid name closest to a wrong one.

    Args:
        name: The name that was not found.
        valid: The names that would have been.

    Returns:
        `" Did you mean 'x'?"` (with the leading space), or `""` when nothing comes close.

    Example:
        >>> did_you_mean("natspace", ["natspac", "nateduc"])
        " Did you mean 'natspac'?"
    """
    by_lower = {str(candidate).lower(): str(candidate) for candidate in valid}
    close = difflib.get_close_matches(str(name).lower(), by_lower, n=1, cutoff=0.6)
    return f" Did you mean {by_lower[close[0]]!r}?" if close else ""


def renamed_arguments(**new_names: str) -> Callable[[Callable[Parameters, Result]], Callable[Parameters, Result]]:
    """Decorate a function so that a keyword under its old name raises an error that states the new name.

    Args:
        **new_names: The new name by old name.

    Example:
        >>> @renamed_arguments(jury="scorer")
        ... def load(scorer):
        ...     return scorer
        >>> load("my-jury")
        'my-jury'
        >>> load(jury="my-jury")
        Traceback (most recent call last):
        TypeError: load: `jury=` is now `scorer=`; write load(scorer=...).
    """

    def decorate(function: Callable[Parameters, Result]) -> Callable[Parameters, Result]:
        name = function.__qualname__.removesuffix(".__init__").rpartition("<locals>.")[2]

        @functools.wraps(function)
        def checked(*args: Parameters.args, **kwargs: Parameters.kwargs) -> Result:
            for old, new in new_names.items():
                if old in kwargs:
                    raise TypeError(f"{name}: `{old}=` is now `{new}=`; write {name}({new}=...).")
            return function(*args, **kwargs)

        return checked

    return decorate
