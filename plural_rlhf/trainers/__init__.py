"""TRL trainers that end at a chosen distribution, and a callback that warns if a policy does not.

Example:
    >>> from plural_rlhf.trainers import PluralGRPOConfig
    >>> PluralGRPOConfig("out", rho=0.0, use_cpu=True, bf16=False).target.rho
    0.0
"""

from __future__ import annotations

from reward_models.lazy_names import lazy_names


__getattr__, __dir__, __all__ = lazy_names(__name__, __file__)
