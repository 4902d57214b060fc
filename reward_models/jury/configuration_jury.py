"""The configuration of a jury reward model: its decoder, its clusters and their shares.

Knows nothing of the model itself; `modeling_jury` registers both with transformers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import field
from typing import Any, ClassVar

from transformers import AutoConfig, PreTrainedConfig
from transformers.configuration_utils import SubConfigSpec

from reward_models.errors import JuryError
from reward_models.jury.reading import ReadingSettings


__all__ = ["JuryConfig"]

MOST_CLUSTERS = 100_000
MOST_TEXTS = 10**9


class JuryConfig(PreTrainedConfig):
    """Configuration of a `JuryRewardModel`.

    Attributes:
        text_config: Configuration of the decoder, or its dictionary; one without `model_type` is read as Llama's.
        num_clusters: Number of rater clusters `K`, at least 1. Not `num_labels`, which is 1 for every reward model.
        cluster_names: `K` unique names; `"cluster 1"`, … when not given.
        prevalence: `K` shares of the population that sum to one; equal when not given.
        weights: `K` non-negative weights of the mean in `logits`, normalised when used; the prevalence when not given.
        num_judged: Number of judged texts whose residual rewards are stored beside the linear heads, by their tokens;
            0 for none. See `memory.JudgedTexts`.
        num_parts: Number of parts of a reward whose variances are stored with them, see `JointFit`.
        num_anchors: The same number in juries of earlier versions, by their features; see `memory.MemoryLayer`.
        reading: How the heads' texts were read, `ReadingSettings.to_dict()`; None where it is unknown.
        backbone: Where the backbone lies and the hash of its weights (`features.refer_to_backbone`), in a folder that
            does not hold it; None where it does.
        former_names: `K` names that the clusters had before they were renamed, as prompts of policies may have them;
            None where they were not.

    Raises:
        JuryError: A value breaks one of these rules, or `num_labels` is not 1.

    Example:
        >>> config = JuryConfig(text_config={"model_type": "qwen2"}, num_clusters=2, prevalence=[0.7, 0.3])
        >>> config.cluster_names, config.num_labels
        (['cluster 1', 'cluster 2'], 1)
        >>> JuryConfig(num_clusters=2, prevalence=[0.7, 0.7])
        Traceback (most recent call last):
        reward_models.errors.JuryError: prevalence=[0.7, 0.7] sums to 1.4, but these are shares of one population.
        Divide them by their sum.
    """

    model_type = "plural_jury"
    sub_configs_defaults: ClassVar[dict[str, SubConfigSpec]] = {
        "text_config": SubConfigSpec(config_class=AutoConfig, model_type="llama")
    }

    text_config: dict | PreTrainedConfig | None = None
    num_clusters: int = 1
    cluster_names: list[str] = field(default_factory=list)
    prevalence: list[float] = field(default_factory=list)
    weights: list[float] | None = None
    num_judged: int = 0
    num_parts: int = 0
    num_anchors: int = 0
    reading: dict[str, Any] | None = None
    backbone: dict[str, Any] | None = None
    former_names: list[str] | None = None

    def __post_init__(self, **kwargs: Any) -> None:
        kwargs.setdefault("num_labels", 1)
        if isinstance(self.num_clusters, bool) or not isinstance(self.num_clusters, int) or self.num_clusters < 1:
            raise JuryError(
                f"num_clusters={self.num_clusters!r}: a jury needs at least one cluster of raters. Give an "
                "integer from 1 up; 1 is a plain Bradley-Terry reward model."
            )
        if self.num_clusters > MOST_CLUSTERS:
            raise JuryError(
                f"num_clusters={self.num_clusters:,} is more than {MOST_CLUSTERS:,}: a configuration that was damaged."
            )
        self.cluster_names = list(self.cluster_names or [f"cluster {k + 1}" for k in range(self.num_clusters)])
        self.prevalence = list(self.prevalence or [1.0 / self.num_clusters] * self.num_clusters)
        super().__post_init__(**kwargs)
        self.check()

    def check(self) -> None:
        """Check the fields against one another.

        Raises:
            JuryError: See the class.
        """
        names = self.cluster_names
        for name in ("num_anchors", "num_judged", "num_parts"):
            number = getattr(self, name)
            if isinstance(number, bool) or not isinstance(number, int) or not 0 <= number <= MOST_TEXTS:
                raise JuryError(
                    f"{name}={number!r}: the number of stored texts is an integer from 0 up. Give 0 for a model "
                    "without a memory of judged texts."
                )
        if self.reading is not None:
            ReadingSettings.from_dict(self.reading)
        if self.num_labels != 1:
            raise JuryError(
                f"num_labels={self.num_labels}: TRL takes one score per text, so num_labels is always 1. "
                f"Remove the argument; the number of rater clusters is num_clusters={self.num_clusters}."
            )
        if not all(isinstance(name, str) and name.strip() for name in names):
            raise JuryError(f"cluster_names={names}: a name is empty or not a string. Give each cluster a name.")
        repeated = sorted({name for name in names if names.count(name) > 1})
        if repeated:
            raise JuryError(
                f"cluster_names={names}: {repeated} appears more than once, so weights by name would be ambiguous. "
                "Rename one of them."
            )
        self._check_length("cluster_names", names)
        if self.former_names is not None:
            self._check_length("former_names", self.former_names)
        self._check_numbers("prevalence", self.prevalence)
        total = math.fsum(self.prevalence)
        if abs(total - 1.0) > 1e-4:
            raise JuryError(
                f"prevalence={self.prevalence} sums to {total:.6g}, but these are shares of one population. "
                "Divide them by their sum."
            )
        if self.weights is not None:
            self._check_numbers("weights", self.weights)
            if math.fsum(self.weights) <= 0:
                raise JuryError(
                    f"weights={self.weights}: at least one cluster needs a positive weight. Give None to use the "
                    "prevalence."
                )

    def _check_length(self, name: str, values: Sequence[Any]) -> None:
        if len(values) != self.num_clusters:
            raise JuryError(
                f"{name}={list(values)}: {len(values)} entries for num_clusters={self.num_clusters}. "
                "Give one per cluster."
            )

    def _check_numbers(self, name: str, values: Sequence[float]) -> None:
        self._check_length(name, values)
        if not all(isinstance(value, int | float) and math.isfinite(value) and value >= 0 for value in values):
            raise JuryError(
                f"{name}={list(values)}: entries must be finite and not negative. Give an absent cluster 0."
            )
