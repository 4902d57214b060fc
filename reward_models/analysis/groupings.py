"""Predictive information of clusters and of demographic groups: the value of knowing a rater's group.

Usable information as in Value Profiles (Sorensen et al. 2025, arXiv 2503.15484, Algorithm 1): the drop of the loss on
new raters' answers when the grouping is known, in nats per answer. All groupings share one decoder, a table of answer
frequencies per item and group, so that only the grouping differs; all traits together, too many groups for a table,
have an additive model (`trait_model`). None of them has rater terms such as leniency.

Clusters are learnt on the training raters; a new rater's membership is inferred from half of the answers, and every
grouping is scored on the other half. Demographic groups need no such answers, and get none: the comparison is between
asking people some questions and asking them who they are. Two controls must come out at or below
zero: random groups, and clusters of answers shuffled among raters.

A table of frequencies says little where five people judge a text. With features of the texts everybody's reward is a
joint fit of texts and raters, clusters are one too, and demographic groups deviate from everybody as
`group_deviations` says. The second control is then clusters of answers drawn from everybody's reward: nothing is left
to shuffle where few judged a text. Knows nothing of where features come from.

Shapes: `N` answers, `R` raters, `I` items, `S` cells (all options of all items), `K` clusters, `G` groups.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from reward_models.analysis.answer_cells import (
    AnswerCells,
    answer_cells,
    shrunken_tables,
    shuffle_within_items,
    trait_codes,
)
from reward_models.analysis.group_deviations import fit_group_deviations, item_coordinates
from reward_models.analysis.naming import describe_clusters, name_clusters
from reward_models.analysis.trait_model import fit_traits
from reward_models.errors import JuryError, settings_or_default
from reward_models.fitting.em import FitConfig
from reward_models.fitting.joint.fit import JointFit, JointTables, fit_around
from reward_models.fitting.joint.strengths import fit_consensus
from reward_models.fitting.latent_class import fit_latent_classes, population
from reward_models.fitting.text_table import check_features, feature_rows
from reward_models.judgements.encoding import Encoded
from reward_models.judgements.records import Judgements
from reward_models.judgements.traits import MissingCodes
from reward_models.progress import track
from reward_models.raters.lbfgs import one_thread
from reward_models.raters.memberships import mixture_posterior, predictive_log_lik
from reward_models.raters.predictors import answer_log_lik
from reward_models.seeds import seeded_rng
from reward_models.stats.answers import Interval
from reward_models.stats.judgement_means import two_way_intervals
from reward_models.stats.resampling import halve_labels


__all__ = [
    "GroupingReport",
    "cluster_log_lik",
    "describe_clusters",
    "merge_groups",
    "name_clusters",
    "predictive_information",
]

ALL_TRAITS = "all traits together"
CLUSTERS, RANDOM, SHUFFLED = "clusters", "random groups", "clusters of shuffled answers"
DRAWN = "clusters of answers drawn without taste"


@dataclass(frozen=True)
class GroupingReport:
    """Predictive information of every grouping, on heldout answers of heldout raters.

    Attributes:
        rows: `grouping`, `source` (`"clusters"`, `"trait"`, `"merged trait"`, `"all traits"` or
            `"control"`), `n_groups`, `info`
            (nats per answer over knowing the item only), `low`, `high` (95 %, for other raters and items; nan with
            fewer than 12 raters or 5 items), `per_split`.
        baseline_nll: Loss without any grouping, nats per answer.
        paired_difference: Clusters minus the best demographic grouping on the same answers; None without traits.
        n_splits: Number of rater splits.

    Example:
        >>> from reward_models import planted_judgements
        >>> judgements = planted_judgements("choice", num_raters=40, num_items=10).judgements
        >>> report = predictive_information(judgements, 2, seeds=2)
        >>> [row["grouping"] for row in report.rows]
        ['clusters', 'random groups', 'clusters of shuffled answers']
        >>> report.clusters["low"] > 0, report.best_demographic
        (True, None)
    """

    rows: list[dict[str, Any]]
    baseline_nll: float
    paired_difference: Interval | None
    n_splits: int

    @property
    def clusters(self) -> dict[str, Any]:
        """The row of the learnt clusters."""
        return self.rows[0]

    @property
    def best_demographic(self) -> dict[str, Any] | None:
        """The row of the demographic grouping with most information: a trait, merged or not, or all; None without."""
        traits = [row for row in self.rows if "trait" in row["source"]]
        return max(traits, key=lambda row: row["info"]) if traits else None


def predictive_information(
    judgements: Judgements,
    num_clusters: int,
    features: np.ndarray | None = None,
    *,
    seeds: int = 5,
    config: FitConfig | None = None,
    missing: MissingCodes = (),
) -> GroupingReport:
    """Compare learnt clusters with every demographic trait of the table, and with all traits together.

    Clusters have seen half of a person's answers, demographic groups none.

    Args:
        judgements: A table with raters; its `rater:` columns are the traits. Numbers are binned (`trait_groups`);
            raters without a value form a group of their own.
        num_clusters: `K`; traits with more groups also enter merged down to at most `K`, without features.
        features: (U, D) rows for `judgements.encode().texts`, of ratings or pairs: everything is read off texts and
            judgements together, for texts that few people judged. None: answers to the same items.
        seeds: Number of random halvings of the raters into training and heldout.
        config: Settings of the fit of the clusters.
        missing: Values of traits that mean "unknown", e.g. `[99]` or `{"age": [99]}`; see `trait_groups`.

    Returns:
        The report; its first row is the clusters.

    Raises:
        JuryError: K that half of the raters cannot support, a table without raters, fewer than one split, or
            features of choices or that do not match the texts.

    Example:
        >>> from reward_models import planted_judgements
        >>> planted = planted_judgements("choice", num_raters=40, num_items=10)
        >>> frame = planted.judgements.frame
        >>> frame["rater:region"] = [("north", "south")[planted.cluster[int(r[1:])]] for r in frame["rater_id"]]
        >>> report = predictive_information(planted.judgements, 2, seeds=1)
        >>> {row["grouping"]: row["source"] for row in report.rows[:2]}
        {'clusters': 'clusters', 'region': 'trait'}
        >>> report.best_demographic["info"] > 0.2  # the region is the cluster, in this table
        True
    """
    enc = judgements.encode()
    if enc.kind == "soft":
        raise JuryError(
            "kind='soft': a table of answer shares does not say which rater answered what. Fix: use judgements with "
            "rater_id"
        )
    if seeds < 1:
        raise JuryError(f"seeds={seeds}: at least one split of the raters is needed. Fix: e.g. seeds=5")
    if num_clusters < 1 or enc.n_raters // 2 < num_clusters:
        raise JuryError(
            f"num_clusters={num_clusters} with {enc.n_raters} raters: clusters are fitted on half of the raters and "
            "scored on the others, so there must be twice as many raters as clusters, and at least one cluster. Fix: "
            "ask for fewer clusters, or bring more raters"
        )
    if features is not None and enc.kind == "choice":
        raise JuryError(
            "features of choices: questions with options are compared by the frequencies of their answers. Fix: leave "
            "features out"
        )
    traits = trait_codes(judgements, enc, missing)
    if features is None:
        one_split = partial(_one_split, answer_cells(enc), traits)
    else:
        [of_texts] = feature_rows([features])
        check_features(enc, of_texts)
        one_split = partial(_one_split_of_texts, enc, of_texts, traits)
    splits = [
        one_split(num_clusters, settings_or_default(config, FitConfig), seed)
        for seed in track(range(seeds), "clusters against demographic groups")
    ]

    names = list(splits[0].log_lik)
    gains = [np.stack([s.log_lik[name] - s.baseline for name in names], axis=1) for s in splits]
    pooled, weight = np.concatenate(gains), np.concatenate([s.scored.weight for s in splits])
    rows: list[dict[str, Any]] = [
        {"grouping": name, "source": source, "n_groups": n_groups}
        for name, (source, n_groups) in zip(names, splits[0].groups, strict=True)
    ]
    demographic = [i for i, row in enumerate(rows) if "trait" in row["source"]]
    columns = [pooled]
    if demographic:
        best = max(demographic, key=lambda i: np.average(pooled[:, i], weights=weight))
        columns.append(pooled[:, [0]] - pooled[:, [best]])
    rater = np.concatenate([s.scored.rater for s in splits])
    item, count = (np.concatenate([getattr(s.scored, name) for s in splits]) for name in ("item", "count"))
    intervals = two_way_intervals(np.column_stack(columns), rater, item, count=count, design=enc.design)
    for i, (row, interval) in enumerate(zip(rows, intervals, strict=False)):
        row |= {"info": interval.value, "low": interval.low, "high": interval.high}
        row["per_split"] = [
            float(np.average(split[:, i], weights=s.scored.weight)) for s, split in zip(splits, gains, strict=True)
        ]
    return GroupingReport(
        rows=rows,
        baseline_nll=-float(np.average(np.concatenate([s.baseline for s in splits]), weights=weight)),
        paired_difference=intervals[-1] if demographic else None,
        n_splits=seeds,
    )


@dataclass(frozen=True)
class _Split:
    """Log predictive probabilities (N,) of the scored answers of one split, without and with each grouping."""

    scored: AnswerCells
    baseline: np.ndarray
    log_lik: dict[str, np.ndarray]
    groups: list[tuple[str, int]]  # source and number of groups, in the order of `log_lik`


def _stream(seed: int) -> np.random.Generator:
    """Return the source of a split: answers and texts of one table are divided alike."""
    return seeded_rng(seed, "split of groupings")


def _one_split(
    table: AnswerCells, traits: dict[str, np.ndarray], num_clusters: int, config: FitConfig, seed: int
) -> _Split:
    """Fit every grouping on one half of the raters, and score it on half of the other raters' answers."""
    rng = _stream(seed)
    config = dataclasses.replace(config, seed=seed)
    is_train, adapting, scoring = _divide(table.rater, table.n_raters, rng)
    train, scored = table.select(is_train), table.select(scoring)
    everybody = np.zeros(table.n_raters, dtype=np.int64)
    base = np.log(population(train.group_counts(everybody, 1)[:, 0], table.cell_item))

    log_lik, groups = {}, []
    log_lik[CLUSTERS] = cluster_log_lik(train, table.select(adapting), scored, num_clusters, config)
    groups.append(("clusters", num_clusters))
    for trait, codes in traits.items():
        n_groups = int(codes.max()) + 1
        log_lik[trait] = _group_log_lik(train, scored, codes, base)
        groups.append(("trait", n_groups))
        if n_groups > num_clusters:
            merged = merge_groups(train.group_counts(codes, n_groups), table.cell_item, num_clusters)
            log_lik[f"{trait} (merged)"] = _group_log_lik(train, scored, merged[codes], base)
            groups.append(("merged trait", num_clusters))
    if len(traits) > 1:
        together = np.stack(list(traits.values()), axis=1)
        log_lik[ALL_TRAITS] = _traits_log_lik(train, scored, together, base, seed)
        groups.append(("all traits", int((together.max(0) + 1).sum())))
    log_lik[RANDOM] = _group_log_lik(train, scored, rng.integers(num_clusters, size=table.n_raters), base)
    shuffled = shuffle_within_items(table, rng)
    control = cluster_log_lik(
        shuffled.select(is_train), shuffled.select(adapting), shuffled.select(scoring), num_clusters, config
    )
    # The gain is over the shuffled answers' own baseline; the gain over `baseline` is what the caller takes.
    log_lik[SHUFFLED] = control - base[shuffled.select(scoring).cell] + base[scored.cell]
    groups += [("control", num_clusters)] * 2
    return _Split(scored, base[scored.cell], log_lik, groups)


