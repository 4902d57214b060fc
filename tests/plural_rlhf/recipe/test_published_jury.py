"""What a run publishes of its jury, computed again by a second method.

The second method is plain numpy and pandas (`tests.second_method`). What is read from the run is only what somebody
could read from its folder: the answers, who was held out, the saved models. Each person has a sampling weight.
"""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

from reward_models.jury.scorer import JuryScorer
from tests.real_run import OPTIONS
from tests.second_method import topics_of


def test_what_sets_a_cluster_apart_is_measured_against_everybody(real_run):
    table = real_run.answers
    train = json.loads((real_run.folder / "heldout.json").read_text())["raters"]["train"]
    table = table[table["person"].isin(train)]
    for cluster in real_run.results.clusters:
        assert cluster.top
        for answer in cluster.top:
            asked = table[table["topic"] == answer.item]
            share = np.average(asked["answer"] == answer.option, weights=asked["weight"])
            assert answer.item in topics_of(real_run, "train")
            assert answer.p_population == pytest.approx(share, abs=0.03)  # the fit smooths it
            assert answer.lift == pytest.approx(answer.p_cluster / answer.p_population)
            assert answer.p_cluster > answer.p_population


def test_headroom_and_choice_of_clusters_are_consistent(real_run):
    rungs = real_run.results.headroom.rungs
    assert rungs[0].info == 0
    assert [r.info for r in rungs] == pytest.approx([rungs[0].nll - r.nll for r in rungs])
    assert real_run.results.headroom.best == min(rungs, key=lambda r: r.nll).name
    assert real_run.results.selection.chosen == len(real_run.results.clusters) == 2
    prevalence = JuryScorer.from_pretrained(real_run.folder / "jury").prevalence
    assert [c.prevalence for c in real_run.results.clusters] == pytest.approx(prevalence)
    assert sum(c.prevalence for c in real_run.results.clusters) == pytest.approx(1)


@pytest.mark.slow
def test_the_best_demographic_grouping_is_computed_from_shares_by_region(real_run, sampling_weight):
    """Per split: shares by region on half of the people, shrunk to everybody's, scored on half of the others' answers.

    The halves are drawn as the code draws them; everything after that is done with a table. A person counts for as
    many as the sampling weight says, in shares of all people in the table; one person left out counts for one.
    """
    from reward_models.seeds import seeded_rng
    from reward_models.stats.resampling import halve_labels

    table = real_run.answers.assign(code=real_run.answers["answer"].map(OPTIONS.index))
    table["weight"] /= sampling_weight.mean()
    table["number"] = table["person"].str.removeprefix("p").astype(int)
    table = table.sort_values(["number", "topic"])
    raters = list(dict.fromkeys(table["person"]))
    rater = table["person"].map(raters.index).to_numpy()
    gains, counted = [], []
    for seed in range(5):
        rng = seeded_rng(seed, "split of groupings")
        fitted = np.isin(rater, rng.permutation(len(raters))[: len(raters) // 2])
        scored = table[~fitted & ~halve_labels(rater, rng)]
        train = table[fitted]
        everybody = {t: smoothed(part, np.full(3, 1 / 3), 1.5) for t, part in train.groupby("topic")}
        best = max(
            (1, 4, 16, 64, 256),
            key=lambda strength: leave_one_out(train, everybody, strength),
        )
        for row in scored.itertuples():
            known = train[(train["topic"] == row.topic) & (train["region"] == row.region)]
            p = smoothed(known, everybody[row.topic], best)
            gains.append(np.log(p[row.code]) - np.log(everybody[row.topic][row.code]))
            counted.append(row.weight)
    groupings = real_run.results.groupings
    region = next(row for row in groupings.rows if row.grouping == "region")
    assert region.info == pytest.approx(np.average(gains, weights=counted), abs=1e-9)
    traits = [row for row in groupings.rows if "trait" in row.source]
    assert groupings.best_demographic == max(traits, key=lambda row: row.info)
    assert groupings.clusters == groupings.rows[0]
    assert groupings.paired_difference.value == pytest.approx(
        groupings.clusters.info - groupings.best_demographic.info
    )


def smoothed(answers: pd.DataFrame, towards: np.ndarray, strength: float) -> np.ndarray:
    counts = answers.groupby("code")["weight"].sum().reindex(range(3), fill_value=0).to_numpy()
    return (counts + strength * towards) / (counts.sum() + strength)


def leave_one_out(train: pd.DataFrame, everybody, strength: float) -> float:
    total = 0.0
    for (topic, _), part in train.groupby(["topic", "region"]):
        others = max(part["weight"].sum() - 1, 0)
        for code, same in part.groupby("code")["weight"].sum().items():
            share = (max(same - 1, 0) + strength * everybody[topic][code]) / (others + strength)
            total += same * np.log(share)
    return total
