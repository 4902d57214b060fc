"""The second jury: what it is fitted with, and whose names its clusters get."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from plural_rlhf.policies.base_models import prepare_base_model
from plural_rlhf.recipe.config import ConfigError
from plural_rlhf.recipe.data import read_data
from plural_rlhf.recipe.open_ended import heldout_jury
from plural_rlhf.recipe.open_ended.heldout_jury import fit_heldout_jury, names_like
from plural_rlhf.recipe.open_ended.start_checks import check_readers
from reward_models.errors import JuryError
from reward_models.judgements.texts import Text


TEXTS = [Text(prompt, response) for prompt in ("P?", "Q?") for response in ("a", "b", "c")]


class Table:
    """A jury whose rewards are listed; a number per prompt on top of them, which no comparison sees."""

    def __init__(self, **rewards):
        self.cluster_names = list(rewards)
        self.rewards = {text.response: [of[text.response] for of in rewards.values()] for text in TEXTS}

    def cluster_rewards(self, prompts, completions):
        level = [100.0 if prompt[0]["content"] == "P?" else 0.0 for prompt in prompts]
        return torch.tensor(
            [[r + more for r in self.rewards[c[0]["content"]]] for c, more in zip(completions, level, strict=True)]
        )


def answers(*values):
    return dict(zip("abc", values, strict=True))


UP, DOWN, MIDDLE = answers(0.0, 1.0, 2.0), answers(2.0, 1.0, 0.0), answers(0.0, 1.5, 0.0)
TILTED = answers(0.0, 1.5, 2.0)
DATA = SimpleNamespace(
    everything=SimpleNamespace(encode=lambda: SimpleNamespace(texts=[*TEXTS, Text("P?", " ")])), other_tables=[]
)


@pytest.mark.parametrize(
    ("second", "names", "agreements"),
    [
        ({"x": DOWN, "y": TILTED}, ["rural", "urban"], {"urban": "tilted", "rural": 1.0}),
        ({"urban": UP, "rural": DOWN}, ["urban", "rural"], {"urban": 1.0, "rural": 1.0}),
        ({"urban": DOWN, "rural": UP}, ["rural", "urban"], {"urban": 1.0, "rural": 1.0}),  # named the other way round
        ({"x": MIDDLE, "y": DOWN, "urban": UP}, ["x", "rural", "urban"], {"urban": 1.0, "rural": 1.0}),
        ({"x": UP, "urban": MIDDLE, "y": DOWN}, ["urban", "urban (held-out)", "rural"], {"urban": 1.0, "rural": 1.0}),
        ({"urban": DOWN}, ["rural"], {"rural": 1.0}),
    ],
)
def test_clusters_are_named_after_those_that_want_the_same(second, names, agreements):
    found, shared = names_like(Table(urban=UP, rural=DOWN), Table(**second), DATA)
    assert found == names
    tilted = np.corrcoef([-1, 0, 1], np.array([0, 1.5, 2.0]) - 3.5 / 3)[0, 1]
    assert shared == pytest.approx({name: tilted if r == "tilted" else r for name, r in agreements.items()})


@pytest.fixture
def fitted_with(monkeypatch):
    """What `fit_jury` is called with; it refuses more than one cluster."""
    calls = []

    def fit(judgements, base, *, clusters, **more):
        calls.append({"judgements": judgements, "base": base, "clusters": clusters, **more})
        if clusters > 1:
            raise JuryError("too few")
        return "a jury"

    monkeypatch.setattr(heldout_jury, "fit_jury", fit)
    return calls


def test_it_is_fitted_to_the_heldout_raters_with_as_many_clusters_as_they_support(config_of, fitted_with, tmp_path):
    config = config_of(jury={"clusters": 3, "restarts": 2, "pooling": "mean"}, seed=5)
    data = read_data(config)
    scorer, reason = fit_heldout_jury(config, data, 3, tmp_path, print)
    assert (scorer, reason) == ("a jury", None)
    assert [call["clusters"] for call in fitted_with] == [3, 2, 1]
    call = fitted_with[0]
    assert call["judgements"][0] is data.heldout_raters
    assert not set(data.heldout_raters.raters) & set(data.train.raters)
    assert call["base"] == heldout_jury.jury_backbone(config)
    assert (call["pooling"], call["cache_dir"]) == ("mean", tmp_path)
    assert (call["config"].restarts, call["config"].seed) == (2, 5)


def test_another_backbone_is_read_in_its_own_way(config_of, fitted_with, tmp_path):
    config = config_of(
        jury={"clusters": 1, "restarts": 1, "pooling": "mean"},
        evaluate={"samples": 3, "prompts": 2, "draws": 20, "heldout_backbone": str(tmp_path)},
    )
    fit_heldout_jury(config, read_data(config), 1, tmp_path, print)
    assert fitted_with[0]["base"] == str(tmp_path)
    assert fitted_with[0]["pooling"] is None


def test_without_a_fit_it_says_why(config_of, monkeypatch, tmp_path):
    def refuse(*_, **__):
        raise JuryError("the texts cannot be read")

    config = config_of()
    data = read_data(config)
    monkeypatch.setattr(heldout_jury, "fit_jury", refuse)
    assert fit_heldout_jury(config, data, 2, tmp_path, print) == (None, "the texts cannot be read")
    assert fit_heldout_jury(config, data, 0, tmp_path, print) == (None, "the held-out raters are too few")


def test_models_are_known_by_the_names_that_the_policy_has(config_of, fitted_with, tmp_path):
    config = config_of(evaluate={"samples": 3, "prompts": 2, "draws": 20, "heldout_backbone": "tiny"})
    fit_heldout_jury(config, read_data(config), 1, tmp_path, print)
    assert fitted_with[0]["base"] == prepare_base_model("tiny", config.policy.cache_dir, seed=config.seed)
    assert heldout_jury.jury_backbone(config_of(jury={"backbone": "tiny"})) == fitted_with[0]["base"]


def test_a_model_that_only_the_evaluation_needs_is_looked_for_at_the_start(config_of, tmp_path):
    broken = tmp_path / "no model"
    broken.mkdir()
    for key in ("heldout_backbone", "embedder"):
        config = config_of(evaluate={"samples": 3, "prompts": 2, "draws": 20, key: str(broken)})
        with pytest.raises(ConfigError, match=rf"evaluate\.{key} = .*no model.*cannot be loaded"):
            check_readers(config)
    check_readers(config_of(evaluate={"samples": 3, "prompts": 2, "draws": 20, "heldout_backbone": "tiny"}))
