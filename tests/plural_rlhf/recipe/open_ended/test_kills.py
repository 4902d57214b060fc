"""A run whose policies write is killed five times, wherever it happens to be, and ends as one that nobody touched."""

from __future__ import annotations

import random
import signal
from pathlib import Path

import pytest
from rich.console import Console

from plural_rlhf.recipe import run
from plural_rlhf.recipe.run_folder.folder import SAMPLES_FILE
from tests.benchmark_modules import benchmark_module


injection = benchmark_module("_faults.injection")
small_run = benchmark_module("_faults.small_run")
KILLS = 5


def finish(config):
    run(config, until="evaluate", console=Console(quiet=True))
    folder = Path(config.output_dir)
    return {**small_run.what_counts(folder), "texts": (folder / SAMPLES_FILE).read_text()}


@pytest.mark.slow
def test_killed_five_times_it_ends_at_the_same_numbers_texts_and_weights(config_of, tmp_path):
    every_step = {"every_steps": 1, "every_minutes": 1e-9}
    untouched = config_of(checkpoints=every_step)

    def counted():
        operations = injection.at_operation(tmp_path / "run", 0, injection.die)
        return finish(untouched), operations()

    expected, operations = injection.in_child(counted).result
    config = config_of(checkpoints=every_step, output_dir=str(tmp_path / "killed"))
    draw = random.Random(2026)
    stages = []  # how many were finished at each kill
    for _ in range(KILLS):
        moment = draw.randrange(operations // 10, operations // 4)

        def killed(moment: int = moment) -> None:
            injection.at_operation(tmp_path / "killed", moment, injection.die)
            finish(config)

        assert injection.in_child(killed).status == -signal.SIGKILL
        stages.append(len(list((tmp_path / "killed" / "stages").glob("*.json"))))
    assert len(set(stages)) > 2, "all kills were in the same stages"
    assert injection.in_child(lambda: finish(config)).result == expected
