"""What the stages of the policies leave: training curves, budgets, and how each policy answers, in the end.

Distances are in nats, probabilities lie between 0 and 1, times are in seconds. Knows nothing of how a jury was fitted.
"""

from __future__ import annotations

import math

from pydantic import Field

from plural_rlhf.report.names import EVERYBODY
from plural_rlhf.report.results_base import Number, ResultsModel, Shares


__all__ = [
    "Budget",
    "Change",
    "CheckpointResult",
    "ClusterAnswers",
    "EvaluationResults",
    "FormResult",
    "LoggedStep",
    "PolicyAnswers",
    "QuestionResult",
    "Row",
    "RuleResult",
    "Skipped",
    "SteeringResult",
    "TextResults",
    "TextRow",
    "TrainingResults",
    "WrittenText",
]


class LoggedStep(ResultsModel):
    """One optimiser step of a training; other logged numbers are kept under their own names, null where NaN.

    Example:
        >>> step = LoggedStep.model_validate({"step": 1, "loss": 0.2, "coverage": 0.9})
        >>> step.loss, step.reward, step.to_dict()["coverage"]
        (0.2, None, 0.9)
    """

    step: int = Field(description="Number of the step, from 1.")
    loss: float | None = Field(
        default=None, description="Loss; in nats for exact trainings. With a rehearsal its term, too."
    )
    reward: float | None = Field(default=None, description="Mean reward of the sampled completions.")


class Budget(ResultsModel):
    """What a training was given, and how much of it was kept.

    Example:
        >>> Budget(steps=8, generated_sequences=64, seconds=12.5).to_dict()
        {'steps': 8, 'generated_sequences': 64, 'seconds': 12.5}
    """

    steps: int = Field(description="Optimiser steps.")
    scored_sequences: int | None = Field(default=None, description="Answers whose probability was computed.")
    generated_sequences: int | None = Field(default=None, description="Completions that were sampled.")
    seconds: float = Field(description="Seconds of training.")
    kept_share: float | None = Field(
        default=None, description="Share of the change of weights that was kept, by texts to training prompts."
    )
    kept_of: dict[str, Number] | None = Field(
        default=None,
        description="By share of the change, what it was chosen by: estimated KL to the target, nats; null where the "
        "texts do not tell.",
    )


class TrainingResults(ResultsModel):
    """What the stage of one policy leaves.

    Example:
        >>> untrained = TrainingResults(history=[], budget=Budget(steps=0, seconds=0.0))
        >>> untrained.budget.steps
        0
    """

    history: list[LoggedStep] = Field(description="One entry per step; empty where nothing was trained.")
    budget: Budget = Field(description="What was spent.")
    best_step: int | None = Field(
        default=None, description="Step whose policy was kept, by its loss on validation questions; null for the last."
    )


class ClusterAnswers(ResultsModel):
    """How one cluster answers a question.

    Example:
        >>> import numpy as np
        >>> ClusterAnswers(human=np.array([0.75, 0.25]), jury=[0.7, 0.3]).human
        [0.75, 0.25]
    """

    human: Shares = Field(description="Shares of the held-out raters of the cluster.")
    jury: Shares = Field(description="Shares that the jury predicts.")


class PolicyAnswers(ResultsModel):
    """How a policy answers a question under one weighting.

    Example:
        >>> answers = PolicyAnswers(probs=[0.5, 0.25], coverage=0.75)  # a quarter went to other text
        >>> 1 - answers.coverage
        0.25
    """

    probs: Shares = Field(description="Probability of each offered answer; they sum to the coverage.")
    coverage: Number = Field(description="Probability of all offered answers together.")


