"""Every number about people that a run publishes, computed again by a second method.

The second method is plain numpy and pandas (`tests.second_method`). What is read from the run is only what somebody
could read from its folder: the answers, who was held out, the saved models. Each person has a sampling weight.
"""

from __future__ import annotations

import json

import numpy as np
import pytest
from scipy.optimize import brentq
from scipy.stats import skew
from scipy.stats import t as student

from plural_rlhf.recipe.multiple_choice.measure import wording_embedder
from plural_rlhf.report.names import Method
from reward_models.jury.scorer import JuryScorer
from tests.real_run import TOPICS
from tests.second_method import (
    POLICIES,
    SPLITS,
    effective,
    human_shares,
    js,
    rows_of,
    sampling_noise,
    spread,
    topics_of,
)


def test_the_fixture_is_lopsided_enough_to_tell_mistakes_apart(real_run, people):
    """Splits, clusters and numbers of answers all differ, so that mixing them up changes a number."""
    n = {q.split: [p.n for p in real_run.results.questions if p.split == q.split] for q in real_run.results.questions}
    assert (len(n["train"]), len(n["heldout"])) == (6, 3)
    assert people.shape == (36, 9)
    assert len({*n["train"], *n["heldout"]}) > 2
    prevalence = sorted(c.prevalence for c in real_run.results.clusters)
    assert prevalence[1] > 1.5 * prevalence[0]


def test_counts_are_those_of_the_table(real_run, sampling_weight):
    table, data = real_run.answers, real_run.results.data
    heldout = json.loads((real_run.folder / "heldout.json").read_text())
    assert (data.n_judgements, data.n_raters, data.n_items) == (len(table), table["person"].nunique(), len(TOPICS))
    assert (data.train_raters, data.heldout_raters) == (54, 36)
    assert data.effective_raters == pytest.approx(effective(sampling_weight.to_numpy()))
    assert data.effective_raters < 0.8 * data.n_raters  # so that forgotten weights would be seen
    assert {*heldout["raters"]["train"]} & {*heldout["raters"]["heldout"]} == set()
    assert {*heldout["raters"]["train"]} | {*heldout["raters"]["heldout"]} == {*table["person"]}
    assert {*data.train_questions} | {*data.heldout_questions} == {*TOPICS}
    assert {q.id for q in real_run.results.questions if q.split == "heldout"} == {*data.heldout_questions}


def test_what_people_said_is_counted_from_the_held_out_people_only(real_run, people, weights):
    for question in real_run.results.questions:
        weight = weights["all"][question.id]
        assert question.n == len(weight) == people[question.id].notna().sum()
        assert question.n_effective == pytest.approx(effective(weight.to_numpy()))
        assert question.human == pytest.approx(human_shares(people, question.id, weight))
        for name in real_run.names:
            expected = human_shares(people, question.id, weights[name][question.id])
            assert question.clusters[name].human == pytest.approx(expected, abs=2e-3)


def test_the_jury_of_every_question_is_the_saved_one_under_the_prevalence(real_run, jury_answers, answers):
    for question in real_run.results.questions:
        assert question.jury == pytest.approx(answers[Method.JURY]["all"][question.id], abs=1e-6)
        for k, name in enumerate(real_run.names):
            assert question.clusters[name].jury == pytest.approx(jury_answers[question.id][k], abs=1e-6)


