"""The folder of a saved jury reward model: how it is written, checked and read.

Beside the files of transformers there is `jury.json`. It says what the heads mean (names, descriptions), how raters
vary around them (`RaterModel`), how sure rewards are (`RewardUncertainty`), how the heads are calibrated, what they
were fitted on (counts only), and the size and SHA-256 of every file that belongs to the jury. How texts are read is in
`config.json` (`JuryConfig.reading`). `raters.safetensors`, on request, holds the posteriors of the training raters.
Nothing is pickled, and no code of a folder is run.

A save replaces the jury that is there as one (`replaced_files`). What a folder holds is checked before it is used:
files against `jury.json`, names against the folder, values against what they may be. Folders without `jury.json`, as
`JuryRewardModel.save_pretrained` and earlier versions write them, load as juries with an empty state.
Knows nothing of scoring.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.numpy import load_file
from transformers import AutoConfig, AutoTokenizer, PreTrainedTokenizerBase

from reward_models.borders import path_fault
from reward_models.content_hashes import file_fault, folder_records, safe_name, value_hash
from reward_models.errors import JuryError, in_one_line
from reward_models.judgements.text_kind import TextKind
from reward_models.jury.backbones.loading import find_file, refer_to_backbone
from reward_models.jury.calibration import Calibration
from reward_models.jury.configuration_jury import JuryConfig
from reward_models.jury.modeling_jury import JuryRewardModel
from reward_models.jury.reading import ReadingSettings, precision_of
from reward_models.jury.state import JuryState, RewardUncertainty, StoredRaters
from reward_models.raters.rater_model import RaterModel
from reward_models.replaced_files import folder_to_read, folder_version, read_unchanged, replaced_files
from reward_models.whole_file import write_arrays, write_json


__all__ = ["FORMAT_VERSION", "load_config", "load_jury", "load_rater_model", "load_state", "save_jury"]

FORMAT_VERSION = 2
OLDEST_VERSION = 1
STATE_FILE = "jury.json"
RATERS_FILE = "raters.safetensors"
SELF = "sha256"
"""Key of `jury.json` with the hash of its other values; earlier versions wrote none."""
READ_UNASKED = (
    *("model.safetensors", "model.safetensors.index.json", "adapter_config.json"),
    *("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"),
    *("chat_template.jinja", "chat_template.json", "vocab.json", "merges.txt", "vocab.txt", "tokenizer.model"),
)
"""Files that transformers reads where they are; one that the jury was saved without would change its scores."""
DAMAGED = (AttributeError, KeyError, IndexError, TypeError, ValueError, OverflowError, RecursionError)
"""What values of another type or shape than expected raise."""
SAVE_AGAIN = "save the jury again with JuryScorer.save_pretrained"
_FIELDS = {
    *("num_clusters", "hidden_size", "clusters", "fitted_on", "files"),
    *("calibration", "temperature", "raters_salt", "rater_model"),
}


def save_jury(
    model: JuryRewardModel,
    tokenizer: PreTrainedTokenizerBase,
    state: JuryState,
    folder: str | Path,
    *,
    save_raters: bool = False,
    include_backbone: bool = True,
    reading: ReadingSettings | None = None,
) -> None:
    """Write a jury reward model as a whole: an interrupted save leaves the jury that was there, or the new one.

    Args:
        model: The model.
        tokenizer: The backbone's tokenizer.
        state: Its state.
        folder: Made if it does not exist. A jury in it is replaced; files that are not a jury's stay.
        save_raters: Write the posteriors of `state.raters` too.
        include_backbone: False: refer to the backbone where it was loaded from instead of copying it. The folder is
            small, and works only where that backbone is.
        reading: How the jury reads texts; None: as its configuration says.

    Raises:
        JuryError: State and model are not of one fit, `save_raters` without `state.raters`, a backbone that cannot be
            referred to (`refer_to_backbone`), or see `replaced_files`.

    Example:
        >>> import tempfile
        >>> from reward_models.jury.tiny import tiny_causal_lm, tiny_tokenizer
        >>> model = JuryRewardModel.from_fit(tiny_causal_lm(), np.zeros((2, 32)), np.zeros(2), [0.7, 0.3])
        >>> state = JuryState(fitted_on={"judgements": 120, "raters": 10})
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     save_jury(model, tiny_tokenizer(), state, folder)
        ...     sorted(path.name for path in Path(folder).glob("*.json"))
        ...     load_jury(folder)[2].fitted_on
        ['config.json', 'jury.json', 'tokenizer.json', 'tokenizer_config.json']
        {'judgements': 120, 'raters': 10}
    """
    state.check(model.config)
    if save_raters and state.raters is None:
        raise JuryError(
            "save_raters=True, but the jury's state holds no raters. Fix: "
            "JuryState(..., raters=StoredRaters.of(fit.placement))."
        )
    weights = None
    reference = None if include_backbone else refer_to_backbone(model.model)
    if reference is not None:
        weights = {name: value for name, value in model.state_dict().items() if not name.startswith("model.")}
    of_model = model.config.reading
    reading = reading or ReadingSettings.stored(of_model, state.fitted_on)
    try:
        model.config.reading = replace(reading, dtype=precision_of(model.model)).to_dict()
        model.config.backbone = reference
        with replaced_files(folder, STATE_FILE) as unfinished:
            model.save_pretrained(unfinished, state_dict=weights)
            tokenizer.save_pretrained(unfinished)
            if save_raters and state.raters is not None:
                digests = np.array([list(bytes.fromhex(p)) for p in state.raters.pseudonyms], dtype=np.uint8)
                raters = {"pseudonyms": digests.reshape(-1, 32), "posterior": state.raters.posterior}
                write_arrays(unfinished / RATERS_FILE, raters)
            write_json(unfinished / STATE_FILE, _to_json(model.config, state, unfinished, save_raters), exact=True)
            values = json.loads((unfinished / STATE_FILE).read_text(encoding="utf-8"))
            write_json(unfinished / STATE_FILE, {**values, SELF: value_hash(values)}, exact=True)
    finally:
        model.config.reading, model.config.backbone = of_model, None


def _to_json(config: JuryConfig, state: JuryState, folder: Path, save_raters: bool) -> dict[str, Any]:
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
        "uncertainty": None if state.uncertainty is None else state.uncertainty.to_dict(),
        "strangers": None if state.strangers is None else state.strangers.tolist(),
        "text_kind": None if state.text_kind is None else state.text_kind.to_dict(),
        "files": folder_records(folder),
    }


def load_config(folder: str | Path) -> JuryConfig:
    """Read the configuration of a saved jury reward model.

    Args:
        folder: Its folder, or a model id of the Hub.

    Raises:
        JuryError: There is none, or it is that of another kind of model.

    Example:
        >>> load_config("runs/nothing-here")
        Traceback (most recent call last):
        reward_models.errors.JuryError: no jury reward model at 'runs/nothing-here': neither a folder with a readable
        config.json nor a model id that can be reached (OSError: ...). Fit one and save it with save_pretrained, or
        correct the path.
    """
    name = str(folder)
    if isinstance(folder, Path) and not folder.is_dir() and not path_fault(folder):
        raise JuryError(f"no jury reward model at {name!r}, which is no folder. Fit one first, or correct the path.")
    try:
        config = AutoConfig.from_pretrained(folder_to_read(folder), trust_remote_code=False)
        if isinstance(config, JuryConfig):
            config.check()
    except JuryError:
        raise
    except Exception as error:  # whatever a damaged file makes of transformers
        if fault := path_fault(folder):
            raise JuryError(f"the jury cannot be loaded: {fault}.") from error
        _check_no_run_folder(folder)
        raise JuryError(
            f"no jury reward model at {name!r}: neither a folder with a readable config.json nor a model id that can "
            f"be reached ({in_one_line(error)}). Fit one and save it with save_pretrained, or correct the path."
        ) from error
    if not isinstance(config, JuryConfig):
        raise JuryError(
            f"{name!r} holds a model of type {config.model_type!r}, not {JuryConfig.model_type!r}: it has no rater "
            "clusters. Fit heads on it first (JuryRewardModel.from_fit), or give the folder of a jury reward model."
        )
    return config


def _check_no_run_folder(folder: str | Path) -> None:
    """Raise if a folder holds the folder of a jury: people give that of a run."""
    inside = Path(folder) / "jury"
    if (inside / STATE_FILE).is_file():
        raise JuryError(f"no jury reward model at {str(folder)!r}, but one in {str(inside)!r}. Fix: give that folder.")


def load_jury(
    folder: str | Path, *, verify: bool = True, backbone: str | Path | None = None
) -> tuple[JuryRewardModel, PreTrainedTokenizerBase, JuryState]:
    """Read a jury reward model, its tokenizer and its state; the inverse of `save_jury`.

    Args:
        folder: Its folder, or a model id of the Hub.
        verify: See `load_state`.
        backbone: Where the backbone lies now, of a jury that was saved without it; None: where it was.

    Returns:
        The model (its backbone in the precision in which it was saved, on the CPU, in evaluation mode), the tokenizer,
        the state.

    Raises:
        JuryError: See `load_config` and `load_state`; or weights or tokenizer are missing or do not match.
    """
    if fault := path_fault(folder):
        raise JuryError(f"the jury cannot be loaded: {fault}.")
    what = f"the jury in {str(folder)!r}"
    return read_unchanged(
        lambda: _load_jury(folder, verify, backbone), lambda: folder_version(folder, STATE_FILE), what
    )


def _load_jury(
    folder: str | Path, verify: bool, backbone: str | Path | None
) -> tuple[JuryRewardModel, PreTrainedTokenizerBase, JuryState]:
    config, name, source = load_config(folder), str(folder), folder_to_read(folder)
    state = load_state(folder, config, verify=verify)
    try:
        model, info = JuryRewardModel.from_pretrained(
            source,
            config=config,
            dtype=torch.float32,
            output_loading_info=True,
            use_safetensors=True,
            backbone=backbone,
        )
    except JuryError:
        raise
    except OSError as error:
        raise JuryError(
            f"the jury in {name!r} has a config.json but no weights that can be read. They are written last, so a "
            "save may have been interrupted. Save it again with save_pretrained."
        ) from error
    except Exception as error:  # whatever damaged weights make of transformers
        raise JuryError(
            f"the weights of the jury in {name!r} cannot be read, or do not match its config.json "
            f"({config.num_clusters} clusters, hidden size {config.get_text_config().hidden_size}): heads and "
            f"backbone are of different fits, or a file is damaged ({in_one_line(error)}). Save it again with "
            "save_pretrained, from one fit."
        ) from error
    if info["missing_keys"]:
        raise JuryError(
            f"the jury in {name!r} lacks the weights {sorted(info['missing_keys'])}, which would be random numbers. "
            "Save it again with save_pretrained."
        )
    try:
        tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=False)
    except Exception as error:  # whatever a damaged file makes of tokenizers
        raise JuryError(
            f"the jury in {name!r} has no tokenizer beside it that can be read ({in_one_line(error)}). Save the "
            f"backbone's tokenizer there with tokenizer.save_pretrained({name!r})."
        ) from error
    # The heads stay in float32, and the backbone of a folder that does not name its precision.
    model.model.to(getattr(torch, ReadingSettings.stored(config.reading, state.fitted_on).dtype))
    model.name_or_path = model.config.name_or_path = name
    return model, tokenizer, state


def load_state(folder: str | Path, config: JuryConfig, *, verify: bool = True) -> JuryState:
    """Read the state of a jury reward model, and check that the folder is what was saved.

    Args:
        folder: Its folder, or a model id of the Hub.
        config: Its configuration, as `load_config` returns it.
        verify: Compare the SHA-256 of every file (about a second per gigabyte); sizes are always compared.

    Returns:
        The state; an empty one if there is no `jury.json`.

    Raises:
        JuryError: A file is missing, altered or was not saved with the jury; or the state is of another version of the
            format, cannot be read, holds impossible values, or belongs to other heads or another backbone.

    Warns:
        UserWarning: `jury.json` is gone from a folder that seems to have had one.
    """
    if find_file(folder, "adapter_config.json") is not None:
        raise JuryError(
            f"{str(folder)!r} holds an adapter (adapter_config.json), which would change the jury's scores; a jury is "
            "saved with its adapters merged. Remove the adapter's files, or give the folder of the jury alone."
        )
    values = _read(folder)
    if values is None:
        if config.reading is not None:  # which `save_jury` writes beside jury.json
            warnings.warn(
                f"the jury in {str(folder)!r} has no {STATE_FILE}: its heads are used alone, without rater model, "
                "calibration and descriptions, and its files cannot be checked. If it was removed by mistake, copy "
                "the whole folder again.",
                UserWarning,
                stacklevel=4,
            )
        return JuryState()
    hidden_size = config.get_text_config().hidden_size
    if (values["num_clusters"], values["hidden_size"]) != (config.num_clusters, hidden_size):
        raise JuryError(
            f"{STATE_FILE} in {str(folder)!r} belongs to {values['num_clusters']} heads on {values['hidden_size']} "
            f"features, but config.json describes {config.num_clusters} heads on {hidden_size}. They are of different "
            f"juries: {SAVE_AGAIN}, from one fit."
        )
    _verify(folder, values["files"], verify)
    try:
        names = ("temperature", "raters_salt", "uncertainty", "strangers", "text_kind")
        temperature, salt, parts, strangers, kind = (values.get(name) for name in names)
        state = JuryState(
            rater_model=_rater_model(values),
            calibration=None if values["calibration"] is None else Calibration.from_dict(values["calibration"]),
            temperature=None if temperature is None else np.asarray(temperature, dtype=np.float64),
            descriptions={c["name"]: c["description"] for c in values["clusters"] if c["description"]},
            fitted_on=values["fitted_on"],
            raters=None if salt is None else _read_raters(folder, salt),
            uncertainty=None if parts is None else RewardUncertainty.from_dict(parts),
            strangers=None if strangers is None else np.asarray(strangers, dtype=np.float64),
            text_kind=None if kind is None else TextKind.from_dict(kind),
        )
        state.check_values()
    except DAMAGED as error:
        raise _unreadable(folder, error) from error
    state.check(config)
    return state


def load_rater_model(folder: str | Path) -> RaterModel | None:
    """Read how raters vary around the heads of a saved jury reward model; None if the folder does not say.

    Args:
        folder: Its folder, or a model id of the Hub.

    Raises:
        JuryError: There is no such folder, or its state is of another version of the format, cannot be read, or holds
            values that no fit gives, such as NaN.

    Example:
        >>> import tempfile
        >>> from reward_models import JuryScorer, fit_raters, planted_judgements
        >>> from reward_models.jury.tiny import tiny_causal_lm, tiny_tokenizer
        >>> fit = fit_raters(planted_judgements(num_raters=10, num_items=8).judgements.encode())
        >>> model = JuryRewardModel.from_fit(tiny_causal_lm(), np.zeros((2, 32)), np.zeros(2), fit.prevalence)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     JuryScorer(model, tiny_tokenizer(), state=JuryState(rater_model=fit.model)).save_pretrained(folder)
        ...     load_rater_model(folder).membership
        'mixture'
    """
    if find_file(folder, "config.json") is None:
        raise JuryError(f"no jury reward model at {str(folder)!r}: it has no config.json. Correct the path.")
    values = _read(folder)
    if values is None:
        _check_no_run_folder(folder)
        return None
    try:
        model = _rater_model(values)
        if model is not None:
            model.check_values()
        return model
    except DAMAGED as error:
        raise _unreadable(folder, error) from error


def _rater_model(values: Mapping[str, Any]) -> RaterModel | None:
    return None if values["rater_model"] is None else RaterModel.from_dict(values["rater_model"])


def _read(folder: str | Path) -> dict[str, Any] | None:
    """Return `jury.json` with all its fields, of this version of the format; None if there is none."""
    path = find_file(folder, STATE_FILE)
    if path is None:
        return None
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        version = int(values["format_version"])
    except (OSError, *DAMAGED) as error:
        raise _unreadable(folder, error) from error
    if version > FORMAT_VERSION:
        raise JuryError(
            f"the jury in {str(folder)!r} has format version {version}, this package reads {FORMAT_VERSION}. Upgrade "
            "it: pip install --upgrade plural-rlhf."
        )
    if version < OLDEST_VERSION:
        raise JuryError(
            f"the jury in {str(folder)!r} has format version {version}, this package reads {OLDEST_VERSION}. Fit the "
            f"jury again; or delete {STATE_FILE} to keep the heads alone, without rater model and calibration."
        )
    fields = _FIELDS - set(values)
    if fields:
        raise _unreadable(folder, f"it lacks {sorted(fields)}")
    if SELF in values and values[SELF] != value_hash({key: part for key, part in values.items() if key != SELF}):
        raise _unreadable(folder, f"a value was changed after it was saved; remove its {SELF!r} to use what it says")
    return values


def _verify(folder: str | Path, files: Any, hashes: bool) -> None:
    """Raise unless the files of a folder are those that it was saved with, and no other is read beside them."""
    if not isinstance(files, Mapping) or not any(name.startswith("model") for name in files):
        raise _unreadable(folder, "it lists no weights")
    for name, record in files.items():
        try:
            path = find_file(folder, safe_name(name))
            fault = "it is missing" if path is None else file_fault(path, record, contents=hashes)
        except ValueError as error:
            raise _unreadable(folder, error) from error
        if path is None:
            raise JuryError(
                f"the jury in {str(folder)!r} lacks {name!r}, which it was saved with. Copy the whole folder again, "
                f"or {SAVE_AGAIN}."
            )
        if fault is not None:
            raise JuryError(
                f"{name!r} of the jury in {str(folder)!r} is not the file that was saved ({fault}). Copy the folder "
                f"again. If you changed the file yourself: {SAVE_AGAIN}, or delete {STATE_FILE} to use the files as "
                "they are, without rater model and calibration."
            )
    added = [name for name in READ_UNASKED if name not in files and Path(folder_to_read(folder), name).is_file()]
    if added:
        raise JuryError(
            f"{added[0]!r} was added to the jury in {str(folder)!r} after it was saved, and would change how it reads "
            f"or scores texts. Remove the file. If you added it yourself: {SAVE_AGAIN}."
        )


def _read_raters(folder: str | Path, salt: str) -> StoredRaters:
    path = find_file(folder, RATERS_FILE)
    if path is None:
        raise JuryError(f"the jury in {str(folder)!r} lacks {RATERS_FILE!r}. Copy the whole folder again.")
    try:
        tensors = load_file(path)
        return StoredRaters(salt, [row.tobytes().hex() for row in tensors["pseudonyms"]], tensors["posterior"])
    except Exception as error:  # safetensors has no one type of errors
        raise JuryError(
            f"{RATERS_FILE!r} in {str(folder)!r} cannot be read ({in_one_line(error)}): {SAVE_AGAIN}."
        ) from error


def _unreadable(folder: str | Path, error: object) -> JuryError:
    return JuryError(
        f"{STATE_FILE} in {str(folder)!r} cannot be read ({error}). Copy the folder again, or {SAVE_AGAIN}; deleting "
        f"{STATE_FILE} keeps the heads alone."
    )
