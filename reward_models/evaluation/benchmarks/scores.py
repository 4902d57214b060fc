"""Score a jury on a reward model benchmark: accuracy by subset, for each cluster and for their mean.

Each item is credited as its benchmark does. RewardBench: 1 if the chosen response scores higher, 0 if not or equal.
RewardBench 2: 1/m if the chosen response is among m responses at the top; its subset Ties by `ties`. RM-Bench: the
share of nine pairs of styles, and easy, normal and hard apart by `style_control`. RewardBench's leaderboards weigh
subsets into sections; here subsets stand as they are.

Knows nothing of files or models.

Shapes: `I` items, `C` columns: the clusters, then their mean.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from reward_models.errors import JuryError
from reward_models.evaluation.benchmarks.items import TIES, Benchmark, BenchmarkItem, Schema
from reward_models.evaluation.benchmarks.style_control import LEVELS, style_accuracies
from reward_models.evaluation.benchmarks.ties import ties_score
from reward_models.evaluation.sheets import Sheet, interval_text
from reward_models.judgements.texts import Text
from reward_models.stats.shares import share_interval


__all__ = ["BenchmarkScores", "score_benchmark"]

MEAN = "mean"


@dataclass(frozen=True)
class BenchmarkScores:
    """A jury's scores on a benchmark; `score_benchmark` computes them.

    Attributes:
        benchmark: The items.
        columns: `C` names: the clusters, then `"mean"`.
        scores: For each item, (chosen, C) and (rejected, C) rewards.
        credits: (I, C) credit of each item; nan for Ties, which is scored by pairs of prompts.

    Example:
        >>> items = [BenchmarkItem("1", "math", "1 + 1?", ("2",), ("3",))]
        >>> rewards = {Text("1 + 1?", "2"): np.array([1.0, -1.0]), Text("1 + 1?", "3"): np.zeros(2)}
        >>> benchmark, weights = Benchmark("rewardbench", items), np.array([0.7, 0.3])
        >>> found = score_benchmark(benchmark, rewards, ["city", "country"], weights)
        >>> found.summary("mean"), found.summary("country")
        ({'math': 1.0}, {'math': 0.0})
    """

    benchmark: Benchmark
    columns: tuple[str, ...]
    scores: list[tuple[np.ndarray, np.ndarray]]
    credits: np.ndarray

    def rows(self) -> list[dict[str, Any]]:
        """Return flat rows of `results.json`: accuracy by subset and column, Ties, and styles."""
        out = []
        for at, column in enumerate(self.columns):
            for subset in self.benchmark.subsets:
                here = np.array([item.subset == subset for item in self.benchmark.items])
                if self._is_ties(subset):
                    out.append(self._ties_row(column, here))
                else:
                    out.append(self._row(column, subset, "accuracy", self.credits[here, at]))
            if self.benchmark.schema == "rm-bench":
                styles = style_accuracies(
                    *([side[:, at] for side in sides] for sides in zip(*self.scores, strict=True))
                )
                out += [
                    self._row(column, "all", f"accuracy_{level}", values)
                    for level, values in zip(LEVELS, styles.T, strict=True)
                ]
        return out

    def summary(self, column: str) -> dict[str, float]:
        """Return the score of each subset, as RewardBench's result files have them."""
        return {
            row["case"] if row["metric"] in ("accuracy", "ties_score") else row["metric"]: row["value"]
            for row in self.rows()
            if row["method"] == column
        }

    def result_file(self, model: str, chat_template: str | None) -> dict[str, Any]:
        """Return a result in RewardBench's shape for the mean; that of each cluster is under `clusters`."""
        about = {"model": model, "model_type": "Seq. Classifier", "chat_template": chat_template}
        clusters = {column: self.summary(column) for column in self.columns[:-1]}
        return {**about, **self.summary(MEAN), "clusters": clusters}

    def score_file(self, model: str, chat_template: str | None) -> dict[str, Any]:
        """Return the scores of every sample, as columns like RewardBench's; those of each cluster under `clusters`."""
        about = {"model": model, "model_type": "Seq. Classifier", "chat_template": chat_template}
        items = self.benchmark.items
        columns = {column: self._samples(at) for at, column in enumerate(self.columns)}
        return {
            **about,
            "id": [item.id for item in items],
            "subset": [item.subset for item in items],
            **columns.pop(MEAN),
            "clusters": columns,
        }

    def sheets(self) -> list[Sheet | str]:
        """Return the scores as one table, a column per cluster."""
        rows = self.rows()
        cells: dict[tuple[str, str], dict[str, str]] = {}
        sizes = {}
        for row in rows:
            key = row["case"], row["metric"].replace("_", " ")
            cells.setdefault(key, {})[row["method"]] = interval_text(row, 3, sign=False)
            sizes[key] = str(row["n"])
        lines = [[*key, sizes[key], *(values[c] for c in self.columns)] for key, values in cells.items()]
        note = NOTES[self.benchmark.schema]
        return [Sheet(f"{self.benchmark.schema}", ["subset", "measure", "n", *self.columns], lines, note, words=2)]

    def _is_ties(self, subset: str) -> bool:
        return self.benchmark.schema == "rewardbench-2" and subset == TIES

    def _samples(self, at: int) -> dict[str, list[Any]]:
        """Credits and scores of one column; a single chosen or rejected response is a number, several are a list."""

        def plain(values: np.ndarray) -> Any:
            return float(values[0]) if self.benchmark.schema == "rewardbench" else values.tolist()

        credit = self.credits[:, at]
        return {
            "results": [None if np.isnan(value) else float(value) for value in credit],
            "scores_chosen": [plain(chosen[:, at]) for chosen, _ in self.scores],
            "scores_rejected": [plain(rejected[:, at]) for _, rejected in self.scores],
        }

    def _row(self, column: str, subset: str, metric: str, credits: np.ndarray) -> dict[str, Any]:
        share, n = float(credits.mean()), len(credits)
        low, high = map(float, share_interval(np.array(share), np.array(n)))
        return self._flat(column, subset, metric, (share, low, high), n, "items")

    def _ties_row(self, column: str, here: np.ndarray) -> dict[str, Any]:
        at = self.columns.index(column)
        prompts = {
            item.id: (chosen[:, at], rejected[:, at])
            for item, (chosen, rejected), used in zip(self.benchmark.items, self.scores, here, strict=True)
            if used
        }
        found = ties_score(prompts)
        names = ("tied_accuracy", "ref_accuracy", "margin_above_spread", "smaller_margin_above_spread", "margin_size")
        flat = self._flat(
            column, TIES, "ties_score", (found.value, found.low, found.high), found.n, "pairs of prompts"
        )
        return flat | dict(zip(names, found.parts, strict=True))

    def _flat(
        self, column: str, subset: str, metric: str, ends: tuple[float, float, float], n: int, counted: str
    ) -> dict[str, Any]:
        value, low, high = ends
        return {
            "benchmark": self.benchmark.schema,
            "case": subset,
            "method": column,
            "metric": metric,
            "value": value,
            "ci_low": low,
            "ci_high": high,
            "n": n,
            "counted": counted,
            "unit": "share",
            "direction": "higher",
        }


