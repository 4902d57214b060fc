"""One run at a time in a folder: a lock that ends with its process, and a note of who holds it.

The operating system releases the lock when the process ends, however it ends, so that nothing of a dead process is in
the way. Knows nothing of runs.
"""

from __future__ import annotations

import errno
import json
import os
import socket
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from plural_rlhf.recipe.run_folder.errors import RunFolderError
from reward_models.whole_file import write_json


__all__ = ["HOLDER_FILE", "LOCK_FILE", "only_run"]

LOCK_FILE = ".lock"
HOLDER_FILE = ".lock-holder.json"
WITHOUT_LOCKS = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS)


@contextmanager
def only_run(folder: Path) -> Iterator[None]:
    """Hold the lock of a folder while the block runs.

    Args:
        folder: An existing folder; the lock file stays in it, because deleting it would let two processes in.

    Raises:
        RunFolderError: Another process holds it; the message names its id and its machine.

    Warns:
        UserWarning: The file system has no locks, so nothing is held.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder, only_run(Path(folder)):
        ...     try:
        ...         with only_run(Path(folder)):
        ...             pass
        ...     except RunFolderError as error:
        ...         f"process {os.getpid()} on {socket.gethostname()}" in str(error)
        True
    """
    lock = FileLock(folder / LOCK_FILE, timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise RunFolderError(
            f"another run is at work in the output folder {str(folder)!r}: {_holder(folder)}. Nothing was written. "
            "Fix: wait until it has ended, stop it, or choose another folder with --output."
        ) from None
    except OSError as error:
        if error.errno not in WITHOUT_LOCKS:
            raise
        warnings.warn(
            f"the file system of {str(folder)!r} has no locks ({error.strerror}): see to it that no other run uses "
            "this folder.",
            UserWarning,
            stacklevel=2,
        )
    try:
        holder = {"pid": os.getpid(), "host": socket.gethostname(), "since": time.strftime("%Y-%m-%d %H:%M:%S")}
        write_json(folder / HOLDER_FILE, holder)
        yield
    finally:
        if folder.is_dir():
            (folder / HOLDER_FILE).unlink(missing_ok=True)
        lock.release()


def _holder(folder: Path) -> str:
    try:
        holder = json.loads((folder / HOLDER_FILE).read_text(encoding="utf-8"))
        return f"process {holder['pid']} on {holder['host']}, since {holder['since']}"
    except (OSError, ValueError, KeyError, TypeError):  # it may be about to write or to remove the note
        return "a process that has just begun or is just ending"
