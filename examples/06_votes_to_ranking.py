"""From votes to a ranking: clusters of voters, and the statement that bridges them.

A hundred and fifty people vote on twelve statements about traffic in their town, as on Polis: they
disagree (-1), pass (0) or agree (1), and hardly anybody votes on all. The votes alone tell two
camps apart. Then the statements are ranked: with each camp by its size, with equal weights, and
under the bridging rule `min`, which asks how the least pleased camp likes a statement. No language
model is needed.

    python examples/06_votes_to_ranking.py      about ten seconds on one core
"""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from plural_rlhf import Candidates, rank
from reward_models import Judgements, describe_clusters, fit_mixture, select_num_clusters


# %% 1. Votes
#
# The table is one of ratings: who (`rater_id`), on what (`prompt`, `response`), and the `rating`.
# `item_id` is optional and gives a statement a short name. These votes are simulated: below each
# statement stands its support among drivers, who are two thirds of the voters, and among cyclists,
# in logits.

PROMPT = "What should the town do about traffic?"
STATEMENTS = {
    "car-free centre": ("Close the centre to cars.", -2.5, 2.5),
    "more parking": ("Build more parking in the centre.", 3.2, -0.8),
    "wider roads": ("Widen the ring road.", 1.4, -2.0),
    "bike lanes": ("Turn parking spaces into bike lanes.", -2.0, 2.2),
    "road toll": ("Charge a toll for driving into the centre.", -0.6, 1.0),
    "fuel tax": ("Lower the tax on fuel.", 1.6, -1.8),
    "30 km/h": ("Make 30 km/h the limit everywhere.", -1.2, 1.6),
    "night buses": ("Run buses through the night.", 0.8, 3.0),
    "safe crossings": ("Make the crossings near schools safe.", 1.4, 1.5),
    "potholes": ("Repair potholes before anything else.", 1.5, 0.2),
    "more police": ("Have more police on the streets.", 0.6, -0.6),
    "anthem": ("Give the town an anthem.", -1.5, -1.6),
}

rng = np.random.default_rng(0)
rows = []
for voter in range(150):
    for name, (text, *support) in STATEMENTS.items():
        if rng.random() < 0.75:
            opinion = support[int(voter % 3 == 0)] + rng.logistic()
            rating = -1 if opinion < -0.7 else 1 if opinion > 0.7 else 0
            rows.append([f"voter {voter}", name, PROMPT, text, rating])
table = pd.DataFrame(rows, columns=["rater_id", "item_id", "prompt", "response", "rating"])
judgements = Judgements.from_frame(table, "rating", levels=[-1, 0, 1])
print(f"{len(table)} votes")
print(table[["rater_id", "response", "rating"]].head(4).to_string(index=False))

# %% 2. Clusters
#
# Their number is chosen on voters that were not used for fitting. A cluster gets its name from what
# its members vote, never from who they are.

selection = select_num_clusters(judgements, (1, 2, 3))
print(f"{selection.num_clusters} clusters")
encoded = judgements.encode()
fit = fit_mixture(encoded, selection.num_clusters)
short = {
    item: item for item in encoded.item_ids
}  # without names, statements are shown by their beginning
clusters = describe_clusters(fit, encoded, top=3, labels=short)
words = {"-1": "disagree", "0": "pass", "1": "agree"}
for cluster in clusters:
    print(f"\n{cluster['prevalence']:.0%} of the voters, named {cluster['name']!r}")
    for answer in cluster["answers"]:
        vote = f"{answer['label']:18}{words[answer['answer']]:10}"
        print(f"  {vote}{answer['p_cluster']:.0%} of them, {answer['p_population']:.0%} of all")

# %% 3. Three rankings
#
# `rank` takes the clusters' rewards of the statements, weights, and a rule. Votes are on one scale
# for everybody, so clusters may be compared (`calibrated=False` says that we know).

names = [cluster["name"] for cluster in clusters]
texts = [text.response for text in fit.texts]
candidates = Candidates(PROMPT, texts, dict(zip(names, fit.rewards.T.tolist(), strict=True)))
sizes = dict(zip(names, fit.prevalence.tolist(), strict=True))
WAYS = {
    "by size": (sizes, "mean"),
    "as equals": ("uniform", "mean"),
    "bridging": ("uniform", "min"),
}
ranked = {}
for way, (weights, rule) in WAYS.items():
    [ranked[way]] = rank([candidates], weights=weights, rule=rule, calibrated=False)
    print(f"{way:10}{'first':>6} {'second':>8}   (rewards of the two clusters)")
    for n in ranked[way].order[:3]:
        print(f"{'':10}{fit.rewards[n, 0]:+6.1f} {fit.rewards[n, 1]:+8.1f}   {texts[n]}")

# %% The same as a picture
#
# A statement far to the right pleases the larger cluster, one at the top the smaller. The bridging
# rule looks for the top right corner.

figure, axes = plt.subplots(figsize=(7, 4.5), layout="constrained")
axes.margins(x=0.2)
axes.axline((0, 0), slope=1, color="lightgrey", linestyle="--", zorder=1)
axes.scatter(*fit.rewards.T, color="grey", zorder=2)
for color, (way, result) in zip(("C1", "C2", "C0"), ranked.items(), strict=True):
    axes.scatter(*fit.rewards[result.best], color=color, s=90, zorder=3, label=f"first {way}")
short = {text: name for name, (text, *_) in STATEMENTS.items()}
for text, (x, y) in zip(texts, fit.rewards, strict=True):
    axes.annotate(short[text], (x, y), (5, 5), textcoords="offset points", fontsize=8)
axes.set_xlabel(f"reward among the {sizes[names[0]]:.0%}")
axes.set_ylabel(f"reward among the {sizes[names[1]]:.0%}")
axes.legend(frameon=False, loc="upper right")
figure.suptitle("Size, equality and bridging each put another statement first")
plt.show()

# %% Was it right?
#
# The simulation knows. The same rankings from the support that the votes were drawn from:

written, drivers, cyclists = zip(*STATEMENTS.values(), strict=True)
planted = Candidates(PROMPT, written, {"drivers": drivers, "cyclists": cyclists})
for way, (weights, rule) in WAYS.items():
    weights = {"drivers": 2, "cyclists": 1} if way == "by size" else weights
    [result] = rank([planted], weights=weights, rule=rule, calibrated=False)
    best = planted.responses[result.best]
    print(f"{way:10}{best:40}{'as found' if best == texts[ranked[way].best] else 'not as found'}")

# %% What to take away
#
# Votes are judgements like any others: clusters first, then a rule that says whose approval counts
# for what. The rules are in [aggregation](../docs/aggregation.md), and how they differ on a longer
# example in [choosing a rule](04_choose_a_rule.py).
