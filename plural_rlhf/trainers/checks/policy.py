"""A policy and its tokenizer: whether they can be trained, and whether training is of the policy that was meant.

Every error says what was passed, why it cannot work and what to do. Knows nothing of rewards, data or losses.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from accelerate.utils import extract_model_from_parallel
from peft import PeftModel
from transformers.utils import cached_file


if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

__all__ = ["check_reloadable", "check_tokenizer", "warn_of_dropout", "warn_of_other_start"]

_FUNCTIONAL = ("attention_dropout", "attn_dropout", "dropout")
_OF_THE_HUB = ("revision", "token", "cache_dir", "local_files_only", "subfolder")


def check_reloadable(
    model: str | PreTrainedModel | PeftModel, peft_config: Any, model_init_kwargs: Mapping[str, Any] | None, cure: str
) -> None:
    """Raise if the policy cannot be loaded a second time to serve as the reference.

    Args:
        model: As it was passed; a path is taken to exist, and an adapter's base model is its reference.
        peft_config: As it was passed; with one the model is the reference.
        model_init_kwargs: How the model is loaded.
        cure: What to do instead, for the message.

    Raises:
        ValueError: The policy is in memory only, or what it was loaded from is gone.

    Example:
        >>> from reward_models.jury.tiny import tiny_causal_lm
        >>> check_reloadable(tiny_causal_lm(), None, None, cure="save it and pass its path")
        Traceback (most recent call last):
        ValueError: the policy exists in memory only, so the reference policy cannot be loaded a second time: save it
        and pass its path.
    """
    if isinstance(model, str | PeftModel) or peft_config is not None:
        return
    source = model.config.name_or_path
    if not source:
        raise ValueError(
            f"the policy exists in memory only, so the reference policy cannot be loaded a second time: {cure}."
        )
    options = {name: value for name, value in (model_init_kwargs or {}).items() if name in _OF_THE_HUB}
    try:
        config_file = cached_file(source, "config.json", **options)
    except (OSError, ValueError):
        config_file = None
    if config_file is None:
        here = "has no config.json" if Path(source).is_dir() else "is neither a folder nor a model that can be reached"
        raise ValueError(
            f"the policy was loaded from {source!r} (its config._name_or_path), which {here}, so the reference policy "
            f"cannot be loaded a second time: {cure}."
        )


def check_tokenizer(tokenizer: PreTrainedTokenizerBase | None) -> None:
    """Raise if a tokenizer lacks an end or padding token; the probability of an answer includes that of its end.

    Args:
        tokenizer: A tokenizer, a processor that has one, or None where it is loaded later.

    Raises:
        ValueError: Says which token is missing, and how to set it.

    Example:
        >>> from types import SimpleNamespace
        >>> check_tokenizer(SimpleNamespace(eos_token="<end>", pad_token=None))
        Traceback (most recent call last):
        ValueError: the tokenizer has no pad_token, the token that fills up shorter rows: set tokenizer.pad_token =
        tokenizer.eos_token, and pass the tokenizer as processing_class.
    """
    if tokenizer is None:
        return
    tokenizer = getattr(tokenizer, "tokenizer", tokenizer)  # a processor has one
    for name, use in (("eos_token", "ends an answer"), ("pad_token", "fills up shorter rows")):
        if getattr(tokenizer, name, None) is None:
            cure = "'<|endoftext|>', or the token that ends a turn" if name == "eos_token" else "tokenizer.eos_token"
            raise ValueError(
                f"the tokenizer has no {name}, the token that {use}: set tokenizer.{name} = {cure}, and pass the "
                "tokenizer as processing_class."
            )


def warn_of_other_start(model: PreTrainedModel, reference: torch.nn.Module) -> None:
    """Warn if the policy in memory differs from the reference that was loaded.

    Args:
        model: The policy.
        reference: The second model.
    """
    reference_parameters = dict(extract_model_from_parallel(reference).named_parameters())
    for name, parameter in extract_model_from_parallel(model).named_parameters():
        loaded = reference_parameters.get(name)
        if loaded is None or loaded.shape != parameter.shape or not loaded.numel():
            continue
        # Half precision rounds to four parts in a thousand.
        difference = (parameter.detach() - loaded.detach().to(parameter)).abs().max()
        if float(difference) > 0.01 * float(loaded.detach().abs().max()):
            warnings.warn(
                f"the policy differs from the reference that was loaded from {model.config._name_or_path!r} (first in "
                f"{name}), so the target is measured from that reference and not from the policy as it is now: if "
                "this is not intended, save the policy and pass the path.",
                stacklevel=4,
            )
            return


def warn_of_dropout(model: torch.nn.Module) -> None:
    """Warn if training would drop activations, because log π is then not that of the policy that samples.

    `disable_dropout` reaches modules (a LoRA's, too) and not what attention reads from the model's configuration.

    Example:
        >>> warn_of_dropout(torch.nn.Sequential(torch.nn.Dropout(0.0)))
        >>> with warnings.catch_warnings(record=True) as caught:
        ...     warn_of_dropout(torch.nn.ModuleDict({"hidden_dropout": torch.nn.Dropout(0.1)}))
        >>> str(caught[0].message)[:40]
        'dropout is active (hidden_dropout=0.1), '
    """
    modules: dict[str, float] = {}
    settings: dict[str, float] = {}
    for path, module in model.named_modules():
        if isinstance(module, torch.nn.Dropout) and module.p > 0:
            modules["lora_dropout" if "lora_dropout" in path else path.rpartition(".")[2]] = module.p
        for name in _FUNCTIONAL:
            value = getattr(module, name, 0.0)
            if isinstance(value, float) and value > 0:
                settings[name] = value
    active = modules | settings
    if not active:
        return
    cures = ["set lora_dropout=0.0 in the LoraConfig"] if "lora_dropout" in modules else []
    cures += ["set disable_dropout=True"] if modules.keys() - {"lora_dropout"} else []
    cures += [f"load the model with {name}=0.0 (from_pretrained, or model_init_kwargs)" for name in settings]
    warnings.warn(
        f"dropout is active ({', '.join(f'{name}={p:g}' for name, p in active.items())}), so log-probabilities in "
        "training are those of a network with activations missing at random, and not of the policy that samples and "
        "is saved: "
        f"{', and '.join(cures)}.",
        stacklevel=4,
    )
