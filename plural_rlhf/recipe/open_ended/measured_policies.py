"""Which policies a run measures, and how each of them comes to a text.

Knows the run file and its folders; knows nothing of models and of measures.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from plural_rlhf.evaluation.open_ended.choosing import Chances
from plural_rlhf.recipe.checkpoints import adapters_along
from plural_rlhf.recipe.config import ConfigError, RunConfig
from plural_rlhf.recipe.open_ended.rerank import RERANK_FILE, choice_probabilities
from plural_rlhf.recipe.run_folder.folder import CONFIG_FILE, STAGES
from plural_rlhf.recipe.run_folder.stage_record import StageRecord
from plural_rlhf.recipe.settings.sections import PluralSection
from plural_rlhf.report.names import Method
from reward_models.errors import did_you_mean


__all__ = ["POOL", "Choice", "MeasuredPolicy", "check_rivals", "checkpoints_of", "measured_policies"]

PEOPLE = "people"
POOL = 8
"""Texts of a pool per text that is chosen from it."""


@dataclass(frozen=True)
class Choice:
    """How one text is chosen among candidates of pi_0.

    Attributes:
        candidates: Number of candidates.
        section: Target or rule by which one is chosen; None for the largest mean reward.
        pool: Texts per prompt from which candidates are dealt; None for `POOL` per text that is chosen.

    Example:
        >>> Choice(16).pool_size(32), Choice(4).pool_size(32), Choice(16, pool=100).pool_size(32)
        (256, 128, 100)
    """

    candidates: int
    section: PluralSection | None = None
    pool: int | None = None

    def pool_size(self, chosen: int) -> int:
        """Return how many texts per prompt pi_0 draws, of which `chosen` are chosen."""
        return max(self.candidates, self.pool or min(POOL, self.candidates) * chosen)

    def chances(self, weights: np.ndarray) -> Chances:
        """Return the law of choosing for somebody: how probably each of `N` candidates (..., N, K) is chosen.

        Args:
            weights: (K,) whom the text is for.
        """
        section = self.section
        if section is None:
            return lambda rewards: np.eye(rewards.shape[-2])[(rewards @ weights).argmax(axis=-1)]
        return lambda rewards: choice_probabilities(rewards, weights, section)


@dataclass(frozen=True)
class MeasuredPolicy:
    """A policy that is measured.

    Attributes:
        name: Its name in results: a `Method`, or a name of `evaluate.rivals`.
        adapter: Folder of its adapter; None for the base model without one.
        follows_weights: Whether it is asked for every weighting, or for the population alone.
        instruction: What it is told before every prompt; empty for nothing.
        choice: How a text is chosen among candidates; None where every text that is drawn counts.
        mixes: Whether its texts are those of the policy under each cluster's prompt, mixed at decoding time.

    Example:
        >>> MeasuredPolicy("grpo", Path("runs/first/grpo")).follows_weights
        False
    """

    name: str
    adapter: Path | None
    follows_weights: bool = False
    instruction: str = ""
    choice: Choice | None = None
    mixes: bool = False

    def at(self, step: int, adapter: Path) -> MeasuredPolicy:
        """Return the policy as it was after some steps of its training."""
        return replace(self, name=f"{self.name} at step {step}", adapter=adapter, follows_weights=False)


def measured_policies(config: RunConfig, folder: Path) -> list[MeasuredPolicy]:
    """Return the policies that a run measures, in the order in which they write.

    Args:
        config: The run.
        folder: Its folder; its policies need not be there yet.

    Example:
        >>> config = RunConfig(grpo={"steps": 0}, best_of_n={"n": 4}, evaluate={"rivals": {"dpo": "runs/dpo/plural"}})
        >>> [str(policy.name) for policy in measured_policies(config, Path("runs/first"))]
        ['untouched', 'warm', 'plural', 'best_of_n', 'dpo']
    """
    start = folder / Method.WARM
    policies = [MeasuredPolicy(Method.UNTOUCHED, None), MeasuredPolicy(Method.WARM, start, follows_weights=True)]
    stock = ((Method.GRPO, config.grpo), (Method.RLOO, config.rloo))
    policies += [MeasuredPolicy(method, folder / method) for method, section in stock if section.steps]
    choice = None
    if config.plural.mode == "rerank":
        choice = Choice(config.plural.candidates, config.plural, config.plural.candidate_pool)
    policies.append(MeasuredPolicy(Method.PLURAL, folder / Method.PLURAL, follows_weights=True, choice=choice))
    if config.evaluate.mixed_decoding is not None and choice is None:
        policies.append(replace(policies[-1], name=Method.MIXED, mixes=True))
    if config.best_of_n.n:
        policies.append(MeasuredPolicy(Method.BEST_OF_N, start, choice=Choice(config.best_of_n.n)))
    if config.prompting.instruction is not None:
        policies.append(MeasuredPolicy(Method.PROMPTING, start, instruction=config.prompting.instruction))
    return policies + [_rival(name, path) for name, path in config.evaluate.rivals.items()]


def checkpoints_of(policy: MeasuredPolicy) -> dict[int, MeasuredPolicy]:
    """Return a policy at the checkpoints of its training and at its end, by the number of steps; empty without any."""
    if policy.adapter is None or policy.choice is not None or policy.mixes or policy.instruction:
        return {}
    at = {step: policy.at(step, path) for step, path in adapters_along(policy.adapter).items()}
    record = policy.adapter.parent / STAGES / f"{policy.adapter.name}.json"
    if at and record.is_file():
        steps = StageRecord.read(record).result["budget"]["steps"]
        at[steps] = policy.at(steps, policy.adapter)
    return at


def _rival(name: str, path: Path) -> MeasuredPolicy:
    note, choice = path / RERANK_FILE, None
    if note.is_file():
        settings = json.loads(note.read_text(encoding="utf-8"))
        section = PluralSection(**{key: value for key, value in settings.items() if key != "mode"})
        choice = Choice(section.candidates, section, section.candidate_pool)
    return MeasuredPolicy(name, path, follows_weights=path.name == Method.PLURAL, choice=choice)


def check_rivals(config: RunConfig) -> None:
    """Raise unless every policy of `evaluate.rivals` can be measured beside those of the run.

    Args:
        config: The run.

    Raises:
        ConfigError: A name that is taken, a folder without a policy, or a policy on another base model.

    Example:
        >>> check_rivals(RunConfig(evaluate={"rivals": {"grpo": "runs/first"}}))
        Traceback (most recent call last):
        plural_rlhf.settings.faults.ConfigError: quickstart: 2 faults
          - evaluate.rivals.grpo: 'grpo' is the name of a policy of every run. Fix: choose another name
          - evaluate.rivals.grpo: 'runs/first' holds no policy (no adapter_config.json)...
    """
    faults = []
    for name, path in config.evaluate.rivals.items():
        key = f"evaluate.rivals.{name}"
        if name in (PEOPLE, *Method):
            faults.append(f"{key}: {name!r} is the name of a policy of every run. Fix: choose another name")
        if not (path / "adapter_config.json").is_file():
            there = [str(path / method) for method in Method if (path / method / "adapter_config.json").is_file()]
            hint = did_you_mean(str(path), there) if there else ""
            faults.append(
                f"{key}: {str(path)!r} holds no policy (no adapter_config.json).{hint} Fix: name the folder of a "
                "policy in the output folder of a run, e.g. runs/dpo/plural"
            )
            continue
        other = path.parent / CONFIG_FILE
        model = json.loads(other.read_text(encoding="utf-8"))["policy"]["model"] if other.is_file() else None
        if model not in (None, config.policy.model):
            faults.append(
                f"{key}: the policy in {str(path)!r} is on the base model {model!r}, and those of this run are on "
                f"{config.policy.model!r}. Fix: measure policies of one base model together"
            )
    if faults:
        raise ConfigError(config.name, faults)
