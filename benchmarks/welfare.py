"""Welfare rules on real statements: what each selects, who gains, who loses, and who gains by exaggerating.

Six public Polis conversations. Each is one question with many statements; the clusters are the opinion groups that
Polis published with the votes. They are used here instead of fitted clusters because each rater belongs to exactly
one, so a group's reward of a statement is a count that anybody can repeat, raters can be resampled without a new fit,
and the result does not depend on this library's choices. (Polis made the groups from the same votes, so they are
further apart than new votes of the same people would be. Raters without a group are excluded.)

- Reward of a group for a statement: log odds of agreeing among those of its raters who voted on it, with one agreeing
  and one disagreeing vote added, and a pass counted as half of each. Missing votes are ignored. Statements that the
  moderators removed, or on which some group has fewer than 20 votes (or two thirds of its raters, if they are fewer
  than 30), are excluded. Then both groups are scaled alike: 1 is a standard deviation over the statements.
- Weights: the number of raters in each group.
- `change`: a group's reward of the selection minus that of the weighted mean's; the interval resamples raters within
  groups (selection and scale are fixed). `change_heldout`: selected by a random half of the raters, measured on the
  other half, mean over halvings: the change without the luck of the selection.
- On random slates of 8 statements, where no statement stands out that everybody likes: `slate_agreement` with the
  mean and `slate_change` against it; and `moved`, `gain`, `others` when one group exaggerates, see
  `plural_rlhf.evaluation.decisions.strategy`. These intervals resample the slates, not the raters.

    python benchmarks/welfare.py --json welfare.json
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from _common import environment, make_parser, print_table, row, write
from _jury.cases import DATA, POLIS


if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

__all__ = ["main"]

RULES = (
    "mean",
    "nash",
    "min",
    "cvar(share=0.25)",
    "variance_penalised(penalty=1)",
    "median",
    "approval(threshold=1)",
    "leximin",
    "borda",
    "schulze",
    "maximal_lottery",
    "random_dictator",
)
MISREPORTS = (2, 5, 20, "extremes")
SLATE = 8


@dataclass(frozen=True)
class Conversation:
    """The votes of the raters of one conversation whom Polis put in a group.

    Attributes:
        texts: `U` statements.
        agree: Of each group, (R_k, U) agreeing votes: 1, a half for a pass, else 0.
        disagree: The same for disagreeing.
    """

    texts: list[str]
    agree: list[np.ndarray]
    disagree: list[np.ndarray]

    def rewards(self, counts: list[np.ndarray]) -> np.ndarray:
        """(..., U, K) log odds of agreeing, where the raters of group k count `counts[k]` (..., R_k) times."""
        import numpy as np

        votes = zip(counts, self.agree, self.disagree, strict=True)
        return np.stack([np.log((n @ a + 1) / (n @ d + 1)) for n, a, d in votes], axis=-1)


def read(name: str, votes: pd.DataFrame, statements: pd.DataFrame) -> Conversation:
    """A conversation without the statements that cannot be compared."""
    votes = votes[(votes["conversation"] == name) & votes["polis_group"].notna()]
    shown = statements[(statements["conversation"] == name) & (statements["moderated"] >= 0)].set_index("response_id")
    table = votes.pivot(index="rater_id", columns="response_id", values="vote")
    group = votes.drop_duplicates("rater_id").set_index("rater_id")["polis_group"].reindex(table.index)
    parts = [table[group == g] for g in sorted(group.unique())]
    enough = [part.notna().sum() >= min(20, 2 * len(part) / 3) for part in parts]
    kept = [s for s in table.columns if s in shown.index and all(e[s] for e in enough)]
    cells = [part[kept].to_numpy(dtype="float64", na_value=math.nan) for part in parts]
    return Conversation(
        [" ".join(str(shown.loc[s, "text"]).split()) for s in kept],
        [(c == 1) + 0.5 * (c == 0) for c in cells],
        [(c == -1) + 0.5 * (c == 0) for c in cells],
    )


def halved(conversation: Conversation, rng: np.random.Generator) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Which raters of each group are in one random half, and which in the other."""
    import numpy as np

    one = [rng.permutation(np.arange(len(a)) % 2 == 0).astype(np.float64) for a in conversation.agree]
    return one, [1 - half for half in one]


