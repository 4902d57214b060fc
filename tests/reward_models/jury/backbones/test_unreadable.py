"""Folders of models that cannot be read: the reason is the true one, and the fix is there."""

from __future__ import annotations

import json
import logging
import os

import pytest

from reward_models import JuryError, JuryScorer
from reward_models.jury.backbones.loading import load_backbone, usual_reading
from reward_models.jury.objectives import ScalarRewardModel
from tests.saved_juries import make_jury
from tests.tiny import save_tiny, tiny_causal_lm, tiny_tokenizer


TOKENIZER = tiny_tokenizer()


def embedder(folder, modules, pooling):
    """Files by which sentence-transformers say what follows the encoder."""
    (folder / "1_Pooling").mkdir()
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(pooling))


POOLING = {"type": "sentence_transformers.models.Pooling", "path": "1_Pooling"}
DENSE = {"type": "sentence_transformers.models.Dense", "path": "2_Dense"}
MEAN = {"word_embedding_dimension": 32, "pooling_mode_mean_tokens": True}


@pytest.mark.parametrize(
    ("modules", "pooling", "message"),
    [
        ([POOLING], {"pooling_mode_weightedmean_tokens": True}, "pools by pooling_mode_weightedmean_tokens"),
        ([POOLING], MEAN | {"pooling_mode_cls_token": True}, "pools by pooling_mode_mean_tokens, pooling_mode_cls_t"),
        ([POOLING], {}, "pools by nothing"),
        ([POOLING, DENSE], MEAN, r"has the modules Pooling, Dense.*or fit_vector_jury\(judgements, features\)"),
        ([], MEAN, "cannot be read: its modules.json or a file that it names is missing or damaged"),
        ([POOLING | {"path": "3_Pooling"}], MEAN, "cannot be read"),
        ([1], MEAN, "cannot be read"),
        ([POOLING], [1], "cannot be read"),
    ],
)
def test_embedders_that_a_jury_does_not_read_are_refused_with_what_does(tmp_path, modules, pooling, message):
    embedder(tmp_path, modules, pooling)
    model = tiny_causal_lm(TOKENIZER)
    model.config.name_or_path = str(tmp_path)
    with pytest.raises(JuryError, match=message):
        usual_reading(model, TOKENIZER)


@pytest.mark.parametrize("door", ["jury", "backbone", "objective"])
def test_a_path_that_the_locale_does_not_decode_is_named_as_the_reason(tmp_path, door, caplog):
    """Under LC_ALL=C the letters of a path outside ASCII are halves of characters, which tokenizers refuse.

    They cannot be sent from a worker of pytest-xdist either, so that no log may hold them.
    """
    caplog.set_level(logging.CRITICAL, logger="transformers")
    folder = tmp_path / "jüry"
    undecoded = os.fsencode(folder).decode("ascii", "surrogateescape")
    if door == "jury":
        make_jury(TOKENIZER).save_pretrained(folder)
        load = JuryScorer.from_pretrained
    elif door == "backbone":
        save_tiny(folder)
        load = load_backbone
    else:
        from transformers import LlamaForSequenceClassification

        config = tiny_causal_lm(TOKENIZER).config
        config.num_labels, config.pad_token_id = 1, TOKENIZER.pad_token_id
        LlamaForSequenceClassification(config).save_pretrained(folder)
        TOKENIZER.save_pretrained(folder)
        load = ScalarRewardModel.from_pretrained
    load(str(folder))
    with pytest.raises(JuryError, match=r"cannot be loaded: the path '.*j\\udcc3\\udcbcry' .*Fix: set PYTHONUTF8=1"):
        load(undecoded)
