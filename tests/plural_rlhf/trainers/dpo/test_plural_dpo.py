"""`PluralDPOTrainer` on a tiny model: two clusters that want opposite answers, and who gets what under each objective.

By weight, 70 % of the judgements say yes and 30 % no. Every policy starts where it says either in half of the cases,
and what it says in the end is read off exactly, not sampled.
"""

from __future__ import annotations

import inspect
import json
import math

import datasets
import numpy as np
import pytest
import torch
from datasets import Dataset
from peft import LoraConfig
from trl import DPOConfig, DPOTrainer

from plural_rlhf.policies.answers import answer_probabilities
from plural_rlhf.trainers import _trl
from plural_rlhf.trainers.checkpointed_trainer import CheckpointedTrainer
from plural_rlhf.trainers.plural_dpo_trainer import PluralDPOTrainer
from plural_rlhf.weights.wording import POPULATION, steer_prompt
from reward_models.errors import JuryError
from tests.opposed_pairs import PROMPTS, QUIET, RURAL, STEADY, TOKENIZER, URBAN, build, opposed, pair, policy


@pytest.fixture(autouse=True, scope="module")
def no_progress_bars():
    datasets.disable_progress_bars()
    yield
    datasets.enable_progress_bars()


def log_odds(model, words: str | None = None, prompts=PROMPTS) -> np.ndarray:
    """log pi(yes) - log pi(no) after each prompt, end tokens included."""
    texts = prompts if words is None else [steer_prompt(p, words) for p in prompts]
    found = answer_probabilities(model, TOKENIZER, texts, [["yes", "no"]] * len(texts), progress=False)
    return np.log(found)[:, 0] - np.log(found)[:, 1]


def share_of_yes(model, words: str | None = None) -> np.ndarray:
    return 1 / (1 + np.exp(-log_odds(model, words)))


@pytest.fixture(scope="module")
def steerable(tmp_path_factory):
    trainer = build(opposed(), tmp_path_factory.mktemp("steerable"), max_steps=60, objective="steerable", **STEADY)
    trainer.train()
    return trainer


# ── who gets what ───────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.slow
def test_the_average_goes_to_the_majority(tmp_path):
    trainer = build(opposed(), tmp_path, max_steps=15, objective="average", logging_steps=15)
    trainer.train()
    assert share_of_yes(trainer.model).min() > 0.8
    logged = next(entry for entry in trainer.state.log_history if "plural/loss/urban" in entry)
    assert logged["plural/accuracy/rural"] < 0.2 < 0.8 < logged["plural/accuracy/urban"]
    assert (logged["plural/weight/urban"], logged["plural/weight/rural"]) == pytest.approx((0.7, 0.3))


def test_equal_weights_of_opposed_clusters_leave_the_policy_where_it_is(tmp_path):
    settings = {"max_steps": 3, "objective": "average", "optim": "sgd", "learning_rate": 1.0}
    balanced = build(opposed(), tmp_path, cluster_weights="uniform", **settings)
    rival = build(opposed(), tmp_path, **settings)
    before = log_odds(balanced.model)
    for trainer in (balanced, rival):
        trainer.train()
    assert np.abs(log_odds(balanced.model) - before).max() < 1e-4
    assert (log_odds(rival.model) - before).min() > 0.05


def test_a_steerable_policy_gives_each_cluster_its_own_answer(steerable):
    assert share_of_yes(steerable.model, URBAN).min() > 0.9
    assert share_of_yes(steerable.model, RURAL).max() < 0.1


@pytest.mark.slow
def test_the_mixture_keeps_every_clusters_share_where_nobody_is_named(tmp_path):
    trainer = build(opposed(), tmp_path, max_steps=60, objective="mixture", **STEADY)
    assert trainer.clusters.prevalence.tolist() == pytest.approx([0.3, 0.7])
    trainer.train()
    assert share_of_yes(trainer.model, URBAN).min() > 0.9
    assert share_of_yes(trainer.model, RURAL).max() < 0.1
    for words in (None, POPULATION):
        assert share_of_yes(trainer.model, words) == pytest.approx(0.7, abs=0.15)


