"""What `fit_jury` is asked for wrongly: refused with the value and what to write, before a text is read."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np
import pytest

from reward_models import (
    EncoderConfig,
    FitConfig,
    Judgements,
    JuryError,
    VPLConfig,
    choose_membership,
    describe_clusters,
    fit_calibrated_ensemble,
    fit_demographics,
    fit_encoder,
    fit_item_mean,
    fit_joint,
    fit_jury,
    fit_k_models,
    fit_mean_variance,
    fit_mixture,
    fit_raters,
    fit_vector_jury,
    fit_vpl,
    headroom,
    planted_judgements,
    reliability,
    shuffle_raters,
)
from reward_models.errors import JudgementError
from reward_models.fitting.selection import select_num_clusters
from reward_models.fitting.starting_point import judged_twice
from tests.saved_juries import make_jury
from tests.tiny import tiny_causal_lm, tiny_tokenizer


TOKENIZER = tiny_tokenizer()
TABLE = planted_judgements("rating", num_raters=24, num_items=12).judgements
ONCE = planted_judgements("rating", num_raters=24, num_items=1).judgements
ITEM = TABLE.encode().item_ids[0]
SHARES = Judgements.from_dataset([{"prompt": "Tea?", "options": ["yes", "no"], "probs": [0.25, 0.75]}])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"clusters": 0}, "num_clusters=0: a jury has at least one cluster"),
        ({"clusters": (0, 1)}, "num_clusters=0: a jury has at least one cluster"),
        ({"clusters": 25}, "num_clusters=25 is more than the 24 raters in the table"),
        ({"clusters": (25,)}, "num_clusters=25 is more than the 24 raters in the table"),
        ({"clusters": 2.5}, "clusters=2.5 is no number of clusters. Fix: a whole number, or candidates, e.g. clus"),
        ({"clusters": "2"}, "clusters='2' is no number of clusters"),
        ({"clusters": True}, "clusters=True is no number of clusters"),
        ({"clusters": None}, "clusters=None is no number of clusters"),
        ({"clusters": {"town": 1}}, "clusters={'town': 1} is no number of clusters"),
        ({"clusters": []}, r"clusters=\[\]: there is nothing to compare"),
        ({"clusters": (1, "2")}, r"clusters=\(1, '2'\): '2' is no number of clusters"),
        ({"membership": "mixtur"}, "membership='mixtur' is none of mixture, .*, auto. Did you mean 'mixture'"),
        ({"membership": "factor", "clusters": 9}, "num_clusters=9: the codes of a factor model .* up to rank 3"),
        ({"strangers": "votes"}, 'strangers=\'votes\'.* Fix: strangers="raters" or strangers="judgements"'),
        ({"clusters": 2, "names": ["town"]}, "1 name for 2 clusters"),
        ({"clusters": 2, "names": ["town", "town"]}, "two clusters would be named 'town'"),
        ({"names": ["town", ""]}, "the name '' of a cluster is empty"),
        ({"names": {"everyone": "a=b"}}, "the name 'a=b' of a cluster cannot be used in weights"),
        ({"names": "town"}, "names='town' is one text"),
        (
            {"labels": "parks"},
            "labels='parks': short names of items by item id are expected, not a str. Fix: labels=",
        ),
        ({"labels": ["parks"]}, r"labels=\['parks'\]: short names of items by item id are expected, not a list"),
        ({"labels": {ITEM: 3}}, f"the short name 3 of the item '{ITEM}' is empty or no text. Fix: give a word"),
        ({"labels": {ITEM: " "}}, f"the short name ' ' of the item '{ITEM}' is empty"),
        ({"labels": {0: "parks"}}, f"labels: 0 is the id of no item.* the first item is '{ITEM}'"),
        ({"config": {"restarts": 1}}, r"a FitConfig is expected, not a dict \({'restarts': 1}\). Fix: FitConfig\("),
        ({"config": {}}, "a FitConfig is expected, not a dict"),
        ({"pooling": "men"}, "pooling='men' is none of last_token, mean, first_token, auto. Did you mean 'mean'"),
        ({"hidden_layers": "last"}, r"hidden_layers='last' names no layers. Fix: .* hidden_layers=\(6,\)"),
        ({"hidden_layers": 3}, "hidden_layers=3 names no layers"),
        ({"hidden_layers": (1.5,)}, r"hidden_layers=\(1.5,\) names no layers"),
        ({"read_prompt": "no"}, "read_prompt='no' says neither yes nor no. Fix: True, False"),
        ({"max_length": "512"}, "max_length='512' is no number of tokens. Fix: a whole number"),
        ({"max_length": 2.5}, "max_length=2.5 is no number of tokens"),
        ({"layers": "2"}, "num_layers='2': LlamaModel has 2 layers; give a number from 1 to 2"),
        ({"layers": 3}, "num_layers=3: LlamaModel has 2 layers"),
        ({"l2": 0.1}, "l2=0.1: .* there is no penalty to set. Fix: leave l2 out"),
        ({"judgements": [TABLE, TABLE]}, "two tables of kind 'rating'.*Fix: concatenate tables of the same kind"),
        ({"judgements": []}, "there is no table of judgements"),
        ({"judgements": [SHARES, SHARES]}, "a `soft` table has no raters that other tables could share"),
        ({"judgements": SHARES, "clusters": 2}, "'soft' judgements do not say who answered what"),
        ({"judgements": SHARES, "strangers": "judgements"}, "a `soft` table has no raters. Fix: leave strangers out"),
        ({"judgements": ONCE, "clusters": 2}, "every rater judged one thing only.*Fix: use num_clusters=1"),
    ],
)
def test_what_cannot_be_fitted_is_refused_before_a_text_is_read(options, message):
    steps: list[str] = []
    asked = {"judgements": TABLE, "progress": False, "on_step": steps.append} | options
    with pytest.raises(JuryError, match=message):
        fit_jury(asked.pop("judgements"), tiny_causal_lm(TOKENIZER), TOKENIZER, **asked)
    assert not steps


@pytest.mark.parametrize("measure", [headroom, choose_membership, partial(select_num_clusters, candidates=(1, 2))])
def test_what_reads_one_table_refuses_several(measure):
    for several in ([TABLE, ONCE], []):
        with pytest.raises(JudgementError, match=f"one table of judgements is expected, not {len(several)}. Fix: "):
            measure(several)


def test_numbers_of_numpy_are_numbers_of_clusters():
    planted = planted_judgements("rating", num_raters=24, num_items=12)
    jury, same = (fit_vector_jury(planted.judgements, planted.rewards, clusters=k) for k in (np.int64(2), 2))
    assert (jury.fit.heads == same.fit.heads).all()


def test_candidates_that_the_raters_cannot_support_are_named():
    planted = planted_judgements("rating", num_raters=24, num_items=12)
    config = FitConfig(restarts=1)
    jury = fit_vector_jury(planted.judgements, planted.rewards, clusters=(1, 2, 7, 99), config=config)
    assert jury.selection.reason.endswith("; 7, 99 clusters were not compared: 24 raters are enough for at most 6")
    usual = fit_vector_jury(planted.judgements, planted.rewards, clusters=(1, 2), config=config)
    assert "not compared" not in usual.selection.reason
    compared = [(row["membership"], row["num_clusters"]) for row in usual.selection.table]
    assert compared == [("mixture", 1), ("mixture", 2)]  # memberships of one size are told apart


FRAME = TABLE.frame
MAKERS = {
    "DataFrame": (FRAME, "Judgements.from_frame"),
    "list": (FRAME.to_dict("records"), "Judgements.from_dataset"),
    "str": ("votes.csv", r"load_table\('votes.csv'\)"),
    "Encoded": (TABLE.encode(), r"pass the Judgements whose encode\(\) gave this"),
    "NoneType": (None, "Judgements.from_dataset"),
}


@pytest.mark.parametrize("kind", MAKERS)
def test_what_is_no_table_of_judgements_is_refused_with_the_call_that_makes_one(kind):
    value, maker = MAKERS[kind]
    message = f"judgements are expected, not a {kind}. Fix: {maker}"
    scorer = make_jury(TOKENIZER)
    jury = fit_vector_jury(TABLE, np.eye(TABLE.encode().n_texts), clusters=1)
    for door in (lambda j: fit_vector_jury(j, np.eye(2)), headroom, scorer.adapt, jury.adapt):
        with pytest.raises(JudgementError, match=message):
            door(value)
    with pytest.raises(JudgementError, match=message):
        fit_jury(value, tiny_causal_lm(TOKENIZER), TOKENIZER)


def test_what_is_no_data_frame_or_data_set_is_refused_with_the_call_that_takes_it():
    with pytest.raises(JudgementError, match=r"a data frame is expected, not a list. Fix: Judgements.from_dataset"):
        Judgements.from_frame(FRAME.to_dict("records"))
    with pytest.raises(JudgementError, match=r"a data set or a list of rows .* not a str. Fix: load_table\('v.csv'\)"):
        Judgements.from_dataset("v.csv")
    assert len(Judgements.from_dataset(FRAME)) == len(TABLE)


ENCODED = "encoded judgements are expected.*Fix: pass judgements.encode"


@pytest.mark.parametrize("value", [TABLE, FRAME, None])
@pytest.mark.parametrize(
    "fit",
    [
        fit_raters,
        partial(fit_mixture, num_clusters=2),
        partial(fit_joint, features=np.eye(2)),
        partial(fit_demographics, judgements=TABLE),
        partial(fit_encoder, num_clusters=2),
        partial(fit_k_models, num_clusters=2),
        fit_calibrated_ensemble,
        fit_item_mean,
        fit_mean_variance,
        fit_vpl,
        shuffle_raters,
        partial(describe_clusters, fit_raters(TABLE.encode())),
    ],
)
def test_label_fits_and_baselines_ask_for_encoded_judgements(fit, value):
    with pytest.raises(JudgementError, match=ENCODED):
        fit(value)


@pytest.mark.parametrize("fit", [fit_raters, fit_item_mean, partial(fit_k_models, num_clusters=2)])
def test_judgements_themselves_name_what_is_asked_of_them_wherever_that_happens(fit):
    fitted = fit(TABLE.encode())
    for door in (fitted.log_probs, reliability):
        with pytest.raises(JudgementError, match=ENCODED):
            door(TABLE)
    assert not hasattr(TABLE, "alternatives")
    with pytest.raises(AttributeError, match="'Judgements' object has no attribute 'colour'"):
        TABLE.colour  # noqa: B018


def test_judgements_of_a_rater_are_counted_over_tables_and_repetitions():
    once = ONCE.encode()
    repeated = replace(once, count=np.where(once.rater == 3, 2.0, 1.0))
    tables = [once], [once, once], [repeated], [SHARES.encode()], []
    assert [judged_twice(given) for given in tables] == [False, True, True, False, False]


def test_labels_may_name_some_items_and_others_that_nobody_judged():
    rewards = np.eye(TABLE.encode().n_texts)
    jury = fit_vector_jury(TABLE, rewards, clusters=2, labels={ITEM: "parks", "of another table": "roads"})
    labels = {answer["label"] for cluster in jury.clusters for answer in cluster["answers"]}
    assert "parks" in labels
    for labels in (["parks"], {0: "parks"}):
        with pytest.raises(JuryError, match="labels"):
            fit_vector_jury(TABLE, rewards, clusters=2, labels=labels)


@pytest.mark.parametrize(
    ("kind", "values", "message"),
    [
        (
            FitConfig,
            {"restarts": "3"},
            r"FitConfig: restarts='3' is no whole number. Fix: .*leave restarts out",
        ),
        (FitConfig, {"max_iter": 1.5}, "max_iter=1.5 is no whole number"),
        (FitConfig, {"max_iter": True}, "max_iter=True is no whole number"),
        (FitConfig, {"tol": float("nan")}, "tol=nan is no finite number"),
        (FitConfig, {"smoothing": float("inf")}, "smoothing=inf is no finite number"),
        (FitConfig, {"dirichlet": np.True_}, "is no finite number"),
        (FitConfig, {"nuisance": "no"}, "nuisance='no' is neither True nor False"),
        (FitConfig, {"style": 0}, "style=0 is neither True nor False"),
        (FitConfig, {"seed": None}, "seed=None is no whole number"),
        (FitConfig, {"temperatures": 1.0}, "temperatures=1.0: the last must be 1"),
        (FitConfig, {"temperatures": (float("nan"), 1.0)}, r"temperatures=\(nan, 1.0\): the last must be 1"),
        (FitConfig, {"temperatures": (1.0, 4.0, 1.0)}, "each at least the next"),
        (EncoderConfig, {"epochs": 2.5}, "epochs=2.5 is no whole number"),
        (EncoderConfig, {"kl_weight": float("nan")}, "kl_weight=nan is no finite number"),
        (EncoderConfig, {"free_bits": -1.0}, "free_bits=-1.0 must be at least 0"),
        (EncoderConfig, {"swap_consistent": "no"}, "swap_consistent='no' is neither True nor False"),
        (VPLConfig, {"hidden": 0}, "hidden=0.*must be at least 1"),
        (VPLConfig, {"heldout": 1.0}, r"heldout=1.0 in \(0, 1\)"),
        (VPLConfig, {"learning_rate": 0.0}, "learning_rate=0.0 must be positive"),
        (VPLConfig, {"weight_decay": "no"}, "weight_decay='no' is no finite number"),
    ],
)
def test_settings_that_cannot_work_are_refused_when_they_are_made(kind, values, message):
    with pytest.raises(JuryError, match=message):
        kind(**values)


def test_numbers_and_switches_of_numpy_are_settings():
    config = FitConfig(restarts=np.int64(2), tol=np.float32(1e-4), dirichlet=2, nuisance=np.bool_(False))
    assert list(fit_raters(TABLE.encode(), config=config).nuisance) == ["thresholds"]


@pytest.mark.parametrize("fit", [partial(fit_encoder, num_clusters=2), fit_vpl, fit_raters])
def test_settings_of_another_class_are_refused(fit):
    with pytest.raises(JuryError, match=r"Config is expected, not a dict \({}\)"):
        fit(TABLE.encode(), config={})
