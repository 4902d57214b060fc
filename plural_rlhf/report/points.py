"""How far policies are from people in percentage points, and from the language model where nothing was trained.

Of 100 people, how many would have to answer otherwise: the total variation between the answers of people and those of
a model, times 100, by question and by how questions are put. Elsewhere: nats per token. Reads `RunResults`; knows
nothing of HTML or files.
"""

from __future__ import annotations

import math

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from plural_rlhf.report.canvas import FONT, INK, METHOD_COLOURS, key_line, panel_grid, title
from plural_rlhf.report.names import METHOD_NAMES, Method, Split
from plural_rlhf.report.results import RunResults
from plural_rlhf.report.results_policies import FormResult, QuestionResult
from plural_rlhf.report.tables import DASH, TextTable, format_percent, format_points
from reward_models.stats.answers import normalise, total_variation
from reward_models.stats.shares import share_interval


__all__ = [
    "FORGOTTEN",
    "elsewhere_sentence",
    "elsewhere_table",
    "forms_sentence",
    "forms_table",
    "margins",
    "plot_forms",
    "points_by_question",
    "points_of",
    "points_table",
]

FORGOTTEN = 0.1
"""Nats per token from which on a policy is said to have changed elsewhere. To six open questions SmolLM2 gave answers
of 43 words (in 60 tokens at most), a policy of it at 0.12 of 15 words, one at 0.01 of 39."""


def points_of(question: QuestionResult, method: str) -> float | None:
    """Return how far a policy's answers to a question are from those of all people, None if it was not measured.

    The policy's answers are taken as shares of the offered answers, as all distances are.
    """
    probs = question.jury if method == Method.JURY else question.population_answers(method)
    if not probs:
        return None
    return float(total_variation(normalise(np.array(probs)), np.array(question.human)))


def points_by_question(results: RunResults, split: str, method: str = Method.PLURAL) -> dict[str, float]:
    """Return how far a policy is from people on each question of a split, largest distance first.

    Example:
        >>> from plural_rlhf.report.results_policies import PolicyAnswers
        >>> answers = {"plural": {"all": PolicyAnswers(probs=[0.5, 0.5], coverage=1.0)}}
        >>> question = QuestionResult(
        ...     id="q", prompt="More parks?", options=["yes", "no"], split="train", n=9, human=[0.75, 0.25],
        ...     jury=[0.7, 0.3], clusters={}, policy=answers,
        ... )
        >>> points_by_question(RunResults(questions=[question]), "train")
        {'q': 0.25}
    """
    found = {q.id: points_of(q, method) for q in results.questions if q.split == split}
    known = {name: value for name, value in found.items() if value is not None and math.isfinite(value)}
    return dict(sorted(known.items(), key=lambda item: -item[1]))


def points_table(results: RunResults) -> TextTable:
    """Tabulate every question in full: its wording, who was asked, and how far each policy is from them.

    Example:
        >>> points_table(RunResults()).header
        ['question', 'split', 'respondents']
    """
    methods = [
        method
        for method in (Method.PLURAL, Method.GRPO, Method.UNTOUCHED, Method.JURY)
        if any(points_of(question, method) is not None for question in results.questions) and results.rows
    ]
    body = []
    farthest_first = [q for split in (Split.HELDOUT, Split.TRAIN) for q in _farthest_first(results, split)]
    for question in farthest_first:
        cells = [format_points(points_of(question, method)) for method in methods]
        body.append([question.prompt, question.split, str(question.n), *cells])
    return TextTable(
        ["question", "split", "respondents", *(METHOD_NAMES[method] for method in methods)],
        body,
        "Points off: of 100 people, so many would have to answer otherwise for people and model to agree. "
        "Respondents: people not used for training who answered the question.",
    )


def _farthest_first(results: RunResults, split: str) -> list[QuestionResult]:
    return sorted(
        (q for q in results.questions if q.split == split), key=lambda q: -(points_of(q, Method.PLURAL) or 0)
    )


