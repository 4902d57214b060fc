"""Policies of a run that writes: what their trainers are given, what it costs, and when there is nothing to learn."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from plural_rlhf.recipe.checkpoints import TrainingFolder
from plural_rlhf.recipe.data import read_data
from plural_rlhf.recipe.open_ended import policies, without_rl
from plural_rlhf.recipe.open_ended.policies import train_pi_0
from plural_rlhf.recipe.open_ended.prompts import OpenPrompt, run_prompts
from reward_models import JudgementError, fit_jury, planted_judgements
from tests.tiny import tiny_causal_lm, tiny_tokenizer


@pytest.mark.parametrize("section", [{"steps": 0, "texts": "written"}, {"steps": 2, "texts": "none"}])
def test_without_steps_or_without_texts_pi_0_is_the_model_itself(config_of, tmp_path, section):
    """No prompt, text or scorer is looked at: there is nothing to learn."""
    training = TrainingFolder(tmp_path / "warm", tmp_path / "checkpoints")
    results = train_pi_0(config_of(sft=section), [], {}, None, training)
    assert (results.history, results.budget.steps) == ([], 0)
    assert (tmp_path / "warm" / "adapter_config.json").is_file()


class Likes:
    """Two clusters, of which one likes long answers."""

    cluster_names = ("long", "short")
    prevalence = np.array([0.75, 0.25])

    def cluster_rewards(self, prompts, completions):
        lengths = torch.tensor([float(len(c[0]["content"])) for c in completions])
        return torch.stack([lengths, -lengths], dim=1)


@pytest.fixture
def made(config_of, tmp_path, monkeypatch):
    """Return a function that makes a trainer from an untrained pi_0, and its budget; nothing is trained."""
    trainers = []

    def note(trainer, *_):
        trainers.append(trainer)
        return [], 0.0

    for module in (policies, without_rl):
        monkeypatch.setattr(module, "train_and_save", note)

    def make(train, *given, **sections):
        config = config_of(**sections)
        data = read_data(config)
        untrained = config_of(sft={"steps": 0})
        train_pi_0(untrained, [], {}, None, TrainingFolder(tmp_path / "warm", tmp_path / "checkpoints" / "warm"))
        training = TrainingFolder(tmp_path / "policy", tmp_path / "checkpoints" / "policy")
        arguments = given or (run_prompts(config, data), Likes())
        results = train(config, *arguments, tmp_path / "warm", training)
        return trainers[-1], results.budget, run_prompts(config, data)

    return make


def test_ours_takes_the_rows_in_the_order_in_which_they_were_dealt(made):
    """A batch must hold every weighting; shuffled rows would not."""
    sampled = {"steps": 3, "prompts_per_step": 5, "num_generations": 4, "num_iterations": 2, "given_share": 0.25}
    trainer, budget, prompts = made(
        policies.train_plural, plural={"sampled": sampled, "beta": 0.7, "rho": 0.5}, seed=3
    )
    rows = list(trainer.train_dataset)
    assert len(rows) == 3 * 5
    wordings = {prompt.wording for prompt in prompts if prompt.split == "train"}
    for step in range(3):
        batch = [tuple(row["weights"]) for row in rows[5 * step : 5 * step + 5]]
        assert batch.count((0.75, 0.25)) == 2
        assert {(1.0, 0.0), (0.0, 1.0)} <= set(batch)
    assert {row["jury_prompt"][-1]["content"] for row in rows} <= wordings
    drawn = [row["jury_prompt"] for batch in (next(iter(trainer.get_train_dataloader())),) for row in batch]
    assert drawn[:: trainer.args.num_generations] == [row["jury_prompt"] for row in rows[:5]]
    written = {prompt.wording: list(prompt.given) for prompt in prompts}
    assert all(row["given_completions"] == written[row["jury_prompt"][-1]["content"]] for row in rows)
    args = trainer.args
    assert (args.beta, args.rho, args.exact, args.seed) == (0.7, 0.5, False, 3)
    assert (args.max_steps, args.num_iterations, args.per_device_train_batch_size) == (6, 2, 20)
    assert args.max_completion_length == 16
    assert (budget.steps, budget.generated_sequences) == (6, 3 * 5 * 3)  # a quarter of each group is given


@pytest.mark.parametrize("name", ["grpo", "rloo"])
def test_a_stock_trainer_gets_the_population_only_and_as_many_texts(made, name):
    section = {"steps": 3, "prompts_per_step": 2, "num_generations": 4, "beta": 0.2}
    trainer, budget, _ = made(getattr(policies, f"train_{name}"), **{name: section})
    rows = list(trainer.train_dataset)
    assert len(rows) == 3 * 2
    assert {tuple(row["weights"]) for row in rows} == {(0.75, 0.25)}
    assert not any("given_completions" in row for row in rows)
    args = trainer.args
    assert (args.max_steps, args.per_device_train_batch_size, args.num_generations, args.beta) == (3, 8, 4, 0.2)
    assert args.max_completion_length == 16
    assert (budget.steps, budget.generated_sequences) == (3, 24)


@pytest.mark.parametrize(("rule", "beta"), [("mean", 0.0), ("pool", 0.5)])
def test_stock_grpo_has_the_reward_that_the_run_file_names(made, rule, beta):
    """With the pool's reward its target is ours, if its penalty is the divergence itself."""
    section = {"steps": 1, "prompts_per_step": 1, "num_generations": 2, "rule": rule, "beta": beta}
    trainer, _, _ = made(policies.train_grpo, grpo={**section, "scale_rewards": "none"})
    assert trainer.args.scale_rewards == "none"
    [reward] = trainer.reward_funcs
    prompts = [[{"role": "user", "content": "Why?"}]] * 2
    completions = [[{"role": "assistant", "content": text}] for text in ("a", "abc")]
    rewards = reward(prompts=prompts, completions=completions, weights=[[0.75, 0.25]] * 2, jury_prompt=prompts)
    if rule == "mean":  # 1, -1 and 3, -3
        assert rewards == pytest.approx([0.5, 1.5])
    else:  # log of the mixture of exp(R / beta), each divided by its mean over the group, times beta
        assert trainer.args.use_bias_correction_kl
        x = np.array([[1.0, -1.0], [3.0, -3.0]]) / beta
        shares = np.exp(x) / np.exp(x).mean(axis=0)
        assert rewards == pytest.approx(list(beta * np.log(shares @ [0.75, 0.25])), abs=1e-4)


