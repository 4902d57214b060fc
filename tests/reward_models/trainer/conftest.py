"""What every test of the trainer runs under."""

from __future__ import annotations

import gc

import pytest


@pytest.fixture(autouse=True, scope="module")
def _quick_garbage():
    """Trainers collect garbage when they begin to train: all that was imported, half a second each time."""
    gc.freeze()
    yield
    gc.unfreeze()
