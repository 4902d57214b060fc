"""Objectives without raters: helpful against brief, as the columns of a jury.

Whoever has no judgements may still have scores that pull in different directions.
[`Objectives`][reward_models.Objectives] puts reward functions, or scalar reward models, in the
place of a jury: ranking, rules, weights and training work as with clusters of raters. Here two
functions judge three answers to a question, and two policies are trained: one that represents both
objectives and one that looks for a compromise.

    python examples/09_objectives.py      about fifteen seconds on one core
"""

import tempfile

import matplotlib.pyplot as plt
import numpy as np
from datasets import Dataset
from transformers import PrinterCallback

from plural_rlhf import (
    Candidates,
    PluralGRPOConfig,
    PluralGRPOTrainer,
    answer_probabilities,
    prepare_base_model,
    rank,
)
from reward_models import Objectives


# %% 1. Two objectives
#
# A scorer is a reward function in TRL's convention: it is called with `prompts` and `completions`
# by name, and returns one number per completion. The path of a sequence classifier with one label
# is a scorer, too.

FACTS = ["bus", "stop", "ten minutes", "ticket"]
ANSWERS = {
    "short": "By bus.",
    "middle": "By bus, ten minutes, stop 7.",
    "long": "By bus from the stop over there, ten minutes, with a ticket.",
}


def text_of(completion):
    """Return the text of a completion, which is a string or a list of messages."""
    return completion if isinstance(completion, str) else completion[0]["content"]


def helpful(completions, **columns):
    """Return 5 logits for each fact."""
    return [5.0 * sum(fact in text_of(c) for fact in FACTS) for c in completions]


def brief(completions, **columns):
    """Take away a logit for every four characters."""
    return [-len(text_of(c)) / 4 for c in completions]


objectives = Objectives({"helpful": helpful, "brief": brief})
prompt = [{"role": "user", "content": "How do I get to the station?"}]
texts = list(ANSWERS.values())
rewards = objectives.cluster_rewards([prompt] * 3, texts)
print(f"{'':10}" + "".join(f"{name:>10}" for name in objectives.cluster_names))
for name, row in zip(ANSWERS, rewards.tolist(), strict=True):
    print(f"{name:10}" + "".join(f"{reward:10.1f}" for reward in row))

# %% 2. Ranking
#
# The weights are chosen when they are needed. The mean of the two is a compromise, and its winner
# moves with them.

for helpfulness in (0.2, 0.5, 0.8):
    weights = {"helpful": helpfulness, "brief": 1 - helpfulness}
    [ranked] = rank([Candidates(prompt, texts)], objectives, weights, rule="mean")
    order = " > ".join(list(ANSWERS)[n] for n in ranked.order)
    print(f"helpful {helpfulness:.0%}, brief {1 - helpfulness:.0%}:  {order}")

# %% 3. Two policies
#
# Both are trained with equal weights in exact mode. `rho=1` is the mixture of each objective's own
# optimum, $\tfrac12 p_{helpful} + \tfrac12 p_{brief}$; `rho=0` is the optimum of the mean reward,
# $\propto \exp(\tfrac12 r_{helpful} + \tfrac12 r_{brief})$.

folder = tempfile.TemporaryDirectory()
base = prepare_base_model("tiny", folder.name)
common = {"save_strategy": "no", "logging_strategy": "no", "disable_tqdm": True}
common |= {"use_cpu": True, "bf16": False, "gradient_checkpointing": False}


def train(rho):
    """Return the probabilities of the answers after training."""
    args = PluralGRPOConfig(
        folder.name, rho=rho, exact=True, reference_power=0.0, max_steps=200,
        learning_rate=5e-3, lr_scheduler_type="cosine", per_device_train_batch_size=2,
        **common,
    )  # fmt: skip
    dataset = Dataset.from_list([{"prompt": prompt, "support": texts}] * 2)
    trainer = PluralGRPOTrainer(base, objectives, args, dataset)
    trainer.remove_callback(PrinterCallback)
    trainer.train()
    return answer_probabilities(
        trainer.model, trainer.processing_class, [prompt], [texts], progress=False
    )[0]


policies = {"mixture (rho=1)": train(1.0), "consensus (rho=0)": train(0.0)}
alone = rewards.double().softmax(0)
mean = rewards.double().mean(1).softmax(0)
wanted = {"mixture (rho=1)": alone.mean(1).numpy(), "consensus (rho=0)": mean.numpy()}
print(f"{'':28}" + "".join(f"{name:>10}" for name in ANSWERS))
for name, policy in policies.items():
    for what, p in (("wanted", wanted[name]), ("policy", policy)):
        print(f"{name:20}{what:8}" + "".join(f"{share:10.1%}" for share in p))

# %% The same as a picture

figure, axes = plt.subplots(figsize=(7, 2.8), layout="constrained")
for i, (name, policy) in enumerate(policies.items()):
    axes.bar(np.arange(3) + 0.36 * (i - 0.5), policy, width=0.36, label=name)
axes.set_xticks(range(3), ANSWERS)
axes.set_ylabel("probability")
axes.legend(frameon=False)
figure.suptitle("The mixture says one or the other, the consensus the middle")
plt.show()

# %% What to take away
#
# Whether two objectives should take turns or meet in the middle is a choice, and one number
# (`rho`). Neither is safe by itself: taking turns is right for tastes, and wrong for objectives
# that every answer must meet; for those see `ValidityGate` in [pairs to
# policy](05_pairs_to_policy.py). Numbers of different models are in units of their own:
# `objectives.calibrate` puts them on one scale, and rules that compare objectives, such as `min`,
# ask for it.
