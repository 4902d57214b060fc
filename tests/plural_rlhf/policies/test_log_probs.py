"""Scoring completions with shared prompts equals scoring every row alone, gradients included, and computes less.

What is expected is computed by a second method: one forward pass for each row, without padding, cache or mask.
"""

from __future__ import annotations

import os

import pytest
import torch
import transformers
from peft import LoraConfig, PromptTuningConfig, get_peft_model
from torch.nn.functional import pad
from torch.nn.parallel import DistributedDataParallel
from transformers import AutoConfig, AutoModelForCausalLM
from trl.trainer.utils import add_fused_lm_head

from plural_rlhf.policies import log_probs as scoring
from plural_rlhf.policies.log_probs import completion_log_probs, pad_left
from plural_rlhf.trainers.grpo.token_credit.token_kl import completion_logits
from tests.tiny import tiny_causal_lm


PAD = 2
WAYS = ["packed", "cached", "plain"]


def draw(*lengths: int, seed: int = 0) -> list[list[int]]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randint(3, 300, (n,), generator=generator).tolist() for n in lengths]


LONG, SHORT, SINGLE = draw(14, 5, 1)
FOUR, SIX, TWO, FIVE, ONE, THREE = draw(4, 6, 2, 5, 1, 3, seed=1)
# Rows of one prompt apart from each other, groups of different sizes, a completion twice, two with a common beginning,
# one that begins another, the padding token inside prompt and completion, and a prompt with a single completion.
PROMPTS = {"a": [*LONG[:7], PAD, *LONG[7:]], "b": SHORT, "c": SINGLE, "d": [*LONG[:6], 9]}
ROWS = [
    ("a", FOUR),
    ("b", SIX),
    ("a", TWO),
    ("a", [*FOUR[:2], PAD, 9]),
    ("b", ONE),
    ("c", THREE),
    ("c", FIVE),
    ("a", FOUR),
    ("a", FOUR[:2]),
    ("d", FIVE),
]


def layout(rows=ROWS, prompts=PROMPTS, spare: int = 0) -> dict[str, torch.Tensor]:
    """TRL's layout, with `spare` columns of padding that no row needs."""
    prompt_ids, prompt_mask = pad_left([prompts[name] for name, _ in rows], PAD)
    width = max(len(completion) for _, completion in rows) + spare
    return {
        "prompt_ids": pad(prompt_ids, (spare, 0), value=PAD),
        "prompt_mask": pad(prompt_mask, (spare, 0)),
        "completion_ids": torch.tensor([c + [PAD] * (width - len(c)) for _, c in rows]),
        "completion_mask": torch.tensor([[1] * len(c) + [0] * (width - len(c)) for _, c in rows]),
    }


def alone(model, rows=ROWS, prompts=PROMPTS, spare: int = 0) -> torch.Tensor:
    """`(N, T)` log-probabilities, one forward pass a row."""
    width = max(len(completion) for _, completion in rows) + spare
    values = []
    for name, completion in rows:
        logits = model(input_ids=torch.tensor([prompts[name] + completion]), use_cache=False).logits
        log_probs = logits[0, -len(completion) - 1 : -1].float().log_softmax(-1)
        own = log_probs[torch.arange(len(completion)), torch.tensor(completion)]
        values.append(pad(own, (0, width - len(completion))))
    return torch.stack(values)


def assert_equal_with_gradients(ours: torch.Tensor, theirs: torch.Tensor, parameters) -> None:
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)
    # A coefficient of its own for each token: a plain sum could hide exchanged gradients.
    coefficient = torch.linspace(-1, 2, ours.numel()).view_as(ours)
    got = torch.autograd.grad((ours * coefficient).sum(), parameters)
    expected = torch.autograd.grad((theirs * coefficient).sum(), parameters)
    for g, e in zip(got, expected, strict=True):
        assert float((g - e).norm()) <= 1e-5 * float(e.norm()) + 1e-9
    assert all(float(e.norm()) > 0 for e in expected)


def force(monkeypatch, way: str) -> None:
    monkeypatch.setattr(scoring, "_cheapest_way", lambda model, batch: way)


