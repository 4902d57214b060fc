"""Steering to individuals: predict a person from the person's own judgements, read in context.

A model reads traits and as many of the person's judgements as are given, and says how the person judges next
(Opt-ICL; Spectrum Tuning, Sorensen and others 2025). Where few judgements are known, a jury's posterior helps.

Example:
    >>> from plural_rlhf.evaluation.in_context.sequences import judgement_sequences
    >>> from plural_rlhf.methods.individuals import JuryReader, most_recent
    >>> from reward_models import planted_judgements
    >>> people = judgement_sequences(planted_judgements("choice", num_raters=60, num_items=8, strength=4.0).judgements)
    >>> jury = JuryReader.fit(people[:40], 2)
    >>> shares = jury.shares(people[50], most_recent(people[50], 7, 4), 7)  # four answers read, the eighth predicted
    >>> shares.shape, round(float(shares.sum()), 6)
    ((3,), 1.0)
"""

from __future__ import annotations

from reward_models.lazy_names import lazy_names


__getattr__, __dir__, __all__ = lazy_names(__name__, __file__)
