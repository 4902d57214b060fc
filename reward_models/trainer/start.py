"""What a jury is before its backbone is trained: heads on a backbone, first memberships, terms of the likelihood.

Heads start as small deviations from one consensus, and cannot tell raters apart; memberships therefore start from the
labels alone, where raters share texts. Knows nothing of training.

Shapes: `N` judgements, `R` raters, `K` clusters, `D` hidden size.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
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
from reward_models.fitting.em import FitConfig
from reward_models.fitting.mixture import fit_mixture
from reward_models.fitting.running_memberships import RunningMemberships
from reward_models.fitting.starting_point import check_num_clusters
from reward_models.judgements.encoding import Encoded
from reward_models.jury.modeling_jury import ClusterHeads, JuryConfig, JuryRewardModel
from reward_models.raters.observation import TERM_SD, Observations, start_terms
from reward_models.trainer import _trl
from reward_models.trainer.jury_reward_config import JuryRewardConfig
from reward_models.trainer.rows import JuryData
from reward_models.trainer.terms import JudgementTerms, raw_terms


__all__ = [
    "base_jury",
    "check_raters",
    "choose_num_clusters",
    "first_terms",
    "make_jury",
    "prepare_jury",
    "random_evidence",
    "restart_head",
    "texts_are_shared",
]

EVIDENCE_SD = 1.0  # nats that a random start pretends to know of a rater
SHARED_SHARE = 0.5  # of the judgements that must be of texts of several raters for labels alone to say anything


def base_jury(model: Any) -> Any:
    """The model without its adapter, if it has one."""
    return model.get_base_model() if isinstance(model, PeftModel) else model


def choose_num_clusters(model: Any, args: JuryRewardConfig, data: JuryData) -> int:
    """The number of clusters: as asked for, or the jury's own, or what the data allow."""
    jury = base_jury(model)
    wanted = args.num_clusters
    if wanted is None and isinstance(jury, JuryRewardModel):
        wanted = jury.config.num_clusters
    check_raters(data, wanted)
    return wanted or (1 if data.anonymous or data.enc.n_raters < 2 else 2)


def check_raters(data: JuryData, num_clusters: int | None) -> None:
    """Refuse more clusters than the data can tell apart."""
    if num_clusters is None:
        return
    if num_clusters > 1 and data.anonymous and data.enc.kind != "soft":
        raise JuryError(
            f"num_clusters={num_clusters}, but the data have no column 'rater_id', so nobody knows which judgements "
            "are of the same person. Add the column, or set num_clusters=1."
        )
    check_num_clusters(data.enc, num_clusters)


def prepare_jury(
    model: str | PreTrainedModel | PeftModel, args: JuryRewardConfig, data: JuryData, quantization_config: Any = None
) -> tuple[PreTrainedModel | PeftModel, bool]:
    """Load what was given, if it is a path, and give it heads, if it has none.

    Args:
        model: A path or hub id, or see `make_jury`.
        args: Number of clusters, names, how heads begin.
        data: The training data, which bound the number of clusters.
        quantization_config: For a path.

    Returns:
        The jury, and whether it was one when it came.

    Raises:
        JuryError: The number of clusters does not fit data or model; memberships from a model without heads.
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
    """Load a backbone, a reward model with one head, or a jury from a folder or the hub."""
    revision = (args.model_init_kwargs or {}).get("revision")
    config = AutoConfig.from_pretrained(name, revision=revision, trust_remote_code=args.trust_remote_code)
    architecture = (config.architectures or [""])[0]
    kind: Any = AutoModel
    if isinstance(config, JuryConfig) or architecture.endswith("ForSequenceClassification"):
        kind = AutoModelForSequenceClassification
    elif architecture.endswith("ForCausalLM"):
        kind = AutoModelForCausalLM  # its head is dropped later, rather than reported as unexpected now
    return _trl.load_model(name, kind, args, quantization_config)


def make_jury(
    model: PreTrainedModel, num_clusters: int, names: Sequence[str] | None, deviation_scale: float, seed: int
) -> PreTrainedModel | PeftModel:
    """Put K nearly equal heads on a model, unless it has them.

    Args:
        model: A jury (also as a `PeftModel`), a reward model with one head, a causal language model or a decoder.
            It is shared, not copied.
        num_clusters: `K`.
        names: `K` names; None keeps those of a jury.
        deviation_scale: Standard deviation of the weights by which heads differ.
        seed: Of the heads.

    Returns:
        The jury. Its memory of judged texts, if it has one, is dropped: training moves the features it knows them by.

    Raises:
        JuryError: A jury of another number of clusters; a classifier of several labels.
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
        if jury.memory is not None:
            warnings.warn(
                "the jury's memory of judged texts is dropped: it knows texts by features that training moves. Its "
                "linear heads remain.",
                stacklevel=4,
            )
            jury.memory, jury.config.num_anchors = None, 0
        jury.config.check()
        return model
    if isinstance(model, PeftModel):
        raise JuryError(
            f"the PeftModel wraps a {type(jury).__name__}, not a JuryRewardModel, so it has no heads for clusters. "
            "Merge the adapter and pass the merged model with a peft_config."
        )
    base, hidden = model.base_model, model.base_model.config.get_text_config().hidden_size
    generator = torch.Generator().manual_seed(seed)
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


