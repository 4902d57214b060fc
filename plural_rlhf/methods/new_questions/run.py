"""New questions from a table to a folder: shares.csv, results.json and the page. Knows no command line."""

from __future__ import annotations

import csv
import datetime
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from plural_rlhf.methods.new_questions.new import NewQuestion
from plural_rlhf.methods.new_questions.page import write_questions_report
from plural_rlhf.methods.new_questions.predict import EVERYBODY, MOST_FOLDS, GroupPrediction, predict_questions
from plural_rlhf.methods.new_questions.results import KnownRecord, PredictedRecord, QuestionResults, SkillRecord
from plural_rlhf.report.results import Meta
from reward_models.judgements.records import Judgements
from reward_models.stats.answers import js_divergence, total_variation
from reward_models.stats.few_units import crossed_interval
from reward_models.whole_file import whole_file


__all__ = ["run_questions"]

NEAREST = 3
"""Known questions that are named beside each new one."""
COLUMNS = ("item_id", "question", "group", "option", "share", "low", "high", "marginal", "against_marginal")


def run_questions(
    judgements: Judgements,
    new: Sequence[NewQuestion],
    folder: str | Path,
    embed: Callable[[Sequence[str]], Any],
    groups: Mapping[str, Collection[str]] | None = None,
    *,
    name: str = "questions",
    config: Mapping[str, Any] | None = None,
    notes: Sequence[str] = (),
    seed: int = 0,
    command: str = "",
) -> QuestionResults:
    """Predict new questions, and write the folder.

    Args:
        judgements: A `choice` table, ratings, or published shares (`soft`).
        new: The new questions.
        folder: Where results go; made if it does not exist.
        embed: Maps texts to vectors.
        groups: Ids of the raters of each group that is predicted beside everybody.
        name: What the page is called.
        config: Settings, for the record.
        notes: What a reader must know of the table.
        seed: Random seed.
        command: Command line, for the record.

    Returns:
        The results, as `results.json` holds them.

    Raises:
        JudgementError: As `predict_questions`.

    Example:
        >>> import tempfile
        >>> from reward_models import planted_judgements
        >>> judgements = planted_judgements("choice", num_raters=40, num_items=9).judgements
        >>> by_length = lambda texts: [[float(len(text))] for text in texts]
        >>> with tempfile.TemporaryDirectory() as out:
        ...     results = run_questions(judgements, [NewQuestion("q10", "Question 10?")], out, by_length)
        ...     print((Path(out) / "shares.csv").read_text().splitlines()[0])
        item_id,question,group,option,share,low,high,marginal,against_marginal
        >>> results.skill[0].questions, round(sum(results.predicted[0].shares), 6)
        (9, 1.0)
    """
    started, begun = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"), time.perf_counter()
    predictions = [p for of_scale in predict_questions(judgements, new, embed, groups, seed=seed) for p in of_scale]
    results = QuestionResults(
        name=name,
        config=dict(config or {}),
        skill=[_skill(prediction) for prediction in predictions],
        predicted=_in_order(new, [record for prediction in predictions for record in _predicted(prediction)]),
        known=[record for prediction in predictions for record in _known(prediction)],
        notes=[*notes, *_asked_already(new, predictions), *_unlike(new, predictions)],
        meta=Meta.of_this_process(seed, command, started, {"predict": round(time.perf_counter() - begun, 2)}),
    )
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with whole_file(folder / "shares.csv") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        writer.writerows(_csv_rows(results))
    results.write(folder / "results.json")
    write_questions_report(results, folder)
    return results


def _skill(prediction: GroupPrediction) -> SkillRecord:
    known, blocks = prediction.known, prediction.known.blocks
    divergences = {way: js_divergence(known.shares, shares) for way, shares in prediction.crossed.items()}
    points = {way: total_variation(known.shares, shares) for way, shares in prediction.crossed.items()}
    gain = divergences["wording"] - divergences["marginal"]
    low, high = crossed_interval(np.bincount(blocks, gain) / np.bincount(blocks), MOST_FOLDS)
    return SkillRecord(
        group=prediction.group,
        options=list(known.options),
        questions=int(blocks.max()) + 1,
        **{way: float(values.mean()) for way, values in divergences.items()},
        difference=float(gain.mean()),
        ci_low=low,
        ci_high=high,
        points=float(np.median(points["wording"])),
        points_marginal=float(np.median(points["marginal"])),
        reliance=prediction.reliance,
    )


def _predicted(prediction: GroupPrediction) -> Iterator[PredictedRecord]:
    for question, shares, weights in zip(prediction.new, prediction.shares, prediction.weights, strict=True):
        yield PredictedRecord(
            id=question.id,
            text=question.text,
            group=prediction.group,
            options=list(prediction.known.options),
            shares=shares.tolist(),
            low=np.clip(shares - prediction.half_width, 0, 1).tolist(),
            high=np.clip(shares + prediction.half_width, 0, 1).tolist(),
            marginal=prediction.marginal.tolist(),
            nearest={prediction.known.ids[q]: float(weights[q]) for q in np.argsort(-weights)[:NEAREST]},
        )


def _known(prediction: GroupPrediction) -> Iterator[KnownRecord]:
    known = prediction.known
    for row, name in enumerate(known.ids):
        yield KnownRecord(
            id=name,
            text=known.texts[row],
            group=prediction.group,
            options=list(known.options),
            people=float(known.people[row]),
            shares=known.shares[row].tolist(),
            predicted=prediction.crossed["wording"][row].tolist(),
        )


def _in_order(new: Sequence[NewQuestion], records: Sequence[PredictedRecord]) -> list[PredictedRecord]:
    """Return the predictions in the order of the questions, the groups of each together."""
    place = {question.id: number for number, question in enumerate(new)}
    return sorted(records, key=lambda record: place[record.id])


def _asked_already(new: Sequence[NewQuestion], predictions: Sequence[GroupPrediction]) -> list[str]:
    known = {text.casefold() for prediction in predictions for text in prediction.known.texts}
    asked = [question.id for question in new if question.text.casefold() in known]
    twice = [text for text, count in Counter(question.text.casefold() for question in new).items() if count > 1]
    notes = []
    if asked:
        notes.append(
            f"{len(asked)} of the {len(new)} new questions are known ones, word for word ({asked[0]}): read what "
            "people answered instead."
        )
    if twice:
        notes.append(f"{len(twice)} wordings occur more than once among the new questions ({twice[0]}).")
    return notes


def _unlike(new: Sequence[NewQuestion], predictions: Sequence[GroupPrediction]) -> list[str]:
    unlike = {name for prediction in predictions for name in prediction.unlike if prediction.group == EVERYBODY}
    named = [question.text for question in new if question.id in unlike]
    if not named:
        return []
    are = "is" if len(named) == 1 else "are"
    return [
        f"{len(named)} of the {len(new)} new questions {are} less like any known question than each of these is like "
        f"another ({named[0]}): what known questions show says little of them."
    ]


def _csv_rows(results: QuestionResults) -> Iterator[list[object]]:
    verdicts = {(skill.group, tuple(skill.options)): skill.verdict for skill in results.skill}
    for record in results.predicted:
        verdict = verdicts[record.group, tuple(record.options)]
        for place, option in enumerate(record.options):
            ends = [record.low[place], record.high[place]]
            yield [
                record.id,
                record.text,
                record.group,
                option,
                f"{record.shares[place]:.4f}",
                *("" if np.isnan(end) else f"{end:.4f}" for end in ends),
                f"{record.marginal[place]:.4f}",
                verdict,
            ]
