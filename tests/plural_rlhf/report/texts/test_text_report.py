"""The page on freely written texts: what it says, what it leaves out, and texts that look like HTML."""

from __future__ import annotations

import json
import re
from collections import Counter

import numpy as np
import pytest
import torch

from plural_rlhf.evaluation import PolicySamples, evaluate_open_ended
from plural_rlhf.report import write_report, write_text_report
from plural_rlhf.report.results_policies import TextResults
from plural_rlhf.report.texts import figures, sections
from plural_rlhf.report.texts.figures import not_mapped, plot_approvals, plot_covered, plot_gain_against_kl, plot_map
from plural_rlhf.report.texts.findings import MOSTLY_BROKEN, text_findings
from plural_rlhf.report.texts.tables import LITTLE_KEPT


class Camps:
    cluster_names = ("parks", "roads <b>")
    prevalence = np.array([0.6, 0.4])

    def cluster_rewards(self, prompts, completions):
        return torch.tensor([[4.0 * ("parks" in c) - 2, 4.0 * ("roads" in c) - 2] for c in completions])


@pytest.fixture(scope="module")
def values():
    rng = np.random.default_rng(0)

    def write(n, words):
        return {
            prompt: [f"{rng.choice(words)} {rng.choice(['now', 'later', 'never'])} {prompt}" for _ in range(n)]
            for prompt in ("Q1?", "Q2?", "Q3?")
        }

    texts = {"before": write(8, ["parks", "roads"]), "ours": write(8, ["parks", "roads"])}
    texts["grpo $x$"] = {prompt: ["parks <script>alert(1)</script> | no"] * 8 for prompt in texts["before"]}
    samples = {
        name: PolicySamples(
            of,
            log_probs={prompt: [-5.0 + gain] * 8 for prompt in of},
            reference_log_probs={prompt: [-5.0] * 8 for prompt in of},
        )
        for (name, of), gain in zip(texts.items(), (0.0, 0.2, 4.0), strict=True)
    }
    results = evaluate_open_ended(
        samples,
        Camps(),
        heldout_scorer=Camps(),
        people=write(20, ["parks", "roads"]),
        embed=lambda some: np.array([[len(t), t.count("a"), "roads" in t, "now" in t] for t in some], float),
        reference="before",
        beta=4.0,
        rule="same words",
        draws=50,
    )
    return json.loads(json.dumps(results.to_dict(), allow_nan=False))


def test_page_stands_alone_and_escapes_texts(values, tmp_path):
    page = write_text_report(values, tmp_path, "a trial <1>")
    html = page.read_text(encoding="utf-8")
    assert "a trial &lt;1&gt;: what the run found" in html
    assert "<script>alert" not in html
    assert "roads <b>" not in html
    assert not re.findall(r'(?:src|href)="(?!#|data:)', html)  # nothing is loaded
    assert html.count('type="search"') == 1
    assert html.count("<td>ours</td>") > 8 * 3
    assert {file.name for file in (tmp_path / "figures").iterdir()} == {
        f"text_{name}.png" for name in ("approvals", "people", "map", "gain")
    }
    markdown = (tmp_path / "report.md").read_text(encoding="utf-8")
    assert "people against people" in markdown
    assert "alert(1)" not in markdown  # samples are on the page only


def found(rows, *, policies=("warm", "plural", "grpo"), reference="warm", heldout=False, split="heldout", **options):
    """The findings of rows (policy, measure, value, further columns)."""
    juries = {"training": {"a": 0.5, "b": 0.5}} | ({"heldout": {"a": 0.5, "b": 0.5}} if heldout else {})
    settings = {"policies": list(policies), "reference": reference, "clusters": juries}
    rows = [{"policy": policy, "measure": measure, "value": value, **more} for policy, measure, value, more in rows]
    one = TextResults(split=split, weighting="all", rows=rows, settings=settings)
    return [sentence.replace("\N{NO-BREAK SPACE}", " ") for sentence in text_findings([one], **options)]


