"""`PluralGRPOTrainer`: a `trl.GRPOTrainer` whose fixed point is a chosen distribution instead of an argmax.

Sampled mode (L1): groups of completions, sequence-level residual d = R/β + log π₀ − log π, VarGrad or TB baseline,
offsets by responsibility balancing. Exact mode (L2): the column `support` lists all answers, every one is scored with
the prompt computed once, and the divergence to the exact target is the loss; nothing is sampled.
Where this departs from GRPO: log-ratios are sums over the sequence, end token included; the reference is in the
residual, not in a per-token penalty; there is no clipping, no length normalisation and no scaling of rewards.
Private attributes of TRL are named in `_trl.py` only.

Shapes: `N` completions, `G` a group, `B` prompts, `A` answers, `K` clusters.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from peft import PeftModel
from trl import GRPOTrainer

from plural_rlhf.core.aggregation import aggregate
from plural_rlhf.core.estimators import exact_divergence, group_log_z, leave_one_out, residual, score_function_loss
from plural_rlhf.core.offsets import prompt_key
from plural_rlhf.core.shares import cluster_shares
from plural_rlhf.core.targets import PoolTarget
from plural_rlhf.rewards import POOL, JuryReward
from plural_rlhf.trainers import _trl
from plural_rlhf.trainers.exact import ExactRows, check_support
from plural_rlhf.trainers.plural_grpo_config import PluralGRPOConfig
from plural_rlhf.trainers.shared_prefix import AnswerBatch, answer_log_probs
from reward_models.scoring import Jury


if TYPE_CHECKING:
    from datasets import Dataset
    from peft import PeftConfig
    from transformers import PreTrainedModel, PreTrainedTokenizerBase, ProcessorMixin, TrainerCallback

__all__ = ["PluralGRPOTrainer"]

_STATE_FILE = "plural_state.json"


class PluralGRPOTrainer(GRPOTrainer):
    """Trains a policy towards the ρ-pool of a jury.

    Parameters:
        model (`str` or [`~transformers.PreTrainedModel`] or [`~peft.PeftModel`]):
            The policy. As it stands at the start of training it is also the reference π₀.
        reward_funcs (`str`, jury or [`JuryReward`]):
            One jury: a saved one (path or hub id), an object with `cluster_names`, `prevalence` and `cluster_rewards`,
            or a `JuryReward`.
        args ([`PluralGRPOConfig`], *optional*):
            Configuration; made with defaults if not given.
        train_dataset ([`~datasets.Dataset`]):
            Column `prompt`; optional columns `support` (all allowed answers: exact mode), `weights` (weights over
            clusters for this row) and `jury_prompt` (the prompt as the jury should see it).

    The other parameters are those of [`~trl.GRPOTrainer`].

    Raises:
        ValueError: Anything that would make the result something else than the target; before any training.
        JuryError: Weights that the jury cannot carry out.

    Metrics, besides TRL's: `plural/jsd_nats` (to the exact target) and `plural/coverage` (exact mode), `plural/kl`
    (sequence KL to π₀) and `plural/residual_std` (0 at the optimum) in the sampled mode, `plural/share/<cluster>` in
    both.
    """

    _tag_names = ["trl", "plural-grpo"]  # noqa: RUF012  (TRL's own convention)
    _name = "PluralGRPO"
    # The losses here are plain means over the batch: let `Trainer` divide them for gradient accumulation.
    loss_is_scaled_for_ga = False

    def __init__(
        self,
        model: str | PreTrainedModel | PeftModel,
        reward_funcs: str | Path | Jury | JuryReward | Sequence[Any],
        args: PluralGRPOConfig | None = None,
        train_dataset: Dataset | None = None,
        eval_dataset: Dataset | dict[str, Dataset] | None = None,
        processing_class: PreTrainedTokenizerBase | ProcessorMixin | None = None,
        callbacks: list[TrainerCallback] | None = None,
        optimizers: tuple[torch.optim.Optimizer | None, torch.optim.lr_scheduler.LambdaLR | None] = (None, None),
        peft_config: PeftConfig | None = None,
    ) -> None:
        if args is None:
            name = model if isinstance(model, str) else model.config._name_or_path
            args = PluralGRPOConfig(f"{name.split('/')[-1]}-PluralGRPO")
        self.jury_reward = _jury_reward(reward_funcs, args)
        columns = train_dataset.column_names or [] if train_dataset is not None else []
        self.exact = "support" in columns if args.exact is None else args.exact
        if self.exact:
            args.use_exact_mode()
            for dataset in _datasets(train_dataset, eval_dataset):
                check_support(_rows(dataset, ["support"]))
        elif not isinstance(model, str) and not isinstance(model, PeftModel) and peft_config is None:
            _check_reloadable(model)
        for dataset in _datasets(train_dataset, eval_dataset):
            if "weights" in (dataset.column_names or []):
                specs = [row["weights"] for row in dataset.select_columns("weights")]
                self.jury_reward.row_weights(specs, len(specs))
        with _trl.without_reference_model(args, self.exact):
            super().__init__(
                model=model,
                reward_funcs=[self.jury_reward],
                args=args,
                train_dataset=train_dataset,
                eval_dataset=eval_dataset,
                processing_class=processing_class,
                callbacks=callbacks,
                optimizers=optimizers,
                peft_config=peft_config,
            )
        self.target = PoolTarget(
            rho=args.rho, beta=args.beta, tie_margin=args.tie_margin, reference_power=args.reference_power
        )
        self._exact_rows = ExactRows(self.jury_reward, self.target, _trl.tokenizer_of(self), _trl.eos_token_id(self))
        self._scored: tuple[torch.Tensor, torch.Tensor, list[str]] | None = None

    def train(self, *args: Any, **kwargs: Any) -> Any:
        """Trains, as `Trainer.train`; in exact mode the reference is scored first, while the policy still is π₀."""
        self._score_references()
        return super().train(*args, **kwargs)

    def evaluate(self, *args: Any, **kwargs: Any) -> Any:
        """Evaluates, as `Trainer.evaluate`; the loss of the exact mode is the divergence to the exact target."""
        if self.state.global_step == 0:
            self._score_references()
        return super().evaluate(*args, **kwargs)

    def _score_references(self) -> None:
        if not self.exact:
            return
        model = self.accelerator.unwrap_model(self.model)
        for dataset in _datasets(self.train_dataset, self.eval_dataset):
            self._exact_rows.score_references(
                model,
                _rows(dataset, ["prompt", "support"]),
                self.args.per_device_eval_batch_size,
                progress=self.accelerator.is_main_process and not self.args.disable_tqdm,
            )

    # ── sampled mode ────────────────────────────────────────────────────────────────────────────────────────────────

    def _calculate_rewards(
        self, inputs: list[dict[str, Any]], prompts: list, completions: list, completion_ids_list: list
    ) -> torch.Tensor:
        """Scores the jury and keeps its K rewards for the residual; TRL logs their weighted mean as the reward."""
        columns = {name: [row[name] for row in inputs] for name in inputs[0]}
        r = self.jury_reward.cluster_rewards(columns.get("jury_prompt", prompts), completions, columns.get("support"))
        w = self.jury_reward.row_weights(columns.get("weights"), len(completions))
        device = self.accelerator.device
        # float32 because not every accelerator has float64.
        r, w = self.accelerator.gather(r.float().to(device)), self.accelerator.gather(w.float().to(device))
        self._scored = r.double().cpu(), w.double().cpu(), _trl.gather_objects([prompt_key(p) for p in prompts])
        return (r * w).sum(-1, keepdim=True)

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        """Adds `residual_base` `(N,)`: d + log π − baseline of each row; TRL shuffles groups apart before the loss."""
        rows = super()._generate_and_score_completions(inputs)
        beta, training = self.target.beta, self.model.training
        n = len(rows["completion_ids"])
        with torch.no_grad():
            log_pi_ref = (rows.pop("ref_per_token_logps") * _trl.own_tokens(rows)).sum(-1)
            old = rows.pop("old_per_token_logps", None)
            if old is None:
                log_pi = _trl.sequence_log_probs(self, self.model, rows)
            else:
                log_pi = (old * _trl.own_tokens(rows)).sum(-1)
            all_ref, all_pi = self.accelerator.gather(log_pi_ref), self.accelerator.gather(log_pi)
        assert self._scored is not None
        r, w, keys = self._scored
        reward = self._pooled_reward(r, w, keys, (all_ref - all_pi).cpu(), training)
        d = residual(reward.to(all_pi), beta, all_ref, all_pi)
        grouped = d.view(-1, self.num_generations if training else self.num_generations_eval)
        if self.args.estimator == "vargrad":
            baseline = (grouped - leave_one_out(grouped)).view(-1)
        else:
            baseline = group_log_z(grouped).repeat_interleave(grouped.shape[1])
        own = slice(self.accelerator.process_index * n, (self.accelerator.process_index + 1) * n)
        rows["residual_base"] = (d + all_pi - baseline)[own]
        _trl.add_metric(self, "plural/kl", float((all_pi - all_ref).mean()))
        _trl.add_metric(self, "plural/residual_std", float(grouped.std(dim=1).mean()))
        return rows

    def _pooled_reward(
        self, r: torch.Tensor, w: torch.Tensor, keys: list[str], log_weights: torch.Tensor, training: bool
    ) -> torch.Tensor:
        """`(N,)` R of every row on all processes, and one step of the offsets; every process computes the same."""
        reward = self.jury_reward
        if reward.rule != POOL:
            return aggregate(r, w, reward.rule, **reward.rule_options)
        pooled, gamma = reward.pool(r, w, keys, log_weights)
        if training:
            reward.update_offsets(gamma, w, keys)
        for k, name in enumerate(reward.cluster_names):
            _trl.add_metric(self, f"plural/share/{name}", float(gamma[:, k].mean()))
        return pooled

    # ── exact mode ──────────────────────────────────────────────────────────────────────────────────────────────────

    def _prepare_inputs(self, generation_batch: Any) -> dict[str, Any]:
        if not self.exact:
            return super()._prepare_inputs(generation_batch)
        rows = self._exact_rows.collate(generation_batch)
        return {name: tensor.to(self.accelerator.device) for name, tensor in rows.items()}

    def _get_train_sampler(self, dataset: Dataset | None = None) -> Any:
        dataset = self.train_dataset if dataset is None else dataset
        return _trl.plain_sampler(self, dataset) if self.exact else _trl.group_sampler(self, dataset)

    def _get_eval_sampler(self, eval_dataset: Dataset) -> Any:
        return (
            torch.utils.data.SequentialSampler(eval_dataset) if self.exact else super()._get_eval_sampler(eval_dataset)
        )

    # ── both ────────────────────────────────────────────────────────────────────────────────────────────────────────

    def _compute_loss(self, model: torch.nn.Module, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        if self.exact:
            return self._exact_loss(model, inputs)
        log_pi = _trl.sequence_log_probs(self, model, inputs)
        return score_function_loss(inputs["residual_base"] - log_pi, log_pi)

    def _exact_loss(self, model: torch.nn.Module, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        batch = AnswerBatch(*(inputs[f] for f in ("prompt_ids", "prompt_mask", "answer_ids", "answer_mask")))
        mask, log_p = batch.support_mask, inputs["log_p"]
        log_pi = answer_log_probs(model, batch)
        loss = exact_divergence(log_p, log_pi, self.args.divergence, mask, p_other=self.args.other_mass).mean()
        with torch.no_grad():
            pi = log_pi.exp()
            jsd = exact_divergence(log_p, log_pi.detach(), "js", mask, p_other=self.args.other_mass)
            shares = cluster_shares(pi, inputs["gamma"]).mean(dim=0)
            _trl.add_metric(self, "plural/jsd_nats", float(jsd.mean()))
            _trl.add_metric(self, "plural/coverage", float(pi.sum(-1).mean()))
            for k, name in enumerate(self.jury_reward.cluster_names):
                _trl.add_metric(self, f"plural/share/{name}", float(shares[k]))
        return loss

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        super()._save_checkpoint(model, trial)
        if self.args.should_save:
            folder = _trl.checkpoint_folder(self, trial)
            (folder / _STATE_FILE).write_text(json.dumps({"offsets": self.jury_reward.offsets.state_dict()}))

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        super()._load_optimizer_and_scheduler(checkpoint)
        if checkpoint is not None and os.path.exists(path := os.path.join(checkpoint, _STATE_FILE)):
            with open(path) as file:
                self.jury_reward.offsets.load_state_dict(json.load(file)["offsets"])


def _jury_reward(given: Any, args: PluralGRPOConfig) -> JuryReward:
    if isinstance(given, list | tuple):
        if len(given) != 1:
            raise ValueError(
                f"reward_funcs has {len(given)} entries, but the target is defined by one jury: combine them into one "
                "JuryReward, or pass the others to trl.GRPOTrainer."
            )
        given = given[0]
    if isinstance(given, torch.nn.Module):
        raise ValueError(
            f"reward_funcs is a {type(given).__name__} itself; TRL would read only the first column of its scores. "
            "Pass JuryReward('path/of/the/saved/jury'), or JuryReward(JuryScorer(model, tokenizer)) for one in memory."
        )
    if not isinstance(given, JuryReward):
        if callable(given) and not isinstance(given, Jury):
            raise ValueError(
                f"reward_funcs is {given!r}, which gives one number a completion, but the target needs a reward per "
                "cluster: pass a saved jury, an object with cluster_names, prevalence and cluster_rewards, or a "
                "JuryReward."
            )
        return JuryReward(given, rho=args.rho, beta=args.beta, offset_learning_rate=args.offset_learning_rate)
    for name, ours, theirs in (("rho", args.rho, given.target.rho), ("beta", args.beta, given.target.beta)):
        if ours != theirs:
            raise ValueError(
                f"{name} is {ours} in args and {theirs} in the JuryReward: they describe one target, so set both to "
                "the same."
            )
    return given


def _datasets(train: Any, evaluation: Any) -> Iterator[Any]:
    for dataset in (train, *(evaluation.values() if isinstance(evaluation, dict) else [evaluation])):
        if dataset is not None:
            yield dataset


def _rows(dataset: Any, columns: list[str]) -> Iterator[dict[str, Any]]:
    missing = [c for c in columns if c not in (dataset.column_names or [])]
    if missing:
        raise ValueError(
            f"the data set has no column {missing[0]!r} (it has {', '.join(dataset.column_names or [])}), which the "
            "exact mode needs: add the list of allowed answers of each prompt, or set exact=False to sample."
        )
    yield from dataset.select_columns(columns)


def _check_reloadable(model: PreTrainedModel) -> None:
    source = model.config._name_or_path
    if not source:
        raise ValueError(
            "the policy exists in memory only, so the reference policy cannot be loaded a second time: save it and "
            "pass its path, pass a peft_config (the base model is then the reference), or use the exact mode."
        )
