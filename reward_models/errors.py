"""Exceptions and warnings of both packages, helpers for their messages, and checks of settings.

Knows nothing of tables, models or YAML.
"""

from __future__ import annotations

import difflib
import functools
import math
from collections.abc import Callable, Iterable
from dataclasses import fields
from numbers import Integral, Real
from typing import Any, ParamSpec, TypeVar


__all__ = [
    "JudgementError",
    "JudgementWarning",
    "JuryError",
    "MissingExtraError",
    "NotEncodedError",
    "check_values",
    "did_you_mean",
    "in_one_line",
    "renamed_arguments",
    "settings_or_default",
]

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")
Settings = TypeVar("Settings")


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


class NotEncodedError(JudgementError, AttributeError):
    """Something else than encoded judgements was passed where they are expected.

    Example:
        >>> from reward_models import fit_item_mean, planted_judgements
        >>> fit_item_mean(planted_judgements().judgements)
        Traceback (most recent call last):
        reward_models.errors.NotEncodedError: encoded judgements are expected, not a Judgements. Fix: pass ...
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


def settings_or_default(given: Settings | None, kind: type[Settings]) -> Settings:
    """Return the settings that a function was given, or those that are usual.

    Args:
        given: Settings, or None for the usual ones.
        kind: Their class.

    Raises:
        JuryError: Something else, such as a dictionary.

    Example:
        >>> from reward_models import FitConfig
        >>> settings_or_default(None, FitConfig).restarts
        3
        >>> settings_or_default({"restarts": 1}, FitConfig)
        Traceback (most recent call last):
        reward_models.errors.JuryError: a FitConfig is expected, not a dict ({'restarts': 1}). Fix: FitConfig(...), ...
    """
    if given is None:
        return kind()
    if not isinstance(given, kind):
        raise JuryError(
            f"a {kind.__name__} is expected, not a {type(given).__name__} ({given!r:.60}). Fix: {kind.__name__}(...), "
            "or None for the usual settings"
        )
    return given


def check_values(settings: Any) -> None:
    """Raise unless each setting that is declared as a number or a switch is one.

    A text such as "no" would be taken for yes, and NaN passes every comparison with a bound the wrong way.

    Args:
        settings: A data class; fields that are not declared as `int`, `float` or `bool` are not looked at.

    Raises:
        JuryError: A value of another type, or a number that is not finite.

    Example:
        >>> from reward_models import FitConfig
        >>> FitConfig(style="no")
        Traceback (most recent call last):
        reward_models.errors.JuryError: FitConfig: style='no' is neither True nor False. Fix: write one, or leave ...
    """
    for field in fields(settings):
        value, kind = getattr(settings, field.name), str(field.type)
        is_switch = type(value).__name__ in ("bool", "bool_")  # also of numpy, which is not imported here
        if kind == "int":
            fault = None if isinstance(value, Integral) and not is_switch else "no whole number"
        elif kind == "float":
            is_number = isinstance(value, Real) and not is_switch and math.isfinite(value)
            fault = None if is_number else "no finite number"
        else:
            fault = None if is_switch or kind != "bool" else "neither True nor False"
        if fault is not None:
            raise JuryError(
                f"{type(settings).__name__}: {field.name}={value!r:.60} is {fault}. Fix: write one, or leave "
                f"{field.name} out ({field.default!r})"
            )


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
