"""Scripts in processes of their own that need not import torch and its friends again.

A server, one for each process of pytest, imports the libraries that every script would, and none of our packages; a
script runs in a fork of it. Not for tests of what is imported, or of how an interpreter ends: those start a real one.
"""

from __future__ import annotations

import atexit
import multiprocessing
import os
import runpy
import socket
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from tests.paths import ROOT


LIBRARIES = [
    "accelerate", "datasets", "matplotlib.pyplot", "pandas", "peft", "rich.console", "scipy.optimize", "scipy.stats",
    "torch", "torch.nn.parallel", "transformers", "transformers.models.auto.modeling_auto", "trl", "typer", "yaml",
    "trl.trainer.dpo_trainer", "trl.trainer.grpo_trainer", "trl.trainer.rloo_trainer", "trl.trainer.sft_trainer",
]  # fmt: skip


def run_script(
    script: Path | str,
    *arguments: str,
    folder: Path | None = None,
    processes: int = 1,
    check: bool = True,
    timeout: float = 240,
) -> subprocess.CompletedProcess[str]:
    """Run a script as `python script arguments` does, and wait for its end.

    Args:
        script: Its path, or its text.
        arguments: Of its command line.
        folder: Where it runs; the root of the repository without one.
        processes: So many at once, as `torch.distributed.run` starts them.
        check: Whether each must end with 0.
        timeout: Seconds after which it is stopped.

    Returns:
        What all of them printed, and the first exit status that is not 0.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(LIBRARIES)
    with tempfile.TemporaryDirectory() as scratch:
        if isinstance(script, str):
            file = Path(scratch) / "script.py"
            file.write_text(textwrap.dedent(script), encoding="utf-8")
        else:
            file = script
        command = [str(file), *arguments]
        printed = [(Path(scratch) / f"stdout{rank}", Path(scratch) / f"stderr{rank}") for rank in range(processes)]
        started = [
            context.Process(target=_run, args=(command, folder or ROOT, variables, *files))
            for variables, files in zip(_environments(processes), printed, strict=True)
        ]
        with _imports_of_these_tests():
            for process in started:
                process.start()
        until = time.monotonic() + timeout
        for process in started:
            process.join(max(0.0, until - time.monotonic()))
        late = [process for process in started if process.is_alive()]
        for process in late:
            process.kill()
            process.join()
        out, err = (
            "".join(path.read_text(encoding="utf-8") for path in paths) for paths in zip(*printed, strict=True)
        )
    if late:
        raise subprocess.TimeoutExpired(command, timeout, out, err)
    statuses = [process.exitcode or 0 for process in started]
    code = next((status for status in statuses if status), 0)
    assert not check or code == 0, err
    return subprocess.CompletedProcess(command, code, out, err)


@contextmanager
def _imports_of_these_tests() -> Iterator[None]:
    """Have a new process find this module, which it is told by name: other packages install tests, too."""
    before = sys.path.copy()
    sys.path.insert(0, str(ROOT))
    try:
        yield
    finally:
        sys.path[:] = before


def _environments(processes: int) -> list[dict[str, str]]:
    """The variables of each process; of several, with its rank and where they meet."""
    common = {**os.environ, "PYTHONPATH": str(ROOT)}
    if processes == 1:
        return [common]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    sizes = dict.fromkeys(("WORLD_SIZE", "LOCAL_WORLD_SIZE"), str(processes))
    group = {**common, **sizes, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    return [{**group, "RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(processes)]


def _run(command: list[str], folder: Path, variables: Mapping[str, str], out: Path, err: Path) -> None:
    """In the new process: what a fresh interpreter would do, with files in place of its standard streams."""
    for descriptor, path in ((1, out), (2, err)):
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(file, descriptor)
        os.close(file)
    os.environ.clear()
    os.environ.update(variables)
    os.chdir(folder)
    sys.argv = command
    sys.path[:0] = [str(Path(command[0]).parent), str(ROOT)]
    try:
        runpy.run_path(command[0], run_name="__main__")
    finally:
        atexit._run_exitfuncs()
