"""Divide judgements by rater, by item, by both, or within each rater.

The splits differ in what the test side has not seen: new raters, new items, both, or new answers of known raters.
Raters, items and judgements are drawn from their sorted ids, so that the order of the rows does not matter.
Knows nothing of what is fitted or scored.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import pandas as pd

from reward_models.errors import JudgementError, did_you_mean
from reward_models.judgements.ordering import row_order
from reward_models.judgements.records import Judgements
from reward_models.judgements.texts import freeze_prompt, prompt_codes
from reward_models.seeds import seeded_rng


__all__ = ["Side", "adaptation_split", "split_four_ways", "split_items", "split_raters"]

Side = Literal["seen", "unseen"]
By = Literal["item", "prompt"]


def split_raters(
    judgements: Judgements, heldout: float, seed: int | np.random.Generator = 0
) -> tuple[Judgements, Judgements]:
    """Hold out some raters with all their judgements.

    Args:
        judgements: A table with raters.
        heldout: Share of the raters to hold out, in (0, 1); at least one rater stays on each side.
        seed: Random seed, with which the order of rows does not matter; or a generator, with which it does.

    Returns:
        (train, heldout); no rater is in both.

    Raises:
        JudgementError: If there are fewer than two raters, or `heldout` is not in (0, 1).

    Example:
        >>> from reward_models import planted_judgements
        >>> judgements = planted_judgements("choice", num_raters=10, num_items=6).judgements
        >>> train, heldout = split_raters(judgements, 0.3)
        >>> train.n_raters, heldout.n_raters, heldout.n_items
        (7, 3, 6)
    """
    out = _heldout_raters(judgements, heldout, seed)
    return judgements.select(~out), judgements.select(out)


def split_items(
    judgements: Judgements, heldout: int | float | Sequence[str], seed: int | np.random.Generator = 0, by: By = "item"
) -> tuple[Judgements, Judgements]:
    """Hold out some items with the judgements of all raters.

    Args:
        judgements: Any table.
        heldout: Number of items (int), share of the items in (0, 1) (float), or the item ids themselves.
        seed: Random seed or generator, as in `split_raters`; not used with item ids.
        by: `"item"`, or `"prompt"` to hold out whole prompts with all their responses (numbers then count prompts).
            By item, a response of a heldout pair may still be known from another pair.

    Returns:
        (train, heldout); no item is in both.

    Raises:
        JudgementError: If an id is unknown (with the closest known one), or no item would remain on one side.

    Example:
        >>> from reward_models import planted_judgements
        >>> judgements = planted_judgements("choice", num_raters=10, num_items=6).judgements
        >>> train, heldout = split_items(judgements, 2)
        >>> train.n_items, heldout.n_items, heldout.n_raters
        (4, 2, 10)
    """
    out = _heldout_items(judgements, heldout, seed, by)
    return judgements.select(~out), judgements.select(out)


def split_four_ways(
    judgements: Judgements,
    raters: float,
    items: int | float | Sequence[str],
    seed: int = 0,
    by: By = "prompt",
) -> dict[tuple[Side, Side], Judgements]:
    """Divide by {seen, unseen rater} x {seen, unseen prompt}.

    Args:
        judgements: A table with raters.
        raters: Share of the raters to hold out, in (0, 1).
        items: Number, share or ids of the items or prompts to hold out; see `split_items`.
        seed: Random seed.
        by: Hold out whole prompts (default) or single items, e.g. the statements of one conversation.

    Returns:
        Tables by (rater side, prompt side); train on `("seen", "seen")`.

    Raises:
        JudgementError: As `split_raters` and `split_items`.

    Example:
        >>> from reward_models import planted_judgements
        >>> judgements = planted_judgements("preference", num_raters=10, num_items=6).judgements
        >>> parts = split_four_ways(judgements, raters=0.2, items=2)
        >>> {sides: len(part) for sides, part in parts.items()}
        {('seen', 'seen'): 32, ('seen', 'unseen'): 16, ('unseen', 'seen'): 8, ('unseen', 'unseen'): 4}
    """
    new_rater = _heldout_raters(judgements, raters, seed)
    new_item = _heldout_items(judgements, items, seed, by)
    return {
        ("seen", "seen"): judgements.select(~new_rater & ~new_item),
        ("seen", "unseen"): judgements.select(~new_rater & new_item),
        ("unseen", "seen"): judgements.select(new_rater & ~new_item),
        ("unseen", "unseen"): judgements.select(new_rater & new_item),
    }


def adaptation_split(judgements: Judgements, fraction: float, seed: int = 0) -> tuple[Judgements, Judgements]:
    """Divide each rater's judgements into those to adapt to and those to score.

    Args:
        judgements: A table with raters.
        fraction: Share of each rater's judgements to adapt to, in (0, 1), rounded to the nearest number that leaves at
            least one to score. A rater with one judgement is scored only: nothing is known of them.
        seed: Random seed.

    Returns:
        (adapt, scored); no judgement is in both, and every rater is in `scored`.

    Raises:
        JudgementError: If there are no raters, or `fraction` is not in (0, 1).

    Example:
        >>> from reward_models import planted_judgements
        >>> judgements = planted_judgements("rating", num_raters=5, num_items=8).judgements
        >>> adapt, scored = adaptation_split(judgements, 0.25)
        >>> len(adapt), len(scored)
        (10, 30)
    """
    _require_raters(judgements, 1, "adaptation_split")
    _require_share(fraction, "fraction")
    rater, _ = pd.factorize(judgements.frame["rater_id"])
    counts = np.bincount(rater)
    n_adapt = np.clip(np.rint(counts * fraction), np.minimum(1, counts - 1), counts - 1)
    shuffled = row_order(judgements.frame)[seeded_rng(seed, "adaptation split").permutation(len(rater))]
    by_rater = shuffled[np.argsort(rater[shuffled], kind="stable")]
    rank = np.empty(len(rater), dtype=np.int64)
    starts = np.cumsum(counts) - counts
    rank[by_rater] = np.arange(len(rater)) - np.repeat(starts, counts)
    adapt = rank < n_adapt[rater]
    return judgements.select(adapt), judgements.select(~adapt)


def _heldout_raters(judgements: Judgements, heldout: float, seed: int | np.random.Generator) -> np.ndarray:
    """(N,) bool, True for judgements of heldout raters."""
    _require_raters(judgements, 2, "split_raters")
    _require_share(heldout, "heldout")
    rater, names = _units(judgements.frame["rater_id"], seed)
    return _draw(len(names), round(heldout * len(names)), seeded_rng(seed, "heldout raters"))[rater]


def _heldout_items(
    judgements: Judgements, heldout: int | float | Sequence[str], seed: int | np.random.Generator, by: By
) -> np.ndarray:
    """(N,) bool, True for judgements of heldout items."""
    frame = judgements.frame
    if isinstance(heldout, str | Sequence):
        return _named_items(frame, [heldout] if isinstance(heldout, str) else heldout, by)
    code, _ = _units(frame["prompt"].map(freeze_prompt) if by == "prompt" else frame["item_id"], seed)
    n_units = int(code.max()) + 1
    if isinstance(heldout, float):
        _require_share(heldout, "heldout")
        n_heldout = round(heldout * n_units)
    elif not 0 < heldout < n_units:
        raise JudgementError(
            f"heldout={heldout} of {n_units} {by}s leaves one side empty. Fix: choose 1 to {n_units - 1}"
            + (", or split by='item'." if by == "prompt" else ".")
        )
    else:
        n_heldout = heldout
    if n_units < 2:
        raise JudgementError(
            f"the table has one {by}, which cannot be both seen and unseen. "
            + ("Fix: split by='item'." if by == "prompt" else "Fix: add items.")
        )
    return _draw(n_units, n_heldout, seeded_rng(seed, "heldout items"))[code]


def _units(values: pd.Series, seed: int | np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Number raters, items or prompts in sorted order, or for a generator, as former runs did, as they occur."""
    in_order = not isinstance(seed, np.random.Generator)
    code, units = pd.factorize(np.asarray([repr(value) for value in values], dtype=object), sort=in_order)
    return code, units


