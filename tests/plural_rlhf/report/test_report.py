"""The report: numbers arrive unchanged, text is escaped, nothing is fetched, and what is missing is said."""

from __future__ import annotations

import html
import io
import itertools
import math
import re
from collections import Counter

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text
from rich.console import Console

from plural_rlhf.report import canvas, plots, summary_table, write_report
from plural_rlhf.report.headline import headline
from plural_rlhf.report.html import write_page
from plural_rlhf.report.names import BASELINES, METHOD_NAMES, Method, Metric, SkippedPart, Split
from plural_rlhf.report.points import forms_sentence
from plural_rlhf.report.results import RunResults
from plural_rlhf.report.results_policies import FormResult, Row, Skipped
from plural_rlhf.report.rules import picks_table, plot_rules, rules_sentence, rules_table
from plural_rlhf.report.sections import report_sections
from plural_rlhf.report.tables import (
    Rows,
    TextTable,
    clusters_text,
    format_interval,
    format_nats,
    format_percent,
    rich_table,
    short_labels,
    summary_text,
)
from tests.report_fixtures import stored_results, stored_values


CLUSTERS = [cluster.name for cluster in stored_results().clusters]
POLICIES = (Method.UNTOUCHED, Method.WARM, Method.GRPO, Method.PLURAL)
HELDOUT_JSD = Split.HELDOUT, Metric.JSD


def row(method, split, metric, value, cluster="all", low=math.nan, high=math.nan):
    return Row(method=method, split=split, cluster=cluster, metric=metric, value=value, ci_low=low, ci_high=high)


@pytest.fixture(scope="module")
def results():
    return stored_results()


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
    table = summary_text(RunResults(rows=rows))
    assert [cells[0] for cells in table.rows] == [METHOD_NAMES[Method.UNIFORM], METHOD_NAMES[Method.PLURAL]]
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
    assert format_nats(math.nan) == format_percent(math.nan) == format_interval(math.nan, 0.0, 1.0) == "–"
    assert Rows([row("plural", "train", "jsd_nats", math.nan)]).value("plural", "train", "jsd_nats") is None


def test_summary_table_prints_brackets_as_text(results):
    console = Console(width=170, record=True, file=io.StringIO())
    console.print(summary_table(results))
    text = console.export_text().replace("\N{NO-BREAK SPACE}", " ")
    assert Rows(results.rows).text(Method.PLURAL, *HELDOUT_JSD).replace("\N{NO-BREAK SPACE}", " ") in text
    assert "0.011 [0.0000, 0.025]" in text
    methods = {row.method for row in results.rows} & set(METHOD_NAMES)
    assert set(POLICIES) <= methods
    for method in methods:
        assert METHOD_NAMES[method] in text


def test_short_labels_drop_what_all_prompts_share(results):
    parks, roads = (
        results.questions[0].model_copy(update={"id": i, "prompt": f"Is the city spending too much on {topic}?"})
        for i, topic in (("a", "public parks"), ("b", "roads"))
    )
    assert short_labels([parks, roads]) == {"a": "public parks", "b": "roads"}
    assert short_labels([parks, roads], width=8) == {"a": parks.label, "b": "roads"}
    assert short_labels([parks.model_copy(update={"label": ""}), roads], width=8)["a"] == "a"
    same = [parks.model_copy(update={"prompt": "The very same?", "label": i, "id": i}) for i in "xy"]
    assert short_labels(same) == {"x": "x", "y": "y"}


def test_page_is_self_contained(page):
    text = page.read_text(encoding="utf-8")
    assert text.count("<svg ") == 8
    assert not re.findall(r'<svg [^>]*\b(?:width|height)="', text)  # they take the width of the page
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


@pytest.mark.slow
def test_all_text_is_escaped(tmp_path):
    results = stored_values(2, 1)
    evil = '<script>alert("1")</script>|[x](javascript:1)'
    results["config"]["name"] = evil
    results["clusters"][0]["name"] = evil
    results["headroom"]["verdict"] = evil
    results["skipped"].append({"what": evil, "reason": evil})
    for question in results["questions"]:
        question["prompt"] = evil + question["id"]
        question["options"] = [evil, "b"]
        question["clusters"][evil] = question["clusters"].pop(CLUSTERS[0])
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
    assert len(linked) == 8
    for name in linked:
        assert (page.parent / name).stat().st_size > 5000
    assert "| plural (ours) |" in text


