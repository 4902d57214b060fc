"""Features on disk: `reward_models.jury.backbones.feature_cache` and `pooled_features(cache_dir=...)`."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from transformers import AutoModel

from reward_models.judgements.texts import Text
from reward_models.jury.backbones import feature_cache
from reward_models.jury.backbones.feature_cache import FeatureCache, backbone_identity, row_key
from reward_models.jury.backbones.loading import truncate_backbone
from reward_models.jury.features import pooled_features
from reward_models.jury.modeling_jury import JuryRewardModel
from reward_models.jury.scorer import JuryScorer
from tests.saved_juries import remember
from tests.tiny import tiny_causal_lm, tiny_tokenizer


TEXTS = [Text("Which is best?", " the city" * n) for n in (3, 1, 2)] + [Text("too little?", " yes")]


@pytest.fixture(scope="module")
def tokenizer():
    return tiny_tokenizer()


@pytest.fixture
def lm(tokenizer):
    return tiny_causal_lm(tokenizer, seed=5)


@pytest.fixture
def embedded(lm):
    """Number of rows of each forward pass of the backbone."""
    sizes = []
    lm.model.register_forward_pre_hook(
        lambda m, args, kwargs: sizes.append(len(kwargs["input_ids"])), with_kwargs=True
    )
    return sizes


def shards(folder):
    return sorted(folder.glob("*/*.safetensors"))


def test_each_text_is_embedded_once_ever_and_new_vectors_equal_stored_ones(lm, tokenizer, embedded, tmp_path):
    new = pooled_features(lm, tokenizer, [*TEXTS, TEXTS[1]], cache_dir=tmp_path)
    assert embedded == [4]
    # Another order, another split of the same string into prompt and response, and one text that is new.
    again = pooled_features(
        lm, tokenizer, [Text("too little? yes", ""), TEXTS[1], Text("x", "y"), TEXTS[0]], cache_dir=tmp_path
    )
    assert embedded == [4, 1]
    np.testing.assert_array_equal(new[[3, 1, 0]], again[[0, 1, 3]])
    np.testing.assert_array_equal(new[1], new[4])
    plain = pooled_features(lm, tokenizer, TEXTS)
    np.testing.assert_array_equal(new[:4], plain.astype(np.float16).astype(np.float32))
    assert np.abs(new[:4] - plain).max() > 0  # rounded, and visibly so
    assert new.dtype == np.float32


def test_another_backbone_layer_or_length_is_another_vector(lm, tokenizer, embedded, tmp_path):
    first = pooled_features(lm, tokenizer, TEXTS, cache_dir=tmp_path)
    short = pooled_features(truncate_backbone(lm, 1), tokenizer, TEXTS, cache_dir=tmp_path)
    assert np.abs(first - short).max() > 0.1
    embedded.clear()
    cut = pooled_features(lm, tokenizer, TEXTS, max_length=4, cache_dir=tmp_path)
    np.testing.assert_array_equal(cut, pooled_features(lm, tokenizer, TEXTS, max_length=4).astype(np.float16))
    with torch.no_grad():
        lm.model.layers[0].mlp.up_proj.weight[0, 0] += 1e-3
    embedded.clear()
    pooled_features(lm, tokenizer, TEXTS, cache_dir=tmp_path)
    assert embedded == [4]
    assert len(list(tmp_path.iterdir())) == 3


def test_a_longer_limit_that_cuts_nothing_finds_the_same_vectors(lm, tokenizer, embedded, tmp_path):
    pooled_features(lm, tokenizer, TEXTS, max_length=200, cache_dir=tmp_path)
    pooled_features(lm, tokenizer, TEXTS, max_length=500, cache_dir=tmp_path)
    assert embedded == [4]


def test_the_identity_of_a_backbone_survives_saving(lm, tmp_path):
    lm.save_pretrained(tmp_path)
    assert backbone_identity(AutoModel.from_pretrained(tmp_path)) == backbone_identity(lm.model)
    assert backbone_identity(truncate_backbone(lm, 1)) != backbone_identity(lm.model)


def test_an_interrupted_run_goes_on_where_it_was(lm, tokenizer, embedded, tmp_path, monkeypatch):
    monkeypatch.setattr(feature_cache, "SHARD_ROWS", 2)
    texts = [Text("x", " yes" * n) for n in range(1, 10)]
    calls = []

    def stop(module, args, kwargs):
        calls.append(1)
        if len(calls) == 7:
            raise KeyboardInterrupt

    handle = lm.model.register_forward_pre_hook(stop, with_kwargs=True)
    with pytest.raises(KeyboardInterrupt):
        pooled_features(lm, tokenizer, texts, batch_size=1, cache_dir=tmp_path)
    handle.remove()
    assert len(shards(tmp_path)) == 3  # six texts were done
    assert not list(tmp_path.glob("*/*.unfinished"))
    embedded.clear()
    resumed = pooled_features(lm, tokenizer, texts, batch_size=1, cache_dir=tmp_path)
    assert embedded == [1, 1, 1]
    unbroken = pooled_features(lm, tokenizer, texts, batch_size=1, cache_dir=tmp_path / "other")
    np.testing.assert_array_equal(resumed, unbroken)


@pytest.mark.parametrize("exact", [False, True])
def test_a_shard_is_written_after_a_minute_too(lm, tokenizer, tmp_path, monkeypatch, exact):
    monkeypatch.setattr(feature_cache, "SHARD_SECONDS", 0)
    texts = [Text("x", " yes" * n) for n in range(1, 4)]
    stored = pooled_features(lm, tokenizer, texts, batch_size=1, cache_dir=tmp_path, exact=exact)
    assert len(shards(tmp_path)) == 3
    plain = pooled_features(lm, tokenizer, texts, batch_size=1)
    assert np.array_equal(stored, plain) == exact
    again = pooled_features(lm, tokenizer, texts, batch_size=1, cache_dir=tmp_path, exact=exact)
    np.testing.assert_array_equal(again, stored)
    # Exact and rounded vectors of one backbone lie apart.
    other = pooled_features(lm, tokenizer, texts, batch_size=1, cache_dir=tmp_path, exact=not exact)
    assert np.array_equal(other, plain) != exact


def cut_short(path):
    path.write_bytes(path.read_bytes()[:-20])


def flip_a_bit(path):
    data = bytearray(path.read_bytes())
    data[-5] ^= 1
    path.write_bytes(bytes(data))


def empty(path):
    path.write_bytes(b"")


@pytest.mark.parametrize("damage", [cut_short, flip_a_bit, empty])
def test_a_damaged_shard_is_rebuilt(lm, tokenizer, embedded, tmp_path, damage):
    before = pooled_features(lm, tokenizer, TEXTS, cache_dir=tmp_path)
    [shard] = shards(tmp_path)
    damage(shard)
    with pytest.warns(UserWarning, match=r"cached features in .* are damaged .* embedded again"):
        after = pooled_features(lm, tokenizer, TEXTS, cache_dir=tmp_path)
    np.testing.assert_array_equal(before, after)
    assert embedded == [4, 4]
    assert shards(tmp_path) != [shard]
    pooled_features(lm, tokenizer, TEXTS, cache_dir=tmp_path)
    assert embedded == [4, 4]


def test_numbers_beyond_float16_are_kept_in_float32(lm, tmp_path):
    cache = FeatureCache(tmp_path, lm.model)
    small, large = np.full((1, 3), 1.0001, np.float32), np.array([[1.0001, 70_000.5, 2.0]], np.float32)
    assert cache.write([row_key([1])], small).tolist() == [[1.0, 1.0, 1.0]]
    assert cache.write([row_key([2])], large).tolist() == large.tolist()
    out = np.zeros((3, 3), np.float32)
    todo = cache.read([row_key([1]), row_key([2]), row_key([3])], out)
    assert todo.tolist() == [2]
    assert out.tolist() == [[1.0, 1.0, 1.0], large[0].tolist(), [0.0, 0.0, 0.0]]


def test_a_memory_fitted_on_stored_vectors_knows_its_texts_when_they_are_scored(lm, tokenizer, tmp_path):
    # Scoring computes features without rounding; the bumps of the memory must be wide enough for that.
    features = pooled_features(lm, tokenizer, TEXTS, cache_dir=tmp_path)
    residuals = np.array([[2.0], [-1.0], [0.5], [3.0]])
    jury = remember(
        JuryRewardModel.from_fit(lm, np.zeros((1, 32)), np.zeros(1), [1.0]), features, residuals, width=0.3
    )
    scored = JuryScorer(jury, tokenizer).cluster_rewards([t.prompt for t in TEXTS], [t.response for t in TEXTS])
    np.testing.assert_allclose(scored.numpy(), residuals, rtol=0.01)
