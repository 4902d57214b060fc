"""Every number that a run publishes, computed again from the people's table and the saved models by a second method.

The second method is plain numpy and pandas, written here: it shares no function with the recipe's evaluation. What is
read from the run is only what somebody could read from its folder: the answers, who was held out, the saved models.
"""

from __future__ import annotations

import itertools
import json
from math import lgamma
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from peft import AutoPeftModelForCausalLM
from safetensors.torch import load_file
from scipy.special import rel_entr
from transformers import AutoModelForCausalLM, AutoTokenizer

from plural_rlhf.recipe.checkpoints import TrainingFolder
from plural_rlhf.recipe.config import load_config
from plural_rlhf.recipe.data import read_data
from plural_rlhf.recipe.policies import train_grpo, train_plural, train_warmup
from plural_rlhf.report.names import Method
from reward_models.jury.scorer import JuryScorer
from tests.paths import ROOT
from tests.real_run import COUNCIL, OPTIONS, TOPICS, RealRun


SPLITS = ("train", "heldout")
POLICIES = (Method.UNTOUCHED, Method.WARM, Method.GRPO, Method.PLURAL)


# ── the second method ───────────────────────────────────────────────────────────────────────────────────────────────


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


def responsibilities(people: pd.DataFrame, jury_answers, prevalence, train) -> dict[str, pd.DataFrame]:
    """By topic, (people who answered, 2): how much of each answer is owed to each cluster.

    A person's membership comes from that person's answers to the other trained questions; the answers of the clusters
    are then the most probable ones under these memberships, by EM on one question at a time.
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
        owed = prior
        for _ in range(1000):
            answers = np.stack([owed[asked == option].sum(axis=0) for option in range(3)], axis=1)
            answers /= answers.sum(axis=1, keepdims=True)
            owed = prior * answers[:, asked].T
            owed /= owed.sum(axis=1, keepdims=True)
        shares[topic] = pd.DataFrame(owed, index=asked.index)
    return shares


@pytest.fixture(scope="module")
def weights(real_run: RealRun, people, jury_answers) -> dict[str, dict[str, pd.Series]]:
    """By whose answers (`all` or a cluster) and topic: the weight of each person who answered."""
    train = [q.id for q in real_run.results.questions if q.split == "train"]
    prevalence = np.array([c.prevalence for c in real_run.results.clusters])
    shares = responsibilities(people, jury_answers, prevalence, train)
    by_cluster = {name: {t: shares[t][k] for t in TOPICS} for k, name in enumerate(real_run.names)}
    return {"all": {t: pd.Series(1.0, people[t].dropna().index) for t in TOPICS}, **by_cluster}


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
        Method.UNIFORM: {who: dict.fromkeys(TOPICS, np.full(3, 1 / 3)) for who in asked},
        **policies,
    }


def rows_of(real_run: RealRun) -> dict[tuple[str, str, str, str], object]:
    return {(r.method, r.split, r.cluster, r.metric): r for r in real_run.results.rows}


def topics_of(real_run: RealRun, split: str) -> list[str]:
    return [q.id for q in real_run.results.questions if q.split == split]


# ── the data and the people ─────────────────────────────────────────────────────────────────────────────────────────


def test_the_fixture_is_lopsided_enough_to_tell_mistakes_apart(real_run, people):
    """Splits, clusters and numbers of answers all differ, so that mixing them up changes a number."""
    n = {q.split: [p.n for p in real_run.results.questions if p.split == q.split] for q in real_run.results.questions}
    assert (len(n["train"]), len(n["heldout"])) == (6, 3)
    assert people.shape == (36, 9)
    assert len({*n["train"], *n["heldout"]}) > 2
    prevalence = sorted(c.prevalence for c in real_run.results.clusters)
    assert prevalence[1] > 1.5 * prevalence[0]


def test_counts_are_those_of_the_table(real_run):
    table, data = real_run.answers, real_run.results.data
    heldout = json.loads((real_run.folder / "heldout.json").read_text())
    assert (data.n_judgements, data.n_raters, data.n_items) == (len(table), table["person"].nunique(), len(TOPICS))
    assert (data.train_raters, data.heldout_raters) == (54, 36)
    assert {*heldout["raters"]["train"]} & {*heldout["raters"]["heldout"]} == set()
    assert {*heldout["raters"]["train"]} | {*heldout["raters"]["heldout"]} == {*table["person"]}
    assert {*data.train_questions} | {*data.heldout_questions} == {*TOPICS}
    assert {q.id for q in real_run.results.questions if q.split == "heldout"} == {*data.heldout_questions}


def test_what_people_said_is_counted_from_the_held_out_people_only(real_run, people, weights):
    for question in real_run.results.questions:
        counts = people[question.id].value_counts().reindex(range(3), fill_value=0).to_numpy()
        assert question.n == counts.sum()
        assert question.human == pytest.approx(counts / counts.sum())
        for name in real_run.names:
            expected = human_shares(people, question.id, weights[name][question.id])
            assert question.clusters[name].human == pytest.approx(expected, abs=2e-3)


def test_the_jury_of_every_question_is_the_saved_one_under_the_prevalence(real_run, jury_answers, answers):
    for question in real_run.results.questions:
        assert question.jury == pytest.approx(answers[Method.JURY]["all"][question.id], abs=1e-6)
        for k, name in enumerate(real_run.names):
            assert question.clusters[name].jury == pytest.approx(jury_answers[question.id][k], abs=1e-6)


# ── rows: every method, split, cluster and metric ───────────────────────────────────────────────────────────────────


def test_every_row_is_there_once_and_nothing_else(real_run):
    expected = {
        (str(method), split, who, metric)
        for method in (Method.JURY, Method.MARGINAL, Method.UNIFORM, *POLICIES)
        for split in SPLITS
        for who in ("all", *real_run.names)
        for metric in ("jsd_nats", "coverage", "entropy_gap", "total_variation")
    }
    expected |= {
        ("floor", split, who, metric)
        for split in SPLITS
        for who in ("all", *real_run.names)
        for metric in ("jsd_nats", "total_variation")
    }
    assert len(real_run.results.rows) == len(expected)
    assert set(rows_of(real_run)) == expected


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("method", [Method.JURY, Method.MARGINAL, Method.UNIFORM, *POLICIES])
def test_rows_are_means_over_the_questions_of_their_split(real_run, people, weights, answers, method, split):
    """Each cluster is compared with its own people, under its own steering."""
    rows, topics = rows_of(real_run), topics_of(real_run, split)
    for who in ("all", *real_run.names):
        human = {t: human_shares(people, t, weights[who][t]) for t in topics}
        given = {t: answers[method][who][t] for t in topics}
        said = {t: p / p.sum() for t, p in given.items()}
        expected = {
            "jsd_nats": np.mean([js(human[t], said[t]) for t in topics]),
            "coverage": np.mean([given[t].sum() for t in topics]),
            "entropy_gap": np.mean([spread(said[t]) - spread(human[t]) for t in topics]),
            "total_variation": np.mean([np.maximum(said[t] - human[t], 0).sum() for t in topics]),
        }
        for metric, value in expected.items():
            row = rows[method, split, who, metric]
            assert row.value == pytest.approx(value, abs=2e-4), (who, metric)
            assert row.ci_low <= row.value <= row.ci_high, (who, metric)
            answered = {person for t in topics for person in weights[who][t].index}
            assert (row.n, row.n_raters) == (len(topics), len(answered))


@pytest.mark.parametrize("split", SPLITS)
def test_the_noise_floor_is_that_of_the_people_of_the_row(real_run, people, weights, split):
    """Of a cluster it comes from the cluster's own number of answers, which are far fewer than everybody's."""
    rows, topics = rows_of(real_run), topics_of(real_run, split)
    floors = {}
    for who in ("all", *real_run.names):
        people_behind = {t: max(round(float(weights[who][t].sum())), 1) for t in topics}
        human = {t: human_shares(people, t, weights[who][t]) for t in topics}
        floors[who] = np.mean([sampling_noise(human[t], people_behind[t]) for t in topics])
        assert rows["floor", split, who, "jsd_nats"].value == pytest.approx(floors[who], rel=0.18), who
    smallest = min(real_run.results.clusters, key=lambda c: c.prevalence).name
    human = {t: human_shares(people, t, weights[smallest][t]) for t in topics}
    with_everybody = np.mean([sampling_noise(human[t], len(weights["all"][t])) for t in topics])
    assert floors[smallest] > 1.5 * with_everybody  # so the mistake would be seen


@pytest.mark.parametrize(("method", "who"), [(Method.PLURAL, "all"), (Method.JURY, "first"), (Method.UNIFORM, "all")])
def test_intervals_come_from_people_and_questions_drawn_again(real_run, people, weights, answers, method, who):
    """Another bootstrap, with a loop over draws: its ends differ from the published ones by chance only."""
    who = real_run.names[0] if who == "first" else who
    topics = topics_of(real_run, "train")
    given = {t: answers[method][who][t] / answers[method][who][t].sum() for t in topics}
    value = np.mean([js(human_shares(people, t, weights[who][t]), given[t]) for t in topics])
    weight = np.array([weights[who][t].reindex(people.index, fill_value=0).to_numpy() for t in topics])
    said = np.array([people[t].fillna(-1).to_numpy() for t in topics])
    rng = np.random.default_rng(12345)
    drawn = []
    for _ in range(800):
        raters = rng.integers(len(people), size=len(people))
        items = rng.integers(len(topics), size=len(topics))
        counts = np.array([[weight[i, raters][said[i, raters] == a].sum() for a in range(3)] for i in items])
        shares = counts / counts.sum(axis=1, keepdims=True)
        drawn.append(np.mean([js(shares[n], given[topics[i]]) for n, i in enumerate(items)]))
    centred = np.array(drawn) - np.mean(drawn) + value
    low, high = np.quantile(centred, [0.025, 0.975])
    row = rows_of(real_run)[method, "train", who, "jsd_nats"]
    assert row.ci_low == pytest.approx(max(low, 0), abs=0.2 * (high - low))
    assert row.ci_high == pytest.approx(high, abs=0.2 * (high - low))


# ── policies ────────────────────────────────────────────────────────────────────────────────────────────────────────


def probability(model, tokenizer, system: str, question: str, answer: str) -> float:
    """One forward pass over prompt, answer and end token: nothing shared, nothing padded."""
    messages = [{"role": "system", "content": system}, {"role": "user", "content": question}]
    prompt = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    prompt_ids = tokenizer(prompt, add_special_tokens=False)["input_ids"]
    ids = [*prompt_ids, *tokenizer(answer, add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]
    with torch.no_grad():
        log_probs = model(torch.tensor([ids])).logits[0].log_softmax(-1)
    return float(sum(log_probs[i - 1, ids[i]] for i in range(len(prompt_ids), len(ids))).exp())


@pytest.mark.parametrize("method", POLICIES)
def test_answers_of_a_policy_are_the_probabilities_of_its_saved_model(real_run, method):
    base = ROOT / "tests" / "stored" / "base"
    tokenizer = AutoTokenizer.from_pretrained(base)
    if method == Method.UNTOUCHED:
        model = AutoModelForCausalLM.from_pretrained(base, dtype="float32")
    else:
        model = AutoPeftModelForCausalLM.from_pretrained(real_run.folder / method, dtype="float32")
    first, second = real_run.names
    whose = {
        "all": "Answer as a member of the public.",
        first: f"Answer as a member of this public: {first}.",
        second: f"Answer as a member of this public: {second}.",
        "council": f"Answer as a member of this public: 75% {second}, 25% {first}.",
    }
    for question in (real_run.results.questions[0], real_run.results.questions[-1]):
        assert set(question.policy[method]) == set(whose)
        for who, system in whose.items():
            text = f"{question.prompt} yes; no; no idea?"
            expected = [probability(model.eval(), tokenizer, system, text, option) for option in OPTIONS]
            recorded = question.policy[method][who]
            assert recorded.probs == pytest.approx(expected, abs=1e-5), who
            assert recorded.coverage == pytest.approx(sum(expected), abs=1e-5)


def test_policies_differ_from_the_one_they_started_from(real_run):
    """Otherwise one adapter could stand for another, and every row above would still agree."""
    probs = {m: [q.policy[m]["all"].probs for q in real_run.results.questions] for m in POLICIES}
    for one, other in itertools.combinations(POLICIES, 2):
        assert np.abs(np.array(probs[one]) - np.array(probs[other])).max() > 1e-4, (one, other)


def test_what_was_spent_is_what_the_settings_say(real_run):
    budgets = real_run.results.budgets
    assert (budgets["warm"].steps, budgets["warm"].scored_sequences) == (2, 2 * 2 * 3)
    assert (budgets["plural"].steps, budgets["plural"].scored_sequences) == (2, 2 * 5 * 3)
    assert (budgets["grpo"].steps, budgets["grpo"].generated_sequences) == (2, 2 * 1 * 4)
    assert {stage: len(steps) for stage, steps in real_run.results.training.items()} == {
        "warm": 2,
        "plural": 2,
        "grpo": 2,
    }


def test_steering_is_predicted_by_the_jury_and_achieved_by_the_policy(real_run, jury_answers):
    prevalence = np.array([c.prevalence for c in real_run.results.clusters])
    whose = {
        "population": prevalence,
        **{name: np.eye(2)[k] for k, name in enumerate(real_run.names)},
        "council": np.array(COUNCIL) / sum(COUNCIL),
    }
    questions = {q.id: q for q in real_run.results.questions}
    entries = {(e.weighting, e.question): e for e in real_run.results.steering}
    assert len(real_run.results.steering) == len(entries)
    assert set(entries) == set(itertools.product(whose, questions))
    for (who, topic), entry in entries.items():
        probs = np.array(questions[topic].policy["plural"]["all" if who == "population" else who].probs)
        assert entry.split == questions[topic].split
        assert list(entry.weights) == real_run.names
        assert list(entry.weights.values()) == pytest.approx(whose[who])
        assert entry.predicted == pytest.approx(whose[who] @ jury_answers[topic], abs=1e-6)
        assert entry.achieved == pytest.approx(probs / probs.sum())
        assert entry.jsd_nats == pytest.approx(js(np.array(entry.predicted), np.array(entry.achieved)), abs=1e-5)


# ── welfare rules ───────────────────────────────────────────────────────────────────────────────────────────────────


def test_rules_pick_and_pay_what_the_calibrated_heads_say(real_run):
    """A unit is the spread of a head's rewards of the offered answers, pooled over the trained questions."""
    jury = JuryScorer.from_pretrained(real_run.folder / "jury")
    prevalence = np.array([c.prevalence for c in real_run.results.clusters])
    rewards = {
        q.id: jury.cluster_rewards([q.prompt] * 3, OPTIONS).double().numpy() for q in real_run.results.questions
    }
    trained = np.stack([rewards[t] for t in topics_of(real_run, "train")])
    scale = np.sqrt(trained.var(axis=1, ddof=1).mean(axis=0))
    heads = {t: (r - trained.mean(axis=(0, 1))) / scale for t, r in rewards.items()}
    duels = {t: (h[:, None] > h[None, :]) @ prevalence for t, h in heads.items()}  # share that prefers one to another
    picked = {
        "mean": {t: int((h @ prevalence).argmax()) for t, h in heads.items()},
        "min": {t: int(h.min(axis=1).argmax()) for t, h in heads.items()},
        "borda": {t: int(d.sum(axis=1).round(9).argmax()) for t, d in duels.items()},
    }
    results = {effect.rule: effect for effect in real_run.results.rules}
    assert list(results) == ["mean", "nash", "min", "median", "borda", "maximal_lottery"]
    for rule, picks in picked.items():
        effect = results[rule]
        assert effect.baseline == "mean"
        assert effect.picks == {t: OPTIONS[pick] for t, pick in picks.items()}, rule
        if rule == "borda":
            continue  # equals share the verdict, and the change is that of the lottery
        assert effect.agreement == pytest.approx(np.mean([picks[t] == picked["mean"][t] for t in picks]))
        for k, name in enumerate(real_run.names):
            gain = np.mean([heads[t][pick, k] - heads[t][picked["mean"][t], k] for t, pick in picks.items()])
            assert effect.clusters[name].value == pytest.approx(gain, abs=1e-4), rule
            assert effect.clusters[name].n == len(TOPICS)


