"""Measure every policy and every baseline of a run against the held-out people, and what steering does.

Knows nothing of how the policies were trained.

Shapes: `I` questions, `A` offered answers, `K` clusters.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from peft import PeftModel
from rich.console import Console

from plural_rlhf.evaluation.decisions.welfare_effects import welfare_effects
from plural_rlhf.evaluation.distribution.answers import ClusterPanel, cluster_panel, interval_row, metric_rows
from plural_rlhf.evaluation.open_ended.embedder import text_embedder
from plural_rlhf.evaluation.open_ended.scored import Embed
from plural_rlhf.policies.answers import answer_probabilities
from plural_rlhf.recipe.config import RunConfig
from plural_rlhf.recipe.data import Question, RunData
from plural_rlhf.recipe.job import KeepPieces
from plural_rlhf.recipe.multiple_choice.elsewhere import Elsewhere, elsewhere_results
from plural_rlhf.recipe.multiple_choice.forms import Form, form_results, forms_of
from plural_rlhf.recipe.multiple_choice.policies import policy_prompt
from plural_rlhf.recipe.trainings import load_base
from plural_rlhf.report.names import EVERYBODY, POPULATION, Method, Metric, SkippedPart, Split, Stage
from plural_rlhf.report.results_policies import (
    Change,
    ClusterAnswers,
    EvaluationResults,
    PolicyAnswers,
    QuestionResult,
    Row,
    RuleResult,
    Skipped,
    SteeringResult,
)
from plural_rlhf.rewards.jury_reward import JuryReward
from reward_models.baselines.similar_questions import fit_similar_questions
from reward_models.borders import heading
from reward_models.judgements.texts import as_messages
from reward_models.jury.backbones.loading import minilm_folder
from reward_models.jury.scorer import JuryScorer
from reward_models.progress import track
from reward_models.stats.answers import js_divergence, noise_floor, normalise, total_variation
from reward_models.stats.two_way import two_way_interval
from reward_models.weights import parse_weights


if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["evaluate_run", "wording_embedder"]

FLOORS = {Metric.JSD: js_divergence, Metric.POINTS: total_variation}
"""The distances that people have to themselves because they are few."""
BATCH = 12
"""Prompts that a policy answers at once; a piece of work, so that the numbers of a resumed run are the same."""
Weightings = Mapping[str, np.ndarray]
"""Weights `(K,)` of the clusters by the name of who is asked for."""
Answers = dict[str, dict[str, list[np.ndarray]]]
"""Per method and weighting, one answer distribution `(A,)` per question."""


def evaluate_run(
    config: RunConfig, data: RunData, folder: Path, console: Console, keep: KeepPieces
) -> EvaluationResults:
    """Score the base model and every saved policy on all questions, for the population and for each cluster.

    Args:
        config: The run.
        data: Its judgements; only the held-out raters are measured against.
        folder: Folder of the run, which holds the jury and the policies.
        console: Where to report progress.
        keep: Given a name and pieces of work, returns their results: what a stopped run has done already, or what is
            done now.

    Returns:
        What the report and `results.json` say of it.
    """
    jury = JuryScorer.from_pretrained(folder / Stage.JURY)
    names = list(jury.cluster_names)
    clusters: Weightings = {
        EVERYBODY: jury.prevalence,
        **{name: np.eye(len(names))[k] for k, name in enumerate(names)},
    }
    juries = {name: parse_weights(seats, names, jury.prevalence) for name, seats in config.juries.items()}
    weightings = {**clusters, **juries}
    jury_answers = _jury_answers(jury, data.questions, keep)
    panel = _panel(data, jury, keep)
    policies, by_form, elsewhere = _policy_answers(config, data.questions, jury, weightings, folder, keep)
    baselines = _baseline_answers(data.questions, jury_answers, clusters)
    if Method.MARGINAL in baselines:
        vectors = _wording_vectors(jury, data.questions, keep)
        baselines[Method.WORDING] = _answers_by_wording(data.questions, baselines[Method.JURY], vectors)
    rules, why_no_rules = _rules(config, data.questions, jury)
    reasons = {
        SkippedPart.MARGINAL: None if Method.MARGINAL in baselines else "the questions do not offer the same answers",
        SkippedPart.RULES: why_no_rules,
    }
    console.print(heading("Evaluated", f"{', '.join(policies)} on {len(data.questions)} questions"))
    return EvaluationResults(
        questions=_questions(data, panel, jury_answers, policies, baselines[Method.JURY][EVERYBODY], names),
        steering=list(_steering(data.questions, jury_answers, policies, weightings, names)),
        forms=list(
            form_results(
                data.questions,
                panel,
                by_form,
                draws=config.evaluate.draws,
                level=config.evaluate.level,
                seed=config.seed,
            )
        ),
        elsewhere=list(elsewhere_results(elsewhere, config.evaluate.level)),
        rules=rules,
        rows=list(_rows(config, data, panel, {**policies, **baselines}, names)),
        skipped=[Skipped(what=part, reason=reason) for part, reason in reasons.items() if reason is not None],
    )


def _panel(data: RunData, jury: JuryScorer, keep: KeepPieces) -> ClusterPanel:
    encoded = data.heldout_raters.encode()

    def score() -> list[list[float]]:
        return jury.cluster_rewards(
            [as_messages(text.prompt) for text in encoded.texts],
            [[{"role": "assistant", "content": text.response}] for text in encoded.texts],
        ).tolist()

    rewards = np.array(keep("rewards", [score])[0])
    known_items = [encoded.item_ids.index(q.id) for q in data.of(Split.TRAIN) if q.id in encoded.item_ids]
    panel = cluster_panel(encoded, rewards, jury.prevalence, known_items)
    return panel.select([encoded.item_ids.index(q.id) for q in data.questions])


def _jury_answers(jury: JuryScorer, questions: Sequence[Question], keep: KeepPieces) -> list[np.ndarray]:
    """Per question `(K, A)`: each cluster's answer distribution as the jury predicts it."""
    reward = JuryReward(jury)

    def predict(question: Question) -> list[list[float]]:
        # In double precision, in which the answers of a cluster sum to 1 to the last digit that is printed.
        return reward.support_rewards(question.messages, question.options).double().softmax(dim=0).T.tolist()

    predicted = keep("predicted", [partial(predict, question) for question in questions])
    return [np.array(answers) for answers in predicted]


