"""`PluralGRPOTrainer` on a tiny language model: it ends at the target, and stock GRPO from the same start does not.

Exact mode scores every answer, sampled mode generates; what is reached is always read off exactly.
"""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from datasets import Dataset
from peft import LoraConfig
from transformers import AutoModelForCausalLM
from trl import GRPOConfig, GRPOTrainer

from plural_rlhf.core.shares import cluster_shares, retention
from plural_rlhf.core.targets import PoolTarget, pool_reward, responsibilities
from plural_rlhf.evaluation.answers import answer_probabilities
from plural_rlhf.rewards import JuryReward
from plural_rlhf.trainers import PluralGRPOConfig, PluralGRPOTrainer
from plural_rlhf.trainers.exact import ExactRows
from reward_models.errors import JuryError
from reward_models.modeling_jury import JuryRewardModel
from tests.juries import CPU, ELEVEN, TableJury, eleven_answers, flat_jury
from tests.tiny import tiny_causal_lm, tiny_tokenizer


TOKENIZER = tiny_tokenizer()
THREE = ["1", "2", "3"]


def three_answers() -> TableJury:
    """Two clusters of weight .7 and .3 whose favourites are 1 and 3, by 4 logits; anything else is worth -6."""
    return TableJury(
        {"1": [4.0, 0.0], "2": [0.0, 0.0], "3": [0.0, 4.0]}, ["left", "right"], [0.7, 0.3], otherwise=-6.0
    )


def rows(prompts: str, support: list[str] | None) -> Dataset:
    return Dataset.from_list([{"prompt": f"Item {c}: ", **({"support": support} if support else {})} for c in prompts])


def distribution(model, prompts: str, support: list[str]) -> torch.Tensor:
    """`(B, A)` probabilities of the answers, end token included."""
    texts = [f"Item {c}: " for c in prompts]
    found = answer_probabilities(model, TOKENIZER, texts, [support] * len(texts), progress=False)
    return torch.as_tensor(np.stack(found))


def js_with_other(p: torch.Tensor, q: torch.Tensor) -> float:
    """Jensen-Shannon divergence in nats, averaged over prompts; what `q` misses to one counts as another answer."""
    p = torch.cat([p, torch.zeros_like(p[..., :1])], -1)
    q = torch.cat([q, 1 - q.sum(-1, keepdim=True)], -1).clamp(min=0)
    m = (p + q) / 2
    kl = [torch.special.xlogy(x, x / m).nan_to_num().sum(-1) for x in (p, q)]
    return float((kl[0] + kl[1]).mean() / 2)


def train_exact(model, jury, data: Dataset, folder, steps: int, learning_rate: float = 1e-2, **settings):
    resume = settings.pop("resume", None)
    common = {**CPU, "per_device_train_batch_size": len(data), "lr_scheduler_type": "linear", **settings}
    args = PluralGRPOConfig(str(folder), exact=True, max_steps=steps, learning_rate=learning_rate, **common)
    trainer = PluralGRPOTrainer(model, jury, args, data, processing_class=TOKENIZER)
    trainer.train(resume_from_checkpoint=resume)
    return trainer


def mixture(jury: TableJury, answers: list[str], weights=None) -> torch.Tensor:
    """`sum_k w_k softmax(r_k)`, written out."""
    p = torch.tensor([jury.table[a] for a in answers], dtype=torch.float64).softmax(0)
    return p @ torch.as_tensor(jury.prevalence if weights is None else weights, dtype=torch.float64)


@pytest.mark.slow
def test_exact_mode_reaches_the_target_where_grpo_collapses(tmp_path):
    jury, data = eleven_answers(), rows("abcd", ELEVEN)
    model = tiny_causal_lm(TOKENIZER)
    train_exact(model, flat_jury(jury), data, tmp_path, 40, reference_power=0.0)
    warm = {name: value.clone() for name, value in model.state_dict().items()}
    uniform = distribution(model, "abcd", ELEVEN)
    assert float(uniform.sum(-1).min()) > 0.8
    assert float(uniform.max() / uniform.min()) < 2.5

    train_exact(model, jury, data, tmp_path, 70, reference_power=0.0)
    pi = distribution(model, "abcd", ELEVEN)
    target = mixture(jury, ELEVEN).expand(4, -1)
    assert js_with_other(target, pi) <= 0.002
    r = torch.tensor([jury.table[a] for a in ELEVEN], dtype=torch.float64)
    gamma = responsibilities(r, torch.as_tensor(jury.prevalence), r.logsumexp(0), 1.0)
    kept = retention(cluster_shares(pi, gamma), torch.as_tensor(jury.prevalence))
    assert float(kept.min()) >= 0.9

    model.load_state_dict(warm)
    args = GRPOConfig(
        str(tmp_path),
        max_steps=45,
        learning_rate=5e-3,
        lr_scheduler_type="constant",
        per_device_train_batch_size=32,
        num_generations=16,
        max_completion_length=4,
        **CPU,
    )
    GRPOTrainer(model, [JuryReward(jury, rule="mean")], args, data, processing_class=TOKENIZER).train()
    collapsed = distribution(model, "abcd", ELEVEN)
    assert js_with_other(target, collapsed) >= 0.1
    assert float(retention(cluster_shares(collapsed, gamma), torch.as_tensor(jury.prevalence)).min()) < 0.1


