"""Reward modelling and RLHF for people who disagree: a plug-in for TRL.

The public names are listed in `__init__.pyi`, once, and are imported when first asked for: `import plural_rlhf` loads
neither torch nor TRL.

Example:
    >>> import plural_rlhf
    >>> "PoolTarget" in dir(plural_rlhf)
    True
"""

from __future__ import annotations

from reward_models.lazy_names import lazy_names


__version__ = "0.1.0"

__getattr__, __dir__, __all__ = lazy_names(__name__, __file__)
