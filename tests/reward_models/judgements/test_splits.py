"""Splits: what is held out is really unseen, and nothing is lost."""

import itertools

import numpy as np
import pandas as pd
import pytest

from reward_models.errors import JudgementError
from reward_models.judgements.records import Judgements
from reward_models.judgements.splits import adaptation_split, split_four_ways, split_items, split_raters


@pytest.fixture(scope="module")
def survey():
    """20 raters, 6 questions, everybody answers all but one."""
    rng = np.random.default_rng(0)
    rows = [
        (f"r{r}", f"q{i}", f"Question {i}?", ("no", "yes"), int(rng.integers(2)))
        for r, i in itertools.product(range(20), range(6))
        if i != r % 6
    ]
    return Judgements.from_frame(pd.DataFrame(rows, columns=["rater_id", "item_id", "prompt", "options", "choice"]))


def pairs_of(j):
    return set(zip(j.frame["rater_id"], j.frame["item_id"], strict=True))


def test_raters_are_on_one_side_only(survey):
    train, heldout = split_raters(survey, 0.3, seed=1)
    assert heldout.n_raters == 6
    assert not set(train.raters) & set(heldout.raters)
    assert pairs_of(train) | pairs_of(heldout) == pairs_of(survey)
    assert pairs_of(split_raters(survey, 0.3, seed=1)[1]) == pairs_of(heldout)
    assert pairs_of(split_raters(survey, 0.3, seed=2)[1]) != pairs_of(heldout)


@pytest.mark.parametrize(("share", "expected"), [(0.001, 1), (0.999, 19)])
def test_each_side_keeps_a_rater(survey, share, expected):
    assert split_raters(survey, share, seed=0)[1].n_raters == expected


def test_items_by_number_share_and_name(survey):
    for heldout in (2, 1 / 3, ["q1", "q4"]):
        train, out = split_items(survey, heldout, seed=3)
        assert out.n_items == 2
        assert not set(train.items) & set(out.items)
        assert len(train) + len(out) == len(survey)
    assert set(out.items) == {"q1", "q4"}


def test_four_ways_cover_the_table_and_keep_sides_apart(survey):
    parts = split_four_ways(survey, 0.25, 2, seed=5)
    assert set(parts) == set(itertools.product(["seen", "unseen"], repeat=2))
    assert sum(len(part) for part in parts.values()) == len(survey)
    train = parts["seen", "seen"]
    for (rater, prompt), part in parts.items():
        assert set(part.raters) <= set(train.raters) if rater == "seen" else not set(part.raters) & set(train.raters)
        assert set(part.items) <= set(train.items) if prompt == "seen" else not set(part.items) & set(train.items)
    assert pairs_of(parts["unseen", "seen"]) | pairs_of(parts["unseen", "unseen"]) == pairs_of(
        split_raters(survey, 0.25, seed=5)[1]
    )


def test_by_prompt_no_response_of_a_heldout_prompt_is_seen():
    rows = [(r, p, a, b, "a") for r in "uv" for p in "pqs" for a, b in (("x", "y"), ("y", "z"))]
    j = Judgements.from_frame(pd.DataFrame(rows, columns=["rater_id", "prompt", "response_a", "response_b", "choice"]))
    train, out = split_items(j, 1, seed=0, by="prompt")
    assert (train.frame["prompt"].nunique(), out.frame["prompt"].nunique(), out.n_items) == (2, 1, 2)
    assert not set(train.encode().texts) & set(out.encode().texts)
    # One item named by id takes its whole prompt along.
    assert split_items(j, [j.items[0]], by="prompt")[1].n_items == 2


def test_adaptation_labels_and_scored_labels_are_disjoint(survey):
    adapt, scored = adaptation_split(survey, 0.4, seed=7)
    assert not pairs_of(adapt) & pairs_of(scored)
    assert pairs_of(adapt) | pairs_of(scored) == pairs_of(survey)
    counts = adapt.frame["rater_id"].value_counts()
    assert set(adapt.raters) == set(scored.raters) == set(survey.raters)
    totals = survey.frame["rater_id"].value_counts()
    for rater in survey.raters:
        assert counts[rater] == round(0.4 * totals[rater])


def test_adaptation_leaves_something_to_score(survey):
    adapt, scored = adaptation_split(survey, 0.99)
    assert scored.n_raters == 20
    assert len(scored) == 20
    assert len(adaptation_split(survey, 0.01)[0]) == 20
    one_each = survey.select(~survey.frame["rater_id"].duplicated().to_numpy())
    adapt, scored = adaptation_split(one_each, 0.5)
    assert (len(adapt), len(scored)) == (0, 20)


def test_every_judgement_of_a_rater_is_as_likely_to_be_scored(survey):
    scored = [adaptation_split(survey, 0.5, seed=s)[1] for s in range(60)]
    share = (
        pd.concat([s.frame["item_id"] for s in scored]).value_counts() / survey.frame["item_id"].value_counts() / 60
    )
    # 2 of 5 adapt (round half to even), so 0.6 are scored; 60 seeds of about 17 raters leave an s.d. of 0.015.
    assert share.min() > 0.54
    assert share.max() < 0.66


@pytest.mark.parametrize("share", [0, 1, -0.1, 1.5, 3])
def test_shares_outside_0_1_are_refused(survey, share):
    with pytest.raises(JudgementError, match=rf"heldout={share} is not a share between 0 and 1\. Fix"):
        split_raters(survey, share)
    with pytest.raises(JudgementError, match=rf"fraction={share} is not a share"):
        adaptation_split(survey, share)


def test_item_faults_are_refused(survey):
    with pytest.raises(
        JudgementError, match=r"'q11' is not an item id\. Did you mean 'q1'\? Fix: hold out some of: 'q1'"
    ):
        split_items(survey, ["q11"])
    with pytest.raises(JudgementError, match=r"heldout=6 of 6 items leaves one side empty\. Fix: choose 1 to 5"):
        split_items(survey, 6)
    with pytest.raises(JudgementError, match="holding out 6 of 6 items leaves one side empty"):
        split_items(survey, [f"q{i}" for i in range(6)])
    with pytest.raises(JudgementError, match=r"heldout=1\.5 is not a share"):
        split_items(survey, 1.5)
    one_topic = pd.DataFrame(
        [(r, "topic", s, v) for r in "uv" for s, v in (("x", 1), ("y", 0))],
        columns=["rater_id", "prompt", "response", "rating"],
    )
    with pytest.raises(JudgementError, match=r"the table has one prompt, which .* Fix: split by='item'"):
        split_four_ways(Judgements.from_frame(one_topic), 0.5, 0.5)


def test_a_single_rater_cannot_be_split(survey):
    alone = survey.select(survey.frame["rater_id"] == "r0")
    with pytest.raises(
        JudgementError, match=r"needs at least 2 raters, and the table has 1\. Fix: add .* more raters"
    ):
        split_raters(alone, 0.5)
    soft = Judgements.from_dataset([{"prompt": "q", "options": ["a", "b"], "probs": [0.5, 0.5]}])
    with pytest.raises(JudgementError, match=r"no raters \(kind 'soft'\)"):
        adaptation_split(soft, 0.5)
