"""A pool of communities: trained one by one, answered by in three modes, patched; refused where it does not fit."""

import json
import shutil

import numpy as np
import pytest
import torch

from plural_rlhf.methods.modular import (
    EVERYBODY,
    Community,
    CommunityPeople,
    CommunityPool,
    ModularPolicy,
    asked_questions,
)
from plural_rlhf.recipe.communities import train_communities
from plural_rlhf.recipe.config import make_config
from plural_rlhf.recipe.run_folder.errors import RunFolderError
from reward_models import JudgementError, Judgements, JuryError
from tests.answering_base import save_base_that_answers


LORA = {"r": 8, "alpha": 32, "target_modules": ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj"]}


def camps(num_raters=60):
    """Yes/no questions on which the left, two thirds of all, says yes nine times in ten, and the right no."""
    rng = np.random.default_rng(0)
    rows = [
        {
            "rater_id": f"r{rater:02}",
            "prompt": f"More {what}?",
            "options": ["yes", "no"],
            "choice": int((rng.random() < 0.9) == (rater % 3 == 0)),
        }
        for rater in range(num_raters)
        for what in ("parks", "roads", "trams", "ponds", "bins")
    ]
    table = Judgements.from_dataset(rows)
    sides = {
        "left": [r for n, r in enumerate(table.raters) if n % 3],
        "right": [r for n, r in enumerate(table.raters) if n % 3 == 0],
    }
    return table, [Community(name, len(raters) / num_raters, raters) for name, raters in sides.items()]


def config_of(folder, **more):
    settings = {
        "policy": {"model": str(folder / "base"), "lora": LORA},
        "sft": {"steps": 30, "learning_rate": 0.02, "texts_per_step": 16},
    }
    return make_config(settings | more, origin="test")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("modular")
    table, communities = camps()
    save_base_that_answers(folder / "base", *asked(table))
    train_communities(config_of(folder), table, communities, folder / "pool", show=lambda line: None)
    return folder, table, communities


@pytest.fixture
def pool(trained, tmp_path):
    shutil.copytree(trained[0] / "pool", tmp_path / "pool")
    return tmp_path / "pool"


def asked(table):
    questions = asked_questions(table)
    return [q.messages for q in questions], [q.options for q in questions]


@pytest.mark.slow
def test_communities_answer_as_their_people_and_together_as_all_by_their_shares(trained, pool):
    _, table, communities = trained
    policy = ModularPolicy.from_pretrained(pool, device="cpu")
    prompts, options = asked(table)
    of = policy.community_probabilities(prompts, options)
    people = CommunityPeople.of(table, communities, draws=100)
    assert people.gain("left", of["left"], of["right"]).high < 0 < people.gain("right", of["left"], of["right"]).low
    shares = policy.answer_probabilities(prompts, options)
    np.testing.assert_allclose(shares[0], of["left"][0] * 2 / 3 + of["right"][0] / 3, atol=1e-6)
    np.testing.assert_allclose(
        policy.answer_probabilities(prompts, options, "flat")[0], (of["left"][0] + of["right"][0]) / 2, atol=1e-6
    )
    # The flat average, as published, takes the third for a half.
    flat = policy.answer_probabilities(prompts, options, "flat")
    assert people.gain(EVERYBODY, shares, flat).value < 0
    np.testing.assert_allclose(policy.answer_probabilities(prompts, options, "right"), of["right"], atol=1e-6)


@pytest.mark.slow
def test_switching_leaves_the_base_model_and_every_adapter_as_they_were(trained, pool):
    policy = ModularPolicy.from_pretrained(pool, device="cpu")
    prompts, options = asked(trained[1])
    before = policy.community_probabilities(prompts, options)
    assert policy.speaker("left", "More parks?") == "left"
    assert policy.speaker("people of the coast", "More parks?") in ("left", "right")
    assert isinstance(policy.overton("More parks?", max_new_tokens=4, comment_tokens=4), str)
    assert set(policy.comments("More parks?", max_new_tokens=4)) == {"left", "right"}
    after = policy.community_probabilities(prompts, options)
    for name, rows in before.items():
        np.testing.assert_array_equal(rows, after[name])


@pytest.mark.slow
def test_texts_of_the_mixture_come_from_every_community_by_its_share(trained, pool):
    torch.manual_seed(0)
    policy = ModularPolicy.from_pretrained(pool, device="cpu")
    prompts, options = asked(trained[1])
    [texts] = policy.generate(prompts[:1], number=300, max_new_tokens=4)
    [p] = policy.answer_probabilities(prompts[:1], options[:1])
    answers = [text for text in texts if text in options[0]]
    assert len(answers) > 200
    assert np.mean([text == "yes" for text in answers]) == pytest.approx(p[0], abs=0.12)


@pytest.mark.slow
def test_what_is_complete_is_not_trained_again_and_a_community_can_be_added(trained, tmp_path):
    folder, table, communities = trained
    config, said = config_of(folder), []
    train_communities(config, table, communities, tmp_path / "pool", only=["left"], show=said.append)
    assert CommunityPool.read(tmp_path / "pool").names == ["left"]
    first = (tmp_path / "pool" / "left" / "adapter_model.safetensors").read_bytes()
    pool = train_communities(config, table, communities, tmp_path / "pool", show=said.append)
    assert "left: trained already" in said
    assert (tmp_path / "pool" / "left" / "adapter_model.safetensors").read_bytes() == first
    for name in ("left", "right"):  # added later or trained together: the same adapters
        parts = [at / "pool" / name / "adapter_model.safetensors" for at in (tmp_path, folder)]
        assert parts[0].read_bytes() == parts[1].read_bytes()
    assert pool.shares.tolist() == pytest.approx([2 / 3, 1 / 3])
    there = {path.name for path in (tmp_path / "pool").iterdir()} - {".lock"}
    assert there == {"communities.json", "left", "right"}


def test_two_trainings_in_one_folder_do_not_lose_a_record_of_each_other(tmp_path):
    """Each writes the whole list, which it has read before its training: the second is refused, and goes on later."""
    table, communities = camps()
    save_base_that_answers(tmp_path / "base", *asked(table))
    config, pool = config_of(tmp_path, sft={"steps": 0}), tmp_path / "pool"

    def meanwhile(line):
        if line.startswith("left:"):
            with pytest.raises(RunFolderError, match=r"another run is at work .*pool.*process \d+"):
                train_communities(config, table, communities, pool, only=["right"], show=lambda line: None)

    train_communities(config, table, communities, pool, only=["left"], show=meanwhile)
    assert CommunityPool.read(pool).names == ["left"]
    train_communities(config, table, communities, pool, only=["right"], show=lambda line: None)
    assert CommunityPool.read(pool).names == ["left", "right"]


@pytest.mark.slow
def test_other_settings_and_another_base_are_refused(trained, pool, tmp_path):
    folder, table, communities = trained
    other = config_of(folder, sft={"steps": 2, "learning_rate": 0.02})
    with pytest.raises(JuryError, match=r"trained on other answers or with other settings.*--overwrite"):
        train_communities(other, table, communities, pool, show=lambda line: None)
    save_base_that_answers(tmp_path / "base", *asked(table), seed=3)
    with pytest.raises(JuryError, match="adapters of two base models cannot be one pool"):
        train_communities(config_of(tmp_path), table, communities, pool, show=lambda line: None)
    with pytest.raises(JudgementError, match=r"no community 'lift'\. Did you mean 'left'"):
        train_communities(config_of(folder), table, communities, pool, only=["lift"], show=lambda line: None)
    with pytest.raises(JuryError, match="trained on another base model"):
        ModularPolicy.from_pretrained(pool, base=tmp_path / "base", device="cpu")


@pytest.mark.slow
def test_damaged_pools_are_refused(trained, pool, tmp_path):
    with pytest.raises(JuryError, match=r"it has no communities\.json\. Fix: correct the path"):
        CommunityPool.read(tmp_path)
    settings = pool / "right" / "adapter_config.json"
    values = json.loads(settings.read_text())
    settings.write_text(json.dumps(values | {"base_model_name_or_path": "models/other"}))  # a folder that was renamed
    assert ModularPolicy.from_pretrained(pool, device="cpu").pool.names[1] == "right"
    noted = pool / "right" / "base_weights.json"
    note = json.loads(noted.read_text())
    noted.write_text(json.dumps(note | {"sha256": "0" * 64}))
    with pytest.raises(JuryError, match=r"adapter of 'right' .* trained on a base model of other weights"):
        ModularPolicy.from_pretrained(pool, device="cpu")
    noted.unlink()
    with pytest.raises(JuryError, match="adapter of 'right' was trained on the base model 'models/other'"):
        ModularPolicy.from_pretrained(pool, device="cpu")
    shutil.rmtree(pool / "right")
    with pytest.raises(JuryError, match="'right' has no adapter"):
        ModularPolicy.from_pretrained(pool, device="cpu")
    (pool / "communities.json").write_text('{"base": "tiny"}')
    with pytest.raises(JuryError, match="cannot be read"):
        CommunityPool.read(pool)
