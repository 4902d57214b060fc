"""What a run found: every policy and every baseline against the held-out people, and what steering does.

This file knows nothing of how the policies were trained.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from peft import PeftModel
from rich.console import Console

from plural_rlhf.evaluation.decisions.welfare_effects import welfare_effects
from plural_rlhf.evaluation.distribution.answers import ClusterPanel, cluster_panel, interval_row, metric_rows
from plural_rlhf.policies.answers import answer_probabilities
from plural_rlhf.recipe.config import RunConfig
from plural_rlhf.recipe.data import Question, RunData
from plural_rlhf.recipe.policies import load_base, policy_prompt
from plural_rlhf.rewards.jury_reward import JuryReward
from plural_rlhf.weights.spec import parse_weights
from reward_models.judgements.texts import as_messages
from reward_models.jury.scorer import JuryScorer
from reward_models.stats.answers import js_divergence, noise_floor_js, normalise


__all__ = ["evaluate_run"]

SPLITS = ("train", "heldout")
UNTOUCHED = "untouched"
EVERYBODY = "all"


def evaluate_run(config: RunConfig, data: RunData, folder: Path, console: Console) -> dict[str, Any]:
    """Scores the base model and every saved policy on all questions, for the population and for each cluster.

    Returns:
        `questions`, `steering`, `rules` and `rows` of `results.json`.
    """
    jury = JuryScorer.from_pretrained(folder / "jury")
    names = list(jury.cluster_names)
    weightings = {EVERYBODY: jury.prevalence, **{name: np.eye(len(names))[k] for k, name in enumerate(names)}}
    asked = weightings | {name: parse_weights(seats, names, jury.prevalence) for name, seats in config.juries.items()}
    jury_answers = _jury_answers(jury, data.questions)
    panel = _panel(data, jury)
    stages = _policy_answers(config, data.questions, jury, asked, folder)
    width = panel.n_options
    padded = {
        stage: {name: np.stack([_pad(p, width) for p in answers]) for name, answers in by_weighting.items()}
        for stage, by_weighting in stages.items()
    }
    console.print(f"[bold]Evaluated[/bold] {', '.join(stages)} on {len(data.questions)} questions")
    return {
        "questions": _question_records(data, panel, jury_answers, stages, weightings),
        "steering": list(_steering(data.questions, jury_answers, padded, asked, names)),
        "rules": _rules(config, data.questions, jury),
        "rows": list(_rows(config, data, panel, jury_answers, padded, weightings)),
    }


def _panel(data: RunData, jury: JuryScorer) -> ClusterPanel:
    encoded = data.heldout_raters.encode()
    rewards = jury.cluster_rewards(
        [as_messages(text.prompt) for text in encoded.texts],
        [[{"role": "assistant", "content": text.response}] for text in encoded.texts],
    ).numpy()
    placing = [encoded.item_ids.index(q.id) for q in data.of("train") if q.id in encoded.item_ids]
    panel = cluster_panel(encoded, rewards.astype(np.float64), jury.prevalence, placing)
    return panel.select([encoded.item_ids.index(q.id) for q in data.questions])


def _jury_answers(jury: JuryScorer, questions: list[Question]) -> list[np.ndarray]:
    """Per question `(K, A)`: each cluster's answer distribution as the jury predicts it."""
    reward = JuryReward(jury)
    return [reward.support_rewards(q.messages, q.options).softmax(dim=0).T.numpy() for q in questions]


def _policy_answers(
    config: RunConfig, questions: list[Question], jury: JuryScorer, weightings: dict[str, np.ndarray], folder: Path
) -> dict[str, dict[str, list[np.ndarray]]]:
    base, tokenizer = load_base(config)
    prompts = [policy_prompt(q, w, jury) for w in weightings.values() for q in questions]
    supports = [list(q.options) for _ in weightings for q in questions]

    def answers(model: Any, stage: str) -> dict[str, list[np.ndarray]]:
        flat = answer_probabilities(model, tokenizer, prompts, supports, description=f"scoring {stage}")
        n = len(questions)
        return {name: flat[i * n : (i + 1) * n] for i, name in enumerate(weightings)}

    out = {UNTOUCHED: answers(base, UNTOUCHED)}
    adapters = [stage for stage in ("warm", "grpo", "plural") if (folder / stage / "adapter_config.json").exists()]
    for stage in adapters:
        # A fresh wrapper each time: PEFT unloads an adapter from the base model in place.
        model = PeftModel.from_pretrained(base, folder / stage)
        out[stage] = answers(model, stage)
        base = model.unload()
    return out


def _pad(p: np.ndarray, width: int) -> np.ndarray:
    return np.pad(p, [(0, 0)] * (p.ndim - 1) + [(0, width - p.shape[-1])])


