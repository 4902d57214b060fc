import dataclasses
import math

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, T5Config, T5ForConditionalGeneration

from plural_rlhf.evaluation.overton.windows import nli_coverage
from plural_rlhf.methods.kaleidoscope import (
    FittedValueJudge,
    KaleidoJudge,
    Value,
    ValuedSituation,
    ValuesError,
    ambiguity,
    fit_value_judge,
    heldout_valences,
    overton_windows,
    planted_valued_situations,
    relevant_values,
    situation_valence,
    valence_accuracy,
    value_objectives,
    word_vectors,
)
from plural_rlhf.methods.kaleidoscope.fitted import _values_of_others
from plural_rlhf.methods.kaleidoscope.measures import Contrast, contrasts_right, majority_valences
from plural_rlhf.rewards.jury_reward import JuryReward


WORDS = (
    *("<pad>", "</s>", "?", "Yes", "No", "Supports", "Opposes", "Either"),
    *("Judge", "whether", "matters", "way", "of", "in", "lying", "giving", "Honesty", "Value", "Duty"),
)
TASKS = {
    "relevance": {"template": "Judge whether K V matters in S", "args": ["S", "K", "V"]},
    "valence": {"template": "Judge way of K V in S", "args": ["S", "K", "V"]},
}


@pytest.fixture(scope="module")
def judge():
    return fit_value_judge(planted_valued_situations(), word_vectors)


@pytest.fixture
def kaleido(tmp_path):
    core = Tokenizer(models.WordLevel({word: place for place, word in enumerate(WORDS)}, unk_token="?"))
    core.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, pad_token="<pad>", eos_token="</s>", unk_token="?")
    torch.manual_seed(0)
    config = T5Config(
        vocab_size=len(WORDS), d_model=16, d_kv=8, d_ff=32, num_layers=1, num_heads=2, decoder_start_token_id=0,
        pad_token_id=0, eos_token_id=1, task_specific_params=TASKS,
    )  # fmt: skip
    T5ForConditionalGeneration(config).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    return tmp_path


def test_a_checkpoint_answers_with_the_first_word_renormalised(kaleido):
    judge = KaleidoJudge.from_pretrained(kaleido, device="cpu", batch_size=2)
    situations, values = ["lying", "giving", "lying"], [Value("Honesty"), Value("Honesty", "Duty"), Value("Honesty")]
    judged = judge.valence(situations, values)
    for row, (situation, value) in enumerate(zip(situations, values, strict=True)):
        ids = judge.tokenizer(f"Judge way of {value.kind} {value.text} in {situation}", return_tensors="pt").input_ids
        with torch.no_grad():
            logits = judge.model(input_ids=ids, decoder_input_ids=torch.tensor([[0]])).logits[0, 0].double()
        expected = torch.softmax(logits, -1)[[WORDS.index(w) for w in ("Supports", "Opposes", "Either")]]
        assert judged[row] == pytest.approx((expected / expected.sum()).numpy(), abs=1e-5)
    assert judged.sum(axis=1) == pytest.approx(np.ones(3))
    assert ((judge.relevance(situations, values) > 0) & (judge.relevance(situations, values) < 1)).all()


def test_a_model_that_is_no_kaleido_checkpoint_is_refused(kaleido):
    judge = KaleidoJudge.from_pretrained(kaleido, device="cpu")
    judge.model.config.task_specific_params = None
    with pytest.raises(ValuesError, match="has no wording for relevance and valence"):
        KaleidoJudge(judge.model, judge.tokenizer)
    with pytest.raises(ValuesError, match="no wording for naming values"):
        judge.values_of("lying")


def test_a_fitted_judge_knows_values_that_it_has_not_seen(judge):
    rows = planted_valued_situations()
    measured = valence_accuracy(rows, heldout_valences(rows, word_vectors))
    assert measured["accuracy"].low > valence_accuracy(rows, majority_valences(rows))["accuracy"].high
    assert measured["accuracy"].value > 0.9
    # Honesty matters where somebody steals and not where somebody hoards, whatever the thing.
    honesty = Value("Honesty")
    matters = judge.relevance(["stealing a lamp", "hoarding lamps"], [honesty, honesty])
    assert matters[0] > 0.8
    assert matters[1] < 0.2


def test_shuffled_valences_teach_nothing():
    rows = planted_valued_situations()
    drawn = np.random.default_rng(0).permutation(len(rows))
    shuffled = [dataclasses.replace(row, valence=rows[i].valence) for row, i in zip(rows, drawn, strict=True)]
    nats = valence_accuracy(shuffled, heldout_valences(shuffled, word_vectors))["nats"]
    assert nats.value > math.log(3) - 0.03  # three valences, equally frequent


