"""Log-probabilities of continuations under a causal language model, with the shared beginning computed once.

Hundreds of responses follow one question, and a rater's questions follow the same examples: the beginning is run once
and its keys and values are used for every continuation. Results may be kept on disk, so that a run that was stopped
goes on where it was. Knows nothing of judgements or raters.

Shapes: `G` beginnings, `n` continuations of one beginning.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from reward_models.borders import path_fault
from reward_models.errors import JuryError
from reward_models.inference import evaluating
from reward_models.jury.backbones.feature_cache import FeatureCache, row_key
from reward_models.progress import track


__all__ = ["Continuation", "LanguageModel"]

MAX_BEGINNING = 1024
MAX_CONTINUATION = 512
COLUMNS = 2  # log-probability and number of tokens


@dataclass(frozen=True)
class Continuation:
    r"""What follows a beginning, in two parts: what is only read, and what is scored.

    Attributes:
        given: Text that is read but not scored; may be empty.
        scored: Text whose log-probability is wanted.

    Example:
        >>> Continuation("Question: Tea?\nAnswer:", " yes").scored
        ' yes'
    """

    given: str
    scored: str


@dataclass
class LanguageModel:
    """A causal language model that scores continuations.

    Attributes:
        model: The model with its language modelling head; left on its device.
        tokenizer: Its tokenizer.
        batch_size: Continuations per forward pass.
        cache_dir: Folder of results that are kept; None: nothing is kept.

    Example:
        >>> from reward_models.jury.tiny import tiny_causal_lm, tiny_tokenizer
        >>> lm = LanguageModel(tiny_causal_lm(), tiny_tokenizer())
        >>> cities = [Continuation("", " the city"), Continuation("", " the country")]
        >>> [scores] = lm.score(["Which is best?"], [cities])
        >>> scores.shape, bool((scores[:, 0] < 0).all())  # log-probability and number of tokens of two continuations
        ((2, 2), True)
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    batch_size: int = 16
    cache_dir: str | Path | None = None

    @classmethod
    def from_pretrained(cls, path: str | Path, cache_dir: str | Path | None = None) -> LanguageModel:
        """Load a model with its head, in float32.

        Raises:
            JuryError: There is no causal language model at `path`.
        """
        from transformers import AutoModelForCausalLM, AutoTokenizer

        try:
            model = AutoModelForCausalLM.from_pretrained(str(path), dtype="float32", trust_remote_code=False)
            tokenizer = AutoTokenizer.from_pretrained(str(path), trust_remote_code=False)
        except (OSError, ValueError) as error:
            if fault := path_fault(path):
                raise JuryError(f"the language model cannot be loaded: {fault}.") from error
            raise JuryError(
                f"no causal language model at {str(path)!r}. Fix: give a folder in from_pretrained form that has the "
                "language modelling head, e.g. the base model of the jury"
            ) from error
        return cls(model, tokenizer, cache_dir=cache_dir)

    def score(self, beginnings: Sequence[str], continuations: Sequence[Sequence[Continuation]]) -> list[np.ndarray]:
        """Compute the log-probability of each continuation after its beginning, summed over its tokens.

        Args:
            beginnings: `G` texts. Of one with more than 1,024 tokens the end is read.
            continuations: For each beginning, `n` continuations; of one with more than 512 tokens the beginning.

        Returns:
            For each beginning (n, 2): log-probability in nats, and number of tokens that were scored.
        """
        if not beginnings:
            return []  # np.split would make one part of nothing
        starts = [self._tokens(text)[-MAX_BEGINNING:] for text in beginnings]
        parts = [
            [(self._tokens(c.given), self._tokens(c.scored)) for c in of_beginning] for of_beginning in continuations
        ]
        flat = [(g, i) for g, of_beginning in enumerate(parts) for i in range(len(of_beginning))]
        out = np.zeros((len(flat), COLUMNS), dtype=np.float32)
        keys = [row_key([*starts[g], -1, *parts[g][i][0], -1, *parts[g][i][1]]) for g, i in flat]

        def compute(todo: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
            wanted: dict[int, list[int]] = {}
            for position in todo.tolist():
                wanted.setdefault(flat[position][0], []).append(position)
            for g, positions in track(wanted.items(), "language model", len(wanted)):
                rows = self._score_group(starts[g], [parts[g][flat[position][1]] for position in positions])
                yield np.array(positions), rows

        with evaluating(self.model):
            if self.cache_dir is None:
                for positions, rows in compute(np.array(_first(keys), dtype=np.int64)):
                    out[positions] = rows
                out = out[_same(keys)]
            else:
                FeatureCache(self.cache_dir, self.model).complete(keys, out, compute)
        ends = np.cumsum([len(of_beginning) for of_beginning in parts])[:-1]
        return np.split(out.astype(np.float64), ends)

    def _tokens(self, text: str) -> list[int]:
        return self.tokenizer(text, add_special_tokens=False)["input_ids"] if text else []

    @torch.no_grad()
    def _score_group(self, start: list[int], parts: list[tuple[list[int], list[int]]]) -> np.ndarray:
        """(n, 2) of continuations of one beginning; its last token is read again with each of them."""
        first = self.tokenizer.bos_token_id
        start = start or [self.tokenizer.eos_token_id if first is None else first]
        device = self.model.device
        past = None
        if len(start) > 1:
            past = self.model(
                torch.tensor([start[:-1]], device=device), use_cache=True, logits_to_keep=1
            ).past_key_values
        whole = [[start[-1], *given, *scored][: MAX_CONTINUATION + 1] for given, scored in parts]
        # The last token is only scored: answers of one token to one question share a row.
        rows: dict[tuple[int, ...], list[int]] = {}
        for i, tokens in enumerate(whole):
            rows.setdefault(tuple(tokens[:-1]), []).append(i)
        out = np.zeros((len(parts), COLUMNS), dtype=np.float32)
        order = sorted(filter(None, rows), key=len)  # rows of one length need no padding
        for begin in range(0, len(order), self.batch_size):
            some = order[begin : begin + self.batch_size]
            width = max(map(len, some))
            ids = torch.tensor([[*row, *[0] * (width - len(row))] for row in some], device=device)
            real = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in some], device=device)
            mask = torch.cat([real.new_ones(len(some), len(start) - 1), real], dim=1)
            cache = None
            if past is not None:
                cache = copy.deepcopy(past)
                cache.batch_repeat_interleave(len(some))
            logits = self.model(ids, attention_mask=mask, past_key_values=cache, use_cache=past is not None).logits
            for log_probs, row in zip(logits.float().log_softmax(-1), some, strict=True):
                for i in rows[row]:
                    first_scored = min(len(parts[i][0]), len(row))
                    scored = torch.tensor(whole[i][first_scored + 1 :], device=device)
                    values = log_probs[first_scored : len(row)].gather(1, scored[:, None])
                    out[i] = float(values.sum()), len(scored)
        return out


def _first(keys: Sequence[bytes]) -> list[int]:
    """Return the positions of the first of equal keys."""
    return list({key: i for i, key in reversed(list(enumerate(keys)))}.values())


def _same(keys: Sequence[bytes]) -> list[int]:
    """Return for each key the position of the first equal one."""
    first: dict[bytes, int] = {}
    return [first.setdefault(key, i) for i, key in enumerate(keys)]