class QuestionResult(ResultsModel):
    """One question: what people say, what the jury predicts, what each policy says.

    Example:
        >>> answers = PolicyAnswers(probs=[0.5, 0.4], coverage=0.9)
        >>> question = QuestionResult(
        ...     id="parks", prompt="More parks?", options=["yes", "no"], split="train", n=14, human=[0.5, 0.5],
        ...     jury=[0.6, 0.4], clusters={}, policy={"plural": {"all": answers}},
        ... )
        >>> question.population_answers("plural"), question.population_answers("grpo")
        ([0.5, 0.4], None)
    """

    id: str = Field(description="Item id.")
    label: str = Field(default="", description="Short name; empty for none.")
    prompt: str = Field(description="The wording.")
    options: list[str] = Field(description="The offered answers.")
    split: str = Field(description="One of `names.Split`.")
    n: int = Field(description="Held-out raters that answered it.")
    n_effective: Number = Field(
        default=math.nan, description="Raters of equal weight of the same precision (Kish), for margins of error."
    )
    human: Shares = Field(description="Shares of all held-out raters.")
    jury: Shares = Field(description="Shares that the jury predicts for the population.")
    clusters: dict[str, ClusterAnswers] = Field(description="The same per cluster.")
    policy: dict[str, dict[str, PolicyAnswers]] = Field(description="Answers by method, then by weighting.")

    def population_answers(self, method: str) -> list[float] | None:
        """Return what a policy answers for everybody, None if it was not measured."""
        answers = self.policy.get(method, {}).get(EVERYBODY)
        return None if answers is None else answers.probs


class SteeringResult(ResultsModel):
    """How a policy answers a question when it is asked for a weighting of the clusters.

    Example:
        >>> entry = SteeringResult(
        ...     weighting="council", weights={"urban": 0.25, "rural": 0.75}, question="parks", split="heldout",
        ...     predicted=[0.6, 0.4], achieved=[0.6, 0.4], jsd_nats=0.0,
        ... )
        >>> sum(entry.weights.values())
        1.0
    """

    weighting: str = Field(description="Name: the population, a cluster, or a jury of the run file.")
    weights: dict[str, Number] = Field(description="Weight per cluster; they sum to 1.")
    question: str = Field(description="Item id.")
    split: str = Field(description="One of `names.Split`.")
    predicted: Shares = Field(description="What the jury predicts under these weights.")
    achieved: Shares = Field(description="What the policy answers, normalised to the offered answers.")
    jsd_nats: Number = Field(description="Jensen-Shannon divergence of the two, nats.")


class FormResult(ResultsModel):
    """How far a policy is from people where the same questions are put in one form.

    Example:
        >>> form = FormResult(
        ...     form="list", trained=False, method="plural", split="train", points=0.4, jsd_nats=0.3, coverage=1, n=12
        ... )
        >>> "as in training" if form.trained else "otherwise"
        'otherwise'
    """

    form: str = Field(description="How the offered answers are shown (`Form.name`).")
    trained: bool = Field(description="Whether the policies were trained on questions in this form.")
    method: str = Field(description="One of `names.Method`.")
    split: str = Field(description="One of `names.Split`.")
    points: Number = Field(description="Total variation from people, mean over questions.")
    ci_low: Number = Field(default=math.nan, description="Lower end of its interval over people and questions.")
    ci_high: Number = Field(default=math.nan, description="Upper end of it.")
    jsd_nats: Number = Field(description="Jensen-Shannon divergence from people, mean over questions, nats.")
    coverage: Number = Field(description="Probability of all offered answers together.")
    n: int = Field(description="Number of questions.")


class ElsewhereResult(ResultsModel):
    """How far a policy is from the language model on conversations that have nothing to do with the training.

    Example:
        >>> ElsewhereResult(method="plural", kl_per_token=0.01, ci_low=0.005, ci_high=0.02, n=16).n
        16
    """

    method: str = Field(description="One of `names.Method`.")
    kl_per_token: Number = Field(description="KL(language model || policy), mean over places, nats per token.")
    ci_low: Number = Field(description="Lower end of its interval over conversations.")
    ci_high: Number = Field(description="Upper end of it.")
    n: int = Field(description="Number of conversations.")


