"""Calibrate the heads of a jury to one scale, and their logits to heldout judgements.

Judgements compare responses to one prompt, by raters who each use a scale of their own. So they identify the reward
of a cluster up to a constant per prompt, and its scale only if all clusters are equally consistent: nothing in them
says whether 2 logits of one cluster are more than 1 logit of another. Rules that compare heads (min, Nash, median,
quantiles) need a common unit, and the reference policy pi_ref gives one: the spread of a head's rewards among samples
of pi_ref for the same prompt.

- The *scale* of head k comes from differences within prompts, and is one number for all prompts.
- The *offset* of head k on a prompt is known only for prompts with samples. Stored is its mean over prompts, which is
  right on average and does not affect rules that only compare responses to one prompt.
- The *temperature* of head k comes from heldout judgements. It corrects overconfident logits and says nothing about
  how clusters compare. It is used where rewards become probabilities (`raters.adaptation`), not in calibrated rewards.

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
LOG_TEMPERATURE_SD = 1.0  # a head with few judgements keeps its logits


@dataclass(frozen=True)
class Calibration:
    """`(r_k - offset_k) / scale_k`: rewards in units of the spread of the reference policy's responses.

    Attributes:
        scale: (K,) logits per unit, positive.
        offset: (K,) logits that become 0.
        method: See `calibrate`.
        num_prompts: Number of prompts it was computed from.
        num_samples: Number of responses it was computed from.

    Example:
        >>> calibration = Calibration(np.array([2.0, 0.5]), np.array([1.0, 0.0]), "spread", 30, 240)
        >>> calibration.apply(torch.tensor([[5.0, 1.0]])).tolist()
        [[2.0, 2.0]]
    """

    scale: np.ndarray
    offset: np.ndarray
    method: CalibrationMethod
    num_prompts: int
    num_samples: int

    def apply(self, rewards: Tensor) -> Tensor:
        """Calibrate rewards (..., K); the result has their dtype and device."""
        return (rewards - torch.as_tensor(self.offset).to(rewards)) / torch.as_tensor(self.scale).to(rewards)

    def check_values(self) -> None:
        """Raise unless scales are positive, offsets finite and counts whole numbers.

        Raises:
            JuryError: A value of a file that was damaged or written by hand.
        """
        if self.scale.ndim != 1 or self.scale.shape != self.offset.shape:
            raise JuryError(f"the scale {self.scale.tolist()} and offset {self.offset.tolist()} are not one per head")
        if not (np.isfinite(self.scale).all() and (self.scale > 0).all() and np.isfinite(self.offset).all()):
            raise JuryError(
                f"the scale {self.scale.tolist()} must be positive and the offset {self.offset.tolist()} finite"
            )
        if self.method not in get_args(CalibrationMethod):
            raise JuryError(f"the method {self.method!r} is none of {', '.join(get_args(CalibrationMethod))}")
        if not all(type(count) is int and count >= 0 for count in (self.num_prompts, self.num_samples)):
            raise JuryError(f"num_prompts={self.num_prompts!r} and num_samples={self.num_samples!r} are no counts")

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as lists and numbers, for JSON."""
        return {**self.__dict__, "scale": self.scale.tolist(), "offset": self.offset.tolist()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Calibration:
        """Make a calibration from the result of `to_dict`."""
        arrays = {name: np.asarray(values[name], dtype=np.float64) for name in ("scale", "offset")}
        return cls(**{**values, **arrays})


def calibrate(
    rewards: np.ndarray,
    prompt: np.ndarray,
    method: CalibrationMethod = "spread",
    cluster_names: Sequence[str] | None = None,
) -> Calibration:
    """Estimate scale and offset of each head from its rewards of samples `y_i ~ pi_ref(. | x)`.

    Args:
        rewards: (N, K) raw cluster rewards of the samples, logits.
        prompt: (N,) number of each sample's prompt. Eight or more samples for each of some thirty prompts determine
            the scale to about five percent.
        method: `"spread"`: the scale is the pooled standard deviation within prompts, the offset the mean; a reward
            of 1 is one standard deviation above the mean of pi_ref. `"win_rate"`: the scale makes `Phi(reward)` match
            how often a response wins against another sample of the prompt, the offset is the median; a reward of 1
            wins 84 percent of the time. For normal rewards both agree; the second is robust to a few extreme rewards.
        cluster_names: `K` names for error messages.

    Returns:
        The calibration. Calibrated rewards do not change if a head is multiplied by a positive factor or shifted.

    Raises:
        JuryError: Shapes that do not match, rewards that are not finite, no prompt with two samples, or a head that
            gives all samples of a prompt the same reward.

    Example:
        >>> rewards = np.array([[1.0, 10.0], [3.0, 30.0], [5.0, -10.0], [7.0, 10.0]])  # two samples of two prompts
        >>> calibration = calibrate(rewards, prompt=np.array([0, 0, 1, 1]))
        >>> calibration.scale.round(3).tolist(), calibration.offset.tolist()  # sqrt(2) and ten times as much
        ([1.414, 14.142], [4.0, 10.0])
    """
    if method not in get_args(CalibrationMethod):
        raise JuryError(
            f"method={method!r} is no calibration method.{did_you_mean(method, get_args(CalibrationMethod))} "
            "The methods are 'spread' and 'win_rate'."
        )
    rewards, prompt = np.asarray(rewards, dtype=np.float64), np.asarray(prompt)
    if rewards.ndim != 2 or prompt.shape != rewards.shape[:1]:
        raise JuryError(
            f"rewards {rewards.shape} and prompt {prompt.shape} do not match: they must be (N, K) and (N,). Give one "
            "row of rewards and one prompt number per sample."
        )
    if not np.isfinite(rewards).all():
        raise JuryError("a reward of a reference sample is NaN or infinite. Remove that sample, or repair the jury.")
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
            f"cluster {name} gives all reference samples of a prompt the same reward, so its scale is unknown. Draw "
            "more varied samples (sampling temperature 1), or fit the jury without this cluster."
        )
    return Calibration(scale, centres.mean(0), method, len(size), len(rewards))


