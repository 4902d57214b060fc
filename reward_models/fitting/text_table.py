"""Numbers that belong to texts: looked up where a text is known, linear in its features where it is new.

What a model fitted on labels found out about each text (its reward, its loadings on tastes) becomes a table. A ridge
regression on the texts' features, weighted by how much the labels say about each text, extends it to texts that nobody
judged; the strength of the ridge is chosen on left-out questions, column by column, and may be so strong that a new
text is the average text. Knows nothing of raters or of what the columns mean.

Shapes: `U` texts, `C` columns, `D` features, `d` principal components.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from reward_models.errors import JuryError
from reward_models.judgements.encoding import Encoded
from reward_models.judgements.texts import Text
from reward_models.stats.groups import centre_within_groups


__all__ = ["TextTable", "check_features", "extend_to_features"]

MAX_COMPONENTS = 512
RIDGE_GRID = 10.0 ** np.arange(4.0, -4.1, -0.5)  # relative to the mean variance of a component, strong to weak
FOLDS = 5
FEW_PROMPTS = 10  # below it a question is a text: statements under one heading


@dataclass(frozen=True)
class TextTable:
    """Columns of numbers per text.

    Attributes:
        texts: `U` known texts.
        values: (U, C).
        weight: (D, C) linear map from features for other texts; None: they cannot be had.
        bias: (C,).
    """

    texts: list[Text]
    values: np.ndarray
    weight: np.ndarray | None = None
    bias: np.ndarray | None = None

    def rows(self, enc: Encoded, features: np.ndarray | None = None) -> np.ndarray:
        """(U', C) values of `enc.texts`; zero for those that no judgement of `enc` mentions and that are not known.

        Args:
            enc: Judgements.
            features: (U', D) rows for `enc.texts`; needed when some are new.

        Raises:
            JuryError: New texts without features, or with features that do not fit.
        """
        index = {text: i for i, text in enumerate(self.texts)}
        own = np.array([index.get(text, -1) for text in enc.texts], dtype=np.int64)
        used = np.unique(enc.alternatives[enc.alternatives >= 0])
        new = used[own[used] < 0]
        values = np.where(own[:, None] >= 0, self.values[own], 0.0)
        if not len(new):
            return values
        first = f"{len(new)} of {len(used)} texts were not in the fit, the first: {enc.texts[new[0]]!r}"
        if self.weight is None or self.bias is None:
            raise JuryError(
                f"{first}. The model was fitted without features and knows only its own texts; fit it "
                "with features=... to score new ones"
            )
        if features is None:
            raise JuryError(f"{first}. Pass features, one row per entry of Encoded.texts, as in the fit")
        check_features(enc, features)
        if features.shape[1] != len(self.weight):
            raise JuryError(
                f"features have {features.shape[1]} columns, the model was fitted to {len(self.weight)}; use the same "
                "backbone and layers as in the fit"
            )
        values[new] = features[new].astype(np.float64) @ self.weight + self.bias
        return values


def check_features(enc: Encoded, features: np.ndarray) -> None:
    """Refuse features that do not belong to the texts.

    Raises:
        JuryError: Another number of rows than texts, or entries that are not finite.
    """
    if features.ndim != 2 or len(features) != enc.n_texts:
        raise JuryError(
            f"features have shape {features.shape}, but there are {enc.n_texts} unique texts; pass one row per entry "
            "of Encoded.texts, in that order"
        )
    if not np.isfinite(features).all():
        bad = int((~np.isfinite(features)).any(1).sum())
        raise JuryError(
            f"{bad} of {len(features)} rows of features hold NaN or infinity; compute them in float32 rather than "
            "float16"
        )


def extend_to_features(
    enc: Encoded, values: np.ndarray, information: np.ndarray, features: np.ndarray, seed: int = 0
) -> TextTable:
    """Regress what is known of the texts on their features.

    Args:
        enc: The judgements behind `values`; their kind says which texts compare: those of one prompt, or all ratings.
        values: (U, C) label-level values of `enc.texts`.
        information: (U,) what the labels say about each text, in 1 / logit^2 (its Fisher information). A text counts
            `information / (1 + information)`: beyond its labels' noise it differs from the linear function by about a
            logit anyway.
        features: (U, D) one row per text.
        seed: Of the folds.

    Returns:
        The known values of the texts that were judged, and the linear map for other texts.

    Raises:
        JuryError: Features that do not fit, or fewer than two judged texts.
    """
    check_features(enc, features)
    judged = np.flatnonzero(information > 0)
    if len(judged) < 2:
        raise JuryError(f"{len(judged)} judged text: a function of features needs at least two to be fitted to")
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
    fold = np.random.default_rng(seed).permutation(question.max() + 1)[question] % FOLDS
    errors = np.zeros((len(RIDGE_GRID), y.shape[1]))
    for out in (fold == f for f in range(FOLDS)):
        if out.any() and not out.all():
            for i, heads in enumerate(_ridge(z[~out], y[~out], weight[~out], unit)):
                errors[i] += weight[out] @ (y[out] - z[out] @ heads) ** 2
    chosen = errors.argmin(0)
    every = np.stack(_ridge(z, y, weight, unit))  # (grid, d, C)
    inner = np.take_along_axis(every, chosen[None, None], axis=0)[0]
    heads = components @ inner
    bias = offset - features.mean(0) @ heads - middle @ inner
    return TextTable([enc.texts[i] for i in judged], values[judged], heads, bias)


def _ridge(z: np.ndarray, y: np.ndarray, weight: np.ndarray, unit: float) -> list[np.ndarray]:
    """(d, C) heads at each strength of `RIDGE_GRID`, times `unit`."""
    size, basis = np.linalg.eigh((z * weight[:, None]).T @ z)
    target = basis.T @ ((z * weight[:, None]).T @ y)
    return [basis @ (target / (np.maximum(size, 0.0) + strength * unit)[:, None]) for strength in RIDGE_GRID]


def _questions(enc: Encoded, judged: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Prompt and question of the judged texts, numbered: left out together are the texts of one question."""
    prompts = {enc.texts[i].prompt: i for i in judged}
    prompt = np.unique([prompts[enc.texts[i].prompt] for i in judged], return_inverse=True)[1]
    return prompt, prompt if prompt.max() + 1 >= FEW_PROMPTS else np.arange(len(judged))
