"""Fit a jury to judgements.

Steps, each a file: `rater_fit` fits rewards per text and how raters vary, on labels alone, in seconds (`mixture` is
its default, with closed forms for choices); `selection` chooses the membership and K on held-out raters;
`joint.fit` fits texts, by their features, and raters in one likelihood, so that texts that nobody judged have rewards
too, also of several tables of the same raters; `joint.choice` chooses membership and K for it on held-out raters and
held-out texts. `former_names` has two earlier names of it. Knows nothing of training a language model; that is
`reward_models.trainer`.
"""

from __future__ import annotations

from reward_models.fitting.em import FitConfig
from reward_models.fitting.former_names import fit_features, fit_texts
from reward_models.fitting.joint.choice import JointChoice, choose_joint
from reward_models.fitting.joint.fit import JointFit, fit_joint
from reward_models.fitting.mixture import fit_mixture
from reward_models.fitting.rater_fit import RaterFit, fit_raters
from reward_models.fitting.selection import KSelection, MembershipChoice, choose_membership, select_num_clusters


# The former name of `RaterFit`, kept importable for code that was written before the rename.
MixtureFit = RaterFit

__all__ = [
    "FitConfig",
    "JointChoice",
    "JointFit",
    "KSelection",
    "MembershipChoice",
    "MixtureFit",
    "RaterFit",
    "choose_joint",
    "choose_membership",
    "fit_features",
    "fit_joint",
    "fit_mixture",
    "fit_raters",
    "fit_texts",
    "select_num_clusters",
]