@pytest.fixture(scope="module")
def lopsided(tmp_path_factory):
    """A policy that gives the three answers about .6, .3 and .1, saved, since sampled training loads it as pi_ref."""
    folder = tmp_path_factory.mktemp("policy")
    preset = TableJury(
        dict(zip(THREE, [[math.log(0.6)], [math.log(0.3)], [math.log(0.1)]], strict=True)), ["a"], [1.0]
    )
    model = tiny_causal_lm(TOKENIZER)
    train_exact(model, preset, rows("ab", THREE), folder / "out", 50, reference_power=0.0)
    model.save_pretrained(folder / "policy")
    TOKENIZER.save_pretrained(folder / "policy")
    return str(folder / "policy")


def load(path: str):
    return AutoModelForCausalLM.from_pretrained(path, dtype="float32")


def test_nearly_equal_rewards_leave_the_reference_as_it_is(lopsided, tmp_path):
    """D1: with rewards .02 apart the policy stays at pi_ref."""
    reference = distribution(load(lopsided), "ab", THREE)
    model = load(lopsided)
    near_tie = TableJury({"1": [0.0, 0.02], "2": [0.01, 0.0], "3": [0.02, 0.0]}, ["left", "right"], [0.7, 0.3])
    train_exact(model, near_tie, rows("ab", THREE), tmp_path, 25, 3e-3, reference_power=1.0)
    pi = distribution(model, "ab", THREE)
    at_ref = reference / reference.sum(-1, keepdim=True)
    assert js_with_other(at_ref, pi) < 2e-3
    assert js_with_other(torch.full_like(pi, 1 / 3), pi) > 0.05  # a lost reference would have ended here


def test_the_reference_counts_in_the_target(lopsided, tmp_path):
    model = load(lopsided)
    jury = TableJury({"1": [1.0, 0.0], "2": [0.0, 0.0], "3": [0.0, 1.0]}, ["left", "right"], [0.7, 0.3])
    reference = distribution(model, "ab", THREE)
    r = torch.tensor([[jury.table[a] for a in THREE]] * 2, dtype=torch.float64)
    w = torch.as_tensor(jury.prevalence)
    target = PoolTarget().log_probs(r, w, reference.log()).exp()
    by_hand = 0
    for k in range(2):
        p_k = reference * r[..., k].exp()
        by_hand = by_hand + w[k] * p_k / p_k.sum(-1, keepdim=True)
    torch.testing.assert_close(target, by_hand)

    batch = ExactRows(JuryReward(jury), PoolTarget(), TOKENIZER, TOKENIZER.eos_token_id)
    batch.score_references(model, rows("ab", THREE), 2, progress=False)
    collated = batch.collate(list(rows("ab", THREE)))
    torch.testing.assert_close(collated["log_p"].exp().double(), target, atol=1e-6, rtol=0)
    torch.testing.assert_close(cluster_shares(collated["log_p"].exp(), collated["gamma"]), collated["weights"])

    train_exact(model, jury, rows("ab", THREE), tmp_path, 50, 5e-3)
    pi = distribution(model, "ab", THREE)
    assert js_with_other(target, pi) < 1e-3
    assert js_with_other(mixture(jury, THREE).expand(2, -1), pi) > 0.03  # the target without the reference


