"""What `PluralGRPOTrainer` refuses before anything is trained or written, and what it says."""

from __future__ import annotations

import shutil
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from datasets import Dataset
from peft import LoraConfig
from tokenizers.normalizers import Lowercase
from transformers import GPT2Config, GPT2LMHeadModel
from trl import GRPOConfig

from plural_rlhf.rewards.jury_reward import JuryReward
from plural_rlhf.trainers import PluralGRPOConfig, PluralGRPOTrainer
from reward_models.errors import JuryError
from reward_models.jury.modeling_jury import JuryRewardModel
from tests.juries import CPU, TableJury
from tests.policies import THREE, TOKENIZER, load, rows, sampled_trainer, three_answers
from tests.tiny import tiny_causal_lm, tiny_tokenizer


def raw_jury_model() -> JuryRewardModel:
    from transformers import AutoModel

    backbone = AutoModel.from_config(tiny_causal_lm(TOKENIZER).config)
    return JuryRewardModel.from_fit(backbone, np.zeros((2, 32)), np.zeros(2), np.array([0.5, 0.5]), ["a", "b"])


def make(tmp_path, *, reward=None, data=None, policy=None, **settings):
    settings = {"exact": True, "per_device_train_batch_size": 2, **CPU, **settings}
    return PluralGRPOTrainer(
        policy or tiny_causal_lm(TOKENIZER),
        three_answers() if reward is None else reward,
        PluralGRPOConfig(str(tmp_path / "out"), **settings),
        rows("ab", THREE) if data is None else data,
        processing_class=TOKENIZER,
    )


class HalfAJury:
    cluster_names = ["a", "b"]  # noqa: RUF012

    def cluster_rewards(self, prompts, completions):
        return torch.zeros(len(prompts), 2)


def constant(prompts, completions, **columns):
    return [0.0] * len(prompts)


@pytest.mark.parametrize(
    ("reward", "message"),
    [
        (lambda: raw_jury_model(), r"is a JuryRewardModel itself.*first column.*JuryReward\('path"),
        (lambda: constant, r"one number per completion, but the target needs a reward per cluster.*JuryReward"),
        (lambda: [three_answers(), three_answers()], r"has 2 juries.*one JuryReward.*beside it"),
        (
            lambda: JuryReward(three_answers(), beta=2.0),
            r"beta is 1\.0 in args and 2\.0 in the JuryReward.*set both to the same",
        ),
        (
            lambda: JuryReward(three_answers(), offsets="global"),
            r"offsets is 'ema' in args and 'global' in the JuryReward",
        ),
        (lambda: JuryReward(three_answers(), rho=0.0), r"rho is 1\.0 in args and 0\.0 in the JuryReward"),
        (lambda: HalfAJury(), r"the HalfAJury in reward_funcs is nearly a jury, but has no prevalence.*K shares"),
    ],
    ids=["raw model", "function", "two", "beta", "offsets", "rho", "half"],
)
def test_rewards_that_define_no_target_are_refused(tmp_path, reward, message):
    with pytest.raises(ValueError, match=message):
        make(tmp_path, reward=reward())
    assert not (tmp_path / "out").exists()


def test_the_configuration_of_a_stock_trainer_is_refused(tmp_path):
    args = GRPOConfig(str(tmp_path / "out"), **CPU)
    with pytest.raises(TypeError, match=r"args is a GRPOConfig, which has no target: pass PluralGRPOConfig"):
        PluralGRPOTrainer("nowhere", three_answers(), args, rows("ab", THREE), processing_class=TOKENIZER)


def test_training_leaves_the_reward_that_was_passed_as_it_was(lopsided, tmp_path):
    reward = JuryReward(three_answers())
    before = reward.target
    for name in "ab":  # a second trainer finds it as the first did
        trainer = sampled_trainer(lopsided, reward, tmp_path / name, 2, kl_budget=0.1)
        trainer.train()
        assert trainer.jury_reward.target.beta != 1.0
        assert (reward.target, len(reward.offsets)) == (before, 0)


