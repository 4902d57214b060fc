"""What `JuryRewardTrainer` stores beside TRL's files: memberships, terms and how texts are read.

Files are written atomically. A checkpoint identifies its data by a hash of the judgements and holds no names of
raters. Knows nothing of models and optimizers: those are in TRL's files.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from safetensors import safe_open
from transformers.trainer import TRAINER_STATE_NAME

from reward_models.errors import JuryError
from reward_models.fitting.running_memberships import RunningMemberships
from reward_models.judgements.encoding import Encoded
from reward_models.judgements.text_kind import TextKind
from reward_models.jury.reading import ReadingSettings
from reward_models.jury.state import JuryState, StoredRaters, counts
from reward_models.raters.observation import public_terms
from reward_models.raters.rater_model import KindTerms, RaterModel
from reward_models.trainer.terms import JudgementTerms
from reward_models.trainer.whole_checkpoints import (
    FILES,
    Resume,
    checkpoint_fault,
    checkpoint_files,
    resumed_checkpoint,
)
from reward_models.whole_file import write_arrays, write_json


__all__ = [
    "STATE_FILE",
    "end_checkpoint",
    "finished_state",
    "folder_to_resume",
    "get_state",
    "is_of",
    "read_reading",
    "read_state",
    "set_state",
    "write_state",
]

STATE_FILE = "jury_state.safetensors"
_LAST_FILE = "checkpoint_files.json"


def get_state(memberships: RunningMemberships, terms: JudgementTerms) -> dict[str, np.ndarray]:
    """Return memberships and terms as arrays by name.

    Example:
        >>> from reward_models import planted_judgements
        >>> memberships = RunningMemberships(planted_judgements(num_raters=4).judgements.encode(), 2, dirichlet=1.5)
        >>> get_state(memberships, JudgementTerms({}, 0.0))["prevalence"].tolist()
        [0.5, 0.5]
    """
    return memberships.state() | {f"terms.{name}": value for name, value in terms.state().items()}


def set_state(memberships: RunningMemberships, terms: JudgementTerms, state: dict[str, np.ndarray]) -> None:
    """Restore the result of `get_state`; memberships and terms are changed in place.

    Example:
        >>> from reward_models import planted_judgements
        >>> memberships = RunningMemberships(planted_judgements(num_raters=4).judgements.encode(), 2, dirichlet=1.5)
        >>> terms = JudgementTerms({}, 0.0)
        >>> set_state(memberships, terms, get_state(memberships, terms) | {"prevalence": np.array([0.7, 0.3])})
        >>> memberships.prevalence.tolist()
        [0.7, 0.3]
    """
    memberships.load_state(state)
    terms.load_state({name.removeprefix("terms."): v for name, v in state.items() if name.startswith("terms.")})


def finished_state(
    memberships: RunningMemberships,
    terms: JudgementTerms,
    enc: Encoded,
    descriptions: Mapping[str, str],
    rewards: np.ndarray | None = None,
) -> JuryState:
    """Return the state of the finished jury: what it needs to adapt to new raters, and counts of the data.

    Args:
        memberships: Memberships at the end of training.
        terms: Terms at the end of training.
        enc: The training judgements.
        descriptions: What sets each cluster apart, by its name.
        rewards: (U, K) rewards of `enc.texts`, to store the posteriors of the training raters; None stores none.

    Example:
        >>> from reward_models import planted_judgements
        >>> enc = planted_judgements(num_raters=4).judgements.encode()
        >>> state = finished_state(RunningMemberships(enc, 2, dirichlet=1.5), JudgementTerms({}, 0.0), enc, {})
        >>> state.rater_model.membership, state.fitted_on["raters"]
        ('mixture', 4)
    """
    shared = public_terms(terms.shared)
    kind = "choice" if enc.kind == "soft" else enc.kind
    spread = {name: terms.spread[name].item() for name in terms.of_raters}
    prevalence = memberships.prevalence
    model = RaterModel("mixture", np.eye(len(prevalence)), np.log(prevalence), {kind: KindTerms(shared, spread)})
    raters = None if rewards is None else StoredRaters.of(model.adapt(enc, rewards))
    return JuryState(
        rater_model=model,
        descriptions=dict(descriptions),
        fitted_on=counts(enc),
        raters=raters,
        text_kind=TextKind.of(enc.texts),
    )


def write_state(
    folder: Path, memberships: RunningMemberships, terms: JudgementTerms, reading: ReadingSettings
) -> None:
    """Write the state into the folder of a checkpoint, which is made if it does not exist; see `read_state`."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / _LAST_FILE).unlink(missing_ok=True)  # of a run that got so far before
    marks = {"fingerprint": memberships.fingerprint, "reading": json.dumps(reading.to_dict())}
    write_arrays(folder / STATE_FILE, get_state(memberships, terms), marks)


