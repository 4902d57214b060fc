"""Raters that a jury was adapted to, as a printed table and as JSON. Knows nothing of how they were adapted."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from reward_models.borders import cell


if TYPE_CHECKING:
    from rich.table import Table

    from reward_models.raters.adaptation import Adaptation

__all__ = ["rater_rows", "raters_table"]


def raters_table(adapted: Adaptation, rows: int) -> Table:
    """Tabulate the memberships of the first raters, with intervals."""
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE, title="Memberships of the raters", title_style="bold")
    table.add_column("rater", overflow="fold")
    table.add_column("judgements", justify="right")
    for name in adapted.cluster_names:
        table.add_column(cell(name), justify="right")
    for u, rater in enumerate(adapted.rater_ids[:rows]):
        judged = "–" if adapted.num_judgements is None else str(adapted.num_judgements[u])
        intervals = zip(adapted.memberships[u], adapted.low[u], adapted.high[u], strict=True)
        table.add_row(cell(rater), judged, *(f"{mean:.2f} [{low:.2g}, {high:.2g}]" for mean, low, high in intervals))
    more = len(adapted.rater_ids) - rows
    table.caption = f"and {more:,} more; --rows shows them, --json writes all" if more > 0 else None
    return table


def rater_rows(adapted: Adaptation) -> list[dict[str, Any]]:
    """One entry per rater with everything that `Adaptation` holds of them."""
    return [
        {
            "rater_id": rater,
            "judgements": None if adapted.num_judgements is None else int(adapted.num_judgements[u]),
            "memberships": dict(zip(adapted.cluster_names, adapted.memberships[u].tolist(), strict=True)),
            "low": dict(zip(adapted.cluster_names, adapted.low[u].tolist(), strict=True)),
            "high": dict(zip(adapted.cluster_names, adapted.high[u].tolist(), strict=True)),
            "terms": {name: float(values[u]) for name, values in adapted.terms.items()},
        }
        for u, rater in enumerate(adapted.rater_ids)
    ]
