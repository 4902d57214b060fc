"""What a jury's folder holds beside the files of transformers, and how the whole is written and checked.

`jury.json` says what the heads mean (names, descriptions), how raters vary around them (`RaterModel`, with the priors
of the rater terms), how the heads are calibrated, what they were fitted on (counts only), and the size and SHA-256 of
every file that belongs to the jury. `raters.safetensors`, on request, holds the posteriors of the training raters.
Nothing is pickled.

A save is prepared in a folder beside the files and then moved into place, the weights last. Nothing loads a folder
without weights, so a save that was killed leaves a folder that no one takes for a jury. Folders without `jury.json`,
as `JuryRewardModel.save_pretrained` and earlier versions write them, load as juries without a state. Knows nothing of
scoring.
"""

from __future__ import annotations

import hashlib
import json
import secrets
import shutil
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file
from transformers import PreTrainedTokenizerBase
from transformers.utils import cached_file

from reward_models.errors import JuryError, did_you_mean
from reward_models.judgements.encoding import Encoded
from reward_models.jury.calibration import Calibration
from reward_models.raters.placement import Placement
from reward_models.raters.rater_model import RaterModel
from reward_models.whole_file import move_into_place, write_json


if TYPE_CHECKING:
    from reward_models.jury.modeling_jury import JuryConfig, JuryRewardModel

__all__ = ["FORMAT_VERSION", "JuryState", "StoredRaters", "counts", "load_rater_model", "load_state", "save_jury"]

FORMAT_VERSION = 1
STATE_FILE = "jury.json"
RATERS_FILE = "raters.safetensors"
WEIGHTS = ("model.safetensors", "model.safetensors.index.json")  # without either there is nothing to load
UNFINISHED = ".unfinished-"
SAVE_AGAIN = "save the jury again with JuryScorer.save_pretrained"


@dataclass(frozen=True)
class StoredRaters:
    """Posteriors of raters under pseudonyms.

    A pseudonym is the SHA-256 of a random salt and the rater's id. It keeps ids out of the folder, but whoever has the
    folder has the salt too and can try ids that can be guessed: do not publish it where ids are names.

    Attributes:
        salt: Hexadecimal.
        pseudonyms: `R` hexadecimal digests.
        posterior: (R, S) float32 over the states of the jury's rater model.
    """

    salt: str
    pseudonyms: list[str]
    posterior: np.ndarray

    @classmethod
    def of(cls, placement: Placement) -> StoredRaters:
        """Take the posteriors of a placement, under pseudonyms with a new salt."""
        salt = secrets.token_hex(16)
        pseudonyms = [_pseudonym(rater, salt) for rater in placement.rater_ids]
        return cls(salt, pseudonyms, placement.posterior.astype(np.float32, order="C"))

    def placement(self, rater_ids: Sequence[str], model: RaterModel) -> Placement:
        """Look raters up by their ids; one who is not stored is a draw from the prior."""
        number = {pseudonym: i for i, pseudonym in enumerate(self.pseudonyms)}
        rows = np.array([number.get(_pseudonym(rater, self.salt), -1) for rater in rater_ids], dtype=np.int64)
        posterior = np.concatenate([self.posterior.astype(np.float64), np.exp(model.log_prior)[None]])[rows]
        posterior /= posterior.sum(axis=1, keepdims=True)
        return Placement(model, list(rater_ids), posterior)


