"""The format of a file does not matter: the same table, its rows and columns in any order, gives the same jury."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch

from reward_models import fit_jury, fit_mixture, planted_judgements
from reward_models.fitting.em import FitConfig
from reward_models.jury.tiny import tiny_causal_lm, tiny_tokenizer
from reward_models.sources import load_table
from tests.reward_models.sources.test_table_types import FORMATS, write


FITS = {
    "choice": {"options": ["answer A", "answer B", "answer C"]},
    "rating": {"levels": [-1, 0, 1]},
    "preference": {},
}


def table(kind: str) -> pd.DataFrame:
    """Thirty people with ids such as 007, some of whom say nothing; weights with decimals, an age with gaps."""
    frame = planted_judgements(kind, num_raters=30, num_items=8, seed=4).judgements.frame.drop(columns="item_id")
    number = frame["rater_id"].str[1:].astype(int)
    frame["rater_id"] = number.map("{:03d}".format)
    frame["rater_weight"] = 0.5 + (number % 4) * 1.25
    frame["rater:age"] = (20 + number).astype(float).where(number % 7 > 0)
    if kind == "choice":
        frame["choice"] = [options[choice] for options, choice in zip(frame["options"], frame["choice"], strict=True)]
        frame = frame.drop(columns="options")
    return frame[(number + np.arange(len(frame))) % 9 > 0]


def read(kind: str, folder, suffix: str):
    seed = FORMATS.index(suffix)
    frame = table(kind).sample(frac=1, random_state=seed, ignore_index=True)
    named = {column: column.replace(":", "_") for column in frame}  # SPSS and Stata allow no colon
    frame = frame.rename(columns=named)[list(np.random.default_rng(seed).permutation(list(named.values())))]
    traits = {"traits": {"age": "rater_age"}}
    return load_table(write(frame, folder / f"table{suffix}"), {"kind": kind, **traits, **FITS[kind]})


@pytest.mark.slow
@pytest.mark.parametrize("kind", FITS)
def test_every_format_gives_the_same_clusters(tmp_path, kind):
    expected = None
    for suffix in FORMATS:
        judgements = read(kind, tmp_path, suffix)
        fit = fit_mixture(judgements.encode(), 2, FitConfig(restarts=1))
        found = (fit.rater_ids, judgements.encode().texts, *map(np.ndarray.tolist, (fit.prevalence, fit.rewards)))
        found += (fit.responsibilities.tolist(), judgements.in_order().frame["rater:age"].tolist())
        expected = expected or found
        assert repr(found) == repr(expected), suffix
    assert expected[0][:2] == ["000", "001"]


def test_a_jury_from_spss_is_the_jury_from_csv(tmp_path):
    tokenizer = tiny_tokenizer()
    backbone = tiny_causal_lm(tokenizer)
    one, other = (
        fit_jury(read("choice", tmp_path, suffix), backbone, tokenizer, clusters=2, progress=False)
        for suffix in (".csv", ".sav")
    )
    assert one.cluster_names == other.cluster_names
    assert one.prevalence.tolist() == other.prevalence.tolist()
    for name, value in one.model.state_dict().items():
        assert torch.equal(value, other.model.state_dict()[name]), name
