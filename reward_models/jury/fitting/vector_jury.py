"""A jury on vectors of your own: for people who have features of texts and no model that computes them.

It scores vectors, adapts to raters and predicts answers. It cannot read a text, so that there is nothing to save as a
reward model. Knows nothing of language models.

Shapes: `U` texts, `D` features, `K` clusters, `N` judgements, `A` answers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, NoReturn

import numpy as np

from reward_models.errors import JuryError, settings_or_default
from reward_models.fitting.em import FitConfig
from reward_models.fitting.joint.fit import JointFit
from reward_models.fitting.selection import KSelection
from reward_models.fitting.text_table import feature_rows
from reward_models.judgements.records import Judgements, judged_tables
from reward_models.jury.fitting.arguments import checked_clusters
from reward_models.jury.fitting.steps import (
    Clusters,
    JudgedTables,
    Names,
    Strangers,
    described_clusters,
    fit_texts_and_raters,
    with_strangers,
)
from reward_models.raters.adaptation import Adaptation
from reward_models.raters.predictors import positions
from reward_models.raters.rater_model import Membership


__all__ = ["VectorJury", "fit_vector_jury"]


@dataclass(frozen=True)
class VectorJury:
    """Clusters of raters, and a reward of any vector for each of them; `fit_vector_jury` makes it.

    Attributes:
        fit: Texts and raters, fitted together.
        cluster_names: `K` names.
        clusters: Per cluster `name`, `prevalence` and `answers`, see `describe_clusters`.
        selection: The comparison of numbers of clusters; None where K was given.

    Example:
        >>> from reward_models import planted_judgements
        >>> planted = planted_judgements("rating", num_items=20)
        >>> jury = fit_vector_jury(planted.judgements, planted.rewards, clusters=2)
        >>> rewards = jury.cluster_rewards(np.array([[2.0, -2.0], [-2.0, 2.0]]))  # vectors that nobody judged
        >>> (rewards > 0).sum(axis=0).tolist()  # each cluster likes one of them
        [1, 1]
    """

    fit: JointFit
    cluster_names: list[str]
    clusters: list[dict[str, Any]]
    selection: KSelection | None

    @property
    def prevalence(self) -> np.ndarray:
        """(K,) shares of the population."""
        return self.fit.prevalence

    def cluster_rewards(self, features: np.ndarray) -> np.ndarray:
        """Compute the (U, K) rewards, in logits, of texts that nobody judged, from their vectors (U, D).

        Raises:
            JuryError: Vectors of another length than those of the fit.
        """
        if features.ndim != 2 or features.shape[1] != len(self.fit.weight):
            raise JuryError(
                f"features have shape {features.shape}, the jury was fitted to vectors of {len(self.fit.weight)} "
                "numbers. Fix: pass one row per text, from the model that the fit used"
            )
        return self.fit.linear_rewards(features)

    def adapt(
        self, judgements: Judgements | Sequence[Judgements], features: np.ndarray | Sequence[np.ndarray] | None = None
    ) -> Adaptation:
        """Infer raters' memberships and terms from a few of their judgements, by Bayes' rule.

        Args:
            judgements: One table, or several if the jury was fitted on several kinds.
            features: Rows for the texts of each table; None where all were judged in the fit.
        """
        tables = [table.encode() for table in judged_tables(judgements)]
        placement = self.fit.adapt(tables, features).placement
        judged = np.zeros(len(placement.rater_ids), dtype=np.int64)
        for enc in tables:
            np.add.at(judged, positions(enc.rater_ids, placement.rater_ids)[enc.rater], 1)
        return Adaptation.of(placement, self.cluster_names, judged)

    def log_probs(
        self, judgements: Judgements, features: np.ndarray | None = None, raters: Adaptation | None = None
    ) -> np.ndarray:
        """Compute the (N, A) log-probability of every possible answer, see `JuryScorer.log_probs`.

        Args:
            judgements: `N` questions, each with its rater.
            features: Rows for their texts; None where all were judged in the fit.
            raters: What is known of the raters, from `adapt`; None: what the fit knows of its own raters.
        """
        enc = judgements.encode()
        placement = self.fit.placement if raters is None else raters.placement
        return replace(self.fit, placement=placement).log_probs(enc, features)

    def save_pretrained(self, path: object, **_: Any) -> NoReturn:
        """Raise: a folder that reads texts needs the model that made the vectors.

        Raises:
            JuryError: Always; it says what to do.
        """
        raise JuryError(
            f"a jury on vectors of your own cannot be saved to {str(path)!r} as a reward model: without the model "
            "that made the vectors it reads no text. Fix: fit_jury(judgements, backbone) with that model; or keep "
            "`jury.fit`, whose arrays (heads, bias, parts, model) are all there is."
        )


def fit_vector_jury(
    judgements: Judgements | Sequence[Judgements],
    features: np.ndarray | Sequence[np.ndarray],
    *,
    clusters: Clusters = (1, 2, 3),
    membership: Membership | Literal["auto"] = "mixture",
    labels: Mapping[str, str] | None = None,
    names: Names | None = None,
    strangers: Strangers = "raters",
    config: FitConfig | None = None,
) -> VectorJury:
    """Fit a jury to judgements and vectors of their texts; `fit_jury` for people who have vectors and no model.

    Args:
        judgements: A table of any kind, or several tables of different kinds by the same raters.
        features: (U, D) rows for `Judgements.encode().texts`: an array, tensor or data frame; one for each table.
        clusters: As for `fit_jury`, like all that follow.
        membership: How a rater combines the rewards of clusters.
        labels: Short names of items.
        names: Names of the clusters.
        strangers: How raters without labels are predicted.
        config: Restarts, priors and seed.

    Raises:
        JuryError: Features that do not match the texts or are not finite, or see `fit_jury`.

    Example:
        >>> from reward_models import planted_judgements
        >>> planted = planted_judgements("rating", num_items=20)
        >>> jury = fit_vector_jury(planted.judgements, planted.rewards)
        >>> jury.selection.num_clusters, jury.prevalence.round(1).tolist()
        (2, [0.5, 0.5])
    """
    tables = JudgedTables.of(judgements, settings_or_default(config, FitConfig))
    if features is None:
        raise JuryError(
            "features=None: there are no vectors of the texts. Fix: pass one row per text; fit_jury(judgements, "
            "backbone) computes vectors with a language model, and fit_raters(judgements.encode()) needs none."
        )
    clusters = checked_clusters(tables, clusters, membership, labels, names, strangers)
    rows = feature_rows(features)
    found = with_strangers(fit_texts_and_raters(tables, rows, clusters, membership, _ignore), tables, strangers)
    described = described_clusters(found.fit, tables, labels, names)
    return VectorJury(found.fit, [cluster["name"] for cluster in described], described, found.selection)


def _ignore(_: str) -> None:
    """Announce nothing."""
