"""Importing the package is cheap: the heavy libraries come with the first name that needs them."""

from __future__ import annotations

import subprocess
import sys

import pytest


HEAVY = ("torch", "transformers", "trl", "datasets", "peft", "pandas", "matplotlib")


@pytest.mark.slow
@pytest.mark.parametrize(
    "statement", ["import plural_rlhf", "import reward_models", "import plural_rlhf; dir(plural_rlhf)"]
)
def test_importing_loads_no_heavy_library(statement):
    code = f"{statement}\nimport sys\nprint(*[m for m in {HEAVY!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_every_public_name_is_there():
    import plural_rlhf
    import reward_models

    for package in (plural_rlhf, reward_models):
        assert [name for name in package.__all__ if not hasattr(package, name)] == []
    assert {"Judgements", "JuryRewardTrainer", "fit_raters", "load_release"} <= set(dir(reward_models))
    assert {"MixedDecoder", "Steerer", "distil", "distil_rows"} <= set(dir(plural_rlhf))
    from plural_rlhf.trainers.distil import distil

    assert plural_rlhf.distil is distil


def test_names_are_handed_on_from_the_module_that_makes_them():
    import reward_models
    from reward_models.fitting.rater_fit import fit_raters

    assert reward_models.fit_raters is fit_raters
    with pytest.raises(AttributeError, match="Did you mean 'fit_raters'"):
        reward_models.fit_rater  # noqa: B018


@pytest.mark.slow
def test_a_public_name_brings_what_it_needs():
    code = "import plural_rlhf, sys\nplural_rlhf.PoolTarget\nprint('torch' in sys.modules, 'trl' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True", "False"]


def test_a_wrong_name_is_answered_with_the_right_one():
    import plural_rlhf

    with pytest.raises(AttributeError, match="Did you mean 'JuryReward'"):
        plural_rlhf.JuryRewards  # noqa: B018
