"""Fine-tuning a jury with `JuryRewardTrainer`: equal to TRL's trainer with one cluster, and finds planted clusters."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from datasets import Dataset, IterableDataset
from scipy.special import entr
from transformers import LlamaForSequenceClassification
from trl import RewardConfig, RewardTrainer

from reward_models.errors import JudgementError, JudgementWarning, JuryError
from reward_models.fitting.running_memberships import RunningMemberships
from reward_models.judgements.records import Judgements
from reward_models.jury.modeling_jury import JuryRewardModel
from reward_models.raters.memberships import leave_one_out_posterior
from reward_models.stats.answers import adjusted_rand_index
from reward_models.trainer import _trl
from reward_models.trainer.jury_reward_config import JuryRewardConfig
from reward_models.trainer.jury_reward_trainer import JuryRewardTrainer
from tests.jury_training import CPU, TOKENIZER, batch_of, make_trainer, one_head, pairs, planted, votes
from tests.tiny import tiny_causal_lm


pytestmark = pytest.mark.filterwarnings(
    "ignore:.*have one judgement:reward_models.errors.JudgementWarning",
    "ignore:.*is empty.*:reward_models.errors.JudgementWarning",
)


# ── one cluster is TRL's trainer ────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("named", [False, True])
@pytest.mark.parametrize("centre", [None, 0.01])
@pytest.mark.parametrize("margin", [None, [0.0, 0.5, 1.0, 2.0, 0.25, 0.125]])
def test_one_cluster_has_the_loss_and_gradient_of_reward_trainer(tmp_path, margin, centre, named):
    raters = {"rater_id": list("aabbcc")} if named else {}
    data = pairs(margin=margin, **raters) if margin else pairs(**raters)
    common = {**CPU, "center_rewards_coefficient": centre, "per_device_train_batch_size": 6}
    stock = RewardTrainer(
        one_head(), RewardConfig(str(tmp_path), **common), train_dataset=data, processing_class=TOKENIZER
    )
    ours = make_trainer(data, tmp_path, model=one_head(), num_clusters=1, rater_terms=None, **common)
    theirs = stock.data_collator([dict(row) for row in stock.train_dataset])
    losses = []
    for trainer, batch in ((stock, theirs), (ours, batch_of(ours))):
        trainer.model.train()
        losses.append(trainer.compute_loss(trainer.model, batch))
        losses[-1].backward()
    assert abs(losses[0].item() - losses[1].item()) < 1e-6
    for (name, a), (_, b) in zip(stock.model.named_parameters(), ours.model.named_parameters(), strict=True):
        if a.grad is not None:
            torch.testing.assert_close(a.grad, b.grad, atol=1e-6, rtol=1e-4, msg=name)


@pytest.mark.parametrize("conversational", [False, True])
def test_training_on_trl_data_is_reward_trainers_run(tmp_path, conversational):
    data = pairs(10)
    if conversational:
        data = data.map(
            lambda row: {
                "prompt": [{"role": "user", "content": row["prompt"]}],
                **{side: [{"role": "assistant", "content": row[side]}] for side in ("chosen", "rejected")},
            }
        )
    common = {**CPU, "per_device_train_batch_size": 4, "max_steps": 4, "learning_rate": 1e-3}
    stock = RewardTrainer(
        one_head(), RewardConfig(str(tmp_path), **common), train_dataset=data, processing_class=TOKENIZER
    )
    ours = make_trainer(data, tmp_path, model=one_head(), rater_terms=None, **common)
    for theirs, row in zip(stock.train_dataset, (ours.train_dataset[i] for i in range(10)), strict=True):
        tokens = dict(zip(row["text"].tolist(), row["input_ids"], strict=True))
        assert [tokens[t].tolist() for t in row["alternatives"][0].tolist()] == [
            theirs["chosen_ids"],
            theirs["rejected_ids"],
        ]
    stock.train()
    ours.train()
    for (name, a), (_, b) in zip(stock.model.named_parameters(), ours.model.named_parameters(), strict=True):
        if name != "score.bias":  # pairs do not see it: what moves it is rounding
            torch.testing.assert_close(a, b, atol=1e-5, rtol=0, msg=name)


# ── soft EM ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_gradient_of_all_judgements_is_that_of_the_marginal_likelihood(tmp_path):
    data, _ = planted(n_raters=6, per_rater=4, n_items=8)
    trainer = make_trainer(
        data, tmp_path, memberships_from="random", annealing_share=0.0, deviation_scale=0.5, rater_terms=False
    )
    trainer.model.train()
    trainer.memberships.dirichlet = 1e12  # keeps the prevalence at one half, so that it is known here
    batch = batch_of(trainer)
    trainer.compute_loss(trainer.model, dict(batch)).backward()
    found = [p.grad.clone() for p in trainer.model.parameters() if p.grad is not None]
    trainer.model.zero_grad()

    rewards = trainer.model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).cluster_rewards
    a, b = (rewards[batch["alternatives"][:, i]] for i in (0, 1))
    log_lik = torch.nn.functional.logsigmoid((a - b) * (1 - 2 * batch["answer"])[:, None])
    totals = torch.zeros(6, 2).index_add(0, batch["rater"], log_lik)
    weight = len(trainer.train_dataset) * trainer.train_dataset.row_weight
    (-(totals + np.log(0.5)).logsumexp(1).sum() / weight).backward()
    expected = [p.grad for p in trainer.model.parameters() if p.grad is not None]
    for ours, exact in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, exact, atol=2e-6, rtol=1e-3)


def test_a_judgement_counts_once_and_its_own_rater_is_predicted_without_it():
    data, _ = planted(n_raters=4, per_rater=3, n_items=5)
    enc = data.encode()
    memory = RunningMemberships(enc, 2, dirichlet=1.5)
    rng = np.random.default_rng(0)
    for _ in range(3):  # every judgement is seen three times, in batches that hold some of them twice
        log_lik = -rng.exponential(size=(len(enc), 2))
        for part in np.split(rng.permutation(len(enc)), 3):
            batch = np.concatenate([part, part[:1]])
            memory.record(batch, log_lik[batch])
    expected = leave_one_out_posterior(log_lik, enc.rater, 4, memory.prevalence)
    np.testing.assert_allclose(np.exp(memory.log_membership(enc.rater, np.arange(len(enc)))), expected, atol=1e-12)
    np.testing.assert_allclose(np.exp(memory.log_membership(np.array([-1])))[0], memory.prevalence)


@pytest.mark.slow
@pytest.mark.parametrize("start", ["labels", "random"])
def test_planted_clusters_are_found(tmp_path, start):
    data, says_no = planted()
    epochs = 8 if start == "labels" else 16  # enough for every seed that was tried
    trainer = make_trainer(data, tmp_path, data, memberships_from=start, num_train_epochs=epochs)
    trainer.train()
    adapted = trainer.memberships.posterior().argmax(1)
    assert adjusted_rand_index(adapted, says_no.astype(int)) >= 0.9
    metrics = trainer.evaluate()
    assert metrics["eval_loss"] < 0.5
    assert metrics["eval_accuracy"] > 0.8
    assert sorted(trainer.memberships.prevalence)[0] == pytest.approx(1 / 3, abs=0.05)
    assert trainer.jury.config.prevalence == trainer.memberships.prevalence.tolist()
    assert metrics["eval_membership_entropy"] < 0.2
    for name in trainer.cluster_names:
        assert metrics[f"eval_accuracy_{name}"] > 0.8

    if start == "labels":
        bradley_terry = make_trainer(data, tmp_path, data, num_clusters=1)
        bradley_terry.train()
        assert bradley_terry.evaluate()["eval_loss"] > 0.6


@pytest.mark.slow
def test_new_raters_are_the_prevalence_until_the_jury_adapts_to_some_labels(tmp_path):
    data, _ = planted()
    new, _ = planted(n_raters=12, seed=5)
    new = Judgements.from_frame(new.frame.assign(rater_id="new " + new.frame["rater_id"]))
    trainer = make_trainer(data, tmp_path, {"new": new}, num_train_epochs=16, memberships_from="random")
    trainer.train()
    unadapted = trainer.evaluate()
    prevalence = trainer.memberships.prevalence
    assert unadapted["eval_new_membership_entropy"] == pytest.approx(entr(prevalence).sum())
    trainer.args.eval_adaptation = 0.5
    adapted = trainer.evaluate()
    assert adapted["eval_new_loss"] < unadapted["eval_new_loss"] - 0.1
    assert adapted["eval_new_membership_entropy"] < 0.2


@pytest.mark.slow
def test_a_jury_infers_the_memberships_itself(tmp_path):
    data, _ = planted()
    first = make_trainer(data, tmp_path, num_train_epochs=8, memberships_from="random", cluster_names=["one", "two"])
    first.train()
    jury = first.jury
    before = first.memberships.posterior()
    again = make_trainer(
        data, tmp_path, model=jury, rater_terms=None, max_steps=1, learning_rate=0.0, cluster_names=["uno", "due"]
    )
    assert again._memberships_from == "model"
    again.train()
    np.testing.assert_allclose(again.memberships.posterior().round(), before.round())
    assert again.cluster_names == ["uno", "due"]


def test_an_empty_cluster_is_reported_and_starts_from_those_explained_worst(tmp_path):
    data, _ = planted()
    trainer = make_trainer(data, tmp_path, memberships_from="random", cluster_names=["full", "empty"])
    log_lik = np.full((len(data), 2), [-0.1, -5.0])
    log_lik[np.isin(trainer.train_dataset.enc.rater, [3, 6]), 0] = -3.0
    trainer.memberships.record(np.arange(len(data)), log_lik)
    size = trainer.memberships.sizes()[1]
    with torch.no_grad():
        trainer.jury.score.weight[1] = 7.0
    with pytest.warns(JudgementWarning, match=rf"cluster 'empty' is empty: {size:.2f} expected raters"):
        assert trainer.revive_empty_clusters() == ["empty"]
    assert set(np.flatnonzero(trainer.memberships.posterior()[:, 1] > 0.9)) >= {3, 6}
    assert trainer.memberships.sizes()[1] > 1
    heads = trainer.jury.score.weight
    assert 0 < (heads[1] - heads[0]).abs().max().item() < 0.1
    assert trainer.revive_empty_clusters() == []


# ── votes, ties, choices, shares ────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.slow
def test_votes_on_one_statement_cost_one_pass_and_the_same_loss(tmp_path):
    data = votes(n_raters=6, n_items=4)
    trainer = make_trainer(data, tmp_path, memberships_from="random")
    one_by_one = make_trainer(data, tmp_path, memberships_from="random", judgements_per_row=1)
    assert (len(trainer.train_dataset), len(one_by_one.train_dataset)) == (4, 24)
    together = batch_of(trainer)
    assert together["input_ids"].shape[0] == 4
    assert together["answer"].shape == (24,)
    for t in (trainer, one_by_one):
        t.model.eval()
    loss = trainer.compute_loss(trainer.model, together).item()
    single = [one_by_one.compute_loss(one_by_one.model, batch_of(one_by_one, [i])).item() for i in range(24)]
    assert loss == pytest.approx(np.mean(single), abs=1e-6)


@pytest.mark.slow
def test_ratings_keep_leniency_out_of_the_clusters(tmp_path):
    data = votes()
    trainer = make_trainer(data, tmp_path, data, num_train_epochs=40, rater_terms=None)
    assert {"intercept", "log_scale"} <= set(trainer.terms.of_raters)
    thresholds = trainer.terms.shared["raw_thresholds"].copy()
    start = trainer.evaluate()["eval_loss"]
    trainer.train()
    assert trainer.evaluate()["eval_loss"] < start - 0.2
    assert adjusted_rand_index(trainer.memberships.posterior().argmax(1), np.arange(12) % 2) == 1.0
    assert np.abs(trainer.terms.shared["raw_thresholds"] - thresholds).max() > 0.01  # they follow the rewards
    assert set(trainer.jury.state_dict()) == set(JuryRewardModel(trainer.jury.config).state_dict())


def test_ties_are_likely_where_responses_are_alike(tmp_path):
    rng = np.random.default_rng(2)
    rows = []
    for rater in range(12):
        for item in range(12):
            a, b = [("yes", "no"), ("no", "no thanks")][item % 2]
            rows.append((f"r{rater}", f"Item {item}? ", a, b, "tie" if item % 2 else "ab"[rng.random() < 0.1]))
    columns = ["rater_id", "prompt", "response_a", "response_b", "choice"]
    data = Judgements.from_frame(pd.DataFrame(rows, columns=columns))
    trainer = make_trainer(data, tmp_path, data, num_clusters=1, num_train_epochs=20)
    trainer.train()
    metrics = trainer.evaluate()
    assert metrics["eval_accuracy"] > 0.9
    assert metrics["eval_margin"] > 1


@pytest.mark.slow
def test_choices_and_published_shares(tmp_path):
    options = ["yes", "no", "no idea"]
    shares = [0.6, 0.3, 0.1]
    soft = Judgements.from_frame(
        pd.DataFrame({"prompt": [f"Item {i}? " for i in range(4)], "options": [options] * 4, "probs": [shares] * 4})
    )
    trainer = make_trainer(soft, tmp_path, soft, num_train_epochs=40)
    assert trainer.jury.config.num_clusters == 1
    trainer.train()
    entropy = -np.dot(shares, np.log(shares))
    assert entropy - 1e-6 < trainer.evaluate()["eval_loss"] < entropy + 0.01

    rows = [(f"r{u}", f"Item {i}? ", options[: 2 + i % 2], u % 2) for u in range(10) for i in range(6)]
    choices = Judgements.from_frame(pd.DataFrame(rows, columns=["rater_id", "prompt", "options", "choice"]))
    trainer = make_trainer(choices, tmp_path, choices, num_train_epochs=30)
    trainer.train()
    assert trainer.evaluate()["eval_accuracy"] == 1.0
    assert adjusted_rand_index(trainer.memberships.posterior().argmax(1), np.arange(10) % 2) == 1.0


# ── refusals ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_refuses_before_any_work(tmp_path):
    data, _ = planted(n_raters=3, per_rater=2, n_items=2)
    soft = Judgements.from_frame(pd.DataFrame({"prompt": ["P"], "options": [["x", "y"]], "probs": [[0.5, 0.5]]}))

    def refused(match, given=data, error=JuryError, model="no/such/model", evaluation=None, **settings):
        with pytest.raises(error, match=match):
            make_trainer(given, tmp_path, evaluation, model=model, **settings)

    refused("num_clusters=0: a jury has at least one cluster", num_clusters=0)
    refused("num_clusters=4 is more than the 3 raters", num_clusters=4)
    refused("'soft' judgements do not say who", given=soft, num_clusters=2)
    refused("no column 'rater_id'", given=pairs(), num_clusters=2)
    refused("columns fit no kind", given=Dataset.from_list([{"text": "x"}]), error=JudgementError)
    refused("load it without streaming", given=IterableDataset.from_generator(lambda: iter([])), error=JudgementError)
    refused("memberships_from='label' is not one of .* Did you mean 'labels'", memberships_from="label")
    refused("temperature=0.5: 1 is Bayes' rule", temperature=0.5)
    refused("annealing_share=1.5: it is a share", annealing_share=1.5)
    refused("eval_adaptation=1.0 leaves no judgement", eval_adaptation=1.0)
    refused("cluster_names has 1 entries for num_clusters=2", num_clusters=2, cluster_names=["a"])
    refused("cluster_descriptions has 3 entries for 2", model=None, cluster_descriptions=["a", "b", "c"])
    refused("evaluation data hold 'rating' judgements", evaluation=votes(), error=JudgementError)
    tied = Judgements.from_frame(data.frame.assign(choice="tie"))
    refused("6 of 6 evaluation judgements are ties", evaluation=tied, error=JudgementError)
    refused("memberships_from='model', but the LlamaForCausalLM has no heads", model=None, memberships_from="model")
    classifier = LlamaForSequenceClassification(tiny_causal_lm(TOKENIZER).config)
    refused("num_labels=2: it is a classifier", model=classifier)
    refused("num_clusters=2, but the jury has 1 heads", model=one_head(), num_clusters=2)
    assert not list(tmp_path.iterdir())


def test_every_field_is_documented_twice():
    own = set(JuryRewardConfig.__dataclass_fields__) - set(RewardConfig.__dataclass_fields__)
    assert len(own) == 21
    for name in own:
        assert JuryRewardConfig.__dataclass_fields__[name].metadata["help"]
        assert f"        {name} (`" in JuryRewardConfig.__doc__


def test_the_installed_trl_is_the_one_this_was_written_for(monkeypatch):
    assert _trl.check_contract() == []
    private = {name for name, value in vars(JuryRewardTrainer).items() if name.startswith("_") and callable(value)}
    theirs = {name for name in dir(RewardTrainer) if not name.startswith("__")}
    assert private & theirs == set(_trl.OVERRIDDEN)
    monkeypatch.setitem(_trl.OVERRIDDEN, "_load_best_model", ["self", "where"])
    assert _trl.check_contract() == ["RewardTrainer._load_best_model takes ['self'], not ['self', 'where']"]