def test_max_min_takes_heads_on_one_scale_and_no_weights(tmp_path):
    searched = {"max_min": True, "rho": 0.0}
    with pytest.raises(JuryError, match=r"one scale \(max_min compares what the clusters gain\).*calibrate"):
        make(tmp_path, **searched)
    with pytest.raises(ValueError, match=r"max_min searches the weights itself.*column 'weights'.*remove"):
        make(
            tmp_path,
            reward=three_answers(calibrated=True),
            data=rows("ab", THREE).add_column("weights", ["left"] * 2),
            **searched,
        )
    make(tmp_path, reward=three_answers(calibrated=True), **searched)
    make(tmp_path, reward=JuryReward(three_answers(), rho=0.0, calibrated=False), **searched)


def test_fewer_prompts_than_a_batch_takes_are_refused(lopsided, tmp_path):
    with pytest.raises(ValueError, match=r"2 rows, and a generation batch takes 3 different prompts.*zero steps"):
        sampled_trainer(lopsided, three_answers(), tmp_path, 1, per_device_train_batch_size=48)


def test_a_policy_that_is_not_where_its_reference_was_loaded_is_said(lopsided, tmp_path):
    model = load(lopsided)
    with warnings.catch_warnings(record=True) as said:
        sampled_trainer(model, three_answers(), tmp_path / "same", 1)
    assert not any("policy differs" in str(warning.message) for warning in said)
    with torch.no_grad():
        model.lm_head.weight += 0.1
    with pytest.warns(UserWarning, match=f"the policy differs from the reference that was loaded from '{lopsided}'"):
        sampled_trainer(model, three_answers(), tmp_path / "moved", 1)


@pytest.mark.parametrize(
    ("in_reward", "in_args", "counts"),
    [
        ({}, {}, (0.1, 0.02)),
        ({}, {"offset_learning_rate": 0.5, "offset_ema": 0.3}, (0.5, 0.3)),
        ({"learning_rate": 0.5, "ema": 0.3}, {}, (0.5, 0.3)),
        ({"learning_rate": 0.5}, {"offset_learning_rate": 0.5, "offset_ema": 0.3}, (0.5, 0.3)),
        (
            {"learning_rate": 0.7},
            {"offset_learning_rate": 0.5},
            r"offset_learning_rate is 0\.5 in args and 0\.7 in the",
        ),
        ({"ema": 0.5}, {"offset_ema": 0.3}, r"offset_ema is 0\.3 in args and 0\.5 in the JuryReward"),
    ],
)
def test_what_was_set_of_the_offsets_counts_wherever_it_was(tmp_path, in_reward, in_args, counts):
    reward = JuryReward(three_answers())
    vars(reward.offsets).update(in_reward)
    if isinstance(counts, str):
        with pytest.raises(ValueError, match=counts):
            make(tmp_path, reward=reward, **in_args)
        return
    offsets = make(tmp_path, reward=reward, **in_args).jury_reward.offsets
    assert (offsets.learning_rate, offsets.ema) == counts
    assert offsets.mode == "ema"  # that of args: a JuryReward by itself can only balance


@pytest.mark.parametrize(
    ("support", "message"),
    [
        ([["1", "2"], ["1"]], r"row 1: support is \['1'\]: give at least two different answers"),
        ([["1", "2"], ["2", "3", "2"]], r"row 1: support is \['2', '3', '2'\].*different"),
        ([["1", " "], ["2", "3"]], r"row 0: support is \['1', ' '\].*none of them empty"),
        ([["1", "2"], None], r"row 1: support is None, but the exact mode needs the list.*exact=False"),
        ([["1", "2"], ["1", " 1"]], r"row 1: support is \['1', ' 1'\].*space around an answer does not count"),
        ([["1", "2"], []], r"row 1: support is \[\]: give at least two different answers"),
    ],
)
def test_supports_that_nothing_can_be_matched_on_are_refused(tmp_path, support, message):
    with pytest.raises(ValueError, match=message):
        make(tmp_path, data=Dataset.from_dict({"prompt": ["a", "b"], "support": support}))


@pytest.mark.parametrize("exact", [None, False], ids=["mixed", "sampled"])
@pytest.mark.parametrize("support", [[], ["1"], [" ", "1"], ["1", "1"]])
def test_supports_are_checked_wherever_they_are_read(lopsided, tmp_path, exact, support):
    """Also where they only say which completions are valid; rows without one are left alone."""
    data = Dataset.from_dict({"prompt": ["Item a: ", "Item b: "], "support": [None, support]})
    with pytest.raises(ValueError, match=r"row 1: support is \[.*\]: give at least two different answers"):
        sampled_trainer(lopsided, three_answers(), tmp_path / "out", 1, data=data, exact=exact)
    assert not (tmp_path / "out").exists()


