"""Judgements of many raters in, a reward per cluster of raters out.

The public names stand in `__init__.pyi`, once, and are handed on lazily: `import reward_models` loads no library, and
each name costs only what its module needs (a table of judgements needs no torch). Knows nothing of reinforcement
learning; that is `plural_rlhf`.

The functions `headroom` and `format_leak` share their names with their modules and are imported from there:
`from reward_models.headroom import headroom`.

Example:
    >>> import reward_models
    >>> "Judgements" in dir(reward_models)
    True
"""

from __future__ import annotations

import ast
import importlib
from pathlib import Path
from typing import Any


_MODULES = {
    alias.name: f"{__name__}.{statement.module}"
    for statement in ast.parse(Path(__file__).with_suffix(".pyi").read_text(encoding="utf-8")).body
    if isinstance(statement, ast.ImportFrom)
    for alias in statement.names
}
__all__ = list(_MODULES)


def __getattr__(name: str) -> Any:
    """Import the module of a public name when the name is first asked for."""
    if name not in _MODULES:
        from reward_models.errors import did_you_mean

        raise AttributeError(f"module {__name__!r} has no attribute {name!r}.{did_you_mean(name, _MODULES)}")
    value = getattr(importlib.import_module(_MODULES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """List the public names, loaded or not."""
    return sorted({*globals(), *__all__})
