"""Value profiles: what a rater values in words, and how much of the rater the words preserve.

A profile is made from some judgements of a rater, and is worth what it says of the others: usable information, in
nats. Clusters of raters are clusters of profiles (Value Profiles, Sorensen and others 2025; `docs/papers.md`).

Example:
    >>> from plural_rlhf.methods.value_profiles import usable_information
    >>> from reward_models import planted_judgements
    >>> judgements = planted_judgements("choice", num_raters=100, num_items=10).judgements
    >>> report = usable_information(judgements, sizes=(2,), splits=1)
    >>> report.row("2 clusters").info > 0.1  # nats per judgement
    True
"""

from __future__ import annotations

from reward_models.lazy_names import lazy_names


__getattr__, __dir__, __all__ = lazy_names(__name__, __file__)