class Change(ResultsModel):
    """The change of a cluster's reward between two rules.

    Example:
        >>> change = Change(value=0.2, ci_low=0.1, ci_high=0.3, n=9)
        >>> "gains" if change.ci_low > 0 else "undecided"
        'gains'
    """

    value: Number = Field(description="Mean over questions, in standard deviations of the cluster's rewards.")
    ci_low: Number = Field(default=math.nan, description="Lower end of the interval over questions.")
    ci_high: Number = Field(default=math.nan, description="Upper end of it.")
    n: int = Field(description="Number of questions.")


class RuleResult(ResultsModel):
    """What a welfare rule picks, and who gains by it.

    Example:
        >>> effect = RuleResult(rule="min", baseline="mean", agreement=0.75, picks={"parks": "yes"}, clusters={})
        >>> effect.picks["parks"]
        'yes'
    """

    rule: str = Field(description="The rule.")
    baseline: str = Field(description="The rule it is compared with.")
    agreement: Number = Field(description="Share of the questions on which the two pick the same answer.")
    picks: dict[str, str] = Field(description="The picked answer by item id.")
    clusters: dict[str, Change] = Field(description="Change of reward per cluster.")


class Row(ResultsModel):
    """One number in tidy form.

    Example:
        >>> row = Row(method="plural", split="heldout", cluster="all", metric="jsd_nats", value=0.02)
        >>> row.value, row.ci_low
        (0.02, nan)
    """

    case: str = Field(default="", description="Source of the judgements.")
    split: str = Field(description="One of `names.Split`.")
    cluster: str = Field(description="Whose answers: `all`, or the name of a cluster.")
    stage: str = Field(default="", description="Same as `method`.")
    method: str = Field(description="One of `names.Method`.")
    metric: str = Field(description="One of `names.Metric`.")
    value: Number = Field(description="Mean over the questions of the split.")
    ci_low: Number = Field(default=math.nan, description="Lower end of the interval over raters and questions.")
    ci_high: Number = Field(default=math.nan, description="Upper end of it.")
    n: int = Field(default=0, description="Number of questions.")
    n_raters: int = Field(default=0, description="Number of raters.")
    unit: str = Field(default="", description="`nats` or `probability`.")


class Skipped(ResultsModel):
    """What a run left out, and why.

    Example:
        >>> Skipped(what="stock GRPO", reason="grpo.steps is 0").to_dict()
        {'what': 'stock GRPO', 'reason': 'grpo.steps is 0'}
    """

    what: str = Field(description="Name of the part, one of `names.SkippedPart`.")
    reason: str = Field(description="Why it was left out, to be read after `because`.")


class TextRow(ResultsModel):
    """One measure of one policy.

    Example:
        >>> row = TextRow(policy="plural", measure="bridging", value=0.7)
        >>> row.value, row.ci_low
        (0.7, None)
    """

    policy: str = Field(description="One of `names.Method`, or `people`.")
    measure: str = Field(description="Name of the measure.")
    jury: str = Field(default="", description="`training` or `heldout`, where a jury judges.")
    cluster: str = Field(default="", description="The cluster whose number it is.")
    rival: str = Field(default="", description="The policy it is compared with.")
    value: float | None = Field(default=None, description="The estimate; null where there is none, see `reason`.")
    ci_low: float | None = Field(default=None, description="Lower end of its interval over prompts.")
    ci_high: float | None = Field(default=None, description="Upper end of it.")
    gain: float | None = Field(default=None, description="Difference to pi_0 on the same prompts.")
    gain_low: float | None = Field(default=None, description="Lower end of its interval.")
    gain_high: float | None = Field(default=None, description="Upper end of it.")
    floor: float | None = Field(default=None, description="The same measure of people against people.")
    baseline: float | None = Field(default=None, description="The same measure with the texts of other prompts.")
    k: int | None = Field(default=None, description="Texts per prompt, for measures that depend on it.")
    n: int = Field(default=0, description="Prompts behind the value.")
    reason: str | None = Field(default=None, description="Why there is no value.")
    unit: str = Field(default="", description="Unit of the value.")
    better: str = Field(default="", description="`higher`, `lower` or `neither`; empty where a file does not say.")


