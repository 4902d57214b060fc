"""From data sets to rows and batches: `reward_models.trainer.data` and `reward_models.trainer.rows`."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from datasets import Dataset

from reward_models.errors import JudgementError, JudgementWarning
from reward_models.stats.answers import adjusted_rand_index
from reward_models.trainer.data import read_data
from reward_models.trainer.rows import COLUMNS, JudgementCollator, PromptSampler
from tests.jury_training import make_trainer, pairs, planted


pytestmark = pytest.mark.filterwarnings(
    "ignore:.*have one judgement:reward_models.errors.JudgementWarning",
    "ignore:.*is empty.*:reward_models.errors.JudgementWarning",
)


def test_trl_data_with_raters_trains_clusters_and_keeps_its_columns(tmp_path):
    table, says_no = planted()
    rows = [
        {"prompt": r.prompt, "chosen": r.response_a, "rejected": r.response_b, "rater_id": r.rater_id}
        if r.choice == "a"
        else {"prompt": r.prompt, "chosen": r.response_b, "rejected": r.response_a, "rater_id": r.rater_id}
        for r in table.frame.itertuples()
    ]
    trainer = make_trainer(Dataset.from_list(rows), tmp_path, memberships_from="random")
    assert trainer.args.remove_unused_columns
    batch = next(iter(trainer.get_train_dataloader()))
    assert set(COLUMNS) - set(batch) == set()
    assert trainer.train_dataset.enc.n_raters == 30
    assert len(trainer.train_dataset) == len({row["prompt"] for row in rows})
    trainer.train()
    assert adjusted_rand_index(trainer.memberships.posterior().argmax(1), says_no.astype(int)) >= 0.9


def test_contradicting_oneself_is_counted_and_kept(tmp_path):
    rows = [{"prompt": "P ", "chosen": "x", "rejected": "y", "rater_id": r} for r in "aab"]
    rows += [{"prompt": "P ", "chosen": "y", "rejected": "x", "rater_id": "a"}]
    with pytest.warns(
        JudgementWarning, match=r"1 questions were answered .* by the same rater \(1 raters, e.g. 'a'\)"
    ):
        data = read_data(Dataset.from_list(rows))
    assert len(data.judgements) == 4


def test_items_of_a_prompt_stay_together_in_an_order_of_the_epoch():
    prompt = np.repeat(np.arange(5), 4)
    sampler = PromptSampler(prompt, seed=3)
    first = list(sampler)
    assert sorted(first) == list(range(20))
    assert (np.diff(prompt[first]) != 0).sum() == 4
    sampler.set_epoch(1)
    assert list(sampler) != first
    sampler.set_epoch(0)
    assert list(sampler) == first


def test_long_texts_are_left_out_as_in_trl(tmp_path):
    data = pairs(6).map(lambda row, i: {"chosen": row["chosen"] + " very" * (60 * (i == 2))}, with_indices=True)
    with pytest.warns(JudgementWarning, match="1 of 6 judgements of the training data are of texts longer"):
        trainer = make_trainer(data, tmp_path, max_length=64)
    assert len(trainer.train_dataset) == 5
    with pytest.raises(JudgementError, match=r"none is left\. Fix: raise max_length"):
        make_trainer(data, tmp_path, max_length=2)


def test_padding_to_a_multiple_changes_no_reward(tmp_path):
    trainer = make_trainer(pairs(), tmp_path)
    rows = [trainer.train_dataset[i] for i in range(6)]
    plain, padded = JudgementCollator()(rows), JudgementCollator(pad_to_multiple_of=16)(rows)
    assert padded["input_ids"].shape[1] % 16 == 0
    trainer.model.eval()
    a, b = (trainer.compute_loss(trainer.model, batch).item() for batch in (plain, padded))
    assert a == pytest.approx(b, abs=1e-6)


def test_repeated_pairs_are_named_alike_in_any_order_of_rows():
    """One rater says the same twice and then the contrary; which row comes first does not matter."""
    rows = [("ann", "yes", "no")] * 2 + [("ann", "no", "yes"), ("bob", "yes", "no"), ("bob", "no", "yes")]
    rows += [(rater, "tea", "milk") for rater in ("ann", "bob", "cyn")]
    columns = ("rater_id", "chosen", "rejected")
    margin = {row: n for n, row in enumerate(dict.fromkeys(rows))}
    encoded = []
    for order in (range(8), [7, 2, 5, 0, 4, 1, 6, 3]):
        table = {name: [rows[n][place] for n in order] for place, name in enumerate(columns)}
        with warnings.catch_warnings(action="ignore"):
            data = read_data(Dataset.from_dict(table | {"margin": [float(margin[rows[n]]) for n in order]}))
        encoded.append((data.enc.item_ids, data.enc.texts, data.enc.label.tolist(), data.margin.tolist()))
    assert encoded[0] == encoded[1]
    assert len(encoded[0][0]) == 4  # ann's third judgement of the pair is an item of its own
