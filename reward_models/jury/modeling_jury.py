"""The jury reward model as a transformers model: a decoder, one linear head per rater cluster, one score for TRL.

TRL reads `logits` of shape (B, 1) and requires `config.num_labels == 1`; the rewards of the K clusters are in
`cluster_rewards`. With one cluster the model is an ordinary Bradley-Terry reward model. Importing this module
registers the classes, so that `AutoModelForSequenceClassification` and `reward_funcs="path"` find them.
Knows nothing of how the heads were fitted, of raters, or of any welfare rule but the weighted mean.

With reward r_k = w_k·h + b_k and prevalence pi_k, the consensus is s = sum_k pi_k r_k and the deviation of cluster k
is r_k - s. So sum_k pi_k (r_k - s) = 0 holds exactly and needs no penalty.

Shapes: `B` texts, `T` tokens, `D` hidden size, `K` clusters.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers import AutoConfig, AutoModel, AutoModelForSequenceClassification, PreTrainedModel
from transformers.utils import ModelOutput
from transformers.utils.generic import can_return_tuple

from reward_models.errors import JuryError, settings_or_default
from reward_models.jury.backbones.loading import drop_unread_pooler, find_backbone
from reward_models.jury.backbones.memory import JudgedRewards, JudgedTexts, MemoryLayer
from reward_models.jury.backbones.pooling import text_vectors, vector_size
from reward_models.jury.configuration_jury import JuryConfig
from reward_models.jury.reading import ReadingSettings


__all__ = ["ClusterHeads", "JuryConfig", "JuryOutput", "JuryRewardModel"]

OF_BACKBONE = "model."


@dataclass
class JuryOutput(ModelOutput):
    """Output of a `JuryRewardModel`; rewards are in logits, always float32.

    Attributes:
        loss: Always None; a trainer computes the loss from `logits` or `cluster_rewards`.
        logits: (B, 1) mean of the cluster rewards under `config.weights`, or under the prevalence if these are None.
        cluster_rewards: (B, K) reward of each cluster, in the order of `config.cluster_names`.
        consensus: (B, 1) mean of the cluster rewards under the prevalence.

    Example:
        >>> from reward_models.jury.tiny import tiny_causal_lm
        >>> jury = JuryRewardModel.from_fit(tiny_causal_lm(), np.zeros((2, 32)), [1.0, -1.0], prevalence=[0.75, 0.25])
        >>> output = jury(input_ids=torch.tensor([[5, 6, 7]]))
        >>> output.cluster_rewards.tolist(), output.logits.tolist()
        ([[1.0, -1.0]], [[0.5]])
    """

    loss: torch.Tensor | None = None
    logits: torch.Tensor | None = None
    cluster_rewards: torch.Tensor | None = None
    consensus: torch.Tensor | None = None


class ClusterHeads(nn.Linear):
    """`K` linear heads on one vector, computed in float32 whatever the precision of the parameters.

    In bfloat16 a reward near 20 moves in steps of 0.125, which would turn small differences between responses into
    ties.

    Example:
        >>> heads = ClusterHeads(16, 2, dtype=torch.bfloat16)
        >>> heads(torch.zeros(5, 16, dtype=torch.bfloat16)).dtype
        torch.float32
    """

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """Map (..., D) features to (..., K) float32 rewards."""
        with torch.autocast(input.device.type, enabled=False):
            return nn.functional.linear(input.float(), self.weight.float(), self.bias.float())


class JuryRewardModel(PreTrainedModel):
    """A decoder with one reward head per rater cluster.

    Padding may be on either side; the reward is read at the last token of `attention_mask`. (A decoder with absolute
    positions, such as GPT-2, needs right padding, which TRL and `JuryScorer` use.) With PEFT, keep the heads trainable
    by `modules_to_save=["score"]`.

    Judged texts (`config.num_judged`) have the reward that was fitted to them; they are known by their tokens, so that
    `inputs_embeds` gets the linear heads alone. Juries of earlier versions (`config.num_anchors`) find them by their
    features: keep their backbone in the precision it was fitted in, usually float32. Training the backbone changes the
    features, and only the linear heads remain.

    Example:
        >>> from reward_models.jury.tiny import tiny_causal_lm, tiny_tokenizer
        >>> jury = JuryRewardModel.from_fit(
        ...     tiny_causal_lm(),
        ...     weight=np.zeros((2, 32)),
        ...     bias=[0.0, 2.0],
        ...     prevalence=[0.75, 0.25],
        ...     cluster_names=["urban", "rural"],
        ... )
        >>> batch = tiny_tokenizer()("Which is best? the country", return_tensors="pt")
        >>> jury(batch["input_ids"]).cluster_rewards.tolist(), jury(batch["input_ids"]).consensus.tolist()
        ([[0.0, 2.0]], [[0.5]])
    """

    config: JuryConfig
    config_class = JuryConfig
    base_model_prefix = "model"
    supports_gradient_checkpointing = True
    _keep_in_fp32_modules_strict = frozenset({"memory", "judged"})
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True
    _supports_attention_backend = True

    def __init__(self, config: JuryConfig) -> None:
        config.check()
        super().__init__(config)
        self.model = AutoModel.from_config(config.text_config, trust_remote_code=False)
        self._reading = ReadingSettings() if config.reading is None else ReadingSettings.from_dict(config.reading)
        hidden_size = vector_size(self.model, self._reading)
        self.score = ClusterHeads(hidden_size, config.num_clusters)
        self.memory = MemoryLayer(config.num_anchors, hidden_size, config.num_clusters) if config.num_anchors else None
        sizes = config.num_judged, config.num_clusters, config.num_parts
        self.judged = JudgedTexts(*sizes) if config.num_judged else None
        if config.backbone is not None:
            # `from_pretrained` puts the backbone that the folder refers to in the place of this one.
            self._keys_to_ignore_on_load_missing = [r"^model\."]
        self.post_init()

    @classmethod
    def from_pretrained(
        cls, *args: Any, backbone: str | Path | None = None, output_loading_info: bool = False, **kwargs: Any
    ) -> Any:
        """Load a saved model as transformers does, and the backbone that its folder refers to if it holds none.

        Args:
            *args: As for `PreTrainedModel.from_pretrained`.
            backbone: Where that backbone lies now, if it was moved.
            output_loading_info: Return what was missing, too.
            **kwargs: As for `PreTrainedModel.from_pretrained`.

        Raises:
            JuryError: The backbone is not there, or has other weights than the one that the jury was fitted on.
        """
        model, info = super().from_pretrained(*args, output_loading_info=True, **kwargs)
        if model.config.backbone is not None:
            model._take_backbone(backbone)
        else:
            names = {name.removeprefix(OF_BACKBONE) for name in info["missing_keys"] if name.startswith(OF_BACKBONE)}
            others = {name for name in info["missing_keys"] if not name.startswith(OF_BACKBONE)}
            info["missing_keys"] = others | {OF_BACKBONE + name for name in drop_unread_pooler(model.model, names)}
        return (model, info) if output_loading_info else model

    def _take_backbone(self, source: str | Path | None) -> None:
        """Load the backbone that the configuration refers to; the model is then whole, and refers to nothing."""
        reference, reading = self.config.backbone, self.config.reading
        assert reference is not None
        dtype = torch.float32 if reading is None else getattr(torch, ReadingSettings.from_dict(reading).dtype)
        layers = self.config.get_text_config().num_hidden_layers
        try:
            found = find_backbone(reference, layers, dtype, source)
        except JuryError as error:
            raise JuryError(
                f"this jury was saved without its backbone (include_backbone=False): {error} Fix: put the backbone "
                f"back to {reference['source']!r}, or name where it lies with backbone=; where both are at hand, save "
                "the jury again with include_backbone=True to make a folder that can be moved."
            ) from error
        self.model = found.to(self.device, next(self.model.parameters()).dtype)
        self.config.backbone = None

    @classmethod
    def from_fit(
        cls,
        backbone: PreTrainedModel,
        weight: np.ndarray | torch.Tensor,
        bias: np.ndarray | torch.Tensor,
        prevalence: Sequence[float] | np.ndarray,
        cluster_names: Sequence[str] | None = None,
        weights: Sequence[float] | np.ndarray | None = None,
        reading: ReadingSettings | None = None,
        judged: JudgedRewards | None = None,
    ) -> JuryRewardModel:
        """Attach fitted linear heads to the backbone whose features they were fitted on.

        Args:
            backbone: The decoder that `features.pooled_features` ran; the head of a causal language model is dropped.
                Shared, not copied: before it is trained as a policy, copy it or save and reload this model.
            weight: (K, D) heads on the raw features.
            bias: (K,).
            prevalence: (K,) shares of the population.
            cluster_names: `K` unique names.
            weights: (K,) weights of the mean in `logits`; the prevalence if None.
            reading: How the texts were read of which the features are; None: as `pooled_features` does by default.
            judged: Residual rewards of the judged texts by their tokens; None for none.

        Returns:
            A model in evaluation mode with `cluster_rewards == features @ weight.T + bias`, plus the residual of a
            text that was judged.

        Raises:
            JuryError: Shapes do not match each other or the backbone, a head is not finite, or see `JuryConfig`.
        """
        base = backbone.base_model
        hidden_size = vector_size(base, settings_or_default(reading, ReadingSettings))
        heads = torch.as_tensor(np.asarray(weight, dtype=np.float64))
        offsets = torch.as_tensor(np.asarray(bias, dtype=np.float64))
        _check_fit(heads, offsets, judged, hidden_size, type(base).__name__)
        config = JuryConfig(
            num_judged=0 if judged is None else len(judged.rows),
            num_parts=0 if judged is None else judged.variance.shape[1],
            reading=None if reading is None else reading.to_dict(),
            text_config=copy.deepcopy(base.config),
            num_clusters=heads.shape[0],
            cluster_names=list(cluster_names or []),
            prevalence=np.asarray(prevalence, dtype=np.float64).tolist(),
            weights=None if weights is None else np.asarray(weights, dtype=np.float64).tolist(),
            # TRL loads a reward model's tokenizer by this name, and the backbone's is the right one.
            name_or_path=base.config.name_or_path,
        )
        with torch.device("meta"):
            # A second, random backbone must not cost memory: this one never gets values.
            jury = cls(config)
        jury.model = base
        jury.score = ClusterHeads(hidden_size, heads.shape[0], device=base.device, dtype=torch.float32)
        with torch.no_grad():
            jury.score.weight.copy_(heads)
            jury.score.bias.copy_(offsets)
        if judged is not None:
            jury.judged = JudgedTexts.of(judged).to(base.device) if judged.rows else None
        return jury.eval()

    def read_as(self, reading: ReadingSettings) -> None:
        """Pool the hidden states as these settings say from now on; the heads stay.

        Raises:
            JuryError: Settings that make vectors of another size than the heads read.

        Example:
            >>> from reward_models.jury.tiny import tiny_causal_lm
            >>> jury = JuryRewardModel.from_fit(tiny_causal_lm(), np.eye(2, 32), [0.0, 0.0], [0.5, 0.5])
            >>> jury.read_as(ReadingSettings(pooling="mean"))
            >>> jury.config.reading["pooling"]
            'mean'
        """
        before, after = (vector_size(self.model, settings) for settings in (self._reading, reading))
        if before != after:
            raise JuryError(
                f"the settings make vectors of {after} numbers, but the heads read {before}. Fix: keep "
                f"layers={self._reading.layers}, or fit new heads."
            )
        self._reading, self.config.reading = reading, reading.to_dict()

    def forget_texts(self) -> int:
        """Drop what is remembered of the judged texts, before their features change; return how many they were."""
        forgotten = self.config.num_anchors + self.config.num_judged
        self.memory = self.judged = None
        self.config.num_anchors = self.config.num_judged = self.config.num_parts = 0
        return forgotten

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        inputs_embeds: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> JuryOutput:
        """Score texts.

        Args:
            input_ids: (B, T) token ids; or give `inputs_embeds`.
            attention_mask: (B, T), 1 at real tokens; None if there is no padding.
            position_ids: (B, T), for decoders that need them.
            inputs_embeds: (B, T, D) instead of `input_ids`.
            **kwargs: Ignored. TRL passes `margin` and `use_cache`, which are for its loss and for generation.

        Returns:
            The rewards; see `JuryOutput`.
        """
        inputs = {
            "input_ids": input_ids,
            "attention_mask": attention_mask,
            "inputs_embeds": inputs_embeds,
            "position_ids": position_ids,
        }
        features = text_vectors(self.model, inputs, [self._reading])[0]
        rewards = self.score(features)
        if self.memory is not None:
            rewards = rewards + self.memory(features)
        if self.judged is not None and input_ids is not None:
            rewards = rewards + self.judged(input_ids, attention_mask)
        prevalence = rewards.new_tensor(self.config.prevalence)
        weights = prevalence if self.config.weights is None else rewards.new_tensor(self.config.weights)
        return JuryOutput(
            logits=_mean(rewards, weights), cluster_rewards=rewards, consensus=_mean(rewards, prevalence)
        )


def _check_fit(
    heads: torch.Tensor,
    offsets: torch.Tensor,
    judged: JudgedRewards | None,
    hidden_size: int,
    backbone: str,
) -> None:
    """Raise unless heads (K, D), offsets (K,) and judged texts match, and all of them are finite."""
    if heads.ndim != 2 or heads.shape[1] != hidden_size or offsets.shape != heads.shape[:1]:
        raise JuryError(
            f"weight {tuple(heads.shape)} and bias {tuple(offsets.shape)} do not match {backbone}: they must be (K, "
            f"D) and (K,) with D={hidden_size}, its hidden size. Fit the heads on features of this backbone."
        )
    if not (heads.isfinite().all() and offsets.isfinite().all()):
        raise JuryError(
            "weight or bias holds NaN or infinity: the fit did not converge. Fix: check the features it was fitted to."
        )
    if judged is not None:
        shapes = judged.residual.shape, judged.variance.shape
        if shapes != ((len(judged.rows), heads.shape[0]), (len(judged.rows), *judged.variance.shape[1:])):
            raise JuryError(
                f"residuals {shapes[0]} and variances {shapes[1]} do not match {len(judged.rows)} judged texts and "
                f"{heads.shape[0]} clusters. Pass weight, bias and judged texts of one fit."
            )
        if not (np.isfinite(judged.residual).all() and np.isfinite(judged.variance).all()):
            raise JuryError("a judged text has a reward or variance of NaN or infinity: the fit did not converge.")


def _mean(rewards: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Average (B, K) rewards to (B, 1); with K = 1 this is the reward itself to the last digit."""
    return (rewards * (weights / weights.sum())).sum(-1, keepdim=True)


AutoConfig.register(JuryConfig.model_type, JuryConfig, exist_ok=True)
AutoModel.register(JuryConfig, JuryRewardModel, exist_ok=True)
AutoModelForSequenceClassification.register(JuryConfig, JuryRewardModel, exist_ok=True)
