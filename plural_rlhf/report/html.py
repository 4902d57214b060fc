"""Writing a report: one self-contained HTML page, the same in Markdown, and the plots as PNG.

Knows files, templates and how a figure becomes SVG; what the report says is in `sections.py`. All text is escaped:
names of questions and clusters come from other people's files.
"""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any, TypeVar

import matplotlib
from jinja2 import Environment, StrictUndefined
from markupsafe import Markup
from matplotlib.figure import Figure

from plural_rlhf.report.canvas import FONT, INK
from plural_rlhf.report.headline import headline
from plural_rlhf.report.names import EVERYBODY, METHOD_NAMES, Method, Split
from plural_rlhf.report.results import Meta, RunResults
from plural_rlhf.report.results_base import ResultsFile
from plural_rlhf.report.results_policies import TextResults
from plural_rlhf.report.sections import Section, report_sections, sections_beside_texts
from plural_rlhf.report.texts.findings import text_findings
from plural_rlhf.report.texts.sections import text_sections
from reward_models.borders import markdown_text, visible
from reward_models.whole_file import whole_file, whole_path


NUMBER = re.compile(r"[−+±]?[\d.,]+(\s?%)?( \[[^\]]*\])?")
"""A cell that holds a number, perhaps with its interval, which a page does not break over lines."""
BLUE = "#0072b2"

__all__ = ["readable_results", "write_page", "write_report", "write_text_report"]

_Results = TypeVar("_Results", bound=ResultsFile)


def write_report(results: RunResults | Mapping[str, Any], folder: str | Path) -> Path:
    """Write `report.html`, `report.md` and `figures/*.png`.

    Args:
        results: The results of a run, or what `json.load` reads from their `results.json`. What a run has not reached
            may be missing; the report says so.
        folder: Where to write; made if it does not exist.

    Returns:
        The path of `report.html`.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     page = write_report(RunResults(config={"name": "trial"}), folder)
        ...     "trial: what the run found" in page.read_text(encoding="utf-8")
        True
    """
    results = readable_results(RunResults.model_validate(results))
    if results.texts:
        sections = text_sections(results.texts, results.along) + sections_beside_texts(results)
    else:
        sections = report_sections(results)
    return write_page(folder, results.name, headline(results), sections, results.meta)


def write_text_report(measured: Mapping[str, Any], folder: str | Path, name: str = "texts") -> Path:
    """Write `report.html`, `report.md` and `figures/*.png` of an evaluation of freely written texts.

    Args:
        measured: What `OpenEndedResults.to_dict` returns, or what `json.load` reads of it.
        folder: Where to write; made if it does not exist.
        name: What the page is called.

    Returns:
        The path of `report.html`.

    Example:
        >>> import tempfile
        >>> rows = [{"policy": "plural", "measure": "bridging", "jury": "training", "value": 0.7}]
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     page = write_text_report({"rows": rows, "settings": {"policies": ["plural"]}}, folder, "trial")
        ...     "Whom do the texts please?" in page.read_text(encoding="utf-8")
        True
    """
    results = TextResults(split=Split.HELDOUT, weighting=EVERYBODY, **_readable(dict(measured)))
    return write_page(folder, visible(name), text_findings([results]), text_sections([results]), None)


def write_page(
    folder: str | Path,
    name: str,
    findings: Sequence[str],
    sections: Sequence[Section],
    meta: Meta | None,
    *,
    what: str = "run",
) -> Path:
    """Write `report.html`, `report.md` and `figures/*.png` of given sections.

    Args:
        folder: Where to write; made if it does not exist.
        name: What the page is called.
        findings: Sentences at its head.
        sections: The sections, in order.
        meta: Versions and times; None if sections say them.
        what: What found it, in the title of the page.

    Returns:
        The path of `report.html`.
    """
    folder = Path(folder)
    figures = folder / "figures"
    figures.mkdir(parents=True, exist_ok=True)
    for section in sections:
        if section.figure is not None:
            # Labels of ticks are made when they are drawn, and follow the settings of that moment.
            with whole_path(figures / f"{section.key}.png") as unfinished, matplotlib.rc_context(FONT):
                section.figure.savefig(unfinished, format="png", dpi=130, facecolor="white")
    context = {
        "name": name,
        "what": what,
        "headline": findings,
        "sections": sections,
        "meta": meta,
        "filterable": any(table.filterable for section in sections for table in (*section.tables, *section.folded)),
        "ours": METHOD_NAMES[Method.PLURAL],
    }
    for page, escape in (("report.md", False), ("report.html", True)):
        with whole_file(folder / page) as file:
            file.write(_render(f"{page}.j2", context, escape=escape))
    return folder / "report.html"


def _render(template: str, context: Mapping[str, Any], *, escape: bool) -> str:
    environment = Environment(autoescape=escape, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters["svg"] = _svg
    environment.filters["cell"] = markdown_text
    environment.filters["prose"] = _prose
    environment.tests["numeric"] = lambda cell: NUMBER.fullmatch(cell) is not None
    source = files("plural_rlhf.report").joinpath(template).read_text(encoding="utf-8")
    return environment.from_string(source).render(context)


def _prose(text: str) -> Markup:
    """Escape a sentence, and set what stands between backticks as code."""
    return Markup(re.sub(r"`([^`]+)`", r"<code>\1</code>", str(Markup.escape(text))))


def _svg(figure: Figure, label: str) -> Markup:
    """A figure as SVG to be put into a page; ink and blue follow the page's own colours, for dark mode.

    On a phone it keeps a size at which its letters can be read, and is scrolled in its box.
    """
    buffer = io.StringIO()
    with matplotlib.rc_context({**FONT, "svg.fonttype": "path", "svg.hashsalt": label}):
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :].replace(INK, "currentColor").replace(BLUE, "var(--blue)")
    width, height = (float(v) for v in re.findall(r'(?:width|height)="([\d.]+)pt"', svg)[:2])
    svg = re.sub(r'(?:width|height)="[\d.]+pt"\s*', "", svg, count=2)
    # Glyphs and clip paths are referred to by id, which must not be shared by the plots of one page.
    prefix = re.sub(r"\W+", "-", label.lower()).strip("-")
    svg = re.sub(r'(id="|href="#|url\(#)', rf"\g<1>{prefix}-", svg)
    style = f'style="min-width:{1.2 * width:.0f}px;max-width:{1.5 * width:.0f}px;aspect-ratio:{width / height:.4f}"'
    opening = f'<svg role="img" aria-label="{Markup.escape(label)}" {style} '
    return Markup(svg.replace("<svg ", opening, 1))


def readable_results(results: _Results) -> _Results:
    r"""Write out the control characters of all texts of results, which neither pages nor fonts can show.

    Example:
        >>> print(readable_results(RunResults(config={"name": "a\x1bb"})).config["name"])
        a\x1bb
    """
    return type(results).model_validate(_readable(results.to_dict()))


def _readable(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {_readable(key): _readable(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_readable(part) for part in value]
    return visible(value) if isinstance(value, str) else value