def _policy_answers(
    config: RunConfig,
    questions: Sequence[Question],
    jury: JuryScorer,
    weightings: Weightings,
    folder: Path,
    keep: KeepPieces,
) -> tuple[Answers, dict[str, dict[Form, list[np.ndarray]]], dict[str, list[float]]]:
    """What each policy answers under each weighting, and for everybody in each form; how far it moved elsewhere."""
    base, tokenizer = load_base(config)
    elsewhere = Elsewhere(config, base, tokenizer, keep)
    first, *others = forms_of(config.policy.layouts, shuffled=config.policy.shuffle_answers)
    everybody = weightings[EVERYBODY]
    asked = [policy_prompt(q, w, jury, first.layout) for w in weightings.values() for q in questions]
    otherwise = [policy_prompt(q, everybody, jury, form.layout, form.order(q)) for form in others for q in questions]

    def pieces(model: PreTrainedModel, prompts: Sequence[list[dict[str, str]]]) -> list[Callable[[], Any]]:
        supports = [list(q.options) for q in questions] * (len(prompts) // len(questions))

        def score(start: int) -> list[list[float]]:
            part = slice(start, start + BATCH)
            flat = answer_probabilities(
                model, tokenizer, prompts[part], supports[part], batch_size=BATCH, progress=False
            )
            return [probabilities.tolist() for probabilities in flat]

        return [partial(score, start) for start in range(0, len(prompts), BATCH)]

    policies: Answers = {}
    by_form: dict[str, dict[Form, list[np.ndarray]]] = {}
    moved: dict[str, list[float]] = {}
    for method in (Method.UNTOUCHED, Method.WARM, *((Method.GRPO,) if config.grpo.steps else ()), Method.PLURAL):
        # A fresh wrapper each time: PEFT unloads an adapter from the base model in place.
        model = base if method == Method.UNTOUCHED else PeftModel.from_pretrained(base, folder / method)
        parts = {method.value: pieces(model, asked), f"{method.value}, other forms": pieces(model, otherwise)}
        flat, more = ([np.array(p) for piece in keep(*part) for p in piece] for part in parts.items())
        if method != Method.UNTOUCHED:
            of_texts = keep(f"{method.value}, elsewhere", elsewhere.pieces(model))
            moved[method] = [divergence for piece in of_texts for divergence in piece]
            model.unload()
        policies[method] = dict(zip(weightings, _per(len(questions), flat), strict=True))
        by_form[method] = {
            first: policies[method][EVERYBODY],
            **dict(zip(others, _per(len(questions), more), strict=True)),
        }
    return policies, by_form, moved


def _per(n: int, answers: Sequence[np.ndarray]) -> list[list[np.ndarray]]:
    """Divide answers into lists of `n`, one for each way of asking all questions."""
    return [list(answers[start : start + n]) for start in range(0, len(answers), n)]


def _baseline_answers(
    questions: Sequence[Question], jury_answers: Sequence[np.ndarray], clusters: Weightings
) -> Answers:
    """What needs no policy: the jury's own prediction, uniform answers, and the average of the trained questions."""
    baselines: Answers = {
        Method.JURY: {name: [weights @ a for a in jury_answers] for name, weights in clusters.items()},
        Method.UNIFORM: {name: [np.full(len(q.options), 1 / len(q.options)) for q in questions] for name in clusters},
    }
    if len({q.options for q in questions}) == 1:
        train = [i for i, q in enumerate(questions) if q.split == Split.TRAIN]
        baselines[Method.MARGINAL] = {
            name: [np.mean([predicted[i] for i in train], axis=0)] * len(questions)
            for name, predicted in baselines[Method.JURY].items()
        }
    return baselines


def _wording_vectors(jury: JuryScorer, questions: Sequence[Question], keep: KeepPieces) -> np.ndarray:
    """`(I, D)` vectors of the questions' texts."""

    def encode() -> list[list[float]]:
        return wording_embedder(jury)([q.wording for q in questions]).tolist()

    return np.array(keep("wording", [encode])[0])


def wording_embedder(jury: JuryScorer) -> Embed:
    """Return what tells how alike questions are: MiniLM where it is installed, else the backbone of the jury.

    Args:
        jury: Of it only the backbone counts; vectors are means over the tokens.
    """
    folder = minilm_folder()
    return text_embedder(folder) if folder else text_embedder(jury.model.model, jury.tokenizer, pooling="mean")


def _answers_by_wording(
    questions: Sequence[Question], jury_answers: Mapping[str, Sequence[np.ndarray]], vectors: np.ndarray
) -> dict[str, list[np.ndarray]]:
    """What the trained questions say of each question by their wording; of a trained one, what the others say."""
    train = [i for i, q in enumerate(questions) if q.split == Split.TRAIN]
    answers: dict[str, list[np.ndarray]] = {}
    for name, by_question in jury_answers.items():
        answers[name] = []
        for i in range(len(questions)):
            others = [j for j in train if j != i] or train
            fit = fit_similar_questions(np.stack([by_question[j] for j in others]), vectors[others])
            answers[name].append(fit.shares(vectors[[i]])[0])
    return answers


def _questions(
    data: RunData,
    panel: ClusterPanel,
    jury_answers: Sequence[np.ndarray],
    policies: Answers,
    population: Sequence[np.ndarray],
    names: Sequence[str],
) -> list[QuestionResult]:
    """What people, jury and policies answer to every question."""
    human, n = panel.human(), panel.n()
    n_effective = panel.n_effective()
    by_cluster = [panel.human(k) for k in range(len(names))]
    return [
        QuestionResult(
            id=q.id,
            label=data.labels.get(q.id, q.id),
            prompt=q.wording,
            options=list(q.options),
            split=q.split,
            n=int(n[i]),
            n_effective=float(n_effective[i]),
            human=human[i, : len(q.options)].tolist(),
            jury=population[i].tolist(),
            clusters={
                name: ClusterAnswers(
                    human=by_cluster[k][i, : len(q.options)].tolist(), jury=jury_answers[i][k].tolist()
                )
                for k, name in enumerate(names)
            },
            policy={
                method: {
                    name: PolicyAnswers(probs=answers[i].tolist(), coverage=float(answers[i].sum()))
                    for name, answers in by_weighting.items()
                }
                for method, by_weighting in policies.items()
            },
        )
        for i, q in enumerate(data.questions)
    ]


def _steering(
    questions: Sequence[Question],
    jury_answers: Sequence[np.ndarray],
    policies: Answers,
    weightings: Weightings,
    names: Sequence[str],
) -> Iterator[SteeringResult]:
    """Predicted (the jury's pool under the weights) and achieved (ours) answers, for every weighting and question."""
    for weighting, answers in policies.get(Method.PLURAL, {}).items():
        weights = weightings[weighting]
        for i, question in enumerate(questions):
            predicted, achieved = weights @ jury_answers[i], normalise(answers[i])
            yield SteeringResult(
                weighting=POPULATION if weighting == EVERYBODY else weighting,
                weights=dict(zip(names, weights.tolist(), strict=True)),
                question=question.id,
                split=question.split,
                predicted=predicted.tolist(),
                achieved=achieved.tolist(),
                jsd_nats=float(js_divergence(predicted, achieved)),
            )


def _rules(config: RunConfig, questions: Sequence[Question], jury: JuryScorer) -> tuple[list[RuleResult], str | None]:
    """What each welfare rule picks on every question, and what each cluster gains by it against the first rule.

    By the calibrated heads: a unit is one standard deviation of a cluster's rewards of the offered answers.

    Returns:
        One result per rule, and why there is none where there is none.
    """
    calibration, names = jury.state.calibration, list(jury.cluster_names)
    if len(names) == 1:
        return [], "the jury has one cluster"
    if not config.evaluate.rules:
        return [], "evaluate.rules is empty"
    if calibration is None:
        return [], "the heads of the jury are not calibrated"
    reward = JuryReward(jury)
    rewards = [calibration.apply(reward.support_rewards(q.messages, q.options)).numpy() for q in questions]
    group = np.repeat(np.arange(len(questions)), [len(r) for r in rewards])
    report = welfare_effects(
        np.concatenate(rewards),
        group,
        jury.prevalence,
        config.evaluate.rules,
        names,
        draws=config.evaluate.draws,
        level=config.evaluate.level,
        seed=config.seed,
    )
    options = [option for q in questions for option in q.options]
    changes = [row for row in report.to_rows() if row["metric"] == "change"]
    results = [
        RuleResult(
            rule=effect.rule,
            baseline=report.baseline,
            agreement=effect.agreement,
            picks={q.id: options[pick] for q, pick in zip(questions, effect.picks, strict=True)},
            clusters={
                row["cluster"]: Change(value=row["value"], ci_low=row["ci_low"], ci_high=row["ci_high"], n=row["n"])
                for row in changes
                if row["rule"] == effect.rule
            },
        )
        for effect in report.effects
    ]
    return results, None


def _rows(
    config: RunConfig, data: RunData, panel: ClusterPanel, answers: Answers, names: Sequence[str]
) -> Iterator[Row]:
    """Every method against the held-out raters, all of them or one cluster, each method under its own steering."""
    level, source = config.evaluate.level, data.summary(config).source
    padded = {
        method: {name: _padded(by_question, panel.n_options) for name, by_question in by_weighting.items()}
        for method, by_weighting in answers.items()
    }
    for split in track(Split, "intervals over people and questions"):
        items = [i for i, q in enumerate(data.questions) if q.split == split]
        if not items:
            continue
        part = panel.select(items)
        for cluster in track((None, *range(len(names))), f"{split} questions: clusters"):
            name = EVERYBODY if cluster is None else names[cluster]
            labels = {"case": source, "split": str(split), "cluster": name}
            people = part.resample(cluster, draws=config.evaluate.draws, seed=config.seed)
            for method, by_weighting in padded.items():
                rows = metric_rows(
                    people, by_weighting[name][items], level=level, **labels, stage=method, method=method
                )
                yield from (Row(**row) for row in rows)
            # What a perfect model would score, since the people measured against are themselves a sample.
            n = np.maximum(np.round(part.n_effective(cluster)).astype(int), 1)
            labels |= {"stage": Method.FLOOR, "method": Method.FLOOR}
            for metric, distance in FLOORS.items():
                floor = noise_floor(people.human[0], n, seed=config.seed, distance=distance)
                interval = two_way_interval(
                    people, partial(_constant, floor), level=level, debias=False, bounds=(0.0, np.inf)
                )
                yield Row(**interval_row(interval, metric, labels))


def _padded(distributions: Sequence[np.ndarray], width: int) -> np.ndarray:
    """`(I, width)` distributions of different lengths, 0 where a question offers no such answer."""
    return np.stack([np.pad(p, (0, width - len(p))) for p in distributions])


def _constant(values: np.ndarray, human: np.ndarray) -> np.ndarray:
    return np.broadcast_to(values, human.shape[:-1])