def test_a_support_that_is_no_list_is_refused_where_it_may_be_missing(lopsided, tmp_path):
    data = Dataset.from_dict({"prompt": ["Item a: ", "Item b: "], "support": [None, "123"]})
    with pytest.raises(ValueError, match=r"row 1: support is '123': give the list of all allowed answers.*or null"):
        sampled_trainer(lopsided, three_answers(), tmp_path, 1, data=data, exact=False)


def test_exact_mode_without_the_column_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"no column 'support' \(it has prompt\).*exact=False to sample"):
        make(tmp_path, data=rows("ab", None))


def test_a_policy_that_cannot_be_loaded_again_is_refused_for_sampling(tmp_path):
    with pytest.raises(ValueError, match=r"in memory only.*save it and pass its path.*peft_config.*exact mode"):
        make(tmp_path, exact=False, data=rows("ab", None), num_generations=2)


def test_sampling_that_the_models_folder_asks_for_is_refused(lopsided, tmp_path):
    """transformers takes from its generation_config whatever the trainer leaves open."""
    small = {"num_generations": 2, "per_device_train_batch_size": 2}
    model = load(lopsided)
    model.generation_config.update(temperature=0.2, top_k=3, repetition_penalty=2.0)  # the trainer says these itself
    assert sampled_trainer(model, three_answers(), tmp_path, 1, **small).generation_config.top_k == 0
    model.generation_config.update(typical_p=0.5)
    with pytest.raises(
        ValueError,
        match=r"typical_p in the generation_config of the model is 0\.5.*generation_kwargs=\{'typical_p': 1",
    ):
        sampled_trainer(model, three_answers(), tmp_path, 1, **small)
    sampled_trainer(model, three_answers(), tmp_path, 1, generation_kwargs={"typical_p": 1.0}, **small)
    model.generation_config.update(typical_p=None, suppress_tokens=[3])
    with pytest.raises(ValueError, match=r"suppress_tokens in .* is \[3\].*save the model without suppress_tokens"):
        sampled_trainer(model, three_answers(), tmp_path, 1, **small)
    make(tmp_path, policy=model)  # nothing is sampled


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        (["left", "rihgt"], r"row 1: weights is 'rihgt'.*'rihgt'.*Did you mean 'right'\?.*'left', 'right'"),
        ([[1.0, 0.0], [-1.0, 2.0]], r"at least 0"),
        ([[1.0, 0.0], [0.0, 0.0]], r"all zero"),
        ([[1.0, 0.0], [0.5, 0.25, 0.25]], r"row 1: weights is \[0\.5, 0\.25, 0\.25\].*3 weights for 2 clusters"),
    ],
)
def test_weights_of_every_row_are_checked_before_training(tmp_path, weights, message):
    good, bad = rows("ab", THREE), rows("ab", THREE).add_column("weights", weights)
    with pytest.raises(JuryError, match=message):
        make(tmp_path, data=bad)
    args = PluralGRPOConfig(str(tmp_path / "out"), exact=True, per_device_train_batch_size=2, **CPU)
    with pytest.raises(JuryError, match=message):
        PluralGRPOTrainer(tiny_causal_lm(TOKENIZER), three_answers(), args, good, bad, processing_class=TOKENIZER)
    assert not Path(tmp_path / "out").exists()


def test_answers_that_the_tokenizer_cannot_tell_apart_are_refused(tmp_path):
    lower = tiny_tokenizer()
    lower.backend_tokenizer.normalizer = Lowercase()
    args = PluralGRPOConfig(str(tmp_path / "out"), exact=True, per_device_train_batch_size=2, **CPU)
    jury, data = three_answers(), rows("ab", ["b", "B"])
    trainer = PluralGRPOTrainer(tiny_causal_lm(TOKENIZER), jury, args, data, processing_class=lower)
    with pytest.raises(ValueError, match=r"answer 'B' has the same tokens as 'b' for this tokenizer.*tells them"):
        trainer.train()