def taken(monkeypatch) -> list[str]:
    """The ways that are chosen from here on."""
    found: list[str] = []
    choose = scoring._cheapest_way
    monkeypatch.setattr(scoring, "_cheapest_way", lambda *a: found.append(choose(*a)) or found[-1])
    return found


def tokens_computed(model) -> list[int]:
    """Tokens that go through the layers of `model` from here on, one entry a pass."""
    found: list[int] = []
    model.get_input_embeddings().register_forward_hook(lambda module, inputs, output: found.append(inputs[0].numel()))
    return found


def lora(model):
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return get_peft_model(model, LoraConfig(r=4, target_modules=["q_proj", "v_proj"], init_lora_weights=False))


@pytest.mark.parametrize("head", ["fused head", "own head", "small logits"])
@pytest.mark.parametrize("way", WAYS)
def test_values_and_gradients_are_those_of_every_row_alone(monkeypatch, way, head):
    force(monkeypatch, way)
    model = tiny_causal_lm()
    expected = alone(model, spare=2)
    if head != "own head":
        add_fused_lm_head(model)
        monkeypatch.setattr(scoring, "_SMALL_LOGITS", 0 if head == "fused head" else 10**9)
    assert_equal_with_gradients(completion_log_probs(model, layout(spare=2)), expected, list(model.parameters()))


@pytest.mark.parametrize("way", WAYS)
def test_peft(monkeypatch, way):
    force(monkeypatch, way)
    model = tiny_causal_lm()
    add_fused_lm_head(model)
    model = lora(model)
    trained = [p for p in model.parameters() if p.requires_grad]
    assert_equal_with_gradients(completion_log_probs(model, layout()), alone(model), trained)
    with model.disable_adapter():
        assert not torch.allclose(completion_log_probs(model, layout()), alone(tiny_causal_lm()) + 0.01)
        torch.testing.assert_close(completion_log_probs(model, layout()), alone(tiny_causal_lm()), atol=1e-5, rtol=0)


@pytest.mark.parametrize("wrapped", [False, True], ids=["plain", "peft"])
def test_gradient_checkpointing(monkeypatch, wrapped):
    chosen = taken(monkeypatch)
    model = lora(tiny_causal_lm()) if wrapped else tiny_causal_lm()
    trained = [p for p in model.parameters() if p.requires_grad]
    expected = alone(model)
    model.train()
    model.enable_input_require_grads()
    model.activation_checkpointing_enable()
    assert_equal_with_gradients(completion_log_probs(model, layout()), expected, trained)
    assert chosen == ["packed"]
    # A cache is dropped under checkpointing without an error: where no row can be packed, it must not be tried.
    model.config._attn_implementation = "flash_attention_2"
    assert scoring.repeatable_cache(model) is None
    assert scoring.repeatable_cache(model.eval()) is not None


SMALL = {
    "vocab_size": 400,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "pad_token_id": PAD,
    "max_position_embeddings": 64,
}
ARCHITECTURES = {
    "llama eager": ("llama", {"attn_implementation": "eager"}, "packed"),
    "gpt2, learnt positions": (
        "gpt2",
        {
            "n_embd": 32,
            "n_layer": 2,
            "n_head": 4,
            "n_positions": 64,
            "attn_pdrop": 0,
            "embd_pdrop": 0,
            "resid_pdrop": 0,
        },
        "packed",
    ),
    "qwen2": ("qwen2", {}, "packed"),
    "mistral, window of 8": ("mistral", {"sliding_window": 8}, "cached"),
    "gemma3, mixed windows": (
        "gemma3_text",
        {"sliding_window": 8, "layer_types": ["sliding_attention", "full_attention"], "query_pre_attn_scalar": 8},
        "cached",
    ),
    "gemma2, softcap": (
        "gemma2",
        {"sliding_window": 64, "query_pre_attn_scalar": 8, "attn_implementation": "eager"},
        "packed",
    ),
    "bloom, alibi": ("bloom", {"n_layer": 2, "n_head": 4}, "cached"),
    "mamba, no keys": ("mamba", {"state_size": 4}, "plain"),
    "lfm2, convolutions": ("lfm2", {"layer_types": ["conv", "full_attention"]}, "plain"),
}


