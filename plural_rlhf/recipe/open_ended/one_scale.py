"""Put the objectives of a run on one scale by texts of pi_0. Knows nothing of how objectives score."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from plural_rlhf.recipe.config import RunConfig
from plural_rlhf.recipe.open_ended.prompts import OpenPrompt, training_prompts
from plural_rlhf.recipe.open_ended.samples import draw_from_pi_0
from plural_rlhf.recipe.scorers.objectives import CALIBRATION_FILE
from plural_rlhf.report.names import EVERYBODY
from reward_models.jury.objectives import Objectives
from reward_models.seeds import seeded_rng


__all__ = ["put_on_one_scale"]

PROMPTS, TEXTS = 20, 8
"""So many training prompts at most, and texts of pi_0 for each: they give a scale to about a tenth."""


def put_on_one_scale(config: RunConfig, prompts: Sequence[OpenPrompt], scorer: Objectives, start: Path) -> None:
    """Calibrate objectives, and write their scale beside pi_0.

    Args:
        config: The run.
        prompts: Its prompts; only training prompts are used.
        scorer: The objectives; calibrated in place.
        start: Folder of pi_0.

    Raises:
        JuryError: An objective gives the same value to all texts of pi_0, or one that cannot be used.
    """
    trained = training_prompts(prompts)
    order = seeded_rng(config.seed, "prompts of the common scale").permutation(len(trained))
    some = [trained[i] for i in sorted(order[:PROMPTS].tolist())]
    asked = {EVERYBODY: scorer.prevalence}
    samples = draw_from_pi_0(config, start, scorer, some, asked, TEXTS, "the scale of objectives")
    messages = {prompt.wording: prompt.messages for prompt in some}
    completions = [[{"role": "assistant", "content": sample.text}] for sample in samples]
    scorer.calibrate([messages[sample.prompt] for sample in samples], completions)
    scorer.save_calibration(start / CALIBRATION_FILE)
