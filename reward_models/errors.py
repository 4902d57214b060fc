"""Exceptions and warnings of both packages, and helpers for their messages.

Knows nothing of tables, models or YAML.
"""

from __future__ import annotations

import difflib
import functools
from collections.abc import Callable, Iterable
from typing import ParamSpec, TypeVar


__all__ = [
    "JudgementError",
    "JudgementWarning",
    "JuryError",
    "MissingExtraError",
    "did_you_mean",
    "in_one_line",
    "renamed_arguments",
]

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")


class JudgementError(ValueError):
    """A table of judgements cannot be used; the message lists every fault with its row, column, value and fix.

    Example:
        >>> from reward_models import Judgements
        >>> Judgements.from_dataset([{"prompt": "Tea?", "options": ["yes", "no"], "probs": [0.5, 0.6]}])
        Traceback (most recent call last):
        reward_models.errors.JudgementError: 1 fault in a table of 1 judgements (...):
          row 0, column 'probs': [0.5, 0.6] sums to 1.1, not 1. Fix: give one share per option, summing to 1.
    """


class JudgementWarning(UserWarning):
    """A table of judgements can be used, but holds less information than it seems to.

    Example:
        >>> import warnings
        >>> from reward_models import Judgements
        >>> row = {"prompt": "Tea?", "response_a": "Yes.", "response_b": "No.", "choice": "a"}
        >>> with warnings.catch_warnings(record=True) as caught:
        ...     warnings.simplefilter("always")
        ...     judgements = Judgements.from_dataset([row | {"rater_id": rater} for rater in ("ann", "bob")])
        >>> str(caught[0].message)[:44]
        "2 of 2 raters have one judgement ('ann', 'bo"
    """


class JuryError(ValueError):
    """A jury, weights over its clusters, or a number of clusters cannot be used.

    Example:
        >>> from reward_models import fit_mixture, planted_judgements
        >>> fit_mixture(planted_judgements(num_raters=3).judgements.encode(), 10)
        Traceback (most recent call last):
        reward_models.errors.JuryError: num_clusters=10 is more than the 3 raters in the table. Fix: use at most 3, ...
    """


class MissingExtraError(ImportError, ValueError):
    """A package of an optional extra is not installed; the message holds the command that installs it.

    Example:
        >>> raise MissingExtraError('the package "gguf" is not installed. Fix: pip install "plural-rlhf[demo]".')
        Traceback (most recent call last):
        reward_models.errors.MissingExtraError: the package "gguf" is not installed. Fix: pip install ...
    """


def did_you_mean(name: object, valid: Iterable[object]) -> str:
    """Suggest the valid name closest to a wrong one.

    Args:
        name: The unknown name.
        valid: The known names.

    Returns:
        `" Did you mean 'x'?"` (with the leading space), or `""` when nothing comes close.

    Example:
        >>> did_you_mean("natspace", ["natspac", "nateduc"])
        " Did you mean 'natspac'?"
    """
    by_lower = {str(candidate).lower(): str(candidate) for candidate in valid}
    close = difflib.get_close_matches(str(name).lower(), by_lower, n=1, cutoff=0.6)
    return f" Did you mean {by_lower[close[0]]!r}?" if close else ""


def in_one_line(error: Exception, most: int = 160) -> str:
    r"""Write an error in one line; those of transformers may have a page.

    Args:
        error: The error.
        most: Characters of its text.

    Example:
        >>> in_one_line(OSError("no such model\n\nSee the Hub"), 20)
        'OSError: no such model See th…'
    """
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:most]}{'…' * (len(text) > most)}"


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