@dataclass(frozen=True)
class JuryState:
    """What is known of a jury besides its weights. Every part may be missing.

    Attributes:
        rater_model: How raters vary around the heads; needed to place raters and to choose questions.
        calibration: The heads' common scale against a reference policy; see `calibration.calibrate`.
        temperature: (K,) temperature of each head; see `calibration.fit_temperature`.
        descriptions: What sets a cluster apart, by cluster name.
        fitted_on: What the jury was fitted on, as numbers by name; see `counts`.
        raters: Posteriors of the training raters; written only when a save asks for them.
    """

    rater_model: RaterModel | None = None
    calibration: Calibration | None = None
    temperature: np.ndarray | None = None
    descriptions: dict[str, str] = field(default_factory=dict)
    fitted_on: dict[str, int] = field(default_factory=dict)
    raters: StoredRaters | None = None

    def check(self, config: JuryConfig) -> None:
        """Check that this is the state of a jury with these heads.

        Raises:
            JuryError: A part has another number of heads than the jury, or describes clusters that it does not have.
        """
        sizes = {
            "rater_model": None if self.rater_model is None else self.rater_model.n_basis,
            "calibration": None if self.calibration is None else len(self.calibration.scale),
            "temperature": None if self.temperature is None else len(self.temperature),
        }
        for name, size in sizes.items():
            if size is not None and size != config.num_clusters:
                raise JuryError(
                    f"the {name} is that of a jury with {size} heads, but this one has {config.num_clusters}. Pass "
                    "weights and state of one fit."
                )
        unknown = [name for name in self.descriptions if name not in config.cluster_names]
        if unknown:
            raise JuryError(
                f"descriptions name {unknown[0]!r}, which is no cluster of the jury."
                f"{did_you_mean(unknown[0], config.cluster_names)} Its clusters are {config.cluster_names}."
            )
        if self.raters is not None and self.rater_model is None:
            raise JuryError("raters without a rater_model: it says what their posteriors are about. Pass it too.")


def counts(*tables: Encoded) -> dict[str, int]:
    """Numbers that say what a jury was fitted on and nothing about anyone, for `JuryState.fitted_on`."""
    return {
        "judgements": sum(len(enc) for enc in tables),
        "raters": len({rater for enc in tables for rater in enc.rater_ids}),
        "items": sum(enc.n_items for enc in tables),
        "texts": len({text for enc in tables for text in enc.texts}),
    }


def save_jury(
    model: JuryRewardModel,
    tokenizer: PreTrainedTokenizerBase,
    state: JuryState,
    folder: str | Path,
    *,
    save_raters: bool = False,
) -> None:
    """Write a jury, in full or so that nothing loads it.

    Args:
        model: The jury.
        tokenizer: The backbone's tokenizer.
        state: What belongs to it.
        folder: Made if need be. A jury that is there is replaced; files that are not a jury's stay.
        save_raters: Write the posteriors of `state.raters` too.

    Raises:
        JuryError: State and model are not of one jury, or raters are asked for and there are none.
    """
    state.check(model.config)
    if save_raters and state.raters is None:
        raise JuryError(
            "save_raters=True, but the jury's state holds no raters. Fix: "
            "JuryState(..., raters=StoredRaters.of(fit.placement))."
        )
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    for left_over in target.glob(f"{UNFINISHED}*"):
        shutil.rmtree(left_over)
    unfinished = Path(tempfile.mkdtemp(prefix=UNFINISHED, dir=target))
    try:
        model.save_pretrained(unfinished)
        tokenizer.save_pretrained(unfinished)
        if save_raters and state.raters is not None:
            digests = np.array([list(bytes.fromhex(p)) for p in state.raters.pseudonyms], dtype=np.uint8)
            save_file(
                {"pseudonyms": digests.reshape(-1, 32), "posterior": state.raters.posterior},
                unfinished / RATERS_FILE,
            )
        files = {path.relative_to(unfinished).as_posix(): path for path in unfinished.rglob("*") if path.is_file()}
        values = _to_json(model.config, state, files, save_raters)
        write_json(unfinished / STATE_FILE, values, exact=True)
        _replace_files(unfinished, target, [*files, STATE_FILE])
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _to_json(config: JuryConfig, state: JuryState, files: Mapping[str, Path], save_raters: bool) -> dict[str, Any]:
    return {
        "format_version": FORMAT_VERSION,
        "num_clusters": config.num_clusters,
        "hidden_size": config.get_text_config().hidden_size,
        "clusters": [{"name": name, "description": state.descriptions.get(name, "")} for name in config.cluster_names],
        "fitted_on": dict(state.fitted_on),
        "calibration": None if state.calibration is None else state.calibration.to_dict(),
        "temperature": None if state.temperature is None else np.asarray(state.temperature).tolist(),
        "raters_salt": state.raters.salt if save_raters and state.raters is not None else None,
        "rater_model": None if state.rater_model is None else state.rater_model.to_dict(),
        "files": {
            name: {"size": path.stat().st_size, "sha256": _sha256(path)} for name, path in sorted(files.items())
        },
    }


