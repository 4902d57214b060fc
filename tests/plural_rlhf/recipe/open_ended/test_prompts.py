"""Prompts of a run whose policies write: what is held out, what people wrote, and files that cannot be used."""

import json
import re
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from plural_rlhf.policies.base_models import tiny_tokenizer
from plural_rlhf.recipe import ConfigError, make_config
from plural_rlhf.recipe.choose_job import job_of
from plural_rlhf.recipe.data import read_data
from plural_rlhf.recipe.open_ended import start_checks
from plural_rlhf.recipe.open_ended.prompts import OpenPrompt, preferred_texts, run_prompts
from plural_rlhf.recipe.open_ended.samples import Sample
from plural_rlhf.recipe.open_ended.start_checks import check_imitated, check_rendering, check_sampled
from reward_models.errors import JudgementError, JudgementWarning
from tests.plural_rlhf.recipe.open_ended.small_run import PROMPTS, WORDS


def test_a_heldout_prompt_is_held_out_of_jury_prompts_and_texts(config_of):
    data = read_data(config_of())
    [held] = data.heldout_prompts
    assert held in PROMPTS
    assert {text.prompt for text in data.train.encode().texts} == set(PROMPTS) - {held}
    assert {text.prompt for text in data.heldout_raters.encode().texts} == set(PROMPTS)
    prompts = run_prompts(config_of(), data)
    assert [prompt.split for prompt in prompts] == ["train"] * 4 + ["heldout"]
    assert prompts[-1].prompt == held
    assert (prompts[-1].given, sorted(prompts[-1].compared)) == ((), sorted(WORDS))
    for prompt in prompts[:-1]:
        assert not set(prompt.given) & set(prompt.compared)
        assert sorted((*prompt.given, *prompt.compared)) == sorted(WORDS)


def test_prompts_are_held_out_by_number_by_wording_and_one_in_five_by_default(config_of):
    assert len(read_data(config_of(data__heldout_prompts=3)).heldout_prompts) == 3
    assert read_data(config_of(data__heldout_prompts=[PROMPTS[2]])).heldout_prompts == {PROMPTS[2]}
    assert len(read_data(config_of(data__heldout_prompts=None)).heldout_prompts) == 1
    single = read_data(config_of(data__heldout_prompts=None, data__heldout_questions=4))
    assert (single.heldout_prompts, len(single.heldout_items)) == (set(), 4)
    with pytest.raises(JudgementError, match=r"names 'What .* parcs\?', which no judgement is about\. Did you mean"):
        read_data(config_of(data__heldout_prompts=["What should the city do about its parcs?"]))
    with pytest.raises(JudgementError, match="holds out 5 of 5 prompts"):
        read_data(config_of(data__heldout_prompts=5))
    with pytest.raises(ConfigError, match=r"heldout_prompts = 1: is set, and so is heldout_questions"):
        config_of(data__heldout_questions=4)


def test_texts_of_heldout_raters_are_compared_with_and_the_others_are_learnt_from(config_of, tmp_path):
    data = read_data(config_of())
    rows = [
        {"question": prompt, "answer": f"{author} on {prompt}", "author": author}
        for prompt in PROMPTS
        for author in data.everything.raters
    ]
    path = tmp_path / "written.csv"
    pd.DataFrame(rows).to_csv(path, index=False)
    columns = {"prompt": "question", "text": "answer", "rater_id": "author"}
    config = config_of(data__written=str(path), data__written_columns=columns)
    for prompt in run_prompts(config, read_data(config)):
        heldout = {f"{rater} on {prompt.prompt}" for rater in data.heldout_raters.raters}
        known = {f"{rater} on {prompt.prompt}" for rater in data.train.raters}
        if prompt.split == "train":
            assert (set(prompt.compared), set(prompt.given)) == (heldout, known)
        else:
            assert (set(prompt.compared), prompt.given) == (heldout | known, ())
    with pytest.raises(JudgementError, match=r"data\.written_columns: .* has no column 'txt'; it has .*answer"):
        run_prompts(config_of(data__written=str(path), data__written_columns={"text": "txt"}), data)
    with pytest.raises(JudgementError, match=r"data\.written: .* has no column 'prompt'"):
        run_prompts(config_of(data__written=str(path)), data)


