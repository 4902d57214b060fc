"""Modules of `benchmarks/`, which is a folder of scripts and no package."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any


FOLDER = Path(__file__).resolve().parent.parent / "benchmarks"


def benchmark_module(name: str) -> Any:
    """Imports a script, or what scripts share."""
    sys.path.insert(0, str(FOLDER))
    try:
        return importlib.import_module(name)
    finally:
        sys.path.remove(str(FOLDER))
