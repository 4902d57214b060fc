"""A training whose weights become no numbers ends there, with what to do, and nothing of it is saved."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from tqdm.auto import tqdm
from typer.testing import CliRunner

from plural_rlhf.cli import app
from plural_rlhf.trainers.checks.divergence import StopAtDivergence, TrainingDivergedError


def step_end(*weights: torch.Tensor, trained: bool = True) -> None:
    model = torch.nn.ParameterList([torch.nn.Parameter(of, requires_grad=trained) for of in weights])
    state, args = SimpleNamespace(global_step=2, max_steps=5), SimpleNamespace(learning_rate=0.5)
    StopAtDivergence("plural").on_step_end(args, state, None, model=model)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_one_weight_that_is_no_number_is_found(bad, dtype):
    weights = torch.zeros(3, 4, dtype=dtype)
    weights[2, 1] = bad
    with pytest.raises(TrainingDivergedError, match=r"plural has diverged: after step 2 of 5 .* rate is 0\.5"):
        step_end(torch.ones(2, dtype=dtype), weights)
    step_end(weights, trained=False)  # what is not trained is not looked at


def test_large_weights_and_empty_ones_are_weights():
    step_end(torch.tensor([3e38, -3e38, 0.0]), torch.empty(0))


@pytest.mark.slow
@pytest.mark.parametrize(("section", "stage"), [("warmup", "warm"), ("plural", "plural")])
def test_a_run_with_a_rate_that_is_far_too_large_says_so(tmp_path, section, stage):
    settings = ["policy.model=tiny", "data.max_raters=200", f"{section}.learning_rate=1e30", f"{section}.steps=4"]
    options = [part for setting in settings for part in ("--set", setting)]
    bars = set(tqdm._instances)
    result = CliRunner().invoke(app, ["run", "configs/smoke.yaml", "--output", str(tmp_path / "run"), *options])
    text = " ".join(result.output.replace("│", " ").split())
    assert result.exit_code == 2, text
    assert "The training diverged" in text
    assert f"the training of {stage} has diverged" in text
    assert "Its learning rate is 1e+30" in text
    assert not (tmp_path / "run" / stage).exists()
    assert not list((tmp_path / "run").rglob("checkpoint-*"))
    assert set(tqdm._instances) <= bars  # the next bar is not drawn below one that nobody closed
