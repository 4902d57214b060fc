"""`PluralGRPOTrainer` in sampled mode on a tiny language model: its gradient, its columns, and where it ends."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch
from datasets import Dataset
from peft import LoraConfig
from transformers import GPT2Config, GPT2LMHeadModel

from plural_rlhf.core.targets import log_partition, pool_reward
from plural_rlhf.rewards.validity_gate import ValidityGate
from plural_rlhf.trainers import PluralGRPOConfig, PluralGRPOTrainer, _trl
from plural_rlhf.trainers.grpo.exact import row_key
from plural_rlhf.trainers.grpo.generation_batch import GenerationBatch, Rollouts
from tests.juries import CPU
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
    scripted_completions,
    sequence_log_prob,
    spoken,
    three_answers,
    unpadded,
)


SMALL = {"num_generations": 4, "per_device_train_batch_size": 8}


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings",
    [{}, {"estimator": "tb"}, {"estimator": "js"}, {"estimator": "fkl"}, {"num_iterations": 2}, {"offsets": "ema"}],
    ids=["vargrad", "tb", "js", "fkl", "two-iterations", "ema"],
)
def test_sampling_moves_towards_the_target(lopsided, tmp_path, settings):
    jury = three_answers()
    reference = distribution(load(lopsided), "ab", THREE)
    target = pool_target(jury, reference.log())
    # JS starts with small coefficients: it is given a larger step.
    rate = {"js": 4e-3}.get(settings.get("estimator", ""), 1e-3)
    trainer = sampled_trainer(lopsided, jury, tmp_path, 30, learning_rate=rate, **settings)
    before = js_with_other(target, distribution(trainer.model, "ab", THREE))
    trainer.train()
    after = js_with_other(target, distribution(trainer.model, "ab", THREE))
    assert after < before / 2


@pytest.mark.parametrize("estimator", list(COEFFICIENTS))
@pytest.mark.parametrize("num_iterations", [1, 2])
def test_one_step_is_the_score_function_gradient(lopsided, tmp_path, estimator, num_iterations):
    """Every sampled completion's residual, coefficient and score, computed one by one from the text alone."""
    jury = three_answers()
    trainer = sampled_trainer(
        load(lopsided), jury, tmp_path, 1, estimator=estimator, num_iterations=num_iterations, **SMALL
    )
    model, frozen = perturbed(trainer), load(lopsided)
    inputs = trainer._prepare_inputs([{"prompt": f"Item {c}: "} for c in "ab" for _ in range(4)])
    ours = gradient(trainer, inputs)

    prompts = unpadded(inputs["prompt_ids"], inputs["prompt_mask"])
    completions = unpadded(inputs["completion_ids"], inputs["completion_mask"])
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
        coefficients[group] = COEFFICIENTS[estimator](d).float()
    expected = torch.autograd.grad(-(coefficients * log_pi).mean(), list(model.parameters()))
    expected = torch.cat([g.flatten() for g in expected])
    assert float(coefficients.abs().max()) > 0.1
    torch.testing.assert_close(ours, expected, atol=1e-4 * float(expected.abs().max()), rtol=1e-3)


