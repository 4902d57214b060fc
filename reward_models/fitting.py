"""Fitting a jury to judgements: the one place to import it from.

Three steps, each a file: `mixture` fits K free rewards per text on labels alone, in seconds; `selection` chooses K on
#held-out raters; `feature_fitting` turns the rewards into linear functions of frozen features, for texts nobody
judged. Nothing here trains a language model: that is `jury_trainer`.
"""

from __future__ import annotations

from reward_models.em import FitConfig
from reward_models.feature_fitting import FeatureFit, fit_features
from reward_models.mixture import MixtureFit, fit_mixture
from reward_models.selection import KSelection, select_num_clusters


__all__ = ["FeatureFit", "FitConfig", "KSelection", "MixtureFit", "fit_features", "fit_mixture", "select_num_clusters"]
