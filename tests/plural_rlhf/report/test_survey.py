"""The report for social scientists: points, margins, who the clusters are, and what is said where little is known."""

from __future__ import annotations

import re

import numpy as np
import pytest

from plural_rlhf.report import write_report
from plural_rlhf.report.headline import headline
from plural_rlhf.report.plots import plot_distributions
from plural_rlhf.report.points import points_by_question, points_table
from plural_rlhf.report.results import RunResults
from plural_rlhf.report.sections import report_sections
from plural_rlhf.report.survey import plot_traits, reliability_table, sizes_table, traits_table
from reward_models.stats.shares import share_interval
from tests.report_fixtures import stored_values


SURVEY = {
    "n_raters": 400,
    "shares_low": [0.35, 0.3, 0.15],
    "shares_high": [0.48, 0.44, 0.26],
    "refitted": True,
    "traits": [
        {"trait": "sex", "value": "female", "n": 220, "overall": 0.55, "shares": [0.6, 0.52, None],
         "low": [0.5, 0.4, None], "high": [0.7, 0.6, None]},
        {"trait": "sex", "value": "male", "n": 180, "overall": 0.45, "shares": [0.4, 0.48, 0.7],
         "low": [0.3, 0.4, None], "high": [0.5, 0.6, None]},
    ],
    "by": [{"trait": "year", "value": "2018", "n": 90, "overall": 0.2, "shares": [0.2, 0.3, 0.5],
            "low": [0.1, 0.2, 0.4], "high": [0.3, 0.4, 0.6]}],
    "sizes": [{"num_clusters": 3, "log_likelihood": -900.5, "n_parameters": 23, "bic": 1938.8, "entropy": 0.71,
               "certainty": [0.9, 0.8, None], "misclassified": 0.1, "stability": 1.0}],
    "dependence": [{"first": "poverty", "second": "single", "n": 300, "residual": 9.1, "unexplained": 0.12,
                    "alone": 0.3}],
    "n_pairs": 21,
    "reliability": {"alpha": 0.3, "alpha_low": 0.2, "alpha_high": 0.4, "level": "nominal", "retest": None,
                    "n_styles": 390, "straight_liners": 0.2, "expected_straight_liners": 0.01, "habit": None},
}  # fmt: skip


def values(**changes):
    """The stored run with points per row, as a run of today has them."""
    stored = stored_values()
    for row in [row for row in stored["rows"] if row["metric"] == "jsd_nats"]:
        stored["rows"].append({**row, "metric": "total_variation", "unit": "probability"})
    return stored | changes


def sections_of(results):
    return {section.key: section for section in report_sections(results)}


def test_the_chosen_number_of_clusters_is_marked_and_no_other():
    sizes = [{**SURVEY["sizes"][0], "num_clusters": k} for k in (2, 3)]
    results = RunResults.model_validate(values(survey=SURVEY | {"sizes": sizes}))
    assert [row[0] for row in sizes_table(results).rows] == ["2", "3 (chosen)"]


def test_traits_are_not_drawn_for_one_cluster_or_without_traits():
    assert plot_traits(RunResults.model_validate(values(survey=SURVEY))) is not None
    assert plot_traits(RunResults.model_validate(values(survey=SURVEY | {"traits": []}))) is None
    one = values(survey=SURVEY)
    one["clusters"] = one["clusters"][:1]
    assert plot_traits(RunResults.model_validate(one)) is None


def test_the_first_sentence_is_in_points_and_names_the_questions():
    results = RunResults.model_validate(values())
    heldout = {q.id: q for q in results.questions if q.split == "heldout"}
    points = points_by_question(results, "heldout")
    for name, share in points.items():
        question = heldout[name]
        answers = np.array(question.population_answers("plural"))
        expected = np.maximum(answers / answers.sum() - np.array(question.human), 0).sum()
        assert share == pytest.approx(expected)
    first = headline(results)[0]
    farthest, nearest = points.values()
    assert first.startswith("On the 2 questions it was never trained on, the model is ")
    assert f"is {100 * farthest:.0f} points off on " in first
    assert f", {100 * nearest:.1f} on " in first
    assert "of 100 people" in first
    assert "nats" not in first


