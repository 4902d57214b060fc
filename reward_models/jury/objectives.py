"""Any set of scalar reward models or reward functions as the columns of a jury: helpful, safe, concise, and so on.

`Objectives` has what `scoring.ClusterScorer` asks for, so it goes wherever a jury goes; its "clusters" are objectives
and its "prevalence" their weights. A scorer is a reward function in TRL's convention, and `ScalarRewardModel` makes
one of a sequence classifier with one label. Numbers of different models are in units of their own until `calibrate`
puts them on one scale. Knows nothing of raters, welfare rules or trainers.

Shapes: `N` completions, `K` objectives.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from reward_models.errors import JuryError
from reward_models.judgements.texts import prompt_codes
from reward_models.jury.calibration import Calibration, CalibrationMethod, calibrate
from reward_models.jury.features import batches, render
from reward_models.jury.inference import default_device
from reward_models.weights import named_weights
from reward_models.whole_file import write_json


__all__ = ["Objectives", "RewardFunction", "ScalarRewardModel", "Scorer"]

RewardFunction = Callable[..., Sequence[float | None]]
"""TRL's convention: called with `prompts`, `completions` and data set columns by name, one number a completion."""

Scorer = RewardFunction | str | Path | tuple[PreTrainedModel, PreTrainedTokenizerBase]
"""A reward function, the path or hub id of a sequence classifier with one label, or such a model and its tokenizer."""


