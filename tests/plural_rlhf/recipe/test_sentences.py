"""What a run prints and how it words faults, without a run."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from plural_rlhf.recipe.config import make_config
from plural_rlhf.recipe.data import Question, render_question
from plural_rlhf.recipe.multiple_choice.policies import _set_aside
from plural_rlhf.recipe.pipeline import _data_sentence, _skipped_settings
from plural_rlhf.recipe.progress import _Bar
from plural_rlhf.recipe.run_folder.folder import kept_in
from plural_rlhf.recipe.settings.sections import PluralSection
from plural_rlhf.recipe.settings.stock import GrpoSection
from plural_rlhf.recipe.survey.clusters import _comparison
from plural_rlhf.recipe.trainings import _logged_step, common_settings
from plural_rlhf.report.results import DataSummary
from plural_rlhf.report.results_jury import Difference, Grouping, Groupings
from plural_rlhf.settings.faults import ConfigError, _show, apply_overrides, read_yaml
from reward_models.errors import JudgementError


SUMMARY = DataSummary(
    source="answers.csv", kind="choice", n_judgements=12345, n_raters=1200, n_items=9,
    train_raters=900, heldout_raters=300, train_questions=["a"] * 7, heldout_questions=["b", "c"],
)  # fmt: skip


@pytest.mark.parametrize(
    ("questions", "effective", "expected"),
    [
        (
            [1],
            None,
            "12,345 answers of 1,200 people to 9 questions; held out: 300 people and 2 questions",
        ),
        ([], None, "12,345 judgements of 1,200 raters to 9 items; held out: 300 raters and 2 items"),
        (
            [1],
            1000.4,
            "12,345 answers of 1,200 people (weighted; as precise as 1,000 of equal weight) to 9 questions; "
            "held out: 300 people and 2 questions",
        ),
    ],
)
def test_the_data_are_summed_up_in_the_words_of_their_kind(questions, effective, expected):
    summary = SUMMARY.model_copy(update={"effective_raters": effective})
    assert _data_sentence(SimpleNamespace(questions=questions), summary) == f"answers.csv: {expected}"


def test_what_the_settings_leave_out_is_listed():
    def left_out(**sections):
        return {s.what: s.reason for s in _skipped_settings(make_config(sections, origin="test"))}

    assert left_out() == {}
    assert left_out(grpo={"steps": 0}) == {"stock GRPO": "grpo.steps is 0"}
    final = left_out(data={"heldout_questions": 0})
    assert list(final.values()) == [
        "data.heldout_questions is 0: a final fit, of which nothing is known on new questions"
    ]


def grouping(name: str, info: float) -> Grouping:
    return Grouping(grouping=name, n_groups=4, info=info, low=info - 0.01, high=info + 0.01)


@pytest.mark.parametrize(
    ("clusters", "low", "expected"),
    [
        (3, 0.01, ["clusters tell 0.200 nats", "(region, 4 groups) tells 0.150", "+0.050, 95 % +0.010 to +0.090)."]),
        (1, 0.01, ["two clusters, fitted for this comparison because the jury has one, tell 0.200 nats"]),
        (2, None, ["clusters tell", "(difference +0.050)."]),
    ],
)
def test_groups_are_compared_in_a_sentence(clusters, low, expected):
    difference = Difference(value=0.05, low=low, high=0.09 if low else None)
    rows = [grouping("clusters", 0.2), grouping("region", 0.15)]
    found = Groupings(rows=rows, clusters=rows[0], best_demographic=rows[1], paired_difference=difference)
    sentence = _comparison(found, clusters)
    for part in expected:
        assert part in sentence
    without = Groupings(rows=rows[:1], clusters=rows[0], best_demographic=None, paired_difference=None)
    assert _comparison(without, clusters).endswith("the data has no demographic traits to compare with.")


def test_a_long_value_is_cut_at_sixty_characters():
    assert _show("x" * 58) == f'"{"x" * 58}"'
    assert _show("x" * 59) == f'"{"x" * 56}...'
    assert len(_show(list(range(100)))) == 60


@pytest.mark.parametrize("text", ["=1", "a..b=1", ".a=1", "a.=1", "a"])
def test_an_override_without_a_key_is_refused(text):
    with pytest.raises(ConfigError, match=r"is not of the form section\.key=value"):
        apply_overrides({}, [text])


def test_overrides_make_the_sections_that_are_missing_and_keep_the_others():
    values = {"plural": None, "jury": {"l2": 1}}
    apply_overrides(values, ["plural.steps=3", "jury.restarts=2", "policy.lora.r=4", "name=a=b"])
    assert values == {
        "plural": {"steps": 3}, "jury": {"l2": 1, "restarts": 2}, "policy": {"lora": {"r": 4}}, "name": "a=b",
    }  # fmt: skip
    with pytest.raises(ConfigError, match=r"`jury\.l2` is a value, not a section, so it has no key 'x'"):
        apply_overrides(values, ["jury.l2.x.y=1"])


def test_a_missing_file_names_the_files_that_are_there(tmp_path):
    with pytest.raises(ConfigError) as caught:
        read_yaml(tmp_path / "run.yaml")
    assert caught.value.faults == ("there is no such file.",)
    for name in ("b.yaml", "a.yaml"):
        (tmp_path / name).touch()
    with pytest.raises(ConfigError, match=r"has: a\.yaml, b\.yaml\."):
        read_yaml(tmp_path / "other.yaml")


def test_the_learning_rate_warms_up_over_five_steps_or_a_quarter_of_few():
    assert [common_settings(PluralSection(steps=steps), 3)["warmup_steps"] for steps in (3, 8, 20, 24, 60)] == [
        0,
        2,
        5,
        5,
        5,
    ]
    common = common_settings(GrpoSection(steps=8, learning_rate=1e-3), 3)
    assert (common["max_steps"], common["learning_rate"], common["seed"]) == (8, 1e-3, 3)
    assert (common["logging_steps"], common["save_strategy"], common["lr_scheduler_type"]) == (1, "no", "linear")


def test_questions_that_are_set_aside_are_not_trained_on():
    questions = [Question(f"q{n}", "?", ("yes", "no"), "train") for n in range(6)]
    trained, aside = _set_aside(questions, 2, seed=0)
    assert (len(trained), len(aside)) == (4, 2)
    assert sorted([*trained, *aside], key=lambda q: q.id) == questions
    assert _set_aside(questions, 2, seed=0)[1] == aside
    assert any(_set_aside(questions, 2, seed=seed)[1] != aside for seed in range(1, 5))
    assert _set_aside(questions, 0, seed=0) == (questions, [])
    assert len(_set_aside(questions, 5, seed=0)[0]) == 1
    for number in (6, 7):
        with pytest.raises(JudgementError, match=f"validation_questions is {number} of 6 training questions"):
            _set_aside(questions, number, seed=0)


def test_a_logged_step_has_numbers_only_and_short_names():
    step = _logged_step({"step": 3, "loss": 0.5, "plural/coverage": np.float64(0.9), "note": "text"})
    assert step.to_dict() == {"step": 3, "loss": 0.5, "coverage": 0.9}


def test_a_question_is_rendered_with_its_answers():
    assert render_question(Question("parks", "More parks?", ("yes", "no"), "train")) == "More parks? yes; no?"


def test_a_bar_starts_where_the_training_does_and_shows_the_numbers_it_knows(monkeypatch):
    bar = _Bar("plural", {"loss": "loss", "plural/coverage": "coverage"})
    bar.on_step_end(None, None, None)  # before the training: nothing
    bar.on_train_begin(None, SimpleNamespace(global_step=3, max_steps=5, is_world_process_zero=True), None)
    assert (bar.bar.n, bar.bar.total, bar.bar.disable) == (3, 5, False)
    shown = []
    monkeypatch.setattr(bar.bar, "set_postfix", shown.append)
    bar.on_log(None, None, None, logs={"loss": 0.25, "other": 1.0})
    bar.on_log(None, None, None, logs={"other": 1.0})
    bar.on_log(None, None, None, logs=None)
    assert shown == [{"loss": "0.2500"}]
    bar.on_step_end(None, None, None)
    assert bar.bar.n == 4
    bar.on_train_end(None, None, None)
    hidden = _Bar("plural", {})
    hidden.on_train_begin(None, SimpleNamespace(global_step=0, max_steps=5, is_world_process_zero=False), None)
    assert hidden.bar.disable


def test_what_is_kept_of_a_run_is_said_by_stage(tmp_path):
    assert kept_in(tmp_path) == "No stage is complete."
    (tmp_path / "stages").mkdir()
    for stage in ("jury", "warm"):
        (tmp_path / "stages" / f"{stage}.json").touch()
    begun = tmp_path / "checkpoints" / "plural"
    for step in (9, 10):
        (begun / f"checkpoint-{step}").mkdir(parents=True)
    (tmp_path / "checkpoints" / "warm" / "checkpoint-4").mkdir(parents=True)  # of a stage that is complete
    (tmp_path / "checkpoints" / "grpo").mkdir()
    (tmp_path / "checkpoints" / "grpo" / "inputs.json").touch()  # only a note of what it reads
    assert kept_in(tmp_path) == "Kept: jury, warm, plural up to step 10."
    (tmp_path / "checkpoints" / "evaluate").mkdir()
    (tmp_path / "checkpoints" / "evaluate" / "rewards.json").touch()
    assert kept_in(tmp_path) == "Kept: jury, warm, plural up to step 10, a part of evaluate."
