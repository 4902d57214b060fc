"""`CollapseMonitor` on made-up logs: every cause is told from a healthy run."""

from __future__ import annotations

import logging
import math
import re
from types import SimpleNamespace

import pytest
from transformers import TrainerControl, TrainerState

from plural_rlhf.trainers.monitor.callback import CollapseMonitor
from plural_rlhf.trainers.monitor.curves import Curves, Limits
from plural_rlhf.trainers.monitor.findings import CHECKS


STEPS = 12

HEALTHY = {
    "plural/effective_answers": 6.0,
    "plural/entropy": 2.0,
    "plural/residual_std": [4.0, 3.0, 2.0, 1.5, 1.2, 1.0, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3],
    "plural/kl": 1.0,
    "plural/coverage": 0.95,
    "plural/truncated": 0.0,
    "plural/share/most": 0.9,
    "plural/share/few": 0.1,
    "plural/weight/most": 0.9,
    "plural/weight/few": 0.1,
    "plural/beta": 1.0,
    "plural/reward_range": 8.0,
    "frac_reward_zero_std": 0.2,
    "reward": None,  # what TRL logs where it has no value
}
OURS = {
    "beta": 1.0,
    "rho": 1.0,
    "num_generations": 16,
    "scale_rewards": "none",
    "estimator": "vargrad",
    "exact": None,
    "offsets": "responsibility",
    "offset_learning_rate": 0.1,
    "n_ref": 0,
    "kl_budget": None,
    "other_mass": 0.0,
    "max_completion_length": 8,
}
STOCK = {
    "beta": 0.0,
    "num_generations": 16,
    "scale_rewards": "none",
    "max_completion_length": 8,
}


def follow(
    curves: dict,
    settings: dict,
    *,
    epochs: int = 4,
    limits: Limits | None = None,
    steps: int = STEPS,
    max_steps: int = STEPS,
):
    """A monitor after `steps` logs of `max_steps`, a step each; a number is a flat curve, None leaves a curve out."""
    monitor, state = CollapseMonitor(limits), TrainerState(max_steps=max_steps, num_train_epochs=epochs)
    args, control = SimpleNamespace(**settings), TrainerControl()
    monitor.on_train_begin(args, state, control)
    for n in range(steps):
        state.global_step = n + 1
        row = {
            name: c[min(n, len(c) - 1)] if isinstance(c, list) else c for name, c in curves.items() if c is not None
        }
        state.log_history.append({**row, "step": n + 1})
        monitor.on_log(args, state, control, logs=row)
    return monitor


def causes(monitor: CollapseMonitor) -> list[str]:
    return [finding.cause for finding in monitor.findings]


def falling(start: float, end: float) -> list[float]:
    return [start + (end - start) * n / (STEPS - 1) for n in range(STEPS)]


def test_a_healthy_run_is_left_alone():
    assert causes(follow(HEALTHY, OURS)) == []


