"""Learning again from completions of earlier visits: what is remembered, what is drawn, and what comes back."""

from __future__ import annotations

from collections import Counter

import pytest
import torch

from plural_rlhf.core.rules import Rule
from plural_rlhf.trainers import PluralGRPOConfig, _trl
from plural_rlhf.trainers.grpo.generation_batch import RewardTable
from plural_rlhf.trainers.grpo.replay import ReplayMemory, replayed_columns, signed_tokens
from plural_rlhf.trainers.grpo.targeting import Targeting
from tests.policies import (
    THREE,
    TOKENIZER,
    distribution,
    js_with_other,
    load,
    pool_target,
    rollouts_of,
    rows,
    sampled_trainer,
    spoken,
    three_answers,
)


def table(prompts: list[str], rules: list[Rule | None] | None = None) -> RewardTable:
    n = len(prompts)
    r = torch.arange(2.0 * n, dtype=torch.float64).view(n, 2)
    w = torch.tensor([[0.7, 0.3]] * n, dtype=torch.float64)
    scores = torch.full((n, 1), torch.nan, dtype=torch.float64)
    return RewardTable(r, w, scores, prompts, prompts, list(range(n)), rules or [None] * n)


def add(memory: ReplayMemory, prompts: str, said: list[list[int]], log_target: list[float] | None = None) -> None:
    numbers = torch.arange(float(len(said)))
    memory.add(table(list(prompts)), said, -numbers, -2 * numbers, torch.tensor(log_target or [0.0] * len(said)))


def drawn(memory: ReplayMemory, group: int) -> list[tuple[int, ...]]:
    return [tuple(c.tokens) for c in memory.draw(group).completions]


def test_a_prompt_met_for_the_first_time_keeps_its_group():
    memory = ReplayMemory(100, 0.5, 0)
    add(memory, "aaabbb", [[1], [2], [1], [3], [4], [5]])
    assert drawn(memory, 3) == [(1,), (2,), (1,), (3,), (4,), (5,)]


def test_the_memory_gives_by_the_target_and_the_batch_gives_the_rest():
    """One of two comes from the memory: as often as the target has it, 4 sigma; the other is of the batch."""
    memory = ReplayMemory(100, 0.5, 0)
    p = torch.tensor([0.6, 0.25, 0.1, 0.05])
    add(memory, "aaaa", [[1], [2], [3], [4]], p.log().tolist())
    add(memory, "aa", [[1], [1]], [float(p[0].log())] * 2)
    n = 4000
    counts: Counter[tuple[int, ...]] = Counter()
    for _ in range(n):
        remembered, fresh = drawn(memory, 2)
        assert fresh == (1,)
        counts[remembered] += 1
    found = torch.tensor([counts[(t,)] for t in (1, 2, 3, 4)]) / n
    assert bool(((found - p).abs() < 4 * (p * (1 - p) / n).sqrt()).all()), found


def test_the_memory_gives_no_completion_twice_and_less_where_it_has_less():
    memory = ReplayMemory(100, 1.0, 0)
    add(memory, "aaaa", [[1], [2], [2], [2]])
    add(memory, "aaaa", [[3], [3], [3], [3]])
    for _ in range(20):
        again = drawn(memory, 4)
        assert sorted(again[:3]) == [(1,), (2,), (3,)]
        assert again[3] == (3,)


def test_what_is_remembered_is_what_was_said_last():
    memory = ReplayMemory(100, 0.5, 0)
    add(memory, "aaa", [[1], [2], [3]])
    add(memory, "aaa", [[4], [5], [1]])
    assert len(memory) == 5
    replayed = memory.draw(3)
    assert replayed.table.r.shape == (3, 2)
    for completion, r, ref in zip(replayed.completions, replayed.table.r, replayed.log_pi_ref, strict=True):
        row = {4: 0, 5: 1, 1: 2, 2: 1, 3: 2}[completion.tokens[0]]
        assert r.tolist() == [2 * row, 2 * row + 1]
        assert float(ref) == -row


