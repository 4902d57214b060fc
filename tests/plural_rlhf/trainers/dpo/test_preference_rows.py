"""Preference pairs for `PluralDPOTrainer`: who judged, what the policy reads, and what is refused before training."""

from __future__ import annotations

import datasets
import numpy as np
import pytest
from datasets import Dataset
from transformers import HfArgumentParser
from trl import DPOConfig

from plural_rlhf.trainers.dpo.pair_clusters import find_clusters
from plural_rlhf.trainers.dpo.preference_rows import LABELS, READINGS
from plural_rlhf.trainers.plural_dpo_config import PluralDPOConfig
from plural_rlhf.trainers.plural_dpo_trainer import PluralDPOTrainer
from plural_rlhf.weights.wording import POPULATION, describe_weights, steer_prompt
from reward_models.errors import JudgementError, JudgementWarning, JuryError
from reward_models.judgements.records import Judgements
from reward_models.judgements.texts import Text
from reward_models.jury.features import pooled_features
from reward_models.jury.modeling_jury import JuryRewardModel
from reward_models.jury.scorer import JuryScorer
from reward_models.jury.state import JuryState, StoredRaters
from reward_models.raters.placement import Placement
from reward_models.raters.rater_model import KindTerms, RaterModel
from tests.juries import CPU
from tests.opposed_pairs import PROMPTS, RURAL, TOKENIZER, URBAN, build, opposed, pair, policy
from tests.tiny import tiny_causal_lm


@pytest.fixture(autouse=True, scope="module")
def no_progress_bars():
    datasets.disable_progress_bars()
    yield
    datasets.enable_progress_bars()


def test_each_reading_is_the_steered_prompt_and_the_same_response(tmp_path):
    rows = [
        pair(PROMPTS[0], True, weights={"urban": 3, "rural": 1}) | {"chosen": "yes " * 9},
        pair(PROMPTS[1], False, weights={"urban": None, "rural": 1}),
    ]
    words = [describe_weights(w, ["urban", "rural"]) for w in ([0.75, 0.25], [0, 1])]
    length = (
        max(len(TOKENIZER(steer_prompt(r["prompt"], w))["input_ids"]) for r, w in zip(rows, words, strict=True)) + 5
    )
    trainer = build(Dataset.from_list(rows), tmp_path, prevalence=[0.5, 0.5], max_length=length)
    assert len(trainer.train_dataset) == 2
    for row, given, said in zip(trainer.train_dataset, rows, words, strict=True):
        (reading,) = row[READINGS]
        assert TOKENIZER.decode(reading["prompt_ids"]) == steer_prompt(given["prompt"], said)
        assert TOKENIZER.decode(row["prompt_ids"]) == given["prompt"]
        for column in ("chosen_ids", "rejected_ids"):
            assert reading[column] == row[column]
    assert len(trainer.train_dataset[0]["chosen_ids"]) == 5  # which was longer, and is cut for the reference too


def test_conversations_are_steered_in_the_system_message(tmp_path):
    user, answers = [{"role": "user", "content": "Yes or no?"}], ("yes", "no")
    chosen, rejected = ([{"role": "assistant", "content": a}] for a in answers)
    rows = [{"prompt": user, "chosen": chosen, "rejected": rejected, "cluster": name} for name in ("urban", "rural")]
    trainer = build(Dataset.from_list(rows), tmp_path, objective="mixture")
    for row, public in zip(trainer.train_dataset, (None, POPULATION), strict=True):
        texts = [TOKENIZER.decode(reading["prompt_ids"]) for reading in row[READINGS]]
        for text, words in zip(texts, (RURAL, URBAN, public), strict=True):
            prompt = user if words is None else steer_prompt(user, words)
            assert text == TOKENIZER.apply_chat_template(prompt, tokenize=False, add_generation_prompt=True)


def test_a_prompt_that_the_responses_repeat_is_no_part_of_the_answer(tmp_path):
    question = {"role": "user", "content": "Should the city build parks?"}
    chosen, rejected = ([{"role": "assistant", "content": answer}] for answer in ("yes", "no"))
    bare = {"prompt": [question], "chosen": chosen, "rejected": rejected, "cluster": "rural"}
    rows = [
        bare,
        {**bare, "chosen": [question, *chosen], "rejected": [question, *rejected]},
        {**bare, "prompt": question["content"], "chosen": [question, *chosen], "rejected": [question, *rejected]},
        {**bare, "chosen": "yes", "rejected": "no"},
    ]
    expected, *others = (
        build(Dataset.from_list([row]), tmp_path, objective="mixture").train_dataset[0] for row in rows
    )
    for found in others:
        for column in ("prompt_ids", "chosen_ids", "rejected_ids"):
            assert found[column] == expected[column], column
    text = {"prompt": question["content"], "cluster": "rural"}
    repeated = {side: f"{question['content']} {answer}" for side, answer in (("chosen", "yes"), ("rejected", "no"))}
    with pytest.warns(JudgementWarning, match="repeat the prompt in all 1 rows"):
        plain = build(Dataset.from_list([text | repeated]), tmp_path, objective="mixture").train_dataset[0]
    assert TOKENIZER.decode(plain["prompt_ids"]) == question["content"]
    assert TOKENIZER.decode(plain["chosen_ids"]).startswith(" yes")