STALLED = {"plural/residual_std": 3.0}
CASES = {
    "scaled_rewards": ({}, {"scale_rewards": "group"}, "scale_rewards", r"'group'.*Set scale_rewards='none'.*beta"),
    "normalised advantages": (
        {},
        {"normalize_advantages": True},
        "normalize_advantages",
        r"True.*Set normalize_advantages=False",
    ),
    "sharp_target": (
        {"plural/reward_range": 8.0, "plural/beta": 0.3},
        {},
        "beta",
        r"lie 8 apart and beta is 0\.3, which makes odds of e\^27 \(limit e\^20\).*beta=1\.0.*tie_margin",
    ),
    "sharp from the first residual": (
        {"plural/reward_range": None, "plural/residual_std": [x * 2 for x in HEALTHY["plural/residual_std"]]},
        {},
        "beta",
        r"lie 24 apart and beta is 1, which makes odds of e\^24",  # 4 times the mean of 8, 6 and 4
    ),
    "flat_rewards": (
        {"plural/reward_range": 0.1},
        {},
        "plural/reward_range",
        r"lie 0\.1 apart and beta is 1 \(limit 0\.2 beta\).*nothing to learn.*log_completions=True.*lower beta",
    ),
    "group_estimate": (
        {},
        {"num_generations": 8, "offsets": "reference"},
        "plural/weight/few",
        r"'few' has weight 0\.1, which is 0\.8 of the 8 completions.*n_ref=16.*num_generations",
    ),
    "lost_minority": (
        {"plural/share/few": falling(0.1, 0.01), "plural/share/most": falling(0.9, 0.99)},
        {},
        "plural/share/few",
        r"'few' has a share of 0\.0\d+ and a weight of 0\.1.*offset_learning_rate.*n_ref.*learning_rate.*='js'",
    ),
    "noise hides no minority's loss": (
        {"plural/share/few": [0.1] * 4 + [0.02, 0.0, 0.04, 0.0, 0.02, 0.0, 0.02, 0.0]},
        {},
        "plural/share/few",
        r"'few' has a share of 0\.0",
    ),
    "no_progress": (STALLED, {}, "plural/residual_std", r"does not fall \(3 nats, now 3\).*learning_rate"),
    "far_from_reference": (
        {"plural/kl": falling(0.0, 60.0)},
        {},
        "plural/kl",
        r"nats from the reference \(limit 20\).*kl_budget.*beta",
    ),
    "lost_mass": (
        {"plural/coverage": falling(0.95, 0.4)},
        {},
        "plural/coverage",
        r"mass on the allowed answers fell from 0\.\d+ to.*learning_rate.*estimator='js'",
    ),
    "truncation": (
        {"plural/truncated": 0.6},
        {},
        "plural/truncated",
        r"60% of the completions.*max_completion_length=8 is too short",
    ),
}
CAUSE = {
    "normalised advantages": "scaled_rewards",
    "sharp from the first residual": "sharp_target",
    "noise hides no minority's loss": "lost_minority",
}


@pytest.mark.parametrize("case", CASES)
def test_each_cause_is_named_with_its_cure(case, caplog):
    curves, settings, metric, message = CASES[case]
    with caplog.at_level(logging.WARNING, logger="plural_rlhf"):
        monitor = follow({**HEALTHY, **curves}, {**OURS, **settings})
    (finding,) = monitor.findings
    assert (finding.cause, finding.metric) == (CAUSE.get(case, case), metric)
    assert caplog.text.count(finding.message) == 1  # once, however long it lasts
    assert [bool(row["finding"]) for row in monitor.summary() if row["metric"] == metric] == [True]
    assert all(not row["finding"] for row in monitor.summary() if row["metric"] != metric)
    assert re.search(message, finding.message), finding.message


def test_all_causes_are_tested():
    assert {CAUSE.get(case, case) for case in CASES} | {"collapse", "drift", "diverges"} == set(CHECKS)


@pytest.mark.parametrize(
    ("curves", "settings", "epochs"),
    [
        ({"plural/reward_range": 19.0}, {}, 4),
        ({}, {"num_generations": 8}, 4),  # offsets are kept over the visits
        ({}, {"num_generations": 8, "n_ref": 16}, 1),
        ({}, {"num_generations": 8, "offsets": "global"}, 1),
        ({"plural/share/few": 0.06, "plural/share/most": 0.94}, {}, 4),
        ({"plural/share/few": falling(0.001, 0.04), "plural/share/most": falling(0.999, 0.96)}, {}, 4),  # grows
        ({"plural/share/few": [0.12, 0.0, 0.01, 0.12, 0.0, 0.0] * 2}, {}, 4),  # mean .042, but what a noise
        ({"plural/residual_std": [3.2, 2.6] * 6}, {}, 4),
        (
            {"plural/residual_std": [1.0, 1.2, 1.1, 2.6, 0.9, 0.4, 0.5, 1.4, 0.6, 0.4, 0.5, 0.4]},
            {},
            4,
        ),  # prompts differ
        ({"plural/share/few": falling(0.1, 0.01)}, {"rho": 0.0}, 4),  # a log pool promises no shares
        ({"plural/share/few": 0.01, "plural/share/most": 0.09, "plural/coverage": 0.1}, {"exact": True}, 4),
        ({"plural/residual_std": 0.02}, {}, 4),  # near-ties: at the target from the start
        ({"plural/coverage": falling(0.95, 0.7)}, {"other_mass": 0.3}, 4),
        ({"plural/truncated": [0.6] + [0.0] * 11}, {}, 4),
        ({"plural/kl": 40.0}, {"kl_budget": 30.0}, 4),
    ],
)
def test_what_only_looks_like_it_is_left_alone(curves, settings, epochs):
    assert causes(follow({**HEALTHY, **curves}, {**OURS, **settings}, epochs=epochs)) == []


