"""What nearly every run of the tests computes on its way, and few tests ask for.

A run says first what it gains to tell raters apart, which is a function of its arguments: it is computed once for all
runs of the same table in a process of the tests. And it draws a dozen figures twice; the tests of reports draw them.
"""

from __future__ import annotations

import functools
import hashlib
import importlib
import io
import pickle
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from matplotlib.figure import Figure


KEPT = [
    ("plural_rlhf.recipe.jury", "headroom"),
    ("plural_rlhf.recipe.survey.labels", "headroom"),
    ("plural_rlhf.recipe.survey.clusters", "predictive_information"),
    ("plural_rlhf.recipe.survey.description", "prevalence_intervals"),
]
"""Module and name of the functions whose results are kept."""

_results: dict[tuple[str, str], bytes] = {}
_pictures: dict[str, bytes] = {}


@pytest.fixture(scope="module", autouse=True)
def common_parts_of_runs() -> Iterator[None]:
    """Keep results and leave figures undrawn in the tests of a module; import it into the conftest of a folder."""
    with pytest.MonkeyPatch.context() as patch:
        for module, name in KEPT:
            patch.setattr(f"{module}.{name}", computed_once(getattr(importlib.import_module(module), name)))
        patch.setattr(Figure, "savefig", _save_blank)
        yield


def computed_once(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return the function with its results kept by the content of its arguments."""

    @functools.wraps(function)
    def kept(*args: Any, **named: Any) -> Any:
        key = (function.__qualname__, hashlib.sha256(pickle.dumps((args, named))).hexdigest())
        if key not in _results:
            _results[key] = pickle.dumps(function(*args, **named))
        return pickle.loads(_results[key])  # a copy: what one test does to it, another does not see

    return kept


_savefig = Figure.savefig


def _save_blank(figure: Figure, file: Any, *, format: str | None = None, **settings: Any) -> None:
    kind = format or str(file).rsplit(".", 1)[-1]
    if kind not in _pictures:
        buffer = io.BytesIO()
        _savefig(Figure(figsize=(1, 1)), buffer, format=kind)
        _pictures[kind] = buffer.getvalue()
    if isinstance(file, io.StringIO):
        file.write(_pictures[kind].decode("utf-8"))
    elif hasattr(file, "write"):
        file.write(_pictures[kind])
    else:
        with open(file, "wb") as target:
            target.write(_pictures[kind])
