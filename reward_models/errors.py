"""Exceptions and warnings of both packages, and the "did you mean" of their messages.

Knows nothing of tables, models or YAML: only how a refusal is worded.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


__all__ = ["JudgementError", "JudgementWarning", "JuryError", "MissingExtraError", "did_you_mean"]


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