def margins(question: QuestionResult, shares: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the 95 % margins of shares of the people who answered a question.

    Example:
        >>> question = QuestionResult(
        ...     id="q", prompt="More parks?", options=["yes", "no"], split="train", n=100, human=[0.5, 0.5], jury=[],
        ...     clusters={}, policy={},
        ... )
        >>> low, high = margins(question, np.array([0.5]))
        >>> low.round(2).tolist(), high.round(2).tolist()
        ([0.4], [0.6])
    """
    n = question.n_effective if math.isfinite(question.n_effective) else question.n
    return share_interval(shares, np.full(len(shares), float(n)))


def forms_table(results: RunResults) -> TextTable:
    """Tabulate how far the policies are from people where the same questions are put in other forms.

    Example:
        >>> form = FormResult(
        ...     form="list", trained=False, method="plural", split="train", points=0.4, jsd_nats=0.3, coverage=1, n=12
        ... )
        >>> forms_table(RunResults(forms=[form])).rows[0][:4]
        ['list', 'no', 'plural (ours)', '40']
    """
    found = {(row.form, row.method, row.split): row for row in results.forms}
    trained = {row.form: row.trained for row in results.forms}
    body = []
    for form, method in dict.fromkeys((row.form, row.method) for row in results.forms):
        of_split = [found.get((form, method, split)) for split in (Split.TRAIN, Split.HELDOUT)]
        numbers = [cell for row in of_split for cell in _form_cells(row)]
        body.append([form, "yes" if trained[form] else "no", METHOD_NAMES[Method(method)], *numbers])
    return TextTable(
        [
            "form",
            "trained on",
            "policy",
            "trained questions: points off",
            "coverage",
            "held-out questions: points off",
            "coverage",
        ],
        body,
        "line: the answers behind the question in one line; list: one below another, then “Answer:”; sentence: "
        "“Choose one answer”; bare: not offered at all. All for everybody; in brackets the interval over people and "
        "questions.",
    )


def forms_sentence(results: RunResults) -> str:
    """Say for the headline how far off the policy is, on trained questions, in the worst form it was not trained on.

    Example:
        >>> forms_sentence(RunResults())
        ''
    """
    ours = [row for row in results.forms if row.method == Method.PLURAL and row.split == Split.TRAIN]
    asked, otherwise = ([row for row in ours if row.trained is trained] for trained in (True, False))
    if not asked or not otherwise:
        return ""
    best, worst = asked[0], max(otherwise, key=lambda row: row.points)
    if worst.ci_low <= best.ci_high:
        return ""
    return (
        f"How a question is put matters: on trained questions ours is {format_points(best.points)} points off where "
        f"they are put as in training ({best.form}), and {format_points(worst.points)} where they are put "
        f"otherwise ({worst.form})."
    )


@matplotlib.rc_context(FONT)
def plot_forms(results: RunResults) -> Figure | None:
    """Plot how far off the policies are in every form: a line per form, a mark per policy.

    Example:
        >>> plot_forms(RunResults()) is None
        True
    """
    drawn = [row for row in results.forms if row.method in METHOD_COLOURS]
    forms = {row.form: row.trained for row in drawn}
    if not drawn:
        return None
    methods = [method for method in METHOD_COLOURS if any(row.method == method for row in drawn)]
    splits = [split for split in Split if any(row.split == split for row in drawn)]
    figure, grid = panel_grid(len(splits), 2, (3.8, 0.34 * len(forms) + 0.1), left=1.9, top=0.85)
    for axes, split in zip(grid, splits, strict=True):
        for height, form in enumerate(forms):
            of_form = {row.method: row for row in drawn if row.form == form and row.split == split}
            for place, method in enumerate(methods):
                if (row := of_form.get(method)) is None:
                    continue
                y = height + 0.16 * (place - (len(methods) - 1) / 2)
                if math.isfinite(row.ci_low):
                    axes.plot([100 * row.ci_low, 100 * row.ci_high], [y, y], color=INK, lw=0.9)
                axes.plot(100 * row.points, y, "o", color=METHOD_COLOURS[method], markersize=6)
        axes.set_yticks(range(len(forms)), list(forms) if split == splits[0] else [])
        for label, trained in zip(axes.get_yticklabels(), forms.values(), strict=False):
            label.set_fontweight("bold" if trained else "normal")
        axes.set_ylim(len(forms) - 0.5, -0.5)
        axes.set_xlim(left=0)
        name = "trained questions" if split == Split.TRAIN else "held-out questions"
        axes.set_xlabel(f"{name}: points off, of 100 people")
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
    key_line(figure, [("o", METHOD_COLOURS[method], METHOD_NAMES[method]) for method in methods])
    title(figure, _forms_finding(results))
    return figure


def _forms_finding(results: RunResults) -> str:
    ours = [row for row in results.forms if row.method == Method.PLURAL and row.split == Split.TRAIN]
    if not ours:
        return "How far off, by how a question is put"
    best, worst = (pick(ours, key=lambda row: row.points) for pick in (min, max))
    return (
        f"Ours is {format_points(best.points)} to {format_points(worst.points)} points off on trained questions, by "
        "how they are put"
    )


def _form_cells(row: FormResult | None) -> tuple[str, str]:
    if row is None:
        return DASH, DASH
    ends = "" if math.isnan(row.ci_low) else f" [{format_points(row.ci_low)}, {format_points(row.ci_high)}]"
    return f"{format_points(row.points)}{ends}", format_percent(row.coverage)


def elsewhere_table(results: RunResults) -> TextTable:
    """Tabulate how far policies are from the language model on conversations that it makes up by itself.

    Example:
        >>> from plural_rlhf.report.results_policies import ElsewhereResult
        >>> row = ElsewhereResult(method="plural", kl_per_token=0.01, ci_low=0.005, ci_high=0.02, n=16)
        >>> elsewhere_table(RunResults(elsewhere=[row])).rows
        [['plural (ours)', '0.010 [0.005, 0.020]', '16']]
    """
    body = [
        [METHOD_NAMES[Method(r.method)], f"{r.kl_per_token:.3f} [{r.ci_low:.3f}, {r.ci_high:.3f}]", str(r.n)]
        for r in results.elsewhere
    ]
    return TextTable(
        ["policy", "nats per token from the language model", "conversations"],
        body,
        "KL divergence of the policy's next token from the language model's, at every place of its answers; in "
        "brackets the interval over conversations.",
    )


def elsewhere_sentence(results: RunResults) -> str:
    """Say for the headline whether the policy has changed where nothing was trained; empty where it has not.

    Example:
        >>> elsewhere_sentence(RunResults())
        ''
    """
    ours = next((row for row in results.elsewhere if row.method == Method.PLURAL), None)
    if ours is None or not ours.ci_low > FORGOTTEN:
        return ""
    return (
        f"The training has changed the policy elsewhere, too: on conversations of its own it is "
        f"{ours.kl_per_token:.2f} nats per token from the language model, and may answer any question as it answers "
        "these. rehearsal.weight keeps it as it was."
    )
