"""A suite asks every model every task once, keeps the answers, and says what it skipped."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest

from plural_rlhf.suites import (
    Context,
    DistributionItem,
    DistributionTask,
    EvaluatedModel,
    NotSupported,
    OptionQuestion,
    PseudoModel,
    Task,
    TaskUnavailable,
    make_tasks,
    run_tasks,
)
from plural_rlhf.suites.engine.answers import AnswerStore
from plural_rlhf.suites.engine.option_answers import stated_shares
from plural_rlhf.suites.models.functions import CallableModel, RecordedModel
from plural_rlhf.suites.models.protocol import OptionRequest, TextSettings
from plural_rlhf.suites.run import answers_path
from tests.processes import run_script


class Counting(EvaluatedModel):
    """Answers by the length of an option, and counts what it is asked."""

    name, identity, kind, batch_size = "counting", "counting-1", "callable", 4

    def __init__(self):
        self.asked = 0

    def option_log_probs(self, requests):
        self.asked += len(requests)
        return [np.log(np.array([len(option) for option in r.options]) / 100) for r in requests]

    def sample(self, prompts, n, *, seed=0, max_new_tokens=64, temperature=1.0, stop=()):
        self.asked += len(prompts)
        rng = np.random.default_rng(seed)
        return [[f"{prompt} {rng.integers(10**9)}" for _ in range(n)] for prompt in prompts]


def parks(count=10):
    people = np.random.default_rng(0).dirichlet([2, 2], size=count)
    return [DistributionItem(f"q{i}", f"Parks {i}?", ("yes", "no"), people[i]) for i in range(count)]


def task(items=None):
    return DistributionTask("parks", "generated", "Apache-2.0", "Parks.", lambda data: items or parks())


def value(findings, model, metric):
    [found] = [f for f in findings.findings if f.model == model]
    return next(row.value for row in found.result.rows if row.metric == metric)


def test_the_pseudo_models_mark_the_scale():
    found = run_tasks([PseudoModel(name) for name in ("gold", "uniform", "mode")], make_tasks(["urn"]), draws=20)
    skill = {name: value(found, name, "skill_uniform") for name in ("gold", "uniform", "mode")}
    assert skill["gold"] == pytest.approx(1)
    assert skill["uniform"] == pytest.approx(0)
    assert skill["mode"] < -1
    assert value(found, "uniform", "jsd_nats") == pytest.approx(0.0407, abs=0.003)


def test_an_answer_is_asked_once_and_a_part_of_them_is_asked_again_whole(tmp_path):
    first = run_tasks([Counting()], [task()], answers_dir=tmp_path, draws=20)
    again = Counting()
    second = run_tasks([again], [task()], answers_dir=tmp_path, draws=20)
    assert again.asked == 0
    assert second.findings == first.findings
    path = tmp_path / "counting-1" / "parks.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:5]) + lines[5][:7])  # as a kill leaves it: 5 whole lines, one cut off
    resumed = Counting()
    with pytest.warns(UserWarning, match="damaged after 5 whole answers"):
        third = run_tasks([resumed], [task()], answers_dir=tmp_path, draws=20)
    assert third.findings == first.findings
    assert resumed.asked == 6  # the second part of four, and the last of two
    assert len(path.read_bytes().splitlines()) == 10
    assert all(json.loads(line) for line in path.read_text().splitlines())


def test_two_evaluations_may_keep_answers_in_one_file(tmp_path):
    path = tmp_path / "model" / "urn.jsonl"
    one, other = AnswerStore(path), AnswerStore(path)
    one.add([("a", 1), ("b", 2)])
    other.add([("b", 3), ("c", 4)])
    one.add([("d", 5)])
    assert [other.get(key) for key in "abcd"] == [1, 2, 4, None]  # it saw what the other had kept, and that stands
    assert [one.get(key) for key in "abcd"] == [1, 2, 4, 5]
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert lines == [["a", 1], ["b", 2], ["c", 4], ["d", 5]]


@pytest.mark.slow
def test_many_processes_may_keep_answers_in_one_file(tmp_path):
    path = tmp_path / "urn.jsonl"
    script = f"""
from pathlib import Path
from plural_rlhf.suites.engine.answers import AnswerStore
store = AnswerStore(Path({str(path)!r}))
for number in range(20):
    store.add([(f"{{number}}-{{part}}", "x" * 5000) for part in range(4)])
