"""Results and settings are values: what a function has returned, or was given, no later line can change."""

from __future__ import annotations

import ast

from tests.paths import ROOT


CHANGEABLE = {
    # filled while a command measures, or while a training goes on
    "Measured", "SuiteFindings", "Usage", "LanguageModel", "RewardTable", "Rollouts", "GenerationBatch",
    # TRL's and transformers' conventions: configurations, outputs of models, collators
    "PluralDPOConfig", "PluralGRPOConfig", "SpectrumConfig", "JuryRewardConfig", "JuryOutput", "PairCollator",
    "JudgementCollator",
}  # fmt: skip


def test_public_dataclasses_are_frozen_but_for_those_that_are_filled_step_by_step():
    changeable = set()
    for package in ("reward_models", "plural_rlhf"):
        for file in (ROOT / package).rglob("*.py"):
            for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
                if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                    decorators = [ast.unparse(decorator) for decorator in node.decorator_list]
                    if any(text.startswith("dataclass") and "frozen=True" not in text for text in decorators):
                        changeable.add(node.name)
    assert changeable == CHANGEABLE, "add frozen=True, or the name to CHANGEABLE with its reason"