def build(name):
    kind, settings, _ = ARCHITECTURES[name]
    implementation = settings.get("attn_implementation", "sdpa")
    config = AutoConfig.for_model(kind, **SMALL, **{k: v for k, v in settings.items() if k != "attn_implementation"})
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return AutoModelForCausalLM.from_config(
            config, **({} if kind in ("mamba", "bloom") else {"attn_implementation": implementation})
        ).eval()


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_every_architecture_is_scored_right_by_the_way_it_allows(monkeypatch, name):
    chosen = taken(monkeypatch)
    model = build(name)
    parameters = [p for p in model.parameters() if p.requires_grad]
    assert_equal_with_gradients(completion_log_probs(model, layout()), alone(model), parameters)
    assert chosen == [ARCHITECTURES[name][2]]


LEARNT = "gpt2, learnt positions"


@pytest.mark.parametrize(("name", "wrapped"), [*((name, False) for name in ARCHITECTURES), (LEARNT, True)])
def test_the_whole_vocabulary_is_scored_as_the_tokens_are(name, wrapped):
    """Under prompts of different lengths, padded on the left."""
    model = build(name)
    if wrapped:
        adapter = LoraConfig(r=4, target_modules=["c_attn"], fan_in_fan_out=True, init_lora_weights=False)
        with torch.random.fork_rng():
            torch.manual_seed(1)
            model = get_peft_model(model, adapter).eval()
    batch = layout(spare=2)
    log_probs = completion_logits(model, batch).log_softmax(-1).gather(-1, batch["completion_ids"][..., None])[..., 0]
    torch.testing.assert_close(
        log_probs * batch["completion_mask"], completion_log_probs(model, batch), atol=1e-5, rtol=0
    )


def test_a_prompt_of_pefts_own_is_told_no_positions(recwarn):
    tuned = get_peft_model(tiny_causal_lm(), PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=2))
    completion_logits(tuned, layout())
    assert not [str(w.message) for w in recwarn if "osition" in str(w.message)]


def test_a_model_that_can_share_nothing_says_so_once_in_the_log(caplog):
    model = tiny_causal_lm()
    tuned = get_peft_model(model, PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=2))
    transformers.utils.logging.enable_propagation()
    try:
        for _ in range(2):
            values = completion_log_probs(tuned, layout())
    finally:
        transformers.utils.logging.disable_propagation()
    (record,) = [r for r in caplog.records if "more slowly" in r.message]
    assert "PeftModel" in record.message
    torch.testing.assert_close(values, alone(tuned), atol=1e-5, rtol=0)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("how", ["autocast", "bfloat16 weights"])
def test_half_precision(monkeypatch, way, how):
    force(monkeypatch, way)
    model = tiny_causal_lm()
    add_fused_lm_head(model)
    expected = alone(tiny_causal_lm())
    if how == "bfloat16 weights":
        model = model.to(torch.bfloat16)
    with torch.autocast("cpu", torch.bfloat16, enabled=how == "autocast"):
        got = completion_log_probs(model, layout())
    assert got.dtype == torch.float32
    got.sum().backward()
    torch.testing.assert_close(got, expected, atol=0.05, rtol=0)


@pytest.mark.parametrize("unused", [False, True])
@pytest.mark.parametrize("way", WAYS)
def test_distributed_data_parallel(monkeypatch, tmp_path, way, unused):
    force(monkeypatch, way)
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        model = tiny_causal_lm()
        parallel = DistributedDataParallel(tiny_causal_lm(), find_unused_parameters=unused)
        passes: list[int] = []
        parallel.register_forward_pre_hook(lambda module, args: passes.append(1))
        for _ in range(2):  # the first pass rebuilds the buckets
            parallel.zero_grad()
            completion_log_probs(parallel, layout()).sum().backward()
        # Each is a broadcast: processes that took different ways would wait for each other for ever.
        assert len(passes) == 2
        alone(model).sum().backward()
        for ours, theirs in zip(parallel.parameters(), model.parameters(), strict=True):
            torch.testing.assert_close(ours.grad, theirs.grad, atol=1e-5, rtol=1e-4)
    finally:
        torch.distributed.destroy_process_group()
        os.environ.pop("MASTER_ADDR", None)