def test_of_free_text_a_cluster_is_lost_only_if_its_share_falls():
    """Near the reference mean responsibilities say how selective a cluster is: .03 of .1 may be where it starts."""
    free = {"plural/effective_answers": 15.9, "plural/effective_texts": 9.0}
    low = {"plural/share/few": 0.03, "plural/share/most": 0.97}
    assert causes(follow({**HEALTHY, **low}, OURS)) == ["lost_minority"]  # listed answers: nobody gives those of few
    assert causes(follow({**HEALTHY, **free, **low}, OURS)) == []
    fallen = {"plural/share/few": falling(0.1, 0.01), "plural/share/most": falling(0.9, 0.99)}
    assert causes(follow({**HEALTHY, **free, **fallen}, OURS)) == ["lost_minority"]


def test_a_residual_that_grows_is_a_policy_that_runs_away():
    logged = {  # by SmolLM2-135M on campus-protests, LoRA of rank 16, 60 steps, of which these are the first
        "plural/residual_std": [
            1.06,
            2.44,
            1.35,
            1.13,
            2.2,
            1.77,
            2.61,
            3.45,
            2.76,
            1.52,
            2.59,
            2.75,
            3.26,
            3.8,
            3.36,
        ],
        "plural/kl": [0.0, 0.0, 0.0, 0.45, 0.86, 1.12, 2.86, 4.73, 1.42, 3.39, 3.23, 3.66, 4.17, 5.83, 6.78],
    }
    monitor = follow({**HEALTHY, **logged}, {**OURS, "learning_rate": 5e-4}, steps=15, max_steps=60)
    (finding,) = (finding for finding in monitor.findings if finding.metric == "plural/residual_std")
    assert (finding.cause, finding.step) == ("diverges", 12)  # long before half-way, where `no_progress` looks
    assert re.search(r"rose from 1\.62 to 2\.29 nats, at 3\.43 nats.*learning_rate=0\.0005 is too", finding.message)


def test_a_kl_budget_replaces_the_limit():
    assert causes(follow({**HEALTHY, "plural/kl": 4.0}, {**OURS, "kl_budget": 2.0})) == ["far_from_reference"]


def test_equal_rewards_without_a_reference_drift():
    curves = {"frac_reward_zero_std": 1.0}
    assert causes(follow(curves, STOCK)) == ["drift"]
    assert causes(follow(curves, {**STOCK, "beta": 1.0})) == []
    assert causes(follow({"frac_reward_zero_std": 0.5}, STOCK)) == []


def test_a_gap_without_a_reference_has_an_argmax_as_its_target():
    (finding,) = follow({"plural/reward_range": 0.01}, STOCK).findings
    assert finding.cause == "sharp_target"
    assert "beta is 0: the optimum is the answer with the largest reward" in finding.message


# ── collapse ───────────────────────

NARROWING = {"plural/effective_answers": falling(8.0, 1.0)}


def test_collapse_names_the_settings_that_press_for_it():
    stock = {**STOCK, "scale_rewards": "group"}
    found = {f.cause: f.message for f in follow(NARROWING, stock).findings}
    assert "effective answers per prompt fell from 7.36 to" in found["collapse"]  # mean of 8, 7.36 and 6.73
    assert "scale_rewards='group'" in found["collapse"]
    assert "set beta=1.0" in found["collapse"]
    found = {f.cause: f.message for f in follow(NARROWING, {**STOCK, "beta": 0.05}).findings}
    assert "beta=0.05 multiplies every gap by 20" in found["collapse"]
    assert "scale_rewards" not in found["collapse"]


def test_a_target_with_few_answers_is_no_collapse():
    """From 8 answers to 2.5 where the weights (.6, .3, .1) of clusters with one favourite each ask for e^H = 2.45."""
    curves = {
        **HEALTHY,
        "plural/effective_answers": falling(8.0, 2.5),
        "plural/share/most": 0.6,
        "plural/share/some": 0.3,
        "plural/share/few": 0.1,
        "plural/weight/most": 0.6,
        "plural/weight/some": 0.3,
        "plural/weight/few": 0.1,
    }
    assert causes(follow(curves, OURS)) == []
    # The same curve is a collapse where the residual stays, where a cluster is lost, and where one answer is left:
    # 1 + .5 (2.45 - 1) = 1.73 answers are the least.
    assert "collapse" in causes(follow({**curves, **STALLED}, OURS))
    lost = {"plural/share/few": falling(0.1, 0.0), "plural/share/most": falling(0.6, 0.7)}
    assert "collapse" in causes(follow({**curves, **lost}, OURS))
    assert causes(follow({**curves, "plural/effective_answers": falling(8.0, 1.0)}, OURS)) == ["collapse"]


