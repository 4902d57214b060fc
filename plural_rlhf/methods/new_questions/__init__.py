"""What people would answer to questions that nobody was asked, from the wording of those that they were.

The mean of the known questions, the marginal, weighted by how alike the wordings are
(`reward_models.fit_similar_questions`). Each known question is predicted from the others first, which says whether
that is better than the marginal on the questions at hand. Trains nothing; knows no policy and no command.

Example:
    >>> from plural_rlhf.methods.new_questions import NewQuestion, predict_questions
    >>> from reward_models import planted_judgements
    >>> judgements = planted_judgements("choice", num_raters=40, num_items=8).judgements
    >>> by_length = lambda texts: [[float(len(text))] for text in texts]
    >>> [[everybody]] = predict_questions(judgements, [NewQuestion("new", "Question 9?")], by_length)
    >>> everybody.group, everybody.shares.shape
    ('everybody', (1, 3))
"""

from __future__ import annotations

from reward_models.lazy_names import lazy_names


__getattr__, __dir__, __all__ = lazy_names(__name__, __file__)