def test_prompts_not_seen_for_longest_are_forgotten_first():
    memory = ReplayMemory(4, 0.5, 0)
    add(memory, "aabb", [[1], [2], [3], [4]])
    add(memory, "aa", [[5], [1]])
    assert len(memory) == 4  # of b, the older one went
    add(memory, "cc", [[6], [7]])
    assert len(memory) == 4  # b is gone, and the oldest of a
    add(memory, "aa", [[8], [5]])
    kept = {prompt: [c.tokens for c in said.values()] for prompt, said in memory._kept.items()}
    assert kept == {"c": [[7]], "a": [[1], [8], [5]]}
    add(memory, "dddeee", [[1], [2], [3], [4], [5], [6]])
    assert len(memory) == 6  # the latest batch, though there is room for four
    assert drawn(memory, 3) == [(1,), (2,), (3,), (4,), (5,), (6,)]


def test_tokens_of_a_tool_stay_tokens_of_a_tool():
    given = {
        "completion_ids": torch.tensor([[5, 0, 7, 9], [6, 9, 1, 1]]),
        "completion_mask": torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0]]),
        "tool_mask": torch.tensor([[1, 0, 0, 1], [1, 1, 1, 1]]),
    }
    said = signed_tokens(given)
    assert said == [[5, ~0, ~7, 9], [6, 9]]
    memory = ReplayMemory(100, 0.5, 0)
    add(memory, "aa", said)
    part = {"prompt_ids": torch.zeros(2, 3), "row": torch.tensor([1, 0]), "ref_per_token_logps": torch.zeros(2, 4)}
    columns = replayed_columns(part, memory.draw(2), pad_token_id=1)
    assert set(columns) == {"prompt_ids", "row", "completion_ids", "completion_mask", "tool_mask"}
    for name in ("completion_ids", "completion_mask"):
        assert torch.equal(columns[name], given[name].flip(0))
    own = columns["tool_mask"].bool() | ~columns["completion_mask"].bool()
    assert torch.equal(own, (given["tool_mask"].bool() | ~given["completion_mask"].bool()).flip(0))
    assert replayed_columns({"exact/log_p": 1}, memory.draw(2), 1) == {"exact/log_p": 1}


def test_a_restored_memory_draws_what_the_old_one_would(tmp_path):
    memory = ReplayMemory(100, 0.5, 3)
    rules = [Rule.parse("cvar(share=0.5)"), None]
    memory.add(table(["a", "b"], rules), [[1], [2]], *torch.zeros(3, 2))
    add(memory, "aabb", [[3], [4], [5], [6]])
    memory.add(table(list("aabb"), rules * 2), [[7], [8], [9], [5]], *torch.zeros(3, 4))
    memory.draw(2)
    torch.save(memory.state_dict(), tmp_path / "memory.pt")
    restored = ReplayMemory(100, 0.5, 3)
    restored.load_state_dict(torch.load(tmp_path / "memory.pt", weights_only=True))
    for _ in range(5):
        old, new = memory.draw(2), restored.draw(2)
        assert [c.tokens for c in new.completions] == [c.tokens for c in old.completions]
        torch.testing.assert_close(new.log_pi_ref, old.log_pi_ref)
        assert new.table.rules == rules * 2
        torch.testing.assert_close(new.table.r, old.table.r)


REUSED = {"num_generations": 4, "per_device_train_batch_size": 8, "shuffle_dataset": False}


