"""Choosing a rule: what a jury's verdict hangs on when people disagree.

A council of three kinds of people (progressive 45 %, rural 35 %, urban 20 %) scores four answers to
one question. We let different rules decide, change who sits, and ask whom shouting would pay. No
model is needed.

    python examples/04_choose_a_rule.py      a few seconds, nothing is downloaded
"""

import matplotlib.pyplot as plt
import numpy as np
import torch

from plural_rlhf import Candidates, Jury, Rule, explain, rank
from plural_rlhf.evaluation import exaggeration_report, seat_intervals


# %% 1. Scores
#
# One reward per cluster and answer, in standard deviations of what the reference policy says (a
# saved jury gives them once it is calibrated). The first answer delights the largest cluster and
# angers another. The second is nobody's favourite and nobody's worst. The third is a little better
# for two clusters than the second.

ANSWERS = [
    "Close the road for good.",
    "Close it on Sundays.",
    "Close it at night.",
    "Leave it as it is.",
]
REWARDS = {
    "progressive": [2.4, 0.6, 0.3, -1.5],
    "rural": [-1.9, 0.5, 0.9, 1.4],
    "urban": [0.8, 0.4, 0.6, -0.9],
}
council = Jury.compose({"progressive": 9, "rural": 7, "urban": 4}, name="council")
shares = council.shares()
weights = [shares[name] for name in REWARDS]
rewards = np.array(list(REWARDS.values())).T  # (answers, clusters)

figure, axes = plt.subplots(figsize=(7, 3), layout="constrained")
for k, (name, scores) in enumerate(REWARDS.items()):
    axes.barh(
        np.arange(4) + 0.27 * (k - 1), scores, height=0.27, label=f"{name}, {shares[name]:.0%}"
    )
axes.axvline(0, color="black", linewidth=0.8)
axes.set_yticks(range(4), ANSWERS)
axes.invert_yaxis()
axes.set_xlabel("reward, standard deviations")
axes.legend(frameon=False, loc="center right")
figure.suptitle("The largest cluster's favourite is what another dreads")
plt.show()

# %% 2. The rule decides
#
# The same scores, the same seats. The mean takes the answer that divides, and so do rules that
# count duels, since two clusters of three like it best. Nash and the minimum look at who is left
# behind. The random dictator names no winner: each cluster keeps its chance.

RULES = ["mean", "nash", "min", "median", "borda", "schulze", "maximal_lottery", "random_dictator"]
for rule in map(Rule.parse, RULES):
    chances = rule.lottery(torch.tensor(rewards), weights).tolist()
    picks = ", ".join(f"{p:.0%} {a}" for p, a in zip(chances, ANSWERS, strict=True) if p > 0.005)
    print(f"{rule!s:16}{picks}")

# %% 3. Why this verdict
#
# `explain` names the cluster without which the verdict would fall, and the share at which it turns.
# `seat_intervals` draws juries of twelve with the council's shares: how often would another draw
# have decided otherwise?

[ranked] = rank(
    [Candidates("The road?", ANSWERS, REWARDS)], weights=council, rule="median", calibrated=False
)
print("\n".join(explain(ranked).sentences))
drawn = seat_intervals(
    rewards, np.zeros(4), council, "median", n_seats=12, cluster_names=list(REWARDS)
)
print(f"Of juries of twelve drawn with these shares, {drawn.flipped:.0%} would decide otherwise.")

# %% 4. Whom shouting pays
#
# On two hundred made-up questions, one cluster multiplies how much it minds by five. The mean gives
# in. The median is moved here and there, but to the cluster's gain as little as to its loss; rules
# that read only an order are not moved at all. The gain is counted in what the cluster truly likes.

made_up, question = np.random.default_rng(0).normal(size=(800, 3)), np.repeat(np.arange(200), 4)
effects = exaggeration_report(
    made_up, question, weights, ["mean", "median", "borda"], factors=(5,), cluster=1
)
for effect in effects:
    gain = f"{effect.gain.value:+.2f} [{effect.gain.low:+.2f}, {effect.gain.high:+.2f}]"
    print(f"{effect.rule:8}{effect.moved:4.0%} of the verdicts move; the rural gain {gain}")

figure, axes = plt.subplots(figsize=(7, 2.2), layout="constrained")
for row, effect in enumerate(effects):
    axes.plot([effect.gain.low, effect.gain.high], [row, row], color="C0", linewidth=3)
    axes.plot(effect.gain.value, row, "o", color="C0")
axes.axvline(0, color="black", linewidth=0.8)
axes.set_yticks(range(3), [effect.rule for effect in effects])
axes.set_ylim(2.5, -0.5)
axes.set_xlabel("gain of the cluster that exaggerates, with 95 % intervals")
figure.suptitle("Exaggeration pays under the mean, not under the median or Borda")
plt.show()

# %% What to take away
#
# Scores do not decide; a rule and weights do. Look at more than one rule, at what would turn the
# verdict, and at whether a cluster could gain by overstating its case. Which rule is for what:
# [aggregation](../docs/aggregation.md).
