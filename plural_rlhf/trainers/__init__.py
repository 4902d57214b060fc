"""TRL trainers that end at a chosen distribution, and a callback that says when a policy does not.

Example:
    >>> from plural_rlhf.trainers import Limits
    >>> Limits().kl >= 0
    True
"""

from __future__ import annotations

from reward_models.lazy_names import lazy_names


__getattr__, __dir__, __all__ = lazy_names(__name__, __file__)
