"""A finished jury reads texts as its training did: `reward_models.trainer.text_format`."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

from reward_models import JudgementError, JuryError, JuryRewardConfig, JuryRewardTrainer, JuryScorer
from reward_models.jury.backbones.loading import usual_reading
from reward_models.jury.features import pooled_features
from tests.jury_training import CPU, TOKENIZER, batch_of, make_trainer, pairs, planted
from tests.tiny import tiny_bert


QUESTION = [{"role": "user", "content": "Item 1:"}]


def trained(data, folder, **settings):
    """A trainer after one step, the rewards with which it evaluates its texts, and the jury that it saved."""
    trainer = make_trainer(data, folder, max_steps=1, **settings)
    trainer.train()
    trainer.save_model(str(folder / "jury"))
    rows = trainer.train_dataset
    rewards = trainer._score(trainer.get_eval_dataloader(rows), rows.enc.n_texts)
    return trainer, rewards, JuryScorer.from_pretrained(folder / "jury")


def conversational(data):
    return data.map(
        lambda row: {
            "prompt": [{"role": "user", "content": row["prompt"]}],
            **{side: [{"role": "assistant", "content": row[side]}] for side in ("chosen", "rejected")},
        }
    )


@pytest.mark.parametrize(
    "data", ["plain pairs", "conversational pairs", "table", "table as text", "table, no template"]
)
def test_a_saved_jury_scores_its_training_texts_as_the_training_did(data, tmp_path, monkeypatch):
    settings = {"max_length": 2048, "memberships_from": "random"}
    if data.startswith("table"):
        table, _ = planted(n_raters=6, per_rater=4, n_items=8)
        settings["as_conversations"] = False if data == "table as text" else None
        if data == "table, no template":
            bare = copy.deepcopy(TOKENIZER)
            bare.chat_template = None
            monkeypatch.setattr("tests.jury_training.TOKENIZER", bare)
    else:
        settings["as_conversations"] = None
        table = pairs() if data == "plain pairs" else conversational(pairs())
    trainer, rewards, scorer = trained(table, tmp_path, **settings)
    texts = trainer.train_dataset.enc.texts
    found = scorer.cluster_rewards([text.prompt for text in texts], [text.response for text in texts])
    np.testing.assert_allclose(found.numpy(), rewards, atol=1e-5)
    assert scorer.reading == trainer.reading
    assert scorer.reading.max_length == 2048


def test_prompts_of_a_table_are_asked_as_conversations_as_grpo_asks_them(tmp_path):
    table, _ = planted(n_raters=6, per_rater=4, n_items=8)
    trainer, rewards, scorer = trained(table, tmp_path, as_conversations=None)
    text = trainer.train_dataset.enc.texts[0]
    read = TOKENIZER.decode(trainer.train_dataset.tokens[0])
    assert read == f"<|im_start|>user\n{text.prompt}<|im_end|>\n<|im_start|>assistant\n{text.response}<|im_end|>\n"
    question, answer = [{"role": "user", "content": text.prompt}], [{"role": "assistant", "content": text.response}]
    found = scorer.cluster_rewards([question], [answer])[0].numpy()
    np.testing.assert_allclose(found, rewards[0], atol=1e-5)


def test_responses_can_be_read_alone(tmp_path):
    table, _ = planted(n_raters=6, per_rater=4, n_items=8)
    trainer, rewards, scorer = trained(table, tmp_path, as_conversations=None, read_prompt=False)
    text = trainer.train_dataset.enc.texts[0]
    assert TOKENIZER.decode(trainer.train_dataset.tokens[0]) == text.response
    found = scorer.cluster_rewards([text.prompt, "Something else?"], [text.response] * 2).numpy()
    np.testing.assert_allclose(found, rewards[[0, 0]], atol=1e-5)
    further = make_trainer(table, tmp_path / "further", model=scorer.model, as_conversations=None, num_clusters=None)
    assert not further.reading.read_prompt


def test_plain_pairs_can_be_read_as_conversations(tmp_path):
    _, _, scorer = trained(pairs(), tmp_path / "plain", as_conversations=None)
    with pytest.raises(JuryError, match=r"was trained on plain chosen/rejected.*as_conversations=True"):
        scorer.cluster_rewards([QUESTION], ["good"])
    _, _, scorer = trained(pairs(), tmp_path / "chat", as_conversations=True)
    assert torch.equal(scorer.cluster_rewards([QUESTION], ["good"]), scorer.cluster_rewards(["Item 1:"], ["good"]))


def test_a_jury_that_is_trained_further_keeps_its_format(tmp_path):
    _, _, scorer = trained(pairs(), tmp_path / "first", as_conversations=True)
    trainer = make_trainer(pairs(), tmp_path / "second", model=scorer.model, as_conversations=None, num_clusters=None)
    assert trainer.reading.format == "conversations"
    assert TOKENIZER.decode(batch_of(trainer)["input_ids"][0]).startswith("<|im_start|>user")


def test_a_resumed_training_reads_as_its_checkpoint_does(tmp_path):
    table, _ = planted(n_raters=6, per_rater=4, n_items=8)
    settings = {"max_steps": 4, "save_strategy": "steps", "save_steps": 2, "memberships_from": "random"}
    whole = make_trainer(table, tmp_path / "a", table, **settings)
    whole.train()
    resumed = make_trainer(table, tmp_path / "b", table, **{**settings, "as_conversations": True})
    with pytest.warns(UserWarning, match=r"reads texts with format='text' \(here: 'conversations'\).*new training"):
        resumed.train(resume_from_checkpoint=str(tmp_path / "a" / "checkpoint-2"))
    for (name, a), (_, b) in zip(whole.model.named_parameters(), resumed.model.named_parameters(), strict=True):
        assert torch.equal(a, b), name
    assert resumed.evaluate()["eval_loss"] == whole.evaluate()["eval_loss"]
    resumed.save_model(str(tmp_path / "jury"))
    assert JuryScorer.from_pretrained(tmp_path / "jury").reading == whole.reading


def test_conversations_without_a_template_are_refused(tmp_path, monkeypatch):
    bare = copy.deepcopy(TOKENIZER)
    bare.chat_template = None
    monkeypatch.setattr("tests.jury_training.TOKENIZER", bare)
    with pytest.raises(JudgementError, match=r"the training data cannot be read.*Set tokenizer.chat_template"):
        make_trainer(pairs(), tmp_path, as_conversations=True)


def test_an_encoder_is_pooled_and_tokenised_as_fit_jury_reads_it(tmp_path):
    model, tokenizer = tiny_bert(tmp_path)
    table, _ = planted(n_raters=6, per_rater=4, n_items=8)
    args = JuryRewardConfig(str(tmp_path / "out"), num_clusters=2, max_steps=1, rater_terms=False, **CPU)
    trainer = JuryRewardTrainer(model, args, table, processing_class=tokenizer)
    assert trainer.reading == usual_reading(model, tokenizer)
    assert (trainer.reading.pooling, trainer.reading.max_length) == ("mean", 64)  # not the 1,024 of decoders
    trainer.train()
    trainer.save_model(str(tmp_path / "jury"))
    rows = trainer.train_dataset
    rewards = trainer._score(trainer.get_eval_dataloader(rows), rows.enc.n_texts)
    features = pooled_features(trainer.jury.model, tokenizer, rows.enc.texts, reading=trainer.reading)
    heads, bias = (x.detach().numpy() for x in (trainer.jury.score.weight, trainer.jury.score.bias))
    np.testing.assert_allclose(features @ heads.T + bias, rewards, atol=1e-5)
    texts = rows.enc.texts
    scorer = JuryScorer.from_pretrained(tmp_path / "jury")
    found = scorer.cluster_rewards([text.prompt for text in texts], [text.response for text in texts])
    np.testing.assert_allclose(found.numpy(), rewards, atol=1e-5)
