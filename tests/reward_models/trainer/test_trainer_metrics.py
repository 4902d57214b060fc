"""What `JuryRewardTrainer` logs does not depend on how judgements are cut into batches or spread over processes."""

from __future__ import annotations

import numpy as np
import pytest

from reward_models.errors import JudgementWarning
from reward_models.judgements.records import Judgements
from tests.jury_training import make_trainer, one_head, planted, votes


pytestmark = pytest.mark.filterwarnings("ignore::reward_models.errors.JudgementWarning")
SIZES = (1, 2, 5, 64)
STILL = {"learning_rate": 0.0, "term_learning_rate": 0.0, "logging_strategy": "epoch", "annealing_share": 0.0}
OF_STEPS = ("loss", "grad_norm", "learning_rate", "epoch", "step", "num_tokens", "train_", "total_flos", "jury/temp")


def ties() -> Judgements:
    """Pairs of which some are judged tied, in items with unequally many judgements."""
    frame = planted(n_raters=9, per_rater=5, n_items=12)[0].frame
    frame.loc[frame.index % 7 == 0, "choice"] = "tie"
    return Judgements.from_frame(frame)


def logged(folder, data, size, **settings) -> tuple[dict[str, float], dict[str, float]]:
    """The last log of a training that changes nothing, and an evaluation, with some batch size."""
    sizes = {"per_device_train_batch_size": size, "per_device_eval_batch_size": size}
    trainer = make_trainer(data, folder, data, num_train_epochs=2, **STILL, **sizes, **settings)
    trainer.memberships.update_prevalence = lambda: None  # it follows step by step, of which a small batch has more
    trainer.train()
    last = [entry for entry in trainer.state.log_history if "accuracy" in entry][-1]
    evaluation = trainer.evaluate()
    chosen = {name: value for name, value in last.items() if not name.startswith(OF_STEPS)}
    speed = ("runtime", "per_second")
    return chosen, {name: value for name, value in evaluation.items() if not name.endswith(speed)}


@pytest.mark.parametrize("table", [ties, votes])
@pytest.mark.parametrize("clusters", [1, 2])
def test_no_metric_depends_on_the_batch_size(tmp_path, table, clusters):
    options = {"model": one_head()} if clusters == 1 else {"deviation_scale": 0.5, "memberships_from": "random"}
    data, first = table(), None
    for size in SIZES:
        found = logged(tmp_path, data, size, num_clusters=clusters, **options)
        first = first or found
        for one, other in zip(first, found, strict=True):
            assert one.keys() == other.keys()
            for name, value in one.items():
                assert other[name] == pytest.approx(value, abs=2e-5), (name, size)
    assert {"accuracy", "mean_reward", "min_reward", "max_reward"} <= first[0].keys()


def test_the_numbers_are_those_of_the_whole_table(tmp_path):
    """Worked out from the rewards of all texts."""
    data = ties()
    trainer = make_trainer(
        data, tmp_path, data, one_head(), num_clusters=1, num_train_epochs=1, per_device_train_batch_size=5, **STILL
    )
    trainer.train()
    last = next(entry for entry in trainer.state.log_history if "accuracy" in entry)
    enc = trainer.train_dataset.enc
    rewards = trainer._score(trainer.get_eval_dataloader(trainer.train_dataset), enc.n_texts)[:, 0]
    a, b = rewards[enc.alternatives].T
    lead = np.where(enc.label == 0, a - b, b - a)[enc.label < 2]
    assert last["margin"] == pytest.approx(lead.mean(), abs=1e-5)
    assert last["mean_reward"] == pytest.approx(rewards[enc.item_alternatives].mean(), abs=1e-5)
    assert last["min_reward"] == pytest.approx(rewards.min(), abs=1e-5)
    assert last["max_reward"] == pytest.approx(rewards.max(), abs=1e-5)


def test_texts_that_are_too_long_to_be_read_have_no_reward(tmp_path):
    frame = planted(n_raters=6, per_rater=4, n_items=8)[0].frame
    long = frame["response_a"].str.endswith(" 3") | frame["response_b"].str.endswith(" 3")
    frame.loc[long, ["response_a", "response_b"]] += " and so on" * 40
    model = one_head()
    model.score.bias.data += 50.0  # far from 0
    with pytest.warns(JudgementWarning, match="are of texts longer than max_length=64 tokens"):
        trainer = make_trainer(
            data := Judgements.from_frame(frame), tmp_path, data, model, num_clusters=1, max_length=64
        )
    assert trainer.evaluate()["eval_min_reward"] > 10
