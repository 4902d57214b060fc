"""Fine-tuning a jury: the same script as for a TRL reward model, with a column that says who judged.

Sixty raters compare answers to questions about a park. Two thirds like short answers, one third likes long ones, and
everybody slips now and then. A reward model trained on all of them learns that people like short answers a little. A
jury learns who likes what. Nothing is downloaded; the backbone has 40,000 random parameters.

    python examples/02_finetune_a_jury.py             about half a minute on one core
    python examples/02_finetune_a_jury.py --epochs 1  a few seconds: too few steps to learn anything
"""

import argparse
import os
import tempfile
import warnings


# Quiet and offline, before anything imports transformers.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
warnings.filterwarnings("ignore", message=".*activation_checkpointing.*")
warnings.filterwarnings("ignore", message=".*have one judgement.*")

import numpy as np
from datasets import Dataset
from transformers import PrinterCallback
from transformers.utils import logging

from plural_rlhf.policies.base_models import prepare_base_model
from reward_models.jury.scorer import JuryScorer
from reward_models.trainer.jury_reward_config import JuryRewardConfig
from reward_models.trainer.jury_reward_trainer import JuryRewardTrainer


logging.disable_progress_bar()

THINGS = ["lake", "gate", "lawn", "path", "bench", "pond", "hill", "oak", "kiosk", "fence", "bridge", "meadow"]
SHORT = "Yes, it is."
LONG = "Yes, it is, and it has been for a very long time, as far as I can tell."


# ── 1. Judgements ────────────────────────────────────────────────────────────────────────────────────────────────────
#
# TRL's preference data, with one more column. The label-level mixture needs no language model to see that there are
# two kinds of raters, because they judged the same texts; the trainer starts from it.


def judgements(n_raters, per_rater, rng):
    """One row a judgement: `prompt`, `chosen`, `rejected`, `rater_id`."""
    rows = []
    for rater in range(n_raters):
        likes_long = rater % 3 == 0
        for thing in rng.choice(THINGS, per_rater, replace=False):
            slip = rng.random() < 0.1
            chosen, rejected = (LONG, SHORT) if likes_long != slip else (SHORT, LONG)
            rows.append(
                {
                    "prompt": [{"role": "user", "content": f"Is the {thing} in the park?"}],
                    "chosen": [{"role": "assistant", "content": chosen}],
                    "rejected": [{"role": "assistant", "content": rejected}],
                    "rater_id": f"rater {rater}",
                }
            )
    return Dataset.from_list(rows)


# ── 2. Training ──────────────────────────────────────────────────────────────────────────────────────────────────────
#
# A batch counts items, not judgements: a pair that thirty raters judged is read once. `num_clusters=1` is TRL's own
# RewardTrainer, to the last digit.


def train(base, folder, data, held_out, num_clusters, epochs):
    """A trained jury and its evaluation on other judgements."""
    trainer = JuryRewardTrainer(
        model=base,
        args=JuryRewardConfig(
            output_dir=folder,
            num_clusters=num_clusters,
            num_train_epochs=epochs,
            per_device_train_batch_size=4,
            learning_rate=3e-3,
            rater_terms=False,
            logging_strategy="no",
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            gradient_checkpointing=False,
            bf16=False,
            use_cpu=True,
        ),
        train_dataset=data,
        eval_dataset=held_out,
    )
    trainer.remove_callback(PrinterCallback)
    trainer.train()
    return trainer, trainer.evaluate()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=20, help="passes over the judgements (default: 20)")
    options = parser.parse_args()
    rng = np.random.default_rng(0)
    everything = judgements(60, 10, rng)
    held_out = rng.random(len(everything)) < 0.2
    data, rest = (everything.select(np.flatnonzero(part)) for part in (~held_out, held_out))

    with tempfile.TemporaryDirectory() as folder:
        base = prepare_base_model("tiny", folder)
        print(f"\n{'clusters':10}{'nats per judgement':>20}{'accuracy':>12}")
        for num_clusters in (1, 2):
            trainer, metrics = train(base, f"{folder}/{num_clusters}", data, rest, num_clusters, options.epochs)
            print(f"{num_clusters:<10}{metrics['eval_loss']:>20.3f}{metrics['eval_accuracy']:>12.1%}")

        # ── 3. The result is a model like any other ─────────────────────────────────────────────────────────────────
        #
        # The folder holds weights, configuration, tokenizer and a card, and can be given to TRL as reward_funcs.

        trainer.save_model(f"{folder}/jury")
        jury = JuryScorer.from_pretrained(f"{folder}/jury")
        prompt = [{"role": "user", "content": "Is the statue in the park?"}]  # nobody was asked this
        rewards = jury.cluster_rewards([prompt, prompt], [SHORT, LONG])
        for k, (name, share) in enumerate(zip(jury.cluster_names, jury.prevalence, strict=True)):
            lead = float(rewards[1, k] - rewards[0, k])
            print(f"{name}, {share:.0%} of the raters: the long answer leads by {lead:+.2f} logits")


# What to take away: one score per text cannot say that people differ, and reports a weak majority taste as if it were
# weakly everybody's. With `num_clusters=2` the two tastes come apart, each as clear as it is.

if __name__ == "__main__":
    main()