def _replace_files(unfinished: Path, target: Path, names: Iterable[str]) -> None:
    """Move files over those of an earlier jury, of which nothing remains; last what tells transformers of weights."""
    for name in WEIGHTS:
        (target / name).unlink(missing_ok=True)
    # Of an earlier jury with more shards, or with raters, which this one may have been asked not to keep.
    stale = {path.name for path in target.glob("model*.safetensors*")} | set(_files_of(target))
    for name in stale - set(names):
        (target / name).unlink(missing_ok=True)
    for name in sorted(names, key=lambda name: name in WEIGHTS):
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        move_into_place(unfinished / name, target / name)


def _files_of(folder: Path) -> list[str]:
    """The files of the jury in a folder, as far as it says; only those inside the folder."""
    try:
        names = json.loads((folder / STATE_FILE).read_text(encoding="utf-8"))["files"]
    except (OSError, ValueError, KeyError, TypeError):
        return []
    return [name for name in names if (folder / name).resolve().is_relative_to(folder.resolve())]


def load_state(folder: str | Path, config: JuryConfig, *, verify: bool = True) -> JuryState:
    """Read a jury's state, and check that the folder is what was saved.

    Args:
        folder: Of a jury, or a model id of the Hub.
        config: The configuration that was read from the folder.
        verify: Compare the SHA-256 of every file (about a second per gigabyte); sizes are always compared.

    Returns:
        The state; an empty one where there is no `jury.json`.

    Raises:
        JuryError: A file is missing or altered, the state is of another version of the format, cannot be read, or
            belongs to other heads or another backbone; with what to do.
    """
    values = _read(folder)
    if values is None:
        return JuryState()
    hidden_size = config.get_text_config().hidden_size
    if (values["num_clusters"], values["hidden_size"]) != (config.num_clusters, hidden_size):
        raise JuryError(
            f"{STATE_FILE} in {str(folder)!r} belongs to {values['num_clusters']} heads on {values['hidden_size']} "
            f"features, but config.json describes {config.num_clusters} heads on {hidden_size}. They are of different "
            f"juries: {SAVE_AGAIN}, from one fit."
        )
    _verify(folder, values["files"], verify)
    raters = None if values["raters_salt"] is None else _read_raters(folder, values["raters_salt"])
    try:
        temperature = values["temperature"]
        state = JuryState(
            rater_model=_rater_model(values),
            calibration=None if values["calibration"] is None else Calibration.from_dict(values["calibration"]),
            temperature=None if temperature is None else np.asarray(temperature, dtype=np.float64),
            descriptions={c["name"]: c["description"] for c in values["clusters"] if c["description"]},
            fitted_on=values["fitted_on"],
            raters=raters,
        )
    except (KeyError, TypeError, ValueError) as error:
        raise _unreadable(folder, error) from error
    state.check(config)
    return state


def load_rater_model(folder: str | Path) -> RaterModel | None:
    """Read how raters vary around a saved jury; None where the folder does not say.

    Raises:
        JuryError: There is no jury, or its state is of another version of the format or cannot be read.
    """
    if _find(folder, "config.json") is None:
        raise JuryError(f"no jury at {str(folder)!r}: it has no config.json. Correct the path.")
    values = _read(folder)
    try:
        return None if values is None else _rater_model(values)
    except (KeyError, TypeError, ValueError) as error:
        raise _unreadable(folder, error) from error


