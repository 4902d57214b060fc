"""Batching, pooling and truncation: `reward_models.jury.features`."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from transformers import AutoModel

from reward_models.errors import JuryError
from reward_models.judgements.texts import Text, freeze_prompt
from reward_models.jury.backbones.loading import truncate_backbone
from reward_models.jury.backbones.pooling import last_token
from reward_models.jury.features import batches, pooled_features
from reward_models.jury.reading import render
from tests.tiny import tiny_causal_lm, tiny_tokenizer


PROMPT = [{"role": "system", "content": "Answer briefly."}, {"role": "user", "content": "Which is best?"}]


@pytest.fixture(scope="module")
def tokenizer():
    return tiny_tokenizer()


@pytest.fixture(scope="module")
def lm(tokenizer):
    return tiny_causal_lm(tokenizer)


def test_last_token_by_mask_on_either_side():
    hidden = torch.arange(2 * 4 * 1.0).view(2, 4, 1)
    right, left = torch.tensor([[1, 1, 0, 0]] * 2), torch.tensor([[0, 0, 1, 1]] * 2)
    assert last_token(hidden, right).tolist() == [[1.0], [5.0]]
    assert last_token(hidden, left).tolist() == [[3.0], [7.0]]
    assert last_token(hidden).tolist() == [[3.0], [7.0]]


def test_features_are_the_last_hidden_state_of_each_text_alone(tokenizer, lm):
    texts = [Text("Which is best?", " the city" * n) for n in (3, 1, 7, 2, 5)] + [Text(freeze_prompt(PROMPT), "yes")]
    features = pooled_features(lm, tokenizer, texts, batch_size=2)
    assert features.shape == (6, 32)
    assert features.dtype == np.float32
    for text, row in zip(texts, features, strict=True):
        ids = tokenizer(render(*text, tokenizer), return_tensors="pt", add_special_tokens=False).input_ids
        with torch.no_grad():
            alone = lm.model(ids).last_hidden_state[0, -1]
        np.testing.assert_allclose(row, alone.numpy(), atol=2e-6)


def test_the_end_token_is_read_although_it_is_also_the_padding(tokenizer, lm):
    # Pooling by token id would step back over the end token and see no difference.
    with_end, without = pooled_features(lm, tokenizer, [Text("yes", "<|im_end|>"), Text("yes", "")], batch_size=2)
    assert np.abs(with_end - without).max() > 0.1


def test_features_leave_mode_and_gradients_as_they_were(tokenizer):
    lm = tiny_causal_lm(tokenizer, attention_dropout=0.5).train()
    first = pooled_features(lm, tokenizer, [Text("a", "b c d")])
    second = pooled_features(lm, tokenizer, [Text("a", "b c d")])
    assert lm.model.training
    np.testing.assert_array_equal(first, second)


def test_no_texts_give_no_rows(tokenizer, lm):
    assert pooled_features(lm, tokenizer, []).shape == (0, 32)


def test_long_texts_keep_their_end_and_their_number_is_said(tokenizer, lm):
    end = " the city and the country"
    n_end = len(tokenizer(end, add_special_tokens=False).input_ids)
    long = [Text("space exploration?", end), Text("too much", end), Text("", end)]
    with pytest.warns(
        UserWarning, match=f"^2 of 3 texts are longer than max_length={n_end} tokens .*Raise max_length"
    ):
        features = pooled_features(lm, tokenizer, long, max_length=n_end)
    np.testing.assert_allclose(features[0], features[1], atol=1e-6)


def test_batches_are_longest_first_and_cover_every_text():
    rows = [[7] * n for n in (2, 9, 4, 9, 1)]
    seen = list(batches(rows, batch_size=2))
    assert [index for index, _, _ in seen] == [[1, 3], [2, 0], [4]]
    assert [mask.sum(-1).tolist() for _, _, mask in seen] == [[9, 9], [4, 2], [1]]
    assert [ids.shape for _, ids, _ in seen] == [(2, 9), (2, 4), (1, 1)]


def test_progress_bar_only_past_a_few_batches(tokenizer, lm, capsys):
    texts = [Text("x", "y" * n) for n in range(10)]
    pooled_features(lm, tokenizer, texts, batch_size=3)
    pooled_features(lm, tokenizer, texts, batch_size=1, progress=False)
    assert capsys.readouterr().err == ""
    pooled_features(lm, tokenizer, texts, batch_size=2)
    assert "10/10" in capsys.readouterr().err


def test_empty_text_and_empty_batch_are_refused(tokenizer, lm):
    with pytest.raises(JuryError, match=r"the text '' has no tokens.*add a prompt"):
        pooled_features(lm, tokenizer, [Text("", "")])
    with pytest.raises(JuryError, match="batch_size=0 leaves nothing to score: give at least 1"):
        pooled_features(lm, tokenizer, [Text("a", "b")], batch_size=0)


def test_truncated_backbone_is_the_normed_hidden_state_of_that_layer(tokenizer, tmp_path):
    lm = tiny_causal_lm(tokenizer, num_hidden_layers=4)
    ids = tokenizer("too little, about right, too much", return_tensors="pt").input_ids
    with torch.no_grad():
        hidden = lm(ids, output_hidden_states=True).hidden_states
        for num_layers in (1, 2, 3):
            short = truncate_backbone(lm, num_layers)
            assert len(short.layers) == num_layers
            torch.testing.assert_close(short(ids).last_hidden_state, lm.model.norm(hidden[num_layers]))
        whole = truncate_backbone(lm, 4)(ids).last_hidden_state
    torch.testing.assert_close(whole, hidden[4])
    assert len(lm.model.layers) == lm.config.num_hidden_layers == 4

    truncate_backbone(lm, 2).save_pretrained(tmp_path)
    loaded = AutoModel.from_pretrained(tmp_path)
    assert len(loaded.layers) == 2
    with torch.no_grad():
        torch.testing.assert_close(loaded(ids).last_hidden_state, lm.model.norm(hidden[2]))


@pytest.mark.parametrize("num_layers", [0, 3])
def test_truncating_to_layers_that_are_not_there_is_refused(lm, num_layers):
    with pytest.raises(
        JuryError, match=rf"num_layers={num_layers}: LlamaModel has 2 layers; give a number from 1 to 2"
    ):
        truncate_backbone(lm, num_layers)


def test_truncating_a_model_without_a_list_of_layers_is_refused(tokenizer):
    lm = tiny_causal_lm(tokenizer)
    lm.model.layers = torch.nn.Sequential(*lm.model.layers)
    with pytest.raises(
        JuryError, match=r"does not keep its 2 layers in one torch.nn.ModuleList.*Use the whole backbone"
    ):
        truncate_backbone(lm, 1)
