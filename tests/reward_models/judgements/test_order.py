"""No number depends on the order of rows, of columns or of options."""

import numpy as np
import pytest

from reward_models import fit_mixture, headroom, planted_judgements
from reward_models.judgements.records import Judgements
from reward_models.judgements.splits import adaptation_split, split_four_ways, split_items, split_raters


TABLES = {
    kind: planted_judgements(kind, num_raters=24, num_items=8, seed=5).judgements
    for kind in ("preference", "rating", "choice")
}


def shuffled(judgements, seed=1):
    """The same table with its rows and columns in another order."""
    rng = np.random.default_rng(seed)
    frame = judgements.frame
    frame = frame.iloc[rng.permutation(len(frame))][list(rng.permutation(frame.columns))]
    return Judgements.from_frame(frame, judgements.kind, judgements.levels)


def rows(judgements):
    return set(zip(judgements.frame["rater_id"], judgements.frame["item_id"], strict=True))


@pytest.mark.parametrize("kind", TABLES)
@pytest.mark.parametrize(
    "split",
    [
        lambda j: split_raters(j, 0.3, seed=2),
        lambda j: split_items(j, 3, seed=2),
        lambda j: split_items(j, 0.3, seed=2, by="prompt"),
        lambda j: split_four_ways(j, 0.3, 2, seed=2).values(),
        lambda j: adaptation_split(j, 0.4, seed=2),
    ],
)
def test_splits_hold_out_the_same_judgements(kind, split):
    table = TABLES[kind]
    assert list(map(rows, split(table))) == list(map(rows, split(shuffled(table))))
    assert list(map(rows, split(table))) != list(map(rows, reversed(list(split(table)))))


@pytest.mark.parametrize("kind", ["rating", "choice"])
def test_headroom_is_the_same_to_the_last_digit(kind):
    one, other = (headroom(table, max_clusters=2) for table in (TABLES[kind], shuffled(TABLES[kind])))
    assert one == other


def test_a_fit_is_the_same_in_any_order_of_options():
    table = planted_judgements("choice", num_raters=60, num_items=10, seed=3).judgements
    frame = table.frame.copy()
    frame["choice"] = frame["options"].map(len) - 1 - frame["choice"]
    frame["options"] = [options[::-1] for options in frame["options"]]

    def fitted(judgements):
        enc = judgements.encode()
        fit = fit_mixture(enc, 2)
        rewards = {text: fit.rewards[place] for place, text in enumerate(enc.texts)}
        return np.array([rewards[text] for text in sorted(rewards)]), fit.responsibilities

    for one, other in zip(fitted(table), fitted(Judgements.from_frame(frame, "choice")), strict=True):
        np.testing.assert_allclose(other, one, atol=1e-4)
