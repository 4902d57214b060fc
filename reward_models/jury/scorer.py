"""Score completions with a saved jury reward model: prompts and completions in, a reward per rater cluster out.

Texts are read as those were that the heads were fitted on (`reading.ReadingSettings`). Each different text is scored
once and cached, and the result is a plain CPU tensor. A scorer whose state has a rater model also adapts new raters
and chooses what to ask them. Knows nothing of welfare rules, weights at run time, or trainers.

Shapes: `N` completions, `U` texts, `K` clusters.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from reward_models.errors import JuryError, renamed_arguments, settings_or_default
from reward_models.inference import default_device
from reward_models.judgements.records import Judgements, judged_tables
from reward_models.judgements.text_kind import TextKind
from reward_models.judgements.texts import Text, prompt_codes
from reward_models.jury.backbones.memory import JudgedRewards
from reward_models.jury.calibration import Calibration, CalibrationMethod, calibrate
from reward_models.jury.features import batches
from reward_models.jury.folder import load_jury, save_jury
from reward_models.jury.modeling_jury import JuryRewardModel
from reward_models.jury.protocol import check_lengths
from reward_models.jury.reading import ReadingSettings, Rendered, shorten
from reward_models.jury.state import JuryState, RewardUncertainty, StoredRaters
from reward_models.raters.adaptation import Adaptation, Question, adapt, rank_questions
from reward_models.raters.rater_model import RaterModel


if TYPE_CHECKING:
    from reward_models.fitting.joint.fit import JointFit
    from reward_models.jury.fitting.steps import FittedJury

__all__ = ["JuryScorer"]


class JuryScorer:
    """A jury reward model with its tokenizer: the `ClusterScorer` that scores what TRL passes to a reward function.

    Picklable; the cache of texts is not part of the pickle. The same texts get the same rewards in every call.

    Args:
        model: The model. Stays on its device; switched to evaluation mode.
        tokenizer: The backbone's tokenizer.
        batch_size: Texts per forward pass.
        max_length: Longest text in tokens; longer ones lose their beginning, with a warning. None: that of the texts
            that the heads were fitted on (`JuryConfig.reading`), or 1,024 where it is unknown.
        cache_size: Number of texts whose rewards are cached; the oldest are dropped first.
        state: What is known of the model besides its weights; an empty `JuryState` if None.
        calibrated: Return rewards on one scale for all clusters, by `state.calibration`.

    Attributes:
        cluster_names: `K` names of the rater clusters.
        prevalence: (K,) float64 shares of the population.
        state: The argument; `calibrate` adds its result.
        reading: How texts are read; saved with the jury.
        num_cut: Number of texts so far that were longer than `reading.max_length`; cached texts count once.
        calibrated: Whether rewards of different clusters may be compared. If not, they are raw logits.
        fitted: What `fit_jury` found when it made this jury; None for one that was loaded.

    Raises:
        JuryError: `calibrated` without a calibration, or the state of another model.

    Example:
        >>> from reward_models.jury.tiny import tiny_causal_lm, tiny_tokenizer
        >>> model = JuryRewardModel.from_fit(
        ...     tiny_causal_lm(), np.eye(2, 32), np.zeros(2), prevalence=[0.7, 0.3], cluster_names=["urban", "rural"]
        ... )
        >>> scorer = JuryScorer(model, tiny_tokenizer())
        >>> rewards = scorer.cluster_rewards(["Which is best?"] * 3, [" the city", " the country", " the city"])
        >>> rewards.shape, bool((rewards[0] == rewards[2]).all())
        (torch.Size([3, 2]), True)
    """

    def __init__(
        self,
        model: JuryRewardModel,
        tokenizer: PreTrainedTokenizerBase,
        batch_size: int = 32,
        max_length: int | None = None,
        *,
        cache_size: int = 65_536,
        state: JuryState | None = None,
        calibrated: bool = False,
    ) -> None:
        self.model = model.eval()
        self.tokenizer = tokenizer
        self.batch_size = batch_size
        self.cache_size = cache_size
        self.cluster_names: list[str] = list(model.config.cluster_names)
        self.prevalence: np.ndarray = np.asarray(model.config.prevalence, dtype=np.float64)
        self.state = state or JuryState()
        self.state.check(model.config)
        self.reading = self._reading(max_length)
        self.num_cut = 0
        if calibrated and self.state.calibration is None:
            raise JuryError(
                "calibrated=True, but the jury has no calibration. Call JuryScorer.calibrate once with samples of the "
                "reference policy, and save the jury again."
            )
        self.calibrated = calibrated
        self.fitted: FittedJury | None = None
        self._cache: dict[Rendered, torch.Tensor] = {}

    def _reading(self, max_length: int | None) -> ReadingSettings:
        stored = ReadingSettings.stored(self.model.config.reading, self.state.fitted_on)
        if max_length is None or max_length == stored.max_length:
            return stored
        if self.model.config.reading is not None:
            warnings.warn(
                f"max_length={max_length}, but the jury was fitted on texts of up to {stored.max_length} tokens: "
                "longer texts get other rewards than they had. Leave max_length out to read them as they were read.",
                UserWarning,
                stacklevel=3,
            )
        return replace(stored, max_length=max_length)

    @classmethod
    def from_pretrained(
        cls,
        path: str | Path,
        *,
        device: str | torch.device | None = None,
        verify: bool = True,
        backbone: str | Path | None = None,
        **kwargs: Any,
    ) -> JuryScorer:
        """Load a jury reward model, its tokenizer and its state.

        Args:
            path: A folder in `from_pretrained` form, or a model id of the Hub.
            device: Device of the model; see `default_device` if None.
            verify: Compare every file with the SHA-256 it was saved with (about a second per gigabyte); sizes are
                always compared.
            backbone: Where the backbone lies now, of a jury that was saved without it; None: where it was.
            **kwargs: `batch_size`, `max_length`, `cache_size` and `calibrated` of the scorer.

        Raises:
            JuryError: There is no jury reward model at `path`, or a file is missing or altered; see
                `folder.load_jury`.
        """
        model, tokenizer, state = load_jury(path, verify=verify, backbone=backbone)
        return cls(model.to(default_device() if device is None else device), tokenizer, state=state, **kwargs)

    @classmethod
    def from_joint_fit(
        cls,
        fit: JointFit,
        backbone: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        features: np.ndarray,
        *,
        reading: ReadingSettings | None = None,
        cluster_names: Sequence[str] | None = None,
        **state: Any,
    ) -> JuryScorer:
        """Make the jury of a joint fit: it scores and predicts as the fit does, also after saving and loading.

        Args:
            fit: The fit.
            backbone: The model that the features are of; shared, not copied.
            tokenizer: Its tokenizer.
            features: (U, D) rows for `fit.texts`.
            reading: How the texts were read of which these are the features; None: as `pooled_features` does.
            cluster_names: `K` unique names; for a factor model those of the consensus and of each taste.
            **state: Other fields of `JuryState`, such as `descriptions` and `fitted_on`.

        Raises:
            JuryError: Two texts that the backbone reads as the same tokens have different rewards; or features that
                do not match the fit.

        Example:
            >>> from reward_models import fit_joint, planted_judgements, pooled_features
            >>> from reward_models.jury.tiny import tiny_causal_lm, tiny_tokenizer
            >>> judgements = planted_judgements("rating", num_raters=20, num_items=8).judgements
            >>> enc, backbone, tokenizer = judgements.encode(), tiny_causal_lm(), tiny_tokenizer()
            >>> features = pooled_features(backbone, tokenizer, enc.texts)
            >>> fit = fit_joint(enc, features, "mixture", 2)
            >>> scorer = JuryScorer.from_joint_fit(fit, backbone, tokenizer, features)
            >>> raters = scorer.adapt(judgements)
            >>> bool(np.allclose(scorer.log_probs(judgements, raters), fit.log_probs(enc, features), atol=1e-5))
            True
        """
        settings = settings_or_default(reading, ReadingSettings)
        whole = settings.tokenise(settings.render_all(fit.texts, tokenizer), tokenizer)
        rows, _ = shorten(whole, settings.max_length)
        residual = fit.known_rewards - fit.linear_rewards(features)
        model = JuryRewardModel.from_fit(
            backbone,
            fit.heads,
            fit.bias @ fit.mixing,
            np.maximum(fit.prevalence, 0.0),  # tastes average to 0 up to rounding
            cluster_names,
            reading=reading,
            judged=JudgedRewards(rows, residual, fit.variance).of_different_rows(fit.texts),
        )
        known = JuryState(
            rater_model=fit.model,
            uncertainty=RewardUncertainty.of(fit),
            raters=StoredRaters.of(fit.placement) if fit.rater_ids else None,
            strangers=fit.placement.strangers,
            text_kind=TextKind.of(fit.texts),
            **state,
        )
        return cls(model, tokenizer, state=known)

    def save_pretrained(self, path: str | Path, *, save_raters: bool = False, include_backbone: bool = True) -> None:
        """Write model, tokenizer and state into one folder that `from_pretrained` and `reward_funcs="path"` read.

        Args:
            path: Made if it does not exist; a jury in it is replaced.
            save_raters: Write the posteriors of the training raters (`state.raters`) too.
            include_backbone: False: do not copy a backbone that was not trained, but refer to it by its path, or id on
                the Hub, and the hash of its weights. The folder then works only where that backbone is.

        Raises:
            JuryError: See `folder.save_jury`.
        """
        settings = {"save_raters": save_raters, "include_backbone": include_backbone}
        save_jury(self.model, self.tokenizer, self.state, path, reading=self.reading, **settings)

    def cluster_rewards(self, prompts: Sequence[Any], completions: Sequence[Any]) -> torch.Tensor:
        """Score each completion for each cluster; each different text is run through the model once.

        Args:
            prompts: `N` prompts, strings or lists of messages.
            completions: `N` completions, strings or lists of messages.

        Returns:
            (N, K) rewards, float32 on the CPU: in logits, or in the units of the calibration if `calibrated`.

        Raises:
            JuryError: The lengths differ, a text is empty, a conversation has no counterpart among the plain texts
                that the jury was fitted on, or a reward is not finite.

        Warns:
            UserWarning: Texts were cut, and how many; once, later ones are counted in `num_cut`.
        """
        rewards = self._logits(prompts, completions)
        if self.calibrated and self.state.calibration is not None:
            return self.state.calibration.apply(rewards)
        return rewards

    def calibrate(
        self, prompts: Sequence[Any], completions: Sequence[Any], method: CalibrationMethod = "spread"
    ) -> Calibration:
        """Calibrate the heads to one scale, which later calls and saves use.

        Args:
            prompts: `N` prompts; each should occur with eight completions or more.
            completions: `N` samples of the reference policy, drawn at temperature 1.
            method: See `calibration.calibrate`.

        Returns:
            The calibration, also stored in `state`.

        Raises:
            JuryError: See `calibration.calibrate`.
        """
        rewards = self._logits(prompts, completions).double().numpy()
        calibration = calibrate(rewards, prompt_codes(prompts), method, self.cluster_names)
        self.state, self.calibrated = replace(self.state, calibration=calibration), True
        return calibration

    def adapt(self, judgements: Judgements | Sequence[Judgements]) -> Adaptation:
        """Infer raters' memberships and terms from a few of their judgements, by Bayes' rule.

        No gradient is computed; it takes milliseconds once the texts are scored.

        Args:
            judgements: Judgements of the raters; several tables if the jury was fitted on several kinds.

        Returns:
            Memberships with intervals, rater terms, and the weights that represent one rater.

        Raises:
            JuryError: The state has no rater model, or see `RaterModel.adapt`.
        """
        model = self._rater_model()
        tables = [table.encode() for table in judged_tables(judgements)]
        rewards = [self._basis(enc.texts) for enc in tables]
        return adapt(model, tables, rewards, self.cluster_names, self.state.strangers)

    def log_probs(self, judgements: Judgements, raters: Adaptation | None = None) -> np.ndarray:
        """Compute the log-probability of every possible answer to some questions, as the fit would.

        What is not known of a rater is averaged over, and so is what is not known of a text's rewards.

        Args:
            judgements: `N` questions, each with its rater; their answers are ignored.
            raters: What is known of the raters, from `adapt` or `remembered`; a rater who is not there, or None, is
                predicted as a random member of the population, or as `state.strangers` says.

        Returns:
            (N, A) nats: a, b, tie for pairs; the levels of a rating; the options of a choice, -inf at those an item
            lacks.

        Raises:
            JuryError: The state has no rater model, or judgements of a kind that the jury was not fitted to.
        """
        model = self._rater_model()
        placement = model.prior_placement(self.state.strangers) if raters is None else raters.placement
        enc = judgements.encode()
        rewards = self._basis(enc.texts)
        model.check(enc, rewards)
        return placement.log_probs(enc, rewards, code_variance=self.reward_variance(enc.texts))

    def reward_variance(self, texts: Sequence[Text]) -> np.ndarray | None:
        """Compute how unsure the jury is of its rewards of texts.

        Returns:
            (U, C) variance of the reward of each text for a rater with each code of the rater model, in logits
            squared (at the stored temperature); None where the jury was saved without it.
        """
        uncertainty, judged = self.state.uncertainty, self.model.judged
        if uncertainty is None:
            return None
        variance = np.tile(uncertainty.new_variance, (len(texts), 1))
        if judged is not None:
            rows = self.reading.tokenise(self.reading.render_all(texts, self.tokenizer), self.tokenizer)
            number = judged.find(shorten(rows, self.reading.max_length)[0]).numpy()
            variance[number >= 0] = judged.variance.cpu().double().numpy()[number[number >= 0]]
        return uncertainty.of_codes(variance, self._rater_model().codes, self.state.temperature)

    def remembered(self, rater_ids: Sequence[str]) -> Adaptation:
        """Return what is known of training raters, if the jury was saved with `save_raters`; others are strangers.

        Raises:
            JuryError: The jury was saved without its raters.
        """
        if self.state.raters is None:
            raise JuryError(
                "the jury was saved without its raters. Save it with save_raters=True, or adapt them again with adapt."
            )
        placement = self.state.raters.placement(rater_ids, self._rater_model(), self.state.strangers)
        return Adaptation.of(placement, self.cluster_names)

    @renamed_arguments(given="judgements")
    def next_question(
        self,
        pool: Sequence[tuple[Any, str | Sequence[str]]],
        judgements: Judgements | None = None,
        *,
        kind: str | None = None,
    ) -> list[Question]:
        """Rank questions by the expected information, in nats, of the answer about a rater's membership.

        Args:
            pool: (prompt, responses) pairs: two responses to compare, one to rate, or options to choose from.
            judgements: The rater's judgements so far, whose questions are not asked again; None for a new rater.
            kind: Kind of the questions; that of `judgements`, or of the jury, if None.

        Returns:
            The questions, the most informative first.

        Raises:
            JuryError: No rater model, judgements of several raters, or see `adaptation.rank_questions`.
        """
        model = self._rater_model()
        posterior, answered = np.exp(model.log_prior), set[frozenset[Text]]()
        if judgements is not None:
            enc = judgements.encode()
            if enc.n_raters != 1:
                raise JuryError(
                    f"the judgements are of {enc.n_raters} raters, and each has a best question of their own. "
                    "Select the judgements of one rater."
                )
            posterior = model.adapt(enc, self._basis(enc.texts)).posterior[0]
            answered = {frozenset(enc.texts[i] for i in row if i >= 0) for row in enc.alternatives}
        kind = kind or (model.kind if judgements is None else judgements.kind)
        return rank_questions(model, posterior, pool, kind, self._basis, answered)

    def _rater_model(self) -> RaterModel:
        if self.state.rater_model is None:
            raise JuryError(
                "the jury has no rater model: it does not know how raters vary around its heads. Fix: build it with "
                "JuryScorer(model, tokenizer, state=JuryState(rater_model=fit.model)), where fit is the result of "
                "fit_raters or fit_mixture, and save it."
            )
        return self.state.rater_model

    def _basis(self, texts: Sequence[Text]) -> np.ndarray:
        """Return (U, K) rewards as the likelihood of judgements takes them: logits at the stored temperature."""
        rewards = self._logits([text.prompt for text in texts], [text.response for text in texts]).double().numpy()
        return rewards if self.state.temperature is None else rewards / self.state.temperature

    def _logits(self, prompts: Sequence[Any], completions: Sequence[Any]) -> torch.Tensor:
        """Return (N, K) raw rewards, from the cache where a text is there."""
        check_lengths(prompts, completions)
        pairs = zip(prompts, completions, strict=True)
        texts = [self.reading.render(prompt, completion, self.tokenizer) for prompt, completion in pairs]
        unique = list(dict.fromkeys(texts))
        known = {text: self._cache[text] for text in unique if text in self._cache}
        new = self._score([text for text in unique if text not in known])
        known.update(new)
        self._cache.update(new)
        if len(self._cache) > self.cache_size:
            for text in list(self._cache)[: len(self._cache) - self.cache_size]:
                del self._cache[text]
        return torch.stack([known[text] for text in texts]) if texts else torch.empty(0, len(self.cluster_names))

    @torch.no_grad()
    def _score(self, texts: list[Rendered]) -> dict[Rendered, torch.Tensor]:
        scored: dict[Rendered, torch.Tensor] = {}
        device = self.model.device
        uncut = self.reading.tokenise(texts, self.tokenizer)
        rows, cut = shorten(uncut, self.reading.max_length)
        if cut is not None:
            if self.num_cut == 0:  # training scores texts in each step
                warnings.warn(f"{cut} JuryScorer.num_cut counts later ones.", UserWarning, stacklevel=5)
            self.num_cut += sum(len(whole) > len(row) for whole, row in zip(uncut, rows, strict=True))
        for index, input_ids, mask in batches(rows, batch_size=self.batch_size):
            output = self.model(input_ids=input_ids.to(device), attention_mask=mask.to(device))
            for i, row in zip(index, output.cluster_rewards.float().cpu(), strict=True):
                if not row.isfinite().all():
                    raise JuryError(
                        f"the reward {row.tolist()} of {texts[i].text!r} is not finite, and TRL would drop it without "
                        "a warning. Check the jury's weights; load it in float32 or bfloat16, not in float16."
                    )
                scored[texts[i]] = row.clone()
        return scored

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_cache": {}, "fitted": None}