def test_of_many_questions_the_largest_and_the_smallest_distance_are_named():
    stored = values()
    for question in stored["questions"]:
        question["split"] = "heldout"
    first = headline(RunResults.model_validate(stored))[0]
    assert first.startswith("On the 7 questions")
    assert first.count(" on ") == 3 + 1  # three questions, and "on average"
    assert "(largest and smallest)" in first


@pytest.mark.parametrize(
    ("marginal", "verdict"),
    [(0.005, "closer to the people than ours"), (0.3, "farther"), (0.1001, "10 points off on average, as near to")],
)
def test_the_best_of_the_others_is_named_also_where_it_beats_ours(marginal, verdict):
    stored = values()
    for row in stored["rows"]:
        if row["metric"] == "total_variation" and row["cluster"] == "all":
            row["value"] = {"plural": 0.1, "marginal": marginal}.get(row["method"], 0.25)
    second = headline(RunResults.model_validate(stored))[1]
    assert verdict in second
    assert second.startswith(
        "The best of the other answers is “marginal" if marginal < 0.2 else "The best of the other"
    )


def test_without_held_out_questions_the_headline_is_about_trained_ones_and_says_so():
    stored = stored_values(5, 0)
    stored["rows"] = [row for row in stored["rows"] if row["split"] == "train"]
    stored["data"]["heldout_questions"] = []
    sentences = headline(RunResults.model_validate(stored))
    assert "questions it was trained on" in sentences[0]
    assert "nothing is known of new questions" in sentences[0]
    assert not any("never trained on" in sentence for sentence in sentences)


def test_wordings_and_respondents_are_in_full():
    results = RunResults.model_validate(values())
    table = points_table(results)
    by_wording = {cells[0]: cells for cells in table.rows}
    for question in results.questions:
        assert by_wording[question.prompt][1:3] == [question.split, str(question.n)]
    assert [cells[1] for cells in table.rows] == ["heldout"] * 2 + ["train"] * 5


def test_peoples_bars_have_margins_of_error():
    """Of the first answer Wilson's interval by the effective number of people; one line per boundary."""
    stored = values()
    stored["questions"][0]["n_effective"] = 100.0
    results = RunResults.model_validate(stored)
    figure = plot_distributions(results)
    first, second = figure.axes[0].lines[0], figure.axes[1].lines[0]
    ends = share_interval(np.array(results.questions[0].human[:1]), np.array([100.0]))
    assert list(first.get_xdata()) == pytest.approx(np.concatenate(ends))
    assert np.ptp(first.get_xdata()) > np.ptp(second.get_xdata())


@pytest.mark.slow
def test_who_the_clusters_are_is_told_with_intervals_and_a_warning(tmp_path):
    results = RunResults.model_validate(values(survey=SURVEY))
    shown = sections_of(results)
    assert {"traits", "fit", "reliability"} <= set(shown)
    assert "not a kind of person" in shown["traits"].reading
    cells = [cell.replace("\xa0", " ") for cell in traits_table(results).rows[0]]
    assert cells == ["sex: female", "220", "55 %", "60 % [50, 70]", "52 % [40, 60]", "–"]
    assert "41\xa0% [35,\xa048]" in shown["clusters"].reading
    assert plot_traits(results).axes[0].get_yticklabels()[0].get_text() == "sex: female"
    text = write_report(results, tmp_path).read_text(encoding="utf-8")
    for word in ("year: 2018", "1,939", "bivariate residual", "Krippendorff", "not a kind of person"):
        assert word in text
    assert "nan" not in re.sub(r"<[^>]*>", " ", text.split("<main>")[1]).lower().split()