def test_an_answer_may_begin_with_another(tmp_path):
    """ "1" and "10" exclude each other, because each ends with the end token."""
    jury = TableJury({"1": [0.0], "10": [0.0], "100": [0.0]}, ["all"], [1.0])
    data = rows("ab", list(jury.table))
    args = PluralGRPOConfig(str(tmp_path), exact=True, per_device_train_batch_size=2, max_steps=1, **CPU)
    PluralGRPOTrainer(tiny_causal_lm(TOKENIZER), jury, args, data, processing_class=TOKENIZER).train()


@pytest.mark.parametrize(
    ("value", "shape", "message"),
    [
        (float("nan"), 2, r"cluster 'right' gives nan to the completion '.*'.*ValidityGate"),
        (-float("inf"), 2, r"cluster 'right' gives -inf"),
        (0.0, 3, r"rewards of shape \(\d+, 3\), but it has 2 clusters"),
    ],
)
def test_rewards_of_a_jury_that_are_none_are_refused(lopsided, tmp_path, value, shape, message):
    class Broken(TableJury):
        def cluster_rewards(self, prompts, completions):
            rewards = torch.zeros(len(completions), shape)
            rewards[:, 1] = value
            return rewards

    broken = Broken({}, ["left", "right"], [0.5, 0.5])
    with pytest.raises(JuryError, match=message):
        sampled_trainer(lopsided, broken, tmp_path, 1, num_generations=2, per_device_train_batch_size=2).train()


def test_a_reward_function_that_returns_too_few_rewards_is_named(lopsided, tmp_path):
    def short(prompts, completions, **columns):
        return [1.0]

    settings = {"num_generations": 2, "per_device_train_batch_size": 4}
    trainer = sampled_trainer(lopsided, [three_answers(), short], tmp_path, 1, **settings)
    with pytest.raises(ValueError, match=r"'short' returned 1 rewards, but 4 were expected"):
        trainer.train()


@pytest.mark.parametrize("token", ["eos_token", "pad_token"])
def test_a_tokenizer_without_an_end_or_padding_is_refused(tmp_path, token):
    tokenizer = tiny_tokenizer()
    setattr(tokenizer, token, None)
    args = PluralGRPOConfig(str(tmp_path / "out"), exact=True, per_device_train_batch_size=2, **CPU)
    with pytest.raises(ValueError, match=rf"the tokenizer has no {token}.*set tokenizer\.{token} ="):
        PluralGRPOTrainer(
            tiny_causal_lm(TOKENIZER), three_answers(), args, rows("ab", THREE), processing_class=tokenizer
        )


def test_a_group_of_one_is_refused(lopsided, tmp_path):
    with pytest.raises(ValueError, match=r"num_generations is 1: .*set num_generations to 2 or more"):
        PluralGRPOConfig(str(tmp_path), num_generations=1, per_device_train_batch_size=2, **CPU)
    settings = {"num_generations": 2, "per_device_train_batch_size": 2, "num_generations_eval": 1}
    with pytest.raises(
        ValueError, match=r"num_generations_eval is 1 and estimator is 'vargrad'.*to 2 or more, or leave"
    ):
        sampled_trainer(lopsided, three_answers(), tmp_path / "out", 1, **settings)
    make(tmp_path, num_generations_eval=1)  # nothing is drawn
    kept = sampled_trainer(
        lopsided, three_answers(), tmp_path, 1, estimator="tb", per_device_eval_batch_size=2, **settings
    )
    assert np.isfinite(kept.evaluate(rows("ab", None))["eval_loss"])  # its baseline is not of the group


def test_a_reference_whose_folder_is_gone_is_refused(lopsided, tmp_path):
    small = {"num_generations": 2, "per_device_train_batch_size": 2}
    folder = tmp_path / "policy"
    shutil.copytree(lopsided, folder)
    model = load(str(folder))
    sampled_trainer(model, three_answers(), tmp_path / "out", 1, **small)
    (folder / "config.json").unlink()
    with pytest.raises(ValueError, match=r"loaded from '.*policy' \(its config._name_or_path\), which has no config"):
        sampled_trainer(model, three_answers(), tmp_path / "out", 1, **small)
    shutil.rmtree(folder)
    with pytest.raises(ValueError, match=r"neither a folder nor a model that can be reached.*save it.*exact mode\."):
        sampled_trainer(model, three_answers(), tmp_path / "out", 1, **small)
    make(tmp_path, policy=model)


