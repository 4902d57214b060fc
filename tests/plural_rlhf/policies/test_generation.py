"""Rollouts with a shared prefix are the samples of plain `generate`, with the model's own log-probabilities."""

from __future__ import annotations

import pytest
import torch
import transformers
from peft import LoraConfig, get_peft_model
from transformers import AutoConfig, AutoModelForCausalLM, GenerationConfig

from plural_rlhf.policies.generation import generate_with_shared_prefix
from plural_rlhf.policies.log_probs import pad_left
from tests.tiny import tiny_causal_lm


PAD = 2
EOS = [PAD, *range(300, 340)]  # many, so that completions end at different steps; padding is one of them
LONG, SHORT, ONE = list(range(20, 34)), [7, PAD, 9, 11, 13], [5]
GROUPS = {
    "one prompt": [LONG] * 6,
    "several prompts": [LONG] * 4 + [SHORT] * 4 + [ONE] * 4,
    "prompts that return": [SHORT, LONG, LONG, SHORT, SHORT, LONG],
    "one token": [ONE] * 5,
    "nothing shared": [LONG, SHORT, ONE],
}


def settings(**more) -> GenerationConfig:
    fields = {"max_new_tokens": 10, "do_sample": True, "top_k": 0, "pad_token_id": PAD, "eos_token_id": EOS}
    return GenerationConfig(**{**fields, **more})


def plain(model, prompts, config) -> list[list[int]]:
    """Completions of `generate` itself, cut after the first end token."""
    ids, mask = pad_left(prompts, PAD)
    torch.manual_seed(4)
    with torch.no_grad():
        out = model.generate(input_ids=ids, attention_mask=mask, generation_config=config)
    rows = out[:, ids.shape[1] :].tolist()
    ends = [next((t for t, token in enumerate(row) if token in EOS), len(row)) for row in rows]
    return [row[: end + 1] for row, end in zip(rows, ends, strict=True)]


def ours(model, prompts, config):
    torch.manual_seed(4)
    return generate_with_shared_prefix(model, prompts, config, PAD, EOS)


def alone(model, prompt: list[int], completion: list[int]) -> torch.Tensor:
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([prompt + completion]), use_cache=False).logits[0, len(prompt) - 1 : -1]
    return logits.float().log_softmax(-1)[torch.arange(len(completion)), torch.tensor(completion)]


def assert_same_samples(model, prompts, config) -> None:
    completions, log_probs = ours(model, prompts, config)
    assert completions == plain(model, prompts, config)
    for prompt, completion, found in zip(prompts, completions, log_probs, strict=True):
        torch.testing.assert_close(torch.tensor(found), alone(model, prompt, completion), atol=1e-5, rtol=0)


@pytest.mark.parametrize("prompts", GROUPS.values(), ids=GROUPS.keys())
def test_samples_are_those_of_generate_and_log_probabilities_those_of_a_forward_pass(prompts):
    model = tiny_causal_lm()
    assert_same_samples(model, prompts, settings())
    assert_same_samples(model, prompts, settings(do_sample=False, top_k=None))


def test_the_end_token_is_kept_and_nothing_after_it():
    completions, log_probs = ours(tiny_causal_lm(), [LONG] * 40, settings())
    assert [len(c) for c in completions] == [len(row) for row in log_probs]
    assert all(token not in EOS for completion in completions for token in completion[:-1])
    ended = [completion for completion in completions if completion[-1] in EOS]
    assert 0 < len(ended) < 40  # else the test shows nothing
    assert all(len(completion) == 10 for completion in completions if completion not in ended)


def test_each_prompt_is_prefilled_once():
    model = tiny_causal_lm()
    passes: list[tuple[int, ...]] = []
    model.get_input_embeddings().register_forward_hook(lambda m, inputs, out: passes.append(tuple(inputs[0].shape)))
    ours(model, [LONG] * 8 + [SHORT] * 8, settings(eos_token_id=None))
    assert passes == [(2, len(LONG) - 1)] + [(16, 1)] * 10


def test_the_samples_follow_the_model():
    # Frequencies of the first token against its probability: equal draws alone could be equally wrong.
    model = tiny_causal_lm()
    with torch.no_grad():
        model.lm_head.weight.mul_(30)  # a random model is close to uniform
        p = model(input_ids=torch.tensor([SHORT])).logits[0, -1].softmax(-1)
    completions, _ = ours(model, [SHORT] * 4000, settings(max_new_tokens=1))
    found = torch.bincount(torch.tensor([c[0] for c in completions]), minlength=len(p)) / 4000
    assert float((found - p).abs().max()) < 5 * float((p * (1 - p) / 4000).sqrt().max())
    assert float(p.max()) > 0.02


@pytest.mark.parametrize("change", [{"min_new_tokens": 10}, {"top_k": 5}, {"temperature": 0.5}], ids=str)
def test_what_changes_the_sampler_does_not_change_the_log_probabilities(change):
    # A residual that took the sampler's numbers for the policy's would have the wrong fixed point.
    assert_same_samples(tiny_causal_lm(), [LONG] * 4, settings(**change))


def test_peft():
    with torch.random.fork_rng():
        torch.manual_seed(1)
        config = LoraConfig(r=4, target_modules=["q_proj", "v_proj"], init_lora_weights=False, task_type="CAUSAL_LM")
        model = get_peft_model(tiny_causal_lm(), config).eval()
    assert_same_samples(model, GROUPS["several prompts"], settings())


def test_a_window_shorter_than_the_prompt():
    config = AutoConfig.for_model(
        "mistral",
        vocab_size=400,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        sliding_window=6,
    )
    model = AutoModelForCausalLM.from_config(config, attn_implementation="sdpa").eval()
    assert_same_samples(model, GROUPS["several prompts"], settings())


def small_mamba():
    config = AutoConfig.for_model("mamba", vocab_size=400, hidden_size=32, state_size=4, num_hidden_layers=2)
    return AutoModelForCausalLM.from_config(config).eval()


@pytest.mark.parametrize("reason", ["no keys", "static cache"])
def test_where_a_cache_cannot_be_repeated_the_samples_are_those_of_generate_and_the_log_says_so(reason, caplog):
    model = small_mamba() if reason == "no keys" else tiny_causal_lm()
    config = settings(cache_implementation="static", disable_compile=True) if reason == "static cache" else settings()
    transformers.utils.logging.enable_propagation()
    try:
        assert_same_samples(model, [LONG] * 3, config)
    finally:
        transformers.utils.logging.disable_propagation()
    assert any("cannot continue from a repeated cache" in r.message for r in caplog.records)


def test_checkpointing_is_refused_because_generate_would_lose_its_context():
    model = tiny_causal_lm().train()
    model.activation_checkpointing_enable()
    with pytest.raises(ValueError, match="activation_checkpointing_disable"):
        ours(model, [LONG] * 3, settings())
    assert_same_samples(model.eval(), [LONG] * 3, settings())
