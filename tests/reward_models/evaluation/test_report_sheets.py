"""What a report of an evaluation says beside its tables."""

from __future__ import annotations

from reward_models.evaluation.evaluate_jury import JuryEvaluation
from reward_models.evaluation.report import report_sheets


def test_what_could_not_be_measured_is_told_once_per_reason_with_its_first_place():
    few, ties = "5 raters are too few", "every pair is a tie"
    rows = [
        {"case": "new rater", "method": method, "metric": metric, "skipped": reason}
        for method, metric, reason in (("jury", "accuracy", ties), ("jury", "nll", few), ("bt", "nll", few))
    ]
    *_, skipped, verdict = report_sheets(JuryEvaluation(rows, [], None, "nothing was compared."))
    assert skipped.splitlines() == [
        "3 rows could not be measured:",
        "  skipped: every pair is a tie (new rater / jury / accuracy)",
        "  skipped: 5 raters are too few (new rater / jury / nll and 1 more)",
    ]
    assert verdict == "Verdict: nothing was compared."
