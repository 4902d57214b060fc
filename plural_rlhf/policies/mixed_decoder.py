"""Steering at decoding time: cluster policies that were trained already, mixed token by token under weights.

`K` experts read the same conversation, each from its own context: one model under K steering prompts
(`Steerer.contexts`), one model with K adapters, or K models. Every step mixes their next-token distributions, and all
continue with the token that was drawn. No training, and the weights may change with every call. This file knows
nothing of rewards.

| mode | next token | the whole answer then follows |
|---|---|---|
| `mixture` | `Σ_k γ_k(y_<t) p_k(y_t given y_<t)` | exactly `Σ_k w_k p_k(y)`, the population |
| `log_linear` | `∝ Π_k p_k(y_t given y_<t)^{w_k}` | a consensus; what one expert rules out is out |

In a mixture γ is the posterior of who is speaking, `γ_k(y_<t) ∝ w_k Π_{s<t} p_k(y_s given y_<s)`. With fixed weights
in its place one answer would change speakers between tokens, and say what no cluster says.

The log-linear combination of experts is the product of experts of decoding-time alignment (PAD, Chen et al.,
https://arxiv.org/abs/2410.04070; MOD; for its robust choice of weights see Robust Multi-Objective Decoding,
https://arxiv.org/abs/2503.08796). It is normalised at every token, so the answer's distribution is near the log pool
`Π_k p_k(y)^{w_k}`, not equal to it: what a token leads to is not looked ahead to.

Shapes: `S` sequences, `K` experts, `V` vocabulary.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import Tensor

from plural_rlhf.policies.answers import encode_prompt
from plural_rlhf.policies.steerer import Prompt, end_tokens, is_one_each
from reward_models.errors import JuryError, did_you_mean
from reward_models.jury.inference import evaluating
from reward_models.weights import WeightSpec, parse_weights


if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

__all__ = ["MODES", "Decoded", "MixedDecoder", "Mode", "mix_experts", "posterior_step"]

Mode = Literal["mixture", "log_linear"]
MODES = ("mixture", "log_linear")


def mix_experts(log_p: Tensor, log_weights: Tensor, mode: Mode) -> Tensor:
    """The next token's distribution.

    Args:
        log_p: Each expert's next-token log-probabilities, `(..., K, V)`.
        log_weights: `(..., K)`, normalised: in a mixture the posterior so far, else the weights.
        mode: See the module.

    Returns:
        `(..., V)` log-probabilities, normalised.
    """
    if mode == "mixture":
        return torch.logsumexp(log_weights[..., None] + log_p, dim=-2)
    w = log_weights.exp()[..., None]
    # An expert of weight 0 has no say, not even where it rules a token out (0 · −∞).
    return torch.where(w > 0, w * log_p, 0.0).sum(dim=-2).log_softmax(dim=-1)


def posterior_step(log_weights: Tensor, log_p_chosen: Tensor) -> Tensor:
    """Bayes' rule after a token: `(..., K)` log-posterior of the speaker, from the experts' log p of that token."""
    return (log_weights + log_p_chosen).log_softmax(dim=-1)


@dataclass(frozen=True)
class Decoded:
    """One answer.

    Attributes:
        text: Without special tokens.
        token_ids: Up to the end token, which is missing where the answer was cut off.
        log_prob: Of the tokens under the mixed distribution they were drawn from, in nats.
        posterior: `(K,)` who said it: the share of each expert in this answer's probability, `w_k p_k(y)` normalised.
    """

    text: str
    token_ids: list[int]
    log_prob: float
    posterior: np.ndarray


class MixedDecoder:
    """Samples answers from a mix of K experts.

    Args:
        models: One model that reads all contexts as a batch, or `K` models with one vocabulary, one for each context.
        tokenizer: Theirs.
        mode: `"mixture"` or `"log_linear"`, see the module.
        adapters: With one PEFT model, the adapter of each expert (`"__base__"` for none).
        chat_template_kwargs: What the chat template was given in training, beside the conversation.
        cluster_names: `K` names of the experts, for weights by name; those of the adapters if there are any.
        prevalence: `(K,)` what the weights `"prevalence"` are.

    Raises:
        JuryError: An unknown mode, or adapters with several models.

    Example:
        decoder = MixedDecoder(steerer.model, steerer.tokenizer, cluster_names=steerer.cluster_names)
        decoder.generate([steerer.contexts("Which?")], {"urban": 7, "rural": 5})
    """

    def __init__(
        self,
        models: PreTrainedModel | Sequence[PreTrainedModel],
        tokenizer: PreTrainedTokenizerBase,
        mode: Mode = "mixture",
        *,
        adapters: Sequence[str] | None = None,
        chat_template_kwargs: Mapping[str, Any] | None = None,
        cluster_names: Sequence[str] | None = None,
        prevalence: Sequence[float] | np.ndarray | None = None,
    ) -> None:
        if mode not in MODES:
            raise JuryError(f"mode is {mode!r}.{did_you_mean(mode, MODES)} It is 'mixture' or 'log_linear'.")
        self.models: list[PreTrainedModel] = [models] if isinstance(models, torch.nn.Module) else list(models)
        if adapters is not None and len(self.models) > 1:
            raise JuryError(
                f"{len(adapters)} adapters for {len(self.models)} models: adapters are experts of one model. Give "
                "that one model, or the models alone."
            )
        self.tokenizer = tokenizer
        self.mode = mode
        self.adapters = None if adapters is None else list(adapters)
        self.chat_template_kwargs = chat_template_kwargs
        self.cluster_names = self.adapters if cluster_names is None else list(cluster_names)
        self.prevalence = None if prevalence is None else np.asarray(prevalence, dtype=np.float64)

    @torch.no_grad()
    def generate(
        self,
        contexts: Sequence[Sequence[Prompt]],
        weights: WeightSpec | Sequence[WeightSpec],
        *,
        num_return_sequences: int = 1,
        max_new_tokens: int = 128,
        generator: torch.Generator | None = None,
    ) -> list[Decoded]:
        """Draws answers.

        Args:
            contexts: For each question, the prompt of each of the `K` experts.
            weights: See `WeightSpec`; one for all, or a list with one a question.
            num_return_sequences: Answers a question; the contexts are read once for all of them.
            max_new_tokens: Where an answer is cut off.
            generator: Of the draws, on the device of the (first) model; torch's own by default.

        Returns:
            `num_return_sequences` answers to the first question, then to the next.

        Raises:
            JuryError: Numbers of experts that disagree, weights that cannot be used (see `parse_weights`), names of
                clusters where the experts have none, or another number of weights than questions.
        """
        log_weights = self._log_weights(contexts, weights).repeat_interleave(num_return_sequences, dim=0)  # (S, K)
        ends = log_weights.new_tensor(end_tokens(self.models[0], self.tokenizer), dtype=torch.int64)
        log_posterior, total = log_weights, log_weights.new_zeros(len(log_weights))
        open_ = log_weights.new_ones(len(log_weights), dtype=torch.bool)
        drawn: list[Tensor] = []
        with ExitStack() as stack:
            for model in self.models:
                stack.enter_context(evaluating(model))
            readers = self._readers(contexts, num_return_sequences)
            tokens: Tensor | None = None
            for _ in range(max_new_tokens):
                log_p = torch.cat([reader.read(tokens).to(total.device) for reader in readers], dim=1)  # (S, K, V)
                mixed = mix_experts(log_p, log_posterior if self.mode == "mixture" else log_weights, self.mode)
                tokens = torch.multinomial(mixed.exp(), 1, generator=generator)  # (S, 1)
                chosen = log_p.gather(-1, tokens[:, None].expand(-1, log_p.shape[1], 1))[..., 0]
                log_posterior = torch.where(open_[:, None], posterior_step(log_posterior, chosen), log_posterior)
                total += torch.where(open_, mixed.gather(-1, tokens)[:, 0], 0.0)
                drawn.append(torch.where(open_, tokens[:, 0], -1))
                open_ = open_ & ~torch.isin(tokens[:, 0], ends)
                if not open_.any():
                    break
        answers = [[token for token in row if token >= 0] for row in torch.stack(drawn, dim=1).tolist()]
        texts = self.tokenizer.batch_decode(answers, skip_special_tokens=True)
        said = zip(texts, answers, total.tolist(), log_posterior.exp().cpu().numpy(), strict=True)
        return [Decoded(*answer) for answer in said]

    def _log_weights(self, contexts: Sequence[Sequence[Prompt]], weights: WeightSpec | Sequence[WeightSpec]) -> Tensor:
        experts = {"contexts a question": {len(row) for row in contexts}}
        if len(self.models) > 1:
            experts["models"] = {len(self.models)}
        if self.adapters is not None:
            experts["adapters"] = {len(self.adapters)}
        if self.cluster_names is not None:
            experts["cluster_names"] = {len(self.cluster_names)}
        if not contexts or len(set.union(*experts.values())) > 1:
            said = ", ".join(f"{sorted(found)} {what}" for what, found in experts.items())
            raise JuryError(f"the numbers of experts disagree: {said}. Give one of each for every expert.")
        specs: list[Any] = list(weights) if is_one_each(weights) else [weights] * len(contexts)
        if len(specs) != len(contexts):
            raise JuryError(
                f"{len(specs)} weights for {len(contexts)} questions: give one for all, or one a question."
            )
        rows = np.stack([self._weights(spec, len(contexts[0])) for spec in specs]).astype(np.float32)
        return torch.from_numpy(rows).to(self.models[0].device).log()

    def _weights(self, spec: WeightSpec, k: int) -> np.ndarray:
        if isinstance(spec, str) and spec == "prevalence":
            if self.prevalence is None:
                raise JuryError(
                    "the weights are 'prevalence', which a decoder does not know of itself: give "
                    "MixedDecoder(..., prevalence=steerer.prevalence), or the numbers."
                )
            spec = self.prevalence
        names = self.cluster_names
        if names is None:
            if isinstance(spec, Mapping) or (isinstance(spec, str) and spec != "uniform"):
                raise JuryError(
                    f"the weights are {spec!r}, but the experts have no names: give "
                    "MixedDecoder(..., cluster_names=steerer.cluster_names), or a number for each expert."
                )
            names = [f"expert {n}" for n in range(1, k + 1)]
        return parse_weights(spec, names, np.full(k, 1 / k))

    def _readers(self, contexts: Sequence[Sequence[Prompt]], copies: int) -> list[_Reader]:
        encoded = [
            [encode_prompt(prompt, self.tokenizer, self.chat_template_kwargs) for prompt in row] for row in contexts
        ]
        if len(self.models) > 1:
            columns = [[[row[k]] for row in encoded] for k in range(len(self.models))]
            return [
                _Reader(model, column, copies, self.tokenizer, None)
                for model, column in zip(self.models, columns, strict=True)
            ]
        return [_Reader(self.models[0], encoded, copies, self.tokenizer, self.adapters)]


class _Reader:
    """One model that reads the contexts of `k` experts for `S` sequences, with a cache, a token at a time.

    Its batch is ordered by question, then expert, then copy, so that the cache of each context is repeated in place.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        contexts: list[list[list[int]]],
        copies: int,
        tokenizer: PreTrainedTokenizerBase,
        adapters: list[str] | None,
    ) -> None:
        self.model, self.copies = model, copies
        self.n_questions, self.k = len(contexts), len(contexts[0])
        rows = [context for question in contexts for context in question]
        padded = tokenizer.pad({"input_ids": rows}, padding_side="left", return_tensors="pt").to(model.device)
        self._ids, self._mask = padded["input_ids"], padded["attention_mask"]
        self._adapters = None if adapters is None else adapters * self.n_questions
        self._cache: Any = None

    def read(self, tokens: Tensor | None) -> Tensor:
        """Log-probabilities of the next token, `(S, k, V)` float32, after all have read on with `tokens` (S, 1).

        The first time there are none, and the contexts themselves are read.
        """
        if tokens is not None:
            by_question = tokens.view(self.n_questions, 1, self.copies).expand(-1, self.k, -1)
            self._ids = by_question.reshape(-1, 1).to(self._mask.device)
            self._mask = torch.cat([self._mask, self._mask.new_ones(len(self._mask), 1)], dim=1)
        positions = (self._mask.cumsum(-1) - 1).clamp(min=0)[:, -self._ids.shape[1] :]
        more = {} if self._adapters is None else {"adapter_names": self._adapters}
        out = self.model(
            input_ids=self._ids,
            attention_mask=self._mask,
            position_ids=positions,
            past_key_values=self._cache,
            use_cache=True,
            logits_to_keep=1,
            **more,
        )
        log_p = out.logits[:, -1].float().log_softmax(-1)
        self._cache = out.past_key_values
        if tokens is None and self.copies > 1:
            self._cache.batch_repeat_interleave(self.copies)
            self._mask = self._mask.repeat_interleave(self.copies, dim=0)
            log_p = log_p.repeat_interleave(self.copies, dim=0)
            if self._adapters is not None:
                self._adapters = [name for name in self._adapters for _ in range(self.copies)]
        return log_p.view(self.n_questions, self.k, self.copies, -1).transpose(1, 2).flatten(0, 1)
