"""The composed evaluation on planted policies: what each measure must see, in any order, and at sizes of one."""

from __future__ import annotations

import json
import math

import numpy as np
import pandas as pd
import pytest
import torch

from plural_rlhf.evaluation import MEASURES, OpenEndedResults, PolicySamples, evaluate_open_ended
from plural_rlhf.evaluation.open_ended.choosing import Choosing
from plural_rlhf.evaluation.open_ended.resampled import resample_prompts
from reward_models.errors import JuryError


CAMPS = ("parks", "roads")
TOPICS = tuple(f"topic{i}" for i in range(6))
DETAILS = ["quiet", "green", "cheap", "safe", "fast", "clean", "near", "wide", "bright", "open", "calm", "fair"]
VOCABULARY = [*CAMPS, *TOPICS, *DETAILS, "everybody", "balance"]


class Camps:
    """Each camp likes its word; the training jury also likes length, which the heldout jury does not."""

    cluster_names = CAMPS
    prevalence = np.array([0.6, 0.4])

    def __init__(self, per_word: float = 0.0) -> None:
        self.per_word = per_word

    def cluster_rewards(self, prompts, completions):
        texts = [c if isinstance(c, str) else c[0]["content"] for c in completions]
        by_all = [6.0 * ("balance" in text) - 1 + self.per_word * len(text.split()) for text in texts]
        return torch.tensor([[r + 3.0 * (c in text) for c in CAMPS] for text, r in zip(texts, by_all, strict=True)])


def embed(texts):
    return np.array([[float(word in text.split()) for word in VOCABULARY] for text in texts])


def write(rng, prompt, camp):
    return " ".join([camp, prompt, *rng.choice(DETAILS, size=3, replace=False)])


def camps_of(share, n):
    return [CAMPS[0]] * round(share * n) + [CAMPS[1]] * (n - round(share * n))


@pytest.fixture(scope="module")
def planted():
    rng = np.random.default_rng(0)
    people = {t: [write(rng, t, c) for c in camps_of(0.6, 40)] for t in TOPICS}
    texts = {
        "reference": {t: [write(rng, t, c) for c in camps_of(0.5, 24)] for t in TOPICS},
        "plural": {t: [write(rng, t, c) for c in camps_of(0.6, 24)] for t in TOPICS},
        "collapsed": {t: [f"parks {t} quiet green cheap " + "everybody " * 14] * 24 for t in TOPICS},
        "bridge": {t: [f"balance {text}" for text in (write(rng, t, c) for c in camps_of(0.6, 24))] for t in TOPICS},
    }
    samples = {
        policy: PolicySamples(
            of,
            log_probs={t: [-10.0 + gain] * len(some) for t, some in of.items()},
            reference_log_probs={t: [-10.0] * len(some) for t, some in of.items()},
            num_tokens={t: [5] * len(some) for t, some in of.items()},
            ended={t: [policy != "collapsed"] * len(some) for t, some in of.items()},
        )
        for (policy, of), gain in zip(texts.items(), (0.0, 0.1, 3.0, 0.5), strict=True)
    }
    return samples, people


@pytest.fixture(scope="module")
def results(planted):
    samples, people = planted
    return evaluate_open_ended(
        samples,
        Camps(per_word=0.1),
        heldout_scorer=Camps(),
        people=people,
        embed=embed,
        beta=2.0,
        rule="words",
        draws=300,
    )


def test_collapse_is_seen_by_every_measure_of_it(results):
    for measure in ("effective_classes", "human_classes_covered", "vendi_score", "distinct_2"):
        row = results.row("collapsed", measure)
        assert row.value < 0.7 * results.value("plural", measure), measure
        assert row.gain_high < 0, measure
    for measure in (
        "mmd_to_people",
        "auc_to_people",
        "self_bleu",
        "largest_classes",
        "degenerate",
        "words",
    ):
        assert results.row("collapsed", measure).gain_low > 0, measure
    assert results.value("collapsed", "effective_classes") == 1.0
    assert results.row("collapsed", "classes_ratio_to_reference").ci_high < 0.6
    assert results.row("collapsed", "share_error", jury="heldout").value > 0.6
    assert results.value("collapsed", "kl_to_reference") == pytest.approx(3.0)
    assert results.value("reference", "perplexity") == pytest.approx(math.exp(2.0))


def test_the_faithful_policy_is_near_the_floor_and_far_from_other_questions(results):
    for measure in ("mmd_to_people", "auc_to_people"):
        row = results.row("plural", measure)
        assert row.value == pytest.approx(row.floor, abs=0.12)
        assert row.baseline > row.value + 0.15
    covered = results.row("plural", "human_classes_covered")
    assert covered.value == pytest.approx(covered.floor, abs=0.15)
    assert covered.baseline < 0.3
    assert covered.k == 20  # half of the people, for the floor


