"""Spectrum Suite: a catalogue of tasks as sequences of examples, to train and test how a model takes up distributions.

Not to be confused with the suites of `plural_rlhf.suites`, which ask a model questions: here a task is training data.
The catalogue (`catalogue.yaml`) says of each task what it is, whose it is and how it is read; `build_tasks` builds
those whose data is there.

Example:
    >>> from plural_rlhf.methods.spectrum_suite import SuiteData, read_catalogue
    >>> [coin] = read_catalogue().choose(["coin"])
    >>> coin.kind, len(coin.sequences(SuiteData("nowhere", sequences=3)))
    ('synthetic', 3)
"""

from __future__ import annotations

from reward_models.lazy_names import lazy_names


__getattr__, __dir__, __all__ = lazy_names(__name__, __file__)
