"""Several language models under evaluation as one that is steered by decoding: `policies.mixed_decoder` under weights.

In a mixture whole answers have the probability `Σ_k w_k p_k(y)`, which is known. The log-linear combination is
normalised token by token, so that only its texts can be had.

Shapes: `A` options, `K` experts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from scipy.special import logsumexp

from plural_rlhf.policies.mixed_decoder import MixedDecoder, MixingMode
from plural_rlhf.suites.models.causal_lm import SEQUENCES, CausalLM
from plural_rlhf.suites.models.loading import load_causal_lm
from plural_rlhf.suites.models.protocol import EvaluatedModel, NotSupported, OptionRequest, TextSettings
from reward_models.content_hashes import value_hash
from reward_models.seeds import derived_seed
from reward_models.weights import WeightSpec, parse_weights


if TYPE_CHECKING:
    from plural_rlhf.weights.wording import TRLPrompt

__all__ = ["MixedLM", "load_mixed"]


class MixedLM(EvaluatedModel):
    """Experts that write one answer together, under weights.

    Args:
        name: What the report calls it.
        experts: The `K` experts by name, with one vocabulary and one way of being asked.
        weights: Weights of the experts: `uniform`, a name, or seats by name.
        mode: `"mixture"` or `"log_linear"`; see `MixedDecoder`.

    Raises:
        JuryError: Weights that cannot be used, or an unknown mode.
        ValueError: Fewer than two experts, other vocabularies, or some with a chat template and some without.

    Example:
        >>> from plural_rlhf.policies.base_models import tiny_causal_lm, tiny_tokenizer
        >>> experts = {name: CausalLM(name, tiny_causal_lm(), tiny_tokenizer()) for name in ("urban", "rural")}
        >>> mixed = MixedLM("both", experts, {"urban": 3, "rural": 1})
        >>> mixed.weights.tolist()
        [0.75, 0.25]
        >>> len(mixed.sample(["Parks or roads?"], 2, max_new_tokens=4)[0])
        2
    """

    kind = "mixed"

    def __init__(
        self, name: str, experts: Mapping[str, CausalLM], weights: WeightSpec, mode: MixingMode = "mixture"
    ) -> None:
        models = list(experts.values())
        if len(models) < 2:
            raise ValueError(f"{name}: {len(models)} expert cannot be mixed. Fix: give two or more")
        vocabularies = [model.tokenizer.get_vocab() for model in models]
        if any(vocabulary != vocabularies[0] for vocabulary in vocabularies):
            raise ValueError(
                f"{name}: the experts {', '.join(experts)} have different vocabularies, whose tokens cannot be "
                "mixed. Fix: give models that were trained from one base model"
            )
        if len({model.chat for model in models}) > 1:
            raise ValueError(f"{name}: some experts have a chat template and some have none. Fix: set chat to false")
        self.name, self.mode, self.experts = name, mode, models
        self.weights = parse_weights(weights, list(experts), np.full(len(models), 1 / len(models)))
        self.batch_size = models[0].batch_size
        self.identity = value_hash([[model.identity for model in models], self.weights.tolist(), mode])[:24]
        tokenizer = models[0].tokenizer
        if tokenizer.pad_token_id is None:
            tokenizer.pad_token = tokenizer.eos_token
        self._decoder = MixedDecoder([model.model for model in models], tokenizer, mode)

    def option_log_probs(self, requests: Sequence[OptionRequest]) -> list[np.ndarray]:
        """Return the log-probability of each whole answer in the mixture, `log Σ_k w_k p_k(y)`: `(A,)` per request.

        Raises:
            NotSupported: The experts are not a mixture.
        """
        if self.mode != "mixture":
            raise NotSupported(
                f"{self.name}: probabilities of whole answers are known of mode mixture, not of {self.mode}. Use "
                "scoring: sampling"
            )
        used = [(weight, model) for weight, model in zip(self.weights, self.experts, strict=True) if weight > 0]
        by_expert = [model.option_log_probs(requests) for _, model in used]
        log_weights = np.log([weight for weight, _ in used])[:, None]
        return [logsumexp(log_weights + np.stack(rows), axis=0) for rows in zip(*by_expert, strict=True)]

    def write_texts(self, prompts: Sequence[str], n: int, settings: TextSettings) -> list[list[str]]:
        """Sample texts from the mix.

        Raises:
            NotSupported: A temperature other than 1.
        """
        if settings.temperature != 1:
            raise NotSupported(f"{self.name}: mixed models are sampled at temperature 1, not {settings.temperature}")
        chat, k = self.experts[0].chat, len(self.experts)
        shown: list[TRLPrompt] = [[{"role": "user", "content": prompt}] if chat else prompt for prompt in prompts]
        generator = torch.Generator(self.experts[0].model.device)
        generator.manual_seed(derived_seed(settings.seed, "texts of mixed models of a suite"))
        texts: list[str] = []
        at_once = max(1, SEQUENCES // n)
        for start in range(0, len(shown), at_once):
            decoded = self._decoder.generate(
                [[prompt] * k for prompt in shown[start : start + at_once]],
                self.weights,
                num_return_sequences=n,
                max_new_tokens=settings.max_new_tokens,
                generator=generator,
            )
            texts += [answer.text for answer in decoded]
        return [texts[i * n : (i + 1) * n] for i in range(len(prompts))]


def load_mixed(
    paths: Mapping[str, str | Path],
    weights: WeightSpec,
    *,
    name: str | None = None,
    mode: MixingMode = "mixture",
    chat: bool | None = None,
    batch_size: int = 16,
    cache_dir: str | Path = ".cache/models",
) -> MixedLM:
    """Load experts for an evaluation; all of them are in memory together.

    Args:
        paths: Folder or hub id of each expert, by name; a model or a PEFT adapter.
        weights: As for `MixedLM`.
        name: What the report calls it; the names of the experts if None.
        mode: As for `MixedLM`.
        chat: Whether prompts go through the chat template; None: if there is one.
        batch_size: Prompts per forward pass.
        cache_dir: Folder of converted models, for `smollm2-135m` and `tiny`.

    Raises:
        FileNotFoundError: There is no such folder, or it holds no model.
        JuryError: Weights that cannot be used.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as cache:
        ...     mixed = load_mixed({"a": "tiny", "b": "tiny"}, {"a": 1, "b": 1}, cache_dir=cache)
        >>> mixed.name, mixed.kind
        ('a + b', 'mixed')
    """
    experts = {
        expert: load_causal_lm(path, name=expert, chat=chat, batch_size=batch_size, cache_dir=cache_dir)
        for expert, path in paths.items()
    }
    return MixedLM(" + ".join(paths) if name is None else name, experts, weights, mode)
