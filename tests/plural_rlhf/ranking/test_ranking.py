"""Candidates read from files, ranked under a jury, explained: hand-worked verdicts, refusals that name the row."""

from __future__ import annotations

import json
import warnings

import numpy as np
import pandas as pd
import pytest
import torch

from plural_rlhf.evaluation.decisions.verdicts import verdict
from plural_rlhf.ranking.candidates import Candidates, CandidatesError, label, read_candidates
from plural_rlhf.ranking.explain import explain
from plural_rlhf.ranking.rank import rank, write_ranked
from reward_models.errors import JuryError
from reward_models.jury.objectives import Objectives
from tests.juries import TableJury


PARKS = Candidates(
    "Parks?",
    ["two", "none", "one"],
    rewards={"urban": [2.0, -0.5, 0.6], "rural": [-1.0, 1.5, 0.5], "coast": [0.3, 0.2, 0.4]},
)
# Each response beats the next in two of three clusters.
CYCLE = Candidates("Which?", ["x", "y", "z"], rewards={"a": [3, 2, 1], "b": [1, 3, 2], "c": [2, 1, 3]})
ROWS = [
    {"prompt": "Parks?", "response": "two", "reward:urban": 2.0, "reward:rural": -1.0, "model": "m1"},
    {"prompt": "Roads?", "response": "007", "reward:urban": 0.0, "reward:rural": 0.5, "model": "m1"},
    {"prompt": "Parks?", "response": "null", "reward:urban": 0.5, "reward:rural": 1.0, "model": "m2"},
]


def jsonl(path, rows):
    path.write_text("\n".join(json.dumps(row) for row in rows) + "\n", encoding="utf-8")
    return path


# ── reading ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_every_format_holds_the_same_candidates(tmp_path):
    table = pd.DataFrame(ROWS)
    table.to_csv(tmp_path / "c.csv", index=False)
    table.to_csv(tmp_path / "c.tsv", index=False, sep="\t")
    table.to_parquet(tmp_path / "c.parquet")
    (tmp_path / "c.json").write_text(json.dumps(ROWS), encoding="utf-8")
    jsonl(tmp_path / "c.jsonl", ROWS)
    for suffix in ("csv", "tsv", "parquet", "json", "jsonl"):
        parks, roads = read_candidates(tmp_path / f"c.{suffix}")
        assert (parks.prompt, list(parks.responses)) == ("Parks?", ["two", "null"]), suffix
        assert dict(parks.rewards) == {"urban": [2.0, 0.5], "rural": [-1.0, 1.0]}, suffix
        assert list(roads.responses) == ["007"], suffix  # an answer is text, also where it looks like a number
        assert [columns["model"] for columns in parks.columns] == ["m1", "m2"]
    assert len(read_candidates(tmp_path / "c.csv", limit=1)) == 1


def test_a_row_a_prompt_is_the_same_as_a_row_a_candidate(tmp_path):
    row = {"prompt": "Parks?", "responses": ["two", "null"], "reward:urban": [2.0, 0.5], "reward:rural": [-1.0, 1.0]}
    pd.DataFrame([row]).to_parquet(tmp_path / "c.parquet")
    jsonl(tmp_path / "c.jsonl", [row])
    cells = {name: json.dumps(value) if isinstance(value, list) else value for name, value in row.items()}
    pd.DataFrame([cells]).to_csv(tmp_path / "c.csv", index=False)
    for suffix in ("parquet", "jsonl", "csv"):
        [parks] = read_candidates(tmp_path / f"c.{suffix}")
        assert (list(parks.responses), dict(parks.rewards)) == (
            ["two", "null"],
            {"urban": [2.0, 0.5], "rural": [-1.0, 1.0]},
        ), suffix


