"""Value Kaleidoscope: which values, rights and duties matter in a situation, and what each says of it.

A judge of values comes from a published Kaleido checkpoint or is fitted to a table; its judgements are objectives for
an aggregator, windows of views for Overton measures, and a number of how ambiguous a situation is (Sorensen and others
2023; `docs/papers.md`).

Example:
    >>> from plural_rlhf.methods.kaleidoscope import Value, fit_value_judge, planted_valued_situations, word_vectors
    >>> judge = fit_value_judge(planted_valued_situations(), word_vectors)
    >>> judge.valence(["returning a phone"], [Value("Honesty")]).round(1).tolist()  # supports
    [[1.0, 0.0, 0.0]]
"""

from __future__ import annotations

from reward_models.lazy_names import lazy_names


__getattr__, __dir__, __all__ = lazy_names(__name__, __file__)
