"""What texts are worth, for tasks that ask for it: a saved jury, a reward model with one label, or a function.

Knows no task.

Shapes: `N` texts, `K` columns: the clusters of a jury, or one.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from plural_rlhf.settings.functions import import_function
from plural_rlhf.suites.models.functions import source_hash
from plural_rlhf.suites.models.jury import is_jury_folder
from reward_models.content_hashes import folder_records, value_hash
from reward_models.errors import JuryError
from reward_models.jury.objectives import Objectives, Scorer
from reward_models.jury.protocol import scorable_text
from reward_models.jury.scorer import JuryScorer
from reward_models.replaced_files import folder_to_read


__all__ = ["TextReward", "open_rewards"]

FUNCTION = re.compile(r".+:[A-Za-z_]\w*")
TRIED = ("More of them, please.", "I do not know.")
"""Texts that every reward is tried on before any work."""


@dataclass(frozen=True)
class TextReward:
    """What texts are worth in one or several respects.

    Attributes:
        name: What the report calls it.
        columns: Names of the `K` respects.
        weights: Weight of each, of sum 1.
        identity: Hash of what the rewards depend on: numbers under different rewards are not compared.
        score: Maps a prompt and `N` texts to (N, K); higher is better.

    Example:
        >>> brief = TextReward(
        ...     "brief", ("brief",), (1.0,), "1", lambda prompt, texts: -np.array([[len(text)] for text in texts])
        ... )
        >>> brief.score("What now?", ["Parks.", "Parks and roads."]).ravel().tolist()
        [-6, -16]
    """

    name: str
    columns: tuple[str, ...]
    weights: tuple[float, ...]
    identity: str
    score: Callable[[str, Sequence[str]], np.ndarray]


def open_rewards(places: Mapping[str, str]) -> tuple[TextReward, ...]:
    """Open rewards and try each on two texts.

    Args:
        places: By name the folder of a saved jury; the folder or hub id of a reward model with one label; or a
            function in TRL's convention, `package.module:name` or `file.py:name`, which is called with `prompts` and
            `completions` (lists of messages) and returns a number per completion.

    Raises:
        ValueError: One cannot be opened, or fails on the texts; the message names it.

    Example:
        >>> open_rewards({"brief": "nowhere:brief"})
        Traceback (most recent call last):
        ValueError: rewards.brief: 'nowhere' cannot be imported (ModuleNotFoundError: ...
    """
    rewards = []
    for name, place in places.items():
        try:
            reward = _open(name, place, alone=len(places) == 1)
            values = np.asarray(reward.score("What should be done?", TRIED))
        except (JuryError, ImportError) as error:
            raise ValueError(f"rewards.{name}: {error}") from error
        except Exception as error:  # whatever a function of the user raises
            raise ValueError(
                f"rewards.{name}: {place} failed on two texts ({type(error).__name__}: {error}). Fix: it is called "
                "with prompts=[messages, ...] and completions=[messages, ...], and returns a number per completion"
            ) from error
        if not np.isfinite(values).all():
            raise ValueError(f"rewards.{name}: {place} gave {values.tolist()} for two texts. Fix: give finite numbers")
        rewards.append(reward)
    return tuple(rewards)


def _open(name: str, place: str, *, alone: bool) -> TextReward:
    if is_jury_folder(place):
        jury = JuryScorer.from_pretrained(place)

        def of_clusters(prompt: str, texts: Sequence[str]) -> np.ndarray:
            rewards = jury.cluster_rewards([prompt] * len(texts), [scorable_text(text) for text in texts])
            return rewards.double().numpy()

        columns = tuple(cluster if alone else f"{name}: {cluster}" for cluster in jury.cluster_names)
        identity = value_hash(folder_records(folder_to_read(place)))
        return TextReward(name, columns, tuple(jury.prevalence.tolist()), identity, of_clusters)
    scorer: Scorer = place
    if FUNCTION.fullmatch(place):
        scorer = import_function(place)
        identity = source_hash(scorer)
    else:
        identity = value_hash(folder_records(place)) if Path(place).is_dir() else place
    objective = Objectives({name: scorer})

    def of_one(prompt: str, texts: Sequence[str]) -> np.ndarray:
        prompts = [[{"role": "user", "content": prompt}]] * len(texts)
        completions = [[{"role": "assistant", "content": scorable_text(text)}] for text in texts]
        return objective.cluster_rewards(prompts, completions).double().numpy()

    return TextReward(name, (name,), (1.0,), identity, of_one)
