"""Predictions of new questions: what wording tells is found where it tells something, and only there."""

from __future__ import annotations

import csv

import numpy as np
import pandas as pd
import pytest

from plural_rlhf.methods.new_questions import NewQuestion, QuestionResults, predict_questions, run_questions
from plural_rlhf.methods.new_questions.page import _known_table, question_findings
from plural_rlhf.methods.new_questions.predict import crossed_shares
from reward_models import JudgementError, Judgements, fit_similar_questions
from reward_models.stats.answers import js_divergence
from reward_models.stats.few_units import crossed_interval, mean_interval


TOPICS = ("parks", "roads", "pools", "trams")


def vectors(texts):
    """Two numbers: which of two matters a question is about, and a little of its own."""
    return [[float("tax" in text), 0.01 * len(text)] for text in texts]


def survey(told=True, number=16, people=200, seed=0):
    """A table of yes-no questions, half of them on taxes, which most people dislike, where wording tells."""
    rng = np.random.default_rng(seed)
    rows = []
    for q in range(number):
        tax = q % 2 == 0
        text = f"Would you {'pay a tax for' if tax else 'like'} {TOPICS[q // 2 % 4]}, kind {q}?"
        rate = (0.2 if tax else 0.8) if told else rng.uniform(0.2, 0.8)
        yes = rng.random(people) < np.clip(rate + rng.normal(0, 0.04), 0, 1)
        rows += [(f"r{n}", f"q{q:02d}", text, ["yes", "no"], int(not answer)) for n, answer in enumerate(yes)]
    frame = pd.DataFrame(rows, columns=["rater_id", "item_id", "prompt", "options", "choice"])
    return Judgements.from_frame(frame, kind="choice")


NEW = [NewQuestion("tax", "Would you pay a tax for trains?"), NewQuestion("like", "Would you like trains?")]


def test_planted_topics_are_found_and_exchanged_ones_are_not(tmp_path):
    results = run_questions(survey(), NEW, tmp_path / "told", vectors)
    [skill] = results.skill
    assert skill.verdict == "better"
    assert skill.wording < 0.3 * skill.marginal
    tax, like = (record.shares[0] for record in results.predicted)
    assert abs(tax - 0.2) < 0.07
    assert abs(like - 0.8) < 0.07
    assert question_findings(results)[0].startswith(
        "On the 16 known questions, each predicted from the others, wording"
    )
    assert " is nearer to people " in question_findings(results)[0]

    untold = run_questions(survey(told=False), NEW, tmp_path / "untold", vectors)
    assert untold.skill[0].verdict != "better"
    assert "or take the marginal" in question_findings(untold)[0]


def test_a_difference_of_next_to_nothing_is_called_so():
    record = {"group": "everybody", "options": ["yes", "no"], "questions": 8, "wording": 0.02998, "marginal": 0.03}
    record |= {"nearest": 0.05, "difference": -0.00002, "ci_low": -0.00003, "ci_high": -0.00001}
    [sentence] = question_findings(QuestionResults.model_validate({"skill": [record]}))
    assert "than their mean, the marginal, by next to nothing: JS" in sentence
    record |= {"wording": 0.02, "difference": -0.01, "ci_low": -0.02, "ci_high": -0.001}
    assert "by next to nothing" not in question_findings(QuestionResults.model_validate({"skill": [record]}))[0]


def test_wording_that_tells_nothing_is_seldom_called_better():
    """Of thirty surveys hardly one: the interval is of 95 %, and the prediction leans to the marginal."""
    better = 0
    for seed in range(30):
        rng = np.random.default_rng(seed)
        shares = rng.dirichlet([4, 4], size=12)
        frame = pd.DataFrame(
            {
                "item_id": [f"q{q}" for q in range(12)],
                "prompt": [f"Question {q}?" for q in range(12)],
                "options": [["yes", "no"]] * 12,
                "probs": shares.tolist(),
            }
        )
        rows = dict(zip(frame["prompt"], rng.normal(size=(12, 3)).tolist(), strict=True))
        judgements = Judgements.from_frame(frame, kind="soft")
        [[prediction]] = predict_questions(
            judgements, NEW[:1], lambda texts, rows=rows: [rows.get(t, [0] * 3) for t in texts]
        )
        better += _skill(prediction).verdict == "better"
    assert better <= 3