def _named_items(frame: pd.DataFrame, heldout: Sequence[str], by: By) -> np.ndarray:
    """(N,) bool, True for judgements of the items with these ids, or of their prompts."""
    known = dict.fromkeys(frame["item_id"])
    unknown = [item for item in heldout if item not in known]
    if unknown:
        hints = "; ".join(f"{item!r} is not an item id.{did_you_mean(item, known)}" for item in unknown)
        shown = ", ".join(map(repr, list(known)[:20])) + (", ..." if len(known) > 20 else "")
        raise JudgementError(f"{hints} Fix: hold out some of: {shown}")
    out = frame["item_id"].isin(heldout).to_numpy(dtype=bool)
    if by == "prompt":
        prompt = prompt_codes(frame["prompt"])
        out = np.isin(prompt, np.unique(prompt[out]))
    if out.all() or not out.any():
        raise JudgementError(
            f"holding out {len(heldout)} of {len(known)} items leaves one side empty. "
            "Fix: name at least one item and leave at least one."
        )
    return out


def _draw(n_units: int, n_heldout: int, rng: np.random.Generator) -> np.ndarray:
    """(n_units,) bool with `n_heldout` True, at least one of each."""
    out = np.zeros(n_units, dtype=bool)
    out[rng.permutation(n_units)[: min(max(n_heldout, 1), n_units - 1)]] = True
    return out


def _require_raters(judgements: Judgements, at_least: int, function: str) -> None:
    if judgements.n_raters < at_least:
        raters = "no raters (kind 'soft')" if judgements.kind == "soft" else f"{judgements.n_raters}"
        raise JudgementError(
            f"{function} holds judgements of raters out: it needs at least {at_least} raters, and the table has "
            f"{raters}. Fix: add judgements by more raters, or fit the whole table without a held-out part, as "
            "reward_models.fit_jury does."
        )


def _require_share(share: float, name: str) -> None:
    if not 0 < share < 1:
        raise JudgementError(f"{name}={share} is not a share between 0 and 1. Fix: e.g. {name}=0.3 for 30 %.")
