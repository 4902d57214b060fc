"""A part of each group drawn by the reference: what it does to the gradient, to the offsets, and to what was lost."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch

from plural_rlhf.core.targets import log_partition
from plural_rlhf.rewards.jury_reward import JuryReward
from plural_rlhf.trainers import PluralGRPOConfig, PluralGRPOTrainer, _trl
from plural_rlhf.trainers.checks.batches import check_draws
from plural_rlhf.trainers.grpo.drawers import POLICY, REFERENCE, log_drawn
from plural_rlhf.trainers.grpo.generation_batch import RewardTable
from plural_rlhf.trainers.grpo.prompt_state import PromptState
from plural_rlhf.trainers.grpo.reward_functions import OtherRewards
from plural_rlhf.trainers.grpo.targeting import Targeting
from tests.juries import CPU, TableJury
from tests.policies import (
    COEFFICIENTS,
    THREE,
    TOKENIZER,
    distribution,
    gradient,
    js_with_other,
    load,
    perturbed,
    pool_target,
    rollouts_of,
    rows,
    sampled_trainer,
    sequence_log_prob,
    speaks,
    three_answers,
    train_exact,
    unpadded,
)


GROUPS = {"num_generations": 4, "per_device_train_batch_size": 8, "shuffle_dataset": False}


def test_what_draws_a_group_is_the_mixture_and_bounds_the_weights():
    pi, ref = torch.tensor([0.9, 0.1, 1e-12]).log(), torch.tensor([0.2, 0.3, 0.5]).log()
    drawn = log_drawn(pi, ref, 0.25)
    torch.testing.assert_close(drawn.exp(), 0.75 * pi.exp() + 0.25 * ref.exp())
    assert float((ref - drawn).exp().max()) <= 4
    assert torch.equal(log_drawn(pi, ref, 0.0), pi)


def test_offsets_from_both_samplers_are_unbiased():
    """The mean over rows in the proportions in which both draw them is Z itself."""
    ref = torch.tensor([0.5, 0.25, 0.25], dtype=torch.float64)
    pi = torch.tensor([0.125, 0.125, 0.75], dtype=torch.float64)
    r = torch.tensor([[2.0, 0.0], [0.0, 1.0], [-1.0, 3.0]], dtype=torch.float64)
    # Eight of sixteen by the policy, then eight by the reference: 1, 1, 6 and 4, 2, 2 times.
    said = [0, 1, *[2] * 6, *[0] * 4, 1, 1, 2, 2]
    n = len(said)
    table = RewardTable(
        r[said], torch.full((n, 2), 0.5).double(), r[said][:, :1], ["x"] * n, ["x"] * n, list(said), [None] * n
    )
    reward = JuryReward(TableJury({}, ["a", "b"], [0.5, 0.5]))
    reward.offsets.mode = "ema"
    targeting = Targeting(reward, OtherRewards(reward, [reward]), PromptState(reward.offsets))
    drawn_by = torch.tensor([POLICY] * (n // 2) + [REFERENCE] * (n // 2))
    found = targeting(table, ref.log()[said], pi.log()[said], n, training=True, drawn_by=drawn_by)
    log_z = reward.offsets.get(["x"])[0]
    torch.testing.assert_close(log_z, log_partition(r[None], ref.log()[None], 1.0)[0])
    entropy = -float((pi * pi.log()).sum())
    assert found.metrics["entropy"] == pytest.approx((entropy * n / 2, n / 2))  # of the policy's own
    assert found.metrics["effective_answers"] == pytest.approx((math.exp(entropy), 1))


@pytest.mark.parametrize("estimator", ["vargrad", "tb", "js", "fkl"])
def test_the_last_of_each_group_are_the_references_own(lopsided, tmp_path, monkeypatch, estimator):
    """Who is asked, under which prompt, and the gradient from every row's residual, one by one."""
    settings = {**GROUPS, "estimator": estimator, "reference_share": 0.25}
    trainer = sampled_trainer(load(lopsided), three_answers(), tmp_path, 1, **settings)
    model, frozen = perturbed(trainer), load(lopsided)
    asked = {"policy": [], "reference": []}
    monkeypatch.setattr(_trl, "generate", speaks(model, ["1", "2", "1", "2", "1", "1"], asked["policy"]))
    monkeypatch.setattr(_trl, "reference_generate", speaks(model, ["3", "3"], asked["reference"]))
    inputs = trainer._prepare_inputs(
        [{"prompt": f"Item {c}: ", "reference_prompt": f"Item {d}: "} for c, d in ("ac", "bd") for _ in range(4)]
    )
    shown = {name: [text.strip()[-2] for text in texts] for name, texts in asked.items()}
    assert shown == {"policy": ["a"] * 3 + ["b"] * 3, "reference": ["c", "d"]}
    said = [TOKENIZER.decode(ids, skip_special_tokens=True) for ids in inputs["completion_ids"]]
    assert said == ["1", "2", "1", "3", "2", "1", "1", "3"]
    ours = gradient(trainer, inputs)
    prompts = unpadded(inputs["prompt_ids"], inputs["prompt_mask"])
    completions = unpadded(inputs["completion_ids"], inputs["completion_mask"])
    log_pi = torch.stack([sequence_log_prob(model, p, c) for p, c in zip(prompts, completions, strict=True)])
    rollouts = rollouts_of(trainer)
    torch.testing.assert_close(rollouts.log_pi, log_pi.detach(), atol=1e-4, rtol=0)
    before = [TOKENIZER(f"Item {c}: ")["input_ids"] for c in "cccc" + "dddd"]
    with torch.no_grad():
        log_ref = torch.stack([sequence_log_prob(frozen, p, c) for p, c in zip(before, completions, strict=True)])
    torch.testing.assert_close(rollouts.log_pi_ref, log_ref, atol=1e-4, rtol=0)
    drawn = log_drawn(log_pi.detach(), log_ref, 0.25)
    torch.testing.assert_close(rollouts.log_pi_drawn, drawn, atol=1e-4, rtol=0)
    coefficients = torch.zeros(8)
    for group in (slice(0, 4), slice(4, 8)):
        d = (rollouts.reward + log_ref - log_pi.detach())[group].double()
        log_z = torch.logsumexp((rollouts.reward + log_ref - drawn)[group].double(), 0) - math.log(4)
        weight = (log_pi.detach() - drawn)[group].exp().double()
        # The functions of a residual that the on-policy test has, about this log Z.
        plain = {
            "vargrad": lambda d, z, w: COEFFICIENTS["vargrad"](d),
            "tb": lambda d, z, w: d - z,
            "fkl": lambda d, z, w: w * ((d - z).clamp(max=math.log(4)).exp() - 1),
            "js": lambda d, z, w: w * ((1 + (d - z).exp()).log() - math.log(2)) / 2,
        }[estimator]
        coefficients[group] = plain(d, log_z, weight).float()
    expected = torch.autograd.grad(-(coefficients * log_pi).mean(), list(model.parameters()))
    expected = torch.cat([g.flatten() for g in expected])
    torch.testing.assert_close(ours, expected, atol=1e-4 * float(expected.abs().max()), rtol=1e-3)


