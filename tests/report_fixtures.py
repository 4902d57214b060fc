"""Made-up results of a run, with every key that results.json has; numbers come from a seed, no model is involved."""

from __future__ import annotations

import numpy as np


CLUSTERS = {"cities, welfare: too little": 0.46, "defense: too little": 0.31, "space, parks: too much": 0.23}
TOPICS = [
    "space exploration",
    "the environment",
    "health",
    "big cities",
    "crime",
    "drug addiction",
    "education",
    "race relations",
    "defense",
    "foreign aid",
    "welfare",
    "highways and bridges",
]
STAGES = ("untouched", "warm", "grpo", "plural")
OPTIONS = ["too little", "about right", "too much"]


def make_results(n_questions: int = 12, n_heldout: int = 4, *, grpo: bool = True, seed: int = 0) -> dict:
    rng = np.random.default_rng(seed)
    questions = []
    for index, topic in enumerate(TOPICS[:n_questions]):
        per_cluster = {name: rng.dirichlet([2, 2, 1.5]) for name in CLUSTERS}
        human = sum(share * per_cluster[name] for name, share in CLUSTERS.items())
        questions.append(
            {
                "id": f"nat{topic[:5].replace(' ', '')}",
                "prompt": f"Is the United States spending too little, about the right amount, or too much on {topic}?",
                "options": OPTIONS,
                "split": "heldout" if index >= n_questions - n_heldout else "train",
                "n": 400 + index,
                "human": human.tolist(),
                "jury": _near(human, 0.05, rng),
                "clusters": {
                    name: {"human": p.tolist(), "jury": _near(p, 0.08, rng)} for name, p in per_cluster.items()
                },
                "policy": {
                    stage: {who: _policy(stage, target, rng) for who, target in {"all": human, **per_cluster}.items()}
                    for stage in STAGES
                    if grpo or stage != "grpo"
                },
            }
        )
    results = {
        "meta": {
            "plural_rlhf_version": "0.1.0",
            "versions": {"torch": "2.13.0", "trl": "1.16.0"},
            "seed": seed,
            "command": "plural-rlhf run configs/quickstart.yaml",
            "machine": {"cpus": 2, "platform": "Linux"},
            "started": "2026-11-21T10:00:00+00:00",
            "seconds": {"jury": 41.0, "warm": 30.2, "plural": 140.0, "grpo": 60.0, "evaluate": 20.0},
            "peak_memory_gb": 3.4,
        },
        "config": {"name": "quickstart", "plural": {"rho": 1.0, "beta": 1.0}, "grpo": {"steps": 20 if grpo else 0}},
        "data": {
            "source": "gss_spending",
            "kind": "choice",
            "n_judgements": 30000,
            "n_raters": 2400,
            "n_items": n_questions,
            "train_raters": 1680,
            "heldout_raters": 720,
            "train_questions": [q["id"] for q in questions if q["split"] == "train"],
            "heldout_questions": [q["id"] for q in questions if q["split"] == "heldout"],
        },
        "headroom": {
            "rungs": [
                {"name": "item mean", "nll": 0.981, "info": 0.0, "low": 0.0, "high": 0.0},
                {"name": "mixture K = 2", "nll": 0.962, "info": 0.019, "low": 0.015, "high": 0.023},
                {"name": "mixture K = 3", "nll": 0.955, "info": 0.026, "low": 0.021, "high": 0.031},
            ],
            "verdict": "Raters differ in taste: 3 clusters explain 0.026 nats per answer.",
            "best": "mixture K = 3",
        },
        "selection": {
            "table": [{"num_clusters": k, "nll": 0.98 - 0.01 * k, "se": 0.002, "info": 0.01 * k} for k in (1, 2, 3)],
            "chosen": 3,
            "reason": "within one standard error of the best",
        },
        "clusters": [
            {
                "name": name,
                "prevalence": share,
                "top": [
                    {"item": "welfare", "option": "too much", "p_cluster": 0.71, "p_population": 0.44, "lift": 1.61},
                    {"item": "big cities", "option": "too little", "p_cluster": 0.5, "p_population": 0.3, "lift": 1.7},
                ],
            }
            for name, share in CLUSTERS.items()
        ],
        "groupings": _groupings(),
        "questions": questions,
        "steering": _steering(questions, rng),
        "rules": _rules(questions),
        "training": {
            "warm": [{"step": s, "loss": 6.0 * 0.7**s + 0.05, "seconds": 1.5} for s in range(20)],
            "plural": [
                {"step": s, "loss": 0.2 * 0.95**s + 0.02 + 0.01 * rng.random(), "seconds": 2.3} for s in range(60)
            ],
            "grpo": [{"step": s, "reward": 0.3 + 0.02 * s + 0.02 * rng.random()} for s in range(20)] if grpo else [],
        },
        "budgets": {
            "warm": {"steps": 20, "scored_sequences": 240, "seconds": 30.2},
            "plural": {"steps": 60, "scored_sequences": 720, "seconds": 140.0},
            "grpo": {"steps": 20, "generated_sequences": 320, "seconds": 60.0},
        },
        "rows": _rows(questions, grpo),
        "skipped": [{"what": "rewardbench", "reason": "needs a download"}],
    }
    if not grpo:
        del results["budgets"]["grpo"]
        results["skipped"].append({"what": "grpo", "reason": "grpo.steps is 0"})
    return results


