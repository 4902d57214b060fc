"""Whole reports, word for word, and what each of their plots draws: nothing changes in them without being seen.

Properties are tested elsewhere; this is the net below them. After a change that is meant, write the files again and
read the difference: `UPDATE_GOLDEN=1 python -m pytest tests/plural_rlhf/report/test_golden.py`, then `git diff`.
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest

from plural_rlhf.report import write_report
from plural_rlhf.report.html import write_page
from plural_rlhf.report.results import RunResults
from plural_rlhf.report.sections import Section, report_sections, sections_beside_texts
from plural_rlhf.report.spectrum import page as spectrum_page
from plural_rlhf.report.spectrum.page import write_spectrum_report
from plural_rlhf.report.spectrum.results import SpectrumResults
from plural_rlhf.report.suite.page import write_suite_report
from plural_rlhf.report.suite.results import SuiteResults
from plural_rlhf.report.suite.sections import suite_sections
from plural_rlhf.report.texts.sections import text_sections
from tests.figures_as_text import figure_lines
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
    stored["rules"], stored["groupings"], stored["forms"], stored["elsewhere"] = [], None, [], []
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


def warned_texts() -> dict[str, Any]:
    """A run that went wrong: broken texts before training, an over-optimised policy, leaks, and its way there."""
    stored = texts()
    for of in stored["texts"]:
        jury = next(iter(of["settings"]["clusters"]))
        for number, cluster in enumerate(of["settings"]["clusters"][jury]):
            shift = {"measure": "approval_shift", "jury": "heldout", "cluster": cluster, "unit": "probability"}
            ends = {"ci_low": -0.1, "ci_high": 0.3} if number else {}
            if of["weighting"] != "all":
                of["rows"] += [{**shift, "policy": policy, "value": 0.1 - 0.13 * number, **ends, "n": 2}
                               for policy in ("warm", "plural")]  # fmt: skip
        for row in of["rows"]:
            if row["measure"] == "degenerate" and row["policy"] == "warm":
                row["value"] = 0.6
            if row["measure"] == "truncated" and row["policy"] == "warm":
                row["value"] = 0.55
            if row["measure"] == "heldout_share_of_gain":
                row |= {"value": 0.2, "ci_low": 0.1, "ci_high": 0.49, "n": 2, "reason": "", "baseline": 0.8}
    way = {"policy": "plural", "split": "heldout", "n": 16}
    stored["along"] = [
        {**way, "step": 8, "kl_to_reference": 0.4, "gain": 0.2, "heldout_gain": 0.04, "kept": True},
        {**way, "step": 4, "kl_to_reference": 0.1, "gain": 0.1, "heldout_gain": 0.05},
        {**way, "step": 4, "kl_to_reference": 9.1, "gain": 0.9, "split": "train"},
        {**way, "policy": "grpo", "step": 1200, "kl_to_reference": 1.1, "gain": 0.3},
    ]
    return stored


def number(metric: str, value: float, **more: Any) -> dict[str, Any]:
    return {"metric": metric, "value": value, **more}


def suite() -> dict[str, Any]:
    """Two models and a yardstick: gains, losses, thin answers, a group, and tasks that only one could be asked."""
    skill = {"ci_low": 0.31, "ci_high": 0.52, "n_items": 40, "unit": "skill", "direction": "higher", "kind": "items"}
    of_base = {
        "urn": [
            number("jsd_nats", 0.0407, n_items=40, unit="nats", direction="lower", baselines={"uniform": 0.1}),
            number("skill_uniform", 0.42, **skill, headline=True),
            number("coverage", 0.96, n_items=40, unit="share", direction="higher"),
            number("skill_uniform", 1.0, group="north", unit="skill", n_raters=12),
            number("entropy_gap", -0.2, unit="nats", direction="zero"),
        ],
        "gss": [
            number("skill_uniform", -1.75, **{**skill, "ci_low": -2.5, "ci_high": -1.1}, n_raters=2345, headline=True),
            number("coverage", 0.049),
        ],
        "coin": [number("skill_uniform", 0.0, unit="skill", headline=True), number("coverage", 0.05)],
    }
    of_tuned = {"urn": [number("skill_uniform", 0.6, unit="skill", headline=True)]}
    of_tuned["novelty"] = [number("distinct", 2.87, unit="texts", n_items=100, direction="higher")]
    tuned_first = {"model": "tuned", "base": "base", "n_items": 40, "minimum_detectable": 0.07, "direction": "lower"}
    differences = [
        ("urn", "jsd_nats", -0.021, -0.04, -0.002, 0.01, 0.03, "better"),
        ("urn", "coverage", -0.1, -0.15, -0.05, 0.001, 0.004, "worse"),
        ("gss", "jsd_nats", 0.005, None, None, 0.03, 0.06, "better"),
        ("coin", "jsd_nats", 0.0, None, None, float("nan"), float("nan"), "undecided"),
    ]
    keys = ("task", "metric", "value", "ci_low", "ci_high", "p_value", "p_holm", "outcome")
    item = {"model": "base", "options": ["yes", "no", "do not know"], "people": [0.7, 0.2, 0.1]}
    source = {"source": "made", "licence": "CC0", "sha256": {"a.csv": "12"}}
    return {
        "name": "trial",
        "config": {"seed": 3, "tasks": ["urn", "gss"]},
        "models": [
            {"name": "base", "kind": "causal-lm", "identity": "1"},
            {"name": "tuned", "kind": "endpoint", "identity": "2", "usage": {"requests": 3, "cost": 0.5}},
            {"name": "marginal", "kind": "pseudo", "identity": "3"},
        ],
        "results": {"base": of_base, "tuned": of_tuned, "marginal": {"gss": [number("skill_uniform", 0.7)]}},
        "comparisons": [dict(zip(keys, values, strict=True)) | tuned_first for values in differences],
        "worst_items": [
            {**item, "task": "gss", "item": "q1", "text": "Is it?", "answer": [0.1, 0.6, 0.3], "score": 0.4, "n": 900},
            {**item, "task": "urn", "item": "q2", "text": "And now? " * 20, "answer": [0.0, 1.0, 0.0], "score": 0.3},
        ],
        "data": [{"id": "urn", "title": "Urns", "shape": "distribution", "n": 40, **source}],
        "skipped": [
            {"task": "wvs", "reason": "there is no data"},
            {"task": "gss", "reason": "it cannot be asked", "model": "tuned"},
        ],
    }


def spectrum() -> dict[str, Any]:
    """A task that is better, one that is worse, one undecided, and curves of two measures."""
    rows = [
        ("urn", "js_0", 0.031, 0.082, -0.051, -0.07, -0.03, "chat"),
        ("urn", "js_geq_1", 0.02, 0.01, 0.01, 0.002, 0.018, "auto"),
        ("coin", "loss_geq_1", 1.2, 1.25, -0.05, -0.1, 0.0, "plain"),
        ("coin", "choice_0", 0.7, 0.7, 0.0, None, None, ""),
    ]
    keys = ("task", "metric", "tuned", "untouched", "difference", "ci_low", "ci_high", "format")
    curve = {"k": [0, 1, 4], "metric": "js"}
    return {
        "name": "spectrum",
        "config": {"training": {"steps": 200}},
        "tasks": [
            {"task": "coin", "heldout": False, "sequences": 200, "examples": 6400, "too_long": 7},
            {"task": "urn", "heldout": True, "sequences": 50, "examples": 1600},
        ],
        "same_source": ["jar", "bag"],
        "numbers": [
            {**dict(zip(keys, values, strict=True)), "n": 40 + n, "baselines": {"uniform": 0.1} if n else {}}
            for n, values in enumerate(rows)
        ],
        "curves": [
            {"task": "urn", "model": "tuned", "nats": [0.03, 0.02, 0.02], **curve},
            {"task": "urn", "model": "untouched (chat)", "nats": [0.08, 0.05, 0.01], **curve},
            {"task": "coin", "model": "tuned", "nats": [0.8, 0.7, 0.7], **curve, "metric": "choice"},
        ],
    }


VARIANTS = {
    "full": full,
    "small": small,
    "labels": labels,
    "texts": texts,
    "few_texts": few_texts,
    "warned_texts": warned_texts,
}


def drawing_of(sections: list[Section]) -> str:
    lines = []
    for section in sections:
        if section.figure is not None:
            lines += [f"# {section.key}", *figure_lines(section.figure)]
        for table in () if section.fold_in_markdown else section.folded:
            lines += [f"# table of {section.key}", *(" | ".join(cells) for cells in [table.header, *table.rows])]
            lines.append(f"filter={table.filterable} {table.caption}")
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_report_is_the_stored_one(variant, tmp_path):
    results = RunResults.model_validate(VARIANTS[variant]())
    write_report(results, tmp_path)
    of_texts = text_sections(results.texts, results.along) + sections_beside_texts(results)
    check(variant, tmp_path, of_texts if results.texts else report_sections(results))


def test_the_page_of_a_suite_is_the_stored_one(tmp_path):
    results = SuiteResults.model_validate(suite())
    write_suite_report(results, tmp_path)
    check("suite", tmp_path, suite_sections(results))


def test_the_page_of_a_spectrum_run_is_the_stored_one(tmp_path, monkeypatch):
    sections: list[Section] = []

    def write(folder, name, findings, of_page, meta):
        sections.extend(of_page)
        return write_page(folder, name, findings, of_page, meta)

    monkeypatch.setattr(spectrum_page, "write_page", write)
    write_spectrum_report(SpectrumResults.model_validate(spectrum()), tmp_path)
    check("spectrum", tmp_path, sections)


def check(variant: str, folder: Path, sections: list[Section]) -> None:
    """Compare a page as Markdown, and what its plots and the tables that only the HTML has show, with stored files.

    Every figure that the page links is there, and no other.
    """
    page = (folder / "report.md").read_text(encoding="utf-8")
    for ending, text in ((".md", page), (".plots.txt", drawing_of(sections))):
        stored = GOLDEN / f"{variant}{ending}"
        if os.environ.get("UPDATE_GOLDEN"):
            stored.write_text(text, encoding="utf-8")
        assert text == stored.read_text(encoding="utf-8")
    linked = re.findall(r"\]\(figures/(.+?\.png)\)", page)
    assert linked == [f"{section.key}.png" for section in sections if section.figure is not None]
    assert sorted(linked) == sorted(path.name for path in (folder / "figures").iterdir())
    assert all((folder / "figures" / name).read_bytes().startswith(b"\x89PNG") for name in linked)