def _question_records(
    data: RunData,
    panel: ClusterPanel,
    jury_answers: list[np.ndarray],
    stages: dict[str, dict[str, list[np.ndarray]]],
    weightings: dict[str, np.ndarray],
) -> list[dict[str, Any]]:
    names = [name for name in weightings if name != EVERYBODY]
    human, n = panel.human(), panel.n()
    by_cluster = [panel.human(k) for k in range(len(names))]
    return [
        {
            "id": q.id,
            "label": data.labels.get(q.id, q.id),
            "prompt": q.wording,
            "options": list(q.options),
            "split": q.split,
            "n": int(n[i]),
            "human": human[i, : len(q.options)],
            "jury": weightings[EVERYBODY] @ jury_answers[i],
            "clusters": {
                name: {"human": by_cluster[k][i, : len(q.options)], "jury": jury_answers[i][k]}
                for k, name in enumerate(names)
            },
            "policy": {
                stage: {
                    name: {"probs": answers[i], "coverage": float(answers[i].sum())}
                    for name, answers in by_weighting.items()
                }
                for stage, by_weighting in stages.items()
            },
        }
        for i, q in enumerate(data.questions)
    ]


def _steering(
    questions: list[Question],
    jury_answers: list[np.ndarray],
    padded: dict[str, dict[str, np.ndarray]],
    weightings: dict[str, np.ndarray],
    names: list[str],
) -> Iterator[dict[str, Any]]:
    """Predicted (the jury's pool under the weights) and achieved (ours) answers, for every weighting and question."""
    if "plural" not in padded:
        return
    for weighting, weights in weightings.items():
        for i, question in enumerate(questions):
            predicted = weights @ jury_answers[i]
            achieved = normalise(padded["plural"][weighting][i, : len(question.options)])
            yield {
                "weighting": "population" if weighting == EVERYBODY else weighting,
                "weights": dict(zip(names, weights, strict=True)),
                "question": question.id,
                "split": question.split,
                "predicted": predicted,
                "achieved": achieved,
                "jsd_nats": float(js_divergence(predicted, achieved)),
            }


def _rules(config: RunConfig, questions: list[Question], jury: JuryScorer) -> list[dict[str, Any]]:
    """What each welfare rule picks on every question, and what each cluster gains by it against the mean.

    By the calibrated heads: a unit is one standard deviation of a cluster's rewards of the offered answers.
    """
    calibration, names = jury.state.calibration, list(jury.cluster_names)
    if calibration is None or len(names) == 1 or not config.evaluate.rules:
        return []
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
    changes = report.to_rows()
    return [
        {
            "rule": effect.rule,
            "baseline": report.baseline,
            "agreement": effect.agreement,
            "picks": {q.id: options[pick] for q, pick in zip(questions, effect.picks, strict=True)},
            "clusters": {
                row["cluster"]: {key: row[key] for key in ("value", "ci_low", "ci_high", "n")}
                for row in changes
                if row["rule"] == effect.rule and row["metric"] == "change"
            },
        }
        for effect in report.effects
    ]


def _rows(
    config: RunConfig,
    data: RunData,
    panel: ClusterPanel,
    jury_answers: list[np.ndarray],
    padded: dict[str, dict[str, np.ndarray]],
    weightings: dict[str, np.ndarray],
) -> Iterator[dict[str, Any]]:
    names = [name for name in weightings if name != EVERYBODY]
    width = panel.n_options
    common = {"case": data.summary(config)["source"]}
    # Each policy under its own steering, and the baselines, all padded to (I, A).
    answers = {
        **padded,
        "jury": {
            name: np.stack([_pad(weights @ a, width) for a in jury_answers]) for name, weights in weightings.items()
        },
        "uniform": dict.fromkeys(
            weightings, np.stack([_pad(np.full(len(q.options), 1 / len(q.options)), width) for q in data.questions])
        ),
    }
    if len({q.options for q in data.questions}) == 1:
        known = [i for i, q in enumerate(data.questions) if q.split == "train"]
        answers["marginal"] = {
            name: np.tile(predicted[known].mean(axis=0), (len(data.questions), 1))
            for name, predicted in answers["jury"].items()
        }
    level = config.evaluate.level
    for split in SPLITS:
        items = [i for i, q in enumerate(data.questions) if q.split == split]
        part = panel.select(items)
        for cluster in (None, *range(len(names))):
            name = EVERYBODY if cluster is None else names[cluster]
            labels = {**common, "split": split, "cluster": name}
            people = part.resample(cluster, draws=config.evaluate.draws, seed=config.seed)
            for stage, by_weighting in answers.items():
                yield from metric_rows(
                    people, by_weighting[name][items], level=level, **labels, stage=stage, method=stage
                )
            # What a perfect model would score, since the people measured against are themselves a sample.
            n = np.maximum(np.round(part.n(cluster)).astype(int), 1)
            floor = noise_floor_js(people.human[0], n, seed=config.seed)
            interval = people.interval(partial(_constant, floor), level=level, clip=True)
            yield interval_row(interval, "jsd_nats", {**labels, "stage": "floor", "method": "floor"})


def _constant(values: np.ndarray, human: np.ndarray) -> np.ndarray:
    return values
