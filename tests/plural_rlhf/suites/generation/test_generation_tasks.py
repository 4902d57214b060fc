"""Tasks about what a model writes, asked of stub models whose answers are known."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from plural_rlhf.evaluation import GENERATION_TASKS
from plural_rlhf.evaluation.coverage.tasks import SETTINGS
from plural_rlhf.suites.engine.context import Context
from plural_rlhf.suites.models.protocol import EvaluatedModel, NotSupported
from plural_rlhf.suites.tasks.catalogue import make_tasks
from plural_rlhf.suites.tasks.generation.coverage import CoverageTask
from plural_rlhf.suites.tasks.generation.novelty import NoveltyTask
from plural_rlhf.suites.tasks.generation.personas import PersonaTask
from plural_rlhf.suites.tasks.generation.random_numbers import RandomNumberTask
from plural_rlhf.suites.tasks.generation.sycophancy import SycophancyTask
from plural_rlhf.suites.tasks.protocol import TaskData, TaskUnavailable
from tests.plural_rlhf.suites.golden_rows import check_rows


class Stub(EvaluatedModel):
    """Writes what `writes(prompt, rng)` says, and says yes with probability `agrees(prompt)`."""

    name, kind = "stub", "callable"

    def __init__(self, writes=None, agrees=None):
        self.writes, self.agrees = writes, agrees
        self.identity = f"stub-{id(self)}"

    def sample(self, prompts, n, *, seed=0, max_new_tokens=64, temperature=1.0, stop=()):
        rng = np.random.default_rng(seed)
        return [[self.writes(prompt, rng) for _ in range(n)] for prompt in prompts]

    def option_log_probs(self, requests):
        assert all(request.options == ("yes", "no") for request in requests)
        yes = [self.agrees(request.prompt) for request in requests]
        return [np.log([0.9 * p + 1e-12, 0.9 * (1 - p) + 1e-12]) for p in yes]


def measured(task, model, data=None, **load):
    return task.measure(task.load(data or TaskData(**load)), Context(model, draws=200))


def row(result, metric, group="all"):
    [found] = [row for row in result.rows if (row.metric, row.group) == (metric, group)]
    return found


NAMES = [f"coverage-{setting}" for setting in SETTINGS] + ["noveltybench", "overton-polarized"]
NAMES += ["personas", "random-number", "sycophancy"]


@pytest.mark.parametrize("name", NAMES)
def test_tasks_of_the_catalogue_have_the_name_that_they_are_asked_for_by(name):
    [task] = make_tasks([name])
    assert task.name == name
    assert task.title.endswith(".")


def test_coverage_of_a_uniform_and_of_a_constant_model():
    by_prompt = {task.prompt("both"): task for task in GENERATION_TASKS.values() if task.values}

    class Closed(CoverageTask):
        def load(self, data):
            return [task for task in super().load(data) if task.values]

    def uniform(prompt, rng):
        return str(rng.choice(by_prompt[prompt].values))

    even = measured(Closed("both"), Stub(uniform))
    assert [r.metric for r in even.rows if r.headline] == ["yield_share"]
    assert row(even, "yield_share").value == pytest.approx(1, abs=0.03)
    assert row(even, "validity").value == 1
    one = measured(Closed("both"), Stub(lambda prompt, rng: by_prompt[prompt].examples[0]))
    assert row(one, "yield").value == 1
    check_rows("coverage_constant", one)
    assert row(one, "yield", "weekdays_full").baselines["ceiling"] == pytest.approx(7, abs=1e-4)
    assert row(one, "yield_share").ci_high < row(even, "yield_share").ci_low
    record = one.records[0]
    assert set(record["scores"]) == {"validity", "uniqueness", "yield_share"}
    assert len(record["texts"]) == 100


def test_prompts_show_what_the_setting_says_and_tasks_are_selected_evenly():
    seen = set()

    def writes(prompt, rng):
        seen.add(prompt)
        return "nothing"

    result = measured(CoverageTask("examples", n=3), Stub(writes), max_items=4)
    assert row(result, "validity").value == 0
    tasks = CoverageTask("examples").load(TaskData(max_items=4))
    assert seen == {task.prompt("examples") for task in tasks}
    assert tasks[0].name == "car_make_model"
    assert len({task.name for task in tasks}) == 4


def test_random_numbers_of_a_uniform_model_and_of_one_with_a_favourite():
    fair = measured(RandomNumberTask(), Stub(lambda prompt, rng: str(rng.integers(1, 11))))
    seven = measured(RandomNumberTask(), Stub(lambda prompt, rng: "7"))
    js = row(fair, "jsd_nats_to_uniform")
    assert js.headline
    assert js.value == pytest.approx(js.baselines["floor"], abs=0.004)
    assert row(seven, "jsd_nats_to_uniform").value > 50 * js.value
    assert row(seven, "share_of_7").value == 1
    check_rows("random_number", fair)
    assert row(fair, "entropy_nats").value == pytest.approx(np.log(10), abs=0.03)
    with pytest.raises(NotSupported, match="none of 500 answers"):
        measured(RandomNumberTask(), Stub(lambda prompt, rng: "I cannot."))


@pytest.fixture
def personas(tmp_path):
    rows = [
        {"persona": name, "statement": f"{name} {'likes' if fits else 'hates'} {i}", "fits": fits}
        for name in ("art", "guns", "risk")
        for fits in (True, False)
        for i in range(12)
    ]
    (tmp_path / "personas").mkdir()
    pd.DataFrame(rows).to_parquet(tmp_path / "personas" / "statements.parquet")
    return TaskData(tmp_path)


def statement_of(prompt):
    return prompt.split('"')[1]


def test_personas_that_are_followed(personas):
    def follows(prompt):
        name, verb, _ = statement_of(prompt).split()
        shown = next((line.split()[1] for line in prompt.splitlines() if line.startswith("- ")), None)
        return 0.5 if shown != name else 0.9 if verb == "likes" else 0.2

    result = measured(PersonaTask(), Stub(agrees=follows), personas)
    assert row(result, "steering_gain").value == pytest.approx(0.35)
    assert row(result, "steerability").value == 1
    check_rows("personas", result)
    assert row(result, "leak").value == pytest.approx(0)
    assert row(result, "steering_gain", "guns").value == pytest.approx(0.35)
    assert [record["item"] for record in result.records] == ["art", "guns", "risk"]


def test_a_model_that_always_agrees_is_not_steerable(personas):
    result = measured(PersonaTask(), Stub(agrees=lambda prompt: 0.97), personas)
    assert row(result, "steering_gain").value == 0
    assert row(result, "steerability").value == 0.5
    assert [r.metric for r in result.rows if r.headline] == ["steering_gain"]


def test_what_is_shown_of_a_persona_is_not_asked(personas):
    items = PersonaTask().load(personas)
    for persona in items:
        assert not set(persona.shown) & set(persona.fitting)
        assert all("likes" in line for line in (*persona.shown, *persona.fitting))
        assert all("hates" in line for line in persona.unfitting)
    assert len(PersonaTask().load(TaskData(personas.root, max_items=2))) == 2
    assert personas.files.keys() == {"personas/statements.parquet"}
    with pytest.raises(TaskUnavailable, match="statements"):
        PersonaTask().load(TaskData("nowhere"))


def test_sycophancy_of_a_flatterer_and_of_one_who_has_a_view():
    def flatters(prompt):
        return 0.9 if "in favour" in prompt else 0.2 if "against" in prompt else 0.6

    flattering = measured(SycophancyTask(), Stub(agrees=flatters))
    assert row(flattering, "stance_shift").value == pytest.approx(0.7)
    assert row(flattering, "stance_shift", "for").value == pytest.approx(0.3)
    assert row(flattering, "stance_shift", "against").value == pytest.approx(0.4)
    assert row(flattering, "towards_asker").value == 1
    assert row(flattering, "p_sign_test").value < 1e-5
    check_rows("sycophancy", flattering)
    firm = measured(SycophancyTask(), Stub(agrees=lambda prompt: 0.1 + 0.8 * ("car" in prompt)))
    assert row(firm, "stance_shift").value == pytest.approx(0, abs=1e-9)
    assert row(firm, "p_sign_test").value == 1


def test_novelty_counts_classes(tmp_path):
    (tmp_path / "noveltybench").mkdir()
    frame = pd.DataFrame(
        {"id": [f"c{i}" for i in range(6)], "category": "x", "prompt": [f"Say {i}." for i in range(6)]}
    )
    frame.to_parquet(tmp_path / "noveltybench" / "curated.parquet")
    words = ["one apple", "two green pears", "three long yellow bananas", "four grapes"]
    task = NoveltyTask(embedder=lambda: lambda texts: np.eye(4)[[words.index(text) for text in texts]])
    varied = measured(task, Stub(lambda prompt, rng: str(rng.choice(words))), TaskData(tmp_path))
    same = measured(task, Stub(lambda prompt, rng: "one apple"), TaskData(tmp_path))
    assert 3 < row(varied, "distinct").value <= 4
    check_rows("novelty", varied)
    assert (row(same, "distinct").value, row(same, "largest_3").value) == (1, 1)
    # Vectors at right angles are as many in effect as the classes that they stand for.
    assert row(varied, "vendi_score").value == pytest.approx(row(varied, "effective_classes").value)
    assert row(same, "vendi_score").value == pytest.approx(1)
    without = measured(NoveltyTask(embedder=lambda: None), Stub(lambda prompt, rng: "one apple"), TaskData(tmp_path))
    assert "vendi_score" not in {of.metric for of in without.rows}
    assert row(same, "distinct").headline
    assert [record["item"] for record in same.records] == [f"c{i}" for i in range(6)]
    assert len(NoveltyTask().load(TaskData(tmp_path, max_items=3))) == 3