def test_findings_of_any_policies_compare_the_first_with_the_others(values):
    results = TextResults(split="heldout", weighting="all", **values)
    sentences = [s.replace("\N{NO-BREAK SPACE}", " ") for s in text_findings([results])]
    ours, rival = (results.row(p, "classes_ratio_to_reference").value for p in ("ours", "grpo $x$"))
    assert rival < 0.7
    assert f"ours: Its texts say {ours:.0%}".replace("%", " %") in sentences[1]
    assert f"as those of before, grpo $x$'s {rival:.0%}.".replace("%", " %") in sentences[1]
    untold = results.row("ours", "share_error", jury="heldout")
    assert untold.value is None
    assert sentences[0].startswith(
        "ours: For which cluster of people its texts were written cannot be told (on held-out prompts, by a jury of "
        f"raters that took no part): {untold.reason}"
    )


def test_findings_set_the_error_of_shares_beside_chance_and_one_camp():
    of = {"jury": "training"}
    rows = [
        ("plural", "share_error", 0.12, of | {"floor": 0.2, "baseline": 0.95}),
        ("grpo", "share_error", 0.9, of),
    ]
    (sentence,) = found(rows)
    assert sentence == (
        "Every cluster of people keeps its share of the texts to within 12 % of it (by chance 20 %, for one alone "
        "95 %); with stock GRPO to within 90 % (on held-out prompts, by what it was trained on)."
    )
    rows[0] = ("plural", "share_error", None, of | {"reason": "the jury cannot tell. Fix: more texts"})
    (sentence,) = found(rows)
    assert sentence == (
        "For which cluster of people its texts were written cannot be told (on held-out prompts, by what it was "
        "trained on): the jury cannot tell. Fix: more texts; with stock GRPO every cluster of people keeps its share "
        "to within 90 %."
    )


@pytest.mark.parametrize("heldout", [False, True])
def test_findings_come_from_the_jury_to_believe(heldout):
    errors = [
        ("plural", "share_error", {"training": 0.11, "heldout": 0.22}[jury], {"jury": jury})
        for jury in ("training", "heldout")
    ]
    by = (
        "22 % of it (on trained prompts, by a jury of raters" if heldout else "11 % of it (on trained prompts, by what"
    )
    (sentence,) = found(errors, heldout=heldout, split="train")
    assert by in sentence
    assert found(errors, objectives=True)[0].startswith("Every objective keeps its share of the texts to within 11 %")


def test_findings_say_how_the_worst_cluster_fares():
    worst = {"jury": "training", "n": 5}
    name = "approval_worst_cluster"
    rows = [
        ("plural", name, 0.5, worst | {"gain": -0.07}),
        ("grpo", name, 0.4, worst),
    ]
    text = "In the {} that likes its texts least 50 % approve, -7 points against pi_0; of stock GRPO's 40 %."
    assert found(rows) == [text.format("cluster")]
    assert found(rows, objectives=True) == [text.format("objective")]
    without = [("plural", name, 0.5, worst)]
    assert found(without) == ["In the cluster that likes its texts least 50 % approve."]
    one = [("plural", name, 0.5, worst | {"n": 1})]
    assert found(one)[1:] == ["All this is measured on one prompt, so it has no intervals: a first impression."]


@pytest.mark.parametrize("worst", ["empty", "repetitive", "truncated"])
def test_findings_say_first_that_the_reference_is_broken_and_how_to_cure_it(worst):
    faults = {"empty": 0.1, "repetitive": 0.1, "truncated": 0.1} | {worst: 0.5}
    rows = [("plural", "share_error", 0.1, {"jury": "training"})]
    rows += [
        ("warm", "degenerate", MOSTLY_BROKEN + 0.1, {}),
        *(("warm", name, share, {}) for name, share in faults.items()),
    ]
    cure = {"empty": "train pi_0 longer", "repetitive": "train pi_0 less", "truncated": "raise policy.max_new_tokens"}
    first, second = found(rows)
    assert first.startswith(
        f"Of the texts of pi_0 60 % are no answers, most of them {worst}: nothing below means much. "
    )
    assert f"Fix: {cure[worst]}" in first
    assert second.startswith("Every cluster")
    assert len(found([("warm", "degenerate", MOSTLY_BROKEN, {}), *rows[:1]])) == 1
    bare = [("before", "degenerate", 0.8, {})]
    assert found(bare, policies=["before"], reference="before") == [
        "Of the texts of before 80 % are no answers: nothing below means much."
    ]


