"""Settings every test runs under: offline, one thread, quiet; set before anything imports transformers."""

from __future__ import annotations

import math
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING


if TYPE_CHECKING:
    from tests.real_run import RealRun

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
os.environ["TRL_EXPERIMENTAL_SILENCE"] = "1"
os.environ["CI"] = "1"
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

# pytest's importlib mode leaves sys.path alone, and `from tests.tiny import ...` needs the root of the repository.
ROOT = str(Path(__file__).resolve().parent.parent)
if ROOT not in sys.path:
    sys.path.insert(0, ROOT)

import pytest  # noqa: E402
import torch  # noqa: E402


torch.set_num_threads(1)

# Its script made the artefacts with an earlier version, and only that version can run it.
collect_ignore = ["stored"]


RUNS = {"real_run", "finished", "whole"}
"""Fixtures that make a whole run, for several tests."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what needs a whole run as slow: the first test that asks for it makes it."""
    for item in items:
        if RUNS & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.slow)


@pytest.fixture(scope="session")
def lopsided(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A policy that gives the answers 1, 2, 3 about .6, .3, .1, saved: sampled training loads it again as pi_ref."""
    from tests.juries import TableJury
    from tests.policies import THREE, TOKENIZER, rows, train_exact
    from tests.tiny import tiny_causal_lm

    folder = tmp_path_factory.mktemp("policy")
    wanted = dict(zip(THREE, [[math.log(0.6)], [math.log(0.3)], [math.log(0.1)]], strict=True))
    model = tiny_causal_lm(TOKENIZER)
    jury = TableJury(wanted, ["a"], [1.0])
    train_exact(model, jury, rows("ab", THREE), folder / "out", 50, reference_power=0.0, adam_beta1=0.9)
    model.save_pretrained(folder / "policy")
    TOKENIZER.save_pretrained(folder / "policy")
    return str(folder / "policy")


@pytest.fixture(scope="session")
def real_run(tmp_path_factory: pytest.TempPathFactory) -> RealRun:
    """A finished run of the commands, shared by all tests that only read it."""
    from tests.real_run import make_run

    return make_run(tmp_path_factory.mktemp("real_run"))
