"""What `PluralDPOTrainer` and `PluralGRPOTrainer` log does not depend on how rows are cut into batches."""

from __future__ import annotations

import json

import datasets
import numpy as np
import pandas as pd
import pytest
import torch
from datasets import Dataset

from plural_rlhf.core.shares import effective_answers
from plural_rlhf.rewards.validity_gate import ValidityGate
from plural_rlhf.trainers import PluralGRPOConfig, PluralGRPOTrainer, _trl
from tests.juries import CPU, flat_jury
from tests.opposed_pairs import PROMPTS, build, pair, policy
from tests.policies import THREE, TOKENIZER, load, perturbed, sampled_trainer, spoken, three_answers
from tests.processes import run_script


SIZES = (1, 2, 5, 64)
STILL = {"learning_rate": 0.0, "logging_strategy": "epoch", "num_train_epochs": 1, "max_steps": -1}
# What a step is, and not what it measured.
OF_STEPS = (
    "loss",
    "train_",
    "grad_norm",
    "learning_rate",
    "step",
    "epoch",
    "num_tokens",
    "total_flos",
    "eval_num_tok",
)


def same_numbers(logged: dict[int, dict[str, float]]) -> dict[str, float]:
    """The numbers that every batch size logged, which must agree."""
    first, *others = (
        {n: v for n, v in row.items() if not n.startswith(OF_STEPS) and not n.endswith(("runtime", "per_second"))}
        for row in logged.values()
    )
    for size, other in zip(list(logged)[1:], others, strict=True):
        assert other.keys() == first.keys()
        for name, value in first.items():
            assert other[name] == pytest.approx(value, abs=2e-5, rel=2e-5), (name, size)
    return first


def move(model: torch.nn.Module) -> None:
    """Move a policy away from its reference, always to the same place."""
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.02 * torch.randn_like(parameter)


def thirteen_pairs() -> Dataset:
    """Two clusters of unequal size and weight, and responses of unequal length."""
    rows = [pair(PROMPTS[n % 2], n % 3 > 0, cluster="urban" if n % 4 else "rural", count=1 + n % 3) for n in range(13)]
    return Dataset.from_list([{**row, "rejected": row["rejected"] + " or so" * (n % 3)} for n, row in enumerate(rows)])


@pytest.mark.slow
@pytest.mark.parametrize("objective", ["average", "steerable", "mixture"])
def test_no_metric_of_dpo_depends_on_the_batch_size(tmp_path, objective):
    datasets.disable_progress_bars()
    trained, evaluated = {}, {}
    for size in SIZES:
        sizes = {"per_device_train_batch_size": size, "per_device_eval_batch_size": size}
        moved = policy()
        move(moved)
        data = thirteen_pairs()
        trainer = build(data, tmp_path, moved, eval_dataset=data, objective=objective, **{**STILL, **sizes})
        trainer.train()
        trained[size] = next(row for row in trainer.state.log_history if "rewards/accuracies" in row)
        evaluated[size] = trainer.evaluate()
    assert {"entropy", "logps/chosen", "rewards/margins", "plural/accuracy/urban"} <= same_numbers(trained).keys()
    found = same_numbers(evaluated)
    assert evaluated[64]["eval_loss"] == pytest.approx(evaluated[5]["eval_loss"], abs=1e-5)
    assert 0 < found["eval_rewards/accuracies"] < 1


def say_by_table(group: int) -> dict[str, list[str]]:
    """Let the policy say what a table has for a prompt, whatever the batch; a group's completions differ."""
    rng = np.random.default_rng(3)
    said = {f"Item {c}: ": [(*THREE, "4 or")[i] for i in rng.integers(4, size=group)] for c in "abcdefghij"}

    def complete(trainer, prompt_ids):
        prompts, seen, answers = TOKENIZER.batch_decode(prompt_ids), {}, []
        for prompt in prompts:
            answers.append(said[prompt][seen.setdefault(prompt, 0) % group])
            seen[prompt] += 1
        ids = [row if answer in THREE else row[:-1] for answer, row in zip(answers, spoken(answers), strict=True)]
        return ids, [[float("nan")] * len(row) for row in ids]

    _trl.generate = complete
    return said


