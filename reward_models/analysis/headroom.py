"""Measure the gain from modelling who judges: a ladder of models and a verdict in words.

The ladder is: item mean; + rater terms; + taste of rank 1, 2; mixture of K = 2, 3, ... clusters. Every rung is fitted
to the same labels and scored on the same heldout labels of the same raters. Without features no text is read: every
text has free parameters. With features every rung is a joint fit of texts and raters (`fitting.joint`, without rank
2, which costs several times as much), and is scored on texts that nobody judged in training (`"new"`), or on known
texts as without (`"known"`): where few people judge a text, its words tell more of it than they do. The item mean is
Bradley-Terry (pairs), multinomial logit (choices) or proportional odds (ratings): the best that one reward for
everybody can do.

Rater terms are differences between raters besides taste: leniency and scale of ratings; scale, tie propensity and
position of pairs; for choices a tendency to the end, and to the ends, of the list of options. Knows nothing of where
features come from.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import numpy as np

from reward_models.errors import JuryError, did_you_mean
from reward_models.fitting.em import FitConfig
from reward_models.fitting.joint.choice import heldout_units
from reward_models.fitting.joint.fit import fit_joint
from reward_models.fitting.mixture import fit_mixture
from reward_models.fitting.rater_fit import fit_raters
from reward_models.judgements.encoding import Encoded
from reward_models.judgements.records import Judgements, judged_table
from reward_models.progress import track
from reward_models.raters.predictors import Predictor, answer_log_lik
from reward_models.seeds import seeded_rng
from reward_models.stats.answers import Interval
from reward_models.stats.judgement_means import two_way_intervals
from reward_models.stats.resampling import heldout_labels
from reward_models.stats.verdicts import outcome, rules_out_gain, shortage


__all__ = ["Headroom", "headroom"]

HELDOUT_SHARE = 0.2
ITEM_MEAN, RATER_TERMS = "item mean", "rater terms"


@dataclass(frozen=True)
class Headroom:
    """The gain of each rung of the ladder, and the verdict.

    Attributes:
        rungs: Per rung: `name`, `nll` (nats per heldout judgement), `info` (gain over the item mean, nats), `low` and
            `high` (95 %, for other raters and items; nan with fewer than 12 raters or 5 items).
        verdict: Whether a jury is worth fitting, and why, in words: `taste signal`, `one main axis`, `no taste signal`
            or `undecided` (see `stats.verdicts`).
        best: Name of the rung with the lowest heldout loss.
        n_judgements: Number of heldout judgements.

    Example:
        >>> from reward_models import planted_judgements
        >>> planted = planted_judgements("choice", num_raters=40, num_items=10)
        >>> ladder = headroom(planted.judgements, max_clusters=2)
        >>> for rung in ladder.rungs:
        ...     print(f"{rung['name']:14}{rung['info']:+.2f}")
        item mean     +0.00
        rater terms   -0.01
        rank 1        +0.36
        rank 2        +0.35
        mixture K=2   +0.40
    """

    rungs: list[dict[str, Any]]
    verdict: str
    best: str
    n_judgements: int


def headroom(
    judgements: Judgements,
    max_clusters: int = 4,
    seed: int = 0,
    features: np.ndarray | None = None,
    *,
    texts: Literal["new", "known"] = "new",
) -> Headroom:
    """Score the ladder of models on a heldout fifth of each rater's labels, or on texts that nobody judged.

    Call it before you fit a jury: it says whether raters differ in what they prefer, or only in how they judge, or
    not at all.

    Args:
        judgements: A table with raters; those with fewer than three judgements are fitted but not scored.
        max_clusters: Largest K of the mixtures.
        seed: Random seed of the split, the starting points and the resamples.
        features: (U, D) rows for `judgements.encode().texts`: every rung predicts rewards from them, texts and
            raters in one likelihood. None: labels only, on texts that others judged.
        texts: What rungs with features are scored on. `"new"`: a fifth of the prompts with all their texts (of the
            responses where prompts are fewer than ten, unless these offer the same ones) and every judgement that
            mentions one, of raters who have others; that is more than a fifth where a judgement compares responses.
            `"known"`: a fifth of each rater's labels, as without features.

    Returns:
        Rungs, verdict and best rung.

    Raises:
        JuryError: Several tables; a table without raters, with one rater, or in which nothing can be held out; or
            features that do not match the texts.

    Example:
        >>> from reward_models import planted_judgements
        >>> planted = planted_judgements("choice", num_raters=40, num_items=10, num_clusters=2)
        >>> headroom(planted.judgements, max_clusters=2).verdict
        'taste signal: raters differ in what they want. ...; a jury is worth fitting'
        >>> same = planted_judgements("choice", num_raters=100, num_items=12, num_clusters=1)
        >>> headroom(same.judgements, max_clusters=2).verdict
        'no taste signal: plain Bradley-Terry is enough. ...; fit one cluster (clusters=1)'
        >>> three = planted_judgements("choice", num_raters=3, num_items=10)
        >>> headroom(three.judgements, max_clusters=2).verdict
        'undecided: 3 raters are too few to tell a difference from chance (at least 12 are needed). ...'
    """
    enc = judged_table(judgements, "measure each by itself, or fit_jury on all").encode()
    if enc.kind == "soft":
        raise JuryError(
            "kind='soft': a table of answer shares does not say who answered, so headroom cannot be measured. Fix: "
            "use judgements with rater_id"
        )
    if enc.n_raters < 2:
        raise JuryError(
            f"{enc.n_raters} rater: headroom is the gain from telling raters apart. Fix: use a table with at least 2"
        )
    if texts not in ("new", "known"):
        raise JuryError(f"texts={texts!r} is not one of 'new', 'known'.{did_you_mean(texts, ('new', 'known'))}")
    new_texts = features is not None and texts == "new"
    train, test = _split_texts(enc, seed) if new_texts else _split(enc, seed)
    fits = _ladder(train, features, min(max_clusters, enc.n_raters), seed)
    names = list(fits)
    log_lik = np.stack(
        [
            answer_log_lik(fit().log_probs(test, features), test)
            for fit in track(fits.values(), "headroom: models", len(fits))
        ],
        axis=1,
    )
    mean = np.average(log_lik, axis=0, weights=test.weight)
    best, taste = int(mean.argmax()), 2 + int(mean[2:].argmax())
    gains = np.column_stack([log_lik - log_lik[:, [0]], log_lik[:, taste] - log_lik[:, 1]])
    intervals = two_way_intervals(gains, test.rater, test.item, count=test.count, design=test.design)
    rungs = [
        {"name": name, "nll": float(-value), "info": i.value, "low": i.low, "high": i.high}
        for name, value, i in zip(names, mean, intervals, strict=False)
    ]
    verdict = _verdict(names[taste], intervals[taste], intervals[1], intervals[-1], enc.kind)
    return Headroom(rungs=rungs, verdict=verdict, best=names[best], n_judgements=len(test))


def _ladder(
    train: Encoded, features: np.ndarray | None, max_clusters: int, seed: int
) -> dict[str, Callable[[], Predictor]]:
    """How to fit each rung, by name, simplest first."""
    plain, terms = FitConfig(seed=seed, nuisance=False), FitConfig(seed=seed, style=True)
    config = FitConfig(seed=seed, restarts=2)
    prefix = "" if train.kind == "choice" else f"{RATER_TERMS} + "
    if features is not None:
        fit = partial(fit_joint, train, features)
        return {
            ITEM_MEAN: partial(fit, "mixture", 1, config=plain),
            RATER_TERMS: partial(fit, "mixture", 1, config=terms),
            f"{prefix}rank 1": partial(fit, "factor", 1, config=config),
            **{
                f"{prefix}mixture K={k}": partial(fit, "mixture", k, config=config) for k in range(2, max_clusters + 1)
            },
        }
    return {
        ITEM_MEAN: partial(fit_mixture, train, 1, plain),
        RATER_TERMS: partial(fit_raters, train, "mixture", 1, config=terms),
        **{f"{prefix}rank {rank}": partial(fit_raters, train, "factor", rank, config=config) for rank in (1, 2)},
        **{f"{prefix}mixture K={k}": partial(fit_mixture, train, k, config) for k in range(2, max_clusters + 1)},
    }


def _split(enc: Encoded, seed: int) -> tuple[Encoded, Encoded]:
    """Hold out labels whose texts others have judged too."""
    held = heldout_labels(enc.rater, HELDOUT_SHARE, seeded_rng(seed, "heldout labels of headroom"))
    seen = np.zeros(enc.n_texts, dtype=bool)
    kept = enc.alternatives[~held]
    seen[kept[kept >= 0]] = True
    test = enc.select(held & (seen[enc.alternatives] | (enc.alternatives < 0)).all(1))
    if not len(test):
        raise JuryError(
            f"none of {len(enc)} judgements can be held out. Fix: use a table in which raters have at least three "
            "judgements, of texts that were judged more than once"
        )
    return enc.select(~held), test


def _split_texts(enc: Encoded, seed: int) -> tuple[Encoded, Encoded]:
    """Hold out a fifth of the prompts or responses, with every judgement that mentions one and whose rater has others.

    Which of the two, `heldout_units` says, as for the choice of clusters: what is held out is known in no other place.
    """
    units = heldout_units(enc.texts)
    names = list(dict.fromkeys(units.values()))
    drawn = seeded_rng(seed, "heldout texts of headroom").permutation(len(names))
    out = {names[i] for i in drawn[: round(HELDOUT_SHARE * len(names))]}
    unseen = np.array([*(units[text] in out for text in enc.texts), False])  # the last entry stands for the padding
    held = unseen[enc.alternatives].any(1)
    known = np.bincount(enc.rater[~held], minlength=enc.n_raters)[enc.rater] > 0
    if not (held & known).any():
        raise JuryError(
            f"none of {enc.n_texts} texts can be held out. Fix: use a table in which raters judged several texts, or "
            "leave features out"
        )
    return enc.select(~held), enc.select(held & known)


def _verdict(name: str, taste: Interval, terms: Interval, over_terms: Interval, kind: str) -> str:
    """Return the verdict in words.

    Args:
        name: Name of the best taste rung.
        taste: Its gain over the item mean.
        terms: Gain of rater terms over the item mean.
        over_terms: Gain of the taste rung over rater terms.
        kind: Kind of the judgements.
    """
    gain, beyond = _nats(taste), _nats(over_terms)
    too_few = shortage(taste.n_raters, taste.n_items)
    if too_few:
        return (
            f"undecided: {too_few}. {name} gains {gain} per held-out judgement. Collect judgements of more raters and "
            "items; until then fit one cluster (clusters=1)"
        )
    tells_apart = any(outcome(interval.low, interval.high) == "better" for interval in (taste, terms))
    if tells_apart and outcome(over_terms.low, over_terms.high) == "better":
        return (
            f"taste signal: raters differ in what they want. Against one reward for everybody, {name} gains {gain} "
            f"per held-out judgement, {beyond} of it beyond rater terms; a jury is worth fitting"
        )
    if kind == "choice" and outcome(taste.low, taste.high) == "better":
        return (
            f"one main axis: against one reward for everybody, {name} gains {gain} per held-out judgement, but a "
            f"rater's tendency towards an option's place in the list explains as much ({_nats(terms)}). If the "
            "options have a common order (less ... more), that tendency is an opinion and a small jury is worth "
            "fitting; if not, it is a habit"
        )
    if not rules_out_gain(min(over_terms.high, taste.high)):
        return (
            f"undecided: {name} gains {gain} per held-out judgement against one reward for everybody, {beyond} beyond "
            "rater terms, and the interval allows both no gain and one that is worth a jury. Collect more judgements "
            "per rater, or offer several numbers of clusters (clusters=[1, 2, 3]), of which held-out raters choose one"
        )
    if not tells_apart:
        return (
            f"no taste signal: plain Bradley-Terry is enough. The best model that tells raters apart ({name}) gains "
            f"{gain} per held-out judgement; fit one cluster (clusters=1)"
        )
    return (
        f"no taste signal beyond rater terms: raters differ in how they use the scale ({_nats(terms)} per held-out "
        f"judgement), not in what they prefer ({name} adds {beyond}). Plain Bradley-Terry with rater terms is enough; "
        "fit one cluster (clusters=1)"
    )


def _nats(gain: Interval) -> str:
    known = gain.low == gain.low
    return f"{gain.value:+.3f} nats" + (f" [{gain.low:+.3f}, {gain.high:+.3f}]" if known else "")
