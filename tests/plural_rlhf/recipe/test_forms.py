"""How questions are shown in training: layouts in turn, answers in any order, the same questions and targets."""

from __future__ import annotations

import re
from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest
from pydantic import ValidationError

from plural_rlhf.policies.base_models import prepare_base_model
from plural_rlhf.policies.layouts import LAYOUTS, with_options
from plural_rlhf.recipe.choose_job import job_of
from plural_rlhf.recipe.config import ConfigError, make_config
from plural_rlhf.recipe.data import Question, read_data
from plural_rlhf.recipe.multiple_choice.forms import forms_of
from plural_rlhf.recipe.multiple_choice.policies import training_rows
from plural_rlhf.recipe.settings.models import PolicySection
from plural_rlhf.recipe.settings.sections import PluralSection
from plural_rlhf.recipe.stage_inputs import RunInputs
from plural_rlhf.report.names import Stage
from reward_models import planted_judgements


QUESTIONS = [
    Question(f"q{i}", f"More {what}?", ("yes", "no", "no idea"), "train") for i, what in enumerate(["parks", "roads"])
]
JURY = SimpleNamespace(cluster_names=["urban", "rural"], prevalence=np.array([0.7, 0.3]))
SECTION = PluralSection(steps=20, prompts_per_step=6)


def asked(**shown):
    rows = training_rows(QUESTIONS, JURY, SECTION, steering=True, seed=0, **shown)
    return [row["prompt"][-1]["content"] for row in rows], rows


def test_layouts_take_turns_and_every_question_is_put_in_each():
    texts, _ = asked(layouts=LAYOUTS)
    expected = {with_options(q.wording, q.options, layout): layout for q in QUESTIONS for layout in LAYOUTS}
    assert set(texts) == set(expected)
    assert Counter(expected[text] for text in texts) == dict.fromkeys(LAYOUTS, 30)


def test_answers_in_random_order_come_first_about_equally_often_and_are_scored_as_before():
    texts, rows = asked(shuffled=True)
    first = Counter(text.split("? ")[1].split(";")[0] for text in texts)
    assert set(first) == {"yes", "no", "no idea"}
    assert min(first.values()) > 25  # of 120; 40 expected, standard deviation 5
    assert {tuple(row["support"]) for row in rows} == {("yes", "no", "no idea")}


def test_how_questions_are_shown_changes_neither_which_are_drawn_nor_for_whom():
    _, plain = asked()
    _, shown = asked(layouts=("list", "bare"), shuffled=True)
    for one, other in zip(plain, shown, strict=True):
        assert (one["weights"], one["jury_prompt"]) == (other["weights"], other["jury_prompt"])
        assert one["prompt"][0] == other["prompt"][0]


def test_with_one_layout_and_the_order_of_the_table_questions_are_put_as_the_table_has_them():
    texts, _ = asked()
    assert set(texts) == {"More parks? yes; no; no idea?", "More roads? yes; no; no idea?"}


@pytest.mark.parametrize(
    ("layouts", "shuffled", "trained", "others"),
    [
        (["line"], True, ["line", "line, from the last"], ["list", "sentence", "bare"]),
        (["list", "bare"], False, ["list", "bare"], ["list, from the last", "line", "sentence"]),
        (["bare"], True, ["bare"], ["line", "list", "sentence"]),
    ],
)
def test_which_forms_are_of_the_training(layouts, shuffled, trained, others):
    forms = forms_of(layouts, shuffled=shuffled)
    assert [form.name for form in forms if form.trained] == trained
    assert [form.name for form in forms if not form.trained] == others
    assert forms[0].layout == layouts[0]


def test_a_layout_twice_none_or_unknown_is_refused():
    for layouts, said in ((["line", "line"], "twice"), ([], "at least 1"), (["row"], "'line', 'list'")):
        with pytest.raises(ValidationError, match=said):
            PolicySection(layouts=layouts)


@pytest.mark.parametrize(
    ("key", "setting"),
    [("policy.layouts", {"policy": {"layouts": ["list"]}}), ("rehearsal.texts", {"rehearsal": {"texts": 8}})],
)
@pytest.mark.parametrize(("kind", "offered"), [("choice", True), ("preference", False)])
def test_how_policies_are_shown_answers_and_kept_concerns_those_of_offered_answers(
    kind, offered, key, setting, tmp_path
):
    """Where policies write, no stage depends on it: a run of a version that did not have the setting goes on."""
    table = tmp_path / "table.jsonl"
    frame = planted_judgements(kind, num_raters=20, num_items=8).judgements.frame
    if offered:  # a file has the text of an answer, not its place
        frame = frame.assign(choice=[options[i] for options, i in zip(frame["options"], frame["choice"], strict=True)])
    frame.to_json(table, orient="records", lines=True)
    settings = {
        "name": "forms",
        "data": {"source": "table", "path": str(table), **({"heldout_questions": 2} if offered else {})},
        **setting,
    }
    settings["policy"] = {"model": "tiny", "cache_dir": str(tmp_path / "models"), **settings.get("policy", {})}
    config = make_config(settings, origin="test")
    data, inputs = read_data(config), RunInputs(config)
    inputs.add_content(data, prepare_base_model("tiny", tmp_path / "models"))
    read = {stage for stage in Stage if key in inputs.of(stage).settings}
    assert read == (set(Stage) - {Stage.JURY} if offered else set())
    if offered:
        job_of(config, data, tmp_path)
    else:
        with pytest.raises(ConfigError, match=rf"{re.escape(key)} is set, but .* does not read it"):
            job_of(config, data, tmp_path)
