"""The folder of a jury: what it holds, how it is written, and what is refused: `reward_models.jury.folder`."""

from __future__ import annotations

import copy
import dataclasses
import errno
import hashlib
import json
import os
import subprocess
import sys
import threading

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

from reward_models import fit_jury, planted_judgements
from reward_models.errors import JuryError
from reward_models.judgements.records import Judgements
from reward_models.jury import folder as jury_folder
from reward_models.jury.calibration import Calibration
from reward_models.jury.folder import load_rater_model
from reward_models.jury.modeling_jury import JuryRewardModel
from reward_models.jury.scorer import JuryScorer
from reward_models.jury.state import JuryState, StoredRaters, counts
from reward_models.raters.placement import Placement
from reward_models.raters.rater_model import KindTerms, RaterModel
from tests.paths import ROOT
from tests.tiny import tiny_causal_lm, tiny_tokenizer


TERMS = {
    "rating": KindTerms({"thresholds": np.array([-1.0, 0.5])}, {"intercept": 1.3, "log_scale": 0.2}),
    "preference": KindTerms({"log_tie_mean": np.array([-0.7])}, {"log_tie": 0.9}),
}
MODEL = RaterModel("mixture", np.eye(2), np.log([0.7, 0.3]), TERMS, {"intercept": 5})
STATE = JuryState(
    rater_model=MODEL,
    calibration=Calibration(np.array([0.4, 2.5]), np.array([1.0, -1.0]), "win_rate", 30, 240),
    temperature=np.array([1.2, 0.9]),
    descriptions={"city": "likes trams"},
    fitted_on={"judgements": 12, "raters": 3, "items": 4, "texts": 5},
)


@pytest.fixture(scope="module")
def tokenizer():
    return tiny_tokenizer()


def make(tokenizer, seed=0, state=STATE, **config):
    rng = np.random.default_rng(seed)
    model = JuryRewardModel.from_fit(
        tiny_causal_lm(tokenizer, seed=seed, **config),
        rng.normal(size=(2, 32)),
        np.zeros(2),
        [0.7, 0.3],
        ["city", "b"],
    )
    return JuryScorer(model, tokenizer, state=state)


@pytest.fixture
def folder(tokenizer, tmp_path):
    make(tokenizer).save_pretrained(tmp_path)
    return tmp_path


def unsigned(folder):
    """The values of a `jury.json` without their hash, as earlier versions wrote it."""
    values = json.loads((folder / "jury.json").read_text())
    return {key: part for key, part in values.items() if key != "sha256"}


def edit(folder, **changes):
    (folder / "jury.json").write_text(json.dumps({**unsigned(folder), **changes}))


def test_everything_comes_back(folder):
    state = JuryScorer.from_pretrained(folder).state
    assert state.rater_model.to_dict() == MODEL.to_dict()
    assert state.calibration.to_dict() == STATE.calibration.to_dict()
    assert state.temperature.tolist() == [1.2, 0.9]
    assert state.descriptions == {"city": "likes trams"}
    assert state.fitted_on == STATE.fitted_on
    assert state.raters is None
    assert load_rater_model(folder).to_dict() == MODEL.to_dict()
    values = json.loads((folder / "jury.json").read_text())
    assert values["rater_model"]["terms"]["rating"]["sd"] == {"intercept": 1.3, "log_scale": 0.2}
    assert set(values["files"]) == {path.name for path in folder.iterdir()} - {"jury.json"}
    assert not [path for path in folder.iterdir() if path.suffix in {".bin", ".pt", ".pkl", ".pth"}]


def test_a_folder_from_before_still_loads(tokenizer, tmp_path):
    scorer = make(tokenizer)
    scorer.model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    loaded = JuryScorer.from_pretrained(tmp_path)
    assert loaded.state == JuryState()
    assert load_rater_model(tmp_path) is None
    assert torch.equal(loaded.cluster_rewards(["a"], ["b"]), scorer.cluster_rewards(["a"], ["b"]))


def test_transformers_alone_reads_the_folder(folder):
    assert JuryRewardModel.from_pretrained(folder).config.cluster_names == ["city", "b"]


def test_no_jury_has_no_rater_model(tmp_path):
    with pytest.raises(JuryError, match=r"no jury reward model at .*: it has no config.json. Correct the path"):
        load_rater_model(tmp_path / "absent")


