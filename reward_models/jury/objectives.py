"""Scalar reward models or reward functions as the columns of a scorer: helpful, safe, concise, and so on.

`Objectives` is a `ClusterScorer`, so it can be used wherever a jury reward model can; its "clusters" are objectives
and its "prevalence" their weights. Each objective is scored by a reward function in TRL's convention;
`ScalarRewardModel` makes one of a sequence classifier with one label. Rewards of different models have units of their
own until `calibrate` puts them on one scale. Knows nothing of raters, welfare rules or trainers.

Shapes: `N` completions, `K` objectives.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from reward_models.borders import path_fault
from reward_models.errors import JuryError
from reward_models.inference import default_device
from reward_models.judgements.texts import prompt_codes
from reward_models.jury.calibration import Calibration, CalibrationMethod, calibrate
from reward_models.jury.features import batches
from reward_models.jury.protocol import check_lengths
from reward_models.jury.reading import ReadingSettings, Rendered, shorten
from reward_models.weights import named_weights
from reward_models.whole_file import write_json


__all__ = ["Objectives", "RewardFunction", "ScalarRewardModel", "Scorer"]

RewardFunction = Callable[..., Sequence[float | None]]
"""TRL's convention: called with `prompts`, `completions` and data set columns by name; one number per completion."""

Scorer = RewardFunction | str | Path | tuple[PreTrainedModel, PreTrainedTokenizerBase]
"""A reward function, the path or hub id of a sequence classifier with one label, or such a model and its tokenizer."""