def test_page_opens_with_the_headline_figures(results, page):
    _, _, third, fourth, *_ = headline(results)
    rows = Rows(results.rows)
    assert rows.text(Method.PLURAL, *HELDOUT_JSD) in third
    assert "2 questions" in third
    assert "180 people" in third
    assert f"stock GRPO {format_nats(rows.value(Method.GRPO, *HELDOUT_JSD))}" in fourth
    text = page.read_text(encoding="utf-8")
    assert 0 < text.index("180 people") < text.index("<svg")


def test_the_headline_admits_defeat():
    marginal = row("marginal", "heldout", "jsd_nats", 0.024)
    for ours, admits in ((0.03, True), (0.02, False)):
        sentences = headline(RunResults(rows=[row("plural", "heldout", "jsd_nats", ours), marginal]))
        assert any("no better than answering every question with the average" in s for s in sentences) is admits


@pytest.mark.slow
def test_without_grpo_the_page_says_so(tmp_path, page):
    absent = "stock GRPO was not run because grpo.steps is 0."
    results = stored_results(grpo=False)
    sections = [section for section in report_sections(results) if section.key in ("distributions", "record")]
    text = write_page(tmp_path, "without", headline(results), sections, None).read_text(encoding="utf-8")
    assert absent in text
    assert METHOD_NAMES[Method.PLURAL] in text
    assert absent not in page.read_text(encoding="utf-8")


MISSING = {
    "distances": ("rows", "the evaluation has not run"),
    "distributions": ("questions", "the evaluation has not run"),
    "clusters": ("clusters", "no jury was fitted"),
    "information": ("groupings", "the groupings were not compared"),
    "steering": ("steering", "the evaluation has not run"),
    "rules": ("rules", "the jury has one cluster, or evaluate.rules is empty"),
    "training": ("training", "nothing was trained"),
}
"""Per section, the part of the results that it shows, and what it says without it."""


def test_every_section_is_shown_where_the_results_have_it(results):
    shown = {section.key: section for section in report_sections(results)}
    assert set(shown) == {*MISSING, "forms", "elsewhere", "record"}
    for section in shown.values():
        assert section.missing == ""
        assert section.title.endswith("?")
        assert section.reading
        assert (section.figure is not None) is (section.key not in ("elsewhere", "record"))
        assert any(table.rows for table in (*section.tables, *section.folded))


@pytest.mark.parametrize("key", MISSING)
def test_a_section_without_its_part_says_why(key, tmp_path):
    part, reason = MISSING[key]
    values = stored_values(3, 1)
    del values[part]
    results = RunResults.model_validate(values)
    sections = {section.key: section for section in report_sections(results)}
    assert sections[key].missing == f"Nothing to show: {reason}."
    others = {k for k, section in sections.items() if section.missing} - {key}
    assert others <= ({"clusters"} if key == "distributions" else set())
    assert headline(results)
    page = write_page(tmp_path, "without", headline(results), [sections[key]], None)
    for file in (page, page.with_name("report.md")):
        assert f"Nothing to show: {reason}." in file.read_text(encoding="utf-8")


@pytest.mark.parametrize(("part", "key"), [(SkippedPart.STEERING, "steering"), (SkippedPart.RULES, "rules")])
def test_the_reason_that_the_run_gave_is_the_one_that_is_printed(part, key):
    results = stored_results().model_copy(update={key: [], "skipped": [Skipped(what=part, reason="of the weather")]})
    sections = {section.key: section for section in report_sections(results)}
    assert sections[key].missing == "Nothing to show: of the weather."
    assert sections["record"].tables[1].rows == [[part, "of the weather"]]


def test_numbers_that_are_not_numbers_are_left_out():
    values = stored_values(3, 1)
    for entry in values["rows"]:
        if entry["split"] == "train":
            entry["value"] = math.nan
        else:
            entry["ci_low"] = entry["ci_high"] = None
    results = RunResults.model_validate(values)
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
    rows = Rows(results.rows)
    for axes, split in zip(figure.axes, Split, strict=True):
        widths = [patch.get_width() for patch in axes.patches if patch.get_height() == pytest.approx(0.66)]
        assert widths == pytest.approx([rows.value(m, split, Metric.JSD) for m in (*POLICIES, Method.JURY)])
        lines = [line.get_xdata()[0] for line in axes.lines if line.get_color() == plots.GREY]
        known = [value for m in BASELINES if (value := rows.value(m, split, Metric.JSD)) is not None]
        assert sorted(lines) == pytest.approx(sorted(known))
        assert len(known) == 3  # of a run that was measured before questions were weighted by wording


