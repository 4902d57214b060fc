"""Validate sampling settings: samples must come from the distribution of the model itself.

Sampling is set in four places: the fields of the configuration, its `generation_kwargs`, the engine, and the
generation_config in the folder of a model, which transformers reads for settings that the others leave open. Knows
nothing of rewards or targets.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any


if TYPE_CHECKING:
    from transformers import GenerationConfig
    from trl import GRPOConfig

__all__ = ["check_model_sampling", "check_sampling"]

# Values that change nothing, the simplest first. `top_k=None` is no such value: transformers then uses 50.
_FIELDS: dict[str, Sequence[Any]] = {
    "temperature": (1.0,),
    "top_p": (1.0,),
    "top_k": (0,),
    "min_p": (None, 0.0),
    "repetition_penalty": (1.0,),
    "vllm_structured_outputs_regex": (None,),
}
# Of `GenerationConfig` and of vLLM's `SamplingParams`.
_KEYWORDS: dict[str, Sequence[Any]] = {
    "temperature": (1.0,),
    "top_p": (1.0,),
    "top_k": (0, -1),
    "min_p": (0.0, None),
    "repetition_penalty": (1.0,),
    "do_sample": (True,),
    **dict.fromkeys(("num_beams", "num_beam_groups", "num_return_sequences", "n", "best_of"), (1, None)),
    **dict.fromkeys(("typical_p", "encoder_repetition_penalty", "guidance_scale"), (1.0, None)),
    **dict.fromkeys(("epsilon_cutoff", "eta_cutoff", "diversity_penalty", "penalty_alpha"), (0.0, None)),
    **dict.fromkeys(("presence_penalty", "frequency_penalty"), (0.0, None)),
    **dict.fromkeys(("no_repeat_ngram_size", "encoder_no_repeat_ngram_size"), (0, None)),
    **dict.fromkeys(("min_length", "min_new_tokens", "min_tokens"), (0, None)),
    **dict.fromkeys(("ignore_eos", "token_healing"), (False, None)),
    **dict.fromkeys(("bad_words_ids", "bad_words", "suppress_tokens", "begin_suppress_tokens"), (None, [])),
    **dict.fromkeys(("forced_bos_token_id", "forced_eos_token_id", "allowed_token_ids"), (None,)),
    **dict.fromkeys(("top_h", "exponential_decay_length_penalty", "dola_layers", "sequence_bias"), (None,)),
    **dict.fromkeys(("logit_bias", "logits_processors", "structured_outputs", "watermarking_config"), (None,)),
    **dict.fromkeys(("constraints", "force_words_ids"), (None,)),
}


def check_sampling(config: GRPOConfig) -> None:
    """Raise if a setting makes samples differ from the policy's own distribution, wherever it is written.

    Raises:
        ValueError: States the setting, its value, and a value that changes nothing.

    Example:
        >>> from trl import GRPOConfig
        >>> check_sampling(GRPOConfig("out", temperature=0.7, bf16=False))
        Traceback (most recent call last):
        ValueError: temperature is 0.7, so samples would not come from the model ...: set temperature=1.0. ...
    """
    for name, allowed in _FIELDS.items():
        _refuse_unless(getattr(config, name), allowed, name, f"set {name}={allowed[0]}")
    keywords = config.generation_kwargs or {}
    for name in (name for name in keywords if name in _KEYWORDS):
        _refuse_unless(keywords[name], _KEYWORDS[name], f"generation_kwargs[{name!r}]", "leave it out")


def check_model_sampling(of_model: GenerationConfig, settings: Mapping[str, Any]) -> None:
    """Raise if the generation_config of a model changes the sampling.

    Args:
        of_model: The model's generation_config.
        settings: The trainer's own settings; those that are not None take precedence.

    Raises:
        ValueError: As `check_sampling`.

    Example:
        >>> from transformers import GenerationConfig
        >>> check_model_sampling(GenerationConfig(top_p=0.9), {"top_p": 1.0})
        >>> check_model_sampling(GenerationConfig(top_p=0.9), {})
        Traceback (most recent call last):
        ValueError: top_p in the generation_config of the model is 0.9, so samples would not come from the model ...
    """
    for name, allowed in _KEYWORDS.items():
        if settings.get(name) is None:
            plain = f"set generation_kwargs={{{name!r}: {allowed[0]}}}"
            fix = f"save the model without {name}" if allowed[0] is None else plain
            value = getattr(of_model, name, None)
            _refuse_unless(value, (*allowed, None), f"{name} in the generation_config of the model", fix)


def _refuse_unless(value: Any, allowed: Sequence[Any], name: str, fix: str) -> None:
    if value not in allowed:
        raise ValueError(
            f"{name} is {value!r}, so samples would not come from the model whose distribution is matched: {fix}. To "
            "flatten or sharpen the policy, change beta."
        )
