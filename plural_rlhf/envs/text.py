"""`JuryText`: an answer written token by token, scored by K rater clusters when it ends.

Any object that encodes, decodes and knows its end token serves as tokenizer, and any `ClusterScorer` as scorer. Knows
nothing of language models: the caller chooses the tokens.

Shapes: `K` clusters, `V` tokens of the vocabulary, `L` tokens of the longest prompt, `T` tokens of an answer at most.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from gymnasium.error import InvalidAction
from gymnasium.spaces import Box, Dict, Discrete

from plural_rlhf.weights.wording import TRLPrompt
from reward_models.errors import JuryError, renamed_arguments
from reward_models.weights import WeightSpec

from .base import JuryEnv, load_scorer
from .number_jury import PROMPT, DigitTokenizer, NumberJury


if TYPE_CHECKING:
    from reward_models.jury.protocol import ClusterScorer

__all__ = ["JuryText", "Tokenizer"]


class Tokenizer(Protocol):
    """Text to token numbers and back; every tokenizer of transformers fits, and so does `DigitTokenizer`.

    Example:
        >>> DigitTokenizer().encode("42")
        [4, 2]
    """

    def encode(self, text: str, /) -> list[int]:
        """Token numbers of a text."""
        ...

    def decode(self, token_ids: Sequence[int], /) -> str:
        """Text of token numbers."""
        ...


class JuryText(JuryEnv[dict[str, Any]]):
    """Write an answer to a prompt, one token per step; the last step returns a reward per rater cluster.

    Observation: `prompt` (L,) and `answer` (T,), token numbers filled up with V, one past the last token, so that an
    embedding of V + 1 rows reads them as they are. Action: the next token. The episode terminates with the end token
    and is truncated after T tokens without one; the text is scored in both cases, and every reward before is 0. The
    last `info` holds `text`, the text that was scored.

    Args:
        scorer: A saved jury reward model (path or hub id), or anything with `cluster_names`, `prevalence` and
            `cluster_rewards`. By default that of `number_jury`, with its prompt and digits as tokens.
        prompts: Texts, or conversations (they need a tokenizer with a chat template).
        tokenizer: Any object with `encode` and `decode`.
        max_tokens: T, the end token included.
        eos_token_id: The end token; default: `tokenizer.eos_token_id`.
        num_tokens: V; default: `len(tokenizer)`.
        weights: Default weights over the clusters; only `ScalarisedReward` uses them, not the reward vector.
        render_mode: `"ansi"`, or None.

    Raises:
        JuryError: If a scorer is given without prompts or a tokenizer, there is no end token, or see `JuryEnv`.
        ValueError: If `max_tokens` or `render_mode` is out of range.

    Example:
        >>> env = JuryText()  # tokens are the digits 0 to 9, and 10 ends the answer
        >>> observation, info = env.reset(seed=0)
        >>> env.step(7)[1:3]
        (array([0., 0., 0.], dtype=float32), False)
        >>> env.step(10)[1:3]
        (array([0., 8., 0.], dtype=float32), True)
    """

    @renamed_arguments(jury="scorer")
    def __init__(
        self,
        scorer: str | Path | ClusterScorer | None = None,
        prompts: Sequence[TRLPrompt] | None = None,
        tokenizer: Any = None,
        *,
        max_tokens: int = 32,
        eos_token_id: int | None = None,
        num_tokens: int | None = None,
        weights: WeightSpec = "prevalence",
        render_mode: str | None = None,
    ) -> None:
        if scorer is None:
            scorer, prompts, tokenizer = NumberJury(), prompts or [PROMPT], tokenizer or DigitTokenizer()
        elif prompts is None or tokenizer is None:
            missing = "prompts" if prompts is None else "tokenizer"
            raise JuryError(f"{missing}: got None; a scorer of your own needs prompts and a tokenizer of your own")
        if max_tokens < 1:
            raise ValueError(f"max_tokens: got {max_tokens}; an answer has at least one token, the end token")
        self.scorer = load_scorer(scorer)
        super().__init__(
            prompts, self.scorer.cluster_names, self.scorer.prevalence, weights, (-np.inf, np.inf), render_mode
        )
        self.tokenizer: Tokenizer = tokenizer
        self.max_tokens = max_tokens
        self.num_tokens: int = len(tokenizer) if num_tokens is None else num_tokens
        self.eos_token_id: int = tokenizer.eos_token_id if eos_token_id is None else eos_token_id
        if self.eos_token_id is None or not 0 <= self.eos_token_id < self.num_tokens:
            raise JuryError(
                f"eos_token_id: got {self.eos_token_id} with {self.num_tokens} tokens, so no answer could end: give "
                "the number of the end token"
            )
        ids = [self._encode(prompt) for prompt in self.prompts]
        # At least one column, because a prompt may have no token (digits only, or an empty template).
        self._prompt_ids = np.full((len(ids), max(1, *map(len, ids))), self.num_tokens, dtype=np.int64)
        for row, tokens in zip(self._prompt_ids, ids, strict=True):
            row[: len(tokens)] = tokens
        self.action_space = Discrete(self.num_tokens)
        self.observation_space = Dict(
            {
                "prompt": Box(0, self.num_tokens, (self._prompt_ids.shape[1],), dtype=np.int64),
                "answer": Box(0, self.num_tokens, (max_tokens,), dtype=np.int64),
            }
        )
        self._tokens: list[int] = []

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Start an answer; see `JuryEnv` for the options.

        Returns:
            The observation, and `info` with `prompt` and `weights` (K,).

        Raises:
            JuryError: If an option is unknown or cannot be used.
        """
        self._start(seed, options)
        self._tokens = []
        return self._observe(), self._info()

    def step(self, action: np.int64 | int) -> tuple[dict[str, np.ndarray], np.ndarray, bool, bool, dict[str, Any]]:
        """Append one token.

        Returns:
            The observation, the rewards (K,) float32 in logits (zeros before the end), whether the end token came,
            whether the answer was cut off at `max_tokens`, and `info`.

        Raises:
            gymnasium.error.ResetNeeded: If the episode is over.
            gymnasium.error.InvalidAction: If the action is not a token.
        """
        self._refuse_if_over()
        if not self.action_space.contains(action):
            raise InvalidAction(f"action: got {action!r}; give the number of a token, 0 to {self.num_tokens - 1}")
        self._tokens.append(int(action))
        terminated = self._tokens[-1] == self.eos_token_id
        truncated = not terminated and len(self._tokens) == self.max_tokens
        if not (terminated or truncated):
            return self._observe(), np.zeros(self.reward_dim, dtype=np.float32), False, False, self._info()
        prompt, text = self.prompts[self._prompt], self._text()
        answer = text if isinstance(prompt, str) else [{"role": "assistant", "content": text}]
        verdict = self.scorer.cluster_rewards([prompt], [answer])[0].numpy()
        return self._observe(), self._end(verdict, text), terminated, truncated, {**self._info(), "text": text}

    def render(self) -> str | None:
        """Write the episode so far: prompt, answer, and weight and reward of each cluster; None without a mode."""
        self._response = self._text()
        return super().render()

    def _text(self) -> str:
        return self.tokenizer.decode([token for token in self._tokens if token != self.eos_token_id])

    def _encode(self, prompt: TRLPrompt) -> list[int]:
        if isinstance(prompt, str):
            return list(self.tokenizer.encode(prompt))
        tokenizer: Any = self.tokenizer  # only tokenizers of transformers have chat templates
        text = tokenizer.apply_chat_template(prompt, tokenize=False, add_generation_prompt=True)
        return list(tokenizer.encode(text, add_special_tokens=False))

    def _observe(self) -> dict[str, np.ndarray]:
        answer = np.full(self.max_tokens, self.num_tokens, dtype=np.int64)
        answer[: len(self._tokens)] = self._tokens
        return {"prompt": self._prompt_ids[self._prompt].copy(), "answer": answer}
