"""Reading a release: the request to the Hub, the number of records that a limit reads, the message on a failure."""

import datasets
import pandas as pd
import pytest

from reward_models.errors import JudgementError
from reward_models.sources import load_release
from reward_models.sources.releases.reading import read_file
from tests import synthetic_releases as synthetic
from tests.synthetic_releases import write_csv


pytestmark = pytest.mark.filterwarnings("ignore::reward_models.errors.JudgementWarning")


def test_unknown_names_options_and_limits(tmp_path):
    with pytest.raises(
        JudgementError, match=r"'prisma' is not a release known here\. Did you mean 'prism'\? Fix: one of"
    ):
        load_release("prisma")
    with pytest.raises(
        JudgementError, match=r"'knd' is not an option of the release 'prism'\. Did you mean 'kind'\? Fix"
    ):
        load_release("prism", synthetic.prism(tmp_path), knd="rating")
    with pytest.raises(JudgementError, match=r"'kind' is not an option of the release 'pandalm'\. Fix: it has none"):
        load_release("pandalm", tmp_path, kind="rating")
    with pytest.raises(JudgementError, match="limit=0 reads nothing"):
        load_release("prism", tmp_path, limit=0)


def test_missing_files_and_columns_are_named(tmp_path):
    synthetic.popquorn(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"raw_dat\.csv does not exist\. Did you mean 'raw_data\.csv'\? Fix"):
        load_release("popquorn", tmp_path / "offensiveness" / "raw_dat.csv")
    with pytest.raises(
        JudgementError, match=r"holds no testset-v1\.json of the release 'pandalm'; it holds 'offensiv"
    ):
        load_release("pandalm", tmp_path)
    path = synthetic.dices(tmp_path, 350)
    path.write_text(path.read_text().replace("Q_overall", "Q_overal"))
    with pytest.raises(
        JudgementError,
        match=r"'Q_overall' is not a column of .*_350\.csv\. Did you mean 'Q_overal'\? It has 'id', 'rater_id'",
    ):
        load_release("dices_350", path)
    (synthetic.polis(tmp_path) / "town.square" / "comments.csv").unlink()
    with pytest.raises(JudgementError, match=r"comments\.csv is missing, so the statements have no text"):
        load_release("polis", tmp_path / "town.square")


def test_unreadable_files_say_so(tmp_path):
    broken = tmp_path / "arena.jsonl"
    broken.write_text('{"judge": ')
    with pytest.raises(JudgementError, match=r"arena\.jsonl cannot be read: .*check that the download is whole"):
        load_release("chatbot_arena", broken)
    (tmp_path / "arena.xlsx").write_bytes(b"")
    with pytest.raises(JudgementError, match=r"'arena\.xlsx' is none of \.csv, \.tsv"):
        load_release("chatbot_arena", tmp_path / "arena.xlsx")
    (tmp_path / "a.xml").write_text("<list><a>")
    with pytest.raises(JudgementError, match=r"a\.xml is not XML"):
        load_release("ukpconvarg1", tmp_path / "a.xml")
    as_text = write_csv(
        tmp_path / "arena.csv", ["judge", "winner", "conversation_a", "conversation_b"], ["j", "tie", "?", "?"]
    )
    with pytest.raises(JudgementError, match=r"'\?' is neither JSON nor a Python list"):
        load_release("chatbot_arena", as_text)
    nothing = write_csv(tmp_path / "raw_data.csv", ["instance_id", "user_id", "text", "politeness"], [1, 1, "Hi.", 9])
    with pytest.raises(JudgementError, match=r"popquorn: no judgements were found \(1 outside the scale\)"):
        load_release("popquorn", nothing)


def test_a_limit_reads_no_further(tmp_path):
    path = synthetic.chatbot_arena(tmp_path)
    path.write_text(path.read_text() + "\nnot json")
    assert len(load_release("chatbot_arena", path, limit=2)) == 2


def test_the_hub_is_asked_for_the_right_table(monkeypatch, tmp_path):
    asked = []

    def load_dataset(path, name=None, **options):
        asked.append((path, name, options))
        return list(read_file(folder / f"{name}.jsonl"))

    folder = synthetic.prism(tmp_path)
    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    j = load_release("prism")
    pd.testing.assert_frame_equal(j.frame, load_release("prism", folder).frame)
    assert asked == [
        ("HannahRoseKirk/prism-alignment", "survey", {"streaming": False, "split": "train"}),
        ("HannahRoseKirk/prism-alignment", "conversations", {"streaming": False, "split": "train"}),
    ]
    load_release("prism", "someone/copy", limit=1)
    assert asked[-1] == ("someone/copy", "conversations", {"streaming": True, "split": "train"})


def test_an_unreachable_hub_says_which_id_and_how_to_pass_a_copy(monkeypatch):
    def load_dataset(*_, **__):
        raise ConnectionError("Couldn't reach the Hub\nand much more")

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    with pytest.raises(
        JudgementError,
        match=r"'nvidia/HelpSteer3' cannot be read from the Hub \(Couldn't reach the Hub\)\. Fix: .* "
        r"load_release\('helpsteer3', source='path/to/copy'\)",
    ):
        load_release("helpsteer3")
    with pytest.raises(JudgementError, match=r"'polis' is not published on the Hub\. Fix: get it from https://github"):
        load_release("polis")
    with pytest.raises(JudgementError, match=r"'polis' cannot be read from the Hub \('someone/polis'\)\. Fix: pass"):
        load_release("polis", "someone/polis")


def test_of_two_formats_of_a_table_one_is_read(tmp_path):
    lines = synthetic.chatbot_arena(tmp_path)
    pd.DataFrame(list(read_file(lines))).to_parquet(tmp_path / "arena.parquet")
    assert len(load_release("chatbot_arena", tmp_path)) == len(load_release("chatbot_arena", lines)) == 4