# ── the jury's stage ────────────────────────────────────────────────────────────────────────────────────────────────


def test_what_sets_a_cluster_apart_is_measured_against_everybody(real_run):
    table = real_run.answers
    train = json.loads((real_run.folder / "heldout.json").read_text())["raters"]["train"]
    table = table[table["person"].isin(train)]
    for cluster in real_run.results.clusters:
        assert cluster.top
        for answer in cluster.top:
            share = (table.loc[table["topic"] == answer.item, "answer"] == answer.option).mean()
            assert answer.item in topics_of(real_run, "train")
            assert answer.p_population == pytest.approx(share, abs=0.03)  # the fit smooths it
            assert answer.lift == pytest.approx(answer.p_cluster / answer.p_population)
            assert answer.p_cluster > answer.p_population


def test_headroom_and_choice_of_clusters_are_consistent(real_run):
    rungs = real_run.results.headroom.rungs
    assert rungs[0].info == 0
    assert [r.info for r in rungs] == pytest.approx([rungs[0].nll - r.nll for r in rungs])
    assert real_run.results.headroom.best == min(rungs, key=lambda r: r.nll).name
    assert real_run.results.selection.chosen == len(real_run.results.clusters) == 2
    prevalence = JuryScorer.from_pretrained(real_run.folder / "jury").prevalence
    assert [c.prevalence for c in real_run.results.clusters] == pytest.approx(prevalence)
    assert sum(c.prevalence for c in real_run.results.clusters) == pytest.approx(1)


