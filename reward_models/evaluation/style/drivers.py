"""Which differences of style and content does each cluster reward, all else equal?

Rewards of the responses to a prompt are regressed on named features of style and on frequent words, all at once, so
that what looks like a taste for lists is not one for length. Coefficients are in logits per standard deviation of the
feature within prompts. The same regression of the difference of two clusters says where they disagree. Intervals and
p-values are about other responses, the jury taken as it is (standard errors HC3: MacKinnon and White 1985); Holm's
correction covers all features of all clusters, and apart from these all contrasts.

A coefficient is no cause: a word stands for what is said with it. Knows nothing of raters or files.

Shapes: `U` texts, `F` features, `K` clusters.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

import numpy as np
from scipy.stats import t

from reward_models.errors import JuryError
from reward_models.evaluation.comparisons import holm
from reward_models.evaluation.sheets import Sheet
from reward_models.evaluation.style.text_features import STYLE_FEATURES, content_words, style_features, word_features
from reward_models.judgements.texts import Text, prompt_groups


__all__ = ["Driver", "Drivers", "reward_drivers"]

ALPHA = 0.05
PER_FEATURE = 5  # fewest texts per feature
SHOWN = 5  # features that a sentence names


@dataclass(frozen=True)
class Driver:
    """One feature in one regression; `reward_drivers` computes it.

    Attributes:
        what: Name of the cluster, or of two clusters, the second subtracted from the first.
        contrast: Whether it is of two clusters.
        feature: Name of the feature.
        value: Logits per standard deviation of the feature within prompts, all other features held fixed.
        low: Lower end of its 95 % interval.
        high: Upper end.
        p_value: Two-sided.
        p_holm: The same, corrected for all features of all clusters, or all contrasts.

    Example:
        >>> Driver("city", False, "length", 0.4, 0.2, 0.6, 0.0001, 0.004).significant
        True
    """

    what: str
    contrast: bool
    feature: str
    value: float
    low: float
    high: float
    p_value: float
    p_holm: float

    @property
    def significant(self) -> bool:
        """Whether it is told from 0 after the correction."""
        return bool(self.p_holm < ALPHA)


@dataclass(frozen=True)
class Drivers:
    """What each cluster rewards, and where clusters disagree; `reward_drivers` computes it.

    Attributes:
        drivers: Every feature of every cluster and contrast.
        explained: By cluster, share of the variance of rewards within prompts that all features explain (R squared,
            adjusted for their number).
        n: Number of texts.

    Example:
        >>> Drivers([Driver("city", False, "length", 0.0, -0.1, 0.1, 0.9, 1.0)], {"city": 0.0}, 80).sentences()
        ['city: no feature is told from chance (0 % of the variance of rewards within prompts is explained).']
    """

    drivers: list[Driver]
    explained: dict[str, float]
    n: int

    def rows(self) -> list[dict[str, Any]]:
        """Return flat rows of `results.json`."""
        return [
            {
                "case": "contrast" if d.contrast else "rewarded",
                "method": d.what,
                "metric": d.feature,
                "value": d.value,
                "ci_low": d.low,
                "ci_high": d.high,
                "n": self.n,
                "counted": "texts",
                "unit": "logits per standard deviation",
                "direction": "context",
                "p_value": d.p_value,
                "p_holm": d.p_holm,
            }
            for d in self.drivers
        ]

    def sentences(self) -> list[str]:
        """Say for each cluster and contrast what is significant, or that nothing is."""
        out = []
        for what in dict.fromkeys(d.what for d in self.drivers):
            here = [d for d in self.drivers if d.what == what]
            found = sorted((d for d in here if d.significant), key=lambda d: -abs(d.value))
            parts = [
                f"{word} {', '.join(f'{d.feature} ({d.value:+.2f})' for d in side[:SHOWN])}"
                for word, side in zip(
                    ("rewards more", "rewards less") if here[0].contrast else ("rewards", "penalises"),
                    ([d for d in found if d.value > 0], [d for d in found if d.value < 0]),
                    strict=True,
                )
                if side
            ]
            if here[0].contrast:
                first, second = what.split(" minus ", 1)
                said = f"compared with {second}, {first} " + "; ".join(parts)
                out.append(f"{said}." if parts else f"{what}: no difference is told from chance.")
                continue
            share = f"{max(self.explained[what], 0):.0%}".replace("%", " %")
            explained = f"({share} of the variance of rewards within prompts is explained)"
            finding = "; ".join(parts) if parts else "no feature is told from chance"
            out.append(f"{what}: {finding} {explained}.")
        return out

    def sheets(self) -> list[Sheet | str]:
        """Return the significant features as a table, a column per cluster and contrast, and the sentences."""
        columns = list(dict.fromkeys(d.what for d in self.drivers))
        cells = {(d.feature, d.what): d for d in self.drivers}
        features = [f for f in dict.fromkeys(d.feature for d in self.drivers) if self._shown(f)]
        lines = [[feature, *(_cell(cells[feature, column]) for column in columns)] for feature in features]
        note = (
            f"Logits per standard deviation of the feature within prompts, 95 % interval, {self.n} texts, all "
            "features at once; * is told from 0 at 5 % after Holm's correction. Rows without a star are left out."
        )
        table: list[Sheet | str] = [Sheet("What is rewarded", ["feature", *columns], lines, note)] if lines else []
        return [*table, "\n".join(self.sentences())]

    def _shown(self, feature: str) -> bool:
        return any(d.significant for d in self.drivers if d.feature == feature)


def reward_drivers(texts: Sequence[Text], rewards: np.ndarray, names: Sequence[str], *, words: int = 20) -> Drivers:
    """Regress rewards on named features of the responses, for each cluster and each pair of clusters.

    Args:
        texts: `U` texts; responses are compared with those to the same prompt.
        rewards: (U, K) rewards in logits.
        names: `K` names.
        words: Number of content words among the features; fewer where the texts are few.

    Raises:
        JuryError: Too few texts for the features of style.

    Example:
        One cluster likes long responses, the other exclamation marks:

        >>> rng = np.random.default_rng(0)
        >>> texts = [Text("?", "word " * rng.integers(1, 40) + "!" * rng.integers(0, 4)) for _ in range(200)]
        >>> length, marks = (np.log1p([t.response.count(sign) for t in texts]) for sign in ("word", "!"))
        >>> rewards = np.stack([length, marks], axis=1) + 0.1 * rng.normal(size=(200, 2))
        >>> found = reward_drivers(texts, rewards, ["patient", "loud"])
        >>> sorted((d.what, d.feature) for d in found.drivers if d.significant and not d.contrast)
        [('loud', 'exclamation marks'), ('patient', 'length')]
    """
    responses = [text.response for text in texts]
    design, features = style_features(responses), list(STYLE_FEATURES)
    room = len(texts) // PER_FEATURE - len(features)
    chosen = content_words(responses, max(min(words, room), 0))
    design = np.column_stack([design, word_features(responses, chosen)])
    features += [f"“{word}”" for word in chosen]
    group = prompt_groups(texts)
    design, target = _within(design, group), _within(rewards, group)
    spread = np.sqrt((design**2).mean(0))
    used = _independent(design / np.where(spread > 1e-9, spread, 1.0), spread > 1e-9)
    n_groups = int(group.max(initial=-1)) + 1
    free = len(texts) - n_groups - len(used)
    if len(texts) < PER_FEATURE * len(used) or free < PER_FEATURE:
        raise JuryError(
            f"{len(texts)} texts of {n_groups} prompts are too few for {len(used)} features: {PER_FEATURE} texts per "
            "feature are needed. Fix: use a table with more responses per prompt"
        )
    design = design[:, used] / spread[used]
    pairs = list(combinations(range(len(names)), 2))
    targets = [(name, target[:, k], False) for k, name in enumerate(names)]
    targets += [(f"{names[i]} minus {names[j]}", target[:, i] - target[:, j], True) for i, j in pairs]
    found, explained = [], {}
    for what, y, contrast in targets:
        value, error, residual = _regress(design, y)
        half = t.ppf(0.975, free) * error
        p_values = 2 * t.sf(np.abs(value) / np.where(error > 0, error, np.inf), free)
        if not contrast:
            total = (y**2).sum()
            left = (residual**2).sum() / free
            explained[what] = float(1 - left * (len(y) - n_groups) / total) if total > 0 else 0.0
        found += [
            Driver(what, contrast, features[f], float(v), float(v - h), float(v + h), float(p), 1.0)
            for f, v, h, p in zip(used, value, half, p_values, strict=True)
        ]
    return Drivers(_corrected(found), explained, len(texts))


def _corrected(drivers: list[Driver]) -> list[Driver]:
    """Correct p-values by Holm, clusters and contrasts apart."""
    out: list[Driver] = []
    for contrast in (False, True):
        family = [d for d in drivers if d.contrast == contrast]
        out += [replace(d, p_holm=float(p)) for d, p in zip(family, holm([d.p_value for d in family]), strict=True)]
    return out


def _within(values: np.ndarray, group: np.ndarray) -> np.ndarray:
    """Subtract the mean of each prompt from (U, C) values."""
    size = np.bincount(group)
    means = np.stack([np.bincount(group, column) / size for column in values.T], axis=1)
    return values - means[group]


def _independent(design: np.ndarray, varies: np.ndarray) -> np.ndarray:
    """Return the columns that vary and are no combination of earlier ones."""
    kept: list[int] = []
    basis = np.zeros((len(design), 0))
    for column in np.flatnonzero(varies):
        rest = design[:, column] - basis @ (basis.T @ design[:, column])
        length = np.linalg.norm(rest)
        if length > 1e-3 * np.sqrt(len(design)):
            kept.append(int(column))
            basis = np.column_stack([basis, rest / length])
    return np.array(kept, dtype=np.int64)


def _regress(design: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Least squares: coefficients (F,), their standard errors HC3 (F,), and residuals (U,)."""
    inverse = np.linalg.pinv(design.T @ design)
    value = inverse @ design.T @ y
    residual = y - design @ value
    leverage = np.clip(np.einsum("nf,fg,ng->n", design, inverse, design), 0.0, 0.99)
    weighted = design * (residual / (1 - leverage))[:, None]
    return value, np.sqrt(np.diag(inverse @ (weighted.T @ weighted) @ inverse)), residual


def _cell(driver: Driver) -> str:
    star = "*" if driver.significant else ""
    return f"{driver.value:+.2f} [{driver.low:+.2f}, {driver.high:+.2f}]{star}"
