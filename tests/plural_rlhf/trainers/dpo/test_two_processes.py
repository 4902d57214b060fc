"""The number of processes does not matter: the same batches on one and on two give the same policy and log."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap

import numpy as np
import pytest
from safetensors.numpy import load_file

from tests.paths import ROOT


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
    script = tmp_path / "script.py"
    script.write_text(textwrap.dedent(SCRIPT), encoding="utf-8")
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    launches = {"one": ([], "4"), "two": (["-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"], "2")}
    for name, (launch, batch) in launches.items():
        (tmp_path / name).mkdir()
        command = [sys.executable, *launch, str(script), str(tmp_path / name), batch]
        run = subprocess.run(
            command, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=400, check=False
        )
        assert run.returncode == 0, run.stderr
        assert run.stdout.count("at exit 0") == 1 + (name == "two"), "a process ends with threads that may abort it"
    for case in ("average", "steerable", "mixture", "robust", "learnt"):
        one, two = (json.loads((tmp_path / name / f"{case}.json").read_text()) for name in launches)
        assert len(one) == len(two) == 4
        for entry, other in zip(one, two, strict=True):
            assert entry.keys() == other.keys(), case
            for name in entry:
                if not any(part in name for part in OF_TIME):
                    assert other[name] == pytest.approx(entry[name], rel=1e-4, abs=2e-5), (case, name)
        assert len(one[0]) > 8
        assert one[-1]["loss"] != one[0]["loss"]
        weights = [load_file(tmp_path / name / f"{case}.safetensors") for name in launches]
        for name, value in weights[0].items():
            np.testing.assert_allclose(weights[1][name], value, atol=2e-5, err_msg=f"{case} {name}")