def ten_rows(support: bool) -> Dataset:
    rows = [{"prompt": f"Item {c}: ", "weights": [0.5 + n / 20, 0.5 - n / 20]} for n, c in enumerate("abcdefghij")]
    answers = (THREE, THREE[:2])
    return Dataset.from_list([{**row, "support": answers[n % 2]} if support else row for n, row in enumerate(rows)])


@pytest.fixture
def generation(monkeypatch):
    monkeypatch.setattr(_trl, "generate", _trl.generate)  # put back what a script replaces


@pytest.mark.slow
@pytest.mark.parametrize("settings", [{}, {"n_ref": 4, "estimator": "tb", "offsets": "ema"}], ids=["plain", "tb"])
def test_no_metric_of_sampled_mode_depends_on_the_batch_size(lopsided, tmp_path, generation, settings):
    group, trained, evaluated = 3, {}, {}
    for prompts in (1, 2, 5, 10, 64):
        train_prompts = min(prompts, 10)  # groups that do not fill a generation batch are not trained on
        sizes = {"per_device_train_batch_size": train_prompts * group, "per_device_eval_batch_size": prompts * group}
        args = PluralGRPOConfig(
            str(tmp_path), num_generations=group, max_completion_length=4, **{**CPU, **STILL, **sizes, **settings}
        )
        gate = ValidityGate(lambda completions, **columns: [float("2" not in c) for c in completions])
        length = lambda completions, **columns: [None if c == "1" else len(c) / 9 for c in completions]  # noqa: E731
        data = ten_rows(False)
        functions = [three_answers(), gate, length]
        torch.manual_seed(1)
        trainer = PluralGRPOTrainer(lopsided, functions, args, data, data, processing_class=TOKENIZER)
        perturbed(trainer)
        said = say_by_table(group)
        torch.manual_seed(2)
        evaluated[prompts] = trainer.evaluate()
        if prompts <= 10 and not settings:
            trainer.train()
            trained[prompts] = next(row for row in trainer.state.log_history if "plural/kl" in row)
    found = same_numbers(evaluated)
    assert found["eval_plural/effective_answers"] == pytest.approx(effective_answers(said.values()), abs=1e-5)
    assert found["eval_plural/truncated"] == pytest.approx(found["eval_completions/clipped_ratio"], abs=1e-6)
    assert found["eval_plural/truncated"] > 0
    assert {"eval_reward_std", "eval_rewards/jury/mean", "eval_plural/valid", "eval_plural/share/left"} <= found.keys()
    if trained:
        assert {"reward", "plural/residual_std", "completions/mean_terminated_length"} <= same_numbers(trained).keys()


def test_no_metric_of_exact_mode_depends_on_the_batch_size(lopsided, tmp_path):
    trained, evaluated = {}, {}
    for size in SIZES:
        sizes = {"per_device_train_batch_size": size, "per_device_eval_batch_size": size}
        args = PluralGRPOConfig(str(tmp_path), exact=True, **{**CPU, **STILL, **sizes})
        data = ten_rows(True)
        trainer = PluralGRPOTrainer(load(lopsided), three_answers(), args, data, data, processing_class=TOKENIZER)
        trainer.train()
        trained[size] = next(row for row in trainer.state.log_history if "plural/jsd_nats" in row)
        evaluated[size] = trainer.evaluate()
    found, of_training = same_numbers(evaluated), same_numbers(trained)
    for name in ("plural/jsd_nats", "plural/coverage", "plural/share/left", "plural/weight/right"):
        assert found[f"eval_{name}"] == pytest.approx(of_training[name], abs=1e-5)
    assert found["eval_plural/weight/right"] == pytest.approx(np.mean([0.5 - n / 20 for n in range(10)]))


def test_rows_with_and_without_a_support_count_alike_in_mixed_batches(lopsided, tmp_path, generation):
    group, evaluated = 3, {}
    rows = ten_rows(True)
    data = Dataset.from_list([{**row, "support": row["support"] if n % 3 else None} for n, row in enumerate(rows)])
    for prompts in (1, 2, 5, 64):
        sizes = {"per_device_train_batch_size": group, "per_device_eval_batch_size": prompts * group}
        args = PluralGRPOConfig(
            str(tmp_path), num_generations=group, max_completion_length=4, **{**CPU, **STILL, **sizes}
        )
        trainer = PluralGRPOTrainer(lopsided, three_answers(), args, data, data, processing_class=TOKENIZER)
        say_by_table(group)
        evaluated[prompts] = trainer.evaluate()
    found = same_numbers(evaluated)
    assert found["eval_plural/weight/left"] == pytest.approx(np.mean([0.5 + n / 20 for n in range(10)]))