class ScalarRewardModel:
    """A sequence classifier with one label as a reward function; texts are rendered as TRL's trainers render them.

    Args:
        model: Stays on its device; switched to evaluation mode. Its padding token becomes the tokenizer's, as in TRL.
        tokenizer: The model's tokenizer.
        batch_size: Texts per forward pass.
        max_length: Longest text in tokens; longer ones lose their beginning, with a warning. None: the largest that
            the model takes.

    Raises:
        JuryError: The model does not have exactly one label, or the tokenizer has neither padding nor end token.

    Example:
        >>> from transformers import LlamaForSequenceClassification
        >>> from reward_models.jury.tiny import tiny_causal_lm, tiny_tokenizer
        >>> config = tiny_causal_lm().config
        >>> config.num_labels = 1
        >>> helpful = ScalarRewardModel(LlamaForSequenceClassification(config), tiny_tokenizer())
        >>> len(helpful(prompts=["Which is best?"] * 2, completions=[" the city", " the country"]))
        2
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
        self._has_warned = False

    @classmethod
    def from_pretrained(
        cls, path: str | Path, *, device: str | torch.device | None = None, **kwargs: Any
    ) -> ScalarRewardModel:
        """Load a model and its tokenizer.

        Args:
            path: Folder or hub id.
            device: Device of the model; see `default_device` if None.
            **kwargs: `batch_size` and `max_length`.

        Raises:
            JuryError: There is no readable model at `path`, or it has no reward head, or not exactly one label.
        """
        if isinstance(path, Path) and not path.is_dir() and not path_fault(path):
            raise JuryError(f"no folder at {str(path)!r}. Correct the path of the reward model.")
        try:
            model, info = AutoModelForSequenceClassification.from_pretrained(
                str(path), output_loading_info=True, trust_remote_code=False
            )
            tokenizer = AutoTokenizer.from_pretrained(str(path), trust_remote_code=False)
        except Exception as error:  # whatever a damaged folder makes of transformers
            if fault := path_fault(path):
                raise JuryError(f"the reward model cannot be loaded: {fault}.") from error
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
        """Score `N` completions; each different text is run through the model once."""
        reading = ReadingSettings()
        pairs = zip(prompts, completions, strict=True)
        texts = [reading.render(prompt, completion, self.tokenizer) for prompt, completion in pairs]
        unique = list(dict.fromkeys(texts))
        rows, cut = shorten(reading.tokenise(unique, self.tokenizer), self.max_length)
        if cut is not None and not self._has_warned:
            self._has_warned = True  # training calls this each step
            warnings.warn(f"{cut} Later ones are not counted.", UserWarning, stacklevel=3)
        scored: dict[Rendered, float] = {}
        pad = self.model.config.get_text_config().pad_token_id
        for index, input_ids, mask in batches(rows, batch_size=self.batch_size):
            input_ids = input_ids.masked_fill(mask == 0, pad)  # classifiers find the end of a text by the padding id
            device = self.model.device
            logits = self.model(input_ids=input_ids.to(device), attention_mask=mask.to(device)).logits[:, 0]
            scored.update(zip([unique[i] for i in index], logits.tolist(), strict=True))
        return [scored[text] for text in texts]


class Objectives:
    """Scalar rewards by name, used in the place of a jury reward model.

    Args:
        scorers: A scorer per objective, by name; see `Scorer`.
        weights: Default weights by name, where a missing objective has weight 0, or one per objective in order; of
            any sum. None: equal weights.
        calibrated: State that the rewards are on one scale already (for instance, all are probabilities). `calibrate`
            and `load_calibration` set it.

    Attributes:
        cluster_names: Names of the `K` objectives.
        prevalence: (K,) float64 weights, summing to one.
        calibration: The scale of each objective; None before `calibrate`.
        calibrated: Whether numbers of different objectives may be compared.

    Raises:
        JuryError: No scorer, a scorer that is not a `Scorer`, or weights that cannot be used.

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
            **columns: Data set columns of `N` values that the reward functions read.

        Returns:
            (N, K) rewards, float32 on the CPU: as the scorers return them, or in the units of `calibration` if there
            is one.

        Raises:
            JuryError: The lengths differ, or an objective returns `None`, a value that is not a finite number, or a
                different number of values.
        """
        rewards = torch.from_numpy(self._raw(prompts, completions, columns))
        return (rewards if self.calibration is None else self.calibration.apply(rewards)).float()

    def calibrate(
        self, prompts: Sequence[Any], completions: Sequence[Any], method: CalibrationMethod = "spread", **columns: Any
    ) -> Calibration:
        """Calibrate the objectives to one scale, which later calls use; arguments as in `JuryScorer.calibrate`.

        Args:
            prompts: `N` prompts.
            completions: `N` samples of the reference policy.
            method: See `calibration.calibrate`.
            **columns: As in `cluster_rewards`.

        Raises:
            JuryError: See `cluster_rewards` and `calibration.calibrate`.
        """
        rewards = self._raw(prompts, completions, columns)
        self.calibration = calibrate(rewards, prompt_codes(prompts), method, self.cluster_names)
        self.calibrated = True
        return self.calibration

    def save_calibration(self, path: str | Path) -> None:
        """Write the calibration as JSON, atomically.

        Raises:
            JuryError: There is none.
        """
        if self.calibration is None:
            raise JuryError("the objectives have no calibration to save. Call calibrate with samples first.")
        content = {"objectives": self.cluster_names, **self.calibration.to_dict()}
        write_json(path, content, exact=True)

    def load_calibration(self, path: str | Path) -> Calibration:
        """Read a calibration that was saved for objectives of the same names, in any order; later calls use it.

        The scorers must be the same too; the file cannot tell.

        Raises:
            FileNotFoundError: There is no such file.
            JuryError: The file holds no calibration, or that of other objectives.
        """
        try:
            values = json.loads(Path(path).read_text(encoding="utf-8"))
            names = values.pop("objectives")
            stored = Calibration.from_dict(values)
            stored.check_values()
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
        """Return (N, K) float64 rewards as the scorers return them."""
        check_lengths(prompts, completions)
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
    """Return the (N,) numbers that a scorer returned, or raise if they are not `N` finite numbers."""
    try:
        if values is None:
            raise TypeError
        column = np.asarray(values.tolist() if isinstance(values, torch.Tensor) else values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise JuryError(
            f"objective {name!r} returned {values!r}: a reward function returns a list of numbers, one per completion."
        ) from error
    if column.shape != (len(completions),):
        raise JuryError(
            f"objective {name!r} returned rewards of shape {column.shape} for {len(completions)} completions: it must "
            "return one number per completion."
        )
    if not np.isfinite(column).all():
        row = int(np.flatnonzero(~np.isfinite(column))[0])
        raise JuryError(
            f"objective {name!r} gives {values[row]} to row {row}, {completions[row]!r}, and only finite numbers can "
            "be weighed. Return a finite number for every completion, or remove such rows."
        )
    return column
