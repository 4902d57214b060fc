"""Settings and rows of the trainings whose checkpoints `make.py` stores, and from which `test_stored.py` goes on."""

from __future__ import annotations

from typing import Any

import numpy as np

from reward_models import JuryScorer


__all__ = ["OPTIONS", "TOPICS", "answer", "describe_trainings", "question"]

OPTIONS = ["yes", "no", "no idea"]
TOPICS = ["parks", "roads", "schools", "trains", "police", "museums", "clinics", "bridges", "swimming pools"]
COMMON = {
    "use_cpu": True,
    "bf16": False,
    "report_to": "none",
    "gradient_checkpointing": False,
    "disable_tqdm": True,
    "logging_steps": 1,
    "save_strategy": "steps",
    "learning_rate": 1e-3,
    "lr_scheduler_type": "linear",
}


def question(topic: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": f"Should the city build {topic}?"}]


def answer(text: str) -> list[dict[str, str]]:
    return [{"role": "assistant", "content": text}]


# ── what is fitted and trained on ───────────────────────────────────────────────────────────────────────────────────


def describe_trainings() -> dict[str, Any]:
    """What the test needs to build the same trainers: settings and rows; the rest is in `trainer`."""
    rng = np.random.default_rng(1)
    pairs = []
    for person in range(8):
        for number, topic in enumerate(TOPICS[:5]):
            better = OPTIONS[(person + number) % 2]
            liked = "tie" if rng.random() < 0.15 else ("a" if better == "yes" else "b")
            prompt = f"More {topic}? "
            pairs.append(
                {"rater_id": f"p{person}", "prompt": prompt, "response_a": "yes", "response_b": "no", "choice": liked}
            )
    names = JuryScorer.from_pretrained("jury").cluster_names
    asked = [{"prompt": question(f"more {topic}")} for topic in TOPICS[:4]]
    chosen = [
        {
            "prompt": question(f"more {topic}"),
            "chosen": answer("yes" if person % 3 else "no"),
            "rejected": answer("no" if person % 3 else "yes"),
            "rater_id": f"p{person}",
        }
        for person in range(4)
        for topic in TOPICS[:2]
    ]
    steps = {**COMMON, "max_steps": 4, "save_steps": 2}
    return {
        "jury_checkpoint": {
            "settings": {
                **COMMON,
                "max_steps": 2,
                "save_steps": 1,
                "per_device_train_batch_size": 2,
                "cluster_names": ["spenders", "savers"],
                "cluster_descriptions": ["They want more.", "They want less."],
            },
            "rows": pairs,
        },
        "grpo_checkpoint": {
            "settings": {
                **steps,
                "per_device_train_batch_size": 8,
                "num_generations": 4,
                "max_completion_length": 8,
                "num_iterations": 2,
                "replay_size": 100,
                "reference_share": 0.25,
                "steerable": True,
                "steer_vertex_share": 0.5,
                "steer_prevalence_share": 0.5,
                "kl_budget": 0.5,
                "tie_margin": 0.5,
                "uniform_floor": 0.5,
                "estimator": "tb",
                "offsets": "ema",
                "max_steps": 8,
                "save_steps": 5,
            },
            "rows": [{**asked[0], "rule": "borda"}, {**asked[1], "rule": None}],
        },
        "exact_checkpoint": {
            "settings": {**steps, "per_device_train_batch_size": 2, "rho": 0.0, "max_min": True, "exact": True},
            "rows": [{**row, "support": OPTIONS} for row in asked],
        },
        "dpo_checkpoint": {
            "settings": {
                **COMMON,
                "max_steps": 6,
                "save_steps": 3,
                "per_device_train_batch_size": 2,
                "objective": "mixture",
                "cluster_names": ["red", "blue"],
                "annealing_share": 1.0,
                "sft_coef": 0.5,
            },
            "rows": chosen,
        },
        "dpo_robust_checkpoint": {
            "settings": {
                **steps,
                "per_device_train_batch_size": 2,
                "objective": "steerable",
                "cluster_names": names,
                "robust": True,
                "robust_learning_rate": 0.5,
            },
            "rows": chosen,
        },
    }
