"""What a run found, for people: typed results, tables, plots, Markdown and one self-contained HTML page.

Example:
    >>> from plural_rlhf.report import RunResults
    >>> RunResults(config={"name": "trial"}).to_dict()
    {'schema_version': 1, 'config': {'name': 'trial'}}
"""

from __future__ import annotations

from reward_models.lazy_names import lazy_names


__getattr__, __dir__, __all__ = lazy_names(__name__, __file__)
