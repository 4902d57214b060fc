"""The parts that the environments share: prompts, clusters, weights, the options of `reset`, and rendering as text.

An episode is one response to one prompt, and the clusters' rewards come with its last step. Knows nothing of actions
and observations: those are in `bandit` and `text`.

Shapes: `K` clusters.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import gymnasium
import numpy as np
from gymnasium.error import ResetNeeded
from gymnasium.spaces import Box

from plural_rlhf.core.aggregation import normalise_weights
from plural_rlhf.weights.wording import TRLPrompt
from reward_models.errors import JuryError, did_you_mean
from reward_models.weights import WeightSpec, parse_weights


if TYPE_CHECKING:
    from reward_models.jury.protocol import ClusterScorer

__all__ = ["JuryEnv", "load_scorer"]

_OPTIONS = ("prompt", "weights")

Observation = TypeVar("Observation")


def load_scorer(scorer: str | Path | ClusterScorer) -> ClusterScorer:
    """Return a scorer as it is, or load the saved jury reward model at a path or hub id.

    Example:
        >>> from plural_rlhf.envs.number_jury import NumberJury
        >>> load_scorer(NumberJury()).cluster_names
        ['low', 'middle', 'high']
    """
    if isinstance(scorer, str | Path):
        from reward_models.jury.scorer import JuryScorer  # imports transformers, which a bandit does not need

        return JuryScorer.from_pretrained(scorer)
    return scorer


class JuryEnv(gymnasium.Env[Observation, np.int64], Generic[Observation]):
    """An environment whose reward is a vector, one number per rater cluster (the MO-Gymnasium convention).

    `reset` takes two options, both for that episode alone: `prompt` (its number, or the prompt itself; default: drawn
    uniformly with the seed) and `weights` (a `reward_models.weights.WeightSpec`; default: `self.weights`). The
    values in use are in `info["prompt"]` and `info["weights"]`.

    Args:
        prompts: At least one.
        cluster_names: `K` unique names.
        prevalence: (K,) shares of the population.
        weights: Default weights of an episode.
        bounds: Smallest and largest reward, each a number or (K,), in logits.
        render_mode: `"ansi"`, or None.

    Attributes:
        reward_space: Box of shape (K,), float32, as in MO-Gymnasium.
        reward_dim: K.

    Raises:
        JuryError: If there is no prompt or an empty one, or the clusters, their shares or weights cannot be used.
        ValueError: If `render_mode` is unknown.

    Example:
        >>> from plural_rlhf.envs import JuryText
        >>> env = JuryText(render_mode="ansi")
        >>> observation, info = env.reset(seed=0, options={"weights": {"low": 1, "high": 3}})
        >>> info["weights"].tolist(), env.reward_space.shape
        ([0.25, 0.0, 0.75], (3,))
    """

    # A plain dictionary on the class is Gymnasium's own contract.
    metadata: dict[str, Any] = {"render_modes": ["ansi"], "render_fps": 1}  # noqa: RUF012

    def __init__(
        self,
        prompts: Sequence[TRLPrompt],
        cluster_names: Sequence[str],
        prevalence: Sequence[float] | np.ndarray,
        weights: WeightSpec,
        bounds: tuple[float | np.ndarray, float | np.ndarray],
        render_mode: str | None,
    ) -> None:
        if isinstance(prompts, str) or not prompts or not all(prompts):
            raise JuryError(
                f"prompts: got {prompts!r}; give a list of at least one prompt, none of them empty, each a text or a "
                "list of messages"
            )
        if len(set(cluster_names)) < len(cluster_names):
            raise JuryError(f"cluster_names: got {list(cluster_names)}; weights are given by name, so none may repeat")
        if render_mode not in (None, "ansi"):
            raise ValueError(f"render_mode: got {render_mode!r}; these environments write text: 'ansi', or None")
        self.prompts = list(prompts)
        self.cluster_names = list(cluster_names)
        self.prevalence: np.ndarray = normalise_weights(prevalence, len(self.cluster_names)).numpy()
        self.weights = self.parse_weights(weights)
        self.reward_dim = len(self.cluster_names)
        low, high = (np.broadcast_to(bound, self.reward_dim).astype(np.float32) for bound in bounds)
        self.reward_space = Box(low, high, dtype=np.float32)
        self.render_mode = render_mode
        self._prompt = 0
        self._episode_weights = self.weights
        self._response = ""
        self._verdict: np.ndarray | None = None
        self._running = False

    def parse_weights(self, spec: WeightSpec) -> np.ndarray:
        """Read weights over the clusters (see `reward_models.weights.parse_weights`): (K,), summing to one."""
        return parse_weights(spec, self.cluster_names, self.prevalence)

    def render(self) -> str | None:
        """Write the episode so far: prompt, response, and weight and reward of each cluster; None without a mode."""
        if self.render_mode is None:
            return None
        prompt = self.prompts[self._prompt]
        question = prompt if isinstance(prompt, str) else prompt[-1]["content"]
        clusters = [
            f"{name} {weight:.0%}" + ("" if self._verdict is None else f" {self._verdict[k]:+.2f}")
            for k, (name, weight) in enumerate(zip(self.cluster_names, self._episode_weights, strict=True))
        ]
        return f"{question}\n> {self._response}\n" + ", ".join(clusters)

    def _start(self, seed: int | None, options: Mapping[str, Any] | None) -> None:
        """Begin an episode: draw or look up its prompt, and set its weights."""
        super().reset(seed=seed)
        options = options or {}
        for name in options:
            if name not in _OPTIONS:
                raise JuryError(
                    f"options: got {name!r}, which reset does not know.{did_you_mean(name, _OPTIONS)} Its options are "
                    f"{' and '.join(_OPTIONS)}."
                )
        if "prompt" in options:
            self._prompt = self._find_prompt(options["prompt"])
        else:
            self._prompt = int(self.np_random.integers(len(self.prompts)))
        self._episode_weights = self.parse_weights(options["weights"]) if "weights" in options else self.weights
        self._response, self._verdict, self._running = "", None, True

    def _find_prompt(self, prompt: int | TRLPrompt) -> int:
        if isinstance(prompt, int | np.integer) and 0 <= prompt < len(self.prompts):
            return int(prompt)
        if not isinstance(prompt, int | np.integer) and prompt in self.prompts:
            return self.prompts.index(prompt)
        raise JuryError(
            f"options: got prompt={prompt!r}, which the environment does not have: give a number from 0 to "
            f"{len(self.prompts) - 1}, or one of its prompts word for word"
        )

    def _info(self) -> dict[str, Any]:
        return {"prompt": self._prompt, "weights": self._episode_weights.copy()}

    def _end(self, verdict: np.ndarray, response: str) -> np.ndarray:
        """End the episode and return a copy of the verdict as a vector of the reward space."""
        self._response, self._verdict, self._running = response, verdict, False
        return verdict.astype(np.float32)

    def _refuse_if_over(self) -> None:
        if not self._running:
            raise ResetNeeded(
                "step: no episode is running, because none was started or the last one ended: call reset"
            )
