"""Choosing between answers when people disagree: rules, juries, and what a verdict hangs on. No model is needed.

A council of three kinds of people (progressive 45 %, rural 35 %, urban 20 %) scores four answers to one question. We
let different rules decide, change who sits, and ask whom shouting would pay.

    python examples/04_choose_a_rule.py        a few seconds, nothing is downloaded
"""

import numpy as np
import torch

from plural_rlhf import Candidates, Jury, Rule, explain, rank
from plural_rlhf.evaluation.decisions.strategy import exaggeration_report
from plural_rlhf.evaluation.decisions.verdicts import seat_intervals


# ── 1. Scores ────────────────────────────────────────────────────────────────────────────────────────────────────────
#
# One reward per cluster and answer, in standard deviations of what the reference policy says (a saved jury gives them
# once it is calibrated). The first answer delights the largest cluster and angers another. The second is nobody's
# favourite and nobody's worst. The third is a little better for two clusters than the second.

NAMES = ["progressive", "rural", "urban"]
ANSWERS = ["Close the road for good.", "Close it on Sundays.", "Close it at night.", "Leave it as it is."]
REWARDS = {"progressive": [2.4, 0.6, 0.3, -1.5], "rural": [-1.9, 0.5, 0.9, 1.4], "urban": [0.8, 0.4, 0.6, -0.9]}
COUNCIL = Jury.compose({"progressive": 9, "rural": 7, "urban": 4}, name="council")


# ── 2. The rule decides ──────────────────────────────────────────────────────────────────────────────────────────────
#
# The same scores, the same seats. The mean takes the answer that divides, and so do rules that count duels, since two
# clusters of three like it best. Nash and the minimum look at who is left behind. The random dictator names no winner:
# each cluster keeps its chance.

RULES = ["mean", "nash", "min", "median", "borda", "schulze", "maximal_lottery", "random_dictator"]


def verdicts(rewards):
    """What each rule picks, as a line of a table."""
    weights = [COUNCIL.shares()[name] for name in NAMES]
    for rule in map(Rule.parse, RULES):
        chances = rule.lottery(rewards, weights).tolist()
        said = ", ".join(f"{p:.0%} {a}" for p, a in zip(chances, ANSWERS, strict=True) if p > 0.005)
        print(f"{rule!s:16}{said}")


# ── 3. Why this verdict ──────────────────────────────────────────────────────────────────────────────────────────────
#
# `explain` names the cluster without which the verdict would fall, and the share at which it turns. `seat_intervals`
# draws juries of twelve with the council's shares: how often would another draw have decided otherwise?


def reasons(rewards):
    """The verdict of the median explained, and how sure juries of twelve would be of it."""
    (ranked,) = rank([Candidates("The road?", ANSWERS, REWARDS)], weights=COUNCIL, rule="median", calibrated=False)
    for sentence in explain(ranked).sentences:
        print(f"  {sentence}")
    drawn = seat_intervals(rewards, np.zeros(4), COUNCIL, "median", n_seats=12, cluster_names=NAMES)
    print(f"  Of juries of twelve drawn with these shares, {drawn.flipped:.0%} would decide otherwise.")


# ── 4. Whom shouting pays ────────────────────────────────────────────────────────────────────────────────────────────
#
# One cluster multiplies how much it minds by five. The mean gives in. The median is moved here and there, but to the
# cluster's gain as little as to its loss; rules that read only an order are not moved at all. The gain is counted in
# what the cluster truly likes.


def shouting(seed=0):
    """Two hundred made-up questions on which the rural cluster exaggerates."""
    rng = np.random.default_rng(seed)
    rewards, group = rng.normal(size=(800, 3)), np.repeat(np.arange(200), 4)
    weights = [COUNCIL.shares()[name] for name in NAMES]
    for effect in exaggeration_report(rewards, group, weights, ["mean", "median", "borda"], factors=(5,), cluster=1):
        gain = f"{effect.gain.value:+.2f} [{effect.gain.low:+.2f}, {effect.gain.high:+.2f}]"
        print(f"{effect.rule:8}{effect.moved:4.0%} of the verdicts move; the rural gain {gain}")


if __name__ == "__main__":
    table = torch.tensor([REWARDS[name] for name in NAMES]).T  # (answers, clusters)
    print("What each rule picks:")
    verdicts(table)
    print("\nThe median, explained:")
    reasons(table.numpy())
    print("\nOne cluster shouts:")
    shouting()