def test_dropout_that_stays_on_is_warned_of(lopsided, tmp_path):
    """Once, with its value and the setting that ends it; where TRL turned it off there is nothing to say."""
    small = {"num_generations": 2, "per_device_train_batch_size": 2}

    def start(model, dropout=None, **settings):
        args = PluralGRPOConfig(str(tmp_path), **small, **settings, **CPU)
        lora = None if dropout is None else LoraConfig(target_modules=["q_proj", "v_proj"], lora_dropout=dropout)
        data = rows("ab", None)
        PluralGRPOTrainer(model, three_answers(), args, data, processing_class=TOKENIZER, peft_config=lora)

    with pytest.warns(
        UserWarning, match=r"dropout is active \(lora_dropout=0\.3\).*lora_dropout=0\.0 in the LoraC"
    ) as seen:
        start(lopsided, 0.3)
    assert sum("dropout is active" in str(w.message) for w in seen) == 1
    with pytest.warns(UserWarning, match=r"\(attention_dropout=0\.2\).*load the model with attention_dropout=0\.0"):
        start(lopsided, model_init_kwargs={"attention_dropout": 0.2}, disable_dropout=True)
    shape = {"vocab_size": len(TOKENIZER), "n_positions": 128, "n_embd": 32, "n_layer": 1, "n_head": 2}
    gpt2 = GPT2LMHeadModel(GPT2Config(**shape, resid_pdrop=0.1, embd_pdrop=0.0, attn_pdrop=0.0))
    with pytest.warns(UserWarning, match=r"\(resid_dropout=0\.1, dropout=0\.1\).*: set disable_dropout=True\."):
        make(tmp_path, policy=gpt2)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*dropout is active")
        start(lopsided)
        start(lopsided, 0.0)
        start(lopsided, 0.3, disable_dropout=True)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"variance_reduction": "reward_to_go", "num_iterations": 2},
            r"variance_reduction is 'reward_to_go'.*num_iterations=1 \(it is 2\)",
        ),
        ({"variance_reduction": "rao_blackwell", "estimator": "js"}, r"estimator='vargrad' \(it is 'js'\)"),
        ({"max_min": True}, r"max_min is on and rho is 1.0.*set rho=0.0.*-inf"),
        ({"max_min": True, "rho": 0.0, "steerable": True}, r"both choose the weights"),
        ({"kl_budget": 0.0}, r"kl_budget is 0.0: it is a number of nats.*above 0"),
        ({"n_ref": -1}, r"n_ref is -1"),
        ({"offset_learning_rate": -1.0}, r"offset_learning_rate is -1\.0.*at least 0 and at most 1"),
        ({"offset_learning_rate": 5.0}, r"offset_learning_rate is 5\.0.*0\.1 by default.*overshoot"),
        ({"offset_learning_rate": float("nan")}, r"offset_learning_rate is nan"),
        ({"offsets": "exakt"}, r"offsets is 'exakt'\..*Did you mean 'exact'"),
        ({"uniform_floor": 2.0}, r"uniform_floor"),
        (
            {"use_vllm": True, "vllm_importance_sampling_correction": True},
            r"vllm_importance_sampling_correction is True.*moves the optimum",
        ),
    ],
    ids=lambda v: "-".join(v) if isinstance(v, dict) else "",
)
def test_settings_that_contradict_each_other_are_refused(tmp_path, settings, message):
    with pytest.raises(ValueError, match=message):
        PluralGRPOConfig(str(tmp_path), **settings, **CPU)


def test_rows_with_and_without_a_support_need_whole_groups(lopsided, tmp_path):
    data = Dataset.from_list([{"prompt": "Item a: ", "support": THREE}, {"prompt": "Item b: ", "support": None}])
    settings = {"num_generations": 4, "per_device_train_batch_size": 2, "gradient_accumulation_steps": 2}
    with pytest.raises(
        ValueError, match=r"per_device_train_batch_size \(it is 2\) to a multiple of num_generations \(4\)"
    ):
        sampled_trainer(lopsided, three_answers(), tmp_path, 1, data=data, **settings)


def test_images_are_refused(tmp_path):
    data = rows("ab", THREE).add_column("image", ["x", "y"])
    with pytest.raises(ValueError, match=r"column 'image'.*text alone.*remove_columns"):
        make(tmp_path, data=data)
