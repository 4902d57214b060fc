"""A prompt has the same tokens wherever it is read: by TRL for generation, by the reference, in the exact mode."""

from __future__ import annotations

from functools import partial

import pytest
from datasets import Dataset
from transformers import ProcessorMixin
from trl import GRPOTrainer, SFTConfig
from trl.chat_template_utils import qwen3_chat_template

from plural_rlhf.policies.answers import answer_probabilities
from plural_rlhf.policies.mixed_decoder import MixedDecoder
from plural_rlhf.policies.steerer import Steerer
from plural_rlhf.trainers import PluralGRPOConfig, PluralGRPOTrainer, _trl
from plural_rlhf.trainers.distil import distil
from plural_rlhf.trainers.grpo.reference_draws import under_reference_prompts
from tests.juries import CPU
from tests.policies import THREE, load, spoken, three_answers
from tests.tiny import tiny_causal_lm, tiny_tokenizer


CHAT = [{"role": "user", "content": "Item a"}]
LONGER = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Item b?"}]


def weather(city: str) -> str:
    """Says the weather.

    Args:
        city: Where.
    """
    return city


def thinking_tokenizer():
    """Reads `enable_thinking` and tools; with tools TRL puts another template in its place."""
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = qwen3_chat_template
    return tokenizer


CASES = {
    "plain": (["Item a: ", "Item of another length: "], {}),
    "chat": ([CHAT, LONGER], {}),
    "kwargs": ([CHAT, LONGER], {"chat_template_kwargs": {"enable_thinking": False}}),
    "tools": ([CHAT, LONGER], {"tools": [weather]}),
    "both": ([CHAT, LONGER], {"tools": [weather], "chat_template_kwargs": {"enable_thinking": False}}),
}


@pytest.mark.parametrize("case", CASES)
def test_a_prompt_has_the_tokens_that_trl_generates_from(lopsided, tmp_path, monkeypatch, case):
    prompts, given = CASES[case]
    given = dict(given)
    data = Dataset.from_list([{"prompt": prompt, "reference_prompt": prompt} for prompt in prompts])
    tokenizer = thinking_tokenizer()
    tools = given.pop("tools", None)
    args = PluralGRPOConfig(
        str(tmp_path), max_steps=1, num_generations=2, per_device_train_batch_size=4, shared_prefix=False,
        n_ref=0 if tools else 2, shuffle_dataset=False, max_completion_length=4, **given, **CPU,
    )  # fmt: skip
    trainer = PluralGRPOTrainer(
        lopsided, three_answers(), args, data, processing_class=tokenizer, **({"tools": tools} if tools else {})
    )
    generated, shown = [], []

    def generate(self, prompt_ids, *more, **named):
        generated.extend(prompt_ids)
        return spoken(["1"] * len(prompt_ids)), None

    def by_reference(trainer, prompt_ids):
        shown.extend(prompt_ids)
        return spoken(["1", "2"]), [[-1.0, 0.0]] * 2

    monkeypatch.setattr(GRPOTrainer, "_generate_single_turn", generate)
    monkeypatch.setattr(_trl, "reference_generate", by_reference)
    trainer.model.train()
    inputs = trainer._prepare_inputs([row for row in data for _ in range(2)])
    assert len(generated) == 4
    assert len({len(ids) for ids in generated}) == 2
    if case != "plain":
        text = tokenizer.decode(generated[0])
        assert ("</think>" in text.partition("assistant\n")[2]) == ("chat_template_kwargs" in given)
        assert ("weather" in text) == (tools is not None)
    assert shown == ([] if tools else generated)  # n_ref of each of the two
    read = under_reference_prompts(list(data), inputs, partial(_trl.encode_prompt, trainer), tokenizer.pad_token_id)
    for row in range(2):
        assert read["prompt_ids"][row][read["prompt_mask"][row].bool()].tolist() == generated[2 * row]
    batch = trainer.exact_rows.encode([{"prompt": prompt, "support": THREE} for prompt in prompts])
    for ids, mask, expected in zip(batch.prompt_ids, batch.prompt_mask, generated[::2], strict=True):
        assert ids[mask.bool()].tolist() == expected
    # The policy is the reference still, and is shown the same: its distance is nothing but rounding.
    assert abs(trainer._metrics["train"]["plural/kl"][0]) < 1e-5