def test_shares_follow_the_camps(results):
    parks = {p: results.value(p, "answer_share", jury="heldout", cluster="parks") for p in ("plural", "collapsed")}
    assert 0.55 < parks["plural"] < 0.68
    assert parks["collapsed"] > 0.75
    for policy in ("plural", "collapsed", "people"):
        shares = [results.value(policy, "answer_share", jury="training", cluster=c) for c in CAMPS]
        shares.append(results.value(policy, "share_for_no_cluster", jury="training"))
        assert sum(shares) == pytest.approx(1.0)


def test_bridging_and_wins(results):
    assert results.value("bridge", "bridging", jury="heldout") == 1.0
    assert results.value("plural", "bridging", jury="heldout") == 0.0
    assert results.row("bridge", "approval_worst_cluster", jury="heldout").gain_low > 0
    for cluster in CAMPS:
        wins = results.value("bridge", "win_rate", jury="heldout", cluster=cluster, rival="plural")
        losses = results.value("plural", "win_rate", jury="heldout", cluster=cluster, rival="bridge")
        assert wins + losses == pytest.approx(1.0)
        assert wins > 0.6
    assert results.value("bridge", "ties", jury="heldout", cluster="parks", rival="plural") == 0.0


def test_over_optimisation_is_a_gain_that_the_heldout_jury_does_not_see(results):
    honest, gamed = (results.row(p, "heldout_share_of_gain") for p in ("bridge", "collapsed"))
    assert gamed.value < 0.5 < 0.8 < honest.value
    assert honest.baseline == pytest.approx(1.0, abs=0.1)


def test_without_a_gain_there_is_no_share_of_it(planted):
    same = dict.fromkeys(("reference", "plural"), planted[0]["reference"])
    row = evaluate_open_ended(same, Camps(), heldout_scorer=Camps(), draws=50).row("plural", "heldout_share_of_gain")
    assert row.value is None
    assert row.reason == "the training jury's approval did not rise beyond doubt: +0.000 over prompts"


def test_results_are_plain_json_and_come_back(results):
    text = json.dumps(results.to_dict(), allow_nan=False)
    assert OpenEndedResults.from_dict(json.loads(text)).to_dict() == results.to_dict()
    assert {row.measure for row in results.rows} == set(MEASURES)
    assert all(row.value is not None or row.reason for row in results.rows)
    with pytest.raises(KeyError, match="no row of bridging is for"):
        results.value("plural", "bridging")


def test_every_text_is_listed_with_its_approvals_and_its_place(results):
    texts = [text for text in results.texts if text.policy == "collapsed"]
    assert len(texts) == 6 * 24
    assert {text.degenerate for text in texts} == {"repetitive"}
    assert all(set(text.approvals) == set(CAMPS) == set(text.heldout_approvals) for text in results.texts)
    people = [text for text in results.texts if text.policy == "people" and text.prompt == "topic0"]
    parks, roads = (np.mean([text.position for text in people if camp in text.text], axis=0) for camp in CAMPS)
    assert np.linalg.norm(parks - roads) > 0.9  # the camps differ by two of the words


def test_published_numbers_are_those_of_the_published_texts(results):
    """By a second method, from the approvals that are listed beside each text, prompt by prompt."""
    rows = [
        {"policy": text.policy, "prompt": text.prompt}
        | {f"training {name}": value for name, value in text.approvals.items()}
        | {f"heldout {name}": value for name, value in text.heldout_approvals.items()}
        for text in results.texts
    ]
    texts = pd.DataFrame(rows)
    per_prompt = texts.groupby(["policy", "prompt"], sort=False).mean(numeric_only=True)
    means = per_prompt.groupby("policy").mean()
    for policy in ("people", "reference", "plural", "collapsed", "bridge"):
        for jury in ("training", "heldout"):
            for cluster in CAMPS:
                value = results.value(policy, "approval", jury=jury, cluster=cluster)
                assert value == pytest.approx(means.loc[policy, f"{jury} {cluster}"])
            worst = results.value(policy, "approval_worst_cluster", jury=jury)
            assert worst == pytest.approx(min(means.loc[policy, f"{jury} {cluster}"] for cluster in CAMPS))
    by_jury = {
        jury: sum(w * texts[f"{jury} {c}"] for w, c in zip((0.6, 0.4), CAMPS, strict=True))
        for jury in ("training", "heldout")
    }
    people = texts["policy"] == "people"
    centred = [
        (values[people] - values[people].groupby(texts["prompt"]).transform("mean")).to_numpy()
        for values in by_jury.values()
    ]
    kept = results.row("bridge", "heldout_share_of_gain")
    assert kept.baseline == pytest.approx(np.polyfit(*centred, 1)[0])
    assert 0.1 < kept.baseline < 3
    gain = {
        jury: sum(
            w * (means.loc["bridge", f"{jury} {c}"] - means.loc["reference", f"{jury} {c}"])
            for w, c in zip((0.6, 0.4), CAMPS, strict=True)
        )
        for jury in by_jury
    }
    assert kept.value == pytest.approx(gain["heldout"] / gain["training"])