def test_a_run_that_did_not_ask_has_no_such_sections_and_a_jury_of_one_cluster_says_why():
    assert not {"traits", "fit", "reliability"} & set(sections_of(RunResults.model_validate(values())))
    one = values(survey={**SURVEY, "traits": [], "by": [], "shares_low": [1], "shares_high": [1]})
    one["clusters"] = one["clusters"][:1]
    assert (
        sections_of(RunResults.model_validate(one))["traits"].missing == "Nothing to show: the jury has one cluster."
    )


def test_what_could_not_be_measured_is_a_dash_and_repetition_is_told():
    survey = {**SURVEY, "reliability": {**SURVEY["reliability"]}}
    rows = {cells[0]: cells for cells in reliability_table(RunResults.model_validate(values(survey=survey))).rows}
    assert rows["acquiescence"][1] == "–"
    assert rows["test and retest"][1:] == ["–", "Nobody was asked the same twice."]
    twice = {"n_pairs": 50, "n_raters": 40, "agreement": 0.8, "low": 0.65, "high": 0.9, "kappa": 0.6}
    survey["reliability"]["retest"] = twice
    rows = {cells[0]: cells for cells in reliability_table(RunResults.model_validate(values(survey=survey))).rows}
    assert rows["test and retest"][1].replace("\xa0", " ") == "80 % [65, 90]"
    assert "(kappa) 0.60" in rows["test and retest"][2]


def test_a_share_without_an_interval_is_shown_alone():
    """Too few raters for an interval, or a share that is not known at all."""
    traits = [{**SURVEY["traits"][0], "low": [0.5, None, None], "high": [0.7, None, None]}]
    (row,) = traits_table(RunResults.model_validate(values(survey=SURVEY | {"traits": traits}))).rows
    assert [cell.replace("\xa0", " ") for cell in row[3:]] == ["60 % [50, 70]", "52 %", "–"]


@pytest.mark.parametrize(
    ("heldout", "train", "told"),
    [
        (1, 5, "rest on 1 held-out question;"),
        (2, 1, "rest on 2 held-out questions and 1 trained question;"),
        (5, 4, "rest on 4 trained questions;"),
    ],
)
def test_one_question_is_not_several(heldout, train, told):
    stored = values()
    stored["data"]["heldout_questions"] = [f"h{i}" for i in range(heldout)]
    stored["data"]["train_questions"] = [f"t{i}" for i in range(train)]
    assert told in sections_of(RunResults.model_validate(stored))["distances"].reading


@pytest.mark.slow
@pytest.mark.parametrize(("heldout", "train", "warned"), [(2, 5, True), (5, 5, False), (6, 3, True)])
def test_intervals_over_fewer_than_five_questions_are_marked(heldout, train, warned):
    stored = values()
    stored["data"]["heldout_questions"] = [f"h{i}" for i in range(heldout)]
    stored["data"]["train_questions"] = [f"t{i}" for i in range(train)]
    shown = sections_of(RunResults.model_validate(stored))
    assert ("fewer than 5" in shown["distances"].reading) is warned
    for rule in stored["rules"]:
        for change in rule["clusters"].values():
            change["n"] = 4
    assert "4 judged questions" in sections_of(RunResults.model_validate(stored))["rules"].reading


@pytest.mark.slow
def test_a_page_fits_a_phone(tmp_path):
    """What is wider than a phone scrolls in a box of its own; nothing else has a fixed width."""
    text = write_report(RunResults.model_validate(values(survey=SURVEY)), tmp_path).read_text(encoding="utf-8")
    assert '<meta name="viewport" content="width=device-width, initial-scale=1">' in text
    body = text.split("<main>")[1]
    assert len(re.findall(r'<div class="wide"[^>]*>\s*<(?:svg|table)', body)) == len(
        re.findall(r"<(?:svg|table)\b", body)
    )
    assert ".wide { overflow-x: auto" in text
    assert "@media (max-width: 40rem)" in text