def test_the_best_demographic_grouping_is_computed_from_shares_by_region(real_run):
    """Per split: shares by region on half of the people, shrunk to everybody's, scored on half of the others' answers.

    The halves are drawn as the code draws them; everything after that is done with a table.
    """
    from reward_models.seeds import seeded_rng
    from reward_models.stats.resampling import halve_labels

    table = real_run.answers.assign(code=real_run.answers["answer"].map(OPTIONS.index))
    table["number"] = table["person"].str.removeprefix("p").astype(int)
    table = table.sort_values(["number", "topic"])
    raters = list(dict.fromkeys(table["person"]))
    rater = table["person"].map(raters.index).to_numpy()
    gains = []
    for seed in range(5):
        rng = seeded_rng(seed, "split of groupings")
        fitted = np.isin(rater, rng.permutation(len(raters))[: len(raters) // 2])
        scored = table[~fitted & ~halve_labels(rater, rng)]
        train = table[fitted]
        everybody = {t: smoothed(part["code"], np.full(3, 1 / 3), 1.5) for t, part in train.groupby("topic")}
        best = max(
            (1, 4, 16, 64, 256),
            key=lambda strength: leave_one_out(train, everybody, strength),
        )
        for row in scored.itertuples():
            known = train[(train["topic"] == row.topic) & (train["region"] == row.region)]["code"]
            p = smoothed(known, everybody[row.topic], best)
            gains.append(np.log(p[row.code]) - np.log(everybody[row.topic][row.code]))
    groupings = real_run.results.groupings
    region = next(row for row in groupings.rows if row.grouping == "region")
    assert region.info == pytest.approx(np.mean(gains), abs=1e-9)
    traits = [row for row in groupings.rows if "trait" in row.source]
    assert groupings.best_demographic == max(traits, key=lambda row: row.info)
    assert groupings.clusters == groupings.rows[0]
    assert groupings.paired_difference.value == pytest.approx(
        groupings.clusters.info - groupings.best_demographic.info
    )


def smoothed(codes: pd.Series, towards: np.ndarray, strength: float) -> np.ndarray:
    counts = codes.value_counts().reindex(range(3), fill_value=0).to_numpy()
    return (counts + strength * towards) / (len(codes) + strength)


def leave_one_out(train: pd.DataFrame, everybody, strength: float) -> float:
    total = 0.0
    for (topic, _), part in train.groupby(["topic", "region"]):
        for code in part["code"]:
            others = (part["code"] == code).sum() - 1
            total += np.log((others + strength * everybody[topic][code]) / (len(part) - 1 + strength))
    return total


# ── the same settings give the same run ─────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("stage", [Method.WARM, Method.PLURAL, Method.GRPO])
def test_a_policy_trained_again_is_the_saved_one_whatever_was_drawn_before(real_run, tmp_path, stage):
    """Adapters, rows and samples are drawn from the seed of the run, not from the random state it happens to meet."""
    config = load_config(real_run.run_file, [])
    questions, jury = read_data(config).of("train"), JuryScorer.from_pretrained(real_run.folder / "jury")
    torch.manual_seed(987)
    np.random.seed(987)
    warm = real_run.folder / "warm"
    if stage == Method.WARM:
        again = train_warmup(config, questions, jury, in_folder(tmp_path / "again"))
    else:
        train = train_plural if stage == Method.PLURAL else train_grpo
        again = train(config, questions, jury, warm, in_folder(tmp_path / "again"))
    saved = load_file(real_run.folder / stage / "adapter_model.safetensors")
    adapter = load_file(tmp_path / "again" / "adapter_model.safetensors")
    assert set(adapter) == set(saved)
    for name, tensor in saved.items():
        torch.testing.assert_close(adapter[name], tensor, rtol=0, atol=0)
    assert [step.loss for step in again.history] == [step.loss for step in real_run.results.training[stage]]


def in_folder(policy: Path) -> TrainingFolder:
    return TrainingFolder(policy, policy.with_name("checkpoints"))


def test_another_seed_draws_another_adapter(real_run, tmp_path):
    config = load_config(real_run.run_file, ["warmup.steps=0", "seed=1"])
    train_warmup(config, [], JuryScorer.from_pretrained(real_run.folder / "jury"), in_folder(tmp_path / "warm"))
    fresh = load_file(tmp_path / "warm" / "adapter_model.safetensors")
    saved = load_file(real_run.folder / "warm" / "adapter_model.safetensors")
    drawn = [name for name in saved if "lora_A" in name]
    assert drawn
    assert all((fresh[name] - saved[name]).abs().max() > 0.01 for name in drawn)
