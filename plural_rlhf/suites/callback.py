"""A small suite during training: logged beside the loss, and the model with the best number kept.

Works with every trainer of transformers and TRL whose model is a causal language model. Knows nothing of how it is
trained.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from accelerate.utils import extract_model_from_parallel
from transformers import TrainerCallback

from plural_rlhf.suites.engine.asking import LEAST_DRAWS, Asking
from plural_rlhf.suites.models.causal_lm import CausalLM
from plural_rlhf.suites.run import SuiteFindings, load_tasks, run_loaded
from plural_rlhf.suites.tasks.catalogue import make_tasks
from plural_rlhf.suites.tasks.protocol import Task
from reward_models.errors import did_you_mean
from reward_models.fitting.starting_point import is_whole
from reward_models.whole_file import write_json


if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase, Trainer

    from plural_rlhf.weights.wording import TRLPrompt

__all__ = ["SuiteCallback"]

logger = logging.getLogger(__name__)


class SuiteCallback(TrainerCallback):
    """Measures a suite every so many steps, and at the beginning and the end of training.

    Numbers are called `eval_suite/<task>/<metric>`. They are in `history`, in the trainer's log history and, after
    `attach(trainer)`, in every `report_to`. Where the trainer evaluates too, they are measured with each of its
    evaluations, and `metric_for_best_model="suite/<task>/<metric>"` lets it load the best checkpoint at the end. The
    random numbers of the training are left as they are. With several processes the first one measures.

    Args:
        tasks: Tasks, or names of tasks and suites.
        tokenizer: The tokenizer of the model; None for the trainer's.
        every: Steps between two measurements; None for those of the trainer's evaluations only.
        best: `<task>/<metric>` by which the best model is kept in `best_folder`.
        best_folder: Folder to which `save_pretrained` writes the best model so far, and `suite.json` its numbers.
        data: Folder of data sets.
        max_items: Most items per task.
        seed: Random seed of the suite; every measurement has the same items and the same draws.
        draws: Bootstrap draws of the intervals, at least 20.
        chat: Whether prompts go through the chat template; None: if there is one.
        render: Changes each prompt, e.g. writes steering weights into it.

    Raises:
        ValueError: Unknown task, no data for any task, or `best` without `best_folder`.

    Example:
        >>> kept = {"best": "urn/jsd_nats", "best_folder": "runs/best"}
        >>> callback = SuiteCallback(["urn"], every=50, max_items=20, **kept)
        >>> callback.history
        []
    """

    def __init__(
        self,
        tasks: Sequence[str | Task] = ("smoke",),
        tokenizer: PreTrainedTokenizerBase | None = None,
        *,
        every: int | None = None,
        best: str | None = None,
        best_folder: str | Path | None = None,
        data: str | Path = "data",
        max_items: int | None = 100,
        seed: int = 0,
        draws: int = 200,
        chat: bool | None = None,
        render: Callable[[TRLPrompt], TRLPrompt] | None = None,
    ) -> None:
        if (best is None) != (best_folder is None):
            raise ValueError(
                f"best is {best!r} and best_folder is {best_folder!r}. Fix: give both, to keep the best model, or none"
            )
        if isinstance(tasks, str):
            raise ValueError(f"tasks={tasks!r} is one text. Fix: tasks=[{tasks!r}], a list of tasks and suites")
        for name, number, what in (("every", every, "steps"), ("max_items", max_items, "items")):
            if number is not None and not (is_whole(number) and number >= 1):
                raise ValueError(f"{name}={number!r} is no number of {what}. Fix: a whole one of at least 1, or None")
        if not (is_whole(draws) and draws >= LEAST_DRAWS):
            raise ValueError(
                f"draws={draws!r} is no number of draws. Fix: a whole one of at least {LEAST_DRAWS}, e.g. 200"
            )
        made = [task for name in tasks for task in (make_tasks([name]) if isinstance(name, str) else [name])]
        self._tasks, skipped = load_tasks(made, data, max_items=max_items, seed=seed)
        for one in skipped:
            logger.warning("%s is not measured: %s", one.task, one.reason)
        if not self._tasks:
            reasons = "; ".join(f"{one.task}: {one.reason}" for one in skipped) or "none was asked for"
            raise ValueError(f"there is no task to measure ({reasons}). Fix: name one whose data is there, e.g. coin")
        self.tokenizer = tokenizer
        self.every = every
        self.best = best
        self.best_folder = None if best_folder is None else Path(best_folder)
        self.best_value = math.nan
        self.history: list[dict[str, float]] = []
        """Every measurement: `step`, and the numbers by name."""
        self._asking = Asking(seed=seed, draws=draws)
        self._shown: dict[str, Any] = {"chat": chat, "render": render}
        self._trainer: Trainer | None = None

    def attach(self, trainer: Trainer) -> SuiteCallback:
        """Add the callback to a trainer, and log through it to every `report_to`."""
        self._trainer = trainer
        trainer.add_callback(self)
        return self

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Measure the model before training; a resumed training goes on without."""
        if self.every is not None and state.global_step == 0:
            self._measured(state, control, **kwargs)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Measure every so many steps."""
        if self.every is not None and state.global_step % self.every == 0:
            self._measured(state, control, **kwargs)

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Measure the model after training, unless the last step was measured."""
        if not self.history or self.history[-1]["step"] != state.global_step:
            self._measured(state, control, **kwargs)

    def on_evaluate(self, args: Any, state: Any, control: Any, metrics: dict[str, Any], **kwargs: Any) -> None:
        """Measure with an evaluation of the trainer, and add the numbers to its metrics."""
        if not self.history or self.history[-1]["step"] != state.global_step:
            self._measured(state, control, **kwargs)
        metrics.update({name: value for name, value in self.history[-1].items() if name != "step"})

    def measure(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> SuiteFindings:
        """Measure a model now."""
        asked = CausalLM("policy", model, tokenizer, identity="in training", **self._shown)
        return run_loaded([asked], self._tasks, self._asking)

    def _measured(self, state: Any, control: Any, **kwargs: Any) -> None:
        """Measure, log, and keep the model if it is the best so far."""
        if not state.is_world_process_zero:
            return
        tokenizer = self.tokenizer or kwargs.get("processing_class")
        model = extract_model_from_parallel(kwargs["model"])
        found = self.measure(model, tokenizer)
        numbers = {
            f"eval_suite/{one.task}/{row.metric}": row.value
            for one in found.findings
            for row in one.result.rows
            if row.group == "all"
        }
        for one in found.skipped:
            logger.warning("%s is not measured: %s", one.task, one.reason)
        self.history.append({"step": state.global_step, **numbers})
        if self._trainer is not None:
            pending = control.should_log
            self._trainer.log(dict(numbers))
            control.should_log = pending  # the trainer's own numbers of this step are still to come
        else:
            state.log_history.append({**self.history[-1]})
        self._keep_best(model, tokenizer, found)

    def _keep_best(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, found: SuiteFindings) -> None:
        if self.best is None or self.best_folder is None:
            return
        rows = {
            f"{one.task}/{row.metric}": row
            for one in found.findings
            for row in one.result.rows
            if row.group == "all" and row.direction in ("lower", "higher")
        }
        if self.best not in rows:
            raise ValueError(
                f"best={self.best!r} is none of the numbers of which higher or lower ones are better."
                f"{did_you_mean(self.best, rows)} Fix: one of {', '.join(rows)}"
            )
        row = rows[self.best]
        sign = 1 if row.direction == "higher" else -1
        if math.isnan(self.best_value) or sign * row.value > sign * self.best_value:
            self.best_value = row.value
            model.save_pretrained(self.best_folder)
            tokenizer.save_pretrained(self.best_folder)
            write_json(self.best_folder / "suite.json", self.history[-1])
