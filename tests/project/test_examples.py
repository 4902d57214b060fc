"""The examples run as they are, in a process of their own, show what they say they show, and leave nothing behind."""

from __future__ import annotations

import os
import re
import tempfile
from pathlib import Path

import pytest

from tests.paths import ROOT
from tests.processes import run_script


def run_example(name: str) -> str:
    """What an example prints."""
    with tempfile.TemporaryDirectory() as folder:
        done = run_script(ROOT / "examples" / name, folder=Path(folder))
        assert os.listdir(folder) == []
    return done.stdout


def percents(text: str) -> list[float]:
    """The percentages of a line, as shares."""
    return [float(cell) / 100 for cell in re.findall(r"(-?[\d.]+)%", text)]


@pytest.mark.slow
def test_two_line_dropin_keeps_more_of_the_minority_than_the_mean():
    printed = run_example("01_two_line_dropin.py")
    shares = {
        name: percents(line)
        for line in printed.splitlines()
        for name in ("wanted", "before", "weighted mean", "JuryReward")
        if line.startswith(name + " ")
    }
    assert shares["wanted"] == [0.6, 0.3, 0.1, 0.0]
    for row in shares.values():
        assert abs(sum(row) - 1) < 0.003  # rounded to tenths of a percent
    assert shares["weighted mean"][2] < 0.5 * 0.1 < shares["JuryReward"][2]
    assert abs(shares["JuryReward"][0] - 0.6) < abs(shares["weighted mean"][0] - 0.6)
    kept = re.search(r"leaves it (\d+)% of its share, JuryReward (\d+)%", printed)
    assert kept is not None
    for printed_percent, name in zip(kept.groups(), ("weighted mean", "JuryReward"), strict=True):
        assert abs(int(printed_percent) - 100 * shares[name][2] / 0.1) <= 1  # both are rounded


@pytest.mark.slow
def test_a_fine_tuned_jury_tells_two_tastes_apart():
    printed = run_example("02_finetune_a_jury.py")
    rows = re.findall(r"^([12]) +([\d.]+) +([\d.]+)%", printed, re.MULTILINE)
    loss, accuracy = ({k: float(row[i]) for k, *row in rows} for i in range(2))
    assert loss["2"] < loss["1"] - 0.1
    assert accuracy["2"] > accuracy["1"] + 10
    everybody = re.search(r"for all: the long answer leads by ([+-][\d.]+)", printed)
    (most, first), (_, second) = re.findall(r"(\d+)% of the raters: the long answer leads by ([+-][\d.]+)", printed)
    assert everybody is not None
    assert float(first) < 2 * float(everybody[1]) < 0 < float(second)
    assert abs(int(most) - 67) <= 5  # 40 of 60 raters like the short one


@pytest.mark.slow
def test_the_mixture_alone_keeps_the_minority_in_the_environments():
    printed = run_example("03_environments_without_trl.py")
    rows = re.findall(r"^(\w[\w ]+?)  +([\d.]+)% +([\d.]+)% +([\d.]+)% +([\d.]+)$", printed, re.MULTILINE)
    assert [row[0] for row in rows] == ["wanted", "REINFORCE on the mean", "VarGrad on the mixture"] * 2
    for wanted, mean, mixture in (rows[:3], rows[3:]):
        assert [float(share) for share in wanted[1:4]] == pytest.approx([60, 30, 10], abs=0.05)
        assert float(mean[3]) < 2 < 4 < float(mixture[3])
        assert float(mixture[4]) < 0.03 < 0.1 < float(mean[4])


