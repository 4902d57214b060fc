"""What `fit_jury` is asked for wrongly: refused with the value and what to write, before a text is read."""

from __future__ import annotations

import numpy as np
import pytest

from reward_models import (
    FitConfig,
    Judgements,
    JuryError,
    fit_joint,
    fit_jury,
    fit_mixture,
    fit_raters,
    fit_vector_jury,
    headroom,
    planted_judgements,
)
from reward_models.errors import JudgementError
from tests.saved_juries import make_jury
from tests.tiny import tiny_causal_lm, tiny_tokenizer


TOKENIZER = tiny_tokenizer()
TABLE = planted_judgements("rating", num_raters=24, num_items=12).judgements
ONCE = planted_judgements("rating", num_raters=24, num_items=1).judgements
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


@pytest.mark.parametrize("value", [TABLE, FRAME, None])
def test_label_fits_ask_for_encoded_judgements(value):
    for fit in (fit_raters, lambda enc: fit_mixture(enc, 2), lambda enc: fit_joint(enc, np.eye(2))):
        with pytest.raises(JudgementError, match=r"encoded judgements are expected.*Fix: pass judgements.encode\(\)"):
            fit(value)
