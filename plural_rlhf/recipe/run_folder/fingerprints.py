"""Hashes of what a run reads and writes: tables of judgements, folders of model weights, outputs of stages.

Knows nothing of runs; hashes of files and values are in `reward_models.content_hashes`.
"""

from __future__ import annotations

import hashlib
import json
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from plural_rlhf.policies.base_models import adapter_base
from reward_models.content_hashes import FileRecord, file_hash, folder_records, value_hash
from reward_models.replaced_files import folder_to_read


if TYPE_CHECKING:
    from reward_models.judgements.records import Judgements

__all__ = ["adapted_hash", "all_files_hash", "judgements_hash", "large_files_hash", "model_hash", "output_records"]

MODEL_FILES = (".json", ".safetensors", ".bin", ".pt", ".model", ".txt", ".jinja", ".gguf")
"""Endings of the files that decide what a folder of model weights computes."""
SAMPLED_ABOVE = 2**24
"""Of weights that are larger (bytes) `model_hash` reads the head and evenly spaced blocks only."""
HEAD, BLOCKS, BLOCK = 2**20, 64, 2**16


def output_records(folder: Path, names: list[str]) -> dict[str, FileRecord]:
    """Return size and SHA-256 of every file of some files and folders, by its path relative to `folder`.

    Args:
        folder: Where they lie.
        names: Files and folders in it; hidden files and Markdown, which people edit, are left out.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     (Path(folder) / "warm").mkdir()
        ...     _ = (Path(folder) / "warm" / "adapter_config.json").write_text("{}")
        ...     list(output_records(Path(folder), ["warm"]))
        ['warm/adapter_config.json']
    """
    paths = [
        path for name in names for path in ((folder / name).rglob("*"), [folder / name])[(folder / name).is_file()]
    ]
    files = [path for path in paths if path.is_file() and path.suffix != ".md" and not path.name.startswith(".")]
    return folder_records(folder, [path.relative_to(folder).as_posix() for path in files])


def model_hash(model: str | Path) -> str | None:
    """Return a hash of model weights and tokenizer that takes well under a second, whatever their size.

    Files of more than 16 MiB count with their size, their first MiB (which holds the header of a safetensors file) and
    64 blocks; `large_files_hash` reads the rest of them.

    Args:
        model: A folder, or an id on the Hub, whose commit in the local cache is taken.

    Returns:
        The hash; None for an id of which nothing is in the cache.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     before = model_hash(folder)
        ...     _ = (Path(folder) / "config.json").write_text("{}")
        ...     before == model_hash(folder)
        False
    """
    folder = Path(model)
    if not folder.is_dir():
        return _cached_commit(str(model))
    return value_hash([[path.name, _sampled_hash(path)] for path in _model_files(folder)])


def large_files_hash(model: str | Path) -> str | None:
    """Return a hash of every byte of the files of more than 16 MiB in a folder of model weights.

    It takes about a second per gigabyte, once per process: a file is read again if its size, its inode, or the time at
    which its content or its inode changed is another. That time cannot be set back, as the time of its content can.

    Args:
        model: As for `model_hash`.

    Returns:
        The hash; None for an id on the Hub, whose commit names the content, and where no file is so large.

    Example:
        >>> large_files_hash("an/id") is None
        True
    """
    large = [path for path in _model_files(Path(model)) if path.stat().st_size > SAMPLED_ABOVE]
    return value_hash([[path.name, _whole_hash(path, *_version(path))] for path in large]) if large else None


