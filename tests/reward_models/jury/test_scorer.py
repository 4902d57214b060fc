"""Scoring completions per cluster: `reward_models.jury.scorer`."""

from __future__ import annotations

import json
import pickle
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from reward_models.errors import JuryError
from reward_models.fitting.rater_fit import fit_raters
from reward_models.jury.modeling_jury import JuryRewardModel
from reward_models.jury.protocol import ClusterScorer
from reward_models.jury.scorer import JuryScorer
from reward_models.jury.state import JuryState
from reward_models.sources.planted import planted_judgements
from tests.processes import run_script
from tests.tiny import save_tiny, tiny_causal_lm, tiny_tokenizer


PROMPTS = ["too little?", "about right?", "too little?", "Is it too much?"]
COMPLETIONS = [" yes", " no", " yes", " I think so"]


@pytest.fixture(scope="module")
def tokenizer():
    return tiny_tokenizer()


@pytest.fixture(scope="module")
def model(tokenizer):
    rng = np.random.default_rng(0)
    backbone = tiny_causal_lm(tokenizer, seed=2)
    return JuryRewardModel.from_fit(backbone, rng.normal(size=(2, 32)), rng.normal(size=2), [0.7, 0.3], ["a", "b"])


@pytest.fixture
def scorer(model, tokenizer):
    return JuryScorer(model, tokenizer)


@pytest.fixture
def forwards(model):
    """Number of rows of each forward pass of the backbone."""
    sizes = []
    handle = model.model.register_forward_pre_hook(
        lambda module, args, kwargs: sizes.append(len(kwargs["input_ids"])), with_kwargs=True
    )
    yield sizes
    handle.remove()


def by_hand(model, tokenizer, text):
    with torch.no_grad():
        return model(tokenizer(text, return_tensors="pt", add_special_tokens=False).input_ids).cluster_rewards[0]


def test_plain_texts_score_as_the_model_alone_does(scorer, model, tokenizer):
    rewards = scorer.cluster_rewards(PROMPTS, COMPLETIONS)
    assert rewards.shape == (4, 2)
    assert rewards.dtype == torch.float32
    assert rewards.device.type == "cpu"
    for prompt, completion, row in zip(PROMPTS, COMPLETIONS, rewards, strict=True):
        torch.testing.assert_close(row, by_hand(model, tokenizer, prompt + completion), atol=1e-5, rtol=0)
    assert (rewards[0] - rewards[1]).abs().max() > 0.01


def test_conversations_score_as_their_rendering(scorer, model, tokenizer):
    prompts = [[{"role": "user", "content": prompt}] for prompt in PROMPTS]
    messages = [[{"role": "assistant", "content": completion}] for completion in COMPLETIONS]
    rewards = scorer.cluster_rewards(prompts, messages)
    text = "<|im_start|>user\ntoo little?<|im_end|>\n<|im_start|>assistant\n yes<|im_end|>\n"
    torch.testing.assert_close(rewards[0], by_hand(model, tokenizer, text), atol=1e-5, rtol=0)
    assert torch.equal(scorer.cluster_rewards(prompts, COMPLETIONS), rewards)


def test_each_text_costs_one_forward_pass(scorer, forwards):
    first = scorer.cluster_rewards(PROMPTS, COMPLETIONS)
    assert forwards == [3]
    # The same string from another split of prompt and completion is the same text.
    again = scorer.cluster_rewards(["too little? yes", *PROMPTS[1:], "new"], ["", *COMPLETIONS[1:], " text"])
    assert forwards == [3, 1]
    assert torch.equal(again[:4], first)


def test_batch_size_is_respected_and_does_not_matter(model, tokenizer, scorer, forwards):
    small = JuryScorer(model, tokenizer, batch_size=2)
    prompts, completions = [f"question {i}" for i in range(5)], [" yes" * i for i in range(5)]
    rewards = small.cluster_rewards(prompts, completions)
    assert forwards == [2, 2, 1]
    torch.testing.assert_close(scorer.cluster_rewards(prompts, completions), rewards, atol=1e-5, rtol=0)


def test_memory_is_bounded_and_the_oldest_texts_go_first(model, tokenizer, forwards):
    scorer = JuryScorer(model, tokenizer, cache_size=2)
    rewards = scorer.cluster_rewards(["a", "b", "c"], ["", "", ""])
    assert rewards.shape == (3, 2)
    forwards.clear()
    scorer.cluster_rewards(["b", "c"], ["", ""])
    assert forwards == []
    scorer.cluster_rewards(["a"], [""])
    assert forwards == [1]


def test_survives_pickling_without_its_memory(scorer):
    rewards = scorer.cluster_rewards(PROMPTS, COMPLETIONS)
    clone = pickle.loads(pickle.dumps(scorer))
    assert clone.cluster_names == ["a", "b"]
    assert clone._cache == {}
    assert torch.equal(clone.cluster_rewards(PROMPTS, COMPLETIONS), rewards)
    assert len(scorer._cache) == 3


def test_is_a_jury_and_so_is_any_table(scorer):
    class Table:
        def __init__(self):
            self.cluster_names = ["a"]
            self.prevalence = np.ones(1)

        def cluster_rewards(self, prompts, completions):
            return torch.zeros(len(prompts), 1)

    assert isinstance(scorer, ClusterScorer)
    assert isinstance(Table(), ClusterScorer)
    assert not isinstance(object(), ClusterScorer)
    assert scorer.cluster_names == ["a", "b"]
    assert scorer.prevalence.tolist() == [0.7, 0.3]


