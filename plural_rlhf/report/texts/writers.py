"""Who wrote and who judged, as the settings of some `TextResults` name them. Knows nothing of measures."""

from __future__ import annotations

from collections.abc import Mapping

from plural_rlhf.report.results_policies import TextResults


__all__ = ["PEOPLE", "clusters", "judge", "prompts", "reference", "trained", "writers"]

PEOPLE = "people"
"""How people are called where they stand beside policies."""


def reference(results: TextResults) -> str:
    """Return the name of the policy before training.

    Example:
        >>> reference(TextResults(split="heldout", weighting="all", settings={"reference": "warm"}))
        'warm'
    """
    return str(results.settings.get("reference", ""))


def writers(results: TextResults) -> list[str]:
    """Return people, if they wrote, and the policies in the order in which they were measured.

    Example:
        >>> writers(TextResults(split="heldout", weighting="all", settings={"policies": ["warm", "plural"]}))
        ['warm', 'plural']
    """
    policies = results.settings.get("policies", [])
    wrote = [PEOPLE] if any(row.policy == PEOPLE for row in results.rows) else []
    return [*wrote, *(policies if isinstance(policies, list) else [])]


def trained(results: TextResults) -> list[str]:
    """Return the policies but the one before training.

    Example:
        >>> settings = {"policies": ["warm", "plural"], "reference": "warm"}
        >>> trained(TextResults(split="heldout", weighting="all", settings=settings))
        ['plural']
    """
    return [policy for policy in writers(results) if policy not in (PEOPLE, reference(results))]


def prompts(results: TextResults) -> list[str]:
    """Return the names of the prompts.

    Example:
        >>> prompts(TextResults(split="heldout", weighting="all", settings={"prompts": ["What now?"]}))
        ['What now?']
    """
    names = results.settings.get("prompts", [])
    return names if isinstance(names, list) else []


def clusters(results: TextResults, jury: str) -> dict[str, float]:
    """Return the weights of a jury's clusters by name; empty without the jury.

    Example:
        >>> settings = {"clusters": {"training": {"urban": 0.6, "rural": 0.4}}}
        >>> results = TextResults(split="heldout", weighting="all", settings=settings)
        >>> clusters(results, "training"), clusters(results, "heldout")
        ({'urban': 0.6, 'rural': 0.4}, {})
    """
    juries = results.settings.get("clusters", {})
    return dict(juries.get(jury, {})) if isinstance(juries, Mapping) else {}


def judge(results: TextResults) -> str:
    """Return the jury to believe: the held-out one where there is one.

    Example:
        >>> judge(TextResults(split="heldout", weighting="all"))
        'training'
    """
    return "heldout" if clusters(results, "heldout") else "training"
