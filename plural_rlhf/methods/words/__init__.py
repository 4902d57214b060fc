"""Conditioning on words: who is asked stands before the question as text, for a policy and for a jury.

Clusters are learned from answers, and a person belongs to one only after some answers. Words (a party, an age, a
sentence about oneself) are known before any answer, and a model that reads them can be asked as somebody whom no
training person was like. Whether that says more than clusters do is a matter of measurement: `benchmarks/methods.py`.

Example:
    >>> from plural_rlhf.methods.words import public_in_words
    >>> public_in_words({"party": "Democrat"})
    'Answer as a member of this public: party: Democrat.'
"""

from __future__ import annotations

from reward_models.lazy_names import lazy_names


__getattr__, __dir__, __all__ = lazy_names(__name__, __file__)