@pytest.mark.slow
def test_rules_disagree_and_only_some_can_be_shouted_down():
    printed = run_example("04_choose_a_rule.py")
    picks = dict(re.findall(r"^(\w+) +100% (.+)$", printed, re.MULTILINE))
    assert picks["mean"] == "Close the road for good."  # .45 · 2.4 − .35 · 1.9 + .2 · .8 = .575 against .525 and .57
    assert picks["min"] == "Close it on Sundays."  # its worst is .4, the third's .3
    assert re.search(r"random_dictator +65% Close the road for good\., 35% Leave it", printed)
    moved = {rule: int(share) for rule, share in re.findall(r"^(\w+) +(\d+)% of the verdicts", printed, re.MULTILINE)}
    assert moved["mean"] > 20
    assert moved["borda"] == 0
    assert "would turn the verdict to" in printed


@pytest.mark.slow
def test_pairs_become_a_policy_that_speaks_for_both_groups():
    printed = run_example("05_pairs_to_policy.py")
    assert "\ntaste signal: raters differ in what they want." in printed
    sizes = [int(size) for size in re.findall(r"^cluster \d, (\d+)% of the raters", printed, re.MULTILINE)]
    assert sizes == pytest.approx([67, 33], abs=5)  # 40 of 60 raters like green things
    rows = {line.split()[0]: percents(line) for line in printed.splitlines() if line.count("%") == 7}
    assert list(rows) == ["wanted", "before", "after"]
    wanted, before, after = rows.values()
    assert after == pytest.approx(wanted, abs=0.04)
    assert max(abs(b - w) for b, w in zip(before, wanted, strict=True)) > 0.1
    green, roads = after[5:]
    assert green / (green + roads) == pytest.approx(0.64, abs=0.03)


@pytest.mark.slow
def test_votes_become_three_rankings_that_the_truth_confirms():
    printed = run_example("06_votes_to_ranking.py")
    sizes = [int(size) for size in re.findall(r"^(\d+)% of the voters, named", printed, re.MULTILINE)]
    assert sizes == pytest.approx([67, 33], abs=3)
    firsts = re.findall(r"second .*\n +([+-][\d.]+) +([+-][\d.]+)   (.+)$", printed, re.MULTILINE)
    assert [text for *_, text in firsts] == [
        "Build more parking in the centre.",
        "Run buses through the night.",
        "Make the crossings near schools safe.",
    ]
    by_size, equal, bridging = (tuple(map(float, rewards)) for *rewards, _ in firsts)
    assert sum(by_size) < sum(equal)
    assert min(bridging) > max(min(by_size), min(equal))
    assert len(re.findall(r" as found$", printed, re.MULTILINE)) == 3


@pytest.mark.slow
def test_one_policy_follows_every_weighting():
    printed = run_example("07_steer_one_policy.py")
    rows = {line[:28].strip(): percents(line) for line in printed.splitlines() if line.count("%") == 4}
    alone = {"music": [0.721, 0.265, 0.013, 0.005], "screen": [0.018, 0.018, 0.948, 0.018]}
    alone["sport"] = [0.018, 0.007, 0.018, 0.958]  # softmax of each group's logits
    for asked, weights in {
        "prevalence": (0.5, 0.3, 0.2),
        "sport": (0, 0, 1),
        "{'music': 4, 'screen': 1}": (0.8, 0.2, 0),
    }.items():
        wanted = [
            sum(w * p for w, p in zip(weights, column, strict=True)) for column in zip(*alone.values(), strict=True)
        ]
        assert rows[asked] == pytest.approx(wanted, abs=0.03)
    error = re.search(r"largest error of a probability: ([\d.]+), mean ([\d.]+)", printed)
    assert error is not None
    assert float(error[1]) < 0.05
    assert float(error[2]) < 0.01


@pytest.mark.slow
def test_a_survey_policy_answers_as_people_do():
    printed = run_example("08_exact_survey.py")
    rows = re.findall(r"^(\w[\w ]+?)  +([\d.]+) +([\d.]+) +([\d.]+)$", printed, re.MULTILINE)
    distance = {name: [float(cell) for cell in cells] for name, *cells in rows}
    assert list(distance) == ["uniform", "most common answer", "before", "after", "noise floor"]
    everybody = {name: row[0] for name, row in distance.items()}
    assert everybody["after"] <= 2 * everybody["noise floor"] < everybody["uniform"] / 4
    assert everybody["uniform"] < everybody["most common answer"]
    for k in (1, 2):  # one distribution cannot be near to both of two that differ
        assert 5 * distance["noise floor"][k] < distance["after"][k] < distance["before"][k]


