"""Names for clusters: the answers that set each one apart from the population.

A name is made of a cluster's answers, never of who is in it. Needs a fit and the table it was fitted to; knows nothing
of demographics or models.

Shapes: `K` clusters, `S` cells (every option of every item).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from reward_models.fitting.rater_fit import RaterFit
from reward_models.judgements.encoding import Encoded
from reward_models.judgements.texts import as_messages
from reward_models.raters.memberships import cluster_answers


__all__ = ["answer_shares", "describe_clusters", "item_labels", "name_clusters", "telling_parts"]

NAME_WORDS = 3  # items in a name
LABEL_LENGTH = 40


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


def item_labels(enc: Encoded) -> dict[str, str]:
    """Make short names of items from their wordings, by item id.

    Of questions the words that all of them begin or end with are left out. A rated response is named by its beginning,
    together with the prompt's where several prompts got the same response; a pair by the beginning of its prompt. The
    id is used where the wordings tell nothing apart.

    Example:
        >>> from reward_models import Judgements
        >>> rows = [
        ...     {"item_id": item, "prompt": f"Should we build more {what}?", "options": ["no", "yes"], "probs": [1, 0]}
        ...     for item, what in (("q1", "parks"), ("q2", "bus lanes"))
        ... ]
        >>> item_labels(Judgements.from_dataset(rows, kind="soft").encode())
        {'q1': 'parks', 'q2': 'bus lanes'}
    """
    texts = [enc.texts[first] for first in enc.item_alternatives[:, 0]]
    prompts = [as_messages(text.prompt)[-1]["content"] for text in texts]
    if enc.kind in ("choice", "soft"):
        labels = [_shorten(part) for part in telling_parts(prompts)]
        whole = [_shorten(prompt) for prompt in prompts]
        named = [
            part if labels.count(part) == 1 and any(map(str.isalpha, part)) else question
            for part, question in zip(labels, whole, strict=True)
        ]
        return {i: name if named.count(name) == 1 and name else i for i, name in zip(enc.item_ids, named, strict=True)}
    beginnings = [_shorten(prompt) for prompt in prompts]
    responses = [_shorten(text.response) for text in texts]
    distinct = len(set(responses)) == len(responses)
    rated = responses if distinct else [f"{p}: {r}" for p, r in zip(beginnings, responses, strict=True)]
    return dict(zip(enc.item_ids, rated if enc.kind == "rating" else beginnings, strict=True))


def telling_parts(texts: Sequence[str]) -> list[str]:
    """Cut off the words that all texts begin or end with; what is left may be empty. One text stays as it is.

    Example:
        >>> telling_parts(["Is the country spending too much on parks?", "Is the country spending too much on roads?"])
        ['parks', 'roads']
    """
    if len(texts) < 2:
        return list(texts)
    words = [text.split() for text in texts]
    start = _common_start(words)
    end = _common_start([w[start:][::-1] for w in words])
    return [" ".join(w[start : len(w) - end]).strip(" .,;:?!") for w in words]


def _common_start(lists: Sequence[Sequence[str]]) -> int:
    """Return the number of leading entries that all lists share."""
    return next(
        (at for at, entries in enumerate(zip(*lists, strict=False)) if len(set(entries)) > 1), min(map(len, lists))
    )


def _shorten(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= LABEL_LENGTH else line[: LABEL_LENGTH - 1] + "…"


def answer_shares(fit: RaterFit, enc: Encoded) -> tuple[np.ndarray, np.ndarray]:
    """Compute how each cluster and everybody answered, by the memberships and sampling weights of those who did.

    Args:
        fit: The mixture.
        enc: The judgements it was fitted to.

    Returns:
        (K, I, A) shares of the clusters and (I, A) of all raters; nan where nobody answered.

    Example:
        >>> from reward_models import fit_mixture, planted_judgements
        >>> enc = planted_judgements("choice", num_raters=40, num_items=4).judgements.encode()
        >>> by_cluster, population = answer_shares(fit_mixture(enc, 2), enc)
        >>> by_cluster.shape, population.sum(axis=1).round(6).tolist()
        ((2, 4, 3), [1.0, 1.0, 1.0, 1.0])
    """
    label, n_options = enc.item_label, int(enc.label.max(initial=0)) + 1
    row = {rater: i for i, rater in enumerate(fit.rater_ids)}
    everybody = enc.weight[:, None]
    membership = everybody * fit.responsibilities[[row[rater] for rater in enc.rater_ids]][enc.rater]
    # max_iter=0: these memberships have seen the very answers, so frequencies weighted by them are the M-step already.
    by_cluster, population = (
        cluster_answers(weight, label, enc.item, enc.n_items, n_options, max_iter=0)
        for weight in (membership, everybody)
    )
    return by_cluster, population[0]


def _ranked_answers(fit: RaterFit, enc: Encoded, labels: Mapping[str, str]) -> list[list[dict[str, Any]]]:
    """Return, per cluster, all answers by falling contribution to its divergence from the population."""
    by_cluster, population = answer_shares(fit, enc)
    n_options = population.shape[1]
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
