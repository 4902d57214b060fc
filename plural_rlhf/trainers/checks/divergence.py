"""End a training whose weights have become infinite or no numbers, before anything of it is saved.

A rate that is far too large does that in few steps, and what comes after would only fail elsewhere: in the next text
that is drawn, or in the evaluation. Knows nothing of what is trained.
"""

from __future__ import annotations

from typing import Any

import torch
from transformers import TrainerCallback


__all__ = ["StopAtDivergence", "TrainingDivergedError"]


class TrainingDivergedError(ValueError):
    """The weights of a policy in training are not finite.

    Example:
        >>> print(TrainingDivergedError("plural", 2, 3, 1e30))
        the training of plural has diverged: after step 2 of 3 some of its weights are infinite or no numbers ...
    """

    def __init__(self, name: str, step: int, steps: int, learning_rate: float) -> None:
        super().__init__(
            f"the training of {name} has diverged: after step {step} of {steps} some of its weights are infinite or "
            f"no numbers (nan). Its learning rate is {learning_rate:g}. Nothing of that step is saved. Fix: a "
            "learning_rate a tenth as large in its section of the run file, with --overwrite or a new output folder."
        )


class StopAtDivergence(TrainerCallback):
    """Raise when a trained weight is not finite after a step.

    Args:
        name: Name of the training, e.g. that of its section in the run file.
    """

    def __init__(self, name: str) -> None:
        self.name = name

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Look at the largest of each tensor, which is nan or infinite where one number is.

        Raises:
            TrainingDivergedError: A trained weight is infinite or no number.
        """
        trained = [weights for weights in kwargs["model"].parameters() if weights.requires_grad and weights.numel()]
        largest = [weights.detach().abs().max().float() for weights in trained]
        if largest and not bool(torch.stack(largest).isfinite().all()):
            raise TrainingDivergedError(self.name, state.global_step, state.max_steps, args.learning_rate)