def test_shares_excuse_a_stock_trainer_only_beside_the_number_of_answers():
    """With nothing but shares to go by, offsets that followed a collapsed policy would look like a target reached."""
    shares = {"plural/share/most": 0.6, "plural/share/few": 0.4, "plural/weight/most": 0.6, "plural/weight/few": 0.4}
    settings = {**STOCK, "beta": 1.0}
    narrower = {**shares, "plural/effective_answers": falling(8.0, 2.5)}
    assert causes(follow(narrower, settings)) == []
    assert causes(follow({**shares, "plural/entropy": falling(2.0, 0.5)}, settings)) == ["collapse"]
    assert causes(follow({"plural/effective_answers": falling(8.0, 2.5)}, settings)) == ["collapse"]


@pytest.mark.parametrize(
    ("setting", "advice", "said"),
    [
        ({"reference_share": 0.0}, "num_iterations=4 and reference_share=0.25", True),
        ({"reference_share": 0.25}, "reference_share", False),
        ({"warmup_steps": 0}, "warmup_steps=0.1", True),
        ({"warmup_steps": 0.1}, "warmup_steps", False),
        ({"warmup_steps": 0, "exact": True}, "warmup_steps", False),
    ],
)
def test_what_keeps_answers_or_brings_them_back_is_advised_where_it_is_not_set(setting, advice, said):
    curves = {**HEALTHY, "plural/effective_answers": falling(8.0, 1.2), "plural/residual_std": 3.0}
    (message,) = [f.message for f in follow(curves, {**OURS, **setting}).findings if f.cause == "collapse"]
    assert ("divergence='fkl'" if "exact" in setting else "estimator='js'") in message
    assert (advice in message) is said


def test_texts_that_all_differ_are_followed_by_their_entropy():
    curves = {"plural/effective_answers": 16.0, "plural/entropy": falling(200.0, 40.0)}
    (finding,) = follow(curves, STOCK).findings
    assert (finding.cause, finding.metric) == ("collapse", "plural/entropy")
    assert "nats" in finding.message
    assert causes(follow({**curves, "plural/effective_answers": 10.0}, STOCK)) == []


def test_entropy_of_a_completion_is_added_to_the_history():
    """H(y) = E[sum of the tokens' entropies]: .5 nats a token times 6 tokens."""
    monitor, state = CollapseMonitor(), TrainerState(max_steps=1, global_step=1)
    logs = {"entropy": 0.5, "completions/mean_length": 6.0}
    state.log_history.append({**logs, "step": 1})
    monitor.on_log(SimpleNamespace(**STOCK), state, TrainerControl(), logs=logs)
    assert logs["plural/entropy"] == 3.0
    assert state.log_history[-1]["plural/entropy"] == 3.0


# ── limits and state ───────────────────────


def test_patience_is_the_number_of_logs_that_are_averaged():
    curves = Curves(2)
    for value in (1.0, None, math.nan, 3.0, 4.0, 8.0, 0.0):
        curves.add({"x": value})
    assert (curves.first("x"), curves.before("x"), curves.recent("x"), curves.best("x")) == (2.0, 3.5, 4.0, 6.0)
    assert (curves.first("y"), curves.before("y"), curves.recent("y"), curves.best("y")) == (None,) * 4
    # The last four are 3, 4, 8 and 0: mean 3.75, variance (9 / 16 + 1 / 16 + 289 / 16 + 225 / 16) / 3 = 131 / 12.
    assert curves.bounds("x") == pytest.approx((3.75 - math.sqrt(131 / 12), 3.75 + math.sqrt(131 / 12)))
    assert curves.bounds("y") is None
    spike = {**HEALTHY, "plural/kl": [0.0] * 11 + [50.0]}
    assert causes(follow(spike, OURS)) == []
    assert causes(follow(spike, OURS, limits=Limits(patience=2))) == ["far_from_reference"]


