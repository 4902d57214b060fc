"""Names of clusters from the texts that they reward: words that separate, safe spelling, evidence that is shrunk."""

from __future__ import annotations

import numpy as np
import pytest

from reward_models.analysis.naming import changed_names, describe_clusters, name_clusters
from reward_models.analysis.text_contrasts import JudgedTexts, text_evidence, words_of_clusters
from reward_models.analysis.word_contrasts import TermIndex, distinctive_terms
from reward_models.errors import JuryError
from reward_models.fitting.joint.fit import fit_joint
from reward_models.fitting.rater_fit import fit_raters
from reward_models.judgements.records import Judgements


PROMPT = "What should the town do?"
PARKS = [
    "Plant more trees, now",
    "Trees for every street!",
    "more trees and\nbenches",
    "I like trees: shade",
    "old trees",
]
ROADS = [
    "Repair the potholes",
    "the potholes\x07 are awful",
    "Potholes first",
    "fewer potholes <|im_end|>",
    "pothole tax",
]


def votes_about_texts(num_raters: int = 24) -> Judgements:
    """Two thirds of the raters like texts about trees, one third those about potholes; one vote in ten is noise."""
    rng = np.random.default_rng(0)
    rows = []
    for rater in range(num_raters):
        for text in PARKS + ROADS:
            likes = (text in PARKS) == (rater % 3 > 0)
            vote = 1 if likes != (rng.random() < 0.1) else -1
            rows.append({"rater_id": f"p{rater}", "prompt": PROMPT, "response": text, "rating": vote})
    return Judgements.from_dataset(rows, levels=(-1, 1))


def pairs_about_texts() -> Judgements:
    rows = [
        {
            "rater_id": f"p{rater}",
            "prompt": PROMPT,
            "response_a": tree,
            "response_b": hole,
            "choice": "a" if rater % 3 else "b",
        }
        for rater in range(24)
        for i, tree in enumerate(PARKS)
        for j, hole in enumerate(ROADS)
        if (i + j + rater) % 3 == 0
    ]
    return Judgements.from_dataset(rows)


@pytest.mark.parametrize("judgements", [votes_about_texts(), pairs_about_texts()], ids=["votes", "pairs"])
def test_clusters_are_named_by_the_words_that_they_reward(judgements):
    enc = judgements.encode()
    for fit in (fit_raters(enc, "mixture", 2), fit_joint(enc, None, "mixture", 2)):
        names = name_clusters(fit, enc)
        assert names == ["trees", "potholes"]  # no ids, no plural beside the singular, the larger cluster first


def test_votes_and_pairs_of_the_same_raters_name_clusters_together():
    tables = [votes_about_texts().encode(), pairs_about_texts().encode()]
    described = describe_clusters(fit_joint(tables, None, "mixture", 2), tables)
    assert [cluster["name"] for cluster in described] == ["trees", "potholes"]
    kinds = {answer["answer"] for cluster in described for answer in cluster["answers"]}
    assert kinds <= {"-1", "1", "preferred", "not preferred"}


def test_names_are_lines_without_control_characters_markup_or_equals_signs():
    enc = votes_about_texts().encode()
    for cluster in describe_clusters(fit_raters(enc, "mixture", 2), enc):
        assert cluster["name"].isprintable()
        assert not set("<|>=/\\") & set(cluster["name"])
        for answer in cluster["answers"]:
            assert answer["label"].isprintable()
            assert "<|" not in answer["label"]


def test_words_of_the_question_function_words_and_forms_of_one_word_do_not_name():
    liked = [
        "the town should disrupt traffic",
        "this is disruptive: traffic",
        "disrupting traffic!",
        "traffic disruption",
    ]
    others = ["the town is calm", "should we?", "calm, and not that", "calm is what we do"]
    index = TermIndex(liked + others, [PROMPT] * 8)
    words = [word for word, _ in distinctive_terms(index, np.repeat([1.0, -1.0], 4), top=6)]
    assert words == ["traffic"]  # the four forms of "disrupt" occur once each; "town", "should" are the question's


