"""The benchmark of scoring options: both ways give the same numbers, or their speeds are of different things."""

from __future__ import annotations

from plural_rlhf.policies.base_models import tiny_causal_lm, tiny_tokenizer
from plural_rlhf.suites import make_tasks
from plural_rlhf.suites.models.causal_lm import CausalLM
from plural_rlhf.suites.run import load_tasks
from tests.benchmark_modules import benchmark_module


benchmark = benchmark_module("eval_speed")


def test_both_ways_score_alike_and_are_timed():
    loaded, _ = load_tasks(make_tasks(["urn"]), max_items=6)
    rows = benchmark.measure(CausalLM("tiny", tiny_causal_lm(), tiny_tokenizer()), loaded, repeats=2)
    values = {(row["method"], row["metric"]): row["value"] for row in rows}
    assert values["kept answers", "throughput"] > values["one by one", "throughput"] > 0
    [speedup] = [row for row in rows if row["metric"] == "speedup over one by one"]
    assert speedup["largest_gap_nats"] < 1e-3
    assert speedup["answers"] == sum(len(item.options) for item in loaded[0].items)
