"""How long the random evidence about raters lasts, and which posteriors are memberships at all."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from datasets import Dataset

from plural_rlhf.trainers.dpo.memberships import batch_memberships
from plural_rlhf.trainers.dpo.pair_clusters import Clusters
from plural_rlhf.trainers.plural_dpo_trainer import PluralDPOTrainer
from reward_models.errors import JuryError


@pytest.mark.parametrize(
    ("progress", "share", "left"),
    [(0.0, 0.5, 1.0), (0.1, 0.5, 0.8), (0.5, 0.5, 0.0), (0.9, 0.5, 0.0), (0.0, 0.0, 0.0)],
)
def test_the_random_evidence_fades_in_its_share_of_training(progress, share, left):
    memberships = SimpleNamespace(annealing=None, log_membership=lambda rater, judgement: (rater, judgement))
    passed = batch_memberships(memberships, "raters", "judgements", progress=progress, annealing_share=share)
    assert memberships.annealing == pytest.approx(left)
    assert passed == ("raters", "judgements")


@pytest.mark.parametrize("sums", [(1.0, 1.0), (1.0, 1.0009)])
def test_probabilities_are_memberships(sums):
    assert posterior_of(sums).sum(axis=1) == pytest.approx(sums)


@pytest.mark.parametrize(("sums", "shift"), [((1.0, 1.01), 0.0), ((1.0, 0.5), 0.0), ((1.0, 1.0), 0.6)])
def test_points_in_a_space_of_tastes_are_no_memberships(sums, shift):
    with pytest.raises(JuryError, match=r"points in a space of tastes \(.* for 'ann'\)"):
        posterior_of(sums, shift)


def posterior_of(sums: tuple[float, float], shift: float = 0.0) -> np.ndarray:
    """Memberships of ann and bob in two clusters, which sum to these numbers; a shift makes one negative."""
    values = np.array([[0.5 - shift, of - 0.5 + shift] for of in sums])
    raters = SimpleNamespace(placement=lambda ids, model: SimpleNamespace(memberships=lambda: values))
    clusters = Clusters(["urban", "rural"], np.array([0.5, 0.5]), "rater_id", raters, object())
    return clusters.memberships(Dataset.from_dict({"rater_id": ["ann", "bob"]}))


@pytest.mark.parametrize(
    ("step", "steps", "left"), [(0, 4, 1.0), (1, 4, 0.6875), (4, 4, 0.0), (1, 1, 0.0), (0, 0, 1.0)]
)
@pytest.mark.parametrize("training", [True, False])
def test_the_share_of_training_that_is_over_is_steps_of_all_steps(step, steps, left, training):
    """An evaluation leaves no judgement out: the pairs that it measures were not recorded."""
    asked = {}

    def log_membership(rater, judgement):
        asked.update(rater=rater, judgement=judgement)
        return np.log([[0.25, 0.75]])

    memberships = SimpleNamespace(annealing=None, log_membership=log_membership)
    trainer = SimpleNamespace(
        memberships=memberships,
        model=SimpleNamespace(training=training),
        state=SimpleNamespace(global_step=step, max_steps=steps),
        args=SimpleNamespace(annealing_share=0.8),
    )
    inputs = {"rater": torch.tensor([3]), "row": torch.tensor([7]), "membership": torch.zeros(1, 2)}
    found = PluralDPOTrainer._memberships_of(trainer, inputs)
    assert memberships.annealing == pytest.approx(left)
    torch.testing.assert_close(found, torch.tensor([[0.25, 0.75]]))
    assert asked["rater"].tolist() == [3]
    assert (asked["judgement"].tolist() if training else asked["judgement"]) == ([7] if training else None)
