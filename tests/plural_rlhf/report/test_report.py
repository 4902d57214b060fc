"""The report: numbers arrive unchanged, text is escaped, nothing is fetched, and what is missing is said."""

from __future__ import annotations

import html
import math
import re
from collections import Counter

import numpy as np
import pytest
from rich.console import Console

from plural_rlhf.report import plots, summary_table, write_report
from plural_rlhf.report.rules import picks_table, plot_rules, rules_sentence, rules_table
from plural_rlhf.report.sections import headline, report_sections
from plural_rlhf.report.tables import (
    STAGE_NAMES,
    Rows,
    clusters_text,
    format_interval,
    format_nats,
    format_percent,
    short_labels,
    summary_text,
)
from tests.report_fixtures import CLUSTERS, make_results


def row(stage, split, metric, value, cluster="all", low=None, high=None):
    return {
        "stage": stage,
        "split": split,
        "cluster": cluster,
        "metric": metric,
        "value": value,
        "ci_low": low,
        "ci_high": high,
    }


@pytest.fixture(scope="module")
def results():
    return make_results()


@pytest.fixture(scope="module")
def page(results, tmp_path_factory):
    return write_report(results, tmp_path_factory.mktemp("report"))


def test_summary_holds_the_rows_values():
    rows = [
        row("plural", "train", "jsd_nats", 0.0094, low=0.0081, high=0.012),
        row("plural", "heldout", "jsd_nats", 0.0213),
        row("plural", "heldout", "jsd_nats", 0.01, cluster="a"),
        row("plural", "heldout", "jsd_nats", 0.03, cluster="b"),
        row("plural", "train", "coverage", 0.9934),
        row("plural", "heldout", "entropy_gap", -0.0312),
        row("uniform", "train", "jsd_nats", 0.054),
    ]
    table = summary_text({"rows": rows})
    assert [cells[0] for cells in table.rows] == [STAGE_NAMES["uniform"], STAGE_NAMES["plural"]]
    cells = [cell.replace("\N{NO-BREAK SPACE}", " ") for cell in table.rows[1]]
    assert cells[1:] == ["0.0094 [0.0081, 0.012]", "0.021", "– / 0.020", "99.3 % / –", "– / −0.031"]
    assert table.rows[0][2:] == ["–"] * 4


def test_numbers_are_never_rounded_into_a_better_story():
    assert format_percent(0.99996) == "99.9\N{NO-BREAK SPACE}%"
    assert format_percent(1.0) == "100.0\N{NO-BREAK SPACE}%"
    assert format_percent(0.0006) == "0.06\N{NO-BREAK SPACE}%"
    assert format_nats(0.0004) == "0.0004"
    assert format_nats(-0.0312) == "−0.031"
    assert format_nats(None) == "–"
    assert format_interval({"value": math.nan, "ci_low": 0, "ci_high": 1}) == "–"
    assert Rows({"rows": [row("plural", "train", "jsd_nats", math.nan)]}).value("plural", "train", "jsd_nats") is None


