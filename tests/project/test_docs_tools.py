"""The samples of `docs/tools.md` run as they stand, from top to bottom, and do what the page says."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.paths import ROOT


pytest.importorskip("gymnasium")

PAGE = ROOT / "docs" / "tools.md"


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """What the blocks leave, run in one namespace in an empty folder."""
    blocks = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    names: dict[str, object] = {}
    torch.manual_seed(0)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("tools"))
        for number, block in enumerate(blocks):
            exec(compile(block, f"{PAGE.name}, block {number}", "exec"), names)
        names["files"] = {str(path) for path in Path("out").glob("*/model.safetensors")}
    return names


@pytest.mark.slow
def test_the_tools_work_one_after_the_other(ran):
    assert ran["trainer"].clusters.prevalence == pytest.approx([0.7, 0.3])
    assert ran["files"] == {"out/dpo/model.safetensors", "out/distilled/model.safetensors"}
    assert ran["urban"].shape == ran["rural"].shape == (2,)
    assert not np.allclose(ran["urban"], ran["rural"], rtol=1e-4, atol=0)
    assert set(ran["rows"]["cluster"]) == {"urban", "rural"}
    assert len(ran["answer"].posterior) == 2


def test_the_page_says_what_the_environments_give(ran):
    assert ran["reward"].tolist() == [0, 0, 8]
    ran["scalar"].reset(seed=0)
    assert ran["scalar"].step(9)[1] == pytest.approx(0.8)


def test_every_tool_without_another_page_has_a_sample():
    text = PAGE.read_text(encoding="utf-8")
    code = "".join(re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL))
    for tool in ("PluralDPOTrainer", "MixedDecoder", "distil", "WeightSampler", "Steerer", "JuryBandit-v0"):
        assert tool in code, tool
