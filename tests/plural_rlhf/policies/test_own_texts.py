"""What a model says by itself, and how far another one is from it: by hand, and where there is nothing to go on."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

from plural_rlhf.policies import own_texts, reference_texts
from plural_rlhf.policies.answers import encode_prompt
from plural_rlhf.policies.base_models import tiny_causal_lm, tiny_tokenizer
from plural_rlhf.policies.log_probs import next_token_log_probs
from plural_rlhf.policies.own_texts import draw_own_texts
from plural_rlhf.policies.reference_texts import ReferenceTexts, check_text_rows


ROWS = [
    {"prompt": "A colour? ", "completion": "red or blue"},
    {"prompt": [{"role": "user", "content": "A number?"}], "completion": [{"role": "assistant", "content": "7"}]},
]


@pytest.fixture
def tokenizer():
    return tiny_tokenizer()


@pytest.fixture
def model(tokenizer):
    return tiny_causal_lm(tokenizer)


def encode(tokenizer):
    return lambda prompt: encode_prompt(prompt, tokenizer)


def another(model, amount=3.0):
    changed = copy.deepcopy(model)
    torch.manual_seed(0)
    with torch.no_grad():
        for weight in changed.parameters():
            weight += amount * weight.std() * torch.randn_like(weight)
    return changed


def ids_of(row, tokenizer, longest=None):
    completion = row["completion"] if isinstance(row["completion"], str) else row["completion"][0]["content"]
    prompt = encode_prompt(row["prompt"], tokenizer)
    return prompt, tokenizer(completion, add_special_tokens=False)["input_ids"][:longest]


def divergence_by_hand(before, after, row, tokenizer, kept, longest=None):
    """One text alone, in double precision, event by event."""
    prompt, completion = ids_of(row, tokenizer, longest)
    of_place = []
    with torch.no_grad():
        ids = torch.tensor([prompt + completion])
        p, q = (m.eval()(ids).logits[0].double().softmax(-1).numpy() for m in (before, after))
    for place in range(len(prompt) - 1, len(prompt) + len(completion)):
        top = np.argsort(-p[place])[:kept]
        pairs = [(p[place][t], q[place][t]) for t in top]
        pairs.append((1 - sum(a for a, _ in pairs), 1 - sum(b for _, b in pairs)))
        of_place.append(sum(a * np.log(a / b) for a, b in pairs))
    return np.mean(of_place), len(of_place)


@pytest.mark.parametrize(("kept", "longest"), [(3, 48), (128, 48), (128, 4)])
def test_divergences_are_those_of_each_text_by_itself(model, tokenizer, monkeypatch, kept, longest):
    monkeypatch.setattr(reference_texts, "TOP_TOKENS", kept)
    other = another(model)
    before = ReferenceTexts.of(model, tokenizer, ROWS, encode(tokenizer), max_tokens=longest)
    found = before.divergences(other.eval(), [1, 0]).tolist()
    expected = [divergence_by_hand(model, other, row, tokenizer, kept, longest) for row in ROWS[::-1]]
    assert found == pytest.approx([value for value, _ in expected], rel=1e-3)
    assert min(found) > 1e-4
    assert [len(before.tokens[i]) for i in (1, 0)] == [places for _, places in expected]


def test_merged_tokens_never_make_a_divergence_larger(model, tokenizer, monkeypatch):
    other, found = another(model).eval(), []
    for kept in (1, 16, 397):
        monkeypatch.setattr(reference_texts, "TOP_TOKENS", kept)
        before = ReferenceTexts.of(model, tokenizer, ROWS, encode(tokenizer))
        found.append(before.divergences(other, [0, 1]).detach())
    assert (found[0] < found[1]).all()
    assert (found[1] < found[2]).all()


def test_next_tokens_do_not_depend_on_what_is_beside_them(model):
    model.eval()
    together = next_token_log_probs(model, [[5, 6, 7, 8], [9, 5]], [1, 0])
    alone = [next_token_log_probs(model, [ids], [start]) for ids, start in (([5, 6, 7, 8], 1), ([9, 5], 0))]
    torch.testing.assert_close(together, torch.cat(alone))
    torch.testing.assert_close(together.exp().sum(-1), torch.ones(5))


def test_a_text_that_the_tokenizer_reads_as_nothing_is_named(model, tokenizer):
    with pytest.raises(ValueError, match="has no token"):
        ReferenceTexts.of(model, tokenizer, ROWS[:1], lambda prompt: [])


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([], "there are no texts"),
        ([{"prompt": "a"}], "text 0: completion is None"),
        ([ROWS[0], {"prompt": "", "completion": "b"}], "text 1: prompt is ''"),
        ([{"prompt": "a", "completion": 3}], "completion is 3"),
        ([{"prompt": [{"role": "user"}], "completion": "b"}], "prompt is"),
        ([{"prompt": "a", "completion": [{"role": "assistant", "content": "x"}] * 2}], "completion is"),
        (["text"], "text 0: prompt is None"),
    ],
)
def test_rows_that_are_no_texts_are_refused(rows, said):
    with pytest.raises(ValueError, match=said):
        check_text_rows(rows)


def test_a_chat_model_is_given_the_opening_up_to_where_the_user_speaks(tokenizer):
    opening = own_texts._opening(tokenizer)
    whole = encode_prompt([{"role": "user", "content": "Parks?"}], tokenizer)
    assert opening
    assert whole[: len(opening)] == opening
    assert tokenizer.decode(whole[len(opening) :]).startswith("Parks?")


def test_own_texts_follow_from_the_seed_and_leave_the_random_state_alone(model, tokenizer):
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    one = draw_own_texts(model, tokenizer, 3, max_new_tokens=4, seed=1)
    assert torch.rand(1) == expected
    torch.manual_seed(4)
    assert draw_own_texts(model, tokenizer, 3, max_new_tokens=4, seed=1) == one
    assert draw_own_texts(model, tokenizer, 3, max_new_tokens=4, seed=2) != one
    assert len(one) == 3
    assert all(text.prompt and text.chat for text in one)
    for text in one:  # a byte that is no letter is one token and may become several
        assert len(text.completion) <= 4 * 4
    check_text_rows([text.row for text in one])


def test_more_texts_than_one_batch(model, tokenizer, monkeypatch):
    monkeypatch.setattr(own_texts, "_BATCH", 2)
    assert len(draw_own_texts(model, tokenizer, 5, max_new_tokens=2)) == 5


def test_without_a_chat_template_texts_are_drawn_from_their_beginning(model, tokenizer):
    tokenizer.chat_template = None
    texts = draw_own_texts(model, tokenizer, 3, max_new_tokens=6)
    assert [text.chat for text in texts] == [False] * 3
    assert texts[0].row["prompt"] == texts[0].prompt


def silent(model, tokenizer):
    """Make a model that ends every message at once."""
    with torch.no_grad():
        model.lm_head.weight.zero_()
        bias = torch.nn.Parameter(torch.full((model.config.vocab_size,), -100.0))
        bias[tokenizer.eos_token_id] = 100.0
        model.lm_head.bias = bias
    return model


def test_a_model_that_says_nothing_gives_no_texts_and_that_is_said(model, tokenizer, caplog):
    assert draw_own_texts(silent(model, tokenizer), tokenizer, 2) == []
    assert "made up 0 of 2 texts" in caplog.text


def test_an_answer_that_ends_at_once_is_a_text_with_one_place(model, tokenizer):
    before = ReferenceTexts.of(model, tokenizer, [{"prompt": "A colour? ", "completion": ""}], encode(tokenizer))
    assert before.tokens[0].shape == (1, 128)
