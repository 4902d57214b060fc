"""Where, when and with which versions something was made. Knows nothing of what."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import resource
import sys

import plural_rlhf
from plural_rlhf.report.results import Meta


__all__ = ["run_meta"]

_PACKAGES = ("torch", "transformers", "trl", "accelerate", "datasets", "peft", "numpy", "scipy", "pandas")


def run_meta(seed: int, command: str, started: str, seconds: dict[str, float]) -> Meta:
    """Record the versions, the machine, and the time and memory of this process so far.

    Args:
        seed: Random seed of the run.
        command: The command line.
        started: Time of the start, ISO 8601.
        seconds: Seconds per stage.

    Example:
        >>> meta = run_meta(0, "plural-rlhf run trial.yaml", "2026-01-01T12:00:00", {"jury": 2.5})
        >>> meta.seconds, meta.peak_memory_gb > 0
        ({'jury': 2.5}, True)
    """
    # ru_maxrss is in KiB on Linux and in bytes on macOS.
    unit = 2**30 if sys.platform == "darwin" else 2**20
    return Meta(
        plural_rlhf_version=plural_rlhf.__version__,
        versions={"python": platform.python_version(), **{p: importlib.metadata.version(p) for p in _PACKAGES}},
        seed=seed,
        command=command,
        machine={"system": platform.system(), "processor": platform.machine(), "cores": os.cpu_count()},
        started=started,
        seconds=seconds,
        peak_memory_gb=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit,
    )