def _rater_model(values: Mapping[str, Any]) -> RaterModel | None:
    return None if values["rater_model"] is None else RaterModel.from_dict(values["rater_model"])


def _read(folder: str | Path) -> dict[str, Any] | None:
    """`jury.json` with all its fields, of this version of the format; None where there is none."""
    path = _find(folder, STATE_FILE)
    if path is None:
        return None
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        version = int(values["format_version"])
    except (KeyError, TypeError, ValueError) as error:
        raise _unreadable(folder, error) from error
    if version > FORMAT_VERSION:
        raise JuryError(
            f"the jury in {str(folder)!r} has format version {version}, this package reads {FORMAT_VERSION}. Upgrade "
            "it: pip install --upgrade plural-rlhf."
        )
    if version < FORMAT_VERSION:
        raise JuryError(
            f"the jury in {str(folder)!r} has format version {version}, this package reads {FORMAT_VERSION}. Fit the "
            f"jury again; or delete {STATE_FILE} to keep the heads alone, without rater model and calibration."
        )
    fields = set(_FIELDS) - set(values)
    if fields:
        raise _unreadable(folder, f"it lacks {sorted(fields)}")
    return values


_FIELDS = (
    *("num_clusters", "hidden_size", "clusters", "fitted_on"),
    *("calibration", "temperature", "raters_salt", "rater_model", "files"),
)


def _verify(folder: str | Path, files: Mapping[str, Mapping[str, Any]], hashes: bool) -> None:
    for name, expected in files.items():
        path = _find(folder, name)
        if path is None:
            raise JuryError(
                f"the jury in {str(folder)!r} lacks {name!r}, which it was saved with. Copy the whole folder again, "
                f"or {SAVE_AGAIN}."
            )
        size = path.stat().st_size
        if size != expected["size"] or (hashes and _sha256(path) != expected["sha256"]):
            what = f"it has {size:,} bytes instead of {expected['size']:,}" if size != expected["size"] else "SHA-256"
            raise JuryError(
                f"{name!r} of the jury in {str(folder)!r} is not the file that was saved ({what}). Copy the folder "
                f"again. If you changed the file yourself: {SAVE_AGAIN}, or delete {STATE_FILE} to use what is there "
                "without rater model and calibration."
            )


def _read_raters(folder: str | Path, salt: str) -> StoredRaters:
    path = _find(folder, RATERS_FILE)
    if path is None:
        raise JuryError(f"the jury in {str(folder)!r} lacks {RATERS_FILE!r}. Copy the whole folder again.")
    try:
        tensors = load_file(path)
        return StoredRaters(salt, [row.tobytes().hex() for row in tensors["pseudonyms"]], tensors["posterior"])
    except (SafetensorError, KeyError) as error:
        raise JuryError(f"{RATERS_FILE!r} in {str(folder)!r} cannot be read ({error}): {SAVE_AGAIN}.") from error


def _find(folder: str | Path, name: str) -> Path | None:
    """A file of a local folder or of a model on the Hub; None where it has no such file."""
    if Path(folder).is_dir():
        path = Path(folder) / name
        return path if path.is_file() else None
    try:
        found = cached_file(str(folder), name)
    except (OSError, ValueError):
        return None
    return None if found is None else Path(found)


def _unreadable(folder: str | Path, error: object) -> JuryError:
    return JuryError(
        f"{STATE_FILE} in {str(folder)!r} cannot be read ({error}). Copy the folder again, or {SAVE_AGAIN}; deleting "
        f"{STATE_FILE} keeps the heads alone."
    )


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _pseudonym(rater_id: str, salt: str) -> str:
    return hashlib.sha256(f"{salt}:{rater_id}".encode()).hexdigest()