"""
    run_script(script, processes=3)
    keys = [json.loads(line)[0] for line in path.read_text().splitlines()]
    assert len(keys) == len(set(keys)) == 80


def test_samples_of_a_stopped_run_are_those_of_an_unbroken_one(tmp_path):
    prompts = [f"p{i}" for i in range(10)]
    unbroken = Context(Counting()).sample(prompts, 3)
    path = tmp_path / "a.jsonl"
    Context(Counting(), store=AnswerStore(path)).sample(prompts, 3)
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:6]))
    assert Context(Counting(), store=AnswerStore(path)).sample(prompts, 3) == unbroken
    assert Context(Counting(), seed=1).sample(prompts, 3) != unbroken
    assert Context(Counting()).sample(prompts, 3, purpose="again") != unbroken


def test_what_cannot_be_measured_is_skipped_with_its_reason():
    class Absent(Task):
        name, shape, source, licence, title = "absent", "generation", "somewhere", "CC0", "Absent."

        def load(self, data):
            raise TaskUnavailable("get it at https://example.org")

    class Writing(Absent):
        name = "writing"

        def load(self, data):
            return ["Write."]

        def measure(self, items, context):
            return context.sample(items, 2)

    stub = CallableModel("stub", option_shares=lambda prompt, options: np.ones(len(options)))
    found = run_tasks([stub, PseudoModel("gold")], [Absent(), Writing()])
    assert [(s.task, s.model) for s in found.skipped] == [("absent", ""), ("writing", "stub")]
    assert "example.org" in found.skipped[0].reason
    assert "cannot sample" in found.skipped[1].reason


@pytest.mark.parametrize("labels", ["text", "letters", "numbers"])
def test_answers_come_back_in_the_order_of_the_question(labels):
    question = OptionQuestion("Parks?", ("a", "b", "c"), people=np.array([0.5, 0.3, 0.2]))
    [answer] = Context(PseudoModel("gold")).option_answers([question], orders=[[2, 0, 1]], labels=labels)
    assert answer.shares == pytest.approx([0.5, 0.3, 0.2])


def test_a_model_without_one_valid_answer_is_not_measured():
    class Silent(Counting):
        def sample(self, prompts, n, **settings):
            return [["yes: 1\nno: 3" if "Rivers" in prompt else "I would rather not say."] * n for prompt in prompts]

    parks, rivers = (OptionQuestion(text, ("yes", "no")) for text in ("Parks?", "Rivers?"))
    for scoring in ("sampling", "verbalised"):
        with pytest.raises(NotSupported, match="none of the answers to 1 questions is an offered option"):
            Context(Silent(), scoring=scoring).option_answers([parks])
    answers = Context(Silent(), scoring="verbalised").option_answers([parks, rivers])
    assert [(a.valid, a.coverage, a.shares.tolist()) for a in answers] == [
        (False, 0.0, [0.5, 0.5]),
        (True, 1.0, [0.25, 0.75]),
    ]


@pytest.mark.parametrize(
    ("text", "shares"),
    [
        ("yes: 60\nno: 40", [0.6, 0.4]),
        ("1. Yes - 30 %\n2. No - 10 %", [0.75, 0.25]),
        ("yes: 60\nyes: 40\nno: 3", None),
        ("yes: 0\nno: 0", None),
        ("yes: 60", None),
    ],
)
def test_a_stated_distribution_is_read_or_refused(text, shares):
    stated = stated_shares(text, ["yes", "no"])
    assert (None if stated is None else stated.tolist()) == shares


def test_options_that_are_the_same_are_refused():
    with pytest.raises(ValueError, match="all different"):
        Context(PseudoModel("uniform")).option_answers([OptionQuestion("Parks?", ("yes", "yes"))])


def test_names_of_tasks_are_checked_together():
    with pytest.raises(ValueError, match=r"'unr'\. Did you mean 'urn'"):
        make_tasks(["smoke", "unr"])


def test_in_one_line_a_policy_is_asked_as_in_its_training():
    """What a group of people is told apart by stays; who everybody is was not said in training."""
    from plural_rlhf.recipe.data import Question, render_question

    asked = []
    model = CallableModel(
        "records", option_shares=lambda prompt, options: asked.append(prompt) or [0.5] * len(options)
    )
    options, people = ("yes", "no"), np.array([0.5, 0.5])
    items = [
        DistributionItem("a", "More parks?", options, people, preface="A survey asks:"),
        DistributionItem("b", "More parks?", options, people, group="left", preface="Group: left."),
    ]
    run_tasks([model], [task(items)], layout="line", draws=20)
    assert asked[0] == render_question(Question("parks", "More parks?", options, "train"))
    assert asked[1] == "Group: left.\nMore parks? yes; no?"
    asked.clear()
    run_tasks([model], [task(items)], draws=20)
    assert asked == [f"{first}\nMore parks?\n- yes\n- no\nAnswer:" for first in ("A survey asks:", "Group: left.")]
    with pytest.raises(ValueError, match="layout='row' is unknown"):
        Context(model, layout="row")


def test_models_that_differ_only_at_the_end_of_a_long_identity_or_in_a_sign_do_not_share_answers(tmp_path):
    class Named(Counting):
        def __init__(self, identity):
            super().__init__()
            self.identity = identity

    class Urn(Task):
        name, shape, source, licence, title = "urn", "generation", "somewhere", "CC0", "Urn."

    long = "my model, tuned in three stages on everything that I had, version "
    identities = ["0123456789abcdef01234567-chat", f"{long}1", f"{long}2", "a b", "a_b", "x" * 64, "x" * 65]
    paths = [answers_path(tmp_path, Named(identity), Urn()) for identity in identities]
    assert len(set(paths)) == len(identities)
    assert paths[0] == tmp_path / "0123456789abcdef01234567-chat" / "urn.jsonl"
    assert paths[5] == tmp_path / ("x" * 64) / "urn.jsonl"
    assert all(len(path.parent.name) <= 64 for path in paths)
    assert answers_path(None, Named("a"), Urn()) is None


@pytest.mark.parametrize(
    "shares", [[0.5], [0.9, 0.9], [-0.1, 1.0], [float("nan"), 0.5], None, "ab", {"yes": 0.5}, ["a", "b"]]
)
def test_a_function_that_gives_no_shares_is_named_with_what_it_gave(shares):
    model = CallableModel("mine", option_shares=lambda prompt, options: shares)
    with pytest.raises(ValueError, match=rf"mine returned {re.escape(repr(shares))} for the 2 options of 'Tea"):
        model.option_log_probs([OptionRequest("Tea?", ("yes", "no"))])


@pytest.mark.parametrize(
    ("texts", "given"), [(["a"], "1 texts"), ("ab", "'ab'"), (None, "None"), ([1, 2], r"\[1, 2\]")]
)
def test_a_function_that_gives_no_texts_is_named_with_what_it_gave(texts, given):
    """One text of two letters would be taken for two texts."""
    model = CallableModel("mine", write=lambda prompt, n, seed: texts)
    with pytest.raises(ValueError, match=f"mine returned {given} for 'Tea\\?'. Fix: return a list of 2 texts"):
        model.write_texts(["Tea?"], 2, TextSettings())
    two = CallableModel("mine", write=lambda prompt, n, seed: ("a", "b"))
    assert two.write_texts(["Tea?"], 2, TextSettings()) == [["a", "b"]]


def test_a_name_that_is_no_pseudo_model_is_refused_with_the_closest():
    with pytest.raises(ValueError, match=r"'unifrom' is no pseudo-model. Did you mean 'uniform'\? Fix: one of gold"):
        PseudoModel("unifrom")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"prompt": "P", "texts": "ab"}', 'line 1: .*Fix: write {"prompt"'),
        ('{"prompt": "P", "texts": [null, "a"]}', "line 1: .*Fix: write"),
        ('{"prompt": 3, "texts": ["a"]}', "line 1: .*Fix: write"),
        ("[1]", "line 1: .*Fix: write"),
        ('{"prompt": "P"', "line 1: is not JSON .*Fix: write one JSON object per line"),
    ],
)
def test_a_recorded_line_without_texts_is_named(line, message, tmp_path):
    (tmp_path / "texts.jsonl").write_text(line)
    with pytest.raises(ValueError, match=message):
        RecordedModel("theirs", tmp_path / "texts.jsonl")