def test_weights_and_rule_of_a_prompt_may_stand_in_one_of_its_rows(tmp_path):
    first, _, second = ROWS
    rows = [{**first, "weights": "urban=3, rural=1"}, {**second, "rule": {"rule": "power_mean", "p": 2}}]
    [read] = read_candidates(jsonl(tmp_path / "c.jsonl", rows))
    assert (read.weights, read.rule) == ({"urban": 3.0, "rural": 1.0}, {"rule": "power_mean", "p": 2})
    pd.DataFrame([{**row, "weights": json.dumps({"urban": 3, "rural": 1})} for row in (first, second)]).to_csv(
        tmp_path / "c.csv", index=False
    )
    assert read_candidates(tmp_path / "c.csv")[0].weights == {"urban": 3, "rural": 1}


def test_an_id_tells_prompts_of_equal_words_apart_and_conversations_are_prompts(tmp_path):
    chat = [{"role": "user", "content": "Parks?"}]
    rows = [{"prompt": chat, "response": "yes", "prompt_id": n} for n in (1, 2, 1)]
    first, second = read_candidates(jsonl(tmp_path / "c.jsonl", rows))
    assert (first.prompt, first.prompt_id, len(first.responses)) == (chat, "1", 2)
    assert (second.prompt_id, second.name) == ("2", "2")


@pytest.mark.parametrize(
    ("rows", "reason"),
    [
        ([{"prompt": "Parks?", "reponse": "two"}], r"'prompt', 'reponse'.*Did you mean 'reponse'\?"),
        ([{"question": "Parks?", "response": "two"}], "has the columns 'question', 'response', and 'prompt'"),
        ([{"prompt": "P", "response": "a", "responses": ["b"]}], "one of 'response' and 'responses'"),
        ([], "has the columns of no row"),
        ([ROWS[0], {**ROWS[1], "response": " "}], "line 2: the response is None"),
        ([ROWS[0], {**ROWS[1], "response": 7}], "line 2: the response is 7.*in quotes"),
        ([ROWS[0], {**ROWS[2], "reward:rural": float("nan")}], "line 2: reward:rural is nan"),
        ([ROWS[0], {**ROWS[2], "reward:rural": "high"}], "line 2: reward:rural is 'high'"),
        ([ROWS[0], {"prompt": "Parks?", "response": "one", "reward:urban": 1}], "line 2: reward:rural is None"),
        ([{"response": "a"}, {"prompt": "P", "response": "b"}], "line 1: the prompt is None"),
        ([{**ROWS[0], "weights": "urban"}, {**ROWS[2], "weights": "rural"}], "line 2: weights is 'rural', but line 1"),
        ([{**ROWS[0], "weights": "urban=x"}], "line 1: the weights 'urban=x' cannot be read: the share of"),
        ([{**ROWS[0], "prompt_id": "q"}, {**ROWS[1], "prompt_id": "q"}], "line 2: prompt is 'Roads\\?', but line 1"),
        ([{"prompt": "P", "responses": "one"}], "line 1: responses is 'one', and must be a list"),
        ([{"prompt": "P", "responses": ["a", ""]}], "line 1, response 2: the response is ''"),
        ([{"prompt": "P", "responses": ["a", "b"], "reward:u": [1.0]}], "line 1, response 1: reward:u has 1 scores"),
        ([{"prompt": "P", "responses": []}], "the prompt 'P' has no responses"),
    ],
)
def test_a_file_with_a_fault_is_refused_with_the_row(tmp_path, rows, reason):
    with pytest.raises(CandidatesError, match=reason):
        read_candidates(jsonl(tmp_path / "c.jsonl", rows))


def test_files_that_cannot_be_read_are_refused(tmp_path):
    file = tmp_path / "c.jsonl"
    file.write_text('{"prompt": "a", "response": "b"}\n\n{"prompt"\n', encoding="utf-8")
    with pytest.raises(CandidatesError, match=r"c.jsonl cannot be read: line 3 is not JSON"):
        read_candidates(file)
    (tmp_path / "c.json").write_text('{"prompt": "a"}', encoding="utf-8")
    with pytest.raises(CandidatesError, match="must hold a list of rows"):
        read_candidates(tmp_path / "c.json")
    (tmp_path / "c.txt").write_text("a", encoding="utf-8")
    with pytest.raises(CandidatesError, match=r"not one of \.jsonl"):
        read_candidates(tmp_path / "c.txt")
    with pytest.raises(FileNotFoundError, match=r"Did you mean 'c\.json"):
        read_candidates(tmp_path / "c.jsonn")