def test_the_names_of_four_baselines_are_apart_and_in_the_figure():
    values = stored_values(3, 3)
    marginal = [entry for entry in values["rows"] if entry["method"] == Method.MARGINAL]
    values["rows"] += [entry | {"method": Method.WORDING} for entry in marginal]
    figure = plots.plot_distances(RunResults.model_validate(values))
    figure.canvas.draw()
    texts = [text for axes in figure.axes for text in axes.texts if text.get_color() == plots.GREY]
    named = [Text.get_window_extent(text) for text in texts]  # without the lines that point at the baselines
    assert len(named) == 2 * 4
    for one, other in itertools.pairwise(named):
        assert one.x1 < other.x0
    assert 0 < named[0].x0 < named[-1].x1 < figure.bbox.x1


def test_bars_of_the_distributions_end_at_the_coverage(results):
    """Per panel four speakers; what the untouched model's bar lacks went to other text."""
    figure = plots.plot_distributions(results)
    assert len(figure.axes) == len(results.questions)
    ordered = sorted(results.questions, key=lambda q: q.split != Split.TRAIN)
    for axes, question in zip(figure.axes, ordered, strict=True):
        parts = [patch for patch in axes.patches if patch.get_width() < 1]
        ends = {round(p.get_y() + 0.37): p.get_x() + p.get_width() for p in parts}
        shown = (Method.PLURAL, Method.GRPO, Method.UNTOUCHED)
        coverage = [1.0] + [question.policy[method]["all"].coverage for method in shown]
        assert [ends[height] for height in range(4)] == pytest.approx(coverage)
        assert ("held out" in axes.get_title(loc="left")) == (question.split == Split.HELDOUT)


def test_cluster_map_shows_the_shift_of_the_mean_answer():
    """People (.5, .3, .2) sit at .35 of the scale; a cluster of (0, .5, .5) at .75: 40 points further."""
    values = stored_values(1, 1)
    for question in values["questions"]:
        question["options"] = ["too little", "about right", "too much"]
        question["human"] = [0.5, 0.3, 0.2]
        for answers in question["clusters"].values():
            answers["human"] = [0.0, 0.5, 0.5]

    def first_cell():
        figure = plots.plot_clusters(RunResults.model_validate(values))
        return figure.axes[0].texts[0].get_text()

    assert first_cell() == "+40"
    values["questions"][0]["options"] = ["red", "green", "blue"]  # no common scale any more: total variation, .5
    assert first_cell() == "50"


def test_steering_points_are_predicted_against_achieved(results):
    figure = plots.plot_steering(results)
    first = [e for e in results.steering if e.weighting == "population" and e.split == Split.TRAIN]
    expected = np.column_stack(
        [np.concatenate([e.predicted for e in first]), np.concatenate([e.achieved for e in first])]
    )
    assert np.asarray(figure.axes[0].collections[0].get_offsets()) == pytest.approx(expected)


def test_rules_are_held_against_the_first_of_them():
    """Two rules, of which the other picks differently on the last question: one cluster surely gains, one may lose."""
    values = stored_values()
    mean, _, other, *_ = values["rules"]
    values["rules"] = [mean, other]
    other["agreement"] = 0.75
    other["picks"] = {**mean["picks"], values["questions"][-1]["id"]: "maybe"}
    for name, change in zip(CLUSTERS, [(0.2, 0.1, 0.3), (-0.1, -0.25, 0.05), (0.0, -0.1, 0.1)], strict=True):
        other["clusters"][name] = dict(zip(("value", "ci_low", "ci_high"), change, strict=True)) | {"n": 7}
    results = RunResults.model_validate(values)
    figure = plot_rules(results)
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["min"]
    points = [line.get_xdata()[0] for line in figure.axes[0].lines if line.get_marker() == "o"]
    assert points == [0.2, -0.1, 0.0]
    spans = [list(line.get_xdata()) for line in figure.axes[0].lines if len(line.get_xdata()) == 2][: len(CLUSTERS)]
    assert spans == [[0.1, 0.3], [-0.25, 0.05], [-0.1, 0.1]]
    assert "leaves the mean on 25.0" in figure.texts[0].get_text()
    # The headline names only those of whom it is sure.
    assert f"“{CLUSTERS[0]}” gains 0.200" in rules_sentence(results)
    assert "loses" not in rules_sentence(results)
    assert [cells[:2] for cells in rules_table(results).rows] == [["mean", "100.0\xa0%"], ["min", "75.0\xa0%"]]
    assert picks_table(results).rows[-1][2] == "maybe"