def all_files_hash(model: str | Path, *, base: bool = True) -> str | None:
    """Return a hash of every byte of what a model is loaded from, however large.

    Beside the files of its folder these are those of the modules of a sentence embedder, which lie in folders of their
    own, and of the model that an adapter was trained on. It takes about a second per gigabyte, once per process, see
    `large_files_hash`.

    Args:
        model: As for `model_hash`.
        base: Whether the model that an adapter was trained on counts.

    Returns:
        The hash; None for an id on the Hub of which nothing is in the cache.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = (Path(folder) / "modules.json").write_text('[{"path": "1_Pooling"}]')
        ...     before = all_files_hash(folder)
        ...     (Path(folder) / "1_Pooling").mkdir()
        ...     _ = (Path(folder) / "1_Pooling" / "config.json").write_text("{}")
        ...     before == all_files_hash(folder)
        False
    """
    folder = Path(folder_to_read(model))
    if not folder.is_dir():
        return _cached_commit(str(model))
    files = [path for part in (folder, *_modules(folder)) for path in _model_files(part)]
    hashes = [[path.relative_to(folder).as_posix(), _whole_hash(path, *_version(path))] for path in files]
    return value_hash([hashes, adapted_hash(folder) if base else None])


def adapted_hash(model: str | Path) -> str | None:
    """Return the hash of the model that an adapter was trained on, see `all_files_hash`.

    Args:
        model: As for `model_hash`.

    Returns:
        The hash; None if the folder holds no adapter, or one that does not say where its model is.

    Example:
        >>> adapted_hash("an/id") is None
        True
    """
    try:
        trained_on = adapter_base(model)
    except (FileNotFoundError, ValueError):  # whoever loads the adapter says so
        return None
    return None if trained_on is None else all_files_hash(trained_on)


def _modules(folder: Path) -> list[Path]:
    """Folders of the modules of a sentence embedder, but for those in the folder itself."""
    with suppress(OSError, ValueError, KeyError, TypeError):  # none, or a damaged list, whose own hash is another
        listed = json.loads((folder / "modules.json").read_text(encoding="utf-8"))
        return [folder / path for path in sorted({str(module["path"]) for module in listed}) if path]
    return []


def _cached_commit(hub_id: str) -> str | None:
    """The commit of a model in the local cache of the Hub; None if nothing of it is there, or the id is a path."""
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    with suppress(HFValidationError):
        for name in ("config.json", "adapter_config.json"):
            cached = try_to_load_from_cache(hub_id, name)
            if isinstance(cached, str):
                return value_hash([hub_id, Path(cached).parent.name])
    return None


def _model_files(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if path.is_file() and path.suffix in MODEL_FILES)


def _version(path: Path) -> tuple[int, int, int, int]:
    status = path.stat()
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino


@cache
def _whole_hash(path: Path, size: int, written_ns: int, changed_ns: int, inode: int) -> str:
    return file_hash(path)


def _sampled_hash(path: Path) -> str:
    size = path.stat().st_size
    if size <= SAMPLED_ABOVE:
        return file_hash(path)
    digest = hashlib.sha256(str(size).encode())
    with path.open("rb") as file:
        digest.update(file.read(HEAD))
        for block in range(1, BLOCKS + 1):
            file.seek((size - BLOCK) * block // BLOCKS)
            digest.update(file.read(BLOCK))
    return digest.hexdigest()


def judgements_hash(judgements: Judgements) -> str:
    """Return a hash of a table of judgements: every cell, and the order of the rows.

    Example:
        >>> from reward_models import planted_judgements
        >>> judgements = planted_judgements("rating", num_raters=4, num_items=3).judgements
        >>> judgements_hash(judgements) == judgements_hash(judgements.select(range(len(judgements))))
        True
        >>> judgements_hash(judgements) == judgements_hash(judgements.select([0, 1, 2]))
        False
    """
    frame = judgements.frame
    columns = [[column, value_hash([_plain(cell) for cell in frame[column]])] for column in sorted(frame.columns)]
    return value_hash([judgements.kind, judgements.levels, columns])


def _plain(cell: Any) -> Any:
    """A cell as JSON; those of a trait may be of any type."""
    cell = cell.item() if hasattr(cell, "item") else cell
    return cell if cell is None or isinstance(cell, str | int | float | list | tuple) else str(cell)
