"""Measure policies and the decisions of juries.

`distribution` compares a policy's answers with those of people, `in_context` whether a model predicts a person
from that person's earlier answers, and `tables` has people's answers for both; `open_ended` is about texts that are
written freely, with `diversity` for how different texts are; `steerable` measures whether a policy follows the weights
in its prompt; `decisions` has the verdicts of juries, the changes of weights that flip them, who gains by a rule, and
whether exaggeration pays. No room here needs a trainer.

Example:
    >>> from plural_rlhf.evaluation import hypervolume
    >>> float(hypervolume([[1.0, 2.0], [2.0, 1.0]], [0.0, 0.0]))
    3.0
"""

from __future__ import annotations

from reward_models.lazy_names import lazy_names


__getattr__, __dir__, __all__ = lazy_names(__name__, __file__)