@pytest.mark.parametrize("name", ["tokenizer.json", "chat_template.jinja"])
def test_a_missing_file_is_named(folder, name):
    (folder / name).unlink()
    with pytest.raises(
        JuryError, match=rf"lacks '{name}', which it was saved with. Copy the whole folder again|token"
    ):
        JuryScorer.from_pretrained(folder)


def test_an_altered_weight_is_noticed_although_the_size_is_the_same(tokenizer, folder):
    weights = load_file(folder / "model.safetensors")
    weights["score.weight"][0, 0] += 1
    size = (folder / "model.safetensors").stat().st_size
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    assert (folder / "model.safetensors").stat().st_size == size
    with pytest.raises(
        JuryError, match=r"'model.safetensors' of the jury in .* is not the file that was saved \(its SHA"
    ):
        JuryScorer.from_pretrained(folder)
    JuryScorer.from_pretrained(folder, verify=False)
    # The fix that the message gives works, and says what is missing.
    (folder / "jury.json").unlink()
    with pytest.warns(UserWarning, match=r"has no jury.json: its heads are used alone, without rater model"):
        JuryScorer.from_pretrained(folder)


def test_another_size_is_noticed_without_hashing(folder):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "cluster_names": ["town", "b"]}))
    with pytest.raises(JuryError, match=r"'config.json' of the jury .* bytes instead of"):
        JuryScorer.from_pretrained(folder, verify=False)


@pytest.mark.parametrize(
    ("version", "message"),
    [
        (3, "has format version 3, this package reads 2. Upgrade it: pip install"),
        (0, "format version 0.*Fit the jury again"),
    ],
)
def test_another_version_of_the_format_is_refused(folder, version, message):
    edit(folder, format_version=version)
    with pytest.raises(JuryError, match=message):
        JuryScorer.from_pretrained(folder)
    with pytest.raises(JuryError, match=message):
        load_rater_model(folder)


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"format_version": 1}'])
def test_a_state_that_cannot_be_read_is_refused(folder, text):
    (folder / "jury.json").write_text(text)
    for load in (JuryScorer.from_pretrained, load_rater_model):
        with pytest.raises(JuryError, match=r"jury.json in .* cannot be read .*Copy the folder again"):
            load(folder)


def test_a_state_with_a_broken_part_is_refused(folder):
    edit(folder, rater_model={"membership": "mixture"})
    with pytest.raises(JuryError, match=r"cannot be read \('codes'\)"):
        load_rater_model(folder)


def test_a_state_of_other_heads_is_refused(tokenizer, folder, tmp_path):
    edit(folder, num_clusters=3)
    with pytest.raises(JuryError, match=r"belongs to 3 heads on 32 features, but config.json describes 2 heads on 32"):
        JuryScorer.from_pretrained(folder)
    edit(folder, num_clusters=2, hidden_size=64)
    with pytest.raises(JuryError, match=r"2 heads on 64 features, but config.json describes 2 heads on 32"):
        JuryScorer.from_pretrained(folder)
    three = RaterModel("mixture", np.eye(3), np.log([0.5, 0.3, 0.2]), TERMS)
    with pytest.raises(JuryError, match="the rater_model is that of a jury with 3 heads, but this one has 2"):
        make(tokenizer, state=JuryState(rater_model=three))
    with pytest.raises(JuryError, match=r"descriptions name 'ciy', .* Did you mean 'city'\?"):
        make(tokenizer, state=JuryState(descriptions={"ciy": "x"}))


@pytest.mark.parametrize("field", ["num_clusters", "hidden_size"])
def test_heads_that_do_not_fit_the_configuration_are_refused(folder, field):
    config = json.loads((folder / "config.json").read_text())
    if field == "num_clusters":
        config |= {"num_clusters": 3, "cluster_names": ["x", "y", "z"], "prevalence": [0.5, 0.3, 0.2]}
    else:
        config["text_config"]["hidden_size"] = 64
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(JuryError, match=r"belongs to 2 heads on 32 features, but config.json describes"):
        JuryScorer.from_pretrained(folder)
    (folder / "jury.json").unlink()  # as earlier versions wrote a jury
    with pytest.raises(
        JuryError, match=r"do not match its config.json .* Save it again with save_pretrained, from one fit"
    ):
        JuryScorer.from_pretrained(folder)


