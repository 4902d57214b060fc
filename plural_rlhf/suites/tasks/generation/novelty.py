"""The task `noveltybench`: how many different answers a model gives to prompts with many good ones, and their worth.

Classes come from a rule that was calibrated on people's judgements. What texts are worth is said by the `rewards` of
the suite; without any there is no utility.

Shapes: `k` texts of a prompt, `K` columns of a reward.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from plural_rlhf.evaluation.diversity.classes import greedy_classes, utility_k
from plural_rlhf.evaluation.diversity.equivalence import EQUIVALENCE_RULES, EquivalenceRule
from plural_rlhf.evaluation.diversity.novelty import LEVELS, mean_novelty, prompt_novelty, utility_levels
from plural_rlhf.evaluation.open_ended.scored import Embed
from plural_rlhf.suites.models.rewards import TextReward
from plural_rlhf.suites.tasks.free_text import minilm_embedder
from plural_rlhf.suites.tasks.generation.rows import interval_row
from plural_rlhf.suites.tasks.protocol import Task, TaskData, TaskResult, TaskRow
from reward_models.progress import track
from reward_models.seeds import seeded_rng


if TYPE_CHECKING:
    from plural_rlhf.suites.engine.context import Context

__all__ = ["CuratedPrompt", "NoveltyTask", "UtilityScale"]

REFERENCE = 200
"""Texts of NoveltyBench's judged pairs whose rewards give the deciles."""
PUBLISHED = {
    "distinct": {"gpt-4o": 3.88, "Claude-3 Opus": 3.04, "gemma-2-2b-it": 6.66, "Llama-3.1-8B": 6.24},
    "utility": {"gpt-4o": 3.27, "Claude-3 Opus": 2.67, "gemma-2-2b-it": 4.63, "Llama-3.1-8B": 3.76},
}
"""Published means over the curated prompts. Their classes are those of a fine-tuned classifier, their utilities those
of one reward model: for orientation."""


@dataclass(frozen=True)
class UtilityScale:
    """A reward with the rewards of reference texts, whose deciles are its scale.

    Attributes:
        reward: The reward.
        reference: (M, K) rewards of the reference texts.

    Example:
        >>> score = lambda prompt, texts: np.array([[len(text)] for text in texts])
        >>> length = TextReward("long", ("long",), (1.0,), "1", score)
        >>> scale = UtilityScale(length, np.arange(20.0)[:, None])
        >>> scale.utilities("A colour?", ["red", "a very light blue"])["long"].tolist()
        [2.0, 9.0]
    """

    reward: TextReward
    reference: np.ndarray

    def utilities(self, prompt: str, texts: Sequence[str]) -> dict[str, np.ndarray]:
        """Return (k,) utilities from 1 to 10 under the mean of the columns, by its weights, and under each column."""
        values = self.reward.score(prompt, texts)
        weights = np.array(self.reward.weights)
        by_name = {self.reward.name: utility_levels(values @ weights, self.reference @ weights)}
        if len(weights) > 1:
            by_column = utility_levels(values, self.reference)
            by_name |= {name: by_column[:, place] for place, name in enumerate(self.reward.columns)}
        return by_name


@dataclass(frozen=True)
class CuratedPrompt:
    """A prompt with many good answers.

    Attributes:
        name: Its name.
        prompt: The prompt.
        scales: What answers are worth.

    Example:
        >>> CuratedPrompt("curated-0", "Tell me a joke.").scales
        ()
    """

    name: str
    prompt: str
    scales: tuple[UtilityScale, ...] = ()


