"""Two reward functions in TRL's convention: called with lists of messages, they return a number per completion."""

from typing import Any


def on_topic(prompts: list[Any], completions: list[Any], **columns: Any) -> list[float]:
    """Share of the longer words of the question that the answer takes up: a stand-in for a reward model."""
    scores = []
    for prompt, completion in zip(prompts, completions, strict=True):
        words = {word.strip("?.,").lower() for word in prompt[-1]["content"].split()}
        asked = {word for word in words if len(word) > 4}
        answered = {word.strip("?.,").lower() for word in completion[-1]["content"].split()}
        scores.append(len(asked & answered) / max(len(asked), 1))
    return scores


def brief(prompts: list[Any], completions: list[Any], **columns: Any) -> list[float]:
    """Minus the number of words."""
    return [-float(len(completion[-1]["content"].split())) for completion in completions]