@pytest.mark.parametrize("train", [policies.train_plural, without_rl.train_dpo])
def test_without_steps_ours_is_pi_0_and_costs_nothing(config_of, tmp_path, train):
    warm = TrainingFolder(tmp_path / "warm", tmp_path / "checkpoints" / "warm")
    config = config_of(sft={"steps": 0}, plural={"sampled": {"steps": 0}})
    train_pi_0(config, [], {}, None, warm)
    training = TrainingFolder(tmp_path / "policy", tmp_path / "checkpoints" / "policy")
    results = train(config, [], Likes(), tmp_path / "warm", training)
    assert (results.history, results.budget.steps, results.budget.scored_sequences) == ([], 0, 0)
    files = [tmp_path / name / "adapter_model.safetensors" for name in ("warm", "policy")]
    assert files[0].read_bytes() == files[1].read_bytes()


def test_imitation_learns_the_answer_only_of_every_text_in_order(config_of, tmp_path, monkeypatch):
    trainers = []
    monkeypatch.setattr(policies, "train_and_save", lambda trainer, *_: (trainers.append(trainer), ([], 1.5))[1])
    config = config_of(sft={"steps": 3, "texts_per_step": 2, "learning_rate": 0.01, "texts": "written"}, seed=4)
    texts = {"A?": ["yes", "no", "a text that is much longer than sixteen tokens of a tiny model can ever be"]}
    prompts = [OpenPrompt("A?", "train"), OpenPrompt("B?", "train")]
    results = train_pi_0(config, prompts, texts, Likes(), TrainingFolder(tmp_path / "w", tmp_path / "c"))
    [trainer] = trainers
    args = trainer.args
    assert (args.completion_only_loss, args.max_length) == (True, None)
    assert (args.max_steps, args.per_device_train_batch_size, args.learning_rate, args.seed) == (3, 2, 0.01, 4)
    rows = list(trainer.train_dataset)
    assert len(rows) == 3 * 2
    for labels in trainer.data_collator(rows)["labels"]:  # the loss is on what the assistant says
        learnt = labels[labels >= 0]
        assert trainer.processing_class.decode(learnt, skip_special_tokens=True).strip() in {"yes", "no"}
    spent = results.budget
    assert (spent.steps, spent.scored_sequences, spent.generated_sequences, spent.seconds) == (3, 6, None, 1.5)
    with pytest.raises(JudgementError, match="fewer than 16 tokens"):
        train_pi_0(config, prompts, {"A?": texts["A?"][2:]}, Likes(), TrainingFolder(tmp_path / "x", tmp_path / "d"))


def test_dpo_sees_two_texts_of_each_pair(made):
    pairs = planted_judgements("preference", num_raters=6, num_items=4).judgements
    plural = {"mode": "dpo", "beta": 0.3, "sampled": {"steps": 2, "num_generations": 5}}
    scorer = fit_jury(pairs, tiny_causal_lm(), tiny_tokenizer(), clusters=2, progress=False)
    trainer, budget, _ = made(without_rl.train_dpo, pairs, scorer, plural=plural)
    assert (trainer.args.beta, trainer.args.max_steps, trainer.args.per_device_train_batch_size) == (0.3, 2, 5)
    assert (budget.steps, budget.scored_sequences) == (2, 2 * 2 * 5)