KILLS = """
import os, sys, numpy as np, torch
from pathlib import Path
from reward_models.errors import JuryError
from reward_models.jury.scorer import JuryScorer
from tests.reward_models.jury.test_folder import make, tiny_tokenizer

tokenizer = tiny_tokenizer()
scorers = [make(tokenizer, seed) for seed in (0, 1)]
rewards = [scorer.cluster_rewards(["a"], ["b"]) for scorer in scorers]
os.fsync = lambda number: None  # a process that dies loses nothing that the system holds
OPERATIONS = {"open", "os.rename", "os.remove", "os.link", "os.mkdir", "os.rmdir", "fcntl.flock", "shutil.copyfile"}

def save(folder, kill_at=None):  # in a child, which dies before its operation number `kill_at` on the folder
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    done = 0
    def hook(event, args):
        nonlocal done
        if event in OPERATIONS and (event == "fcntl.flock" or str(folder) in str(args[0])):
            done += 1
            if done == kill_at:
                os._exit(9)
    sys.addaudithook(hook)
    scorers[0].save_pretrained(folder)
    os._exit(0)

parent, earlier = Path(sys.argv[1]), sys.argv[2] == "earlier"
outcomes, operation = [], 0
while True:
    operation += 2 if earlier else 4
    folder = parent / str(operation)
    if earlier:
        scorers[1].save_pretrained(folder)
    (folder / "mine").mkdir(parents=True)
    (folder / "mine" / "notes.txt").write_text("mine")
    status = save(folder, operation)
    try:
        loaded = JuryScorer.from_pretrained(folder).cluster_rewards(["a"], ["b"])
        outcome = [torch.equal(loaded, reward) for reward in rewards].index(True)
    except JuryError as error:
        outcome = "none" if not earlier and "no jury reward model" in str(error) else repr(error)
    outcomes.append(outcome)
    if operation % 8 == 0:  # the next save clears up
        assert save(folder) == 0
        assert torch.equal(JuryScorer.from_pretrained(folder).cluster_rewards(["a"], ["b"]), rewards[0])
        assert not [path for path in folder.iterdir() if path.name.startswith(".")], list(folder.iterdir())
    assert (folder / "mine" / "notes.txt").read_text() == "mine"
    if status == 0:
        break
    assert status == 9
print(*outcomes)
"""


@pytest.mark.slow
@pytest.mark.parametrize("before", ["earlier", "nothing"])
def test_a_save_that_is_killed_before_any_file_operation_leaves_the_old_jury_or_the_new(tmp_path, before):
    command = [sys.executable, "-c", KILLS, str(tmp_path), before]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    outcomes = done.stdout.split()
    old = "1" if before == "earlier" else "none"
    assert set(outcomes) == {old, "0"}
    assert outcomes == sorted(outcomes, key=lambda outcome: outcome == "0")  # from one moment on it is the new one
    assert min(outcomes.count(old), outcomes.count("0")) > 3


def test_two_savers_at_once_leave_one_whole_jury_and_readers_never_see_a_mixture(tokenizer, tmp_path):
    scorers = [make(tokenizer, seed) for seed in (0, 1)]
    rewards = [scorer.cluster_rewards(["a"], ["b"]) for scorer in scorers]
    scorers[0].save_pretrained(tmp_path)

    def save(scorer):
        for _ in range(4):
            scorer.save_pretrained(tmp_path)

    savers = [threading.Thread(target=save, args=(scorer,)) for scorer in scorers]
    for saver in savers:
        saver.start()
    seen = 0
    while any(saver.is_alive() for saver in savers):
        try:
            loaded = JuryScorer.from_pretrained(tmp_path).cluster_rewards(["a"], ["b"])
        except JuryError as error:
            if "another process keeps saving" not in str(error):
                raise
            continue
        assert any(torch.equal(loaded, reward) for reward in rewards)
        seen += 1
    assert seen
    loaded = JuryScorer.from_pretrained(tmp_path).cluster_rewards(["a"], ["b"])
    assert any(torch.equal(loaded, reward) for reward in rewards)
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


