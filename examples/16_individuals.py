"""Steering to individuals: six answers of a person, and what they say of the seventh.

A jury reads a person's answers and weighs its clusters by them. Which six answers are read matters:
those that tell the clusters apart are worth more than the last six. Answers of exchanged people are
worth nothing. A language model can be asked the same by `individual_shares`, and both combined by
`Combination`. Nothing is downloaded.

    python examples/16_individuals.py      a few seconds on one core
"""

import matplotlib.pyplot as plt
import numpy as np

from plural_rlhf.evaluation.in_context.sequences import judgement_sequences, shuffled_people
from plural_rlhf.methods.individuals import (
    JuryReader,
    lewidi_scores,
    most_informative,
    most_recent,
)
from reward_models import planted_judgements


# %% 1. People
#
# 150 made-up people of three kinds answer 20 questions. A sequence is one person's answers; the
# last one is predicted.

planted = planted_judgements("choice", num_raters=150, num_items=20, num_clusters=3, strength=1.5)
people = judgement_sequences(planted.judgements)
train, test = people[:100], people[100:]
target = 19

# %% 2. A jury reads
#
# The posterior over the clusters after some answers, and what such a person answers next.

jury = JuryReader.fit(train, 3)


def losses(read, choose):
    """Return the loss of each test person's target after `read` answers."""
    nats = []
    for person in test:
        shares = jury.shares(person, choose(person, target, read), target)
        given = person.examples[target].options.index(person.examples[target].output)
        nats.append(-np.log(shares[given]))
    return np.array(nats)


numbers = [0, 1, 2, 4, 6, 10, 19]
recent = [losses(n, most_recent).mean() for n in numbers]
informative = [losses(n, most_informative(jury)).mean() for n in numbers]
for n, last, best in zip(numbers, recent, informative, strict=True):
    print(
        f"{n:2} answers read: {last:.3f} nats with the last ones, {best:.3f} with the most telling"
    )

# %% 3. The control
#
# Every answer is exchanged for that of another person to the same question. What is left of the
# gain would not be about the person.

exchanged = dict(zip([person.person for person in test], shuffled_people(test), strict=True))
nats = []
for person in test:
    shares = jury.shares(exchanged[person.person], most_recent(person, target, 6), target)
    options = exchanged[person.person].examples[target].options
    nats.append(-np.log(shares[options.index(person.examples[target].output)]))
print(f" 6 answers of exchanged people: {np.mean(nats):.3f} nats")

plt.plot(numbers, recent, "o-", label="the last answers")
plt.plot(numbers, informative, "o-", label="the most telling answers")
plt.plot([6], [np.mean(nats)], "x", color="grey", label="of exchanged people")
plt.xlabel("answers read")
plt.ylabel("loss of the next answer (nats)")
plt.legend()
plt.show()

# %% 4. The measures of LeWiDi
#
# Each person's own label (error rate), and the distribution of all labels of a question.

questions = [person.examples[target].question for person in test]
given = [person.examples[target].options.index(person.examples[target].output) for person in test]
for n in (0, 6):
    shares = [jury.shares(person, most_recent(person, target, n), target) for person in test]
    scores = lewidi_scores(questions, given, np.array(shares))
    print(
        f"{n} answers read: error rate {scores.error_rate:.2f}, "
        f"soft labels {scores.manhattan:.2f} away"
    )

# %% What to take away
#
# A few answers of a person say more than the question alone, if they are the person's. Ask what
# tells people apart first.
