"""Shares of options: against every option scored by itself, and what a chat template changes."""

import numpy as np
import pytest
import torch

from plural_rlhf.methods.spectrum import (
    Example,
    SpectrumSequence,
    coin_flips,
    encode_sequence,
    option_curves,
    template_for,
    urn_draws,
)
from reward_models.jury.tiny import tiny_causal_lm, tiny_tokenizer


def test_shares_are_those_of_every_option_scored_by_itself():
    tokenizer = tiny_tokenizer()
    model, template = tiny_causal_lm(tokenizer), template_for(tokenizer)
    [urn] = urn_draws(1, 5, described=True)
    curves = option_curves(model, tokenizer, [urn], template, positions=(0, 3), progress=False)
    for column, place in enumerate((0, 3)):
        logs = []
        for option in urn.options:
            swapped = SpectrumSequence((*urn.examples[:place], Example(option)), urn.description)
            tokens = encode_sequence(swapped, template, tokenizer)
            start, stop = tokens.outputs[-1]
            with torch.no_grad():
                scores = model(torch.tensor([tokens.input_ids])).logits[0].log_softmax(-1)
            logs.append(sum(float(scores[i - 1, tokens.input_ids[i]]) for i in range(start, stop)))
        shares = np.exp(logs) / np.exp(logs).sum()
        truth, middle = np.array(urn.shares), (np.array(urn.shares) + shares) / 2
        js = sum(float((p * np.log(p / middle)).sum()) for p in (truth, shares)) / 2
        came = urn.options.index(urn.examples[place].output)
        assert curves.js_nats[0, column] == pytest.approx(js, abs=1e-4)
        assert curves.choice_nats[0, column] == pytest.approx(-np.log(shares[came]), abs=1e-3)
        assert curves.coverage[0, column] == pytest.approx(np.exp(logs).sum(), rel=1e-2)


def test_what_does_not_fit_is_not_scored_and_no_options_are_refused():
    tokenizer = tiny_tokenizer()
    model, template = tiny_causal_lm(tokenizer), template_for(tokenizer)
    [coin] = coin_flips(1, 5)
    second = encode_sequence(coin, template, tokenizer).outputs[1][1]  # where the second flip ends
    curves = option_curves(model, tokenizer, [coin], template, positions=(0, 4, 9), max_length=second)
    assert np.isnan(curves.js_nats).tolist() == [[False, True, True]]
    assert np.isnan(option_curves(model, tokenizer, coin_flips(1, 5), template, max_length=3).js_nats).all()
    with pytest.raises(ValueError, match="'ann' has no options"):
        option_curves(model, tokenizer, [SpectrumSequence((Example("yes"),), name="ann")], template)


def test_the_chat_template_names_the_roles_of_a_chat():
    tokenizer = tiny_tokenizer()
    template = template_for(tokenizer, "chat")
    sequence = SpectrumSequence((Example("yes", "Parks?"),), "A survey.")
    text = tokenizer.decode(encode_sequence(sequence, template, tokenizer).input_ids)
    turns = [("system", "A survey."), ("user", "Parks?"), ("assistant", "yes")]
    assert text == "".join(f"<|im_start|>{role}\n{content}<|im_end|>\n" for role, content in turns)
