"""What is said when something cannot be written: a full or read-only disk, a limit, a folder that was removed.

Libraries report it in three ways: `OSError`, the `SafetensorError` of safetensors, the `RuntimeError` of `torch.save`.
Knows nothing of runs.
"""

from __future__ import annotations

import errno
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from plural_rlhf.recipe.run_folder.errors import RunWriteError


__all__ = ["disk_fault", "explain_disk_faults", "explain_removal"]

REASONS = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EFBIG: "a file would be larger than the limit of this process or disk (ulimit -f)",
    errno.EROFS: "the disk is read-only",
    errno.EACCES: "there is no permission to write",
    errno.EPERM: "writing is not permitted",
    errno.EIO: "the disk reports an error",
    errno.ESTALE: "the network disk is gone",
    errno.EEXIST: "a file is where a folder has to be",
    errno.ENOTDIR: "a file is where a folder has to be",
    errno.EISDIR: "a folder is where a file has to be",
    errno.ENAMETOOLONG: "the name is longer than the disk allows",
}
TORCH_COULD_NOT_WRITE = re.compile(r"PytorchStreamWriter|file write failed|iostream|inline_container")
FIXES = {errno.ENOSPC: "make room", errno.EDQUOT: "make room", errno.EFBIG: "raise the limit"}
FIXES |= dict.fromkeys((errno.EEXIST, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG), "give another path")


def disk_fault(error: BaseException, folder: Path) -> tuple[str, str] | None:
    """Say why an error is one of the disk, and what to do about it.

    Args:
        error: What a writer raised.
        folder: Where it wrote.

    Returns:
        Reason and fix; None for any other error.

    Example:
        >>> disk_fault(OSError(errno.ENOSPC, "No space left on device"), Path("."))
        ('the disk is full', 'make room')
        >>> disk_fault(ValueError("no such rule"), Path(".")) is None
        True
    """
    number = _errno(error)
    if number is None:
        return None
    if number == 0:
        free = shutil.disk_usage(folder).free if folder.is_dir() else 0
        return f"a file could not be written ({free / 2**20:,.0f} MiB of the disk are free)", "make room"
    if number not in REASONS:
        return None
    return REASONS[number], FIXES.get(number, "make the folder writable")


def _errno(error: BaseException) -> int | None:
    """The number of an error of the operating system; 0 where torch does not say which, None for other errors."""
    if isinstance(error, OSError):
        return error.errno
    if type(error).__name__ == "SafetensorError":
        number = re.search(r"os error (\d+)", str(error))
        return int(number[1]) if number else None
    if isinstance(error, RuntimeError) and TORCH_COULD_NOT_WRITE.search(str(error)):
        return 0
    return None


@contextmanager
def explain_disk_faults(folder: Path, kept: Callable[[], str]) -> Iterator[None]:
    """Turn errors of the disk within the block into one message.

    Args:
        folder: The folder that the block writes to.
        kept: Returns a sentence that says what is complete, e.g. `Kept: jury.`

    Raises:
        RunWriteError: Something could not be written: why, what was kept, how to go on.

    Example:
        >>> with explain_disk_faults(Path("."), lambda: "Kept: jury."):
        ...     raise OSError(errno.ENOSPC, "No space left on device", "warm/adapter_model.safetensors")
        Traceback (most recent call last):
        plural_rlhf.recipe.run_folder.errors.RunWriteError: the output folder '.' could not be written to: the disk is
        full ('warm/adapter_model.safetensors'). Kept: jury. Fix: make room, then run the same command again, ...
    """
    try:
        yield
    except Exception as error:
        explained = disk_fault(error, folder)
        if explained is None:
            raise
        reason, fix = explained
        name = getattr(error, "filename", None)
        where = "" if name is None else f" ({str(name)!r})"
        raise RunWriteError(
            f"the output folder {str(folder)!r} could not be written to: {reason}{where}. {kept()} Fix: {fix}, then "
            "run the same command again, without --overwrite: it goes on from there."
        ) from error


@contextmanager
def explain_removal(folder: Path, mark: Path) -> Iterator[None]:
    """Say so where a folder was removed while the block was at work in it, whatever error that led to.

    Args:
        folder: The folder.
        mark: A file that is in it from the beginning; writers make folders again, but not this file.

    Raises:
        RunWriteError: The block failed, and the mark is gone.

    Example:
        >>> with explain_removal(Path("run"), mark=Path("run/config.json")):
        ...     _ = Path("run/jury/jury.json").read_text()
        Traceback (most recent call last):
        plural_rlhf.recipe.run_folder.errors.RunWriteError: the output folder 'run' was removed while the run was at
        work in it. Fix: see to it that nothing removes it, then run the same command again: it starts over.
    """
    try:
        yield
    except Exception as error:
        if mark.exists():
            raise
        raise RunWriteError(
            f"the output folder {str(folder)!r} was removed while the run was at work in it. Fix: see to it that "
            "nothing removes it, then run the same command again: it starts over."
        ) from error
