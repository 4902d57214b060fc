"""Read data as judgement tables: surveys, original releases of multi-rater data, files with a column map.

`planted_judgements` draws tables with known clusters. Knows nothing of models.
"""

from __future__ import annotations

from reward_models.sources.planted import PlantedJudgements, planted_judgements
from reward_models.sources.releases import RELEASES, Release, load_release
from reward_models.sources.survey import SURVEYS, load_survey, survey_labels
from reward_models.sources.table import load_table, read_table


__all__ = [
    "RELEASES",
    "SURVEYS",
    "PlantedJudgements",
    "Release",
    "load_release",
    "load_survey",
    "load_table",
    "planted_judgements",
    "read_table",
    "survey_labels",
]
