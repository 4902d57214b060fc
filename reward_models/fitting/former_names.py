"""Former names of the joint fit, for code that was written when rewards of texts were fitted after those of labels.

Both are `fit_joint` with other arguments. Knows nothing of language models; with one, `fit_jury` is the door.

Shapes: `U` texts, `D` features.
"""

from __future__ import annotations

import numpy as np

from reward_models.errors import JuryError
from reward_models.fitting.em import FitConfig
from reward_models.fitting.joint.fit import JointFit, fit_joint
from reward_models.fitting.rater_fit import RaterFit
from reward_models.judgements.encoding import Encoded


__all__ = ["fit_features", "fit_texts"]


def fit_texts(fit: RaterFit, enc: Encoded, features: np.ndarray, *, config: FitConfig | None = None) -> JointFit:
    """Fit texts and raters together, with the membership and the size of a label-level jury.

    Nothing else of that jury is used: the joint fit is a new one, with a seed and priors of its own.

    Args:
        fit: The jury.
        enc: The judgements it was fitted to.
        features: (U, D) one row per text of `enc.texts`.
        config: Seed, restarts, priors; None: the defaults, with rater terms if the jury has them.

    Raises:
        JuryError: A jury of ideal points, or features that do not match the texts or are not finite.

    Example:
        >>> from reward_models import fit_raters, planted_judgements
        >>> planted = planted_judgements("rating", num_items=20)
        >>> enc = planted.judgements.encode()
        >>> jury = fit_texts(fit_raters(enc, "mixture", 2), enc, planted.rewards)
        >>> sorted(jury.linear_rewards(np.array([[2.0, -2.0]]))[0].round(0).tolist())  # a text that nobody judged
        [-2.0, 2.0]
    """
    if fit.basis != "linear":
        raise JuryError(
            f"basis={fit.basis!r}: the jury has points, and rewards of texts are linear in features. Fix: fit it with "
            "basis='linear', or call fit_joint, whose simplex of prototypes is PAL with a linear map"
        )
    config = FitConfig(nuisance=bool(fit.model.term_sd)) if config is None else config
    return fit_joint(enc, features, fit.model.membership, fit.num_clusters, config=config)


def fit_features(
    enc: Encoded, features: np.ndarray, num_clusters: int, *, config: FitConfig | None = None
) -> JointFit:
    """Fit texts and raters together, as a mixture of clusters.

    Args:
        enc: Judgements of raters.
        features: (U, D) one row per text of `enc.texts`.
        num_clusters: `K`.
        config: Restarts, priors; None: the defaults.

    Raises:
        JuryError: Features that do not match the texts or are not finite, or K that the raters cannot support.

    Example:
        >>> from reward_models import planted_judgements
        >>> planted = planted_judgements("choice", num_items=20)
        >>> fit_features(planted.judgements.encode(), planted.rewards, 2).heads.shape  # clusters, features
        (2, 2)
    """
    return fit_joint(enc, features, "mixture", num_clusters, config=config)
