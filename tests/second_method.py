"""The second method by which published numbers are computed: plain numpy and pandas.

It shares no function with the recipe's evaluation.
"""

from __future__ import annotations

import itertools
from math import lgamma

import numpy as np
import pandas as pd
from scipy.special import rel_entr

from plural_rlhf.report.names import Method
from tests.real_run import TOPICS, RealRun


SPLITS = ("train", "heldout")
POLICIES = (Method.UNTOUCHED, Method.WARM, Method.GRPO, Method.PLURAL)


def responsibilities(
    people: pd.DataFrame, jury_answers, prevalence, train, sampling_weight
) -> dict[str, pd.DataFrame]:
    """By topic, (people who answered, 2): how much of each answer is owed to each cluster.

    A person's membership comes from that person's answers to the other trained questions; the answers of the clusters
    are then the most probable ones under these memberships, by EM on one question at a time; a person counts for as
    many as the sampling weight says.
    """
    shares = {}
    for topic in TOPICS:
        asked = people[topic].dropna().astype(int)
        prior = np.zeros((len(asked), 2))
        for n, person in enumerate(asked.index):
            others = [t for t in train if t != topic and not np.isnan(people.loc[person, t])]
            likelihood = prevalence.copy()
            for other in others:
                likelihood *= jury_answers[other][:, int(people.loc[person, other])]
            prior[n] = likelihood / likelihood.sum()
        people_behind = sampling_weight[asked.index].to_numpy()
        owed = prior
        for _ in range(1000):
            answers = np.stack(
                [(owed * people_behind[:, None])[asked == option].sum(axis=0) for option in range(3)], axis=1
            )
            answers /= answers.sum(axis=1, keepdims=True)
            owed = prior * answers[:, asked].T
            owed /= owed.sum(axis=1, keepdims=True)
        shares[topic] = pd.DataFrame(owed, index=asked.index)
    return shares


def human_shares(people: pd.DataFrame, topic: str, weight: pd.Series) -> np.ndarray:
    answers = people.loc[weight.index, topic]
    counts = np.array([weight[answers == option].sum() for option in range(3)])
    return (counts / counts.sum()).round(12)


def js(p: np.ndarray, q: np.ndarray) -> float:
    middle = (p + q) / 2
    return float(rel_entr(p, middle).sum() + rel_entr(q, middle).sum()) / 2


def spread(p: np.ndarray) -> float:
    return float(-sum(x * np.log(x) for x in p if x > 0))


def sampling_noise(p: np.ndarray, n: int) -> float:
    """The expected JS divergence between `n` answers drawn from `p` and `p`, over all possible counts of them."""
    total = 0.0
    for counts in itertools.product(range(n + 1), repeat=2):
        if sum(counts) > n:
            continue
        drawn = np.array([*counts, n - sum(counts)])
        if (drawn[p == 0] > 0).any():
            continue
        log_p = lgamma(n + 1) - sum(lgamma(c + 1) for c in drawn) + sum(drawn[p > 0] * np.log(p[p > 0]))
        total += np.exp(log_p) * js(drawn / n, p)
    return total


def rows_of(real_run: RealRun) -> dict[tuple[str, str, str, str], object]:
    return {(r.method, r.split, r.cluster, r.metric): r for r in real_run.results.rows}


def topics_of(real_run: RealRun, split: str) -> list[str]:
    return [q.id for q in real_run.results.questions if q.split == split]


def effective(weight: np.ndarray) -> float:
    """The number of people of equal weight that are as precise as these (Kish)."""
    return float(weight.sum() ** 2 / (weight**2).sum())
