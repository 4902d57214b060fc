"""Checkpoints, saved juries and where a training starts from, in one process and in two."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import torch
from peft import LoraConfig
from safetensors.numpy import load_file
from transformers import AutoModelForSequenceClassification, LlamaForSequenceClassification

from reward_models.errors import JuryError
from reward_models.judgements.records import Judgements
from reward_models.jury.modeling_jury import ClusterHeads, JuryRewardModel
from reward_models.jury.scorer import JuryScorer
from reward_models.stats.answers import adjusted_rand_index
from reward_models.trainer.checkpoint import STATE_FILE
from reward_models.trainer.jury_reward_config import JuryRewardConfig
from reward_models.trainer.jury_reward_trainer import JuryRewardTrainer
from tests.jury_training import CPU, TOKENIZER, batch_of, make_trainer, one_head, planted
from tests.processes import run_script
from tests.tiny import save_tiny, tiny_causal_lm


pytestmark = pytest.mark.filterwarnings(
    "ignore:.*have one judgement:reward_models.errors.JudgementWarning",
    "ignore:.*is empty.*:reward_models.errors.JudgementWarning",
)


def test_a_killed_and_resumed_run_is_the_unbroken_one_bit_for_bit(tmp_path):
    data, _ = planted(n_raters=12, per_rater=6, n_items=12)
    data = Judgements.from_frame(data.frame.assign(choice=data.frame["choice"].where(data.frame.index % 5 > 0, "tie")))
    settings = {
        "memberships_from": "random",
        "rater_terms": None,
        "max_steps": 8,
        "save_strategy": "steps",
        "save_steps": 4,
        "per_device_train_batch_size": 2,
        "gradient_accumulation_steps": 2,
        "min_cluster_size": 5.9,  # so that clusters are revived now and then
    }
    unbroken = make_trainer(data, tmp_path / "a", **settings)
    unbroken.train()
    shuffled = data.select(np.random.default_rng(0).permutation(len(data)))  # the order of rows does not matter
    resumed = make_trainer(shuffled, tmp_path / "b", model=tiny_causal_lm(TOKENIZER, seed=9), **settings)
    resumed.train(resume_from_checkpoint=str(tmp_path / "a" / "checkpoint-4"))
    for (name, a), (_, b) in zip(unbroken.model.named_parameters(), resumed.model.named_parameters(), strict=True):
        assert torch.equal(a, b), name
    for name, value in unbroken.memberships.state().items():
        np.testing.assert_array_equal(value, resumed.memberships.state()[name], err_msg=name)
    for name, value in unbroken.terms.state().items():
        np.testing.assert_array_equal(value, resumed.terms.state()[name], err_msg=name)
    assert "shared.log_tie_mean" in resumed.terms.state()
    assert not list(tmp_path.rglob("*.unfinished"))

    checkpoint, settings = str(tmp_path / "a" / "checkpoint-8"), {**settings, "rater_terms": False}
    with pytest.raises(JuryError, match=r"has 2 clusters and this training 3. Set num_clusters=2"):
        make_trainer(data, tmp_path / "c", **{**settings, "num_clusters": 3}).train(resume_from_checkpoint=checkpoint)
    others, _ = planted(n_raters=11, per_rater=6, n_items=12)
    with pytest.raises(JuryError, match=r"other judgements \(72 by 12 raters; here 66 by 11\)"):
        make_trainer(others, tmp_path / "c", **settings).train(resume_from_checkpoint=checkpoint)
    (tmp_path / "a" / "checkpoint-8" / STATE_FILE).unlink()
    with pytest.raises(JuryError, match=r"has no jury_state.safetensors"):
        make_trainer(data, tmp_path / "c", **settings).train(resume_from_checkpoint=checkpoint)


def test_a_saved_jury_loads_everywhere_and_has_a_card(tmp_path):
    data, _ = planted()
    trainer = make_trainer(
        data,
        tmp_path / "run",
        data,
        max_steps=3,
        memberships_from="random",
        cluster_names=["yes | sayers", "nay sayers"],
        cluster_descriptions=["They want yes.", "They want no."],
    )
    trainer.train()
    trainer.evaluate()
    trainer.save_model(str(tmp_path / "jury"))
    loaded = JuryRewardModel.from_pretrained(tmp_path / "jury")
    assert loaded.config.prevalence == trainer.memberships.prevalence.tolist()
    assert loaded.config.cluster_names == ["yes | sayers", "nay sayers"]
    assert torch.equal(loaded.score.weight, trainer.jury.score.weight)
    assert type(AutoModelForSequenceClassification.from_pretrained(tmp_path / "jury", num_labels=1)) is JuryRewardModel
    assert JuryScorer.from_pretrained(tmp_path / "jury").cluster_rewards(["Question 1? "], ["yes"]).shape == (1, 2)
    card = (tmp_path / "jury" / "README.md").read_text()
    share = 100 * trainer.memberships.prevalence[0]
    assert f"| yes \\| sayers | {share:.1f} % | They want yes. |" in card
    assert "- Judgements: 300 (preference)" in card
    assert "- Raters: 30, with a median of 10 judgements" in card
    assert "license_name: to-be-chosen" in card
    assert f"| `eval_loss` | {trainer._last_metrics['eval_loss']:.4g} |" in card
    assert str(tmp_path) not in card


def test_lora_trains_the_heads_and_saves_a_merged_jury(tmp_path):
    data, says_no = planted()
    lora = LoraConfig(r=4, target_modules=["q_proj", "v_proj"])
    trainer = make_trainer(data, tmp_path / "run", peft_config=lora, memberships_from="random", learning_rate=1e-2)
    assert lora.modules_to_save is None
    frozen = trainer.jury.model.embed_tokens.weight.clone()
    trainer.train()
    assert torch.equal(frozen, trainer.jury.model.embed_tokens.weight)
    assert adjusted_rand_index(trainer.memberships.posterior().argmax(1), says_no.astype(int)) >= 0.9
    trainer.save_model(str(tmp_path / "jury"))
    loaded, info = JuryRewardModel.from_pretrained(tmp_path / "jury", output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    batch = {name: batch_of(trainer)[name] for name in ("input_ids", "attention_mask")}
    trainer.model.eval()
    with torch.no_grad():
        expected, found = trainer.model(**batch).cluster_rewards, loaded(**batch).cluster_rewards
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
    assert float((expected[:, 0] - expected[:, 1]).abs().max()) > 0.5


def test_lora_resumes(tmp_path):
    data, _ = planted(n_raters=8, per_rater=5, n_items=10)
    settings = {"max_steps": 4, "save_strategy": "steps", "save_steps": 2, "memberships_from": "random"}
    runs = []
    for folder, resume in (("a", None), ("b", str(tmp_path / "a" / "checkpoint-2"))):
        lora = LoraConfig(r=2, target_modules=["q_proj"])
        trainer = make_trainer(data, tmp_path / folder, peft_config=lora, **settings)
        trainer.train(resume_from_checkpoint=resume)
        runs.append(trainer)
    assert (tmp_path / "a" / "checkpoint-2" / "adapter_model.safetensors").exists()
    np.testing.assert_array_equal(runs[0].memberships.totals, runs[1].memberships.totals)


def test_checkpointing_of_activations_and_bf16_run(tmp_path):
    data, _ = planted(n_raters=6, per_rater=4, n_items=8)
    losses = []
    for settings in ({}, {"gradient_checkpointing": True}, {"bf16": True}):
        trainer = make_trainer(data, tmp_path, max_steps=1, memberships_from="random", **settings)
        losses.append(trainer.train().training_loss)
    assert losses[1] == pytest.approx(losses[0], abs=1e-6)
    assert losses[2] == pytest.approx(losses[0], abs=0.02)


@pytest.mark.parametrize("kind", ["path", "scalar", "jury path"])
def test_what_a_jury_starts_from(tmp_path, kind):
    data, _ = planted(n_raters=6, per_rater=4, n_items=8)
    path = save_tiny(tmp_path / "base")
    if kind == "scalar":
        model = LlamaForSequenceClassification.from_pretrained(path, num_labels=1)
        consensus = model.score.weight.detach().clone()
    elif kind == "jury path":
        JuryScorer(one_head(), TOKENIZER).save_pretrained(path)
        model = path
    else:
        model = path
    args = JuryRewardConfig(str(tmp_path / "run"), **CPU, deviation_scale=1e-3, rater_terms=False)
    trainer = JuryRewardTrainer(model, args, data, processing_class=TOKENIZER if kind == "scalar" else None)
    heads = trainer.jury.score
    assert isinstance(heads, ClusterHeads)
    assert heads.weight.shape == ((1, 32) if kind == "jury path" else (2, 32))
    if kind == "scalar":
        torch.testing.assert_close(heads.weight.mean(0, keepdim=True), consensus)
    if kind == "jury path":
        torch.testing.assert_close(heads.weight, one_head().score.weight)
    else:
        assert 0 < (heads.weight[0] - heads.weight[1]).abs().max().item() < 0.01


def test_a_jury_whose_files_were_changed_is_no_start_and_one_whose_save_was_killed_is_the_newer(tmp_path):
    data, _ = planted(n_raters=6, per_rater=4, n_items=8)
    folder = tmp_path / "jury"
    JuryScorer(one_head(seed=1), TOKENIZER).save_pretrained(folder)
    args = JuryRewardConfig(str(tmp_path / "run"), **CPU, rater_terms=False)

    JuryScorer(one_head(seed=2), TOKENIZER).save_pretrained(
        folder / ".saved"
    )  # its files are on their way to `folder`
    trainer = JuryRewardTrainer(str(folder), args, data)
    torch.testing.assert_close(trainer.jury.score.weight, one_head(seed=2).score.weight)
    shutil.rmtree(folder / ".saved")

    weights = bytearray((folder / "model.safetensors").read_bytes())
    weights[len(weights) // 2] ^= 1
    (folder / "model.safetensors").write_bytes(weights)
    with pytest.raises(JuryError, match=r"'model\.safetensors' of the jury in .* is not the file that was saved"):
        JuryRewardTrainer(str(folder), args, data)


@pytest.mark.slow
def test_two_processes_equal_one(tmp_path):
    script = """
            import sys
            import numpy as np
            from safetensors.numpy import save_file
            from tests.jury_training import make_trainer, planted, votes

            folder, batch = sys.argv[1], int(sys.argv[2])
            settings = dict(max_steps=5, per_device_train_batch_size=batch, memberships_from="random")
            settings |= dict(logging_strategy="steps", logging_steps=1)
            trainer = make_trainer(votes(n_items=12), folder, votes(), **settings)
            trainer.train()
            loss = trainer.evaluate()["eval_loss"]
            if trainer.is_world_process_zero():
                state = {k: v.detach().numpy() for k, v in trainer.jury.state_dict().items()}
                state |= trainer.memberships.state() | trainer.terms.state()
                numbers = {"eval_loss": loss}
                for step, entry in enumerate(entry for entry in trainer.state.log_history if "loss" in entry):
                    numbers |= {f"{name} of step {step}": number for name, number in entry.items()}
                state |= {name: np.array([number]) for name, number in numbers.items() if "time" not in name}
                save_file(state, f"{folder}/found.safetensors")
            """
    found = []
    for name, processes in (("one", 1), ("two", 2)):
        run_script(script, str(tmp_path / name), str(4 // processes), processes=processes)
        found.append(load_file(tmp_path / name / "found.safetensors"))
    assert {f"{name} of step {step}" for step in range(5) for name in ("loss", "accuracy", "grad_norm")} <= set(
        found[0]
    )
    for name, value in found[0].items():
        np.testing.assert_allclose(found[1][name], value, atol=2e-5, err_msg=name)