def test_values_of_others_are_not_the_situations_own():
    rows = planted_valued_situations()
    situations, texts = [r.situation for r in rows], [r.value.text.casefold() for r in rows]
    own = set(zip(situations, texts, strict=True))
    other = _values_of_others(situations, texts, seed=3)
    assert not {(s, texts[i]) for s, i in zip(situations, other, strict=True)} & own


def test_a_saved_judge_judges_the_same_and_refuses_other_vectors(judge, tmp_path):
    judge.save(tmp_path / "judge")
    loaded = FittedValueJudge.load(tmp_path / "judge")
    situations, values = ["stealing a book", "giving money"], [Value("Honesty"), Value("Generosity at work")]
    assert (loaded.valence(situations, values) == judge.valence(situations, values)).all()
    assert (loaded.relevance(situations, values) == judge.relevance(situations, values)).all()
    other = dataclasses.replace(word_vectors, identity="another model")
    with pytest.raises(ValuesError, match="was fitted on vectors of 'words'"):
        FittedValueJudge.load(tmp_path / "judge", other)
    (tmp_path / "judge" / "value_judge.safetensors").write_bytes(b"cut")
    with pytest.raises(ValuesError, match="no judge of values"):
        FittedValueJudge.load(tmp_path / "judge")


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        (planted_valued_situations()[:12], "2 different situations are too few"),
        ([r for r in planted_valued_situations() if r.value.text == "Honesty"], "1 different values are too few"),
        ([r for r in planted_valued_situations() if r.valence != "either"], "no row has the valence 'either'"),
    ],
)
def test_too_little_to_fit_is_refused(rows, words):
    with pytest.raises(ValuesError, match=words):
        fit_value_judge(rows, word_vectors)


def test_vectors_that_are_no_numbers_are_refused():
    rows = planted_valued_situations()

    class Broken:
        name, identity = "broken", ""

        def __call__(self, texts):
            return np.full((len(texts), 4), np.nan)

    with pytest.raises(ValuesError, match="not finite"):
        fit_value_judge(rows, Broken())


def test_ambiguity_is_the_entropy_of_what_the_values_say_together():
    relevance = np.array([0.9, 0.3])
    valence = np.array([[0.8, 0.1, 0.1], [0.0, 1.0, 0.0]])
    mixed = (0.9 * valence[0] + 0.3 * valence[1]) / 1.2
    assert situation_valence(relevance, valence) == pytest.approx(mixed)
    assert ambiguity(relevance, valence) == pytest.approx(-(mixed * np.log(mixed)).sum())
    with pytest.raises(ValuesError, match="no value matters"):
        ambiguity(np.zeros(2), valence)
    for wrong in ([np.nan, 0.9], [-0.5, 1.0]):  # a mean under weights below 0 is no distribution
        with pytest.raises(ValuesError, match=r"the relevances are \[.*\]\. Fix: give probabilities"):
            situation_valence(np.array(wrong), valence)


def test_relevant_values_are_sorted_and_none_is_below_the_threshold(judge):
    candidates = [Value("Generosity"), Value("Honesty"), Value("honesty")]
    found = relevant_values(judge, "stealing a phone", candidates)
    assert [r.value.text for r in found] == ["Honesty"]
    assert found[0].leaning < -0.9
    assert relevant_values(judge, "stealing a phone", candidates, threshold=1.1) == []


def test_the_views_of_a_window_say_which_way_each_relevant_value_goes(judge):
    candidates = [Value("Generosity"), Value("Honesty")]
    done = ["stealing a phone.", "returning a phone", "finding a phone", "giving a phone"]
    windows = overton_windows(judge, done, candidates)
    assert windows == [
        ["Honesty speaks against stealing a phone."],
        ["Honesty speaks for returning a phone."],
        ["Honesty may speak for or against finding a phone."],
        ["Generosity speaks for giving a phone."],
    ]
    answers = ["Stealing is fast. Honesty speaks against stealing a phone.", *["Who knows."] * 3]
    scores = nli_coverage(
        answers, windows, lambda views, said: [float(v == s) for v, s in zip(views, said, strict=True)]
    )
    assert [float(of_answer.max()) for of_answer in scores] == [1.0, 0.0, 0.0, 0.0]
    assert overton_windows(judge, done[:1], candidates, threshold=1.1) == [[]]
    with pytest.raises(ValuesError, match="the situation is empty"):
        overton_windows(judge, [" "], candidates)
    with pytest.raises(ValuesError, match="are one text"):
        overton_windows(judge, "stealing a phone", candidates)


def test_a_relevance_that_is_no_number_is_not_taken_for_one_that_is_small():
    class Torn:
        def relevance(self, situations, values):
            return [0.9 if value.text == "Honesty" else float("nan") for value in values]

    with pytest.raises(ValuesError, match="gave the value 'Speed' no finite relevance"):
        relevant_values(Torn(), "stealing a phone", [Value("Honesty"), Value("Speed")])
    with pytest.raises(ValuesError, match=r"there is no value to choose from\. Fix: give candidates"):
        relevant_values(Torn(), "stealing a phone", [])


