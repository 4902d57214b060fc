"""Refusal of a rule that compares heads which are not on one scale. Knows nothing of how heads are calibrated."""

from __future__ import annotations

from plural_rlhf.core.rules import Rule
from reward_models.errors import JuryError
from reward_models.jury.protocol import ClusterScorer


__all__ = ["require_calibrated"]


def require_calibrated(
    rule: Rule | None, scorer: ClusterScorer, calibrated: bool | None = None, why: str = "calibrated=True requires it"
) -> None:
    """Raise if a rule compares heads that are not on one scale.

    Args:
        rule: The rule; None for the pool, which compares no heads.
        scorer: Its attribute `calibrated` says whether its heads are on one scale; a scorer without it counts as not
            calibrated.
        calibrated: `True` requires one scale under any rule, `False` under none, None if the rule compares heads.
        why: The reason in the message where `calibrated` is true.

    Raises:
        JuryError: If the heads are not on one scale, and the rule or `calibrated` requires it.

    Example:
        >>> class RawHeads:  # stands for a scorer
        ...     calibrated = False
        >>> require_calibrated(Rule.parse("borda"), RawHeads())
        >>> require_calibrated(Rule.parse("min"), RawHeads())
        Traceback (most recent call last):
        reward_models.errors.JuryError: the heads of this RawHeads have not been put on one scale (the rule 'min' ...
    """
    required = (rule is not None and rule.compares_heads) if calibrated is None else calibrated
    if not required or getattr(scorer, "calibrated", False):
        return
    why = f"the rule {str(rule)!r} compares one cluster's score with another's" if calibrated is None else why
    raise JuryError(
        f"the heads of this {type(scorer).__name__} have not been put on one scale ({why}), and a logit of one head "
        "is not a logit of another: call JuryScorer.calibrate with samples of the reference policy and load the jury "
        "with calibrated=True (or set calibrated = True on your own scorer if its heads are comparable), choose a "
        "rule that needs no common scale (pool, borda, copeland, schulze, maximal_lottery, random_dictator), or pass "
        "calibrated=False (on the command line --uncalibrated) to accept the heads as they are."
    )
