"""`PluralGRPOTrainer`: a `trl.GRPOTrainer` whose fixed point is a chosen distribution instead of an argmax.

Sampled mode (L1, `grpo/sampled_mode.py`): groups of completions, sequence-level residual d = R/β + log π₀ − log π, an
estimator of the gradient to the target, offsets and completions that are kept between visits. Exact mode (L2,
`grpo/exact.py`): the column `support` lists all answers, each is scored with the prompt computed once, and the
divergence to the exact target is the loss; nothing is sampled. One data set may have rows with and rows without a
support. This file says which step is due in which hook of TRL.

Differences from GRPO:

1. Log-ratios are sums over the sequence, end token included.
2. The reference is in the residual, not in a per-token penalty.
3. Completions of a prompt stay together and share its computation.
4. There is no clipping, no length normalisation and no scaling of rewards.

Private attributes of TRL are named in `_trl.py` only.

Shapes: `N` completions of all processes, `n` of a micro-batch, `G` a group, `B` prompts, `A` answers, `K` clusters,
`T` tokens.
"""

from __future__ import annotations

from collections.abc import Sequence, Sized
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from trl import GRPOTrainer

from plural_rlhf.core.estimators import exact_divergence
from plural_rlhf.policies.answers import AnswerBatch, answer_log_probs, encode_answers
from plural_rlhf.rewards.jury_reward import JuryReward
from plural_rlhf.trainers import _trl
from plural_rlhf.trainers.checkpointed_trainer import CheckpointedTrainer, default_output_dir
from plural_rlhf.trainers.checks.construction import check_after_loading, check_before_loading
from plural_rlhf.trainers.checks.datasets import answered_rows, each_dataset, modes
from plural_rlhf.trainers.checks.given_completions import is_given
from plural_rlhf.trainers.checks.reward_argument import find_jury
from plural_rlhf.trainers.checks.weight_sampler import weight_sampler_of
from plural_rlhf.trainers.grpo import checkpoints
from plural_rlhf.trainers.grpo.drawers import GivenCompletions
from plural_rlhf.trainers.grpo.exact import ExactRows, exact_metrics, row_key, target_kl_and_gains
from plural_rlhf.trainers.grpo.mixing import exact_columns, exact_share, mixed_micro_batches
from plural_rlhf.trainers.grpo.multipliers import Multipliers
from plural_rlhf.trainers.grpo.prompt_state import PromptState
from plural_rlhf.trainers.grpo.prompt_weights import rows_for_evaluation
from plural_rlhf.trainers.grpo.replay import ReplayMemory
from plural_rlhf.trainers.grpo.reward_functions import JuryColumn, OtherRewards
from plural_rlhf.trainers.grpo.sampled_mode import SampledMode
from plural_rlhf.trainers.plural_grpo_config import PluralGRPOConfig
from plural_rlhf.trainers.rehearsal import Rehearsal
from plural_rlhf.weights.sampler import WeightSampler
from reward_models.jury.protocol import ClusterScorer


if TYPE_CHECKING:
    from datasets import Dataset
    from peft import PeftConfig, PeftModel
    from transformers import PreTrainedModel, PreTrainedTokenizerBase, ProcessorMixin, TrainerCallback

__all__ = ["PluralGRPOTrainer"]


