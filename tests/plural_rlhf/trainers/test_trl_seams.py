"""What is relied on of the inside of TRL, worked out on examples: a change of it fails here, and says what to do."""

from __future__ import annotations

import ast
import inspect
import re
from pathlib import Path

import pytest
import torch
import transformers
import trl
from transformers import Trainer
from trl import DPOTrainer, GRPOTrainer, RewardTrainer, RLOOConfig, RLOOTrainer
from trl.trainer.utils import RepeatSampler

import reward_models.trainer._trl as reward_seam
from plural_rlhf.trainers import _trl
from tests.juries import CPU
from tests.policies import THREE, TOKENIZER, rows, spoken


SEAMS = [Path(module.__file__) for module in (_trl, reward_seam)]
TRAINERS = (GRPOTrainer, DPOTrainer, RewardTrainer, Trainer)


def test_rloo_subtracts_the_log_ratio_of_the_whole_sequence_from_the_reward(lopsided, tmp_path):
    """k1, on three completions of known log-probabilities; `JuryReward` in `RLOOTrainer` needs just this."""
    beta, reward = 0.5, [1.0, 0.0, 2.0]
    args = RLOOConfig(
        str(tmp_path),
        beta=beta,
        num_generations=3,
        per_device_train_batch_size=3,
        max_completion_length=4,
        normalize_advantages=False,
        **CPU,
    )
    trainer = RLOOTrainer(
        lopsided, lambda completions, **columns: reward, args, rows("a", None), processing_class=TOKENIZER
    )
    policy = torch.tensor([[-1.0, -0.5], [-2.0, -0.25], [-0.5, -0.5]])
    reference = torch.tensor([[-1.5, -0.5], [-1.0, -0.5], [-3.0, -1.0]])

    def log_probs(model, *args, **named):
        of = reference if model is trainer.ref_model else policy
        return of, torch.zeros_like(of), None

    trainer._get_per_token_logps_and_entropies = log_probs
    trainer._generate_single_turn = lambda prompt_ids, *more, **named: spoken(THREE)
    trainer.model.train()
    batch = trainer._generate_and_score_completions(list(rows("a", None)) * 3)
    kl = (policy - reference).sum(1)
    penalised = torch.tensor(reward) - beta * kl
    expected = penalised - torch.stack([(penalised.sum() - each) / 2 for each in penalised])
    assert bool((kl < 0).any())  # which k2 and k3 never are
    torch.testing.assert_close(
        batch["advantages"],
        expected,
        msg="RLOOTrainer's KL is no longer k1 in the reward, so that JuryReward in it has another fixed point: "
        "see docs/training.md, and make rewards/stock_trainers.py refuse it.",
    )


def test_log_metric_of_a_reward_function_is_a_method_of_the_trainer():
    """`rewards.stock_trainers` finds the settings this way."""
    for stock in (GRPOTrainer, RLOOTrainer):
        source = inspect.getsource(stock._calculate_rewards)
        assert 'reward_kwargs["log_metric"] = self._log_metric' in source
        assert inspect.isfunction(stock._log_metric)


def private_attributes(path: Path) -> set[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and re.fullmatch(r"_[a-z]\w*", node.attr)
    }


@pytest.mark.parametrize("path", SEAMS, ids=lambda path: path.parent.parent.name)
def test_every_private_attribute_that_a_seam_names_is_there(path):
    there = {name for trainer in TRAINERS for name in dir(trainer)}
    for trainer in TRAINERS:
        there |= set(re.findall(r"self\.(_[a-z]\w*)\b", inspect.getsource(trainer)))
    assert private_attributes(path) - there == set()
    assert {"_metrics"} <= private_attributes(SEAMS[1])


def test_every_public_attribute_that_the_seam_reads_of_grpo_is_there():
    source = inspect.getsource(GRPOTrainer) + inspect.getsource(Trainer)
    seam = SEAMS[0].read_text(encoding="utf-8")
    read = set(re.findall(r"trainer\.([a-z]\w*)\b", seam)) - {"utils", "_trl"}
    missing = {name for name in read if not re.search(rf"self\.{name}\b|def {name}\b", source)}
    assert missing <= {"model_wrapped"} | set(dir(trl)) | {"rotate_checkpoints"}


def test_the_sampler_of_groups_has_the_parts_that_a_resumable_one_is_made_of():
    sampler = RepeatSampler(["a", "b"], mini_repeat_count=2, batch_size=1, repeat_count=1, shuffle=True, seed=7)
    assert list(inspect.signature(RepeatSampler).parameters) == [
        "data_source",
        "mini_repeat_count",
        "batch_size",
        "repeat_count",
        "shuffle",
        "seed",
    ]
    assert (sampler.data_source, sampler.mini_repeat_count, sampler.batch_size) == (["a", "b"], 2, 1)
    assert (sampler.repeat_count, sampler.shuffle, sampler.seed) == (1, True, 7)
    assert isinstance(sampler.generator, torch.Generator)


def test_old_checkpoints_are_deleted_by_the_last_act_of_saving_one():
    """`rotation_last` replaces the function of this name in the module of `Trainer`."""
    source = inspect.getsource(Trainer._save_checkpoint)
    assert callable(transformers.trainer.rotate_checkpoints)
    *_, last = source.rstrip().split("rotate_checkpoints(")
    assert source.count("rotate_checkpoints(") == 1
    assert re.fullmatch(r"[^()]*(\([^()]*\)[^()]*)*\)\s*", last)


def test_the_micro_batches_of_a_generation_are_chosen_by_the_step():
    source = inspect.getsource(GRPOTrainer._prepare_inputs)
    assert "self._step % generate_every == 0 or self._buffered_inputs is None" in source
    assert "self._buffered_inputs[self._step % self.args.steps_per_generation]" in source
    assert "self._step += 1" in inspect.getsource(GRPOTrainer.training_step)


def test_metrics_are_lists_that_are_averaged_at_a_log_and_dropped():
    for stock in (GRPOTrainer, DPOTrainer, RewardTrainer):
        source = inspect.getsource(stock.log)
        assert "self._metrics[mode].items()" in source
        assert re.search(r"sum\(\w+\) / len\(\w+\)", source)
        assert "self._metrics[mode].clear()" in source
