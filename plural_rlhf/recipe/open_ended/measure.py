"""Measure the policies of a run that write text: samples, and what two juries and people's own texts say of them.

Knows nothing of how the policies were trained.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
from rich.console import Console

from plural_rlhf.recipe.config import RunConfig
from plural_rlhf.recipe.data import RunData
from plural_rlhf.recipe.job import KeepPieces
from plural_rlhf.recipe.open_ended.prompts import OpenPrompt
from plural_rlhf.recipe.open_ended.samples import draw_samples, measured_prompts
from plural_rlhf.report.names import EVERYBODY, Stage
from plural_rlhf.report.results_policies import EvaluationResults
from reward_models.borders import heading
from reward_models.jury.scorer import JuryScorer
from reward_models.weights import parse_weights
from reward_models.whole_file import whole_file


__all__ = ["SAMPLES_FILE", "evaluate_texts"]

SAMPLES_FILE = "samples.jsonl"


def evaluate_texts(
    config: RunConfig,
    data: RunData,
    prompts: Sequence[OpenPrompt],
    folder: Path,
    console: Console,
    keep: KeepPieces,
) -> EvaluationResults:
    """Draw texts from every policy and measure them.

    Args:
        config: The run.
        data: Its judgements; a second jury is fitted to the held-out raters.
        prompts: Its prompts.
        folder: Folder of the run, which holds the jury and the policies.
        console: Where to report progress.
        keep: Given a name and pieces of work, returns their results: what a stopped run has done, or is done now.

    Returns:
        What the report and `results.json` say of it.
    """
    scorer = JuryScorer.from_pretrained(folder / Stage.JURY)
    names = list(scorer.cluster_names)
    weightings = {EVERYBODY: scorer.prevalence, **{name: np.eye(len(names))[k] for k, name in enumerate(names)}}
    weightings |= {name: parse_weights(seats, names, scorer.prevalence) for name, seats in config.juries.items()}
    measured = measured_prompts(config, prompts)
    samples = draw_samples(config, measured, scorer, weightings, folder, keep)
    with whole_file(folder / SAMPLES_FILE) as file:
        for sample in samples:
            file.write(json.dumps(asdict(sample), ensure_ascii=False) + "\n")
    console.print(heading("Texts", f"{len(samples):,} by {len({s.policy for s in samples})} policies, {SAMPLES_FILE}"))
    return EvaluationResults()
