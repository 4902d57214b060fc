"""Algorithm 2: the objective never rises, planted groups come back, the best choice of medoids is found."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import adjusted_rand_score

from plural_rlhf.methods.value_profiles import AnswerEncoder, CandidateProfiles, cluster_by_losses, split_raters
from reward_models import planted_judgements
from reward_models.analysis.answer_cells import answer_cells
from reward_models.errors import JuryError


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 5), st.integers(1, 12))
def test_the_objective_never_rises_and_is_that_of_the_medoids(seed, size, raters):
    rng = np.random.default_rng(seed)
    losses, weight = rng.exponential(size=(raters, 7)), rng.uniform(0.5, 2.0, size=raters)
    found = cluster_by_losses(losses, size, weight=weight, restarts=3, seed=seed)
    assert all(after <= before + 1e-12 for before, after in itertools.pairwise(found.history))
    assert found.objective == pytest.approx(float(weight @ losses[:, found.medoids].min(axis=1)))
    assert len(set(found.medoids.tolist())) == size


def test_the_best_of_all_choices_is_found_on_small_tables():
    """Against every choice of two or three medoids, the second way of computing it."""
    for seed in range(20):
        losses = np.random.default_rng(seed).exponential(size=(15, 8))
        for size in (2, 3):
            best = min(losses[:, list(chosen)].min(axis=1).sum() for chosen in itertools.combinations(range(8), size))
            assert cluster_by_losses(losses, size, restarts=20).objective == pytest.approx(best)


def test_an_empty_cluster_is_given_to_those_whom_it_can_serve():
    """Both first candidates serve the same raters; the other half is served by the last candidate alone."""
    losses = np.array([[0.0, 0.1, 9.0]] * 4 + [[9.0, 9.0, 0.0]] * 4)
    found = cluster_by_losses(losses, 2, restarts=1)
    assert sorted(found.medoids.tolist()) == [0, 2]
    assert np.bincount(found.assignment).tolist() == [4, 4]


@pytest.mark.parametrize("kind", ["choice", "preference", "rating"])
def test_planted_groups_come_back_from_the_judgements_that_may_be_read(kind):
    planted = planted_judgements(kind, num_raters=120, num_items=40, num_clusters=3, strength=4.0)
    enc = planted.judgements.encode()
    cells = answer_cells(enc)
    split = split_raters(cells)
    profiles = CandidateProfiles.of(cells, split, AnswerEncoder())
    group = profiles.clusters(3).assign(profiles.losses)
    truth = planted.cluster[[int(rater[1:]) for rater in enc.rater_ids]]
    read = np.bincount(cells.rater[split.fit], minlength=enc.n_raters)
    told = read >= 10  # of whom enough was read to know
    assert told.sum() > 60
    assert adjusted_rand_score(truth[told], group[told]) >= 0.9


@pytest.mark.parametrize(
    ("losses", "size", "message"),
    [
        (np.array([[1.0, np.inf]]), 1, "not finite"),
        (np.zeros((0, 3)), 1, "shape"),
        (np.zeros((3, 2)), 3, "ask for 1 to 2 clusters"),
        (np.zeros((3, 2)), 0, "ask for 1 to 2 clusters"),
    ],
)
def test_a_table_that_cannot_be_clustered_is_refused(losses, size, message):
    with pytest.raises(JuryError, match=message):
        cluster_by_losses(losses, size)


@pytest.mark.parametrize(
    ("weight", "message"),
    [
        ([1.0, 1.0], r"of 3 raters have the shape \(2,\)"),
        ([-1.0, 1.0, 1.0], r"go from -1 to 1\. Fix: give one finite number of at least 0 per rater"),
        ([np.nan, 1.0, 1.0], "go from nan to nan"),
        ([np.inf, 1.0, 1.0], "to inf"),
        ([0.0, 0.0, 0.0], "not all of them 0"),
    ],
)
def test_weights_that_count_nobody_or_against_somebody_are_refused(weight, message):
    with pytest.raises(JuryError, match=message):
        cluster_by_losses(np.ones((3, 2)), 1, weight=np.array(weight))
    assert cluster_by_losses(np.eye(3), 1, weight=np.array([0.0, 0.0, 2.0])).objective == 0
