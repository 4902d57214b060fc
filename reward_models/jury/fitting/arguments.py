"""What is asked of a fit, checked before any text is read: a wrong word must not cost the hours of a language model.

Knows nothing of texts or features.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Literal, get_args

from reward_models.analysis.naming import changed_names, check_labels
from reward_models.errors import JuryError, did_you_mean
from reward_models.fitting.selection import KSelection
from reward_models.fitting.starting_point import check_judged_twice, check_num_clusters, check_tables, is_whole
from reward_models.jury.fitting.steps import Clusters, JudgedTables, Names, Strangers
from reward_models.raters.rater_model import Membership


__all__ = ["checked_clusters"]


def checked_clusters(
    tables: JudgedTables,
    clusters: Clusters,
    membership: Membership | Literal["auto"],
    labels: Mapping[str, str] | None,
    names: Names | None,
    strangers: Strangers,
) -> Clusters:
    """Raise unless the tables can be fitted as asked for, as far as that is known before the fit.

    Args:
        tables: The judgements.
        clusters: Their number, candidates, or a choice; see `fit_jury`, like all that follow.
        membership: How a rater combines the rewards of clusters.
        labels: Short names of items.
        names: Names of the clusters.
        strangers: How raters without labels are predicted.

    Returns:
        The clusters: an int, candidates by size, or the choice as it is.

    Raises:
        JuryError: Something that there is not, that the tables cannot support, or that does not go together.

    Example:
        >>> from reward_models import FitConfig, planted_judgements
        >>> tables = JudgedTables.of(planted_judgements("rating").judgements, FitConfig())
        >>> checked_clusters(tables, (3, 1, 2), "mixture", None, None, "raters")
        (1, 2, 3)
        >>> checked_clusters(tables, 2, "mixture", None, ["town"], "raters")
        Traceback (most recent call last):
        reward_models.errors.JuryError: 1 name for 2 clusters ('cluster 1', 'cluster 2'). Fix: give one per ...
    """
    memberships = (*get_args(Membership), "auto")
    if membership not in memberships:
        hint = did_you_mean(str(membership), memberships)
        raise JuryError(f"membership={membership!r} is none of {', '.join(memberships)}.{hint}")
    if strangers not in get_args(Strangers):
        raise JuryError(
            f"strangers={strangers!r}: raters without labels are predicted as a random rater or as whoever gave a "
            'random judgement. Fix: strangers="raters" or strangers="judgements"'
        )
    if strangers == "judgements" and not tables.has_raters:
        raise JuryError(
            'strangers="judgements" weighs raters by their judgements, and a `soft` table has no raters. Fix: leave '
            "strangers out"
        )
    chosen = clusters.num_clusters if isinstance(clusters, KSelection) else _numbers(clusters)
    smallest = chosen if isinstance(chosen, int) else chosen[0]
    one = isinstance(chosen, int) or (len(chosen) == 1 and tables.has_raters)  # without raters candidates become one
    known = smallest if one and membership != "auto" else None
    if known is not None:
        check_num_clusters(tables.first, known)
    # Of candidates those that the raters cannot support are left out, and the choice says so.
    number = min(smallest, 1) if known is None else known
    check_tables(tables.encoded, "mixture" if membership == "auto" else membership, number, "linear")
    if known is not None and (known > 1 or membership == "factor"):
        check_judged_twice(tables.encoded, known)
    check_labels(labels, tables.encoded)
    _check_names(names, None if known is None else known + (membership == "factor"))
    return clusters if isinstance(clusters, KSelection) else chosen


def _numbers(clusters: int | Iterable[int]) -> int | tuple[int, ...]:
    """Return a number of clusters, or candidates, by size."""
    fix = "Fix: a whole number, or candidates, e.g. clusters=2 or clusters=(1, 2, 3)"
    if is_whole(clusters):
        return int(clusters)  # type: ignore[arg-type]
    if isinstance(clusters, str | Mapping) or not isinstance(clusters, Iterable):
        raise JuryError(f"clusters={clusters!r} is no number of clusters. {fix}")
    candidates = list(clusters)
    if not candidates:
        raise JuryError(f"clusters={clusters!r}: there is nothing to compare. {fix}")
    for candidate in candidates:
        if not is_whole(candidate):
            raise JuryError(f"clusters={clusters!r}: {candidate!r} is no number of clusters. {fix}")
    return tuple(sorted({int(candidate) for candidate in candidates}))


def _check_names(names: Names | None, number: int | None) -> None:
    """Raise unless names could be those of `number` clusters, of any number if it is None."""
    if names is None:
        return
    given = list(names.values()) if isinstance(names, Mapping) else names
    count = len(given) if number is None or isinstance(names, Mapping) else number
    changed_names(given, [f"cluster {k + 1}" for k in range(count)])