def texts_are_shared(enc: Encoded) -> bool:
    """Whether most judgements are of texts that other raters judged too, so that labels alone tell raters apart."""
    item, n_raters = np.unique(np.unique(np.stack([enc.item, enc.rater]), axis=1)[0], return_counts=True)
    return float(enc.weight[np.isin(enc.item, item[n_raters > 1])].sum()) > SHARED_SHARE * float(enc.weight.sum())


def first_terms(
    enc: Encoded, args: JuryRewardConfig, *, rater_terms: bool, shared: bool, memberships: RunningMemberships | None
) -> JudgementTerms:
    """Estimate the terms of the likelihood that are not reward, and on request the memberships, on labels alone.

    Args:
        enc: The training judgements.
        args: Prior, seed, step size.
        rater_terms: Whether raters have terms of their own.
        shared: Whether raters share texts; otherwise a free reward for every text would explain everything, and the
            shared terms start at the marginal of the labels.
        memberships: To be started from a mixture of as many clusters; None where something else starts them.

    Returns:
        The terms.
    """
    wanted = enc.kind == "rating" or (enc.kind == "preference" and ((enc.label == 2).any() or rater_terms))
    if not shared or (memberships is None and not wanted):
        terms = start_terms(Observations.from_encoded(enc), rater_terms) if wanted else {}
        return JudgementTerms(terms, args.term_learning_rate)
    n_clusters = 1 if memberships is None else len(memberships.prevalence)
    fit = fit_mixture(enc, n_clusters, FitConfig(dirichlet=args.dirichlet, nuisance=rater_terms, seed=args.seed))
    if memberships is not None:
        memberships.prevalence = fit.prevalence.copy()
        memberships.record(np.arange(len(enc)), fit.judgement_log_lik(enc))
    order = {rater: i for i, rater in enumerate(fit.rater_ids)}
    own = [order[rater] for rater in enc.rater_ids]
    terms = {name: value[own] if name in TERM_SD else value for name, value in fit.nuisance.items()}
    return JudgementTerms(raw_terms(terms), args.term_learning_rate)


def random_evidence(n_raters: int, num_clusters: int, seed: int) -> np.ndarray:
    """(R, K) nats of made-up knowledge of each rater, so that heads see different judgements from the first step."""
    return np.random.default_rng(seed).normal(scale=EVIDENCE_SD, size=(n_raters, num_clusters))


def restart_head(
    jury: JuryRewardModel, cluster: int, prevalence: np.ndarray, deviation_scale: float, seed: int
) -> None:
    """Make a cluster's head that of the other clusters' consensus, with a small deviation of its own.

    Args:
        jury: Whose trainable heads are changed in place.
        cluster: The cluster.
        prevalence: (K,) weights of the consensus; the cluster's own does not count.
        deviation_scale: Standard deviation of the deviation.
        seed: Of the deviation, the same on every process.
    """
    (heads,) = (m for m in jury.modules() if isinstance(m, ClusterHeads) and m.weight.requires_grad)
    generator = torch.Generator().manual_seed(seed)
    others = torch.from_numpy(np.where(np.arange(len(prevalence)) == cluster, 0.0, prevalence)).to(heads.weight)
    apart = torch.normal(0.0, deviation_scale, heads.weight.shape[1:], generator=generator)
    with torch.no_grad():
        heads.weight[cluster] = others @ heads.weight / others.sum() + apart.to(heads.weight)
        heads.bias[cluster] = others @ heads.bias / others.sum()
