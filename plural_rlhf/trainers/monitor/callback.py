"""`CollapseMonitor`: a callback that says when a policy loses answers or people, why, and what to set.

It reads what a trainer logs, so it works with `PluralGRPOTrainer` and with TRL's own `GRPOTrainer` and `RLOOTrainer`,
and it changes nothing of the training. What counts as wrong is in `findings`; this file knows only where the numbers
come from.
"""

from __future__ import annotations

import functools
import logging
import math
from collections.abc import Callable, Sequence
from typing import Any

from torch import nn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from plural_rlhf.core.shares import effective_answers
from plural_rlhf.rewards.validity_gate import is_async
from plural_rlhf.trainers.monitor.findings import (
    CHECKS,
    EFFECTIVE,
    ENTROPY,
    RANGE,
    SHARE,
    Curves,
    Finding,
    Limits,
    Run,
)


__all__ = ["CollapseMonitor", "Finding", "Limits"]

logger = logging.getLogger(__name__)

_SHOWN = (
    EFFECTIVE,
    ENTROPY,
    "plural/residual_std",
    "plural/jsd_nats",
    "plural/kl",
    "plural/coverage",
    "plural/valid",
    "plural/truncated",
    "completions/clipped_ratio",
    "frac_reward_zero_std",
    RANGE,
)


class CollapseMonitor(TrainerCallback):
    """Follows a run and warns once for every cause of a lost distribution.

    Trainers that log no `plural/entropy` get one in their log history, entropy a token times mean length; callbacks
    see it if they come after this one. What `watch` measures is logged through TRL and reaches every `report_to`. A
    resumed run reads the history of its checkpoint first, so that nothing is judged anew.

    Args:
        limits: When to warn; the defaults of `Limits` where not given.

    Attributes:
        findings: What was found in this run so far, at most one finding a cause (`findings.CHECKS`).

    Example:
        >>> monitor = CollapseMonitor(Limits(patience=5))
        >>> monitor.findings
        []

        With TRL's own trainers: `GRPOTrainer(..., reward_funcs=monitor.watch(reward), callbacks=[monitor])`. With
        `PluralGRPOTrainer`, which counts answers itself: `callbacks=[monitor]`.
    """

    def __init__(self, limits: Limits | None = None) -> None:
        self.limits = limits or Limits()
        self.findings: list[Finding] = []
        self._curves = Curves(self.limits.patience)

    @staticmethod
    def watch(reward: Callable[..., Any]) -> Callable[..., Any]:
        """The same reward function, but it also logs how many answers each prompt gets and how far rewards lie apart.

        Logs `plural/effective_answers` and `plural/reward_range` (largest minus smallest reward of a prompt, averaged
        over prompts), from the completions of each prompt that this process sees.

        Args:
            reward: A reward function in TRL's calling convention, plain or async; a `JuryReward` is one.

        Raises:
            ValueError: A model or a path, which TRL scores by itself.
        """
        if isinstance(reward, nn.Module) or not callable(reward):
            shown = type(reward).__name__ if isinstance(reward, nn.Module) else repr(reward)
            raise ValueError(
                f"watch got {shown}, which TRL scores by itself, so that no completions pass here: give it a reward "
                "function, such as JuryReward(path). The callback alone follows the entropy."
            )
        if is_async(reward):

            @functools.wraps(reward)
            async def watched_async(*args: Any, **columns: Any) -> list[float | None]:
                rewards = await reward(*args, **columns)
                _log_groups(rewards, *args, **columns)
                return rewards

            return watched_async

        @functools.wraps(reward)
        def watched(*args: Any, **columns: Any) -> list[float | None]:
            rewards = reward(*args, **columns)
            _log_groups(rewards, *args, **columns)
            return rewards

        return watched

    def summary(self) -> list[dict[str, Any]]:
        """One row a curve: `metric`, its `start`, `last`, `lowest` and `highest` log, and the `finding` about it.

        The finding is empty where the curve is in order; one about a setting has a row without numbers.
        """
        messages: dict[str, list[str]] = {}
        for finding in self.findings:
            messages.setdefault(finding.metric, []).append(finding.message)
        names = [*_SHOWN, *(SHARE + name for name in self._curves.clusters(SHARE))]
        rows: list[dict[str, Any]] = []
        for name in [name for name in names if name in self._curves.values]:
            found = self._curves.values[name]
            rows.append(
                {
                    "metric": name,
                    "start": found[0],
                    "last": found[-1],
                    "lowest": min(found),
                    "highest": max(found),
                    "finding": " ".join(messages.pop(name, [])),
                }
            )
        nothing = dict.fromkeys(("start", "last", "lowest", "highest"))
        return rows + [{"metric": name, **nothing, "finding": " ".join(found)} for name, found in messages.items()]

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Starts afresh, or from the log history of the checkpoint, whose warnings are not repeated."""
        self.findings, self._curves = [], Curves(self.limits.patience)
        new = self._look(args, state, 0)
        for row in state.log_history:
            self._curves.add(row)
            self._look(args, state, row["step"])
        if not state.log_history:
            self._warn(new, state)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Reads one log and warns of what is new in it."""
        logs = {} if logs is None else logs
        per_token, length = logs.get("entropy"), logs.get("completions/mean_length")
        if ENTROPY not in logs and per_token is not None and length is not None:
            logs[ENTROPY] = per_token * length
            if state.log_history and state.log_history[-1]["step"] == state.global_step:
                state.log_history[-1][ENTROPY] = logs[ENTROPY]
        self._curves.add(logs)
        self._warn(self._look(args, state, state.global_step), state)

    def _look(self, args: TrainingArguments, state: TrainerState, step: int) -> list[Finding]:
        progress = step / state.max_steps if state.max_steps > 0 else 1.0
        run = Run(self._curves, vars(args), self.limits, progress, state.num_train_epochs)
        known, new = {finding.cause for finding in self.findings}, []
        for cause, check in CHECKS.items():
            if cause not in known and (found := check(run)) is not None:
                metric, message = found
                new.append(Finding(cause, metric, step, message))
        self.findings += new
        return new

    def _warn(self, findings: Sequence[Finding], state: TrainerState) -> None:
        if state.is_world_process_zero:
            for finding in findings:
                logger.warning("step %d: %s", finding.step, finding.message)


def _log_groups(
    rewards: Sequence[float | None],
    prompts: Sequence[Any],
    completions: Sequence[Any],
    *args: Any,
    log_metric: Callable[[str, float], None] | None = None,
    **columns: Any,
) -> None:
    if log_metric is None:
        return
    # `repr`, because prompts and completions may be conversations, which cannot be hashed.
    groups: dict[str, list[tuple[str, float | None]]] = {}
    for prompt, completion, reward in zip(prompts, completions, rewards, strict=True):
        groups.setdefault(repr(prompt), []).append((repr(completion), reward))
    log_metric(EFFECTIVE, effective_answers([text for text, _ in group] for group in groups.values()))
    scored = [[r for _, r in group if r is not None and math.isfinite(r)] for group in groups.values()]
    ranges = [max(group) - min(group) for group in scored if group]
    if ranges:
        log_metric(RANGE, sum(ranges) / len(ranges))
