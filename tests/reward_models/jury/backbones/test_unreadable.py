"""Folders of models that cannot be read: the reason is the true one, and the fix is there."""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path

import pytest

from plural_rlhf.evaluation.tables.valued_situations import ValuesError
from plural_rlhf.methods.kaleidoscope.kaleido import KaleidoJudge
from plural_rlhf.methods.modular.policy import ModularPolicy
from plural_rlhf.policies.base_models import prepare_base_model
from plural_rlhf.policies.steerer import Steerer
from plural_rlhf.suites.models.loading import load_causal_lm
from reward_models import JuryError, JuryScorer, load_table
from reward_models.evaluation.language_models.continuations import LanguageModel
from reward_models.jury.backbones.loading import load_backbone, usual_reading
from reward_models.jury.fitting.descriptions import describe_with_model
from reward_models.jury.folder import load_config
from reward_models.jury.objectives import ScalarRewardModel
from tests.paths import ROOT
from tests.saved_juries import make_jury
from tests.tiny import save_tiny, tiny_causal_lm, tiny_tokenizer


TOKENIZER = tiny_tokenizer()
JURY = ROOT / "tests" / "stored" / "jury"


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


def scalar_model(folder):
    from transformers import LlamaForSequenceClassification

    config = tiny_causal_lm(TOKENIZER).config
    config.num_labels, config.pad_token_id = 1, TOKENIZER.pad_token_id
    LlamaForSequenceClassification(config).save_pretrained(folder)
    TOKENIZER.save_pretrained(folder)


def jury(folder):
    make_jury(TOKENIZER).save_pretrained(folder)


DOORS = {
    "jury": (jury, JuryScorer.from_pretrained),
    "configuration": (jury, load_config),
    "backbone": (save_tiny, load_backbone),
    "objective": (scalar_model, ScalarRewardModel.from_pretrained),
    "baselines": (save_tiny, LanguageModel.from_pretrained),
    "descriptions": (save_tiny, lambda path: describe_with_model({"trees": "trees: yes"}, path)),
    "policy": (save_tiny, lambda path: Steerer.from_pretrained(path, JURY)),
    "evaluated": (save_tiny, load_causal_lm),
    "evaluated with a jury": (save_tiny, lambda path: load_causal_lm(path, jury=JURY)),
    "base": (save_tiny, prepare_base_model),
    "communities": (save_tiny, ModularPolicy.from_pretrained),
    "judge of values": (save_tiny, KaleidoJudge.from_pretrained),
}
# Opened under any locale, or of another kind of model.
ONLY_IF_FOUND = {
    "configuration",
    "communities",
    "judge of values",
}


@pytest.mark.parametrize("door", DOORS)
def test_a_path_that_the_locale_does_not_decode_is_named_as_the_reason(tmp_path, door, caplog):
    """Under LC_ALL=C the letters of a path outside ASCII are halves of characters, which tokenizers refuse.

    They cannot be sent from a worker of pytest-xdist either, so that no log may hold them.
    """
    caplog.set_level(logging.CRITICAL, logger="transformers")
    save, load = DOORS[door]
    folder = tmp_path / "jüry"
    save(folder)
    if door not in ONLY_IF_FOUND:
        load(str(folder))
        undecoded = os.fsencode(folder).decode("ascii", "surrogateescape")
        with pytest.raises(
            (JuryError, FileNotFoundError),
            match=r"cannot be loaded: the path '.*j\\udcc3\\udcbcry' .*Fix: set PYTHONUTF8=1",
        ):
            load(undecoded)


@pytest.mark.parametrize("door", DOORS)
def test_a_path_from_a_file_that_the_locale_does_not_encode_is_named_as_the_reason(door, monkeypatch, caplog):
    """The letters of a run file are whole, but the system is asked in ASCII and finds no such file."""
    caplog.set_level(logging.CRITICAL, logger="transformers")
    encode = os.fsencode
    monkeypatch.setattr(os, "fsencode", lambda path: str(path).encode("ascii") and encode(path))
    for path in ("nowhere/jüry", Path("nowhere/jüry")):
        with pytest.raises(
            (JuryError, FileNotFoundError, ValuesError), match=r"cannot be loaded: the path .*Fix: set PYTHONUTF8=1"
        ):
            DOORS[door][1](path)


def test_a_table_that_the_locale_does_not_encode_is_named_as_the_reason(monkeypatch):
    monkeypatch.setattr(os, "fsencode", lambda path: str(path).encode("ascii"))
    with pytest.raises(FileNotFoundError, match=r"no such file, or the path 'vötes.csv' .*Fix: set PYTHONUTF8=1"):
        load_table("vötes.csv")
