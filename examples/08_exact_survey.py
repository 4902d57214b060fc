"""A survey without sampling: from people's answers to a policy that answers as they do.

A hundred and twenty people answer ten questions. `fit_jury` finds out which kinds of people there
are, exact mode (a column `support` with the options) trains a policy towards their mixture, and the
result is held against a hundred and twenty other people: all of them, and each cluster. The rivals
are a policy that gives every option the same chance, and one that always says what most people say.

    python examples/08_exact_survey.py      about fifteen seconds on one core
"""

import tempfile

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer, PrinterCallback

from plural_rlhf import (
    PluralGRPOConfig,
    PluralGRPOTrainer,
    answer_probabilities,
    prepare_base_model,
)
from plural_rlhf.evaluation import cluster_panel
from reward_models import (
    Judgements,
    as_messages,
    fit_jury,
    js_divergence,
    noise_floor_js,
    planted_judgements,
    split_raters,
)


# %% 1. Answers
#
# `planted_judgements` draws a survey from clusters that are known; a table of your own has the
# columns `rater_id`, `prompt`, `options` and `choice` (the number of an option). Half of the people
# are kept for the evaluation.

planted = planted_judgements("choice", num_raters=240, num_items=10, strength=1.5)
table = planted.judgements.frame[["rater_id", "prompt", "options", "choice"]]
print(table.head(3).to_string(index=False))
table = table.assign(item_id=table["prompt"].str.rstrip("?"))  # optional: short names of questions
judgements, others = split_raters(Judgements.from_frame(table), 0.5)
encoded = others.encode()
questions = table.drop_duplicates("item_id").set_index("item_id").loc[encoded.item_ids]

# %% 2. A jury
#
# The number of clusters is chosen on people that were not used for fitting. They get their names
# from what their members answer.

folder = tempfile.TemporaryDirectory()
base = prepare_base_model("tiny", folder.name)
scorer = fit_jury(judgements, base, progress=False)
for name, share in zip(scorer.cluster_names, scorer.prevalence, strict=True):
    print(f"{share:.0%}  {name}")
    print("     " + scorer.state.descriptions[name].replace("; ", "\n     "))

# %% 3. Exact training
#
# With a column `support` nothing is sampled: every option is scored, and the loss is the divergence
# to the exact mixture of the clusters' answers. People's answers are the target as they are, so the
# reference is dropped (`reference_power=0`).

prompts = [as_messages(prompt) for prompt in questions["prompt"]]
supports = [list(options) for options in questions["options"]]
common = {"save_strategy": "no", "logging_strategy": "no", "disable_tqdm": True}
common |= {"use_cpu": True, "bf16": False, "gradient_checkpointing": False}
args = PluralGRPOConfig(
    folder.name, exact=True, reference_power=0.0, max_steps=150, learning_rate=5e-3,
    lr_scheduler_type="cosine", per_device_train_batch_size=10, **common,
)  # fmt: skip
dataset = Dataset.from_list(
    [{"prompt": p, "support": s} for p, s in zip(prompts, supports, strict=True)]
)
trainer = PluralGRPOTrainer(base, scorer, args, dataset)
trainer.remove_callback(PrinterCallback)
trainer.train()

# %% 4. Against other people
#
# `cluster_panel` assigns the other people to clusters by their answers, never using an answer
# twice, and gives the distribution of answers of everybody and of each cluster. What a perfect
# policy would still score, because only so many people were asked, is the noise floor.

texts = [(as_messages(text.prompt), text.response) for text in encoded.texts]
rewards = scorer.cluster_rewards(*zip(*texts, strict=True))
panel = cluster_panel(encoded, rewards.numpy(), scorer.prevalence, range(encoded.n_items))
tokenizer = AutoTokenizer.from_pretrained(base)


def answers_of(model):
    """Return the probabilities of the options, `(questions, options)`, and their mean sum."""
    p = np.stack(answer_probabilities(model, tokenizer, prompts, supports, progress=False))
    return p / p.sum(1, keepdims=True), p.sum(1).mean()


counts = pd.crosstab(judgements.frame["item_id"], judgements.frame["choice"])
before, coverage_before = answers_of(AutoModelForCausalLM.from_pretrained(base))
after, coverage_after = answers_of(trainer.model)
policies = {
    "uniform": np.full((10, 3), 1 / 3),
    "most common answer": np.eye(3)[counts.loc[encoded.item_ids].to_numpy().argmax(1)],
    "before": before,
    "after": after,
}
WHO = {"everybody": None, "cluster 1": 0, "cluster 2": 1}
distances = {
    name: [js_divergence(panel.human(k), p).mean() for k in WHO.values()]
    for name, p in policies.items()
}
floor = [noise_floor_js(panel.human(k), panel.n(k)).mean() for k in WHO.values()]
print(f"{'JS divergence, nats':20}" + "".join(f"{who:>11}" for who in WHO))
for name, row in {**distances, "noise floor": floor}.items():
    print(f"{name:20}" + "".join(f"{value:11.3f}" for value in row))
print(f"\nmass on the options: {coverage_before:.0%} before, {coverage_after:.0%} after")

# %% The same as a picture

figure, axes = plt.subplots(figsize=(7, 3.2), layout="constrained")
for i, (name, color) in enumerate(
    {"uniform": "lightgrey", "most common answer": "C1", "after": "C0"}.items()
):
    axes.bar(np.arange(3) + 0.27 * (i - 1), distances[name], width=0.27, label=name, color=color)
for i, value in enumerate(floor):
    axes.plot(
        [i - 0.4, i + 0.4], [value, value], color="black", label="noise floor" if i == 0 else None
    )
axes.set_xticks(range(3), WHO)
axes.set_ylabel("JS divergence, nats")
axes.legend(frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
figure.suptitle("The policy answers as people do, as far as so few people can tell")
plt.show()

# %% What to take away
#
# Judged by how often it names the most common answer, the worst policy here would be the best. One
# distribution is as near to everybody as the noise allows; it cannot be near to each of two
# clusters that disagree. For that, let the prompt say who is asked:
# [steering](07_steer_one_policy.py). A run like this one from a file, with report: [the
# quickstart](../README.md).