def test_every_row_is_there_once_and_nothing_else(real_run):
    expected = {
        (str(method), split, who, metric)
        for method in (Method.JURY, Method.MARGINAL, Method.WORDING, Method.UNIFORM, *POLICIES)
        for split in SPLITS
        for who in ("all", *real_run.names)
        for metric in ("jsd_nats", "jsd_debiased_nats", "coverage", "entropy_gap", "total_variation")
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
@pytest.mark.parametrize("method", [Method.JURY, Method.MARGINAL, Method.WORDING, Method.UNIFORM, *POLICIES])
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
            if len(topics) < 5:  # too few questions tell no spread
                assert np.isnan(row.ci_low), (who, metric)
            else:
                assert row.ci_low <= row.value <= row.ci_high, (who, metric)
            answered = {person for t in topics for person in weights[who][t].index}
            assert (row.n, row.n_raters) == (len(topics), len(answered))


@pytest.mark.parametrize("split", SPLITS)
def test_the_noise_floor_is_that_of_the_people_of_the_row(real_run, people, weights, split):
    """Of a cluster it comes from the cluster's own number of answers, which are far fewer than everybody's."""
    rows, topics = rows_of(real_run), topics_of(real_run, split)
    floors = {}
    for who in ("all", *real_run.names):
        people_behind = {t: max(round(effective(weights[who][t].to_numpy())), 1) for t in topics}
        human = {t: human_shares(people, t, weights[who][t]) for t in topics}
        floors[who] = np.mean([sampling_noise(human[t], people_behind[t]) for t in topics])
        assert rows["floor", split, who, "jsd_nats"].value == pytest.approx(floors[who], rel=0.18), who
    smallest = min(real_run.results.clusters, key=lambda c: c.prevalence).name
    human = {t: human_shares(people, t, weights[smallest][t]) for t in topics}
    with_everybody = np.mean(
        [sampling_noise(human[t], round(effective(weights["all"][t].to_numpy()))) for t in topics]
    )
    assert floors[smallest] > 1.5 * with_everybody  # so the mistake would be seen


@pytest.mark.parametrize(("method", "who"), [(Method.PLURAL, "all"), (Method.JURY, "first"), (Method.UNIFORM, "all")])
def test_intervals_come_from_people_and_questions_drawn_again(real_run, people, weights, answers, method, who):
    """Another bootstrap, with a loop over draws: people, questions, and single answers, whose noise counts once."""
    who = real_run.names[0] if who == "first" else who
    topics = topics_of(real_run, "train")
    given = {t: answers[method][who][t] / answers[method][who][t].sum() for t in topics}
    each = np.array([js(human_shares(people, t, weights[who][t]), given[t]) for t in topics])
    weight = np.array([weights[who][t].reindex(people.index, fill_value=0).to_numpy() for t in topics])
    said = np.array([people[t].fillna(-1).to_numpy() for t in topics])
    rng = np.random.default_rng(12345)

    def distance(topic: int, raters: np.ndarray) -> float:
        counts = np.array([weight[topic, raters][said[topic, raters] == a].sum() for a in range(3)])
        return js(counts / counts.sum(), given[topics[topic]])

    def drawn_people() -> np.ndarray:
        return rng.integers(len(people), size=len(people))

    one_draw, single_answers, questions = [], [], []
    for _ in range(600):
        raters = drawn_people()
        one_draw.append(np.mean([distance(i, raters) for i in range(len(topics))]))
        single_answers.append(np.mean([distance(i, drawn_people()) for i in range(len(topics))]))
        questions.append(rng.choice(each, size=len(topics)).mean())
    moved = np.mean(one_draw) - each.mean()  # few people are farther off, drawn once more as far again
    # Student's t for the deviation of six questions (of which mean and skewness are estimated) and of the raters, and
    # the ends where Hall's nearly symmetric function of the studentised error takes its quantiles.
    between, shared = 6 / 5 * np.var(questions), max(np.var(one_draw) - np.var(single_answers), 0)
    variance = between + shared
    quantile = student.ppf(0.975, variance**2 / (between**2 / 4 + shared**2 / (len(people) - 1)))
    skewness = skew(each, bias=False) / np.sqrt(6) * (between / variance) ** 1.5

    def halls(error: float, target: float) -> float:
        return error + skewness * error**2 / 3 + skewness**2 * error**3 / 27 + skewness / 6 - target

    def end(target: float) -> float:
        flat = -3 / skewness  # the function says nothing beyond it: six numbers do not show so long a tail
        ends = (flat, 50.0) if skewness > 0 else (-50.0, flat)
        return flat if halls(flat, target) * halls(-flat, target) > 0 else brentq(halls, *ends, args=(target,))

    below, above = (np.sqrt(variance) * end(target) for target in (quantile, -quantile))
    half = quantile * np.sqrt(variance)
    rows = rows_of(real_run)
    for metric, value in (("jsd_nats", each.mean()), ("jsd_debiased_nats", each.mean() - moved)):
        row = rows[method, "train", who, metric]
        assert row.value == pytest.approx(value, abs=2e-3)
        assert row.ci_high == pytest.approx(value - above, abs=0.5 * half)
        assert row.ci_low == pytest.approx(max(value - below, 0 if metric == "jsd_nats" else -1), abs=0.5 * half)


def test_without_a_sentence_embedder_the_jury_reads_how_alike_questions_are(real_run, monkeypatch):
    monkeypatch.setattr("plural_rlhf.recipe.multiple_choice.measure.minilm_folder", lambda: None)
    jury = JuryScorer.from_pretrained(real_run.folder / "jury")
    vectors = wording_embedder(jury)(["More parks?", "More roads?", "More parks?"])
    assert vectors.shape == (3, jury.model.model.config.hidden_size)
    assert (vectors[0] == vectors[2]).all()
    assert (vectors[0] != vectors[1]).any()
