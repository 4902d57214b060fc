"""Names for clusters: the answers that set each one apart from the population.

A name is made of a cluster's answers, never of who is in it. Needs a fit and the table it was fitted to; knows nothing
of demographics or models.

Shapes: `K` clusters, `S` cells (every option of every item).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from reward_models.fitting.rater_fit import RaterFit
from reward_models.judgements.encoding import Encoded
from reward_models.raters.memberships import cluster_answers


__all__ = ["describe_clusters", "name_clusters"]

NAME_WORDS = 3  # items in a name


def describe_clusters(
    fit: RaterFit, enc: Encoded, *, top: int = 5, labels: Mapping[str, str] | None = None
) -> list[dict[str, Any]]:
    """List the answers that set each cluster apart from the population.

    Answers are ranked by their contribution to the divergence from the population, `p_cluster log(p_cluster /
    p_population)`: an answer must be both common in the cluster and more common than elsewhere.

    Args:
        fit: The mixture.
        enc: The judgements it was fitted to.
        top: Number of answers per cluster.
        labels: Short names of items by item id; the id itself where there is none.

    Returns:
        Per cluster: `name`, `prevalence`, and `answers`, each with `item`, `label`, `answer`, `p_cluster`,
        `p_population`, `lift`.

    Example:
        >>> from reward_models import fit_mixture, planted_judgements
        >>> planted = planted_judgements("choice", num_raters=40, num_items=4)
        >>> enc = planted.judgements.encode()
        >>> labels = dict(zip(enc.item_ids, ("parks", "roads", "trams", "taxes")))
        >>> first = describe_clusters(fit_mixture(enc, 2), enc, top=1, labels=labels)[0]["answers"][0]
        >>> first["label"], first["answer"], round(first["lift"], 1)
        ('taxes', 'answer B', 1.9)
    """
    answers = _ranked_answers(fit, enc, labels or {})
    names = _names(answers)
    return [
        {"name": name, "prevalence": float(prevalence), "answers": ranked[:top]}
        for name, prevalence, ranked in zip(names, fit.prevalence, answers, strict=True)
    ]


def name_clusters(fit: RaterFit, enc: Encoded, labels: Mapping[str, str] | None = None) -> list[str]:
    """Give each cluster a short unique name from the answers that set it apart, e.g. `"cities, welfare: too little"`.

    Args:
        fit: The mixture.
        enc: The judgements it was fitted to.
        labels: Short names of items by item id; the id itself where there is none.

    Returns:
        `K` unique names; `["everyone"]` for a single cluster.

    Example:
        >>> from reward_models import fit_mixture, planted_judgements
        >>> enc = planted_judgements("choice", num_raters=40, num_items=4).judgements.encode()
        >>> labels = dict(zip(enc.item_ids, ("parks", "roads", "trams", "taxes")))
        >>> name_clusters(fit_mixture(enc, 2), enc, labels)
        ['taxes, trams, parks: answer B', 'parks, trams, taxes: answer A']
    """
    return _names(_ranked_answers(fit, enc, labels or {}))


def _ranked_answers(fit: RaterFit, enc: Encoded, labels: Mapping[str, str]) -> list[list[dict[str, Any]]]:
    """Return, per cluster, all answers by falling contribution to its divergence from the population."""
    label, n_options = enc.item_label, int(enc.label.max(initial=0)) + 1
    row = {rater: i for i, rater in enumerate(fit.rater_ids)}
    membership = fit.responsibilities[[row[rater] for rater in enc.rater_ids]][enc.rater]
    # max_iter=0: these memberships have seen the very answers, so frequencies weighted by them are the M-step already.
    by_cluster = cluster_answers(membership, label, enc.item, enc.n_items, n_options, max_iter=0)
    population = cluster_answers(np.ones((len(enc), 1)), label, enc.item, enc.n_items, n_options)[0]
    ranked = []
    for p in by_cluster:
        with np.errstate(divide="ignore", invalid="ignore"):
            contribution = np.nan_to_num(np.where(p > population, p * np.log(p / population), 0.0))
        order = np.argsort(-contribution, axis=None, kind="stable")
        cells = [divmod(int(flat), n_options) for flat in order if contribution.flat[flat] > 1e-9]
        ranked.append(
            [
                {
                    "item": enc.item_ids[item],
                    "label": labels.get(enc.item_ids[item], enc.item_ids[item]),
                    "answer": _answer_text(enc, item, option),
                    "p_cluster": float(p[item, option]),
                    "p_population": float(population[item, option]),
                    "lift": float(p[item, option] / population[item, option]),
                }
                for item, option in cells
            ]
        )
    return ranked


def _answer_text(enc: Encoded, item: int, option: int) -> str:
    """Return an answer as text: the option, the level, or the response that was preferred."""
    if enc.kind == "rating":
        assert enc.levels is not None
        return f"{enc.levels[option]:g}"
    if enc.kind == "preference" and option == 2:
        return "tie"
    response = enc.texts[enc.item_alternatives[item, option]].response
    return response if len(response) <= 40 else response[:37] + "..."


def _names(ranked: list[list[dict[str, Any]]]) -> list[str]:
    """Return unique names: the items that share the strongest answer, then the answer; longer or numbered if taken."""
    if len(ranked) == 1:
        return ["everyone"]
    names: list[str] = []
    for answers in ranked:
        if not answers:
            names.append("average")
            continue
        answer = answers[0]["answer"]
        same = [a["label"] for a in answers if a["answer"] == answer]
        options = [f"{', '.join(same[:n])}: {answer}" for n in range(min(NAME_WORDS, len(same)), len(same) + 1)]
        names.append(next((name for name in options if name not in names), options[0]))
    seen: dict[str, int] = {}
    for i, name in enumerate(names):
        seen[name] = seen.get(name, 0) + 1
        if seen[name] > 1:
            names[i] = f"{name} ({seen[name]})"
    return names
