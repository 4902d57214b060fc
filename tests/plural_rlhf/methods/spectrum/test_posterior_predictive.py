"""A tiny model trained on coins, urns and normals at once predicts nearly as well as Bayes' rule does, by examples."""

import numpy as np
import pytest
import torch
from scipy.stats import norm
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from plural_rlhf.methods.spectrum import (
    SpectrumConfig,
    SpectrumSequence,
    SpectrumTrainer,
    coin_flips,
    example_losses,
    normal_draws,
    option_curves,
    urn_draws,
)
from reward_models.jury.tiny import tiny_causal_lm


WORDS = [
    "<|im_start|>",
    "<|im_end|>",
    "\n",
    "output",
    "description",
    "input",
    "heads",
    "tails",
    "red",
    "blue",
    "green",
]
WORDS += [*map(str, range(100)), "?"]


def bayes_nats(outputs, options, k):
    """Loss of the posterior predictive for output `k`."""
    if len(options) < 100:
        return -np.log((outputs[:k].count(outputs[k]) + 1) / (k + len(options)))
    seen, value = np.array(list(map(int, outputs[:k]))), int(outputs[k])
    precision = 1 / 15**2 + k / 5**2
    mean, spread = (50 / 15**2 + seen.sum() / 5**2) / precision, np.sqrt(5**2 + 1 / precision)
    low, high = (-np.inf if value == 0 else value - 0.5), (np.inf if value == 99 else value + 0.5)
    return -np.log(norm.cdf(high, mean, spread) - norm.cdf(low, mean, spread))


@pytest.mark.slow
def test_a_tiny_model_is_within_five_percent_of_bayes_and_nears_the_truth_with_examples(tmp_path):
    core = Tokenizer(models.WordLevel({word: place for place, word in enumerate(WORDS)}, unk_token="?"))
    core.pre_tokenizer = pre_tokenizers.Split("\n", "isolated")
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core, eos_token="<|im_end|>", pad_token="<|im_end|>", unk_token="?"
    )
    torch.manual_seed(0)
    model = tiny_causal_lm(tokenizer, hidden_size=32, intermediate_size=64)
    args = SpectrumConfig(
        str(tmp_path), learning_rate=5e-3, per_device_train_batch_size=4, gradient_accumulation_steps=4,
        num_train_epochs=1, use_cpu=True, bf16=False, report_to="none", disable_tqdm=True, save_strategy="no",
        logging_strategy="no", gradient_checkpointing=False,
    )  # fmt: skip
    sequences = [*coin_flips(1500, 12), *urn_draws(1500, 12), *normal_draws(3000, 12)]
    trainer = SpectrumTrainer(model, args, sequences, processing_class=tokenizer)
    trainer.train()
    for draws in (coin_flips, urn_draws, normal_draws):
        heldout = draws(100, 12, seed=1)
        of_each = example_losses(model, tokenizer, heldout, trainer.template, progress=False)
        losses, curve = of_each.nats[:, 1:], of_each.curve()
        outputs = [[example.output for example in sequence.examples] for sequence in heldout]
        options = heldout[0].options
        best = [[bayes_nats(of_one, options, k) for k in range(1, 12)] for of_one in outputs]
        assert losses.mean() < 1.05 * np.mean(best), draws.__name__
        assert curve[8:].mean() < curve[1:4].mean(), draws.__name__
        mixed = [
            SpectrumSequence((*heldout[i - 1].examples[:11], heldout[i].examples[11])) for i in range(len(heldout))
        ]
        mislead = example_losses(model, tokenizer, mixed, trainer.template, progress=False).nats[:, 11]
        assert mislead.mean() > 1.1 * losses[:, 10].mean(), (
            f"{draws.__name__}: examples of another source do not mislead"
        )
        curves = option_curves(
            model, tokenizer, heldout[:60], trainer.template, positions=(1, 3, 6, 11), progress=False
        )
        assert (np.diff(curves.js_curve()) < 0).all(), (draws.__name__, curves.js_curve())