def test_text_prompts_before_messages_are_refused_by_name(tmp_path):
    chosen, rejected = ([{"role": "assistant", "content": answer}] for answer in ("yes", "no"))
    row = {"prompt": "Parks?", "chosen": chosen, "rejected": rejected, "cluster": "rural"}
    with pytest.raises(JudgementError, match=r"'Parks\?' is text, but chosen and rejected are messages. Fix: write"):
        build(Dataset.from_list([row]), tmp_path, objective="mixture")


def jury(save_raters: bool, folder=None):
    """Two clusters, .7 and .3; ann is in the second for certain, bob 60:40 in the first."""
    model = RaterModel("mixture", np.eye(2), np.log([0.7, 0.3]), {"preference": KindTerms({}, {})})
    posterior = np.array([[0.0, 1.0], [0.6, 0.4]])
    raters = StoredRaters.of(Placement(model, ["ann", "bob"], posterior)) if save_raters else None
    heads = JuryRewardModel.from_fit(
        tiny_causal_lm(TOKENIZER), np.zeros((2, 32)), np.zeros(2), [0.7, 0.3], ["urban", "rural"]
    )
    scorer = JuryScorer(heads, TOKENIZER, state=JuryState(rater_model=model, raters=raters))
    if folder is not None:
        scorer.save_pretrained(folder, save_raters=save_raters)
    return folder or scorer


def test_a_jury_knows_its_raters_and_adapts_strangers_from_their_pairs(tmp_path):
    rows = Dataset.from_list([pair(PROMPTS[0], True, rater_id=rater) for rater in ("bob", "eve", "ann")])
    # The heads of this jury are 0: pairs tell nothing, and a stranger is the population.
    for given in (jury(True), jury(True, tmp_path / "jury")):
        clusters = find_clusters(rows, objective="steerable", scorer=given, names=None, prevalence=None)
        assert clusters.names == ["urban", "rural"]
        assert clusters.prevalence.tolist() == pytest.approx([0.7, 0.3])
        expected = np.array([[0.6, 0.4], [0.7, 0.3], [0.0, 1.0]])
        assert np.allclose(clusters.memberships(rows), expected, atol=1e-6)
    trainer = build(rows, tmp_path, scorer=tmp_path / "jury", min_membership=0.35)
    words = [label["words"] for label in trainer.train_dataset[LABELS]]
    assert words == [[URBAN, RURAL], [URBAN], [RURAL]]


def heads_that_disagree(folder=None):
    """A jury whose clusters want opposite answers, saved the normal way: without its raters."""
    backbone = tiny_causal_lm(TOKENIZER)
    texts = [Text(prompt, answer) for prompt in PROMPTS for answer in ("yes", "no")]
    features = pooled_features(backbone, TOKENIZER, texts, progress=False)
    difference = (features[::2] - features[1::2]).mean(0)
    head = 4 * difference / (difference @ difference)  # yes is about 4 logits above no
    model = RaterModel("mixture", np.eye(2), np.log([0.7, 0.3]), {"preference": KindTerms({}, {})})
    heads = JuryRewardModel.from_fit(backbone, np.stack([head, -head]), np.zeros(2), [0.7, 0.3], ["urban", "rural"])
    scorer = JuryScorer(heads, TOKENIZER, state=JuryState(rater_model=model))
    if folder is not None:
        scorer.save_pretrained(folder)
    return folder or scorer


def who_wants(yes: dict[str, bool], as_ties=()) -> Judgements:
    rows = [
        {
            "rater_id": rater,
            "prompt": prompt,
            "response_a": "no",
            "response_b": "yes",
            "choice": "tie" if rater in as_ties else "b" if wants_yes else "a",
        }
        for rater, wants_yes in yes.items()
        for prompt in PROMPTS
    ]
    return Judgements.from_dataset(rows)