def test_the_table_of_completions_has_a_column_for_each_cluster(lopsided, tmp_path):
    trainer = sampled_trainer(
        lopsided,
        three_answers(),
        tmp_path,
        1,
        num_generations=4,
        per_device_train_batch_size=8,
        log_completions=True,
        logging_steps=1,
    )
    trainer.train()
    table = pd.concat([pd.read_parquet(path) for path in sorted((tmp_path / "completions").glob("*.parquet"))])
    assert len(table) == 8
    for text, left, right in table[["completion", "jury/left", "jury/right"]].itertuples(index=False):
        expected = three_answers().table.get(text.strip(), [-6.0, -6.0])
        assert (left, right) == pytest.approx(tuple(expected))


def test_the_exact_mode_logs_the_range_of_the_rewards_that_make_the_target(lopsided, tmp_path):
    """A jury that tells nothing apart has none, whatever the reference prefers."""
    found = []
    for jury in (three_answers(), flat_jury(three_answers())):
        args = PluralGRPOConfig(str(tmp_path), exact=True, rho=0.0, per_device_train_batch_size=2, max_steps=1, **CPU)
        data = Dataset.from_list([{"prompt": f"Item {c}: ", "support": THREE[: 2 + n]} for n, c in enumerate("ab")])
        trainer = PluralGRPOTrainer(load(lopsided), jury, args, data, data, processing_class=TOKENIZER)
        found.append(trainer.evaluate()["eval_plural/reward_range"])
    # .7 · (4, 0, 0) + .3 · (0, 0, 4) is (2.8, 0, 1.2): 2.8 with two answers and with three.
    assert found == pytest.approx([2.8, 0.0], abs=1e-5)


@pytest.mark.slow
def test_evaluations_on_two_processes_count_every_row_once(lopsided, tmp_path):
    """Thirteen pairs, five prompts with a list and five without; the last batch of two processes is filled up."""
    script = """
            import json, sys
            from tests.juries import CPU
            from tests.opposed_pairs import build, policy
            from tests.plural_rlhf.trainers import test_logged_metrics as tests
            from tests.policies import TOKENIZER, load, three_answers
            from plural_rlhf.trainers import PluralGRPOConfig, PluralGRPOTrainer

            policy_folder, file = sys.argv[1:]
            pairs = tests.thirteen_pairs()
            moved = policy()
            tests.move(moved)
            trainer = build(pairs, "out", moved, eval_dataset=pairs, per_device_eval_batch_size=2)
            found = {"pairs": trainer.evaluate()}
            main = trainer.is_world_process_zero()
            for mode in ("exact", "sampled"):
                exact = mode == "exact"
                data = tests.ten_rows(exact).select(range(5))
                settings = dict(exact=True) if exact else dict(num_generations=2, max_completion_length=4)
                settings |= dict(per_device_eval_batch_size=2, per_device_train_batch_size=2)
                args = PluralGRPOConfig("out", **settings, **CPU)
                model = load(policy_folder) if exact else policy_folder
                trainer = PluralGRPOTrainer(model, three_answers(), args, data, data, processing_class=TOKENIZER)
                tests.say_by_table(2)
                found[mode] = trainer.evaluate()
            if main:
                json.dump(found, open(file, "w"))
            """
    found = []
    for processes in (1, 2):
        file = tmp_path / f"{processes}.json"
        run_script(script, lopsided, str(file), folder=tmp_path, processes=processes, timeout=400)
        found.append(json.loads(file.read_text()))
    for kind, one in found[0].items():
        names = [name for name in one if "plural/" in name or "rewards/" in name or "logps" in name]
        assert len(names) > 5
        for name in names:
            assert found[1][kind][name] == pytest.approx(one[name], abs=2e-5), (kind, name)
