"""Counts and sampling weights in `JuryRewardTrainer`: a heavy rater moves one reward as several equal raters do."""

from __future__ import annotations

import pandas as pd
import pytest
import torch

from reward_models.judgements.records import Judgements
from tests.jury_training import batch_of, make_trainer, planted, votes


HEAVY, COUNTED = "r0", "r1"


def weighed_and_copied(kind: str) -> tuple[Judgements, Judgements]:
    """A rater of sampling weight 3 and one whose judgements count twice; the same as so many raters."""
    frame = (planted(n_raters=8, per_rater=6, n_items=12)[0] if kind == "preference" else votes(8, 6)).frame
    heavy = frame.assign(
        rater_weight=frame["rater_id"].map(lambda r: 3.0 if r == HEAVY else 1.0),
        count=frame["rater_id"].map(lambda r: 2 if r == COUNTED else 1),
    )
    copies = [
        frame[frame["rater_id"] == r].assign(rater_id=f"{r} again {n}")
        for r, n in ((HEAVY, 1), (HEAVY, 2), (COUNTED, 1))
    ]
    levels = (-1, 0, 1) if kind == "rating" else None
    return Judgements.from_frame(heavy, levels=levels), Judgements.from_frame(
        pd.concat([frame, *copies]), levels=levels
    )


@pytest.mark.parametrize("kind", ["preference", "rating"])
def test_a_heavy_rater_moves_the_reward_as_several_equal_raters_do(kind, tmp_path):
    weighed, copied = weighed_and_copied(kind)
    plain = Judgements.from_frame(
        weighed.frame.drop(columns=["rater_weight", "count"]), levels=(-1, 0, 1) if kind == "rating" else None
    )
    found = []
    for data in (weighed, copied, plain):
        trainer = make_trainer(data, tmp_path, num_clusters=1)
        model = trainer.model.train()
        loss = trainer.compute_loss(model, batch_of(trainer))
        loss.backward()
        gradient = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
        found.append((float(loss.detach()), gradient))
    (loss, gradient), (expected, gradient_of_copies), (_, gradient_of_plain) = found
    assert loss == pytest.approx(expected, rel=1e-5)
    atol = 5e-3 * float((gradient - gradient_of_plain).abs().max())
    torch.testing.assert_close(gradient, gradient_of_copies, rtol=1e-3, atol=atol)
    assert float((gradient - gradient_of_plain).abs().max()) > 1e-4


def test_the_unit_of_sampling_weights_does_not_matter(tmp_path):
    frame = planted(n_raters=8, per_rater=6, n_items=12)[0].frame
    losses = []
    for unit in (1.0, 1000.0):
        weight = frame["rater_id"].map(lambda r, unit=unit: unit * (1 + int(r[1:]) % 3))
        trainer = make_trainer(Judgements.from_frame(frame.assign(rater_weight=weight)), tmp_path, num_clusters=2)
        losses.append(float(trainer.compute_loss(trainer.model.train(), batch_of(trainer)).detach()))
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)
