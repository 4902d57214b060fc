"""The page of a suite says what was measured, what was not, and where numbers mean little."""

from __future__ import annotations

import pytest

from plural_rlhf.report.suite.figures import plot_skill, plot_worst_items
from plural_rlhf.report.suite.page import write_suite_report
from plural_rlhf.report.suite.results import Difference, ItemResult, MetricResult, SuiteResults
from plural_rlhf.report.suite.sections import suite_findings
from plural_rlhf.report.suite.tables import comparison_table, overview


def number(metric, value, **more):
    return MetricResult(metric=metric, value=value, **more)


def of(skill, coverage=0.9):
    return [
        number("jsd_nats", 0.1, unit="nats"),
        number("skill_uniform", skill, ci_low=skill - 0.1, ci_high=skill + 0.1, unit="skill", headline=True),
        number("coverage", coverage),
        number("coverage", 0.0, group="north"),
    ]


HOSTILE = "<script>alert(1)</script>"
MODELS = [
    {"name": "base", "kind": "causal-lm", "identity": "1"},
    {"name": HOSTILE, "kind": "endpoint", "identity": "2", "usage": {"requests": 3, "cost": 0.5}},
    {"name": "marginal", "kind": "pseudo", "identity": "3"},
]


def results(**more):
    found = {
        "base": {"urn": of(-4.0), "gss": of(0.5, coverage=0.01)},
        HOSTILE: {"urn": of(0.25)},
        "marginal": {"gss": of(0.7)},
    }
    return SuiteResults(name="trial", models=MODELS, results=found, **more)


def difference(**more):
    values = {
        "task": "urn", "metric": "jsd_nats", "model": HOSTILE, "base": "base", "value": -0.2, "ci_low": -0.3,
        "ci_high": -0.1, "n_items": 40, "p_value": 0.001, "p_holm": 0.002, "minimum_detectable": 0.14,
        "direction": "lower", "outcome": "better",
    }  # fmt: skip
    return Difference(**{**values, **more})


def test_findings_name_models_comparisons_and_what_means_little():
    skipped = [{"task": "coin", "reason": "no data"}]
    said = suite_findings(results(comparisons=[difference()], skipped=skipped))
    assert said == [
        "base: nearer to people than a uniform guess on 1 of 2 tasks, mean skill −1.75.",
        "base puts less than 5% of its probability on the offered answers of gss: its shares there are shares of what "
        "it would hardly say.",
        f"{HOSTILE}: nearer to people than a uniform guess on 1 of 1 tasks, mean skill 0.25.",
        f"{HOSTILE} against base, paired by item: better on 1, worse on 0, undecided on 0 of 1 measures (Holm, 5 %).",
        "1 is not measured: see below.",
        f"{HOSTILE}: 3 requests, cost 0.5.",
    ]


def test_a_difference_that_the_correction_undoes_counts_as_undecided():
    said = suite_findings(results(comparisons=[difference(p_holm=0.2)]))
    assert any("better on 0, worse on 0, undecided on 1 of 1" in sentence for sentence in said)


def test_the_overview_has_a_dash_where_a_model_has_no_number():
    rows = {row[0]: row[1:] for row in overview(results()).rows}
    assert rows["urn"] == ["skill_uniform", "−4.000 [−4.100, −3.900]", "0.250 [0.150, 0.350]", "–"]
    assert rows["gss"][-2:] == ["–", "0.700"]
    assert overview(results(), intervals=False).rows[0] == ["urn", "skill_uniform", "−4.000", "0.250", "–"]


def test_the_surest_differences_come_first():
    table = comparison_table(
        [difference(task="b", p_holm=float("nan")), difference(task="c", p_holm=0.5), difference()]
    )
    assert [row[0] for row in table.rows] == ["urn", "c", "b"]


def test_marks_outside_the_plot_are_drawn_at_its_edge_with_their_number():
    figure = plot_skill(results())
    [axes] = figure.axes
    assert "−4.0" in [text.get_text().strip() for text in axes.texts]
    assert figure.texts[0].get_text() == "base beats a uniform guess on 1 of 2 tasks"
    assert [label.get_text() for label in axes.get_yticklabels()] == ["urn", "gss"]


def test_a_share_of_a_yield_and_a_skill_against_other_texts_are_no_skill_against_a_guess():
    """They have the unit too: a model at 2 % of the yield does not beat a uniform guess."""
    others = {
        "urn": of(-0.5),
        "coverage-both": [number("yield_share", 0.02, unit="skill", headline=True)],
        "free-text": [number("skill_mmd", 0.9, unit="skill", headline=True)],
    }
    found = SuiteResults(name="trial", models=MODELS[:1], results={"base": others})
    assert suite_findings(found)[0] == (
        "base: nearer to people than a uniform guess on 0 of 1 tasks, mean skill −0.50."
    )
    figure = plot_skill(found)
    assert figure.texts[0].get_text() == "base beats a uniform guess on 0 of 1 tasks"
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["urn"]
    caption = overview(found).caption
    assert "yield_share: 1 is the yield of a uniform choice" in caption
    assert "skill_mmd: 1 is people's own texts" in caption
    assert "yield_share" not in overview(results()).caption


