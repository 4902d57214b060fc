"""What a training changed elsewhere: the table, the finding, and where nothing was measured."""

from __future__ import annotations

import pytest

from plural_rlhf.report.headline import headline
from plural_rlhf.report.points import elsewhere_sentence, elsewhere_table
from plural_rlhf.report.results import RunResults
from plural_rlhf.report.results_policies import ElsewhereResult
from plural_rlhf.report.sections import report_sections
from tests.report_fixtures import stored_results


def results(low, value=0.37, method="plural"):
    row = ElsewhereResult(method=method, kl_per_token=value, ci_low=low, ci_high=0.5, n=16)
    return RunResults(elsewhere=[row])


def test_a_policy_that_has_moved_elsewhere_is_a_finding():
    said = elsewhere_sentence(results(0.21))
    assert "0.37 nats per token" in said
    assert "rehearsal.weight" in said
    moved = stored_results().model_copy(update={"elsewhere": results(0.21).elsewhere})
    assert said in headline(moved)


@pytest.mark.parametrize("found", [results(0.1), results(0.05), results(0.3, method="grpo"), RunResults()])
def test_one_that_may_not_have_moved_is_none(found):
    assert elsewhere_sentence(found) == ""


def test_every_policy_has_a_row_with_its_interval():
    stored = stored_results()
    rows = elsewhere_table(stored).rows
    assert [row[0] for row in rows] == ["after warm-up (pi_ref)", "stock GRPO", "plural (ours)"]
    assert rows[0][1:] == ["0.057 [0.032, 0.088]", "16"]
    assert "elsewhere" in [section.key for section in report_sections(stored)]


def test_a_run_of_an_earlier_version_has_no_such_section():
    earlier = stored_results().model_copy(update={"elsewhere": []})
    assert "elsewhere" not in [section.key for section in report_sections(earlier)]
