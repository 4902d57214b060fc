"""Numbers per text: looked up where the text is known, linear in its features where it is new.

What a model fitted on labels has learnt about each text (its reward, its loadings on tastes) becomes a table. A ridge
regression on the texts' features, weighted by how much the labels tell about each text, extends the table to texts
that nobody judged. The strength of the ridge is chosen on held-out questions, column by column; it may be so strong
that a new text is predicted as the average text. Knows nothing of raters or of what the columns mean.

Shapes: `U` texts, `C` columns, `D` features, `d` principal components.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from reward_models.errors import JuryError
from reward_models.judgements.encoding import Encoded
from reward_models.judgements.texts import Text
from reward_models.raters.predictors import positions
from reward_models.seeds import seeded_rng
from reward_models.stats.groups import centre_within_groups


__all__ = ["TextTable", "check_features", "extend_to_features", "feature_rows", "label_information"]

MAX_COMPONENTS = 512
RIDGE_GRID = 10.0 ** np.arange(4.0, -4.1, -0.5)  # relative to the mean variance of a component, strong to weak
FOLDS = 5
LARGEST_FEATURE = 1e30  # squares of larger ones, and rewards per unit of them, are out of range
FEW_PROMPTS = 10  # with fewer prompts (statements under one heading) a question is a text


@dataclass(frozen=True)
class TextTable:
    """Columns of numbers per text.

    Attributes:
        texts: `U` known texts.
        values: (U, C) their numbers.
        weight: (D, C) linear map from the features of other texts; None: other texts cannot be scored.
        bias: (C,) constant of that map.

    Example:
        >>> from reward_models import planted_judgements
        >>> planted = planted_judgements("rating", num_items=3)
        >>> table = TextTable(planted.texts, planted.rewards)
        >>> bool((table.rows(planted.judgements.encode()) == planted.rewards).all())
        True
    """

    texts: list[Text]
    values: np.ndarray
    weight: np.ndarray | None = None
    bias: np.ndarray | None = None

    def rows(self, enc: Encoded, features: np.ndarray | None = None) -> np.ndarray:
        """Return the (U', C) values of `enc.texts`; zero for unknown texts without a judgement in `enc`.

        Args:
            enc: Judgements.
            features: (U', D) rows for `enc.texts`; required if a judged text is new.

        Raises:
            JuryError: A new text without features, or features that do not match.
        """
        row = positions(enc.texts, self.texts)
        judged = np.unique(enc.alternatives[enc.alternatives >= 0])
        new = judged[row[judged] < 0]
        values = np.where(row[:, None] >= 0, self.values[row], 0.0)
        if not len(new):
            return values
        first = f"{len(new)} of {len(judged)} texts were not in the fit, the first: {enc.texts[new[0]]!r}"
        if self.weight is None or self.bias is None:
            raise JuryError(
                f"{first}. The model was fitted without features and knows the texts of the fit only. Fix: fit it "
                "with features=..."
            )
        if features is None:
            raise JuryError(f"{first}. Fix: pass features, one row per entry of Encoded.texts, as in the fit")
        check_features(enc, features)
        if features.shape[1] != len(self.weight):
            raise JuryError(
                f"features have {features.shape[1]} columns, the model was fitted to {len(self.weight)}. Fix: use the "
                "same backbone and layers as in the fit"
            )
        values[new] = features[new].astype(np.float64) @ self.weight + self.bias
        return values


def feature_rows(features: np.ndarray | Sequence[np.ndarray]) -> list[np.ndarray]:
    """Return the features of each table; whatever turns into an array, such as a tensor, is that of one table.

    Example:
        >>> [rows.shape for rows in feature_rows(np.eye(3))], [rows.shape for rows in feature_rows([np.eye(3)] * 2)]
        ([(3, 3)], [(3, 3), (3, 3)])
    """
    return [np.asarray(rows) for rows in (features if isinstance(features, Sequence) else [features])]


def check_features(enc: Encoded, features: np.ndarray) -> None:
    """Raise if features do not match the texts.

    Raises:
        JuryError: Another number of rows than texts, or entries that are no numbers, not finite or too large.

    Example:
        >>> from reward_models import planted_judgements
        >>> check_features(planted_judgements("rating").judgements.encode(), np.zeros((5, 8)))
        Traceback (most recent call last):
            ...
        reward_models.errors.JuryError: features have shape (5, 8), but there are 12 unique texts. Fix: ...
    """
    if features.ndim == 1 and len(features) == enc.n_texts:
        raise JuryError(
            f"features have shape {features.shape}: one number a text, where each text needs a row. Fix: pass "
            "features[:, None]"
        )
    if features.ndim != 2 or len(features) != enc.n_texts:
        raise JuryError(
            f"features have shape {features.shape}, but there are {enc.n_texts} unique texts. Fix: pass one row per "
            "entry of Encoded.texts, in that order"
        )
    if features.dtype.kind not in "biuf":
        raise JuryError(
            f"features are of type {features.dtype}, not numbers. Fix: pass numbers, e.g. features.astype(float), and "
            "leave out the judgements of texts that have no vector"
        )
    bad = np.flatnonzero(~np.isfinite(features).all(1))
    if len(bad):
        raise JuryError(
            f"{len(bad)} of {len(features)} rows of features hold NaN or infinity, the first that of "
            f"{enc.texts[bad[0]]!r}. Fix: compute them in float32 instead of float16, and leave out the judgements of "
            "texts that have no vector"
        )
    largest = max(float(features.max(initial=0)), -float(features.min(initial=0)))
    if largest > LARGEST_FEATURE:
        raise JuryError(
            f"features are as large as {largest:.1e}, and more than {LARGEST_FEATURE:.0e} cannot be computed with. "
            "Fix: divide them by a number, the same for all texts"
        )


def extend_to_features(
    enc: Encoded, values: np.ndarray, information: np.ndarray, features: np.ndarray, seed: int = 0
) -> TextTable:
    """Regress the values of the judged texts on their features.

    Args:
        enc: The judgements behind `values`; ratings compare all texts, other kinds those of one prompt.
        values: (U, C) label-level values of `enc.texts`.
        information: (U,) Fisher information of the labels about each text, in 1 / logit^2. A text has the weight
            `information / (1 + information)`, because besides the noise of its labels it differs from the linear
            function by about one logit.
        features: (U, D) one row per text.
        seed: Random seed of the folds.

    Returns:
        The values of the judged texts, and the linear map for other texts.

    Raises:
        JuryError: Features that do not match, or fewer than two judged texts.

    Example:
        Rewards that are linear in two features, known of four of six texts, are extended to the others:

        >>> from reward_models import planted_judgements
        >>> enc = planted_judgements("rating", num_items=6).judgements.encode()
        >>> features = np.random.default_rng(0).normal(size=(6, 2))
        >>> rewards = features @ np.array([[1.0], [-1.0]])
        >>> information = np.array([100.0, 100.0, 100.0, 100.0, 0.0, 0.0])
        >>> table = extend_to_features(enc, rewards, information, features)
        >>> np.abs(table.rows(enc, features) - rewards).max() < 0.01
        np.True_
    """
    check_features(enc, features)
    judged = np.flatnonzero(information > 0)
    if len(judged) < 2:
        raise JuryError(
            f"{len(judged)} judged text: a linear function of features needs at least two. Fix: pass features=None "
            "or more judgements"
        )
    scale = features.std(0)
    inverse = np.divide(1.0, scale, out=np.zeros(len(scale)), where=scale > 1e-12)
    x = (features[judged] - features.mean(0)) * inverse
    _, _, right = np.linalg.svd(x, full_matrices=False)
    components = right[:MAX_COMPONENTS].T * inverse[:, None]  # (D, d)
    z, y = (features[judged] - features.mean(0)) @ components, values[judged]
    weight = information[judged] / (1.0 + information[judged])

    prompt, question = _questions(enc, judged)
    if enc.kind != "rating":
        z, y = centre_within_groups(z, prompt), centre_within_groups(y, prompt)
    offset = np.average(y, axis=0, weights=weight) if enc.kind == "rating" else np.zeros(y.shape[1])
    middle = np.average(z, axis=0, weights=weight)
    z, y = z - middle, y - offset
    unit = np.trace((z * weight[:, None]).T @ z) / z.shape[1]
    fold = seeded_rng(seed, "folds of text table").permutation(question.max() + 1)[question] % FOLDS
    errors = np.zeros((len(RIDGE_GRID), y.shape[1]))
    for out in (fold == f for f in range(FOLDS)):
        if out.any() and not out.all():
            for i, heads in enumerate(_ridge(z[~out], y[~out], weight[~out], unit)):
                errors[i] += weight[out] @ (y[out] - z[out] @ heads) ** 2
    best = errors.argmin(0)
    every = np.stack(_ridge(z, y, weight, unit))  # (grid, d, C)
    inner = np.take_along_axis(every, best[None, None], axis=0)[0]
    heads = components @ inner
    bias = offset - features.mean(0) @ heads - middle @ inner
    return TextTable([enc.texts[i] for i in judged], values[judged], heads, bias)


def label_information(enc: Encoded) -> np.ndarray:
    """Approximate the (U,) Fisher information of the labels about each text, in 1 / logit^2.

    Each judgement counts a quarter, the information of a fair coin: the most that a judgement of two answers can hold.

    Example:
        >>> from reward_models import planted_judgements
        >>> label_information(planted_judgements("rating", num_raters=8, num_items=2).judgements.encode()).tolist()
        [2.0, 2.0]
    """
    offered = enc.alternatives >= 0
    weight = np.broadcast_to(enc.weight[:, None], enc.alternatives.shape)[offered]
    return 0.25 * np.bincount(enc.alternatives[offered], weight, enc.n_texts)


def _ridge(z: np.ndarray, y: np.ndarray, weight: np.ndarray, unit: float) -> list[np.ndarray]:
    """(d, C) heads for each strength in `RIDGE_GRID` times `unit`."""
    size, basis = np.linalg.eigh((z * weight[:, None]).T @ z)
    target = basis.T @ ((z * weight[:, None]).T @ y)
    return [basis @ (target / (np.maximum(size, 0.0) + strength * unit)[:, None]) for strength in RIDGE_GRID]


def _questions(enc: Encoded, judged: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Prompt and question of each judged text, numbered; the texts of one question are held out together."""
    prompts = {enc.texts[i].prompt: i for i in judged}
    prompt = np.unique([prompts[enc.texts[i].prompt] for i in judged], return_inverse=True)[1]
    return prompt, prompt if prompt.max() + 1 >= FEW_PROMPTS else np.arange(len(judged))
