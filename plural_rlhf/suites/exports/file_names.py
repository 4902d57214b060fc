"""Names of files and folders for models, one for each. Knows no model."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable

from reward_models.content_hashes import value_hash


__all__ = ["file_names"]


def file_names(models: Iterable[str]) -> dict[str, str]:
    """Return a file name for the name of each model, different ones on every file system.

    A sign that file names may not have becomes `_`. Where that, or a difference of case alone, would make two names
    one, both end with a hash of the name of the model.

    Args:
        models: Names of all models of one evaluation, each once.

    Example:
        >>> file_names(["open: a", "runs/b"])
        {'open: a': 'open__a', 'runs/b': 'runs_b'}
        >>> len(set(file_names(["open: a", "open; a", "open__a"]).values()))
        3
    """
    plain = {model: re.sub(r"[^\w.-]", "_", model) for model in models}
    shared = Counter(name.casefold() for name in plain.values())
    return {
        model: f"{name}-{value_hash(model)[:12]}" if shared[name.casefold()] > 1 else name
        for model, name in plain.items()
    }
