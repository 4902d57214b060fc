"""What a policy is worth, and what a jury decides.

`distribution` holds a policy's answers against people's; `steerable` says whether a policy follows the weights it is
asked for; `decisions` says what juries choose, what would make them choose otherwise, who gains by a rule and whom
exaggerating pays. No room here needs a trainer.

Example:
    >>> from plural_rlhf.evaluation import hypervolume
    >>> float(hypervolume([[1.0, 2.0], [2.0, 1.0]], [0.0, 0.0]))
    3.0
"""

from __future__ import annotations

from reward_models.lazy_names import lazy_names


__getattr__, __dir__, __all__ = lazy_names(__name__, __file__)
