"""Modular Pluralism: one base model, and a community of people behind each of several small adapters.

Each community of a population has a LoRA adapter, trained on what its people answered or wrote. The base model and its
adapters together answer in three modes (Modular Pluralism, Feng and others 2024; `docs/papers.md`): *distributional*,
the communities' distributions averaged by their shares; *steerable*, one community speaks for whoever is asked for;
*Overton*, the base model sums up what every community has to say. A community that was forgotten is added later, and
nothing else is trained again.

Example:
    >>> from plural_rlhf.methods.modular import communities_by_trait
    >>> from reward_models import Judgements, planted_judgements
    >>> frame = planted_judgements("choice", num_raters=40, num_items=3).judgements.frame.copy()
    >>> frame["rater:side"] = ["left" if int(rater[1:]) % 4 else "right" for rater in frame["rater_id"]]
    >>> communities = communities_by_trait(Judgements.from_frame(frame, kind="choice"), "side", fewest=10)
    >>> [(community.name, community.share) for community in communities]
    [('left', 0.75), ('right', 0.25)]
"""

from __future__ import annotations

from reward_models.lazy_names import lazy_names


__getattr__, __dir__, __all__ = lazy_names(__name__, __file__)