@pytest.mark.slow
def test_saved_and_loaded_it_scores_the_same_in_another_process(scorer, tmp_path):
    scorer.save_pretrained(tmp_path)
    assert not [path.name for path in tmp_path.iterdir() if path.suffix in {".bin", ".pt", ".pkl", ".pth"}]
    code = (
        "import json, sys, torch; torch.set_num_threads(1)\n"
        "from reward_models.jury.scorer import JuryScorer\n"
        "jury = JuryScorer.from_pretrained(sys.argv[1], batch_size=4)\n"
        "print(json.dumps(jury.cluster_rewards(*json.loads(sys.argv[2])).tolist()))"
    )
    done = run_script(code, str(tmp_path), json.dumps([PROMPTS, COMPLETIONS]))
    np.testing.assert_allclose(json.loads(done.stdout), scorer.cluster_rewards(PROMPTS, COMPLETIONS), atol=1e-6)
    assert "Warning" not in done.stderr


@pytest.mark.slow
def test_the_advice_for_a_jury_without_a_rater_model_works(model, tokenizer):
    judgements = planted_judgements(num_raters=10, num_items=6).judgements
    fit = fit_raters(judgements.encode())
    with pytest.raises(JuryError, match=r"has no rater model.*fit is the result of fit_raters") as refusal:
        JuryScorer(model, tokenizer).adapt(judgements)
    advice = re.search(r"JuryScorer\(.*?fit\.model\)\)", str(refusal.value))[0]
    names = {"JuryScorer": JuryScorer, "JuryState": JuryState, "model": model, "tokenizer": tokenizer, "fit": fit}
    assert eval(advice, names).adapt(judgements).memberships.shape == (10, 2)


def test_questions_under_the_old_keyword_are_refused(scorer):
    with pytest.raises(TypeError, match=r"`given=` is now `judgements=`"):
        scorer.next_question([("q", ("a", "b"))], given=None)


def test_no_prompts_give_no_rows(scorer):
    assert scorer.cluster_rewards([], []).shape == (0, 2)


def test_lists_that_do_not_match_are_refused(scorer):
    with pytest.raises(JuryError, match="2 prompts and 1 completions: give two lists of equal length"):
        scorer.cluster_rewards(["a", "b"], ["c"])
    with pytest.raises(JuryError, match="a single string as prompts and 1 completions"):
        scorer.cluster_rewards("a", ["c"])


def test_rewards_that_are_not_numbers_are_refused(tokenizer):
    model = JuryRewardModel.from_fit(tiny_causal_lm(tokenizer), np.ones((1, 32)), np.zeros(1), [1.0])
    with torch.no_grad():
        model.score.bias.fill_(torch.inf)
    with pytest.raises(JuryError, match=r"the reward \[inf\] of 'ab' is not finite.*Check the jury's weights"):
        JuryScorer(model, tokenizer).cluster_rewards(["a"], ["b"])


@pytest.mark.parametrize("kind", [str, Path])
def test_a_missing_folder_is_refused(tmp_path, kind):
    with pytest.raises(JuryError, match=r"no jury reward model at '.*absent'.*correct the path"):
        JuryScorer.from_pretrained(kind(tmp_path / "absent"))


def test_an_empty_folder_is_refused(tmp_path):
    with pytest.raises(JuryError, match=r"neither a folder with a readable config.json.*Fit one and save it"):
        JuryScorer.from_pretrained(tmp_path)


def test_a_language_model_is_refused(tmp_path):
    with pytest.raises(JuryError, match=r"holds a model of type 'llama', not 'plural_jury'.*from_fit"):
        JuryScorer.from_pretrained(save_tiny(tmp_path))


def test_a_jury_without_tokenizer_is_refused(model, tmp_path):
    model.save_pretrained(tmp_path)
    with pytest.raises(
        JuryError, match=r"has no tokenizer beside it.*Save the backbone's tokenizer there with tokenizer.save_pre"
    ):
        JuryScorer.from_pretrained(tmp_path)


def test_a_jury_without_weights_is_refused(scorer, tmp_path):
    scorer.save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(JuryError, match=r"lacks 'model.safetensors', which it was saved with"):
        JuryScorer.from_pretrained(tmp_path)
    (tmp_path / "jury.json").unlink()  # which says what the folder holds
    with pytest.raises(JuryError, match=r"has a config.json but no weights that can be read"):
        JuryScorer.from_pretrained(tmp_path)


def test_a_jury_with_half_its_weights_is_refused(scorer, model, tmp_path):
    scorer.save_pretrained(tmp_path)
    half = {name: tensor for name, tensor in model.state_dict().items() if not name.startswith("score")}
    model.save_pretrained(tmp_path, state_dict=half)
    (tmp_path / "jury.json").unlink()  # with it the folder is refused because its files are others
    with pytest.raises(JuryError, match=r"lacks the weights \['score.bias', 'score.weight'\]"):
        JuryScorer.from_pretrained(tmp_path)


def test_a_jury_with_an_edited_configuration_says_what_is_wrong(scorer, tmp_path):
    scorer.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "prevalence": [0.7, 0.7]}))
    with pytest.raises(JuryError, match=r"sums to 1.4, but these are shares of one population"):
        JuryScorer.from_pretrained(tmp_path)
