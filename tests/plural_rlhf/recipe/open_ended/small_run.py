"""Votes on texts about five prompts, in a file as people have them, and a run on them with a tiny language model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from plural_rlhf.recipe import RunConfig, make_config


PROMPTS = [f"What should the city do about its {what}?" for what in ("parks", "roads", "trams", "ponds", "bins")]
WORDS = ["More of them, please.", "Fewer of them.", "Leave them as they are.", "Ask the people who live there."]


def write_votes(folder: Path) -> Path:
    """30 people vote on four answers to each prompt; two camps disagree about the first two."""
    rows = [
        {
            "rater_id": f"r{rater:02}",
            "prompt": prompt,
            "response": text,
            "rating": int((place == rater % 2) or (place > 1 and (rater + number) % 3 == 0)),
        }
        for rater in range(30)
        for number, prompt in enumerate(PROMPTS)
        for place, text in enumerate(WORDS)
        if (rater + number + place) % 4
    ]
    path = folder / "votes.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def settings_of(votes: Path, folder: Path) -> dict[str, Any]:
    """Settings of a run on those votes with a tiny language model."""
    return {
        "output_dir": str(folder / "run"),
        "data": {"source": "table", "path": str(votes), "heldout_prompts": 1, "written": "judged"},
        "policy": {
            "model": "tiny",
            "cache_dir": str(folder / "models"),
            "max_new_tokens": 16,
            "lora": {"r": 2, "target_modules": ["q_proj"]},
        },
        "jury": {"clusters": 2, "restarts": 1},
        "sft": {"steps": 2, "texts_per_step": 4},
        "plural": {"sampled": {"steps": 2, "num_generations": 4, "given_share": 0.5, "kept_samples": 4}},
        "grpo": {"steps": 1, "prompts_per_step": 1, "num_generations": 2},
        "evaluate": {"samples": 3, "prompts": 2, "draws": 20},
    }


def replaced_in(settings: dict[str, Any], **replaced: Any) -> RunConfig:
    """A run of the settings with some replaced: a whole section, or `section__name`."""
    values = json.loads(json.dumps(settings))
    for key, value in replaced.items():
        section, _, name = key.partition("__")
        if name:
            values[section][name] = value
        else:
            values[section] = value
    return make_config(values, origin="test")