def _divide(rater: np.ndarray, n_raters: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Divide (N,) answers: those of half of the raters, and two halves of those of each of the others."""
    in_train = np.zeros(n_raters, dtype=bool)
    in_train[rng.permutation(n_raters)[: n_raters // 2]] = True
    is_train = in_train[rater]
    half = halve_labels(rater, rng)
    return is_train, ~is_train & half, ~is_train & ~half


def _one_split_of_texts(
    enc: Encoded, features: np.ndarray, traits: dict[str, np.ndarray], num_clusters: int, config: FitConfig, seed: int
) -> _Split:
    """Do the same with rewards of texts in the place of tables of answers."""
    rng = _stream(seed)
    config = dataclasses.replace(config, seed=seed, nuisance=False)
    masks = _divide(enc.rater, enc.n_raters, rng)
    train, adapting, scored = (enc.select(mask) for mask in masks)
    everybody, clusters = _fits_of_texts(train, features, num_clusters, config)
    baseline = answer_log_lik(everybody.log_probs(scored, features), scored)
    adapted = clusters.adapt(adapting, features)
    log_lik = {CLUSTERS: answer_log_lik(adapted.log_probs(scored, features), scored)}
    groups = [("clusters", num_clusters)]

    z = item_coordinates(enc, features)

    def known(*codes: np.ndarray) -> np.ndarray:
        return fit_group_deviations(everybody, train, features, z, codes, seed=seed).log_lik(scored, features, codes)

    for trait, codes in traits.items():
        log_lik[trait] = known(codes)
        groups.append(("trait", int(codes.max()) + 1))
    if len(traits) > 1:
        log_lik[ALL_TRAITS] = known(*traits.values())
        groups.append(("all traits", sum(int(codes.max()) + 1 for codes in traits.values())))
    log_lik[RANDOM] = known(rng.integers(num_clusters, size=enc.n_raters))
    drawn = _draw_answers(everybody, enc, features, rng)
    train, adapting, alike = (drawn.select(mask) for mask in masks)
    of_drawn, clusters = _fits_of_texts(train, features, num_clusters, config)
    adapted = clusters.adapt(adapting, features)
    gain = answer_log_lik(adapted.log_probs(alike, features), alike)
    gain -= answer_log_lik(of_drawn.log_probs(alike, features), alike)
    log_lik[DRAWN] = baseline + gain
    groups += [("control", num_clusters)] * 2
    return _Split(answer_cells(enc).select(masks[2]), baseline, log_lik, groups)


def _fits_of_texts(
    train: Encoded, features: np.ndarray, num_clusters: int, config: FitConfig
) -> tuple[JointFit, JointFit]:
    """Fit one reward for everybody, and clusters."""
    train = train.select(np.arange(len(train)), drop_raters=True)
    with one_thread():
        tables = JointTables.of(train, features)
        consensus = fit_consensus(tables.problem("mixture", 1, config))
        return (
            fit_around(tables, consensus, "mixture", 1, config),
            fit_around(tables, consensus, "mixture", num_clusters, config),
        )


def _draw_answers(fit: JointFit, enc: Encoded, features: np.ndarray, rng: np.random.Generator) -> Encoded:
    """Draw every answer from what a fit predicts for a stranger."""
    shares = np.exp(fit.log_probs(enc, features)).cumsum(1)
    label = (shares < rng.random((len(enc), 1)) * shares[:, -1:]).sum(1)
    return dataclasses.replace(enc, label=label)


def merge_groups(counts: np.ndarray, cell_item: np.ndarray, at_most: int) -> np.ndarray:
    """Merge groups greedily: in each step the two whose merger loses least log-likelihood (agglomerative, after Ward).

    Args:
        counts: (S, G) answers per cell and group.
        cell_item: (S,) item of each cell.
        at_most: Number of groups at which to stop.

    Returns:
        (G,) new group of each group, 0 .. at_most - 1.

    Example:
        >>> counts = np.array([[9, 1, 8], [1, 9, 2]])  # one item with two options, three groups
        >>> merge_groups(counts, np.array([0, 0]), 2).tolist()
        [0, 1, 0]
    """

    def log_lik(c: np.ndarray) -> np.ndarray:
        totals = np.zeros((cell_item.max() + 1, c.shape[1]))
        np.add.at(totals, cell_item, c)
        return (c * np.log(np.maximum(c, 1e-300))).sum(0) - (totals * np.log(np.maximum(totals, 1e-300))).sum(0)

    label = np.arange(counts.shape[1])
    merged = counts.astype(np.float64)
    while merged.shape[1] > at_most:
        separate = log_lik(merged)
        first, second = np.triu_indices(merged.shape[1], k=1)
        cost = separate[first] + separate[second] - log_lik(merged[:, first] + merged[:, second])
        a, b = first[cost.argmin()], second[cost.argmin()]
        merged[:, a] += merged[:, b]
        merged = np.delete(merged, b, axis=1)
        label = np.where(label == b, a, label)
        label = label - (label > b)
    return label


def cluster_log_lik(
    train: AnswerCells, adapting: AnswerCells, scored: AnswerCells, num_clusters: int, config: FitConfig
) -> np.ndarray:
    """Fit latent classes to training raters, and predict other raters from some of their answers.

    Args:
        train: Answers of the training raters.
        adapting: Answers that the memberships of the others are inferred from.
        scored: `N` answers of the others.
        num_clusters: `K`.
        config: Settings of the fit.

    Returns:
        (N,) log predictive probabilities.

    Example:
        >>> from reward_models import planted_judgements
        >>> planted = planted_judgements("choice", num_raters=60, num_items=10)
        >>> cells = answer_cells(planted.judgements.encode())
        >>> new, late = cells.rater >= 40, cells.item >= 5
        >>> parts = [cells.select(part) for part in (~new, new & ~late, new & late)]
        >>> round(float(cluster_log_lik(*parts, 2, FitConfig()).mean()), 1)  # a guess among three would be -1.1
        -0.7
    """
    raters, rater = np.unique(train.rater, return_inverse=True)
    fit = fit_latent_classes(
        rater,
        train.cell,
        train.count,
        len(raters),
        train.cell_item,
        num_clusters,
        config,
        rater_weight=train.rater_weight[raters],
    )
    log_lik = adapting.count[:, None] * fit.log_p[adapting.cell]
    posterior = mixture_posterior(log_lik, adapting.rater, adapting.n_raters, fit.prevalence)
    return predictive_log_lik(posterior[scored.rater], fit.log_p[scored.cell])


def _group_log_lik(train: AnswerCells, scored: AnswerCells, group: np.ndarray, base: np.ndarray) -> np.ndarray:
    """Return (N,) log probabilities of the scored answers under smoothed tables per group."""
    return shrunken_tables(train, group, int(group.max()) + 1, base)[scored.cell, group[scored.rater]]


def _traits_log_lik(
    train: AnswerCells, scored: AnswerCells, groups: np.ndarray, base: np.ndarray, seed: int
) -> np.ndarray:
    """Return (N,) log probabilities of the scored answers under all traits (R, T) together."""
    model = fit_traits(train.rater, train.cell, train.weight, groups, base, train.cell_item, seed=seed)
    return model.log_probs(scored.rater, scored.cell)