def test_weights_of_a_row_choose_its_target(tmp_path):
    jury = three_answers()
    weightings = [[1.0, 0.0], [0.0, 1.0], [0.5, 0.5]]
    data = rows("abc", THREE).add_column("weights", weightings)
    model = tiny_causal_lm(TOKENIZER)
    trainer = train_exact(model, jury, data, tmp_path, 60, 1e-2, reference_power=0.0, logging_steps=20)
    pi = distribution(model, "abc", THREE)
    for got, weights in zip(pi, weightings, strict=True):
        assert js_with_other(mixture(jury, THREE, weights)[None], got[None]) < 0.01
    last = [row for row in trainer.state.log_history if "plural/jsd_nats" in row][-1]
    assert last["plural/jsd_nats"] < 0.02
    assert last["plural/coverage"] > 0.95
    assert last["plural/share/left"] + last["plural/share/right"] == pytest.approx(last["plural/coverage"], abs=1e-4)


def test_a_support_column_turns_the_exact_mode_on(tmp_path):
    args = PluralGRPOConfig(
        str(tmp_path),
        per_device_train_batch_size=4,
        num_generations=2,
        max_steps=2,
        **{**CPU, "activation_checkpointing": True},
    )
    model = tiny_causal_lm(TOKENIZER)
    trainer = PluralGRPOTrainer(model, three_answers(), args, rows("abcd", THREE), processing_class=TOKENIZER)
    assert trainer.exact
    assert args.beta == 1.0
    trainer.train()
    assert [row["plural/coverage"] >= 0 for row in trainer.state.log_history] == [True]


def test_gradient_accumulation_is_a_larger_batch(tmp_path):
    """Two micro-batches of two prompts take the step that one batch of four takes."""
    jury, weights = three_answers(), []
    for batch, accumulate in ((4, 1), (2, 2)):
        model = tiny_causal_lm(TOKENIZER)
        train_exact(
            model,
            jury,
            rows("abcd", THREE),
            tmp_path,
            3,
            0.1,
            per_device_train_batch_size=batch,
            gradient_accumulation_steps=accumulate,
            optim="sgd",
        )
        weights.append(torch.cat([p.detach().flatten() for p in model.parameters()]))
    torch.testing.assert_close(weights[0], weights[1], atol=1e-5, rtol=0)
    start = torch.cat([p.detach().flatten() for p in tiny_causal_lm(TOKENIZER).parameters()])
    assert float((weights[0] - start).abs().max()) > 1e-3


def test_evaluation_reports_the_distance_to_the_target(tmp_path):
    args = PluralGRPOConfig(str(tmp_path), exact=True, per_device_train_batch_size=2, max_steps=1, **CPU)
    trainer = PluralGRPOTrainer(
        tiny_causal_lm(TOKENIZER),
        three_answers(),
        args,
        rows("ab", THREE),
        rows("cd", THREE),
        processing_class=TOKENIZER,
    )
    found = trainer.evaluate()
    assert found["eval_plural/jsd_nats"] == pytest.approx(math.log(2), abs=0.01)  # a random model says something else
    with pytest.raises(ValueError, match=r"'Item z: ' was not scored under the reference policy before training"):
        trainer.evaluate(rows("z", THREE))


# ── sampled mode ───────────────────────


def sampled(policy, reward, folder, steps: int, **settings) -> PluralGRPOTrainer:
    common = {
        **CPU,
        "per_device_train_batch_size": 32,
        "num_generations": 16,
        "max_completion_length": 4,
        "learning_rate": 1e-3,
        "lr_scheduler_type": "linear",
        **settings,
    }
    args = PluralGRPOConfig(str(folder), max_steps=steps, **common)
    return PluralGRPOTrainer(policy, reward, args, rows("ab", None), processing_class=TOKENIZER)


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings", [{}, {"estimator": "tb"}, {"num_iterations": 2}], ids=["vargrad", "tb", "two-iterations"]
)
def test_sampling_moves_towards_the_target(lopsided, tmp_path, settings):
    jury = three_answers()
    reference = distribution(load(lopsided), "ab", THREE)
    r = torch.tensor([[jury.table[a] for a in THREE]] * 2, dtype=torch.float64)
    target = PoolTarget().log_probs(r, torch.as_tensor(jury.prevalence), reference.log()).exp()
    trainer = sampled(lopsided, jury, tmp_path, 30, **settings)
    before = js_with_other(target, distribution(trainer.model, "ab", THREE))
    trainer.train()
    after = js_with_other(target, distribution(trainer.model, "ab", THREE))
    assert after < before / 2


def sequence_log_prob(model, prompt: list[int], completion: list[int]) -> torch.Tensor:
    logits = model(input_ids=torch.tensor([prompt + completion])).logits[0, len(prompt) - 1 : -1]
    return logits.log_softmax(-1)[torch.arange(len(completion)), torch.tensor(completion)].sum()