def test_the_likelihood_of_the_chosen_response_keeps_probability_on_the_pair(steerable, tmp_path):
    """Both responses of a pair may lose to a third one, which a loss of pairs does not see."""
    bare = build(opposed(), tmp_path, max_steps=25, objective="steerable", **{**STEADY, "sft_coef": 0.0})
    bare.train()
    said = [steer_prompt(PROMPTS[0], words) for words in (URBAN, RURAL)]
    on_pair = [
        np.sum(answer_probabilities(t.model, TOKENIZER, said, [["yes", "no"]] * 2, progress=False), axis=1)
        for t in (bare, steerable)
    ]
    assert on_pair[0].max() < 0.5 < 0.8 < on_pair[1].min()


@pytest.mark.slow
def test_robust_training_serves_the_cluster_that_the_average_gives_up(tmp_path):
    """The many are divided on item b, the few are not; the average follows the slight majority of the many."""
    rows = [
        pair(PROMPTS[0], True, cluster="many", count=40),
        pair(PROMPTS[1], True, cluster="many", count=30),
        pair(PROMPTS[1], False, cluster="many", count=15),
        pair(PROMPTS[1], False, cluster="few", count=10),
    ]
    settings = {"max_steps": 30, "objective": "average", "logging_steps": 30}
    plain = build(Dataset.from_list(rows), tmp_path, **settings)
    plain.train()
    robust = build(Dataset.from_list(rows), tmp_path, **settings, robust=True, robust_learning_rate=0.3)
    robust.train()
    # beta = 0.1: the few are at margin -0.1 * log odds on item b, and lose 0.69 nats where they are indifferent.
    loss = {t: math.log1p(math.exp(0.1 * (log_odds(t.model)[1] - log_odds(t.ref_model)[1]))) for t in (plain, robust)}
    assert loss[robust] < 0.69 < loss[plain]
    assert robust.balance.weights[robust.clusters.names.index("few")] > 0.2 > 10 / 95
    logged = next(entry for entry in robust.state.log_history if "plural/robust_weight/few" in entry)
    assert 10 / 95 < logged["plural/robust_weight/few"] < float(robust.balance.weights[0]) + 1e-6


@pytest.mark.slow
def test_a_mixture_finds_the_clusters_of_raters_of_whom_only_choices_are_known(tmp_path):
    rows = [pair(p, rater < 2, rater_id=f"rater {rater}") for p in PROMPTS for rater in range(3)]
    trainer = build(
        Dataset.from_list(rows),
        tmp_path,
        max_steps=40,
        objective="mixture",
        beta=0.5,
        cluster_names=["red", "blue"],
        public_coef=0.0,
    )
    trainer.train()
    posterior = trainer.memberships.posterior()
    big = int(posterior[0].argmax())
    assert posterior[:2, big].min() > 0.9
    assert posterior[2, big] < 0.1
    words = [f"Answer as a member of this public: {name}." for name in ("red", "blue")]
    assert (
        share_of_yes(trainer.model, words[big]).min() > 0.8 > 0.2 > share_of_yes(trainer.model, words[1 - big]).max()
    )


# ── the loss is what it says ────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("loss_type", ["sigmoid", "ipo"])
def test_one_cluster_is_trls_own_trainer(loss_type, tmp_path):
    rows = [
        {"prompt": f"Item {c}:", "chosen": "yes" + " no" * n, "rejected": "no" + " good" * (4 - n)}
        for n, c in enumerate("abcde")
    ]
    settings = {"max_steps": 4, "learning_rate": 5e-3, "per_device_train_batch_size": 2, "loss_type": loss_type}
    settings |= {"logging_steps": 1, "max_length": 7}  # which cuts some of the responses
    settings = {**QUIET, **settings}
    theirs = DPOTrainer(
        policy(),
        policy(),
        DPOConfig(str(tmp_path), **settings),
        train_dataset=Dataset.from_list(rows),
        processing_class=TOKENIZER,
    )
    ours = build(Dataset.from_list(rows), tmp_path, objective="average", **settings)
    for trainer in (theirs, ours):
        trainer.train()
    names = ("loss", "rewards/margins", "rewards/chosen", "logps/rejected", "entropy", "num_tokens", "grad_norm")
    for mine, other in zip(ours.state.log_history[:-1], theirs.state.log_history[:-1], strict=True):
        assert [mine[n] for n in names] == pytest.approx([other[n] for n in names], rel=1e-6, abs=1e-6)
    for name, value in theirs.model.state_dict().items():
        assert torch.allclose(ours.model.state_dict()[name], value, atol=1e-6), name


