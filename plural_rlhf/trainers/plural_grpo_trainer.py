"""`PluralGRPOTrainer`: a `trl.GRPOTrainer` whose fixed point is a chosen distribution instead of an argmax.

Sampled mode (L1): groups of completions, sequence-level residual d = R/β + log π₀ − log π, an estimator of the
gradient to the target, offsets and completions that are kept between visits. Exact mode (L2): the column `support`
lists all answers, every one is scored with the prompt computed once, and the divergence to the exact target is the
loss; nothing is sampled. Rows with and without a support may stand in one data set.
Where this departs from GRPO: log-ratios are sums over the sequence, end token included; the reference is in the
residual, not in a per-token penalty; completions of a prompt stay together and share its computation; there is no
clipping, no length normalisation and no scaling of rewards.
Private attributes of TRL are named in `_trl.py` only.

Shapes: `N` completions of all processes, `n` of a micro-batch, `G` a group, `B` prompts, `A` answers, `K` clusters,
`T` tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from peft import PeftModel
from trl import GRPOTrainer

from plural_rlhf.core.duals import KLBudget, MaxMinWeights
from plural_rlhf.core.estimators import exact_divergence, score_function_loss
from plural_rlhf.policies.answers import AnswerBatch, answer_log_probs
from plural_rlhf.policies.log_probs import completion_log_probs, pad_left
from plural_rlhf.policies.sampling_settings import check_model_sampling
from plural_rlhf.rewards.completions import as_completions
from plural_rlhf.rewards.jury_reward import JuryReward
from plural_rlhf.trainers import _trl
from plural_rlhf.trainers.checks import arguments
from plural_rlhf.trainers.checks.arguments import Resume
from plural_rlhf.trainers.checks.jury_argument import reward_functions
from plural_rlhf.trainers.checks.policy_checks import check_loaded, check_reloadable, check_tokenizer
from plural_rlhf.trainers.checks.steered import check_steering_tokens, evaluated_rows, weight_sampler_of
from plural_rlhf.trainers.grpo import checkpoints
from plural_rlhf.trainers.grpo.completion_rows import finished, own_tokens, policy_log_probs, reference_log_probs
from plural_rlhf.trainers.grpo.exact import ExactRows, exact_metrics, row_key, target_kl_and_gains
from plural_rlhf.trainers.grpo.mixing import exact_columns, exact_share, mixed_micro_batches
from plural_rlhf.trainers.grpo.other_rewards import OtherRewards
from plural_rlhf.trainers.grpo.reference_draws import drawn_by_both, judge, log_drawn, policys_own, reference_prompts
from plural_rlhf.trainers.grpo.replay import ReplayMemory, replayed_columns, said_tokens
from plural_rlhf.trainers.grpo.rollouts import Rollouts
from plural_rlhf.trainers.grpo.targeting import JuryColumn, RewardTable, Targeting, Targets
from plural_rlhf.trainers.grpo.token_kl import completion_logits, rao_blackwell_loss, reward_to_go_loss
from plural_rlhf.trainers.plural_grpo_config import PluralGRPOConfig
from plural_rlhf.weights.sampler import WeightSampler
from reward_models.jury.protocol import ClusterScorer


if TYPE_CHECKING:
    from datasets import Dataset
    from peft import PeftConfig
    from transformers import PreTrainedModel, PreTrainedTokenizerBase, ProcessorMixin, TrainerCallback

__all__ = ["PluralGRPOTrainer"]


class PluralGRPOTrainer(GRPOTrainer):
    """Trains a policy towards the ρ-pool of a jury.

    Parameters:
        model (`str` or [`~transformers.PreTrainedModel`] or [`~peft.PeftModel`]):
            The policy. It is also the reference π₀: as it stands at the start of training in the exact mode and with
            an adapter, else as it was saved, since TRL loads it a second time.
        reward_funcs (`str`, jury, [`JuryReward`] or a list with one of them):
            One jury: a saved one (path or hub id), an object with `cluster_names`, `prevalence` and `cluster_rewards`,
            or a `JuryReward`. Further reward functions of TRL beside it add their value (times its
            `args.reward_weights`, in logits) to every cluster's reward; a [`ValidityGate`] among them decides which
            completions are worth anything at all. Shares of the clusters hold either way.
        args ([`PluralGRPOConfig`], *optional*):
            Configuration; made with defaults if not given.
        train_dataset ([`~datasets.Dataset`]):
            Column `prompt`; optional columns `support` (all allowed answers: exact mode for the rows that have one),
            `weights` and `rule` (weights over clusters and welfare rule for this row), `jury_prompt` (the prompt as
            the jury should see it) and `reference_prompt` (the prompt under which π₀ is scored, where the policy's
            own carries steering text).
        weight_sampler ([`WeightSampler`], *optional*):
            Draws and says the weights of a steerable policy, over the jury's clusters in their order; by default made
            from `args` where `args.steerable`. Evaluation asks for the column `weights`, or else the population.

    The other parameters are those of [`~trl.GRPOTrainer`].

    Raises:
        ValueError: Anything that would make the result something else than the target; before any training.
        JuryError: Weights that the jury cannot carry out.

    Metrics, besides TRL's: in the sampled mode `plural/kl` (sequence KL to π₀, nats), `plural/entropy` (mean −log π of
    a completion), `plural/residual_std` (0 at the optimum), `plural/reward_range` and `plural/effective_answers` (of a
    group), `plural/truncated`, and `plural/valid` where there is a gate; in the exact mode `plural/jsd_nats` (to the
    exact target) and `plural/coverage`; in both `plural/share/<cluster>`, `plural/weight/<cluster>` and `plural/beta`.
    """

    _tag_names = ["trl", "plural-grpo"]  # noqa: RUF012  (TRL's own convention)
    _name = "PluralGRPO"
    # The losses here are plain means over the batch: let `Trainer` divide them for gradient accumulation.
    loss_is_scaled_for_ga = False

    def __init__(
        self,
        model: str | PreTrainedModel | PeftModel,
        reward_funcs: str | Path | ClusterScorer | JuryReward | Sequence[Any],
        args: PluralGRPOConfig | None = None,
        train_dataset: Dataset | None = None,
        eval_dataset: Dataset | dict[str, Dataset] | None = None,
        processing_class: PreTrainedTokenizerBase | ProcessorMixin | None = None,
        reward_processing_classes: Any = None,
        callbacks: list[TrainerCallback] | None = None,
        optimizers: tuple[torch.optim.Optimizer | None, torch.optim.lr_scheduler.LambdaLR | None] = (None, None),
        peft_config: PeftConfig | None = None,
        weight_sampler: WeightSampler | None = None,
        **more: Any,
    ) -> None:
        if args is None:
            name = model if isinstance(model, str) else model.config._name_or_path
            args = PluralGRPOConfig(f"{name.split('/')[-1]}-PluralGRPO")
        self.jury_reward, functions = reward_functions(reward_funcs, args)
        self.exact, self.mixed = arguments.modes(train_dataset, args)
        if self.exact:
            args.use_exact_mode()
        else:
            arguments.check_groups(args)
            check_reloadable(model, peft_config, args)
        arguments.check_datasets(train_dataset, eval_dataset, args, self.exact, self.jury_reward)
        self.weight_sampler = weight_sampler_of(weight_sampler, args, self.jury_reward, train_dataset)
        check_tokenizer(processing_class)
        self._column = JuryColumn(self.jury_reward)
        with _trl.without_reference_model(args, self.exact):
            super().__init__(
                model=model,
                reward_funcs=[self._column if f is self.jury_reward else f for f in functions],
                args=args,
                train_dataset=train_dataset,
                eval_dataset=eval_dataset,
                processing_class=processing_class,
                reward_processing_classes=reward_processing_classes,
                callbacks=callbacks,
                optimizers=optimizers,
                peft_config=peft_config,
                **more,
            )
        check_loaded(self.model, self.ref_model, _trl.tokenizer_of(self))
        check_steering_tokens(self.weight_sampler, _trl.tokenizer_of(self), self.model, self.ref_model)
        if not (self.exact or self.use_vllm):
            check_model_sampling(self.model.generation_config, self.generation_kwargs)
        arguments.check_batches(self.mixed, args, self.num_generations, self.accelerator.num_processes)
        if not self.exact:
            arguments.check_enough_prompts(train_dataset, args, self.num_generations)
        arguments.check_reference_draws(args, self.num_generations, bool(self.tools), self.rollout_func is not None)
        self.kl_budget = (
            None if args.kl_budget is None else KLBudget(args.kl_budget, args.beta, args.kl_budget_learning_rate)
        )
        self.max_min = (
            MaxMinWeights(len(self.jury_reward.cluster_names), args.max_min_learning_rate) if args.max_min else None
        )
        # TRL has loaded those that were named, and added those of environments.
        functions = [self.jury_reward if f is self._column else f for f in self.reward_funcs]
        weights, context = self.reward_weights.tolist(), partial(_trl.reward_context, self)
        self._others = OtherRewards(self.jury_reward, functions, weights, context)
        if self.exact or self.mixed or args.n_ref or args.offsets == "exact":
            self._others.check_callable()
        self.targeting = Targeting(self.jury_reward, self._others, log_z=args.estimator != "vargrad")
        self._encode = partial(_trl.encode_prompt, self)
        tokenizer, eos = _trl.tokenizer_of(self), _trl.eos_token_id(self)
        self._exact_rows = ExactRows(self.jury_reward, tokenizer, eos, self._encode, self._others)
        self._table: RewardTable | None = None
        self._reference_prompts: dict[int, list[int]] = {}
        self._rollouts: dict[bool, Rollouts] = {}
        self.memory = ReplayMemory(args.replay_size, args.replay_share, args.seed) if args.replays else None

    def train(self, resume_from_checkpoint: Resume = None, *args: Any, **kwargs: Any) -> Any:
        """Trains, as `Trainer.train`; in exact mode the reference is scored first, while the policy still is π₀."""
        checkpoints.check(self, resume_from_checkpoint)
        self._score_references()
        return super().train(resume_from_checkpoint, *args, **kwargs)

    def evaluate(self, *args: Any, **kwargs: Any) -> Any:
        """Evaluates, as `Trainer.evaluate`; the loss of the exact mode is the divergence to the exact target."""
        if self.state.global_step == 0:
            self._score_references()
        return super().evaluate(*args, **kwargs)

    def _score_references(self) -> None:
        exact_offsets = self.args.offsets == "exact" and not self.exact
        if not (self.exact or self.mixed or exact_offsets):
            return
        model = self.accelerator.unwrap_model(self.model)
        for dataset in arguments.each_dataset(self.train_dataset, self.eval_dataset):
            rows = [row for row in arguments.answered_rows(dataset, whole=True) if row["support"] is not None]
            self._exact_rows.score_references(
                model,
                rows,
                self.args.per_device_eval_batch_size,
                progress=self.accelerator.is_main_process and not self.args.disable_tqdm,
            )
            if exact_offsets:
                for row in rows:
                    self.jury_reward.offsets.set_exact(row_key(row), self._exact_rows.log_z(row))

    # ── sampled mode ────────────────────────────────────────────────────────────────────────────────────────────────

    def _calculate_rewards(
        self, inputs: list[dict[str, Any]], prompts: list, completions: list, completion_ids_list: list
    ) -> torch.Tensor:
        """Keeps the K rewards of every completion for the residual; TRL logs their weighted mean as the reward."""
        scores = super()._calculate_rewards(inputs, prompts, completions, completion_ids_list)
        self._others.check_finite(scores[self.accelerator.process_index * len(completions) :], completions)
        r, w, rules = self._column.scored()
        device = self.accelerator.device
        # float32 because not every accelerator has float64.
        r, w = self.accelerator.gather(r.float().to(device)), self.accelerator.gather(w.float().to(device))
        shown = [(row_key(row), row_key(row, "prompt")) for row in inputs]
        drawn = [
            (*keys, hash(tuple(ids)), rule) for keys, ids, rule in zip(shown, completion_ids_list, rules, strict=True)
        ]
        gathered = _trl.gather_objects(drawn)
        self._table = RewardTable(
            r=r.double().cpu(),
            w=w.double().cpu(),
            scores=scores.double().cpu(),
            keys=[row[0] for row in gathered],
            shown=[row[1] for row in gathered],
            drawn=[row[2] for row in gathered],
            rules=[row[3] for row in gathered],
        )
        return scores

    def _generate_single_turn(
        self,
        prompt_ids: list[list[int]],
        images: Any,
        multimodal_fields: dict[str, Any],
        num_generations: int,
        has_tool_images: bool = False,
    ) -> tuple[list[list[int]], list[list[float]] | None]:
        plain = _trl.has_plain_generation(self) and images is None and not multimodal_fields
        if not (plain and self.args.shared_prefix and not self.tools):
            return super()._generate_single_turn(
                prompt_ids, images, multimodal_fields, num_generations, has_tool_images
            )
        return drawn_by_both(
            prompt_ids,
            self._reference_prompts,
            by_policy=lambda prompts: _trl.generate(self, prompts),
            by_reference=lambda prompts: _trl.reference_generate(self, prompts),
        )

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        """Draws completions and works out what each one's coefficient will need; adds `row` `(n,)`, their numbers."""
        training, group = self.model.training, self._group_size
        theirs = self.args.reference_draws if training else 0
        self._reference_prompts = self._drawn_by_reference(inputs, theirs)
        with _trl.rollouts_only(self):
            rows = super()._generate_and_score_completions(inputs)
        n = len(rows["completion_ids"])
        own = own_tokens(rows)
        log_pi = policy_log_probs(self, rows)
        log_ref = reference_log_probs(self, self._reference_rows(inputs, rows))
        rows["ref_per_token_logps"] = log_ref * own
        gather = self.accelerator.gather
        all_pi, all_ref = gather((log_pi * own).sum(-1)), gather((log_ref * own).sum(-1))
        assert self._table is not None
        if self.max_min is not None:
            self._table.w = self.max_min.weights.double().expand_as(self._table.w)
        if self.args.n_ref:
            self._start_offsets(inputs)
        found = self.targeting(self._table, all_ref.cpu(), all_pi.cpu(), group, training, theirs)
        self._rollouts[training] = self._aimed(found, all_ref, all_pi, theirs / group)
        rows["row"] = torch.arange(n, device=all_pi.device) + self.accelerator.process_index * n
        by_policy = policys_own(len(all_pi), group, theirs)
        kl = float((all_pi - all_ref)[by_policy.to(all_pi.device)].mean())
        self._log_sampled(found.metrics, kl, rows, self.jury_reward.target.beta)
        if training:
            if self.memory is not None:
                said = _trl.gather_objects(said_tokens(rows))
                self.memory.add(self._table, said, all_ref, all_pi, all_pi + self._rollouts[True].residual)
            self._move_duals(kl, self.targeting.gains(self._table, by_policy))
        return rows

    def _drawn_by_reference(self, inputs: list[dict[str, Any]], draws: int) -> dict[int, list[int]]:
        """Which rows of this process the reference draws, the last of each group, and the prompts it is shown."""
        rows = (~policys_own(len(inputs), self._group_size, draws)).nonzero().flatten().tolist()
        prompts = reference_prompts([inputs[n] for n in rows], self._encode)
        return dict(zip(rows, prompts, strict=True))

    def _aimed(
        self, found: Targets, log_pi_ref: torch.Tensor, log_pi: torch.Tensor, reference_share: float = 0.0
    ) -> Rollouts:
        reward = (found.reward / self.jury_reward.target.beta).to(log_pi)
        drawn = log_drawn(log_pi, log_pi_ref, reference_share)
        return Rollouts(reward, log_pi_ref, log_pi.clone(), drawn, found.log_z.to(log_pi), self._group_size)

    def _replayed(self, parts: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """The micro-batches of a generation batch with its groups made up anew, for one more use."""
        assert self.memory is not None
        group, pad = self._group_size, _trl.tokenizer_of(self).pad_token_id
        drawn = self.memory.draw(group)
        parts = [replayed_columns(part, drawn, pad) for part in parts]
        log_pi_ref, log_pi = (x.float().to(self.accelerator.device) for x in (drawn.log_pi_ref, drawn.log_pi))
        if self.args.per_device_train_batch_size % group:
            # The others of a group that is spread over micro-batches count with what they are worth now.
            now = [(policy_log_probs(self, part) * own_tokens(part)).sum(-1) for part in parts]
            log_pi = self.accelerator.gather(torch.cat(now))
        found = self.targeting(drawn.table, log_pi_ref.cpu(), log_pi.cpu(), group, training=False)
        self._rollouts[True] = rollouts = self._aimed(found, log_pi_ref, log_pi)
        self.memory.aim(drawn, log_pi + rollouts.residual)
        return parts

    def _reference_rows(self, inputs: list[dict[str, Any]], rows: dict[str, Any]) -> dict[str, Any]:
        """The same completions under the prompts that the reference is shown."""
        if not any(row.get("reference_prompt") for row in inputs):
            return rows
        ids, mask = pad_left(reference_prompts(inputs, self._encode), _trl.tokenizer_of(self).pad_token_id)
        device = rows["completion_ids"].device
        return {**rows, "prompt_ids": ids.to(device), "prompt_mask": mask.to(device)}

    def _start_offsets(self, inputs: list[dict[str, Any]]) -> None:
        """Offsets of new prompts, from `n_ref` completions of the reference; every process gets them all."""
        tokenizer, reward = _trl.tokenizer_of(self), self.jury_reward
        fresh = {row_key(row): row for row in inputs if row_key(row) not in reward.offsets}
        found = []
        for key, row in fresh.items():
            drawn, log_probs = _trl.reference_generate(self, reference_prompts([row], self._encode) * self.args.n_ref)
            said = as_completions(row["prompt"], tokenizer.batch_decode(drawn, skip_special_tokens=True))
            scored = judge(reward, row, said), self._others.scores(row, said, drawn)
            found.append((key, *(part.tolist() for part in scored), [sum(own) for own in log_probs]))
        for key, *parts in _trl.gather_objects(found):
            self.targeting.start(key, *(torch.tensor(part, dtype=torch.float64) for part in parts))

    def _move_duals(self, kl: float, gains: torch.Tensor) -> None:
        if self.kl_budget is not None:
            self.jury_reward.set_beta(self.kl_budget.update(kl))
        if self.max_min is not None:
            self.max_min.update(gains)

    def _log_sampled(self, metrics: dict[str, float], kl: float, rows: dict[str, Any], beta: float) -> None:
        truncated = 1 - float(self.accelerator.gather(finished(rows, self.eos_token_ids).float()).mean())
        for name, value in {**metrics, "kl": kl, "beta": beta, "truncated": truncated}.items():
            _trl.add_metric(self, f"plural/{name}", value)

    # ── what a micro-batch is ───────────────────────────────────────────────────────────────────────────────────────

    def _prepare_inputs(self, generation_batch: Any) -> dict[str, Any]:
        if self.exact:
            return self._collate(self._steered(generation_batch, 1))
        if not self.model.training:
            return self._rows_of(self._steered(generation_batch, self._group_size), 1)[0]

        def make() -> list[dict[str, Any]]:
            return self._rows_of(self._steered(generation_batch, self._group_size), self.args.steps_per_generation)

        return _trl.buffered(self, make, None if self.memory is None else self._replayed)

    def _rows_of(self, batch: list[dict[str, Any]], parts: int) -> list[dict[str, Any]]:
        """Micro-batches of a generation batch: completions of rows without a support, answers of those with one."""
        if self.mixed:
            return mixed_micro_batches(batch, parts, self._group_size, partial(_trl.draw, self), self._collate)
        return _trl.split_rows(_trl.draw(self, batch), parts)

    def _collate(self, rows: list[dict[str, Any]]) -> dict[str, Any]:
        weights = None if self.max_min is None else self.max_min.weights.double()
        batch = self._exact_rows.collate(rows, weights)
        return {name: tensor.to(self.accelerator.device) for name, tensor in batch.items()}

    def _steered(self, rows: list[dict[str, Any]], group: int) -> list[dict[str, Any]]:
        """Rows with weights said in the prompt, in training drawn for each group; of other policies as they are."""
        sampler, accelerator = self.weight_sampler, self.accelerator
        if sampler is None:
            return rows
        if not self.model.training:
            return evaluated_rows(rows, sampler, self.jury_reward)
        return sampler.steer(rows, group, accelerator.process_index, accelerator.num_processes, _trl.micro_step(self))

    def _get_train_sampler(self, dataset: Dataset | None = None) -> Any:
        dataset = self.train_dataset if dataset is None else dataset
        return _trl.plain_sampler(self, dataset) if self.exact else _trl.group_sampler(self, dataset)

    def _get_eval_sampler(self, eval_dataset: Dataset) -> Any:
        return (
            torch.utils.data.SequentialSampler(eval_dataset) if self.exact else super()._get_eval_sampler(eval_dataset)
        )

    # ── losses ──────────────────────────────────────────────────────────────────────────────────────────────────────

    def _compute_loss(self, model: torch.nn.Module, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        if self.exact:
            return self._exact_loss(model, inputs).mean()
        answers = exact_columns(inputs)
        if not answers:
            return self._sampled_loss(model, inputs)
        losses = self._exact_loss(model, answers)
        if "row" not in inputs:
            return losses.mean()
        share = exact_share(len(losses), len(inputs["row"]), self._group_size)
        return share * losses.mean() + (1 - share) * self._sampled_loss(model, inputs)

    def _sampled_loss(self, model: torch.nn.Module, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        rollouts = self._rollouts[self.model.training]
        if self.args.variance_reduction == "rao_blackwell":
            with _trl.reference(self) as reference, torch.no_grad():
                reference_logits = completion_logits(reference, inputs)
            return rao_blackwell_loss(model, reference_logits, inputs, rollouts, self.accelerator.gather)
        score = partial(completion_log_probs, share=self.args.shared_prefix)
        log_probs = _trl.as_one_forward(self, model, score, inputs) * own_tokens(inputs)
        log_pi = log_probs.sum(-1)
        gather = self.accelerator.gather
        rollouts.see(gather(inputs["row"]), gather(log_pi.detach()))
        coefficients = rollouts.coefficients(self.args.estimator)[inputs["row"]]
        if self.args.variance_reduction == "reward_to_go":
            return reward_to_go_loss(coefficients, log_probs, inputs["ref_per_token_logps"])
        return score_function_loss(coefficients, log_pi)

    def _exact_loss(self, model: torch.nn.Module, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        """`(B,)` divergences of the exact rows."""
        batch = AnswerBatch(*(inputs[f] for f in ("prompt_ids", "prompt_mask", "answer_ids", "answer_mask")))
        mask, log_p = batch.support_mask, inputs["log_p"]
        log_pi = _trl.as_one_forward(self, model, answer_log_probs, batch)
        loss = exact_divergence(log_p, log_pi, self.args.divergence, mask, p_other=self.args.other_mass)
        found = exact_metrics(inputs, log_pi, self.jury_reward.cluster_names, self.args.other_mass)
        values = self.accelerator.reduce(log_pi.new_tensor(list(found.values())), "mean")
        for name, value in zip(found, values.tolist(), strict=True):
            _trl.add_metric(self, f"plural/{name}", value)
        _trl.add_metric(self, "plural/beta", self.jury_reward.target.beta)
        if self.model.training and (self.kl_budget is not None or self.max_min is not None):
            # Of the target, not of the policy that is still on its way there: it is known.
            both = self.accelerator.reduce(target_kl_and_gains(inputs), "mean").double().cpu()
            self._move_duals(float(both[0]), both[1:])
        return loss

    @property
    def _group_size(self) -> int:
        return self.num_generations if self.model.training else self.num_generations_eval

    @property
    def rollouts_in_use(self) -> Rollouts | None:
        """What is known of the training completions that are in use; `None` before the first are drawn."""
        return self._rollouts.get(True)

    @rollouts_in_use.setter
    def rollouts_in_use(self, rollouts: Rollouts) -> None:
        self._rollouts[True] = rollouts

    # ── stopping and going on ───────────────────────────────────────────────────────────────────────────────────────

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        with _trl.rotation_last():
            super()._save_checkpoint(model, trial)
            checkpoints.save(self, _trl.checkpoint_folder(self, trial))

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        super()._load_optimizer_and_scheduler(checkpoint)
        if checkpoint is not None:
            checkpoints.load(self, Path(checkpoint))
