"""Value Kaleidoscope: what values say of a situation, and a reward that weighs them.

A judge of values is fitted to situations of which it is known what honesty and generosity say. It
then says of new situations which values matter, which way each points, and how ambiguous they are;
and its judgements become the objectives of a reward. It reads words only, so that nothing is
downloaded: a real judge reads a sentence embedder, or is a published Kaleido checkpoint.

    python examples/17_values.py      a few seconds on one core
"""

import matplotlib.pyplot as plt
import numpy as np

from plural_rlhf import JuryReward
from plural_rlhf.methods.kaleidoscope import (
    Value,
    ambiguity,
    fit_value_judge,
    heldout_valences,
    planted_valued_situations,
    relevant_values,
    valence_accuracy,
    value_objectives,
    word_vectors,
)


# %% 1. A judge
#
# `read_valued_situations("valueprism.csv")` reads real rows. Whether a judge may be believed is
# measured first, on values that it was not fitted to.

rows = planted_valued_situations()
right = valence_accuracy(rows, heldout_valences(rows, word_vectors))["accuracy"]
print(f"Right on unseen values: {right.value:.2f} [{right.low:.2f}, {right.high:.2f}]")
judge = fit_value_judge(rows, word_vectors)

# %% 2. What values say
#
# Of each situation: the values that matter, what they say, and how undecided they leave it: two
# values that contradict each other leave a situation more ambiguous than one.

values = [Value("Honesty"), Value("Generosity")]
undecided = {}
for situation in ("stealing a lamp", "giving a lamp", "stealing money, giving tools"):
    kept = relevant_values(judge, situation, values)
    undecided[situation] = ambiguity(
        np.array([v.relevance for v in kept]), np.stack([v.valence for v in kept])
    )
    said = ", ".join(f"{v.value.text} {v.leaning:+.2f}" for v in kept)
    print(f"{situation}: {said}; ambiguity {undecided[situation]:.2f} nats")

plt.barh(list(undecided), list(undecided.values()))
plt.axvline(np.log(3), linestyle="--", color="grey")
plt.xlabel("ambiguity (nats); the line is the largest possible")
plt.show()

# %% 3. Values as objectives
#
# Each value becomes a column of rewards: relevance times leaning. A rule makes one reward of them,
# here the smaller one, so that no value is sacrificed for the other.

objectives = value_objectives(judge, values)
acts = ["giving a lamp", "returning a lamp", "stealing a lamp"]
rewards = JuryReward(objectives, rule="min")(prompts=["What do you do?"] * 3, completions=acts)
shown = ", ".join(f"{act} {reward:+.2f}" for act, reward in zip(acts, rewards, strict=True))
print("Reward by the worse value:", shown)

# %% What to take away
#
# A judge of values is a scorer like a jury: `rank`, `JuryReward` and `PluralGRPOTrainer` take it.
# What it says of real situations is only as good as what it was fitted to; measure it, as in 1.