class Processor(ProcessorMixin):
    """Of a model of text and images, whose messages are lists of parts; it has no `eos_token` of its own."""

    def __init__(self, tokenizer):
        parts = "{% for part in message['content'] %}{{ part['text'] }}{% endfor %}"
        template = tokenizer.chat_template.replace("{{ message['content'] }}", parts)
        super().__init__(tokenizer, chat_template=template)


def test_a_processor_is_looked_through_to_its_tokenizer(tmp_path):
    tokenizer, model = tiny_tokenizer(), tiny_causal_lm()
    model.config.image_token_id = tokenizer.bos_token_id  # TRL never samples one
    args = PluralGRPOConfig(str(tmp_path), exact=True, per_device_train_batch_size=2, max_steps=1, **CPU)
    data = Dataset.from_list([{"prompt": prompt, "support": THREE} for prompt in (CHAT, LONGER)])
    trainer = PluralGRPOTrainer(model, three_answers(), args, data, processing_class=Processor(tokenizer))
    trainer.train()
    batch = trainer.exact_rows.encode(list(data))
    rendered = [tokenizer.apply_chat_template(p, add_generation_prompt=True, tokenize=False) for p in (CHAT, LONGER)]
    found = [ids[mask.bool()] for ids, mask in zip(batch.prompt_ids, batch.prompt_mask, strict=True)]
    assert tokenizer.batch_decode(found) == rendered
    tokenizer.eos_token = None
    with pytest.raises(ValueError, match=r"the tokenizer has no eos_token"):
        PluralGRPOTrainer(model, three_answers(), args, data, processing_class=Processor(tokenizer))


class Room:
    """An environment that finishes the prompt."""

    def reset(self, **row) -> str:
        return "You are in a room."


@pytest.mark.filterwarnings("ignore:.*environment_factory.*:UserWarning")
def test_prompts_that_an_environment_finishes_are_refused(lopsided, tmp_path):
    args = PluralGRPOConfig(
        str(tmp_path), max_steps=1, num_generations=2, per_device_train_batch_size=2, n_ref=2,
        max_completion_length=2, **CPU,
    )  # fmt: skip
    data = Dataset.from_list([{"prompt": CHAT}])
    trainer = PluralGRPOTrainer(
        lopsided, three_answers(), args, data, processing_class=thinking_tokenizer(), environment_factory=Room
    )
    with pytest.raises(ValueError, match=r"environment_factory, whose reset\(\).*leave out n_ref"):
        trainer.train()


def test_what_is_asked_after_training_is_what_was_trained(lopsided, tmp_path, monkeypatch):
    """Scoring, steering, mixing experts and distilling give the template the same arguments."""
    model, tokenizer, thinks_not = load(lopsided).eval(), thinking_tokenizer(), {"enable_thinking": False}
    rendered = tokenizer.apply_chat_template(CHAT, add_generation_prompt=True, tokenize=False, **thinks_not)
    assert rendered.endswith("</think>\n\n")
    expected = answer_probabilities(model, tokenizer, [rendered], [THREE], progress=False)[0]
    plain = answer_probabilities(model, tokenizer, [CHAT], [THREE], progress=False)[0]
    assert abs(plain - expected).max() > 1e-3
    given = {"chat_template_kwargs": thinks_not}
    found = answer_probabilities(model, tokenizer, [CHAT], [THREE], progress=False, **given)[0]
    assert found == pytest.approx(expected, abs=1e-6)

    steerer = Steerer(model, tokenizer, ["a", "b"], [0.5, 0.5], **given)
    monkeypatch.setattr(steerer, "render", lambda prompt, weights: prompt)
    assert steerer.answer_probabilities(CHAT, THREE)[0] == pytest.approx(expected, abs=1e-6)
    read = []
    run = type(model).forward

    def forward(self, input_ids=None, **named):
        read.append(tokenizer.decode(input_ids[0]))
        return run(self, input_ids=input_ids, **named)

    monkeypatch.setattr(type(model), "forward", forward)
    steerer.generate(CHAT, max_new_tokens=1)
    MixedDecoder(model, tokenizer, **given).generate([[CHAT, CHAT]], [0.5, 0.5], max_new_tokens=1)
    rows = Dataset.from_list([{"prompt": CHAT, "completion_ids": spoken(["1"])[0]}])
    assert read == [rendered, rendered]
    trainer = distil(model, tokenizer, rows, SFTConfig(str(tmp_path), max_steps=1, **CPU), **given)
    assert tokenizer.decode(trainer.train_dataset[0]["input_ids"]).startswith(rendered)