def _skill(prediction):
    from plural_rlhf.methods.new_questions.run import _skill

    return _skill(prediction)


def test_the_interval_of_the_check_holds_what_new_questions_show():
    """Predictions of known questions share what they are made from: a plain t interval is too narrow."""
    covered = []
    for seed in range(60):
        rng = np.random.default_rng(seed)

        def draw(number, rng=rng):
            rows = rng.normal(size=(number, 8))
            return rng.dirichlet([4, 4, 3], size=number), rows

        (shares, rows), (new_shares, new_rows) = draw(12), draw(200)
        fit = fit_similar_questions(shares, rows)
        gain = js_divergence(new_shares, fit.shares(new_rows)) - js_divergence(new_shares, fit.marginal)
        crossed = crossed_shares(shares, rows, np.arange(12), 0, "")
        checked = js_divergence(shares, crossed["wording"]) - js_divergence(shares, crossed["marginal"])
        for low, high in (crossed_interval(checked), mean_interval(checked)):
            covered.append(low <= gain.mean() <= high)
    widened, plain = np.mean(np.reshape(covered, (-1, 2)), axis=0)
    assert widened > 0.85
    assert plain < widened - 0.05


def test_a_known_question_is_predicted_from_the_others_only():
    judgements = survey(number=8)
    [[prediction]] = predict_questions(judgements, NEW, vectors)
    rows = np.array(vectors(prediction.known.texts))
    for q in range(8):
        others = np.arange(8) != q
        fit = fit_similar_questions(prediction.known.shares[others], rows[others])
        assert prediction.crossed["wording"][q] == pytest.approx(fit.shares(rows[[q]])[0])
        assert prediction.crossed["marginal"][q] == pytest.approx(prediction.known.shares[others].mean(axis=0))


def test_a_question_asked_twice_does_not_predict_itself():
    frame = survey(number=8).frame
    again = frame[frame["item_id"] == "q00"].assign(item_id="q00 again", rater_id=lambda rows: rows["rater_id"] + "b")
    both = Judgements.from_frame(pd.concat([frame, again], ignore_index=True), kind="choice")
    [[prediction]] = predict_questions(both, NEW, vectors)
    at = prediction.known.ids.index("q00")
    others = prediction.known.blocks != prediction.known.blocks[at]
    assert prediction.crossed["marginal"][at] == pytest.approx(prediction.known.shares[others].mean(axis=0))
    assert _skill(prediction).questions == 8


def test_intervals_hold_so_many_of_the_new_questions():
    """Questions are drawn alike: 90 % of the shares of new ones lie inside, and not nearly all."""
    inside = []
    for seed in range(20):
        rng = np.random.default_rng(seed)
        shares = rng.dirichlet([3, 3, 2], size=24)
        frame = pd.DataFrame(
            {
                "prompt": [f"Question {q}?" for q in range(20)],
                "options": [["a", "b", "c"]] * 20,
                "probs": shares[:20].tolist(),
            }
        )
        new = [NewQuestion(f"n{q}", f"New {q}?") for q in range(4)]
        by_text = {}
        embed = lambda texts, rng=rng, known=by_text: [known.setdefault(t, rng.normal(size=3).tolist()) for t in texts]  # noqa: E731
        [[p]] = predict_questions(Judgements.from_frame(frame, kind="soft"), new, embed)
        inside.append(np.abs(p.shares - shares[20:]) <= p.half_width)
    assert 0.84 < np.mean(inside) < 0.96


