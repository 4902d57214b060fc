"""The plots of an evaluation draw the numbers that were measured, all models, and no text outside the figure."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from plural_rlhf.report.suite.curves import plot_person_curves
from plural_rlhf.report.suite.grids import plot_overton
from plural_rlhf.report.suite.results import ClusterAgreement, FrontMember, MetricResult, SuiteResults
from plural_rlhf.report.suite.scatter import plot_coverage, plot_objectives
from plural_rlhf.report.suite.sections import suite_sections
from plural_rlhf.suites.evaluate import _agreement


NAMES = ["base", "organisation/a-tuned-model-of-a-long-name-8B-instruct", "mute"]
MODELS = [{"name": name, "kind": "causal-lm", "identity": name} for name in NAMES]


def covering(validity, *yields):
    of_tasks = [MetricResult(metric="yield", value=v, group=f"task {i}", n_items=50) for i, v in enumerate(yields)]
    mean = MetricResult(metric="yield", value=sum(yields) / len(yields))
    return [MetricResult(metric="validity", value=validity), mean, *of_tasks]


def curve(gain, *losses):
    rows = [
        MetricResult(metric="loss_nats", value=loss, group=f"k = {k}", baselines={"shuffled": 0.7, "marginal": 0.6})
        for k, loss in zip((0, 1, 2, 4), losses, strict=False)
    ]
    return [MetricResult(metric="person_gain_nats", value=gain, headline=True), *reversed(rows)]


def member(model, on_front, *objectives, task="talk"):
    named = {f"objective {i}": value for i, value in enumerate(objectives)}
    return FrontMember(task=task, model=model, objectives=named, on_front=on_front, improves_on={}, n_items=9)


def cell(model, cluster, share, n=8):
    return ClusterAgreement(task="o", model=model, question="What now?", cluster=cluster, share=share, n_answers=n)


FOUND = SuiteResults(
    models=MODELS,
    results={
        "base": {"coverage-both": covering(0.4, 5.0, 15.0), "individual-votes": curve(0.2, 9.0, 0.5, 0.3)},
        NAMES[1]: {"coverage-both": covering(0.8, 20.0, 20.0), "individual-votes": curve(0.3, 2.0, 0.4, 0.2)},
        "mute": {"coverage-both": covering(0.0, 0.0, 0.0)},
    },
    fronts=[
        member("base", 0.1, 0.2, 0.3, 0.1),
        member(NAMES[1], 0.9, 0.6, 0.4, 0.5),
        member("people", 1.0, 0.9, 0, 0),
    ],
    agreement=[
        *(cell("people", cluster, 0.0, 30) for cluster in ("old", "young")),
        cell("base", "old", 0.0),
        cell("base", "young", 0.0),
        cell(NAMES[1], "old", 0.625),
    ],
)


def marks(axes):
    return [
        (round(float(x), 3), round(float(y), 3))
        for line in axes.lines
        if line.get_marker() not in ("", "None")
        for x, y in zip(line.get_xdata(), line.get_ydata(), strict=True)
    ]


def test_valid_times_different_is_the_yield_and_a_mute_model_is_drawn():
    """40 of 100 valid and 10 of 50 texts different: 20 of 100, so half of the valid ones differ."""
    figure = plot_coverage(FOUND)
    [axes] = figure.axes
    assert marks(axes) == [(40, 50), (80, 50), (0, 0)]
    assert "valid answers: base 20.0, organisation" in figure.texts[0].get_text().replace("\n", " ")
    assert figure.texts[0].get_text().endswith("40.0")
    dotted = [line for line in axes.lines if line.get_linestyle() == ":"]
    assert [line.get_xdata()[0] * line.get_ydata()[0] for line in dotted] == pytest.approx([100, 300, 1000, 3000])


def test_a_person_curve_is_in_the_order_of_the_answers_read_beside_its_control():
    figure = plot_person_curves(FOUND)
    [axes] = figure.axes
    assert marks(axes) == [(0, 9), (1, 0.5), (2, 0.3), (0, 2), (1, 0.4), (2, 0.2)]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["0", "1", "2"]
    dashed = [list(line.get_ydata()) for line in axes.lines if line.get_linestyle() == "--"]
    assert dashed == [[0.6] * 3, [0.7] * 3]
    assert axes.get_yscale() == "log"
    assert "base 0.200" in figure.texts[0].get_text().replace("\n", " ")


def test_a_model_that_another_beats_in_all_objectives_is_dashed():
    figure = plot_objectives(FOUND)
    lines = [line for line in figure.axes[0].lines if line.get_marker() not in ("", "None")]
    assert [line.get_linestyle() for line in lines] == ["--", "-", "-"]
    assert list(lines[0].get_xdata()) == [0.2, 0.3, 0.1]
    plane = plot_objectives(SuiteResults(fronts=[member("a", 1.0, 0.9, 0.1), member("b", 0.2, 0.1, 0.05)]))
    assert marks(plane.axes[0]) == [(0.9, 0.1), (0.1, 0.05)]


def test_the_overton_grid_counts_clusters_of_models_and_leaves_blank_what_was_not_asked():
    figure = plot_overton(FOUND)
    [axes] = figure.axes
    cells = [text.get_text() for text in axes.texts if text.get_text().isdigit()]
    assert cells == ["0", "0", "62", "0", "0"]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["old", "young"]
    said = figure.texts[0].get_text().replace("\n", " ")
    assert said.startswith("Of 2 clusters, those that agree with none of 8 answers: base 2, organisation/a-t")
    assert said.endswith(" 0")
    again = cell("base", "old", 1.0).model_copy(update={"task": "another"})
    both = plot_overton(FOUND.model_copy(update={"agreement": [*FOUND.agreement, again]}))
    assert [text.get_text() for text in both.axes[0].texts if text.get_text().isdigit()] == [*cells, "100"]


def test_the_cells_of_the_grid_are_those_of_the_records_and_people_stand_once():
    of_people = {"represented_of_people": {"old": [True, False]}}
    findings = [
        SimpleNamespace(
            task="o",
            model=model,
            result=SimpleNamespace(records=[{"item": "q", "represented": {"old": agrees}} | of_people]),
        )
        for model, agrees in (("a", [True] * 3 + [False]), ("b", [False] * 4))
    ]
    cells = _agreement(SimpleNamespace(findings=findings))
    assert [(one.model, one.share, one.n_answers) for one in cells] == [
        ("people", 0.5, 2),
        ("a", 0.75, 4),
        ("b", 0, 4),
    ]


@pytest.mark.parametrize("plot", [plot_coverage, plot_person_curves, plot_objectives, plot_overton])
def test_texts_are_in_the_figure_and_title_key_and_panel_apart(plot):
    figure = plot(FOUND)
    figure.canvas.draw()
    renderer = figure.canvas.get_renderer()
    drawn = [text.get_window_extent(renderer) for text in figure.texts]
    drawn += [axes.get_tightbbox(renderer) for axes in figure.axes]  # with the labels that are shown
    for box in drawn:
        assert -1 <= box.x0 <= box.x1 <= figure.bbox.x1 + 1
        assert -1 <= box.y0 <= box.y1 <= figure.bbox.y1 + 1
    title = figure.texts[0].get_window_extent(renderer)
    top = max(axes.get_tightbbox(renderer).y1 for axes in figure.axes)
    for legend in figure.legends:
        key = legend.get_window_extent(renderer)
        assert top < key.y0 < key.y1 < title.y0 + 2
        assert key.x1 <= figure.bbox.x1
    assert top < title.y0


def test_the_page_has_these_plots_only_where_their_tasks_were_measured():
    assert suite_sections(FOUND)[2].key == "people"
    drawn = {section.key for section in suite_sections(FOUND) if section.figure is not None}
    assert drawn == {"people", "valid", "overton", "objectives"}
