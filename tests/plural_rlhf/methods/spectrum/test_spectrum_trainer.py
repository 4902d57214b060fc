"""Training on sequences: what a batch computes, what a resumed training sees, and what is learnt."""

import pytest
import torch

from plural_rlhf.methods.spectrum import (
    Example,
    SpectrumConfig,
    SpectrumDataset,
    SpectrumSequence,
    SpectrumTrainer,
    coin_flips,
    encode_sequence,
    template_for,
)
from plural_rlhf.methods.spectrum.collator import PackedCollator
from plural_rlhf.methods.spectrum.tokens import IGNORED
from reward_models.jury.tiny import tiny_causal_lm, tiny_tokenizer


def settings(folder, **more):
    usual = {"use_cpu": True, "bf16": False, "report_to": "none", "disable_tqdm": True, "save_strategy": "no"}
    return SpectrumConfig(str(folder), **{**usual, "gradient_checkpointing": False, **more})


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_sequences_of_a_batch_do_not_see_each_other(attention):
    tokenizer = tiny_tokenizer()
    model = tiny_causal_lm(tokenizer, attn_implementation=attention)
    template = template_for(tokenizer)
    rows = [encode_sequence(s, template, tokenizer) for s in coin_flips(3, 4)]
    batch = PackedCollator()([{"input_ids": row.input_ids, "labels": row.labels} for row in rows])
    with torch.no_grad():
        together = model(**{k: batch[k] for k in ("input_ids", "position_ids")}, use_cache=False).logits[0]
        alone = torch.cat([model(torch.tensor([row.input_ids])).logits[0] for row in rows])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)
    assert batch["labels"][0].ne(IGNORED).sum() == sum(label != IGNORED for row in rows for label in row.labels)


def test_the_loss_is_the_mean_over_learnt_tokens(tmp_path):
    tokenizer = tiny_tokenizer()
    model = tiny_causal_lm(tokenizer)
    flips = coin_flips(4, 5)
    trainer = SpectrumTrainer(
        model, settings(tmp_path, per_device_eval_batch_size=4), flips, flips, processing_class=tokenizer
    )
    template, total, count = trainer.template, 0.0, 0
    for sequence in flips:
        row = encode_sequence(sequence, template, tokenizer)
        labels = torch.tensor(row.labels[1:])
        with torch.no_grad():
            log_probs = model(torch.tensor([row.input_ids])).logits[0, :-1].log_softmax(-1)
        learnt = labels.ne(IGNORED)
        total -= float(log_probs[learnt].gather(1, labels[learnt][:, None]).sum())
        count += int(learnt.sum())
    assert trainer.evaluate()["eval_loss"] == pytest.approx(total / count, rel=1e-4)


def test_a_resumed_training_sees_what_the_unbroken_one_saw_and_every_epoch_draws_anew(tmp_path):
    tokenizer = tiny_tokenizer()
    flips, seen = coin_flips(4, 6, described=True), []

    def train(folder, resume=None):
        args = settings(
            folder, max_steps=6, per_device_train_batch_size=2, save_strategy="steps", save_steps=3,
            learning_rate=1e-3, seed=1, mean_examples=3,
        )  # fmt: skip
        trainer = SpectrumTrainer(tiny_causal_lm(tokenizer), args, flips, processing_class=tokenizer)
        collate = trainer.data_collator

        def recorded(rows):
            seen.extend(row["input_ids"] for row in rows)
            return collate(rows)

        trainer.data_collator = recorded
        trainer.train(resume_from_checkpoint=resume)
        return trainer.model.state_dict(), args.draws

    whole, draws = train(tmp_path / "whole")
    data = SpectrumDataset(flips, tokenizer, template_for(tokenizer), draws=draws)
    for epoch in range(3):
        data.set_epoch(epoch)
        shown = seen[4 * epoch : 4 * epoch + 4]
        assert sorted(shown) == sorted(data[i]["input_ids"] for i in range(4))
    assert sorted(seen[:4]) != sorted(seen[4:8])
    resumed, _ = train(tmp_path / "resumed", str(tmp_path / "whole" / "checkpoint-3"))
    for name, value in whole.items():
        assert value.equal(resumed[name]), name


def test_examples_that_never_fit_are_counted_by_the_trainer(tmp_path, caplog):
    tokenizer = tiny_tokenizer()
    person = SpectrumSequence((Example("no" * 200), Example("yes"), Example("no")), name="rater 9")
    args = settings(tmp_path, max_length=60)
    trainer = SpectrumTrainer(tiny_causal_lm(tokenizer), args, [person], [person], processing_class=tokenizer)
    assert caplog.text.count("1 of 3 examples do not fit into max_length=60 tokens by themselves") == 2
    assert "'rater 9'" in caplog.text
    assert tokenizer.decode([x for x in trainer.eval_dataset[0]["labels"] if x != IGNORED]) == "no<|im_end|>"


def test_settings_without_effect_are_refused(tmp_path):
    impossible = ({"description_share": 2}, {"mean_examples": 0}, {"max_length": 0}, {"template": "chatlm"})
    for wrong in ({"packing": True}, {"completion_only_loss": True}, *impossible):
        with pytest.raises(ValueError, match="Fix:"):
            settings(tmp_path, **wrong)
