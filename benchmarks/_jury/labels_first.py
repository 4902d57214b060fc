"""Labels first, texts afterwards: the rival of a joint fit. Rewards of `fit_raters` become linear in frozen features.

The label-level reward of each text is a noisy observation: precise after many judgements, imprecise after few. A
Gaussian process with a linear kernel predicts it from the features:

    y_u = mu + w . x_u + e_u + noise_u,   w ~ N(0, s^2 I),  e_u ~ N(0, t^2),  noise_u ~ N(0, 1 / information_u)

one for the consensus and one for each deviation from it, so that deviations may shrink to zero where the features do
not predict them. `s`, `t` and `mu` maximise the marginal likelihood, in closed form except for two numbers; nothing is
iterated over judgements. A prediction has a variance. Works for any membership of `rater_fit`. Knows nothing of where
features come from.

Shapes: `N` judgements, `U` texts, `D` features, `B` basis rewards.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch

from reward_models.errors import JuryError
from reward_models.fitting.em import FitConfig
from reward_models.fitting.linear_evidence import Ridge
from reward_models.fitting.rater_fit import RaterFit, fit_raters
from reward_models.fitting.text_table import check_features
from reward_models.judgements.encoding import Encoded
from reward_models.judgements.texts import prompt_groups
from reward_models.raters.lbfgs import one_thread
from reward_models.raters.placement import Placement
from reward_models.raters.rater_model import RaterModel


__all__ = ["LabelsFirst", "LinearReading", "fit_labels_first", "read_linear"]

LEAST_INFORMATION = 1e-3  # of a judged text, in 1 / logit^2
MOST_SHRINKAGE = 4.0  # largest factor of shrinkage that is undone: beyond it a reward is its prior and tells nothing


@dataclass(frozen=True)
class LinearReading:
    """A quantity of texts as a linear function of their features; `read_linear` makes it.

    Attributes:
        weight: (D,) posterior mean of `w`, on raw features.
        bias: `mu` plus the effect of centring.
        covariance: (D, D) posterior covariance of `w` on centred features.
        centre: (D,) mean of the features.
        residual: `t^2`, variance of the quantity beyond the features.
        gain: Marginal log-likelihood gained by the features, nats; near 0 where they tell nothing.
    """

    weight: np.ndarray
    bias: float
    covariance: np.ndarray
    centre: np.ndarray
    residual: float
    gain: float

    def predict(self, features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Compute the mean and variance (U,) of the quantity for texts with features (U, D)."""
        centred = features - self.centre
        return features @ self.weight + self.bias, np.einsum(
            "ud,de,ue->u", centred, self.covariance, centred
        ) + self.residual


def read_linear(
    features: np.ndarray, values: np.ndarray, noise: np.ndarray, groups: np.ndarray | None = None
) -> LinearReading:
    """Regress a quantity of texts on their features.

    Args:
        features: (U, D).
        values: (U,) observations.
        noise: (U,) variance of each observation.
        groups: (U,) group of each text if only differences within a group carry information. None: one group, whose
            mean does too.

    Returns:
        The regression.
    """
    centre = features.mean(0)
    ridge, span, scale = Ridge.of(features - centre, values, noise, groups)
    usual = float(np.log(max(float(ridge.y.std(correction=0)), 0.1)))
    best, without = (ridge.most_probable(usual, features=told) for told in (True, False))
    with one_thread(), torch.no_grad():
        log_s, log_t = (torch.from_numpy(best[name]) for name in ("log_s", "log_t"))
        gain = ridge.loss(*(torch.from_numpy(without[name]) for name in ("log_s", "log_t"))) - ridge.loss(log_s, log_t)
        weight, covariance, mu = ridge.posterior(log_s, log_t)
    weight = span.T @ weight
    # Outside the span the data tell nothing, and the posterior is the prior.
    prior = float(np.exp(2 * best["log_s"][0]))
    covariance = span.T @ (covariance - prior * np.eye(len(span))) @ span + prior * np.eye(len(centre))
    return LinearReading(
        weight=weight / scale,
        bias=mu - float(centre @ weight) / scale,
        covariance=covariance / scale**2,
        centre=centre,
        residual=float(np.exp(2 * best["log_t"][0])),
        gain=float(gain),
    )


