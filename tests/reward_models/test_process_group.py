"""A launched process ends with the group's threads joined; one that failed leaves the group to its launcher."""

from __future__ import annotations

import os
import socket
import subprocess
import sys

import pytest

from tests.paths import ROOT


SCRIPT = """
import atexit, sys
from tests.threads import thread_names

def threads_of_the_group():
    return sum("gloo" in name for name in thread_names())

atexit.register(lambda: print("at exit", threads_of_the_group()))  # registered first: called last
import torch
from reward_models.process_group import leave_process_group_at_exit

torch.distributed.init_process_group("gloo")
leave_process_group_at_exit()
leave_process_group_at_exit()  # a second trainer of the same script
model = torch.nn.parallel.DistributedDataParallel(torch.nn.Linear(2, 2))  # lives as long as the module, as a trainer
model(torch.ones(1, 2)).sum().backward()
print("before", threads_of_the_group() > 0)
if sys.argv[1] == "fails":
    raise RuntimeError("training failed")
if sys.argv[1] == "leaves itself":
    torch.distributed.destroy_process_group()
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="counts threads in /proc")
@pytest.mark.parametrize(("ends", "code"), [("well", 0), ("fails", 1), ("leaves itself", 0)])
def test_threads_of_the_group_are_joined_before_the_interpreter_goes(ends, code):
    """Joined although a wrapped model still holds the group; a crash at this point has no other sign than SIGABRT."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    launched = {
        "RANK": "0",
        "LOCAL_RANK": "0",
        "WORLD_SIZE": "1",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }
    environment = {**os.environ, **launched, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", SCRIPT, ends]
    run = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=200, check=False)
    assert run.returncode == code, run.stderr
    before, at_exit = run.stdout.split("\n")[:2]
    assert before == "before True"
    assert (at_exit == "at exit 0") == (ends == "well"), at_exit
