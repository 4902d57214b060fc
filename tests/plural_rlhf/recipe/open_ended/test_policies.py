"""Policies of a run that writes: what their trainers are given, what it costs, and when there is nothing to learn."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from plural_rlhf.recipe.checkpoints import TrainingFolder
from plural_rlhf.recipe.data import read_data
from plural_rlhf.recipe.open_ended import policies, without_rl
from plural_rlhf.recipe.open_ended.policies import train_pi_0
from plural_rlhf.recipe.open_ended.prompts import run_prompts
from reward_models import fit_jury, planted_judgements
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


def test_dpo_sees_two_texts_of_each_pair(made):
    pairs = planted_judgements("preference", num_raters=6, num_items=4).judgements
    plural = {"mode": "dpo", "beta": 0.3, "sampled": {"steps": 2, "num_generations": 5}}
    scorer = fit_jury(pairs, tiny_causal_lm(), tiny_tokenizer(), clusters=2, progress=False)
    trainer, budget, _ = made(without_rl.train_dpo, pairs, scorer, plural=plural)
    assert (trainer.args.beta, trainer.args.max_steps, trainer.args.per_device_train_batch_size) == (0.3, 2, 5)
    assert (budget.steps, budget.scored_sequences) == (2, 2 * 2 * 5)
