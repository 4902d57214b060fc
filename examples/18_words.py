"""Words instead of answers: people whom nobody has heard, and a question that nobody was asked.

A made-up survey: people of towns and villages, young and old, answer six questions; place and age
both count. Old villagers are left out. A jury that reads words is asked as one of them, and a
seventh question is predicted from the wording of the six. Nothing is downloaded or trained.

    python examples/18_words.py      a few seconds
"""

import numpy as np

from plural_rlhf.methods.words import described_answers, described_judgements, public_in_words
from reward_models import Judgements, fit_similar_questions, fit_vector_jury


# %% 1. People
#
# Townspeople say yes, and so do the young; to roads everybody says yes less often than to parks.

logit = {"town": 0.9, "village": -0.9, "young": 0.8, "old": -0.8}
TOPICS = {"parks": 0.9, "trees": 0.8, "gardens": 1.0, "roads": -0.9, "streets": -1.0, "lanes": -0.8}
rng = np.random.default_rng(0)
kinds = [(place, age) for place in ("town", "village") for age in ("young", "old")]
UNHEARD = ("village", "old")


def chance(place: str, age: str, topic: float) -> float:
    """The chance that somebody says yes."""
    return 1 / (1 + np.exp(-logit[place] - logit[age] - topic))


rows = [
    {
        "rater_id": f"{place}-{age}-{number:02}",
        "rater:place": place,
        "rater:age": age,
        "prompt": f"Should we build more {what}?",
        "options": ["yes", "no"],
        "choice": int(rng.random() > chance(place, age, likes)),
    }
    for place, age in kinds
    if (place, age) != UNHEARD
    for number in range(50)
    for what, likes in TOPICS.items()
]
survey = Judgements.from_dataset(rows)

# %% 2. Rows for a policy
#
# Conversations for TRL's SFTTrainer or `train_on_answers`: the rater's words in the system message,
# the question, the answer. A quarter of them ask as a member of the public instead.

first = described_answers(survey, ["place", "age"])[0]
for message in (*first["prompt"], *first["completion"]):
    print(f"{message['role']:>9}: {message['content']}")

# %% 3. A jury that reads words
#
# The table with the words before every prompt is an ordinary table. `fit_jury(described, backbone)`
# reads it with a language model; here the vectors say what the words say.

described = described_judgements(survey, ["place", "age"])


def vector(words: str, question: str, response: str) -> list[float]:
    """Town or village, young or old, and the topic; each times the answer."""
    sign = 1.0 if response == "yes" else -1.0
    topic = [float(what in question) for what in TOPICS]
    return [sign * x for x in (1.0, 2 * ("town" in words) - 1, 2 * ("young" in words) - 1, *topic)]


texts = described.encode().texts
features = np.array([vector(text.prompt[0][1], text.prompt[1][1], text.response) for text in texts])
jury = fit_vector_jury(described, features, clusters=1)

print("\nP(yes), mean over the questions   truth   jury")
for place, age in kinds:
    words = public_in_words({"place": place, "age": age})
    asked = {
        said: np.array([vector(words, what, said) for what in TOPICS]) for said in ("yes", "no")
    }
    yes, no = (jury.cluster_rewards(rows_of)[:, 0] for rows_of in asked.values())
    predicted = np.mean(1 / (1 + np.exp(no - yes)))
    truth = np.mean([chance(place, age, likes) for likes in TOPICS.values()])
    unheard = "   <- nobody was asked" if (place, age) == UNHEARD else ""
    print(f"{place:>20} {age:12} {truth:.2f}    {predicted:.2f}{unheard}")

# %% 4. A question that nobody was asked
#
# The marginal says of a seventh question what was said to the six on average. Weighted by how alike
# the wordings are, it says more, if wording tells anything: how much is learned from the six.
# In earnest the vectors come from a sentence embedder; here a topic is green, or it is paved.

enc = survey.encode()
answers = enc.answer_matrix()
yes = np.array([(column == 0).sum() / (column >= 0).sum() for column in answers.T])
green = {"parks": 1.0, "trees": 1.1, "gardens": 0.9, "roads": -1.0, "streets": -0.9, "lanes": -1.1}
questions = [enc.texts[alternatives[0]].prompt for alternatives in enc.item_alternatives]
wordings = np.array([[next(x for w, x in green.items() if w in q), 0.1] for q in questions])
fit = fit_similar_questions(np.stack([yes, 1 - yes], axis=1), wordings)
meadows, paths = fit.shares(np.array([[1.0, 0.1], [-1.0, 0.1]]))[:, 0]
print(f"\nmarginal {fit.marginal[0]:.2f}, meadows {meadows:.2f}, paths {paths:.2f}")

# %% What to take away
#
# - Words are known before any answer, so that people who were never heard can be asked for.
# - What is said of them is what their words have in common with those of others. Where a group is
#   more than the sum of its words, nobody can know it from them.
# - Real surveys: `docs/methods/conditioning_on_words.md` and `docs/which_method.md`.
