"""Tables of judgements drawn from raters whose rewards and habits are known, in the order they were planted."""

from __future__ import annotations

import numpy as np

from reward_models.judgements.encoding import Encoded
from reward_models.judgements.texts import Text


THRESHOLDS = np.array([-2.0, -0.7, 0.7, 2.0])


def ratings(rewards, *, intercept=0.0, log_scale=0.0, share=1.0, seed=0):
    """Five-level proportional-odds ratings; rewards (R, U), terms (R,) or one number, `share` of the cells asked."""
    rng = np.random.default_rng(seed)
    rater, text = np.nonzero(rng.random(rewards.shape) < share)
    of_rater = np.zeros(len(rewards))
    eta = (of_rater + intercept)[rater] + np.exp(of_rater + log_scale)[rater] * rewards[rater, text]
    label = (eta[:, None] + rng.logistic(size=(len(rater), 1)) > THRESHOLDS).sum(1)
    return encoded("rating", rewards.shape, rater, text[:, None], label, levels=(1.0, 2.0, 3.0, 4.0, 5.0))


def pairs(rewards, n_each, *, log_scale=0.0, log_tie=None, position=None, seed=0):
    """Davidson comparisons of `n_each` random pairs per rater; rewards (R, U), terms (R,) or one number."""
    rng = np.random.default_rng(seed)
    every = np.stack(np.triu_indices(rewards.shape[1], k=1), axis=1)
    asked = np.concatenate([rng.choice(len(every), n_each, replace=n_each > len(every)) for _ in rewards])
    rater = np.repeat(np.arange(len(rewards)), n_each)
    shown = rng.permuted(every[asked], axis=1)
    of_rater = np.zeros(len(rewards))
    gap = np.exp(of_rater + log_scale)[rater] * (rewards[rater, shown[:, 0]] - rewards[rater, shown[:, 1]])
    first = rng.integers(2, size=len(rater))
    if position is not None:
        gap += np.where(first == 0, 1, -1) * (of_rater + position)[rater]
    tie = np.full(len(rater), -np.inf) if log_tie is None else (of_rater + log_tie)[rater]
    label = (np.stack([gap / 2, -gap / 2, tie], axis=1) + rng.gumbel(size=(len(rater), 3))).argmax(1)
    return encoded("preference", rewards.shape, rater, shown, label, shown_first=None if position is None else first)


def encoded(kind, shape, rater, alternatives, label, *, levels=None, shown_first=None, count=None):
    """An `Encoded` of raters r0, r1, ... and texts t0, t1, ... about one prompt."""
    items, item = np.unique(np.sort(alternatives, axis=1), axis=0, return_inverse=True)
    return Encoded(
        kind=kind,
        rater_ids=[f"r{u}" for u in range(shape[0])],
        item_ids=["-".join(map(str, row)) for row in items],
        texts=[Text("p", f"t{i}") for i in range(shape[1])],
        rater=np.asarray(rater),
        item=item.ravel(),
        alternatives=np.asarray(alternatives),
        label=np.asarray(label),
        count=np.ones(len(label)) if count is None else np.asarray(count, dtype=np.float64),
        shown_first=shown_first,
        probs=None,
        levels=levels,
        item_alternatives=items,
    )
