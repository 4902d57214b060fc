"""Scoring completions with a jury: prompts and completions in, a reward per rater cluster out.

Texts are rendered as TRL renders them, each different text is scored once and remembered, and the result is a plain
CPU tensor. A jury that knows how raters vary also places new raters and chooses what to ask them. Knows nothing of
welfare rules, weights at run time, or trainers: whatever has the three attributes of `ClusterScorer` can stand in for
the language model here, such as a table or a simulated population.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from transformers import AutoConfig, AutoTokenizer, PreTrainedTokenizerBase

from reward_models.errors import JuryError
from reward_models.judgements.records import Judgements
from reward_models.judgements.texts import Text, as_messages, prompt_codes
from reward_models.jury.calibration import Calibration, CalibrationMethod, calibrate
from reward_models.jury.features import batches, render
from reward_models.jury.inference import default_device
from reward_models.jury.modeling_jury import JuryConfig, JuryRewardModel
from reward_models.jury.state import JuryState, load_state, save_jury
from reward_models.raters.adaptation import Adaptation, Question, adapt, rank_questions
from reward_models.raters.rater_model import RaterModel


if TYPE_CHECKING:
    from reward_models.jury.fit import FittedJury

__all__ = ["JuryScorer"]


class JuryScorer:
    """A jury reward model with its tokenizer, ready to score what TRL hands to a reward function.

    Picklable; the memory of texts is not part of the pickle. The same texts get the same rewards in every call.

    Args:
        model: The jury. Stays on its device; put into evaluation mode.
        tokenizer: The backbone's tokenizer.
        batch_size: Texts per forward pass.
        max_length: Longest text in tokens; longer ones lose their beginning, with a warning.
        cache_size: How many texts to remember; the oldest are forgotten first.
        state: What is known of the jury besides its weights; nothing when None.
        calibrated: Put the heads on one scale, with `state.calibration`.

    Attributes:
        cluster_names: `K` names of the rater clusters.
        prevalence: (K,) float64 shares of the population.
        state: As given; `calibrate` adds to it.
        calibrated: Whether rewards of different clusters may be compared. If not, they are raw logits.
        fitted: What `fit_jury` found when it made this jury; None for one that was loaded.

    Raises:
        JuryError: `calibrated` without a calibration, or the state of another jury.
    """

    def __init__(
        self,
        model: JuryRewardModel,
        tokenizer: PreTrainedTokenizerBase,
        batch_size: int = 32,
        max_length: int = 1024,
        *,
        cache_size: int = 65_536,
        state: JuryState | None = None,
        calibrated: bool = False,
    ) -> None:
        self.model = model.eval()
        self.tokenizer = tokenizer
        self.batch_size = batch_size
        self.max_length = max_length
        self.cache_size = cache_size
        self.cluster_names: list[str] = list(model.config.cluster_names)
        self.prevalence: np.ndarray = np.asarray(model.config.prevalence, dtype=np.float64)
        self.state = state or JuryState()
        self.state.check(model.config)
        if calibrated and self.state.calibration is None:
            raise JuryError(
                "calibrated=True, but the jury has not been put on the scale of a reference policy yet. Call "
                "JuryScorer.calibrate with samples of that policy once, and save the jury again."
            )
        self.calibrated = calibrated
        self.fitted: FittedJury | None = None
        self._cache: dict[str, torch.Tensor] = {}

    @classmethod
    def from_pretrained(
        cls, path: str | Path, *, device: str | torch.device | None = None, verify: bool = True, **kwargs: Any
    ) -> JuryScorer:
        """Load a jury, its tokenizer and its state.

        Args:
            path: A folder in `from_pretrained` form, or a model id of the Hub.
            device: Where to put the model; this process's accelerator if there is one, else the CPU.
            verify: Compare every file with the SHA-256 it was saved with (about a second per gigabyte); sizes are
                always compared.
            **kwargs: `batch_size`, `max_length`, `cache_size` and `calibrated` of the scorer.

        Raises:
            JuryError: Nothing is there, it is not a jury, a file is missing or altered, or see `jury_state`.
        """
        if isinstance(path, Path) and not path.is_dir():
            raise JuryError(f"no folder at {str(path)!r}. Fit a jury first, or correct the path.")
        name = str(path)
        try:
            config = AutoConfig.from_pretrained(name)
        except JuryError:
            raise
        except (OSError, ValueError) as error:
            raise JuryError(
                f"no jury at {name!r}: neither a folder with a readable config.json nor a model id that can "
                "be reached. Fit a jury and save it with save_pretrained, or correct the path."
            ) from error
        if not isinstance(config, JuryConfig):
            raise JuryError(
                f"{name!r} holds a model of type {config.model_type!r}, not {JuryConfig.model_type!r}: it has no "
                "rater clusters. Fit a jury on it first (JuryRewardModel.from_fit), or give the folder of a jury."
            )
        try:
            model, info = JuryRewardModel.from_pretrained(
                name, config=config, dtype=torch.float32, output_loading_info=True
            )
        except OSError as error:
            raise JuryError(
                f"the jury in {name!r} has a config.json but no weights that can be read. They are written last, so a "
                "save may have been interrupted. Save it again with save_pretrained."
            ) from error
        except RuntimeError as error:
            raise JuryError(
                f"the weights of the jury in {name!r} do not fit its config.json ({config.num_clusters} clusters, "
                f"hidden size {config.get_text_config().hidden_size}): heads and backbone are of different fits. Save "
                "it again with save_pretrained, from one fit."
            ) from error
        if info["missing_keys"]:
            raise JuryError(
                f"the jury in {name!r} lacks the weights {sorted(info['missing_keys'])}, which would be random "
                "numbers. Save it again with save_pretrained."
            )
        try:
            tokenizer = AutoTokenizer.from_pretrained(name)
        except (OSError, ValueError, KeyError) as error:
            raise JuryError(
                f"the jury in {name!r} has no tokenizer beside it. Save the backbone's there with "
                f"tokenizer.save_pretrained({name!r})."
            ) from error
        state = load_state(name, config, verify=verify)
        return cls(model.to(default_device() if device is None else device), tokenizer, state=state, **kwargs)

    def save_pretrained(self, path: str | Path, *, save_raters: bool = False) -> None:
        """Write all into one folder that `from_pretrained` and TRL's `reward_funcs="path"` read.

        Args:
            path: Made if need be; a jury that is there is replaced.
            save_raters: Write the posteriors of the training raters (`state.raters`) too.

        Raises:
            JuryError: See `jury_state.save_jury`.
        """
        save_jury(self.model, self.tokenizer, self.state, path, save_raters=save_raters)

    def cluster_rewards(self, prompts: Sequence[Any], completions: Sequence[Any]) -> torch.Tensor:
        """Score each completion for each cluster; each different text costs one forward pass, once.

        Args:
            prompts: `N` prompts, strings or lists of messages.
            completions: `N` completions, strings or lists of messages.

        Returns:
            (N, K) rewards, float32 on the CPU: in logits, or in the units of `calibration` if `calibrated`.

        Raises:
            JuryError: The lengths differ, a text is empty, or a reward is not finite.
        """
        rewards = self._logits(prompts, completions)
        if self.calibrated and self.state.calibration is not None:
            return self.state.calibration.apply(rewards)
        return rewards

    def calibrate(
        self, prompts: Sequence[Any], completions: Sequence[Any], method: CalibrationMethod = "spread"
    ) -> Calibration:
        """Put the heads on one scale, from now on and in later saves.

        Args:
            prompts: `N` prompts; each should occur with about eight completions or more.
            completions: `N` samples of the reference policy, drawn at temperature 1.
            method: See `calibration.calibrate`.

        Returns:
            The calibration, which is in `state`, too.

        Raises:
            JuryError: See `calibration.calibrate`.
        """
        rewards = self._logits(prompts, completions).double().numpy()
        calibration = calibrate(rewards, prompt_codes(prompts), method, self.cluster_names)
        self.state, self.calibrated = replace(self.state, calibration=calibration), True
        return calibration

    def adapt(self, judgements: Judgements | Sequence[Judgements]) -> Adaptation:
        """Place raters by a few of their judgements: Bayes' rule, no gradient, milliseconds once texts are scored.

        Args:
            judgements: Labels of the raters; several tables if the jury was fitted on several kinds.

        Returns:
            Memberships with intervals, rater terms, and weights that make the jury speak for one rater.

        Raises:
            JuryError: The jury has no rater model, or see `RaterModel.place`.
        """
        model = self._rater_model()
        tables = [j.encode() for j in ([judgements] if isinstance(judgements, Judgements) else judgements)]
        return adapt(model, tables, [self._basis(enc.texts) for enc in tables], self.cluster_names)

    def remembered(self, rater_ids: Sequence[str]) -> Adaptation:
        """Where training raters stood, if the jury was saved with `save_raters`; others are the population.

        Raises:
            JuryError: The jury was saved without its raters.
        """
        if self.state.raters is None:
            raise JuryError(
                "the jury was saved without its raters. Save it with save_raters=True, or place them with adapt."
            )
        return Adaptation.of(self.state.raters.placement(rater_ids, self._rater_model()), self.cluster_names)

    def next_question(
        self,
        pool: Sequence[tuple[Any, str | Sequence[str]]],
        given: Judgements | None = None,
        *,
        kind: str | None = None,
    ) -> list[Question]:
        """Rank questions by how much the answer is expected to say about where a rater stands.

        Args:
            pool: (prompt, responses) pairs: two responses to compare, one to rate, or options to choose from.
            given: The rater's judgements so far, whose questions are not asked again; None for a new rater.
            kind: Kind of the questions; None for that of `given`, or of the jury.

        Returns:
            The questions, the most informative first, in nats.

        Raises:
            JuryError: No rater model, judgements of several raters, or see `adaptation.rank_questions`.
        """
        model = self._rater_model()
        posterior, asked = np.exp(model.log_prior), set[frozenset[Text]]()
        if given is not None:
            enc = given.encode()
            if enc.n_raters != 1:
                raise JuryError(
                    f"given holds judgements of {enc.n_raters} raters, and each has a best question of their own. "
                    "Select the judgements of one rater."
                )
            posterior = model.adapt(enc, self._basis(enc.texts)).posterior[0]
            asked = {frozenset(enc.texts[i] for i in row if i >= 0) for row in enc.alternatives}
        kind = kind or (model.kind if given is None else given.kind)
        return rank_questions(model, posterior, pool, kind, self._basis, asked)

    def _rater_model(self) -> RaterModel:
        if self.state.rater_model is None:
            raise JuryError(
                "the jury does not know how raters vary around its heads, so it cannot place one. Fix: build it with "
                "JuryScorer(model, tokenizer, state=JuryState(rater_model=fit.rater_model)) and save it."
            )
        return self.state.rater_model

    def _basis(self, texts: Sequence[Text]) -> np.ndarray:
        """(U, K) rewards as the likelihood of judgements takes them: honest logits."""
        rewards = self._logits([text.prompt for text in texts], [text.response for text in texts]).double().numpy()
        return rewards if self.state.temperature is None else rewards / self.state.temperature

    def _logits(self, prompts: Sequence[Any], completions: Sequence[Any]) -> torch.Tensor:
        """(N, K) raw rewards, from memory where the text is there."""
        if isinstance(prompts, str) or isinstance(completions, str) or len(prompts) != len(completions):
            raise JuryError(
                f"{_count(prompts, 'prompts')} and {_count(completions, 'completions')}: give two lists of "
                "equal length."
            )
        if self.state.fitted_on.get("conversations"):
            # A jury that was fitted on conversations has never seen a bare prompt.
            prompts = [as_messages(prompt) if isinstance(prompt, str) else prompt for prompt in prompts]
        texts = [
            render(prompt, completion, self.tokenizer) for prompt, completion in zip(prompts, completions, strict=True)
        ]
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
    def _score(self, texts: list[str]) -> dict[str, torch.Tensor]:
        scored: dict[str, torch.Tensor] = {}
        device = self.model.device
        for index, input_ids, mask in batches(
            texts, self.tokenizer, batch_size=self.batch_size, max_length=self.max_length
        ):
            output = self.model(input_ids=input_ids.to(device), attention_mask=mask.to(device))
            for i, row in zip(index, output.cluster_rewards.float().cpu(), strict=True):
                if not row.isfinite().all():
                    raise JuryError(
                        f"the reward {row.tolist()} of {texts[i]!r} is not finite, and TRL would silently leave "
                        "it out. Check the jury's weights; load it in float32 or bfloat16, not in float16."
                    )
                scored[texts[i]] = row.clone()
        return scored

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_cache": {}, "fitted": None}


def _count(values: Sequence[Any], noun: str) -> str:
    return f"a single string as {noun}" if isinstance(values, str) else f"{len(values)} {noun}"
