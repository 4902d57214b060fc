"""Heads on a backbone: the model that a training starts from, and a new head for an empty cluster.

Heads start as small deviations from one consensus. Knows nothing of memberships and training steps.

Shapes: `K` clusters, `D` hidden size.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from peft import PeftModel
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    PreTrainedModel,
)
from transformers.modeling_layers import GenericForSequenceClassification

from reward_models.errors import JuryError
from reward_models.fitting.starting_point import check_num_clusters
from reward_models.jury.configuration_jury import JuryConfig
from reward_models.jury.folder import STATE_FILE, load_config, load_state
from reward_models.jury.modeling_jury import ClusterHeads, JuryRewardModel
from reward_models.replaced_files import folder_to_read, folder_version, read_unchanged
from reward_models.seeds import derived_seed
from reward_models.trainer import _trl
from reward_models.trainer.data import JuryData
from reward_models.trainer.jury_reward_config import JuryRewardConfig


__all__ = [
    "base_jury",
    "check_raters",
    "choose_num_clusters",
    "freeze_heads",
    "make_jury",
    "prepare_jury",
    "restart_head",
    "set_heads",
]


def base_jury(model: Any) -> Any:
    """Return the model without its adapter, if it has one.

    Example:
        >>> from reward_models.jury.tiny import tiny_causal_lm
        >>> type(base_jury(tiny_causal_lm())).__name__
        'LlamaForCausalLM'
    """
    return model.get_base_model() if isinstance(model, PeftModel) else model


def choose_num_clusters(model: Any, args: JuryRewardConfig, data: JuryData) -> int:
    """Return the number of clusters: that of `args`, else that of the jury, else 2 if the data allow it.

    Raises:
        JuryError: The data do not allow that number.

    Example:
        >>> from reward_models import planted_judgements
        >>> from reward_models.trainer.data import read_data
        >>> choose_num_clusters(None, JuryRewardConfig("out", bf16=False), read_data(planted_judgements().judgements))
        2
    """
    jury = base_jury(model)
    wanted = args.num_clusters
    if wanted is None and isinstance(jury, JuryRewardModel):
        wanted = jury.config.num_clusters
    check_raters(data, wanted)
    return wanted or (1 if data.anonymous or data.enc.n_raters < 2 else 2)


def check_raters(data: JuryData, num_clusters: int | None) -> None:
    """Raise if there are more clusters than the data can tell apart.

    Raises:
        JuryError: Several clusters without `rater_id`, or more clusters than raters.

    Example:
        >>> from datasets import Dataset
        >>> from reward_models.trainer.data import read_data
        >>> pairs = Dataset.from_dict({"prompt": ["Which?"] * 2, "chosen": ["a", "b"], "rejected": ["c", "c"]})
        >>> check_raters(read_data(pairs), num_clusters=2)
        Traceback (most recent call last):
        reward_models.errors.JuryError: num_clusters=2, but the data have no column 'rater_id', so it is unknown which
        judgements are of the same person. Add the column, or set num_clusters=1.
    """
    if num_clusters is None:
        return
    if num_clusters > 1 and data.anonymous and data.enc.kind != "soft":
        raise JuryError(
            f"num_clusters={num_clusters}, but the data have no column 'rater_id', so it is unknown which judgements "
            "are of the same person. Add the column, or set num_clusters=1."
        )
    check_num_clusters(data.enc, num_clusters)


def prepare_jury(
    model: str | PreTrainedModel | PeftModel, args: JuryRewardConfig, data: JuryData, quantization_config: Any = None
) -> tuple[PreTrainedModel | PeftModel, bool]:
    """Load the model if it is a path, and add heads if it has none.

    Args:
        model: A path or hub id, or see `make_jury`.
        args: Number of clusters, names, initial heads.
        data: The training data, which limit the number of clusters.
        quantization_config: For a path.

    Returns:
        The jury reward model, and whether `model` was one.

    Raises:
        JuryError: Data or model do not allow the number of clusters; or `memberships_from="model"` for a model without
            heads.

    Example:
        >>> from reward_models import planted_judgements
        >>> from reward_models.jury.tiny import tiny_causal_lm
        >>> from reward_models.trainer.data import read_data
        >>> args = JuryRewardConfig("out", num_clusters=3, bf16=False)
        >>> jury, was_jury = prepare_jury(tiny_causal_lm(), args, read_data(planted_judgements().judgements))
        >>> jury.score.weight.shape, was_jury
        (torch.Size([3, 32]), False)
    """
    if isinstance(model, str):
        check_raters(data, args.num_clusters)
        model = _load_pretrained(model, args, quantization_config)
    num_clusters = choose_num_clusters(model, args, data)
    descriptions = args.cluster_descriptions
    if descriptions is not None and len(descriptions) != num_clusters:
        raise JuryError(
            f"cluster_descriptions has {len(descriptions)} entries for {num_clusters} clusters. Give one per cluster."
        )
    was_jury = isinstance(base_jury(model), JuryRewardModel)
    if args.memberships_from == "model" and not was_jury:
        raise JuryError(
            f"memberships_from='model', but the {type(model).__name__} has no heads that could tell raters apart. "
            "Pass a JuryRewardModel (JuryRewardModel.from_fit), or set memberships_from='auto'."
        )
    return make_jury(model, num_clusters, args.cluster_names, args.deviation_scale, args.seed), was_jury


def _load_pretrained(name: str, args: JuryRewardConfig, quantization_config: Any = None) -> PreTrainedModel:
    """Load a backbone, a reward model with one head, or a jury from a folder or the hub.

    Raises:
        JuryError: The folder of a jury is not as it was saved, see `load_state`.
    """
    if not Path(name, STATE_FILE).is_file() and folder_to_read(name) == name:
        return _load_from(name, args, quantization_config)

    def load() -> PreTrainedModel:
        load_state(name, load_config(name))
        return _load_from(folder_to_read(name), args, quantization_config)

    return read_unchanged(load, lambda: folder_version(name, STATE_FILE), f"the jury in {name!r}")


def _load_from(name: str, args: JuryRewardConfig, quantization_config: Any) -> PreTrainedModel:
    revision = (args.model_init_kwargs or {}).get("revision")
    config = AutoConfig.from_pretrained(name, revision=revision, trust_remote_code=args.trust_remote_code)
    architecture = (config.architectures or [""])[0]
    kind: Any = AutoModel
    if isinstance(config, JuryConfig) or architecture.endswith("ForSequenceClassification"):
        kind = AutoModelForSequenceClassification
    elif architecture.endswith("ForCausalLM"):
        kind = AutoModelForCausalLM  # its head is dropped later; `AutoModel` would warn that it is unexpected
    return _trl.load_model(name, kind, args, quantization_config)


def make_jury(
    model: PreTrainedModel, num_clusters: int, names: Sequence[str] | None, deviation_scale: float, seed: int
) -> PreTrainedModel | PeftModel:
    """Add K nearly equal heads to a model, unless it has them.

    Args:
        model: A jury (also as a `PeftModel`), a reward model with one head, a causal language model or a decoder.
            It is shared, not copied.
        num_clusters: `K`.
        names: `K` names; None keeps those of a jury.
        deviation_scale: Standard deviation of the weights by which heads differ.
        seed: Random seed of the heads.

    Returns:
        The jury reward model. Its memory of judged texts, if it has one, is dropped: training changes the features by
        which it finds them.

    Raises:
        JuryError: A jury with another number of clusters, or a classifier with several labels.

    Example:
        >>> from reward_models.jury.tiny import tiny_causal_lm
        >>> jury = make_jury(tiny_causal_lm(), 2, ["urban", "rural"], deviation_scale=0.01, seed=0)
        >>> heads = jury.score.weight
        >>> bool((heads[0] - heads[1]).abs().max() < 0.1), jury.config.prevalence
        (True, [0.5, 0.5])
    """
    jury = base_jury(model)
    if isinstance(jury, JuryRewardModel):
        if jury.config.num_clusters != num_clusters:
            raise JuryError(
                f"num_clusters={num_clusters}, but the jury has {jury.config.num_clusters} heads. Leave num_clusters "
                "out to train those, or pass the backbone to start with new ones."
            )
        if names is not None:
            jury.config.cluster_names = list(names)
        if jury.forget_texts():
            warnings.warn(
                "the jury's memory of judged texts is dropped: what it says beyond the heads is true of features that "
                "training changes. The linear heads remain.",
                stacklevel=4,
            )
        jury.config.check()
        return model
    if isinstance(model, PeftModel):
        raise JuryError(
            f"the PeftModel wraps a {type(jury).__name__}, not a JuryRewardModel, so it has no heads for clusters. "
            "Merge the adapter and pass the merged model with a peft_config."
        )
    base, hidden = model.base_model, model.base_model.config.get_text_config().hidden_size
    generator = torch.Generator().manual_seed(derived_seed(seed, "first heads"))
    if isinstance(model, GenericForSequenceClassification):
        if model.config.num_labels != 1:
            raise JuryError(
                f"{type(model).__name__} has num_labels={model.config.num_labels}: it is a classifier, not a reward "
                "model. Pass a model with num_labels=1, or its backbone (model.base_model) to start with new heads."
            )
        consensus = model.score.weight.detach().float().cpu()
    else:
        deviation = getattr(base.config.get_text_config(), "initializer_range", 0.02)
        consensus = torch.normal(0.0, deviation, (1, hidden), generator=generator)
    apart = torch.normal(0.0, 1.0, (num_clusters, hidden), generator=generator) * deviation_scale
    return JuryRewardModel.from_fit(
        model,
        consensus + apart - apart.mean(0),
        torch.zeros(num_clusters),
        [1 / num_clusters] * num_clusters,
        cluster_names=names,
    )


def restart_head(
    jury: JuryRewardModel, cluster: int, prevalence: np.ndarray, deviation_scale: float, seed: int
) -> None:
    """Replace a cluster's head by the consensus of the other clusters plus a small random deviation.

    Args:
        jury: The model; its trainable heads are changed in place.
        cluster: Number of the cluster.
        prevalence: (K,) weights of the consensus; that of the cluster is ignored.
        deviation_scale: Standard deviation of the deviation.
        seed: Random seed of the deviation, the same on every process.

    Example:
        >>> from reward_models.jury.tiny import tiny_causal_lm
        >>> jury = make_jury(tiny_causal_lm(), 2, None, deviation_scale=1.0, seed=0)
        >>> restart_head(jury, cluster=1, prevalence=np.array([0.9, 0.1]), deviation_scale=0.0, seed=0)
        >>> torch.allclose(jury.score.weight[0], jury.score.weight[1])  # there is one other cluster
        True
    """
    (heads,) = (m for m in jury.modules() if isinstance(m, ClusterHeads) and m.weight.requires_grad)
    generator = torch.Generator().manual_seed(derived_seed(seed, "restarted head"))
    others = torch.from_numpy(np.where(np.arange(len(prevalence)) == cluster, 0.0, prevalence)).to(heads.weight)
    apart = torch.normal(0.0, deviation_scale, heads.weight.shape[1:], generator=generator)
    with torch.no_grad():
        heads.weight[cluster] = others @ heads.weight / others.sum() + apart.to(heads.weight)
        heads.bias[cluster] = others @ heads.bias / others.sum()


def set_heads(jury: JuryRewardModel, weight: np.ndarray, bias: np.ndarray) -> None:
    """Replace the heads (K, D) and their biases (K,), also of the copy that an adapter trains.

    Example:
        >>> from reward_models.jury.tiny import tiny_causal_lm
        >>> jury = make_jury(tiny_causal_lm(), 2, None, deviation_scale=1.0, seed=0)
        >>> set_heads(jury, np.ones((2, 32)), np.zeros(2))
        >>> float(jury.score.weight.sum())
        64.0
    """
    with torch.no_grad():
        for heads in (module for module in jury.modules() if isinstance(module, ClusterHeads)):
            heads.weight.copy_(torch.from_numpy(weight))
            heads.bias.copy_(torch.from_numpy(bias))


def freeze_heads(jury: JuryRewardModel) -> None:
    """Take the heads out of training, also the copy that an adapter would train.

    Example:
        >>> from reward_models.jury.tiny import tiny_causal_lm
        >>> jury = make_jury(tiny_causal_lm(), 2, None, deviation_scale=1.0, seed=0)
        >>> freeze_heads(jury)
        >>> jury.score.weight.requires_grad, any(p.requires_grad for p in jury.parameters())
        (False, True)
    """
    for heads in (module for module in jury.modules() if isinstance(module, ClusterHeads)):
        heads.requires_grad_(False)
