"""Surveys that the methods are compared on: people and questions held out, groups of people, shares.

| survey | people | questions | groups | held out |
|---|---|---|---|---|
| `gss_spending` | 2,347 | 18, three options | party | a third of the questions, half of the people |
| `gss_abortion` | 1,563 (2018) | 7, two options | party | the same |
| `bfi` | 2,800 | 25, six options | gender | the same |
| `verbagg` | 316 | 24, three options | gender | the same |
| `wvs_immigration` | published shares | 140 waves of 80 countries, four options | none | a third of the countries |

Of `wvs_immigration` the countries are what is new: the question names a country and a year, and there are no single
people. Knows no method.

Shapes: `I` questions, `A` options.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any


if TYPE_CHECKING:
    import numpy as np

    from reward_models.judgements.records import Judgements

__all__ = ["EVERYBODY", "SURVEYS", "Division", "divide"]

EVERYBODY = "everybody"
GROUP = "group"
"""The trait of the table that holds the group."""
TRAITS = {"gss_spending": "party", "gss_abortion": "party", "bfi": "gender", "verbagg": "gender"}
SURVEYS = (*TRAITS, "wvs_immigration")
YEARS = {"gss_abortion": 2018}
HELDOUT = 1 / 3
"""Share of the questions (or countries) that no method sees."""


@dataclass(frozen=True)
class Division:
    """One random division of a survey.

    Attributes:
        survey: One of `SURVEYS`.
        number: Which division; its seed.
        texts: `I` questions, without their options.
        options: The offered answers, the same for all questions.
        heldout: `(I,)` whether a question is held out.
        blocks: `I` names of what is resampled as one: the question, or the country.
        known: By group, and `EVERYBODY`: `(I, A)` shares of the training people.
        people: The same of the held-out people.
        table: Training people's answers to all questions; None where only shares are known.
        items: `I` item ids.
    """

    survey: str
    number: int
    texts: list[str]
    options: tuple[str, ...]
    heldout: np.ndarray
    blocks: list[str]
    known: dict[str, np.ndarray]
    people: dict[str, np.ndarray]
    table: Judgements | None = None
    items: list[str] = field(default_factory=list)

    @property
    def groups(self) -> list[str]:
        """Names of the groups."""
        return [name for name in self.people if name != EVERYBODY]

    @property
    def train(self) -> Judgements:
        """Training people's answers to the questions that are not held out: all that a method may learn from."""
        assert self.table is not None, f"{self.survey} has no single people"
        held = {item for item, out in zip(self.items, self.heldout, strict=True) if out}
        return self.table.select(~self.table.frame["item_id"].isin(held).to_numpy())

    def asked(self, words: str = "") -> list[list[dict[str, str]]]:
        """The questions as policies are asked them, after words that say whose answer is wanted."""
        from plural_rlhf.policies.layouts import with_options
        from plural_rlhf.weights.wording import POPULATION, steer_prompt

        questions = [with_options(text, self.options) for text in self.texts]
        return [steer_prompt([{"role": "user", "content": text}], words or POPULATION) for text in questions]


def divide(survey: str, number: int, *, most_people: int | None = None) -> Division:
    """Hold out half of the people and a third of the questions at random; the number is the seed."""
    from reward_models.seeds import seeded_rng

    rng = seeded_rng(number, f"people and questions held out of {survey}")
    return (
        _published_shares(survey, number, rng) if survey not in TRAITS else _answers(survey, number, rng, most_people)
    )


def _draw(names: Sequence[str], rng: np.random.Generator) -> set[str]:
    order = rng.permutation(sorted(set(names))).tolist()
    return set(order[: max(2, round(len(order) * HELDOUT))])


def _published_shares(survey: str, number: int, rng: np.random.Generator) -> Division:
    import numpy as np

    from plural_rlhf.evaluation.tables.aggregated import wvs_items

    items = wvs_items(survey.removeprefix("wvs_"))
    blocks = [item.block for item in items]
    held = _draw(blocks, rng)
    shares = {EVERYBODY: np.stack([item.people for item in items])}
    return Division(
        survey,
        number,
        [item.text for item in items],
        items[0].options,
        np.array([block in held for block in blocks]),
        blocks,
        shares,
        shares,
        items=[item.name for item in items],
    )


def _answers(survey: str, number: int, rng: np.random.Generator, most_people: int | None) -> Division:
    import numpy as np

    from reward_models.judgements.texts import prompt_wording

    table = _table(survey)
    raters = rng.permutation(table.raters)[:most_people].tolist()
    training = table.frame["rater_id"].isin(set(raters[: len(raters) // 2])).to_numpy()
    testing = table.frame["rater_id"].isin(set(raters[len(raters) // 2 :])).to_numpy()
    enc = table.encode()
    items = list(enc.item_ids)
    held = _draw(items, rng)
    first = table.frame.drop_duplicates("item_id").set_index("item_id")
    return Division(
        survey,
        number,
        [prompt_wording(first.loc[item, "prompt"]) for item in items],
        tuple(first["options"].iloc[0]),
        np.array([item in held for item in items]),
        items,
        _shares(table.select(training), items),
        _shares(table.select(testing), items),
        table.select(training),
        items,
    )


@functools.cache
def _table(survey: str) -> Judgements:
    """The answers of people whose group is known, with it as the only trait."""
    from reward_models.errors import JudgementWarning
    from reward_models.judgements.records import Judgements
    from reward_models.sources.survey import load_survey

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", JudgementWarning)
        frame = load_survey(survey, year=YEARS.get(survey)).frame.copy()
        values = frame[f"rater:{TRAITS[survey]}"]
        frame = frame.drop(columns=[column for column in frame if column.startswith("rater:")])
        frame[f"rater:{GROUP}"] = values.map(joined_party if TRAITS[survey] == "party" else _named)
        known = frame[f"rater:{GROUP}"].notna() if TRAITS[survey] == "party" else slice(None)
        return Judgements.from_frame(frame[known].reset_index(drop=True), kind="choice")


def joined_party(party: Any) -> str | None:
    """Of the eight answers on party the three camps; who only leans counts as a party's, others as independent."""
    if not isinstance(party, str):
        return None
    return next((f"{name}s" for name in ("Democrat", "Republican") if name in party), "Independents")


def _named(value: Any) -> str | None:
    return str(value) if isinstance(value, str) else None


def _shares(table: Judgements, items: list[str]) -> dict[str, np.ndarray]:
    import numpy as np

    from reward_models.stats.answers import normalise

    column = {item: position for position, item in enumerate(items)}
    row = table.frame["item_id"].map(column).to_numpy()
    answer = table.frame["choice"].to_numpy(dtype=int)
    size = max(len(options) for options in table.frame["options"])
    group = table.frame[f"rater:{GROUP}"].to_numpy(dtype=object)
    shares = {}
    for name in (EVERYBODY, *sorted({value for value in group if isinstance(value, str)})):
        counts = np.zeros((len(items), size))
        of = np.ones(len(row), dtype=bool) if name == EVERYBODY else group == name
        np.add.at(counts, (row[of], answer[of]), 1)
        shares[name] = normalise(counts)
    return shares
