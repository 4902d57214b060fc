"""What similar questions tell of a new one: the marginal where wording tells nothing, more where it does."""

from __future__ import annotations

import numpy as np
import pytest

from reward_models.baselines.similar_questions import RELIANCES, WIDTHS, SimilarQuestions, fit_similar_questions
from reward_models.errors import JudgementError
from reward_models.stats.answers import js_divergence


def survey(rng: np.random.Generator, number: int, told: float) -> tuple[np.ndarray, np.ndarray]:
    """Shares `(Q, 3)` of questions, of which vectors `(Q, 4)` tell a part."""
    vectors = rng.normal(size=(number, 4))
    away = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    logits = told * away[:, [0]] * [1.5, 0, -1.5] + 0.4 * rng.normal(size=(number, 3))
    shares = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    return shares, vectors


def gain(shares: np.ndarray, vectors: np.ndarray, known: int) -> float:
    """By how much the prediction is nearer to the last questions than the marginal of the first ones."""
    fit = fit_similar_questions(shares[:known], vectors[:known])
    near = js_divergence(shares[known:], fit.shares(vectors[known:]))
    return float((js_divergence(shares[known:], fit.marginal) - near).mean())


def test_wording_that_tells_is_used_and_exchanged_wording_is_not():
    rng = np.random.default_rng(0)
    told, exchanged = [], []
    for _ in range(20):
        shares, vectors = survey(rng, 36, told=1.0)
        told.append(gain(shares, vectors, 24))
        exchanged.append(gain(shares, vectors[rng.permutation(36)], 24))
    assert np.mean(told) > 0.02
    assert abs(np.mean(exchanged)) < 0.1 * np.mean(told)
    assert max(np.abs(exchanged)) < max(told)


