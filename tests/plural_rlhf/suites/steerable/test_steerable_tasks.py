"""Tasks that steer by words, on tiny files in the published schema and stub models whose answers are known."""

from __future__ import annotations

import json

import numpy as np
import pytest

from plural_rlhf.suites.engine.context import Context
from plural_rlhf.suites.models.protocol import EvaluatedModel
from plural_rlhf.suites.models.pseudo import PseudoModel
from plural_rlhf.suites.tasks.catalogue import make_tasks
from plural_rlhf.suites.tasks.protocol import TaskData, TaskUnavailable
from tests.plural_rlhf.suites.generation.test_generation_tasks import row


class Answers(EvaluatedModel):
    """Answers a request with the shares that a function of prompt and options gives."""

    name, kind = "stub", "callable"

    def __init__(self, shares):
        self.shares, self.identity = shares, f"stub-{id(shares)}"

    def option_log_probs(self, requests):
        return [np.log(np.asarray(self.shares(r.prompt, r.options), dtype=float) + 1e-9) for r in requests]


def measured(name, model, data):
    [task] = make_tasks([name])
    items = task.load(data)
    return task.measure(items, Context(model, draws=200))


VALENCE_OF = {"Honesty": "Supports", "Duty to obey": "Opposes", "Right to rest": "Either"}


@pytest.fixture
def values(tmp_path):
    labels = {"Supports": "A", "Opposes": "B", "Either": "C"}
    rows = [
        {
            "situation": f"doing thing {i}",
            "vrd": value,
            "label_text": said,
            "label": labels[said],
            "input": f"Question: ...\n\nSituation: doing thing {i}\n\nValue/right/duty: {value}\n\nAnswer:",
            "output": None,
            "id": str(3 * i + k),
        }
        for i in range(20)
        for k, (value, said) in enumerate(VALENCE_OF.items())
        if said != "Either" or i < 10
    ]
    (tmp_path / "modular_pluralism").mkdir()
    path = tmp_path / "modular_pluralism" / "steerable_test_valuekaleidoscope_small.json"
    path.write_text(json.dumps(rows), encoding="utf-8")
    return TaskData(tmp_path)


def by_value(prompt, options):
    said = next(said.lower() for value, said in VALENCE_OF.items() if f": {value}\n" in prompt)
    return [float(option == said) for option in options]


def test_a_model_that_reads_the_value_is_right_and_steered(values):
    result = measured("value-kaleidoscope", Answers(by_value), values)
    assert row(result, "balanced_accuracy").value == 1
    assert row(result, "balanced_accuracy").headline
    assert row(result, "binary_accuracy").value == 1
    assert row(result, "accuracy_exchanged_value").value == 0  # every other value says something else here
    assert row(result, "steering_gain").value == 1
    assert row(result, "steering_gain").n_items == 50
    assert len({record["item"] for record in result.records}) == 50


@pytest.mark.filterwarnings("error")
def test_a_model_that_never_decides_has_no_binary_accuracy(values):
    result = measured("value-kaleidoscope", Answers(lambda prompt, options: [0.0, 0.0, 1.0]), values)
    assert "binary_accuracy" not in {one.metric for one in result.rows}
    assert row(result, "accuracy").value == pytest.approx(10 / 50)


def test_a_model_that_reads_the_situation_only_gains_nothing(values):
    result = measured("value-kaleidoscope", Answers(lambda prompt, options: [1.0, 0.0, 0.0]), values)
    assert row(result, "steering_gain").value == 0
    accuracy = row(result, "accuracy")
    assert accuracy.value == pytest.approx(20 / 50)
    assert row(result, "balanced_accuracy").value == pytest.approx(1 / 3)
    # With 20 of each, leaving a row out makes the other valence the most frequent: the honest majority is never right.
    assert accuracy.baselines == {"uniform": pytest.approx(1 / 3), "majority": 0}


def test_gold_is_right_and_a_uniform_model_guesses_instead_of_saying_the_first(values):
    gold, uniform = (measured("value-kaleidoscope", PseudoModel(name), values) for name in ("gold", "uniform"))
    assert row(gold, "accuracy").value == 1
    assert row(uniform, "accuracy").value != pytest.approx(20 / 50)
    assert row(uniform, "nats").value == pytest.approx(np.log(3))


GROUPS = ("POLPARTY_Democrat", "POLPARTY_Republican", "SEX_Female", "SEX_Male")


@pytest.fixture
def opinions(tmp_path):
    rows = [
        {
            "question": f"Question: Is thing {i} good?\nOptions: A. Yes B. No\nAnswer:",
            "options": ["Yes", "No"],
            "attribute": group,
            "gold_distribution": [0.8, 0.2] if group in (GROUPS[0], GROUPS[2]) else [0.3, 0.7],
            "pred_distribution": None,
            "id": 100 * i + k,
        }
        for i in range(8)
        for k, group in enumerate(GROUPS)
    ]
    alone = {"question": "Question: Which?\nOptions: A. Not selected\nAnswer:", "options": ["Not selected"]}
    rows.append({**alone, "attribute": GROUPS[0], "gold_distribution": [1.0], "pred_distribution": None, "id": 999})
    rows.append({**rows[0], "gold_distribution": [0.0, 0.0], "id": 1000})
    (tmp_path / "modular_pluralism").mkdir()
    path = tmp_path / "modular_pluralism" / "steerable_test_opinionqa_small.json"
    path.write_text(json.dumps(rows), encoding="utf-8")
    return TaskData(tmp_path)


def by_party(prompt, options):
    if "Party: " in prompt:
        return [0.8, 0.2] if "Democrat" in prompt else [0.3, 0.7]
    return [0.6, 0.4]


def test_a_model_that_knows_parties_only_gains_by_parties_only(opinions):
    result = measured("opinion-qa-groups", Answers(by_party), opinions)
    match = row(result, "mode_match")
    assert match.headline
    assert match.n_items == 32  # without the question of one option and the one without shares
    assert match.value == pytest.approx(0.75)
    assert match.baselines["uniform"] == 0.5
    assert row(result, "steering_gain[mode_match]").value == pytest.approx(0.25)
    assert row(result, "steering_gain[mode_match]", "party").value == pytest.approx(0.5)
    assert row(result, "steering_gain[mode_match]", "sex").value == 0
    assert row(result, "steering_gain[jsd_nats]").value > 0
    gains = [r for r in result.rows if r.metric.startswith("steering_gain[")]
    assert len(gains) == 4
    assert all(r.baselines["uniform"] == 0 for r in gains)  # who always guesses gains nothing by knowing the group
    assert [r.metric for r in result.rows if r.headline] == ["mode_match"]


def test_groups_are_asked_in_words(opinions):
    [task] = make_tasks(["opinion-qa-groups"])
    assert "Sex: Female." in task.load(opinions)[2].asked
    assert "SEX_" not in task.load(opinions)[2].asked


@pytest.mark.parametrize("name", ["value-kaleidoscope", "opinion-qa-groups"])
def test_files_that_are_not_there_or_are_damaged_are_named(name, tmp_path):
    [task] = make_tasks([name])
    with pytest.raises(TaskUnavailable, match="modular_pluralism"):
        task.load(TaskData(tmp_path))
    (tmp_path / "modular_pluralism").mkdir()
    for file in ("valuekaleidoscope", "opinionqa"):
        (tmp_path / "modular_pluralism" / f"steerable_test_{file}_small.json").write_text('[{"situation": "x"')
    with pytest.raises(ValueError, match="JSON"):
        task.load(TaskData(tmp_path))