# ── ranking ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_weighted_mean_by_hand():
    [ranked] = rank([PARKS], weights={"urban": 5, "rural": 5, "coast": 2})
    # two: (10 - 5 + 0.6) / 12, none: (-2.5 + 7.5 + 0.4) / 12, one: (3 + 2.5 + 0.8) / 12
    assert ranked.scores.tolist() == pytest.approx([5.6 / 12, 5.4 / 12, 6.3 / 12])
    assert ranked.ranks.tolist() == [2, 3, 1]
    assert ranked.lottery.tolist() == [0, 0, 1]
    assert (ranked.order, ranked.best) == ([2, 0, 1], 2)
    # Scores alone know no prevalence, so that all clusters count alike by default: (1.3, 1.2, 1.5) / 3.
    assert rank([PARKS])[0].scores.tolist() == pytest.approx([1.3 / 3, 1.2 / 3, 1.5 / 3])


def test_equals_share_rank_and_probability():
    given = Candidates("P", ["a", "b", "c", "d"], rewards={"u": [1, 2, 2, 0], "v": [1, 2, 2, 0]})
    [ranked] = rank([given])
    assert ranked.ranks.tolist() == [3, 1, 1, 4]
    assert ranked.lottery.tolist() == [0, 0.5, 0.5, 0]
    assert ranked.order == [1, 2, 0, 3]


def test_a_cycle_is_drawn_by_the_margins_and_ordered_by_the_chances():
    # Weights 4, 3, 2 of 9: x beats y by 4+2-3 = 3, y beats z by 4+3-2 = 5, z beats x by 3+2-4 = 1 ninth.
    [ranked] = rank([CYCLE], weights={"a": 4, "b": 3, "c": 2}, rule="maximal_lottery")
    assert ranked.lottery.tolist() == pytest.approx([5 / 9, 1 / 9, 3 / 9])
    assert ranked.order == [0, 2, 1]
    assert ranked.ranks.tolist() == [1, 1, 1]  # no response of the lottery beats it


def test_a_prompt_that_brings_its_own_jury_or_rule_keeps_them():
    own = Candidates(PARKS.prompt, PARKS.responses, PARKS.rewards, weights="rural", rule="borda")
    first, second = rank([PARKS, own], weights="urban")
    assert (first.best, str(first.rule)) == (0, "mean")
    assert (second.best, str(second.rule)) == (1, "borda")
    assert second.weights.tolist() == [0, 1, 0]