def test_a_completion_that_is_used_again_has_the_residual_of_today(lopsided, tmp_path):
    """VarGrad is off-policy: after the policy moved, coefficients are those of its log-probabilities now."""
    trainer = sampled_trainer(load(lopsided), three_answers(), tmp_path, 1, num_iterations=2, **SMALL)
    trainer.model.train()
    inputs = trainer._prepare_inputs([{"prompt": f"Item {c}: "} for c in "ab" for _ in range(4)])
    gradient(trainer, inputs)
    drawn = rollouts_of(trainer).log_pi.clone()
    torch.testing.assert_close(drawn, rollouts_of(trainer).log_pi_drawn, atol=1e-4, rtol=0)
    perturbed(trainer)
    gradient(trainer, inputs)
    rollouts = rollouts_of(trainer)
    prompts = unpadded(inputs["prompt_ids"], inputs["prompt_mask"])
    completions = unpadded(inputs["completion_ids"], inputs["completion_mask"])
    with torch.no_grad():
        now = [sequence_log_prob(trainer.model, p, c) for p, c in zip(prompts, completions, strict=True)]
    torch.testing.assert_close(rollouts.log_pi, torch.stack(now), atol=1e-4, rtol=0)
    assert float((rollouts.log_pi - drawn).abs().max()) > 0.01
    d = (rollouts.reward + rollouts.log_pi_ref - rollouts.log_pi).view(2, 4)
    expected = torch.stack([COEFFICIENTS["vargrad"](group) for group in d]).view(-1)
    torch.testing.assert_close(rollouts.coefficients("vargrad"), expected)


def test_a_prompt_computed_once_gives_the_gradient_of_every_row_by_itself(lopsided, tmp_path):
    found = []
    for shared in (True, False):
        trainer = sampled_trainer(load(lopsided), three_answers(), tmp_path, 1, shared_prefix=shared, **SMALL)
        perturbed(trainer)
        torch.manual_seed(1)
        inputs = trainer._prepare_inputs([{"prompt": f"Item {c}: "} for c in "ab" for _ in range(4)])
        found.append((inputs["completion_ids"], gradient(trainer, inputs)))
    assert torch.equal(found[0][0], found[1][0])  # the same draws, too
    torch.testing.assert_close(found[0][1], found[1][1], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("shared", [True, False])
def test_learnt_positions_are_counted_from_a_prompts_first_token(tmp_path, shared):
    """A model of GPT-2's kind and two lengths of prompt: log π and log π₀ are those of each sequence by itself."""
    ends = {"bos_token_id": TOKENIZER.bos_token_id, "eos_token_id": TOKENIZER.eos_token_id}
    no_dropout = dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), 0.0)
    config = GPT2Config(
        vocab_size=len(TOKENIZER), n_positions=64, n_embd=32, n_layer=2, n_head=2, **ends, **no_dropout
    )
    model = GPT2LMHeadModel(config).eval()
    torch.nn.init.normal_(model.transformer.wpe.weight, std=0.5)
    model.save_pretrained(tmp_path / "policy")
    trainer = sampled_trainer(str(tmp_path / "policy"), three_answers(), tmp_path, 1, shared_prefix=shared, **SMALL)
    trainer.model.train()
    rows = trainer._prepare_inputs([{"prompt": p} for p in ("Item a: ", "Item a, item b: ") for _ in range(4)])
    prompts = unpadded(rows["prompt_ids"], rows["prompt_mask"])
    completions = unpadded(rows["completion_ids"], rows["completion_mask"])
    assert len({len(prompt) for prompt in prompts}) == 2
    expected = torch.stack([sequence_log_prob(model, p, c) for p, c in zip(prompts, completions, strict=True)])
    for found in (
        rollouts_of(trainer).log_pi,
        rollouts_of(trainer).log_pi_ref,
    ):
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)