def test_figures_show_every_policy(values):
    results = TextResults(split="heldout", weighting="all", **values)
    approvals = plot_approvals(results)
    assert [text.get_text() for text in approvals.legends[0].get_texts()] == [
        "people",
        "before",
        "ours",
        "grpo $x$",
    ]
    assert len(approvals.axes) == 2
    unjudged = [row for row in results.rows if (row.policy, row.measure) != ("ours", "approval")]
    shown = plot_approvals(results.model_copy(update={"rows": unjudged})).legends[0].get_texts()
    assert [text.get_text() for text in shown] == ["people", "before", "grpo $x$"]  # nothing to show of ours
    assert {text.get_parse_math() for text in approvals.legends[0].get_texts()} == {
        False
    }  # a dollar is no mathematics
    assert len(plot_map(results).axes) == 3 * 3 + 1
    assert not_mapped(results) == ""
    more = results.model_copy(
        update={"settings": results.settings | {"policies": [*values["settings"]["policies"], "new"]}}
    )
    assert not_mapped(more) == "Not drawn: new."
    assert len(plot_covered(results).axes[0].lines) == 4
    gain = plot_gain_against_kl(results).axes[0]
    assert gain.get_xlim()[1] > 4


@pytest.mark.parametrize("keep", [(), ("settings",), ("settings", "rows")])
def test_a_page_of_what_is_there(values, tmp_path, keep):
    page = write_text_report({key: values[key] for key in keep}, tmp_path)
    html = page.read_text(encoding="utf-8")
    assert ("No texts were measured." in html) == ("rows" not in keep)


def test_reasons_are_printed(tmp_path):
    samples = {name: PolicySamples({"Q?": ["parks", "roads"]}) for name in ("reference", "ours")}
    results = evaluate_open_ended(samples, Camps(), draws=10)
    markdown = (write_text_report(results.to_dict(), tmp_path).parent / "report.md").read_text(encoding="utf-8")
    assert "Missing: no texts of people. Fix: pass people=." in markdown
    assert "no heldout jury" in markdown


def test_over_optimisation_is_said_only_beyond_doubt():
    def sentences(high, policy="plural"):
        return found([(policy, "heldout_share_of_gain", 0.1, {"ci_low": -0.2, "ci_high": high})])

    assert sentences(0.3) == [
        "Over-optimised: of the gain that the training jury sees, the held-out jury sees 10 %. Train less, or with a "
        "larger beta."
    ]
    assert sentences(0.3, "grpo")[0].startswith("Over-optimised (stock GRPO): ")
    assert not sentences(LITTLE_KEPT)
    assert not sentences(1.4)
    assert not sentences(None)


def test_a_run_that_writes_has_the_sections_of_texts_first(values, tmp_path):
    texts = [
        {"split": "heldout", "weighting": "all", **values},
        {"split": "heldout", "weighting": "my seats", **values},
    ]
    page = write_report({"config": {"name": "trial"}, "texts": texts}, tmp_path).read_text(encoding="utf-8")
    assert page.index("Whom do the texts please?") < page.index("How was this made?")
    assert "How far are the answers from those of the people?" not in page
    assert page.count("<td>my seats</td>") == 3 * 3 * 8 + 1  # texts of three policies, and the table of steering


@pytest.mark.parametrize(("listed", "each"), [(4000, 8), (8, 2), (4, 1), (0, 1)])
def test_texts_are_listed_equally_often_of_each_policy_and_prompt(values, monkeypatch, listed, each):
    monkeypatch.setattr(sections, "LISTED", listed)
    results = TextResults(split="heldout", weighting="all", **values)
    kept = [text for text in results.texts if text.policy in ("before", "ours") and text.prompt != "Q3?"]
    results = results.model_copy(update={"texts": kept})
    table = next(section.folded[0] for section in sections.text_sections([results]) if section.key == "text_samples")
    assert Counter((row[0], row[2]) for row in table.rows) == {
        (policy, prompt): each for policy in ("before", "ours") for prompt in ("Q1?", "Q2?")
    }
    assert table.caption.startswith(f"{4 * each:,} of 32 texts")


def test_leaning_is_towards_the_first_cluster_and_away_from_the_others():
    assert figures._leaning({"a": 0.8}, ["a"]) == pytest.approx(0.3)  # against an even chance
    assert figures._leaning({"a": 0.8, "b": 0.6, "c": 0.2}, ["a", "b", "c"]) == pytest.approx(0.4)
