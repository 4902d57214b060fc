"""Completions that the data brings along: who is in a group, the gradient, what is estimated, and what is refused."""

from __future__ import annotations

import warnings

import pytest
import torch
from datasets import Dataset

from plural_rlhf.core.targets import log_partition
from plural_rlhf.rewards.jury_reward import JuryReward
from plural_rlhf.trainers import PluralGRPOConfig, PluralGRPOTrainer, _trl
from plural_rlhf.trainers.checks.batches import check_draws
from plural_rlhf.trainers.grpo.drawers import GIVEN, POLICY, REFERENCE, GivenCompletions, log_drawn
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
    spoken,
    three_answers,
    train_exact,
    unpadded,
)


GROUPS = {"num_generations": 4, "per_device_train_batch_size": 8, "shuffle_dataset": False}


def written(prompts: str, *texts: list[str] | None) -> Dataset:
    each = zip(prompts, texts, strict=True)
    return Dataset.from_list([{"prompt": f"Item {c}: ", "given_completions": given} for c, given in each])


def test_each_group_has_other_texts_of_its_prompt_before_the_references_own():
    given = GivenCompletions(2, lambda texts: [[ord(c) for c in text] for text in texts], max_length=1, seed=0)
    data = [{"given_completions": ["a", "b", "c", "a"]}] * 4 + [{"given_completions": None}] * 4
    data += [{"given_completions": ["z"]}] * 4
    chosen = [given.of_rows(data, group=4, last=3, keys=(step, 0)) for step in range(40)]
    assert all(sorted(places) == [1, 2, 10] for places in chosen)
    assert all(places[10] == [ord("z")] for places in chosen)
    pairs = [(places[1][0], places[2][0]) for places in chosen]
    assert all(first != second for first, second in pairs)  # equal texts are one
    assert {x for pair in pairs for x in pair} == {ord(c) for c in "abc"}
    assert chosen == [given.of_rows(data, group=4, last=3, keys=(step, 0)) for step in range(40)]
    # Another process has other groups of the same generation.
    assert given.of_rows(data[4:], group=4, last=3, keys=(7, 1)) == {6: [ord("z")]}


def test_what_the_policy_could_never_say_is_left_out_aloud_once():
    given = GivenCompletions(2, lambda texts: [[ord(c) for c in text] for text in texts], max_length=2, seed=0)
    row = {"prompt": "p", "given_completions": ["abc", "ab"]}
    with pytest.warns(UserWarning, match=r"1 of the 2 given completions of the prompt 'p'.*max_completion_length=2"):
        assert given.of_rows([row] * 4, group=4, last=4, keys=(0, 0)) == {3: [97, 98]}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        given.of_rows([row] * 4, group=4, last=4, keys=(1, 0))


def test_offsets_and_metrics_do_not_know_the_given_ones():
    """Where people would all say the third answer, log Z is still that of π₀."""
    ref = torch.tensor([0.5, 0.25, 0.25], dtype=torch.float64)
    pi = torch.tensor([0.125, 0.125, 0.75], dtype=torch.float64)
    r = torch.tensor([[2.0, 0.0], [0.0, 1.0], [-1.0, 3.0]], dtype=torch.float64)
    # Eight by the policy, eight by the reference, in their proportions; between them four given.
    said = [0, 1, *[2] * 6, 2, 2, 2, 1, *[0] * 4, 1, 1, 2, 2]
    drawn_by = torch.tensor([POLICY] * 8 + [GIVEN] * 4 + [REFERENCE] * 8)
    n = len(said)
    table = RewardTable(
        r[said], torch.full((n, 2), 0.5).double(), r[said][:, :1], ["x"] * n, ["x"] * n, list(said), [None] * n
    )
    reward = JuryReward(TableJury({}, ["a", "b"], [0.5, 0.5]))
    reward.offsets.mode = "ema"
    prompts = PromptState(reward.offsets)
    targeting = Targeting(reward, OtherRewards(reward, [reward]), prompts)
    found = targeting(table, ref.log()[said], pi.log()[said], n, training=True, drawn_by=drawn_by)
    log_z = reward.offsets.get(["x"])[0]
    torch.testing.assert_close(log_z, log_partition(r[None], ref.log()[None], 1.0)[0])
    torch.testing.assert_close(prompts.reference_means(["x"])[0], ref @ r)
    pooled = ((r - log_z).exp().mean(-1)).log()
    torch.testing.assert_close(found.log_z[0], (ref * pooled.exp()).sum().log())
    assert found.metrics["entropy"][1] == 8
    assert found.metrics["share/a"][1] == 8