def test_prompts_of_any_size_rule_and_jury_are_ranked_as_each_would_be_alone():
    rng = np.random.default_rng(1)
    rules, juries = ("mean", "borda", "maximal_lottery"), ("uniform", "u", {"u": 1, "v": 2})
    given = [
        Candidates(
            f"P{i}",
            [f"r{n}" for n in range(2 + i % 4)],
            {name: rng.normal(size=2 + i % 4).tolist() for name in ("u", "v")},
            weights=juries[i % 3],
            rule=rules[i // 3 % 3],
        )
        for i in range(40)
    ]
    for prompt, together in zip(given, rank(given), strict=True):
        [alone] = rank([prompt])
        assert together.candidates is prompt
        assert str(together.rule) == prompt.rule
        assert together.scores.tolist() == pytest.approx(alone.scores.tolist(), abs=1e-12)
        assert together.lottery.tolist() == pytest.approx(alone.lottery.tolist(), abs=1e-9)


def test_a_scorer_is_asked_in_parts_and_its_prevalence_decides():
    answers = [f"answer {n}" for n in range(7)]
    table = {answer: [float(n % 3), float(-n)] for n, answer in enumerate(answers)}
    jury = TableJury(table, ["u", "v"], [0.75, 0.25])
    prompts = [Candidates(f"P{n}", answers) for n in range(100)]
    ranked = rank(prompts, jury)
    assert len(jury.asked) == 700
    assert [(p.candidates.prompt, p.candidates.responses[p.best]) for p in ranked] == [
        (f"P{n}", "answer 2") for n in range(100)
    ]  # .75 * 2 - .25 * 2 = 1 is the best of 0, .5, 1, -.75, -.25, .25, -1.5
    assert ranked[99].rewards[:, 1].tolist() == [-float(n) for n in range(7)]


def test_objectives_stand_in_for_a_jury():
    scorers = {"short": lambda completions, **c: [-float(len(x)) for x in completions]}
    scorers["polite"] = lambda completions, **c: [float("please" in x) for x in completions]
    given = [Candidates("Ask.", ["Go.", "Go, please."])]
    assert rank(given, Objectives(scorers))[0].best == 0
    assert rank(given, Objectives(scorers), weights="polite")[0].best == 1


def test_rules_that_compare_clusters_want_one_scale():
    class Jury(TableJury):
        calibrated = False

    jury = Jury({"a": [1.0, 0.0], "b": [0.25, 0.5]}, ["u", "v"], [0.5, 0.5])
    given = [Candidates("P", ["a", "b"])]
    with pytest.raises(JuryError, match="have not been put on one scale"):
        rank(given, jury, rule="soft_minimum")
    assert rank(given, jury, rule="soft_minimum(temperature=0)", calibrated=False)[0].best == 1
    jury.calibrated = True
    assert rank(given, jury, rule="soft_minimum(temperature=0)")[0].best == 1
    assert rank(given, jury)[0].best == 0


def test_given_scores_are_taken_as_comparable_with_a_word():
    with pytest.warns(UserWarning, match="soft_minimum compares the scores of one cluster"):
        rank([PARKS], rule="soft_minimum")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        rank([PARKS], rule="soft_minimum", calibrated=False)
        rank([PARKS], rule="copeland")


@pytest.mark.parametrize(
    ("given", "options", "error", "reason"),
    [
        (Candidates("P", ["a", "b"]), {}, CandidatesError, "no scores"),
        (PARKS, {"scorer": TableJury({}, ["u"], [1.0])}, CandidatesError, "there are scores already"),
        (PARKS, {"weights": "prevalence"}, JuryError, "scores alone do not state"),
        (PARKS, {"weights": {"urbn": 1}}, JuryError, "Did you mean 'urban'"),
        (PARKS, {"rule": "bordda"}, ValueError, "Did you mean 'borda'"),
        (PARKS, {"rule": "soft_minimum(temperature=-1)"}, ValueError, "temperature"),
        (Candidates("P", ["a"], {"u": [1]}), {"rule": "borda"}, CandidatesError, "has one response.*'borda'"),
        (Candidates("P", ["a"], {"u": [1]}, weights="x"), {}, CandidatesError, "response A to 'P': the weights name"),
        (Candidates("P", ["a"], {"u": [1]}, rule="bord"), {}, CandidatesError, "response A to 'P': rule: got 'bord'"),
    ],
)
def test_what_cannot_be_ranked_is_refused(given, options, error, reason):
    with pytest.raises(error, match=reason):
        rank([given], **options)


def test_a_scorer_at_fault_is_refused_with_cluster_and_response():
    jury = TableJury({"a": [0.0, 1.0], "b": [0.0, float("nan")]}, ["u", "v"], [0.5, 0.5])
    with pytest.raises(CandidatesError, match="response B to 'P': the cluster 'v' gives nan"):
        rank([Candidates("P", ["a", "b"])], jury)
    jury.cluster_rewards = lambda prompts, completions: torch.zeros(len(prompts), 3)
    with pytest.raises(JuryError, match=r"shape \(2, 3\), and not \(2, 2\)"):
        rank([Candidates("P", ["a", "b"])], jury)


# ── explaining ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_explanation_by_hand():
    told = explain(rank([PARKS], weights={"urban": 5, "rural": 5, "coast": 2})[0])
    assert told.winners == [2]
    assert told.favourites == {"urban": [0], "rural": [1], "coast": [2]}
    # Without urban the scores of none and one are 7.9 and 3.3 sevenths; without rural two has 10.6, one 3.8 sevenths.
    assert told.without == {"urban": [1], "rural": [0]}
    assert "urban is pivotal: without it B would win." in told.sentences
    # urban at u, the others at (1 - u) (5, 2) / 7: two overtakes one where 2u - 4.4(1-u)/7 = 0.6u + 3.3(1-u)/7,
    # that is u = 1.1 / (1.4 + 1.1) = 0.44.
    [more] = [flip for flip in told.flips if (flip.cluster, flip.direction) == ("urban", "more")]
    assert (more.share_needed, more.winner) == (pytest.approx(0.44), 0)
    assert "urban at 44 % (now 41.7 %) would turn the verdict to A." in told.sentences


def test_a_share_that_is_said_is_enough_and_what_is_pivotal_is_so():
    rng = np.random.default_rng(0)
    turned = 0
    for _ in range(20):
        r, w = rng.normal(size=(4, 3)), rng.dirichlet(np.ones(3))
        names = ["a", "b", "c"]
        given = Candidates("P", list("wxyz"), dict(zip(names, r.T.tolist(), strict=True)))
        told = explain(rank([given], weights=w)[0])
        for sentence in told.sentences[2:]:
            name, *rest = sentence.split()
            k = names.index(name) if name in names else None
            if rest[:2] == ["is", "pivotal:"]:
                left = np.where(np.arange(3) == k, 0.0, w)
                assert label(int(np.argmax(r @ left))) == rest[4]
            elif k is not None:
                share = float(rest[1]) / 100
                moved = np.where(np.arange(3) == k, share, w * (1 - share) / (1 - w[k]))
                assert label(int(np.argmax(verdict(r, moved)))) == rest[-1].strip(".")
                turned += 1
    assert turned > 20


def test_a_draw_is_told_with_its_chances_and_a_lonely_cluster_as_such():
    [ranked] = rank([CYCLE], weights={"a": 4, "b": 3, "c": 2}, rule="maximal_lottery")
    assert explain(ranked).sentences[0] == (
        "A draw decides under maximal_lottery: A 55.6 %, C 33.3 %, B 11.1 %, with a 44.4 %, b 33.3 %, c 22.2 %."
    )
    alone = explain(rank([PARKS], weights="rural")[0])
    assert alone.without == {"rural": []}
    assert "rural is pivotal: it is the only cluster." in alone.sentences


def test_one_response_and_certain_verdicts_are_told_without_a_turn():
    certain = explain(rank([Candidates("P", ["a", "b"], {"u": [1, 0], "v": [2, 0]})])[0])
    assert certain.without == {}
    assert certain.sentences[-1] == "No change of one cluster's share alone would turn the verdict."
    single = explain(rank([Candidates("P", ["a"], {"u": [1], "v": [2]})])[0])
    assert single.sentences[0].startswith("A wins under mean")
    assert single.flips == []


@pytest.mark.parametrize("rule", ["mean", "approval(threshold=0)", "borda", "random_dictator", "power_mean(p=2)"])
def test_an_exact_tie_is_broken_by_any_more_of_a_cluster(rule):
    tie = Candidates("Which?", ["x", "y"], rewards={"urban": [1, -1], "rural": [-1, 1]})
    told = explain(rank([tie], rule=rule, calibrated=False)[0])
    assert told.winners == [0, 1]
    assert told.sentences[-2:] == [
        "Any more weight of urban would break the tie: A would win.",
        "Any more weight of rural would break the tie: B would win.",
    ]
    for flip in told.flips:
        share = flip.share_needed
        weights = [share, 1 - share] if flip.cluster == "urban" else [1 - share, share]
        assert int(np.argmax(verdict(np.array([[1, -1], [-1, 1]]), weights, rule))) == flip.winner


def test_ties_that_only_some_clusters_break_or_none():
    # Three clusters, three responses: A and B tie at 1/3 each; the coast is indifferent between them.
    three = Candidates("Which?", ["x", "y", "z"], {"urban": [1, 0, -1], "rural": [0, 1, -1], "coast": [0.5, 0.5, 0.4]})
    told = explain(rank([three])[0])
    assert told.winners == [0, 1]
    assert "Any more weight of urban would break the tie: A would win." in told.sentences
    assert "Any less weight of urban would break the tie: B would win." in told.sentences
    assert not any("weight of coast" in sentence for sentence in told.sentences)
    # Equal for everybody: nothing breaks it.
    equal = explain(rank([Candidates("Which?", ["x", "y", "z"], {"u": [1, 1, 0], "v": [2, 2, 0]})])[0])
    assert equal.sentences[-1] == "No change of one cluster's share alone would break the tie."
    # All three tie, and one cluster separates two of them from the third.
    part = explain(rank([Candidates("Which?", ["x", "y", "z"], {"u": [1, 1, 0], "v": [0, 0, 1]})])[0])
    assert "Any more weight of u would break the tie: A and B would tie." in part.sentences
    assert "Any more weight of v would break the tie: C would win." in part.sentences


def test_a_tie_that_only_a_large_change_breaks_says_from_which_share():
    # The median is 0 for both until one cluster has half of the weight.
    tie = Candidates("Which?", ["x", "y"], rewards={"u": [1, 0], "v": [0, 0], "w": [0, 1]})
    told = explain(rank([tie], rule="median", calibrated=False)[0])
    assert told.winners == [0, 1]
    assert "u at 50 % (now 33.3 %) would break the tie: A would win." in told.sentences
    assert verdict(np.array([[1, 0, 0], [0, 0, 1]]), [0.5, 0.25, 0.25], "median") == pytest.approx([1, 0])


def test_letters_go_on_after_z():
    assert [label(n) for n in (0, 25, 26, 51, 52, 701, 702)] == ["A", "Z", "AA", "AZ", "BA", "ZZ", "AAA"]


# ── writing ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_what_was_written_is_read_and_ranked_again_without_the_jury(tmp_path):
    jury = TableJury({"a": [1.0, 0.0], "b": [0.25, 0.5]}, ["u", "v"], [0.9, 0.1])
    given = [
        Candidates(
            "P", ["a", "b"], weights={"u": 1, "v": 3}, rule="borda", prompt_id="q", columns=[{"m": 1}, {"m": 2}]
        ),
        Candidates([{"role": "user", "content": "P"}], ["b", "a"]),
    ]
    ranked = rank(given, jury)
    write_ranked(tmp_path / "out.jsonl", ranked)
    again = rank(read_candidates(tmp_path / "out.jsonl"), weights={"u": 9, "v": 1})
    assert [p.candidates.responses[p.best] for p in again] == ["b", "a"]
    for before, after in zip(ranked, again, strict=True):
        assert after.scores.tolist() == before.scores[before.order].tolist()
        assert (after.candidates.prompt, str(after.rule)) == (before.candidates.prompt, str(before.rule))
    rows = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [(row["response"], row["rank"], row.get("m")) for row in rows] == [
        ("b", 1, 2), ("a", 2, 1), ("a", 1, None), ("b", 2, None),
    ]  # fmt: skip
    write_ranked(tmp_path / "best.jsonl", ranked, best=True)
    assert len(read_candidates(tmp_path / "best.jsonl")) == 2


def test_a_write_that_fails_leaves_the_old_file(tmp_path):
    file = jsonl(tmp_path / "out.jsonl", ROWS)
    before = file.read_text(encoding="utf-8")

    def broken():
        yield from rank([PARKS])
        raise RuntimeError("out of power")

    with pytest.raises(RuntimeError):
        write_ranked(file, broken())
    assert file.read_text(encoding="utf-8") == before
