"""What running a model for its scores needs, whatever the model: evaluation mode and random numbers aside, a device.

Knows nothing of texts, juries or training.
"""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


__all__ = ["default_device", "evaluating", "randomness_aside"]


@contextmanager
def evaluating(model: torch.nn.Module) -> Iterator[None]:
    """Put a model into evaluation mode inside a `with` block, and every module back into its own mode afterwards.

    Args:
        model: Any module; dropout and the like are off inside the block.

    Example:
        >>> import torch
        >>> model = torch.nn.Sequential(torch.nn.Dropout(), torch.nn.Dropout())
        >>> _ = model[1].eval()
        >>> with evaluating(model):
        ...     [module.training for module in model]
        [False, False]
        >>> [module.training for module in model]
        [True, False]
    """
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


def default_device() -> torch.device:
    """Return the accelerator of this process, or the CPU if there is none.

    `accelerate launch` and `torchrun` tell each process its number in `LOCAL_RANK`, so that every process gets an
    accelerator of its own.

    Example:
        >>> default_device().type in ("cpu", "cuda", "mps", "xpu")
        True
    """
    accelerator = torch.accelerator.current_accelerator(check_available=True)
    if accelerator is None:
        return torch.device("cpu")
    return torch.device(accelerator.type, int(os.environ.get("LOCAL_RANK", "0")))


@contextmanager
def randomness_aside() -> Iterator[None]:
    """Put the random state of Python, numpy and torch (CPU, current GPU) back at the end of the block.

    Example:
        >>> _ = torch.manual_seed(0)
        >>> first = torch.rand(1)
        >>> _ = torch.manual_seed(0)
        >>> with randomness_aside():
        ...     aside = torch.rand(100)
        >>> bool(torch.rand(1) == first)
        True
    """
    devices = [torch.cuda.current_device()] if torch.cuda.is_available() else []
    of_python, of_numpy = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices):
        try:
            yield
        finally:
            random.setstate(of_python)
            np.random.set_state(of_numpy)
