"""Modules of `benchmarks/`, which is a folder of scripts and no package."""

from __future__ import annotations

import importlib
import sys
from typing import Any

from tests.paths import ROOT


FOLDER = ROOT / "benchmarks"


def benchmark_module(name: str) -> Any:
    """Imports a script, or what scripts share."""
    sys.path.insert(0, str(FOLDER))
    try:
        return importlib.import_module(name)
    finally:
        sys.path.remove(str(FOLDER))