class PluralGRPOTrainer(CheckpointedTrainer, GRPOTrainer):
    """Trains a policy towards the ρ-pool of rater clusters.

    Parameters:
        model (`str` or [`~transformers.PreTrainedModel`] or [`~peft.PeftModel`]):
            The policy. It is also the reference π₀: as it is at the start of training in the exact mode and with an
            adapter, else as it was saved, because TRL loads it a second time.
        reward_funcs (`str`, scorer, [`JuryReward`] or a list with one of them):
            One jury: a saved jury reward model (path or hub id), an object with `cluster_names`, `prevalence` and
            `cluster_rewards`, or a `JuryReward`. Other reward functions of TRL beside it add their value (times its
            `args.reward_weights`, in logits) to every cluster's reward; a [`ValidityGate`] among them puts what it
            rejects below all valid completions. The clusters keep their shares in both cases.
        args ([`PluralGRPOConfig`], *optional*):
            Configuration; the defaults if not given.
        train_dataset ([`~datasets.Dataset`]):
            Column `prompt`; optional columns `support` (all allowed answers: exact mode for the rows that have one),
            `weights` and `rule` (weights over clusters and welfare rule of the row), `jury_prompt` (the prompt that
            the scorer sees), `reference_prompt` (the prompt under which π₀ is scored, if the policy's own has
            steering text) and `given_completions` (texts by others that the policy learns from beside its own,
            `args.given_share`).
        weight_sampler ([`WeightSampler`], *optional*):
            Draws the weights of a steerable policy over the jury's clusters, in their order, and names them in
            prompts; made from `args` by default if `args.steerable`. Evaluation uses the column `weights`, or else
            the population's.
        rehearsal ([`Rehearsal`], *optional*):
            Keeps what the policy says on texts that the training is not about, by a further term of the loss.

    The other parameters are those of [`~trl.GRPOTrainer`].

    Metrics, besides TRL's: in the sampled mode `plural/kl` (sequence KL to π₀, nats), `plural/entropy` (mean −log π
    per completion), `plural/residual_std` (0 at the optimum), `plural/effective_answers` and `plural/effective_texts`
    (per group), `plural/truncated`, `plural/given` with given completions, and `plural/valid` with a gate; in the
    exact mode `plural/jsd_nats` (to the exact target) and `plural/coverage`; in both `plural/reward_range`,
    `plural/share/<cluster>`, `plural/weight/<cluster>` and `plural/beta`; with a rehearsal `plural/rehearsal_kl` (to
    the policy before training on other texts, nats per token). With `log_completions` a column
    `jury/<cluster>` has each completion's reward, and `drawn_by` says who drew it where others than the policy do.

    Raises:
        ValueError: Something would make the result another distribution than the target; before any training.
        JuryError: The jury cannot use weights or a rule.

    Example:
        >>> import tempfile
        >>> import numpy as np
        >>> from datasets import Dataset
        >>> from reward_models.jury.tiny import tiny_causal_lm, tiny_tokenizer
        >>> class Opposed:  # two clusters that want opposite answers
        ...     cluster_names, prevalence = ["many", "few"], np.array([0.75, 0.25])
        ...     def cluster_rewards(self, prompts, completions):
        ...         return torch.tensor([[9.0, 0.0] if c == "1" else [0.0, 9.0] for c in completions])
        >>> data = Dataset.from_list([{"prompt": "1 or 2? ", "support": ["1", "2"]}])
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     options = {"report_to": "none", "logging_strategy": "no", "save_strategy": "no"}
        ...     options |= {"use_cpu": True, "bf16": False, "learning_rate": 3e-2, "per_device_train_batch_size": 1}
        ...     args = PluralGRPOConfig(folder, exact=True, max_steps=30, **options)
        ...     tokenizer = tiny_tokenizer()
        ...     trainer = PluralGRPOTrainer(tiny_causal_lm(), Opposed(), args, data, processing_class=tokenizer)
        ...     steps = trainer.train().global_step
        {'train_runtime': ...}
        >>> from plural_rlhf.policies.answers import answer_probabilities
        >>> answer_probabilities(trainer.model, tokenizer, data["prompt"], data["support"])[0].round(2)
        array([0.75, 0.25])
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
        rehearsal: Rehearsal | None = None,
        **more: Any,
    ) -> None:
        if not isinstance(rehearsal, Rehearsal | None):
            raise ValueError(f"rehearsal is {rehearsal!r}: give plural_rlhf.Rehearsal(...), or None for none.")
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
        if not isinstance(model, str):
            _trl.use_own_forward(model)
        column = JuryColumn(
            self.jury_reward,
            keep=lambda scores: self.sampled_mode.keep_jury_scores(scores),
            drawn_by=lambda n: self.sampled_mode.drawn_by(n),
        )
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
            given=is_given(train_dataset, args),
        )
        self.rehearsal = rehearsal
        self.multipliers = Multipliers.from_config(args, self.jury_reward)
        # TRL has loaded reward functions that were named, and added those of environments.
        weights, context = self.reward_weights.tolist(), partial(_trl.reward_context, self)
        others = OtherRewards(self.jury_reward, self.reward_funcs, weights, context)
        if self.exact or self.mixed or args.n_ref or args.offsets == "exact":
            others.check_callable()
        replay = ReplayMemory(args.replay_size, args.replay_share, args.seed) if args.replays else None
        self.prompts = PromptState(self.jury_reward.offsets, replay)
        encode = partial(_trl.encode_prompt, self)
        self.exact_rows = ExactRows(self.jury_reward, tokenizer, _trl.eos_token_id(self), encode, others)
        given = None
        if is_given(train_dataset, args):
            texts = partial(encode_answers, tokenizer=tokenizer, eos_token_id=_trl.eos_token_id(self))
            given = GivenCompletions(args.given_draws, texts, self.max_completion_length, args.seed)
        self.sampled_mode = SampledMode(self, self.jury_reward, others, self.prompts, self.multipliers, encode, given)

    def evaluate(self, *args: Any, **kwargs: Any) -> Any:
        """Evaluate, as `Trainer.evaluate`; the loss of the exact mode is the divergence to the exact target."""
        if self.state.global_step == 0:
            self._score_references()
        return super().evaluate(*args, **kwargs)

    def evaluation_loop(self, dataloader: Any, *args: Any, **kwargs: Any) -> Any:
        """Evaluate, as `Trainer.evaluation_loop`; every row of the data counts once.

        The training goes on as if it had not been evaluated: offsets, memories and multipliers do not move, and what
        the evaluation draws is drawn from a copy of the random state.
        """
        dataset = dataloader.dataset
        self.sampled_mode.begin_evaluation(len(dataset) if isinstance(dataset, Sized) else None)
        with self.prompts.apart():
            output = super().evaluation_loop(dataloader, *args, **kwargs)
        loss = self.sampled_mode.evaluated_loss()
        if loss is not None:
            # TRL counts the losses of a last batch by its rows before they are repeated for their groups.
            name = next(name for name in output.metrics if name.endswith("_loss"))
            output.metrics[name] = loss
        return output

    def prediction_step(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        """Evaluate a batch, as `Trainer.prediction_step`."""
        loss, *rest = super().prediction_step(model, inputs, *args, **kwargs)
        if not self.exact:
            self.sampled_mode.see_loss(loss, len(inputs))
        return loss, *rest

    def _before_training(self) -> None:
        if self.rehearsal is not None:
            model = self.accelerator.unwrap_model(self.model)
            self.rehearsal.begin(model, _trl.tokenizer_of(self), partial(_trl.encode_prompt, self))
        self._score_references()

    def _score_references(self) -> None:
        """Score the answers of all supports under the reference, while the policy is still π₀."""
        exact_offsets = self.args.offsets == "exact" and not self.exact
        if not (self.exact or self.mixed or exact_offsets):
            return
        model = self.accelerator.unwrap_model(self.model)
        for dataset in each_dataset(self.train_dataset, self.eval_dataset):
            rows = [row for row in answered_rows(dataset, whole=True) if row["support"] is not None]
            self.exact_rows.score_references(
                model,
                rows,
                self.args.per_device_eval_batch_size,
                progress=self.accelerator.is_main_process and not self.args.disable_tqdm,
            )
            if exact_offsets:
                for row in rows:
                    self.prompts.offsets.set_exact(row_key(row), self.exact_rows.log_z(row))

    # ── one generation of TRL ───────────────────────────────────────────────────────────────────────────────────────

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        """Draw and score completions; the two hooks below are called in between."""
        self.sampled_mode.begin(inputs)
        drawn = len(inputs) * self.accelerator.num_processes
        with _trl.rollouts_only(self), _trl.pooled_metrics(self, drawn):
            columns = super()._generate_and_score_completions(inputs)
        return self.sampled_mode.aim(inputs, columns)

    def _generate_single_turn(
        self,
        prompt_ids: list[list[int]],
        images: Any,
        multimodal_fields: dict[str, Any],
        num_generations: int,
        has_tool_images: bool = False,
    ) -> tuple[list[list[int]], list[list[float]] | None]:
        plain = _trl.has_plain_generation(self) and images is None and not multimodal_fields
        if plain and self.args.shared_prefix and not self.tools:
            return self.sampled_mode.draw(prompt_ids)
        return super()._generate_single_turn(prompt_ids, images, multimodal_fields, num_generations, has_tool_images)

    def _calculate_rewards(
        self, inputs: list[dict[str, Any]], prompts: list, completions: list, completion_ids_list: list
    ) -> torch.Tensor:
        scores = super()._calculate_rewards(inputs, prompts, completions, completion_ids_list)
        self.sampled_mode.keep_rewards(inputs, completions, completion_ids_list, scores)
        return scores

    # ── what a micro-batch is ───────────────────────────────────────────────────────────────────────────────────────

    def _prepare_inputs(self, generation_batch: Any) -> dict[str, Any]:
        if self.exact:
            return self._collate(self._with_weights(generation_batch, 1))
        if not self.model.training:
            return self._rows_of(self._with_weights(generation_batch, self.sampled_mode.group_size), 1)[0]

        def make() -> list[dict[str, Any]]:
            rows = self._with_weights(generation_batch, self.sampled_mode.group_size)
            return self._rows_of(rows, self.args.steps_per_generation)

        return _trl.buffered(self, make, None if self.prompts.replay is None else self.sampled_mode.replay)

    def _rows_of(self, batch: list[dict[str, Any]], parts: int) -> list[dict[str, Any]]:
        """Return micro-batches: completions of the rows without a support, answers of those with one."""
        if self.mixed:
            return mixed_micro_batches(
                batch, parts, self.sampled_mode.group_size, partial(_trl.draw, self), self._collate
            )
        return _trl.split_rows(_trl.draw(self, batch), parts)

    def _collate(self, rows: list[dict[str, Any]]) -> dict[str, Any]:
        batch = self.exact_rows.collate(rows, self.multipliers.weights)
        return {name: tensor.to(self.accelerator.device) for name, tensor in batch.items()}

    def _with_weights(self, rows: list[dict[str, Any]], group: int) -> list[dict[str, Any]]:
        """Return rows whose prompts name weights, in training drawn for each group; of other policies as they are."""
        sampler, accelerator = self.weight_sampler, self.accelerator
        if sampler is None:
            return rows
        if not self.model.training:
            return rows_for_evaluation(rows, sampler, self.jury_reward)
        return sampler.steered_rows(
            rows, group, accelerator.process_index, accelerator.num_processes, _trl.micro_step(self)
        )

    def _get_train_sampler(self, dataset: Dataset | None = None) -> Any:
        dataset = self.train_dataset if dataset is None else dataset
        return _trl.plain_sampler(self, dataset) if self.exact else _trl.group_sampler(self, dataset)

    def _get_eval_sampler(self, eval_dataset: Dataset) -> Any:
        return (
            torch.utils.data.SequentialSampler(eval_dataset) if self.exact else super()._get_eval_sampler(eval_dataset)
        )

    # ── losses ──────────────────────────────────────────────────────────────────────────────────────────────────────

    def _compute_loss(self, model: torch.nn.Module, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        loss = self._target_loss(model, inputs)
        if self.rehearsal is None or not self.model.training:
            return loss
        chosen = self.rehearsal.next_texts(
            _trl.micro_step(self), self.accelerator.process_index, self.accelerator.num_processes
        )
        kl = _trl.as_one_forward(self, model, self.rehearsal.divergence, chosen)
        of_all = self.accelerator.reduce(kl.detach(), "mean")  # each process has texts of its own
        _trl.add_metric(self, "plural/rehearsal_kl", float(of_all))
        return loss + self.rehearsal.weight * kl

    def _target_loss(self, model: torch.nn.Module, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        if self.exact:
            return self._exact_loss(model, inputs).mean()
        answers = exact_columns(inputs)
        if not answers:
            return self.sampled_mode.loss(model, inputs)
        losses = self._exact_loss(model, answers)
        if "row" not in inputs:
            return losses.mean()
        share = exact_share(len(losses), len(inputs["row"]), self.sampled_mode.group_size)
        return share * losses.mean() + (1 - share) * self.sampled_mode.loss(model, inputs)

    def _exact_loss(self, model: torch.nn.Module, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        """Return the divergences of the exact rows, `(B,)`."""
        batch = AnswerBatch(*(inputs[f] for f in ("prompt_ids", "prompt_mask", "answer_ids", "answer_mask")))
        mask, log_p = batch.support_mask, inputs["log_p"]
        log_pi = _trl.as_one_forward(self, model, answer_log_probs, batch)
        loss = exact_divergence(log_p, log_pi, self.args.divergence, mask, p_other=self.args.other_mass)
        # In a mixed batch a row stands for the completions that would have been drawn for it.
        counted = _trl.real_rows(self, len(loss)) * (self.sampled_mode.group_size if self.mixed else 1)
        names, beta = self.jury_reward.cluster_names, self.jury_reward.target.beta
        sums = exact_metrics(inputs, log_pi, names, self.args.other_mass, counted, beta)
        _trl.add_ratios(self, {f"plural/{name}": value for name, value in sums.items()})
        _trl.add_metric(self, "plural/beta", beta)
        if self.model.training and self.multipliers.active:
            # Of the target, which is known, and not of the policy, which is still on its way there.
            both = self.accelerator.reduce(target_kl_and_gains(inputs), "mean").double().cpu()
            self.multipliers.move(float(both[0]), both[1:])
        return loss

    # ── checkpoints ─────────────────────────────────────────────────────────────────────────────────────────────────

    def _check_state(self, folder: Path) -> None:
        checkpoints.check_scorer(folder, self.jury_reward.scorer)

    def _save_state(self, folder: Path) -> dict[str, Any]:
        if not self.exact:
            batch = self.sampled_mode.generations.get("train")
            rollouts = None if batch is None else batch.rollouts
            checkpoints.save_generation(folder, self.accelerator.process_index, _trl.snapshot(self), rollouts)
        if not self.args.should_save:
            return {}
        scorer, micro_step = self.jury_reward.scorer, _trl.micro_step(self)
        return checkpoints.save_state(folder, scorer, self.prompts, self.multipliers, micro_step)

    def _load_state(self, folder: Path) -> None:
        micro_step = checkpoints.load_state(folder, self.prompts, self.multipliers)
        generation = checkpoints.load_generation(folder, self.accelerator.process_index, self.accelerator.device)
        if generation is not None:
            buffer, rollouts = generation
            _trl.restore(self, buffer)
            if rollouts is not None:
                self.sampled_mode.resume(rollouts)
        elif micro_step is not None:
            _trl.restore(self, {"step": micro_step, "rows": None})
