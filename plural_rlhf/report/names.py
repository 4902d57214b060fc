"""Names that a run writes into its results and that its report looks up: methods, stages, splits, metrics.

Each is spelled here once. Every name is a string, so that it is also the key on disk. Knows nothing of numbers.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType


__all__ = [
    "BASELINES",
    "EVERYBODY",
    "METHOD_NAMES",
    "POPULATION",
    "Method",
    "Metric",
    "SkippedPart",
    "Split",
    "Stage",
]

EVERYBODY = "all"
"""The `cluster` of a row about all raters together, and the weighting of a policy that answers for all of them."""

POPULATION = "population"
"""The weighting `EVERYBODY` in the steering results: each cluster by its prevalence."""


class Method(StrEnum):
    """What a row measures: a baseline, the jury, or a policy; the name of a policy is also that of its folder.

    Example:
        >>> Method.GRPO == "grpo", METHOD_NAMES[Method.GRPO]
        (True, 'stock GRPO')
    """

    UNIFORM = "uniform"
    MARGINAL = "marginal"
    WORDING = "wording"
    FLOOR = "floor"
    JURY = "jury"
    UNTOUCHED = "untouched"
    WARM = "warm"
    GRPO = "grpo"
    RLOO = "rloo"
    BEST_OF_N = "best_of_n"
    PROMPTING = "prompting"
    MIXED = "mixed"
    PLURAL = "plural"


METHOD_NAMES: Mapping[str, str] = MappingProxyType(
    {
        Method.UNIFORM: "uniform answers",
        Method.MARGINAL: "marginal (trained questions)",
        Method.WORDING: "marginal, weighted by wording",
        Method.FLOOR: "noise floor",
        Method.JURY: "jury's own prediction",
        Method.UNTOUCHED: "untouched model",
        Method.WARM: "after warm-up (pi_ref)",
        Method.GRPO: "stock GRPO",
        Method.RLOO: "stock RLOO",
        Method.BEST_OF_N: "best of n",
        Method.PROMPTING: "pi_0, instructed",
        Method.MIXED: "ours, mixed at decoding",
        Method.PLURAL: "plural (ours)",
    }
)
"""Methods in the order of the summary, in words."""

BASELINES = (Method.UNIFORM, Method.MARGINAL, Method.WORDING, Method.FLOOR)
"""Methods that need no training."""


class Stage(StrEnum):
    """A part of a run that is kept when it is complete: its file in `stages/` and its key in `meta.seconds`.

    Example:
        >>> [stage.value for stage in Stage]
        ['jury', 'warm', 'plural', 'grpo', 'rloo', 'evaluate']
    """

    JURY = "jury"
    WARM = Method.WARM.value
    PLURAL = Method.PLURAL.value
    GRPO = Method.GRPO.value
    RLOO = Method.RLOO.value
    EVALUATE = "evaluate"


class Split(StrEnum):
    """Questions that the jury and the policies were trained on, and questions that neither ever saw.

    Example:
        >>> list(Split)
        [<Split.TRAIN: 'train'>, <Split.HELDOUT: 'heldout'>]
    """

    TRAIN = "train"
    HELDOUT = "heldout"


class Metric(StrEnum):
    """What is measured per question, as `plural_rlhf.evaluation.distribution.answers.METRICS` lists it.

    Example:
        >>> Metric("jsd_nats") is Metric.JSD
        True
    """

    JSD = "jsd_nats"
    JSD_DEBIASED = "jsd_debiased_nats"
    COVERAGE = "coverage"
    ENTROPY_GAP = "entropy_gap"
    POINTS = "total_variation"


class SkippedPart(StrEnum):
    """What a run may leave out; the value is the name that the report prints.

    Example:
        >>> SkippedPart.STEERING.value
        'steering'
    """

    MARGINAL = "marginal (trained questions)"
    RATERS = "headroom, groups and survey"
    GRPO = "stock GRPO"
    STEERING = "steering"
    RULES = "welfare rules"
    HELDOUT = "held-out questions"
    HELDOUT_JURY = "held-out jury"
    PEOPLE = "comparison with what people wrote"
    BEST_CHECKPOINT = "best checkpoint"
