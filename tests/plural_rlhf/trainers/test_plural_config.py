"""`PluralGRPOConfig`: settings that move the target are refused, with the reason and the fix."""

from __future__ import annotations

import dataclasses
import math
import re

import pytest

from plural_rlhf.trainers import PluralGRPOConfig
from tests.juries import CPU


def config(tmp_path, **settings) -> PluralGRPOConfig:
    return PluralGRPOConfig(str(tmp_path), **{**CPU, **settings})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"beta": 0.0}, r"beta is 0\.0.*temperature.*above 0: set beta=1\.0"),
        ({"beta": -1.0}, r"beta is -1\.0"),
        ({"beta": math.inf}, r"beta is inf"),
        ({"temperature": 0.7}, r"temperature is 0\.7.*set temperature=1\.0"),
        ({"top_p": 0.9}, r"top_p is 0\.9.*set top_p=1\.0"),
        ({"top_k": 50}, r"top_k is 50.*set top_k=0"),
        ({"min_p": 0.1}, r"min_p is 0\.1"),
        ({"repetition_penalty": 1.2}, r"repetition_penalty is 1\.2"),
        ({"top_k": None}, r"top_k is None.*set top_k=0"),  # transformers then takes 50
        ({"vllm_structured_outputs_regex": "a|b"}, r"vllm_structured_outputs_regex is 'a\|b'.*=None"),
        ({"scale_rewards": "group"}, r"scale_rewards is 'group'.*Set scale_rewards='none'"),
        ({"scale_rewards": True}, r"scale_rewards is True"),
        ({"scale_rewards": "batch"}, r"scale_rewards is 'batch'"),
        ({"entropy_coef": 0.01}, r"entropy_coef is 0\.01, which moves the optimum.*entropy_coef=0\.0"),
        ({"mask_truncated_completions": True}, r"mask_truncated_completions is True"),
        ({"divergence": "flk"}, r"divergence is 'flk'.*Did you mean 'fkl'\?.*fkl, rkl, js"),
        ({"estimator": "vargard"}, r"estimator is 'vargard'.*'vargrad'"),
        ({"rho": math.nan}, r"rho: got nan: give a number"),
        ({"other_mass": 1.0}, r"other_mass is 1\.0.*below 1"),
        ({"offsets": "responsibility", "rho": 0.5}, r"offsets is 'responsibility', whose balance .* rho is 0\.5"),
        ({"offsets": "global", "rho": -1.0}, r"offsets is 'global', whose balance .* set offsets='ema'"),
        ({"offsets": "reference", "n_ref": 16, "kl_budget": 1.0}, "kl_budget moves beta, .* offsets='reference' stay"),
        ({"offsets": "reference"}, "offsets is 'reference' and n_ref is 0, .* set n_ref to 16 or more"),
    ],
)
def test_settings_that_move_the_target_are_refused(tmp_path, settings, message):
    with pytest.raises(ValueError, match=message):
        config(tmp_path, **settings)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("temperature", 0.3),
        ("top_k", 1),
        ("top_k", None),
        ("do_sample", False),
        ("num_beams", 4),
        ("num_return_sequences", 2),
        ("repetition_penalty", 1.1),
        ("no_repeat_ngram_size", 2),
        ("min_new_tokens", 3),
        ("suppress_tokens", [5]),
        ("bad_words_ids", [[5]]),
        ("typical_p", 0.9),
        ("frequency_penalty", 0.5),
        ("min_tokens", 2),
    ],
)
def test_sampling_keywords_that_move_the_target_are_refused(tmp_path, name, value):
    """TRL lets them win over its own fields."""
    message = rf"generation_kwargs\['{name}'\] is {re.escape(repr(value))}, so samples.*leave it out\..*change beta"
    with pytest.raises(ValueError, match=message):
        config(tmp_path, generation_kwargs={name: value})


def test_keywords_that_leave_the_distribution_alone_are_taken(tmp_path):
    given = {"temperature": 1.0, "top_k": 0, "max_new_tokens": 7, "use_cache": True, "typical_p": 1.0, "seed": 3}
    assert config(tmp_path, generation_kwargs=given).generation_kwargs == given
    with pytest.raises(ValueError, match=r"generation_kwargs\['top_k'\] is 5"):
        config(tmp_path, generation_kwargs='{"top_k": 5}')  # as the command line gives them


def test_the_defaults_keep_the_target(tmp_path):
    args = config(tmp_path)
    assert (args.beta, args.rho, args.scale_rewards, args.temperature, args.exact) == (1.0, 1.0, "none", 1.0, None)
    assert config(tmp_path, scale_rewards=False).scale_rewards == "none"
    assert config(tmp_path, rho=-math.inf).rho == -math.inf


@pytest.mark.parametrize(
    ("settings", "share"),
    [
        ({}, 0.0),
        ({"num_iterations": 4}, 0.1),
        ({"num_iterations": 4, "warmup_steps": 0}, 0.0),
        ({"num_iterations": 4, "warmup_steps": 7}, 7),
        ({"num_iterations": 4, "replay_size": 0}, 0.0),
        ({"num_iterations": 4, "estimator": "js"}, 0.0),
        ({"warmup_steps": 0.3}, 0.3),
    ],
)
def test_the_learning_rate_rises_at_first_where_completions_are_learnt_from_repeatedly(tmp_path, settings, share):
    assert config(tmp_path, **settings).warmup_steps == share


@pytest.mark.parametrize(
    ("settings", "memory"),
    [
        ({}, 0.9),
        ({"exact": False}, 0.9),
        ({"exact": True}, 0.5),
        ({"exact": True, "adam_beta1": 0.9}, 0.9),
        ({"adam_beta1": 0.8}, 0.8),
    ],
)
def test_the_optimizer_of_the_exact_mode_has_a_short_memory(tmp_path, settings, memory):
    assert config(tmp_path, **settings).adam_beta1 == memory


@pytest.mark.parametrize(("settings", "memory"), [({}, 0.5), ({"adam_beta1": 0.9}, 0.9)])
def test_a_memory_is_chosen_when_the_data_set_turns_the_exact_mode_on(tmp_path, settings, memory):
    args = config(tmp_path, **settings)
    args.use_exact_mode()
    assert args.adam_beta1 == memory


@pytest.mark.parametrize("batch", [1, 3])
def test_the_exact_mode_is_free_of_groups(tmp_path, batch):
    args = config(
        tmp_path, exact=True, per_device_train_batch_size=batch, gradient_accumulation_steps=5, num_generations=7
    )
    # What TRL's data loader multiplies the batch by: no prompt is repeated and none is fetched ahead.
    assert (args.steps_per_generation, args.generation_batch_size) == (1, batch)
    again = dataclasses.replace(args, learning_rate=1.0)
    assert (again.steps_per_generation, again.generation_batch_size, again.exact) == (1, batch, True)


def test_activation_checkpointing_is_the_users_choice(tmp_path):
    for chosen in (True, False):
        assert config(tmp_path, exact=True, activation_checkpointing=chosen).activation_checkpointing is chosen
