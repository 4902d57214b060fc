"""A judge of values from a published Kaleido checkpoint: T5, asked in the words that it was trained on.

Relevance is P(Yes) against P(No), valence P(Supports), P(Opposes), P(Either): the first token that the decoder would
write, renormalised over these words (Sorensen et al. 2023, https://arxiv.org/abs/2309.00779). The wordings come from
the checkpoint's configuration (`task_specific_params`), so that small and large models are asked alike. Knows nothing
of other judges.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from plural_rlhf.evaluation.tables.valued_situations import KINDS, Value, ValuesError
from reward_models.borders import path_fault
from reward_models.inference import default_device, evaluating
from reward_models.jury.features import batches


__all__ = ["KaleidoJudge"]

ANSWERS = {"relevance": ("Yes", "No"), "valence": ("Supports", "Opposes", "Either")}
"""Words of an answer by task."""


class KaleidoJudge:
    """A `ValueJudge` on a Kaleido checkpoint, e.g. `tsor13/kaleido-large`.

    Args:
        model: An encoder and decoder whose configuration has the wordings of Kaleido's tasks.
        tokenizer: Its tokenizer.
        batch_size: Texts per forward pass.

    Raises:
        ValuesError: The configuration has no wordings, or the words of an answer begin with one token.

    Example:
        >>> KaleidoJudge.from_pretrained("folder/that/is/not/there")
        Traceback (most recent call last):
        plural_rlhf.evaluation.tables.valued_situations.ValuesError: no Kaleido checkpoint at 'folder/that/...
    """

    def __init__(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, *, batch_size: int = 32) -> None:
        tasks = getattr(model.config, "task_specific_params", None) or {}
        missing = [name for name in ANSWERS if "template" not in tasks.get(name, {})]
        if missing:
            raise ValuesError(
                f"{model.config.name_or_path or type(model).__name__!r} has no wording for {' and '.join(missing)} in "
                "its configuration (task_specific_params), so it is no Kaleido checkpoint. Fix: give one, e.g. "
                "tsor13/kaleido-large, or fit a judge: fit_value_judge(rows, backbone, tokenizer)."
            )
        self.model, self.tokenizer, self.batch_size = model, tokenizer, batch_size
        self._tasks: Mapping[str, Mapping[str, Any]] = tasks
        self._tokens = {task: _first_tokens(tokenizer, words) for task, words in ANSWERS.items()}

    @classmethod
    def from_pretrained(
        cls, path: str | Path, *, device: str | torch.device | None = None, batch_size: int = 32
    ) -> KaleidoJudge:
        """Load a checkpoint.

        Args:
            path: Folder or Hub id.
            device: Where it runs; None: an accelerator if there is one.
            batch_size: Texts per forward pass.

        Raises:
            ValuesError: There is none that can be read.
        """
        try:
            model = AutoModelForSeq2SeqLM.from_pretrained(str(path), trust_remote_code=False)
            tokenizer = AutoTokenizer.from_pretrained(str(path), trust_remote_code=False)
        except Exception as error:  # whatever a missing or damaged folder makes of transformers
            if fault := path_fault(path):
                raise ValuesError(f"the Kaleido checkpoint cannot be loaded: {fault}.") from error
            line = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise ValuesError(
                f"no Kaleido checkpoint at {str(path)!r} ({line}). Fix: give the folder of one, e.g. of "
                "tsor13/kaleido-large."
            ) from error
        return cls(model.to(default_device() if device is None else device), tokenizer, batch_size=batch_size)

    def relevance(self, situations: Sequence[str], values: Sequence[Value]) -> np.ndarray:
        """Return (N,) probabilities that each value matters in its situation."""
        return self._answers("relevance", situations, values)[:, 0]

    def valence(self, situations: Sequence[str], values: Sequence[Value]) -> np.ndarray:
        """Return (N, 3) probabilities that each value supports, opposes, or may do either."""
        return self._answers("valence", situations, values)

    @torch.no_grad()
    def values_of(self, situation: str, *, beams: int = 100, max_new_tokens: int = 24) -> list[Value]:
        """Return the values that the model itself would name, most probable first; see `relevant_values`.

        Args:
            situation: What somebody does.
            beams: How many are named, by beam search; repeated and unreadable ones are left out.
            max_new_tokens: Longest value in tokens.

        Raises:
            ValuesError: The configuration has no wording for the task `generate`.
        """
        if "template" not in self._tasks.get("generate", {}):
            raise ValuesError("this checkpoint has no wording for naming values. Fix: give the values to judge.")
        inputs = self.tokenizer(self._ask("generate", situation, None), return_tensors="pt").to(self.model.device)
        with evaluating(self.model):
            written = self.model.generate(
                **inputs, num_beams=beams, num_return_sequences=beams, max_new_tokens=max_new_tokens, do_sample=False
            )
        named: dict[str, Value] = {}
        for line in self.tokenizer.batch_decode(written, skip_special_tokens=True):
            kind, separator, text = line.partition(": ")
            if separator and text.strip() and kind.strip().capitalize() in KINDS:
                named.setdefault(text.strip().casefold(), Value(text.strip(), kind.strip().capitalize()))
        return list(named.values())

    def _ask(self, task: str, situation: str, value: Value | None) -> str:
        """Return the request of a task in the checkpoint's words, with its arguments filled in all at once."""
        parts = [situation] if value is None else [situation, value.kind, value.text]
        filled = dict(zip(self._tasks[task]["args"], parts, strict=True))
        names = "|".join(map(re.escape, sorted(filled, key=len, reverse=True)))
        return re.sub(names, lambda name: filled[name[0]], str(self._tasks[task]["template"]))

    @torch.no_grad()
    def _answers(self, task: str, situations: Sequence[str], values: Sequence[Value]) -> np.ndarray:
        """Return (N, W) probabilities of the words as the first one written, renormalised over them."""
        asked = [self._ask(task, s, v) for s, v in zip(situations, values, strict=True)]
        unique = list(dict.fromkeys(asked))
        rows = [self.tokenizer(text).input_ids for text in unique]
        probabilities = np.empty((len(unique), len(ANSWERS[task])))
        device = self.model.device
        with evaluating(self.model):
            for index, ids, mask in batches(rows, batch_size=self.batch_size, progress=True, description=task):
                start = torch.full((len(index), 1), self.model.config.decoder_start_token_id, device=device)
                logits = self.model(
                    input_ids=ids.to(device), attention_mask=mask.to(device), decoder_input_ids=start
                ).logits[:, 0, self._tokens[task]]
                probabilities[index] = logits.double().softmax(-1).cpu().numpy()
        place = {text: number for number, text in enumerate(unique)}
        return probabilities[[place[text] for text in asked]]


def _first_tokens(tokenizer: PreTrainedTokenizerBase, words: Sequence[str]) -> list[int]:
    ids = [tokenizer(word, add_special_tokens=False).input_ids[:1] for word in words]
    first = [token for of in ids for token in of]
    if len(first) != len(words) or len(set(first)) != len(words) or tokenizer.unk_token_id in first:
        raise ValuesError(
            f"the answers {', '.join(words)} begin with the tokens {first}, which do not tell them apart. Fix: use "
            "the tokenizer of the checkpoint."
        )
    return first