def test_end_tokens_count_padding_and_tool_answers_do_not(lopsided, tmp_path):
    """Exact sequence log-probabilities, token by token: one ended, one cut short, one with tokens of a tool."""
    trainer = sampled_trainer(
        load(lopsided),
        three_answers(),
        tmp_path,
        1,
        **{**SMALL, "num_generations": 3, "per_device_train_batch_size": 3},
    )
    model = perturbed(trainer)
    prompt = TOKENIZER("Item a: ")["input_ids"]
    one, two = (TOKENIZER(answer, add_special_tokens=False)["input_ids"][0] for answer in "12")
    eos = TOKENIZER.eos_token_id
    completions = [[one, eos], [one, two, one, two], [two, one, one, eos]]
    own = [[1, 1], [1, 1, 1, 1], [1, 0, 0, 1]]  # the third asked a tool, which said "11"
    pad = TOKENIZER.pad_token_id
    inputs = {
        "prompt_ids": torch.tensor([prompt] * 3),
        "prompt_mask": torch.ones(3, len(prompt), dtype=torch.long),
        "completion_ids": torch.tensor([c + [pad] * (4 - len(c)) for c in completions]),
        "completion_mask": torch.tensor([[1] * len(c) + [0] * (4 - len(c)) for c in completions]),
        "tool_mask": torch.tensor([m + [1] * (4 - len(m)) for m in own]),
        "row": torch.arange(3),
    }
    brute = []
    for completion, mine in zip(completions, own, strict=True):
        total = torch.zeros(())
        for t, (token, counts) in enumerate(zip(completion, mine, strict=True)):
            logits = model(input_ids=torch.tensor([prompt + completion[:t]])).logits[0, -1]
            total = total + counts * logits.log_softmax(-1)[token]
        brute.append(total)
    zeros = torch.zeros(3)
    trainer.sampled_mode.generations["train"] = batch = GenerationBatch(3)
    batch.rollouts = Rollouts(zeros, zeros, zeros.clone(), zeros, zeros, 3)
    trainer.compute_loss(model, inputs)
    torch.testing.assert_close(rollouts_of(trainer).log_pi, torch.stack(brute).detach(), atol=1e-4, rtol=0)


@pytest.mark.parametrize("variance_reduction", ["none", "rao_blackwell"])
def test_a_peft_policy_is_its_own_reference(lopsided, tmp_path, variance_reduction):
    args = PluralGRPOConfig(
        str(tmp_path),
        max_steps=2,
        max_completion_length=4,
        learning_rate=1e-2,
        variance_reduction=variance_reduction,
        **SMALL,
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


@pytest.mark.parametrize(
    "settings",
    [
        {"gradient_accumulation_steps": 2, "per_device_train_batch_size": 4},
        {"steps_per_generation": 2, "gradient_accumulation_steps": 1, "per_device_train_batch_size": 4},
        {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 4},
        {"gradient_checkpointing": True},
        {"variance_reduction": "reward_to_go"},
        {"variance_reduction": "rao_blackwell"},
        {"variance_reduction": "prefix_rewards", "prefix_every": 1},
        {"n_ref": 3},
    ],
    ids=lambda s: "-".join(s),
)
def test_settings_of_trl_train(lopsided, tmp_path, settings):
    before = load(lopsided).state_dict()
    trainer = sampled_trainer(lopsided, three_answers(), tmp_path, 2, logging_steps=1, **{**SMALL, **settings})
    trainer.train()
    logged = [row for row in trainer.state.log_history if "plural/kl" in row]
    assert len(logged) >= 1
    assert all(math.isfinite(value) for row in logged for key, value in row.items() if key.startswith("plural/"))
    assert any(not torch.equal(value, before[name]) for name, value in trainer.model.state_dict().items())


def test_gradient_accumulation_is_a_larger_batch(lopsided, tmp_path):
    """Groups that are spread over micro-batches take the step that whole ones take."""
    found = []
    for batch, accumulate in ((8, 1), (4, 2), (2, 4)):
        settings = {"gradient_accumulation_steps": accumulate, "per_device_train_batch_size": batch, "optim": "sgd"}
        trainer = sampled_trainer(
            lopsided,
            three_answers(),
            tmp_path,
            1,
            num_generations=4,
            learning_rate=0.1,
            shuffle_dataset=False,
            **settings,
        )
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(_trl, "generate", _trl.generate)
            scripted_completions(trainer)
            trainer.train()
        found.append(torch.cat([p.detach().flatten() for p in trainer.model.parameters()]))
    torch.testing.assert_close(found[1], found[0], atol=1e-5, rtol=0)
    torch.testing.assert_close(found[2], found[0], atol=1e-5, rtol=0)


def test_exact_offsets_are_log_z(lopsided, tmp_path):
    jury = three_answers()
    data = rows("ab", THREE)
    trainer = sampled_trainer(lopsided, jury, tmp_path, 1, data=data, exact=False, offsets="exact", **SMALL)
    log_ref = distribution(trainer.model, "ab", THREE).log()
    trainer.train()
    r = torch.tensor([[jury.table[a] for a in THREE]] * 2, dtype=torch.float64)
    found = trainer.jury_reward.offsets.get([row_key(row) for row in data])
    torch.testing.assert_close(found, log_partition(r, log_ref, 1.0), atol=1e-4, rtol=0)


@pytest.mark.parametrize("awaited", [False, True], ids=["at once", "async"])
def test_other_reward_functions_add_and_a_gate_forbids(lopsided, tmp_path, awaited):
    """Six completions scored by hand: the length reward joins every cluster, invalid ones fall below all valid."""
    jury = three_answers()

    def length(prompts, completions, **columns):
        return [None if c == "2" else float(len(c)) for c in completions]

    def not_three(prompts, completions, **columns):
        return [float(c != "3") for c in completions]

    async def not_three_later(**columns):
        return not_three(**columns)

    gate = ValidityGate(not_three_later if awaited else not_three)
    trainer = sampled_trainer(
        lopsided,
        [jury, length, gate],
        tmp_path,
        1,
        reward_weights=[2.0, 0.5, 1.0],
        num_generations=4,
        per_device_train_batch_size=4,
    )
    answers = ["1", "2", "3", "1"]

    def complete(trainer, prompt_ids):
        ids = spoken(answers)
        return ids, [[float("nan")] * len(row) for row in ids]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_trl, "generate", complete)
        trainer.model.train()
        trainer._prepare_inputs([{"prompt": "Item a: "}] * 4)
    r = torch.tensor([[8.5, 0.5], [0.0, 0.0], [-10.0, -10.0], [8.5, 0.5]], dtype=torch.float64)
    log_z = r.logsumexp(0) - math.log(4)
    expected = pool_reward(r, torch.as_tensor(jury.prevalence), log_z, 1.0, 1.0)
    torch.testing.assert_close(rollouts_of(trainer).reward.double(), expected, atol=1e-4, rtol=0)