@pytest.mark.parametrize(
    ("limit", "message"),
    [({"patience": 1}, "patience is 1"), ({"share": 1.5}, "share is 1.5: it is a share"), ({"kl": 0.0}, "above 0")],
)
def test_limits_that_make_no_sense_are_refused(limit, message):
    with pytest.raises(ValueError, match=message):
        Limits(**limit)


def test_a_resumed_run_knows_what_was_found_and_does_not_repeat_it(caplog):
    curves = {**HEALTHY, "plural/kl": falling(0.0, 60.0), "plural/truncated": [0.0] * 9 + [0.9] * 3}
    whole = follow(curves, {**OURS, "scale_rewards": "group"})
    assert causes(whole) == ["scaled_rewards", "far_from_reference", "truncation"]

    caplog.clear()
    resumed, settings = CollapseMonitor(), SimpleNamespace(**{**OURS, "scale_rewards": "group"})
    rows = [{name: c[n] if isinstance(c, list) else c for name, c in curves.items()} for n in range(STEPS)]
    history = [{**row, "step": n + 1} for n, row in enumerate(rows[:8])]
    state = TrainerState(max_steps=STEPS, num_train_epochs=4, global_step=8, log_history=history)
    with caplog.at_level(logging.WARNING, logger="plural_rlhf"):
        resumed.on_train_begin(settings, state, TrainerControl())
        assert causes(resumed) == ["scaled_rewards", "far_from_reference"]
        assert not caplog.records
        for n in range(8, STEPS):
            state.global_step = n + 1
            resumed.on_log(settings, state, TrainerControl(), logs=rows[n])
    assert resumed.findings == whole.findings
    assert resumed.summary() == whole.summary()
    assert len(caplog.records) == 1


@pytest.mark.parametrize(
    "settings", [OURS, {**OURS, "exact": True}, {**STOCK, "beta": 1.0}], ids=["ours", "exact", "stock"]
)
def test_flat_rewards_are_found_before_the_tenth_step(settings):
    """A range of .02 at a beta of .2 has shares that equal the weights from the first step, and teaches nothing."""
    curves = {**HEALTHY, "plural/reward_range": 0.02, "plural/residual_std": 0.05, "plural/beta": 0.2}
    monitor = follow(curves, {**settings, "beta": 0.2, "logging_steps": 1}, steps=3)
    finding = next(finding for finding in monitor.findings if finding.cause == "flat_rewards")
    assert finding.step <= 3
    assert "lie 0.02 apart and beta is 0.2" in finding.message
    assert "by more than a factor of 1.11" in finding.message
    assert "prove nothing" in finding.message


def test_one_log_of_ten_steps_is_enough_to_find_flat_rewards_and_two_of_single_steps_are_not():
    flat = {**HEALTHY, "plural/reward_range": 0.02}
    assert "flat_rewards" in causes(follow(flat, {**OURS, "logging_steps": 10}, steps=1))
    assert "flat_rewards" not in causes(follow(flat, {**OURS, "logging_steps": 1}, steps=2))


def test_rewards_of_equal_completions_and_of_a_target_without_a_reference_are_not_called_flat():
    flat = {**HEALTHY, "plural/reward_range": 0.02}
    assert "flat_rewards" not in causes(follow({**flat, "plural/effective_answers": 1.0}, OURS))
    assert "flat_rewards" not in causes(follow(flat, {**OURS, "reference_power": 0.0}))
    assert "flat_rewards" not in causes(follow(flat, OURS, limits=Limits(flatness=0.0)))
    assert "flat_rewards" not in causes(follow({**flat, "plural/reward_range": 0.5}, OURS))


def test_wordings_that_come_together_are_a_collapse_where_no_two_texts_are_equal():
    size = OURS["num_generations"]
    texts = {**HEALTHY, "plural/effective_answers": float(size), "plural/kl": [1.0] * 6 + [9.0] * 6}
    texts |= {"plural/residual_std": 4.0, "plural/effective_texts": [12.0] * 6 + [3.0] * 6}
    monitor = follow(texts, OURS)
    finding = next(finding for finding in monitor.findings if finding.cause == "collapse")
    assert finding.metric == "plural/effective_texts"
    assert "effective wordings per prompt fell from 12 to 3" in finding.message
