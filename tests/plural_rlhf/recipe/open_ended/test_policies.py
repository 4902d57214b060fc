"""The first policy of a run that writes: what it imitates, and when there is nothing to imitate."""

from __future__ import annotations

import pytest

from plural_rlhf.recipe.checkpoints import TrainingFolder
from plural_rlhf.recipe.open_ended.policies import train_pi_0


@pytest.mark.parametrize("section", [{"steps": 0, "texts": "written"}, {"steps": 2, "texts": "none"}])
def test_without_steps_or_without_texts_pi_0_is_the_model_itself(config_of, tmp_path, section):
    """No prompt, text or scorer is looked at: there is nothing to learn."""
    training = TrainingFolder(tmp_path / "warm", tmp_path / "checkpoints")
    results = train_pi_0(config_of(sft=section), [], {}, None, training)
    assert (results.history, results.budget.steps) == ([], 0)
    assert (tmp_path / "warm" / "adapter_config.json").is_file()
