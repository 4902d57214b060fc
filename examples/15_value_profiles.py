"""Value profiles: what a few answers say of a person, and how many kinds of people there are.

150 made-up people of three kinds answer 24 questions. From some of a person's answers a profile is
made; it is worth what it says of the person's other answers. No model is needed, and nothing is
downloaded.

    python examples/15_value_profiles.py      a few seconds on one core
"""

import matplotlib.pyplot as plt
import numpy as np

from plural_rlhf.methods.value_profiles import (
    AnswerEncoder,
    CandidateProfiles,
    TableReader,
    describe_groups,
    observer_test,
    split_raters,
    usable_information,
)
from reward_models import planted_judgements
from reward_models.analysis.answer_cells import answer_cells


# %% 1. How much does a profile say?
#
# Half of the people train. Of each of the others some answers are read and the rest predicted. The
# unit is the nat: how much better an answer is predicted than by knowing the question alone.

planted = planted_judgements("choice", num_raters=150, num_items=24, num_clusters=3)
judgements = planted.judgements
report = usable_information(judgements, sizes=(1, 2, 3, 4, 6), splits=3)
print(f"The question alone leaves {report.baseline_nll:.2f} nats per answer open. Of these")
for row in report.rows:
    print(f"  {row.name:20} says {row.info:+.3f}, {row.preserved:5.0%} of all that is known")

# %% 2. How many kinds of people?
#
# The curve rises until the number of clusters is that of the kinds, and then is flat. Clusters of
# shuffled answers say nothing: what the others say is about people.

curve = report.curve
shuffled = [row for row in report.rows if "shuffled" in row.name]
plt.plot([row.groups for row in curve], [row.info for row in curve], "o-", label="clusters")
plt.plot([row.groups for row in shuffled], [row.info for row in shuffled], "o-", label="shuffled")
plt.axhline(report.row("all fit judgements").info, ls="--", color="grey", label="all that is known")
plt.xlabel("clusters")
plt.ylabel("usable information (nats)")
plt.legend()
plt.show()

# %% 3. The clusters in words
#
# Algorithm 2 of the paper chooses the clusters from 100 candidate profiles by whom they predict.
# Each claim names an answer that members give more often than everybody, and how many did.

enc = judgements.encode()
cells = answer_cells(enc)
split = split_raters(cells)
profiles = CandidateProfiles.of(cells, split, AnswerEncoder())
found = profiles.clusters(3)
group = found.assign(profiles.losses)
train = np.isin(np.arange(enc.n_raters), profiles.train_raters)
words = describe_groups(enc, np.where(train, group, -1), top=3)
for profile in words:
    print(f"\n{profile.prevalence:.0%} of the people. {profile.text}")
    strongest = profile.claims[0]
    print(f"  {strongest.judgements} said the first, among them {', '.join(strongest.raters)}")

# %% 4. Do the words say it?
#
# A reader sees two profiles in words and how new people of one of them answered a question that
# the words do not mention. Which of the two are they? Half of the answers are right by chance.

reader = TableReader.of(enc, train)
of_train, of_heldout = np.where(train, group, -1), np.where(train, -1, group)
result = observer_test(enc, of_train, of_heldout, reader, keep=~split.fit)
print(f"\nThe reader is right in {result.accuracy:.0%} of {result.trials} trials;", end=" ")
print(f"who knows the clusters' own answers would be in {result.ceiling:.0%}")

# %% What to take away
#
# A cluster is a profile that many share. How many are needed is not a matter of taste: the curve
# says it, on people who were not there when the clusters were made.
