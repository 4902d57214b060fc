"""`PluralDPOTrainer`: a `trl.DPOTrainer` for pairs whose raters belong to clusters that want different things.

The offline sibling of `PluralGRPOTrainer`: the same kind of policy, learnt from the choices themselves. The policy
reads each pair under prompts that say whose preferences it should follow, and the reference reads it under the plain
prompt, so that every cluster's optimum is pi_ref exp(r_k / beta) with the same pi_ref. With `objective="average"` and
one cluster it is TRL's own trainer, loss for loss. Private attributes of TRL are named in `_trl.py` only; knows
nothing of how a data set says who judged (`dpo.pair_clusters`).

Shapes: `N` pairs of a batch, `M` readings of them, `K` clusters; slot `K` is the reading of a pair as a whole.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from datasets import Dataset
from safetensors.numpy import load_file
from transformers.utils import logging
from trl import DPOTrainer

from plural_rlhf.core.preference_losses import (
    balanced_loss,
    mixture_log_lik,
    mixture_responsibilities,
    public_loss,
)
from plural_rlhf.trainers import _trl
from plural_rlhf.trainers.checkpointed_trainer import STATE_FILE, CheckpointedTrainer, default_output_dir
from plural_rlhf.trainers.checks.datasets import each_dataset
from plural_rlhf.trainers.checks.pairs import check_pair_dataset, check_pair_training
from plural_rlhf.trainers.dpo.balance import ClusterBalance
from plural_rlhf.trainers.dpo.judged_pairs import as_pairs, has_chat_template
from plural_rlhf.trainers.dpo.losses import pair_losses, per_cluster
from plural_rlhf.trainers.dpo.memberships import batch_memberships, start_memberships
from plural_rlhf.trainers.dpo.metrics import (
    balance_metrics,
    membership_metrics,
    pair_metrics,
    policy_metrics,
    sum_and_count,
)
from plural_rlhf.trainers.dpo.pair_clusters import find_clusters
from plural_rlhf.trainers.dpo.preference_rows import (
    LABELS,
    READINGS,
    PairCollator,
    join_readings,
    label_rows,
    one_row_per_reading,
)
from plural_rlhf.trainers.plural_dpo_config import PluralDPOConfig
from reward_models.errors import JuryError, renamed_arguments
from reward_models.fitting.running_memberships import RunningMemberships
from reward_models.judgements.records import Judgements
from reward_models.whole_file import write_arrays


if TYPE_CHECKING:
    from peft import PeftConfig, PeftModel
    from transformers import (
        BitsAndBytesConfig,
        PreTrainedModel,
        PreTrainedTokenizerBase,
        ProcessorMixin,
        TrainerCallback,
    )

    from reward_models.jury.scorer import JuryScorer

__all__ = ["PluralDPOTrainer"]

logger = logging.get_logger(__name__)

_MEMBERSHIPS_FILE = "plural_memberships.safetensors"
_OF_MODEL = ("input_ids", "attention_mask", "completion_mask")


class PluralDPOTrainer(CheckpointedTrainer, DPOTrainer):
    """Trains a policy on the choices of raters who disagree.

    Parameters:
        model (`str` or [`~transformers.PreTrainedModel`] or [`~peft.PeftModel`]):
            The policy.
        ref_model ([`~transformers.PreTrainedModel`], *optional*):
            The reference π₀. `None`: the model as it is saved, or without its adapter.
        args ([`PluralDPOConfig`], *optional*):
            Configuration; the defaults if not given.
        train_dataset ([`Judgements`] or [`~datasets.Dataset`]):
            A table of pairs with raters, or TRL's preference data (`prompt`, `chosen`, `rejected`) with one of the
            columns `cluster` (a name), `membership` (probabilities: K numbers or `{cluster: number}`) or `weights`
            (the public that a row speaks for), or with `rater_id`. Optional: `rater_weight` (sampling weight of the
            rater), `count` (how often the judgement was given), `tie` (neither was preferred). A table's prompts in
            plain words become conversations of one user message where the policy has a chat template.
        eval_dataset ([`Judgements`], [`~datasets.Dataset`] or a dictionary of them, *optional*):
            Pairs with the same columns.
        scorer (`str`, `Path` or [`JuryScorer`], *optional*):
            A jury reward model that gives the clusters' names and prevalence, and the memberships of the raters in
            `rater_id`: those that it was saved with (`save_raters=True`), the others adapted from the training pairs.
            A rater of the evaluation alone gets the prevalence.

    The other parameters are those of [`~trl.DPOTrainer`], except `data_collator` and `compute_metrics`, which this
    trainer defines itself. With `rater_id`, `cluster_names` and no `scorer`, `objective="mixture"` finds the clusters
    by itself: memberships start at random and follow the likelihood of each rater's choices (soft EM); it needs many
    choices per rater.

    Metrics, besides TRL's `rewards/*`, `logps/*`, `entropy` and `num_tokens`: `plural/accuracy/<cluster>` and
    `plural/loss/<cluster>` (each judgement counted by membership), `plural/weight/<cluster>` (what the cluster counts
    in the loss; `plural/robust_weight/<cluster>` with `robust`), `plural/responsibility/<cluster>` and
    `plural/public_loss` (`"mixture"`), `plural/prevalence/<cluster>` and `plural/membership_entropy` (memberships
    that are learnt).

    Raises:
        ValueError: A setting or a model cannot work; before any training.
        JuryError: The pairs do not say who judged, or weights over clusters cannot be used.
        TypeError: `args` is no `PluralDPOConfig`.

    Example:
        >>> import tempfile
        >>> from reward_models.jury.tiny import tiny_causal_lm, tiny_tokenizer
        >>> pairs = [
        ...     {"prompt": "More parks?", "chosen": " yes", "rejected": " no", "cluster": "urban"},
        ...     {"prompt": "More parks?", "chosen": " no", "rejected": " yes", "cluster": "rural"},
        ... ]
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     options = {"report_to": "none", "logging_strategy": "no", "save_strategy": "no"}
        ...     options |= {"use_cpu": True, "bf16": False, "per_device_train_batch_size": 2}
        ...     args = PluralDPOConfig(folder, cluster_names=["urban", "rural"], max_steps=2, **options)
        ...     policy, reference = tiny_causal_lm(), tiny_causal_lm()
        ...     data = Dataset.from_list(pairs)
        ...     trainer = PluralDPOTrainer(policy, reference, args, data, processing_class=tiny_tokenizer())
        ...     steps = trainer.train().global_step
        {'train_runtime': ...}
        >>> steps, trainer.clusters.prevalence.tolist(), trainer.balance.weights.tolist()
        (2, [0.5, 0.5], [0.5, 0.5])
    """

    _tag_names = ["trl", "plural-dpo"]  # noqa: RUF012  (TRL's own convention)
    _name = "PluralDPO"

    @renamed_arguments(jury="scorer")
    def __init__(
        self,
        model: str | PreTrainedModel | PeftModel,
        ref_model: PreTrainedModel | None = None,
        args: PluralDPOConfig | None = None,
        train_dataset: Judgements | Dataset | None = None,
        eval_dataset: Judgements | Dataset | Mapping[str, Judgements | Dataset] | None = None,
        processing_class: PreTrainedTokenizerBase | ProcessorMixin | None = None,
        scorer: str | Path | JuryScorer | None = None,
        callbacks: list[TrainerCallback] | None = None,
        optimizers: tuple[torch.optim.Optimizer | None, torch.optim.lr_scheduler.LambdaLR | None] = (None, None),
        quantization_config: BitsAndBytesConfig | None = None,
        peft_config: PeftConfig | None = None,
    ) -> None:
        args = PluralDPOConfig(default_output_dir(model, "PluralDPO")) if args is None else args
        table = train_dataset if isinstance(train_dataset, Judgements) else None
        if any(isinstance(data, Judgements) for data in each_dataset(train_dataset, eval_dataset)):
            conversations = has_chat_template(model, processing_class)
            train_dataset = as_pairs(train_dataset, conversations=conversations)
            eval_dataset = as_pairs(eval_dataset, conversations=conversations)
        check_pair_training(
            args,
            model=model,
            ref_model=ref_model,
            train_dataset=train_dataset,
            eval_dataset=eval_dataset,
            peft_config=peft_config,
        )
        assert isinstance(train_dataset, Dataset)  # it was checked
        self.args = args
        self.clusters = find_clusters(
            train_dataset,
            objective=args.objective,
            scorer=scorer,
            names=args.cluster_names,
            prevalence=args.prevalence,
            judgements=table,
        )
        self.memberships: RunningMemberships | None = None
        self._rater_numbers: dict[str, int] | None = None
        if self.clusters.learnt:
            self.memberships, self._rater_numbers = start_memberships(
                train_dataset, self.clusters, dirichlet=args.dirichlet, seed=args.seed
            )
        labelled = self._labelled(train_dataset)
        if isinstance(eval_dataset, Mapping):
            eval_dataset = {name: self._labelled(dataset) for name, dataset in eval_dataset.items()}
        elif eval_dataset is not None:
            eval_dataset = self._labelled(eval_dataset)
        if self.clusters.source is not None and not self.clusters.learnt:
            self._report_clusters(labelled, of_data=scorer is None and args.cluster_names is None)
        self.balance = ClusterBalance(labelled[LABELS], self.clusters, args)
        super().__init__(
            model=model,
            ref_model=ref_model,
            args=args,
            train_dataset=labelled,
            eval_dataset=eval_dataset,
            processing_class=processing_class,
            callbacks=callbacks,
            optimizers=optimizers,
            quantization_config=quantization_config,
            peft_config=peft_config,
        )
        self.data_collator: Any = PairCollator(self.data_collator)

    def _report_clusters(self, labelled: Dataset, of_data: bool) -> None:
        """Log the clusters, because a misspelt name is a cluster of its own if the data alone name them."""
        counts = np.sum([label["membership"] for label in labelled[LABELS]], axis=0)
        counted = [
            f"{name!r} {f'{count:,.1f}'.removesuffix('.0')}"  # memberships that are probabilities add up to fractions
            for name, count in zip(self.clusters.names, counts, strict=True)
        ]
        message = (
            f"{len(counts)} clusters by the column {self.clusters.source!r}: {', '.join(counted)} of "
            f"{len(labelled):,} training pairs"
        )
        if of_data:
            logger.warning("%s. If one is misspelt, set cluster_names=[...]: all others are then errors.", message)
        else:
            logger.info("%s.", message)

    # ── data ────────────────────────────────────────────────────────────────────────────────────────────────────────

    def _labelled(self, dataset: Dataset) -> Dataset:
        return label_rows(
            dataset,
            self.clusters,
            objective=self.args.objective,
            public_coef=self.args.public_coef,
            min_membership=self.args.min_membership,
            ties=self.args.loss == "ipo" or self.args.tie_propensity > 0,
            rater_numbers=self._rater_numbers,
        )

    def _prepare_dataset(self, dataset: Dataset, processing_class: Any, args: Any, dataset_name: str) -> Dataset:
        """Add TRL's tokens of every reading of every pair."""
        check_pair_dataset(dataset)
        dataset = self._labelled(dataset)
        # Responses are cut and pairs dropped once for all readings of a pair, in `join_readings`.
        whole = copy.copy(args)
        whole.max_length = None
        readings = None
        if args.objective != "average":
            readings = one_row_per_reading(dataset, args.dataset_num_proc)
            readings = super()._prepare_dataset(readings, processing_class, whole, f"{dataset_name} (steered)")
            readings = readings.select_columns(["prompt_ids", "chosen_ids", "rejected_ids"])
        pairs = super()._prepare_dataset(dataset, processing_class, whole, dataset_name)
        return join_readings(pairs, readings, args.max_length, args.dataset_num_proc)

    def _set_signature_columns_if_needed(self) -> None:
        super()._set_signature_columns_if_needed()
        _trl.keep_columns(self, [LABELS, READINGS])

    # ── training ────────────────────────────────────────────────────────────────────────────────────────────────────

    def compute_ref_log_probs(self, model: Any, inputs: dict[str, Any]) -> Any:
        """Return log-probabilities of chosen and rejected, `(N,)` each, under the reference and the plain prompt."""
        return super().compute_ref_log_probs(model, {name: inputs[name] for name in _OF_MODEL})

    def _compute_loss(self, model: torch.nn.Module, inputs: dict[str, torch.Tensor], return_outputs: bool) -> Any:
        training, mixture = self.model.training, self.args.objective == "mixture"
        table, outputs = self._policy_log_probs(model, inputs)
        log_pi = table[:, :-1] if mixture else per_cluster(table, inputs["pair"], inputs["slot"])
        log_ratio = log_pi - self._reference_log_probs(inputs)[:, None]
        losses = pair_losses(
            log_ratio,
            inputs["tie"],
            inputs["completion_mask"],
            loss=self.args.loss,
            beta=self.beta,
            tie_propensity=self.args.tie_propensity,
        )
        membership, weight = self._memberships_of(inputs), inputs["weight"][:, None]
        own_loss, responsible, gap = losses, membership, None
        if mixture:
            responsible = mixture_responsibilities(-losses, membership)
            own_loss = -mixture_log_lik(-losses, membership)[:, None]
        counted, responsible = membership * weight, responsible * weight
        balance = self.balance.shares.to(losses), self.balance.weights.to(losses)
        loss, cluster_losses = balanced_loss(own_loss, counted, *balance)
        if self.args.sft_coef > 0:
            length = inputs["completion_mask"].sum(1).chunk(2)[0].clamp(min=1)
            nll = -log_pi[..., 0] / length[:, None]
            preferred = responsible * ~inputs["tie"][:, None]
            loss = loss + self.args.sft_coef * balanced_loss(nll, preferred, *balance)[0]
        if mixture and self.args.public_coef > 0:
            gap = self._public_gap(table, log_pi)
            loss = loss + self.args.public_coef * (gap * weight[:, 0]).mean()
        if self.aux_loss_enabled:
            loss = loss + self.router_aux_loss_coef * outputs.aux_loss
        with torch.no_grad():
            if training and self.args.robust:
                losses_of_all = self.accelerator.reduce(cluster_losses, "mean")
                self.balance.follow(losses_of_all, step_ends=self.accelerator.sync_gradients)
            if training and self.memberships is not None:
                self._record(inputs["row"], -losses)
            real = _trl.real_rows(self, len(losses))
            sums = self._sums(inputs, outputs, table, gap, real)
            of_real = counted * real[:, None], responsible * real[:, None]
            sums |= pair_metrics(self.clusters.names, self.beta * log_ratio, losses, *of_real, mixture=mixture)
            self._log_batch(inputs, sums)
        if return_outputs:
            # `predict` wants logits, which the fused head does not make: TRL, too, runs the policy again for them.
            batch = self._readings(inputs)
            with torch.no_grad():
                outputs = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"])
            return loss, outputs
        return loss

    def _readings(self, inputs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Return TRL's batch of what the policy reads: steered prompts, or the plain ones where none is steered."""
        prefix = "" if self.args.objective == "average" else "steered_"
        return {name: inputs[f"{prefix}{name}"] for name in _OF_MODEL}

    def _policy_log_probs(self, model: torch.nn.Module, inputs: dict[str, torch.Tensor]) -> tuple[torch.Tensor, Any]:
        """Return `(N, K + 1, 2)` log-probabilities of chosen and rejected in every slot, nats; 0 where not read."""
        batch = self._readings(inputs)
        router = {"output_router_logits": True} if self.aux_loss_enabled else {}
        outputs = model(
            input_ids=batch["input_ids"],
            attention_mask=batch["attention_mask"],
            labels=batch["input_ids"].masked_fill(batch["completion_mask"] == 0, -100),
            use_cache=False,
            fused_lm_head=True,
            **router,
        )
        # Prompt-learning adapters put virtual tokens before the real ones.
        log_probs = outputs.log_probs[:, 1 - batch["input_ids"].size(1) :].sum(1).view(2, -1).T  # (M, 2)
        table = log_probs.new_zeros(len(inputs["weight"]), len(self.clusters.names) + 1, 2)
        return table.index_put((inputs["pair"], inputs["slot"]), log_probs), outputs

    def _reference_log_probs(self, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        """Return `(N, 2)` log-probabilities of chosen and rejected under the reference, nats."""
        if self.precompute_ref_logps:
            return torch.stack([inputs["ref_chosen_logps"], inputs["ref_rejected_logps"]], -1)
        return torch.stack(self.compute_ref_log_probs(self.ref_model or self.model, inputs), -1)

    def _memberships_of(self, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        """Return `(N, K)` probability that the rater of each pair is in each cluster, without this judgement."""
        if self.memberships is None:
            return inputs["membership"]
        log_membership = batch_memberships(
            self.memberships,
            inputs["rater"].cpu().numpy(),
            inputs["row"].cpu().numpy() if self.model.training else None,
            progress=self.state.global_step / max(self.state.max_steps, 1),
            annealing_share=self.args.annealing_share,
        )
        return torch.from_numpy(log_membership).exp().to(inputs["membership"])

    def _public_gap(self, table: torch.Tensor, log_pi: torch.Tensor) -> torch.Tensor:
        """Return the distance of the prompt without a cluster from the mixture, `(N,)`."""
        prevalence = self.clusters.prevalence if self.memberships is None else self.memberships.prevalence
        return public_loss(table[:, -1], log_pi.transpose(1, 2), torch.from_numpy(prevalence)).mean(-1)

    def _record(self, row: torch.Tensor, log_lik: torch.Tensor) -> None:
        """Record the likelihoods of this batch in the memberships, on all processes alike."""
        assert self.memberships is not None
        row, log_lik = self.accelerator.gather(row), self.accelerator.gather(log_lik.contiguous())
        self.memberships.record(row.cpu().numpy(), log_lik.double().cpu().numpy())

    def _sums(
        self,
        inputs: dict[str, torch.Tensor],
        outputs: Any,
        table: torch.Tensor,
        gap: torch.Tensor | None,
        real: torch.Tensor,
    ) -> dict[str, torch.Tensor]:
        """Return what is logged of the policy's readings of the pairs that count, as (2,) sums and counts."""
        log_pi, of_real = table[inputs["pair"], inputs["slot"]], real[inputs["pair"]]
        sums = policy_metrics(outputs, log_pi, self._readings(inputs), of_real)
        if self.aux_loss_enabled:
            sums["aux_loss"] = sum_and_count(outputs.aux_loss, real.sum())
        if gap is not None:
            sums["plural/public_loss"] = sum_and_count(gap, real)
        return sums

    def _log_batch(self, inputs: dict[str, torch.Tensor], sums: dict[str, torch.Tensor]) -> None:
        _trl.count_tokens(self, self._readings(inputs)["attention_mask"])
        _trl.add_ratios(self, sums)
        names, memberships = self.clusters.names, self.memberships
        state = balance_metrics(names, self.balance) if memberships is None else membership_metrics(names, memberships)
        for name, value in state.items():
            _trl.add_metric(self, name, value)

    # ── checkpoints ─────────────────────────────────────────────────────────────────────────────────────────────────

    def _check_state(self, folder: Path) -> None:
        state = json.loads((folder / STATE_FILE).read_text(encoding="utf-8"))
        if state["cluster_names"] != self.clusters.names:
            raise JuryError(
                f"the checkpoint {str(folder)!r} is of the clusters {', '.join(state['cluster_names'])}, and this "
                f"training of {', '.join(self.clusters.names)}: resume with the same, or use another output_dir."
            )
        if state["data"] != (None if self.memberships is None else self.memberships.fingerprint):
            raise JuryError(
                f"the checkpoint {str(folder)!r} learnt its raters' clusters from other judgements, whose memberships "
                "would go to the wrong people: resume with the same data, or use another output_dir."
            )

    def _save_state(self, folder: Path) -> dict[str, Any]:
        if self.args.should_save and self.memberships is not None:
            write_arrays(folder / _MEMBERSHIPS_FILE, self.memberships.state())
        return {
            "cluster_names": self.clusters.names,
            "balance": self.balance.state_dict(),
            "data": None if self.memberships is None else self.memberships.fingerprint,
        }

    def _load_state(self, folder: Path) -> None:
        state = json.loads((folder / STATE_FILE).read_text(encoding="utf-8"))
        self.balance.load_state_dict(state["balance"])
        if self.memberships is not None:
            self.memberships.load_state(load_file(folder / _MEMBERSHIPS_FILE))
