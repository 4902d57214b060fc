"""The stored results that the report's tests read hold nothing that a run of today does not write."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from typing import Any

from plural_rlhf.report.results_base import ResultsModel
from tests.report_fixtures import stored_results


FORMER = {
    "Heads": {"cv", "l2"},  # of heads that were fitted after the labels, with a penalty
    "ClusterCount": {"num_clusters", "nll", "se", "info", "behind", "behind_se"},  # the tiny run names one number
}


def models(value: Any) -> Iterator[ResultsModel]:
    """All models in a value, at any depth."""
    if isinstance(value, ResultsModel):
        yield value
        value = value.parts()
    if isinstance(value, dict):
        value = list(value.values())
    for part in value if isinstance(value, list) else []:
        yield from models(part)


def fields(results: ResultsModel) -> tuple[dict[str, set[str]], dict[str, set[str]]]:
    """By model: the fields that are set anywhere, and keys that no field knows (free ones apart)."""
    known, unknown = defaultdict(set), defaultdict(set)
    for model in models(results):
        name = type(model).__name__
        known[name] |= model.model_fields_set & set(type(model).model_fields)
        unknown[name] |= set(model.model_extra or {})
    for free in ("LoggedStep", "DistinctiveAnswer"):  # whatever trainers log; both names of an answer and its question
        unknown.pop(free, None)
    return dict(known), {name: keys for name, keys in unknown.items() if keys}


def test_the_stored_results_hold_nothing_that_a_run_does_not_write(real_run):
    """They may lack what was added since: the report reads files of earlier versions."""
    stored, invented = fields(stored_results())
    today, unknown = fields(real_run.results)
    assert (invented, unknown) == ({}, {})
    beyond = {name: keys - today.get(name, set()) - FORMER.get(name, set()) for name, keys in stored.items()}
    assert {name: keys for name, keys in beyond.items() if keys} == {}
    assert len(stored) > 15