def _probit_scale(inside: np.ndarray, wins: np.ndarray) -> float:
    """Return the scale for which `Phi(inside / scale)` is closest to the win rates, both (N,); 0 if all are equal."""
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
    """Fit the temperature `T_k` of each head under which `r_k / T_k` explains heldout judgements best.

    The posterior mode of `sum_n w_n m_nk log p(y_n | r_k / T_k)` with `log T_k ~ N(0, 1)`: temperature scaling (Guo et
    al. 2017, https://arxiv.org/abs/1706.04599) with a prior that keeps the logits of heads with few judgements.

    Args:
        enc: Heldout judgements. The memberships must come from other judgements of the same raters: otherwise each
            head is tested on the raters who agree with it, and its temperature is too low.
        rewards: (U, K) raw rewards of `enc.texts`, logits.
        memberships: (R, K) of `enc.rater_ids`.
        terms: Terms of the likelihood by name, see `raters.observation`: shared ones, and (R,) rater terms. Ratings
            need `thresholds`, ties need `log_tie_mean`: `{**rater_model.shared, **placement.terms()}`.

    Returns:
        (K,) temperatures; above 1 if the head was overconfident.

    Raises:
        JuryError: Shapes that do not match, or judgements that `terms` cannot explain.

    Example:
        >>> from reward_models import planted_judgements
        >>> planted = planted_judgements("preference", num_raters=40, num_items=30)
        >>> memberships = np.eye(2)[planted.cluster]
        >>> fit_temperature(planted.judgements.encode(), 3 * planted.rewards, memberships).round().tolist()
        [3.0, 3.0]
    """
    terms = dict(terms or {})
    expected = (enc.n_texts, enc.n_raters)
    if (len(rewards), len(memberships)) != expected or rewards.shape[1:] != memberships.shape[1:]:
        raise JuryError(
            f"rewards {rewards.shape} and memberships {memberships.shape} do not match {expected[0]} texts and "
            f"{expected[1]} raters: they must be (U, K) and (R, K), in the order of enc.texts and enc.rater_ids."
        )
    if enc.kind == "rating" and "thresholds" not in terms:
        raise JuryError("the likelihood of ratings needs thresholds. Pass terms=rater_model.shared.")
    if enc.kind == "preference" and (enc.label == 2).any() and "log_tie_mean" not in terms:
        raise JuryError("some judgements are ties. Pass terms=rater_model.shared, or remove the ties.")
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
