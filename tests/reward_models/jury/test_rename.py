"""Renaming the clusters of a saved jury: same scores, hashes that fit, the former names kept, whole or not at all."""

from __future__ import annotations

import json
import shutil
import threading

import numpy as np
import pytest

from reward_models import fit_jury, planted_judgements
from reward_models.content_hashes import changed_files
from reward_models.errors import JuryError
from reward_models.jury import rename
from reward_models.jury.fitting.descriptions import describe_with_model, judgements_behind
from reward_models.jury.folder import load_config
from reward_models.jury.rename import rename_clusters
from reward_models.jury.scorer import JuryScorer
from reward_models.trainer.model_card import JuryCard
from reward_models.whole_file import whole_folder
from tests.tiny import tiny_causal_lm, tiny_tokenizer


TEXTS = ["Question 1?"] * 2, ["answer A", "answer B"]


@pytest.fixture
def jury(tmp_path):
    tokenizer = tiny_tokenizer()
    planted = planted_judgements("preference", num_raters=16, num_items=6)
    scorer = fit_jury(
        planted.judgements,
        tiny_causal_lm(tokenizer),
        tokenizer,
        clusters=2,
        names=["city | centre", "b"],
        progress=False,
    )
    scorer.save_pretrained(tmp_path / "jury", save_raters=True)
    return tmp_path / "jury"


def test_a_renamed_jury_scores_as_before_and_passes_its_checks(jury):
    before, other = JuryScorer.from_pretrained(jury), (jury / "notes.txt")
    other.write_text("mine")
    assert rename_clusters(jury, {"b": "rural"}) == ["city | centre", "rural"]
    after = JuryScorer.from_pretrained(jury)  # verifies every file
    assert after.cluster_names == ["city | centre", "rural"]
    assert (after.cluster_rewards(*TEXTS) == before.cluster_rewards(*TEXTS)).all()
    assert after.state.descriptions == {
        {"b": "rural"}.get(name, name): text for name, text in before.state.descriptions.items()
    }
    assert np.array_equal(after.state.raters.posterior, before.state.raters.posterior)
    assert after.state.calibration.to_dict() == before.state.calibration.to_dict()
    assert other.read_text() == "mine"
    assert not changed_files(jury, json.loads((jury / "jury.json").read_text())["files"])


def test_the_names_before_the_first_renaming_are_kept_until_they_are_back(jury):
    rename_clusters(jury, ["x", "y"])
    rename_clusters(jury, {"y": "z"})
    assert load_config(jury).former_names == ["city | centre", "b"]
    rename_clusters(jury, ["city | centre", "b"])
    assert load_config(jury).former_names is None


def test_names_can_be_swapped_and_the_card_follows(jury):
    JuryCard("card", ["city | centre", "b"], [0.6, 0.4], counts={"Raters": "16"}).write(jury)
    rename_clusters(jury, {"city | centre": "b", "b": "city | centre"})
    rows = [line for line in (jury / "README.md").read_text().splitlines() if line.endswith(" % |  |")]
    assert rows == [r"| b | 60.0 % |  |", r"| city \| centre | 40.0 % |  |"]
    assert JuryScorer.from_pretrained(jury).cluster_names == ["b", "city | centre"]


def test_a_jury_that_was_damaged_is_refused_and_stays(jury):
    config = jury / "config.json"
    config.write_text(config.read_text().replace('"b"', '"forged"'))
    content = config.read_bytes()
    with pytest.raises(JuryError, match="not the file that was saved"):
        rename_clusters(jury, {"forged": "rural"})
    assert config.read_bytes() == content


def test_a_renaming_that_fails_half_way_leaves_the_jury(jury, monkeypatch):
    def full(*_, **__):
        raise OSError("No space left on device")

    monkeypatch.setattr(rename, "write_json", full)
    with pytest.raises(OSError, match="No space"):
        rename_clusters(jury, {"b": "rural"})
    assert JuryScorer.from_pretrained(jury).cluster_names == ["city | centre", "b"]


@pytest.mark.parametrize(
    ("names", "fault"),
    [
        ({"c": "d"}, "no cluster 'c'"),
        (["one"], "1 name for 2 clusters"),
        ({"b": "\udcc3\udc87"}, "Fix: give a word or a few"),  # bytes that the terminal could not read as letters
    ],
)
def test_names_that_cannot_be_used_change_nothing(jury, names, fault):
    content = (jury / "config.json").read_bytes()
    with pytest.raises(JuryError, match=fault):
        rename_clusters(jury, names)
    assert (jury / "config.json").read_bytes() == content


def test_a_folder_without_a_jury_is_refused(jury):
    (jury / "jury.json").unlink()
    with pytest.raises(JuryError, match=r"no folder with jury\.json"):
        rename_clusters(jury, {"b": "rural"})


def test_a_jury_is_renamed_inside_a_folder_that_is_being_written(jury, tmp_path):
    def copy_and_rename():
        with whole_folder(tmp_path / "copy") as unfinished:
            shutil.copytree(jury, unfinished, dirs_exist_ok=True)
            rename_clusters(unfinished, {"b": "rural"})

    work = threading.Thread(target=copy_and_rename, daemon=True)  # it waited for its own lock for ever
    work.start()
    work.join(20)
    assert not work.is_alive()
    assert JuryScorer.from_pretrained(tmp_path / "copy").cluster_names == ["city | centre", "rural"]


def test_a_language_model_describes_clusters_and_the_judgements_stay_beside_its_words(jury):
    tokenizer = tiny_tokenizer()
    before = JuryScorer.from_pretrained(jury)
    judgements = before.state.descriptions
    described = describe_with_model(judgements, tiny_causal_lm(tokenizer), tokenizer)
    assert {name: judgements_behind(text) for name, text in described.items()} == judgements
    for name, text in described.items():
        sentence = text.removesuffix(f" [a language model's words for: {judgements[name]}]")
        assert 0 < len(sentence) <= 200
        assert sentence.isprintable()
    # The same words for the same judgements, also where the model has described them before.
    assert describe_with_model(described, tiny_causal_lm(tokenizer), tokenizer) == described
    rename_clusters(jury, {"b": "rural"}, described)
    after = JuryScorer.from_pretrained(jury)
    assert after.state.descriptions == {{"b": "rural"}.get(name, name): text for name, text in described.items()}
    assert (after.cluster_rewards(*TEXTS) == before.cluster_rewards(*TEXTS)).all()


def test_what_cannot_be_described_is_refused_or_keeps_its_judgements(tmp_path, monkeypatch):
    with pytest.raises(JuryError, match="nothing to describe"):
        describe_with_model({}, tiny_causal_lm(), tiny_tokenizer())
    with pytest.raises(JuryError, match="no causal language model at"):
        describe_with_model({"a": "parks: yes"}, tmp_path)
    with pytest.raises(JuryError, match="without its tokenizer"):
        describe_with_model({"a": "parks: yes"}, tiny_causal_lm())
    silent = tiny_causal_lm()
    monkeypatch.setattr(silent, "generate", lambda input_ids, **_: input_ids)
    with pytest.warns(UserWarning, match="nothing readable of the cluster 'a'"):
        assert describe_with_model({"a": "parks: yes"}, silent, tiny_tokenizer()) == {"a": "parks: yes"}
