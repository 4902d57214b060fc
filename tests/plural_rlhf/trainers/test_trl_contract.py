"""The seam with TRL: what is relied on is still there, and only one file relies on it."""

from __future__ import annotations

import ast
import functools
import inspect
import re
from pathlib import Path

import pytest
import torch
from transformers import Trainer
from trl import GRPOConfig, GRPOTrainer, RLOOConfig, RLOOTrainer

import plural_rlhf
from plural_rlhf.trainers import PluralGRPOTrainer, _trl
from plural_rlhf.trainers.checkpointed_trainer import CheckpointedTrainer
from tests.juries import CPU
from tests.policies import TOKENIZER, load, rows


PACKAGE = Path(plural_rlhf.__file__).parent
SEAM = PACKAGE / "trainers" / "_trl.py"


def private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


@functools.cache
def private_names_of_trl() -> set[str]:
    """Private methods and attributes of `GRPOTrainer` and the classes that it is made of."""
    methods = {name for name in dir(GRPOTrainer) if private(name)}
    assigned = set()
    for cls in (GRPOTrainer, Trainer):
        assigned |= set(re.findall(r"self\.(_[a-z]\w*)\b", inspect.getsource(cls)))
    return methods | assigned


def violations(source: str, names: set[str]) -> list[str]:
    """Attribute accesses to `names`, but for `super().name(...)` inside the method that overrides `name`."""
    tree = ast.parse(source)
    allowed = {
        id(node)
        for function in ast.walk(tree)
        if isinstance(function, ast.FunctionDef)
        for node in ast.walk(function)
        if isinstance(node, ast.Attribute)
        and node.attr == function.name
        and isinstance(node.value, ast.Call)
        and isinstance(node.value.func, ast.Name)
        and node.value.func.id == "super"
    }
    return [
        f"line {node.lineno}: .{node.attr}"
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and node.attr in names and id(node) not in allowed
    ]


def test_the_installed_trl_is_the_one_this_was_written_for():
    assert _trl.check_contract() == []


def test_a_changed_trl_is_noticed(monkeypatch):
    monkeypatch.setitem(_trl.OVERRIDDEN, "_compute_loss", ["self", "model"])
    monkeypatch.setitem(_trl.OVERRIDDEN, "_prepare_tea", ["self"])
    monkeypatch.setattr(_trl, "CALLED", ("_brew",))
    assert _trl.check_contract() == [
        "GRPOTrainer._brew is gone",
        "GRPOTrainer._compute_loss takes ['self', 'model', 'inputs'], not ['self', 'model']",
        "GRPOTrainer._prepare_tea is gone",
    ]


@pytest.mark.parametrize(
    "path", sorted(p for p in PACKAGE.rglob("*.py") if p != SEAM), ids=lambda p: str(p.relative_to(PACKAGE))
)
def test_only_one_file_names_private_attributes_of_trl(path):
    assert violations(path.read_text(encoding="utf-8"), private_names_of_trl()) == []


def test_the_search_finds_what_it_looks_for():
    source = (
        "class T:\n    def _compute_loss(self):\n        super()._compute_loss()\n        self._metrics = self._mine\n"
    )
    assert violations(source, private_names_of_trl()) == ["line 4: ._metrics"]
    assert {"_metrics", "_tokenizer", "_get_output_dir", "_compute_loss"} <= private_names_of_trl()


def test_every_override_is_written_down():
    methods = vars(PluralGRPOTrainer) | vars(CheckpointedTrainer)
    ours = {name for name, method in methods.items() if private(name) and callable(method)}
    assert ours & private_names_of_trl() == set(_trl.OVERRIDDEN)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("trainer_class", "config_class", "options"),
    [
        (GRPOTrainer, GRPOConfig, {}),
        (GRPOTrainer, GRPOConfig, {"entropy_coef": 2.0}),
        (RLOOTrainer, RLOOConfig, {}),
    ],
    ids=["grpo", "grpo-bonus", "rloo"],
)
def test_a_stock_trainer_that_shares_prompts_takes_the_same_steps(
    lopsided, tmp_path, trainer_class, config_class, options
):
    """The same draws, and weights that differ by rounding."""
    ended, said = [], []
    for shared in (False, True):
        seen = []

        def reward(completions, seen=seen, **columns):
            seen.extend(completions)
            return [float("1" in c) for c in completions]

        args = config_class(
            str(tmp_path), max_steps=3, num_generations=4, per_device_train_batch_size=8, max_completion_length=4,
            learning_rate=1e-3, beta=0.2, optim="sgd", shuffle_dataset=False, **options, **CPU,
        )  # fmt: skip
        trainer = trainer_class(lopsided, reward, args, rows("abc", None), processing_class=TOKENIZER)
        if shared:
            _trl.share_prompts(trainer)
        trainer.train()
        said.append(seen)
        ended.append({name: value.clone() for name, value in trainer.model.state_dict().items()})
    assert said[0] == said[1]
    assert len(said[0]) == 24
    start = load(lopsided).state_dict()
    assert max(float((ended[0][name] - start[name]).abs().max()) for name in start) > 1e-4
    for name, value in ended[0].items():
        torch.testing.assert_close(ended[1][name], value, atol=1e-6, rtol=1e-4)
