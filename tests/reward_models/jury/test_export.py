"""A jury as a plain scalar reward model: `reward_models.jury.export`."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tokenizers import processors
from transformers import (
    AutoModel,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    GPT2Config,
    GPT2Model,
    pipeline,
)

from reward_models.content_hashes import changed_files
from reward_models.errors import JuryError
from reward_models.jury.calibration import Calibration
from reward_models.jury.export import export_scalar
from reward_models.jury.modeling_jury import JuryRewardModel
from reward_models.jury.reading import ReadingSettings
from reward_models.jury.scorer import JuryScorer
from reward_models.jury.state import JuryState
from tests.benchmark_modules import benchmark_module
from tests.saved_juries import remember
from tests.tiny import tiny_bert, tiny_causal_lm, tiny_tokenizer


injection = benchmark_module("_faults.injection")
NAMES = ["city", "country", "space"]
# The second ends with the end token, which is also the padding token of the tiny tokenizer.
TEXTS = ["yes", "too little?<|im_end|>", "Is it about right? I think so, and so do you.", "no"]
CONVERSATION = [{"role": "user", "content": "too little?"}], [{"role": "assistant", "content": "no"}]


@pytest.fixture(scope="module")
def tokenizer():
    return tiny_tokenizer()


def make(tokenizer, folder, *, backbone=None, state=None, memory=None, weights=None):
    rng = np.random.default_rng(0)
    model = JuryRewardModel.from_fit(
        backbone or tiny_causal_lm(tokenizer, seed=1),
        rng.normal(size=(3, 32)),
        rng.normal(size=3),
        [0.6, 0.3, 0.1],
        NAMES,
        weights,
    )
    if memory is not None:
        remember(model, *memory, width=10.0)
    scorer = JuryScorer(model, tokenizer, state=state)
    scorer.save_pretrained(folder)
    return scorer


def logits(folder, texts=TEXTS):
    classify = pipeline("text-classification", model=str(folder), function_to_apply="none", device="cpu")
    return np.array([row["score"] for row in classify(list(texts), batch_size=4)])


def jury_mean(scorer, weights, texts=TEXTS):
    return scorer.cluster_rewards(texts, [""] * len(texts)).double().numpy() @ np.asarray(weights)


@pytest.mark.parametrize(
    ("weights", "shares"),
    [
        (None, [0.6, 0.3, 0.1]),
        ({"space": 3, "city": 1}, [0.25, 0, 0.75]),
        ([2, 2, 0], [0.5, 0.5, 0]),
    ],
)
def test_logits_are_the_jurys_mean_up_to_the_constant(tokenizer, tmp_path, weights, shares):
    scorer = make(tokenizer, tmp_path / "jury")
    export = export_scalar(tmp_path / "jury", tmp_path / "scalar", weights)
    np.testing.assert_allclose(logits(export.folder) + export.constant, jury_mean(scorer, shares), atol=1e-5)
    assert export.weights == pytest.approx(dict(zip(NAMES, shares, strict=True)))
    assert export.constant == pytest.approx(float(scorer.model.score.bias.detach().numpy() @ shares), abs=1e-6)
    assert np.ptp(logits(export.folder)) > 0.1


def test_the_weights_of_a_jury_come_before_its_prevalence(tokenizer, tmp_path):
    make(tokenizer, tmp_path / "jury", weights=[1.0, 1.0, 6.0])
    assert export_scalar(tmp_path / "jury", tmp_path / "scalar").weights["space"] == pytest.approx(0.75)


@pytest.mark.slow
def test_it_loads_where_this_package_is_not(tokenizer, tmp_path):
    scorer = make(tokenizer, tmp_path / "jury")
    export = export_scalar(tmp_path / "jury", tmp_path / "scalar")
    code = (
        "import sys, json\n"
        "from transformers import pipeline\n"
        "p = pipeline('text-classification', model=sys.argv[1], function_to_apply='none', device='cpu')\n"
        "scores = [r['score'] for r in p(json.loads(sys.argv[2]), batch_size=4)]\n"
        "assert not any(m.startswith(('reward_models', 'plural_rlhf')) for m in sys.modules)\n"
        "print(json.dumps([type(p.model).__name__, scores]))"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-c", code, str(export.folder), json.dumps(TEXTS)],
        capture_output=True,
        text=True,
        check=True,
        cwd=tmp_path,
    )
    name, scores = json.loads(done.stdout.splitlines()[-1])
    assert name == "LlamaForSequenceClassification"
    np.testing.assert_allclose(np.array(scores) + export.constant, jury_mean(scorer, [0.6, 0.3, 0.1]), atol=1e-5)
    config = json.loads((export.folder / "config.json").read_text())
    assert (config["model_type"], len(config["id2label"])) == ("llama", 1)
    assert config["jury_export"]["weights"] == pytest.approx({"city": 0.6, "country": 0.3, "space": 0.1})


def test_a_conversation_scores_as_its_rendering(tokenizer, tmp_path):
    scorer = make(tokenizer, tmp_path / "jury")
    export = export_scalar(tmp_path / "jury", tmp_path / "scalar")
    text = tokenizer.apply_chat_template([*CONVERSATION[0], *CONVERSATION[1]], tokenize=False)
    expected = scorer.cluster_rewards([CONVERSATION[0]], [CONVERSATION[1]]).double().numpy() @ [0.6, 0.3, 0.1]
    np.testing.assert_allclose(logits(export.folder, [text, "x"])[0] + export.constant, expected[0], atol=1e-5)


def test_a_tokenizer_that_adds_tokens_adds_none_after_export(tmp_path):
    tokenizer = tiny_tokenizer()
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<|im_start|> $A", special_tokens=[("<|im_start|>", tokenizer.bos_token_id)]
    )
    scorer = make(tokenizer, tmp_path / "jury")
    assert tokenizer("yes").input_ids[0] == tokenizer.bos_token_id
    export = export_scalar(tmp_path / "jury", tmp_path / "scalar")
    np.testing.assert_allclose(logits(export.folder) + export.constant, jury_mean(scorer, [0.6, 0.3, 0.1]), atol=1e-5)


def test_another_architecture_is_its_own_classifier(tokenizer, tmp_path):
    config = GPT2Config(vocab_size=len(tokenizer), n_embd=32, n_layer=1, n_head=2, n_positions=128)
    scorer = make(tokenizer, tmp_path / "jury", backbone=GPT2Model(config).eval())
    export = export_scalar(tmp_path / "jury", tmp_path / "scalar")
    loaded = AutoModelForSequenceClassification.from_pretrained(export.folder)
    assert type(loaded).__name__ == "GPT2ForSequenceClassification"
    np.testing.assert_allclose(logits(export.folder) + export.constant, jury_mean(scorer, [0.6, 0.3, 0.1]), atol=1e-5)


def test_on_the_common_scale(tokenizer, tmp_path):
    calibration = Calibration(np.array([1.0, 4.0, 0.5]), np.array([0.5, -1.0, 2.0]), "spread", 3, 24)
    raw = make(tokenizer, tmp_path / "jury", state=JuryState(calibration=calibration))
    export = export_scalar(tmp_path / "jury", tmp_path / "scalar", [0.2, 0.3, 0.5], calibrated=True)
    rewards = (raw.cluster_rewards(TEXTS, [""] * 4).double().numpy() - calibration.offset) / calibration.scale
    np.testing.assert_allclose(logits(export.folder) + export.constant, rewards @ [0.2, 0.3, 0.5], atol=1e-5)


def test_a_memory_stays_behind_with_a_warning(tokenizer, tmp_path):
    rng = np.random.default_rng(1)
    memory = 100 * rng.normal(size=(5, 32)), rng.normal(size=(5, 3))
    scorer = make(tokenizer, tmp_path / "jury", memory=memory)
    with pytest.warns(UserWarning, match="of 5 judged texts, .* linear heads alone"):
        export = export_scalar(tmp_path / "jury", tmp_path / "scalar")
    heads_alone = make(tokenizer, tmp_path / "linear")
    np.testing.assert_allclose(
        logits(export.folder) + export.constant, jury_mean(heads_alone, [0.6, 0.3, 0.1]), atol=1e-5
    )
    assert np.abs(jury_mean(scorer, [0.6, 0.3, 0.1]) - jury_mean(heads_alone, [0.6, 0.3, 0.1])).min() > 1e-3


def embedded(folder, texts):
    """Scores of a folder of sentence-transformers by its files, with transformers and safetensors alone."""
    modules = json.loads((folder / "modules.json").read_text())
    names = [module["type"].removeprefix("sentence_transformers.models.") for module in modules]
    encoder, tokenizer = AutoModel.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    assert (
        tokenizer.model_max_length == json.loads((folder / "sentence_bert_config.json").read_text())["max_seq_length"]
    )
    batch = tokenizer(list(texts), padding=True, truncation=True, return_tensors="pt")
    with torch.no_grad():
        hidden = encoder(batch["input_ids"], attention_mask=batch["attention_mask"]).last_hidden_state
    mask = batch["attention_mask"][..., None]
    pooling = json.loads((folder / modules[1]["path"] / "config.json").read_text())
    (mode,) = (name for name, on in pooling.items() if on is True)
    vectors = {
        "pooling_mode_mean_tokens": lambda: (hidden * mask).sum(1) / mask.sum(1),
        "pooling_mode_cls_token": lambda: hidden[:, 0],
        "pooling_mode_lasttoken": lambda: hidden[torch.arange(len(hidden)), batch["attention_mask"].sum(1) - 1],
    }[mode]()
    if "Normalize" in names:
        vectors = vectors / vectors.norm(dim=1, keepdim=True)
    assert names[-1] == "Dense"
    dense = load_file(folder / modules[-1]["path"] / "model.safetensors")
    return (vectors @ dense["linear.weight"].T + dense["linear.bias"])[:, 0].double().numpy()


EMBEDDERS = [
    ("llama", ReadingSettings(pooling="mean", format="text", max_length=64)),
    ("llama", ReadingSettings(pooling="mean", unit_length=True, max_length=64, layers=(2,))),
    ("bert", ReadingSettings.for_embedder(pooling="mean", max_length=64)),
    ("bert", ReadingSettings.for_embedder(pooling="mean", unit_length=True, max_length=12)),
    ("bert", ReadingSettings.for_embedder(pooling="first_token", max_length=64)),
    ("bert", ReadingSettings.for_embedder(pooling="last_token", max_length=64)),
]


@pytest.mark.parametrize(("kind", "reading"), EMBEDDERS)
def test_a_jury_on_a_mean_or_an_encoder_becomes_a_sentence_embedder(tokenizer, tmp_path, kind, reading):
    backbone, of_backbone = (tiny_causal_lm(tokenizer), tokenizer) if kind == "llama" else tiny_bert(tmp_path)
    heads, constants = np.random.default_rng(0).normal(size=(2, 32)), np.array([1.0, 3.0])
    model = JuryRewardModel.from_fit(backbone, heads, constants, [0.75, 0.25], reading=reading)
    scorer = JuryScorer(model, of_backbone)
    scorer.save_pretrained(tmp_path / "jury")
    export = export_scalar(tmp_path / "jury", tmp_path / "scalar")
    texts = ["yes", "is it too little? no.", "no no"]
    scores = embedded(export.folder, texts)
    np.testing.assert_allclose(scores, jury_mean(scorer, [0.75, 0.25], texts), atol=1e-5)
    assert np.ptp(scores) > 0.01
    assert (export.form, export.constant) == ("embedder", 0.0)
    assert not changed_files(export.folder, json.loads((export.folder / "jury_export.json").read_text())["files"])


def test_a_jury_on_several_layers_is_refused(tokenizer, tmp_path):
    reading = ReadingSettings(layers=(1, 2))
    model = JuryRewardModel.from_fit(tiny_causal_lm(tokenizer), np.eye(2, 64), [0, 1], [0.5, 0.5], reading=reading)
    JuryScorer(model, tokenizer).save_pretrained(tmp_path / "jury")
    with pytest.raises(JuryError, match=r"the layers \[1, 2\] of 2, and neither.*Fix: use the jury itself"):
        export_scalar(tmp_path / "jury", tmp_path / "scalar")
    assert not (tmp_path / "scalar").exists()


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        (
            {"citty": 1},
            r"the weights name 'citty', and there is no such cluster. Did you mean 'city'\? The clusters are",
        ),
        ([1, -1, 1], r"\[1.0, -1.0, 1.0\]: every one must be a number of at least 0"),
        ({"city": 0}, "the weights are all zero, so nobody is on the jury"),
        ([1, 2], "2 weights for 3 clusters"),
        ([float("nan"), 1, 1], "every one must be a number"),
    ],
)
def test_weights_that_cannot_be_used_are_refused_and_nothing_is_written(tokenizer, tmp_path, weights, message):
    make(tokenizer, tmp_path / "jury")
    with pytest.raises(JuryError, match=message):
        export_scalar(tmp_path / "jury", tmp_path / "scalar", weights)
    assert not (tmp_path / "scalar").exists()


@pytest.mark.slow
def test_an_export_over_an_earlier_one_that_is_killed_leaves_one_of_the_two(tokenizer, tmp_path):
    """Before its one rename the old files are untouched; after it weights are missing, or the new ones are whole."""
    from safetensors.numpy import load_file

    jury, target = tmp_path / "jury", tmp_path / "scalar"
    make(tokenizer, jury)
    heads = []
    for name in ("city", "country"):
        export_scalar(jury, tmp_path / name, {name: 1})
        heads.append(load_file(tmp_path / name / "model.safetensors")["score.weight"])
    shutil.copytree(tmp_path / "city", tmp_path / "counted")

    def export(folder):
        return export_scalar(jury, folder, {"country": 1})

    operations = injection.count_operations(tmp_path / "counted", lambda: export(tmp_path / "counted"))
    outcomes = []
    for number in range(1, operations + 1, 3):
        shutil.copytree(tmp_path / "city", target)

        def killed(number=number):
            injection.at_operation(target, number, injection.die)
            export(target)

        assert injection.in_child(killed).status == -signal.SIGKILL
        if (target / "model.safetensors").exists():
            found = load_file(target / "model.safetensors")["score.weight"]
            outcomes.append([np.array_equal(found, head) for head in heads].index(True))
            weights = json.loads((target / "config.json").read_text())["jury_export"]["weights"]
            assert weights[("city", "country")[outcomes[-1]]] == 1  # weights and configuration are of one export
        export(target)
        assert np.array_equal(load_file(target / "model.safetensors")["score.weight"], heads[1])
        records = json.loads((target / "jury_export.json").read_text())["files"]
        assert changed_files(target, records) == {}
        assert {path.name for path in target.iterdir()} == {*records, "jury_export.json"}
        shutil.rmtree(target)
    assert outcomes == sorted(outcomes)
    assert set(outcomes) == {0, 1}


def test_a_jury_is_not_overwritten_and_not_called_calibrated(tokenizer, tmp_path):
    make(tokenizer, tmp_path / "jury")
    make(tokenizer, tmp_path / "another")
    with pytest.raises(JuryError, match="is the folder of a jury reward model, which would be overwritten"):
        export_scalar(tmp_path / "jury", tmp_path / "another")
    with pytest.raises(JuryError, match="is the jury itself, which would be overwritten"):
        export_scalar(tmp_path / "jury", tmp_path / "jury" / ".." / "jury")
    with pytest.raises(TypeError, match="`jury=` is now `scorer=`"):
        export_scalar(jury=tmp_path / "jury", out=tmp_path / "scalar")
    with pytest.raises(JuryError, match="calibrated=True, but the jury has no calibration"):
        export_scalar(tmp_path / "jury", tmp_path / "scalar", calibrated=True)
