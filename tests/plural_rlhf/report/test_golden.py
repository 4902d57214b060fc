"""Whole reports, word for word, and what each of their plots draws: nothing changes in them without being seen.

Properties are tested elsewhere; this is the net below them. After a change that is meant, write the files again and
read the difference: `UPDATE_GOLDEN=1 python -m pytest tests/plural_rlhf/report/test_golden.py`, then `git diff`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from plural_rlhf.report import write_report
from plural_rlhf.report.results import RunResults
from plural_rlhf.report.sections import report_sections
from plural_rlhf.report.texts.sections import text_sections
from tests.plural_rlhf.report.test_survey import SURVEY, values


GOLDEN = Path(__file__).parent / "golden"


def full() -> dict[str, Any]:
    """A run of today with every section, on people whose judgements have weights."""
    stored = values(survey=SURVEY)
    stored["data"]["effective_raters"] = 301.7
    stored["rules"][1]["picks"] |= {stored["questions"][0]["id"]: "maybe"}
    stored["rules"][1]["agreement"] = 0.75
    for change, ends in zip(
        stored["rules"][1]["clusters"].values(), [(0.1, 0.3), (-0.4, -0.2), (None, None)], strict=True
    ):
        change |= {"value": sum(ends) / 2 if ends[0] else 0.05, "ci_low": ends[0], "ci_high": ends[1]}
    return stored


def small() -> dict[str, Any]:
    """One cluster, one question on each side, no stock GRPO, no points, and people of whom little is known."""
    stored = values()
    heldout = next(q for q in stored["questions"] if q["split"] == "heldout")
    stored["questions"] = [stored["questions"][0], heldout]
    stored["clusters"] = stored["clusters"][:1]
    stored["rows"] = [r for r in stored["rows"] if r["method"] != "grpo" and r["metric"] != "total_variation"]
    for row in stored["rows"]:
        if row["cluster"] != "all":
            row["value"] = None
    stored["steering"] = [s for s in stored["steering"] if s["weighting"] == "population"][:1]
    stored["rules"], stored["groupings"] = [], None
    stored["data"] |= {"heldout_questions": [heldout["id"]], "train_questions": ["a"], "heldout_raters": 8}
    stored["skipped"] = [
        {"what": "welfare rules", "reason": "the jury has one cluster"},
        {"what": "stock GRPO", "reason": "grpo.steps is 0"},
    ]
    del stored["training"]["grpo"], stored["budgets"]["grpo"]
    for question in stored["questions"]:
        del question["policy"]["grpo"]
        question["n_effective"] = 4.5
    return stored


def labels() -> dict[str, Any]:
    """What `fit-labels` leaves: clusters of labels, no language model."""
    stored = full()
    kept = ("schema_version", "config", "data", "headroom", "selection", "clusters", "groupings", "survey", "meta")
    return {key: stored[key] for key in kept} | {
        "scope": "labels",
        "questions": [{**q, "jury": [], "policy": {}} for q in stored["questions"][:3]],
    }


def texts() -> dict[str, Any]:
    """A run whose policies write: two splits, asked for the population and for one cluster, both juries."""
    return json.loads(Path(__file__).with_name("texts").joinpath("results.json").read_text(encoding="utf-8"))


def few_texts() -> dict[str, Any]:
    """The same without a held-out jury and without texts of people, on one prompt."""
    stored = texts()
    stored["texts"] = stored["texts"][2:]
    for of in stored["texts"]:
        of["rows"] = [
            {**row, "n": 1, "ci_low": None, "ci_high": None, "gain_low": None, "gain_high": None}
            for row in of["rows"]
            if row.get("jury", "") != "heldout" and row["policy"] != "people"
        ]
        of["texts"] = [text for text in of["texts"] if text["policy"] != "people"]
        of["settings"]["clusters"] = {"training": of["settings"]["clusters"]["training"]}
    stored["skipped"] = [
        {"what": "held-out jury", "reason": "no raters were held out"},
        {"what": "comparison with what people wrote", "reason": "data.written says of no text that people wrote it"},
    ]
    return stored


VARIANTS = {"full": full, "small": small, "labels": labels, "texts": texts, "few_texts": few_texts}


def report_of(results: RunResults, folder: Path) -> str:
    write_report(results, folder)
    return (folder / "report.md").read_text(encoding="utf-8")


def drawing_of(results: RunResults) -> str:
    lines = []
    for section in text_sections(results.texts) + report_sections(results):
        if section.figure is not None:
            lines += [f"# {section.key}", *figure_lines(section.figure)]
    return "\n".join(lines) + "\n"


def figure_lines(figure: Figure) -> Iterator[str]:
    yield "size " + numbers(figure.get_size_inches())
    yield from (f"text {text.get_text()!r} wrap={text.get_wrap()}" for text in figure.texts)
    for legend in figure.legends:
        handles = [to_hex(handle.get_color()) for handle in legend.legend_handles]
        entries = zip(legend.get_texts(), handles, strict=True)
        yield f"legend frame={legend.get_frame_on()} " + ", ".join(
            f"{text.get_text()!r} {colour}" for text, colour in entries
        )
    for number, axes in enumerate(figure.axes):
        yield f"## panel {number}"
        yield from axes_lines(axes)


def axes_lines(axes: Axes) -> Iterator[str]:
    yield f"title {axes.get_title(loc='left')!r} x {axes.get_xlabel()!r} y {axes.get_ylabel()!r}"
    for name, labels in (("x ticks", axes.get_xticklabels()), ("y ticks", axes.get_yticklabels())):
        yield f"{name} " + ", ".join(repr(label.get_text()) for label in labels)
    yield "spines " + ", ".join(name for name, spine in axes.spines.items() if spine.get_visible())
    yield from (f"text {t.get_text()!r} at {numbers(t.get_position())}" for t in axes.texts)
    for patch in axes.patches:
        box = (patch.get_x(), patch.get_y(), patch.get_width(), patch.get_height())
        yield f"bar {numbers(box)} {to_hex(patch.get_facecolor(), keep_alpha=True)}"
    for line in axes.lines:
        ends = f"{numbers(line.get_xdata())} | {numbers(line.get_ydata())}"
        yield f"line {line.get_marker()} {to_hex(line.get_color())} {ends}"
    yield from (f"points {numbers(np.asarray(c.get_offsets()).ravel())}" for c in axes.collections)
    yield from (f"image {numbers(np.asarray(image.get_array()).ravel())}" for image in axes.images)


def numbers(array: Any) -> str:
    return " ".join(f"{float(value):.3g}".replace("-0.0", "0") for value in np.ravel(np.asarray(array, dtype=float)))


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_report_is_the_stored_one(variant, tmp_path):
    results = RunResults.model_validate(VARIANTS[variant]())
    for ending, text in ((".md", report_of(results, tmp_path)), (".plots.txt", drawing_of(results))):
        stored = GOLDEN / f"{variant}{ending}"
        if os.environ.get("UPDATE_GOLDEN"):
            stored.write_text(text, encoding="utf-8")
        assert text == stored.read_text(encoding="utf-8")