def test_plots_say_the_finding(results):
    titles = {s.key: s.figure.texts[0].get_text() for s in report_sections(results) if s.figure is not None}
    ours, grpo = (format_nats(Rows(results.rows).value(m, *HELDOUT_JSD)) for m in (Method.PLURAL, Method.GRPO))
    assert titles["distances"] == f"On held-out questions plural is {ours} nats from the people, GRPO {grpo}"
    assert titles["information"] == (
        "Knowing the cluster is worth 0.271 nats per answer; knowing education (merged), 0.0077"
    )
    assert all(titles.values())


def test_a_long_title_is_broken_into_lines_that_fit_also_with_prices():
    price, plain = ("a price of $5 to $10 " * 8).strip(), ("a price of five to ten " * 8).strip()
    figure = canvas.new_figure(4.0, 2.0)
    for text in (price, plain):
        canvas.title(figure, text)
    priced, wrapped = figure.texts
    assert priced.get_text().split() == price.split()
    assert priced.get_text().count("\n") >= 2
    assert not priced.get_wrap()
    assert (wrapped.get_text(), wrapped.get_wrap()) == (plain, True)  # matplotlib breaks it when it is drawn
    widths = [priced.get_window_extent().width, wrapped.get_window_extent().width]
    assert max(widths) <= figure.bbox.width
    assert min(widths) > 0.7 * figure.bbox.width


def test_without_clusters_or_questions_there_is_no_map_of_them():
    values = stored_values(1, 1)
    assert plots.plot_clusters(RunResults.model_validate({**values, "questions": []})) is None
    assert plots.plot_clusters(RunResults.model_validate({**values, "clusters": []})) is None


def test_many_weightings_and_one_question_fit():
    values = stored_values(1, 0)
    for extra in range(5):
        values["steering"] += [{**entry, "weighting": f"mix {extra}"} for entry in values["steering"][:1]]
    results = RunResults.model_validate(values)
    assert len(plots.plot_steering(results).axes) == 9
    assert len(plots.plot_distributions(results).axes) == 1
    assert plots.plot_clusters(results) is not None


def test_clusters_table_names_what_sets_them_apart(results):
    cells = clusters_text(results).rows[0]
    assert cells[0] == CLUSTERS[0]
    assert "no more children: no (92.0\N{NO-BREAK SPACE}%, all 59.8\N{NO-BREAK SPACE}%)" in cells[2]


def test_ours_is_the_bold_row_and_no_other():
    table = TextTable(header=["", "words"], rows=[["people", "1"], ["ours", "2"], ["stock", "3"]], caption="")
    assert [row.style for row in rich_table(table, "Length", "ours").rows] == [None, "bold", None]
    assert [row.style for row in rich_table(table, "Length").rows] == [None] * 3


def test_a_part_of_a_bar_is_named_where_its_name_fits():
    axes = Figure().add_subplot()
    plots._name_parts(
        axes, 2, [0.7, 0.06, 0.24], ["yes", "no", "it depends on where"], ["#000000", "#ffffff", "#ffffff"]
    )
    assert [(text.get_text(), text.get_position(), text.get_color()) for text in axes.texts] == [
        ("yes", (pytest.approx(0.35), 2), "white"),
        ("no", (pytest.approx(0.73), 2), "#17202c"),
    ]


def form(name, points, *, trained, low=None, high=None, split="train"):
    ends = {"ci_low": points - 0.02 if low is None else low, "ci_high": points + 0.02 if high is None else high}
    return FormResult(
        form=name, trained=trained, method="plural", split=split, points=points, jsd_nats=0.1, coverage=1, n=6, **ends
    )


def test_the_headline_says_how_far_off_the_worst_form_is_that_was_not_trained_on():
    trained = form("line", 0.05, trained=True)
    other, worse = form("list", 0.2, trained=False), form("bare", 0.6, trained=False)
    said = forms_sentence(RunResults(forms=[trained, form("sentence", 0.9, trained=True), other, worse]))
    assert (
        "5.0 points off where they are put as in training (line), and 60 where they are put otherwise (bare)" in said
    )
    assert forms_sentence(RunResults(forms=[trained, form("list", 0.08, trained=False)])) == ""  # intervals meet
    assert forms_sentence(RunResults(forms=[trained, form("bare", 0.6, trained=False, split="heldout")])) == ""
    assert forms_sentence(RunResults(forms=[trained])) == ""