class ScalarRewardModel:
    """A sequence classifier with one label as a reward function; it reads texts as TRL's trainers would show them.

    Args:
        model: Stays on its device; put into evaluation mode. Its padding token becomes the tokenizer's, as in TRL.
        tokenizer: The model's tokenizer.
        batch_size: Texts per forward pass.
        max_length: Longest text in tokens; longer ones lose their beginning, with a warning. None: what the model
            takes.

    Raises:
        JuryError: The model has not exactly one label, or the tokenizer has neither padding nor end token.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        batch_size: int = 16,
        max_length: int | None = None,
    ) -> None:
        if model.config.num_labels != 1:
            raise JuryError(
                f"{model.config.name_or_path or type(model).__name__!r} has {model.config.num_labels} labels, and an "
                "objective is one number. Give a reward model with num_labels=1, or a function that picks the label."
            )
        pad = tokenizer.eos_token_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id
        if pad is None:
            raise JuryError(
                f"the tokenizer {tokenizer.name_or_path!r} has neither a padding nor an end token, so texts of "
                "different lengths cannot be scored together. Set tokenizer.pad_token."
            )
        config = model.config.get_text_config()
        config.pad_token_id = pad
        self.model = model.eval()
        self.tokenizer = tokenizer
        self.batch_size = batch_size
        # An encoder fails beyond its positions; a tokenizer that knows of no limit says a huge number.
        self.max_length = max_length or min(config.max_position_embeddings, tokenizer.model_max_length)

    @classmethod
    def from_pretrained(
        cls, path: str | Path, *, device: str | torch.device | None = None, **kwargs: Any
    ) -> ScalarRewardModel:
        """Load a model and its tokenizer.

        Args:
            path: Folder or hub id.
            device: Where to put the model; the accelerator if there is one, else the CPU.
            **kwargs: `batch_size` and `max_length`.

        Raises:
            JuryError: Nothing readable is there, it has no reward head, or not exactly one label.
        """
        if isinstance(path, Path) and not path.is_dir():
            raise JuryError(f"no folder at {str(path)!r}. Correct the path of the reward model.")
        try:
            model, info = AutoModelForSequenceClassification.from_pretrained(str(path), output_loading_info=True)
            tokenizer = AutoTokenizer.from_pretrained(str(path))
        except (OSError, ValueError) as error:
            raise JuryError(
                f"no reward model with its tokenizer at {str(path)!r}: neither a folder that can be read nor a model "
                f"id that can be reached ({error})."
            ) from error
        if info["missing_keys"]:
            raise JuryError(
                f"the model at {str(path)!r} lacks the weights {sorted(info['missing_keys'])}, which would be random "
                "numbers: it may be a language model. Give a trained sequence classifier."
            )
        return cls(model.to(default_device() if device is None else device), tokenizer, **kwargs)

    @torch.no_grad()
    def __call__(self, prompts: Sequence[Any], completions: Sequence[Any], **columns: Any) -> list[float]:
        """Score `N` completions; each different text costs one forward pass."""
        texts = [render(prompt, answer, self.tokenizer) for prompt, answer in zip(prompts, completions, strict=True)]
        unique = list(dict.fromkeys(texts))
        scored: dict[str, float] = {}
        pad = self.model.config.get_text_config().pad_token_id
        for index, input_ids, mask in batches(
            unique, self.tokenizer, batch_size=self.batch_size, max_length=self.max_length
        ):
            input_ids = input_ids.masked_fill(mask == 0, pad)  # classifiers find a text's end by the padding's id
            device = self.model.device
            logits = self.model(input_ids=input_ids.to(device), attention_mask=mask.to(device)).logits[:, 0]
            scored.update(zip([unique[i] for i in index], logits.tolist(), strict=True))
        return [scored[text] for text in texts]


class Objectives:
    """Scalar rewards by name, in the place of a jury.

    Args:
        scorers: A scorer by name of its objective; see `Scorer`.
        weights: Default weights by name, where an objective left out weighs nothing, or one number each in this
            order; of any sum. None: all the same.
        calibrated: Say that the numbers are on one scale as they come (all of them probabilities, for instance).
            `calibrate` and `load_calibration` put them on one.

    Attributes:
        cluster_names: Names of the `K` objectives.
        prevalence: (K,) float64 weights, summing to one.
        calibration: The scale of each objective; None before `calibrate`.
        calibrated: Whether numbers of different objectives may be compared.

    Raises:
        JuryError: No scorer, one that is none of `Scorer`, or weights that cannot be used.

    Example:
        >>> def short(completions, **columns):
        ...     return [-float(len(c)) for c in completions]
        >>> def polite(completions, **columns):
        ...     return [float("please" in c) for c in completions]
        >>> both = Objectives({"short": short, "polite": polite}, weights={"short": 1, "polite": 3})
        >>> both.prevalence.tolist()
        [0.25, 0.75]
        >>> both.cluster_rewards(["Ask."] * 2, ["Go.", "Go, please."])
        tensor([[ -3.,   0.],
                [-11.,   1.]])
    """

    def __init__(
        self,
        scorers: Mapping[str, Scorer],
        weights: Mapping[str, float] | Sequence[float] | None = None,
        *,
        calibrated: bool = False,
    ) -> None:
        if not scorers:
            raise JuryError('there is no objective to score. Give at least one, e.g. {"helpful": "path/of/a/model"}.')
        self.cluster_names: list[str] = list(scorers)
        self.functions: dict[str, RewardFunction] = {name: _function(name, s) for name, s in scorers.items()}
        equal = np.ones(len(scorers))
        self.prevalence: np.ndarray = named_weights(equal if weights is None else weights, self.cluster_names)
        self.calibration: Calibration | None = None
        self.calibrated = calibrated

    def cluster_rewards(self, prompts: Sequence[Any], completions: Sequence[Any], **columns: Any) -> torch.Tensor:
        """Score each completion for each objective.

        Args:
            prompts: `N` prompts, strings or lists of messages.
            completions: `N` completions, strings or lists of messages.
            **columns: Data set columns of `N` values that reward functions ask for.

        Returns:
            (N, K) rewards, float32 on the CPU: as the scorers give them, or in the units of `calibration` if there is
            one.

        Raises:
            JuryError: The lengths differ, or an objective returns `None`, anything that is no finite number, or
                another count of them.
        """
        rewards = torch.from_numpy(self._raw(prompts, completions, columns))
        return (rewards if self.calibration is None else self.calibration.apply(rewards)).float()

    def calibrate(
        self, prompts: Sequence[Any], completions: Sequence[Any], method: CalibrationMethod = "spread", **columns: Any
    ) -> Calibration:
        """Put the objectives on one scale, from now on.

        Args:
            prompts: `N` prompts; each should occur with about eight completions or more.
            completions: `N` samples of the reference policy, drawn at temperature 1.
            method: See `calibration.calibrate`.
            **columns: As in `cluster_rewards`.

        Returns:
            The calibration, which is in `calibration`, too.

        Raises:
            JuryError: See `cluster_rewards` and `calibration.calibrate`.
        """
        rewards = self._raw(prompts, completions, columns)
        self.calibration = calibrate(rewards, prompt_codes(prompts), method, self.cluster_names)
        self.calibrated = True
        return self.calibration

    def save_calibration(self, path: str | Path) -> None:
        """Write the calibration as JSON, as a whole or not at all.

        Raises:
            JuryError: There is none.
        """
        if self.calibration is None:
            raise JuryError("the objectives have no calibration to save. Call calibrate with samples first.")
        content = {"objectives": self.cluster_names, **self.calibration.to_dict()}
        write_json(path, content, exact=True)

    def load_calibration(self, path: str | Path) -> Calibration:
        """Read a calibration that was saved for objectives of these names, in any order, and use it from now on.

        The scorers must be the same, too: nothing in the file can tell.

        Raises:
            FileNotFoundError: There is no such file.
            JuryError: It holds no calibration, or that of other objectives.
        """
        try:
            values = json.loads(Path(path).read_text(encoding="utf-8"))
            names = values.pop("objectives")
            stored = Calibration.from_dict(values)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise JuryError(
                f"{path} holds no calibration of objectives ({error!r}). Write one with save_calibration."
            ) from error
        if sorted(names) != sorted(self.cluster_names):
            raise JuryError(f"{path} calibrates {names}, not {self.cluster_names}: calibrate these objectives anew.")
        order = [names.index(name) for name in self.cluster_names]
        self.calibration = Calibration(
            **{**vars(stored), "scale": stored.scale[order], "offset": stored.offset[order]}
        )
        self.calibrated = True
        return self.calibration

    def _raw(self, prompts: Sequence[Any], completions: Sequence[Any], columns: Mapping[str, Any]) -> np.ndarray:
        """(N, K) float64, as the scorers give them."""
        if isinstance(prompts, str) or isinstance(completions, str) or len(prompts) != len(completions):
            raise JuryError(
                f"prompts and completions must be two lists of equal length, and are {_kind(prompts)} and "
                f"{_kind(completions)}."
            )
        scored = [
            _checked(name, function(prompts=prompts, completions=completions, **columns), completions)
            for name, function in self.functions.items()
        ]
        return np.stack(scored, axis=1)


def _function(name: str, scorer: Scorer) -> RewardFunction:
    try:
        if isinstance(scorer, str | Path):
            return ScalarRewardModel.from_pretrained(scorer)
        if isinstance(scorer, tuple):
            return ScalarRewardModel(*scorer)
    except JuryError as error:
        raise JuryError(f"objective {name!r}: {error}") from error
    if isinstance(scorer, torch.nn.Module) or not callable(scorer):
        raise JuryError(
            f"objective {name!r} is a {type(scorer).__name__}. Give a reward function, the path of a reward model, or "
            "(model, tokenizer)."
        )
    return scorer


def _checked(name: str, values: Any, completions: Sequence[Any]) -> np.ndarray:
    """(N,) numbers that a scorer returned."""
    try:
        column = np.asarray(values.tolist() if isinstance(values, torch.Tensor) else values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise JuryError(
            f"objective {name!r} returned {values!r}: a reward function returns a list of numbers, one a completion."
        ) from error
    if column.shape != (len(completions),):
        raise JuryError(
            f"objective {name!r} returned rewards of shape {column.shape} for {len(completions)} completions: it must "
            "return one number each."
        )
    if not np.isfinite(column).all():
        row = int(np.flatnonzero(~np.isfinite(column))[0])
        raise JuryError(
            f"objective {name!r} gives {values[row]} to row {row}, {completions[row]!r}, and nothing can be weighed "
            "against that. Return a finite number for every completion, or leave such rows out."
        )
    return column


def _kind(values: Sequence[Any]) -> str:
    return "a single string" if isinstance(values, str) else f"a list of {len(values)}"
