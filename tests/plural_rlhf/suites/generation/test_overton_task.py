"""OvertonScores of stub models under a judge whose clusters are planted."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from plural_rlhf.suites.config import SuiteConfig
from plural_rlhf.suites.engine.context import Context
from plural_rlhf.suites.evaluate import suite_results
from plural_rlhf.suites.models.protocol import EvaluatedModel
from plural_rlhf.suites.run import run_tasks
from plural_rlhf.suites.tasks.generation.agreement_judge import AgreementJudge
from plural_rlhf.suites.tasks.generation.overton import TOPICS, OvertonTask
from plural_rlhf.suites.tasks.protocol import TaskData
from tests.plural_rlhf.suites.generation.test_generation_tasks import Stub, row
from tests.plural_rlhf.suites.golden_rows import check_rows


CAMPS = ("parks", "roads")


@pytest.fixture
def data(tmp_path):
    """Raters of two camps, who agree with answers that name what they like; an answer may name both."""
    rng = np.random.default_rng(0)
    (tmp_path / "polarized").mkdir()
    for topic in TOPICS:
        answers = pd.DataFrame(
            [
                {"question": f"{topic} {q}?", "answer_id": f"{q}-{i}", "text": f"{CAMPS[i % 2]} number {q} {i}"}
                for q in range(3)
                for i in range(30)
            ]
        )
        answers.loc[4, "text"] = "  "
        votes = [
            {"rater_id": f"r{r}", "answer_id": answer, "vote": "agree" if CAMPS[r % 2] in text else "disagree"}
            for r in range(30)
            for answer, text in answers[["answer_id", "text"]].itertuples(index=False)
            if rng.random() < 0.3
        ]
        answers.to_parquet(tmp_path / "polarized" / f"{topic}-answers.parquet")
        pd.DataFrame(votes).to_parquet(tmp_path / "polarized" / f"{topic}-votes.parquet")
    return TaskData(tmp_path)


def by_words(seen):
    def fit(votes):
        frame = votes.frame
        seen.append(set(frame["response"]))

        def judge(prompt, answers):
            return np.array([[0.9 if camp in answer else 0.1 for camp in CAMPS] for answer in answers])

        group = {rater: int(rater[1:]) % 2 for rater in frame["rater_id"]}
        return AgreementJudge(judge, {"parks people": 0.7, "roads people": 0.3}, group)

    return fit


class Writer(EvaluatedModel):
    """Writes one text, whatever it is asked."""

    kind = "callable"

    def __init__(self, text, name="writer"):
        self.text, self.name, self.identity = text, name, name

    def write_texts(self, prompts, n, settings):
        return [[self.text] * n for _ in prompts]


def measured(task, model, data):
    return task.measure(task.load(data), Context(model, draws=100))


def test_one_camp_both_camps_and_sets(data):
    task = OvertonTask(k=4, fit=by_words([]))
    one = measured(task, Stub(lambda prompt, rng: "more parks"), data)
    both = measured(task, Stub(lambda prompt, rng: "parks and roads"), data)
    either = measured(task, Stub(lambda prompt, rng: str(rng.choice(CAMPS))), data)
    assert [row(one, m).value for m in ("overton_score", "weighted_overton_score")] == pytest.approx([0.5, 0.7])
    assert row(one, "overton_score_of_4").value == pytest.approx(0.5)
    assert row(both, "overton_score").value == 1
    assert row(either, "overton_score").value == pytest.approx(
        0.5
    )  # an answer pleases one camp, a set nearly always both
    assert row(either, "overton_score_of_4").value > 0.8
    assert row(either, "overton_score").value < row(either, "overton_score_of_2").value
    assert row(either, "overton_score_of_2").value <= row(either, "overton_score_of_4").value
    check_rows("overton", either)
    assert row(one, "overton_score").baselines["people"] == pytest.approx(0.5)
    assert [r.metric for r in one.rows if r.headline] == ["overton_score"]
    assert one.records[0]["agreement"] == {"parks people": [0.9] * 4, "roads people": [0.1] * 4}
    assert one.records[0]["represented"] == {"parks people": [True] * 4, "roads people": [False] * 4}
    of_people = one.records[0]["represented_of_people"]
    assert np.mean([np.mean(agrees) for agrees in of_people.values()]) == pytest.approx(0.5)


def test_a_suite_holds_one_answer_of_a_model_to_several_of_the_first(data):
    task = OvertonTask(k=4, fit=by_words([]))
    writers = {"parks": "parks", "both": "parks and roads", "neither": "rivers"}
    models = [Writer(text, name) for name, text in writers.items()]
    rows = suite_results(run_tasks(models, [task], data=data.root, draws=50), SuiteConfig(draws=50)).results
    by_model = {
        name: {r.metric: r.value for r in rows[name][task.name] if "_of_first" in r.metric} for name in writers
    }
    less = {f"overton_score_less_{k}_of_first" for k in (1, 2, 4)}
    assert by_model["parks"] == {}  # the first itself
    assert by_model["both"] == pytest.approx(dict.fromkeys(less, 0.5))  # no number of the first's answers reaches it
    assert by_model["neither"] == pytest.approx(dict.fromkeys(less, -0.5) | {"answers_of_first_needed": 1})


def test_what_is_written_below_an_answer_is_no_part_of_it(data):
    """A model without an end token goes on with the next question, in whose words others would find themselves."""
    task = OvertonTask(k=4, fit=by_words([]))
    on_and_on = measured(task, Writer("parks\nWhat about roads?\nroads"), data)
    assert row(on_and_on, "overton_score").value == pytest.approx(0.5)
    assert on_and_on.records[0]["texts"] == ["parks"] * 4


def test_a_text_without_words_is_judged_as_in_every_other_task(data):
    read = []

    def fit(votes):
        judge = by_words([])(votes)
        return AgreementJudge(
            lambda p, answers: (read.extend(answers), judge.judge(p, answers))[1], judge.shares, judge.group
        )

    measured(OvertonTask(k=4, fit=fit), Writer("\n"), data)
    assert "." in read
    assert "" not in read


def test_the_judge_is_checked_on_answers_that_it_did_not_see(data):
    seen = []
    items = OvertonTask(fit=by_words(seen)).load(data)
    assert len(items) == 6
    assert len(seen) == 2
    for item, known in ((items[0], seen[0]), (items[-1], seen[1])):
        assert not set(item.people) & known
        assert [v.group for v in item.validity] == ["parks people", "roads people"]
        assert all(v.auc == 1 and v.spearman > 0.99 for v in item.validity)
    assert "  " not in {text for item in items for text in item.people} | seen[0]
    assert len(OvertonTask(fit=by_words([])).load(TaskData(data.root, max_items=2))) == 2
    assert len(data.files) == 4