def effects(name: str, talk: Conversation, args: Any) -> tuple[list[dict[str, Any]], list[list[str]]]:
    """Tidy rows and lines of the table: picks, gains and losses."""
    import numpy as np
    import torch

    from plural_rlhf.evaluation.decisions.welfare_effects import welfare_effects
    from reward_models.jury.calibration import calibrate

    rng = np.random.default_rng(args.seed)
    sizes = [len(a) for a in talk.agree]
    names = [f"group {k}" for k in range(len(sizes))]
    raw, question = talk.rewards([np.ones(n) for n in sizes]), np.zeros(len(talk.texts))
    scale = calibrate(raw, question, cluster_names=names)

    def scaled(rewards: np.ndarray) -> np.ndarray:
        return scale.apply(torch.as_tensor(rewards)).numpy()

    resampled = scaled(talk.rewards([rng.multinomial(n, np.full(n, 1 / n), size=args.draws) for n in sizes]))
    about = {"weights": sizes, "rules": RULES, "cluster_names": names}
    report = welfare_effects(
        scaled(raw), question, **about, rewards_draws=resampled, n_raters=sum(sizes), seed=args.seed
    )
    heldout = np.zeros((len(report.effects), len(sizes)))
    for _ in range(args.halvings):
        half, other = (scaled(talk.rewards(counts)) for counts in halved(talk, rng))
        again = welfare_effects(half, question, **about, measured_by=other, draws=1)
        heldout += np.array([[c.value for c in e.change] for e in again.effects]) / args.halvings

    voted = [(a.sum(0), (a + d).sum(0)) for a, d in zip(talk.agree, talk.disagree, strict=True)]
    rows, verdicts = [], {}
    for effect, honest in zip(report.effects, heldout, strict=True):
        pick = int(effect.picks[0])
        about_rule = {"statement": talk.texts[pick], "probability": float(effect.lottery[pick])}
        rows.append(row(name, effect.rule, "agreement", effect.agreement, "share", n=len(talk.texts), **about_rule))
        for k, change in enumerate(effect.change):
            cluster = {"cluster": names[k], "n_cluster": sizes[k]}
            ends = {"low": change.low, "high": change.high}
            rows.append(row(name, effect.rule, "change", change.value, "sd", n=change.n_raters, **ends, **cluster))
            rows.append(row(name, effect.rule, "change_heldout", honest[k], "sd", n=change.n_raters, **cluster))
        verdicts.setdefault(tuple(effect.lottery.round(6)), []).append((effect, honest))
    rows.append(row(name, "all", "different_verdicts", len(verdicts), "verdicts", n=len(report.effects)))
    lines = []
    for same in verdicts.values():
        effect, honest = same[0][0], np.mean([h for _, h in same], axis=0)
        pick = int(effect.picks[0])
        chance = effect.lottery[pick]
        lines.append(
            [
                ", ".join(e.rule for e, _ in same),
                talk.texts[pick][:70] + ("" if chance > 1 - 1e-6 else f" (with probability {chance:.2f})"),
                " / ".join(f"{a[pick] / n[pick]:.0%}" for a, n in voted),
                "\n".join(f"{c.value:+.2f} [{c.low:+.2f}, {c.high:+.2f}]" for c in effect.change),
                "\n".join(f"{h:+.2f}" for h in honest),
            ]
        )
    return rows, lines


