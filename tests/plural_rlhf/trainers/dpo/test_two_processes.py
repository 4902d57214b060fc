"""The number of processes does not matter: the same batches on one and on two give the same policy and log."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import numpy as np
import pytest
from safetensors.numpy import load_file

from tests.paths import ROOT
from tests.processes import run_script


SCRIPT = """
import atexit, json, sys
from tests.threads import thread_names

def threads_of_the_group():
    return sum("gloo" in name for name in thread_names())

atexit.register(lambda: print("at exit", threads_of_the_group()))  # registered first: called last
from datasets import Dataset
from safetensors.torch import save_file
from tests.opposed_pairs import build, pair

folder, batch = sys.argv[1], int(sys.argv[2])
named = [pair(f"Item {n % 3}:", n % 5 < 3, cluster=("urban", "rural")[n % 5 > 2], count=1 + n % 4) for n in range(12)]
of_raters = [pair(f"Item {n % 3}:", (n % 3 + n // 3) % 4 > 1, rater_id=f"p{n // 3}") for n in range(12)]
cases = {
    "average": (named, {}),
    "steerable": (named, {}),
    "mixture": (named, {}),
    "robust": (named, dict(objective="steerable", robust=True, robust_learning_rate=0.5)),
    "learnt": (of_raters, dict(objective="mixture", cluster_names=["red", "blue"], annealing_share=1.0)),
}
for name, (pairs, settings) in cases.items():
    settings = dict(objective=name, sft_coef=0.5) | settings
    settings |= dict(max_steps=4, per_device_train_batch_size=batch, logging_strategy="steps", logging_steps=1)
    trainer = build(Dataset.from_list(pairs), folder, **settings)
    trainer.train()
    state = dict(trainer.accelerator.unwrap_model(trainer.model).state_dict())
    if trainer.is_world_process_zero():
        save_file({k: v.detach().clone().contiguous() for k, v in state.items()}, f"{folder}/{name}.safetensors")
        log = [entry for entry in trainer.state.log_history if "loss" in entry]
        json.dump(log, open(f"{folder}/{name}.json", "w"))
"""
OF_TIME = ("runtime", "per_second", "step_time")


@pytest.mark.slow
def test_two_processes_equal_one(tmp_path):
    """Four steps of four pairs: every entry of the log, and every weight, under each objective."""
    one, two = tmp_path / "one", tmp_path / "two"
    for folder in (one, two):
        folder.mkdir()
    run_script(SCRIPT, str(one), "4", folder=tmp_path)
    script = tmp_path / "script.py"
    script.write_text(SCRIPT, encoding="utf-8")
    launched = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", str(script)]
    run = subprocess.run(
        [*launched, str(two), "2"], env={**os.environ, "PYTHONPATH": str(ROOT)}, cwd=tmp_path,
        capture_output=True, text=True, timeout=400, check=False,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    assert run.stdout.count("at exit 0") == 2, "a process ends with threads that may abort it"
    for case in ("average", "steerable", "mixture", "robust", "learnt"):
        one_log, two_log = (json.loads((folder / f"{case}.json").read_text()) for folder in (one, two))
        assert len(one_log) == len(two_log) == 4
        for entry, other in zip(one_log, two_log, strict=True):
            assert entry.keys() == other.keys(), case
            for name in entry:
                if not any(part in name for part in OF_TIME):
                    assert other[name] == pytest.approx(entry[name], rel=1e-4, abs=2e-5), (case, name)
        assert len(one_log[0]) > 8
        assert one_log[-1]["loss"] != one_log[0]["loss"]
        weights = [load_file(folder / f"{case}.safetensors") for folder in (one, two)]
        for name, value in weights[0].items():
            np.testing.assert_allclose(weights[1][name], value, atol=2e-5, err_msg=f"{case} {name}")
