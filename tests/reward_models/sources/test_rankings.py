"""Rankings, best-worst choices and sliders become judgements, as documented."""

import numpy as np
import pandas as pd
import pytest

from reward_models import fit_mixture
from reward_models.errors import JudgementError
from reward_models.sources import load_table, read_table


pytestmark = pytest.mark.filterwarnings("ignore::reward_models.errors.JudgementWarning")
RANKING = {
    "layout": "ranking",
    "columns": {"rater_id": "who"},
    "constants": {"prompt": "First?"},
    "ranks": {"p": "Parks", "t": "Trams", "r": "Roads"},
}
RANKS = pd.DataFrame({"who": ["ann", "bob", "cyn"], "p": [1, 3, 1], "t": [2, 1, 2], "r": [3, 2, None]})
TASKS = pd.DataFrame(
    {
        "who": ["ann", "bob"],
        "one": ["Parks", "Roads"],
        "two": ["Trams", "Parks"],
        "three": ["Roads", "Trams"],
        "best": ["Parks", "Trams"],
        "worst": ["Roads", None],
    }
)
BEST_WORST = {
    "layout": "best_worst",
    "columns": {"rater_id": "who", "options": ["one", "two", "three"], "best": "best", "worst": "worst"},
    "constants": {"prompt": "First?"},
}


def save(frame, path):
    frame.to_csv(path, index=False)
    return path


def won(judgements):
    """(rater, winner, loser) of each pair; a tie as a set."""
    out = set()
    for row in judgements.frame.itertuples():
        pair = row.response_a, row.response_b
        order = {"a": pair, "b": pair[::-1], "tie": (frozenset(pair),)}[row.choice]
        out.add((row.rater_id, *order))
    return out


def test_a_ranking_is_every_pair_of_its_texts(tmp_path):
    path = save(RANKS, tmp_path / "a.csv")
    expected = {
        ("ann", "Parks", "Trams"),
        ("ann", "Parks", "Roads"),
        ("ann", "Trams", "Roads"),
        ("bob", "Trams", "Roads"),
        ("bob", "Trams", "Parks"),
        ("bob", "Roads", "Parks"),
        ("cyn", "Parks", "Trams"),
    }
    reading = read_table(path, RANKING)
    assert won(reading.judgements) == expected
    assert str(reading) == "a.csv: 7 judgements (preference), every pair of 3 rankings"
    behind = {("cyn", "Parks", "Roads"), ("cyn", "Trams", "Roads")}
    assert won(load_table(path, RANKING | {"unranked": "last"})) == expected | behind
    assert won(load_table(save(RANKS.fillna(2), path), RANKING)) == expected | {
        ("cyn", "Parks", "Roads"),
        ("cyn", frozenset(("Trams", "Roads"))),
    }


def test_texts_in_the_order_of_their_ranks_are_the_same_ranking(tmp_path):
    rows = [("ann", "p", "t", "r"), ("bob", "t", "r", "p"), ("cyn", "p", "t", None)]
    places = pd.DataFrame(rows, columns=["who", "1st", "2nd", "3rd"])
    letters = {"choice": {"p": "Parks", "t": "Trams", "r": "Roads"}}
    mapping = RANKING | {"ranks": ["1st", "2nd", "3rd"], "values": letters}
    by_place = load_table(save(places, tmp_path / "a.csv"), mapping)
    assert won(by_place) == won(load_table(save(RANKS, tmp_path / "b.csv"), RANKING))


def test_a_ranking_as_choices_has_the_likelihood_of_plackett_luce(tmp_path):
    """The product over the choices of one ranking is e^3/(e^3+e^2+e^1) * e^2/(e^2+e^1) for utilities 3, 2, 1."""
    frame = load_table(save(RANKS, tmp_path / "a.csv"), RANKING | {"kind": "choice"}).frame
    rows = frame[frame["rater_id"] == "bob"]
    utility = {"Trams": 3.0, "Roads": 2.0, "Parks": 1.0}
    shares = []
    for options, choice in zip(rows["options"], rows["choice"], strict=True):
        weights = np.exp([utility[option] for option in options])
        shares.append(weights[choice] / weights.sum())
    e = np.exp(1)
    assert np.prod(shares) == pytest.approx(e**3 / (e**3 + e**2 + e) * e**2 / (e**2 + e))
    assert frame[frame["rater_id"] == "cyn"]["options"].tolist() == [("Parks", "Trams")]
    with pytest.raises(JudgementError, match=r"row 2: two texts have rank 2.*kind: preference"):
        load_table(save(RANKS.fillna(2), tmp_path / "b.csv"), RANKING | {"kind": "choice"})


@pytest.mark.parametrize("kind", ["preference", "choice"])
def test_the_utilities_behind_rankings_are_recovered(tmp_path, kind):
    """400 Plackett-Luce rankings of four texts: fitted rewards lie within .35 of the truth."""
    rng = np.random.default_rng([7, 16])
    utility = np.array([1.0, 0.3, -0.3, -1.0])
    order = (-(utility + rng.gumbel(size=(400, 4)))).argsort(1)
    frame = pd.DataFrame(order.argsort(1) + 1, columns=list("abcd")).assign(who=[f"r{i}" for i in range(400)])
    ranks = {letter: f"Plan {letter}" for letter in "abcd"}
    judgements = load_table(save(frame, tmp_path / "a.csv"), RANKING | {"ranks": ranks, "kind": kind})
    enc = judgements.encode()
    fitted = fit_mixture(enc, 1)
    rewards = {text.response: fitted.rewards[place, 0] for place, text in enumerate(enc.texts)}
    values = np.array([rewards[f"Plan {letter}"] for letter in "abcd"])
    assert np.abs(values - values.mean() - utility).max() < 0.35


