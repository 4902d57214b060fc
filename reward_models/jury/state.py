"""What is known of a jury reward model beside its weights: what its heads mean and how raters vary around them.

Knows nothing of files (that is `folder`) or of scoring.

Shapes: `R` raters, `K` clusters, `S` states of a rater model, `P` parts of a reward (see `JointFit`), `C` codes.
"""

from __future__ import annotations

import hashlib
import secrets
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from reward_models.errors import JudgementWarning, JuryError, did_you_mean
from reward_models.judgements.encoding import Encoded
from reward_models.judgements.text_kind import TextKind
from reward_models.judgements.texts import freeze_prompt, prompt_wording
from reward_models.jury.calibration import Calibration
from reward_models.raters.placement import Placement
from reward_models.raters.rater_model import RaterModel


if TYPE_CHECKING:
    from reward_models.fitting.joint.fit import JointFit
    from reward_models.jury.configuration_jury import JuryConfig

__all__ = ["JuryState", "RewardUncertainty", "StoredRaters", "counts"]


@dataclass(frozen=True)
class StoredRaters:
    """Posteriors of raters under pseudonyms.

    A pseudonym is the SHA-256 of a random salt and the rater's id. It keeps ids out of the folder, but whoever has the
    folder has the salt too and can try ids that can be guessed: do not publish it where ids are names.

    Attributes:
        salt: Hexadecimal.
        pseudonyms: `R` hexadecimal digests.
        posterior: (R, S) float32 over the states of the jury's rater model.

    Example:
        >>> from reward_models import fit_raters, planted_judgements
        >>> fit = fit_raters(planted_judgements(num_raters=10, num_items=8).judgements.encode())
        >>> raters = StoredRaters.of(fit.placement)
        >>> len(raters.pseudonyms), len(raters.pseudonyms[0]), raters.posterior.shape[0]
        (10, 64, 10)
        >>> raters.placement(["nobody"], fit.model).memberships().round(1).tolist()  # unknown: the prevalence
        [[0.5, 0.5]]
    """

    salt: str
    pseudonyms: list[str]
    posterior: np.ndarray

    @classmethod
    def of(cls, placement: Placement) -> StoredRaters:
        """Store the posteriors of a placement, under pseudonyms with a new salt."""
        salt = secrets.token_hex(16)
        pseudonyms = [_pseudonym(rater, salt) for rater in placement.rater_ids]
        return cls(salt, pseudonyms, placement.posterior.astype(np.float32, order="C"))

    def check_values(self, model: RaterModel) -> None:
        """Raise unless there is one pseudonym and one posterior over the states of the rater model per rater.

        Raises:
            JuryError: A value of a file that was damaged or written by hand.

        Warns:
            UserWarning: Posteriors that do not sum to one.
        """
        if not isinstance(self.salt, str):
            raise JuryError(f"the salt {self.salt!r} is no text")
        if self.posterior.shape != (len(self.pseudonyms), model.n_states):
            raise JuryError(
                f"the posteriors have shape {self.posterior.shape}, not one row for each of {len(self.pseudonyms)} "
                f"raters over {model.n_states} states"
            )
        if any(len(pseudonym) != 64 for pseudonym in self.pseudonyms):
            raise JuryError("a pseudonym is no SHA-256")
        totals = self.posterior.sum(axis=1)
        if not ((self.posterior >= 0).all() and np.isfinite(totals).all() and (totals > 0).all()):
            raise JuryError("the posterior of a rater is no distribution")
        if not np.allclose(totals, 1.0, atol=1e-3):
            warnings.warn(
                "the stored memberships of raters do not sum to 1: an earlier version could mix those of different "
                "raters when it saved them. Do not rely on JuryScorer.remembered: adapt the raters from their "
                "judgements, or fit the jury again.",
                UserWarning,
                stacklevel=2,
            )

    def knows(self, rater_ids: Sequence[str]) -> np.ndarray:
        """Return (len(rater_ids),) whether each rater is stored."""
        stored = set(self.pseudonyms)
        return np.array([_pseudonym(rater, self.salt) in stored for rater in rater_ids], dtype=bool)

    def placement(self, rater_ids: Sequence[str], model: RaterModel, strangers: np.ndarray | None = None) -> Placement:
        """Look raters up by their ids; the posterior of one who is not stored is `strangers`, or the prior."""
        number = {pseudonym: i for i, pseudonym in enumerate(self.pseudonyms)}
        rows = np.array([number.get(_pseudonym(rater, self.salt), -1) for rater in rater_ids], dtype=np.int64)
        unknown = np.exp(model.log_prior) if strangers is None else strangers
        posterior = np.concatenate([self.posterior.astype(np.float64), unknown[None]])[rows]
        posterior /= posterior.sum(axis=1, keepdims=True)
        return Placement(model, list(rater_ids), posterior, strangers)


