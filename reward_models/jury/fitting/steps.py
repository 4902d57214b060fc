"""Steps of `fit_jury` that need no language model: tables that are fitted together, the choice of K, and names.

Shapes: `U` texts, `D` features.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from reward_models.analysis.naming import changed_names, describe_clusters, item_labels
from reward_models.errors import JuryError
from reward_models.fitting.em import FitConfig
from reward_models.fitting.joint.choice import JOINT_CANDIDATES, choose_joint
from reward_models.fitting.joint.feature_choice import FeatureChoice
from reward_models.fitting.joint.fit import JointFit, fit_joint
from reward_models.fitting.rater_fit import RaterFit
from reward_models.fitting.selection import KSelection, only_candidate
from reward_models.judgements.encoding import Encoded, soft_as_choice
from reward_models.judgements.records import Judgements, judged_tables
from reward_models.judgements.texts import Text
from reward_models.jury.state import counts
from reward_models.raters.rater_model import Membership


__all__ = [
    "Clusters",
    "FittedJury",
    "JudgedTables",
    "Names",
    "Strangers",
    "described_clusters",
    "fit_texts_and_raters",
    "with_strangers",
]

Clusters = int | Sequence[int] | KSelection
"""K; candidates of which one is chosen; or a choice that was made."""
Names = Sequence[str] | Mapping[str, str]
"""Names of clusters, the largest first; or new names by the name that is found."""
Strangers = Literal["raters", "judgements"]
"""Who a rater without labels is taken for: a random rater of the fit, or whoever gave a random judgement."""


@dataclass(frozen=True)
class JudgedTables:
    """Tables that are fitted together; `JudgedTables.of` makes them.

    Attributes:
        encoded: One table of each kind; shares without raters as counted choices of a stand-in rater.
        first: The first table as it came.
        has_raters: Whether the tables say who judged.
        counts: What was judged, see `state.counts`.
        config: Settings of the fit.

    Example:
        >>> from reward_models import planted_judgements
        >>> JudgedTables.of(planted_judgements("rating").judgements, FitConfig()).has_raters
        True
    """

    encoded: list[Encoded]
    first: Encoded
    has_raters: bool
    counts: dict[str, int]
    config: FitConfig

    @classmethod
    def of(cls, judgements: Judgements | Sequence[Judgements], config: FitConfig) -> JudgedTables:
        """Encode one table, or several by the same raters.

        Raises:
            JudgementError: Something else than judgements.
            JuryError: No table, or a table without raters beside others.
        """
        encoded = [table.encode() for table in judged_tables(judgements)]
        if not encoded:
            raise JuryError("there is no table of judgements. Fix: pass one, or a list with one of each kind.")
        if all(enc.kind != "soft" for enc in encoded):
            return cls(encoded, encoded[0], True, counts(*encoded), config)
        if len(encoded) > 1:
            raise JuryError("a `soft` table has no raters that other tables could share. Fix: fit it alone.")
        of_shares = [soft_as_choice(encoded[0])]
        return cls(of_shares, encoded[0], False, counts(*encoded), replace(config, nuisance=False))


@dataclass(frozen=True)
class FittedJury:
    """What `fit_jury` found on the way; `JuryScorer.fitted` holds it until the process ends.

    Attributes:
        fit: Texts and raters, fitted together; it predicts what the jury predicts.
        selection: The comparison of numbers of clusters; None where K was given or the table has no raters.
        membership: Kind of codes of the raters, as chosen or given.
        features: The comparison of ways to read the texts; None where there was one.
        clusters: Per cluster `name`, `prevalence` and `answers`, see `describe_clusters`.
        uncalibrated: Why the heads were not put on one scale; None where they were.
        same_texts: Judged texts that read the same as another, and the one that stands for them in the fit.

    Example:
        >>> from reward_models import fit_jury, planted_judgements
        >>> from reward_models.jury.tiny import tiny_causal_lm, tiny_tokenizer
        >>> planted = planted_judgements("choice", num_raters=20, num_items=8)
        >>> scorer = fit_jury(planted.judgements, tiny_causal_lm(), tiny_tokenizer(), progress=False)
        >>> scorer.fitted.selection.num_clusters, len(scorer.fitted.fit.rater_ids)
        (2, 20)
    """

    fit: JointFit
    selection: KSelection | None
    membership: Membership
    features: FeatureChoice | None = None
    clusters: list[dict[str, Any]] = field(default_factory=list)
    uncalibrated: str | None = None
    same_texts: Mapping[Text, Text] = field(default_factory=dict)

    @property
    def label_fit(self) -> RaterFit:
        """The same clusters and rewards of all judged texts, as `reward_models.analysis` takes them."""
        fit, row = self.fit, {text: i for i, text in enumerate(self.fit.texts)}
        same = {text: row[other] for text, other in self.same_texts.items() if text not in row and other in row}
        texts, rewards = [*fit.texts, *same], fit.known_rewards[[*range(len(fit.texts)), *same.values()]]
        return RaterFit(fit.model, texts, rewards, fit.placement, fit.log_likelihood, fit.stability, history=[])


def fit_texts_and_raters(
    tables: JudgedTables,
    features: Sequence[np.ndarray],
    clusters: Clusters,
    membership: Membership | Literal["auto"],
    announce: Callable[[str], None],
    cache_dir: str | Path | None = None,
) -> FittedJury:
    """Choose the number of clusters where there is a choice, and fit texts and raters together.

    Args:
        tables: The judgements.
        features: (U, D) rows for the texts of each table.
        clusters: K; candidates; or a choice.
        membership: Kind of codes; "auto": compared as well.
        announce: Called with a sentence when a step begins.
        cache_dir: See `choose_joint`.

    Raises:
        JuryError: A number of clusters that the raters cannot support, or see `fit_joint`.

    Example:
        >>> from reward_models import planted_judgements
        >>> planted = planted_judgements("rating", num_items=8)
        >>> tables = JudgedTables.of(planted.judgements, FitConfig())
        >>> fit_texts_and_raters(tables, [planted.rewards], 2, "mixture", print).fit.num_clusters
        fitting texts and raters together: 240 judgements of 30 raters
        2
    """
    encoded, config = tables.encoded, tables.config
    amount = f"{tables.counts['judgements']:,} judgements of {tables.counts['raters']:,} raters"
    if not tables.has_raters and not isinstance(clusters, int):
        clusters = 1
    if not isinstance(clusters, int | KSelection) and len(set(clusters)) == 1 and membership != "auto":
        clusters = only_candidate(next(iter(clusters)))
    selection: KSelection | None = None
    if isinstance(clusters, KSelection):
        selection, clusters = clusters, clusters.num_clusters
    if isinstance(clusters, int) and membership != "auto":
        announce(f"fitting texts and raters together: {amount}")
        fit = fit_joint(encoded, features, membership, clusters, config=config)
        if not tables.has_raters:
            fit = replace(fit, placement=fit.model.prior_placement())
        elif membership == "mixture":
            _warn_of_empty_clusters(fit)
        return FittedJury(fit, selection, membership)
    sizes = [clusters] if isinstance(clusters, int) else sorted(set(clusters))
    candidates: list[tuple[Membership, int]] = [("mixture" if membership == "auto" else membership, k) for k in sizes]
    if membership == "auto":
        candidates += [candidate for candidate in JOINT_CANDIDATES if candidate[0] != "mixture"]
    if candidates == [("mixture", 1)]:
        return fit_texts_and_raters(tables, features, 1, "mixture", announce)
    announce(f"choosing the number of clusters on held-out raters and texts, and fitting: {amount}")
    choice = choose_joint(encoded, features, candidates, config=config, cache_dir=cache_dir)
    selection = KSelection(choice.table, choice.num_clusters, choice.reason)
    return FittedJury(choice.fit, selection, choice.membership)


def _warn_of_empty_clusters(fit: JointFit) -> None:
    """Warn of clusters, of a number that was asked for, to which no rater most probably belongs."""
    taken = np.unique(fit.responsibilities.argmax(1))
    empty = np.setdiff1d(np.arange(fit.num_clusters), taken)
    if len(empty):
        which = ", ".join(f"{number + 1} ({fit.prevalence[number]:.0%})" for number in empty)
        warnings.warn(
            f"{len(empty)} of {fit.num_clusters} clusters end empty: no rater most probably belongs to number {which} "
            "by share. They are kept, but the judgements hardly tell them from the others. Fix: ask for at most "
            f"{len(taken)}, or give candidates, e.g. clusters=(1, 2, 3), of which held-out raters and texts choose",
            UserWarning,
            stacklevel=4,
        )


def with_strangers(found: FittedJury, tables: JudgedTables, strangers: Strangers) -> FittedJury:
    """Return a fit that predicts raters without labels as asked for; all other predictions stay.

    Args:
        found: The fit.
        tables: The judgements that it was fitted to.
        strangers: See `Strangers`; `"judgements"` needs tables that say who judged.

    Example:
        >>> from reward_models import planted_judgements
        >>> planted = planted_judgements("rating", num_items=8)
        >>> tables = JudgedTables.of(planted.judgements, FitConfig())
        >>> found = fit_texts_and_raters(tables, [planted.rewards], 2, "mixture", lambda _: None)
        >>> by_judgements = with_strangers(found, tables, "judgements")
        >>> by_judgements.fit.placement.select(["somebody"]).sum().round(6)
        np.float64(1.0)
    """
    if strangers == "raters":
        return found
    placement = found.fit.placement.by_judgements(tables.encoded)
    return replace(found, fit=replace(found.fit, placement=placement))


def described_clusters(
    fit: JointFit, tables: JudgedTables, labels: Mapping[str, str] | None = None, names: Names | None = None
) -> list[dict[str, Any]]:
    """Name the clusters and say what sets each apart; of a factor model name its consensus and tastes.

    Args:
        fit: The fit.
        tables: The judgements.
        labels: Short names of items by item id; None: from their wordings.
        names: Names to use, see `describe_clusters`.

    Example:
        >>> from reward_models import planted_judgements
        >>> planted = planted_judgements("rating", num_items=8)
        >>> tables = JudgedTables.of(planted.judgements, FitConfig())
        >>> fit = fit_joint(tables.encoded, [planted.rewards], "factor", 1)
        >>> [cluster["name"] for cluster in described_clusters(fit, tables)]
        ['consensus', 'taste 1']
    """
    if fit.model.membership == "factor":
        usual = ["consensus", *(f"taste {k + 1}" for k in range(fit.num_clusters))]
    elif not tables.has_raters:
        usual = ["everyone"]
    else:
        known = {name: label for table in tables.encoded for name, label in item_labels(table).items()}
        return describe_clusters(fit, tables.encoded, labels=labels or known, names=names)
    named = usual if names is None else changed_names(names, usual)
    shares = np.maximum(fit.prevalence, 0.0)
    return [{"name": n, "prevalence": float(p), "answers": []} for n, p in zip(named, shares, strict=True)]