def slates(name: str, talk: Conversation, args: Any) -> tuple[list[dict[str, Any]], list[list[str]]]:
    """Tidy rows and lines of the table: how rules differ on small slates, and what exaggerating does."""
    import numpy as np
    import torch

    from plural_rlhf.evaluation.decisions.strategy import exaggeration_report
    from plural_rlhf.evaluation.decisions.welfare_effects import welfare_effects
    from reward_models.jury.calibration import calibrate

    sizes = [len(a) for a in talk.agree]
    raw = talk.rewards([np.ones(n) for n in sizes])
    scaled = calibrate(raw, np.zeros(len(raw))).apply(torch.as_tensor(raw)).numpy()
    rng = np.random.default_rng(args.seed)
    drawn = np.stack([rng.choice(len(raw), size=SLATE, replace=False) for _ in range(args.slates)])
    slate = np.repeat(np.arange(args.slates), SLATE)
    shown, names = scaled[drawn.ravel()], [f"group {k}" for k in range(len(sizes))]
    rows: list[dict[str, Any]] = []
    told: dict[str, list[list[str]]] = {}
    for effect in welfare_effects(shown, slate, sizes, RULES, names, seed=args.seed).effects:
        rows.append(row(name, effect.rule, "slate_agreement", effect.agreement, "share", n=args.slates))
        for cluster, change in zip(names, effect.change, strict=True):
            ends = {"low": change.low, "high": change.high, "cluster": cluster}
            rows.append(row(name, effect.rule, "slate_change", change.value, "sd", n=args.slates, **ends))
            told.setdefault(effect.rule, []).append([f"{effect.agreement:.0%}", f"{change.value:+.2f}", cluster])
    for effect in exaggeration_report(shown, slate, sizes, RULES, MISREPORTS, seed=args.seed):
        for r in effect.to_rows():
            low, high = (math.nan if r[end] is None else r[end] for end in ("ci_low", "ci_high"))
            unit = "share" if r["metric"] == "moved" else "sd"
            about = {"cluster": f"group {effect.cluster}", "misreport": r["misreport"]}
            rows.append(row(name, effect.rule, r["metric"], r["value"], unit, low=low, high=high, n=r["n"], **about))
        if effect.misreport == 5:
            gain, others = (f"{i.value:+.2f} [{i.low:+.2f}, {i.high:+.2f}]" for i in (effect.gain, effect.others))
            told[effect.rule][effect.cluster] += [f"{effect.moved:.0%}", gain, others]
    same: dict[tuple[str, ...], list[str]] = {}
    for rule, by_group in told.items():
        same.setdefault(tuple("\n".join(cells) for cells in zip(*by_group, strict=True)), []).append(rule)
    return rows, [[", ".join(alike), *cells] for cells, alike in same.items()]


def main() -> None:
    parser = make_parser(__doc__ or "")
    parser.add_argument(
        "--conversations", nargs="+", choices=POLIS, metavar="NAME", help=f"any of {', '.join(POLIS)} (default: all)"
    )
    parser.add_argument("--draws", type=int, default=400, help="bootstrap resamples of the raters (default: 400)")
    parser.add_argument(
        "--halvings", type=int, default=20, help="random splits of the raters into halves (default: 20)"
    )
    parser.add_argument(
        "--slates", type=int, default=200, help="random slates for agreement and exaggeration (default: 200)"
    )
    parser.add_argument("--data", type=Path, default=DATA, help="folder with polis/")
    args = parser.parse_args()
    environment()
    if not (args.data / "polis").is_dir():
        raise SystemExit(f"no folder polis/ in {args.data}")
    if args.smoke:
        args.draws, args.halvings, args.slates = 20, 2, 10
    started = time.perf_counter()

    import pandas as pd

    votes = pd.read_parquet(args.data / "polis" / "votes.parquet")
    statements = pd.read_parquet(args.data / "polis" / "statements.parquet")
    rows: list[dict[str, Any]] = []
    for name in args.conversations or (POLIS[:1] if args.smoke else POLIS):
        talk = read(name, votes, statements)
        people = " and ".join(f"{len(a)} raters in group {k}" for k, a in enumerate(talk.agree))
        more, lines = effects(name, talk, args)
        rows += more
        header = ["rules", "statement", "agree", "change, each group", "held out"]
        print_table(f"{name}: {len(talk.texts)} statements, {people}", header, lines)
        more, lines = slates(name, talk, args)
        rows += more
        header = ["rules", "as mean", "change", "exaggerates x5", "moved", "its gain", "the others"]
        print_table(f"{name}: {args.slates} slates of {SLATE} statements", header, lines)
    write(args, rows, started, rules=list(RULES), draws=args.draws, halvings=args.halvings, slates=args.slates)


if __name__ == "__main__":
    main()
