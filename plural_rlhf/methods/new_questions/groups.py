"""Groups of people whose answers to new questions are predicted. Knows nothing of questions."""

from __future__ import annotations

from collections.abc import Sequence

from plural_rlhf.methods.modular.communities import FEWEST_RATERS, raters_by_cluster, raters_by_trait
from reward_models.errors import JudgementError
from reward_models.fitting.em import FitConfig
from reward_models.judgements.records import Judgements


__all__ = ["question_groups"]


def question_groups(
    judgements: Judgements,
    by: str | None,
    clusters: int | Sequence[int] = (1, 2, 3, 4),
    *,
    fewest: int = FEWEST_RATERS,
    seed: int = 0,
) -> tuple[dict[str, list[str]], list[str]]:
    """Divide people by a trait or into clusters of their answers.

    Args:
        judgements: A table with raters.
        by: A trait, `clusters`, or None for no groups.
        clusters: The number of clusters, or candidates of which held-out raters choose one.
        fewest: Groups of fewer people are left out: their answers could be those of one of them.
        seed: Random seed of the clusters.

    Returns:
        Ids of the raters of each group, and sentences on who is in none.

    Raises:
        JudgementError: An unknown trait, a table without people, or no group that is large enough.

    Example:
        >>> from reward_models import planted_judgements
        >>> frame = planted_judgements("choice", num_raters=60, num_items=3).judgements.frame.copy()
        >>> frame["rater:side"] = ["left" if int(rater[1:]) % 6 else "right" for rater in frame["rater_id"]]
        >>> groups, notes = question_groups(Judgements.from_frame(frame, kind="choice"), "side")
        >>> list(groups), notes
        (['left'], ["Left out: groups of fewer than 20 people by 'side': right (10)."])
    """
    if by is None:
        return {}, []
    if not judgements.raters:
        raise JudgementError(
            f"the table holds shares without people, and cannot be divided by {by!r}. Fix: leave --by out, or give a "
            "table of people's answers."
        )
    if by == "clusters":
        members = raters_by_cluster(judgements, clusters, config=FitConfig(seed=seed))
    else:
        members = raters_by_trait(judgements, by)
    groups = {name: raters for name, raters in members.items() if len(raters) >= fewest}
    small = [f"{name} ({len(raters)})" for name, raters in members.items() if len(raters) < fewest]
    if not groups:
        raise JudgementError(
            f"by {by!r} there is no group of at least {fewest} people: {', '.join(small)}. Fix: join groups in the "
            "table, or divide by another trait."
        )
    notes = [f"Left out: groups of fewer than {fewest} people by {by!r}: {', '.join(small)}."] if small else []
    if by == "clusters":
        counts = ", ".join(f"{name} {len(raters):,}" for name, raters in groups.items())
        notes.append(f"Clusters are those of people's answers to all known questions: {counts} people.")
    return groups, notes
