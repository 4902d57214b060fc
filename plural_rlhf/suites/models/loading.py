"""Language models for an evaluation from their folders: a model, an adapter on its base model, a steered policy.

Knows nothing of tasks.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from plural_rlhf.policies.base_models import adapter_base, prepare_base_model
from plural_rlhf.suites.models.causal_lm import CausalLM
from plural_rlhf.suites.models.protocol import Steering
from reward_models.content_hashes import folder_records, value_hash
from reward_models.inference import default_device
from reward_models.weights import WeightSpec


if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

__all__ = ["load_causal_lm", "model_identity"]

_MODEL_FILES = (".safetensors", ".bin", ".json", ".jinja", ".model", ".txt")


def load_causal_lm(
    path: str | Path,
    *,
    name: str | None = None,
    jury: str | Path | None = None,
    weights: WeightSpec = "prevalence",
    chat: bool | None = None,
    batch_size: int = 16,
    cache_dir: str | Path = ".cache/models",
) -> CausalLM:
    """Load a model for an evaluation.

    Args:
        path: Folder or hub id of a model or of a PEFT adapter; `smollm2-135m` or `tiny`.
        name: What the report calls it; the path if None.
        jury: Folder of the saved jury with which a policy was trained: `weights` are written into its prompts.
        weights: Whom the policy answers for: `prevalence`, a cluster, or seats by cluster.
        chat: Whether prompts go through the chat template; None: if there is one.
        batch_size: Prompts per forward pass.
        cache_dir: Folder of converted models, for `smollm2-135m` and `tiny`.

    Raises:
        FileNotFoundError: There is no such folder, or it holds no model.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as cache:
        ...     tiny = load_causal_lm("tiny", cache_dir=cache)
        >>> tiny.name, tiny.chat
        ('tiny', True)
    """
    folder = prepare_base_model(str(path), cache_dir)
    name = str(path) if name is None else name
    if jury is not None:
        from plural_rlhf.policies.steerer import Steerer

        steerer = Steerer.from_pretrained(folder, jury, batch_size=batch_size)
        identity = model_identity(folder)

        def under(shares: np.ndarray) -> CausalLM:
            return CausalLM(
                name,
                steerer.model,
                steerer.tokenizer,
                identity=value_hash([identity, steerer.cluster_names, shares.tolist()])[:24],
                chat=chat,
                batch_size=batch_size,
                render=lambda prompt: steerer.render(prompt, shares),
                steering=Steering(jury, under),
            )

        return under(steerer.weights(weights))
    model, tokenizer = _load(folder)
    return CausalLM(
        name,
        model.to(default_device()).eval(),
        tokenizer,
        identity=model_identity(folder),
        chat=chat,
        batch_size=batch_size,
    )


def model_identity(path: str | Path) -> str:
    """Return the hash of the files of a model, and of the base model of an adapter.

    Args:
        path: A folder, or a hub id that was loaded: then the files of its newest version in the cache of the hub, so
            that answers of an earlier version are not taken for those of a later one.

    Raises:
        FileNotFoundError: A hub id of which nothing is in the cache.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     size = (Path(folder) / "config.json").write_text("{}")
        ...     before = model_identity(folder)
        ...     size = (Path(folder) / "config.json").write_text('{"vocab_size": 8}')
        ...     before == model_identity(folder)
        False
    """
    folder = Path(path)
    if not folder.is_dir():
        folder = _cached_snapshot(str(path))
    names = [file.name for file in folder.iterdir() if file.suffix in _MODEL_FILES]
    records = {name: record["sha256"] for name, record in folder_records(folder, names).items()}
    adapter = folder / "adapter_config.json"
    base = _base_of(adapter) if adapter.is_file() else None
    return value_hash([records, None if base is None else model_identity(base)])[:24]


def _cached_snapshot(hub_id: str) -> Path:
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(hub_id, local_files_only=True))
    except (OSError, ValueError) as error:
        raise FileNotFoundError(
            f"{hub_id!r} is no folder, and no model of this id is in the cache of the hub. Fix: give a folder, or "
            "load the model once with a connection"
        ) from error


def _load(path: str) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils.peft_utils import find_adapter_config_file

    if Path(path).is_dir() and not any((Path(path) / f"{kind}config.json").is_file() for kind in ("", "adapter_")):
        raise FileNotFoundError(
            f"{path} holds neither config.json nor adapter_config.json, so it is no saved model. Fix: give the folder "
            "that `save_pretrained` wrote, e.g. runs/quickstart/plural"
        )
    tokenizer = AutoTokenizer.from_pretrained(path, padding_side="left", trust_remote_code=False)
    adapter = find_adapter_config_file(path)  # also of a hub id
    if adapter is None:
        return AutoModelForCausalLM.from_pretrained(path, trust_remote_code=False), tokenizer
    from peft import PeftModel

    model = AutoModelForCausalLM.from_pretrained(_base_of(Path(adapter)), trust_remote_code=False)
    if model.get_input_embeddings().num_embeddings < len(tokenizer):
        model.resize_token_embeddings(len(tokenizer))
    return PeftModel.from_pretrained(model, path), tokenizer


def _base_of(adapter_config: Path) -> str:
    base = adapter_base(adapter_config.parent)
    assert base is not None
    return base