def test_without_contrasting_words_a_text_names_and_without_anything_a_number_does():
    rows = [
        {"rater_id": f"p{r}", "prompt": "Best?", "response": text, "rating": 1 if (text < "m") == (r < 9) else -1}
        for r in range(12)
        for text in ("apple", "banana", "pear", "quince")
    ]
    enc = Judgements.from_dataset(rows, levels=(-1, 1)).encode()
    names = name_clusters(fit_raters(enc, "mixture", 2), enc)
    assert all(name.endswith((": 1", ": -1")) for name in names)
    assert len(set(names)) == 2
    few = enc.select(enc.rater < 2)  # two people: nothing that two people said sets a cluster apart
    assert name_clusters(fit_raters(few, "mixture", 2), few) == ["cluster 1", "cluster 2"]


def test_a_text_that_two_people_judged_is_no_evidence_and_shares_are_shrunk_by_hand():
    votes = votes_about_texts()
    rare = [
        {"rater_id": "p1", "prompt": PROMPT, "response": "rare", "rating": 1},
        {"rater_id": "p0", "prompt": PROMPT, "response": "rare", "rating": -1},
    ]
    table = Judgements.from_dataset([*votes.frame.drop(columns="item_id").to_dict("records"), *rare], levels=(-1, 1))
    enc = table.encode()
    sure = np.eye(2)[[0 if int(rater[1:]) % 3 else 1 for rater in enc.rater_ids]]
    judged = JudgedTexts([enc], enc.texts, np.zeros((enc.n_texts, 2)), enc.rater_ids, sure, np.array([2, 1]) / 3)
    evidence = text_evidence(judged, top=50)
    assert all(answer["item"] != "rare" for answers in evidence for answer in answers)
    first = evidence[1][0]
    text = next(i for i, t in enumerate(enc.texts) if t.response == first["item"])
    said = enc.label[enc.alternatives[:, 0] == text] == (first["answer"] == "1")
    of_cluster = sure[enc.rater[enc.alternatives[:, 0] == text], 1] == 1
    share = (said[of_cluster].sum() + 5 * said.mean()) / (of_cluster.sum() + 5)
    assert first["p_cluster"] == pytest.approx(share)
    assert first["p_population"] == pytest.approx(said.mean())


def test_a_cluster_of_hardly_a_rater_gets_no_words():
    enc = votes_about_texts().encode()
    rewards = np.array([[3.0, -3.0] if text.response in PARKS else [-3.0, 3.0] for text in enc.texts])
    alone = np.tile([0.99, 0.01], (enc.n_raters, 1))
    judged = JudgedTexts([enc], enc.texts, rewards, enc.rater_ids, alone, np.array([0.99, 0.01]))
    assert words_of_clusters(judged)[1] == []


def test_chinese_is_named_by_characters():
    liked = ["我喜歡計程車的品牌", "計程車比較好", "計程車有保險"]
    others = ["開放市場競爭", "市場決定價格", "市場有機制"]
    words = distinctive_terms(TermIndex(liked + others), np.repeat([1.0, -1.0], 3))
    assert words[0][0] == "計程車"


@pytest.mark.parametrize(
    ("names", "fault"),
    [
        (["a"], "1 name for 2 clusters"),
        (["a", "a"], "two clusters would be named 'a'"),
        ({"c1": "c2"}, "two clusters would be named 'c2'"),
        ({"c3": "a"}, "no cluster 'c3'"),
        (["a", ""], "empty"),
        (["a", 3], "empty or no text"),
        (["a", "two\nlines"], "one line"),
        (["a", "x" * 200], "at most 80"),
        (["a", "b<|im_end|>"], "special tokens"),
        (["a", "b=c"], "`=`"),
        (["a", "prevalence"], "own meaning"),
        ("ab", "one text"),
    ],
)
def test_names_that_cannot_be_used_are_refused(names, fault):
    with pytest.raises(JuryError, match=fault):
        changed_names(names, ["c1", "c2"])


def test_given_names_replace_those_that_are_found():
    enc = votes_about_texts().encode()
    fit = fit_raters(enc, "mixture", 2)
    assert [c["name"] for c in describe_clusters(fit, enc, names=["green", "cars"])] == ["green", "cars"]
    assert [c["name"] for c in describe_clusters(fit, enc, names={"potholes": "cars"})] == ["trees", "cars"]
