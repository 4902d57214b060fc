"""A progress bar for a TRL trainer: step, time left and two or three numbers, instead of one log line per step.

Knows nothing of what is trained.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from tqdm.auto import tqdm
from transformers import PrinterCallback, TrainerCallback


if TYPE_CHECKING:
    from transformers import Trainer

__all__ = ["showing_progress"]


class _Bar(TrainerCallback):
    def __init__(self, label: str, columns: dict[str, str]) -> None:
        self.label, self.columns = label, columns
        self.bar: tqdm | None = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        begun, hidden = state.global_step, not state.is_world_process_zero  # a resumed training begins in the middle
        self.bar = tqdm(total=state.max_steps, initial=begun, desc=self.label, disable=hidden)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self.bar is not None:
            self.bar.update(1)

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **kwargs: Any) -> None:
        shown = {title: _number(logs[name]) for name, title in self.columns.items() if logs and name in logs}
        if self.bar is not None and shown:
            self.bar.set_postfix(shown)

    def close(self) -> None:
        if self.bar is not None:
            self.bar.close()


def _number(value: float | None) -> str:
    return "nan" if value is None else f"{float(value):.4f}"  # TRL logs None for what is not finite


@contextmanager
def showing_progress(trainer: Trainer, label: str, columns: dict[str, str]) -> Iterator[None]:
    """Replace the trainer's printed logs by a progress bar, which is closed however training ends.

    Args:
        trainer: A trainer made with `disable_tqdm=True`.
        label: Name of the training, at the left of the bar.
        columns: Logged numbers to show, and their titles.
    """
    trainer.remove_callback(PrinterCallback)
    bar = _Bar(label, columns)
    trainer.add_callback(bar)
    try:
        yield
    finally:
        bar.close()
