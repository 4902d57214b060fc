"""Random numbers that are drawn aside, so that what follows draws what it would have drawn without them."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


__all__ = ["randomness_aside"]


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
