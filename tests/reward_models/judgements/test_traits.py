"""Groups of raters by trait: numbers in bins, codes as they are, and unknown values in nobody's group."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from reward_models.errors import JudgementError
from reward_models.judgements.records import Judgements
from reward_models.judgements.traits import trait_groups


def people(**traits):
    n_raters = len(next(iter(traits.values())))
    rows = [(f"r{u}", "p", f"t{i}", (u + i) % 3 + 1) for u in range(n_raters) for i in range(2)]
    frame = pd.DataFrame(rows, columns=["rater_id", "prompt", "response", "rating"])
    for trait, values in traits.items():
        frame[f"rater:{trait}"] = [value for value in values for _ in range(2)]
    return Judgements.from_frame(frame, kind="rating")


@pytest.mark.parametrize("kind", [int, float, str])
def test_ages_in_years_are_six_groups_of_like_size(kind):
    ages = [kind(age) for age in range(18, 93)]
    groups = trait_groups(people(age=ages))["age"]
    sizes = groups.value_counts(sort=False)
    assert len(sizes) == 6
    assert sizes.max() - sizes.min() <= 2
    assert groups.iloc[0] == groups.cat.categories[0] == "18 to 30"
    assert groups.iloc[-1] == groups.cat.categories[-1]
    assert groups.is_monotonic_increasing


def test_codes_and_words_stay_as_they_are():
    groups = trait_groups(people(region=[1, 2, 10, 2, 1], party=["b", "a", "b", "c", "a"]))
    assert list(groups["region"].cat.categories) == ["1", "2", "10"]  # as numbers, not as text
    assert list(groups["party"].cat.categories) == ["a", "b", "c"]
    assert groups["party"].tolist() == ["b", "a", "b", "c", "a"]


@pytest.mark.parametrize("unknown", ["NA", "n/a", "NaN", " ", ".", None, float("nan"), "Missing"])
def test_words_for_unknown_are_no_group(unknown):
    ages = [str(age) for age in range(20, 50)]
    groups = trait_groups(people(age=[unknown, *ages], religion=["none", *["some"] * 30]))
    assert groups["age"].isna().tolist() == [True] + [False] * 30
    assert len(groups["age"].cat.categories) == 6  # one "NA" among numbers does not make words of them
    assert groups["religion"].iloc[0] == "none"  # an answer, not a gap


@pytest.mark.parametrize("code", [99, 99.0, "99", "99.0"])
def test_declared_codes_are_unknown_however_they_are_written(code):
    table = people(age=[*range(20, 50), 99, "99"], children=[99, *[1] * 31])
    groups = trait_groups(table, missing={"age": [code]})
    assert groups["age"].isna().sum() == 2
    assert groups["children"].isna().sum() == 0  # declared for the age only
    assert trait_groups(table, missing=[code])["children"].isna().sum() == 1
    with pytest.raises(JudgementError, match=r"no trait 'aeg'.* Did you mean 'age'"):
        trait_groups(table, missing={"aeg": [99]})


def test_a_few_values_that_repeat_make_fewer_bins():
    values = np.concatenate([np.zeros(80), np.arange(1, 21)])
    groups = trait_groups(people(income=values))["income"]
    assert groups.value_counts().iloc[0] >= 80
    assert 2 <= groups.nunique() <= 6
