"""Value profiles of a table from its judgements to a folder: results.json, profiles.jsonl, the page.

Where a model writes profiles, what it answered is kept in `answers/`, so that the same call goes on where it stopped.
Knows no command line.
"""

from __future__ import annotations

import datetime
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np

from plural_rlhf.methods.value_profiles.candidates import CandidateProfiles
from plural_rlhf.methods.value_profiles.encoders import (
    AnswerEncoder,
    Embed,
    RaterEncoder,
    TextEncoder,
    judgement_lines,
)
from plural_rlhf.methods.value_profiles.information import CANDIDATES, SIZES, usable_information
from plural_rlhf.methods.value_profiles.observer import ModelReader, Reader, TableReader, observer_test
from plural_rlhf.methods.value_profiles.page import write_profile_report
from plural_rlhf.methods.value_profiles.results import ClusterRecord, InformationRecord, ObserverRecord, ProfileResults
from plural_rlhf.methods.value_profiles.splits import RaterSplit, split_raters
from plural_rlhf.methods.value_profiles.words import describe_groups
from plural_rlhf.methods.value_profiles.writer import ProfileWriter
from plural_rlhf.report.results import Meta
from plural_rlhf.suites.engine.answers import AnswerStore
from plural_rlhf.suites.models.protocol import EvaluatedModel
from reward_models.analysis.answer_cells import answer_cells
from reward_models.errors import JuryError, settings_or_default
from reward_models.judgements.encoding import Encoded
from reward_models.judgements.records import Judgements
from reward_models.whole_file import write_json_lines


__all__ = ["ProfileSettings", "run_profiles"]


ENOUGH = 0.95
"""Share of the most information of any number of clusters that a smaller number must have to be put into words."""


@dataclass(frozen=True)
class ProfileSettings:
    """How profiles are made and measured.

    Attributes:
        name: What the page is called.
        encoder: `table`, `embedding`, or the name of the model that writes profiles, for the record.
        sizes: Numbers of clusters of the curve.
        splits: Random halvings of the raters; a model writes the profiles of each anew.
        clusters: Number of clusters that are put into words; None: the smallest that has 95 % of the
            information of the best.
        candidates: Candidate profiles of Algorithm 2.
        tries: Most tries per profile that a model writes.
        seed: Random seed.

    Example:
        >>> ProfileSettings(sizes=(2, 4)).splits
        5
    """

    name: str = "profiles"
    encoder: str = "table"
    sizes: Sequence[int] = SIZES
    splits: int = 5
    clusters: int | None = None
    candidates: int = CANDIDATES
    tries: int = 3
    seed: int = 0


@dataclass
class _Encoding:
    """The encoder of a run, and the model behind it if there is one."""

    encoder: RaterEncoder
    writer: ProfileWriter | None = None
    texts: dict[bytes, list[str]] = field(default_factory=dict)


def run_profiles(
    judgements: Judgements,
    folder: str | Path,
    settings: ProfileSettings | None = None,
    *,
    model: EvaluatedModel | None = None,
    embed: Embed | None = None,
    command: str = "",
) -> ProfileResults:
    """Measure value profiles, put clusters into words, let a reader tell them apart, and write the folder.

    Args:
        judgements: A table with raters.
        folder: Where results go; made if it does not exist.
        settings: How; None for the defaults.
        model: Writes the profiles, and reads the words in the observer test beside the table; None: no model.
        embed: Maps texts to vectors. With a model: of the profiles. Without: of the judgements in words. None: the
            answers as numbers.
        command: Command line, for the record.

    Returns:
        The results, as `results.json` holds them.

    Raises:
        JuryError: A model without `embed`, or a table that cannot be split; see `usable_information`.

    Example:
        >>> import tempfile
        >>> from reward_models import planted_judgements
        >>> judgements = planted_judgements("choice", num_raters=80, num_items=12).judgements
        >>> with tempfile.TemporaryDirectory() as out:
        ...     results = run_profiles(judgements, out, ProfileSettings(sizes=(2, 4), splits=1))
        ...     sorted(path.name for path in Path(out).iterdir())
        ['figures', 'profiles.jsonl', 'report.html', 'report.md', 'results.json']
        >>> results.observer[0].reader, results.observer[0].accuracy > 0.7
        ('table', True)
    """
    settings, folder = settings_or_default(settings, ProfileSettings), Path(folder)
    if model is not None and embed is None:
        raise JuryError(
            f"the model {model.name} writes profiles in words, and nothing turns them into vectors. Fix: give embed=, "
            "e.g. plural_rlhf.evaluation.open_ended.embedder.text_embedder"
        )
    started, begun = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"), time.perf_counter()
    enc = judgements.encode()
    split = split_raters(answer_cells(enc), seed=settings.seed, largest=max(settings.sizes, default=1))
    encoding = _encoding(judgements, folder, settings, model, embed)
    report = usable_information(
        judgements,
        enc=enc,
        encoder=encoding.encoder,
        sizes=settings.sizes,
        splits=settings.splits,
        candidates=settings.candidates,
        seed=settings.seed,
    )
    enough = ENOUGH * max(row.info for row in report.curve)
    size = settings.clusters or next(row.groups for row in report.curve if row.info >= enough)
    measured = time.perf_counter()
    clusters, observer, of_raters = _in_words(enc, split, encoding, settings, size, model)
    rows = [_without({"ci_low": row.low, "ci_high": row.high, **asdict(row)}, "low", "high") for row in report.rows]
    results = ProfileResults(
        schema_version=1,
        name=settings.name,
        config={**asdict(settings), "sizes": list(settings.sizes)},
        encoder=report.encoder,
        baseline_nll=report.baseline_nll,
        raters=report.raters,
        left_out=report.left_out,
        items=judgements.n_items,
        splits=report.splits,
        information=[InformationRecord.model_validate(row) for row in rows],
        clusters=clusters,
        observer=observer,
        malformed=encoding.writer.malformed if encoding.writer else 0,
        without_profile=encoding.writer.without if encoding.writer else 0,
        usage=model.usage_record() if model is not None else {},
        meta=Meta.of_this_process(
            settings.seed,
            command,
            started,
            {"information": round(measured - begun, 2), "words": round(time.perf_counter() - measured, 2)},
        ),
    )
    folder.mkdir(parents=True, exist_ok=True)
    write_json_lines(folder / "profiles.jsonl", of_raters)
    results.write(folder / "results.json")
    write_profile_report(results, folder)
    return results


