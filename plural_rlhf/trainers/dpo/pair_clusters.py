"""Who judged a preference pair: the clusters of a training, and the source of the raters' memberships.

The source is one of four columns: `cluster` (a name), `membership` (the probability that the rater is in each
cluster), `weights` (the public that the row speaks for), or `rater_id`, with a scorer that knows the raters or adapts
them, or, for a mixture, with the choices alone. Knows nothing of models, tokens or losses.

Shapes: `N` pairs, `K` clusters.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import datasets
import numpy as np

from plural_rlhf.trainers.dpo.judged_pairs import adapted_raters
from reward_models.errors import JuryError
from reward_models.judgements.records import Judgements
from reward_models.judgements.sampling import WEIGHT_FIX
from reward_models.jury.folder import load_config, load_state
from reward_models.jury.modeling_jury import JuryConfig
from reward_models.jury.scorer import JuryScorer
from reward_models.jury.state import JuryState, StoredRaters
from reward_models.raters.rater_model import RaterModel
from reward_models.weights import parse_weights


__all__ = ["EVERYONE", "WEIGHTS", "Clusters", "find_clusters", "judgement_weights"]

WEIGHTS = ("count", "rater_weight")

EVERYONE = "everyone"
"""Name of the only cluster of data that do not say who judged."""

_SOURCES = ("cluster", "membership", "weights")


@dataclass(frozen=True)
class Clusters:
    """The clusters of a training, and the source of the raters' memberships.

    Attributes:
        names: `K` names.
        prevalence: (K,) shares of the population; equal if they are to be learnt and nothing else is known.
        source: The column that says who judged: one of `cluster`, `membership`, `weights`, `rater_id`; None if there
            is none and there is one cluster.
        raters: Posteriors of raters by id, for `rater_id`; None if memberships are to be learnt.
        rater_model: The model that those posteriors belong to.

    Example:
        >>> pairs = datasets.Dataset.from_list([{"membership": {"urban": 1, "rural": 3}}])
        >>> Clusters(["urban", "rural"], np.array([0.5, 0.5]), "membership").memberships(pairs).tolist()
        [[0.25, 0.75]]
    """

    names: list[str]
    prevalence: np.ndarray
    source: str | None
    raters: StoredRaters | None = None
    rater_model: RaterModel | None = None

    @property
    def learnt(self) -> bool:
        """Whether memberships are learnt from the choices alone."""
        return self.source == "rater_id" and self.raters is None

    def memberships(self, dataset: datasets.Dataset) -> np.ndarray:
        """Return the probability that the rater of each pair is in each cluster, (N, K); equal if it is to be learnt.

        Raises:
            JuryError: The column is missing, or a row cannot be read; the message says the row.
        """
        num_rows, k = len(dataset), len(self.names)
        if self.source is None:
            return np.ones((num_rows, 1))
        if self.source not in dataset.column_names:
            raise JuryError(
                f"the data set has no column {self.source!r} (it has {', '.join(dataset.column_names)}), which says "
                "who judged in the training data: add it."
            )
        values = list(dataset[self.source])
        if self.source == "rater_id":
            if self.raters is None or self.rater_model is None:
                return np.full((num_rows, k), 1 / k)
            ids = [str(value) for value in values]
            order = {rater: i for i, rater in enumerate(dict.fromkeys(ids))}
            posterior = self.raters.placement(list(order), self.rater_model).memberships()
            if (posterior < -1e-6).any() or not np.allclose(posterior.sum(1), 1, atol=1e-3):
                raise JuryError(
                    f"the scorer's raters are points in a space of tastes ({posterior[0].round(2).tolist()} for "
                    f"{ids[0]!r}), not members of clusters: use one with membership='mixture' or 'simplex'."
                )
            return posterior[[order[rater] for rater in ids]]
        parsed: dict[str, np.ndarray] = {}
        for row, value in enumerate(values):
            if repr(value) not in parsed:
                try:
                    # datasets stores a mapping column with every key that occurs anywhere; absent ones are None.
                    spec = {n: v for n, v in value.items() if v is not None} if isinstance(value, dict) else value
                    parsed[repr(value)] = parse_weights(spec, self.names, self.prevalence)
                except (JuryError, TypeError, ValueError) as error:
                    raise JuryError(f"row {row}, column {self.source!r} is {value!r}: {error}") from error
        return np.stack([parsed[repr(value)] for value in values])


def find_clusters(
    dataset: datasets.Dataset,
    *,
    objective: str,
    scorer: str | Path | JuryScorer | None,
    names: Sequence[str] | None,
    prevalence: Sequence[float] | None,
    judgements: Judgements | None = None,
) -> Clusters:
    """Find the clusters of the training data.

    Args:
        dataset: The training pairs.
        objective: That of `PluralDPOConfig`.
        scorer: A jury reward model with these clusters; if the data say who judged by `rater_id` only, it adapts the
            raters that it was not saved with from these pairs.
        names: `K` names; None for those of the scorer, or of the data.
        prevalence: (K,) shares; None for those of the scorer, else of the training data: of their raters if there is a
            `rater_id`, else of their judgements by weight.
        judgements: The table that the pairs were made of, for a jury to read as it was written; None: the pairs.

    Raises:
        JuryError: No column says who judged, two columns do, or names, scorer and prevalence contradict each other.

    Example:
        >>> pairs = datasets.Dataset.from_list([{"cluster": "urban"}] * 3 + [{"cluster": "rural"}])
        >>> clusters = find_clusters(pairs, objective="steerable", scorer=None, names=None, prevalence=None)
        >>> clusters.names, clusters.prevalence.tolist()
        (['rural', 'urban'], [0.25, 0.75])
    """
    columns = dataset.column_names
    sources = [column for column in _SOURCES if column in columns]
    if len(sources) > 1:
        raise JuryError(f"the columns {sources[0]!r} and {sources[1]!r} both say who judged: remove one of them.")
    source = sources[0] if sources else None
    raters = rater_model = None
    if scorer is not None:
        config, state = _read_scorer(scorer)
        if names is not None and list(names) != config.cluster_names:
            raise JuryError(
                f"cluster_names are {list(names)}, but the scorer's are {config.cluster_names}: leave out one of them."
            )
        names = config.cluster_names
        prevalence = config.prevalence if prevalence is None else prevalence
        if source is None and "rater_id" in columns:
            if state.rater_model is None:
                raise JuryError(
                    "the scorer has no rater model, so it cannot tell which clusters the raters of the column "
                    "'rater_id' are in. Save the jury with JuryScorer.save_pretrained, or add a column 'membership'."
                )
            source, raters, rater_model = "rater_id", state.raters, state.rater_model
            if raters is None or not raters.knows([str(rater) for rater in set(dataset["rater_id"])]).all():
                raters = adapted_raters(scorer, dataset if judgements is None else judgements, raters)
    if source is None and objective == "mixture" and "rater_id" in columns and names is not None:
        source = "rater_id"
    if source is None:
        if objective == "average" and names is None:
            return Clusters([EVERYONE], np.ones(1), None)
        by_id = "scorer= (a jury, which adapts them), or cluster_names and objective='mixture', which finds clusters"
        by_id = f"or pass {by_id}" if "rater_id" in columns else f"or 'rater_id' with {by_id}"
        raise JuryError(
            f"no column says which clusters the raters are in (columns: {', '.join(columns)}). Add a column 'cluster' "
            f"(a name), 'membership' (a probability per cluster), 'weights' (the public of the row), {by_id}."
        )
    names = _names_in(dataset, source) if names is None else list(names)
    if not names or len(set(names)) < len(names) or not all(names):
        raise JuryError(f"cluster_names are {names}: use different, non-empty names, because they steer the policy.")
    shares = np.full(len(names), 1 / len(names))
    if prevalence is not None:
        shares = parse_weights(list(prevalence), names, shares)
    clusters = Clusters(names, shares, source, raters, rater_model)
    if prevalence is None and not clusters.learnt:
        membership, count = clusters.memberships(dataset), judgement_weights(dataset)
        if "rater_id" in columns:
            rater = np.unique([str(rater) for rater in dataset["rater_id"]], return_inverse=True)[1]
            people = np.ones(len(rater))
            if "rater_weight" in columns:
                people = np.array(list(dataset["rater_weight"]), dtype=np.float64)
            count = people / np.bincount(rater)[rater]
        shares = count @ membership / count.sum()
    return Clusters(names, shares, source, raters, rater_model)


def _read_scorer(scorer: str | Path | JuryScorer) -> tuple[JuryConfig, JuryState]:
    if isinstance(scorer, JuryScorer):
        return scorer.model.config, scorer.state
    config = load_config(scorer)
    return config, load_state(scorer, config)


def _names_in(dataset: datasets.Dataset, source: str) -> list[str]:
    """Return the clusters that a column names."""
    values = list(dataset[source])
    if all(isinstance(value, str) for value in values):
        return sorted(set(values) - {"prevalence", "uniform"})
    if all(isinstance(value, Mapping) for value in values):
        return list(dict.fromkeys(name for value in values for name in value))
    odd = next(value for value in values if not isinstance(value, str | Mapping))
    raise JuryError(
        f"the column {source!r} holds {odd!r}, which does not name the clusters, and a policy is steered by their "
        "names: set cluster_names in PluralDPOConfig, or pass scorer=."
    )


def judgement_weights(dataset: datasets.Dataset) -> np.ndarray:
    """Return `count` times `rater_weight` of each judgement divided by the mean, (N,); ones without these columns.

    Raises:
        JuryError: A count or weight is negative or no number, or all are 0; a column `weight`, which does not say what
            is weighed.

    Example:
        >>> judgement_weights(datasets.Dataset.from_dict({"rater_weight": [1, 3]})).tolist()
        [0.5, 1.5]
    """
    if "weight" in dataset.column_names and any(value != 1 for value in dataset["weight"]):
        raise JuryError(f"column 'weight' does not say what is weighed. Fix: {WEIGHT_FIX}.")
    total = np.ones(len(dataset))
    for column in (name for name in WEIGHTS if name in dataset.column_names):
        weight = np.array(list(dataset[column]), dtype=np.float64)
        bad = np.flatnonzero(~(np.isfinite(weight) & (weight >= 0)))
        if len(bad):
            raise JuryError(
                f"row {bad[0]}, column {column!r} is {weight[bad[0]]}: it is a number of at least 0. Fix: correct it."
            )
        total = total * weight
    if total.sum() == 0:
        raise JuryError(
            "the weights of all judgements are 0, so none counts. Fix: remove or correct the columns "
            f"{' and '.join(WEIGHTS)}."
        )
    return total / total.mean()
