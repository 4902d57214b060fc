"""`PluralGRPOTrainer` in exact mode on a tiny language model: it ends at the target, and stock GRPO does not."""

from __future__ import annotations

import copy
import math
from functools import partial

import pytest
import torch
from scipy.optimize import minimize
from trl import GRPOConfig, GRPOTrainer

from plural_rlhf.core.rules import aggregate
from plural_rlhf.core.shares import cluster_shares, retention
from plural_rlhf.core.targets import PoolTarget, responsibilities
from plural_rlhf.policies.answers import encode_prompt
from plural_rlhf.rewards.jury_reward import JuryReward
from plural_rlhf.trainers import PluralGRPOConfig, PluralGRPOTrainer
from plural_rlhf.trainers.grpo.exact import ExactRows
from reward_models.errors import JuryError
from tests.juries import CPU, ELEVEN, TableJury, eleven_answers, flat_jury
from tests.policies import (
    THREE,
    TOKENIZER,
    distribution,
    js_with_other,
    load,
    mixture,
    rows,
    three_answers,
    train_exact,
)
from tests.tiny import tiny_causal_lm


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
    GRPOTrainer(
        model, [JuryReward(jury, rule="mean", check_trainer=False)], args, data, processing_class=TOKENIZER
    ).train()
    collapsed = distribution(model, "abcd", ELEVEN)
    assert js_with_other(target, collapsed) >= 0.1
    assert float(retention(cluster_shares(collapsed, gamma), torch.as_tensor(jury.prevalence)).min()) < 0.1


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

    encode = partial(encode_prompt, tokenizer=TOKENIZER)
    batch = ExactRows(JuryReward(jury), TOKENIZER, TOKENIZER.eos_token_id, encode)
    batch.score_references(model, rows("ab", THREE), 2, progress=False)
    collated = batch.collate(list(rows("ab", THREE)))
    torch.testing.assert_close(collated["log_p"].exp().double(), target, atol=1e-6, rtol=0)
    torch.testing.assert_close(cluster_shares(collated["log_p"].exp(), collated["gamma"]), collated["weights"])

    train_exact(model, jury, rows("ab", THREE), tmp_path, 50, 5e-3)
    pi = distribution(model, "ab", THREE)
    assert js_with_other(target, pi) < 1e-3
    assert js_with_other(mixture(jury, THREE).expand(2, -1), pi) > 0.03  # the target without the reference


@pytest.mark.slow
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


def test_activation_checkpointing_changes_nothing_but_memory(tmp_path):
    found = []
    for on in (False, True):
        model = tiny_causal_lm(TOKENIZER)
        settings = {"activation_checkpointing": on, "optim": "sgd"}
        trainer = train_exact(model, three_answers(), rows("abcd", THREE), tmp_path, 2, 0.1, **settings)
        assert trainer.model.is_activation_checkpointing is on
        found.append(torch.cat([p.detach().flatten() for p in model.parameters()]))
    torch.testing.assert_close(found[0], found[1], atol=1e-6, rtol=0)


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


@pytest.mark.parametrize(
    "options",
    [
        {"tie_margin": 1.0},
        {"tie_margin": 1.0, "uniform_floor": 1.0},
        {"typicality_alpha": 0.6},
        {"reference_power": 0.5},
        {"rho": -2.0},
    ],
    ids=lambda o: "-".join(o),
)
def test_options_of_the_target_reach_the_loss(lopsided, tmp_path, options):
    """The target of a batch is `PoolTarget`'s, option by option, and another one than without the option."""
    jury, model = three_answers(), load(lopsided)
    log_ref = distribution(model, "ab", THREE).log()
    r = torch.tensor([[jury.table[a] for a in THREE]] * 2, dtype=torch.float64)
    args = PluralGRPOConfig(str(tmp_path), exact=True, per_device_train_batch_size=2, **options, **CPU)
    trainer = PluralGRPOTrainer(model, jury, args, rows("ab", THREE), processing_class=TOKENIZER)
    trainer._before_training()
    found = trainer._prepare_inputs(list(rows("ab", THREE)))["log_p"].exp().double()
    expected = PoolTarget(**options).log_probs(r, torch.as_tensor(jury.prevalence), log_ref).exp()
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
    plain = PoolTarget().log_probs(r, torch.as_tensor(jury.prevalence), log_ref).exp()
    assert float((plain - expected).abs().max()) > 0.01


def test_a_rule_of_a_row_chooses_its_target(lopsided, tmp_path):
    """π₀ exp(R / beta) with R by the rule, pointwise or of the group of all answers; the pool where a row has none."""
    jury, model, beta = three_answers(), load(lopsided), 0.5
    log_ref = distribution(model, "abcd", THREE).log()
    r = torch.tensor([jury.table[a] for a in THREE], dtype=torch.float64)
    rules = ["mean", "power_mean(p=-2)", "borda", None]
    data = rows("abcd", THREE).add_column("rule", rules)
    args = PluralGRPOConfig(str(tmp_path), exact=True, per_device_train_batch_size=4, beta=beta, **CPU)
    reward = JuryReward(jury, beta=beta, calibrated=False)
    trainer = PluralGRPOTrainer(model, reward, args, data, processing_class=TOKENIZER)
    trainer._before_training()
    found = trainer._prepare_inputs(list(data))["log_p"].double()
    for row, rule in enumerate(rules[:3]):
        scores = aggregate(r, jury.prevalence, rule)
        torch.testing.assert_close(found[row], (scores / beta + log_ref[row]).log_softmax(-1), atol=1e-5, rtol=0)
    pool = PoolTarget(beta=beta).log_probs(r[None], torch.as_tensor(jury.prevalence), log_ref[3:])
    torch.testing.assert_close(found[3:], pool, atol=1e-5, rtol=0)
    with pytest.raises(JuryError, match=r"'power_mean\(p=-2\)' compares"):
        PluralGRPOTrainer(model, jury, args, data, processing_class=TOKENIZER)


