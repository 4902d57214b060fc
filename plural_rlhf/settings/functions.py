"""Functions that settings name: `package.module:name` or `file.py:name`. Knows nothing of what they are for."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from reward_models.errors import did_you_mean


__all__ = ["import_function", "working_folder"]


def import_function(name: str) -> Callable[..., Any]:
    """Import a function, `package.module:name` or `file.py:name`; modules of the working folder count too.

    Args:
        name: Where it is.

    Raises:
        ImportError: There is no such module or function, or importing the module fails; the message says where it was
            looked for.

    Example:
        >>> import_function("math:sqrt")(9.0)
        3.0
        >>> import_function("math:sqr")
        Traceback (most recent call last):
        ImportError: module 'math' has no function 'sqr'. Did you mean 'sqrt'?...
    """
    where, _, function = name.rpartition(":")
    if not where or not function:
        raise ImportError(f"{name!r} names no function. Fix: write package.module:function or file.py:function.")
    module = _module(where)
    found = getattr(module, function, None)
    if not callable(found):
        functions = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
        raise ImportError(f"module {where!r} has no function {function!r}.{did_you_mean(function, functions)}")
    imported: Callable[..., Any] = found
    return imported


def _module(where: str) -> ModuleType:
    try:
        if where.endswith(".py"):
            spec = importlib.util.spec_from_file_location(Path(where).stem, where)
            assert spec is not None
            assert spec.loader is not None
            module = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(module)
            return module
        with working_folder():
            return importlib.import_module(where)
    except Exception as error:  # whatever the module does when it is imported
        looked = ""
        if not where.endswith(".py"):
            folders = ", ".join(map(repr, [*filter(None, sys.path), os.getcwd()]))
            looked = (
                f" It was looked for on the Python path ({folders}). Fix: correct the name, install the package, set "
                "PYTHONPATH, or give the file: path/of/file.py:name."
            )
        raise ImportError(f"{where!r} cannot be imported ({type(error).__name__}: {error}).{looked}") from error


@contextmanager
def working_folder() -> Iterator[None]:
    """Look for modules in the working folder too, after all others.

    Example:
        >>> with working_folder():
        ...     sys.path[-1] == os.getcwd()
        True
    """
    folder = os.getcwd()
    sys.path.append(folder)
    try:
        yield
    finally:
        sys.path.remove(folder)
