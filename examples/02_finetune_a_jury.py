"""Fine-tuning a jury: a TRL reward model with a column that says who judged.

Sixty raters compare answers to questions about a park. Two thirds like short answers, one third
likes long ones, and everybody slips now and then. A reward model trained on all of them learns that
people like short answers a little. A jury learns who likes what. Nothing is downloaded; the
backbone has 40,000 random parameters.

    python examples/02_finetune_a_jury.py      about ten seconds on one core
"""

import tempfile

import matplotlib.pyplot as plt
import numpy as np
from datasets import Dataset
from transformers import PrinterCallback

from plural_rlhf import prepare_base_model
from reward_models import JuryRewardConfig, JuryRewardTrainer, JuryScorer


# %% 1. Judgements
#
# TRL's preference data, with one more column, `rater_id`. The label-level mixture needs no language
# model to see that there are two kinds of raters, because they judged the same texts; the trainer
# starts from it.

PLACES = ["lake", "gate", "lawn", "path", "bench", "pond"]
PLACES += ["hill", "oak", "kiosk", "fence", "bridge", "meadow"]
SHORT = "Yes, it is."
LONG = "Yes, it is, and it has been for a very long time, as far as I can tell."


def judgement(rater, place, slip):
    """Return one row in TRL's preference format; every third rater likes long answers."""
    likes_long = rater % 3 == 0
    chosen, rejected = (LONG, SHORT) if likes_long != slip else (SHORT, LONG)
    return {
        "prompt": [{"role": "user", "content": f"Is the {place} in the park?"}],
        "chosen": [{"role": "assistant", "content": chosen}],
        "rejected": [{"role": "assistant", "content": rejected}],
        "rater_id": f"rater {rater}",
    }


rng = np.random.default_rng(0)
judgements = Dataset.from_list(
    [
        judgement(rater, place, slip=rng.random() < 0.1)
        for rater in range(60)
        for place in rng.choice(PLACES, 10, replace=False)
    ]
)
heldout = rng.random(len(judgements)) < 0.2
train_dataset, eval_dataset = (
    judgements.select(np.flatnonzero(part)) for part in (~heldout, heldout)
)
print(f"{len(train_dataset)} judgements to learn from, {len(eval_dataset)} held out")

# %% 2. Training
#
# A batch counts items, not judgements: a pair that thirty raters judged is read once.
# `num_clusters=1` is TRL's own `RewardTrainer`, to the last digit. The loss is that of a judgement
# by a rater whose other judgements are known.

folder = tempfile.TemporaryDirectory()
base = prepare_base_model("tiny", folder.name)
common = {"save_strategy": "no", "logging_strategy": "no", "disable_tqdm": True}
common |= {"use_cpu": True, "bf16": False, "gradient_checkpointing": False}


def train(num_clusters):
    """Return a trained jury and its losses on held-out judgements."""
    args = JuryRewardConfig(
        output_dir=f"{folder.name}/{num_clusters}",
        num_clusters=num_clusters,
        num_train_epochs=20,
        per_device_train_batch_size=4,
        learning_rate=3e-3,
        rater_terms=False,
        **common,
    )
    trainer = JuryRewardTrainer(base, args, train_dataset=train_dataset, eval_dataset=eval_dataset)
    trainer.remove_callback(PrinterCallback)
    trainer.train()
    trainer.save_model(f"{folder.name}/{num_clusters}")
    return trainer.evaluate()


print(f"{'clusters':10}{'nats per judgement':>20}{'accuracy':>12}")
for num_clusters in (1, 2):
    metrics = train(num_clusters)
    print(f"{num_clusters:<10}{metrics['eval_loss']:>20.3f}{metrics['eval_accuracy']:>12.1%}")

# %% 3. The result is a model like any other
#
# The folder holds weights, configuration, tokenizer and a card, and can be given to TRL as
# `reward_funcs`. Here both juries score the two answers to a question that nobody was asked.

prompt = [{"role": "user", "content": "Is the statue in the park?"}]
leads = {}
for num_clusters in (1, 2):
    scorer = JuryScorer.from_pretrained(f"{folder.name}/{num_clusters}")
    short, long = scorer.cluster_rewards([prompt, prompt], [SHORT, LONG])
    for name, share, lead in zip(
        scorer.cluster_names, scorer.prevalence, (long - short).tolist(), strict=True
    ):
        who = "one reward for all" if num_clusters == 1 else f"{name}, {share:.0%} of the raters"
        leads[who] = lead
        print(f"{who}: the long answer leads by {lead:+.2f} logits")

# %% The same as a picture

figure, axes = plt.subplots(figsize=(7, 2.4), layout="constrained")
axes.barh(list(leads), list(leads.values()), color=["lightgrey", "C0", "C1"])
axes.axvline(0, color="black", linewidth=0.8)
axes.invert_yaxis()
axes.set_xlabel("lead of the long answer over the short one, logits")
figure.suptitle("One score calls it a weak preference; it is two strong ones")
plt.show()

# %% What to take away
#
# One score per text cannot say that people differ, and reports a weak majority taste as if it were
# weakly everybody's. With `num_clusters=2` the two tastes come apart, each as clear as it is.
#
# Without fine-tuning, `fit_jury` reads the clusters' rewards off a frozen language model: [from
# your own pairs to a policy](05_pairs_to_policy.py).
