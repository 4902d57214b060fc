"""The page of a suite: `report.html`, `report.md` and the plots as PNG. Knows nothing of how it was measured."""

from __future__ import annotations

from pathlib import Path

from plural_rlhf.report.html import readable_results, write_page
from plural_rlhf.report.suite.results import SuiteResults
from plural_rlhf.report.suite.sections import suite_findings, suite_sections


__all__ = ["write_suite_report"]


def write_suite_report(results: SuiteResults, folder: str | Path) -> Path:
    """Write `report.html`, `report.md` and `figures/*.png`.

    Args:
        results: The results of a suite.
        folder: Where to write; made if it does not exist.

    Returns:
        The path of `report.html`.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     page = write_suite_report(SuiteResults(name="trial"), folder)
        ...     "Nothing was measured" in page.read_text(encoding="utf-8")
        True
    """
    results = readable_results(results)
    sections = suite_sections(results)
    return write_page(folder, results.name, suite_findings(results), sections, results.meta, what="evaluation")
