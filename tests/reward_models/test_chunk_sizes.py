"""How many texts or judgements are computed at a time does not matter, neither in arrays nor in batches of a model."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from reward_models import (
    EncoderConfig,
    JuryRewardModel,
    JuryScorer,
    VPLConfig,
    fit_encoder,
    fit_raters,
    fit_vpl,
    planted_judgements,
)
from reward_models.baselines import encoder, vpl
from reward_models.evaluation import saved_jury
from reward_models.fitting.em import FitConfig
from reward_models.judgements.texts import Text
from reward_models.jury.features import pooled_features
from reward_models.jury.tiny import tiny_causal_lm, tiny_tokenizer
from reward_models.raters import adaptation


ENC = planted_judgements("choice", num_raters=20, num_items=6).judgements.encode()
RNG = np.random.default_rng(0)
TEXTS = [Text(f"Question {n}?", "yes, " * (n % 11 + 1)) for n in range(23)]  # of many lengths


def test_ranked_questions(monkeypatch):
    fit = fit_raters(ENC, "mixture", 2, config=FitConfig(restarts=1))
    table = dict(zip(ENC.texts, fit.rewards, strict=True))
    pool = [(f"Question {n + 1}?", ["answer A", "answer B", "answer C"]) for n in range(6)]

    def ranked():
        rows = adaptation.rank_questions(
            fit.model, fit.prevalence, pool, "choice", lambda texts: np.stack([table[text] for text in texts])
        )
        return [(row.index, row.information) for row in rows]

    whole = ranked()
    monkeypatch.setattr(adaptation, "CHUNK", 1)
    assert [index for index, _ in ranked()] == [index for index, _ in whole]
    assert [nats for _, nats in ranked()] == pytest.approx([nats for _, nats in whole], abs=1e-12)


@pytest.mark.parametrize(("module", "config"), [(vpl, VPLConfig(epochs=1)), (encoder, EncoderConfig(epochs=1))])
def test_answers_of_encoders(monkeypatch, module, config):
    fit = (fit_vpl if module is vpl else fit_encoder)(ENC, 2, config=config)
    whole = fit.log_probs(ENC)
    monkeypatch.setattr(module, "CHUNK", 7)
    np.testing.assert_allclose(fit.log_probs(ENC), whole, atol=1e-6)


@pytest.mark.parametrize("size", [1, 2, 5, 64])
def test_features_and_rewards_of_texts(monkeypatch, size):
    """Padding, which depends on the batch, changes the last digits of float32 only."""
    tokenizer = tiny_tokenizer()
    lm = tiny_causal_lm(tokenizer)
    model = JuryRewardModel.from_fit(lm, np.eye(2, 32), np.zeros(2), prevalence=[0.5, 0.5])
    whole = saved_jury.score_texts(JuryScorer(model, tokenizer), TEXTS, progress=False)
    monkeypatch.setattr(saved_jury, "CHUNK", 3 * size)
    scorer = JuryScorer(model, tokenizer, batch_size=size)
    np.testing.assert_allclose(saved_jury.score_texts(scorer, TEXTS, progress=False), whole, atol=1e-5)
    features = pooled_features(lm, tokenizer, TEXTS, batch_size=size, progress=False)
    np.testing.assert_allclose(
        features, pooled_features(lm, tokenizer, TEXTS, batch_size=23, progress=False), atol=1e-5
    )
    assert not torch.is_tensor(features)
    assert np.ptp(features, axis=0).max() > 0.1  # texts differ
