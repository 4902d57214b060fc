"""Mix trained cluster policies token by token at decoding time, under weights.

`K` experts read the same conversation, each from its own context: one model under K steering prompts
(`Steerer.contexts`), one model with K adapters, or K models. Every step mixes their next-token distributions, and all
continue with the token that was drawn. It needs no training, and the weights may change with every call. Knows nothing
of rewards.

| mode | next token | distribution of the whole answer |
|---|---|---|
| `mixture` | `Σ_k γ_k(y_<t) p_k(y_t given y_<t)` | exactly `Σ_k w_k p_k(y)`, the population |
| `log_linear` | `∝ Π_k p_k(y_t given y_<t)^{w_k}` | a consensus; a token that one expert rules out is excluded |

In a mixture γ is the posterior over experts, `γ_k(y_<t) ∝ w_k Π_{s<t} p_k(y_s given y_<s)`. With fixed weights
instead, an answer could switch experts between tokens and become one that no cluster gives.

The log-linear combination of experts is the product of experts of decoding-time alignment (PAD, Chen et al.,
https://arxiv.org/abs/2410.04070; MOD; for its robust choice of weights see Robust Multi-Objective Decoding,
https://arxiv.org/abs/2503.08796). It is normalised at every token, so the answer's distribution is near the log pool
`Π_k p_k(y)^{w_k}`, not equal to it: a token's continuations are not taken into account.

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
from plural_rlhf.policies.steerer import end_tokens, is_one_per_prompt
from plural_rlhf.weights.wording import TRLPrompt
from reward_models.errors import JuryError, did_you_mean
from reward_models.inference import evaluating
from reward_models.weights import WeightSpec, parse_weights


if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

__all__ = ["MIXING_MODES", "Decoded", "MixedDecoder", "MixingMode", "mix_experts", "posterior_step"]

MixingMode = Literal["mixture", "log_linear"]
MIXING_MODES = ("mixture", "log_linear")


def mix_experts(log_p: Tensor, log_weights: Tensor, mode: MixingMode) -> Tensor:
    """Mix the experts' distributions of the next token.

    Args:
        log_p: Each expert's next-token log-probabilities, `(..., K, V)`.
        log_weights: `(..., K)`, normalised: in a mixture the posterior so far, else the weights.
        mode: See the module.

    Returns:
        `(..., V)` log-probabilities, normalised.

    Example:
        >>> log_p, log_weights = torch.tensor([[0.9, 0.1], [0.1, 0.9]]).log(), torch.tensor([0.75, 0.25]).log()
        >>> mix_experts(log_p, log_weights, "mixture").exp()
        tensor([0.7000, 0.3000])
        >>> mix_experts(log_p, log_weights, "log_linear").exp()  # odds (9 / 1)^.75 · (1 / 9)^.25 = 3
        tensor([0.7500, 0.2500])
    """
    if mode == "mixture":
        return torch.logsumexp(log_weights[..., None] + log_p, dim=-2)
    w = log_weights.exp()[..., None]
    # An expert of weight 0 is ignored, even where its probability of a token is 0 (0 · −∞).
    return torch.where(w > 0, w * log_p, 0.0).sum(dim=-2).log_softmax(dim=-1)


def posterior_step(log_weights: Tensor, log_p_chosen: Tensor) -> Tensor:
    """Update the log-posterior over experts `(..., K)` by Bayes' rule, from their log-probabilities of a token.

    Example:
        >>> posterior_step(torch.tensor([0.5, 0.5]).log(), torch.tensor([0.9, 0.1]).log()).exp()
        tensor([0.9000, 0.1000])
    """
    return (log_weights + log_p_chosen).log_softmax(dim=-1)


@dataclass(frozen=True)
class Decoded:
    """One sampled answer; see `MixedDecoder.generate`.

    Attributes:
        text: The answer without special tokens.
        token_ids: Its tokens up to the end token; an answer that was cut off has none.
        log_prob: Log-probability of the tokens under the mixed distribution, in nats.
        posterior: `(K,)` share of each expert in this answer's probability, `w_k p_k(y)` normalised.

    Example:
        >>> from plural_rlhf.policies.base_models import tiny_causal_lm, tiny_tokenizer
        >>> decoder = MixedDecoder(tiny_causal_lm(), tiny_tokenizer())
        >>> [answer] = decoder.generate([["Parks?", "Parks?"]], [0.75, 0.25], max_new_tokens=4)
        >>> answer.posterior.round(3).tolist()  # equal experts: a token is no evidence for either
        [0.75, 0.25]
    """

    text: str
    token_ids: list[int]
    log_prob: float
    posterior: np.ndarray


class MixedDecoder:
    """Sample answers from a mix of K experts.

    Args:
        models: One model that reads all contexts as a batch, or `K` models with one vocabulary, one for each context.
        tokenizer: The tokenizer of the models.
        mode: `"mixture"` or `"log_linear"`, see the module.
        adapters: With one PEFT model, the adapter of each expert (`"__base__"` for none).
        chat_template_kwargs: Arguments of the chat template in training, other than the conversation.
        cluster_names: `K` names of the experts, for weights by name; default: the names of the adapters, if any.
        prevalence: `(K,)` the meaning of the weights `"prevalence"`.

    Raises:
        JuryError: If the mode is unknown, or adapters are given with several models.

    Example:
        >>> from plural_rlhf.policies.base_models import tiny_causal_lm, tiny_tokenizer
        >>> decoder = MixedDecoder(tiny_causal_lm(), tiny_tokenizer(), cluster_names=["urban", "rural"])
        >>> contexts = ["As a citizen: parks?", "As a farmer: parks?"]  # or those of `Steerer.contexts`
        >>> [answer] = decoder.generate([contexts], {"urban": 7, "rural": 5}, max_new_tokens=4)
        >>> len(answer.token_ids), round(float(answer.posterior.sum()), 3)
        (4, 1.0)
    """

    def __init__(
        self,
        models: PreTrainedModel | Sequence[PreTrainedModel],
        tokenizer: PreTrainedTokenizerBase,
        mode: MixingMode = "mixture",
        *,
        adapters: Sequence[str] | None = None,
        chat_template_kwargs: Mapping[str, Any] | None = None,
        cluster_names: Sequence[str] | None = None,
        prevalence: Sequence[float] | np.ndarray | None = None,
    ) -> None:
        if mode not in MIXING_MODES:
            raise JuryError(f"mode is {mode!r}.{did_you_mean(mode, MIXING_MODES)} It is 'mixture' or 'log_linear'.")
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
        contexts: Sequence[Sequence[TRLPrompt]],
        weights: WeightSpec | Sequence[WeightSpec],
        *,
        num_return_sequences: int = 1,
        max_new_tokens: int = 128,
        generator: torch.Generator | None = None,
    ) -> list[Decoded]:
        """Sample answers.

        Args:
            contexts: For each question, the prompt of each of the `K` experts.
            weights: See `WeightSpec`; one for all, or a list with one per question.
            num_return_sequences: Answers per question; the contexts are read once for all of them.
            max_new_tokens: Length at which an answer is cut off.
            generator: Random generator, on the device of the (first) model; torch's own by default.

        Returns:
            `num_return_sequences` answers to the first question, then to the next.

        Raises:
            JuryError: If the numbers of experts differ, weights cannot be used (see `parse_weights`), clusters are
                named but the experts have no names, or the numbers of weights and questions differ.
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
        rows = zip(texts, answers, total.tolist(), log_posterior.exp().cpu().numpy(), strict=True)
        return [Decoded(*row) for row in rows]

    def _log_weights(
        self, contexts: Sequence[Sequence[TRLPrompt]], weights: WeightSpec | Sequence[WeightSpec]
    ) -> Tensor:
        experts = {"contexts per question": {len(row) for row in contexts}}
        if len(self.models) > 1:
            experts["models"] = {len(self.models)}
        if self.adapters is not None:
            experts["adapters"] = {len(self.adapters)}
        if self.cluster_names is not None:
            experts["cluster_names"] = {len(self.cluster_names)}
        if not contexts or len(set.union(*experts.values())) > 1:
            numbers = ", ".join(f"{sorted(counts)} {name}" for name, counts in experts.items())
            raise JuryError(f"the numbers of experts disagree: {numbers}. Give one of each for every expert.")
        specs: list[Any] = list(weights) if is_one_per_prompt(weights) else [weights] * len(contexts)
        if len(specs) != len(contexts):
            raise JuryError(
                f"{len(specs)} weights for {len(contexts)} questions: give one for all, or one per question."
            )
        rows = np.stack([self._weights(spec, len(contexts[0])) for spec in specs]).astype(np.float32)
        return torch.from_numpy(rows).to(self.models[0].device).log()

    def _weights(self, spec: WeightSpec, k: int) -> np.ndarray:
        if isinstance(spec, str) and spec == "prevalence":
            if self.prevalence is None:
                raise JuryError(
                    "the weights are 'prevalence', which this decoder was not given: pass "
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

    def _readers(self, contexts: Sequence[Sequence[TRLPrompt]], copies: int) -> list[_Reader]:
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
    """One model that reads the contexts of `k` experts for `S` sequences, one token at a time, with a cache.

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
        """Read `tokens` (S, 1) and return the log-probabilities of the next token, `(S, k, V)` float32.

        The first call has no tokens and reads the contexts.
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