def test_weights_spread_over_processes_are_gathered_as_often_everywhere(monkeypatch):
    chosen = taken(monkeypatch)
    long = layout([("p", completion) for completion in draw(*[64] * 8, seed=3)], {"p": draw(64)[0]})
    model = tiny_causal_lm()
    completion_log_probs(model, long)
    model.lm_head.weight.ds_id = 0  # as ZeRO-3 marks its parameters
    counted = tokens_computed(model)
    completion_log_probs(model, long)
    completion_log_probs(model, layout())
    assert chosen[0] == "cached"  # two passes
    assert "cached" not in chosen[1:]
    assert len(counted) == 2


@pytest.mark.parametrize("way", WAYS)
def test_rows_without_tokens_have_no_values_and_a_gradient_of_zero(way, monkeypatch):
    model = tiny_causal_lm()
    chosen = taken(monkeypatch)
    batch = layout([("a", FOUR), ("a", TWO)])
    batch["completion_mask"].zero_()
    values = completion_log_probs(model, batch)
    assert torch.equal(values, torch.zeros(2, 4))
    values.sum().backward()  # distributed training needs a gradient from every process
    assert all(torch.equal(p.grad, torch.zeros_like(p)) for p in model.parameters())
    assert chosen == ["plain"]
    force(monkeypatch, way)
    mixed = layout([("a", FOUR), ("a", [])])
    torch.testing.assert_close(completion_log_probs(model, mixed)[0], alone(model, [("a", FOUR)])[0])
    assert torch.equal(completion_log_probs(model, mixed)[1], torch.zeros(4))


def test_short_completions_are_packed_long_ones_continue_a_cache_and_a_lone_row_is_scored_plainly(monkeypatch):
    chosen = taken(monkeypatch)
    monkeypatch.setattr(scoring, "_PAIRS_PER_TOKEN", 54)  # as in a model 576 wide
    model = tiny_causal_lm()
    counted = tokens_computed(model)
    for n_prompt, n_completion, group in [(200, 4, 16), (64, 64, 8), (8, 200, 4), (50, 10, 1)]:
        (prompt,) = draw(n_prompt)
        completions = draw(*[n_completion] * group, seed=2)
        with torch.no_grad():
            completion_log_probs(model, layout([("p", c) for c in completions], {"p": prompt}))
        shared, plain = n_prompt + group * n_completion, group * (n_prompt + n_completion)
        assert sum(counted) <= (plain if chosen[-1] == "plain" else shared)
        counted.clear()
    assert chosen == ["packed", "cached", "plain", "plain"]


def test_equal_rows_and_padding_that_no_row_needs_are_computed_once_or_not_at_all(monkeypatch):
    # A policy that is nearly sure of its answer samples it again and again.
    model = tiny_causal_lm()
    counted = tokens_computed(model)
    for way in WAYS:
        force(monkeypatch, way)
        with torch.no_grad():
            values = completion_log_probs(model, layout([("b", FOUR)] * 7 + [("b", TWO)], spare=30))
        torch.testing.assert_close(values[:7], values[:1].expand(7, -1))
        assert sum(counted) <= 2 * (len(SHORT) + len(FOUR))
        counted.clear()


@pytest.mark.parametrize("way", WAYS)
def test_the_fused_head_spares_the_logits_of_long_text(monkeypatch, way):
    force(monkeypatch, way)
    monkeypatch.setattr(scoring, "_SMALL_LOGITS", 0)
    model = tiny_causal_lm()
    add_fused_lm_head(model)
    projected: list[int] = []
    model.lm_head.register_forward_hook(lambda module, inputs, output: projected.append(output.shape[:-1].numel()))
    completion_log_probs(model, layout())
    assert sum(projected) <= len(PROMPTS)  # at most one position a prompt, where a cache is made


def test_images_are_refused():
    with pytest.raises(ValueError, match="pixel_values"):
        completion_log_probs(tiny_causal_lm(), {**layout(), "pixel_values": torch.zeros(1)})
