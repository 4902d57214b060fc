"""The sampled mode of `PluralGRPOTrainer`: from rows of the data set to completions, their residuals and a loss.

The trainer says when each step is due, as hooks of TRL; what happens in it stands here. One generation leaves a
`GenerationBatch`, and the loss of its micro-batches reads it. TRL's trainer is used through its public attributes and
`_trl`. Knows nothing of rows with a support, other than that a completion outside it is worth little.

Shapes: `N` completions of all processes, `n` of this process or of a micro-batch, `G` a group, `T` tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from trl import GRPOTrainer

from plural_rlhf.core.estimators import score_function_loss
from plural_rlhf.policies.log_probs import completion_log_probs
from plural_rlhf.rewards.completions import as_completions, completion_text
from plural_rlhf.rewards.jury_reward import JuryReward
from plural_rlhf.trainers import _trl
from plural_rlhf.trainers.grpo.completion_rows import finished, own_tokens, policy_log_probs, reference_log_probs
from plural_rlhf.trainers.grpo.drawers import GIVEN, NAMES, POLICY, GivenCompletions, draw_each, reference_shares
from plural_rlhf.trainers.grpo.exact import row_key
from plural_rlhf.trainers.grpo.generation_batch import GenerationBatch, JuryScores, RewardTable, Rollouts
from plural_rlhf.trainers.grpo.multipliers import Multipliers
from plural_rlhf.trainers.grpo.prompt_state import PromptState
from plural_rlhf.trainers.grpo.reference_draws import judge, reference_prompts, under_reference_prompts
from plural_rlhf.trainers.grpo.replay import replayed_columns, signed_tokens
from plural_rlhf.trainers.grpo.reward_functions import OtherRewards
from plural_rlhf.trainers.grpo.targeting import Targeting, Targets
from plural_rlhf.trainers.grpo.token_credit.prefix_rewards import credit_loss, prefix_gains, prefix_rewards
from plural_rlhf.trainers.grpo.token_credit.token_kl import completion_logits, rao_blackwell_loss, reward_to_go_loss


__all__ = ["SampledMode"]

Rows = list[dict[str, Any]]


class SampledMode:
    """What a trainer does with rows whose completions are drawn.

    Args:
        trainer: Of TRL, with a `PluralGRPOConfig`.
        reward: The jury and its target.
        others: The reward functions beside it.
        prompts: What is kept of every prompt.
        multipliers: Moved after every training generation.
        encode_prompt: Tokenises a prompt as the policy's prompts are tokenised.
        given: Chooses the completions that the data set brings along; None where it has none.

    Attributes:
        generations: The latest generation of each mode, `"train"` and `"eval"`.
        targeting: From the rewards of a generation to its targets.
    """

    def __init__(
        self,
        trainer: GRPOTrainer,
        reward: JuryReward,
        others: OtherRewards,
        prompts: PromptState,
        multipliers: Multipliers,
        encode_prompt: Callable[[Any], list[int]],
        given: GivenCompletions | None = None,
    ) -> None:
        self._trainer = trainer
        self._args = trainer.args
        self._reward = reward
        self._others = others
        self._prompts = prompts
        self._multipliers = multipliers
        self._encode = encode_prompt
        self._given = given
        self.targeting = Targeting(reward, others, prompts, log_z=trainer.args.estimator != "vargrad")
        self.generations: dict[str, GenerationBatch] = {}
        self._to_count: int | None = None  # completions that an evaluation has still to count
        self._losses = torch.zeros(2)  # of an evaluation: their sum over rows, and the number of rows

    @property
    def _training(self) -> bool:
        return self._trainer.model.training

    @property
    def generation(self) -> GenerationBatch:
        """The latest generation of the mode that the trainer is in."""
        return self.generations["train" if self._training else "eval"]

    @property
    def group_size(self) -> int:
        """G, completions per prompt in the mode that the trainer is in."""
        return self._trainer.num_generations if self._training else self._trainer.num_generations_eval

    # ── one generation, in the order in which TRL asks for it ───────────────────────────────────────────────────────

    def begin(self, rows: Rows) -> None:
        """Begin a generation for rows of the data set, one per completion of this process."""
        batch, group = GenerationBatch(self.group_size), self.group_size
        self.generations["train" if self._training else "eval"] = batch
        if not self._training:
            return
        last = group - self._args.reference_draws
        drawn = [n for n in range(len(rows)) if n % group >= last]
        prompts = reference_prompts([rows[n] for n in drawn], self._encode)
        batch.reference_prompts = dict(zip(drawn, prompts, strict=True))
        if self._given is not None:
            first = self._trainer.accelerator.process_index * (len(rows) // group)
            keys = _trl.micro_step(self._trainer), first
            batch.given = self._given.of_rows(rows, group=group, last=last, keys=keys)

    def draw(self, prompt_ids: list[list[int]]) -> tuple[list[list[int]], list[list[float]]]:
        """Draw a completion of each prompt; return tokens and the policy's log-probability of each, NaN if unknown."""
        return draw_each(
            prompt_ids,
            self.generation.given,
            self.generation.reference_prompts,
            by_policy=lambda prompts: _trl.generate(self._trainer, prompts),
            by_reference=lambda prompts: _trl.reference_generate(self._trainer, prompts),
        )

    def drawn_by(self, n: int) -> list[str] | None:
        """Return who drew each of the `n` completions of this process, by name; None where the policy draws all."""
        others = self._training and (self._given is not None or self._args.reference_draws > 0)
        return [NAMES[by] for by in self.generation.drawn_by(n).tolist()] if others else None

    def keep_jury_scores(self, scores: JuryScores) -> None:
        """Keep the K rewards of the completions of this process."""
        self.generation.jury_scores = scores

    def keep_rewards(self, rows: Rows, completions: Sequence[Any], completion_ids: list, scores: Tensor) -> None:
        """Keep the rewards of the completions of all processes.

        Args:
            rows: Rows of the data set, one per completion of this process.
            completions: `n` completions of this process.
            completion_ids: Their tokens.
            scores: `(N, F)` what each of TRL's reward functions gave all completions.

        Raises:
            ValueError: A score is infinite.
        """
        accelerator, jury = self._trainer.accelerator, self.generation.jury_scores
        self._others.check_finite(scores[accelerator.process_index * len(completions) :], completions)
        # float32 because not every accelerator has float64.
        r, w = (accelerator.gather(x.float().to(accelerator.device)).double().cpu() for x in (jury.r, jury.w))
        of_process = [
            (row_key(row), row_key(row, "prompt"), hash(tuple(ids)), rule, completion_text(completion))
            for row, ids, rule, completion in zip(rows, completion_ids, jury.rules, completions, strict=True)
        ]
        columns = (list(column) for column in zip(*_trl.gather_objects(of_process), strict=True))
        self.generation.table = RewardTable(r, w, scores.double().cpu(), *columns)

    def aim(self, rows: Rows, columns: dict[str, Any]) -> dict[str, Any]:
        """Work out the residuals of a generation, and let all that moves between generations move.

        Args:
            rows: Rows of the data set, one per completion of this process.
            columns: TRL's columns of the completions.

        Returns:
            The columns with `ref_per_token_logps` `(n, T)`, nats, and `row` `(n,)`, the number of each completion.
        """
        trainer, batch, beta = self._trainer, self.generation, self._reward.target.beta
        own, pad = own_tokens(columns), _trl.tokenizer_of(trainer).pad_token_id
        log_pi = policy_log_probs(trainer, columns)
        log_ref = reference_log_probs(trainer, under_reference_prompts(rows, columns, self._encode, pad))
        gather = trainer.accelerator.gather
        all_pi, all_ref = gather((log_pi * own).sum(-1)), gather((log_ref * own).sum(-1))
        if self._multipliers.weights is not None:
            batch.table.w = self._multipliers.weights.expand_as(batch.table.w)
        drawn_by = gather(batch.drawn_by(len(own)).to(all_pi.device)).cpu()
        counted = self._counted(len(all_pi))
        if self._args.n_ref:
            self._start_offsets(rows)
        targets = self.targeting(
            batch.table, all_ref.cpu(), all_pi.cpu(), batch.group_size, self._training, drawn_by, counted
        )
        share = reference_shares(drawn_by, batch.group_size).to(all_pi.device)
        batch.rollouts = targets.rollouts(
            all_ref, all_pi, beta=beta, group_size=batch.group_size, reference_share=share
        )
        n, by_policy = len(own), drawn_by == POLICY
        log_ratio = (all_pi - all_ref).double()
        kl = float(log_ratio[by_policy.to(all_pi.device)].mean())
        ended = gather(finished(columns, trainer.eos_token_ids).double())
        self._log(targets, batch.table, log_ratio[:counted], ended[:counted], drawn_by[:counted])
        if self._training:
            if self._prompts.replay is not None:
                tokens = _trl.gather_objects(signed_tokens(columns))
                self._prompts.replay.add(batch.table, tokens, all_ref, all_pi, all_pi + batch.rollouts.residual)
            self._multipliers.move(kl, self.targeting.gains(batch.table, by_policy))
        number = torch.arange(n, device=all_pi.device) + trainer.accelerator.process_index * n
        credit = self._credit(rows, columns) if self._training else {}
        return {**columns, "ref_per_token_logps": log_ref * own, "row": number, **credit}

    def _credit(self, rows: Rows, columns: dict[str, Any]) -> dict[str, Tensor]:
        """Return the column `prefix_gains` `(n, T)` in nats, if the settings ask for it."""
        args, batch, accelerator = self._args, self.generation, self._trainer.accelerator
        if args.variance_reduction != "prefix_rewards":
            return {}
        start, mask = accelerator.process_index * len(rows), columns["completion_mask"]
        values = prefix_rewards(
            self._reward,
            rows,
            columns,
            batch.table.w[start : start + len(rows)],
            batch.table.rules[start : start + len(rows)],
            _trl.tokenizer_of(self._trainer),
            every=args.prefix_every,
            longest=self._trainer.max_completion_length,
        )
        # float32 because not every accelerator has float64.
        values = accelerator.gather(values.float().to(mask.device)).double().cpu()
        lengths, slopes = accelerator.gather(mask.sum(1)).cpu(), self._prompts.slopes
        reward, residual = batch.rollouts.reward.double().cpu(), batch.rollouts.residual.double().cpu()
        known = slopes.of(values.shape[1])
        gains = prefix_gains(values, reward, residual, lengths, known, batch.group_size, args.prefix_every)
        slopes.observe(values, reward, batch.group_size)
        own = gains[start : start + len(rows), : mask.shape[1]]
        padded = torch.nn.functional.pad(own, (0, mask.shape[1] - own.shape[1]))
        return {"prefix_gains": padded.to(columns["completion_ids"].device, torch.float32)}

    def begin_evaluation(self, num_rows: int | None) -> None:
        """Begin an evaluation of so many rows, each drawn `group_size` times; None where their number is unknown."""
        self._to_count = None if num_rows is None else num_rows * self._trainer.num_generations_eval
        self._losses = torch.zeros(2, device=self._trainer.accelerator.device)

    def see_loss(self, loss: Tensor, n: int) -> None:
        """Keep the mean loss of `n` rows of an evaluation on this process."""
        self._losses += torch.stack([loss.float() * n, loss.new_tensor(n).float()])

    def evaluated_loss(self) -> float | None:
        """Return the mean loss of the rows of an evaluation on all processes; None where no loss was kept."""
        total, count = self._trainer.accelerator.reduce(self._losses, "sum").tolist()
        return total / count if count else None

    def _counted(self, n: int) -> int:
        """Return how many of the next `n` completions, the first, are no repeats that fill up the last batch."""
        if self._training or self._to_count is None:
            return n
        counted = min(n, self._to_count)
        self._to_count -= counted
        return counted

    def _log(self, targets: Targets, table: RewardTable, log_ratio: Tensor, ended: Tensor, drawn_by: Tensor) -> None:
        """Log a generation, as far as its rows count: what the targeting measured, the rewards, and the KL to π₀.

        The KL is of the policy's own completions. Rewards and ends are of all but the given ones, about which the
        policy has no say.
        """
        trainer, scores = self._trainer, table.scores[: len(drawn_by)][drawn_by != GIVEN]
        own, ended = log_ratio[(drawn_by == POLICY).to(log_ratio.device)], ended[(drawn_by != GIVEN).to(ended.device)]
        metrics = {
            **targets.metrics,
            "kl": (float(own.sum()), len(own)),
            "truncated": (len(ended) - float(ended.sum()), len(ended)),
        }
        if self._given is not None and self._training:
            metrics["given"] = (float((drawn_by == GIVEN).sum()), len(drawn_by))
        for name, (total, count) in metrics.items():
            _trl.add_ratio(trainer, f"plural/{name}", total, count)
        _trl.add_metric(trainer, "plural/beta", self._reward.target.beta)
        of_all = torch.where(scores.isnan().all(1), torch.nan, scores.nan_to_num() @ trainer.reward_weights.to(scores))
        of_functions = zip(trainer.reward_func_names, scores.T, strict=True)
        rewards = {f"rewards/{name}": values for name, values in of_functions} | {"": of_all}
        for prefix, values in rewards.items():
            known = values[~values.isnan()]
            _trl.add_ratio(trainer, f"{prefix}/mean" if prefix else "reward", float(known.sum()), len(known))
            _trl.add_spread(trainer, f"{prefix}/std" if prefix else "reward_std", known)

    def _start_offsets(self, rows: Rows) -> None:
        """Start the offsets of new prompts from `n_ref` completions of the reference; every process gets them all."""
        trainer, tokenizer = self._trainer, _trl.tokenizer_of(self._trainer)
        fresh = {row_key(row): row for row in rows if row_key(row) not in self._prompts.offsets}
        starts = []
        for key, row in fresh.items():
            prompts = reference_prompts([row], self._encode) * self._args.n_ref
            drawn, log_probs = _trl.reference_generate(trainer, prompts)
            completions = as_completions(row["prompt"], tokenizer.batch_decode(drawn, skip_special_tokens=True))
            scored = judge(self._reward, row, completions), self._others.scores(row, completions, drawn)
            starts.append((key, *(part.tolist() for part in scored), [sum(tokens) for tokens in log_probs]))
        for key, *parts in _trl.gather_objects(starts):
            self.targeting.start(key, *(torch.tensor(part, dtype=torch.float64) for part in parts))

    # ── after a generation ──────────────────────────────────────────────────────────────────────────────────────────

    def replay(self, parts: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Return the micro-batches of the training generation with its groups made up anew, for one more use."""
        trainer, replay = self._trainer, self._prompts.replay
        assert replay is not None
        group, device = self.group_size, trainer.accelerator.device
        replayed = replay.draw(group)
        parts = [replayed_columns(part, replayed, _trl.tokenizer_of(trainer).pad_token_id) for part in parts]
        log_pi_ref, log_pi = (x.float().to(device) for x in (replayed.log_pi_ref, replayed.log_pi))
        if self._args.per_device_train_batch_size % group:
            # The others of a group that is spread over micro-batches count with what they are worth now.
            now = [(policy_log_probs(trainer, part) * own_tokens(part)).sum(-1) for part in parts]
            log_pi = trainer.accelerator.gather(torch.cat(now))
        targets = self.targeting(replayed.table, log_pi_ref.cpu(), log_pi.cpu(), group, training=False)
        rollouts = targets.rollouts(log_pi_ref, log_pi, beta=self._reward.target.beta, group_size=group)
        self.generations["train"].rollouts = rollouts
        replay.aim(replayed, log_pi + rollouts.residual)
        return parts

    def resume(self, rollouts: Rollouts) -> None:
        """Put back the residuals of the training generation in use, from a checkpoint."""
        self.generations["train"] = batch = GenerationBatch(rollouts.group_size)
        batch.rollouts = rollouts

    def loss(self, model: torch.nn.Module, columns: dict[str, Tensor]) -> Tensor:
        """Return the loss of a micro-batch of completions, a number."""
        trainer, rollouts, gather = self._trainer, self.generation.rollouts, self._trainer.accelerator.gather
        if self._args.variance_reduction == "rao_blackwell":
            with _trl.reference(trainer) as reference, torch.no_grad():
                reference_logits = completion_logits(reference, columns)
            return rao_blackwell_loss(model, reference_logits, columns, rollouts, gather)
        score = partial(completion_log_probs, share=self._args.shared_prefix)
        log_probs = _trl.as_one_forward(trainer, model, score, columns) * own_tokens(columns)
        log_pi = log_probs.sum(-1)
        rollouts.see(gather(columns["row"]), gather(log_pi.detach()))
        coefficients = rollouts.coefficients(self._args.estimator)[columns["row"]]
        if "prefix_gains" in columns:
            done = trainer.state.global_step / max(1, trainer.state.max_steps)
            gains, log_ref = columns["prefix_gains"], columns["ref_per_token_logps"]
            decay = self._args.prefix_decay
            return credit_loss(gains, coefficients, log_probs, log_ref, decay=decay, whole_share=done)
        if self._args.variance_reduction == "reward_to_go":
            return reward_to_go_loss(coefficients, log_probs, columns["ref_per_token_logps"])
        return score_function_loss(coefficients, log_pi)
