"""Communities of a population: raters of one group by a trait, or of one learned cluster, and their share.

Knows the table of judgements; knows nothing of models and of training.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from reward_models.errors import JudgementError, did_you_mean, settings_or_default
from reward_models.fitting.em import FitConfig
from reward_models.fitting.rater_fit import fit_raters
from reward_models.fitting.selection import select_num_clusters
from reward_models.judgements.records import Judgements
from reward_models.judgements.traits import trait_groups


__all__ = [
    "FEWEST_RATERS",
    "Community",
    "communities_by_cluster",
    "communities_by_trait",
    "raters_by_cluster",
    "raters_by_trait",
]

FEWEST_RATERS = 20
"""A community of fewer people is refused: an adapter would learn these people, not what they have in common."""


@dataclass(frozen=True)
class Community:
    """A part of the population that gets an adapter of its own.

    Attributes:
        name: Its name: a value of a trait, or of a cluster.
        share: Its share of the population that the communities make up.
        raters: Ids of its raters.

    Example:
        >>> Community("strong democrat", 0.2, ["ann", "bob"]).key
        'strong_democrat'
    """

    name: str
    share: float
    raters: list[str]

    @property
    def key(self) -> str:
        """Its name as that of a folder and of an adapter: letters, digits and `_`."""
        return re.sub(r"\W+", "_", self.name).strip("_").lower() or "community"


def communities_by_trait(judgements: Judgements, trait: str, *, fewest: int = FEWEST_RATERS) -> list[Community]:
    """Divide the raters by the value of a trait; who has none belongs to no community.

    Args:
        judgements: A table with columns `rater:<trait>`. Sampling weights (`rater_weight`) count in the shares.
        trait: The trait, e.g. `party`. Numbers of more than twelve values are cut into six groups, see
            `trait_groups`.
        fewest: Smallest number of raters of a community.

    Raises:
        JudgementError: An unknown trait, fewer than two groups, two groups of one name, or a group of too few raters.

    Example:
        >>> from reward_models import planted_judgements
        >>> frame = planted_judgements("choice", num_raters=40, num_items=3).judgements.frame.copy()
        >>> frame["rater:side"] = ["left" if int(rater[1:]) % 4 else "right" for rater in frame["rater_id"]]
        >>> communities_by_trait(Judgements.from_frame(frame, kind="choice"), "side")
        Traceback (most recent call last):
        reward_models.errors.JudgementError: by 'side' there is a community of fewer than 20 raters: 'right' (10). ...
    """
    return _communities(judgements, raters_by_trait(judgements, trait), trait, fewest)


def raters_by_trait(judgements: Judgements, trait: str) -> dict[str, list[str]]:
    """Return the ids of the raters by the value of a trait; who has none is in no group.

    Raises:
        JudgementError: An unknown trait.

    Example:
        >>> from reward_models import planted_judgements
        >>> frame = planted_judgements("choice", num_raters=4, num_items=3).judgements.frame.copy()
        >>> frame["rater:side"] = ["left" if int(rater[1:]) else "right" for rater in frame["rater_id"]]
        >>> raters_by_trait(Judgements.from_frame(frame, kind="choice"), "side")
        {'left': ['r1', 'r2', 'r3'], 'right': ['r0']}
    """
    traits = [column.removeprefix("rater:") for column in judgements.traits]
    if trait not in traits:
        raise JudgementError(
            f"the table has no trait {trait!r}; it has {', '.join(map(repr, traits)) or 'none'}."
            f"{did_you_mean(trait, traits)} Fix: name one of them (columns rater:<trait>), or divide by clusters."
        )
    groups = trait_groups(judgements)[trait]
    members = {
        str(value): [rater for rater, of in zip(judgements.raters, groups, strict=True) if of == value]
        for value in groups.cat.categories
    }
    return {name: raters for name, raters in members.items() if raters}


def communities_by_cluster(
    judgements: Judgements,
    clusters: int | Sequence[int] = (1, 2, 3, 4),
    *,
    fewest: int = FEWEST_RATERS,
    config: FitConfig | None = None,
) -> list[Community]:
    """Divide the raters by the cluster that they most probably belong to, fitted to their labels alone.

    Args:
        judgements: A table with raters.
        clusters: The number of clusters, or candidates of which held-out raters choose one.
        fewest: Smallest number of raters of a community.
        config: Restarts, priors and seed.

    Raises:
        JudgementError: One cluster (there is nothing to divide), or a cluster of too few raters.

    Example:
        >>> from reward_models import planted_judgements
        >>> judgements = planted_judgements("choice", num_raters=60, num_items=12).judgements
        >>> [len(community.raters) for community in communities_by_cluster(judgements, 2)]
        [30, 30]
    """
    return _communities(judgements, raters_by_cluster(judgements, clusters, config=config), "clusters", fewest)


def raters_by_cluster(
    judgements: Judgements, clusters: int | Sequence[int] = (1, 2, 3, 4), *, config: FitConfig | None = None
) -> dict[str, list[str]]:
    """Return the ids of the raters by the cluster that they most probably belong to; see `communities_by_cluster`.

    Example:
        >>> from reward_models import planted_judgements
        >>> judgements = planted_judgements("choice", num_raters=60, num_items=12).judgements
        >>> {name: len(raters) for name, raters in raters_by_cluster(judgements, 2).items()}
        {'cluster 1': 30, 'cluster 2': 30}
    """
    config = settings_or_default(config, FitConfig)
    number = clusters if isinstance(clusters, int) else None
    if number is None:
        assert not isinstance(clusters, int)
        number = select_num_clusters(judgements, clusters, config, seed=config.seed).num_clusters
    fit = fit_raters(judgements.encode(), "mixture", number, config=config)
    most = fit.placement.memberships().argmax(axis=1)
    return {
        f"cluster {k + 1}": [rater for rater, of in zip(fit.rater_ids, most, strict=True) if of == k]
        for k in range(number)
    }


def _communities(judgements: Judgements, members: Mapping[str, list[str]], by: str, fewest: int) -> list[Community]:
    if len(members) < 2:
        raise JudgementError(
            f"by {by!r} there is one community ({', '.join(members)}), and its adapter would be the single tuned "
            "model. Fix: divide by another trait, or ask for more clusters."
        )
    small = [f"{name!r} ({len(raters)})" for name, raters in members.items() if len(raters) < fewest]
    if small:
        raise JudgementError(
            f"by {by!r} there is a community of fewer than {fewest} raters: {', '.join(small)}. An adapter would "
            "learn these people by heart, and could give away what each of them answered. Fix: join small groups in "
            "the table, ask for fewer clusters, or leave these raters out."
        )
    enc = judgements.encode()
    weight = dict(zip(enc.rater_ids, enc.rater_weight.tolist(), strict=True))
    sizes = np.array([sum(weight[rater] for rater in raters) for raters in members.values()])
    shares = (sizes / sizes.sum()).tolist()
    communities = [
        Community(name, share, raters) for (name, raters), share in zip(members.items(), shares, strict=True)
    ]
    keys = [community.key for community in communities]
    if len(set(keys)) < len(keys):
        raise JudgementError(
            f"by {by!r} two communities have the same name in letters and digits: {', '.join(map(repr, members))}. "
            "Fix: rename one of them in the table."
        )
    return communities