@pytest.mark.parametrize("estimator", ["vargrad", "tb"])
@pytest.mark.parametrize("num_iterations", [1, 2])
def test_one_step_is_the_score_function_gradient(lopsided, tmp_path, estimator, num_iterations):
    """Every sampled completion's residual, baseline and score, computed one by one from the text alone."""
    jury = three_answers()
    trainer = sampled(
        load(lopsided),
        jury,
        tmp_path,
        1,
        estimator=estimator,
        num_iterations=num_iterations,
        num_generations=4,
        per_device_train_batch_size=8,
    )
    model, frozen = trainer.model, load(lopsided)
    torch.manual_seed(0)
    with torch.no_grad():  # away from pi_ref, so that every term of the residual counts
        for parameter in model.parameters():
            parameter += 0.02 * torch.randn_like(parameter)
    model.train()
    given = [{"prompt": f"Item {c}: "} for c in "ab" for _ in range(4)]
    inputs = trainer._prepare_inputs(given)
    model.zero_grad()
    trainer.compute_loss(model, inputs).backward()
    ours = torch.cat([p.grad.flatten() for p in model.parameters()])

    prompts = [
        ids[mask.bool()].tolist() for ids, mask in zip(inputs["prompt_ids"], inputs["prompt_mask"], strict=True)
    ]
    completions = [
        ids[mask.bool()].tolist()
        for ids, mask in zip(inputs["completion_ids"], inputs["completion_mask"], strict=True)
    ]
    log_pi = torch.stack([sequence_log_prob(model, p, c) for p, c in zip(prompts, completions, strict=True)])
    with torch.no_grad():
        log_ref = torch.stack([sequence_log_prob(frozen, p, c) for p, c in zip(prompts, completions, strict=True)])
    texts = [TOKENIZER.decode(c, skip_special_tokens=True) for c in completions]
    r, w = jury.cluster_rewards(prompts, texts).double(), torch.as_tensor(jury.prevalence)
    coefficients = torch.zeros(8)
    for prompt in {tuple(p) for p in prompts}:
        group = [n for n, p in enumerate(prompts) if tuple(p) == prompt]
        assert len(group) == 4
        log_ratio = (log_ref - log_pi.detach())[group].double()
        # lambda_k of a prompt met for the first time: importance weighted, because the sampler is not pi_ref.
        log_z = torch.logsumexp(r[group] + log_ratio[:, None], 0) - math.log(4)
        d = pool_reward(r[group], w, log_z, 1.0, 1.0) + log_ratio
        for i, n in enumerate(group):
            others = [d[j] for j in range(4) if j != i]
            coefficients[n] = d[i] - (sum(others) / 3 if estimator == "vargrad" else d.mean())
    expected = torch.autograd.grad(-(coefficients * log_pi).mean(), list(model.parameters()))
    expected = torch.cat([g.flatten() for g in expected])
    assert float(coefficients.abs().max()) > 0.1
    torch.testing.assert_close(ours, expected, atol=1e-4 * float(expected.abs().max()), rtol=1e-3)


def test_a_peft_policy_is_its_own_reference(lopsided, tmp_path):
    args = PluralGRPOConfig(
        str(tmp_path),
        max_steps=2,
        per_device_train_batch_size=8,
        num_generations=4,
        max_completion_length=4,
        learning_rate=1e-2,
        **{**CPU, "logging_steps": 1},
    )
    trainer = PluralGRPOTrainer(
        lopsided,
        three_answers(),
        args,
        rows("ab", None),
        processing_class=TOKENIZER,
        peft_config=LoraConfig(r=4, target_modules=["q_proj", "v_proj"]),
    )
    trainer.train()
    first, second = (row["plural/kl"] for row in trainer.state.log_history if "plural/kl" in row)
    assert first == pytest.approx(0, abs=1e-5)  # the adapter starts as nothing
    assert abs(second) > 1e-4


# ── stopping and going on ───────────────────────


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
    whole = sampled(lopsided, three_answers(), tmp_path / "whole", 6, **settings)
    whole.train()
    checkpoint = tmp_path / "whole" / f"checkpoint-{killed_at}"
    saved = json.loads((checkpoint / "plural_state.json").read_text())["offsets"]
    assert sum(saved["updates"].values()) == killed_at
    resumed = sampled(lopsided, three_answers(), tmp_path / "resumed", 6, **settings)
    resumed.train(resume_from_checkpoint=str(checkpoint))
    torch.testing.assert_close(weights_of(resumed), weights_of(whole), atol=0, rtol=0)
    assert resumed.jury_reward.offsets.state_dict() == whole.jury_reward.offsets.state_dict()
    assert resumed.jury_reward.offsets.state_dict() != saved


