"""Reward modelling and RLHF for people who disagree: a plug-in for TRL.

The public names are handed on lazily, so that `import plural_rlhf` loads neither torch nor TRL; a name costs its
module when it is first asked for.

Example:
    >>> import plural_rlhf
    >>> "PoolTarget" in dir(plural_rlhf)
    True
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any


if TYPE_CHECKING:
    from .candidates import Candidates, read_candidates
    from .config import load_config
    from .core.rules import Rule, aggregate
    from .core.targets import PoolTarget
    from .core.typicality import fit_typicality
    from .decoding import MixedDecoder
    from .juries import Jury
    from .ranking import RankedPrompt, explain, rank
    from .rewards import JuryReward, ValidityGate
    from .steerer import Steerer
    from .steering import describe_weights, parse_weights
    from .trainers import CollapseMonitor, PluralDPOConfig, PluralDPOTrainer, PluralGRPOConfig, PluralGRPOTrainer
    from .trainers.distil import distil, distil_rows
    from .weight_sampler import WeightSampler

__all__ = [
    "Candidates",
    "CollapseMonitor",
    "Jury",
    "JuryReward",
    "MixedDecoder",
    "PluralDPOConfig",
    "PluralDPOTrainer",
    "PluralGRPOConfig",
    "PluralGRPOTrainer",
    "PoolTarget",
    "RankedPrompt",
    "Rule",
    "Steerer",
    "ValidityGate",
    "WeightSampler",
    "__version__",
    "aggregate",
    "describe_weights",
    "distil",
    "distil_rows",
    "explain",
    "fit_typicality",
    "load_config",
    "parse_weights",
    "rank",
    "read_candidates",
]

__version__ = "0.1.0"

_MODULES = {
    "Candidates": ".candidates",
    "CollapseMonitor": ".trainers",
    "Jury": ".juries",
    "JuryReward": ".rewards",
    "MixedDecoder": ".decoding",
    "PluralDPOConfig": ".trainers",
    "PluralDPOTrainer": ".trainers",
    "PluralGRPOConfig": ".trainers",
    "PluralGRPOTrainer": ".trainers",
    "PoolTarget": ".core.targets",
    "RankedPrompt": ".ranking",
    "Rule": ".core.rules",
    "Steerer": ".steerer",
    "ValidityGate": ".rewards",
    "WeightSampler": ".weight_sampler",
    "aggregate": ".core.rules",
    "describe_weights": ".steering",
    "distil": ".trainers.distil",
    "distil_rows": ".trainers.distil",
    "explain": ".ranking",
    "fit_typicality": ".core.typicality",
    "load_config": ".config",
    "parse_weights": ".steering",
    "rank": ".ranking",
    "read_candidates": ".candidates",
}


def __getattr__(name: str) -> Any:
    """Import the module of a public name when the name is first asked for."""
    if name not in _MODULES:
        from reward_models.errors import did_you_mean

        raise AttributeError(f"module {__name__!r} has no attribute {name!r}.{did_you_mean(name, _MODULES)}")
    value = getattr(importlib.import_module(_MODULES[name], __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """List the public names, loaded or not."""
    return sorted({*globals(), *__all__})
