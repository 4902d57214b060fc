"""Saved juries under faults: damaged folders, killed savers, two savers and a reader, odd values of `jury.json`.

Each function is a part of one of the kinds. A jury that is loaded has to score and know what one of the saved juries
did; a mixture of two is `silent`.
"""

from __future__ import annotations

import json
import random
import shutil
import time
import warnings
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from _faults.injection import at_operation, count_operations, die, in_child, start_child, wait_for
from _faults.outcomes import Effort, Outcome, attempt

from reward_models.errors import JuryError
from reward_models.jury.calibration import Calibration
from reward_models.jury.modeling_jury import JuryRewardModel
from reward_models.jury.scorer import JuryScorer
from reward_models.jury.state import JuryState
from reward_models.jury.tiny import tiny_causal_lm, tiny_tokenizer
from reward_models.raters.rater_model import KindTerms, RaterModel


__all__ = ["damaged_juries", "killed_savers", "odd_values", "two_savers"]


@cache
def jury_of(seed: int) -> JuryScorer:
    """A jury of two clusters with every part of a state but raters."""
    draw = np.random.default_rng(seed)
    model = JuryRewardModel.from_fit(tiny_causal_lm(), draw.normal(size=(2, 32)), np.zeros(2), [0.7, 0.3])
    terms = {"rating": KindTerms({"thresholds": np.array([-1.0, 0.5])}, {"intercept": 1.3})}
    state = JuryState(
        rater_model=RaterModel("mixture", np.eye(2), np.log([0.7, 0.3]), terms, {"intercept": 5}),
        calibration=Calibration(np.array([0.4, 2.5]), np.array([1.0, -1.0]), "spread", 30, 240),
        temperature=np.array([1.2, 0.9 + seed]),
        descriptions={"cluster 1": "likes trams"},
        fitted_on={"judgements": 12, "raters": 3},
    )
    return JuryScorer(model, tiny_tokenizer(), state=state)


def known_of(scorer: JuryScorer) -> tuple[object, ...]:
    """What a jury says and knows, to be compared."""
    state = scorer.state
    rewards = scorer.cluster_rewards(["Which is best?", "Say."], [" the city", " the country"])
    return (
        rewards.tolist(),
        None if state.rater_model is None else state.rater_model.to_dict(),
        None if state.calibration is None else state.calibration.to_dict(),
        None if state.temperature is None else state.temperature.tolist(),
        state.descriptions,
        state.fitted_on,
        scorer.reading,
    )


def loaded(folder: Path) -> tuple[object, ...]:
    """Load a jury and return what it says and knows; a warning that its state is gone counts as a refusal."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        known = known_of(JuryScorer.from_pretrained(folder, device="cpu"))
    for warning in caught:
        if "jury.json" in str(warning.message):
            raise JuryError(str(warning.message))
    return known


def damaged_juries(work: Path, effort: Effort) -> Iterator[Outcome]:
    """A file of a saved jury is changed, cut, emptied, removed or added, or is that of another jury."""
    from _faults.corruption import damage

    draw = random.Random(effort.seed)
    for seed in (0, 1):
        jury_of(seed).save_pretrained(work / str(seed))
    expected = loaded(work / "0")
    for number in range(effort.injections):
        folder = work / f"damaged-{number}"
        shutil.copytree(work / "0", folder)
        path = draw.choice(sorted(folder.iterdir()))
        kind = draw.randrange(4)
        if kind == 0:
            shutil.copyfile(work / "1" / path.name, path)
            fault = f"{path.name} of another jury"
        elif kind == 1:
            path = folder / draw.choice(("adapter_config.json", "special_tokens_map.json", "vocab.json"))
            path.write_text("{}", encoding="utf-8")
            fault = f"{path.name} added"
        else:
            fault = damage(path, draw)
        yield attempt("saved juries", fault, lambda folder=folder: loaded(folder), lambda known: known == expected)
        shutil.rmtree(folder)


def killed_savers(work: Path, effort: Effort) -> Iterator[Outcome]:
    """A save over a saved jury dies at a file operation: the old jury or the new one is loaded, and saved over."""
    from _faults.kills import spread

    old, new = jury_of(0), jury_of(1)
    old.save_pretrained(work / "old")
    new.save_pretrained(work / "new")
    either = [loaded(work / "old"), loaded(work / "new")]
    shutil.copytree(work / "old", work / "counted")
    counted = count_operations(work / "counted", lambda: new.save_pretrained(work / "counted"))
    for number in spread(counted, effort):
        folder = work / f"killed-{number}"
        shutil.copytree(work / "old", folder)

        def killed(number: int = number, folder: Path = folder) -> None:
            at_operation(folder, number, die)
            new.save_pretrained(folder)

        def found(folder: Path = folder) -> list[object]:
            first = loaded(folder)
            new.save_pretrained(folder)
            return [first, loaded(folder), [path for path in folder.iterdir() if path.name.startswith(".")]]

        in_child(killed)
        fault = f"killed at file operation {number} of {counted}"
        yield attempt("saved juries", fault, found, lambda known: known[0] in either and known[1:] == [either[1], []])
        shutil.rmtree(folder)


def two_savers(work: Path, effort: Effort) -> Iterator[Outcome]:
    """Two processes save a jury each into one folder, while a third reads it."""
    scorers = [jury_of(seed) for seed in (0, 1)]
    for seed, scorer in enumerate(scorers):
        scorer.save_pretrained(work / str(seed))
    either, draw = [loaded(work / str(seed)) for seed in (0, 1)], random.Random(effort.seed)
    for number in range(effort.injections):
        folder, delay = work / f"both-{number}", draw.uniform(0, 0.05)
        scorers[0].save_pretrained(folder)
        children = []
        for scorer in scorers:
            children.append(start_child(lambda scorer=scorer, folder=folder: scorer.save_pretrained(folder)))
            time.sleep(delay)

        def found(folder: Path = folder, children: list[tuple[int, int]] = children) -> list[object]:
            during = loaded(folder)
            for ended in [wait_for(child) for child in children]:
                if ended.error is not None:
                    raise ended.error
            return [during, loaded(folder)]

        yield attempt(
            "two savers of a jury", f"{delay:.3f} s apart", found, lambda known: all(one in either for one in known)
        )
        shutil.rmtree(folder)


def odd_values(work: Path, effort: Effort) -> Iterator[Outcome]:
    """Values of `jury.json` that no fit has, as a file without a hash of itself may hold them."""
    from _faults.fuzz import LIMIT, mutated_value

    draw, folder = random.Random(effort.seed), work / "jury"
    jury_of(0).save_pretrained(folder)
    values = json.loads((folder / "jury.json").read_text(encoding="utf-8"))
    del values["sha256"]

    def read(given: Any) -> None:
        from reward_models.jury.folder import load_config, load_state

        (folder / "jury.json").write_text(json.dumps(given), encoding="utf-8")
        load_state(folder, load_config(folder), verify=False)

    for _ in range(min(effort.inputs, 2000)):
        given = mutated_value(values, draw)
        yield attempt("values of jury.json", repr(given)[:300], lambda given=given: read(given), lambda _: True, LIMIT)