# ── refusals ───────────────────────


def raw_jury_model() -> JuryRewardModel:
    from transformers import AutoModel

    backbone = AutoModel.from_config(tiny_causal_lm(TOKENIZER).config)
    return JuryRewardModel.from_fit(backbone, np.zeros((2, 32)), np.zeros(2), np.array([0.5, 0.5]), ["a", "b"])


def make(tmp_path, *, reward=None, data=None, policy=None, **settings):
    settings = {"exact": True, "per_device_train_batch_size": 2, **CPU, **settings}
    return PluralGRPOTrainer(
        policy or tiny_causal_lm(TOKENIZER),
        three_answers() if reward is None else reward,
        PluralGRPOConfig(str(tmp_path / "out"), **settings),
        rows("ab", THREE) if data is None else data,
        processing_class=TOKENIZER,
    )


def constant(prompts, completions, **columns):
    return [0.0] * len(prompts)


@pytest.mark.parametrize(
    ("reward", "message"),
    [
        (lambda: raw_jury_model(), r"is a JuryRewardModel itself.*first column.*JuryReward\('path"),
        (lambda: constant, r"one number a completion, but the target needs a reward per cluster.*JuryReward"),
        (lambda: [three_answers(), three_answers()], r"has 2 entries.*one JuryReward.*trl\.GRPOTrainer"),
        (
            lambda: JuryReward(three_answers(), beta=2.0),
            r"beta is 1\.0 in args and 2\.0 in the JuryReward.*set both to the same",
        ),
        (lambda: JuryReward(three_answers(), rho=0.0), r"rho is 1\.0 in args and 0\.0 in the JuryReward"),
    ],
    ids=["raw model", "function", "two", "beta", "rho"],
)
def test_rewards_that_define_no_target_are_refused(tmp_path, reward, message):
    with pytest.raises(ValueError, match=message):
        make(tmp_path, reward=reward())
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("support", "message"),
    [
        ([["1", "2"], ["1"]], r"row 1: support is \['1'\]: give at least two different answers"),
        ([["1", "2"], ["2", "3", "2"]], r"row 1: support is \['2', '3', '2'\].*different"),
        ([["1", " "], ["2", "3"]], r"row 0: support is \['1', ' '\].*none of them empty"),
        ([["1", "2"], None], r"row 1: support is None, but the exact mode needs the list.*exact=False"),
    ],
)
def test_supports_that_nothing_can_be_matched_on_are_refused(tmp_path, support, message):
    with pytest.raises(ValueError, match=message):
        make(tmp_path, data=Dataset.from_dict({"prompt": ["a", "b"], "support": support}))


def test_exact_mode_without_the_column_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"no column 'support' \(it has prompt\).*exact=False to sample"):
        make(tmp_path, data=rows("ab", None))


def test_a_policy_that_cannot_be_loaded_again_is_refused_for_sampling(tmp_path):
    with pytest.raises(ValueError, match=r"in memory only.*save it and pass its path.*peft_config.*exact mode"):
        make(tmp_path, exact=False, data=rows("ab", None), num_generations=2)


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        (["left", "rihgt"], r"'rihgt'.*Did you mean 'right'\?.*'left', 'right'"),
        ([[1.0, 0.0], [-1.0, 2.0]], r"at least 0"),
        ([[1.0, 0.0], [0.0, 0.0]], r"all zero"),
        ([[1.0, 0.0], [0.5, 0.25, 0.25]], r"shape \(3,\), but the jury has 2 clusters"),
    ],
)
def test_weights_of_every_row_are_checked_before_training(tmp_path, weights, message):
    good, bad = rows("ab", THREE), rows("ab", THREE).add_column("weights", weights)
    with pytest.raises(JuryError, match=message):
        make(tmp_path, data=bad)
    args = PluralGRPOConfig(str(tmp_path / "out"), exact=True, per_device_train_batch_size=2, **CPU)
    with pytest.raises(JuryError, match=message):
        PluralGRPOTrainer(tiny_causal_lm(TOKENIZER), three_answers(), args, good, bad, processing_class=TOKENIZER)
    assert not Path(tmp_path / "out").exists()
