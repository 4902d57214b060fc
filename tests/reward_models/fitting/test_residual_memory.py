"""The residual memory of judged texts: bumps, shrinkage and the joint fit, against closed forms."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from reward_models.fitting.residual_memory import fit_beside_residuals, fit_residuals, remember
from reward_models.raters.likelihoods import choice_log_lik


def normal_log_lik(y, precision=1.0):
    """Observations y (U, 1) of the rewards themselves with a known precision: posteriors are closed forms."""
    return lambda rewards: -0.5 * precision * (rewards - torch.from_numpy(y)).square()


class TestBumps:
    def test_anchors_are_reproduced_and_other_texts_left_alone(self):
        rng = np.random.default_rng(0)
        features, residuals = 50 + rng.normal(size=(40, 8)), rng.normal(size=(40, 3))
        memory = remember(features, np.full(8, 2.0), residuals, 1.0)
        assert memory.rewards(features) == pytest.approx(residuals, abs=1e-8)
        assert np.abs(memory.rewards(features + 5.0)).max() < 1e-6
        assert memory.rewards(features[:0]).shape == (0, 3)

    def test_two_anchors_by_hand(self):
        memory = remember(np.array([[0.0], [3.0]]), np.ones(1), np.array([[1.0], [0.0]]), 1.0)
        length = 3.0 / np.sqrt(2 * np.log(2 / 0.01))
        assert memory.length_scale == pytest.approx([length, length])
        bump = np.exp(-0.5 * (3.0 / length) ** 2)
        assert bump == pytest.approx(0.01 / 2)
        alpha = np.linalg.solve([[1.0, bump], [bump, 1.0]], [1.0, 0.0])
        assert memory.values[:, 0] == pytest.approx(alpha)
        half = np.exp(-0.5 * (1.5 / length) ** 2)
        assert memory.rewards(np.array([[1.5]]))[0, 0] == pytest.approx(half * alpha.sum())

    def test_texts_with_the_same_features_share_the_mean_of_their_residuals(self):
        features = np.array([[0.0, 1.0], [0.0, 1.0], [1.0, 0.0]])
        memory = remember(features, np.ones(2), np.array([[1.0], [3.0], [-1.0]]), 1.0)
        assert len(memory.anchors) == 2
        assert memory.rewards(features)[:, 0] == pytest.approx([2.0, 2.0, -1.0], abs=1e-8)

    def test_one_anchor_has_a_width(self):
        memory = remember(np.ones((1, 2)), np.ones(2), np.array([[0.5]]), 1.0)
        assert np.isfinite(memory.length_scale).all()
        assert memory.rewards(np.ones((1, 2)))[0, 0] == pytest.approx(0.5)


class TestResiduals:
    def test_shrinkage_is_that_of_a_normal_prior(self):
        y, linear = np.array([[2.0], [2.0], [-1.0]]), np.array([[0.0], [0.0], [1.0]])
        counts = torch.tensor([[1.0], [100.0], [0.0]], dtype=torch.float64)
        delta = fit_residuals(normal_log_lik(y), counts, linear, sd=0.5)
        # n / (n + 1 / sd^2) of the way from the linear head to the mean judgement.
        assert delta[:, 0] == pytest.approx([2.0 * 1 / 5, 2.0 * 100 / 104, 0.0], abs=1e-5)

    def test_many_answers_win_over_the_linear_heads(self):
        share = np.array([0.7, 0.2, 0.1])

        def answers(n):
            def log_lik(rewards):
                return torch.cat(
                    [choice_log_lik(rewards.T[:, None], torch.tensor([[a]]))[:, 0][None] for a in range(3)]
                )

            delta = fit_residuals(log_lik, torch.from_numpy(n * share)[:, None], np.zeros((3, 1)), sd=1.0)
            return torch.from_numpy(delta[:, 0]).softmax(0).numpy()

        assert answers(1e5) == pytest.approx(share, abs=1e-3)
        assert np.abs(answers(1.0) - 1 / 3).max() < np.abs(answers(10.0) - 1 / 3).max() < np.abs(share - 1 / 3).max()


class TestJointFit:
    def test_heads_are_the_generalised_least_squares_of_the_marginal_model(self):
        # y_u ~ N(r_u, 1/n_u), r ~ N(X w, sd^2), ridge: w solves the normal equations with weights 1/(sd^2 + 1/n).
        rng = np.random.default_rng(1)
        x, sd, ridge = rng.normal(size=(30, 3)), 0.7, 0.05
        x -= x.mean(0)
        n = rng.choice([20.0, 50.0, 1000.0], size=30)
        y = x @ [1.0, -2.0, 0.5] + sd * rng.normal(size=30)
        heads = fit_beside_residuals(
            normal_log_lik(y[:, None]),
            torch.from_numpy(n)[:, None],
            torch.from_numpy(x),
            torch.arange(30) * 0,
            torch.full((3,), ridge, dtype=torch.float64),
            sd=sd,
            with_bias=True,
        )
        # The joint mode over r and (w, b) eliminates r exactly: r's own weights are v = 1 / (sd^2 + 1/n).
        design = np.column_stack([x, np.ones(30)])
        v = 1.0 / (sd**2 + 1.0 / n)
        penalty = np.diag([30 * ridge / sd**2] * 3 + [0.0])
        expected = np.linalg.solve(design.T @ (v[:, None] * design) + penalty, design.T @ (v * y))
        assert heads["weight"][0].numpy() == pytest.approx(expected[:3], abs=0.02)
        assert heads["bias"].item() == pytest.approx(expected[3], abs=0.02)

    def test_unjudged_texts_do_not_touch_the_heads(self):
        rng = np.random.default_rng(2)
        x, y = rng.normal(size=(12, 2)), rng.normal(size=(12, 1))
        counts = torch.full((12, 1), 5.0, dtype=torch.float64)
        counts[8:] = 0.0
        group = torch.tensor([0, 0, 0, 0, 1, 1, 1, 1, -1, -1, -1, -1])
        args = (torch.full((2,), 0.1, dtype=torch.float64),)
        whole = fit_beside_residuals(normal_log_lik(y), counts, torch.from_numpy(x), group, *args, sd=1.0)
        part = fit_beside_residuals(
            normal_log_lik(y[:8]), counts[:8], torch.from_numpy(x[:8]), group[:8], *args, sd=1.0
        )
        torch.testing.assert_close(whole["weight"], part["weight"], atol=1e-4, rtol=0)
