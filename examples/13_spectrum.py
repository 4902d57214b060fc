"""Spectrum Tuning: a model that takes up a distribution from its examples.

A model of 40,000 random parameters is shown flips of 2,000 coins, each with its own bias, and
learns to say the next flip. It is never told a bias. What it should say is known exactly: after h
heads in n flips, heads with probability (h + 1) / (n + 2). Nothing is downloaded.

    python examples/13_spectrum.py      about ten seconds on one core
"""

import tempfile

import matplotlib.pyplot as plt
import numpy as np
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from plural_rlhf.methods.spectrum import (
    SpectrumConfig,
    SpectrumTrainer,
    coin_flips,
    example_losses,
)
from plural_rlhf.policies.base_models import tiny_causal_lm


# %% 1. A sequence
#
# A sequence is a list of examples of one distribution. Usually it is what one person judged:
# `rater_sequences(judgements)` makes one per rater of a table. Here it is one coin.

coins = coin_flips(2_000, 12)
heldout = coin_flips(100, 12, seed=1)
print("The first coin:", " ".join(example.output for example in coins[0].examples))

# %% 2. Training
#
# A tokenizer of a few words keeps sequences short; any tokenizer will do, and `template_for` finds
# the chat tokens of its family. The loss is on outputs and their end tokens. The first flip has
# none, because nothing says yet which coin it is.

words = [
    "<|im_start|>",
    "<|im_end|>",
    "\n",
    "output",
    "description",
    "input",
    "heads",
    "tails",
    "?",
]
core = Tokenizer(models.WordLevel({word: place for place, word in enumerate(words)}, unk_token="?"))
core.pre_tokenizer = pre_tokenizers.Split("\n", "isolated")
tokenizer = PreTrainedTokenizerFast(
    tokenizer_object=core, eos_token="<|im_end|>", pad_token="<|im_end|>", unk_token="?"
)
model = tiny_causal_lm(tokenizer)

with tempfile.TemporaryDirectory() as folder:
    args = SpectrumConfig(
        folder,
        learning_rate=5e-3,
        per_device_train_batch_size=4,  # a batch is one row of tokens: attention costs its square
        gradient_accumulation_steps=4,
        num_train_epochs=1,
        gradient_checkpointing=False,
        use_cpu=True,
        bf16=False,
        report_to="none",
        disable_tqdm=True,
        save_strategy="no",
        logging_strategy="no",
    )
    trainer = SpectrumTrainer(model, args, coins, processing_class=tokenizer)
    trainer.train()

# %% 3. What it learnt
#
# The loss of each flip after those before it, beside the loss of the best possible prediction.

losses = example_losses(model, tokenizer, heldout, trainer.template, progress=False).curve()
heads = np.array([[example.output == "heads" for example in coin.examples] for coin in heldout])
before = heads.cumsum(axis=1) - heads
p = (before + 1) / (np.arange(heads.shape[1]) + 2)
best = -np.log(np.where(heads, p, 1 - p)).mean(axis=0)
model_loss, best_loss = losses[1:].mean(), best[1:].mean()
print(f"Loss after 1 to 11 flips: {model_loss:.3f} nats; the best possible is {best_loss:.3f}")

plt.plot(losses[1:], label="model")
plt.plot(best[1:], "--", color="grey", label="best possible")
plt.xlabel("flips seen, less one")
plt.ylabel("loss of the next (nats)")
plt.legend()
plt.show()

# %% What to take away
#
# Nothing in the model says what the bias is: it reads it off the flips, and is nearly as sure as it
# may be. Shown sequences of people's judgements in place of coins, a model learns to read off who
# is judging. A model that was tuned to give the one best answer does not.
