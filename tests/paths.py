"""Where things lie, for tests at any depth."""

from __future__ import annotations

from pathlib import Path


ROOT = Path(__file__).resolve().parent.parent
"""The root of the repository."""

EXCERPTS = ROOT / "tests" / "data"
"""Real judgements that ship with the tests; its README has their sources and licences."""

SHARED_DATA = ROOT.parent / "shared" / "data"
"""More of the same, which the project does not ship; a test of it has a twin on `EXCERPTS`, which always runs."""

NO_SHARED_DATA = "the folder ../shared/data is not there; a twin of this test reads tests/data"
"""Reason of a skip that CI allows."""