@pytest.mark.parametrize("estimator", ["vargrad", "tb"])
def test_the_gradient_is_that_of_every_rows_residual(lopsided, tmp_path, monkeypatch, estimator):
    settings = {**GROUPS, "estimator": estimator, "reference_share": 0.25, "given_share": 0.25}
    data = written("ab", ["2"], None)
    trainer = sampled_trainer(load(lopsided), three_answers(), tmp_path, 1, data=data, **settings)
    model, frozen = perturbed(trainer), load(lopsided)

    monkeypatch.setattr(_trl, "generate", speaks(model, ["1", "3", "2", "1", "1"]))
    monkeypatch.setattr(_trl, "reference_generate", speaks(model, ["3", "3"]))
    inputs = trainer._prepare_inputs([row for row in data for _ in range(4)])
    said = [TOKENIZER.decode(ids, skip_special_tokens=True) for ids in inputs["completion_ids"]]
    assert said == ["1", "3", "2", "3", "2", "1", "1", "3"]
    ours = gradient(trainer, inputs)
    prompts = unpadded(inputs["prompt_ids"], inputs["prompt_mask"])
    completions = unpadded(inputs["completion_ids"], inputs["completion_mask"])
    log_pi = torch.stack([sequence_log_prob(model, p, c) for p, c in zip(prompts, completions, strict=True)])
    with torch.no_grad():
        log_ref = torch.stack([sequence_log_prob(frozen, p, c) for p, c in zip(prompts, completions, strict=True)])
    rollouts = rollouts_of(trainer)
    torch.testing.assert_close(rollouts.log_pi, log_pi.detach(), atol=1e-4, rtol=0)
    torch.testing.assert_close(rollouts.log_pi_ref, log_ref, atol=1e-4, rtol=0)
    share = torch.tensor([1 / 3] * 4 + [1 / 4] * 4)
    torch.testing.assert_close(rollouts.log_pi_drawn, log_drawn(log_pi.detach(), log_ref, share), atol=1e-4, rtol=0)
    coefficients = torch.zeros(8)
    for group, known in ((slice(0, 4), [0, 1, 3]), (slice(4, 8), [0, 1, 2, 3])):
        d = (rollouts.reward + log_ref - log_pi.detach())[group].double()
        if estimator == "vargrad":
            coefficients[group] = COEFFICIENTS["vargrad"](d).float()
        else:
            weighted = (rollouts.reward + log_ref - rollouts.log_pi_drawn)[group].double()[known]
            coefficients[group] = (d - weighted.exp().mean().log()).float()
    expected = torch.autograd.grad(-(coefficients * log_pi).mean(), list(model.parameters()))
    expected = torch.cat([g.flatten() for g in expected])
    torch.testing.assert_close(ours, expected, atol=1e-4 * float(expected.abs().max()), rtol=1e-3)


@pytest.mark.slow
def test_the_target_is_reached_from_what_others_said_about_it(lopsided, tmp_path):
    """The policy says 1 and nothing else; people said 2 and 3 too, in proportions that are nobody's target."""
    only_one = TableJury({"1": [9.0], "2": [0.0], "3": [0.0]}, ["all"], [1.0], otherwise=-6.0)
    trained = train_exact(load(lopsided), only_one, rows("ab", THREE), tmp_path / "narrow", 60, adam_beta1=0.9)
    narrow = trained.model.state_dict()
    jury = three_answers()
    target = pool_target(jury, distribution(load(lopsided), "ab", THREE).log())
    distance = {}
    for share in (0.5, 0.0):
        data = written("ab", [*THREE, "4", "5"], [*THREE, "4", "5"])
        settings = {"data": data, "given_share": share, "learning_rate": 4e-3, "n_ref": 64}
        trainer = sampled_trainer(lopsided, jury, tmp_path / str(share), 80, **settings)
        trainer.model.load_state_dict(narrow)
        assert float(distribution(trainer.model, "ab", THREE)[:, 1:].max()) < 1e-3
        trainer.train()
        distance[share] = js_with_other(target, distribution(trainer.model, "ab", THREE))
        given = [row["plural/given"] for row in trainer.state.log_history if "plural/given" in row]
        assert given == ([5 / 16] * len(given) if share else [])
    assert distance[0.5] < 0.03 < 0.1 < distance[0.0], distance