@dataclass(frozen=True)
class LabelsFirst:
    """A jury that scores any text by its features. A `predictors.Predictor`; `fit_labels_first` makes it.

    Attributes:
        model: How raters vary.
        placement: Posterior of the training raters.
        readings: The consensus, then the deviation of each basis reward from it (mixture, simplex) or each taste
            (factor), as functions of the features. A mixture of one has the consensus only.
        prevalence: (B,) mean code of the population.
    """

    model: RaterModel
    placement: Placement
    readings: list[LinearReading]
    prevalence: np.ndarray

    @property
    def weight(self) -> np.ndarray:
        """Heads (B, D) on raw features."""
        return self._combine(np.stack([reading.weight for reading in self.readings]))

    @property
    def bias(self) -> np.ndarray:
        """Biases (B,)."""
        return self._combine(np.array([[reading.bias] for reading in self.readings]))[:, 0]

    def rewards(self, features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Compute the mean and variance (U, B) of the basis rewards of texts with features (U, D)."""
        mean, variance = (np.stack(x) for x in zip(*(r.predict(features) for r in self.readings), strict=True))
        return self._combine(mean).T, self._add_variance(variance).T

    def _combine(self, parts: np.ndarray) -> np.ndarray:
        if self.model.membership == "factor" or len(parts) == 1:
            return parts
        return parts[0] + parts[1:] - np.tensordot(self.prevalence, parts[1:], 1)

    def _add_variance(self, parts: np.ndarray) -> np.ndarray:
        return parts if self.model.membership == "factor" or len(parts) == 1 else parts[0] + parts[1:]

    def log_probs(self, enc: Encoded, features: np.ndarray | None = None) -> np.ndarray:
        """Compute the (N, A) log-probability of every possible answer; see `Predictor`."""
        rewards, variance = self.rewards(_required(features, enc))
        # Of the options of a survey's few questions the variance is too large: .988 on GSS spending becomes 1.013.
        return self.placement.log_probs(enc, rewards, None if enc.kind == "choice" else variance)

    def adapt(self, enc: Encoded, features: np.ndarray | None = None) -> LabelsFirst:
        """Return the same jury with the raters of `enc` adapted from their labels; all other raters are forgotten."""
        rewards, _ = self.rewards(_required(features, enc))
        return replace(self, placement=self.model.adapt(enc, rewards))


def fit_labels_first(fit: RaterFit, enc: Encoded, features: np.ndarray) -> LabelsFirst:
    """Make the rewards of a label-level jury functions of the features of the text.

    Args:
        fit: The jury.
        enc: The judgements it was fitted to.
        features: (U, D) one row per text of `enc.texts`.

    Returns:
        A jury for any text; the memberships of the raters are those of `fit`.

    Raises:
        JuryError: Features that do not match the texts or are not finite.
    """
    features = _required(features, enc)
    judged = np.zeros(enc.n_texts, dtype=bool)
    judged[enc.alternatives[enc.alternatives >= 0]] = True
    groups = None
    if enc.kind != "rating":
        groups = prompt_groups(enc.texts)[judged]
    plain = fit if fit.num_clusters == 1 and fit.model.membership == "mixture" else _one_for_everybody(fit, enc)
    everybody = plain.known_rewards(enc)
    sds = fit.reward_sd or (np.inf,) * (fit.rewards.shape[1] + 1)  # not estimated: no shrinkage to undo
    parts = [(everybody[:, 0], plain.placement.information(enc, everybody)[:, 0], (plain.reward_sd or sds)[0])]
    rewards = fit.known_rewards(enc)
    information = fit.placement.information(enc, rewards)
    if fit.model.membership == "factor":
        tastes = range(1, rewards.shape[1])
        parts += [(rewards[:, k], information[:, k], sds[k]) for k in tastes]
    elif plain is not fit:
        deviations = rewards - rewards @ fit.prevalence[:, None]
        parts += [(d, i, sds[1]) for d, i in zip(deviations.T, information.T, strict=True)]
    readings = []
    for part, about_part, sd in parts:
        info = np.maximum(about_part[judged], LEAST_INFORMATION)
        # The fitted values are shrunk to zero; undo it to get back the observations.
        observed = part[judged] * np.minimum(1 + 1 / (sd**2 * info), MOST_SHRINKAGE)
        readings.append(read_linear(features[judged], observed, 1 / info, groups))
    return LabelsFirst(fit.model, fit.placement, readings, fit.prevalence)


def _one_for_everybody(fit: RaterFit, enc: Encoded) -> RaterFit:
    """Fit one reward for everybody to the same judgements: the most precise estimate of the consensus."""
    return fit_raters(enc, "mixture", 1, config=FitConfig(nuisance=bool(fit.model.term_sd)))


def _required(features: np.ndarray | None, enc: Encoded) -> np.ndarray:
    """Features in double precision; raise if they are missing or do not match the texts."""
    if features is None:
        raise JuryError(
            "features=None, but the rewards are functions of the features. Fix: pass one row per entry of "
            "Encoded.texts, in that order"
        )
    check_features(enc, features)
    return features.astype(np.float64)