def test_texts_rated_above_the_mean_of_their_prompt_are_preferred(config_of):
    data = read_data(config_of())
    preferred = preferred_texts(data, run_prompts(config_of(), data))
    frame = data.train.frame
    assert set(preferred) == set(PROMPTS) - data.heldout_prompts
    for prompt, texts in preferred.items():
        means = frame[frame["prompt"] == prompt].groupby("response")["rating"].mean()
        assert sorted(texts) == sorted(means.index[means > means.mean()])


def test_prompts_of_a_file_are_split_and_those_held_out_of_the_jury_stay_held_out(config_of, tmp_path):
    data = read_data(config_of())
    [held] = data.heldout_prompts
    chat = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "And the town hall?"}]
    rows = [{"ask": held}, {"ask": chat}, *({"ask": f"Question {n}?"} for n in range(8))]
    path = tmp_path / "prompts.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    section = {"path": str(path), "column": "ask", "heldout": 0.25}
    prompts = run_prompts(config_of(prompts=section, sft={"texts": "none"}, data__written=None), data)
    assert [prompt.split for prompt in prompts] == ["train"] * 7 + ["heldout"] * 3
    assert held in {prompt.prompt for prompt in prompts if prompt.split == "heldout"}
    assert chat in [prompt.messages for prompt in prompts]
    path.write_text(json.dumps({"ask": [{"role": "user"}]}) + "\n")
    with pytest.raises(JudgementError, match=r"prompt 1: .* is neither a text nor a list of chat messages"):
        run_prompts(config_of(prompts=section), data)


@pytest.mark.parametrize("form", ["chat", "spaces", "case"])
def test_a_heldout_prompt_is_not_trained_on_in_another_form(config_of, tmp_path, form):
    data = read_data(config_of())
    [held] = data.heldout_prompts
    asks = {
        "chat": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": held}],
        "spaces": held.replace(" ", "  ") + "\n",
        "case": held.upper(),
    }
    path = tmp_path / "prompts.jsonl"
    section = {"path": str(path), "heldout": 0.0}
    for rows in (
        [asks[form], "Question 1?"],
        [asks[form], held, "Question 1?"],
    ):  # held out of the jury alone, of both
        path.write_text("".join(json.dumps({"prompt": row}) + "\n" for row in rows))
        with pytest.raises(JudgementError, match=f"the prompt '{re.escape(held)}' is held out, and trained on in an"):
            run_prompts(config_of(prompts=section), data)
    path.write_text("".join(json.dumps({"prompt": row}) + "\n" for row in (held, "Question 1?", *PROMPTS)))
    assert [prompt.split for prompt in run_prompts(config_of(prompts=section), data)].count("heldout") == 1


@pytest.mark.parametrize("column", ["weights", "rule"])
def test_columns_of_a_file_of_prompts_that_would_be_ignored_are_refused(config_of, tmp_path, column):
    data = read_data(config_of())
    path = tmp_path / "prompts.jsonl"
    path.write_text(json.dumps({"prompt": "Question 1?", column: "min"}) + "\n")
    with pytest.raises(JudgementError, match=rf"has a column '{column}', and a run has one rule"):
        run_prompts(config_of(prompts={"path": str(path)}), data)


@pytest.mark.parametrize(
    ("sampled", "message"),
    [
        ({"offsets": "reference"}, "offsets is 'reference' and n_ref is 0"),
        ({"reference_share": 0.9, "num_generations": 4}, "reference_share is 0.9, which is 4 of the 4"),
        ({"variance_reduction": "prefix_rewards", "num_iterations": 4}, "prefix_rewards"),
        ({"estimator": "js", "given_share": 0.5}, "given_completions and estimator is 'js'"),
    ],
)
def test_settings_of_the_sampled_training_that_exclude_each_other_are_refused_before_any_work(
    config_of, tmp_path, sampled, message
):
    prompts = [OpenPrompt("Why?", "train", given=("Because.",))]
    with pytest.raises(ConfigError, match=f"(?s)plural.sampled: .*{message}"):
        check_sampled(config_of(plural={"sampled": sampled}), prompts, tmp_path)
    check_sampled(config_of(plural={"sampled": {**sampled, "steps": 0}}), prompts, tmp_path)


