"""Reading a policy's answers off exactly, and estimating what each cluster of people answers."""

from __future__ import annotations

import dataclasses

import numpy as np
import pandas as pd
import pytest
import torch

from plural_rlhf.evaluation.distribution.answers import METRICS, ClusterPanel, cluster_panel, metric_rows
from plural_rlhf.policies.answers import answer_probabilities
from reward_models import planted_judgements
from reward_models.errors import JudgementWarning
from reward_models.judgements.records import Judgements
from reward_models.raters.memberships import leave_one_out_posterior
from reward_models.stats.design import SamplingDesign
from tests.tiny import tiny_causal_lm, tiny_tokenizer


K, R, N_ITEMS, A = 2, 600, 8, 3
PLACING = range(6)
PREVALENCE = np.array([0.65, 0.35])


@pytest.fixture(scope="module")
def planted():
    """Two planted clusters that overlap, so that memberships stay uncertain; questions 6 and 7 place nobody."""
    rng = np.random.default_rng(0)
    truth = rng.dirichlet(np.full(A, 1.5), size=(K, N_ITEMS))
    cluster = (rng.random(R) > PREVALENCE[0]).astype(int)
    rows = [
        {
            "rater_id": f"r{u:03}",
            "item_id": f"q{i}",
            "prompt": f"Question {i}?",
            "options": ["a", "b", "c"],
            "choice": int(rng.choice(A, p=truth[cluster[u], i])),
        }
        for u in range(R)
        for i in range(N_ITEMS)
        if rng.random() > 0.1
    ]
    encoded = Judgements.from_frame(pd.DataFrame(rows)).encode()
    rewards = np.zeros((encoded.n_texts, K))
    for i in range(N_ITEMS):
        rewards[encoded.item_alternatives[encoded.item_ids.index(f"q{i}")]] = np.log(truth[:, i]).T
    order = [encoded.item_ids.index(f"q{i}") for i in range(N_ITEMS)]
    return encoded, rewards, truth, order


def frequencies_by_membership(encoded, membership) -> np.ndarray:
    counts = np.zeros((K, encoded.n_items, A))
    for k in range(K):
        np.add.at(counts[k], (encoded.item, encoded.label), membership[:, k])
    return counts / counts.sum(-1, keepdims=True)


def test_clusters_are_estimated_better_than_by_weighting_answers(planted):
    encoded, rewards, truth, order = planted
    panel = cluster_panel(encoded, rewards, PREVALENCE, [order[i] for i in PLACING]).select(order)
    ours = np.stack([panel.human(k) for k in range(K)])
    log_p = rewards[encoded.alternatives][np.arange(len(encoded.label)), encoded.label]
    log_p = log_p * np.isin(encoded.item, [order[i] for i in PLACING])[:, None]
    membership = leave_one_out_posterior(log_p, encoded.rater, encoded.n_raters, PREVALENCE)
    assert 0.05 < np.minimum(membership, 1 - membership).mean() < 0.3  # uncertain, yet they say something
    blurred = frequencies_by_membership(encoded, membership)[:, order]
    error = np.abs(ours - truth).sum(-1).mean()
    error_blurred = np.abs(blurred - truth).sum(-1).mean()
    assert error < 0.6 * error_blurred
    # A cluster's share of about 540 answers a question has a standard error near .02 to .04 in each option.
    assert error < 0.15


def test_an_answer_does_not_place_its_own_rater(planted):
    """Raters who answered one question only stay where the prevalence puts them, whatever they said."""
    frame = pd.DataFrame(
        [
            {"rater_id": f"r{u}", "item_id": "q0", "prompt": "Q?", "options": ["a", "b"], "choice": int(u < 30)}
            for u in range(40)
        ]
    )
    with pytest.warns(JudgementWarning):
        encoded = Judgements.from_frame(frame).encode()
    rewards = np.log(np.array([[0.9, 0.1], [0.1, 0.9]]))  # the jury is sure who says what
    panel = cluster_panel(encoded, rewards, PREVALENCE, [0])
    np.testing.assert_allclose(panel.weights[:, :, 0], np.tile(PREVALENCE[:, None], (1, 40)), atol=1e-9)
    for k in (None, 0, 1):
        np.testing.assert_allclose(panel.human(k), [[0.25, 0.75]], atol=1e-9)


def test_weights_are_shares_of_every_answer(planted):
    encoded, rewards, _, order = planted
    panel = cluster_panel(encoded, rewards, PREVALENCE, order[:6])
    answered = panel.answers >= 0
    np.testing.assert_allclose(panel.weights.sum(axis=0), answered.astype(float), atol=1e-9)
    np.testing.assert_allclose(panel.n(0) + panel.n(1), panel.n())
    mixture = sum(panel.n(k)[:, None] * panel.human(k) for k in range(K)) / panel.n()[:, None]
    np.testing.assert_allclose(mixture, panel.human())


def direct_js(p, q) -> float:
    m = (p + q) / 2
    return float(0.5 * (p * np.log(p / m)).sum() + 0.5 * (q * np.log(q / m)).sum())


