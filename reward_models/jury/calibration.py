"""Puts the heads of a jury on one scale, and their logits on an honest one.

Judgements compare responses to one prompt, by raters who each use a scale of their own. So they identify the reward
of a cluster up to a number per prompt, and its scale only as far as the clusters are equally consistent: nothing in
them says whether 2 logits of one cluster are more than 1 logit of another. Rules that compare heads (min, Nash,
median, quantiles) need an answer, and the reference policy pi_ref gives one: a response is worth as much as it stands
out among what pi_ref says to the same prompt.

- The *scale* of head k comes from differences within prompts, and is one number for all prompts.
- The *offset* of head k on a prompt is known only where there are samples of that prompt. What is stored is its mean
  over prompts: right on average, and of no consequence to rules that only compare responses to one prompt.
- The *temperature* of head k comes from held-out judgements; it says how sure its logits may be, not how clusters
  compare. It is used where rewards become probabilities (`adaptation`) and drops out of the calibrated reward.

Knows nothing of language models: rewards come in as arrays.

Shapes: `N` samples or judgements, `K` clusters, `R` raters, `U` texts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import torch
from scipy.optimize import minimize_scalar
from scipy.special import ndtr
from scipy.stats import rankdata
from torch import Tensor

from reward_models.errors import JuryError, did_you_mean
from reward_models.judgements.encoding import Encoded
from reward_models.raters.lbfgs import minimise
from reward_models.raters.observation import Observations


__all__ = ["Calibration", "CalibrationMethod", "calibrate", "fit_temperature"]

CalibrationMethod = Literal["spread", "win_rate"]
LOG_TEMPERATURE_SD = 1.0  # a head that few judgements speak about keeps its logits


@dataclass(frozen=True)
class Calibration:
    """`(r_k - offset_k) / scale_k`: rewards in units of how far responses of the reference policy lie apart.

    Attributes:
        scale: (K,) logits per unit, positive.
        offset: (K,) logits that become 0.
        method: See `calibrate`.
        num_prompts: Prompts behind it.
        num_samples: Responses behind it.
    """

    scale: np.ndarray
    offset: np.ndarray
    method: CalibrationMethod
    num_prompts: int
    num_samples: int

    def apply(self, rewards: Tensor) -> Tensor:
        """Calibrate rewards (..., K); the result has their dtype and device."""
        return (rewards - torch.as_tensor(self.offset).to(rewards)) / torch.as_tensor(self.scale).to(rewards)

    def to_dict(self) -> dict[str, Any]:
        """As lists and numbers, for JSON."""
        return {**self.__dict__, "scale": self.scale.tolist(), "offset": self.offset.tolist()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Calibration:
        """Read back what `to_dict` wrote."""
        arrays = {name: np.asarray(values[name], dtype=np.float64) for name in ("scale", "offset")}
        return cls(**{**values, **arrays})


def calibrate(
    rewards: np.ndarray,
    prompt: np.ndarray,
    method: CalibrationMethod = "spread",
    cluster_names: Sequence[str] | None = None,
) -> Calibration:
    """Find scale and offset of each head from its rewards of samples `y_i ~ pi_ref(. | x)`.

    Args:
        rewards: (N, K) raw cluster rewards of the samples, logits.
        prompt: (N,) number of the prompt that each sample answers. Eight or more samples for each of some thirty
            prompts give the scale to about five percent.
        method: `"spread"`: the scale is the standard deviation within prompts, pooled, the offset the mean. A reward
            of 1 is one standard deviation above what pi_ref says. `"win_rate"`: the scale makes `Phi(reward)` match
            how often a response wins against another sample of the prompt, the offset is the median; a reward of 1
            wins 84 percent of the time. The same for normal rewards, and unmoved by a few extreme ones.
        cluster_names: `K` names for error messages.

    Returns:
        The calibration, the same whatever positive factor and constant a head was multiplied by and had added.

    Raises:
        JuryError: Shapes that do not fit, rewards that are not finite, no prompt with two samples, or a head that
            gives all samples of a prompt the same reward.
    """
    if method not in get_args(CalibrationMethod):
        raise JuryError(
            f"method={method!r} is not a way to calibrate.{did_you_mean(method, get_args(CalibrationMethod))} "
            "The ways are 'spread' and 'win_rate'."
        )
    rewards, prompt = np.asarray(rewards, dtype=np.float64), np.asarray(prompt)
    if rewards.ndim != 2 or prompt.shape != rewards.shape[:1]:
        raise JuryError(
            f"rewards {rewards.shape} and prompt {prompt.shape} do not fit each other: they must be (N, K) and (N,). "
            "Give one row of rewards and one prompt number per sample."
        )
    if not np.isfinite(rewards).all():
        raise JuryError("a reward of a reference sample is NaN or infinite. Leave that sample out, or mend the jury.")
    _, group, size = np.unique(prompt, return_inverse=True, return_counts=True)
    if not (size > 1).any():
        raise JuryError(
            f"{len(rewards)} samples of {len(size)} prompts, but no prompt has two, and rewards of different prompts "
            "cannot be compared. Draw several responses per prompt from the reference policy; 8 is a good number."
        )
    members = [np.flatnonzero(group == g) for g in range(len(size))]
    centre = np.mean if method == "spread" else np.median
    centres = np.stack([centre(rewards[rows], axis=0) for rows in members])  # (X, K)
    inside = rewards - centres[group]
    if method == "spread":
        scale = np.sqrt((inside**2).sum(0) / (size - 1).sum())
    else:
        wins = np.concatenate([(rankdata(rewards[rows], axis=0) - 0.5) / len(rows) for rows in members])
        inside = np.concatenate([inside[rows] for rows in members])
        scale = np.array([_probit_scale(inside[:, k], wins[:, k]) for k in range(rewards.shape[1])])
    flat = np.flatnonzero(scale <= 1e-9 * np.maximum(np.abs(rewards).max(0), 1e-300))
    if len(flat):
        name = repr(cluster_names[flat[0]]) if cluster_names is not None else f"number {flat[0]}"
        raise JuryError(
            f"cluster {name} gives all reference samples of a prompt the same reward, so it has no scale to put it "
            "on. Draw more varied samples (sampling temperature 1), or fit the jury without this cluster."
        )
    return Calibration(scale, centres.mean(0), method, len(size), len(rewards))


def _probit_scale(inside: np.ndarray, wins: np.ndarray) -> float:
    """The scale for which `Phi(inside / scale)` is nearest to the win rates, both (N,); 0 where all are equal."""
    spread = float(np.std(inside))
    if spread == 0 or np.ptp(wins) == 0:
        return 0.0
    result = minimize_scalar(
        lambda log_scale: np.square(ndtr(inside / np.exp(log_scale)) - wins).sum(),
        bounds=(np.log(spread) - 12.0, np.log(spread) + 3.0),
        method="bounded",
        options={"xatol": 1e-6},
    )
    return float(np.exp(result.x))


def fit_temperature(
    enc: Encoded, rewards: np.ndarray, memberships: np.ndarray, terms: Mapping[str, np.ndarray] | None = None
) -> np.ndarray:
    """Temperature of each head: the `T_k` under which `r_k / T_k` explains held-out judgements best.

    The posterior mode of `sum_n w_n m_nk log p(y_n | r_k / T_k)` with `log T_k ~ N(0, 1)`: temperature scaling (Guo et
    al. 2017, https://arxiv.org/abs/1706.04599) with a prior that keeps a head's logits where few judgements speak.

    Args:
        enc: Held-out judgements. The memberships must come from other judgements of the same raters, or each head is
            asked about those whom it was chosen to please, and looks surer than it is.
        rewards: (U, K) raw rewards of `enc.texts`, logits.
        memberships: (R, K) of `enc.rater_ids`.
        terms: Terms of the likelihood by name, see `observation`: shared ones, and (R,) rater terms. Ratings need
            `thresholds`, ties need `log_tie_mean`: `{**rater_model.shared, **placement.terms()}`.

    Returns:
        (K,) temperatures; above 1 where the head was too sure of itself.

    Raises:
        JuryError: Shapes that do not fit, or judgements that the terms given cannot explain.
    """
    terms = dict(terms or {})
    expected = (enc.n_texts, enc.n_raters)
    if (len(rewards), len(memberships)) != expected or rewards.shape[1:] != memberships.shape[1:]:
        raise JuryError(
            f"rewards {rewards.shape} and memberships {memberships.shape} do not fit {expected[0]} texts and "
            f"{expected[1]} raters: they must be (U, K) and (R, K), in the order of enc.texts and enc.rater_ids."
        )
    if enc.kind == "rating" and "thresholds" not in terms:
        raise JuryError("ratings have a likelihood only with thresholds. Pass terms=rater_model.shared.")
    if enc.kind == "preference" and (enc.label == 2).any() and "log_tie_mean" not in terms:
        raise JuryError("there are ties among the judgements. Pass terms=rater_model.shared, or leave the ties out.")
    obs = Observations.from_encoded(enc)
    of_alternative = obs.gather(torch.from_numpy(np.asarray(rewards, dtype=np.float64)))
    weight = obs.weight[:, None] * torch.from_numpy(np.asarray(memberships, dtype=np.float64))[obs.rater]
    tensors = {name: torch.from_numpy(np.asarray(value, dtype=np.float64)) for name, value in terms.items()}

    def loss(values: dict[str, Tensor]) -> Tensor:
        log_t = values["log_temperature"]
        prior = 0.5 * (log_t / LOG_TEMPERATURE_SD).square().sum()
        return prior - (weight * obs.log_lik(of_alternative * (-log_t).exp(), tensors)).sum()

    start = {"log_temperature": np.zeros(rewards.shape[1])}
    return np.exp(minimise(loss, start, max_iter=200)["log_temperature"])