def test_rows_with_and_without_a_support_in_one_batch(lopsided, tmp_path):
    """The loss is the mean over completions, a row with a support standing for as many as would have been drawn."""
    data = Dataset.from_list([{"prompt": "Item a: ", "support": THREE}, {"prompt": "Item b: ", "support": None}])
    trainer = sampled_trainer(lopsided, three_answers(), tmp_path, 2, data=data, logging_steps=1, **SMALL)
    assert (trainer.exact, trainer.mixed) == (False, True)
    trainer._before_training()
    batch = [row for row in data for _ in range(4)]
    trainer.model.train()
    inputs = trainer._prepare_inputs(batch)
    assert inputs["completion_ids"].shape[0] == 4
    assert inputs["exact/answer_ids"].shape[:2] == (1, 3)
    alone = {name: value for name, value in inputs.items() if not name.startswith("exact/")}
    answered = {name: value for name, value in inputs.items() if name.startswith("exact/")}
    whole, sampled_part, exact_part = (
        trainer.compute_loss(trainer.model, x).item() for x in (inputs, alone, answered)
    )
    assert whole == pytest.approx((sampled_part + exact_part) / 2, rel=1e-5)
    trainer.train()
    logged = [row for row in trainer.state.log_history if "plural/jsd_nats" in row]
    assert all("plural/kl" in row for row in logged)
    assert len(logged) == 2


