"""Checkpoints inside a training stage: written every few minutes, found again after a kill, deleted at its end.

A checkpoint counts only with the note that is written after it, which holds the hash of each of its files; older ones
are deleted after that, so that a kill or a full disk at any moment leaves one to go on from. Works with any trainer of
transformers. Knows nothing of what is trained.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Collection
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from transformers import TrainerCallback

from plural_rlhf.policies.base_models import ADAPTER_FILE
from plural_rlhf.policies.base_weights import BASE_WEIGHTS_FILE, BaseWeights
from plural_rlhf.recipe.interruption import Interruption
from plural_rlhf.recipe.job import KeepPieces, keep_nothing
from plural_rlhf.recipe.settings.sections import CheckpointSection
from plural_rlhf.trainers.checks.divergence import StopAtDivergence
from reward_models.content_hashes import FileRecord, changed_files, folder_records
from reward_models.whole_file import whole_folder, write_json


if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import Trainer

__all__ = ["ALONG", "Best", "TrainingFolder", "adapters_along"]

ALONG = "along"
"""Folder of the adapters that a training leaves on its way, inside that of its policy."""

WHOLE_FILE = "whole.json"
"""The note that a checkpoint is complete."""


class TrainingFolder:
    """Where a training stage saves its policy, and the checkpoints that it goes on from.

    Args:
        policy: Folder of the policy, written when training is complete.
        folder: Folder of the checkpoints.
        section: How often they are written and how many are kept.
        interruption: Whether the run was asked to stop.
        show: Called with a sentence about what is done, e.g. `print`.
        pieces: Given a name and pieces of work before the training, returns their results: what a stopped run has
            done, or is done now; by default nothing is kept.

    Attributes:
        seconds_before: Seconds of training behind the checkpoint that training went on from.
        best: The policy with the smallest loss in an evaluation on the way, which is the one that is saved; None
            without.
        show: Called with a sentence about what is done.
        pieces: See above.
        beside: What is saved beside the policy, by the name of its JSON file.
        along: So many adapters are kept from the way, after equal numbers of steps, and saved beside the policy.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     (Path(folder) / "checkpoint-3").mkdir()  # a kill while it was being written
        ...     training = TrainingFolder(Path("warm"), Path(folder))
        ...     print(training.newest())
        checkpoint-3 was not written to its end, or is damaged: deleted
        None
    """

    def __init__(
        self,
        policy: Path,
        folder: Path,
        section: CheckpointSection | None = None,
        interruption: Interruption | None = None,
        show: Callable[[str], object] = print,
        pieces: KeepPieces = keep_nothing,
    ) -> None:
        self.policy, self.folder, self.pieces = policy, folder, pieces
        self.seconds_before = 0.0
        self.best: Best | None = None
        self.beside: dict[str, Any] = {}
        self.along = 0
        self._section, self.show = section or CheckpointSection(), show
        self._interruption = interruption or Interruption(show)

    def newest(self) -> Path | None:
        """Return the last complete checkpoint; delete what was cut short or damaged, and say so."""
        for path in sorted(self.folder.glob("checkpoint-*"), key=_step, reverse=True):
            try:
                note = json.loads((path / WHOLE_FILE).read_text(encoding="utf-8"))
                best = None if note.get("best") is None else Best(**note["best"])
                if note["files"] == _files(path) and (best is None or best.is_whole(self.folder)):
                    self.seconds_before, self.best = note["seconds"], best
                    return path
            except (OSError, ValueError, KeyError, TypeError):
                pass
            self.show(f"{path.name} was not written to its end, or is damaged: deleted")
            shutil.rmtree(path)
        return None

    def train(self, trainer: Trainer) -> float:
        """Train from the last complete checkpoint, or from the start; return the seconds of all training so far.

        Args:
            trainer: Whose `output_dir` is `folder`, with `save_strategy="no"` and no limit on checkpoints.

        Raises:
            RunInterrupted: The run was asked to stop before the last step; a checkpoint of the step before is there.
            TrainingDivergedError: A weight became infinite or no number.
        """
        newest = self.newest()
        if newest is not None:
            self.show(f"going on from step {_step(newest)} ({newest})")
        for step, path in adapters_along(self.folder).items():  # of steps that are trained again
            if newest is None or step > _step(newest):
                shutil.rmtree(path)
        start = time.perf_counter()

        def seconds() -> float:
            return self.seconds_before + time.perf_counter() - start

        last = trainer.args.max_steps
        along = {round(last * n / (self.along + 1)) for n in range(1, self.along + 1)} - {0, last}
        saver = _SaveOften(self._section, self._interruption, seconds, self.best, along)
        trainer.add_callback(StopAtDivergence(self.policy.name))  # before a checkpoint is written
        trainer.add_callback(saver)
        with self._interruption.deferred():
            trainer.train(resume_from_checkpoint=None if newest is None else str(newest))
        self._interruption.check()
        self.best = saver.best
        if self.best is not None:
            self.best.load_into(trainer.accelerator.unwrap_model(trainer.model), self.folder)
            best = f"step {self.best.step}, with the smallest validation loss ({self.best.loss:.4f})"
            self.show(f"the policy that is kept is that of {best}")
        return seconds()

    def save(self, model: Any, tokenizer: Any) -> None:
        """Save the policy as a whole folder or not at all, in place of what an interrupted run left.

        Beside an adapter it is noted on which base weights it was trained.
        """
        if self.policy.is_dir():
            shutil.rmtree(self.policy)
        with whole_folder(self.policy) as unfinished:
            model.save_pretrained(unfinished)
            tokenizer.save_pretrained(unfinished)
            if (unfinished / ADAPTER_FILE).is_file():
                write_json(unfinished / BASE_WEIGHTS_FILE, BaseWeights(model).record())
            for name, content in self.beside.items():
                write_json(unfinished / name, content)
            if (self.folder / ALONG).is_dir():
                shutil.copytree(self.folder / ALONG, unfinished / ALONG)


def adapters_along(folder: Path) -> dict[int, Path]:
    """Return the adapters that a training has left on its way, by the number of steps before each, in that order.

    Args:
        folder: Folder of the policy.

    Example:
        >>> adapters_along(Path("no such folder"))
        {}
    """
    paths = {_step(path): path for path in (folder / ALONG).glob("step-*")}
    return {step: paths[step] for step in sorted(paths) if step >= 0}


@dataclass(frozen=True)
class Best:
    """The policy with the smallest loss in an evaluation so far, saved as an adapter.

    Attributes:
        step: After how many steps.
        loss: Its loss.
        files: Size and hash of each file of its folder.

    Example:
        >>> Best(step=12, loss=0.25, files={}).folder_in(Path("checkpoints/plural")).name
        'best-12'
    """

    step: int
    loss: float
    files: dict[str, FileRecord]

    @classmethod
    def save(cls, model: Any, folder: Path, step: int, loss: float) -> Best:
        """Save the adapter of a model as the best so far."""
        target = cls(step, loss, {}).folder_in(folder)
        shutil.rmtree(target, ignore_errors=True)  # of a process that was killed after it
        with whole_folder(target) as unfinished:
            model.save_pretrained(unfinished)
        return cls(step, loss, folder_records(target))

    def folder_in(self, folder: Path) -> Path:
        """Return the folder of the adapter, below that of the checkpoints."""
        return folder / f"best-{self.step}"

    def is_whole(self, folder: Path) -> bool:
        """Whether its files are as they were written."""
        return not changed_files(self.folder_in(folder), self.files)

    def load_into(self, model: PeftModel, folder: Path) -> None:
        """Put the weights of the adapter into a model."""
        from peft import set_peft_model_state_dict
        from safetensors.torch import load_file

        set_peft_model_state_dict(model, load_file(self.folder_in(folder) / "adapter_model.safetensors"))


class _SaveOften(TrainerCallback):
    """Save by steps, by time and when the run is to stop; mark each checkpoint as complete, then delete older ones."""

    def __init__(
        self,
        section: CheckpointSection,
        interruption: Interruption,
        seconds: Callable[[], float],
        best: Best | None,
        along: Collection[int] = (),
    ) -> None:
        self.section, self.interruption, self.seconds, self.best = section, interruption, seconds, best
        self.along = along
        self.saved = time.monotonic()

    def on_evaluate(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        loss = kwargs["metrics"]["eval_loss"]
        if self.best is None or loss < self.best.loss:
            self.best = Best.save(kwargs["model"], Path(args.output_dir), state.global_step, loss)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step >= state.max_steps:
            return
        if state.global_step in self.along:
            model = kwargs["model"]
            with whole_folder(Path(args.output_dir) / ALONG / f"step-{state.global_step}") as unfinished:
                model.save_pretrained(unfinished, selected_adapters=[model.active_adapter])
        every = self.section.every_steps
        due = time.monotonic() - self.saved >= 60 * self.section.every_minutes
        due = due or (every is not None and state.global_step % every == 0)
        stop = self.interruption.requested is not None
        control.should_save = control.should_save or due or stop
        control.should_training_stop = control.should_training_stop or stop

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        folder = Path(args.output_dir)
        newest = folder / f"checkpoint-{state.global_step}"
        best = None if self.best is None else asdict(self.best)
        write_json(newest / WHOLE_FILE, {"files": _files(newest), "seconds": self.seconds(), "best": best})
        for path in sorted(folder.glob("checkpoint-*"), key=_step)[: -self.section.keep]:
            shutil.rmtree(path)
        if self.section.keep == 1 and self.best is not None:  # an older best one was that of an older checkpoint
            for path in set(folder.glob("best-*")) - {self.best.folder_in(folder)}:
                shutil.rmtree(path)
        self.saved = time.monotonic()


def _step(path: Path) -> int:
    number = path.name.rpartition("-")[2]
    return int(number) if number.isdigit() else -1


def _files(checkpoint: Path) -> dict[str, FileRecord]:
    records = folder_records(checkpoint)
    records.pop(WHOLE_FILE, None)
    return records
