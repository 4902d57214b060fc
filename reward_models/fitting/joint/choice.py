"""Choose membership and number of clusters of a joint fit by held-out raters and held-out texts.

In each of five folds a fifth of the raters and a fifth of the texts are unknown to the fit. All raters are adapted
from their judgements of the other texts and scored on the held-out texts: a jury is worth what it says about answers
that nobody has judged, of people it knows and of people it has just met. Clusters must predict them better than one
reward, by the interval over raters and by a standard error over texts, and better than the frequencies of the answers.
Where they do not, a jury may still be worth what it says about known texts: the unknown raters, adapted from three
quarters of their judgements of them, are scored on the rest. Its clusters then agree on new texts if that predicts
these better; and a jury that would lose there more than chance explains, or a tenth of what it gains on known texts,
has one cluster. Knows nothing of where features come from.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np

from reward_models.borders import folder_fault
from reward_models.content_hashes import arrays_hash
from reward_models.errors import JuryError, settings_or_default
from reward_models.fitting.em import FitConfig
from reward_models.fitting.joint.fit import (
    JointFit,
    JointTables,
    consensus_fit,
    fit_around,
    one_reward_on_new_texts,
)
from reward_models.fitting.joint.kept_losses import Losses, kept_losses
from reward_models.fitting.joint.problem import JointProblem, Params
from reward_models.fitting.joint.strengths import Consensus, fit_consensus
from reward_models.fitting.joint.text_space import TextSpace
from reward_models.fitting.selection import Compared, MembershipChoice
from reward_models.fitting.starting_point import judged_twice
from reward_models.judgements.encoding import Encoded
from reward_models.judgements.texts import Text
from reward_models.progress import track
from reward_models.raters.lbfgs import one_thread
from reward_models.raters.predictors import answer_log_lik, n_answers, positions
from reward_models.raters.rater_model import Membership
from reward_models.seeds import seeded_rng
from reward_models.stats.resampling import label_parts
from reward_models.stats.verdicts import outcome, shortage


__all__ = ["JOINT_CANDIDATES", "JointChoice", "choose_joint"]

JOINT_CANDIDATES: tuple[tuple[Membership, int], ...] = (
    *((("mixture", k)) for k in (1, 2, 3, 4)),
    ("simplex", 2),
    ("factor", 1),
)
"""Compared by default. Two factors often predict a little better still, but cost several times as much."""

FOLDS = 5
SMALL_TABLE = 60_000  # judgements up to which every text is held out once
FOLD_ITERATIONS = 60
_NOT_COMPARED = "undecided: {}, so no candidates were compared; one reward for everybody is used"
FEW_PROMPTS = 10  # with fewer prompts (answers to some questions) texts are held out, otherwise prompts
NEW, AGREEING, KNOWN = "new texts", "new texts, one reward", "known texts"
MOST_COST = 0.1  # on new texts, as a share of what clusters gain on known ones
LABEL_PARTS = 4  # of the judgements of known texts by unknown raters; each is scored after adapting from the others


@dataclass(frozen=True)
class JointChoice:
    """What was chosen, and the fit to all judgements; `choose_joint` makes it.

    Attributes:
        membership: The chosen membership.
        num_clusters: Its `K`, or rank; a mixture of 1 unless another candidate is surely better.
        table: One row per candidate, as in `MembershipChoice.table`; empty where nothing was compared.
        reason: The choice in words.
        fit: The chosen jury, fitted to all judgements.
        agreeing: Whether its clusters agree on texts that nobody judged; the reason says why.

    Example:
        >>> from reward_models import planted_judgements
        >>> planted = planted_judgements("rating", num_raters=8, num_items=6)
        >>> choice = choose_joint(planted.judgements.encode(), planted.rewards)
        >>> choice.num_clusters, choice.reason.split(" (")[0]
        (1, 'undecided: 8 raters are too few to tell a difference from chance')
    """

    membership: Membership
    num_clusters: int
    table: list[dict[str, Any]]
    reason: str
    fit: JointFit
    agreeing: bool = False


def choose_joint(
    enc: Encoded | Sequence[Encoded],
    features: np.ndarray | Sequence[np.ndarray] | None,
    candidates: Sequence[tuple[Membership, int]] = JOINT_CANDIDATES,
    *,
    config: FitConfig | None = None,
    cache_dir: str | Path | None = None,
) -> JointChoice:
    """Choose a jury by held-out raters and texts, and fit it to all judgements.

    The choice is the candidate with the lowest loss on new texts if it is better than one cluster beyond chance. It is
    the best one on known texts otherwise, if it costs nothing on new ones, where its clusters may then agree; else one
    cluster. With too few raters or texts, or where no rater judged twice, nothing is compared and the jury has one
    cluster.

    Args:
        enc: Judgements, as for `fit_joint`.
        features: Rows for the texts of each table, as for `fit_joint`.
        candidates: Pairs of membership and number of clusters (or rank). Pairs that the raters cannot support are
            skipped; a mixture of 1 is always compared.
        config: Fit settings, the same for all candidates; its seed also draws the folds.
        cache_dir: Folder in which the losses of finished candidates are kept, so that a choice that was stopped goes
            on with the same result; it may be deleted afterwards. None: nothing is kept.

    Returns:
        The choice with the table of all candidates, and the fit.

    Raises:
        JuryError: Tables or features that cannot work, or a folder that cannot be made or written to.

    Example:
        >>> from reward_models import planted_judgements
        >>> planted = planted_judgements("rating", num_raters=24, num_items=16)
        >>> choice = choose_joint(planted.judgements.encode(), planted.rewards, [("mixture", 2)])
        >>> choice.membership, choice.num_clusters
        ('mixture', 2)
    """
    if cache_dir is not None and (fault := folder_fault(cache_dir)):
        raise JuryError(f"cache_dir: {fault}, or leave it out.")
    with one_thread():
        tables, config = JointTables.of(enc, features), settings_or_default(config, FitConfig)
        consensus = fit_consensus(tables.problem("mixture", 1, config))
        raters = list(dict.fromkeys(rater for table in tables.tables for rater in table.rater_ids))
        reason = _not_comparable(tables, raters)
        agreeing = False
        if reason is not None:
            chosen = MembershipChoice([], "mixture", 1, reason)
        else:
            folder = None if cache_dir is None else Path(cache_dir)
            chosen, agreeing = _choose(tables, consensus, raters, candidates, config, folder)
            if too_many := sorted({number for _, number in candidates if number > _most_clusters(raters)}):
                most = f"{len(raters)} raters are enough for at most {_most_clusters(raters)}"
                reason = f"{chosen.reason}; {', '.join(map(str, too_many))} clusters were not compared: {most}"
                chosen = replace(chosen, reason=reason)
        fit = fit_around(tables, consensus, chosen.membership, chosen.num_clusters, config)
        if agreeing:
            fit = one_reward_on_new_texts(fit, fit_around(tables, consensus, "mixture", 1, config))
        return JointChoice(chosen.membership, chosen.num_clusters, chosen.table, chosen.reason, fit, agreeing)


def _most_clusters(raters: list[str]) -> int:
    """Return the most clusters that are compared: one for every four raters."""
    return max(1, len(raters) // 4)


def _not_comparable(tables: JointTables, raters: list[str]) -> str | None:
    """Why candidates cannot be compared, in words; None if they can."""
    labels = np.zeros(len(raters))
    for table in tables.tables:
        labels += np.bincount(positions(table.rater_ids, raters)[table.rater], minlength=len(raters))
    units = heldout_units([text for table in tables.tables for text in table.texts])
    twice = int((labels > 1).sum())
    reason = shortage(twice, len(set(units.values())))
    if reason is None:
        return None
    if twice < len(raters):
        reason = f"{twice} of {len(raters)} raters judged more than one thing; {reason}"
    return _NOT_COMPARED.format(reason)


def heldout_units(texts: Sequence[Text]) -> dict[Text, Any]:
    """Say what each text is held out with: its prompt, or all texts with the same response.

    The latter where there are few prompts with many answers, unless the same answers are offered to all of them.

    Example:
        >>> heldout_units([Text("Which?", "tea"), Text("Which?", "rain")])
        {Text(prompt='Which?', response='tea'): 'tea', Text(prompt='Which?', response='rain'): 'rain'}
    """
    prompts, responses = len({text.prompt for text in texts}), len({text.response for text in texts})
    by_prompt = prompts >= FEW_PROMPTS or responses <= prompts
    return {text: text.prompt if by_prompt else text.response for text in texts}


def _choose(
    tables: JointTables,
    consensus: Consensus,
    raters: list[str],
    candidates: Sequence[tuple[Membership, int]],
    config: FitConfig,
    folder: Path | None,
) -> tuple[MembershipChoice, bool]:
    """The choice, and whether its clusters agree on new texts."""
    folds = _folds(tables, raters, consensus, replace(config, restarts=1))
    at_most = _most_clusters(raters)
    supported = list(dict.fromkeys([("mixture", 1), *((m, k) for m, k in candidates if k <= at_most)]))
    scored = [fold.losses(supported, folder) for fold in track(folds, "choosing clusters: held-out raters and texts")]
    if not scored:
        reason = _NOT_COMPARED.format("no rater judged both known and held-out texts")
        return MembershipChoice([], "mixture", 1, reason), False
    new, agreeing, known = (
        _compared(supported, [of_fold[kind] for of_fold in scored], config) for kind in (NEW, AGREEING, KNOWN)
    )
    if new is None or agreeing is None:
        on_new = MembershipChoice([], "mixture", 1, _NOT_COMPARED.format("no judgement of a new text was scored"))
    else:
        on_new = new.compared.choice(supported, decided=True)
        if _several(on_new):
            doubt = new.chance((on_new.membership, on_new.num_clusters)) or _no_better_than_frequencies(on_new, folds)
            if doubt is None:
                return on_new, False
            reason = f"{on_new.reason}, but {doubt}"
            on_new = MembershipChoice(on_new.table, "mixture", 1, f"{reason}; one reward for everybody is safer there")
    if known is None:
        return on_new, False
    on_known = known.compared.choice(supported, decided=True)
    if not _several(on_known):
        return on_new, False
    reason = f"on known texts {on_known.reason}. On new texts: {on_new.reason}"
    if new is None or agreeing is None:
        return replace(on_known, reason=reason), False
    chosen = on_known.membership, on_known.num_clusters
    agree = agreeing.gain(chosen) > new.gain(chosen)
    if agree:
        reason += "; so the clusters agree there, on the reward that one cluster would have"
    on_texts = agreeing if agree else new
    lost, gained = -on_texts.gain(chosen), known.gain(chosen)
    if lost > 0:
        reason += f"; that costs {lost:.4f} nats per judgement, against {gained:.4f} gained on known texts"
    if lost > MOST_COST * gained or on_texts.worse(chosen):
        reason += ", too much, so one reward for everybody is used"
        return replace(on_new, reason=reason), False
    return replace(on_known, reason=reason), agree


def _no_better_than_frequencies(choice: MembershipChoice, folds: Sequence[_Fold]) -> str | None:
    """Why the clusters of a choice say nothing of new texts, in words; None if they predict them.

    Several clusters may beat one reward only because they are less sure of what nobody can predict.
    """
    loss, weight = np.sum([fold.frequency_loss() for fold in folds], axis=0)
    chosen = choice.membership, choice.num_clusters
    nll = min(row["nll"] for row in choice.table if (row["membership"], row["num_clusters"]) == chosen)
    if nll < loss / weight:
        return None
    return f"the frequencies of the answers alone predict them as well ({loss / weight:.4f} nats)"


def _several(choice: MembershipChoice) -> bool:
    """Whether raters differ in taste under a choice."""
    return choice.num_clusters > 1 or choice.membership == "factor"


@dataclass(frozen=True)
class _OnTexts:
    """Losses on one kind of texts: by rater, and (units, candidates) by what is held out together; (units,) weight."""

    compared: Compared
    by_unit: np.ndarray
    weight: np.ndarray

    def gain(self, candidate: tuple[Membership, int]) -> float:
        """Gain over one cluster, nats per judgement."""
        return self.compared.gain(candidate)[0]

    def standard_error(self, candidate: tuple[Membership, int]) -> float:
        """Standard error of the gain over texts: other texts of this kind might tell otherwise."""
        judged = self.weight > 0
        loss, weight = self.by_unit[judged], self.weight[judged]
        gain = loss[:, 0] - loss[:, self.compared.candidates.index(candidate)]
        off = gain - gain.sum() / weight.sum() * weight
        return float(np.sqrt(len(off) / max(len(off) - 1, 1) * (off**2).sum()) / weight.sum())

    def chance(self, candidate: tuple[Membership, int]) -> str | None:
        """Why a gain may be due to these very texts, in words; None if it is beyond a standard error over texts."""
        gain, error = self.gain(candidate), self.standard_error(candidate)
        if gain > error:
            return None
        return f"the texts are {int((self.weight > 0).sum())} and its standard error over them is {error:.4f}"

    def worse(self, candidate: tuple[Membership, int]) -> bool:
        """Whether a candidate loses against one cluster beyond chance, of raters (95 %) and of texts (one error)."""
        gain, low, high = self.compared.gain(candidate)
        return outcome(low, high) == "worse" and -gain > self.standard_error(candidate)


def _compared(
    candidates: list[tuple[Membership, int]], scored: Sequence[_Losses], config: FitConfig
) -> _OnTexts | None:
    """Compare by the losses on one kind of texts; None if nothing was scored."""
    losses, weight, count, by_unit, unit_weight = (np.sum(parts, 0) for parts in zip(*scored, strict=True))
    some = weight > 0
    if not some.any():
        return None
    rng = seeded_rng(config.seed, "bootstrap of raters")
    compared = Compared.of(candidates, losses[some], weight[some], count[some], rng)
    return _OnTexts(compared, by_unit, unit_weight)


_Losses = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]
"""(R, candidates) losses, (R,) weight, (R,) number of judgements; (units, candidates) losses, (units,) weight."""


@dataclass(frozen=True)
class _Fold:
    """One division: tables to fit to; by kind of text, tables to adapt raters from and to score; and coordinates.

    `units` has for each table the (U + 1,) number of what each text is held out with, -1 where it is not held out.
    """

    train: JointTables
    scored: dict[str, list[tuple[list[Encoded], list[Encoded]]]]
    coordinates: list[np.ndarray]
    units: list[np.ndarray]
    n_units: int
    raters: list[str]
    consensus: Consensus
    config: FitConfig

    @cached_property
    def one(self) -> JointFit:
        """One reward for everybody."""
        return consensus_fit(self.train, self.consensus, self.config)

    def frequency_loss(self) -> tuple[float, float]:
        """Loss, and weight, of judgements of held-out texts by how often each answer was given to the others.

        Options of choices differ between questions and are taken as equally probable.
        """
        loss = weight = 0.0
        for train, test in zip(self.train.tables, self.scored[NEW][0][1], strict=True):
            if test.kind == "choice":
                log_lik = -np.log((test.alternatives >= 0).sum(1))
            else:
                given = np.bincount(train.label, train.weight, n_answers(test)) + 0.5
                given[:2] = given[:2].mean() if test.kind == "preference" else given[:2]
                log_lik = np.log(given / given.sum())[test.label]
            loss -= float(test.weight @ log_lik)
            weight += float(test.weight.sum())
        return loss, weight

    def losses(self, candidates: Sequence[tuple[Membership, int]], folder: Path | None) -> dict[str, _Losses]:
        """Fit each candidate and score it, by kind of text; what is stored in the folder is not computed again."""
        fold = "" if folder is None else arrays_hash(self)
        of_each = [
            kept_losses(folder, [fold, *candidate], partial(self._losses_of, *candidate)) for candidate in candidates
        ]
        of_kind = {}
        for kind in self.scored:
            by_rater, by_unit = (
                np.stack([losses[name] for losses in of_each], 2) for name in (kind, f"{kind}, units")
            )
            of_kind[kind] = (by_rater[0], *by_rater[1:, :, 0], by_unit[0], by_unit[1, :, 0])
        return of_kind

    def _losses_of(self, membership: Membership, size: int) -> Losses:
        """Fit one candidate and score it: by rater, and by what is held out together."""
        fit = fit_around(self.train, self.consensus, membership, size, self.config)
        agreeing = one_reward_on_new_texts(fit, self.one) if self.coordinates[0].shape[1] else fit
        losses: dict[str, np.ndarray] = {}
        for kind in self.scored:
            by_rater, by_unit = np.zeros((3, len(self.raters))), np.zeros((3, self.n_units + 1))
            for adapt, tests in self.scored[kind]:
                adapted = (agreeing if kind == AGREEING else fit).adapt(adapt, self.coordinates)
                for test, coordinates, units in zip(tests, self.coordinates, self.units, strict=True):
                    if not len(test):
                        continue
                    rater = positions(test.rater_ids, self.raters)[test.rater]
                    log_lik = test.weight * answer_log_lik(adapted.log_probs(test, coordinates), test)
                    unit = units[test.alternatives].max(1)  # -1, the last row, where all texts are known
                    for sums, row in ((by_rater, rater), (by_unit, unit % (self.n_units + 1))):
                        for total, values in zip(sums, (-log_lik, test.weight, test.count), strict=True):
                            total += np.bincount(row, values, len(total))
            losses |= {kind: by_rater, f"{kind}, units": by_unit[:, :-1]}
        return losses


def _folds(tables: JointTables, raters: list[str], consensus: Consensus, config: FitConfig) -> list[_Fold]:
    """Divide raters and texts into parts; the strengths are those of the consensus of all judgements."""
    rng = seeded_rng(config.seed, "folds of joint fit")
    of_known = seeded_rng(config.seed, "parts of judgements of known texts")
    units = heldout_units([text for table in tables.tables for text in table.texts])
    names = list(dict.fromkeys(units.values()))
    number = {name: i for i, name in enumerate(names)}
    unit_of = [np.array([number[units[text]] for text in table.texts] + [-1]) for table in tables.tables]
    fold_of = np.append(rng.permutation(len(names)) % FOLDS, -1)  # last: the padding
    rater_fold = rng.permutation(len(raters)) % FOLDS
    folds = []
    for fold in range(FOLDS if sum(map(len, tables.tables)) <= SMALL_TABLE else 1):
        train: list[Encoded] = []
        rows: list[list[tuple[np.ndarray, np.ndarray]]] = []
        held_out = [np.where(fold_of[of_text] == fold, of_text, -1) for of_text in unit_of]
        for table, out in zip(tables.tables, held_out, strict=True):
            held = (out[table.alternatives] >= 0).any(1)
            unknown = (rater_fold[positions(table.rater_ids, raters)] == fold)[table.rater]
            train.append(table.select(~held & ~unknown, drop_raters=True))
            known = ~held & unknown
            part = np.where(known, label_parts(table.rater, LABEL_PARTS, of_known), -1)
            rows.append([(~held, held), *((known & (part != i), part == i) for i in range(LABEL_PARTS))])
        kept = [i for i, table in enumerate(train) if len(table)]
        if not kept or not any(rows[i][n][1].any() for i in kept for n in range(1 + LABEL_PARTS)):
            continue
        pairs = [
            (
                [tables.tables[i].select(rows[i][n][0]) for i in kept],
                [tables.tables[i].select(rows[i][n][1]) for i in kept],
            )
            for n in range(1 + LABEL_PARTS)
        ]
        coordinates = [tables.coordinates[i] for i in kept]
        space = TextSpace.identity(coordinates[0].shape[1])
        fitted = JointTables([train[i] for i in kept], space, coordinates)
        if not judged_twice(fitted.tables):
            continue
        problem = fitted.problem("mixture", 1, config)
        start = _start(problem, consensus)
        problem = problem.with_strengths(consensus.strengths)
        params, _ = problem.maximise(start, FOLD_ITERATIONS, 1e-6, [n for n in start if n.endswith(".log_scale_mean")])
        fold_consensus = Consensus(consensus.strengths, params)
        scored = {NEW: pairs[:1], AGREEING: pairs[:1], KNOWN: pairs[1:]}
        of_kept = [held_out[i] for i in kept]
        folds.append(_Fold(fitted, scored, coordinates, of_kept, len(names), raters, fold_consensus, config))
    return folds


def _start(problem: JointProblem, consensus: Consensus) -> Params:
    """Terms and scales of the consensus of all judgements; no reward is known beforehand."""
    terms = {name: value for name, value in consensus.params.items() if "." in name}
    return problem.start() | {name: value for name, value in terms.items() if name in problem.start()}
