"""What a run found, for people: tables, plots, Markdown and one self-contained HTML page.

`tables` needs rich only; `write_report` needs matplotlib and jinja2, and is imported when first asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from plural_rlhf.report.tables import summary_table


if TYPE_CHECKING:
    from plural_rlhf.report.html import write_report

__all__ = ["summary_table", "write_report"]


def __getattr__(name: str) -> Any:
    if name == "write_report":
        from plural_rlhf.report.html import write_report

        return write_report
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
