"""A language model under evaluation: its numbers are those of scoring every sequence by itself."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from plural_rlhf.policies.base_models import tiny_causal_lm, tiny_tokenizer
from plural_rlhf.policies.steerer import Steerer
from plural_rlhf.suites import EvaluatedModel, NotSupported, OptionRequest, Segment
from plural_rlhf.suites.models.causal_lm import CausalLM
from plural_rlhf.suites.models.loading import load_causal_lm, model_identity
from tests.saved_juries import make_jury


@pytest.fixture(scope="module")
def parts():
    return tiny_causal_lm(), tiny_tokenizer()


def tokens(tokenizer, text):
    return tokenizer(text, add_special_tokens=False)["input_ids"]


def by_itself(model, prompt_ids, output_ids):
    """Log-probability of the output after the prompt, one sequence, no sharing."""
    ids = torch.tensor([[*prompt_ids, *output_ids]])
    with torch.no_grad():
        log_probs = model.eval()(input_ids=ids).logits[0].log_softmax(-1)
    return sum(log_probs[len(prompt_ids) + t - 1, token].item() for t, token in enumerate(output_ids))


def test_options_of_a_chat_model_end_with_the_end_token(parts):
    model, tokenizer = parts
    tiny = CausalLM("tiny", model, tokenizer)
    [log_probs] = tiny.option_log_probs([OptionRequest("More parks?", ("yes", "no way"))])
    turns = [{"role": "user", "content": "More parks?"}]
    prompt = tokenizer.apply_chat_template(turns, add_generation_prompt=True, return_dict=True)["input_ids"]
    expected = [by_itself(model, prompt, [*tokens(tokenizer, o), tokenizer.eos_token_id]) for o in ("yes", "no way")]
    assert log_probs == pytest.approx(expected, abs=1e-4)


def test_options_of_a_plain_model_follow_a_space_and_end_with_a_line_break(parts):
    model, tokenizer = parts
    plain = CausalLM("tiny", model, tokenizer, chat=False)
    requests = [OptionRequest("More parks?\nAnswer:", ("yes", "no")), OptionRequest("Other: ", ("a", "b", "c"))]
    first, second = plain.option_log_probs(requests)
    prompt = tokenizer("More parks?\nAnswer:")["input_ids"]
    assert first[1] == pytest.approx(by_itself(model, prompt, tokens(tokenizer, " no\n")), abs=1e-4)
    prompt = tokenizer("Other: ")["input_ids"]
    assert second[0] == pytest.approx(by_itself(model, prompt, tokens(tokenizer, "a\n")), abs=1e-4)


def test_an_option_that_begins_like_another_does_not_take_its_probability(parts):
    model, tokenizer = parts
    tiny = CausalLM("tiny", model, tokenizer)
    [log_probs] = tiny.option_log_probs([OptionRequest("More?", ("no", "no way", "yes"))])
    assert np.exp(log_probs).sum() <= 1
    assert log_probs[0] != pytest.approx(log_probs[1])


def test_an_option_without_tokens_is_not_scored(parts):
    with pytest.raises(NotSupported, match="has no tokens"):
        CausalLM("tiny", *parts).option_log_probs([OptionRequest("More parks?", ("yes", " "))])


@pytest.mark.parametrize("chat", [True, False])
def test_sequences_are_scored_as_one_context(parts, chat):
    model, tokenizer = parts
    tiny = CausalLM("tiny", model, tokenizer, chat=chat)
    short, long = [Segment("a?", "yes")], [Segment("a?", "yes"), Segment("b?", "no"), Segment("c?", "yes")]
    losses = tiny.sequence_losses([long, short])
    assert [len(found.nats) for found in losses] == [3, 1]
    assert losses[0].nats[0] == pytest.approx(losses[1].nats[0], abs=1e-4)
    ids, spans = tiny._sequence_ids(long)
    start, end = spans[2]
    assert losses[0].nats[2] == pytest.approx(-by_itself(model, ids[:start], ids[start:end]), abs=1e-4)
    if chat:
        turns = [{"role": r, "content": c} for r, c in (("user", "a?"), ("assistant", "yes"), ("user", "b?"))]
        text = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
        assert tokenizer.decode(ids[: spans[1][0]]) == text
    shuffled = tiny.sequence_losses([[Segment("a?", "no"), *long[1:]]])[0]
    assert shuffled.nats[2] != pytest.approx(losses[0].nats[2], abs=1e-6)


def test_samples_repeat_with_their_seed_and_are_cut_at_a_stop(parts):
    tiny = CausalLM("tiny", *parts)
    first = tiny.sample(["a?", "b?"], 3, seed=1, max_new_tokens=6)
    assert first == tiny.sample(["a?", "b?"], 3, seed=1, max_new_tokens=6)
    assert first != tiny.sample(["a?", "b?"], 3, seed=2, max_new_tokens=6)
    stop = min(text[:1] for texts in first for text in texts if text)
    [cut] = tiny.sample(["a?"], 20, seed=1, max_new_tokens=6, stop=(stop,))
    assert not any(stop in text for text in cut)


def test_identity_changes_with_the_weights_and_the_format(parts):
    model, tokenizer = parts
    other = tiny_causal_lm(seed=1)
    identities = {
        CausalLM("a", model, tokenizer).identity,
        CausalLM("b", other, tokenizer).identity,
        CausalLM("a", model, tokenizer, chat=False).identity,
    }
    assert len(identities) == 3
    assert CausalLM("c", model, tokenizer).identity in identities


def test_an_adapter_and_its_base_model_are_loaded_and_told_apart(tmp_path, parts):
    from peft import LoraConfig, get_peft_model

    base = tmp_path / "base"
    model, tokenizer = tiny_causal_lm(), parts[1]
    model.save_pretrained(base)
    tokenizer.save_pretrained(base)
    adapted = get_peft_model(type(model).from_pretrained(base), LoraConfig(r=2, init_lora_weights=False))
    adapted.save_pretrained(tmp_path / "adapter")
    tokenizer.save_pretrained(tmp_path / "adapter")
    request = [OptionRequest("More parks?", ("yes", "no"))]
    plain, tuned = load_causal_lm(base), load_causal_lm(tmp_path / "adapter")
    assert isinstance(tuned, EvaluatedModel)
    assert plain.identity != tuned.identity
    assert tuned.option_log_probs(request)[0] == pytest.approx(
        CausalLM("t", adapted, tokenizer).option_log_probs(request)[0], abs=1e-4
    )
    assert abs(tuned.option_log_probs(request)[0] - plain.option_log_probs(request)[0]).max() > 1e-4
    (base / "model.safetensors").write_bytes(b"other")
    assert model_identity(tmp_path / "adapter") != tuned.identity.rsplit("-", 1)[0]


def test_a_steered_policy_answers_under_its_weights(tmp_path, parts):
    model, tokenizer = parts
    model.save_pretrained(tmp_path / "policy")
    tokenizer.save_pretrained(tmp_path / "policy")
    make_jury(tokenizer).save_pretrained(tmp_path / "jury")
    one, other = (
        load_causal_lm(tmp_path / "policy", jury=tmp_path / "jury", weights=weights, chat=True)
        for weights in ("city", {"city": 1, "b": 1})
    )
    assert len({one.identity, other.identity, load_causal_lm(tmp_path / "policy").identity}) == 3
    request = [OptionRequest("More parks?", ("yes", "no"))]
    turns = Steerer.from_pretrained(tmp_path / "policy", tmp_path / "jury").render(
        [{"role": "user", "content": "More parks?"}], "city"
    )
    assert turns[0]["role"] == "system"
    prompt = tokenizer.apply_chat_template(turns, add_generation_prompt=True, return_dict=True)["input_ids"]
    expected = by_itself(model, prompt, [*tokens(tokenizer, "yes"), tokenizer.eos_token_id])
    assert one.option_log_probs(request)[0][0] == pytest.approx(expected, abs=1e-4)
    assert abs(one.option_log_probs(request)[0] - other.option_log_probs(request)[0]).max() > 1e-6


def test_a_folder_without_a_model_is_named(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match=r"neither config.json nor adapter_config.json"):
        load_causal_lm(tmp_path / "empty")


def test_a_new_version_of_a_model_of_the_hub_is_another_model(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    repository = tmp_path / "models--nobody--small"
    identities = []
    for commit, size in (("a" * 40, 8), ("b" * 40, 16)):
        snapshot = repository / "snapshots" / commit
        snapshot.mkdir(parents=True)
        (snapshot / "config.json").write_text(f'{{"vocab_size": {size}}}')
        (repository / "refs").mkdir(exist_ok=True)
        (repository / "refs" / "main").write_text(commit)
        identities.append(model_identity("nobody/small"))
    assert len(set(identities)) == 2
    with pytest.raises(FileNotFoundError, match="'nobody/other' is no folder, and no model of this id"):
        model_identity("nobody/other")
