"""A folder that nothing can be kept in is refused with the reason, before the work that would be lost."""

from __future__ import annotations

import os

import numpy as np
import pytest

from plural_rlhf.policies.base_models import prepare_base_model
from reward_models import JuryError, choose_joint, fit_jury, planted_judgements, pooled_features
from reward_models.evaluation.language_models.continuations import Continuation, LanguageModel
from tests.tiny import tiny_causal_lm, tiny_tokenizer


TOKENIZER = tiny_tokenizer()
PLANTED = planted_judgements("rating", num_raters=24, num_items=12)
TEXTS = PLANTED.judgements.encode().texts


def features(folder):
    return pooled_features(tiny_causal_lm(TOKENIZER), TOKENIZER, TEXTS, cache_dir=folder, progress=False)


def jury(folder):
    fit_jury(PLANTED.judgements, tiny_causal_lm(TOKENIZER), TOKENIZER, clusters=1, cache_dir=folder, progress=False)


def losses(folder):
    choose_joint(PLANTED.judgements.encode(), PLANTED.rewards, [("mixture", 2)], cache_dir=folder)


def continuations(folder):
    model = LanguageModel(tiny_causal_lm(TOKENIZER), TOKENIZER, cache_dir=folder)
    model.score(["Which?"], [[Continuation("", " tea"), Continuation("", " rain")]])


def base_model(folder):
    prepare_base_model("tiny", folder)


DOORS = [features, jury, losses, continuations, base_model]


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize(
    ("folder", "reason"),
    [
        ("a-file", "File exists"),
        ("a-file/cache", "Not a directory"),
        ("a" * 300, "File name too long"),
        ("a\0b", "null byte"),
        ("j\udcc3\udcbcry", "letters that Python does not decode in this locale. Fix: set PYTHONUTF8=1"),
    ],
)
def test_a_folder_that_cannot_be_made_is_refused(door, folder, reason, tmp_path):
    (tmp_path / "a-file").write_text("in the way")
    with pytest.raises((JuryError, NotADirectoryError), match=rf"cache_dir.*{reason}"):
        door(str(tmp_path / folder))


@pytest.mark.parametrize("door", DOORS)
def test_what_is_no_path_is_refused(door):
    with pytest.raises((JuryError, NotADirectoryError), match=r"cache_dir.*no files can be kept in '3'"):
        door(3)


@pytest.mark.parametrize("door", DOORS)
def test_a_read_only_folder_is_refused_before_the_work(door, tmp_path, monkeypatch):
    writable = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: not mode & os.W_OK and writable(path, mode))
    with pytest.raises((JuryError, NotADirectoryError), match=r"it is read-only.*Fix: give a folder that can be made"):
        door(tmp_path)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_a_read_only_folder_serves_the_features_that_it_holds(tmp_path, monkeypatch):
    stored = features(tmp_path)
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert np.array_equal(features(tmp_path), stored)