def _without(record: dict[str, object], *names: str) -> dict[str, object]:
    return {
        key: list(value) if isinstance(value, tuple) else value for key, value in record.items() if key not in names
    }


def _encoding(
    judgements: Judgements, folder: Path, settings: ProfileSettings, model: EvaluatedModel | None, embed: Embed | None
) -> _Encoding:
    if embed is None:
        return _Encoding(AnswerEncoder())
    if model is None:
        return _Encoding(TextEncoder(settings.encoder, lambda fit: judgement_lines(judgements, fit), embed))
    store = AnswerStore(folder / "answers" / "profiles.jsonl")
    writer = ProfileWriter(model, store, tries=settings.tries, seed=settings.seed)
    texts: dict[bytes, list[str]] = {}

    def profiles(fit: np.ndarray) -> list[str]:
        key = np.packbits(fit).tobytes()
        if key not in texts:
            texts[key] = writer.write(judgement_lines(judgements, fit))
        return texts[key]

    return _Encoding(TextEncoder(model.name, profiles, embed), writer, texts)


def _in_words(
    enc: Encoded,
    split: RaterSplit,
    encoding: _Encoding,
    settings: ProfileSettings,
    size: int,
    model: EvaluatedModel | None,
) -> tuple[list[ClusterRecord], list[ObserverRecord], list[dict[str, object]]]:
    """Cluster the first split, describe its clusters, and let readers tell them apart; one record per rater."""
    cells = answer_cells(enc)
    profiles = CandidateProfiles.of(cells, split, encoding.encoder, settings.candidates, settings.seed)
    found = profiles.clusters(size)
    group = found.assign(profiles.losses)
    takes_part = np.isin(np.arange(enc.n_raters), cells.rater[split.fit])
    in_training = np.isin(np.arange(enc.n_raters), profiles.train_raters)
    of_train = np.where(in_training, group, -1)
    written = _texts_of(encoding, split, enc.n_raters)
    records = [
        ClusterRecord.model_validate(
            {
                "name": words.name,
                "prevalence": words.prevalence,
                "text": words.text,
                "claims": [_without(asdict(claim), "cell") for claim in words.claims],
                "written": written[profiles.raters[medoid]],
            }
        )
        for words, medoid in zip(describe_groups(enc, np.where(takes_part, group, -1)), found.medoids, strict=False)
    ]
    readers: list[Reader] = [TableReader.of(enc, in_training, seed=settings.seed)]
    readers += [ModelReader(model)] if model is not None else []
    observer = []
    if len(found.medoids) > 1:
        heldout = np.where(takes_part & ~in_training, group, -1)
        for reader in readers:
            one = observer_test(enc, of_train, heldout, reader, keep=~split.fit, seed=settings.seed)
            record = asdict(one)
            observer.append(ObserverRecord(ci_low=record.pop("low"), ci_high=record.pop("high"), **record))
    of_raters: list[dict[str, object]] = [
        {
            "rater_id": enc.rater_ids[u],
            "cluster": records[group[u]].name if group[u] < len(records) else "",
            "training": bool(in_training[u]),
            "profile": written[u],
        }
        for u in np.flatnonzero(takes_part)
    ]
    return records, observer, of_raters


def _texts_of(encoding: _Encoding, split: RaterSplit, n_raters: int) -> list[str]:
    """Return what a model wrote of each rater; empty texts without a model."""
    return encoding.texts.get(np.packbits(split.fit).tobytes(), [""] * n_raters)