NOTES: dict[Schema, str] = {
    "rewardbench": "Share of pairs whose chosen response scores higher; Wilson's 95 % interval.",
    "rewardbench-2": "Share of items whose chosen response is at the top of four, and the Ties score of RewardBench 2 "
    "with an interval over pairs of prompts.",
    "rm-bench": "Share of right pairs of styles. easy, normal, hard: the chosen response is the more adorned one, of "
    "equal style, the plainer one; as RM-Bench defines them.",
}


def score_benchmark(
    benchmark: Benchmark, rewards: Mapping[Text, np.ndarray], names: Sequence[str], weights: np.ndarray
) -> BenchmarkScores:
    """Score a benchmark with rewards per cluster.

    Args:
        benchmark: The items.
        rewards: (K,) rewards of every text of the benchmark.
        names: `K` names of the clusters.
        weights: (K,) weights of their mean.

    Raises:
        JuryError: A text without rewards.

    Example:
        See `BenchmarkScores`.

        >>> len(score_benchmark(Benchmark("rewardbench", []), {}, ["all"], np.ones(1)).rows())
        0
    """
    unknown = [text for text in benchmark.texts if text not in rewards]
    if unknown:
        raise JuryError(
            f"{len(unknown)} texts of the benchmark have no reward, e.g. {unknown[0]!r}. Fix: score them all"
        )
    scores = []
    for item in benchmark.items:
        of_texts = np.stack([np.append(rewards[text], rewards[text] @ weights) for text in item.texts])
        scores.append((of_texts[: len(item.chosen)], of_texts[len(item.chosen) :]))
    credits = [_credit(benchmark.schema, item, *sides) for item, sides in zip(benchmark.items, scores, strict=True)]
    columns = (*names, MEAN)
    return BenchmarkScores(benchmark, columns, scores, np.array(credits).reshape(len(scores), len(columns)))


def _credit(schema: Schema, item: BenchmarkItem, chosen: np.ndarray, rejected: np.ndarray) -> np.ndarray:
    """(C,) what an item counts for."""
    if schema == "rewardbench":
        return (chosen[0] > rejected[0]).astype(np.float64)
    if schema == "rm-bench":
        return (chosen[:, None] > rejected[None]).mean((0, 1))
    if item.subset == TIES:
        return np.full(chosen.shape[1], np.nan)
    everything = np.concatenate([chosen, rejected])
    top = everything == everything.max(0)
    return top[: len(chosen)].sum(0) / top.sum(0)
