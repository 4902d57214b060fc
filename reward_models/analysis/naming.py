"""Names for clusters: what sets each one apart from the others.

Clusters of answers to questions are named by their answers; clusters of judgements about texts (pairs, votes, ratings)
by the words of the texts that they reward more than the others do, see `text_contrasts`. Never by who is in them.
Needs a fit and the table it was fitted to; knows nothing of demographics or models.

Shapes: `K` clusters, `S` cells (every option of every item).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from reward_models.analysis.text_contrasts import JudgedTexts, plain_line, text_evidence, words_of_clusters
from reward_models.errors import JuryError, did_you_mean
from reward_models.fitting.joint.fit import JointFit
from reward_models.fitting.rater_fit import RaterFit
from reward_models.judgements.encoding import Encoded, encoded_tables
from reward_models.judgements.faults import show
from reward_models.judgements.texts import as_messages
from reward_models.raters.memberships import cluster_answers
from reward_models.weights import WORDS


__all__ = [
    "answer_shares",
    "answer_text",
    "changed_names",
    "check_labels",
    "describe_clusters",
    "item_labels",
    "name_clusters",
    "names_of_answers",
    "telling_parts",
]

TEXT_KINDS = ("preference", "rating")
NAME_WORDS = 3  # items in a name
SPARE_WORDS = 6  # of which a name takes more where two clusters would have the same
MOST_LETTERS = 80  # of a name
LABEL_LENGTH = 40


def describe_clusters(
    fit: RaterFit | JointFit,
    enc: Encoded | Sequence[Encoded],
    *,
    top: int = 5,
    labels: Mapping[str, str] | None = None,
    names: Sequence[str] | Mapping[str, str] | None = None,
) -> list[dict[str, Any]]:
    """List what sets each cluster apart, and name it.

    Answers to questions are ranked by their contribution to the divergence from the population, `p_cluster
    log(p_cluster / p_population)`: an answer must be both common in the cluster and more common than elsewhere. Judged
    texts are ranked likewise, with shares that are shrunk to the population's; see `text_evidence`.

    Args:
        fit: The fit, a mixture.
        enc: The judgements it was fitted to.
        top: Number of answers or texts per cluster.
        labels: Short names of items by item id; the id itself (of a rated text, its beginning) where there is none.
        names: Names to use, the largest cluster first, or new names by the name that is found; see `changed_names`.

    Returns:
        Per cluster: `name`, `prevalence`, and `answers`, each with `item`, `label`, `answer`, `p_cluster`,
        `p_population`, `lift`; of judged texts also `judgements`, the number of this text.

    Raises:
        JuryError: Labels or names that cannot be used, see `check_labels` and `changed_names`.

    Example:
        >>> from reward_models import fit_mixture, planted_judgements
        >>> planted = planted_judgements("choice", num_raters=40, num_items=4)
        >>> enc = planted.judgements.encode()
        >>> labels = dict(zip(enc.item_ids, ("parks", "roads", "trams", "taxes")))
        >>> first = describe_clusters(fit_mixture(enc, 2), enc, top=1, labels=labels)[0]["answers"][0]
        >>> first["label"], first["answer"], round(first["lift"], 1)
        ('taxes', 'answer B', 1.9)
    """
    tables = encoded_tables(enc)
    check_labels(labels, tables)
    if tables[0].kind in TEXT_KINDS:
        found, answers = _from_texts(_judged_texts(fit, tables), top, labels or {})
    else:
        answers = _ranked_answers(fit, tables[0], labels or {})
        found = names_of_answers(answers)
    named = found if names is None else changed_names(names, found)
    return [
        {"name": name, "prevalence": float(prevalence), "answers": ranked[:top]}
        for name, prevalence, ranked in zip(named, fit.prevalence, answers, strict=True)
    ]


def name_clusters(
    fit: RaterFit | JointFit, enc: Encoded | Sequence[Encoded], labels: Mapping[str, str] | None = None
) -> list[str]:
    """Give each cluster a short unique name from what sets it apart.

    Clusters of answers are named by answers (`"cities, welfare: too little"`), clusters of judgements about texts by
    words of the texts that they reward more than the others do (`"peaceful + free speech + opinions"`).

    Args:
        fit: The fit, a mixture.
        enc: The judgements it was fitted to.
        labels: Short names of items by item id; the id itself where there is none.

    Returns:
        `K` unique names of one line, in the order of the fit; `["everyone"]` for a single cluster.

    Example:
        >>> from reward_models import fit_mixture, planted_judgements
        >>> enc = planted_judgements("choice", num_raters=40, num_items=4).judgements.encode()
        >>> labels = dict(zip(enc.item_ids, ("parks", "roads", "trams", "taxes")))
        >>> name_clusters(fit_mixture(enc, 2), enc, labels)
        ['taxes, trams, parks: answer B', 'parks, trams, taxes: answer A']
    """
    return [cluster["name"] for cluster in describe_clusters(fit, enc, top=0, labels=labels)]


def changed_names(names: Sequence[str] | Mapping[str, str], found: Sequence[str]) -> list[str]:
    """Return the names of clusters after a user's changes.

    Args:
        names: One name per cluster, in the order of `found` (by falling prevalence); or new names by present name.
        found: The present names.

    Returns:
        `K` names.

    Raises:
        JuryError: Another number of names, a present name that there is not, a name that is empty, longer than a line,
            holds control characters or `=`, means something else in weights, or is given twice.

    Example:
        >>> changed_names({"cluster 2": "rural"}, ["cluster 1", "cluster 2"])
        ['cluster 1', 'rural']
        >>> changed_names(["urban"], ["cluster 1", "cluster 2"])
        Traceback (most recent call last):
        reward_models.errors.JuryError: 1 name for 2 clusters ('cluster 1', 'cluster 2'). Fix: give one per cluster,
        the largest first, or new names by present name
    """
    listed = ", ".join(map(repr, found))
    if isinstance(names, Mapping):
        for name in names:
            if name not in found:
                raise JuryError(
                    f"there is no cluster {name!r} to rename.{did_you_mean(str(name), found)} The clusters are "
                    f"{listed}"
                )
        changed = [names.get(name, name) for name in found]
    elif isinstance(names, str):
        raise JuryError(f"names={names!r} is one text. Fix: give a list with one name per cluster ({listed})")
    else:
        changed = list(names)
    if len(changed) != len(found):
        raise JuryError(
            f"{len(changed)} name{'s' * (len(changed) != 1)} for {len(found)} clusters ({listed}). Fix: give one per "
            "cluster, the largest first, or new names by present name"
        )
    for name in set(changed) - set(found):
        _check_name(name)
    for name in changed:
        if changed.count(name) > 1:
            raise JuryError(f"two clusters would be named {name!r}. Fix: give each a name of its own")
    return changed


def _check_name(name: object) -> None:
    """Raise unless a name can stand in a prompt, in a table and in weights."""
    if not isinstance(name, str) or not name.strip():
        raise JuryError(f"the name {name!r} of a cluster is empty or no text. Fix: give a word or a few")
    plain = plain_line(name, MOST_LETTERS)
    if name != plain:
        raise JuryError(
            f"the name {name[:MOST_LETTERS]!r} of a cluster is not one line of at most {MOST_LETTERS} characters "
            "without control characters, special tokens and spaces around it. Fix: "
            + (f"write {plain!r}" if plain else "give a word or a few")
        )
    if name in WORDS or "=" in name:
        raise JuryError(
            f"the name {name!r} of a cluster cannot be used in weights, where `=` stands before a number and "
            f"{' and '.join(map(repr, WORDS))} have their own meaning. Fix: choose another name"
        )


def check_labels(labels: Mapping[str, str] | None, tables: Sequence[Encoded]) -> None:
    """Raise unless labels are short names of judged items; there may be items without a label, and the reverse.

    Args:
        labels: Short names of items by item id; None: there are none.
        tables: The judgements.

    Raises:
        JuryError: Labels that are no mapping, a label that is empty or no text, or labels of none of the items.

    Example:
        >>> from reward_models import planted_judgements
        >>> check_labels(["parks"], [planted_judgements("choice").judgements.encode()])
        Traceback (most recent call last):
        reward_models.errors.JuryError: labels=['parks']: short names of items by item id are expected, not a list. ...
    """
    if labels is None:
        return
    if not isinstance(labels, Mapping):
        raise JuryError(
            f"labels={show(labels)}: short names of items by item id are expected, not a {type(labels).__name__}. "
            f"Fix: labels={{{tables[0].item_ids[0]!r}: 'parks', ...}}, or leave labels out"
        )
    for item, label in labels.items():
        if not isinstance(label, str) or not label.strip():
            raise JuryError(
                f"labels: the short name {show(label)} of the item {show(item)} is empty or no text. Fix: give a word "
                "or a few, or leave the item out"
            )
    if labels and not any(item in labels for table in tables for item in table.item_ids):
        raise JuryError(
            f"labels: {show(next(iter(labels)))} is the id of no item, and neither are the others; the first item is "
            f"{tables[0].item_ids[0]!r}. Fix: give short names by item id, see Judgements.encode().item_ids"
        )


def _judged_texts(fit: RaterFit | JointFit, tables: Sequence[Encoded]) -> JudgedTexts:
    rewards = fit.known_rewards if isinstance(fit, JointFit) else fit.rewards
    return JudgedTexts(tables, fit.texts, rewards, fit.rater_ids, fit.responsibilities, fit.prevalence)


def _from_texts(
    judged: JudgedTexts, top: int, labels: Mapping[str, str]
) -> tuple[list[str], list[list[dict[str, Any]]]]:
    """Name clusters by words; by a text where no words tell them apart; with a number where nothing does."""
    evidence = text_evidence(judged, max(top, 1), labels)
    if len(evidence) == 1:
        return ["everyone"], evidence
    names: list[str] = []
    for k, (words, answers) in enumerate(zip(words_of_clusters(judged, SPARE_WORDS), evidence, strict=True)):
        options = [
            *_joined([word for word, _ in words]),
            *_short(_by_answer(answers, shorter=True)),
            f"cluster {k + 1}",
        ]
        names.append(next((name for name in options if name not in names), f"cluster {k + 1}"))
    return names, evidence


def _joined(words: Sequence[str]) -> list[str]:
    """Return names of a few words, the best first: more words where those are taken, fewer where they are long."""
    numbers = (*range(min(NAME_WORDS, len(words)), 0, -1), *range(NAME_WORDS + 1, len(words) + 1))
    return _short([" + ".join(words[:n]) for n in numbers])


def _by_answer(answers: Sequence[Mapping[str, Any]], *, shorter: bool = False) -> list[str]:
    """Return names of the items that share the strongest answer, then the answer: with more items, then `shorter`."""
    if not answers:
        return []
    answer = answers[0]["answer"]
    same = [a["label"] for a in answers if a["answer"] == answer]
    usual = min(NAME_WORDS, len(same))
    numbers = (*range(usual, len(same) + 1), *range(usual - 1 if shorter else 0, 0, -1))
    return [f"{', '.join(same[:n])}: {answer}" for n in numbers]


def _short(names: Sequence[str]) -> list[str]:
    """Keep the names that fit a line; if there is none, the beginning of the last, which is the shortest."""
    lines = [plain_line(name, len(name)) for name in names]
    return [line for line in lines if len(line) <= MOST_LETTERS] or [plain_line(n, MOST_LETTERS) for n in names[-1:]]


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


def answer_shares(fit: RaterFit | JointFit, enc: Encoded) -> tuple[np.ndarray, np.ndarray]:
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


def _ranked_answers(fit: RaterFit | JointFit, enc: Encoded, labels: Mapping[str, str]) -> list[list[dict[str, Any]]]:
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
                    "answer": answer_text(enc, item, option),
                    "p_cluster": float(p[item, option]),
                    "p_population": float(population[item, option]),
                    "lift": float(p[item, option] / population[item, option]),
                }
                for item, option in cells
            ]
        )
    return ranked


def answer_text(enc: Encoded, item: int, option: int) -> str:
    """Return an answer as text: the option, the level, or the response that was preferred.

    Example:
        >>> from reward_models import planted_judgements
        >>> answer_text(planted_judgements("choice", num_items=2).judgements.encode(), 1, 2)
        'answer C'
    """
    if enc.kind == "rating":
        assert enc.levels is not None
        return f"{enc.levels[option]:g}"
    if enc.kind == "preference" and option == 2:
        return "tie"
    response = enc.texts[enc.item_alternatives[item, option]].response
    return response if len(response) <= 40 else response[:37] + "..."


def names_of_answers(ranked: Sequence[Sequence[Mapping[str, Any]]]) -> list[str]:
    """Return unique names: the items that share the strongest answer, then the answer; longer or numbered if taken.

    Args:
        ranked: Per cluster the answers that set it apart, each with `label` and `answer`, the strongest first.

    Example:
        >>> for_parks = [{"label": "parks", "answer": "yes"}, {"label": "trees", "answer": "yes"}]
        >>> names_of_answers([for_parks, [{"label": "roads", "answer": "yes"}]])
        ['parks, trees: yes', 'roads: yes']
    """
    if len(ranked) == 1:
        return ["everyone"]
    names: list[str] = []
    for answers in ranked:
        options = _by_answer(answers) or ["average"]
        names.append(next((name for name in options if name not in names), options[0]))
    seen: dict[str, int] = {}
    for i, name in enumerate(names):
        seen[name] = seen.get(name, 0) + 1
        if seen[name] > 1:
            names[i] = f"{name} ({seen[name]})"
    return names
