"""The judgements that a run file names: raters drawn at random, raters weighed to margins."""

from __future__ import annotations

import numpy as np
import pytest

from plural_rlhf.recipe.config import ConfigError, make_config
from plural_rlhf.recipe.config_sections import DataSection
from plural_rlhf.recipe.inputs import read_judgements
from reward_models import fit_mixture, planted_judgements


def test_margins_of_a_run_file_weigh_its_raters(tmp_path):
    table = planted_judgements("choice", num_raters=40, num_items=6)
    number = table.judgements.frame["rater_id"].str[1:].astype(int)
    frame = table.judgements.frame.assign(**{"rater:region": np.where(table.cluster[number] == 0, "north", "south")})
    frame.to_json(tmp_path / "answers.jsonl", orient="records", lines=True)
    said: list[str] = []
    section = DataSection(
        source="table",
        path=tmp_path / "answers.jsonl",
        columns={"index": 0},
        margins={"region": {"north": 0.8, "south": 0.2}},
    )
    judgements = read_judgements(section, 0, said.append)
    enc = judgements.encode()
    assert fit_mixture(enc, 2).prevalence[0] == pytest.approx(0.8, abs=0.05)
    assert said[-1] == "sampling weights: 40 raters count as 29.4 of equal weight (Kish)"


def test_a_seed_that_a_trainer_cannot_use_is_refused():
    with pytest.raises(ConfigError, match=r"seed = 4294967296: .*4294967295"):
        make_config({"seed": 2**32}, origin="test")
    assert make_config({"seed": 2**32 - 1}, origin="test").seed == 2**32 - 1