def test_every_model_is_drawn_and_named_however_many_there_are():
    names = [f"organisation/model {i} of a long name" for i in range(19)]
    models = [{"name": name, "kind": "causal-lm", "identity": name} for name in names]
    found = SuiteResults(models=models, results={name: {"urn": of(i / 20)} for i, name in enumerate(names)})
    figure = plot_skill(found)
    marks = [line for line in figure.axes[0].lines if line.get_marker() not in ("None", "")]
    assert [line.get_xdata()[0] for line in marks] == [i / 20 for i in range(19)]
    assert len({(line.get_color(), line.get_marker()) for line in marks}) == 19
    [legend] = figure.legends
    assert len({text.get_text() for text in legend.get_texts()}) == 19
    figure.canvas.draw()
    key = legend.get_window_extent()
    assert 0 <= key.x0 < key.x1 <= figure.bbox.x1
    assert figure.axes[0].get_window_extent().y1 < key.y0 < key.y1 < figure.texts[0].get_window_extent().y0


def test_the_items_that_are_drawn_are_those_of_the_first_model():
    items = [
        ItemResult(
            model=model, task="urn", item=f"q{i}", text="A " * 90, options=["yes", "no"], people=[0.9, 0.1],
            answer=[0.2, 0.8], score=0.4,
        )
        for model in ("base", "other") for i in range(12)
    ]  # fmt: skip
    figure = plot_worst_items(results(worst_items=items))
    assert len(figure.axes) == 10
    assert max(len(axes.get_title(loc="left").splitlines()) for axes in figure.axes) == 3
    assert plot_worst_items(results()) is None


def test_the_page_escapes_names_and_stands_by_itself(tmp_path):
    page = write_suite_report(results(comparisons=[difference()]), tmp_path).read_text(encoding="utf-8")
    assert HOSTILE not in page
    assert "requests" in page
    assert "There is nothing" not in page
    text = (tmp_path / "report.md").read_text(encoding="utf-8")
    assert "<script>" not in text
    assert "## Every number" in text
    assert "north" in page
    assert "north" not in text  # the long table is on the page only


def test_texts_that_were_refused_are_among_the_findings():
    """An endpoint that refuses everything is otherwise a line `skipped` that speaks of options."""
    usage = {"requests": 11, "retries": 0, "refusals": 820, "empty": 4, "cost": 0.0}
    refusing = SuiteResults(models=[{"name": "api", "kind": "endpoint", "identity": "1", "usage": usage}])
    said = suite_findings(refusing)
    assert "api: 11 requests; 820 texts were refused and 4 texts were empty, which count as empty answers." in said
    assert any(text.startswith(f"{HOSTILE}: 3 requests, cost 0.5.") for text in suite_findings(results()))


def test_a_jury_stands_beside_what_its_tasks_compare_it_with():
    """Pseudo-models mark no scale of a jury: their columns would hold dashes only."""
    beside = {"one reward": 0.497, "uniform": 0.693}
    row = number("nll_nats", 0.486, direction="lower", headline=True, unit="nats", baselines=beside)
    models = [{"name": "jury", "kind": "jury", "identity": "1"}, {"name": "gold", "kind": "pseudo", "identity": "2"}]
    found = SuiteResults(models=models, results={"jury": {"votes": [row]}})
    table = overview(found)
    assert table.header == ["task", "metric", "jury", "beside it"]
    assert table.rows == [["votes", "nll_nats", "0.486", "one reward 0.497, uniform 0.693"]]
    assert "skill_uniform" not in table.caption
    assert suite_findings(found)[0] == (
        "jury, votes: nll_nats 0.486; the best of what stands beside it, one reward, has 0.497."
    )


def test_a_jury_is_held_against_what_is_better_high_or_low_and_against_nothing_else():
    """A task that another model was asked, a number of no direction and one that stands alone have no sentence."""
    beside = {"one reward": 0.6, "chance": 0.5}
    tasks = {
        "pairs": [number("accuracy", 0.7, direction="higher", headline=True, baselines=beside)],
        "gap": [number("gap", 0.1, direction="zero", headline=True, baselines=beside)],
        "alone": [number("accuracy", 0.7, direction="higher", headline=True)],
    }
    models = [{"name": "jury", "kind": "jury", "identity": "1"}, {"name": "gold", "kind": "pseudo", "identity": "2"}]
    found = SuiteResults(models=models, results={"jury": tasks, "gold": {"urn": [number("skill_uniform", 1.0)]}})
    assert [text for text in suite_findings(found) if "beside it" in text] == [
        "jury, pairs: accuracy 0.700; the best of what stands beside it, one reward, has 0.600."
    ]


@pytest.mark.parametrize(
    ("items", "said"),
    [([12] * 105, "105 of 105"), ([13] * 105, ""), ([12] * 104 + [40], "104 of 105"), ([3, 40], "1 of 2")],
)
def test_the_head_says_how_many_differences_no_items_like_these_could_decide(items, said):
    """Twelve signs flipped have no p-value below 2^-11, and 104 times that is above .05."""
    rows = [difference(task=f"task {n}", n_items=size) for n, size in enumerate(items)]
    found = [s for s in suite_findings(results(comparisons=rows)) if "too few items" in s]
    assert [sentence[: len(said)] for sentence in found] == ([said] if said else [])
