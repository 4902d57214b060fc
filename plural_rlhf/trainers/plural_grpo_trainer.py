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
from trl import GRPOTrainer

from plural_rlhf.core.estimators import exact_divergence, score_function_loss
from plural_rlhf.policies.answers import AnswerBatch, answer_log_probs
from plural_rlhf.policies.log_probs import completion_log_probs
from plural_rlhf.rewards.completions import as_completions
from plural_rlhf.rewards.jury_reward import JuryReward
from plural_rlhf.trainers import _trl
from plural_rlhf.trainers.checkpointed_trainer import CheckpointedTrainer, default_output_dir
from plural_rlhf.trainers.checks.construction import check_after_loading, check_before_loading
from plural_rlhf.trainers.checks.datasets import answered_rows, each_dataset, modes
from plural_rlhf.trainers.checks.reward_argument import find_jury
from plural_rlhf.trainers.checks.weight_sampler import weight_sampler_of
from plural_rlhf.trainers.grpo import checkpoints
from plural_rlhf.trainers.grpo.completion_rows import finished, own_tokens, policy_log_probs, reference_log_probs
from plural_rlhf.trainers.grpo.exact import ExactRows, exact_metrics, row_key, target_kl_and_gains
from plural_rlhf.trainers.grpo.generation_batch import GenerationBatch, JuryScores, RewardTable
from plural_rlhf.trainers.grpo.mixing import exact_columns, exact_share, mixed_micro_batches
from plural_rlhf.trainers.grpo.multipliers import Multipliers
from plural_rlhf.trainers.grpo.prompt_state import PromptState
from plural_rlhf.trainers.grpo.prompt_weights import rows_for_evaluation
from plural_rlhf.trainers.grpo.reference_draws import (
    drawn_by_both,
    judge,
    reference_prompts,
    under_reference_prompts,
)
from plural_rlhf.trainers.grpo.replay import ReplayMemory, replayed_columns, signed_tokens
from plural_rlhf.trainers.grpo.reward_functions import JuryColumn, OtherRewards
from plural_rlhf.trainers.grpo.targeting import Targeting
from plural_rlhf.trainers.grpo.token_kl import completion_logits, rao_blackwell_loss, reward_to_go_loss
from plural_rlhf.trainers.plural_grpo_config import PluralGRPOConfig
from plural_rlhf.weights.sampler import WeightSampler
from reward_models.jury.protocol import ClusterScorer


if TYPE_CHECKING:
    from datasets import Dataset
    from peft import PeftConfig, PeftModel
    from transformers import PreTrainedModel, PreTrainedTokenizerBase, ProcessorMixin, TrainerCallback

__all__ = ["PluralGRPOTrainer"]


