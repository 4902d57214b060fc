"""Stopping and going on: a resumed run equals the unbroken one, and two processes equal one."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from datasets import Dataset
from safetensors.numpy import load_file

from plural_rlhf.trainers.grpo import checkpoints
from reward_models.errors import JuryError
from reward_models.jury.modeling_jury import JuryRewardModel
from reward_models.jury.scorer import JuryScorer
from tests.juries import TableJury
from tests.policies import THREE, TOKENIZER, load, rows, sampled_trainer, three_answers, train_exact
from tests.processes import run_script


def weights_of(trainer) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in trainer.model.parameters()])


def test_an_exact_run_that_was_killed_ends_where_the_unbroken_one_does(lopsided, tmp_path):
    settings = {"per_device_train_batch_size": 2, "save_strategy": "steps", "save_steps": 3}
    jury, data = three_answers(), rows("abcde", THREE)
    whole = train_exact(load(lopsided), jury, data, tmp_path / "whole", 8, **settings)
    checkpoint = tmp_path / "whole" / "checkpoint-3"
    resumed = train_exact(load(lopsided), jury, data, tmp_path / "resumed", 8, resume=str(checkpoint), **settings)
    assert resumed.state.global_step == 8
    torch.testing.assert_close(weights_of(resumed), weights_of(whole), atol=0, rtol=0)
    at_three = torch.cat([p.detach().flatten() for p in load(str(checkpoint)).parameters()])
    assert float((at_three - weights_of(whole)).abs().max()) > 1e-3


@pytest.mark.parametrize("killed_at", [2, 3], ids=["after an epoch", "within an epoch"])
def test_a_sampled_run_that_was_killed_ends_where_the_unbroken_one_does(lopsided, tmp_path, killed_at):
    settings = {
        "save_strategy": "steps",
        "save_steps": killed_at,
        "num_generations": 8,
        "per_device_train_batch_size": 8,
    }
    whole = sampled_trainer(lopsided, three_answers(), tmp_path / "whole", 6, **settings)
    whole.train()
    checkpoint = tmp_path / "whole" / f"checkpoint-{killed_at}"
    saved = json.loads((checkpoint / "plural_state.json").read_text())["offsets"]
    assert sum(saved["updates"].values()) == killed_at
    resumed = sampled_trainer(lopsided, three_answers(), tmp_path / "resumed", 6, **settings)
    resumed.train(resume_from_checkpoint=str(checkpoint))
    torch.testing.assert_close(weights_of(resumed), weights_of(whole), atol=0, rtol=0)
    assert resumed.jury_reward.offsets.state_dict() == whole.jury_reward.offsets.state_dict()
    assert resumed.jury_reward.offsets.state_dict() != saved


@pytest.mark.parametrize(
    "settings",
    [
        {"num_iterations": 4, "replay_size": 0},
        {"num_iterations": 2, "num_generations": 4, "reference_share": 0.25},
        {"steerable": True},
        {"kl_budget": 0.5, "offsets": "ema", "estimator": "js"},
        {"rho": 0.0, "max_min": True},
        {"data": [{"prompt": f"Item {c}: ", "given_completions": THREE} for c in "ab"], "given_share": 0.125},
        {"variance_reduction": "prefix_rewards", "prefix_every": 1},
    ],
    ids=[
        "completions in use",
        "completions remembered",
        "weights drawn",
        "budget and normalisers",
        "max-min weights",
        "texts of others",
        "slopes of prefixes",
    ],
)
def test_everything_that_moves_goes_on_from_where_it_was(lopsided, tmp_path, settings):
    """Stopped after three steps: with several uses of each generation batch, in the middle of one."""
    common = {"save_strategy": "steps", "save_steps": 3, "num_generations": 8, "per_device_train_batch_size": 8}
    settings = {**common, **settings}
    if "data" in settings:
        settings["data"] = Dataset.from_list(settings["data"])
    whole = sampled_trainer(lopsided, three_answers(calibrated=True), tmp_path / "whole", 6, **settings)
    whole.train()
    resumed = sampled_trainer(lopsided, three_answers(calibrated=True), tmp_path / "resumed", 6, **settings)
    resumed.train(resume_from_checkpoint=str(tmp_path / "whole" / "checkpoint-3"))
    torch.testing.assert_close(weights_of(resumed), weights_of(whole), atol=0, rtol=0)
    assert resumed.prompts.state_dict() == whole.prompts.state_dict()


def test_a_checkpoint_that_was_cut_short_is_left_out_aloud_or_refused_by_name(lopsided, tmp_path):
    settings = {"per_device_train_batch_size": 2, "save_strategy": "steps", "save_steps": 1}
    whole = train_exact(load(lopsided), three_answers(), rows("ab", THREE), tmp_path, 3, **settings)
    for step in (2, 3):
        (tmp_path / f"checkpoint-{step}" / "plural_state.json").unlink()
    for resume in (str(tmp_path / "checkpoint-3"), tmp_path / "checkpoint-3"):
        with pytest.raises(ValueError, match=r"checkpoint-3.*cut short.*resume from '.*checkpoint-1'"):
            train_exact(load(lopsided), three_answers(), rows("ab", THREE), tmp_path, 3, resume=resume, **settings)
    with pytest.warns(UserWarning, match=r"checkpoint-3' is left out: .*cut short.*resumes from '.*checkpoint-1'"):
        resumed = train_exact(load(lopsided), three_answers(), rows("ab", THREE), tmp_path, 3, resume=True, **settings)
    torch.testing.assert_close(weights_of(resumed), weights_of(whole), atol=0, rtol=0)


@pytest.mark.parametrize("name", ["plural_replay.pt", "plural_rollouts_0.pt", "optimizer.pt"])
def test_a_checkpoint_with_a_missing_or_damaged_companion_is_refused(lopsided, tmp_path, name):
    """A deleted memory would resume with another result, without a word."""
    settings = {"save_strategy": "steps", "save_steps": 1, "num_iterations": 2, "num_generations": 4}
    settings |= {"per_device_train_batch_size": 4}
    sampled_trainer(lopsided, three_answers(), tmp_path, 2, **settings).train()
    file = tmp_path / "checkpoint-2" / name
    content = file.read_bytes()
    for damage, said in ((lambda: file.unlink(), "missing"), (lambda: file.write_bytes(content[:-1] + b"?"), "SHA")):
        damage()
        resumed = sampled_trainer(lopsided, three_answers(), tmp_path, 3, **settings)
        with pytest.raises(ValueError, match=rf"checkpoint-2.*{name}.*{said}.*resume from '.*checkpoint-1'"):
            resumed.train(resume_from_checkpoint=str(file.parent))


def test_a_checkpoint_of_another_jury_is_refused(lopsided, tmp_path):
    settings = {"per_device_train_batch_size": 2, "save_strategy": "steps", "save_steps": 1}
    train_exact(load(lopsided), three_answers(), rows("ab", THREE), tmp_path, 1, **settings)
    other = TableJury({a: [0.0, 0.0, 0.0] for a in THREE}, ["x", "y", "z"], [0.2, 0.3, 0.5])
    with pytest.raises(JuryError, match=r"clusters left, right, and this one has x, y, z.*another output_dir"):
        train_exact(
            load(lopsided), other, rows("ab", THREE), tmp_path, 2, resume=str(tmp_path / "checkpoint-1"), **settings
        )


def test_a_folder_may_be_given_as_a_path(lopsided, tmp_path):
    settings = {"per_device_train_batch_size": 2, "save_strategy": "steps", "save_steps": 1}
    train_exact(load(lopsided), three_answers(), rows("ab", THREE), tmp_path, 1, **settings)
    resume = tmp_path / "checkpoint-1"
    resumed = train_exact(load(lopsided), three_answers(), rows("ab", THREE), tmp_path, 3, resume=resume, **settings)
    assert resumed.state.global_step == 3
    assert [row["step"] for row in resumed.state.log_history if "train_runtime" in row] == [3]


def test_the_last_whole_checkpoint_outlives_a_kill(lopsided, tmp_path, monkeypatch):
    """With `save_total_limit=1`, between the files of TRL and ours."""
    settings = {"save_strategy": "steps", "save_steps": 1, "save_total_limit": 1}
    settings |= {"num_generations": 4, "per_device_train_batch_size": 4}
    save = checkpoints.save_state

    def killed(folder, *parts):
        if folder.name == "checkpoint-2":
            raise KeyboardInterrupt
        return save(folder, *parts)

    monkeypatch.setattr(checkpoints, "save_state", killed)
    with pytest.raises(KeyboardInterrupt):
        sampled_trainer(lopsided, three_answers(), tmp_path, 3, **settings).train()
    monkeypatch.undo()
    resumed = sampled_trainer(lopsided, three_answers(), tmp_path, 3, **settings)
    with pytest.warns(UserWarning, match=r"checkpoint-2' is left out: .*cut short.*resumes from '.*checkpoint-1'"):
        resumed.train(resume_from_checkpoint=True)
    assert resumed.state.global_step == 3
    assert [path.name for path in tmp_path.glob("checkpoint-*")] == ["checkpoint-3"]
    assert resumed.args.save_total_limit == 1


@pytest.mark.parametrize(
    ("prevalence", "taken"), [([0.1, 0.9], False), ([0.7, 0.3], True)], ids=["another", "the same"]
)
def test_a_checkpoint_of_a_jury_with_another_prevalence_is_refused(lopsided, tmp_path, prevalence, taken):
    settings = {"per_device_train_batch_size": 2, "save_strategy": "steps", "save_steps": 1}
    train_exact(load(lopsided), three_answers(), rows("ab", THREE), tmp_path, 1, **settings)
    other = TableJury(three_answers().table, ["left", "right"], prevalence)
    resume = str(tmp_path / "checkpoint-1")

    def go_on():
        trained = train_exact(load(lopsided), other, rows("ab", THREE), tmp_path, 2, resume=resume, **settings)
        assert trained.state.global_step == 2

    if taken:
        go_on()
        return
    with pytest.raises(
        JuryError, match=r"prevalence 0\.7, 0\.3, and this one has 0\.1, 0\.9: resume with the jury of"
    ):
        go_on()
    assert other.asked == []  # before any long work
    # Checkpoints of earlier versions do not say.
    state = json.loads((tmp_path / "checkpoint-1" / "plural_state.json").read_text())
    del state["prevalence"], state["heads"]
    (tmp_path / "checkpoint-1" / "plural_state.json").write_text(json.dumps(state))
    go_on()


def test_a_checkpoint_of_a_saved_jury_with_other_heads_is_refused(lopsided, tmp_path):
    """The same clusters in the same shares, fitted again."""

    def jury(seed):
        torch.manual_seed(0)
        backbone, heads = load(lopsided).model, np.random.default_rng(seed).normal(size=(2, 32))
        model = JuryRewardModel.from_fit(backbone, heads, np.zeros(2), [0.7, 0.3], ["left", "right"])
        return JuryScorer(model, TOKENIZER)

    settings = {"per_device_train_batch_size": 2, "save_strategy": "steps", "save_steps": 1}
    train_exact(load(lopsided), jury(1), rows("ab", THREE), tmp_path, 1, **settings)
    resume = str(tmp_path / "checkpoint-1")
    with pytest.raises(JuryError, match=r"the same clusters \(left, right\) and other reward heads: resume with"):
        train_exact(load(lopsided), jury(2), rows("ab", THREE), tmp_path, 2, resume=resume, **settings)
    train_exact(load(lopsided), jury(1), rows("ab", THREE), tmp_path, 2, resume=resume, **settings)


@pytest.mark.slow
def test_two_processes_equal_one(lopsided, tmp_path):
    """The same completions and rehearsed texts on one process and on two that share every group: same policy and log.

    Two processes that go on from their checkpoint end where they ended without a stop.
    """
    script = """
            import json, sys
            from safetensors.numpy import save_file
            from tests.juries import CPU
            from tests.policies import THREE, TOKENIZER, rows, scripted_completions, three_answers
            from plural_rlhf.trainers import PluralGRPOConfig, PluralGRPOTrainer, Rehearsal

            policy, folder, processes = sys.argv[1], sys.argv[2], int(sys.argv[3])
            elsewhere = [{"prompt": f"And {what}? ", "completion": "as ever"} for what in ("cats", "dogs", "rain")]
            modes = (("sampled", 8, "abcd"), ("replayed", 8, "a"), ("exact", 4, "abcd"), ("rehearsed", 4, "abcd"))
            for mode, size, prompts in modes:
                exact = mode in ("exact", "rehearsed")
                settings = dict(max_steps=4, learning_rate=1e-3, shuffle_dataset=False, seed=5)
                settings |= CPU | dict(save_strategy="steps", save_steps=2, logging_strategy="steps", logging_steps=1)
                settings |= dict(adam_epsilon=1e-5)  # else the rounding of a tiny gradient becomes a whole step
                settings |= dict(exact=True) if exact else dict(num_generations=8, max_completion_length=4)
                settings |= dict(num_iterations=2) if mode == "replayed" else {}
                # What a rehearsal asks for is next to nothing at first, of which Adam makes whole steps of rounding.
                settings |= dict(optim="sgd", learning_rate=0.3) if mode == "rehearsed" else {}
                settings |= dict(per_device_train_batch_size=size // processes)
                data = rows(prompts, THREE if exact else None)
                for part, resume in (("whole", None), ("resumed", f"{folder}/{mode}/whole/checkpoint-2")):
                    args = PluralGRPOConfig(f"{folder}/{mode}/{part}", **settings)
                    rehearsal = Rehearsal(elsewhere, per_step=2 // processes) if mode == "rehearsed" else None
                    trainer = PluralGRPOTrainer(
                        policy, three_answers(), args, data, processing_class=TOKENIZER, rehearsal=rehearsal
                    )
                    scripted_completions(trainer)
                    trainer.train(resume_from_checkpoint=resume)
                    if trainer.is_world_process_zero():
                        model = trainer.accelerator.unwrap_model(trainer.model)
                        state = {k: v.detach().numpy() for k, v in model.state_dict().items()}
                        save_file(state, f"{folder}/{mode}/{part}.safetensors")
                        with open(f"{folder}/{mode}/{part}.json", "w") as file:
                            log_z = trainer.jury_reward.offsets.state_dict()["log_z"]
                            json.dump({"log_z": log_z, "log": trainer.state.log_history}, file)
            """
    for processes in ("1", "2"):
        run_script(script, lopsided, str(tmp_path / processes), processes, processes=int(processes), timeout=400)
    start = load(lopsided).state_dict()
    for mode in ("sampled", "replayed", "exact", "rehearsed"):
        one, two, resumed = (
            load_file(tmp_path / processes / mode / f"{part}.safetensors")
            for processes, part in (("1", "whole"), ("2", "whole"), ("2", "resumed"))
        )
        moved = 0.0
        for name, value in one.items():
            np.testing.assert_allclose(two[name], value, atol=2e-5, err_msg=f"{mode} {name}")
            np.testing.assert_allclose(resumed[name], two[name], atol=1e-7, err_msg=f"{mode} {name}, resumed")
            moved = max(moved, float(np.abs(value - start[name].numpy()).max()))
        assert moved > 1e-3
        one, two = (json.loads((tmp_path / processes / mode / "whole.json").read_text()) for processes in "12")
        assert one["log_z"].keys() == two["log_z"].keys()
        for key, value in one["log_z"].items():
            np.testing.assert_allclose(two["log_z"][key], value, atol=1e-4)
        assert len(one["log"]) == len(two["log"]) == 5
        for entry, other in zip(one["log"], two["log"], strict=True):
            assert entry.keys() == other.keys()
            measured = [name for name in entry if not any(word in name for word in ("time", "runtime", "per_second"))]
            for name in measured:
                assert other[name] == pytest.approx(entry[name], rel=1e-3, abs=1e-4, nan_ok=True), (mode, name)