def test_the_reference_sees_its_own_prompt(lopsided, tmp_path):
    """A steered prompt changes the policy; pi_ref is that of the question itself."""
    trainer = sampled_trainer(lopsided, three_answers(), tmp_path, 1, **SMALL)
    given = [{"prompt": "Say 1. Item a: ", "reference_prompt": "Item a: "}] * 4
    trainer.model.train()
    inputs = trainer._prepare_inputs(given)
    completions = unpadded(inputs["completion_ids"], inputs["completion_mask"])
    plain = TOKENIZER("Item a: ")["input_ids"]
    with torch.no_grad():
        log_ref = torch.stack([sequence_log_prob(load(lopsided), plain, c) for c in completions])
    torch.testing.assert_close(rollouts_of(trainer).log_pi_ref, log_ref, atol=1e-4, rtol=0)


def with_engine(trainer, logprob: float) -> list[tuple[int, int]]:
    """Puts a stand-in for vLLM into a trainer, and takes away what TRL makes without it; returns what it is asked."""
    asked = []

    def generate(prompts, images, num_generations, profiler):
        asked.append((len(prompts), num_generations))
        ids = [[*TOKENIZER(a, add_special_tokens=False)["input_ids"], TOKENIZER.eos_token_id] for a in "1231"]
        ids = ids * (len(prompts) // len(ids))
        return prompts, ids, [[[logprob]] * len(row) for row in ids], None

    trainer.use_vllm, trainer.vllm_importance_sampling_correction = True, False
    trainer._last_loaded_step = trainer.state.global_step
    trainer.vllm_generation = SimpleNamespace(generate=generate, sync_weights=lambda: None)
    del trainer.generation_config, trainer.generation_kwargs
    return asked


@pytest.mark.parametrize("logprob", [-0.5, float("nan")], ids=["given", "missing"])
def test_completions_of_vllm_are_taken_as_they_come(lopsided, tmp_path, logprob):
    """The engine is a stand-in: what matters is what is asked of it and what is made of its answer."""
    trainer = sampled_trainer(lopsided, three_answers(), tmp_path, 1, **SMALL)
    asked = with_engine(trainer, logprob)
    trainer.model.train()
    inputs = trainer._prepare_inputs([{"prompt": "Item a: "}] * 4)
    assert asked == [(4, 4)]
    if math.isnan(logprob):
        with torch.no_grad():
            completions = unpadded(inputs["completion_ids"], inputs["completion_mask"])
            plain = TOKENIZER("Item a: ")["input_ids"]
            expected = torch.stack([sequence_log_prob(trainer.model, plain, c) for c in completions])
    else:
        expected = torch.full((4,), -1.0)
    torch.testing.assert_close(rollouts_of(trainer).log_pi_drawn, expected, atol=1e-4, rtol=0)


def test_the_reference_draws_beside_vllm(lopsided, tmp_path):
    """The engine holds the policy alone, so offsets start from what transformers samples from the reference."""
    torch.manual_seed(0)
    trainer = sampled_trainer(lopsided, three_answers(), tmp_path, 1, n_ref=16, max_completion_length=2, **SMALL)
    with_engine(trainer, -0.5)
    # What the folder of a model asks for is not the distribution that is matched.
    trainer.ref_model.generation_config.update(do_sample=False, top_k=1, min_p=0.9)
    drawn, _ = _trl.reference_generate(trainer, [TOKENIZER("Item a: ")["input_ids"]] * 200)
    said = [TOKENIZER.decode(ids, skip_special_tokens=True) for ids in drawn]
    for answer, share in zip(THREE, (0.6, 0.3, 0.1), strict=True):  # 4 standard errors of 200 draws
        assert said.count(answer) / 200 == pytest.approx(share, abs=0.14)
    assert max(map(len, drawn)) <= 2
    trainer.train()
    assert trainer.state.global_step == 1


def test_conversations_and_plain_prompts_train_alike(lopsided, tmp_path):
    data = Dataset.from_list([{"prompt": [{"role": "user", "content": f"Item {c}"}]} for c in "ab"])
    trainer = sampled_trainer(lopsided, three_answers(), tmp_path, 1, data=data, logging_steps=1, **SMALL)
    trainer.train()
    assert any("plural/kl" in row for row in trainer.state.log_history)
