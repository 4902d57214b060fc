"""How much a profile says about a rater: usable information, what clusters preserve of it, and how many are needed.

After Value Profiles (Sorensen and others 2025, arXiv 2503.15484). For a representation g of raters

    I(g(R) -> Y | X) = H(Y | X) - H(Y | X, g(R))         (Algorithm 1; both terms: mean loss on heldout raters, nats)

and the information preserved is I(g) / I(all fit judgements). Half of the raters train, each rater's judgements are
divided into those that may be read (fit) and those that are predicted. All representations share one decoder, the
item x profile table, so that only what they say of a rater differs. Knows nothing of files or pages.

Shapes: `N` answers, `R` raters, `S` cells, `V` candidate profiles, `K` clusters.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from plural_rlhf.methods.value_profiles.candidates import CandidateProfiles
from plural_rlhf.methods.value_profiles.encoders import AnswerEncoder, RaterEncoder
from plural_rlhf.methods.value_profiles.splits import RaterSplit, split_raters
from reward_models.analysis.answer_cells import (
    AnswerCells,
    answer_cells,
    shrunken_tables,
    shuffle_within_items,
    trait_codes,
)
from reward_models.analysis.groupings import cluster_log_lik
from reward_models.analysis.trait_model import fit_traits
from reward_models.errors import JuryError
from reward_models.fitting.em import FitConfig
from reward_models.fitting.latent_class import population
from reward_models.judgements.encoding import Encoded
from reward_models.judgements.records import Judgements
from reward_models.judgements.traits import MissingCodes
from reward_models.progress import track
from reward_models.seeds import seeded_rng
from reward_models.stats.judgement_means import two_way_intervals


__all__ = ["InformationRow", "ProfileReport", "usable_information"]

ANSWERS, PROFILE, ALL_TRAITS, RANDOM = "all fit judgements", "own profile", "all traits", "random groups"
CANDIDATES = 100
SIZES = (2, 4, 8, 16)


@dataclass(frozen=True)
class InformationRow:
    """What one representation of raters says of their heldout judgements.

    Attributes:
        name: The representation.
        source: `trait`, `all traits`, `clusters` (of Algorithm 2), `jury` (a mixture whose memberships are inferred),
            `profile`, `answers` or `control`.
        groups: Number of groups; 0 where raters are not grouped.
        info: Usable information, nats per judgement.
        low: Lower end of its 95 % interval, for other raters and items; nan with too few.
        high: Upper end.
        preserved: `info` as a share of that of all fit judgements; nan where those say nothing.
        per_split: `info` of each split.
        over_trait: `info` less that of the best single trait, on the same judgements, with the ends of its interval;
            None without traits and for traits themselves.
        over_demographics: The same against the best demographic grouping, all traits together included.
    """

    name: str
    source: str
    groups: int
    info: float
    low: float
    high: float
    preserved: float
    per_split: tuple[float, ...]
    over_trait: tuple[float, float, float] | None = None
    over_demographics: tuple[float, float, float] | None = None


@dataclass(frozen=True)
class ProfileReport:
    """Usable information of every representation.

    Attributes:
        rows: Traits, clusters, profile, all fit judgements, controls.
        encoder: Name of the encoder.
        baseline_nll: Loss of the item alone, H(Y | X), nats per judgement.
        splits: Number of splits of the raters.
        raters: Raters with enough judgements.
        left_out: Raters with too few.

    Example:
        >>> from reward_models import planted_judgements
        >>> judgements = planted_judgements("choice", num_raters=80, num_items=10).judgements
        >>> report = usable_information(judgements, sizes=(2, 4), splits=2)
        >>> report.row("2 clusters").preserved > 0.8, report.row("2 shuffled clusters").info < 0.05
        (True, True)
    """

    rows: list[InformationRow]
    encoder: str
    baseline_nll: float
    splits: int
    raters: int
    left_out: int = 0

    def row(self, name: str) -> InformationRow:
        """Return the row of a representation.

        Raises:
            KeyError: There is none of that name.
        """
        found = [row for row in self.rows if row.name == name]
        if not found:
            raise KeyError(f"no representation {name!r}. Fix: one of {', '.join(row.name for row in self.rows)}")
        return found[0]

    @property
    def curve(self) -> list[InformationRow]:
        """The rows of clusters by falling coarseness: the dimensionality curve."""
        return sorted((row for row in self.rows if row.source == "clusters"), key=lambda row: row.groups)

    @property
    def best_demographic(self) -> InformationRow | None:
        """The row of traits with most information; None for a table without traits."""
        traits = [row for row in self.rows if "trait" in row.source]
        return max(traits, key=lambda row: row.info) if traits else None


@dataclass
class _Gains:
    """Gains of one split over the item alone, (N,) nats by representation, with source and number of groups."""

    scored: AnswerCells
    base: np.ndarray
    columns: dict[str, np.ndarray] = field(default_factory=dict)
    kinds: dict[str, tuple[str, int]] = field(default_factory=dict)

    def add(self, name: str, source: str, groups: int, log_p: np.ndarray) -> None:
        self.columns[name], self.kinds[name] = log_p - self.base, (source, groups)


def usable_information(
    judgements: Judgements,
    *,
    enc: Encoded | None = None,
    encoder: RaterEncoder | None = None,
    sizes: Sequence[int] = SIZES,
    splits: int = 5,
    candidates: int = CANDIDATES,
    missing: MissingCodes = (),
    seed: int = 0,
) -> ProfileReport:
    """Measure what traits, clusters, profiles and all of a rater's judgements say of judgements not yet seen.

    Clusters are those of Algorithm 2 over the tables of `candidates` random training raters' profiles; a heldout rater
    is assigned by the fit judgements. Controls, which must come out at or below zero: random groups, and clusters of
    judgements that were shuffled among the raters of each item.

    Args:
        judgements: A table with raters; its `rater:` columns are the traits.
        enc: The table as `judgements.encode()` returns it, where that is at hand; None: it is encoded.
        encoder: Makes profiles of fit judgements; None: `AnswerEncoder`.
        sizes: Numbers of clusters.
        splits: Random halvings of the raters.
        candidates: `V`, at most the number of training raters.
        missing: Values of traits that mean "unknown".
        seed: Random seed.

    Raises:
        JuryError: A table of published shares, fewer than a split, or too few raters with four judgements.

    Example:
        >>> from reward_models import planted_judgements
        >>> judgements = planted_judgements("rating", num_raters=60, num_items=12).judgements
        >>> report = usable_information(judgements, sizes=(2,), splits=1)
        >>> [row.name for row in report.rows]
        ['2 clusters', 'jury of 2', 'own profile', 'all fit judgements', 'random groups', '2 shuffled clusters']
    """
    enc = judgements.encode() if enc is None else enc
    if enc.kind == "soft":
        raise JuryError(
            "kind='soft': a table of answer shares does not say which rater judged what. Fix: use judgements with "
            "rater_id"
        )
    listed = isinstance(sizes, Sequence) and not isinstance(sizes, str)
    if (
        not listed
        or splits < 1
        or not sizes
        or not all(isinstance(size, int | np.integer) and size >= 1 for size in sizes)
    ):
        raise JuryError(f"splits={splits}, sizes={sizes!r}: at least one split and one size of 1 or more. Fix: "
                        "e.g. splits=5, sizes=(2, 4, 8)")  # fmt: skip
    cells, encoder = answer_cells(enc), encoder or AnswerEncoder()
    traits = trait_codes(judgements, enc, missing)
    gains = []
    for number in track(range(splits), f"usable information ({encoder.name})"):
        split = split_raters(cells, seed=seed + number, largest=max(sizes))
        gains.append(_one_split(cells, split, encoder, traits, sizes, candidates, seed + number))
    rows = _rows(gains, enc.design)
    kept = split.raters
    base, weight = (np.concatenate(parts) for parts in ([g.base for g in gains], [g.scored.weight for g in gains]))
    return ProfileReport(
        rows=rows,
        encoder=encoder.name,
        baseline_nll=-float(np.average(base, weights=weight)),
        splits=splits,
        raters=int(kept),
        left_out=enc.n_raters - int(kept),
    )


def _one_split(
    cells: AnswerCells,
    split: RaterSplit,
    encoder: RaterEncoder,
    traits: dict[str, np.ndarray],
    sizes: Sequence[int],
    candidates: int,
    seed: int,
) -> _Gains:
    """Score every representation on the heldout judgements of the heldout raters."""
    rng = seeded_rng(seed, "representations of raters")
    train, scored = cells.select(split.train), cells.select(split.scored)
    everybody = np.zeros(cells.n_raters, dtype=np.int64)
    log_base = np.log(population(train.group_counts(everybody, 1)[:, 0], cells.cell_item))
    gains = _Gains(scored, log_base[scored.cell])
    for trait, codes in traits.items():
        table = shrunken_tables(train, codes, int(codes.max()) + 1, log_base)
        gains.add(trait, "trait", int(codes.max()) + 1, table[scored.cell, codes[scored.rater]])
    if len(traits) > 1:
        together = np.stack(list(traits.values()), axis=1)
        model = fit_traits(train.rater, train.cell, train.weight, together, log_base, cells.cell_item, seed=seed)
        gains.add(
            ALL_TRAITS, "all traits", int((together.max(0) + 1).sum()), model.log_probs(scored.rater, scored.cell)
        )
    profiles = CandidateProfiles.of(cells, split, encoder, candidates, seed)
    fit = cells.select(split.fit & ~split.train)
    for size in sizes:
        gains.add(f"{size} clusters", "clusters", size, profiles.cluster_log_p(size))
        gains.add(f"jury of {size}", "jury", size, cluster_log_lik(train, fit, scored, size, FitConfig(seed=seed)))
    gains.add(PROFILE, "profile", 0, profiles.own_log_p())
    gains.add(ANSWERS, "answers", 0, profiles.mixture_log_p())
    largest = max(sizes)
    drawn = rng.integers(largest, size=cells.n_raters)
    random = shrunken_tables(train, drawn, largest, log_base)
    gains.add(RANDOM, "control", largest, random[scored.cell, drawn[scored.rater]])
    # The gain of shuffled judgements is over their own baseline, that is over that of the shuffled scored cells.
    shuffled = shuffle_within_items(cells, rng)
    control = CandidateProfiles.of(shuffled, split, AnswerEncoder(), candidates, seed)
    back = gains.base - log_base[shuffled.select(split.scored).cell]
    for size in sizes:
        gains.add(f"{size} shuffled clusters", "control", size, control.cluster_log_p(size) + back)
    return gains


def _rows(gains: Sequence[_Gains], design: Any) -> list[InformationRow]:
    """Average the gains over splits, with intervals; compare with the best demographic grouping."""
    names = list(gains[0].columns)
    table = np.concatenate([np.stack([g.columns[name] for name in names], axis=1) for g in gains])
    weights = [g.scored.weight for g in gains]
    means = np.average(table, axis=0, weights=np.concatenate(weights))
    demographic = [i for i, name in enumerate(names) if "trait" in gains[0].kinds[name][0]]
    columns = [table]
    if demographic:
        best = max(demographic, key=lambda i: means[i])
        alone = max((i for i in demographic if gains[0].kinds[names[i]][0] == "trait"), key=lambda i: means[i])
        columns += [table - table[:, [alone]], table - table[:, [best]]]
    rater, item, count = (
        np.concatenate([getattr(g.scored, name) for g in gains]) for name in ("rater", "item", "count")
    )
    intervals = two_way_intervals(np.column_stack(columns), rater, item, count=count, design=design)
    everything = float(means[names.index(ANSWERS)])
    rows = []
    for i, name in enumerate(names):
        source, groups = gains[0].kinds[name]
        own = InformationRow(
            name=name,
            source=source,
            groups=groups,
            info=intervals[i].value,
            low=intervals[i].low,
            high=intervals[i].high,
            preserved=intervals[i].value / everything if everything > 0 else float("nan"),
            per_split=tuple(
                float(np.average(g.columns[name], weights=w)) for g, w in zip(gains, weights, strict=True)
            ),
        )
        if demographic and i not in demographic:
            over = [intervals[times * len(names) + i] for times in (1, 2)]
            trait, every = ((one.value, one.low, one.high) for one in over)
            own = dataclasses.replace(own, over_trait=trait, over_demographics=every)
        rows.append(own)
    return rows
