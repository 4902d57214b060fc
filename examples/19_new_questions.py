"""New questions: what people would answer to a question that nobody was asked.

A made-up survey: townspeople and villagers say of sixteen things whether too little is spent on
them. They differ about roads and buses. Three new questions are predicted from the wordings, by
group. First the known questions are predicted from each other: that is what says whether wording
tells anything here. Nothing is downloaded or trained.

    python examples/19_new_questions.py      a few seconds
"""

import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from plural_rlhf.methods.new_questions import NewQuestion, question_groups, run_questions
from reward_models import Judgements


# %% 1. People and the questions that they were asked
#
# How many say "too little" depends on what the money is for, and for roads and buses on where they
# live.

KINDS = {"school": (1.2, 1.2), "hospital": (1.6, 1.6), "road": (-1.0, 0.8), "bus": (0.9, -0.7)}
THINGS = ["new {} buildings", "repairs of old {} buildings", "{} staff", "{} safety at night"]
rng = np.random.default_rng(0)
rows = []
for kind, (town, village) in KINDS.items():
    for thing in THINGS:
        own = rng.normal(0, 0.2)
        rows += [
            {
                "rater_id": f"{place}-{number:03}",
                "rater:place": place,
                "prompt": f"How is spending on {thing.format(kind)}?",
                "options": ["too little", "enough"],
                "choice": int(rng.random() > 1 / (1 + np.exp(-mean - own))),
            }
            for place, mean in (("town", town), ("village", village))
            for number in range(60)
        ]
survey = Judgements.from_dataset(rows)

# %% 2. Vectors of texts
#
# In earnest `text_embedder(path)` of `plural_rlhf.evaluation.open_ended.embedder`, which reads any
# sentence embedder; `plural-rlhf predict-questions` has one. Here a text is the words in it.

WORDS = [*KINDS, *{word for thing in THINGS for word in thing.split() if word != "{}"}]


def embed(texts: Sequence[str]) -> np.ndarray:
    """Which words occur; those that say what the money is for count most."""
    weights = [3.0 if word in KINDS else 1.0 for word in WORDS]
    return np.array(
        [[w * (word in text) for word, w in zip(WORDS, weights, strict=True)] for text in texts]
    )


# %% 3. Three questions that nobody was asked

new = [
    NewQuestion("hospital", "How is spending on hospital doctors?", ("too little", "enough")),
    NewQuestion("road", "How is spending on road signs?", ("too little", "enough")),
    NewQuestion("bus", "How is spending on bus stops?", ("too little", "enough")),
]
groups, _ = question_groups(survey, by="place")
with tempfile.TemporaryDirectory() as folder:
    results = run_questions(survey, new, Path(folder) / "new", embed, groups)
    written = sorted(path.name for path in (Path(folder) / "new").iterdir())

# %% 4. May they be believed?
#
# Each known question was predicted from those of other wording, beside their mean (the marginal).

for skill in results.skill:
    print(
        f"{skill.group:>10}: {skill.verdict} than the marginal, JS {skill.wording:.3f} against "
        f"{skill.marginal:.3f} nats, difference [{skill.ci_low:+.3f}, {skill.ci_high:+.3f}]"
    )

# %% 5. Shares of "too little", with the interval in which nine in ten known questions lay

places = {"town": 0, "village": 1}
print()
for row in results.predicted:
    if row.group in places:
        true = 1 / (1 + np.exp(-KINDS[row.id][places[row.group]]))
        share, low, high = row.shares[0], row.low[0], row.high[0]
        print(
            f"{row.id:>10}, {row.group:8} {share:.2f} [{low:.2f}, {high:.2f}]   "
            f"marginal {row.marginal[0]:.2f}   true of such questions {true:.2f}"
        )
print("\nThe folder has", ", ".join(written))

# %% What to take away
#
# - Look at the verdict first: where wording tells nothing, the prediction is the marginal.
# - Everybody's shares hide that the two places want opposite things of roads and buses.
# - From files, with a page: `plural-rlhf predict-questions answers.csv new.csv --by place`.
#   Measured on real surveys in `docs/methods/new_questions.md`.