@pytest.mark.slow
def test_order_does_not_matter(results, planted):
    samples, people = planted
    rng = np.random.default_rng(5)
    shuffled = {}
    for policy in reversed(samples):
        fields = samples[policy]
        order = {t: rng.permutation(24) for t in rng.permutation(TOPICS)}
        pick = {
            name: {t: [getattr(fields, name)[t][i] for i in o] for t, o in order.items()}
            for name in ("texts", "log_probs", "reference_log_probs", "num_tokens", "ended")
        }
        shuffled[policy] = PolicySamples(**pick)
    mixed = {t: [people[t][i] for i in rng.permutation(40)] for t in rng.permutation(TOPICS)}
    again = evaluate_open_ended(
        shuffled, Camps(0.1), heldout_scorer=Camps(), people=mixed, embed=embed, beta=2.0, rule="words", draws=50
    )
    for row in results.rows:
        other = again.row(row.policy, row.measure, jury=row.jury, cluster=row.cluster, rival=row.rival)
        if row.measure == "auc_to_people" or row.baseline is not None:  # folds, and the next question, go by order
            continue
        assert (row.value is None) == (other.value is None), row
        if row.value is not None:
            assert other.value == pytest.approx(row.value, abs=1e-9), row


class One:
    cluster_names = ("everybody",)
    prevalence = np.array([1.0])

    def cluster_rewards(self, prompts, completions):
        return torch.tensor([[float(len(completion))] for completion in completions])


@pytest.mark.parametrize("people", [None, {}, {"Why?": []}, {"Why?": ["because"]}, {"Why?": ["because", "no reason"]}])
@pytest.mark.parametrize("with_vectors", [False, True])
@pytest.mark.parametrize("n", [1, 2])
def test_sizes_of_one_give_a_value_or_a_reason(people, with_vectors, n):
    samples = {
        policy: PolicySamples(
            {"Why?": ["because", ""][:n]}, log_probs={"Why?": [-1.0] * n}, reference_log_probs={"Why?": [-2.0] * n}
        )
        for policy in ("reference", "plural")
    }
    results = evaluate_open_ended(
        samples, One(), heldout_scorer=One(), people=people, embed=embed if with_vectors else None, draws=20
    )
    assert all(row.value is not None or row.reason for row in results.rows)
    assert all(row.ci_low is None for row in results.rows)  # one prompt has no interval
    assert {row.measure for row in results.rows if row.policy == "plural"} == set(MEASURES)
    assert results.value("plural", "kl_to_reference") == 1.0
    assert results.value("plural", "kl_to_target") is None
    assert "reference samples count as" in results.row("plural", "kl_to_target").reason
    assert results.value("plural", "empty") == (0.0 if n == 1 else 0.5)
    json.dumps(results.to_dict(), allow_nan=False)


def test_conversations_reach_the_scorer_as_conversations():
    seen = []

    class Chat(One):
        def cluster_rewards(self, prompts, completions):
            seen.extend(zip(prompts, completions, strict=True))
            return torch.zeros(len(prompts), 1)

    chat = [{"role": "user", "content": "Why?"}]
    evaluate_open_ended({"reference": PolicySamples({"q1": ["because"]})}, Chat(), prompts={"q1": chat}, draws=10)
    assert seen == [(chat, [{"role": "assistant", "content": "because"}])]


def test_weights_of_a_steered_policy_are_its_target(planted):
    two = {name: planted[0][name] for name in ("reference", "plural")}
    results = evaluate_open_ended(
        two, Camps(), heldout_scorer=Camps(), weights={"plural": {"roads": 1.0}}, beta=2.0, draws=50
    )
    assert results.settings["weights"] == {"reference": [0.6, 0.4], "plural": [0.0, 1.0]}
    assert results.row("plural", "share_error", jury="training").reason == "the weights leave a cluster out"
    assert "weights of its own" in results.row("plural", "share_error", jury="heldout").reason
    assert results.value("reference", "share_error", jury="training") is not None


def on_two_prompts(planted):
    """Two of the planted policies on two prompts, which is quick."""
    fields = ("texts", "log_probs", "reference_log_probs")
    return {
        name: PolicySamples(**{f: {t: getattr(planted[0][name], f)[t] for t in TOPICS[:2]} for f in fields})
        for name in ("reference", "plural")
    }