def says(answers_of_step):
    """Completions by number of the generation batch: a function of how many there were, to four answers a prompt."""
    batches = iter(range(10**6))

    def complete(trainer, prompt_ids):
        answers = answers_of_step(next(batches)) * (len(prompt_ids) // 4)
        ids = spoken(answers)
        return ids, [[float("nan")] * len(row) for row in ids]

    return complete


@pytest.mark.slow
def test_an_answer_that_is_never_drawn_again_keeps_its_place(lopsided, tmp_path, monkeypatch):
    """All three answers are drawn once, then 1 and 2 only; with replay 3 ends where the target has it.

    Odds between the answers are what is read: nothing else that a policy may say was ever drawn here.
    """
    jury = three_answers()
    reference = distribution(load(lopsided), "ab", THREE)
    # The offsets are those of Z known to the last digit: what is tested is the policy, not them.
    target = pool_target(jury, reference.log())
    distance = {}
    for size in (100, 0):
        settings = {**REUSED, "num_iterations": 4, "learning_rate": 2e-3, "replay_size": size}
        data = rows("ab", THREE)
        trainer = sampled_trainer(
            lopsided, jury, tmp_path / str(size), 120, data=data, exact=False, offsets="exact", **settings
        )
        monkeypatch.setattr(_trl, "generate", says(lambda n: ["1", "2", "3", "1"] if n == 0 else ["1", "2", "1", "1"]))
        trainer.train()
        found = distribution(trainer.model, "ab", THREE)
        distance[size] = js_with_other(target, found / found.sum(-1, keepdim=True))
    assert distance[100] < 0.005 < 0.02 < distance[0], distance


def test_a_replayed_group_that_is_spread_over_micro_batches_takes_the_step_of_a_whole_one(
    lopsided, tmp_path, monkeypatch
):
    found = []
    for batch, accumulate in ((8, 1), (4, 2), (2, 4)):
        settings = {**REUSED, "per_device_train_batch_size": batch, "gradient_accumulation_steps": accumulate}
        trainer = sampled_trainer(
            lopsided, three_answers(), tmp_path, 6, num_iterations=3, optim="sgd", learning_rate=0.02, **settings
        )
        monkeypatch.setattr(_trl, "generate", says(lambda n: ["1", "2", "3", "1"] if n == 0 else ["2", "2", "1", "2"]))
        trainer.train()
        assert len(trainer.prompts.replay) == 6
        found.append(torch.cat([p.detach().flatten() for p in trainer.model.parameters()]))
    start = torch.cat([p.detach().flatten() for p in load(lopsided).parameters()])
    assert float((found[0] - start).abs().max()) > 1e-3
    torch.testing.assert_close(found[1], found[0], atol=1e-5, rtol=0)
    torch.testing.assert_close(found[2], found[0], atol=1e-5, rtol=0)


@pytest.mark.parametrize("batch", [4, 2])
def test_the_residuals_of_a_replayed_batch_are_those_of_today(lopsided, tmp_path, monkeypatch, batch):
    """Row by row: the reward of its completion, its reference, and the policy as it is now.

    A micro-batch of two holds half of the group; the other half has its residuals before it is seen.
    """
    parts = 4 // batch
    settings = {**REUSED, "per_device_train_batch_size": batch, "gradient_accumulation_steps": parts}
    trainer = sampled_trainer(
        lopsided, three_answers(), tmp_path, 4, data=rows("a", None), learning_rate=0.05, num_iterations=2, **settings
    )
    monkeypatch.setattr(_trl, "generate", says(lambda n: ["3", "3", "1", "2"] if n == 0 else ["2", "2", "2", "2"]))
    seen = []

    def watched(model, inputs, *args, **kwargs):
        model_now = distribution(trainer.model, "a", THREE)[0].log()
        loss = type(trainer).compute_loss(trainer, model, inputs, *args, **kwargs)
        said = [TOKENIZER.decode(row, skip_special_tokens=True) for row in inputs["completion_ids"]]
        answers = dict(zip(inputs["row"].tolist(), said, strict=True))
        seen.append((answers, model_now, rollouts_of(trainer).residual.clone(), rollouts_of(trainer)))
        return loss

    monkeypatch.setattr(trainer, "compute_loss", watched)
    trainer.train()
    again = seen[3 * parts : 4 * parts]  # the second batch, used again
    answers = {row: answer for of_part, *_ in again for row, answer in of_part.items()}
    said = [answers[row] for row in range(4)]
    _, log_pi, residual, rollouts = again[0]
    assert said.count("2") < 4
    assert set(said) <= {"1", "2", "3"}
    log_ref = distribution(load(lopsided), "a", THREE)[0].log()
    place = [THREE.index(answer) for answer in said]
    torch.testing.assert_close(residual.double(), rollouts.reward + (log_ref - log_pi)[place], atol=1e-3, rtol=0)
    for i in range(4):
        for j in range(4):
            if said[i] == said[j]:
                assert float(rollouts.reward[i]) == float(rollouts.reward[j])


def test_a_batch_tells_of_the_offsets_once_however_often_it_is_used(lopsided, tmp_path, monkeypatch):
    """Completions from the memory were drawn by other policies: they move no offset, and neither does a second use."""
    trainer = sampled_trainer(
        lopsided, three_answers(), tmp_path, 6, data=rows("ab", None), num_iterations=3, **REUSED
    )
    call, moves = Targeting.__call__, []

    def watched(self, table, log_pi_ref, log_pi, group, training, *args, **more):
        moves.append(training)
        return call(self, table, log_pi_ref, log_pi, group, training, *args, **more)

    monkeypatch.setattr(Targeting, "__call__", watched)
    trainer.train()
    assert moves == [True, False, False, True, False, False]


@pytest.mark.parametrize(
    ("settings", "columns"),
    [
        ({"gradient_checkpointing": True}, {}),
        ({"shared_prefix": False}, {}),
        ({"steps_per_generation": 2, "per_device_train_batch_size": 4}, {}),
        ({"rho": 0.0, "max_min": True}, {}),
        ({"kl_budget": 0.5}, {}),
        ({}, {"rule": ["borda", "copeland"]}),
        ({}, {"weights": [[0.5, 0.5], [1.0, 0.0]]}),
        ({"uniform_floor": 0.5, "tie_margin": 0.5}, {}),
        ({}, {"support": [THREE, None]}),
    ],
    ids=lambda x: "-".join(x) if x else "plain",
)
def test_replay_goes_with_the_rest(lopsided, tmp_path, settings, columns):
    """Every other option and column, over two batches that are used three times each."""
    data = rows("ab", None)
    for name, values in columns.items():
        data = data.add_column(name, values)
    before = load(lopsided).state_dict()
    settings = {**REUSED, "num_iterations": 3, "logging_steps": 1, **settings}
    trainer = sampled_trainer(lopsided, three_answers(calibrated=True), tmp_path, 12, data=data, **settings)
    trainer.train()
    kinds = 1 if columns.get("support") else 2
    assert len(trainer.prompts.replay.state_dict()["kept"]) == kinds
    assert len(trainer.prompts.replay) > 2 * kinds
    assert all(torch.isfinite(value).all() for value in trainer.model.state_dict().values())
    assert any(not torch.equal(value, before[name]) for name, value in trainer.model.state_dict().items())


@pytest.mark.parametrize(
    ("settings", "replays"),
    [
        ({}, False),
        ({"num_iterations": 2}, True),
        ({"num_iterations": 2, "estimator": "tb"}, True),
        ({"num_iterations": 2, "estimator": "js"}, False),
        ({"num_iterations": 2, "replay_size": 0}, False),
        ({"num_iterations": 2, "exact": True}, False),
    ],
)
def test_when_completions_are_remembered(tmp_path, settings, replays):
    assert PluralGRPOConfig(str(tmp_path), use_cpu=True, bf16=False, **settings).replays is replays


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"replay_size": -1}, r"replay_size is -1.*0 for none"),
        ({"replay_share": 0.0}, r"replay_share is 0.0.*above 0"),
        ({"replay_share": 1.5}, r"replay_share is 1.5"),
    ],
)
def test_settings_that_cannot_be_are_refused(tmp_path, settings, message):
    with pytest.raises(ValueError, match=message):
        PluralGRPOConfig(str(tmp_path), use_cpu=True, bf16=False, num_iterations=2, **settings)
