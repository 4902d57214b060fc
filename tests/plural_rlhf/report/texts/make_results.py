"""Writes `results.json`, what a run whose policies write leaves, for tests of its page: `python make_results.py RUN`.

RUN is the `results.json` of such a run with a tiny model, whose texts are noise. Its texts and measures are replaced
by those of `evaluate_open_ended` on made-up texts; all else is the run's. Numbers have four digits, and fields that
have their usual value are left out, so that the file stays small.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch

from plural_rlhf.evaluation import PolicySamples, evaluate_open_ended
from plural_rlhf.report.results import RunResults


CLUSTERS = ("Fewer", "Leave + Ask")
WORDS = {"Fewer": "fewer", "Leave + Ask": "leave them"}
PROMPTS = {"train": ("What about parks?", "What about trams?"), "heldout": ("What about bins?", "What about ponds?")}
SAID = {
    "warm": ("fewer of them", "leave them", "more of them"),
    "plural": ("fewer of them", "leave them, ask first", "fewer, but leave them near schools"),
    "grpo": ("leave them as they are",),
}
PEOPLE = ("fewer of them", "leave them", "ask the people there", "more of them", "fewer", "leave them as they are")


class Camps:
    """Two clusters, each of which likes its own words; a held-out jury that is less sure of them."""

    cluster_names = CLUSTERS
    prevalence = np.array([0.6, 0.4])

    def __init__(self, scale: float) -> None:
        self.scale = scale

    def cluster_rewards(self, prompts: list[str], completions: list[str]) -> torch.Tensor:
        rows = [[2.0 * (WORDS[name] in text) - 1 - 0.02 * len(text) for name in CLUSTERS] for text in completions]
        return self.scale * torch.tensor(rows)


def measured(split: str, weighting: str) -> dict[str, Any]:
    """The measures of all policies on the prompts of one split, asked for the population or one cluster."""
    rng = np.random.default_rng(len(split) + len(weighting))
    asked = {"all": (0.6, 0.4), "Fewer": (1.0, 0.0)}[weighting]
    said = SAID if weighting == "all" else {name: SAID[name] for name in ("warm", "plural")}
    samples = {}
    for number, (policy, texts) in enumerate(said.items()):
        chosen = texts[:1] if weighting == "Fewer" and policy == "plural" else texts
        written = {
            prompt: [f"{rng.choice(chosen)} {rng.choice(['now', 'soon'])}" for _ in range(12)]
            for prompt in PROMPTS[split]
        }
        base = {prompt: (-8 + rng.normal(size=12)).tolist() for prompt in written}
        own = {prompt: [value + 0.3 * number for value in values] for prompt, values in base.items()}
        samples[policy] = PolicySamples(written, log_probs=base if policy == "warm" else own, reference_log_probs=base)
    results = evaluate_open_ended(
        samples,
        Camps(3.0),
        heldout_scorer=Camps(1.0),
        people={
            prompt: [f"{rng.choice(PEOPLE)} {rng.choice(['now', 'soon'])}" for _ in range(16)]
            for prompt in PROMPTS[split]
        },
        embed=lambda some: np.array([[len(t) / 9, "fewer" in t, "leave" in t, "now" in t] for t in some], float),
        reference="warm",
        weights=None if weighting == "all" else {policy: list(asked) for policy in samples},
        beta=2.0,
        draws=50,
    )
    return {
        "split": split,
        "weighting": weighting,
        "weights": dict(zip(CLUSTERS, asked, strict=True)),
        **results.to_dict(),
    }


def short(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.4g}")
    if isinstance(value, dict):
        return {key: short(part) for key, part in value.items()}
    return [short(part) for part in value] if isinstance(value, list) else value


if __name__ == "__main__":
    run = Path(sys.argv[1]).resolve()
    values = json.loads(run.read_text(encoding="utf-8").replace(str(run.parents[1]), "."))
    values["texts"] = [measured(split, weighting) for split in PROMPTS for weighting in ("all", "Fewer")]
    for of in values["texts"]:
        kept: dict[tuple[str, str], int] = {}
        for text in list(of["texts"]):
            key = text["policy"], text["prompt"]
            kept[key] = kept.get(key, 0) + 1
            if kept[key] > 3:
                of["texts"].remove(text)
    results = RunResults.model_validate(values).model_dump(mode="json", exclude_defaults=True)
    file = Path(__file__).with_name("results.json")
    file.write_text(json.dumps(short(results), ensure_ascii=False) + "\n", encoding="utf-8")