def end_checkpoint(folder: Path) -> None:
    """Write the list of the files of a checkpoint, the last of its files."""
    write_json(folder / _LAST_FILE, {FILES: checkpoint_files(folder, _LAST_FILE)}, indent=None)


def folder_to_resume(resume: Resume, output_dir: str | None) -> str | None:
    """Return the checkpoint of `JuryRewardTrainer` that training resumes from; None where it starts afresh.

    Args:
        resume: What `train` was given. A folder without a state is returned as it is, for `read_state` to refuse.
        output_dir: Where the last whole checkpoint is sought if `resume` is True; later ones are left out with a
            warning.

    Raises:
        ValueError: The checkpoint that was named, or every one there is, is not whole.
    """
    if resume and resume is not True and not (Path(resume) / STATE_FILE).is_file():
        return str(resume)
    folder = resumed_checkpoint(resume, output_dir, _fault)
    return None if folder is None else str(folder)


def _fault(folder: Path) -> str | None:
    if not (folder / STATE_FILE).is_file():
        return f"it has no {STATE_FILE}: it was cut short, or another trainer wrote it"
    if (folder / _LAST_FILE).exists():
        return checkpoint_fault(folder, _LAST_FILE)
    # Older versions wrote no list of files: there the file that `Trainer` writes last must be readable.
    return checkpoint_fault(folder, TRAINER_STATE_NAME)


def read_reading(folder: str) -> ReadingSettings | None:
    """Return how the training of a checkpoint reads texts; None where the checkpoint does not say."""
    with safe_open(os.path.join(folder, STATE_FILE), "numpy") as file:
        reading = (file.metadata() or {}).get("reading")
    return None if reading is None else ReadingSettings.from_dict(json.loads(reading))


def is_of(folder: str, memberships: RunningMemberships) -> bool:
    """Return whether a checkpoint has a state, and is of the judgements of these memberships in this order."""
    path = os.path.join(folder, STATE_FILE)
    if not os.path.exists(path):
        return False
    with safe_open(path, "numpy") as file:
        return bool((file.metadata() or {}).get("fingerprint") == memberships.fingerprint)


def read_state(folder: str, memberships: RunningMemberships, terms: JudgementTerms) -> None:
    """Restore memberships and terms from a checkpoint.

    Args:
        folder: The checkpoint.
        memberships: Memberships of this training; changed in place.
        terms: Terms of this training; changed in place.

    Raises:
        JuryError: The folder has no state, or the state of another number of clusters or of other judgements.

    Example:
        >>> import tempfile
        >>> from reward_models import planted_judgements
        >>> memberships = RunningMemberships(planted_judgements(num_raters=4).judgements.encode(), 2, dirichlet=1.5)
        >>> terms = JudgementTerms({}, 0.0)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_state(Path(folder), memberships, terms, ReadingSettings())
        ...     memberships.prevalence = np.array([0.9, 0.1])
        ...     read_state(folder, memberships, terms)
        >>> memberships.prevalence.tolist()
        [0.5, 0.5]
    """
    path = os.path.join(folder, STATE_FILE)
    if not os.path.exists(path):
        raise JuryError(
            f"the checkpoint {folder!r} has no {STATE_FILE}, so it is unknown which raters its clusters contain. "
            "Resume from a checkpoint of JuryRewardTrainer, or pass its model to a new training with "
            "memberships_from='model'."
        )
    with safe_open(path, "numpy") as file:
        state, marks = {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
    n_clusters, n_raters, n_rows = len(state["prevalence"]), len(state["totals"]), len(state["log_lik"])
    if n_clusters != len(memberships.prevalence):
        raise JuryError(
            f"the checkpoint {folder!r} has {n_clusters} clusters and this training {len(memberships.prevalence)}. "
            f"Set num_clusters={n_clusters}, or start a new training in another output_dir."
        )
    if marks.get("fingerprint") != memberships.fingerprint:
        raise JuryError(
            f"the checkpoint {folder!r} belongs to other judgements ({n_rows} by {n_raters} raters; here "
            f"{len(memberships.log_lik)} by {len(memberships.totals)}), so its memberships would be assigned to the "
            "wrong raters. Resume with the data it was trained on, or start a new training in another output_dir."
        )
    set_state(memberships, terms, state)
