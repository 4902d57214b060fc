"""A config-driven run: its file (`config`), its data, its stages from top to bottom (`pipeline`), its folder.

Example:
    >>> from plural_rlhf.recipe import RunConfig
    >>> RunConfig().plural.beta
    1.0
"""

from __future__ import annotations

from reward_models.lazy_names import lazy_names


__getattr__, __dir__, __all__ = lazy_names(__name__, __file__)
