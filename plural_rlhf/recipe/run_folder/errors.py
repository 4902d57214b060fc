"""Errors of the folder of a run. Knows nothing of why."""

from __future__ import annotations


__all__ = ["RunFolderError", "RunWriteError"]


class RunFolderError(ValueError):
    """The output folder cannot be used as it is.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from plural_rlhf.recipe.run_folder.folder import check_folder
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = (Path(folder) / "thesis.tex").write_text("years of work")
        ...     try:
        ...         check_folder(Path(folder), {}, overwrite=True)
        ...     except RunFolderError as error:
        ...         "choose another folder with --output" in str(error)
        True
    """


class RunWriteError(RunFolderError):
    """Something could not be written: the disk is full or read-only, or the folder was removed.

    Example:
        >>> raise RunWriteError("the disk is full. Kept: jury. Fix: make room and run the same command again.")
        Traceback (most recent call last):
        plural_rlhf.recipe.run_folder.errors.RunWriteError: the disk is full. Kept: jury. ...
    """
