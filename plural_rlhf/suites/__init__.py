"""Evaluation suites: any model, many tasks, one table.

`models/` is what is evaluated, `tasks/` is with what, `engine/` is how.
"""

from __future__ import annotations

from reward_models.lazy_names import lazy_names


__getattr__, __dir__, __all__ = lazy_names(__name__, __file__)