def _rules(questions):
    """The mean, and a rule that picks another answer on the last question: one cluster gains surely, one may lose."""
    first = {q["id"]: OPTIONS[0] for q in questions}
    other = {**first, questions[-1]["id"]: OPTIONS[2]} if questions else {}
    n = len(questions)
    still = {name: {"value": 0.0, "ci_low": 0.0, "ci_high": 0.0, "n": n} for name in CLUSTERS}
    changes = zip(CLUSTERS, [(0.2, 0.1, 0.3), (-0.1, -0.25, 0.05), (0.0, -0.1, 0.1)], strict=True)
    moved = {name: {"value": v, "ci_low": low, "ci_high": high, "n": n} for name, (v, low, high) in changes}
    return [
        {"rule": "mean", "baseline": "mean", "agreement": 1.0, "picks": first, "clusters": still},
        {"rule": "min", "baseline": "mean", "agreement": 0.75, "picks": other, "clusters": moved},
    ]


def jsd(p, q) -> float:
    p, q = np.asarray(p), np.asarray(q)
    m = (p + q) / 2
    return float(0.5 * (p * np.log(p / m)).sum() + 0.5 * (q * np.log(q / m)).sum())


def _near(p, spread, rng):
    moved = np.clip(p + rng.normal(0, spread, len(p)), 0.01, None)
    return (moved / moved.sum()).tolist()


def _policy(stage, target, rng):
    if stage == "untouched":
        coverage, p = 0.0006, rng.dirichlet([5, 5, 5])
    elif stage == "warm":
        coverage, p = 0.97, np.full(3, 1 / 3)
    elif stage == "grpo":
        p = np.full(3, 0.01)
        p[int(np.argmax(target))] = 0.98
        coverage = 0.995
    else:
        coverage, p = 0.993, np.array(_near(target, 0.03, rng))
    return {"probs": (coverage * np.asarray(p)).tolist(), "coverage": coverage}


def _rows(questions, grpo):
    rows = []

    def add(stage, split, cluster, metric, value, half):
        rows.append(
            {
                "case": "gss_spending",
                "method": stage,
                "stage": stage,
                "split": split,
                "cluster": cluster,
                "metric": metric,
                "value": float(value),
                "ci_low": float(value - half),
                "ci_high": float(value + half),
                "n": 400,
                "unit": "nats",
            }
        )

    for split in ("train", "heldout"):
        chosen = [q for q in questions if q["split"] == split]
        if not chosen:
            continue
        add("uniform", split, "all", "jsd_nats", 0.054, 0.01)
        add("marginal", split, "all", "jsd_nats", 0.024, 0.005)
        add("floor", split, "all", "jsd_nats", 0.001, 0.0004)
        add("jury", split, "all", "jsd_nats", np.mean([jsd(q["jury"], q["human"]) for q in chosen]), 0.003)
        for stage in STAGES:
            if stage == "grpo" and not grpo:
                continue
            for cluster in ("all", *CLUSTERS):
                policies = [np.array(q["policy"][stage][cluster]["probs"]) for q in chosen]
                targets = [q["human"] if cluster == "all" else q["clusters"][cluster]["human"] for q in chosen]
                distance = np.mean([jsd(p / p.sum(), t) for p, t in zip(policies, targets, strict=True)])
                add(stage, split, cluster, "jsd_nats", distance, 0.005)
                add(stage, split, cluster, "coverage", np.mean([p.sum() for p in policies]), 0.0001)
                add(stage, split, cluster, "entropy_gap", -0.9 if stage == "grpo" else -0.02, 0.01)
    return rows


def _steering(questions, rng):
    weightings = {"population": dict(CLUSTERS), **{f"only {c}": {c: 1.0} for c in CLUSTERS}}
    out = []
    for name, weights in weightings.items():
        for q in questions:
            predicted = sum(w * np.array(q["clusters"][c]["jury"]) for c, w in weights.items())
            achieved = _near(predicted, 0.03, rng)
            out.append(
                {
                    "weighting": name,
                    "weights": weights,
                    "question": q["id"],
                    "split": q["split"],
                    "predicted": predicted.tolist(),
                    "achieved": achieved,
                    "jsd_nats": jsd(predicted, achieved),
                }
            )
    return out


def _groupings():
    rows = [
        {"grouping": "clusters", "n_groups": 3, "info": 0.026, "low": 0.021, "high": 0.031},
        {"grouping": "views (merged)", "n_groups": 3, "info": 0.018, "low": 0.014, "high": 0.022},
        {"grouping": "party", "n_groups": 8, "info": 0.016, "low": 0.012, "high": 0.02},
        {"grouping": "sex", "n_groups": 2, "info": 0.001, "low": 0.0, "high": 0.002},
        {"grouping": "random groups", "n_groups": 3, "info": -0.0005, "low": -0.001, "high": 0.0},
        {"grouping": "clusters of shuffled answers", "n_groups": 3, "info": -0.001, "low": -0.002, "high": 0.0},
    ]
    return {
        "rows": rows,
        "clusters": rows[0],
        "best_demographic": rows[1],
        "paired_difference": {"value": 0.008, "low": 0.004, "high": 0.012},
    }
