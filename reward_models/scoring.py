"""Scoring completions with a jury: prompts and completions in, a reward per rater cluster out.

Texts are rendered as TRL renders them, each different text is scored once and remembered, and the result is a plain
CPU tensor. Knows nothing of welfare rules, weights at run time, or trainers: whatever has the three attributes of
`Jury` can stand in for the language model here, such as a table or a simulated population.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from transformers import AutoConfig, AutoTokenizer, PreTrainedTokenizerBase

from reward_models.errors import JuryError
from reward_models.features import batches, render
from reward_models.modeling_jury import JuryConfig, JuryRewardModel


__all__ = ["Jury", "JuryScorer"]


@runtime_checkable
class Jury(Protocol):
    """Anything that scores completions per rater cluster.

    Attributes:
        cluster_names: `K` unique names.
        prevalence: (K,) shares of the population, summing to one.
    """

    cluster_names: list[str]
    prevalence: np.ndarray

    def cluster_rewards(self, prompts: Sequence[Any], completions: Sequence[Any]) -> torch.Tensor:
        """Score `N` completions: (N, K) float32 on the CPU, in logits."""
        ...


class JuryScorer:
    """A jury reward model with its tokenizer, ready to score what TRL hands to a reward function.

    Picklable; the memory of texts is not part of the pickle. The same texts get the same rewards in every call.

    Args:
        model: The jury. Stays on its device; put into evaluation mode.
        tokenizer: The backbone's tokenizer.
        batch_size: Texts per forward pass.
        max_length: Longest text in tokens; longer ones lose their beginning, with a warning.
        cache_size: How many texts to remember; the oldest are forgotten first.

    Attributes:
        cluster_names: `K` names of the rater clusters.
        prevalence: (K,) float64 shares of the population.
    """

    def __init__(
        self,
        model: JuryRewardModel,
        tokenizer: PreTrainedTokenizerBase,
        batch_size: int = 32,
        max_length: int = 1024,
        *,
        cache_size: int = 65_536,
    ) -> None:
        self.model = model.eval()
        self.tokenizer = tokenizer
        self.batch_size = batch_size
        self.max_length = max_length
        self.cache_size = cache_size
        self.cluster_names: list[str] = list(model.config.cluster_names)
        self.prevalence: np.ndarray = np.asarray(model.config.prevalence, dtype=np.float64)
        self._cache: dict[str, torch.Tensor] = {}

    @classmethod
    def from_pretrained(
        cls, path: str | Path, *, device: str | torch.device | None = None, **kwargs: Any
    ) -> JuryScorer:
        """Load a jury and its tokenizer.

        Args:
            path: A folder in `from_pretrained` form, or a model id of the Hub.
            device: Where to put the model; this process's accelerator if there is one, else the CPU.
            **kwargs: `batch_size`, `max_length` and `cache_size` of the scorer.

        Raises:
            JuryError: Nothing is there, it is not a jury, or its tokenizer is missing.
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
                f"the jury in {name!r} has a config.json but no weights that can be read. "
                "Save it again with save_pretrained."
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
        return cls(model.to(_own_device() if device is None else device), tokenizer, **kwargs)

    def save_pretrained(self, path: str | Path) -> None:
        """Write model and tokenizer into one folder that `from_pretrained` and TRL's `reward_funcs="path"` read."""
        self.model.save_pretrained(path)
        self.tokenizer.save_pretrained(path)

    def cluster_rewards(self, prompts: Sequence[Any], completions: Sequence[Any]) -> torch.Tensor:
        """Score each completion for each cluster; each different text costs one forward pass, once.

        Args:
            prompts: `N` prompts, strings or lists of messages.
            completions: `N` completions, strings or lists of messages.

        Returns:
            (N, K) rewards in logits, float32 on the CPU.

        Raises:
            JuryError: The lengths differ, a text is empty, or a reward is not finite.
        """
        if isinstance(prompts, str) or isinstance(completions, str) or len(prompts) != len(completions):
            raise JuryError(
                f"{_count(prompts, 'prompts')} and {_count(completions, 'completions')}: give two lists of "
                "equal length."
            )
        texts = [
            render(prompt, completion, self.tokenizer) for prompt, completion in zip(prompts, completions, strict=True)
        ]
        unique = list(dict.fromkeys(texts))
        known = {text: self._cache[text] for text in unique if text in self._cache}
        new = self._score([text for text in unique if text not in known])
        known.update(new)
        self._cache.update(new)
        for text in list(self._cache)[: max(0, len(self._cache) - self.cache_size)]:
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
        return {**self.__dict__, "_cache": {}}


def _own_device() -> torch.device:
    """The accelerator of this process: `accelerate launch` tells each process its number in LOCAL_RANK."""
    if not torch.accelerator.is_available():
        return torch.device("cpu")
    accelerator = torch.accelerator.current_accelerator()
    return torch.device(accelerator.type if accelerator is not None else "cpu", int(os.environ.get("LOCAL_RANK", "0")))


def _count(values: Sequence[Any], noun: str) -> str:
    return f"a single string as {noun}" if isinstance(values, str) else f"{len(values)} {noun}"