def evaluated(trainer, rows) -> float:
    trainer.args.per_device_eval_batch_size = len(rows)
    return trainer.evaluate(Dataset.from_list(rows))["eval_loss"]


def test_the_loss_of_a_mixture_is_that_of_the_probabilities(steerable, tmp_path):
    """-log(q sigma(m_urban) + (1 - q) sigma(m_rural)), with margins against the reference at the plain prompt."""
    rows = [pair(PROMPTS[0], True, membership=[0.4, 0.6]), pair(PROMPTS[1], False, membership=[0.9, 0.1])]
    trainer = build(
        Dataset.from_list(rows),
        tmp_path,
        policy(steerable.model.state_dict()),
        objective="mixture",
        cluster_names=["urban", "rural"],
        public_coef=0.0,
    )
    base = log_odds(trainer.ref_model)
    margin = trainer.beta * np.stack([log_odds(trainer.model, words) - base for words in (URBAN, RURAL)], 1)
    margin[1] *= -1
    p = (np.array([[0.4, 0.6], [0.9, 0.1]]) / (1 + np.exp(-margin))).sum(1)
    assert evaluated(trainer, rows) == pytest.approx(-np.log(p).mean(), abs=1e-5)


def test_a_rater_of_two_minds_counts_under_both_prompts(steerable, tmp_path):
    rows = [pair(PROMPTS[0], True, membership={"urban": 0.25, "rural": 0.75})]
    trainer = build(Dataset.from_list(rows), tmp_path, policy(steerable.model.state_dict()))
    base = log_odds(trainer.ref_model)[0]
    nll = {
        n: math.log1p(math.exp(-0.1 * (log_odds(trainer.model, w)[0] - base)))
        for n, w in (("urban", URBAN), ("rural", RURAL))
    }
    assert evaluated(trainer, rows) == pytest.approx(0.25 * nll["urban"] + 0.75 * nll["rural"], abs=1e-5)


def test_ties_are_part_of_the_likelihood(tmp_path):
    """At the start every margin is 0: a tie has probability nu / (2 + nu) = 1/2, each side 1/4."""
    rows = [pair(PROMPTS[0], True, tie=True), pair(PROMPTS[1], True, tie=False)]
    trainer = build(Dataset.from_list(rows), tmp_path, objective="average", tie_propensity=2.0)
    assert evaluated(trainer, rows) == pytest.approx((math.log(2) + math.log(4)) / 2, abs=1e-6)


def test_a_precomputed_reference_is_the_reference(tmp_path):
    settings = {"max_steps": 3, "objective": "steerable", "logging_steps": 1}
    live, kept = (build(opposed(), tmp_path, **settings, precompute_ref_log_probs=p) for p in (False, True))
    for trainer in (live, kept):
        trainer.train()
    losses = [[entry["loss"] for entry in t.state.log_history if "loss" in entry] for t in (live, kept)]
    assert losses[0] == pytest.approx(losses[1], abs=1e-6)


def test_the_reference_of_an_adapter_is_the_model_without_it(tmp_path):
    lora = LoraConfig(r=4, target_modules=["q_proj", "v_proj"])
    trainer = build(opposed(), tmp_path, peft_config=lora, max_steps=4, objective="steerable", logging_steps=1)
    trainer.train()
    assert trainer.ref_model is None
    batch = next(iter(trainer.get_train_dataloader()))
    found = torch.stack(trainer.compute_ref_log_probs(trainer.model, batch), -1)
    base = build(opposed(), tmp_path)
    expected = torch.stack(base.compute_ref_log_probs(base.ref_model, batch), -1)
    assert torch.allclose(found, expected, atol=1e-5)
    moved = log_odds(trainer.model, URBAN) - log_odds(base.ref_model, URBAN)
    assert np.abs(moved).max() > 1e-3