class WrittenText(ResultsModel):
    """One text by a policy or by people.

    Example:
        >>> WrittenText(policy="people", prompt="What now?", text="Parks.").approvals
        {}
    """

    policy: str = Field(description="Who wrote it; `people` for people.")
    prompt: str = Field(description="Wording of the prompt.")
    text: str = Field(description="The text.")
    approvals: dict[str, float] = Field(default={}, description="Share of each cluster that approves, as predicted.")
    heldout_approvals: dict[str, float] = Field(default={}, description="The same by the held-out jury.")
    position: tuple[float, float] | None = Field(default=None, description="Place on the map of people's texts.")
    said_by: int | None = Field(default=None, description="Class of people's texts that says the same.")
    degenerate: str | None = Field(default=None, description="Why it is no answer; null if it is one.")


class TextResults(ResultsModel):
    """What policies wrote when they were asked for one weighting, on the prompts of one split.

    Example:
        >>> results = TextResults(split="heldout", weighting="all", rows=[TextRow(policy="plural", measure="words")])
        >>> results.row("plural", "words").jury, results.row("plural", "ties")
        ('', None)
    """

    split: str = Field(description="One of `names.Split`.")
    weighting: str = Field(description="Who was asked for: `all`, a cluster, or a jury of the run file.")
    weights: dict[str, float] = Field(default={}, description="Weight per cluster; they sum to 1.")
    rows: list[TextRow] = Field(default=[], description="The measures.")
    texts: list[WrittenText] = Field(default=[], description="Every text.")
    curves: dict[str, dict[str, float | None]] = Field(
        default={}, description="Share of people's classes covered, by policy and number of texts."
    )
    settings: dict[str, object] = Field(default={}, description="How it was measured.")

    def row(self, policy: str, measure: str, *, jury: str = "", cluster: str = "", rival: str = "") -> TextRow | None:
        """Return one row, None if there is none."""
        key = (policy, measure, jury, cluster, rival)
        return next((r for r in self.rows if (r.policy, r.measure, r.jury, r.cluster, r.rival) == key), None)


class CheckpointResult(ResultsModel):
    """What a few texts of a policy say on its way: how far it went, and what its jury and the held-out jury gain.

    Example:
        >>> CheckpointResult(policy="grpo", step=20, split="train", kl_to_reference=1.5, gain=0.2, n=16).heldout_gain
    """

    policy: str = Field(description="As in `TextRow`.")
    step: int = Field(description="Steps of training before it.")
    split: str = Field(description="One of `names.Split`.")
    kl_to_reference: float = Field(description="Divergence from pi_0, nats per text.")
    gain: float = Field(description="Approval above pi_0's by the training jury, over its clusters by prevalence.")
    heldout_gain: float | None = Field(default=None, description="The same by the held-out jury; null without one.")
    n: int = Field(description="Texts behind it.")
    kept: bool = Field(default=False, description="Whether this is the policy that the other measures are about.")


class EvaluationResults(ResultsModel):
    """What the evaluation's stage leaves.

    Example:
        >>> EvaluationResults(skipped=[Skipped(what="welfare rules", reason="the jury has one cluster")]).rules
        []
    """

    questions: list[QuestionResult] = Field(default=[], description="Answers, question by question.")
    steering: list[SteeringResult] = Field(default=[], description="Predicted and achieved answers by weighting.")
    forms: list[FormResult] = Field(
        default=[], description="Policies asked the same questions in other forms, for everybody."
    )
    elsewhere: list[ElsewhereResult] = Field(
        default=[], description="What the trainings changed on texts that have nothing to do with them."
    )
    rules: list[RuleResult] = Field(default=[], description="Welfare rules, compared with the first.")
    rows: list[Row] = Field(default=[], description="All measured numbers in tidy form.")
    texts: list[TextResults] = Field(
        default=[], description="Policies that write text, by split and by who they were asked for."
    )
    along: list[CheckpointResult] = Field(default=[], description="Policies that write text along their trainings.")
    skipped: list[Skipped] = Field(default=[], description="What could not be measured, and why.")
