"""Random streams: ours are not the user's, no two purposes share one, and no generator takes a bare seed."""

from __future__ import annotations

import ast
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

import plural_rlhf
import reward_models
from reward_models import Judgements, headroom
from reward_models.judgements.splits import split_items, split_raters
from reward_models.seeds import derived_seed, seeded_rng


PACKAGES = (Path(reward_models.__file__).parent, Path(plural_rlhf.__file__).parent)

# Generators that may take a seed as it is, with the reason. Everything else asks `reward_models.seeds`.
BARE = {
    "reward_models/seeds.py": "derives the streams",
    "reward_models/sources/planted.py": "its own salt; published tables must stay the same",
    "reward_models/trainer/rows.py": "the order of rows of a training that is resumed from an older checkpoint",
    "reward_models/jury/tiny.py": "weights of the toy model of examples",
    "plural_rlhf/trainers/_trl.py": "TRL's own order of prompts, which a resumed training repeats",
    "plural_rlhf/trainers/grpo/replay.py": "draws of a training that is resumed from an older checkpoint",
    "plural_rlhf/weights/sampler.py": "weights of a training that is resumed from an older checkpoint",
    "plural_rlhf/recipe/multiple_choice/policies.py": "rows of a run that an earlier version began",
    "plural_rlhf/evaluation/tables/generated.py": "the published urns, which were drawn so",
    "plural_rlhf/recipe/data.py": "the split of a run that an earlier version began",
}
MAKERS = {"default_rng", "RandomState", "SeedSequence", "manual_seed", "Random", "PCG64", "Philox", "MT19937", "seed"}
DERIVED = {"seeded_rng", "derived_seed"}


def calls(path: Path) -> list[ast.Call]:
    return [node for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, ast.Call)]


def called(call: ast.Call) -> str:
    return getattr(call.func, "attr", getattr(call.func, "id", ""))


def modules() -> dict[str, Path]:
    return {str(path.relative_to(room.parent)): path for room in PACKAGES for path in sorted(room.rglob("*.py"))}


def bare_generators(path: Path) -> list[int]:
    """Lines that make or seed a generator with anything but a derived seed."""
    return [
        call.lineno
        for call in calls(path)
        if called(call) in MAKERS
        and not any(isinstance(arg, ast.Call) and called(arg) in DERIVED for arg in [*call.args])
    ]


@pytest.mark.slow
def test_no_generator_takes_a_bare_seed():
    found = {name: lines for name, path in modules().items() if (lines := bare_generators(path))}
    assert set(found) == set(BARE), found


def test_the_guard_sees_a_bare_seed(tmp_path):
    path = tmp_path / "module.py"
    path.write_text(
        "rng = np.random.default_rng(seed)\ntorch.manual_seed(config.seed)\n"
        "torch.manual_seed(derived_seed(seed, 'x'))\nrng = seeded_rng(seed, 'x')\n"
    )
    assert bare_generators(path) == [1, 2]


@pytest.mark.slow
def test_every_place_that_draws_has_its_own_purpose():
    purposes = [
        (ast.unparse(call.args[1]), name)
        for name, path in modules().items()
        for call in calls(path)
        if called(call) in DERIVED and name != "reward_models/seeds.py"
    ]
    assert len(purposes) > 30
    names = [purpose for purpose, _ in purposes]
    assert len(set(names)) == len(names), sorted(names)
    assert all(purpose.startswith(("'", "f'", '"')) for purpose in names)


@pytest.mark.parametrize("seed", [0, 1, 7, 2**32, 2**64 + 3, np.int64(5)])
def test_streams_differ_from_the_users_and_from_each_other(seed):
    def first(rng: np.random.Generator) -> float:
        return float(rng.random())

    draws = [first(seeded_rng(seed, purpose, *keys)) for purpose in "ab" for keys in ((), (0,), (1,), (0, 0))]
    draws += [first(seeded_rng(int(seed) + 1, "a")), first(np.random.default_rng(seed))]
    assert len(set(draws)) == len(draws)
    assert first(seeded_rng(seed, "a")) == draws[0]
    torch.Generator().manual_seed(derived_seed(seed, "a"))


@pytest.mark.parametrize("seed", [-1, True, np.True_, 0.0, 1.5, None, "3"])
def test_what_is_no_seed_is_refused(seed):
    for derive in (seeded_rng, derived_seed):
        with pytest.raises((TypeError, ValueError), match=r"seed=.*Fix: pass an integer of at least 0"):
            derive(seed, "a")


def opposed_answers(seed: int) -> Judgements:
    """Two halves of 60 raters want the opposite on 12 questions; answers by a user's own generator."""
    rng = np.random.default_rng(seed)
    draw = rng.random((60, 12))
    yes = np.where(np.arange(60)[:, None] % 2 == 0, 0.9, 0.1)
    rater, item = np.divmod(np.arange(60 * 12), 12)
    columns = {"rater_id": rater.astype(str), "prompt": item.astype(str), "response_a": "yes", "response_b": "no"}
    return Judgements.from_frame(pd.DataFrame({**columns, "choice": np.where(draw < yes, "a", "b").ravel()}))


@pytest.mark.parametrize("seed", range(4))
def test_headroom_finds_strong_taste_in_data_simulated_with_its_own_seed(seed):
    """Before, the labels held out were those with the smallest draws, hence nearly all of them "yes"."""
    assert headroom(opposed_answers(seed), max_clusters=2, seed=seed).verdict.startswith("taste signal")


@pytest.mark.parametrize("seed", range(3))
def test_raters_shuffled_by_a_user_are_not_held_out_in_that_order(seed):
    """Before, a cluster dealt by `default_rng(seed).permutation` was held out whole by `split_raters(seed=seed)`."""
    dealt = np.random.default_rng(seed).permutation(40) < 20  # cluster of rater u
    order = np.random.default_rng(seed).permutation(40)[:20]  # and a half of raters chosen by the user
    frame = pd.DataFrame({"rater_id": np.repeat(np.arange(40).astype(str), 2), "prompt": ["p", "q"] * 40})
    frame = frame.assign(response_a="yes", response_b="no", choice="a")
    table = Judgements.from_frame(frame)
    _, heldout = split_raters(table, 0.5, seed)
    members = np.array([int(rater) for rater in heldout.raters])
    assert 3 <= dealt[members].sum() <= 17
    assert len(set(members) & set(order.tolist())) < 20


def test_a_generator_is_used_as_it_is():
    table = opposed_answers(0)
    same = [split_items(table, 3, np.random.default_rng(5))[1].items for _ in range(2)]
    assert same[0] == same[1]
    assert len(same[0]) == 3