@pytest.mark.slow
def test_objectives_take_turns_or_meet_in_the_middle():
    printed = run_example("09_objectives.py")
    orders = re.findall(r"^helpful (\d+)%, brief \d+%:  (\w+) >", printed, re.MULTILINE)
    assert orders == [("20", "short"), ("50", "middle"), ("80", "long")]
    rows = re.findall(r"^(\w+) \(rho=\d\) +(wanted|policy) +(.+)$", printed, re.MULTILINE)
    shares = {(name, which): percents(cells) for name, which, cells in rows}
    for name in ("mixture", "consensus"):
        assert shares[name, "policy"] == pytest.approx(shares[name, "wanted"], abs=0.03)
    assert shares["mixture", "policy"][1] < 0.1 < 0.6 < shares["consensus", "policy"][1]


@pytest.mark.slow
def test_dpo_serves_either_group_or_both_where_the_average_has_one_answer():
    printed = run_example("10_dpo_from_disagreement.py")
    assert "(adjusted Rand index): 1.00" in printed
    rows = re.findall(r"^(average|mixture) +(\w+) +([\d.]+)% +([\d.]+)%$", printed, re.MULTILINE)
    parks = {(objective, asked): float(share) / 100 for objective, asked, share, _ in rows}
    assert parks["average", "green"] == pytest.approx(parks["average", "grey"], abs=0.02)
    assert parks["mixture", "grey"] < 0.1 < 0.9 < parks["mixture", "green"]
    assert parks["mixture", "prevalence"] == pytest.approx(0.65, abs=0.07)


@pytest.mark.slow
def test_a_distilled_policy_speaks_for_all_under_the_plain_prompt():
    printed = run_example("11_distil.py")
    rows = {line[:28].strip(): percents(line[28:]) for line in printed.splitlines() if line[28:].count("%") == 4}
    wanted, before, after = (rows[name] for name in ("wanted", "before", "after"))
    assert wanted == pytest.approx([0.6, 0.3, 0.1, 0.0], abs=0.04)
    assert after == pytest.approx(wanted, abs=0.04)
    assert max(abs(b - w) for b, w in zip(before, wanted, strict=True)) > 0.1


@pytest.mark.slow
def test_a_model_is_held_against_people_baselines_and_noise():
    printed = run_example("12_evaluate_any_model.py")
    number = r"([+-]?[\d.]+)"
    row = re.compile(rf"^(\w[\w -]+?)  +{number} \[{number}, {number}\](?: +{number} \[{number}, {number}\])?$", re.M)
    found = {name: [float(cell) for cell in cells if cell] for name, *cells in row.findall(printed)}
    floor = float(re.search(rf"^noise floor +{number}", printed, re.M)[1])
    assert list(found) == ["random model", "fine-tuned model", "uniform", "marginal", "most common answer"]
    for distance, low, high, *_ in found.values():
        assert floor <= distance
        assert low <= distance <= high
    # The interval of the difference to the marginal: better, worse, and nobody can tell.
    assert found["fine-tuned model"][5] < 0 < found["random model"][4]
    assert found["uniform"][4] < 0 < found["uniform"][5]
    assert max(found, key=lambda name: found[name][0]) == "most common answer"


@pytest.mark.slow
def test_a_small_model_infers_coins_nearly_as_well_as_can_be():
    printed = run_example("13_spectrum.py")
    model, best = map(float, re.search(r": ([\d.]+) nats; the best possible is ([\d.]+)", printed).groups())
    assert best < model < 1.05 * best