def test_a_question_about_another_matter_is_named(tmp_path):
    rng = np.random.default_rng(0)
    rows = {}

    def embed(texts):
        """Known questions lie around one direction, and whatever is about Mars is far from it."""
        for text in texts:
            centre = np.array([0.0, 0.0, 1.0]) if "Mars" in text else np.array([1.0, 0.0, 0.0])
            rows.setdefault(text, centre + 0.1 * rng.normal(size=3))
        return [rows[text] for text in texts]

    new = [*NEW, NewQuestion("mars", "Is there life on Mars?")]
    results = run_questions(survey(), new, tmp_path, embed)
    [note] = results.notes
    assert note.startswith("1 of the 3 new questions is less like any known question")
    assert "Is there life on Mars?" in note


def test_groups_are_predicted_from_their_own_answers(tmp_path):
    judgements = survey()
    odd = [rater for rater in judgements.raters if int(rater[1:]) % 2]
    results = run_questions(judgements, NEW, tmp_path, vectors, {"odd": odd})
    assert [(r.id, r.group) for r in results.predicted] == [
        ("tax", "everybody"), ("tax", "odd"), ("like", "everybody"), ("like", "odd"),
    ]  # fmt: skip
    alone = run_questions(judgements.select(judgements.frame["rater_id"].isin(odd)), NEW, tmp_path / "alone", vectors)
    assert results.predicted[1].shares == pytest.approx(alone.predicted[0].shares)


def test_the_files_say_the_same(tmp_path):
    results = run_questions(survey(), NEW, tmp_path, vectors, name="=town")
    assert QuestionResults.read(tmp_path / "results.json").to_dict() == results.to_dict()
    with (tmp_path / "shares.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["option"] for row in rows] == ["yes", "no"] * 2
    assert float(rows[0]["share"]) == pytest.approx(results.predicted[0].shares[0], abs=1e-4)
    assert float(rows[0]["low"]) <= float(rows[0]["share"]) <= float(rows[0]["high"])
    assert {row["against_marginal"] for row in rows} == {"better"}
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "Would you pay a tax for trains?" in page
    assert (tmp_path / "figures" / "predicted.png").is_file()


@pytest.mark.parametrize(
    ("new", "number", "message"),
    [
        (NewQuestion("x", "Tea?", ("agree", "disagree")), 8, "'agree', 'disagree', and none of the table does"),
        (NewQuestion("x", "Tea?"), 4, "4 known questions of different wording"),
    ],
)
def test_what_cannot_be_predicted_is_refused_before_texts_are_read(new, number, message):
    def read(texts):
        raise AssertionError("texts were read")

    with pytest.raises(JudgementError, match=message):
        predict_questions(survey(number=number), [new], read)


def test_several_lists_of_answers_want_the_new_questions_to_name_theirs():
    frame = survey(number=8).frame
    other = frame.assign(
        item_id=frame["item_id"] + " often",
        prompt="How often: " + frame["prompt"],
        options=[["often", "never"]] * len(frame),
    )
    both = Judgements.from_frame(pd.concat([frame, other], ignore_index=True), kind="choice")
    with pytest.raises(JudgementError, match="2 different lists"):
        predict_questions(both, NEW, vectors)
    named = [NewQuestion("x", "How often would you pay a tax?", ("Never", "Often"))]
    [[prediction]] = predict_questions(both, named, vectors)
    assert prediction.known.options == ("often", "never")
    assert len(prediction.known.ids) == 8


def test_a_known_question_stands_with_what_was_answered_and_what_the_others_say():
    known = {"id": "q1", "text": "Parks?", "group": "rural", "options": ["yes", "no", "maybe"], "people": 1234.4}
    known |= {"shares": [0.625, 0.375, 0.0], "predicted": [0.25, 0.4, 0.35]}
    table = _known_table(QuestionResults.model_validate({"known": [known]}))
    assert table.header == ["question", "group", "answers", "people (predicted)"]
    assert table.rows == [["Parks?", "rural", "1,234", "yes 62 % (25), no 38 % (40), maybe 0 % (35)"]]
