"""Judgements of many raters in, a reward per cluster of raters out.

The public names are listed once, in `__init__.pyi`, and are imported when first asked for: `import reward_models`
loads no library, and a table of judgements needs no torch. Knows nothing of reinforcement learning; that is
`plural_rlhf`.

Example:
    >>> import reward_models
    >>> "Judgements" in dir(reward_models)
    True
"""

from __future__ import annotations

from reward_models.lazy_names import lazy_names
from reward_models.registration import register_with_transformers


__getattr__, __dir__, __all__ = lazy_names(__name__, __file__)
register_with_transformers()