def test_rewards_and_kl_are_of_the_policy_alone(lopsided, tmp_path, monkeypatch):
    data = written("ab", ["3"], ["3"])
    trainer = sampled_trainer(load(lopsided), three_answers(), tmp_path, 1, data=data, **GROUPS, given_share=0.5)

    def one(trainer, prompt_ids):
        ids = spoken(["1"] * len(prompt_ids))
        return ids, [[float("nan")] * len(row) for row in ids]

    monkeypatch.setattr(_trl, "generate", one)
    trainer.train()
    logged = next(row for row in trainer.state.log_history if "reward" in row)
    assert logged["reward"] == pytest.approx(0.7 * 4)
    assert logged["plural/given"] == 0.25  # one text for each group of four
    assert logged["plural/kl"] == pytest.approx(0.0, abs=1e-4)
    # In the table of completions nobody takes people's words for the policy's.
    assert list(trainer._logs["extra"]["drawn_by"]) == ["policy", "policy", "policy", "given"] * 2


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"estimator": "fkl"}, r"estimator is 'fkl', which weighs.*estimator='vargrad', or given_share=0\.0"),
        ({"variance_reduction": "reward_to_go"}, r"'reward_to_go', which is exact only.*variance_reduction='none'"),
        ({"offsets": "global"}, r"offsets is 'global', which balances.*offsets='ema'"),
        ({"given_share": 0.05}, r"given_share is 0\.05, which is 0 of the 4.*one or more"),
        ({"given_share": 0.75, "reference_share": 0.25}, r"which is 3 of the 4.*beside 1 of the reference.*leave one"),
    ],
)
def test_settings_that_cannot_be_are_refused(lopsided, tmp_path, settings, message):
    with pytest.raises(ValueError, match=message):
        sampled_trainer(lopsided, three_answers(), tmp_path, 1, data=written("ab", ["1"], ["2"]), **GROUPS, **settings)


def test_a_share_out_of_range_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"given_share is 1\.0.*below 1"):
        PluralGRPOConfig(str(tmp_path), given_share=1.0, **CPU)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"given_completions": ["1", ""]}, r"row 1: given_completions has '', which says nothing"),
        ({"given_completions": ["1"], "support": THREE}, r"row 1 has a support.*null one of them"),
    ],
)
def test_rows_that_cannot_be_learnt_from_are_refused(lopsided, tmp_path, row, message):
    whole = [{"prompt": "Item a: ", "given_completions": ["2"], "support": None}, {"prompt": "Item b: ", **row}]
    data = Dataset.from_list(whole)
    with pytest.raises(ValueError, match=message):
        sampled_trainer(lopsided, three_answers(), tmp_path, 1, data=data, **GROUPS)


def test_who_cannot_mix_them_in_is_refused(tmp_path):
    args = PluralGRPOConfig(str(tmp_path), **GROUPS, **CPU)
    check_draws(args, tools=True, rollout_func=False)
    with pytest.raises(ValueError, match=r"given_share is 0\.5 and there are tools.*none from given_completions"):
        check_draws(args, tools=True, rollout_func=False, given=True)


def test_a_share_of_zero_leaves_the_column_unread(lopsided, tmp_path):
    data = written("ab", [""], ["2"])
    trainer = sampled_trainer(lopsided, three_answers(), tmp_path, 1, data=data, **GROUPS, given_share=0.0)
    trainer.train()
    assert not any("plural/given" in row for row in trainer.state.log_history)


def test_conversations_take_what_the_assistant_says(lopsided, tmp_path, monkeypatch):
    asked = [[{"role": "user", "content": f"Item {c}"}] for c in "ab"]
    data = Dataset.from_list([{"prompt": prompt, "given_completions": ["3"]} for prompt in asked])
    args = PluralGRPOConfig(str(tmp_path), max_steps=1, max_completion_length=4, **GROUPS, **CPU)
    trainer = PluralGRPOTrainer(lopsided, three_answers(), args, data, processing_class=TOKENIZER)
    seen = []
    score = trainer.jury_reward.cluster_rewards

    def watched(prompts, completions, support=None):
        seen.extend(completions)
        return score(prompts, completions, support)

    monkeypatch.setattr(trainer.jury_reward, "cluster_rewards", watched)
    trainer.train()
    assert seen[3] == seen[7] == [{"role": "assistant", "content": "3"}]
