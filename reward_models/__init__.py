"""Judgements of many raters in, a reward per cluster of raters out.

The public names are handed on lazily: `import reward_models` loads no library, and each name costs only what its
module needs (a table of judgements needs no torch). Knows nothing of reinforcement learning; that is `plural_rlhf`.

The function `headroom` shares its name with its module and is imported from there:
`from reward_models.headroom import headroom`.

Example:
    >>> import reward_models
    >>> "Judgements" in dir(reward_models)
    True
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any


if TYPE_CHECKING:
    from reward_models.encoding import Encoded, Text, as_messages
    from reward_models.errors import JudgementError, JudgementWarning, JuryError, MissingExtraError, did_you_mean
    from reward_models.features import pooled_features, render, truncate_backbone
    from reward_models.fitting import (
        FeatureFit,
        FitConfig,
        KSelection,
        MixtureFit,
        fit_features,
        fit_mixture,
        select_num_clusters,
    )
    from reward_models.groupings import GroupingReport, describe_clusters, name_clusters, predictive_information
    from reward_models.headroom import Headroom
    from reward_models.likelihoods import choice_log_lik, davidson_log_lik, ordinal_log_lik, soft_log_lik
    from reward_models.memberships import cluster_answers, leave_one_out_posterior, mixture_posterior
    from reward_models.modeling_jury import JuryConfig, JuryOutput, JuryRewardModel
    from reward_models.records import KINDS, Judgements
    from reward_models.scoring import Jury, JuryScorer
    from reward_models.sources import load_survey, load_table, survey_labels
    from reward_models.splits import adaptation_split, split_four_ways, split_items, split_raters
    from reward_models.stats import (
        Interval,
        adjusted_rand_index,
        js_divergence,
        krippendorff_alpha,
        noise_floor_js,
        total_variation,
        two_way_bootstrap,
    )

__all__ = [
    "KINDS",
    "Encoded",
    "FeatureFit",
    "FitConfig",
    "GroupingReport",
    "Headroom",
    "Interval",
    "JudgementError",
    "JudgementWarning",
    "Judgements",
    "Jury",
    "JuryConfig",
    "JuryError",
    "JuryOutput",
    "JuryRewardModel",
    "JuryScorer",
    "KSelection",
    "MissingExtraError",
    "MixtureFit",
    "Text",
    "adaptation_split",
    "adjusted_rand_index",
    "as_messages",
    "choice_log_lik",
    "cluster_answers",
    "davidson_log_lik",
    "describe_clusters",
    "did_you_mean",
    "fit_features",
    "fit_mixture",
    "js_divergence",
    "krippendorff_alpha",
    "leave_one_out_posterior",
    "load_survey",
    "load_table",
    "mixture_posterior",
    "name_clusters",
    "noise_floor_js",
    "ordinal_log_lik",
    "pooled_features",
    "predictive_information",
    "render",
    "select_num_clusters",
    "soft_log_lik",
    "split_four_ways",
    "split_items",
    "split_raters",
    "survey_labels",
    "total_variation",
    "truncate_backbone",
    "two_way_bootstrap",
]

_NAMES = {
    "encoding": (
        "Encoded",
        "Text",
        "as_messages",
    ),
    "errors": (
        "JudgementError",
        "JudgementWarning",
        "JuryError",
        "MissingExtraError",
        "did_you_mean",
    ),
    "features": (
        "pooled_features",
        "render",
        "truncate_backbone",
    ),
    "fitting": (
        "FeatureFit",
        "FitConfig",
        "KSelection",
        "MixtureFit",
        "fit_features",
        "fit_mixture",
        "select_num_clusters",
    ),
    "groupings": (
        "GroupingReport",
        "describe_clusters",
        "name_clusters",
        "predictive_information",
    ),
    "headroom": ("Headroom",),
    "likelihoods": (
        "choice_log_lik",
        "davidson_log_lik",
        "ordinal_log_lik",
        "soft_log_lik",
    ),
    "memberships": (
        "cluster_answers",
        "leave_one_out_posterior",
        "mixture_posterior",
    ),
    "modeling_jury": (
        "JuryConfig",
        "JuryOutput",
        "JuryRewardModel",
    ),
    "records": (
        "KINDS",
        "Judgements",
    ),
    "scoring": (
        "Jury",
        "JuryScorer",
    ),
    "sources": (
        "load_survey",
        "load_table",
        "survey_labels",
    ),
    "splits": (
        "adaptation_split",
        "split_four_ways",
        "split_items",
        "split_raters",
    ),
    "stats": (
        "Interval",
        "adjusted_rand_index",
        "js_divergence",
        "krippendorff_alpha",
        "noise_floor_js",
        "total_variation",
        "two_way_bootstrap",
    ),
}
_MODULES = {name: f"{__name__}.{module}" for module, names in _NAMES.items() for name in names}


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
