"""Clusters of raters in words: claims, each with the judgements behind it.

A claim says that the members of a cluster give an answer more often than everybody does. Claims are ranked by their
part of the divergence from everybody, `p log(p / p_all)`, with shares that are shrunk, so that a claim needs people
behind it. Nothing is said of who the members are. Knows nothing of how the clusters were made.

Shapes: `R` raters, `S` cells (all options of all items), `K` clusters.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from reward_models.analysis.answer_cells import AnswerCells, answer_cells, shrunken_tables
from reward_models.analysis.naming import answer_text, check_labels, item_labels, names_of_answers
from reward_models.borders import visible
from reward_models.fitting.latent_class import population
from reward_models.judgements.encoding import Encoded


__all__ = ["Claim", "ProfileWords", "describe_groups", "read_claims"]

EXAMPLES = 3  # raters named behind a claim
LEAST_LIFT = 1.05  # of a cluster's share over everybody's
_LINE = re.compile(r"- (?P<label>.+): (?P<answer>.+) \(\d+ % of them, \d+ % of all\)")


@dataclass(frozen=True)
class Claim:
    """One thing that sets a cluster apart.

    Attributes:
        item: Id of the item.
        label: Its short name.
        answer: The answer, as text.
        cell: The cell of the answer.
        share: Share of it among the cluster's judgements of the item.
        share_all: Share among everybody's.
        judgements: Judgements of members that say so.
        raters: Some of their raters.

    Example:
        >>> claim = Claim("q1", "parks", "yes", 0, 0.9, 0.5, 18, ("ann", "bob"))
        >>> claim.line
        '- parks: yes (90 % of them, 50 % of all)'
    """

    item: str
    label: str
    answer: str
    cell: int
    share: float
    share_all: float
    judgements: int
    raters: tuple[str, ...]

    @property
    def line(self) -> str:
        """The claim as a line of a profile."""
        return f"- {self.label}: {self.answer} ({self.share:.0%} of them, {self.share_all:.0%} of all)".replace(
            "%", " %"
        )


@dataclass(frozen=True)
class ProfileWords:
    """A cluster in words.

    Attributes:
        name: Short unique name.
        prevalence: Share of the raters.
        claims: What sets it apart, the strongest first.

    Example:
        >>> print(ProfileWords("parks: yes", 0.4, (Claim("q1", "parks", "yes", 0, 0.9, 0.5, 18, ()),)).text)
        More often than everybody, these raters say:
        - parks: yes (90 % of them, 50 % of all)
    """

    name: str
    prevalence: float
    claims: tuple[Claim, ...]

    @property
    def text(self) -> str:
        """The profile as a text that a person or a model can read."""
        if not self.claims:
            return "These raters judge as everybody does."
        return "\n".join(["More often than everybody, these raters say:", *(claim.line for claim in self.claims)])


def describe_groups(
    enc: Encoded,
    group: np.ndarray,
    *,
    top: int = 5,
    labels: Mapping[str, str] | None = None,
    keep: np.ndarray | None = None,
) -> list[ProfileWords]:
    """Put groups of raters into words.

    Args:
        enc: The judgements.
        group: (R,) group of each rater, 0 to K-1; -1 for raters of none, who count among everybody.
        top: Most claims per group.
        labels: Short names of items by item id; None: `item_labels`.
        keep: (N,) True for the judgements to use; None for all.

    Returns:
        `K` profiles in the order of the groups.

    Raises:
        JuryError: Labels that cannot be used, see `check_labels`.

    Example:
        >>> from reward_models import planted_judgements
        >>> enc = planted_judgements("choice", num_raters=40, num_items=4).judgements.encode()
        >>> even = np.array([int(rater[1:]) % 2 == 0 for rater in enc.rater_ids])  # one of the two planted clusters
        >>> first = describe_groups(enc, np.where(even, 0, 1), top=1)[0].claims[0]
        >>> first.label, first.answer, first.judgements > 10
        ('Question 1?', 'answer A', True)
    """
    check_labels(labels, [enc])
    cells = answer_cells(enc)
    cells = cells if keep is None else cells.select(keep)
    labels = item_labels(enc) if labels is None else labels
    n_groups = int(group.max(initial=0)) + 1
    share_all = population(np.bincount(cells.cell, cells.weight, len(cells.cell_item)), cells.cell_item)
    members = cells.select(group[cells.rater] >= 0)
    share = np.exp(shrunken_tables(members, np.maximum(group, 0), n_groups, np.log(share_all)))
    size = np.bincount(group[group >= 0], enc.rater_weight[group >= 0], n_groups)
    claims = [
        _claims(enc, members.select(group[members.rater] == k), share[:, k], share_all, top, labels)
        for k in range(n_groups)
    ]
    names = names_of_answers([[{"label": c.label, "answer": c.answer} for c in of_group] for of_group in claims])
    return [
        ProfileWords(visible(name), float(part / size.sum()), tuple(of_group))
        for name, part, of_group in zip(names, size, claims, strict=True)
    ]


def _claims(
    enc: Encoded, members: AnswerCells, share: np.ndarray, share_all: np.ndarray, top: int, labels: Mapping[str, str]
) -> list[Claim]:
    """Return the claims of one group, the strongest first; members' judgements only."""
    given = np.bincount(members.cell, members.count, len(share))
    contribution = np.where((share > LEAST_LIFT * share_all) & (given > 0), share * np.log(share / share_all), 0.0)
    first = np.searchsorted(members.cell_item, np.arange(members.cell_item[-1] + 1))
    claims = []
    for cell in np.argsort(-contribution, kind="stable")[:top]:
        if contribution[cell] <= 0:
            break
        item = int(members.cell_item[cell])
        raters = np.unique(members.rater[members.cell == cell])[:EXAMPLES]
        claims.append(
            Claim(
                item=enc.item_ids[item],
                label=labels.get(enc.item_ids[item], enc.item_ids[item]),
                answer=answer_text(enc, item, int(cell) - int(first[item])),
                cell=int(cell),
                share=float(share[cell]),
                share_all=float(share_all[cell]),
                judgements=int(given[cell]),
                raters=tuple(enc.rater_ids[rater] for rater in raters),
            )
        )
    return claims


def read_claims(text: str, known: Sequence[tuple[str, str, int]]) -> list[int]:
    r"""Read the claims of a profile in words back into cells: all that a reader of the words is told.

    Args:
        text: `ProfileWords.text`, or lines of that form.
        known: Label, answer and cell of everything that could be claimed.

    Returns:
        The claimed cells; lines of another form are passed over.

    Example:
        >>> words = "- parks: yes (90 % of them, 50 % of all)\nnonsense"
        >>> read_claims(words, [("parks", "yes", 3), ("parks", "no", 4)])
        [3]
    """
    by_words = {(label, answer): cell for label, answer, cell in known}
    matches = (_LINE.fullmatch(line.strip()) for line in text.splitlines())
    words = [(match["label"], match["answer"]) for match in matches if match is not None]
    return [by_words[pair] for pair in words if pair in by_words]
