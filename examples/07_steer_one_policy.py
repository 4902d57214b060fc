"""One policy for every public: say whose answer you want.

A steerable policy is trained once, under weights over three groups of people that change with every
prompt and are said in the prompt. Afterwards [`Steerer`][plural_rlhf.Steerer] asks it for any
public: one group, the population, or the seats of a jury. Here a policy with 40,000 parameters
suggests what to do tonight; it is asked for weights on a grid, and its answers are read off
exactly.

    python examples/07_steer_one_policy.py      about fifteen seconds on one core
"""

import tempfile

import matplotlib.pyplot as plt
import numpy as np
import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer, PrinterCallback

from plural_rlhf import (
    PluralGRPOConfig,
    PluralGRPOTrainer,
    Steerer,
    WeightSampler,
    prepare_base_model,
)


# %% 1. Three groups
#
# Who likes what, in logits. Usually a saved jury says so; any object with `cluster_names`,
# `prevalence` and `cluster_rewards` will do.

PROMPT = [{"role": "user", "content": "What shall we do tonight?"}]
ANSWERS = ["Jazz.", "Opera.", "Film.", "Football."]
REWARDS = np.array([[4, 3, 0, -1], [0, 0, 4, 0], [0, -1, 0, 4]])  # (clusters, answers)


class Evening:
    """Music lovers, film lovers and sports fans."""

    cluster_names = ["music", "screen", "sport"]  # noqa: RUF012
    prevalence = np.array([0.5, 0.3, 0.2])

    def cluster_rewards(self, prompts, completions):
        """Return `(N, K)` rewards of completions that are among the answers."""
        texts = [c if isinstance(c, str) else c[0]["content"] for c in completions]
        return torch.tensor(np.array([REWARDS[:, ANSWERS.index(text)] for text in texts]))


scorer = Evening()

# %% 2. Weights in the prompt
#
# `WeightSampler` draws weights for every visit of a prompt and puts them into it: often one group
# alone, often the population, else anything. `PluralGRPOConfig(steerable=True)` makes one that says
# the percents in words, which a language model can read. Ours cannot read yet, so it gets a
# reserved token for each group and tenth.

folder = tempfile.TemporaryDirectory()
base = prepare_base_model("tiny", folder.name)
model = AutoModelForCausalLM.from_pretrained(base)
tokenizer = AutoTokenizer.from_pretrained(base)
sampler = WeightSampler(
    scorer.cluster_names, scorer.prevalence, concentration=0.5, vertex_share=0.1,
    rendering="tokens", levels=11,
)  # fmt: skip
sampler.prepare(model, tokenizer)
words = WeightSampler(scorer.cluster_names, scorer.prevalence)
for weights in ([0.2, 0.3, 0.5], [1, 0, 0], scorer.prevalence):
    print(f"{words.describe(weights)}\n    {sampler.describe(weights)}")

# %% 3. Training
#
# The exact mode: the column `support` lists the answers, all are scored, nothing is sampled.

common = {"save_strategy": "no", "logging_strategy": "no", "disable_tqdm": True}
common |= {"use_cpu": True, "bf16": False, "gradient_checkpointing": False}
args = PluralGRPOConfig(
    folder.name, exact=True, reference_power=0.0, max_steps=300, learning_rate=5e-3,
    lr_scheduler_type="cosine", per_device_train_batch_size=16, **common,
)  # fmt: skip
dataset = Dataset.from_list([{"prompt": PROMPT, "support": ANSWERS}] * 16)
torch.manual_seed(0)
trainer = PluralGRPOTrainer(
    model, scorer, args, dataset, processing_class=tokenizer, weight_sampler=sampler
)
trainer.remove_callback(PrinterCallback)
trainer.train()

# %% 4. Asking
#
# `weights` is a group's name, shares, seats, `"prevalence"` or `"uniform"`: one for all prompts, or
# a list with one each. A policy this small slips now and then: about one sample in fifty is no
# answer.

steerer = Steerer(
    trainer.model, tokenizer, scorer.cluster_names, scorer.prevalence, "tokens", levels=11
)
PUBLICS = ["prevalence", "uniform", "sport", {"music": 4, "screen": 1}, {"sport": 2, "screen": 3}]
print(f"{'asked for':28}" + "".join(f"{answer:>11}" for answer in ANSWERS))
for weights in PUBLICS:
    [probabilities] = steerer.answer_probabilities(PROMPT, ANSWERS, [weights])
    print(f"{weights!s:28}" + "".join(f"{p:11.1%}" for p in probabilities))

torch.manual_seed(0)
print("\nsampled:", *steerer.generate(PROMPT, "uniform", num_return_sequences=8))

# %% 5. Asked against achieved
#
# Twenty-one weightings in steps of a fifth. The target of each is known exactly: the mixture of
# what each group would say alone.

grid = np.array([(i, j, 5 - i - j) for i in range(6) for j in range(6 - i)]) / 5
achieved = np.stack(steerer.answer_probabilities(PROMPT, ANSWERS, list(grid)))
alone = np.exp(REWARDS) / np.exp(REWARDS).sum(1, keepdims=True)
wanted = grid @ alone
error = np.abs(achieved - wanted)
print(f"largest error of a probability: {error.max():.2f}, mean {error.mean():.3f}")

favourites = np.array([[1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
figure, axes = plt.subplots(figsize=(5.5, 4), layout="constrained")
for k, name in enumerate(scorer.cluster_names):
    axes.plot(
        (wanted @ favourites.T)[:, k],
        (achieved @ favourites.T)[:, k],
        "o",
        label=f"what {name} likes",
        alpha=0.7,
    )
axes.axline((0, 0), slope=1, color="black", linewidth=0.8)
axes.set_xlabel("probability in the exact mixture")
axes.set_ylabel("probability in the policy's answers")
axes.legend(frameon=False)
figure.suptitle("One policy follows all 21 weightings")
plt.show()

# %% What to take away
#
# Who decides need not be decided before training. In words the same works with a model that can
# read: `steerable=True`, then `Steerer.from_pretrained("policy", "jury")`. A rater's posterior is a
# weighting too, which makes a personal answer. To do without weights in the prompt afterwards,
# [distil](11_distil.py).