@pytest.mark.slow
def test_a_kl_budget_is_spent_and_no_more(lopsided, tmp_path):
    """beta moves until the policy is as far from pi_ref as was asked, and the target moves with it."""
    model, budget = load(lopsided), 0.3
    at_ref = distribution(model, "ab", THREE)
    settings = {"kl_budget": budget, "kl_budget_learning_rate": 0.3, "logging_steps": 1}
    trainer = train_exact(model, three_answers(), rows("ab", THREE), tmp_path, 90, 5e-3, **settings)
    pi, at_ref = (p / p.sum(-1, keepdim=True) for p in (distribution(model, "ab", THREE), at_ref))
    kl = float((pi * (pi / at_ref).log()).sum(-1).mean())
    assert kl == pytest.approx(budget, abs=0.05)
    betas = [row["plural/beta"] for row in trainer.state.log_history if "plural/beta" in row]
    assert betas[0] == 1.0
    assert betas[-1] == pytest.approx(trainer.multipliers.kl_budget.beta, rel=1e-6)
    assert betas[-1] > 1.05


@pytest.mark.slow
def test_max_min_ends_at_the_saddle_point(tmp_path):
    """Three answers, two clusters: what `min_w log Z(w)` of the convex dual says, found by a second method."""
    table = {"1": [3.0, -1.0], "2": [0.5, 0.0], "3": [-1.0, 1.0]}
    jury = TableJury(table, ["left", "right"], [0.9, 0.1], calibrated=True)
    r = torch.tensor([table[a] for a in THREE], dtype=torch.float64)
    gain = r - r.mean(0)  # above the uniform reference
    dual = minimize(lambda w: float(torch.logsumexp(gain @ torch.tensor([w[0], 1 - w[0]]), 0)), [0.5], bounds=[(0, 1)])
    w = torch.tensor([dual.x[0], 1 - dual.x[0]])
    model = tiny_causal_lm(TOKENIZER)
    settings = {"rho": 0.0, "max_min": True, "max_min_learning_rate": 0.3, "reference_power": 0.0}
    trainer = train_exact(model, jury, rows("ab", THREE), tmp_path, 100, 1e-2, **settings)
    torch.testing.assert_close(trainer.multipliers.max_min.weights, w, atol=0.03, rtol=0)
    pi = distribution(model, "ab", THREE)
    assert js_with_other((gain @ w).softmax(0).expand(2, -1), pi) < 2e-3
    gained = (pi / pi.sum(-1, keepdim=True)) @ gain
    assert float((gained[:, 0] - gained[:, 1]).abs().max()) < 0.15
    assert float(((r @ torch.as_tensor(jury.prevalence)).softmax(0) @ gain)[1]) < -0.3  # what prevalence would leave


def test_a_steerable_policy_is_trained_on_weights_it_is_told(tmp_path):
    jury = three_answers()
    settings = {"steerable": True, "seed": 3, "steer_vertex_share": 0.5, "steer_prevalence_share": 0.25}
    args = PluralGRPOConfig(str(tmp_path), exact=True, per_device_train_batch_size=4, max_steps=1, **settings, **CPU)
    trainer = PluralGRPOTrainer(tiny_causal_lm(TOKENIZER), jury, args, rows("abcd", THREE), processing_class=TOKENIZER)
    trainer.model.train()
    data = list(rows("abcd", THREE))
    steered = trainer._with_weights(data, 1)
    assert [row["jury_prompt"] for row in steered] == [row["prompt"] for row in data]
    for row, w in zip(steered, trainer.weight_sampler.draw(4, 0), strict=True):
        assert row["weights"] == w.tolist()
        assert row["prompt"] == trainer.weight_sampler.render(row["reference_prompt"], w)
        assert row["prompt"] != row["reference_prompt"]
    assert trainer._with_weights(data, 1) == steered  # the draw depends on the step alone
    batch = trainer.exact_rows
    trainer._before_training()
    collated = batch.collate(steered)
    unsteered = [{**row, "prompt": row["reference_prompt"]} for row in steered]
    # pi_ref and the jury see the question alone: the target is that of the plain prompt under these weights.
    torch.testing.assert_close(collated["log_p"], batch.collate(unsteered)["log_p"])
    assert collated["prompt_ids"].shape != batch.collate(unsteered)["prompt_ids"].shape


def test_a_copy_of_a_trained_policy_learns_in_its_own_weights(tmp_path):
    trained, data = tiny_causal_lm(TOKENIZER), rows("ab", THREE)
    train_exact(trained, three_answers(), data, tmp_path, 1)
    before = distribution(trained, "ab", THREE)
    model = copy.deepcopy(trained)  # TRL has patched its forward, which goes on to compute with `trained`
    train_exact(model, three_answers(), data, tmp_path, 5)
    torch.testing.assert_close(distribution(trained, "ab", THREE), before)
    assert (distribution(model, "ab", THREE).sum(-1) > 10 * before.sum(-1)).all()


@pytest.mark.parametrize("quiet", [True, False])
def test_bars_are_shown_unless_they_are_switched_off(tmp_path, capsys, quiet):
    """Of the scores under the reference, before a training, as of its steps."""
    settings = {"per_device_eval_batch_size": 1, "disable_tqdm": quiet}
    train_exact(tiny_causal_lm(TOKENIZER), three_answers(), rows("abcd", THREE), tmp_path, 1, **settings)
    printed = capsys.readouterr().err
    assert ("reference: 100%" in printed) == (not quiet)
    assert ("%|" in printed) == (not quiet)