def test_best_worst_choices(tmp_path):
    expected = {
        ("ann", "Parks", "Trams"),
        ("ann", "Parks", "Roads"),
        ("ann", "Trams", "Roads"),
        ("bob", "Trams", "Roads"),
        ("bob", "Trams", "Parks"),
    }
    path = save(TASKS, tmp_path / "a.csv")
    reading = read_table(path, BEST_WORST)
    assert won(reading.judgements) == expected
    assert str(reading) == "a.csv: 5 judgements (preference), the pairs of 2 best-worst choices"
    places = save(TASKS.assign(best=[1, 3], worst=[3, None]), tmp_path / "b.csv")
    assert won(load_table(places, BEST_WORST | {"index": 1})) == expected
    listed = save(TASKS.assign(shown=["Parks|Trams|Roads"] * 2), tmp_path / "c.csv")
    columns = BEST_WORST["columns"] | {"options": "shown"}
    assert won(load_table(listed, BEST_WORST | {"columns": columns, "options": "|"})) == expected


@pytest.mark.parametrize(
    ("frame", "mapping", "message"),
    [
        (RANKS.assign(p=["x", 1, 2]), RANKING, r"row 0, column 'p': 'x' is not a rank"),
        (RANKS, RANKING | {"ranks": {"p": "P", "tt": "T"}}, r"ranks: 'tt' is not a column of the file"),
        (RANKS, RANKING | {"ranks": ["p"]}, "ranks: .* is not at least two columns"),
        (RANKS, RANKING | {"kind": "rating"}, "rankings become pairs or choices, not 'rating'"),
        (RANKS, RANKING | {"unranked": "first"}, "unranked: 'first' is not known"),
        (
            RANKS.assign(p="x", t="x"),
            RANKING | {"ranks": ["p", "t"]},
            r"column 'p > t': \['x', 'x'\] ranks a text twice",
        ),
        (TASKS.assign(best="Bikes"), BEST_WORST, r"rows 0, 1, column 'best': 'Bikes' is not one of the texts shown"),
        (TASKS.assign(worst=TASKS["best"]), BEST_WORST, "'Parks' is the best text, too"),
        (TASKS, BEST_WORST | {"columns": {"rater_id": "who", "best": "best"}}, "columns: 'worst' is missing"),
        (TASKS, BEST_WORST | {"kind": "choice"}, "best-worst choices become pairs, not 'choice'"),
        (TASKS, {**BEST_WORST, "ranks": ["one"]}, "ranks: only a ranking file has it"),
    ],
)
def test_faults(tmp_path, frame, mapping, message):
    with pytest.raises(JudgementError, match=message):
        load_table(save(frame, tmp_path / "a.csv"), mapping)


SLIDER = {
    "columns": {"rater_id": "who", "response": "say", "rating": "slider"},
    "constants": {"prompt": "Good?"},
    "bins": [0, 50, 75, 100],
}


def test_a_slider_is_cut_into_levels(tmp_path):
    frame = pd.DataFrame({"who": list("aabbcc"), "say": ["x", "y"] * 3, "slider": [0, 49.9, 50, 75, 100, 99]})
    path = save(frame, tmp_path / "a.csv")
    reading = read_table(path, SLIDER)
    assert reading.judgements.frame["rating"].tolist() == [1, 1, 2, 3, 3, 3]
    assert reading.judgements.levels == (1, 2, 3)
    assert str(reading).splitlines()[1:] == [
        "  '0 to below 50'   ->  1  2",
        "  '50 to below 75'  ->  2  1",
        "  '75 to 100'       ->  3  3",
    ]
    with pytest.raises(JudgementError, match=r"rows 4, 5, column 'rating': 100\.0 is outside the bins, 0 to 90"):
        load_table(path, SLIDER | {"bins": [0, 50, 90]})
    for bins, levels, message in (
        ([0, 100], None, "not three or more increasing edges"),
        ([0, 50, 20], None, "not three or more increasing edges"),
        ([0, 50, 100], [1, 2], "bins: the levels are the numbers of the bins"),
    ):
        with pytest.raises(JudgementError, match=message):
            load_table(path, SLIDER | {"bins": bins, "levels": levels})


def test_a_wide_slider_and_a_bin_that_nobody_uses(tmp_path):
    frame = pd.DataFrame({"who": list("abcdef"), "x": [1, 2, 3, 80, 90, 100], "y": [99, 98, 97, 5, 6, None]})
    mapping = {
        "kind": "rating",
        "layout": "wide",
        "columns": {"rater_id": "who"},
        "constants": {"prompt": "Good?"},
        "questions": ["x", "y"],
        "bins": [0, 20, 60, 100],
    }
    judgements = load_table(save(frame, tmp_path / "a.csv"), mapping)
    assert judgements.levels == (1, 2, 3)
    assert sorted(judgements.frame["rating"].unique()) == [1, 3]
    assert np.isfinite(fit_mixture(judgements.encode(), 1).rewards).all()
