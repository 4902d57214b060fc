"""The hand through which a task asks a model: answers are computed in fixed parts, kept, and never asked twice.

Parts are cut by position in the list of requests, and a part is computed whole, so that a run that was stopped goes on
with the answers it would have had. Knows no task.

Shapes: `A` options, `U` texts, `K` clusters.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from plural_rlhf.suites.engine.answers import AnswerStore
from plural_rlhf.suites.engine.asking import Asking
from plural_rlhf.suites.engine.option_answers import ask_options, sensitivity
from plural_rlhf.suites.models.protocol import EvaluatedModel, OptionRequest, Segment, SegmentLosses
from plural_rlhf.suites.tasks.questions import Labels, OptionAnswer, OptionQuestion
from reward_models.content_hashes import value_hash
from reward_models.judgements.texts import Text
from reward_models.progress import counting
from reward_models.seeds import derived_seed


__all__ = ["Context"]


@dataclass(frozen=True)
class Context(Asking):
    """A model and how it is asked, as a task sees them.

    Attributes:
        model: The model; ask it through the methods of the context.
        store: Kept answers.
        label: What a progress bar is called.

    Example:
        >>> from plural_rlhf.suites.models.pseudo import PseudoModel
        >>> context = Context(PseudoModel("uniform"))
        >>> [answer] = context.option_answers([OptionQuestion("More parks?", ("yes", "no"))])
        >>> answer.shares.tolist(), round(answer.coverage, 6)
        ([0.5, 0.5], 1.0)
    """

    model: EvaluatedModel
    store: AnswerStore = field(default_factory=AnswerStore)
    label: str = "asking"

    def option_answers(
        self,
        questions: Sequence[OptionQuestion],
        *,
        orders: Sequence[Sequence[int]] | None = None,
        labels: Labels = "text",
    ) -> list[OptionAnswer]:
        """Ask for the distribution over the options of each question, scored as the suite says.

        Args:
            questions: The questions.
            orders: For each question the order in which its options are shown; None for their own.
            labels: What stands before the options, and is the answer.

        Returns:
            One answer per question, its shares in the order of the question's own options.
        """
        return ask_options(self, questions, orders, labels)

    def sensitivity(
        self, questions: Sequence[OptionQuestion], answers: Sequence[OptionAnswer]
    ) -> dict[str, np.ndarray]:
        """Measure how far answers move with the order and the labels of options; see `option_answers.sensitivity`."""
        return sensitivity(self, questions, answers)

    def option_log_probs(self, requests: Sequence[OptionRequest]) -> list[np.ndarray]:
        """Return the log-probability of each whole answer in nats: `(A,)` per request."""
        keys = [
            ["options", request.prompt, list(request.options)]
            + [
                None if shares is None else np.asarray(shares).tolist()
                for shares in (request.people, request.marginal)
            ]
            for request in requests
        ]
        answers = self._kept(
            requests, keys, lambda part, seed: [row.tolist() for row in self.model.option_log_probs(part)]
        )
        return [np.asarray(answer, dtype=np.float64) for answer in answers]

    def sample(
        self,
        prompts: Sequence[str],
        n: int,
        *,
        max_new_tokens: int = 64,
        temperature: float = 1.0,
        stop: Sequence[str] = (),
        purpose: str = "",
    ) -> list[list[str]]:
        """Sample `n` texts per prompt; the same prompt twice gives the same texts, unless the purposes differ.

        Args:
            prompts: The prompts.
            n: Texts per prompt.
            max_new_tokens: Most tokens of a text.
            temperature: 1 samples from the model itself.
            stop: Texts before which a sample is cut.
            purpose: Tells repeated draws of the same prompts apart.
        """
        settings = {"max_new_tokens": max_new_tokens, "temperature": temperature, "stop": list(stop)}
        keys = [["sample", prompt, n, settings, purpose, self.seed] for prompt in prompts]

        def draw(part: Sequence[str], seed: int) -> list[list[str]]:
            return self.model.sample(
                part, n, seed=seed, max_new_tokens=max_new_tokens, temperature=temperature, stop=tuple(stop)
            )

        return self._kept(prompts, keys, draw)

    def sequence_losses(self, sequences: Sequence[Sequence[Segment]]) -> list[SegmentLosses]:
        """Return the loss of each output of each sequence, given everything before it."""
        keys = [["sequence", [[segment.input, segment.output] for segment in sequence]] for sequence in sequences]

        def score(part: Sequence[Sequence[Segment]], seed: int) -> list[list[list[float]]]:
            return [[losses.nats.tolist(), losses.correct.tolist()] for losses in self.model.sequence_losses(part)]

        answers = self._kept(sequences, keys, score)
        return [SegmentLosses(np.array(nats), np.array(correct, dtype=bool)) for nats, correct in answers]

    def cluster_rewards(self, texts: Sequence[Text]) -> np.ndarray:
        """Return the rewards of texts for each cluster of a jury, in logits: `(U, K)`."""
        keys = [["rewards", text.prompt, text.response] for text in texts]
        rows = self._kept(texts, keys, lambda part, seed: self.model.cluster_rewards(part).tolist())
        return np.asarray(rows, dtype=np.float64).reshape(len(texts), -1)

    def _kept(
        self, requests: Sequence[Any], keys: Sequence[Any], compute: Callable[[Sequence[Any], int], list[Any]]
    ) -> list[Any]:
        """Return kept answers, and compute and keep those of each part that is not whole."""
        hashes = [value_hash(key) for key in keys]
        size = max(1, self.model.batch_size)
        starts = range(0, len(requests), size)
        with counting(self.label, total=len(starts)) as part_done:
            for start in starts:
                part = slice(start, start + size)
                if any(self.store.get(key) is None for key in hashes[part]):
                    seed = derived_seed(self.seed, "answers of a model", int(hashes[start][:16], 16))
                    answers = compute(requests[part], seed)
                    self.store.add(zip(hashes[part], answers, strict=True))
                part_done()
        return [self.store.get(key) for key in hashes]
