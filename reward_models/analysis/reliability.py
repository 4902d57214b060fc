"""How far the answers can be relied on: agreement, test and retest, and raters who answer without reading.

Agreement between raters (Krippendorff's alpha) says how much they differ, which in a survey of opinions is the finding
and no fault. What one rater says twice is a fault if it differs: it bounds what any model of that rater can predict.
Straight-lining is the same option throughout; acquiescence, a tendency towards one end of the options whatever is
asked. Both are habits or opinions, which one table cannot tell apart, so raters are counted and none is dropped. Knows
nothing of clusters' fits or models.

Shapes: `R` raters, `I` items, `A` answers.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np
import pandas as pd

from reward_models.judgements.encoding import Encoded
from reward_models.seeds import seeded_rng
from reward_models.stats.agreement import AlphaLevel, alpha_of_counts, answer_value_counts, krippendorff_alpha
from reward_models.stats.resampling import resampled_interval
from reward_models.stats.shares import share_interval
from reward_models.stats.verdicts import MIN_ITEMS, MIN_RATERS


__all__ = ["RaterStyle", "Reliability", "Retest", "rater_styles", "reliability", "retest"]

FEWEST_ANSWERS = 5  # of a rater whose use of the options is judged
BOOTSTRAP_DRAWS = 200


@dataclass(frozen=True)
class Retest:
    """What raters said who judged the same texts twice, under two item ids.

    Attributes:
        n_pairs: Repeated judgements.
        n_raters: Raters who have some.
        agreement: Share of repetitions with the same answer.
        low: Lower end of its 95 % interval.
        high: Upper end of it.
        kappa: Agreement beyond chance, `(agreement - chance) / (1 - chance)`; chance is that of two answers from the
            distribution of all repeated judgements.

    Example:
        >>> Retest(n_pairs=40, n_raters=40, agreement=0.9, low=0.77, high=0.96, kappa=0.8).kappa
        0.8
    """

    n_pairs: int
    n_raters: int
    agreement: float
    low: float
    high: float
    kappa: float


@dataclass(frozen=True)
class RaterStyle:
    """How one rater uses the options.

    Attributes:
        rater_id: The rater.
        n: Judgements of items with the commonest number of answers.
        same_answer: Share of them with the rater's most frequent answer (first, second, ... option or level).
        straight_line: Whether all of five or more are the same.
        acquiescence: Mean place of the answers, 0 for the first option and 1 for the last, minus what all raters give
            to the same items: above 0 for a tendency to the last option.

    Example:
        >>> RaterStyle("ann", 10, same_answer=1.0, straight_line=True, acquiescence=0.4).straight_line
        True
    """

    rater_id: str
    n: int
    same_answer: float
    straight_line: bool
    acquiescence: float


@dataclass(frozen=True)
class Reliability:
    """Agreement and answering styles of a table.

    Attributes:
        alpha: Krippendorff's alpha over all raters: 1 if all agree, 0 if as by chance.
        alpha_low: Lower end of its 95 % interval, items resampled; nan with fewer than 5 items.
        alpha_high: Upper end of it.
        level: Level of measurement of alpha: `"ordinal"` for ratings, else `"nominal"`.
        retest: What was judged twice; None if nothing was.
        styles: One entry per rater with five or more comparable judgements; empty for pairs.
        straight_liners: Share of those raters who gave the same answer throughout.
        expected_straight_liners: The share to expect if each rater's answers were those of all raters, item by item.
        habit: Correlation of the acquiescence in two halves of a rater's items, stepped up to all items (Spearman and
            Brown): 0 if there is no tendency that lasts, 1 if there is nothing else. nan if nothing varies.

    Example:
        >>> from reward_models import planted_judgements
        >>> table = reliability(planted_judgements("rating", num_raters=30, num_items=10).judgements.encode())
        >>> table.level, len(table.styles), table.retest
        ('ordinal', 30, None)
    """

    alpha: float
    alpha_low: float
    alpha_high: float
    level: str
    retest: Retest | None
    styles: list[RaterStyle]
    straight_liners: float
    expected_straight_liners: float
    habit: float


def reliability(enc: Encoded, *, seed: int = 0) -> Reliability:
    """Measure the reliability of judgements.

    Args:
        enc: A table with raters.
        seed: Random seed of the bootstrap and of the halves of the items.

    Example:
        Twenty raters of ten questions, one of whom always takes the first option:

        >>> from reward_models import Judgements, planted_judgements
        >>> frame = planted_judgements("choice", num_raters=20, num_items=10).judgements.frame
        >>> frame.loc[frame["rater_id"] == "r3", "choice"] = 0
        >>> table = reliability(Judgements.from_frame(frame, kind="choice").encode())
        >>> [style.rater_id for style in table.styles if style.straight_line], table.straight_liners
        (['r3'], 0.05)
    """
    level: AlphaLevel = "ordinal" if enc.kind == "rating" else "nominal"
    answers = enc.answer_matrix()
    alpha = krippendorff_alpha(answers, level, missing=-1)
    low, high = _alpha_interval(answers, level, seed)
    styles, expected, habit = _styles(enc, seed)
    lines = float(np.mean([style.straight_line for style in styles])) if styles else float("nan")
    return Reliability(alpha, low, high, level, retest(enc), styles, lines, expected, habit)


def rater_styles(enc: Encoded) -> list[RaterStyle]:
    """Return how each rater with five or more comparable judgements uses the options; see `Reliability`.

    Example:
        >>> from reward_models import planted_judgements
        >>> styles = rater_styles(planted_judgements("rating", num_raters=12, num_items=8).judgements.encode())
        >>> len(styles), styles[0].n
        (12, 8)
    """
    return _styles(enc, 0)[0]


def retest(enc: Encoded) -> Retest | None:
    """Compare the judgements of raters who judged the same texts under two item ids.

    A table may not hold two judgements of one rater and one item: the second occasion has an item id of its own, and
    the same wording and options.

    Returns:
        The comparison; None if nobody judged the same twice.

    Example:
        >>> import pandas as pd
        >>> from reward_models import Judgements, planted_judgements
        >>> frame = planted_judgements("choice", num_raters=20, num_items=6).judgements.frame
        >>> again = frame[frame["item_id"] == frame["item_id"].iloc[0]].assign(item_id="second time")
        >>> again.iloc[0, again.columns.get_loc("choice")] = (again["choice"].iloc[0] + 1) % 3  # one has changed
        >>> twice = retest(Judgements.from_frame(pd.concat([frame, again]), kind="choice").encode())
        >>> twice.n_pairs, twice.agreement
        (20, 0.95)
    """
    if enc.kind == "soft":
        return None
    _, content = np.unique(np.sort(enc.item_alternatives, axis=1), axis=0, return_inverse=True)
    table = pd.DataFrame({"rater": enc.rater, "item": enc.item, "answer": _answers(enc)})
    table["content"] = content.ravel()[enc.item]
    once = table.drop_duplicates(["rater", "item"])
    pairs = once.groupby(["rater", "content"], sort=False)["answer"].agg(["first", "last", "size"]).reset_index()
    pairs = pairs[pairs["size"] > 1]
    if pairs.empty:
        return None
    both = pairs.melt("content", ["first", "last"], value_name="answer")
    shares = both.groupby("content")["answer"].value_counts(normalize=True)
    chance = float(pairs["content"].map((shares**2).groupby("content").sum()).mean())
    n_raters = int(pairs["rater"].nunique())
    agreement = float((pairs["first"] == pairs["last"]).mean())
    low, high = share_interval(np.array(agreement), np.array(n_raters))  # repetitions of one rater go together
    kappa = (agreement - chance) / (1 - chance) if chance < 1 else float("nan")
    return Retest(len(pairs), n_raters, agreement, float(low), float(high), kappa)


def _answers(enc: Encoded) -> np.ndarray:
    """(N,) what was answered: the level, or the text, whichever way round a pair stands; -1 for a tie."""
    if enc.kind == "rating":
        return enc.label
    width = enc.alternatives.shape[1]
    return np.where(enc.label < width, enc.alternatives[np.arange(len(enc)), np.minimum(enc.label, width - 1)], -1)


def _alpha_interval(answers: np.ndarray, level: AlphaLevel, seed: int) -> tuple[float, float]:
    """Return the 95 % interval of alpha, items resampled; nan with too few items."""
    values, counts = answer_value_counts(answers, missing=-1)
    if len(counts) < MIN_ITEMS:
        return float("nan"), float("nan")
    rng = seeded_rng(seed, "bootstrap of reliability")
    return resampled_interval(
        lambda items: alpha_of_counts(values, counts[items], level), len(counts), rng, draws=BOOTSTRAP_DRAWS
    )


def _styles(enc: Encoded, seed: int) -> tuple[list[RaterStyle], float, float]:
    """Return the styles of the raters, the share of straight lines to expect, and how far acquiescence lasts."""
    items, width = _comparable_items(enc)
    answers = enc.answer_matrix()[:, items] if len(items) else np.zeros((0, 0), dtype=np.int64)
    answered = answers >= 0
    n = answered.sum(axis=1)
    raters = np.flatnonzero(n >= FEWEST_ANSWERS)
    if not len(raters) or width < 2:
        return [], float("nan"), float("nan")
    chosen = np.stack([answers == option for option in range(width)], axis=2)  # (R, J, A)
    shares = chosen.sum(axis=0) / np.maximum(answered.sum(axis=0), 1)[:, None]  # (J, A)
    with np.errstate(divide="ignore"):
        straight = np.exp(answered[raters].astype(float) @ np.maximum(np.log(shares), -1e3)).sum(axis=1)
    place = answers / (width - 1)
    mean = np.where(answered, place, 0.0).sum(axis=0) / np.maximum(answered.sum(axis=0), 1)
    above = np.where(answered, place - mean, 0.0)
    same = chosen.sum(axis=1).max(axis=1)
    styles = [
        RaterStyle(
            enc.rater_ids[u], int(n[u]), float(same[u] / n[u]), bool(same[u] == n[u]), float(above[u].sum() / n[u])
        )
        for u in raters
    ]
    return styles, float(straight.mean()), _split_half(above[raters], answered[raters], seed)


def _comparable_items(enc: Encoded) -> tuple[np.ndarray, int]:
    """Return the items on one scale, and its length: all ratings, or the commonest list of options."""
    if enc.kind == "rating":
        return np.arange(enc.n_items), len(enc.levels or ())
    if enc.kind != "choice":
        return np.zeros(0, dtype=np.int64), 0
    options = [tuple(enc.texts[t].response for t in row[row >= 0]) for row in enc.item_alternatives]
    (commonest, _), *_ = Counter(options).most_common(1)
    return np.flatnonzero([listed == commonest for listed in options]), len(commonest)


def _split_half(above: np.ndarray, answered: np.ndarray, seed: int) -> float:
    """Correlate the raters' mean deviation on two random halves of the items, stepped up to all items."""
    half = seeded_rng(seed, "split halves").permutation(above.shape[1]) % 2 == 0
    counts = np.stack([answered[:, half].sum(axis=1), answered[:, ~half].sum(axis=1)])
    both = (counts > 0).all(axis=0)
    means = np.stack([above[:, half].sum(axis=1), above[:, ~half].sum(axis=1)])[:, both] / counts[:, both]
    if means.shape[1] < MIN_RATERS or (means.std(axis=1) == 0).any():
        return float("nan")
    r = float(np.corrcoef(means)[0, 1])
    return 2 * r / (1 + abs(r))
