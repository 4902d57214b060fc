"""Checks that the configurations of both trainers share: a value is one of several, a number lies in an interval.

Every error says the setting, its value, what it means and what is allowed. Knows nothing of what settings do.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from reward_models.errors import did_you_mean


__all__ = ["check_choice", "check_numbers"]


def check_choice(config: Any, name: str, valid: Sequence[str]) -> None:
    """Raise if a setting is not one of the valid values.

    Raises:
        ValueError: Says the value, the closest valid one and all of them.

    Example:
        >>> from types import SimpleNamespace
        >>> check_choice(SimpleNamespace(estimator="vargard"), "estimator", ["vargrad", "tb"])
        Traceback (most recent call last):
        ValueError: estimator is 'vargard'. Did you mean 'vargrad'? It is one of vargrad, tb.
    """
    value = getattr(config, name)
    if value not in valid:
        raise ValueError(f"{name} is {value!r}.{did_you_mean(value, valid)} It is one of {', '.join(valid)}.")


def check_numbers(config: Any, intervals: Mapping[str, tuple[str, str]]) -> None:
    """Raise if a setting lies outside its interval; None is left alone.

    Args:
        config: The settings.
        intervals: By name, the interval as mathematics writes it, `"[0, 1)"` or `"(0, inf)"`, and what the setting is.

    Raises:
        ValueError: Says the value, what it is and the interval in words; NaN is in no interval.

    Example:
        >>> from types import SimpleNamespace
        >>> check_numbers(SimpleNamespace(other_mass=1.0), {"other_mass": ("[0, 1)", "a probability")})
        Traceback (most recent call last):
        ValueError: other_mass is 1.0: it is a probability, so it must be at least 0 and below 1.
    """
    for name, (interval, meaning) in intervals.items():
        value = getattr(config, name)
        low, high = (float(bound) for bound in interval[1:-1].split(","))
        above = value is None or (value >= low if interval[0] == "[" else value > low)
        below = value is None or (value <= high if interval[-1] == "]" else value < high)
        if not (above and below):
            words = f"at least {low:g}" if interval[0] == "[" else f"above {low:g}"
            if high < float("inf"):
                words += f" and at most {high:g}" if interval[-1] == "]" else f" and below {high:g}"
            raise ValueError(f"{name} is {value}: it is {meaning}, so it must be {words}.")
