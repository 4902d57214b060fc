"""DPO from disagreement: pairs of people who want opposite things.

Thirty people choose between parks and roads. Two thirds like parks, one third roads; the table says
who chose what, but not who thinks alike. DPO that does not look at the raters has one answer for
everybody. [`PluralDPOTrainer`][plural_rlhf.PluralDPOTrainer] gets the probability that a rater is
in each of two groups, and ends with one policy that answers for either group, or for all in
proportion.

    python examples/10_dpo_from_disagreement.py      about twenty seconds on one core
"""

import tempfile

import matplotlib.pyplot as plt
import numpy as np
import torch
from datasets import Dataset
from transformers import PrinterCallback

from plural_rlhf import (
    PluralDPOConfig,
    PluralDPOTrainer,
    PluralGRPOConfig,
    PluralGRPOTrainer,
    Steerer,
    prepare_base_model,
)
from reward_models import Judgements, adjusted_rand_index, fit_mixture


# %% 1. Pairs
#
# TRL's columns and a `rater_id`. One choice in ten is a slip.

QUESTIONS = ["What should we have?", "What is missing here?", "What shall we build?"]
ANSWERS = ["Parks.", "Roads."]

rng = np.random.default_rng(0)
rows = []
for rater in range(30):
    for question in QUESTIONS:
        likes_parks = (rater % 3 > 0) != (rng.random() < 0.1)
        chosen, rejected = ANSWERS if likes_parks else reversed(ANSWERS)
        row = {"prompt": question, "chosen": chosen, "rejected": rejected}
        rows.append(row | {"rater_id": f"rater {rater}"})
pairs = Dataset.from_list(rows)
print(pairs.to_pandas().head(4).to_string(index=False))
print(
    f"{np.mean([row['chosen'] == 'Parks.' for row in rows]):.0%} of {len(rows)} choices are parks"
)

# %% 2. Who thinks alike
#
# The choices tell. `fit_mixture` needs no language model; what it says of each rater becomes the
# column `membership`. (Where you know the groups, a column `cluster` with their names does the
# same. A saved jury and the column `rater_id` do it for the raters that the jury has seen.)

GROUPS = ["green", "grey"]
fit = fit_mixture(Judgements.from_dataset(pairs).encode(), 2)
membership = dict(zip(fit.rater_ids, fit.responsibilities.tolist(), strict=True))
pairs = pairs.add_column("membership", [membership[rater] for rater in pairs["rater_id"]])
likelier = [int(np.argmax(membership[f"rater {rater}"])) for rater in range(30)]
truth = [int(rater % 3 == 0) for rater in range(30)]
print(f"{fit.prevalence[0]:.0%} and {fit.prevalence[1]:.0%} of the raters; ", end="")
print(f"agreement with the truth (adjusted Rand index): {adjusted_rand_index(likelier, truth):.2f}")

# %% 3. A policy that answers
#
# DPO moves a policy away from its reference, which had better say something. A random model first
# learns to give both answers equally often, whoever is asked. A model of yours will not need this.


class Indifferent:
    """A jury to whom all answers are equal."""

    cluster_names, prevalence = GROUPS, np.array([0.5, 0.5])

    def cluster_rewards(self, prompts, completions):
        """Return zeros, `(N, K)`."""
        return torch.zeros(len(completions), 2)


folder = tempfile.TemporaryDirectory()
common = {"save_strategy": "no", "logging_strategy": "no", "disable_tqdm": True}
common |= {"use_cpu": True, "bf16": False, "gradient_checkpointing": False}
start = f"{folder.name}/start"
args = PluralGRPOConfig(
    start, exact=True, steerable=True, reference_power=0.0, max_steps=80, learning_rate=1e-2,
    per_device_train_batch_size=6, lr_scheduler_type="linear", **common,
)  # fmt: skip
torch.manual_seed(0)
dataset = Dataset.from_list([{"prompt": q, "support": ANSWERS} for q in QUESTIONS] * 2)
base = prepare_base_model("tiny", folder.name)
trainer = PluralGRPOTrainer(base, Indifferent(), args, dataset)
trainer.remove_callback(PrinterCallback)
trainer.train()
trainer.save_model()

# %% 4. DPO twice
#
# `objective="average"` is TRL's DPO: the prompts are left alone. With `"mixture"` the likelihood of
# a choice is the mixture over the groups that its rater may be in, and the prompt says which group
# is meant; the plain prompt is held to the mixture of the two (`public_coef`). `sft_coef` keeps the
# probability on what somebody chose.


def train(objective, **settings):
    """Return a trainer after training."""
    args = PluralDPOConfig(
        f"{folder.name}/{objective}", objective=objective, beta=0.5, sft_coef=0.5, max_steps=60,
        learning_rate=6e-3, lr_scheduler_type="linear", per_device_train_batch_size=20,
        **common, **settings,
    )  # fmt: skip
    torch.manual_seed(0)
    trainer = PluralDPOTrainer(start, args=args, train_dataset=pairs.remove_columns("rater_id"))
    trainer.remove_callback(PrinterCallback)
    trainer.train()
    return trainer


trainers = {
    "average": train("average", cluster_names=GROUPS),
    "mixture": train("mixture", cluster_names=GROUPS, public_coef=0.5),
}

# %% 5. Who gets an answer

shares = {}
print(f"{'objective':12}{'asked for':12}" + "".join(f"{answer:>9}" for answer in ANSWERS))
for objective, trainer in trainers.items():
    steerer = Steerer(trainer.model, trainer.processing_class, GROUPS, fit.prevalence)
    for weights in (*GROUPS, "prevalence"):
        answers = steerer.answer_probabilities(QUESTIONS, ANSWERS, weights)
        shares[objective, weights] = np.mean(answers, axis=0)
        row = "".join(f"{share:9.1%}" for share in shares[objective, weights])
        print(f"{objective:12}{weights:12}{row}")

# %% The same as a picture

figure, axes = plt.subplots(figsize=(7, 3), layout="constrained")
for i, objective in enumerate(trainers):
    parks = [shares[objective, weights][0] for weights in (*GROUPS, "prevalence")]
    axes.bar(
        np.arange(3) + 0.36 * (i - 0.5), parks, width=0.36, label=objective, color=["C1", "C0"][i]
    )
axes.set_xticks(range(3), ["asked for green", "asked for grey", "asked for everybody"])
axes.set_ylabel("probability of parks")
axes.legend(frameon=False)
figure.suptitle("The average says the same to all; the mixture answers for whom it is asked")
plt.show()

# %% What to take away
#
# Pairs of people who disagree are not noise. Where one policy must serve all of them without being
# told, the plain prompt of the mixture does it; where it is told, each group gets its own answer.
# More on DPO and clusters that are learnt along: [tools](../docs/tools.md).
