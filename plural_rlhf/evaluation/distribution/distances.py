"""Distances between people's answer distributions and a model's; a name says kind, base and smoothing.

Three numbers are called "JS" in the literature and cannot be compared: the divergence in nats, its square root in nats
and its square root in bits. Spectrum Tuning adds 1e-6 to every option before it compares; measures that do so have
`spectrum` in their name. Knows nothing of tables, models or where answers come from.

Shapes: `I` items, `A` options; `p` is people's distribution, `q` the model's, both over the last axis.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

import numpy as np
from scipy.special import rel_entr

from reward_models.stats.answers import entropy_gap, js_divergence, total_variation


__all__ = [
    "DISTANCES",
    "SPECTRUM_EPS",
    "Distance",
    "cross_entropy",
    "js_distance",
    "kl_divergence",
    "mode_match",
    "wasserstein_1",
]

SPECTRUM_EPS = 1e-6
"""What Spectrum Tuning's evaluation adds to every option of both sides before it normalises them again."""


def js_distance(p: np.ndarray, q: np.ndarray, *, base: float = np.e, eps: float = 0.0) -> np.ndarray:
    """Return the Jensen-Shannon distance: the square root of the divergence, a metric.

    Modular Pluralism reports it with natural logarithms (`jsdist_e`), the roadmap to pluralistic alignment with base 2
    (`jsdist_2`).

    Args:
        p: (..., A) distributions.
        q: (..., A) distributions.
        base: Base of the logarithm.
        eps: Added to every option, see `js_divergence`.

    Example:
        >>> p, q = [0.1, 0.2, 0.3, 0.4], [0.4, 0.3, 0.2, 0.1]
        >>> round(float(js_distance(p, q)), 6), round(float(js_distance(p, q, base=2)), 6)
        (0.326252, 0.391868)
    """
    return np.sqrt(js_divergence(p, q, eps) / np.log(base))


def kl_divergence(p: np.ndarray, q: np.ndarray, *, eps: float = 0.0) -> np.ndarray:
    """Return the Kullback-Leibler divergence `KL(p ‖ q)` in nats; infinite where `q` excludes what `p` does.

    Example:
        >>> round(float(kl_divergence([0.5, 0.5], [0.25, 0.75])), 4), float(kl_divergence([0.5, 0.5], [1.0, 0.0]))
        (0.1438, inf)
    """
    p, q = _smoothed(p, eps), _smoothed(q, eps)
    return rel_entr(p, q).sum(axis=-1)


def cross_entropy(p: np.ndarray, q: np.ndarray, *, eps: float = 0.0) -> np.ndarray:
    """Return the cross-entropy `-Σ p log q` in nats: what one answer of people costs under the model.

    Example:
        >>> round(float(cross_entropy([0.5, 0.5], [0.25, 0.75])), 4)
        0.837
    """
    p, q = _smoothed(p, eps), _smoothed(q, eps)
    with np.errstate(divide="ignore", invalid="ignore"):
        return -np.where(p > 0, p * np.log(q), 0.0).sum(axis=-1)


def wasserstein_1(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    """Return the Wasserstein-1 distance of distributions over ordered options, in steps from an option to the next.

    Total variation counts an answer next to people's like one at the other end of the scale; this one does not.

    Example:
        >>> wasserstein_1([[1.0, 0.0, 0.0]], [[0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]).tolist()
        [1.0, 2.0]
    """
    gap = np.asarray(p, dtype=np.float64) - np.asarray(q, dtype=np.float64)
    return np.abs(np.cumsum(gap, axis=-1)[..., :-1]).sum(axis=-1)


def mode_match(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    """Return the share of the model's most probable options that are most frequent among people.

    Without ties it is 1 or 0. A model for which all options are alike gets the share of options that are people's most
    frequent: what a guess gets.

    Example:
        >>> mode_match([0.2, 0.5, 0.3], [[0.1, 0.8, 0.1], [0.8, 0.1, 0.1], [1 / 3, 1 / 3, 1 / 3]]).round(2).tolist()
        [1.0, 0.0, 0.33]
    """
    of_people, of_model = _modes(p), _modes(q)
    return (of_people & of_model).sum(axis=-1) / of_model.sum(axis=-1)


@dataclass(frozen=True)
class Distance:
    """One measure of a model's distribution against people's.

    Attributes:
        compute: Maps `p` (..., A) and `q` (..., A) to (...).
        unit: Unit of the value.
        direction: Which direction is better; `"zero"`: closer to zero.
        ordered: Whether it is only defined for options in an order.

    Example:
        >>> measure = DISTANCES["total_variation"]
        >>> float(measure.compute([0.5, 0.5], [1.0, 0.0])), measure.unit, measure.direction
        (0.5, 'probability', 'lower')
    """

    compute: Callable[[np.ndarray, np.ndarray], np.ndarray]
    unit: str
    direction: Literal["lower", "higher", "zero"] = "lower"
    ordered: bool = False

    @property
    def bounds(self) -> tuple[float, float]:
        """Smallest and largest value that there can be."""
        if self.direction == "zero":
            return (-np.inf, np.inf)
        return (0.0, 1.0) if self.unit in ("share", "probability") else (0.0, np.inf)


DISTANCES: Mapping[str, Distance] = MappingProxyType(
    {
        "jsd_nats": Distance(js_divergence, "nats"),
        "jsd_spectrum_nats": Distance(lambda p, q: js_divergence(p, q, SPECTRUM_EPS), "nats"),
        "jsdist_e": Distance(js_distance, "root of nats"),
        "jsdist_2": Distance(lambda p, q: js_distance(p, q, base=2), "root of bits"),
        "total_variation": Distance(total_variation, "probability"),
        "wasserstein_1": Distance(wasserstein_1, "steps", ordered=True),
        "kl_spectrum_nats": Distance(lambda p, q: kl_divergence(p, q, eps=SPECTRUM_EPS), "nats"),
        "reverse_kl_spectrum_nats": Distance(lambda p, q: kl_divergence(q, p, eps=SPECTRUM_EPS), "nats"),
        "cross_entropy_spectrum_nats": Distance(lambda p, q: cross_entropy(p, q, eps=SPECTRUM_EPS), "nats"),
        "mode_match": Distance(mode_match, "share", "higher"),
        "entropy_gap": Distance(lambda p, q: entropy_gap(q, p), "nats", "zero"),
    }
)
"""Measures by name. KL and cross-entropy are smoothed: one option that a model excludes would make a mean infinite."""


def _smoothed(p: np.ndarray, eps: float) -> np.ndarray:
    p = np.asarray(p, dtype=np.float64) + eps
    return p / p.sum(axis=-1, keepdims=True)


def _modes(p: np.ndarray) -> np.ndarray:
    p = np.asarray(p, dtype=np.float64)
    return p >= p.max(axis=-1, keepdims=True) - 1e-12