# ── checkpoints ─────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("case", ["robust", "learnt"])
def test_a_resumed_run_is_the_unbroken_one(case, tmp_path):
    if case == "robust":
        data, settings = opposed(), {"objective": "steerable", "robust": True, "robust_learning_rate": 0.5}
        settings |= {"gradient_accumulation_steps": 2, "per_device_train_batch_size": 1}
    else:
        rows = [pair(p, rater < 2, rater_id=f"rater {rater}") for rater in range(3) for p in PROMPTS]
        data, settings = Dataset.from_list(rows), {"objective": "mixture", "cluster_names": ["red", "blue"]}
        settings |= {"per_device_train_batch_size": 2}
    settings |= {"max_steps": 4, "save_strategy": "steps", "save_steps": 2, "save_total_limit": 5}
    whole = build(data, tmp_path, **settings)
    whole.train()
    resumed = build(data, tmp_path, **settings)
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))
    for name, value in whole.model.state_dict().items():
        assert torch.equal(resumed.model.state_dict()[name], value), name
    assert torch.equal(resumed.balance.weights, whole.balance.weights)
    if case == "robust":
        assert float((whole.balance.weights - whole.balance.shares).abs().max()) > 1e-3
    else:
        assert np.array_equal(resumed.memberships.posterior(), whole.memberships.posterior())
        with pytest.raises(JuryError, match="from other judgements"):
            build(data.select([0, 2, 1, 3, 4, 5]), tmp_path, **settings).train(resume_from_checkpoint=True)
    (tmp_path / "checkpoint-2" / "plural_state.json").unlink()
    with pytest.raises(ValueError, match=r"has no plural_state\.json.*checkpoint-4"):
        build(data, tmp_path, **settings).train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))


def test_the_last_whole_checkpoint_outlives_a_kill(tmp_path, monkeypatch):
    settings = {
        "objective": "average",
        "max_steps": 3,
        "save_strategy": "steps",
        "save_steps": 1,
        "save_total_limit": 1,
    }
    save = PluralDPOTrainer._save_state

    def killed(trainer, folder):
        if trainer.state.global_step == 2:
            raise KeyboardInterrupt
        return save(trainer, folder)

    monkeypatch.setattr(PluralDPOTrainer, "_save_state", killed)
    with pytest.raises(KeyboardInterrupt):
        build(opposed(), tmp_path, **settings).train()
    monkeypatch.undo()
    build(opposed(), tmp_path, **settings).train(resume_from_checkpoint=tmp_path / "checkpoint-1")
    assert [path.name for path in tmp_path.glob("checkpoint-*")] == ["checkpoint-3"]


def test_a_checkpoint_of_other_clusters_is_refused(tmp_path):
    settings = {"objective": "average", "max_steps": 1, "save_strategy": "steps", "save_steps": 1}
    build(opposed(), tmp_path, **settings).train()
    state = json.loads((tmp_path / "checkpoint-1" / "plural_state.json").read_text())
    assert state["cluster_names"] == ["rural", "urban"]
    others = opposed().map(lambda row: {"cluster": row["cluster"].upper()})
    with pytest.raises(JuryError, match=r"clusters rural, urban.*RURAL, URBAN"):
        build(others, tmp_path, **{**settings, "max_steps": 2}).train(resume_from_checkpoint=True)


# ── the seam with TRL ──


def test_the_installed_trl_is_the_one_this_was_written_for():
    for name, parameters in _trl.DPO_OVERRIDDEN.items():
        assert list(inspect.signature(inspect.getattr_static(DPOTrainer, name)).parameters) == parameters
    methods = vars(PluralDPOTrainer) | vars(CheckpointedTrainer)
    ours = {name for name, method in methods.items() if hasattr(DPOTrainer, name) and inspect.isfunction(method)}
    assert ours - {"__init__", "train"} == set(_trl.DPO_OVERRIDDEN)
