"""A steerable policy's trainer: whose weights it takes, what it refuses, and what it asks in evaluation."""

from __future__ import annotations

import pytest
from datasets import Dataset

from plural_rlhf.policies.steerer import Steerer
from plural_rlhf.rewards.jury_reward import JuryReward
from plural_rlhf.trainers import PluralGRPOConfig, PluralGRPOTrainer
from plural_rlhf.weights.sampler import WeightSampler
from reward_models.errors import JuryError
from tests.juries import CPU
from tests.policies import THREE, TOKENIZER, load, rows, sampled_trainer, three_answers
from tests.tiny import tiny_causal_lm, tiny_tokenizer


SMALL = {"num_generations": 2, "per_device_train_batch_size": 4, "per_device_eval_batch_size": 4}
JURY = ["left", "right"]


def make(tmp_path, sampler=None, *, data=None, model=None, tokenizer=TOKENIZER, **settings):
    settings = {"exact": True, "per_device_train_batch_size": 2, **CPU, **settings}
    return PluralGRPOTrainer(
        tiny_causal_lm(tokenizer) if model is None else model,
        three_answers(calibrated=True),
        PluralGRPOConfig(str(tmp_path / "out"), **settings),
        rows("ab", THREE) if data is None else data,
        processing_class=tokenizer,
        weight_sampler=sampler,
    )


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["right", "left"], r"clusters \['right', 'left'\] and the jury \['left', 'right'\].*prompts would name"),
        (["left", "right", "third"], r"'third'\] and the jury.*WeightSampler\(scorer\.cluster_names, scorer\.preva"),
    ],
    ids=["another order", "another number"],
)
def test_a_sampler_of_other_clusters_than_the_jurys_is_refused(tmp_path, names, message):
    with pytest.raises(JuryError, match=message):
        make(tmp_path, WeightSampler(names, [1 / len(names)] * len(names)))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("sampler", [None, WeightSampler(JURY, [0.7, 0.3])], ids=["steerable", "weight_sampler"])
def test_weights_that_training_data_name_are_refused(tmp_path, sampler):
    data = rows("ab", THREE).add_column("weights", ["left", "right"])
    with pytest.raises(ValueError, match=r"column 'weights'.*draws the weights.*remove_columns\('weights'\).*=False"):
        make(tmp_path, sampler, data=data, steerable=sampler is None)


def test_weights_that_max_min_chooses_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"max_min and weight_sampler both choose the weights: turn one of them off"):
        make(tmp_path, WeightSampler(JURY, [0.7, 0.3]), rho=0.0, max_min=True)


def test_tokens_that_were_not_prepared_are_refused(tmp_path):
    sampler, tokenizer = WeightSampler(JURY, [0.7, 0.3], rendering="tokens", levels=3), tiny_tokenizer()
    with pytest.raises(JuryError, match=r"tokenizer lacks 7 of them, the first: '<\|left:0\|>'.*prepare\(model"):
        make(tmp_path, sampler, tokenizer=tokenizer)
    model = tiny_causal_lm(tokenizer)
    sampler.prepare(model, tokenizer)
    unprepared = tiny_causal_lm(TOKENIZER)
    with pytest.raises(JuryError, match=rf"the policy has {len(TOKENIZER)} embeddings.*need {len(tokenizer)}"):
        make(tmp_path, sampler, model=unprepared, tokenizer=tokenizer)
    assert make(tmp_path, sampler, model=model, tokenizer=tokenizer).weight_sampler is sampler


def test_a_reference_that_cannot_read_the_tokens_is_refused(lopsided, tmp_path):
    """The policy may say one of them, and the reference must be able to score what it says."""
    sampler, tokenizer, model = WeightSampler(JURY, [0.7, 0.3], rendering="tokens"), tiny_tokenizer(), load(lopsided)
    sampler.prepare(model, tokenizer)
    settings = {"data": rows("ab", None), "tokenizer": tokenizer, "exact": False, **SMALL}
    with pytest.raises(JuryError, match=r"the reference policy has \d+ embeddings.*save both in one folder"):
        make(tmp_path, sampler, model=model, **settings)
    model.save_pretrained(tmp_path / "prepared")
    make(tmp_path, sampler, model=load(str(tmp_path / "prepared")), **settings)


@pytest.mark.parametrize("exact", [True, False], ids=["exact", "sampled"])
def test_evaluation_asks_as_the_steerer_will(lopsided, tmp_path, monkeypatch, exact):
    """For the row's weights, or the population: never the bare prompt, which training does not show."""
    jury, support = three_answers(), THREE if exact else None
    settings = {"exact": True, "per_device_eval_batch_size": 4} if exact else SMALL
    evaluation = rows("abcd", support).add_column("weights", [None, {"left": 1.0, "right": 3.0}, {"left": 1.0}, None])
    trainer = sampled_trainer(
        load(lopsided), jury, tmp_path, 1, data=rows("abcd", support), steerable=True, **settings
    )
    trainer.eval_dataset = evaluation
    asked = {}
    told = WeightSampler.steered_row

    def listen(sampler, row, weights):
        asked[row["prompt"]] = told(sampler, row, weights)
        return asked[row["prompt"]]

    monkeypatch.setattr(WeightSampler, "steered_row", listen)
    found = trainer.evaluate(evaluation)
    steerer = Steerer(trainer.model, TOKENIZER, jury.cluster_names, jury.prevalence)
    assert {prompt: row["prompt"] for prompt, row in asked.items()} == {
        "Item a: ": steerer.render("Item a: ", "prevalence"),
        "Item b: ": steerer.render("Item b: ", [0.25, 0.75]),
        "Item c: ": steerer.render("Item c: ", "left"),
        "Item d: ": steerer.render("Item d: "),
    }
    assert found["eval_plural/weight/left"] == pytest.approx((0.7 + 0.25 + 1.0 + 0.7) / 4, abs=1e-6)
    # The jury and the reference see the question alone.
    assert {prompt for prompt, _ in jury.asked} == {"Item a: ", "Item b: ", "Item c: ", "Item d: "}
    plain = trainer.evaluate(evaluation.remove_columns("weights"))
    assert plain["eval_plural/weight/left"] == pytest.approx(0.7)
    assert asked["Item b: "]["prompt"] == steerer.render("Item b: ")


def test_the_jury_sees_its_own_prompt_or_the_bare_one():
    """A column with an empty cell is no reason to show it the steered prompt."""
    sampler = WeightSampler(JURY, [0.7, 0.3])
    data = list(Dataset.from_list([{"prompt": "a", "jury_prompt": "A"}, {"prompt": "b", "jury_prompt": None}]))
    steered = sampler.steered_rows(data, 1, 0, 1, 0)
    assert [row["jury_prompt"] for row in steered] == ["A", "b"]
    assert [row["reference_prompt"] for row in steered] == ["a", "b"]


def test_a_jurys_own_default_weights_do_not_move_what_the_population_is(lopsided, tmp_path):
    reward = JuryReward(three_answers(), weights="uniform")
    trainer = sampled_trainer(load(lopsided), reward, tmp_path, 1, steerable=True, **SMALL)
    found = trainer.evaluate(rows("ab", None))
    assert found["eval_plural/weight/left"] == pytest.approx(0.7)
