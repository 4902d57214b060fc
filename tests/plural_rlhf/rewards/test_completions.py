"""Completions and prompts in TRL's form: `plural_rlhf.rewards.completions`."""

from __future__ import annotations

from plural_rlhf.rewards.completions import prompt_key


def test_prompt_key_is_canonical():
    one = [{"role": "user", "content": "Wie geht's, Ödön?"}]
    assert prompt_key(one) == prompt_key([{"content": "Wie geht's, Ödön?", "role": "user"}])
    assert prompt_key("a") != prompt_key("b") != prompt_key(["b"])
    # Fixed for ever: checkpoints name their prompts by it.
    assert prompt_key("Pick a number.") == "e6ddcea65f96edd96d7e31d3e52b080d"