class PluralGRPOTrainer(CheckpointedTrainer, GRPOTrainer):
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
        args = PluralGRPOConfig(default_output_dir(model, "PluralGRPO")) if args is None else args
        self.jury_reward, functions = find_jury(reward_funcs, args)
        self.exact, self.mixed = modes(train_dataset, args)
        if self.exact:
            args.use_exact_mode()
        self.weight_sampler = weight_sampler_of(weight_sampler, args, self.jury_reward, train_dataset)
        check_before_loading(
            args,
            self.jury_reward,
            model=model,
            train_dataset=train_dataset,
            eval_dataset=eval_dataset,
            processing_class=processing_class,
            peft_config=peft_config,
            mixed=self.mixed,
        )
        column = JuryColumn(self.jury_reward, self._keep_jury_scores)
        with _trl.without_reference_model(args, self.exact):
            super().__init__(
                model=model,
                reward_funcs=[column if function is self.jury_reward else function for function in functions],
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
        tokenizer = _trl.tokenizer_of(self)
        by_transformers = not (self.exact or self.use_vllm)
        check_after_loading(
            args,
            model=self.model,
            reference=self.ref_model,
            tokenizer=tokenizer,
            sampler=self.weight_sampler,
            generation_kwargs=self.generation_kwargs if by_transformers else None,
            tools=bool(self.tools),
            rollout_func=self.rollout_func is not None,
        )
        self.multipliers = Multipliers.from_config(args, self.jury_reward)
        # TRL has loaded reward functions that were named, and added those of environments.
        weights, context = self.reward_weights.tolist(), partial(_trl.reward_context, self)
        self._others = OtherRewards(self.jury_reward, self.reward_funcs, weights, context)
        if self.exact or self.mixed or args.n_ref or args.offsets == "exact":
            self._others.check_callable()
        replay = ReplayMemory(args.replay_size, args.replay_share, args.seed) if args.replays else None
        self.prompts = PromptState(self.jury_reward.offsets, replay)
        keeps_log_z = args.estimator != "vargrad"
        self.targeting = Targeting(self.jury_reward, self._others, self.prompts, keeps_log_z)
        self._encode = partial(_trl.encode_prompt, self)
        end = _trl.eos_token_id(self)
        self._exact_rows = ExactRows(self.jury_reward, tokenizer, end, self._encode, self._others)
        self.generations: dict[str, GenerationBatch] = {}
        """The latest generation of each mode, `"train"` and `"eval"`."""

    @property
    def _mode(self) -> str:
        return "train" if self.model.training else "eval"

    @property
    def _group_size(self) -> int:
        return self.num_generations if self.model.training else self.num_generations_eval

    def evaluate(self, *args: Any, **kwargs: Any) -> Any:
        """Evaluate, as `Trainer.evaluate`; the loss of the exact mode is the divergence to the exact target."""
        if self.state.global_step == 0:
            self._before_training()
        return super().evaluate(*args, **kwargs)

    def _before_training(self) -> None:
        """Score the answers of all supports under the reference, while the policy still is π₀."""
        exact_offsets = self.args.offsets == "exact" and not self.exact
        if not (self.exact or self.mixed or exact_offsets):
            return
        model = self.accelerator.unwrap_model(self.model)
        for dataset in each_dataset(self.train_dataset, self.eval_dataset):
            rows = [row for row in answered_rows(dataset, whole=True) if row["support"] is not None]
            self._exact_rows.score_references(
                model,
                rows,
                self.args.per_device_eval_batch_size,
                progress=self.accelerator.is_main_process and not self.args.disable_tqdm,
            )
            if exact_offsets:
                for row in rows:
                    self.prompts.offsets.set_exact(row_key(row), self._exact_rows.log_z(row))

    # ── sampled mode: one generation ────────────────────────────────────────────────────────────────────────────────

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        """Draw and score completions; leave a `GenerationBatch`, and add `row` `(n,)`, their numbers, to TRL's."""
        training, beta = self.model.training, self.jury_reward.target.beta
        reference_draws = self.args.reference_draws if training else 0
        batch = GenerationBatch.begin(inputs, self._group_size, reference_draws, self._encode)
        self.generations[self._mode] = batch
        with _trl.rollouts_only(self):
            rows = super()._generate_and_score_completions(inputs)
        n = len(rows["completion_ids"])
        own = own_tokens(rows)
        log_pi = policy_log_probs(self, rows)
        pad = _trl.tokenizer_of(self).pad_token_id
        log_ref = reference_log_probs(self, under_reference_prompts(inputs, rows, self._encode, pad))
        rows["ref_per_token_logps"] = log_ref * own
        gather = self.accelerator.gather
        all_pi, all_ref = gather((log_pi * own).sum(-1)), gather((log_ref * own).sum(-1))
        if self.multipliers.weights is not None:
            batch.table.w = self.multipliers.weights.expand_as(batch.table.w)
        if self.args.n_ref:
            self._start_offsets(inputs)
        targets = self.targeting(
            batch.table, all_ref.cpu(), all_pi.cpu(), batch.group_size, training, batch.reference_draws
        )
        batch.rollouts = targets.rollouts(
            all_ref, all_pi, beta=beta, group_size=batch.group_size, reference_share=batch.reference_share
        )
        rows["row"] = torch.arange(n, device=all_pi.device) + self.accelerator.process_index * n
        by_policy = batch.by_policy(len(all_pi))
        kl = float((all_pi - all_ref)[by_policy.to(all_pi.device)].mean())
        self._log_sampled(targets.metrics, kl, rows, beta)
        if training:
            if self.prompts.replay is not None:
                tokens = _trl.gather_objects(signed_tokens(rows))
                self.prompts.replay.add(batch.table, tokens, all_ref, all_pi, all_pi + batch.rollouts.residual)
            self.multipliers.move(kl, self.targeting.gains(batch.table, by_policy))
        return rows

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
            self.generations[self._mode].reference_prompts,
            by_policy=lambda prompts: _trl.generate(self, prompts),
            by_reference=lambda prompts: _trl.reference_generate(self, prompts),
        )

    def _keep_jury_scores(self, scores: JuryScores) -> None:
        self.generations[self._mode].jury_scores = scores

    def _calculate_rewards(
        self, inputs: list[dict[str, Any]], prompts: list, completions: list, completion_ids_list: list
    ) -> torch.Tensor:
        """Score the completions; keep all rewards of all processes in the batch, and return what TRL logs."""
        scores = super()._calculate_rewards(inputs, prompts, completions, completion_ids_list)
        self._others.check_finite(scores[self.accelerator.process_index * len(completions) :], completions)
        batch, device = self.generations[self._mode], self.accelerator.device
        # float32 because not every accelerator has float64.
        r, w = (
            self.accelerator.gather(x.float().to(device)).double().cpu()
            for x in (batch.jury_scores.r, batch.jury_scores.w)
        )
        rows = [
            (row_key(row), row_key(row, "prompt"), hash(tuple(ids)), rule)
            for row, ids, rule in zip(inputs, completion_ids_list, batch.jury_scores.rules, strict=True)
        ]
        keys, shown, drawn, rules = (list(column) for column in zip(*_trl.gather_objects(rows), strict=True))
        batch.table = RewardTable(r, w, scores.double().cpu(), keys, shown, drawn, rules)
        return scores

    def _replayed(self, parts: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Return the micro-batches of a generation batch with its groups made up anew, for one more use."""
        replay = self.prompts.replay
        assert replay is not None
        group, pad = self._group_size, _trl.tokenizer_of(self).pad_token_id
        replayed = replay.draw(group)
        parts = [replayed_columns(part, replayed, pad) for part in parts]
        log_pi_ref, log_pi = (x.float().to(self.accelerator.device) for x in (replayed.log_pi_ref, replayed.log_pi))
        if self.args.per_device_train_batch_size % group:
            # The others of a group that is spread over micro-batches count with what they are worth now.
            now = [(policy_log_probs(self, part) * own_tokens(part)).sum(-1) for part in parts]
            log_pi = self.accelerator.gather(torch.cat(now))
        targets = self.targeting(replayed.table, log_pi_ref.cpu(), log_pi.cpu(), group, training=False)
        beta = self.jury_reward.target.beta
        rollouts = targets.rollouts(log_pi_ref, log_pi, beta=beta, group_size=group)
        self.generations["train"].rollouts = rollouts
        replay.aim(replayed, log_pi + rollouts.residual)
        return parts

    def _start_offsets(self, inputs: list[dict[str, Any]]) -> None:
        """Start the offsets of new prompts from `n_ref` completions of the reference; every process gets them all."""
        tokenizer, reward = _trl.tokenizer_of(self), self.jury_reward
        fresh = {row_key(row): row for row in inputs if row_key(row) not in self.prompts.offsets}
        starts = []
        for key, row in fresh.items():
            drawn, log_probs = _trl.reference_generate(self, reference_prompts([row], self._encode) * self.args.n_ref)
            completions = as_completions(row["prompt"], tokenizer.batch_decode(drawn, skip_special_tokens=True))
            scored = judge(reward, row, completions), self._others.scores(row, completions, drawn)
            starts.append((key, *(part.tolist() for part in scored), [sum(tokens) for tokens in log_probs]))
        for key, *parts in _trl.gather_objects(starts):
            self.targeting.start(key, *(torch.tensor(part, dtype=torch.float64) for part in parts))

    def _log_sampled(self, metrics: dict[str, float], kl: float, rows: dict[str, Any], beta: float) -> None:
        ended = self.accelerator.gather(finished(rows, self.eos_token_ids).float())
        truncated = 1 - float(ended.mean())
        for name, value in {**metrics, "kl": kl, "beta": beta, "truncated": truncated}.items():
            _trl.add_metric(self, f"plural/{name}", value)

    # ── what a micro-batch is ───────────────────────────────────────────────────────────────────────────────────────

    def _prepare_inputs(self, generation_batch: Any) -> dict[str, Any]:
        if self.exact:
            return self._collate(self._with_weights(generation_batch, 1))
        if not self.model.training:
            return self._rows_of(self._with_weights(generation_batch, self._group_size), 1)[0]

        def make() -> list[dict[str, Any]]:
            rows = self._with_weights(generation_batch, self._group_size)
            return self._rows_of(rows, self.args.steps_per_generation)

        return _trl.buffered(self, make, None if self.prompts.replay is None else self._replayed)

    def _rows_of(self, batch: list[dict[str, Any]], parts: int) -> list[dict[str, Any]]:
        """Micro-batches of a generation batch: completions of rows without a support, answers of those with one."""
        if self.mixed:
            return mixed_micro_batches(batch, parts, self._group_size, partial(_trl.draw, self), self._collate)
        return _trl.split_rows(_trl.draw(self, batch), parts)

    def _collate(self, rows: list[dict[str, Any]]) -> dict[str, Any]:
        batch = self._exact_rows.collate(rows, self.multipliers.weights)
        return {name: tensor.to(self.accelerator.device) for name, tensor in batch.items()}

    def _with_weights(self, rows: list[dict[str, Any]], group: int) -> list[dict[str, Any]]:
        """Return rows whose prompts name weights, in training drawn for each group; of other policies as they are."""
        sampler, accelerator = self.weight_sampler, self.accelerator
        if sampler is None:
            return rows
        if not self.model.training:
            return rows_for_evaluation(rows, sampler, self.jury_reward)
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
        rollouts = self.generations[self._mode].rollouts
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
        metrics = exact_metrics(inputs, log_pi, self.jury_reward.cluster_names, self.args.other_mass)
        values = self.accelerator.reduce(log_pi.new_tensor(list(metrics.values())), "mean")
        for name, value in zip(metrics, values.tolist(), strict=True):
            _trl.add_metric(self, f"plural/{name}", value)
        _trl.add_metric(self, "plural/beta", self.jury_reward.target.beta)
        if self.model.training and self.multipliers.active:
            # Of the target, which is known, and not of the policy, which is still on its way there.
            both = self.accelerator.reduce(target_kl_and_gains(inputs), "mean").double().cpu()
            self.multipliers.move(float(both[0]), both[1:])
        return loss

    # ── checkpoints ─────────────────────────────────────────────────────────────────────────────────────────────────

    def _check_state(self, folder: Path) -> None:
        checkpoints.check_scorer(folder, self.jury_reward.scorer)

    def _save_state(self, folder: Path) -> None:
        if not self.exact:
            batch = self.generations.get("train")
            rollouts = None if batch is None else batch.rollouts
            checkpoints.save_generation(folder, self.accelerator.process_index, _trl.snapshot(self), rollouts)
        self.accelerator.wait_for_everyone()
        if self.args.should_save:
            scorer, micro_step = self.jury_reward.scorer, _trl.micro_step(self)
            checkpoints.save_state(folder, scorer, self.prompts, self.multipliers, micro_step)

    def _load_state(self, folder: Path) -> None:
        micro_step = checkpoints.load_state(folder, self.prompts, self.multipliers)
        generation = checkpoints.load_generation(folder, self.accelerator.process_index, self.accelerator.device)
        if generation is not None:
            buffer, rollouts = generation
            _trl.restore(self, buffer)
            if rollouts is not None:
                self.generations["train"] = batch = GenerationBatch(rollouts.group_size)
                batch.rollouts = rollouts
        elif micro_step is not None:
            _trl.restore(self, {"step": micro_step, "rows": None})