@pytest.mark.parametrize("of_cluster", [None, 1])
def test_rows_hold_the_means_over_questions(planted, of_cluster):
    encoded, rewards, _, order = planted
    panel = cluster_panel(encoded, rewards, PREVALENCE, order[:6]).select(order[:5])
    probabilities = 0.9 * np.random.default_rng(1).dirichlet(np.ones(A), size=5)  # a tenth goes to no offered answer
    people = panel.resample(of_cluster, draws=60, seed=0)
    rows = {r["metric"]: r for r in metric_rows(people, probabilities, level=0.9, stage="warm", split="train")}
    assert tuple(rows) == METRICS
    human, q = panel.human(of_cluster), probabilities / 0.9
    entropies = [-(x * np.log(x)).sum(-1) for x in (q, human)]
    expected = {
        "jsd_nats": np.mean([direct_js(p, r) for p, r in zip(human, q, strict=True)]),
        "coverage": 0.9,
        "entropy_gap": np.mean(entropies[0] - entropies[1]),
        "total_variation": np.mean(np.maximum(q - human, 0).sum(axis=1)),
    }
    # Resampled raters are as far from these raters as these raters are from all people.
    moved = np.mean([[direct_js(p, r) for p, r in zip(draw, q, strict=True)] for draw in people.human[1:]])
    expected["jsd_debiased_nats"] = 2 * expected["jsd_nats"] - moved
    for metric, row in rows.items():
        # The library smooths by 1e-6 before the logarithm; nothing else may differ.
        assert row["value"] == pytest.approx(expected[metric], abs=2e-5)
        assert row["ci_low"] <= row["value"] <= row["ci_high"]
        assert (row["n"], row["stage"], row["split"]) == (5, "warm", "train")
    assert rows["jsd_nats"]["ci_low"] < rows["jsd_nats"]["ci_high"]


def test_intervals_of_a_collapsed_policy_hold_its_values(planted):
    """It always gives one answer: less entropy than people by far, and all of its answers on the list."""
    encoded, rewards, _, order = planted
    people = cluster_panel(encoded, rewards, PREVALENCE, order[:6]).select(order[:6]).resample(None, draws=60, seed=0)
    rows = {r["metric"]: r for r in metric_rows(people, np.tile(np.eye(A)[0], (6, 1)), level=0.9)}
    for row in rows.values():
        assert row["ci_low"] <= row["value"] <= row["ci_high"], row
    assert rows["entropy_gap"]["ci_high"] < 0
    assert 0 <= rows["jsd_nats"]["ci_low"] < rows["jsd_nats"]["ci_high"] <= np.log(2)
    assert 0 <= rows["total_variation"]["ci_low"] < rows["total_variation"]["ci_high"] <= 1
    assert (rows["coverage"]["value"], rows["coverage"]["ci_high"]) == (1, 1)


def test_people_themselves_score_nothing():
    answers = np.array([[0, 1], [1, 1], [1, -1], [0, 2]])
    panel = ClusterPanel(answers, 3, np.ones((1, 4, 2)))
    np.testing.assert_allclose(panel.human(), [[0.5, 0.5, 0], [0, 2 / 3, 1 / 3]])
    np.testing.assert_allclose(panel.n(), [4, 3])
    people = panel.resample(None, draws=20, seed=0)
    rows = {r["metric"]: r["value"] for r in metric_rows(people, panel.human(), level=0.9)}
    assert rows.pop("jsd_debiased_nats") < 0  # four people are nearer to themselves than to everybody
    assert rows == pytest.approx({"jsd_nats": 0, "coverage": 1, "entropy_gap": 0, "total_variation": 0}, abs=1e-6)


def test_probabilities_are_exact_and_leave_the_model_as_it_was():
    tokenizer = tiny_tokenizer()
    model = tiny_causal_lm(tokenizer).train()
    prompts, supports = ["one", "a longer one", "three"], [["yes", "no"], ["good", "bad", "about right"], ["a", "b"]]
    found = answer_probabilities(model, tokenizer, prompts, supports, batch_size=2, progress=False)
    assert [len(p) for p in found] == [2, 3, 2]
    assert model.training
    ids = tokenizer("a longer one")["input_ids"]
    answer = [*tokenizer("about right")["input_ids"], tokenizer.eos_token_id]
    with torch.no_grad():
        log_probs = model.eval()(input_ids=torch.tensor([ids + answer])).logits[0].log_softmax(-1)
    by_hand = sum(log_probs[len(ids) - 1 + t, token] for t, token in enumerate(answer)).exp()
    assert found[1][2] == pytest.approx(float(by_hand), rel=1e-4)


def test_people_count_by_their_sampling_weights():
    """Rater weight 2 is the same rater twice, for everybody and for each cluster; the number of people is Kish's."""
    planted = planted_judgements("choice", num_raters=20, num_items=4, strength=2.0)
    enc, rewards = planted.judgements.encode(), planted.rewards
    twins = np.arange(20) % 3 == 0
    again = enc.select(twins[enc.rater])
    columns = {
        name: np.concatenate([getattr(enc, name), getattr(again, name)])
        for name in ("item", "alternatives", "label", "count")
    }
    rater = np.concatenate([enc.rater, again.rater + 20])
    twice = dataclasses.replace(enc, rater_ids=[f"r{u}" for u in range(40)], rater=rater, **columns)
    heavy = dataclasses.replace(enc, design=SamplingDesign(np.where(twins, 2.0, 1.0) / 1.35))
    prevalence = np.array([0.5, 0.5])
    one, two = (cluster_panel(table, rewards, prevalence, range(4)) for table in (heavy, twice))
    for cluster in (None, 0, 1):
        np.testing.assert_allclose(one.human(cluster), two.human(cluster), atol=1e-9)
    assert one.n().tolist() == [20] * 4
    assert one.n_effective() == pytest.approx(np.full(4, 27**2 / (7 * 4 + 13)))
    assert one.human()[0] != pytest.approx(cluster_panel(enc, rewards, prevalence, range(4)).human()[0], abs=1e-4)
