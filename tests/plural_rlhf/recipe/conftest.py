"""What the tests of published numbers share: the people's table and the saved models of the real run, read anew."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

from plural_rlhf.recipe.multiple_choice.measure import wording_embedder
from plural_rlhf.report.names import Method
from reward_models.baselines.similar_questions import fit_similar_questions
from reward_models.jury.scorer import JuryScorer
from tests.computed_once import common_parts_of_runs  # noqa: F401
from tests.real_run import OPTIONS, TOPICS, RealRun
from tests.second_method import POLICIES, responsibilities


@pytest.fixture(scope="module")
def sampling_weight(real_run: RealRun) -> pd.Series:
    """By person: how many people the person stands for."""
    return real_run.answers.groupby("person")["weight"].first()


@pytest.fixture(scope="module")
def people(real_run: RealRun) -> pd.DataFrame:
    """(people, topics) index of the answer that each held-out person gave, NaN where not asked."""
    heldout = json.loads((real_run.folder / "heldout.json").read_text())["raters"]["heldout"]
    answers = real_run.answers[real_run.answers["person"].isin(heldout)]
    codes = answers["answer"].map(OPTIONS.index)
    return answers.assign(code=codes).pivot(index="person", columns="topic", values="code")


@pytest.fixture(scope="module")
def jury_answers(real_run: RealRun) -> dict[str, np.ndarray]:
    """By topic, (2, 3): the answers of each cluster as the saved jury predicts them."""
    jury = JuryScorer.from_pretrained(real_run.folder / "jury")
    predicted = {}
    for topic in TOPICS:
        rewards = jury.cluster_rewards([f"Should the city build more {topic}?"] * 3, OPTIONS).double().numpy()
        predicted[topic] = (np.exp(rewards) / np.exp(rewards).sum(axis=0)).T
    return predicted


@pytest.fixture(scope="module")
def weights(real_run: RealRun, people, jury_answers, sampling_weight) -> dict[str, dict[str, pd.Series]]:
    """By whose answers (`all` or a cluster) and topic: the weight of each person who answered, sampling included."""
    train = [q.id for q in real_run.results.questions if q.split == "train"]
    prevalence = np.array([c.prevalence for c in real_run.results.clusters])
    shares = responsibilities(people, jury_answers, prevalence, train, sampling_weight)
    everybody = {t: sampling_weight[people[t].dropna().index] for t in TOPICS}
    by_cluster = {name: {t: shares[t][k] * everybody[t] for t in TOPICS} for k, name in enumerate(real_run.names)}
    return {"all": everybody, **by_cluster}


@pytest.fixture(scope="module")
def answers(real_run: RealRun, jury_answers) -> dict[str, dict[str, dict[str, np.ndarray]]]:
    """By method, whose answers, and topic: what the method answers; for a policy, what the run recorded."""
    questions = real_run.results.questions
    train = [q.id for q in questions if q.split == "train"]
    prevalence = np.array([c.prevalence for c in real_run.results.clusters])
    asked = {"all": prevalence, **{name: np.eye(2)[k] for k, name in enumerate(real_run.names)}}
    jury = {who: {t: w @ jury_answers[t] for t in TOPICS} for who, w in asked.items()}
    average = {who: sum(jury[who][t] for t in train) / len(train) for who in asked}
    policies = {
        method: {who: {q.id: np.array(q.policy[method][who].probs) for q in questions} for who in asked}
        for method in POLICIES
    }
    return {
        Method.JURY: jury,
        Method.MARGINAL: {who: dict.fromkeys(TOPICS, average[who]) for who in asked},
        Method.WORDING: by_wording(real_run, jury, train),
        Method.UNIFORM: {who: dict.fromkeys(TOPICS, np.full(3, 1 / 3)) for who in asked},
        **policies,
    }


def by_wording(real_run: RealRun, jury: dict[str, dict[str, np.ndarray]], train: list[str]) -> dict[str, dict]:
    """By whose answers and topic: what the other trained topics say of it, by the texts alone."""
    scorer = JuryScorer.from_pretrained(real_run.folder / "jury")
    embed = wording_embedder(scorer)
    vectors = {t: embed([f"Should the city build more {t}?"]) for t in TOPICS}
    answers: dict[str, dict] = {who: {} for who in jury}
    for who, shares in jury.items():
        for topic in TOPICS:
            others = [t for t in train if t != topic]
            fit = fit_similar_questions(
                np.stack([shares[t] for t in others]), np.concatenate([vectors[t] for t in others])
            )
            answers[who][topic] = fit.shares(vectors[topic])[0]
    return answers