def test_objectives_weigh_leaning_by_relevance_and_reward_a_policy(judge):
    objectives = value_objectives(judge, [Value("Honesty"), Value("Generosity")], {"Honesty": 3, "Generosity": 1})
    rewards = objectives.cluster_rewards(["What do you do?"] * 2, ["stealing a phone", "returning a phone"]).numpy()
    honesty = [Value("Honesty")] * 2
    situations = ["stealing a phone", "returning a phone"]
    leaning = judge.valence(situations, honesty) @ [1, -1, 0]
    assert rewards[:, 0] == pytest.approx(judge.relevance(situations, honesty) * leaning, abs=1e-6)
    assert rewards[0, 0] < -0.5 < 0.5 < rewards[1, 0]
    assert np.abs(rewards[:, 1]).max() < np.abs(rewards[:, 0]).min()  # generosity matters less here
    conversations = [[{"role": "assistant", "content": text}] for text in situations]
    asked = [[{"role": "user", "content": "What do you do?"}]] * 2
    assert objectives.cluster_rewards(asked, conversations).numpy() == pytest.approx(rewards)
    reward = JuryReward(objectives, rule="min")(prompts=["What do you do?"] * 2, completions=situations)
    assert reward[0] < reward[1]
    with pytest.raises(ValuesError, match="occur more than once"):
        value_objectives(judge, [Value("Honesty"), Value("Honesty", "Duty")])


def test_accuracy_counts_classes_and_leaves_either_out_of_the_binary_one():
    gold = ["supports", "supports", "supports", "opposes", "either", "either"]
    judged = [0, 0, 1, 1, 2, 0]
    rows = [ValuedSituation("acting", Value(f"Value {i}"), valence) for i, valence in enumerate(gold)]
    measured = valence_accuracy(rows, np.eye(3)[judged])
    assert measured["accuracy"].value == pytest.approx(4 / 6)
    assert measured["balanced_accuracy"].value == pytest.approx((2 / 3 + 1 + 1 / 2) / 3)
    assert measured["macro_f1"].value == pytest.approx((4 / 6 + 2 / 3 + 2 / 3) / 3)
    assert measured["binary_accuracy"].value == pytest.approx(3 / 4)
    assert measured["accuracy"].low < 4 / 6 < measured["accuracy"].high


def test_intervals_of_accuracy_draw_values_with_all_their_rows():
    """Ten rows of a value say no more than one: they are right or wrong together."""
    rng = np.random.default_rng(0)
    right = rng.random(40) < 0.7

    def measured(times):
        rows = [
            ValuedSituation(f"acting {n}", Value(f"Value {i}"), "supports") for i in range(40) for n in range(times)
        ]
        probabilities = np.array([[0.6, 0.3, 0.1] if ok else [0.2, 0.7, 0.1] for ok in right for _ in range(times)])
        return valence_accuracy(rows, probabilities)

    once, ten = measured(1), measured(10)
    for name, interval in once.items():
        assert dataclasses.astuple(interval) == pytest.approx(dataclasses.astuple(ten[name])), name
    accuracy = once["accuracy"]
    error = np.sqrt(right.mean() * (1 - right.mean()) / 40)
    assert accuracy.high - accuracy.low == pytest.approx(2 * 1.96 * error, rel=0.15)
    assert accuracy.n_items == 40
    nats = once["nats"]
    assert nats.value == pytest.approx(-right.mean() * np.log(0.6) - (1 - right.mean()) * np.log(0.2))
    assert nats.low < nats.value < nats.high
    with pytest.raises(ValuesError, match="1 of 1 rows have no valence"):
        valence_accuracy([ValuedSituation("acting", Value("Honesty"))], np.ones((1, 3)) / 3)


def test_baselines_of_valences_know_nothing_of_the_value_they_are_asked_about():
    rows = [ValuedSituation(f"s {i}", Value(f"V {i // 4}"), "opposes" if i < 4 else "supports") for i in range(40)]
    shares = majority_valences(rows, folds=10)  # a value is a part by itself
    assert shares[0].tolist() == [1, 0, 0]  # of the others all support
    assert shares[5] == pytest.approx([32 / 36, 4 / 36, 0])


def test_a_contrast_is_right_only_in_its_direction(judge):
    honesty = Value("Honesty")
    there = Contrast(honesty, more="returning a phone", less="stealing a phone")
    back = Contrast(honesty, more="stealing a phone", less="returning a phone")
    assert contrasts_right(judge, [there, back]).tolist() == [True, False]
