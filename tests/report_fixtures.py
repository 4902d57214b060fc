"""The results of a real run, for tests of what reads them.

`tests/plural_rlhf/report/results.json` is what `plural-rlhf run` wrote (its `meta.command` says with which settings)
for seven questions of the US General Social Survey, with a tiny language model that has learnt to say yes and no. A
test that needs a certain figure changes a copy.
"""

from __future__ import annotations

import json
from typing import Any

from plural_rlhf.report.names import METHOD_NAMES, Method
from plural_rlhf.report.results import RunResults
from tests.paths import ROOT


STORED = ROOT / "tests" / "plural_rlhf" / "report" / "results.json"


def stored_values(train: int = 5, heldout: int = 2, *, grpo: bool = True) -> dict[str, Any]:
    """A copy of the stored JSON with so many of its questions, with or without the comparison with stock GRPO."""
    values = json.loads(STORED.read_text(encoding="utf-8"))
    by_split = {name: [q for q in values["questions"] if q["split"] == name] for name in ("train", "heldout")}
    values["questions"] = by_split["train"][:train] + by_split["heldout"][:heldout]
    kept = {q["id"] for q in values["questions"]}
    values["steering"] = [entry for entry in values["steering"] if entry["question"] in kept]
    for effect in values["rules"]:
        effect["picks"] = {question: pick for question, pick in effect["picks"].items() if question in kept}
    return values if grpo else _without_grpo(values)


def stored_results(train: int = 5, heldout: int = 2, *, grpo: bool = True) -> RunResults:
    """The same as the recipe and the report know it."""
    return RunResults.model_validate(stored_values(train, heldout, grpo=grpo))


def _without_grpo(values: dict[str, Any]) -> dict[str, Any]:
    """As a run with `grpo.steps: 0` leaves it."""
    values["config"]["grpo"]["steps"] = 0
    values["skipped"].append({"what": METHOD_NAMES[Method.GRPO], "reason": "grpo.steps is 0"})
    for measured in ("rows", "forms", "elsewhere"):
        values[measured] = [row for row in values[measured] if row["method"] != Method.GRPO]
    for by_stage in (values["training"], values["budgets"], values["meta"]["seconds"]):
        del by_stage[Method.GRPO]
    for question in values["questions"]:
        del question["policy"][Method.GRPO]
    return values
