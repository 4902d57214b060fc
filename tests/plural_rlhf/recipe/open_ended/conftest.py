"""Votes on texts about five prompts, in files as people have them."""

import json

import pytest

from plural_rlhf.recipe import make_config


PROMPTS = [f"What should the city do about its {what}?" for what in ("parks", "roads", "trams", "ponds", "bins")]
WORDS = ["More of them, please.", "Fewer of them.", "Leave them as they are.", "Ask the people who live there."]


@pytest.fixture
def votes(tmp_path):
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
    path = tmp_path / "votes.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def settings(votes, tmp_path):
    """Settings of a run on those votes with a tiny language model."""
    return {
        "output_dir": str(tmp_path / "run"),
        "data": {"source": "table", "path": str(votes), "heldout_prompts": 1, "written": "judged"},
        "policy": {
            "model": "tiny",
            "cache_dir": str(tmp_path / "models"),
            "max_new_tokens": 16,
            "lora": {"r": 2, "target_modules": ["q_proj"]},
        },
        "jury": {"clusters": 2, "restarts": 1},
        "sft": {"steps": 2, "texts_per_step": 4},
        "plural": {"sampled": {"steps": 2, "num_generations": 4, "given_share": 0.5}},
        "grpo": {"steps": 1, "prompts_per_step": 1, "num_generations": 2},
        "evaluate": {"samples": 3, "prompts": 2, "draws": 20},
    }


@pytest.fixture
def config_of(settings):
    """Return a function that makes a run of the settings, with some replaced."""

    def make(**replaced):
        values = json.loads(json.dumps(settings))
        for key, value in replaced.items():
            section, _, name = key.partition("__")
            if name:
                values[section][name] = value
            else:
                values[section] = value
        return make_config(values, origin="test")

    return make