def test_summary_table_prints_brackets_as_text(results):
    console = Console(width=170, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(summary_table(results))
    text = console.export_text().replace("\N{NO-BREAK SPACE}", " ")
    assert "0.054 [0.044, 0.064]" in text
    for stage in Rows(results).stages():
        assert STAGE_NAMES[stage] in text


def test_short_labels_drop_what_all_prompts_share():
    questions = [
        {"id": "a", "prompt": "Is the city spending too much on public parks?"},
        {"id": "b", "prompt": "Is the city spending too much on roads?"},
        {"id": "c", "prompt": [{"role": "user", "content": "?"}]},
    ]
    assert short_labels(questions[:2]) == {"a": "public parks", "b": "roads"}
    assert short_labels(questions[:2], width=8) == {"a": "a", "b": "roads"}
    assert short_labels(questions)["c"] == "c"
    same = [{"id": i, "prompt": "The very same?"} for i in "xy"]
    assert short_labels(same) == {"x": "x", "y": "y"}


def test_page_is_self_contained(page):
    text = page.read_text(encoding="utf-8")
    assert text.count("<svg ") == 7
    assert "<script" not in text
    assert "<link" not in text
    assert re.findall(r'(?:src|href)="(?!#)[^"]*"', text) == []
    assert "@import" not in text
    fetched = re.findall(r"url\((?!#)[^)]*\)", text)
    assert fetched == []


def test_ids_of_the_plots_do_not_collide(page):
    """Two plots that shared the id of a glyph would draw each other's letters."""
    text = page.read_text(encoding="utf-8")
    count = Counter(re.findall(r'\bid="([^"]+)"', text))
    used = set(re.findall(r'href="#([^"]+)"', text)) | set(re.findall(r"url\(#([^)]+)\)", text))
    assert used <= set(count)
    assert {name for name in used if count[name] > 1} == set()


def test_ink_follows_the_page_in_dark_mode(page):
    text = page.read_text(encoding="utf-8")
    drawings = "".join(re.findall(r"<svg.*?</svg>", text, re.DOTALL))
    assert "currentColor" in drawings
    assert "#17202b" not in drawings


def test_all_text_is_escaped(tmp_path):
    results = make_results(2, 1)
    evil = '<script>alert("1")</script>|[x](javascript:1)'
    results["config"]["name"] = evil
    results["clusters"][0]["name"] = evil
    results["headroom"]["verdict"] = evil
    results["skipped"].append({"what": evil, "reason": evil})
    for question in results["questions"]:
        question["prompt"] = evil + question["id"]
        question["options"] = [evil, "b", "c"]
        question["clusters"][evil] = question["clusters"].pop(next(iter(CLUSTERS)))
    page = write_report(results, tmp_path)
    text = page.read_text(encoding="utf-8")
    assert "<script" not in text
    assert html.escape("<script>") in text
    markdown = (tmp_path / "report.md").read_text(encoding="utf-8")
    assert "<script" not in markdown
    assert "[x](" not in markdown
    assert all(line.count(" | ") >= 1 for line in markdown.splitlines() if line.startswith("| "))


def test_markdown_links_the_plots_it_wrote(page):
    text = page.with_name("report.md").read_text(encoding="utf-8")
    linked = re.findall(r"\]\((figures/\w+\.png)\)", text)
    assert len(linked) == 7
    for name in linked:
        assert (page.parent / name).stat().st_size > 5000
    assert "| plural (ours) |" in text


def test_page_opens_with_the_headline_figures(results, page):
    first, second, *_ = headline(results)
    held = Rows(results).get("plural", "heldout", "jsd_nats")
    assert format_interval(held) in first
    assert "4 questions" in first
    assert "720 people" in first
    assert f"stock GRPO {format_nats(Rows(results).value('grpo', 'heldout', 'jsd_nats'))}" in second
    text = page.read_text(encoding="utf-8")
    assert 0 < text.index("720 people") < text.index("<svg")


def test_the_headline_admits_defeat():
    rows = [row("plural", "heldout", "jsd_nats", 0.03), row("marginal", "heldout", "jsd_nats", 0.024)]
    assert any("no better than answering every question with the average" in s for s in headline({"rows": rows}))
    rows[0]["value"] = 0.02
    assert not any("no better" in s for s in headline({"rows": rows}))


def test_without_grpo_the_page_says_so(tmp_path):
    text = write_report(make_results(2, 1, grpo=False), tmp_path).read_text(encoding="utf-8")
    assert "GRPO is absent: grpo.steps is 0." in text
    assert STAGE_NAMES["plural"] in text


@pytest.mark.parametrize("key", ["rows", "questions", "clusters", "groupings", "steering", "rules", "training"])
def test_any_missing_part_is_said_and_not_crashed_on(key):
    results = make_results(3, 1)
    del results[key]
    missing = [section.key for section in report_sections(results) if section.missing.startswith("Nothing to show: ")]
    expected = {"rows": "distances", "questions": "distributions", "groupings": "information"}.get(key, key)
    assert expected in missing
    assert headline(results)


def test_numbers_that_are_not_numbers_are_left_out():
    results = make_results(3, 1)
    for entry in results["rows"]:
        if entry["split"] == "train":
            entry["value"] = math.nan
        else:
            entry["ci_low"] = entry["ci_high"] = None
    trained, heldout = plots.plot_distances(results).axes
    assert len(trained.patches) == 0
    assert len(heldout.patches) == 5
    assert all(cells[1] == "–" for cells in summary_text(results).rows)


def test_an_empty_run_still_gives_a_page(tmp_path):
    text = write_report({}, tmp_path).read_text(encoding="utf-8")
    assert text.count("Nothing to show: ") == 7
    assert "was not evaluated in this run" in text
    assert not list((tmp_path / "figures").iterdir())


def test_bars_of_the_distances_are_the_rows(results):
    figure = plots.plot_distances(results)
    rows = Rows(results)
    stages = ["untouched", "warm", "grpo", "plural", "jury"]
    for axes, split in zip(figure.axes, ("train", "heldout"), strict=True):
        widths = [patch.get_width() for patch in axes.patches if patch.get_height() == pytest.approx(0.66)]
        assert widths == pytest.approx([rows.value(stage, split, "jsd_nats") for stage in stages])


def test_bars_of_the_distributions_end_at_the_coverage(results):
    """Per panel four speakers of three answers; what the untouched model's bar lacks went to other text."""
    figure = plots.plot_distributions(results)
    assert len(figure.axes) == len(results["questions"])
    ordered = sorted(results["questions"], key=lambda q: q["split"] != "train")
    for axes, question in zip(figure.axes, ordered, strict=True):
        parts = [patch for patch in axes.patches if patch.get_width() < 1]
        ends = {round(p.get_y() + 0.37): p.get_x() + p.get_width() for p in parts}
        coverage = [1.0] + [question["policy"][s]["all"]["coverage"] for s in ("plural", "grpo", "untouched")]
        assert [ends[height] for height in range(4)] == pytest.approx(coverage)
        assert ("held out" in axes.get_title(loc="left")) == (question["split"] == "heldout")


def test_cluster_map_shows_the_shift_of_the_mean_answer():
    """People (.5, .3, .2) sit at .35 of the scale; a cluster of (0, .5, .5) at .75: 40 points further."""
    results = make_results(2, 1)
    name = next(iter(CLUSTERS))
    question = results["questions"][0]
    question["human"], question["clusters"][name]["human"] = [0.5, 0.3, 0.2], [0.0, 0.5, 0.5]
    texts = [text.get_text() for text in plots.plot_clusters(results).axes[0].texts]
    assert texts[0] == "+40"
    question["options"] = ["red", "green", "blue"]  # no common scale any more: total variation, .5
    texts = [text.get_text() for text in plots.plot_clusters(results).axes[0].texts]
    assert texts[0] == "50"


def test_steering_points_are_predicted_against_achieved(results):
    figure = plots.plot_steering(results)
    first = [e for e in results["steering"] if e["weighting"] == "population" and e["split"] == "train"]
    expected = np.column_stack([np.concatenate([e[k] for e in first]) for k in ("predicted", "achieved")])
    assert np.asarray(figure.axes[0].collections[0].get_offsets()) == pytest.approx(expected)


def test_rules_are_held_against_the_first_of_them(results):
    figure, first = plot_rules(results), next(iter(CLUSTERS))
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["min"]
    points = [line.get_xdata()[0] for line in figure.axes[0].lines if line.get_marker() == "o"]
    assert points == [0.2, -0.1, 0.0]
    assert "leaves the mean on 25.0" in figure.texts[0].get_text()
    # The headline names only those of whom it is sure.
    assert f"“{first}” gains 0.200" in rules_sentence(results)
    assert "loses" not in rules_sentence(results)
    assert [row[:2] for row in rules_table(results).rows] == [["mean", "100.0\xa0%"], ["min", "75.0\xa0%"]]
    assert picks_table(results).rows[-1][1:] == ["too little", "too much"]


def test_plots_say_the_finding(results):
    titles = [figure.texts[0].get_text() for s in report_sections(results) if (figure := s.figure) is not None]
    ours, grpo = (format_nats(Rows(results).value(s, "heldout", "jsd_nats")) for s in ("plural", "grpo"))
    assert titles[0] == f"On held-out questions plural is {ours} nats from the people, GRPO {grpo}"
    assert "0.026" in titles[3]
    assert "views (merged), 0.018" in titles[3]
    assert all(titles)


def test_many_weightings_and_one_question_fit():
    results = make_results(1, 0)
    for extra in range(5):
        results["steering"] += [{**e, "weighting": f"mix {extra}"} for e in results["steering"][:1]]
    assert len(plots.plot_steering(results).axes) == 9
    assert len(plots.plot_distributions(results).axes) == 1
    assert plots.plot_clusters(results) is not None


def test_clusters_table_names_what_sets_them_apart(results):
    cells = clusters_text(results).rows[0]
    assert cells[0] == next(iter(CLUSTERS))
    assert "welfare: too much (71.0\N{NO-BREAK SPACE}%, all 44.0\N{NO-BREAK SPACE}%)" in cells[2]