@pytest.mark.slow
def test_an_answer_that_the_policy_never_gives_is_found_again(lopsided, tmp_path):
    """A policy that says 1 and nothing else is brought to a target that has all three."""
    only_one = TableJury({"1": [9.0], "2": [0.0], "3": [0.0]}, ["all"], [1.0], otherwise=-6.0)
    trained = train_exact(load(lopsided), only_one, rows("ab", THREE), tmp_path / "narrow", 60, adam_beta1=0.9)
    narrow = trained.model.state_dict()
    jury = three_answers()
    log_ref = distribution(load(lopsided), "ab", THREE).log()
    target = pool_target(jury, log_ref)
    distance = {}
    for share in (0.5, 0.0):
        data = rows("ab", THREE)
        settings = {"data": data, "exact": False, "offsets": "exact", "reference_share": share, "learning_rate": 4e-3}
        trainer = sampled_trainer(lopsided, jury, tmp_path / str(share), 60, **settings)
        trainer._before_training()
        trainer.model.load_state_dict(narrow)
        assert float(distribution(trainer.model, "ab", THREE)[:, 1:].max()) < 1e-3
        trainer._before_training = lambda: None
        trainer.train()
        distance[share] = js_with_other(target, distribution(trainer.model, "ab", THREE))
    assert distance[0.5] < 0.02 < 0.1 < distance[0.0], distance


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"reference_share": 1.0}, r"reference_share is 1.0.*below 1"),
        ({"reference_share": 0.05}, r"reference_share is 0.05, which is 0 of the 8.*one or more"),
        ({"reference_share": 0.95}, r"which is 8 of the 8.*leave one to the policy"),
        ({"reference_share": 0.25, "offsets": "global"}, r"offsets='global' balance.*offsets='ema'"),
        ({"reference_share": 0.25, "variance_reduction": "rao_blackwell"}, r"'rao_blackwell' is exact only.*turn one"),
        ({"reference_share": 0.25, "use_vllm": True}, r"holds the policy alone.*use_vllm=False"),
    ],
)
def test_settings_that_cannot_be_are_refused(tmp_path, settings, message):
    with pytest.raises(ValueError, match=message):
        PluralGRPOConfig(str(tmp_path), use_cpu=True, bf16=False, **settings)


@pytest.mark.parametrize(
    ("changed", "tools", "message"),
    [
        ({"shared_prefix": False}, False, r"shared_prefix is False.*or set shared_prefix=True"),
        ({}, True, r"there are tools, where all completions are drawn at once.*set reference_share=0.0"),
        ({"per_device_train_batch_size": 2}, False, r"one draws 2 completions.*multiple of num_generations \(4\)"),
        ({"n_ref": 8, "reference_share": 0.0}, True, r"n_ref is 8 and there are tools.*another kind.*Set n_ref=0"),
    ],
)
def test_what_cannot_draw_for_the_reference_is_refused(changed, tools, message):
    args = SimpleNamespace(
        reference_share=0.25,
        n_ref=0,
        exact=False,
        shared_prefix=True,
        per_device_train_batch_size=4,
        steps_per_generation=1,
        num_generations=4,
    )
    check_draws(args, tools=False, rollout_func=False)
    vars(args).update(changed)
    with pytest.raises(ValueError, match=message):
        check_draws(args, tools=tools, rollout_func=False)
    args.exact = True
    check_draws(args, tools=tools, rollout_func=False)


def test_a_rollout_func_that_draws_everything_is_refused(lopsided, tmp_path):
    def everything(prompts, trainer):
        raise AssertionError("nothing is drawn before the refusal")

    args = PluralGRPOConfig(str(tmp_path / "out"), reference_share=0.25, **GROUPS, **CPU)
    with pytest.raises(
        ValueError, match=r"reference_share is 0\.25 and there is a rollout_func.*pass no rollout_func"
    ):
        PluralGRPOTrainer(
            lopsided, three_answers(), args, rows("ab", None), processing_class=TOKENIZER, rollout_func=everything
        )