def test_a_share_of_given_texts_needs_a_text_for_every_training_prompt(config_of, tmp_path):
    prompts = [
        OpenPrompt("Why?", "train", given=("Because.",)),
        OpenPrompt("How?", "train"),
        OpenPrompt("Who?", "heldout"),
    ]
    with pytest.raises(ConfigError, match=r"given_share is 0\.5, and for 1 of 2 training prompts .* e\.g\. 'How\?'"):
        check_sampled(config_of(), prompts, tmp_path)
    check_sampled(config_of(), [prompts[0], prompts[2]], tmp_path)


def test_texts_that_are_all_too_long_are_refused_before_any_work(config_of):
    with pytest.raises(ConfigError, match="none of the texts that pi_0 is to imitate has fewer than 16 tokens"):
        check_imitated(config_of(), {"Why?": ["because " * 40]})
    check_imitated(config_of(), {"Why?": ["because " * 40], "How?": ["So."]})
    check_imitated(config_of(sft={"texts": "none"}), {})


def test_mixed_decoding_of_what_is_chosen_is_refused(config_of, tmp_path):
    config = config_of(plural={"mode": "rerank"}, evaluate={"mixed_decoding": "mixture"})
    with pytest.raises(ConfigError, match=r"evaluate\.mixed_decoding is set, but plural\.mode is rerank"):
        job_of(config, read_data(config), tmp_path)


def test_people_must_have_written_what_pi_0_is_to_imitate(config_of):
    config = config_of(data__written=None)
    with pytest.raises(JudgementError, match=r"sft\.texts is 'written', but data\.written says of no text"):
        run_prompts(config, read_data(config))


def test_settings_that_such_a_run_does_not_read_are_refused(config_of, tmp_path):
    config = config_of(warmup={"steps": 3}, evaluate={"rules": ["mean"]})
    with pytest.raises(ConfigError) as refused:
        job_of(config, read_data(config), tmp_path)
    assert re.search(r"warmup\.steps is set, .*'rating'.*Fix: remove it, or use sft", str(refused.value))
    assert "evaluate.rules is set" in str(refused.value)
    survey = make_config({"sft": {"steps": 3}, "data": {"max_raters": 50}}, origin="test")
    with pytest.raises(ConfigError, match=r"sft\.steps is set, .*whose answers are offered.*or use warmup"):
        job_of(survey, read_data(survey), tmp_path)


def test_a_prompt_that_the_model_cannot_read_is_named_before_anything_is_fitted(config_of, monkeypatch):
    prompts = [OpenPrompt("More parks?", "train"), OpenPrompt("Why? " * 4000, "train")]
    with pytest.raises(ConfigError, match=r"(?s)1 fault.*'Why\? .* tokens, and 'tiny' reads .* Fix: shorten it"):
        check_rendering(config_of(), prompts)
    check_rendering(config_of(), prompts[:1])
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = None
    monkeypatch.setattr(start_checks.AutoTokenizer, "from_pretrained", lambda *_, **__: tokenizer)
    with pytest.raises(ConfigError, match=r"(?s)1 fault.*cannot render the prompt 'More parks\?' .*ValueError"):
        check_rendering(config_of(), prompts)


def test_a_pi_0_that_does_not_answer_is_named_with_its_cure(config_of, tmp_path, monkeypatch):
    def texts(*args):
        ended = [False, False, False, True]
        return [Sample("trial", "all", "Why?", "train", "Because the", -1.0, -1.0, 3, end) for end in ended]

    monkeypatch.setattr(start_checks, "draw_from_pi_0", texts)
    scorer = SimpleNamespace(prevalence=np.array([1.0]))
    prompts = [OpenPrompt("Why?", "train")]
    with pytest.warns(
        JudgementWarning, match=r"of 4 texts .* 3 are no answers, most of them truncated, .*max_new_token"
    ):
        start_checks.warn_of_broken_pi_0(config_of(), prompts, scorer, tmp_path)
