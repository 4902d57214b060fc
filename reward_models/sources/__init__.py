"""Adapters from real data to the judgement table: surveys of the `demo` extra, and any table with a column map."""

from __future__ import annotations

from reward_models.sources.survey import SURVEYS, load_survey, survey_labels
from reward_models.sources.table import load_table


__all__ = ["SURVEYS", "load_survey", "load_table", "survey_labels"]