@pytest.mark.parametrize("name", [".", "..", "../outside.txt", "/etc/hosts", "", "mine"])
def test_a_name_in_jury_json_never_leads_out_of_the_folder(tokenizer, tmp_path, name):
    folder = tmp_path / "jury"
    make(tokenizer).save_pretrained(folder)
    (tmp_path / "outside.txt").write_text("outside")
    (folder / "mine").mkdir()
    (folder / "mine" / "a.txt").write_text("mine")
    values = json.loads((folder / "jury.json").read_text())
    record = {"size": 7, "sha256": hashlib.sha256(b"outside").hexdigest()}
    edit(folder, files={**values["files"], name: record})
    with pytest.raises(JuryError, match=r"is no name of a file in the folder|lacks 'mine'"):
        JuryScorer.from_pretrained(folder)
    make(tokenizer, 1).save_pretrained(folder)
    assert (tmp_path / "outside.txt").read_text() == "outside"
    assert (folder / "mine" / "a.txt").read_text() == "mine"
    JuryScorer.from_pretrained(folder)


def test_a_save_deletes_what_the_earlier_jury_was_saved_with_and_nothing_else(tokenizer, tmp_path):
    """A `jury.json` that names a file of the user's, and a file of the jury that the user has changed since."""
    make(tokenizer).save_pretrained(tmp_path)
    for name in ("notes.txt", "model_of_mine.safetensors", "model-card.safetensors.txt", "extra.json"):
        (tmp_path / name).write_text("mine")
    (tmp_path / "old.json").write_text("of the jury")
    record = {"size": 4, "sha256": "0" * 64}
    of_jury = {"size": 11, "sha256": hashlib.sha256(b"of the jury").hexdigest()}
    values = json.loads((tmp_path / "jury.json").read_text())
    edit(tmp_path, files={**values["files"], "notes.txt": record, "extra.json": record, "old.json": of_jury})
    make(tokenizer).save_pretrained(tmp_path)
    assert not (tmp_path / "old.json").exists()
    for name in ("notes.txt", "model_of_mine.safetensors", "model-card.safetensors.txt", "extra.json"):
        assert (tmp_path / name).read_text() == "mine"


def test_a_jury_is_not_saved_where_a_file_or_a_folder_is_in_the_way(tokenizer, tmp_path):
    (tmp_path / "file").write_text("mine")
    for path in (tmp_path / "file", tmp_path / "file" / "jury"):
        with pytest.raises(JuryError, match=r"a file lies there\. Give another name"):
            make(tokenizer).save_pretrained(path)
    make(tokenizer).save_pretrained(tmp_path / "jury")
    (tmp_path / "jury" / "tokenizer.json").unlink()
    (tmp_path / "jury" / "tokenizer.json").mkdir()
    before = sorted(os.listdir(tmp_path / "jury"))
    with pytest.raises(JuryError, match=r"'tokenizer.json' cannot be saved .* a folder lies there"):
        make(tokenizer).save_pretrained(tmp_path / "jury")
    assert sorted(os.listdir(tmp_path / "jury")) == before


def test_a_full_disk_keeps_the_old_jury(tokenizer, folder, monkeypatch):
    old = make(tokenizer).cluster_rewards(["a"], ["b"])

    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(jury_folder, "write_json", full)
    with pytest.raises(OSError, match="No space left"):
        make(tokenizer, 1).save_pretrained(folder)
    assert torch.equal(JuryScorer.from_pretrained(folder).cluster_rewards(["a"], ["b"]), old)
    assert not [path for path in folder.iterdir() if path.name.startswith(".")]


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


@pytest.mark.parametrize("size", [0, 8, 100, 1000])
@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json", "config.json", "jury.json"])
def test_a_truncated_file_is_refused_with_an_own_error(folder, name, size):
    content = (folder / name).read_bytes()
    (folder / name).write_bytes(content[:size])
    for verify in (True, False):
        with pytest.raises(JuryError, match=f"{name}|no jury reward model at|tokenizer"):
            JuryScorer.from_pretrained(folder, verify=verify)
    if name != "jury.json":  # as earlier versions left it, nothing is known of the files
        (folder / "jury.json").unlink()
        with pytest.raises(JuryError, match=r"[Ss]ave "):
            JuryScorer.from_pretrained(folder)


@pytest.mark.parametrize("name", ["adapter_config.json", "special_tokens_map.json", "vocab.json"])
def test_a_file_that_was_added_is_refused(folder, name):
    (folder / name).write_text("{}")
    with pytest.raises(JuryError, match=r"was added to the jury|holds an adapter"):
        JuryScorer.from_pretrained(folder)


