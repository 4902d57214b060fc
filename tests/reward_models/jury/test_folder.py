"""The folder of a jury: what it holds, and what is refused: `reward_models.jury.folder`."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

from reward_models import fit_jury, planted_judgements
from reward_models.errors import JuryError
from reward_models.judgements.records import Judgements
from reward_models.judgements.text_kind import TextKind
from reward_models.jury.folder import load_rater_model
from reward_models.jury.modeling_jury import JuryRewardModel
from reward_models.jury.scorer import JuryScorer
from reward_models.jury.state import JuryState, StoredRaters, counts
from reward_models.raters.placement import Placement
from reward_models.raters.rater_model import RaterModel
from tests.saved_juries import MODEL, STATE, TERMS, edit, make_jury
from tests.tiny import tiny_causal_lm, tiny_tokenizer


@pytest.fixture(scope="module")
def tokenizer():
    return tiny_tokenizer()


@pytest.fixture
def folder(tokenizer, tmp_path):
    make_jury(tokenizer).save_pretrained(tmp_path)
    return tmp_path


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


def test_the_kind_of_the_fitted_texts_comes_back_and_is_checked(tokenizer, tmp_path):
    judgements = planted_judgements("rating", num_raters=8, num_items=12).judgements
    scorer = fit_jury(judgements, tiny_causal_lm(tokenizer), tokenizer, clusters=1, progress=False)
    scorer.save_pretrained(tmp_path)
    kind = JuryScorer.from_pretrained(tmp_path).state.text_kind
    assert kind == scorer.state.text_kind == TextKind.of(judgements.encode().texts)
    values = json.loads((tmp_path / "jury.json").read_text())
    edit(tmp_path, text_kind=values["text_kind"] | {"word_share": 2.0})
    with pytest.raises(JuryError, match="has a share that is none"):
        JuryScorer.from_pretrained(tmp_path)


def test_a_folder_from_before_still_loads(tokenizer, tmp_path):
    scorer = make_jury(tokenizer)
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


@pytest.mark.parametrize("load", [JuryScorer.from_pretrained, load_rater_model])
def test_of_the_folder_of_a_run_the_jury_in_it_is_named(tokenizer, tmp_path, load):
    make_jury(tokenizer).save_pretrained(tmp_path / "run" / "jury")
    (tmp_path / "run" / "config.json").write_text('{"name": "a run"}', encoding="utf-8")
    with pytest.raises(JuryError, match=r"no jury reward model at .*run', but one in .*jury'\. Fix: give that folder"):
        load(tmp_path / "run")
    assert load(tmp_path / "run" / "jury") is not None


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
        make_jury(tokenizer, state=JuryState(rater_model=three))
    with pytest.raises(JuryError, match=r"descriptions name 'ciy', .* Did you mean 'city'\?"):
        make_jury(tokenizer, state=JuryState(descriptions={"ciy": "x"}))


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
    make_jury(tokenizer).save_pretrained(tmp_path)
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
    make_jury(tokenizer).save_pretrained(pickled)
    torch.save(load_file(pickled / "model.safetensors"), pickled / "pytorch_model.bin")
    for name in ("model.safetensors", "jury.json"):
        (pickled / name).unlink()
    with pytest.raises(JuryError, match="no weights that can be read"):
        JuryScorer.from_pretrained(pickled)


def test_pseudonyms_differ_from_jury_to_jury():
    placement = Placement(MODEL, ["ann", "bob"], np.full((2, MODEL.n_states), 1 / MODEL.n_states))
    first, second = StoredRaters.of(placement), StoredRaters.of(placement)
    assert not set(first.pseudonyms) & set(second.pseudonyms)
    assert {len(name) for name in first.pseudonyms} == {64}
    np.testing.assert_allclose(first.placement(["bob"], MODEL).posterior, placement.posterior[:1], rtol=1e-6)


def test_raters_that_are_not_there_are_not_saved(tokenizer, tmp_path):
    with pytest.raises(JuryError, match=r"save_raters=True, but the jury's state holds no raters. Fix: JuryState"):
        make_jury(tokenizer).save_pretrained(tmp_path, save_raters=True)


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
    scorer = fit_jury(judgements, tiny_causal_lm(tokenizer), tokenizer, clusters=2, progress=False)
    placement = scorer.fitted.label_fit.placement
    for order in ("C", "F"):
        posterior = np.asarray(placement.posterior, order=order)
        raters = StoredRaters.of(dataclasses.replace(placement, posterior=posterior))
        scorer.state = dataclasses.replace(scorer.state, raters=raters)
        scorer.save_pretrained(tmp_path / order, save_raters=True)
        stored = JuryScorer.from_pretrained(tmp_path / order).remembered(placement.rater_ids)
        assert stored.memberships == pytest.approx(placement.memberships(), abs=1e-6)