def test_weights_are_those_of_the_kriging_equations():
    """A second method: the linear system with a Lagrange multiplier, for one width and one reliance."""
    rng = np.random.default_rng(1)
    shares, vectors = survey(rng, 7, told=1.0)
    width, reliance = 1, 6
    evidence = np.zeros((len(WIDTHS), len(RELIANCES)))
    evidence[width, reliance] = 1.0
    fit = SimilarQuestions(shares, {"text": vectors}, {"text": evidence})
    new = rng.normal(size=(2, 4))

    def directions(rows: np.ndarray) -> np.ndarray:
        away = rows - vectors.mean(axis=0)
        return away / np.linalg.norm(away, axis=1, keepdims=True)

    def squares(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return ((directions(a)[:, None] - directions(b)[None]) ** 2).sum(axis=-1)

    scale = np.median(squares(vectors, vectors)[np.triu_indices(7, 1)])
    rho = RELIANCES[reliance]
    kernel = rho * np.exp(-squares(vectors, vectors) / (2 * WIDTHS[width] ** 2 * scale)) + (1 - rho) * np.eye(7)
    system = np.block([[kernel, np.ones((7, 1))], [np.ones((1, 7)), np.zeros((1, 1))]])
    for row, vector in enumerate(new):
        near = rho * np.exp(-squares(vector[None], vectors)[0] / (2 * WIDTHS[width] ** 2 * scale))
        expected = np.linalg.solve(system, np.append(near, 1.0))[:7]
        np.testing.assert_allclose(fit.weights(new)[row], expected, atol=1e-10)


def test_evidence_is_the_likelihood_of_contrasts():
    """A second method: for two options, the density of a t-like law of contrasts, up to a constant of the pair."""
    rng = np.random.default_rng(2)
    agree = rng.uniform(0.2, 0.8, size=6)
    shares, vectors = np.stack([agree, 1 - agree], axis=1), rng.normal(size=(6, 3))
    fit = fit_similar_questions(shares, vectors)
    away = vectors - vectors.mean(axis=0)
    away /= np.linalg.norm(away, axis=1, keepdims=True)
    squares = ((away[:, None] - away[None]) ** 2).sum(axis=-1)
    scale = np.median(squares[np.triu_indices(6, 1)])
    logs = np.log(shares + 0.002)
    z = (logs[:, 0] - logs[:, 1]) / np.sqrt(2)
    contrasts = np.linalg.svd(np.eye(6) - 1 / 6)[0][:, :5].T  # orthogonal to the mean
    counts = z.var() / (z.var() + 0.05**2)
    expected = np.empty((len(WIDTHS), len(RELIANCES)))
    for w, width in enumerate(WIDTHS):
        for p, rho in enumerate(RELIANCES):
            kernel = rho * np.exp(-squares / (2 * width**2 * scale)) + (1 - rho) * np.eye(6)
            within = contrasts @ kernel @ contrasts.T
            quadratic = contrasts @ z @ np.linalg.solve(within, contrasts @ z)
            expected[w, p] = -counts * (np.linalg.slogdet(within)[1] + 5 * np.log(quadratic)) / 2
    expected = np.exp(expected - expected.max())
    np.testing.assert_allclose(fit.evidence["text"], expected / expected.sum(), rtol=1e-5)


def test_of_two_sources_the_evidence_believes_the_one_that_tells():
    rng = np.random.default_rng(3)
    shares, vectors = survey(rng, 40, told=1.5)
    fit = fit_similar_questions(shares, {"noise": rng.normal(size=(40, 4)), "text": vectors})
    assert fit.evidence["text"].sum() > 0.95


@pytest.mark.parametrize(
    "vectors", [np.ones((6, 3)), np.zeros((6, 3)), np.eye(6)], ids=["the same", "nothing", "all as far"]
)
def test_texts_that_tell_nothing_apart_give_the_marginal(vectors):
    shares = survey(np.random.default_rng(4), 6, told=0.0)[0]
    fit = fit_similar_questions(shares, vectors)
    far = np.full((1, vectors.shape[1]), 7.0)
    assert fit.shares(far)[0] == pytest.approx(fit.marginal, abs=1e-9)


@pytest.mark.parametrize("number", [1, 2])
def test_one_or_two_known_questions_give_the_marginal(number):
    shares, vectors = survey(np.random.default_rng(5), number, told=1.0)
    fit = fit_similar_questions(shares, vectors)
    assert fit.reliance == 0.0
    assert fit.shares(vectors) == pytest.approx(np.tile(shares.mean(axis=0), (number, 1)))


def test_shares_are_never_negative_and_sum_to_one():
    rng = np.random.default_rng(6)
    vectors = rng.normal(size=(30, 2))
    shares = np.where(vectors[:, [0]] > 0, [[0.98, 0.01, 0.01]], [[0.01, 0.01, 0.98]])
    predicted = fit_similar_questions(shares, vectors).shares(rng.normal(size=(200, 2)) * 10)
    assert predicted.min() > 0
    assert predicted.sum(axis=1) == pytest.approx(1)


@pytest.mark.parametrize(
    ("shares", "vectors", "message"),
    [
        (np.ones((3, 2)) / 2, np.ones((4, 2)), "3 questions have 4 vectors 'text'"),
        (np.ones((3, 2)) / 2, np.full((3, 2), np.nan), "must be as many and finite"),
        (np.ones((3, 2)) / 2, np.ones(3), "must be \\(questions, numbers\\)"),
        (np.full((3, 2), np.nan), np.ones((3, 2)), "leave out questions that nobody answered"),
        (np.ones(3), np.ones((3, 2)), "must be \\(questions, options\\)"),
        (np.zeros((3, 2)), np.ones((3, 2)), "leave out questions that nobody answered"),
    ],
)
def test_bad_input_is_refused(shares, vectors, message):
    with pytest.raises(JudgementError, match=message):
        fit_similar_questions(shares, vectors)


def test_vectors_of_another_model_are_refused():
    fit = fit_similar_questions(np.ones((3, 2)) / 2, np.eye(3))
    with pytest.raises(JudgementError, match=r"vectors of \{'text': 2\} numbers, the known ones of \{'text': 3\}"):
        fit.shares(np.ones((1, 2)))
