"""Saved juries for tests of what a folder holds and of how it is written."""

from __future__ import annotations

import json

import numpy as np
import torch

from reward_models.jury.backbones.memory import MemoryLayer
from reward_models.jury.calibration import Calibration
from reward_models.jury.modeling_jury import JuryRewardModel
from reward_models.jury.scorer import JuryScorer
from reward_models.jury.state import JuryState
from reward_models.raters.rater_model import KindTerms, RaterModel
from tests.tiny import tiny_causal_lm


TERMS = {
    "rating": KindTerms({"thresholds": np.array([-1.0, 0.5])}, {"intercept": 1.3, "log_scale": 0.2}),
    "preference": KindTerms({"log_tie_mean": np.array([-0.7])}, {"log_tie": 0.9}),
}
MODEL = RaterModel("mixture", np.eye(2), np.log([0.7, 0.3]), TERMS, {"intercept": 5})
STATE = JuryState(
    rater_model=MODEL,
    calibration=Calibration(np.array([0.4, 2.5]), np.array([1.0, -1.0]), "win_rate", 30, 240),
    temperature=np.array([1.2, 0.9]),
    descriptions={"city": "likes trams"},
    fitted_on={"judgements": 12, "raters": 3, "items": 4, "texts": 5},
)


def make_jury(tokenizer, seed=0, state=STATE, **config):
    rng = np.random.default_rng(seed)
    model = JuryRewardModel.from_fit(
        tiny_causal_lm(tokenizer, seed=seed, **config),
        rng.normal(size=(2, 32)),
        np.zeros(2),
        [0.7, 0.3],
        ["city", "b"],
    )
    return JuryScorer(model, tokenizer, state=state)


def remember(model, features, values, width=1.0):
    """Give a jury what juries of earlier versions remember of judged texts, by their features: (U, K) residuals."""
    memory = MemoryLayer(*features.shape, values.shape[1])
    memory.scale.copy_(torch.from_numpy(1 / features.std(0)) if len(features) > 1 else torch.ones(features.shape[1]))
    memory.anchors.copy_(torch.from_numpy(features) * memory.scale)
    memory.values.copy_(torch.from_numpy(values))
    memory.length_scale.fill_(width)
    model.config.num_anchors, model.memory = len(features), memory
    return model


def unsigned(folder):
    """The values of a `jury.json` without their hash, as earlier versions wrote it."""
    values = json.loads((folder / "jury.json").read_text())
    return {key: part for key, part in values.items() if key != "sha256"}


def edit(folder, **changes):
    (folder / "jury.json").write_text(json.dumps({**unsigned(folder), **changes}))
