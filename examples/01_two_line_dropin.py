"""The two-line change: an existing TRL script that keeps its minority.

Three clusters of raters judge answers to one prompt. 60 % of the people want a number below 4, 30 %
one from 4 to 7, and 10 % one from 8 up. A stock `trl.RLOOTrainer` learns from their judgement
twice: once from the weighted mean of the three rewards, which is the usual practice, and once from
[`JuryReward`][plural_rlhf.JuryReward]. Everything else is the same. Nothing is downloaded; the
policy has 40,000 random parameters.

    python examples/01_two_line_dropin.py      about twenty seconds on one core
"""

import tempfile

import matplotlib.pyplot as plt
import numpy as np
import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer, PrinterCallback
from trl import RLOOConfig, RLOOTrainer

from plural_rlhf import (
    JuryReward,
    PluralGRPOConfig,
    PluralGRPOTrainer,
    answer_probabilities,
    prepare_base_model,
)


PROMPT = [{"role": "user", "content": "Pick a number from 0 to 10."}]
ANSWERS = [str(n) for n in range(11)]

# %% 1. A jury
#
# Usually a jury is a reward model with one head per cluster, fitted to the judgements of many
# raters and loaded by its path: `JuryReward("runs/quickstart/jury")`. Any object with the three
# attributes below will do as well, and for a lesson it is good to know exactly who wants what.
# Rewards are logits: a cluster likes its own numbers by 8 logits more than the rest.


def cluster_of(text):
    """Return the cluster of an answer, one-hot; other texts belong to nobody."""
    member = torch.zeros(3)
    if text in ANSWERS:
        member[np.searchsorted([4, 8], int(text), side="right")] = 1.0
    return member


class NumberJury:
    """Who wants which numbers."""

    cluster_names = ["low", "middle", "high"]  # noqa: RUF012
    prevalence = np.array([0.6, 0.3, 0.1])

    def cluster_rewards(self, prompts, completions):
        """Return one row per completion and one column per cluster: `(N, K)`."""
        texts = [c if isinstance(c, str) else c[0]["content"] for c in completions]
        return 8.0 * torch.stack([cluster_of(text.strip()) for text in texts])


jury = NumberJury()
print("rewards of 0, 5 and 9:", jury.cluster_rewards([PROMPT] * 3, ["0", "5", "9"]).tolist())

# %% 2. A policy that answers
#
# A model with random weights says nothing sensible, so it first learns to give each of the eleven
# numbers equally often. The exact mode does that in seconds: the column `support` lists the
# answers, all are scored, nothing is sampled.


class Indifferent(NumberJury):
    """A jury to whom all answers are equal."""

    def cluster_rewards(self, prompts, completions):
        """Return zeros, `(N, K)`."""
        return torch.zeros(len(completions), 3)


folder = tempfile.TemporaryDirectory()
start = f"{folder.name}/start"
dataset = Dataset.from_list([{"prompt": PROMPT, "support": ANSWERS}] * 64)
quiet = {"logging_strategy": "no", "save_strategy": "no", "disable_tqdm": True}
common = {
    "output_dir": folder.name,
    "use_cpu": True,
    "bf16": False,
    "gradient_checkpointing": False,
    **quiet,
}

args = PluralGRPOConfig(
    exact=True, reference_power=0.0, max_steps=200, learning_rate=3e-3,
    per_device_train_batch_size=2, **common,
)  # fmt: skip
trainer = PluralGRPOTrainer(prepare_base_model("tiny", folder.name), Indifferent(), args, dataset)
trainer.remove_callback(PrinterCallback)
trainer.train()
trainer.save_model(start)

# %% 3. The two lines
#
# A plain TRL script passes a reward function that gives one number per completion, and TRL's
# default for RLOO is `beta=0.05` with the rewards as they are. Marked below is all that changes:
#
# 1. the reward function is a `JuryReward`, which keeps the three scores apart until it knows how
#    much of the policy each cluster already has;
# 2. `beta` is the temperature of the target, 1.0 for rewards in logits (and advantages stay
#    unnormalised: dividing them by their spread would make a gap of 0.02 the same as a gap of 2).
#
# The column `support` is optional. With it, anything that is not an allowed answer scores below
# everything that is.


def train(reward):
    """Return the policy after a stock RLOO run."""
    torch.manual_seed(0)
    trainer = RLOOTrainer(
        model=start,
        reward_funcs=reward,  # ← line 1: JuryReward("path/of/the/jury") instead of a scalar reward
        args=RLOOConfig(
            beta=1.0, normalize_advantages=False,  # ← line 2: the temperature of the target
            num_generations=16,
            per_device_train_batch_size=32,
            max_completion_length=4,
            max_steps=60,
            learning_rate=2e-3,
            **common,
        ),
        train_dataset=dataset,
    )  # fmt: skip
    trainer.remove_callback(PrinterCallback)
    trainer.train()
    return trainer.model


policies = {
    "before": AutoModelForCausalLM.from_pretrained(start),
    "weighted mean": train(
        JuryReward(jury, rule="mean")
    ),  # the usual practice: average, then optimise
    "JuryReward": train(JuryReward(jury, beta=1.0)),
}

# %% 4. Who is left
#
# The policy's probability of each cluster's numbers, and of anything else. It is read off, not
# sampled.

tokenizer = AutoTokenizer.from_pretrained(start)
members = torch.stack([cluster_of(answer) for answer in ANSWERS]).double().numpy()
table = {"wanted": [*jury.prevalence, 0.0]}
for name, model in policies.items():
    [probabilities] = answer_probabilities(model, tokenizer, [PROMPT], [ANSWERS], progress=False)
    table[name] = [*(probabilities @ members), 1 - probabilities.sum()]

print(f"{'':15}" + "".join(f"{name:>10}" for name in (*jury.cluster_names, "other")))
for name, row in table.items():
    print(f"{name:15}" + "".join(f"{share:10.1%}" for share in row))
minority = {name: row[2] / jury.prevalence[2] for name, row in table.items()}
print(
    f"\nThe cluster 'high' is {jury.prevalence[2]:.0%} of the people.\nThe weighted mean leaves it "
    f"{minority['weighted mean']:.0%} of its share, JuryReward {minority['JuryReward']:.0%}."
)

# %% The same as a picture

figure, axes = plt.subplots(figsize=(7, 3), layout="constrained")
left = np.zeros(len(table))
for k, name in enumerate((*jury.cluster_names, "other")):
    share = np.array([row[k] for row in table.values()])
    axes.barh(list(table), share, left=left, label=name, color=["C0", "C2", "C1", "lightgrey"][k])
    left += share
axes.invert_yaxis()
axes.set_xlabel("share of the policy's answers")
axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.25), ncols=4, frameon=False)
figure.suptitle("The mean of the rewards takes from the minority; JuryReward keeps its share")
plt.show()

# %% What to take away
#
# The mean of the rewards is one ranking, and its optimum gives the smallest cluster less than its
# due even with the reference and temperature right. The pool is each cluster's own optimum, in
# proportion to its weight. `weights="uniform"` or `weights={"high": 1}` would have asked for other
# shares, from the same jury.
#
# Next: [a jury from judgements](02_finetune_a_jury.py), or [your own pairs to a
# policy](05_pairs_to_policy.py).
