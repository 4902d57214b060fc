"""What a model must be able to do to be evaluated, and how it says that it cannot.

A task asks through `plural_rlhf.suites.engine.context.Context`, never a model itself. Knows no task and no library.

Shapes: `A` options of a request, `S` segments of a sequence, `U` texts, `K` clusters.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np


if TYPE_CHECKING:
    from reward_models.evaluation.heldout import HeldoutRecord
    from reward_models.judgements.texts import Text
    from reward_models.jury.scorer import JuryScorer

__all__ = [
    "END_OF_ANSWER",
    "EvaluatedModel",
    "NotSupported",
    "OptionRequest",
    "Segment",
    "SegmentLosses",
    "Steering",
    "TextSettings",
    "cut_before",
]

END_OF_ANSWER = ("\n",)
"""`stop` of every task that wants one answer: what a model without an end token writes below it is no answer, but the
next question."""


class NotSupported(ValueError):
    """A model cannot do what a task asks for; the task becomes a row `skipped` with this reason.

    Example:
        >>> raise NotSupported("recorded generations hold texts, not probabilities of options")
        Traceback (most recent call last):
        plural_rlhf.suites.models.protocol.NotSupported: recorded generations hold texts, ...
    """


@dataclass(frozen=True)
class OptionRequest:
    """A prompt and the answers whose probabilities are asked for.

    Attributes:
        prompt: The whole text before the answer. A model with a chat template sends it as the user's message.
        options: `A` different answers.
        people: `(A,)` shares of the people. Only the pseudo-models `gold` and `mode` read it.
        marginal: `(A,)` shares of the people on other items. Only the pseudo-model `marginal` reads it.

    Example:
        >>> OptionRequest("Parks or roads?", ("parks", "roads")).options
        ('parks', 'roads')
    """

    prompt: str
    options: tuple[str, ...]
    people: np.ndarray | None = None
    marginal: np.ndarray | None = None


@dataclass(frozen=True)
class TextSettings:
    """How texts are sampled.

    Attributes:
        seed: Random seed.
        max_new_tokens: Most tokens of a text.
        temperature: 1 samples from the model itself; 0 takes the most probable tokens.
        stop: Texts before which a sample is cut; a model may stop there.

    Example:
        >>> TextSettings(seed=1).max_new_tokens
        64
    """

    seed: int = 0
    max_new_tokens: int = 64
    temperature: float = 1.0
    stop: tuple[str, ...] = ()


@dataclass(frozen=True)
class Segment:
    """One input and its output in a sequence of examples, e.g. one question and one person's answer.

    Attributes:
        input: Text before the output; it is read, not scored.
        output: Text that is scored, with its end.

    Example:
        >>> Segment("Parks or roads?", "parks").output
        'parks'
    """

    input: str
    output: str


@dataclass(frozen=True)
class SegmentLosses:
    """How well a model predicts the outputs of one sequence, each after all segments before it.

    Attributes:
        nats: `(S,)` negative log-probability of each whole output, end included.
        correct: `(S,)` whether every token of the output is the most probable one.

    Example:
        >>> SegmentLosses(np.array([0.7, 0.2]), np.array([False, True])).nats.mean().round(2).item()
        0.45
    """

    nats: np.ndarray
    correct: np.ndarray


@dataclass(frozen=True)
class Steering:
    """How a policy is steered to weights of the clusters of the jury that it was trained with.

    Attributes:
        jury: Folder of the jury.
        steered: Returns the policy under weights `(K,)`.

    Example:
        >>> Steering("runs/jury", lambda weights: EvaluatedModel()).jury
        'runs/jury'
    """

    jury: str | Path
    steered: Callable[[np.ndarray], EvaluatedModel]


class EvaluatedModel:
    """A model under evaluation. A kind of model overrides what it can do; the rest raises `NotSupported`.

    Attributes:
        name: What the report calls it.
        identity: Hash of everything that its answers depend on (weights, adapter, prompt template, endpoint, settings
            of its own): answers are kept under it.
        kind: `"causal-lm"`, `"pseudo"`, ...
        batch_size: Requests that are computed, and kept, together.

    Example:
        >>> class AlwaysFirst(EvaluatedModel):
        ...     name, identity, kind = "first", "first-1", "callable"
        ...
        ...     def option_log_probs(self, requests):
        ...         return [np.log(np.eye(len(r.options))[0] + 1e-9) for r in requests]
        >>> AlwaysFirst().sample(["Tea?"], 1)
        Traceback (most recent call last):
        plural_rlhf.suites.models.protocol.NotSupported: a model of the kind 'callable' cannot sample texts
    """

    name: str
    identity: str
    kind: str
    batch_size: int = 16

    def option_log_probs(self, requests: Sequence[OptionRequest]) -> list[np.ndarray]:
        """Return the log-probability in nats of each whole answer, end included: `(A,)` per request.

        The probabilities of a request sum to the coverage, at most 1.
        """
        raise NotSupported(f"a model of the kind {self.kind!r} cannot give probabilities of options")

    def sample(
        self,
        prompts: Sequence[str],
        n: int,
        *,
        seed: int = 0,
        max_new_tokens: int = 64,
        temperature: float = 1.0,
        stop: Sequence[str] = (),
    ) -> list[list[str]]:
        """Sample `n` texts per prompt. A text is cut before the first of `stop`; the end token is not part of it.

        Args:
            prompts: The prompts.
            n: Texts per prompt.
            seed: Random seed.
            max_new_tokens: Most tokens of a text.
            temperature: 1 samples from the model itself; 0 takes the most probable tokens.
            stop: Texts before which a sample is cut.
        """
        settings = TextSettings(seed, max_new_tokens, temperature, tuple(stop))
        return [[cut_before(text, stop) for text in texts] for texts in self.write_texts(prompts, n, settings)]

    def write_texts(self, prompts: Sequence[str], n: int, settings: TextSettings) -> list[list[str]]:
        """Write `n` texts per prompt, for `sample`, which cuts them; a kind of model that writes has its own."""
        raise NotSupported(f"a model of the kind {self.kind!r} cannot sample texts")

    def sequence_losses(self, sequences: Sequence[Sequence[Segment]]) -> list[SegmentLosses]:
        """Return the loss of every output of each sequence, given everything before it."""
        raise NotSupported(f"a model of the kind {self.kind!r} cannot score sequences")

    @property
    def scorer(self) -> JuryScorer:
        """The jury reward model, of a model that is one."""
        raise NotSupported(f"a model of the kind {self.kind!r} is no jury, which rewards texts for each cluster")

    @property
    def fitted_on(self) -> HeldoutRecord | None:
        """What a jury was fitted to, as far as it is known."""
        return None

    def cluster_rewards(self, texts: Sequence[Text]) -> np.ndarray:
        """Return the rewards of texts for each cluster, in logits: `(U, K)`."""
        raise NotSupported(f"a model of the kind {self.kind!r} is no jury, which rewards texts for each cluster")

    @property
    def steering(self) -> Steering:
        """How the model is steered to weights of clusters, of a policy that was trained so."""
        raise NotSupported(
            f"a model of the kind {self.kind!r} without a jury cannot be steered: name the jury of its training"
        )

    def usage_record(self) -> dict[str, Any]:
        """Return what was asked and what it cost, where that is counted."""
        return {}


def cut_before(text: str, stop: Sequence[str]) -> str:
    r"""Return a sampled text without the space around it, cut before the first of `stop`.

    Example:
        >>> cut_before(" red\nblue", ["\n"])
        'red'
    """
    text = text.lstrip()
    return text[: min((text.index(end) for end in stop if end in text), default=len(text))].rstrip()
