"""`CollapseMonitor`: a callback that warns if a policy loses answers or clusters, with the cause and the fix.

It reads what a trainer logs, so it works with `PluralGRPOTrainer` and with TRL's own `GRPOTrainer` and `RLOOTrainer`,
and it does not change the training. The checks are in `findings`; this file knows only where the numbers come from.
"""

from __future__ import annotations

import functools
import logging
import math
from collections.abc import Callable, Sequence
from typing import Any

from torch import nn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from plural_rlhf.core.shares import effective_answers, effective_texts
from plural_rlhf.rewards.completions import completion_text
from plural_rlhf.rewards.validity_gate import is_async
from plural_rlhf.trainers.monitor.curves import EFFECTIVE, ENTROPY, RANGE, SHARE, TEXTS, Curves, Limits, Run
from plural_rlhf.trainers.monitor.findings import CHECKS, Finding


__all__ = ["CollapseMonitor"]

logger = logging.getLogger(__name__)

_SHOWN = (
    EFFECTIVE,
    TEXTS,
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

    With TRL's own trainers, pass `reward_funcs=monitor.watch(reward)` and `callbacks=[monitor]`; with
    `PluralGRPOTrainer`, which counts answers itself, `callbacks=[monitor]`. If a trainer logs no `plural/entropy`, the
    monitor adds it to the log history: entropy per token times mean length; callbacks after this one see it. What
    `watch` measures is logged through TRL and reaches every `report_to`. A resumed run reads the history of its
    checkpoint first, so that no warning is repeated.

    Args:
        limits: When to warn; the defaults of `Limits` if None.

    Attributes:
        findings: What was found in this run so far, at most one finding per cause (`findings.CHECKS`).

    Example:
        >>> from types import SimpleNamespace
        >>> monitor, state = CollapseMonitor(Limits(patience=2)), TrainerState(max_steps=4)
        >>> args = SimpleNamespace(scale_rewards="group", beta=1.0)  # of a trainer that would start now
        >>> monitor.on_train_begin(args, state, TrainerControl())
        >>> [finding.cause for finding in monitor.findings]
        ['scaled_rewards']
    """

    def __init__(self, limits: Limits | None = None) -> None:
        self.limits = limits or Limits()
        self.findings: list[Finding] = []
        self._curves = Curves(self.limits.patience)

    @staticmethod
    def watch(reward: Callable[..., Any]) -> Callable[..., Any]:
        """Return the same reward function, which also logs the number of answers per prompt and the range of rewards.

        It logs `plural/effective_answers`, `plural/effective_texts` and `plural/reward_range` (largest minus smallest
        reward of a prompt, averaged over prompts), from the completions of each prompt in this process.

        Args:
            reward: A reward function in TRL's calling convention, plain or async; a `JuryReward` is one.

        Raises:
            ValueError: `reward` is a model or a path, which TRL scores itself.

        Example:
            >>> watched = CollapseMonitor.watch(lambda prompts, completions, **columns: [1.0, 0.0, 0.0])
            >>> watched(["p"] * 3, ["a", "b", "b"], log_metric=lambda name, value: print(name, round(value, 2)))
            plural/effective_answers 1.89
            plural/effective_texts 1.89
            plural/reward_range 1.0
            [1.0, 0.0, 0.0]
        """
        if isinstance(reward, nn.Module) or not callable(reward):
            shown = type(reward).__name__ if isinstance(reward, nn.Module) else repr(reward)
            raise ValueError(
                f"watch got {shown}, which TRL scores by itself, so that no completions pass here: pass a reward "
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
        """Return one row per curve: `metric`, its `start`, `last`, `lowest` and `highest` log, and the `finding`.

        The finding is empty if the curve is in order; one about a setting has a row without numbers.
        """
        messages: dict[str, list[str]] = {}
        for finding in self.findings:
            messages.setdefault(finding.metric, []).append(finding.message)
        names = [*_SHOWN, *(SHARE + name for name in self._curves.clusters(SHARE))]
        rows: list[dict[str, Any]] = []
        for name in [name for name in names if name in self._curves.values]:
            values = self._curves.values[name]
            rows.append(
                {
                    "metric": name,
                    "start": values[0],
                    "last": values[-1],
                    "lowest": min(values),
                    "highest": max(values),
                    "finding": " ".join(messages.pop(name, [])),
                }
            )
        nothing = dict.fromkeys(("start", "last", "lowest", "highest"))
        return rows + [{"metric": name, **nothing, "finding": " ".join(texts)} for name, texts in messages.items()]

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Start afresh, or from the log history of the checkpoint, whose warnings are not repeated."""
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
        """Read one log and warn of new findings."""
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
            if cause not in known and (result := check(run)) is not None:
                metric, message = result
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
    texts: dict[str, list[str]] = {}
    for prompt, completion, reward in zip(prompts, completions, rewards, strict=True):
        groups.setdefault(repr(prompt), []).append((repr(completion), reward))
        texts.setdefault(repr(prompt), []).append(completion_text(completion))
    log_metric(EFFECTIVE, effective_answers([text for text, _ in group] for group in groups.values()))
    log_metric(TEXTS, effective_texts(list(texts.values())))
    scored = [[r for _, r in group if r is not None and math.isfinite(r)] for group in groups.values()]
    ranges = [max(group) - min(group) for group in scored if group]
    if ranges:
        log_metric(RANGE, sum(ranges) / len(ranges))