def test_each_rule_has_a_target_of_its_own_or_none(planted):
    """The mean is the pool at rho 0; the measures do not know the target of the minimum, nor one that has moved."""
    two = on_two_prompts(planted)

    def of(**target):
        return evaluate_open_ended(two, Camps(), beta=2.0, draws=20, **target)

    pool, mean, log_pool = of(), of(target_rule="mean"), of(rho=0.0)
    assert mean.value("plural", "kl_to_target") == log_pool.value("plural", "kl_to_target")
    assert abs(mean.value("plural", "kl_to_target") - pool.value("plural", "kl_to_target")) > 0.01
    assert "promises" not in str(pool.row("plural", "share_error", jury="training").reason)
    for found, why in ((mean, "rule mean promises no cluster a share"), (log_pool, "rho = 0 promises no cluster")):
        assert why in found.row("plural", "share_error", jury="training").reason
    for found, why in ((of(target_rule="min"), "under the rule min"), (of(beta_moved=True), "a KL budget moved")):
        for row in (found.row("plural", "kl_to_target"), found.row("reference", "share_error", jury="training")):
            assert (row.value, why in row.reason) == (None, True)
        assert found.value("plural", "kl_to_reference") == pool.value("plural", "kl_to_reference")


def test_a_policy_that_chooses_has_divergences_by_its_law(planted):
    """Whatever its texts are: two of its candidates in three are of the first camp, and it takes one at random."""
    samples = on_two_prompts(planted)
    samples["plural"] = PolicySamples(samples["plural"].texts)  # nobody knows their log-probabilities
    rewards = Camps().cluster_rewards([], ["parks"] * 40 + ["roads"] * 20).numpy()
    chances = {
        "any": lambda hands: np.full(hands.shape[:2], 1 / 3),
        "best": lambda hands: np.eye(3)[hands[..., 1].argmax(axis=1)],  # for the second camp
    }
    found = {
        name: evaluate_open_ended(
            samples,
            Camps(),
            beta=2.0,
            draws=20,
            choosing={"plural": Choosing(3, law, dict.fromkeys(TOPICS, rewards))},
        )
        for name, law in chances.items()
    }
    assert found["any"].value("plural", "kl_to_reference") == pytest.approx(0.0, abs=1e-9)
    second = 1 - (2 / 3) ** 3  # one of the three is of the second camp
    exact = second * math.log(second * 3) + (1 - second) * math.log((1 - second) * 1.5)
    assert found["best"].value("plural", "kl_to_reference") == pytest.approx(exact, abs=0.03)
    assert abs(found["any"].value("plural", "kl_to_target")) < 0.05 < found["best"].value("plural", "kl_to_target")
    assert found["best"].row("plural", "kl_to_target").ci_low is not None
    drawn = {policy: found["any"].value(policy, "completions_per_text") for policy in samples}
    assert drawn == {"reference": 1.0, "plural": 3.0}


def test_what_cannot_be_compared_is_refused():
    one, two = PolicySamples({"a": ["x"]}), PolicySamples({"a": ["x"], "b": ["y"]})
    with pytest.raises(ValueError, match=r"the reference policy 'reference' has no samples.*'refrence'.*Did you mean"):
        evaluate_open_ended({"refrence": one}, One())
    with pytest.raises(ValueError, match="policy 'plural' has no texts for 1 prompts that 'reference' has: 'b'"):
        evaluate_open_ended({"reference": two, "plural": one}, One())
    with pytest.raises(ValueError, match="policy 'plural' has texts for 1 prompts that 'reference' has not: 'b'"):
        evaluate_open_ended({"reference": one, "plural": two}, One())
    with pytest.raises(ValueError, match="a policy is called 'people'"):
        evaluate_open_ended({"reference": one, "people": one}, One())
    with pytest.raises(ValueError, match="weights are given for 'plurall', which has no samples"):
        evaluate_open_ended({"reference": one}, One(), weights={"plurall": "uniform"})
    with pytest.raises(JuryError, match="everbody"):
        evaluate_open_ended({"reference": one}, One(), weights={"reference": {"everbody": 1}})
    with pytest.raises(ValueError, match=r"embed returned an array of shape \(2, 3\) for 1 texts"):
        evaluate_open_ended({"reference": one}, One(), embed=lambda texts: np.zeros((2, 3)))


@pytest.mark.parametrize("n", [5, 10])
def test_intervals_over_few_prompts_cover(n):
    """95 % intervals of a mean over ten prompts cover 93 to 95 %, over five 92 %; plain percentiles of five 83 %."""
    rng = np.random.default_rng(0)
    prompts = resample_prompts(n, draws=2000)
    covered = [low < 0 < high for _ in range(600) for _, low, high in [prompts.interval(rng.normal(size=n))]]
    assert (0.9 if n == 5 else 0.915) < np.mean(covered) < 0.97
