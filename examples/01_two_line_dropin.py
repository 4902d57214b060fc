"""The two-line change: an existing TRL script that keeps its minority.

Three clusters of raters judge answers to one prompt. 60 % of the people want a number below 4, 30 % one from 4 to 7,
and 10 % one from 8 up. A stock `trl.RLOOTrainer` learns from their judgement twice: once from the weighted mean of
the three rewards, which is the usual practice, and once from `JuryReward`. Everything else is the same. Nothing is
downloaded; the policy has 40,000 random parameters.

    python examples/01_two_line_dropin.py            about twenty seconds on one core
    python examples/01_two_line_dropin.py --steps 5  a few seconds: too few steps to learn anything
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

import numpy as np
import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer, PrinterCallback
from transformers.utils import logging
from trl import RLOOConfig, RLOOTrainer

from plural_rlhf import JuryReward, PluralGRPOConfig, PluralGRPOTrainer
from plural_rlhf.policies.answers import answer_probabilities
from plural_rlhf.policies.base_models import prepare_base_model


logging.disable_progress_bar()

PROMPT = [{"role": "user", "content": "Pick a number from 0 to 10."}]
ANSWERS = [str(n) for n in range(11)]


# ── 1. A jury ────────────────────────────────────────────────────────────────────────────────────────────────────────
#
# Usually a jury is a reward model with one head a cluster, fitted to the judgements of many raters and loaded by its
# path: JuryReward("runs/quickstart/jury"). Any object with the three attributes below will do as well, and for a
# lesson it is good to know exactly who wants what. Rewards are logits: a cluster likes its own numbers by 8 logits
# more than the rest.


class NumberJury:
    """Who wants which numbers."""

    cluster_names = ["low", "middle", "high"]  # noqa: RUF012
    prevalence = np.array([0.6, 0.3, 0.1])

    def cluster_rewards(self, prompts, completions):
        """One row a completion, one column a cluster: `(N, K)`."""
        texts = [c if isinstance(c, str) else c[0]["content"] for c in completions]
        return 8.0 * torch.stack([cluster_of(text.strip()) for text in texts])


def cluster_of(text):
    """Which cluster an answer belongs to, one-hot; anything that is no number from 0 to 10 belongs to nobody."""
    member = torch.zeros(3)
    if text in ANSWERS:
        member[np.searchsorted([4, 8], int(text), side="right")] = 1.0
    return member


# ── 2. A policy that answers ─────────────────────────────────────────────────────────────────────────────────────────
#
# A model with random weights says nothing sensible, so it first learns to give each of the eleven numbers equally
# often. The exact mode does that in seconds: `support` lists the answers, all are scored, nothing is sampled.


class Indifferent(NumberJury):
    """A jury to whom all answers are equal."""

    def cluster_rewards(self, prompts, completions):
        """Zeros, `(N, K)`."""
        return torch.zeros(len(completions), 3)


def settings(folder, steps, learning_rate):
    """What both trainers share: quiet, and nothing saved."""
    return {
        "output_dir": folder,
        "max_steps": steps,
        "learning_rate": learning_rate,
        "logging_strategy": "no",
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "gradient_checkpointing": False,
        "bf16": False,
        "use_cpu": True,
    }


def make_start(folder, dataset, steps):
    """Saves the policy that both runs start from; returns its path."""
    base = prepare_base_model("tiny", folder)
    args = PluralGRPOConfig(
        exact=True, reference_power=0.0, per_device_train_batch_size=2, **settings(f"{folder}/trainer", steps, 3e-3)
    )
    trainer = PluralGRPOTrainer(base, Indifferent(), args, dataset)
    trainer.remove_callback(PrinterCallback)
    trainer.train()
    trainer.model.save_pretrained(f"{folder}/start")
    AutoTokenizer.from_pretrained(base).save_pretrained(f"{folder}/start")
    return f"{folder}/start"


# ── 3. The two lines ─────────────────────────────────────────────────────────────────────────────────────────────────
#
# A plain TRL script passes a reward function that gives one number a completion, and TRL's default for RLOO is
# beta=0.05 with the rewards as they are. Marked below is all that changes:
#
#   1. the reward function is a JuryReward, which keeps the three scores apart until it knows how much of the policy
#      each cluster already has;
#   2. beta is the temperature of the target, 1.0 for rewards in logits (and advantages stay unnormalised: dividing
#      them by their spread would make a gap of 0.02 the same as a gap of 2).
#
# The column `support` is optional. With it, anything that is not an allowed answer scores below everything that is.


def train(start, folder, dataset, steps, reward):
    """A stock RLOO run; returns the trained policy."""
    torch.manual_seed(0)
    trainer = RLOOTrainer(
        model=start,
        reward_funcs=reward,  # ← line 1: JuryReward("path/of/the/jury") instead of a scalar reward
        args=RLOOConfig(
            beta=1.0, normalize_advantages=False,  # ← line 2: the temperature of the target
            num_generations=16,
            per_device_train_batch_size=48,
            max_completion_length=4,
            **settings(f"{folder}/trainer", steps, 2e-3),
        ),
        train_dataset=dataset,
    )  # fmt: skip
    trainer.remove_callback(PrinterCallback)
    trainer.train()
    return trainer.model


# ── 4. Who is left ───────────────────────────────────────────────────────────────────────────────────────────────────


def shares(model, start):
    """The policy's probability of each cluster's numbers, and of anything else; read off, not sampled."""
    tokenizer = AutoTokenizer.from_pretrained(start)
    probabilities = torch.tensor(answer_probabilities(model, tokenizer, [PROMPT], [ANSWERS], progress=False)[0])
    members = torch.stack([cluster_of(answer) for answer in ANSWERS]).double()
    return [*(probabilities @ members).tolist(), 1 - float(probabilities.sum())]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=60, help="steps of each RLOO run (default: 60)")
    parser.add_argument("--start-steps", type=int, default=200, help="steps that make the start (default: 200)")
    options = parser.parse_args()
    dataset = Dataset.from_list([{"prompt": PROMPT, "support": ANSWERS}] * 64)
    jury = NumberJury()
    with tempfile.TemporaryDirectory() as folder:
        start = make_start(folder, dataset, options.start_steps)
        table = {"wanted": [*jury.prevalence, 0.0]}
        table["before"] = shares(AutoModelForCausalLM.from_pretrained(start), start)
        usual = JuryReward(jury, rule="mean")  # the usual practice: average the raters, then optimise
        table["weighted mean"] = shares(train(start, folder, dataset, options.steps, usual), start)
        table["JuryReward"] = shares(train(start, folder, dataset, options.steps, JuryReward(jury, beta=1.0)), start)

    print(f"\n{'':15}" + "".join(f"{name:>10}" for name in (*jury.cluster_names, "other")))
    for name, row in table.items():
        print(f"{name:15}" + "".join(f"{share:10.1%}" for share in row))
    minority = {name: row[2] / jury.prevalence[2] for name, row in table.items()}
    print(
        f"\nThe cluster 'high' is {jury.prevalence[2]:.0%} of the people. The weighted mean leaves it "
        f"{minority['weighted mean']:.0%} of its share, JuryReward {minority['JuryReward']:.0%}."
    )


# What to take away: the mean of the rewards is one ranking, and its optimum gives the smallest cluster less than its
# due even with the reference and temperature right. The pool is each cluster's own optimum, in proportion to its
# weight. `weights="uniform"` or `weights={"high": 1}` would have asked for other shares, from the same jury.

if __name__ == "__main__":
    main()
