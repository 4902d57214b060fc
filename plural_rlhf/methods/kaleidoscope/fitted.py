r"""A judge of values that is fitted to situations whose values are known, on vectors of a frozen language model.

With the vectors $a$ of a situation and $b$ of a value, in columns of mean 0 and variance 1, and their first principal
components $p(a)$ and $p(b)$,

    z = [a; b; p(a) p(b)^T; kind],    valence = softmax(W z + c),    relevance = \sigma(u · z + d):

ridge-regularised logistic regressions; each strength is the one with the least held-out loss on values that the fit
has not seen. The product says which values go with which situations. Relevance learns from the values that a situation
has against as many of other situations. Knows nothing of how a checkpoint that was trained for values is asked.

Shapes: `N` pairs of a situation and a value, `D` columns of a vector, `P` principal components.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file

from plural_rlhf.evaluation.tables.valued_situations import KINDS, VALENCES, Value, ValuedSituation, ValuesError
from plural_rlhf.methods.kaleidoscope.kaleido import KaleidoJudge
from plural_rlhf.methods.kaleidoscope.vectors import WORDS, BackboneVectors, TextVectors, word_vectors
from reward_models.seeds import seeded_rng
from reward_models.whole_file import whole_folder, write_arrays, write_json


__all__ = ["FittedValueJudge", "fit_value_judge", "load_value_judge", "parts_of_values"]

COMPONENTS = 32
STRENGTHS = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 1e-1, 1.0)
FOLDS = 4
LEAST = 8
"""Different situations, and different values, of a fit; a quarter of the values is held out at a time."""
SETTINGS_FILE, ARRAYS_FILE = "value_judge.json", "value_judge.safetensors"
VERSION = 1


@dataclass(frozen=True)
class FittedValueJudge:
    """A fitted `ValueJudge`.

    Attributes:
        vectors: Texts to vectors; the same as in the fit.
        relevance_weights: (1 + columns,) of the logistic regression, the constant first.
        valence_weights: (3, 1 + columns).
        centre: (2, D) means of the columns of situations and values.
        scale: (2, D) their standard deviations.
        components: (2, P, D) principal components of both, each with unit variance over the rows of the fit.
        strengths: Chosen inverse strengths of the ridge, `relevance` and `valence`.

    Example:
        >>> from plural_rlhf.methods.kaleidoscope import planted_valued_situations, word_vectors
        >>> judge = fit_value_judge(planted_valued_situations(), word_vectors)
        >>> judge.valence(["stealing a phone"], [Value("Honesty")]).round(1).tolist()  # it opposes
        [[0.0, 1.0, 0.0]]
    """

    vectors: TextVectors
    relevance_weights: np.ndarray
    valence_weights: np.ndarray
    centre: np.ndarray
    scale: np.ndarray
    components: np.ndarray
    strengths: dict[str, float]

    def relevance(self, situations: Sequence[str], values: Sequence[Value]) -> np.ndarray:
        """Return (N,) probabilities that each value matters in its situation, if half of the values did."""
        logits = self.relevance_weights[0] + self._columns(situations, values) @ self.relevance_weights[1:]
        probabilities: np.ndarray = 1 / (1 + np.exp(-logits))
        return probabilities

    def valence(self, situations: Sequence[str], values: Sequence[Value]) -> np.ndarray:
        """Return (N, 3) probabilities that each value supports, opposes, or may do either."""
        logits = self.valence_weights[:, 0] + self._columns(situations, values) @ self.valence_weights[:, 1:].T
        raised = np.exp(logits - logits.max(axis=1, keepdims=True))
        probabilities: np.ndarray = raised / raised.sum(axis=1, keepdims=True)
        return probabilities

    def save(self, folder: str | Path) -> None:
        """Write the judge, without the model that its vectors come from, whole or not at all.

        Raises:
            FileExistsError: The folder holds something.
        """
        with whole_folder(folder) as unfinished:
            arrays = {name: getattr(self, name) for name in _ARRAYS}
            write_arrays(unfinished / ARRAYS_FILE, arrays)
            made_of = {"name": self.vectors.name, "identity": self.vectors.identity}
            settings = {"version": VERSION, "vectors": made_of, "strengths": self.strengths}
            write_json(unfinished / SETTINGS_FILE, settings)

    @classmethod
    def load(cls, folder: str | Path, vectors: TextVectors | None = None) -> FittedValueJudge:
        """Read a saved judge.

        Args:
            folder: Where it was saved.
            vectors: Texts to vectors; None: of the model that it was fitted on, from where that was.

        Raises:
            ValuesError: There is no judge, or the vectors are others than those of the fit.
        """
        try:
            settings: dict[str, Any] = json.loads((Path(folder) / SETTINGS_FILE).read_text(encoding="utf-8"))
            made_of = settings["vectors"]
            stored = load_file(Path(folder) / ARRAYS_FILE)
            arrays = {name: stored[name] for name in _ARRAYS}
            strengths = dict(settings["strengths"])
        except (OSError, KeyError, TypeError, ValueError, SafetensorError) as error:
            raise ValuesError(
                f"no judge of values at {str(folder)!r} ({error}). Fix: correct the path, or fit it again."
            ) from error
        if vectors is None:
            vectors = word_vectors if made_of["name"] == WORDS else BackboneVectors(made_of["name"])
        if vectors.identity != made_of["identity"]:
            raise ValuesError(
                f"the judge at {str(folder)!r} was fitted on vectors of {made_of['name']!r}, and those of "
                f"{vectors.name!r} are others. Fix: use the same model, or fit the judge again."
            )
        return cls(vectors, **arrays, strengths=strengths)

    def _columns(self, situations: Sequence[str], values: Sequence[Value]) -> np.ndarray:
        texts = _vectors_of(self.vectors, [*situations, *(v.text for v in values)])
        pair = np.stack([texts[: len(situations)], texts[len(situations) :]])
        a, b = (pair - self.centre[:, None]) / self.scale[:, None]
        return _columns(a, b, values, self.components)


_ARRAYS = ("relevance_weights", "valence_weights", "centre", "scale", "components")


def fit_value_judge(rows: Sequence[ValuedSituation], vectors: TextVectors, *, seed: int = 0) -> FittedValueJudge:
    """Fit a judge to situations whose values and valences are known.

    Args:
        rows: Situations with their values; those without a valence count for relevance only.
        vectors: Texts to vectors, e.g. `BackboneVectors(folder)`.
        seed: Random seed of folds and of values of other situations.

    Raises:
        ValuesError: Fewer than 8 situations or values, or a valence that never occurs.

    Example:
        >>> from plural_rlhf.methods.kaleidoscope import planted_valued_situations, word_vectors
        >>> judge = fit_value_judge(planted_valued_situations(), word_vectors)
        >>> matters = judge.relevance(["stealing a phone"] * 2, [Value("Honesty"), Value("Generosity")])
        >>> bool(matters[0] > 0.5 > matters[1])
        True
    """
    situations = [row.situation for row in rows]
    texts = [row.value.text.casefold() for row in rows]
    for noun, count in (("situations", len(set(situations))), ("values", len(set(texts)))):
        if count < LEAST:
            raise ValuesError(f"{count} different {noun} are too few to hold some out. Fix: give at least {LEAST}.")
    valued = np.array([row.valence is not None for row in rows])
    classes = np.array([VALENCES.index(row.valence) for row in rows if row.valence is not None], dtype=np.int64)
    absent = [name for c, name in enumerate(VALENCES) if not (classes == c).any()]
    if absent:
        raise ValuesError(f"no row has the valence {absent[0]!r}. Fix: give rows of all three, or fewer files.")
    pair = np.stack([_vectors_of(vectors, situations), _vectors_of(vectors, [row.value.text for row in rows])])
    centre, spread = pair.mean(axis=1), pair.std(axis=1)
    scale = np.where(spread > 1e-6 * np.abs(pair).max(), spread, 1.0)
    a, b = (pair - centre[:, None]) / scale[:, None]
    components = np.stack([_components(part) for part in (a, b)])
    values = [row.value for row in rows]
    other = _values_of_others(situations, texts, seed)
    columns = _columns(a, b, values, components)
    unrelated = _columns(a, b[other], [values[i] for i in other], components)
    names = np.array(texts)
    relevance, relevance_strength = _logistic(
        np.concatenate([columns, unrelated]),
        np.repeat([1, 0], len(rows)),
        np.concatenate([names, names[other]]),
        seed,
    )
    valence, valence_strength = _logistic(columns[valued], classes, names[valued], seed)
    strengths = {"relevance": relevance_strength, "valence": valence_strength}
    return FittedValueJudge(vectors, relevance[0], valence, centre, scale, components, strengths)


def load_value_judge(path: str | Path) -> FittedValueJudge | KaleidoJudge:
    """Load a fitted judge from its folder, or a Kaleido checkpoint from anywhere else.

    Args:
        path: Folder of `FittedValueJudge.save`, or folder or Hub id of a checkpoint.

    Raises:
        ValuesError: There is neither.

    Example:
        >>> import tempfile
        >>> from plural_rlhf.methods.kaleidoscope import planted_valued_situations, word_vectors
        >>> folder = tempfile.mkdtemp()
        >>> fit_value_judge(planted_valued_situations(), word_vectors).save(folder)
        >>> type(load_value_judge(folder)).__name__
        'FittedValueJudge'
    """
    is_fitted = (Path(path) / SETTINGS_FILE).is_file()
    return FittedValueJudge.load(path) if is_fitted else KaleidoJudge.from_pretrained(path)


def parts_of_values(values: np.ndarray | Sequence[str], parts: int, rng: np.random.Generator) -> np.ndarray:
    """Divide rows into parts at random, so that all rows of a value lie in one.

    Args:
        values: Text of the value of each of `N` rows.
        parts: Number of parts.
        rng: Source of randomness.

    Returns:
        (N,) part of each row.

    Raises:
        ValuesError: There are fewer values than parts.

    Example:
        >>> parts_of_values(["honesty", "care", "honesty"], 2, np.random.default_rng(0)).tolist()
        [1, 0, 1]
    """
    names, group = np.unique(values, return_inverse=True)
    if len(names) < parts:
        raise ValuesError(f"{len(names)} values cannot be divided into {parts} parts. Fix: give more values.")
    part: np.ndarray = rng.permutation(len(names))[group] % parts
    return part


def _vectors_of(vectors: TextVectors, texts: Sequence[str]) -> np.ndarray:
    """Return (N, D) vectors; each different text is asked for once."""
    unique = list(dict.fromkeys(texts))
    found = np.asarray(vectors(unique), dtype=np.float64)
    if found.ndim != 2 or len(found) != len(unique) or not np.isfinite(found).all():
        raise ValuesError(
            f"the vectors of {len(unique)} texts have shape {found.shape}, or are not finite. Fix: return one row of "
            "finite numbers per text."
        )
    place = {text: row for row, text in enumerate(unique)}
    return found[[place[text] for text in texts]]


def _components(standard: np.ndarray) -> np.ndarray:
    """Return (P, D) directions of the largest variance, so that `standard @ components.T` has unit variance."""
    _, size, directions = np.linalg.svd(standard, full_matrices=False)
    kept = min(COMPONENTS, int((size > 1e-8 * size[0]).sum()))
    components = np.zeros((COMPONENTS, standard.shape[1]))
    components[:kept] = directions[:kept] * (np.sqrt(len(standard)) / size[:kept, None])
    return components


def _columns(a: np.ndarray, b: np.ndarray, values: Sequence[Value], components: np.ndarray) -> np.ndarray:
    kinds = np.array([[float(value.kind == kind) for kind in KINDS] for value in values])
    products = (a @ components[0].T)[:, :, None] * (b @ components[1].T)[:, None]
    return np.concatenate([a, b, products.reshape(len(a), -1), kinds], axis=1)


def _values_of_others(situations: Sequence[str], texts: Sequence[str], seed: int) -> np.ndarray:
    """Return (N,) rows whose value the situation of a row does not have, drawn as often as values occur."""
    rng = seeded_rng(seed, "values of other situations")
    has: dict[str, set[str]] = {}
    for situation, text in zip(situations, texts, strict=True):
        has.setdefault(situation, set()).add(text)
    drawn = rng.integers(len(texts), size=len(texts))
    for row, situation in enumerate(situations):
        for _ in range(100):  # a situation that has nearly all values keeps what it drew last
            if texts[drawn[row]] not in has[situation]:
                break
            drawn[row] = rng.integers(len(texts))
    return drawn


def _logistic(columns: np.ndarray, classes: np.ndarray, groups: np.ndarray, seed: int) -> tuple[np.ndarray, float]:
    """Fit at the strength with the least loss on held-out groups: (classes or 1, 1 + columns) weights."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import log_loss

    fold = parts_of_values(groups, FOLDS, seeded_rng(seed, "folds of values"))
    labels = np.unique(classes)

    losses = np.zeros(len(STRENGTHS))
    for part in range(FOLDS):
        train, test = fold != part, fold == part
        fit = LogisticRegression(max_iter=300, tol=1e-3, warm_start=True)
        for number, strength in enumerate(STRENGTHS):  # from the strongest ridge, each starts where the last ended
            fit.set_params(C=strength).fit(columns[train], classes[train])
            probabilities = np.zeros((int(test.sum()), len(labels)))
            probabilities[:, np.searchsorted(labels, fit.classes_)] = fit.predict_proba(columns[test])
            losses[number] += log_loss(classes[test], probabilities, labels=labels)
    best = STRENGTHS[int(losses.argmin())]
    fit = LogisticRegression(C=best, max_iter=300, tol=1e-3).fit(columns, classes)
    return np.concatenate([fit.intercept_[:, None], fit.coef_], axis=1), best