class NoveltyTask(Task):
    """NoveltyBench's curated prompts: distinct_k, and utility_k under every reward of the suite.

    The published code counts one class too few (`max` of classes that begin at 0); here all are counted, so that the
    published submission of Gemini has 1.83 where its summary says .83. Its utility is reproduced as it is.

    Args:
        n: Texts per prompt; 10 as published.
        max_new_tokens: Longest text.
        rule: When two texts say the same. The published classifier is a fine-tuned model, so that numbers are near the
            published ones, not the same.
        embedder: Returns what turns texts into vectors for the Vendi score, or None.

    Example:
        >>> NoveltyTask().name
        'noveltybench'
    """

    name, shape, licence = "noveltybench", "generation", "MIT"
    source = "https://arxiv.org/abs/2504.05228"
    title = "Different answers among ten to prompts with many good ones (NoveltyBench, curated), and their worth."

    def __init__(
        self,
        n: int = 10,
        max_new_tokens: int = 128,
        rule: EquivalenceRule = EQUIVALENCE_RULES["order of words"],
        embedder: Callable[[], Embed | None] = minilm_embedder,
    ) -> None:
        self.n, self.max_new_tokens, self.rule, self.embedder = n, max_new_tokens, rule, embedder

    def load(self, data: TaskData) -> Sequence[CuratedPrompt]:
        """Read the prompts, evenly selected over the categories if there are too many; find the scale of rewards."""
        import pandas as pd

        frame = pd.read_parquet(data.file("noveltybench", "curated.parquet", source=_SOURCE))
        prompts = list(zip(frame["id"], frame["prompt"], strict=True))
        most = min(data.max_items or len(prompts), len(prompts))
        scales = _scales(data) if data.rewards else ()
        return [CuratedPrompt(*prompts[i * len(prompts) // most], scales) for i in range(most)]

    def measure(self, items: Sequence[CuratedPrompt], context: Context) -> TaskResult:
        """Sample texts, count their classes and add up what new ones are worth."""
        drawn = context.sample(
            [item.prompt for item in items], self.n, max_new_tokens=self.max_new_tokens, purpose="novelty"
        )
        embed = self.embedder()
        numbers = [
            prompt_novelty(texts, self.rule, None if embed is None else embed(texts))
            for texts in track(drawn, "classes of texts")
        ]
        utilities = [
            self._utilities(*part) for part in track(list(zip(items, drawn, strict=True)), "utilities of texts")
        ]
        means = mean_novelty(numbers)
        rows = [
            interval_row(
                "distinct",
                means["distinct"],
                unit="classes",
                floor=1.0,
                ceiling=float(self.n),
                headline=True,
                **_published("distinct"),
            ),
            interval_row("effective_classes", means["effective_classes"], unit="classes", floor=1.0, ceiling=self.n),
            interval_row("largest_3", means["largest_3"], direction="lower", floor=3 / self.n, ceiling=1.0),
            *(
                interval_row("vendi_score", means["vendi_score"], unit="texts", floor=1.0, ceiling=self.n)
                for _ in range("vendi_score" in means)
            ),
            *self._utility_rows(utilities),
        ]
        records = [
            {
                "item": item.name,
                "scores": {**scores, **{f"utility[{name}]": value for name, value in of_item.items()}},
                "prompt": item.prompt,
                "texts": texts,
            }
            for item, scores, of_item, texts in zip(items, numbers, utilities, drawn, strict=True)
        ]
        return TaskResult(rows, records)

    def _utilities(self, item: CuratedPrompt, texts: Sequence[str]) -> dict[str, float]:
        classes = greedy_classes(texts, self.rule)
        return {
            name: utility_k(classes, of_texts)
            for scale in item.scales
            for name, of_texts in scale.utilities(item.prompt, texts).items()
        }

    def _utility_rows(self, utilities: Sequence[dict[str, float]]) -> list[TaskRow]:
        same, different = [0] * self.n, list(range(self.n))
        ends: dict[str, Any] = {
            "one_median_text": utility_k(same, [(LEVELS + 1) / 2] * self.n),
            "ceiling": utility_k(different, [float(LEVELS)] * self.n),
        }
        return [
            interval_row("utility", interval, unit="utility", group=name, **ends, **_published("utility"))
            for name, interval in mean_novelty(utilities).items()
        ]


_SOURCE = "https://github.com/novelty-bench/novelty-bench"


def _published(metric: str) -> dict[str, Any]:
    return {f"published: {model}": value for model, value in PUBLISHED[metric].items()}


def _scales(data: TaskData) -> tuple[UtilityScale, ...]:
    """Score reference texts: the first generations of pairs that people judged, a random selection."""
    import pandas as pd

    frame = pd.read_parquet(data.file("noveltybench", "equivalence.parquet", source=_SOURCE))
    chosen = seeded_rng(0, "reference texts of NoveltyBench").permutation(len(frame))[:REFERENCE]
    pairs = [(str(frame["prompt"].iloc[i]), str(frame["generation_0"].iloc[i])) for i in sorted(chosen)]
    return tuple(
        UtilityScale(
            reward,
            np.concatenate([reward.score(prompt, [text]) for prompt, text in track(pairs, f"scale of {reward.name}")]),
        )
        for reward in data.rewards
    )
