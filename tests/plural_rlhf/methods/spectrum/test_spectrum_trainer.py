"""Training on sequences: what a batch computes, what a resumed training sees, and what is learnt."""

import numpy as np
import pytest
import torch

from plural_rlhf.methods.spectrum import (
    SpectrumConfig,
    SpectrumSequence,
    SpectrumTrainer,
    coin_flips,
    encode_sequence,
    example_losses,
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


def test_a_resumed_training_sees_what_the_unbroken_one_saw(tmp_path):
    tokenizer = tiny_tokenizer()

    def train(folder, resume=None):
        args = settings(
            folder, max_steps=6, per_device_train_batch_size=2, save_strategy="steps", save_steps=3,
            learning_rate=1e-3, seed=1, mean_examples=3,
        )  # fmt: skip
        trainer = SpectrumTrainer(
            tiny_causal_lm(tokenizer), args, coin_flips(4, 6, described=True), processing_class=tokenizer
        )
        trainer.train(resume_from_checkpoint=resume)
        return trainer.model.state_dict()

    whole = train(tmp_path / "whole")
    resumed = train(tmp_path / "resumed", str(tmp_path / "whole" / "checkpoint-3"))
    for name, value in whole.items():
        assert value.equal(resumed[name]), name


def word_tokenizer():
    """A tokenizer of a few words, so that a sequence is short."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = ["<|im_start|>", "<|im_end|>", "\n", "output", "description", "input", "heads", "tails", "?"]
    core = Tokenizer(models.WordLevel({word: place for place, word in enumerate(words)}, unk_token="?"))
    core.pre_tokenizer = pre_tokenizers.Split("\n", "isolated")
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core, eos_token="<|im_end|>", pad_token="<|im_end|>", bos_token="<|im_start|>", unk_token="?"
    )
    return tokenizer


@pytest.mark.slow
def test_a_small_model_learns_to_infer_the_coin(tmp_path):
    """Held-out loss within 5 % of the Bayes posterior predictive, and nearer to the coin's own with more flips."""
    tokenizer = word_tokenizer()
    torch.manual_seed(0)
    model = tiny_causal_lm(tokenizer, max_position_embeddings=256)
    args = settings(
        tmp_path, max_steps=250, per_device_train_batch_size=16, learning_rate=5e-3, warmup_steps=20,
        lr_scheduler_type="cosine", seed=0,
    )  # fmt: skip
    SpectrumTrainer(model, args, coin_flips(4000, 16), processing_class=tokenizer).train()
    heldout = coin_flips(150, 16, seed=1)
    losses = example_losses(model, tokenizer, heldout, template_for(tokenizer), progress=False)
    heads = np.array([[example.output == "heads" for example in flips.examples] for flips in heldout])
    before = np.concatenate([np.zeros((len(heads), 1)), heads.cumsum(axis=1)[:, :-1]], axis=1)
    n = np.arange(heads.shape[1])
    says_heads = (before + 1) / (n + 2)
    bayes = -np.log(np.where(heads, says_heads, 1 - says_heads))
    curve = losses.curve()
    assert losses.nats[:, 1:].mean() < 1.05 * bayes[:, 1:].mean()
    assert curve[8:].mean() < curve[1:4].mean()
    shuffled = [
        SpectrumSequence((*heldout[i - 1].examples[:15], heldout[i].examples[15])) for i in range(len(heldout))
    ]
    other = example_losses(model, tokenizer, shuffled, template_for(tokenizer), progress=False)
    assert other.nats[:, 15].mean() > 1.1 * losses.nats[:, 15].mean()  # examples of another coin mislead


def test_settings_without_effect_are_refused(tmp_path):
    for wrong in ({"packing": True}, {"completion_only_loss": True}, {"description_share": 2}, {"mean_examples": 0}):
        with pytest.raises(ValueError, match="Fix:"):
            settings(tmp_path, **wrong)