@pytest.mark.slow
def test_a_community_that_is_added_is_answered_more_like_its_people():
    printed = run_example("14_modular.py")
    low, high = map(float, re.search(r"\[([+-][\d.]+), ([+-][\d.]+)\] nats by its own adapter", printed).groups())
    assert low < high < 0
    shares, flat = map(float, re.search(r"by shares ([\d.]+), flat ([\d.]+)", printed).groups())
    assert shares > flat  # the towns are two thirds of those who have an adapter, and say yes


@pytest.mark.slow
def test_three_kinds_of_people_are_found_and_put_into_words():
    printed = run_example("15_value_profiles.py")
    says = {name.strip(): float(info) for name, info in re.findall(r"^  (.+?) says ([+-][\d.]+),", printed, re.M)}
    assert says["1 clusters"] < 0.05 < says["2 clusters"] < says["3 clusters"]
    assert says["6 clusters"] < says["3 clusters"] + 0.03
    assert all(value < 0.02 for name, value in says.items() if "shuffled" in name or "random" in name)
    assert printed.count("More often than everybody") == 3
    right, ceiling = map(int, re.search(r"right in (\d+)% of \d+ trials;.* in (\d+)%", printed).groups())
    assert right >= 80
    assert right <= ceiling + 5


@pytest.mark.slow
def test_answers_of_a_person_tell_the_next_one():
    printed = run_example("16_individuals.py")
    row = r"^ ?(\d+) answers read: ([\d.]+) nats with the last ones, ([\d.]+) with the most telling"
    read = {int(n): (float(last), float(best)) for n, last, best in re.findall(row, printed, re.M)}
    assert read[0][0] == read[0][1]
    assert read[6][0] < read[0][0] - 0.1
    assert read[2][1] < read[2][0]
    assert read[19][0] == read[19][1]  # all are read either way
    exchanged = float(re.search(r"exchanged people: ([\d.]+) nats", printed)[1])
    assert exchanged > read[0][0]
    errors = [float(e) for e in re.findall(r"error rate ([\d.]+)", printed)]
    assert errors[1] < errors[0]


@pytest.mark.slow
def test_values_that_contradict_each_other_leave_a_situation_ambiguous():
    printed = run_example("17_values.py")
    steal, give, both = (float(nats) for nats in re.findall(r"ambiguity ([\d.]+) nats", printed))
    assert max(steal, give) < 0.1 < 0.5 < both
    giving, _, stealing = (float(r) for r in re.findall(r"lamp ([+-][\d.]+)", printed.split("worse value")[1]))
    assert stealing < -0.9 < giving


def test_people_whom_nobody_heard_are_known_by_their_words():
    printed = run_example("18_words.py")
    rows = re.findall(r"(town|village) (young|old) +([\d.]+) +([\d.]+)", printed)
    assert len(rows) == 4
    assert all(abs(float(truth) - float(jury)) < 0.1 for *_, truth, jury in rows)
    marginal, meadows, paths = map(
        float, re.search(r"marginal ([\d.]+), meadows ([\d.]+), paths ([\d.]+)", printed).groups()
    )
    assert paths < marginal - 0.1 < marginal + 0.1 < meadows


def test_new_questions_are_predicted_by_group_and_the_known_ones_say_that_it_works():
    printed = run_example("19_new_questions.py")
    assert re.findall(r"(\w+): better than the marginal", printed) == ["everybody", "town", "village"]
    rows = re.findall(r"([\d.]+) \[([\d.]+), ([\d.]+)\] +marginal ([\d.]+) +true of such questions ([\d.]+)", printed)
    numbers = [[float(number) for number in row] for row in rows]
    assert len(numbers) == 6
    assert all(low <= true <= high for _, low, high, _, true in numbers)
    off, off_marginal = (sum(abs(row[at] - row[4]) for row in numbers) / len(numbers) for at in (0, 3))
    assert off < 0.06 < 2 * off < off_marginal
