"""Fit a jury to judgements.

Steps, each a file: `rater_fit` fits rewards per text and how raters vary, on labels alone, in seconds (`mixture` is
its default, with closed forms for choices); `selection` chooses the membership and K on held-out raters;
`feature_fitting` and `text_fit` turn the rewards into linear functions of frozen features, for texts that nobody
judged: the first beside a memory of the judged texts, the second with a variance and for any membership. `joint.fit`
does both in one likelihood, for few judgements per text and for several tables of the same raters, and `joint.choice`
chooses for it. Knows nothing of training a language model; that is `reward_models.trainer`.
"""

from __future__ import annotations

from reward_models.fitting.em import FitConfig
from reward_models.fitting.feature_fitting import FeatureFit, fit_features
from reward_models.fitting.joint.choice import JointChoice, choose_joint
from reward_models.fitting.joint.fit import JointFit, fit_joint
from reward_models.fitting.mixture import fit_mixture
from reward_models.fitting.rater_fit import RaterFit, fit_raters
from reward_models.fitting.selection import KSelection, MembershipChoice, choose_membership, select_num_clusters
from reward_models.fitting.text_fit import TextFit, fit_texts


# The former name of `RaterFit`, kept importable for code that was written before the rename.
MixtureFit = RaterFit

__all__ = [
    "FeatureFit",
    "FitConfig",
    "JointChoice",
    "JointFit",
    "KSelection",
    "MembershipChoice",
    "MixtureFit",
    "RaterFit",
    "TextFit",
    "choose_joint",
    "choose_membership",
    "fit_features",
    "fit_joint",
    "fit_mixture",
    "fit_raters",
    "fit_texts",
    "select_num_clusters",
]
