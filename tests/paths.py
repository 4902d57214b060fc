"""Where things lie, for tests at any depth."""

from __future__ import annotations

from pathlib import Path


ROOT = Path(__file__).resolve().parent.parent
"""The root of the repository."""

SHARED_DATA = ROOT.parent / "shared" / "data"
"""Real judgements that the project does not ship; tests skip with a reason where the folder is absent."""
