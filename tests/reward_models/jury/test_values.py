"""Values of `jury.json` that no fit has are refused: `reward_models.jury.folder.load_state`."""

from __future__ import annotations

import copy
import json

import pytest

from reward_models.errors import JuryError
from reward_models.jury.folder import load_rater_model
from reward_models.jury.scorer import JuryScorer
from tests.saved_juries import edit, make_jury, unsigned
from tests.tiny import tiny_tokenizer


@pytest.fixture(scope="module")
def tokenizer():
    return tiny_tokenizer()


@pytest.fixture
def folder(tokenizer, tmp_path):
    make_jury(tokenizer).save_pretrained(tmp_path)
    return tmp_path


def changed(values, path, value):
    """The values of a `jury.json` with another value at a path of keys."""
    values = copy.deepcopy(values)
    *parents, last = path
    part = values
    for key in parents:
        part = part[key]
    part[last] = value
    return values


NAN = float("nan")


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (["calibration", "scale"], [0.0, 1.0]),
        (["calibration", "scale"], [-1.0, 1.0]),
        (["calibration", "scale"], [1.0]),
        (["calibration", "scale"], "1"),
        (["calibration", "offset"], [NAN, 0.0]),
        (["calibration", "method"], "magic"),
        (["calibration", "num_prompts"], -1),
        (["calibration", "surprise"], 1),
        (["calibration"], []),
        (["temperature"], [NAN, 1.0]),
        (["temperature"], [0.0, 1.0]),
        (["temperature"], [[1.0, 1.0]]),
        (["temperature"], 1.0),
        (["temperature"], ["a", "b"]),
        (["rater_model", "membership"], "party"),
        (["rater_model", "codes"], [[1.0, NAN], [0.0, 1.0]]),
        (["rater_model", "codes"], [1.0, 0.0]),
        (["rater_model", "codes"], [[1.0], [0.0, 1.0]]),
        (["rater_model", "code_log_prior"], [0.0, 0.0]),
        (["rater_model", "code_log_prior"], [NAN, 0.0]),
        (["rater_model", "code_log_prior"], [0.0]),
        (["rater_model", "terms"], {}),
        (["rater_model", "terms"], []),
        (["rater_model", "terms", "rating", "sd", "intercept"], -1.0),
        (["rater_model", "terms", "rating", "sd", "surprise"], 1.0),
        (["rater_model", "terms", "rating", "shared", "thresholds"], [0.5, -1.0]),
        (["rater_model", "terms", "rating", "shared", "thresholds"], [NAN]),
        (["rater_model", "terms", "preference", "shared", "log_tie_mean"], [1.0, 2.0]),
        (["rater_model", "nodes"], {"intercept": 10**9}),
        (["rater_model", "nodes"], {"intercept": -5}),
        (["rater_model", "nodes"], {"intercept": float("inf")}),
        (["clusters"], [1]),
        (["clusters"], [{"name": "city", "description": 3}]),
        (["fitted_on"], {"judgements": -1}),
        (["fitted_on"], [1]),
        (["files"], []),
        (["files"], {}),
        (["files", "model.safetensors"], None),
        (["files", "model.safetensors"], {"size": "x"}),
        (["raters_salt"], "abc"),
        (["num_clusters"], "2"),
        (["hidden_size"], None),
        (["format_version"], float("inf")),
        (["format_version"], [1]),
    ],
    ids=str,
)
def test_an_impossible_value_is_refused(folder, path, value):
    (folder / "jury.json").write_text(json.dumps(changed(unsigned(folder), path, value)))
    with pytest.raises(JuryError, match=r"jury.json in|lacks 'raters|the \w+ is that of a jury|descriptions name"):
        JuryScorer.from_pretrained(folder)
    if path[0] == "rater_model":
        with pytest.raises(JuryError, match=r"jury.json in"):
            load_rater_model(folder)


def test_a_changed_digit_of_jury_json_is_noticed(folder):
    written = (folder / "jury.json").read_text()
    (folder / "jury.json").write_text(written.replace("1.2", "1.3", 1))
    for load in (JuryScorer.from_pretrained, load_rater_model):
        with pytest.raises(JuryError, match=r"a value was changed after it was saved; remove its 'sha256'"):
            load(folder)
    (folder / "jury.json").write_text(json.dumps({**json.loads(written), "surprise": 1}))
    with pytest.raises(JuryError, match="a value was changed"):
        JuryScorer.from_pretrained(folder)
    edit(folder, temperature=[1.3, 0.9])  # the fix that the message gives
    assert JuryScorer.from_pretrained(folder).state.temperature.tolist() == [1.3, 0.9]