def test_no_code_of_a_folder_is_run_and_nobody_is_asked(tokenizer, tmp_path, monkeypatch):
    def ask(*_):
        raise AssertionError("asked")

    monkeypatch.setattr("builtins.input", ask)
    (tmp_path / "evil.py").write_text("raise SystemExit('run')")
    code = {"auto_map": dict.fromkeys(("AutoConfig", "AutoModel", "AutoTokenizer"), "evil.Evil")}
    make(tokenizer).save_pretrained(tmp_path)
    (tmp_path / "jury.json").unlink()
    config, tokens = (json.loads((tmp_path / f"{name}.json").read_text()) for name in ("config", "tokenizer_config"))
    hostile = [
        ({**config, **code, "model_type": "evil"}, tokens),
        ({**config, "text_config": {**config["text_config"], **code, "model_type": "evil"}}, tokens),
        (config, {**tokens, **code, "tokenizer_class": "Evil"}),
    ]
    for config_values, tokenizer_values in hostile:
        (tmp_path / "config.json").write_text(json.dumps(config_values))
        (tmp_path / "tokenizer_config.json").write_text(json.dumps(tokenizer_values))
        try:
            JuryScorer.from_pretrained(tmp_path)
        except JuryError:
            continue
    pickled = tmp_path / "pickled"
    make(tokenizer).save_pretrained(pickled)
    torch.save(load_file(pickled / "model.safetensors"), pickled / "pytorch_model.bin")
    for name in ("model.safetensors", "jury.json"):
        (pickled / name).unlink()
    with pytest.raises(JuryError, match="no weights that can be read"):
        JuryScorer.from_pretrained(pickled)


def test_a_smaller_jury_leaves_nothing_of_a_larger_one_and_spares_other_files(tokenizer, tmp_path):
    scorer = make(tokenizer)
    scorer.model.save_pretrained(tmp_path, max_shard_size="20KB")
    (tmp_path / "README.md").write_text("mine")
    assert (tmp_path / "model.safetensors.index.json").exists()
    scorer.save_pretrained(tmp_path)
    assert not list(tmp_path.glob("model-*"))
    assert not (tmp_path / "model.safetensors.index.json").exists()
    assert (tmp_path / "README.md").read_text() == "mine"
    JuryScorer.from_pretrained(tmp_path)


def test_pseudonyms_differ_from_jury_to_jury():
    placement = Placement(MODEL, ["ann", "bob"], np.full((2, MODEL.n_states), 1 / MODEL.n_states))
    first, second = StoredRaters.of(placement), StoredRaters.of(placement)
    assert not set(first.pseudonyms) & set(second.pseudonyms)
    assert {len(name) for name in first.pseudonyms} == {64}
    np.testing.assert_allclose(first.placement(["bob"], MODEL).posterior, placement.posterior[:1], rtol=1e-6)


def test_raters_that_are_not_there_are_not_saved(tokenizer, tmp_path):
    with pytest.raises(JuryError, match=r"save_raters=True, but the jury's state holds no raters. Fix: JuryState"):
        make(tokenizer).save_pretrained(tmp_path, save_raters=True)


def test_counts_say_numbers_only():
    rows = [
        {"rater_id": r, "prompt": "q", "response": x, "rating": v}
        for r, x, v in [("a", "x", 1), ("a", "y", 2), ("b", "x", 2), ("b", "y", 1)]
    ]
    enc = Judgements.from_dataset(rows).encode()
    assert counts(enc) == {"judgements": 4, "raters": 2, "items": 2, "texts": 2}
    assert counts(enc, enc) == {"judgements": 8, "raters": 2, "items": 4, "texts": 2}


def test_stored_raters_keep_their_posteriors_whatever_the_order_of_the_array_in_memory(tmp_path):
    """safetensors writes an array's memory as it lies: a column-major posterior came back with its raters mixed."""
    tokenizer = tiny_tokenizer()
    judgements = planted_judgements("choice", num_raters=20, num_items=6).judgements
    scorer = fit_jury(judgements, tiny_causal_lm(tokenizer), tokenizer, clusters=2, l2=0.01, progress=False)
    placement = scorer.fitted.label_fit.placement
    for order in ("C", "F"):
        posterior = np.asarray(placement.posterior, order=order)
        raters = StoredRaters.of(dataclasses.replace(placement, posterior=posterior))
        scorer.state = dataclasses.replace(scorer.state, raters=raters)
        scorer.save_pretrained(tmp_path / order, save_raters=True)
        stored = JuryScorer.from_pretrained(tmp_path / order).remembered(placement.rater_ids)
        assert stored.memberships == pytest.approx(placement.memberships(), abs=1e-6)
