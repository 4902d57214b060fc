"""A run that takes a few seconds, on a tiny random model and planted judgements, and what must not differ in another.

Knows nothing of faults.
"""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

from rich.console import Console

from plural_rlhf.recipe import RunConfig, load_config, run
from reward_models import planted_judgements
from reward_models.content_hashes import file_hash


__all__ = ["POLICIES", "STAGES", "config_of", "finish", "prepare", "quietly", "what_counts"]

STAGES = ("jury", "warm", "plural", "grpo", "evaluate")
POLICIES = STAGES[1:4]
TIMES = ("step_time", "seconds")


def prepare(folder: Path) -> Path:
    """Write a table and a run file into a folder; return the run file."""
    table = planted_judgements("choice", num_raters=24, num_items=5).judgements.frame
    table.to_json(folder / "answers.jsonl", orient="records", lines=True)
    (folder / "run.yaml").write_text(
        json.dumps(
            {
                "name": "small",
                "data": {
                    "source": "table",
                    "path": str(folder / "answers.jsonl"),
                    "columns": {"index": 0},
                    "heldout_questions": 2,
                },
                "policy": {"model": "tiny", "cache_dir": str(folder / "models")},
                "jury": {"clusters": 2, "restarts": 1, "l2": 1.0},
                "warmup": {"steps": 3, "prompts_per_step": 2},
                "plural": {"steps": 4, "prompts_per_step": 2},
                "grpo": {"steps": 2, "prompts_per_step": 1, "num_generations": 2},
                "evaluate": {"draws": 20, "rules": ["mean", "min"]},
                "checkpoints": {"every_steps": 1, "every_minutes": 1e-9},
            }
        ),
        encoding="utf-8",
    )
    return folder / "run.yaml"


def quietly() -> Console:
    return Console(file=io.StringIO())


def config_of(run_file: Path, output: Path, *settings: str) -> RunConfig:
    """The settings of a run into `output`."""
    return load_config(run_file, [f"output_dir={json.dumps(str(output))}", *settings])


def finish(config: RunConfig) -> dict[str, Any]:
    """Run to the evaluation, quietly; return what counts of it."""
    run(config, until="evaluate", console=quietly())
    return what_counts(Path(config.output_dir))


def what_counts(folder: Path) -> dict[str, Any]:
    """What two runs of the same settings must have in common: all results but times, and the weights of policies."""
    results = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    del results["meta"], results["config"]
    weights = {stage: file_hash(folder / stage / "adapter_model.safetensors") for stage in POLICIES}
    return {"results": _without_times(results), "weights": weights}


def _without_times(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_times(item) for key, item in value.items() if key not in TIMES}
    return [_without_times(item) for item in value] if isinstance(value, list) else value
