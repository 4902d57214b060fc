"""Spectrum Tuning: learn to imitate whatever distribution a few examples come from.

A sequence shows what its examples are drawn from (a description), and examples of it: the answers of one person, draws
of one random variable, texts of one kind. The model is trained to give the next example its probability, so that at
test time examples of a new person or distribution steer it (Spectrum Tuning, Sorensen and others; `docs/papers.md`).

Example:
    >>> from plural_rlhf.methods.spectrum import Example, SpectrumSequence
    >>> person = SpectrumSequence((Example("agree", "More parks?"), Example("disagree", "More roads?")), "One voter.")
    >>> len(person.examples)
    2
"""

from __future__ import annotations

from reward_models.lazy_names import lazy_names


__getattr__, __dir__, __all__ = lazy_names(__name__, __file__)
