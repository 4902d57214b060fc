"""The methods of `open_ended`: for each the settings of a run file in which it differs, and among which it is tuned.

Every method starts from the same jury and pi_0 and is trained on the same prompts. Trainings that sample draw the same
number of completions; ours 96 more, which say how much of it is kept; `distil` draws 128 per prompt, `dpo` none. What
chooses draws its candidates at use (`generated`, `completions_per_text`). Knows nothing of runs and of measures.

| method | what it is |
|---|---|
| `reference` | pi_0: what people wrote, imitated |
| `plural` | ours: the sampled training with the defaults of the run file |
| `plural-given` | the same, half of each batch written by people |
| `plural-prefixes` | the same with `variance_reduction: prefix_rewards` |
| `trl-grpo` | stock GRPO as it comes, on the mean reward of the jury |
| `trl-grpo-tuned` | the same, reward scaling and beta tuned |
| `trl-rloo-tuned` | stock RLOO on the mean reward, beta tuned |
| `drop-in-rloo` | stock RLOO with `JuryReward` on the pool: the two-line drop-in |
| `drop-in-grpo` | stock GRPO with it, without scaling |
| `dpo` | `plural.mode: dpo`: the pairs of the training raters; it draws nothing |
| `distil` | `plural.mode: distil`: supervised training on candidates of pi_0 |
| `rerank` | `plural.mode: rerank`: no training, 16 texts for each one at use |
| `best-of-n` | of 8 texts of pi_0 the one of the largest mean reward |
| `prompting` | pi_0, asked to write what everybody can agree with |
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


__all__ = ["BEST_OF", "INSTRUCTION", "METHODS", "MODES", "TRAINED", "Method", "Setting", "candidates"]

Setting = dict[str, Any]
"""Settings of a run file by key."""
BEST_OF = 8
INSTRUCTION = "Say only what people on every side can agree with."
OURS = "plural.sampled"


@dataclass(frozen=True)
class Method:
    """A method that is trained.

    Attributes:
        section: Section of the run file with its steps, learning rate and numbers of completions.
        stage: Stage of a run that trains it, and folder of its policy.
        settings: Its settings.
        tuned: Settings among which it is tuned beside the learning rate, all combinations; values by key.
    """

    section: str = OURS
    stage: str = "plural"
    settings: Setting = field(default_factory=dict)
    tuned: Mapping[str, Sequence[Any]] = field(default_factory=dict)


def _methods(beta: float) -> dict[str, Method]:
    grpo, rloo = ("grpo", "grpo"), ("rloo", "rloo")
    alone = {"plural.mode": "rerank"}  # the run trains nothing of ours
    return {
        "plural": Method(),
        "plural-given": Method(settings={"plural.sampled.given_share": 0.5}),
        "plural-prefixes": Method(settings={"plural.sampled.variance_reduction": "prefix_rewards"}),
        "trl-grpo": Method(*grpo, settings=alone),
        "trl-grpo-tuned": Method(
            *grpo, alone, {"grpo.beta": (0.0, 0.04, beta), "grpo.scale_rewards": ("group", "none")}
        ),
        "trl-rloo-tuned": Method(*rloo, alone, {"rloo.beta": (0.05, beta, 2 * beta)}),
        "drop-in-rloo": Method(*rloo, {**alone, "rloo.rule": "pool", "rloo.beta": beta}),
        "drop-in-grpo": Method(*grpo, {**alone, "grpo.rule": "pool", "grpo.beta": beta, "grpo.scale_rewards": "none"}),
        "dpo": Method(settings={"plural.mode": "dpo"}),
        "distil": Method(settings={"plural.mode": "distil"}),
    }


TRAINED = tuple(_methods(1.0))
MODES = ("rerank", "best-of-n", "prompting")
"""Methods that are not trained: the run that measures all of them has them as its own settings."""
METHODS = (*TRAINED, *MODES)


def candidates(name: str, beta: float, rates: Sequence[float], steps: int, group: int) -> tuple[Method, list[Setting]]:
    """Return a method, and the settings among which it is tuned; one where the learning rate is all that varies.

    Args:
        name: One of `TRAINED`.
        beta: Temperature of the target, logits.
        rates: Learning rates.
        steps: Batches of one prompt.
        group: Completions per batch; of DPO pairs, of a distillation texts.
    """
    method = _methods(beta)[name]
    section = method.section
    budget = {f"{section}.steps": steps, f"{section}.prompts_per_step": 1, f"{section}.num_generations": group}
    if name == "dpo":
        del budget[f"{section}.prompts_per_step"]  # which that mode does not read
    grid = {**method.tuned, f"{section}.learning_rate": rates}
    return method, [
        {**budget, **method.settings, **dict(zip(grid, values, strict=True))}
        for values in itertools.product(*grid.values())
    ]
