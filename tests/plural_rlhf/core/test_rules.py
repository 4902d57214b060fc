"""Rules by name: how they are written, what they are given, and how their verdicts read."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch

from plural_rlhf.core import rules
from plural_rlhf.core.rules import GROUP, POINTWISE, POOL, RULES, Rule, aggregate, rule_or_pool
from reward_models.errors import JuryError


NEEDS = {"power_mean": {"p": -2.0}, "pessimistic_median": {"standard_error": [0.1, 0.2, 0.3]}}
EVERY_RULE = [Rule(name, NEEDS.get(name, {})) for name in RULES]
named = pytest.mark.parametrize("rule", EVERY_RULE, ids=[rule.name for rule in EVERY_RULE])


def rewards(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_one_way_of_writing_in_python_yaml_and_on_the_command_line():
    assert Rule.parse("power_mean(p=-2, utility=exp)") == Rule.parse({"rule": "power_mean", "p": -2, "utility": "exp"})
    assert str(Rule.parse("  cvar( share = 0.5 ) ")) == "cvar(share=0.5)"
    assert Rule.parse("power_mean(p=-inf)").options == {"p": -np.inf}
    assert Rule.parse(Rule("mean")) == Rule.parse("mean") == Rule.parse("mean()")
    assert {Rule.parse("cvar(share=0.5)"), Rule("cvar", {"share": 0.5})} == {Rule("cvar", {"share": 0.5})}
    assert pickle.loads(pickle.dumps(Rule.parse("quantile(q=0.1)"))) == Rule("quantile", {"q": 0.1})


@pytest.mark.parametrize(
    ("spec", "error", "message"),
    [
        ("nahs", ValueError, r"got 'nahs'\. Did you mean 'nash'\? The rules are mean, power_mean, nash"),
        ("power_mean", TypeError, "'power_mean': missing a required argument: 'p'; its options are: p, utility"),
        ("cvar(p=2)", TypeError, "unexpected keyword argument 'p'; its options are: share"),
        ("cvar(0.5)", ValueError, r"'0\.5' in 'cvar\(0\.5\)' is not of the form option=value"),
        ("cvar(share=0.5", ValueError, r"not of the form name or name\(option=value"),
        ({"share": 0.5}, ValueError, "has no key 'rule'"),
        ("pool", ValueError, "got 'pool'"),
    ],
)
def test_rules_that_do_not_exist_are_refused(spec, error, message):
    with pytest.raises(error, match=message):
        Rule.parse(spec)


def test_a_reward_may_also_follow_the_pool():
    assert rule_or_pool(POOL) is None
    assert rule_or_pool("nash") == Rule("nash")
    with pytest.raises(ValueError, match=r"may also be 'pool'\. Did you mean 'pool'\?"):
        rule_or_pool("pol")


@named
def test_a_group_at_a_time_or_many_at_once(rule):
    r, w = rewards(4, 5), torch.tensor([[0.5, 0.3, 0.2], [1.0, 1.0, 1.0], [0.0, 2.0, 1.0], [3.0, 1.0, 1.0]])
    together = rule.scores(r, w)
    assert together.shape == (4, 5)
    for g in range(4):
        torch.testing.assert_close(together[g], rule.scores(r[g], w[g]), atol=1e-7, rtol=1e-6)
        torch.testing.assert_close(rule.lottery(r, w)[g], rule.lottery(r[g], w[g]), atol=1e-6, rtol=0)


@named
def test_what_is_masked_has_no_part_in_the_verdict(rule):
    r, w = rewards(2, 5), [0.5, 0.3, 0.2]
    mask = torch.tensor([[True] * 3 + [False] * 2, [True] * 5])
    r[0, 3:] = torch.nan  # padding may hold anything
    scores, lottery = rule.scores(r, w, mask), rule.lottery(r, w, mask)
    assert torch.isneginf(scores[0, 3:]).all()
    torch.testing.assert_close(scores[0, :3], rule.scores(r[0, :3], w), atol=1e-7, rtol=1e-6)
    assert lottery.sum(-1).tolist() == pytest.approx([1, 1])
    torch.testing.assert_close(lottery[0, :3], rule.lottery(r[0, :3], w), atol=1e-6, rtol=0)


@named
def test_scores_and_verdicts_agree(rule):
    """Whoever has a chance in the lottery has the best score, but for the dictator's, which is the chance."""
    r = rewards(50, 4, seed=1)
    scores, lottery = rule.scores(r, [0.5, 0.3, 0.2]), rule.lottery(r, [0.5, 0.3, 0.2])
    if rule.name == "random_dictator":
        torch.testing.assert_close(scores, lottery)
    else:
        best = scores >= scores.amax(-1, keepdim=True) - 1e-6
        assert best[lottery > 1e-6].all()


@named
def test_comparing_heads_is_what_a_new_scale_of_one_head_changes(rule):
    """A head stretched fourfold and shifted: of the rules that take any scale only the mean notices the stretch."""
    r = rewards(200, 4, seed=2)
    moved = r.clone()
    moved[..., 0] = 4 * r[..., 0] + 5
    same = torch.allclose(rule.lottery(r, [0.4, 0.3, 0.3]), rule.lottery(moved, [0.4, 0.3, 0.3]), atol=1e-6)
    assert same == (not rule.compares_heads and rule.name != "mean")
    shifted = r.clone()
    shifted[..., 0] = r[..., 0] + 5
    same = torch.allclose(rule.lottery(r, [0.4, 0.3, 0.3]), rule.lottery(shifted, [0.4, 0.3, 0.3]), atol=1e-6)
    assert same == (not rule.compares_heads)


@pytest.mark.parametrize("rule", [r for r in EVERY_RULE if r.name in POINTWISE], ids=POINTWISE)
def test_blocks_change_nothing(rule, monkeypatch):
    r, w = rewards(7, 11), torch.rand(7, 11, 3, dtype=torch.float64) + 0.1
    whole = aggregate(r, w, rule), aggregate(r, [1, 2, 3], rule)
    monkeypatch.setattr(rules, "BLOCK", 8)
    torch.testing.assert_close(aggregate(r, w, rule), whole[0], atol=0, rtol=0)
    torch.testing.assert_close(aggregate(r, [1, 2, 3], rule), whole[1], atol=0, rtol=0)


def test_scores_that_are_no_numbers_are_named():
    r = rewards(4, 5)
    r[2, 3, 1] = torch.nan
    with pytest.raises(JuryError, match=r"score of head 1 in row \[2, 3\] is nan"):
        Rule("mean").scores(r, [1, 1, 1])
    with pytest.raises(JuryError, match=r"head 1 in row 3 is nan"):
        aggregate(r[2], [1, 1, 1], "borda")


@pytest.mark.parametrize("name", GROUP)
def test_a_group_of_one_has_nothing_to_choose(name):
    with pytest.raises(JuryError, match="has 1 of 1 responses that count"):
        Rule(name).scores(rewards(3, 1), [1, 1, 1])


def test_options_out_of_range_show_before_anything_long_starts():
    with pytest.raises(ValueError, match="share"):
        Rule.parse("cvar(share=2)").check(3)
    with pytest.raises((ValueError, JuryError), match="standard_error"):
        Rule.parse({"rule": "pessimistic_median", "standard_error": [0.1, 0.2]}).check(3)


def test_an_option_of_more_digits_than_a_number_has_is_refused():
    for digits in (400, 5000):
        with pytest.raises(ValueError, match=rf"rule: share has {digits} digits"):
            Rule.parse(f"cvar(share={'9' * digits})")