def test_a_table_and_a_jury_saved_the_normal_way_train_a_policy(tmp_path):
    table, jury_folder = who_wants({"ann": False, "bob": True}), heads_that_disagree(tmp_path / "jury")
    for scorer in (jury_folder, heads_that_disagree()):
        trainer = build(table, tmp_path / "out", scorer=scorer, eval_dataset=who_wants({"eve": False}))
        rows = trainer.train_dataset
        by_rater = dict(zip(rows["rater_id"], [label["membership"] for label in rows[LABELS]], strict=True))
        assert by_rater["ann"][1] > 0.95
        assert by_rater["bob"][0] > 0.95
        # Of an evaluation rater nothing is taken from the choices that are to be predicted.
        assert trainer.eval_dataset[LABELS][0]["membership"] == pytest.approx([0.7, 0.3])
    assert rows["chosen"][0] == [{"content": "no", "role": "assistant"}]  # the tiny model has a chat template
    trainer.train()


def test_ties_of_a_table_are_ties_and_do_not_adapt(tmp_path):
    table = who_wants({"ann": False, "bob": True}, as_ties=("bob",))
    trainer = build(table, tmp_path, scorer=heads_that_disagree(), tie_propensity=1.0)
    labels = dict(zip(trainer.train_dataset["rater_id"], trainer.train_dataset[LABELS], strict=True))
    assert [labels["ann"]["tie"], labels["bob"]["tie"]] == [False, True]
    assert labels["bob"]["membership"] == pytest.approx([0.7, 0.3])


def test_a_table_of_votes_is_no_table_of_pairs(tmp_path):
    votes = Judgements.from_dataset([{"rater_id": "a", "prompt": "?", "response": "x", "rating": 1}], levels=(-1, 1))
    with pytest.raises(JudgementError, match=r"'rating' judgements, and a policy is trained on pairs"):
        build(votes, tmp_path, scorer=heads_that_disagree())


def test_prevalence_is_counted_by_raters_not_by_judgements():
    who = [("ann", "urban")] * 6 + [("bob", "rural"), ("eve", "rural")]
    rows = [pair(PROMPTS[0], True, rater_id=rater, cluster=cluster) for rater, cluster in who]
    found = find_clusters(Dataset.from_list(rows), objective="mixture", scorer=None, names=None, prevalence=None)
    assert dict(zip(found.names, found.prevalence.tolist(), strict=True)) == pytest.approx(
        {"rural": 2 / 3, "urban": 1 / 3}
    )


def test_a_misspelt_cluster_is_seen_in_the_count(tmp_path, caplog):
    spelt = ["urban"] * 3 + ["rural", "urbn"]
    rows = Dataset.from_list([pair(PROMPTS[0], True, cluster=name) for name in spelt])
    build(rows, tmp_path)
    found = "3 clusters by the column 'cluster': 'rural' 1, 'urban' 3, 'urbn' 1 of 5 training pairs"
    assert [found in record.getMessage() for record in caplog.records if record.levelname == "WARNING"] == [True]
    caplog.clear()
    build(rows.select(range(4)), tmp_path, cluster_names=["urban", "rural"])
    assert not [record for record in caplog.records if "clusters" in record.getMessage()]


def test_settings_of_plain_dpo_are_told_apart(tmp_path):
    rows = Dataset.from_list([pair(PROMPTS[0], True, cluster="urban")])
    with pytest.raises(TypeError, match=r"args is a DPOConfig.*pass a PluralDPOConfig"):
        PluralDPOTrainer(tiny_causal_lm(TOKENIZER), None, DPOConfig(str(tmp_path), **CPU), rows)


# ── refusals ────────────────────────────────────────────────────────────────────────────────────────────────────────

NAMES = {"cluster_names": ["urban", "rural"]}