@dataclass(frozen=True)
class RewardUncertainty:
    """How sure a jury is of its rewards: independent parts of known variance, mixed into the rewards of the heads.

    Attributes:
        mixing: (P, K) from parts to heads.
        new_variance: (P,) variance of the parts of a text that nobody judged; those of judged texts are beside their
            rewards (`memory.JudgedTexts`).
        features: (P,) prior standard deviation of what the features tell of each part, in logits.
        residual: (P,) the same of what a text has beyond its features.

    Example:
        A text that nobody judged, of a jury of two clusters that want opposite things; raters are in one of them:

        >>> mixing, strengths = np.array([[1.0, 1.0], [1.0, -1.0]]), np.ones(2)
        >>> parts = RewardUncertainty(mixing, np.array([0.2, 0.1]), strengths, strengths)
        >>> parts.of_codes(parts.new_variance[None], np.eye(2)).round(2).tolist()
        [[0.3, 0.3]]
    """

    mixing: np.ndarray
    new_variance: np.ndarray
    features: np.ndarray
    residual: np.ndarray

    @classmethod
    def of(cls, fit: JointFit) -> RewardUncertainty:
        """Take it from a joint fit."""
        return cls(fit.mixing, fit.new_variance, fit.strengths.features, fit.strengths.residual)

    def of_codes(self, variance: np.ndarray, codes: np.ndarray, temperature: np.ndarray | None = None) -> np.ndarray:
        """Compute the (U, C) variance of the reward of each text for a rater with each code.

        Args:
            variance: (U, P) of the parts.
            codes: (C, K).
            temperature: (K,) by which the rewards of the heads are divided; None: 1.
        """
        mixing = self.mixing if temperature is None else self.mixing / temperature
        return variance @ (mixing @ codes.T) ** 2

    def check_values(self) -> None:
        """Raise unless the values are those that a fit can have.

        Raises:
            JuryError: Shapes that do not match, a number that is not finite, or a negative variance.
        """
        parts = len(self.new_variance)
        shapes = {self.new_variance.shape, self.features.shape, self.residual.shape}
        if self.mixing.ndim != 2 or shapes != {(parts,)} or len(self.mixing) != parts:
            raise JuryError(f"the uncertainty of {parts} parts has a mixing of shape {self.mixing.shape}")
        if not all(np.isfinite(value).all() for value in vars(self).values()):
            raise JuryError("a value of the uncertainty is no finite number")
        if any((value < 0).any() for value in (self.new_variance, self.features, self.residual)):
            raise JuryError("a variance is negative")

    def to_dict(self) -> dict[str, list[float]]:
        """Return the values as plain lists, for JSON."""
        return {name: value.tolist() for name, value in vars(self).items()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> RewardUncertainty:
        """Read back what `to_dict` returned."""
        return cls(**{name: np.asarray(value, dtype=np.float64) for name, value in values.items()})


@dataclass(frozen=True)
class JuryState:
    """What is known of a jury reward model besides its weights. Every part may be missing.

    Attributes:
        rater_model: How raters vary around the heads; needed to adapt raters and to choose questions.
        calibration: The heads' common scale against a reference policy; see `calibration.calibrate`.
        temperature: (K,) temperature of each head; see `calibration.fit_temperature`.
        descriptions: What sets a cluster apart, by cluster name.
        fitted_on: What the jury was fitted on, as numbers by name; see `counts`.
        raters: Posteriors of the training raters; written only when a save asks for them.
        uncertainty: How sure the jury is of its rewards; predictions of answers average over it.
        strangers: (S,) what is taken for raters without labels, over the states of the rater model; None: its prior.
        text_kind: Script, common words and lengths of the texts that it was fitted to; None where it is unknown.

    Example:
        >>> from reward_models import JuryConfig
        >>> state = JuryState(temperature=np.array([1.2, 0.9]), descriptions={"rural": "wants the bypass"})
        >>> state.check(JuryConfig(num_clusters=2, cluster_names=["urban", "rural"]))
        >>> state.check(JuryConfig(num_clusters=1))
        Traceback (most recent call last):
        reward_models.errors.JuryError: the temperature is that of a jury with 2 heads, but this one has 1. Pass
        weights and state of one fit.
    """

    rater_model: RaterModel | None = None
    calibration: Calibration | None = None
    temperature: np.ndarray | None = None
    descriptions: dict[str, str] = field(default_factory=dict)
    fitted_on: dict[str, int] = field(default_factory=dict)
    raters: StoredRaters | None = None
    uncertainty: RewardUncertainty | None = None
    strangers: np.ndarray | None = None
    text_kind: TextKind | None = None

    def unlike_fitted(self, prompts: Sequence[Any] = (), responses: Sequence[str] = ()) -> list[str]:
        """Say in what texts are of another kind than those that the jury was fitted to: language, script, length.

        Another topic is not noticed.

        Args:
            prompts: Strings or lists of messages.
            responses: Texts.

        Returns:
            A sentence per difference; empty where there is none, or where the jury does not know its texts.

        Example:
            >>> from reward_models import Text
            >>> state = JuryState(text_kind=TextKind.of([Text("Tea or coffee?", "Tea."), Text("Parks?", "Yes.")]))
            >>> state.unlike_fitted(["Чай или кофе?"])
            ['the prompts are mostly in cyrillic letters, and the fitted texts mostly in latin letters']
        """
        wordings = [prompt_wording(freeze_prompt(prompt)) for prompt in prompts]
        return [] if self.text_kind is None else self.text_kind.differences(wordings, responses)

    def warn_if_unlike_fitted(
        self, name: str, prompts: Sequence[Any] = (), responses: Sequence[str] = (), stacklevel: int = 2
    ) -> None:
        """Warn if texts are of another kind than those that the jury was fitted to, see `unlike_fitted`.

        Args:
            name: The jury's folder, for the message.
            prompts: Strings or lists of messages.
            responses: Texts.
            stacklevel: As for `warnings.warn`.

        Warns:
            JudgementWarning: In what they differ.
        """
        differences = self.unlike_fitted(prompts, responses)
        if differences:
            warnings.warn(
                f"the jury {name!r} was fitted to texts of another kind: {'; '.join(differences)}. Its scores of such "
                "texts may mean nothing. Fix: give a jury that was fitted to judgements of such texts.",
                JudgementWarning,
                stacklevel=stacklevel + 1,
            )

    def check(self, config: JuryConfig) -> None:
        """Check that this is the state of a jury with these heads.

        Raises:
            JuryError: A part has another number of heads than the jury, or describes clusters that it does not have.
        """
        sizes = {
            "rater_model": None if self.rater_model is None else self.rater_model.n_basis,
            "calibration": None if self.calibration is None else len(self.calibration.scale),
            "temperature": None if self.temperature is None else len(self.temperature),
            "uncertainty": None if self.uncertainty is None else self.uncertainty.mixing.shape[1],
        }
        for name, size in sizes.items():
            if size is not None and size != config.num_clusters:
                raise JuryError(
                    f"the {name} is that of a jury with {size} heads, but this one has {config.num_clusters}. Pass "
                    "weights and state of one fit."
                )
        if self.uncertainty is not None and config.num_judged and len(self.uncertainty.mixing) != config.num_parts:
            raise JuryError(
                f"the uncertainty has {len(self.uncertainty.mixing)} parts, but those of the judged texts have "
                f"{config.num_parts}. Pass weights and state of one fit."
            )
        unknown = [name for name in self.descriptions if name not in config.cluster_names]
        if unknown:
            raise JuryError(
                f"descriptions name {unknown[0]!r}, which is no cluster of the jury."
                f"{did_you_mean(unknown[0], config.cluster_names)} Its clusters are {config.cluster_names}."
            )
        if self.raters is not None and self.rater_model is None:
            raise JuryError("raters without a rater_model, which defines the states of their posteriors. Pass it too.")
        if self.strangers is not None:
            states = None if self.rater_model is None else self.rater_model.n_states
            if self.strangers.shape != (states,):
                raise JuryError(
                    f"strangers have shape {self.strangers.shape}, but the rater model has {states or 'no'} states. "
                    "Pass rater model and strangers of one fit."
                )

    def check_values(self) -> None:
        """Raise unless every value is one that a fit can have: for a state that was read from a file.

        Raises:
            JuryError: A value that no fit has, such as a scale of 0 or a temperature that is not a number.

        Example:
            >>> JuryState(temperature=np.array([1.2, np.nan])).check_values()
            Traceback (most recent call last):
            reward_models.errors.JuryError: the temperature [1.2, nan] must be positive numbers, one per head
        """
        if self.rater_model is not None:
            self.rater_model.check_values()
        if self.calibration is not None:
            self.calibration.check_values()
        if self.uncertainty is not None:
            self.uncertainty.check_values()
        if self.text_kind is not None:
            self.text_kind.check_values()
        temperature = np.ones(1) if self.temperature is None else self.temperature
        if temperature.ndim != 1 or not (np.isfinite(temperature) & (temperature > 0)).all():
            raise JuryError(f"the temperature {temperature.tolist()} must be positive numbers, one per head")
        if not all(isinstance(text, str) for text in self.descriptions.values()):
            raise JuryError("a description is no text")
        fitted_on = self.fitted_on
        if not isinstance(fitted_on, dict) or not all(type(n) is int and n >= 0 for n in fitted_on.values()):
            raise JuryError(f"fitted_on={fitted_on!r} is not a mapping from name to count")
        if self.raters is not None and self.rater_model is not None:
            self.raters.check_values(self.rater_model)
        if self.strangers is not None:
            share = self.strangers
            if not (np.isfinite(share).all() and (share >= 0).all() and np.isclose(share.sum(), 1.0, atol=1e-6)):
                raise JuryError("what is taken for strangers is no distribution")


def counts(*tables: Encoded) -> dict[str, int]:
    """Count what a jury was fitted on, for `JuryState.fitted_on`; the numbers say nothing about any person.

    Example:
        >>> from reward_models import planted_judgements
        >>> counts(planted_judgements(num_raters=10, num_items=4).judgements.encode())
        {'judgements': 40, 'raters': 10, 'items': 4, 'texts': 8}
    """
    return {
        "judgements": sum(len(enc) for enc in tables),
        "raters": len({rater for enc in tables for rater in enc.rater_ids}),
        "items": sum(enc.n_items for enc in tables),
        "texts": len({text for enc in tables for text in enc.texts}),
    }


def _pseudonym(rater_id: str, salt: str) -> str:
    return hashlib.sha256(f"{salt}:{rater_id}".encode()).hexdigest()
