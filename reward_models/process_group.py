"""How a process of several leaves their group when it ends, so that it ends cleanly.

The threads of a gloo process group release the tensors of the last collectives a moment after these have returned. If
the interpreter is shutting down by then, such a thread cannot take its lock, and the process dies with SIGABRT
("terminate called without an active exception") after everything was done and saved. So the threads are joined before.
Knows nothing of models or losses.
"""

from __future__ import annotations

import atexit
import gc
import sys

import torch.distributed

# Its functions have the default group of the moment as a default argument: imported later, they would hold the group.
import torch.distributed.nn.functional
from torch.nn.parallel import DistributedDataParallel


__all__ = ["leave_process_group_at_exit"]


def leave_process_group_at_exit() -> None:
    """Register the end of the default process group for the end of the interpreter; without a group, do nothing.

    A process that ends by an error keeps the group: the others may be waiting in a collective, and the launcher stops
    them. A group that was destroyed before is left alone.

    Example:
        >>> leave_process_group_at_exit()  # one process, no group
    """
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        atexit.unregister(_leave)
        atexit.register(_leave)


def _leave() -> None:
    if hasattr(sys, "last_type") or not torch.distributed.is_initialized():
        return
    torch.distributed.destroy_process_group()
    # Its threads are joined when the last reference is gone, and the wrappers of models hold references of their own.
    for wrapper in [thing for thing in gc.get_objects() if type(thing) is DistributedDataParallel]:
        for name in ("process_group", "reducer", "logger"):
            setattr(wrapper, name, None)
    gc.collect()