@pytest.mark.parametrize(
    ("columns", "settings", "message"),
    [
        (
            {},
            {},
            "no column says which clusters the raters are in.*'cluster'.*, or 'rater_id' with scorer= .*clusters.$",
        ),
        (
            {"rater_id": "ann"},
            {},
            "no column says which clusters.*or pass scorer=.*a jury, which adapts them.*objective='mixture'",
        ),
        ({"cluster": "urban", "membership": [1.0, 0.0]}, NAMES, "'cluster' and 'membership' both say"),
        ({"cluster": "urbane"}, NAMES, "row 0, column 'cluster' is 'urbane'.*no such cluster.*Did you mean 'urban'"),
        ({"membership": [0.5, 0.3, 0.2]}, NAMES, r"row 0, column 'membership'.*3 weights for 2 clusters"),
        ({"membership": [0.5, float("nan")]}, NAMES, "row 0, column 'membership'.*nan.*must be a number"),
        ({"weights": {"urban": 0, "rural": 0}}, {}, "row 0, column 'weights'.*all zero"),
        ({"membership": [0.5, 0.5]}, {}, "does not name the clusters.*cluster_names"),
        ({"cluster": "urban", "rater_weight": -1.0}, {}, r"row 0, column 'rater_weight' is -1\.0"),
        ({"cluster": "urban", "rater_weight": 0.0}, {}, "weights of all judgements are 0.*'?count'? and"),
        (
            {"cluster": "urban"},
            {"cluster_names": ["urban", "urban"]},
            r"'urban', 'urban'.: use different, non-empty",
        ),
        ({"cluster": "urban"}, {"cluster_names": ["urban", ""]}, r"'urban', ''.: use different, non-empty"),
        ({"cluster": "urban", "weight": 2.0}, {}, "column 'weight' does not say what is weighed"),
        ({"cluster": "urban", "tie": True}, {}, "2 pairs are ties, the first in row 0.*set tie_propensity=1.0"),
        ({"cluster": "urban", "tie": "no"}, {}, "row 0, column 'tie' is 'no'"),
        ({"cluster": "urban"}, {"robust": True}, "there is one cluster"),
        ({"cluster": "urban"}, {**NAMES, "cluster_weights": "uniform"}, "'rural' a weight, but no training judgement"),
        ({"cluster": "urban"}, {**NAMES, "prevalence": [1.0]}, r"1 weight for 2 clusters"),
        ({"cluster": "urban", "image": "x"}, {}, "pairs with images"),
    ],
)
def test_data_that_cannot_be_used_are_refused_before_training(columns, settings, message, tmp_path):
    with pytest.raises(ValueError, match=f"(?s){message}"):
        build(Dataset.from_list([pair(PROMPTS[0], True, **columns)] * 2), tmp_path, **settings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"objective": "mixtures"}, "objective is 'mixtures'. Did you mean 'mixture'?"),
        ({"loss_type": "hinge"}, r"loss_type is \['hinge'\].*use trl.DPOTrainer"),
        ({"loss_type": "ipo", "objective": "mixture"}, "needs the probability of a choice"),
        ({"label_smoothing": 0.1}, "label_smoothing is 0.1.*set label_smoothing=0.0"),
        ({"sync_ref_model": True}, "sync_ref_model is True.*not in the checkpoints"),
        ({"beta": 0.0}, "beta is 0.0.*above 0"),
        ({"tie_propensity": float("nan")}, "tie_propensity is nan.*at least 0"),
        ({"dirichlet": 0.5}, "extinction"),
    ],
)
def test_settings_that_cannot_work_are_refused(settings, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        PluralDPOConfig(str(tmp_path), **CPU, **settings)


def test_what_is_given_must_fit_together(tmp_path):
    rows = Dataset.from_list([pair(PROMPTS[0], True, rater_id="ann")])
    without_raters = JuryScorer(jury(False).model, TOKENIZER)
    with pytest.raises(JuryError, match="the scorer has no rater model"):
        build(rows, tmp_path, scorer=without_raters)
    with pytest.raises(JuryError, match="the scorer's are"):
        build(rows, tmp_path, scorer=jury(True), cluster_names=["rural", "urban"])
    with pytest.raises(TypeError, match=r"PluralDPOTrainer: `jury=` is now `scorer=`"):
        PluralDPOTrainer(policy(), None, PluralDPOConfig(str(tmp_path), **CPU), opposed(), jury=jury(True))
    with pytest.raises(JuryError, match="no column 'rejected'"):
        build(opposed().remove_columns("rejected"), tmp_path)
    with pytest.raises(JuryError, match=r"no column 'cluster'.*says who judged"):
        build(opposed(), tmp_path, eval_dataset=rows)
    with pytest.raises(ValueError, match="without streaming"):
        build(opposed(), tmp_path, eval_dataset=opposed().to_iterable_dataset())
    with pytest.raises(ValueError, match=r"in memory only.*ref_model="):
        PluralDPOTrainer(tiny_causal_lm(TOKENIZER), None, PluralDPOConfig(str(tmp_path), **CPU), opposed())


def test_the_settings_are_command_line_arguments():
    parser = HfArgumentParser(PluralDPOConfig)
    given = {"output_dir": "x", "bf16": "false", "objective": "mixture", "cluster_weights": '{"a": 1}'}
    words = [word for name, value in given.items() for word in (f"--{name}", value)]
    (config,) = parser.parse_args_into_dataclasses([*words, "--cluster_names", "a", "b"])
    assert (config.objective, config.cluster_names, config.cluster_weights) == ("mixture", ["a", "b"], {"a": 1})
