"""Words of clusters, who reads them, and models that write profiles: out of form, cut off, run again."""

from __future__ import annotations

import numpy as np
import pytest

from plural_rlhf.methods.value_profiles import (
    ModelReader,
    ProfileSettings,
    ProfileWriter,
    TableReader,
    describe_groups,
    observer_test,
    parse_profile,
    run_profiles,
)
from plural_rlhf.methods.value_profiles.results import ProfileResults
from plural_rlhf.suites.engine.answers import AnswerStore
from plural_rlhf.suites.models.functions import CallableModel
from reward_models import Judgements, planted_judgements
from reward_models.errors import JuryError


def groups(planted, train_below):
    enc = planted.judgements.encode()
    number = np.array([int(rater[1:]) for rater in enc.rater_ids])
    train, group = number < train_below, planted.cluster[number]
    return enc, train, np.where(train, group, -1), np.where(train, -1, group)


@pytest.mark.parametrize("clusters", [2, 3])
def test_a_reader_tells_planted_clusters_apart_from_their_words(clusters):
    accuracies = []
    for seed in range(3):
        planted = planted_judgements("choice", num_raters=120, num_items=20, num_clusters=clusters, seed=seed)
        enc, train, of_train, of_heldout = groups(planted, 60)
        accuracies.append(observer_test(enc, of_train, of_heldout, TableReader.of(enc, train)).accuracy)
    assert min(accuracies) >= 0.8


def test_words_that_belong_to_the_other_cluster_mislead_the_reader():
    """A reader that did not read the words could not be misled: the rival that must fail."""
    planted = planted_judgements("choice", num_raters=120, num_items=20)
    enc, train, of_train, of_heldout = groups(planted, 60)
    reader = TableReader.of(enc, train)

    class Swapped:
        name = "swapped"

        def first_is_it(self, first, second, trial):
            return reader.first_is_it(second, first, trial)

    assert observer_test(enc, of_train, of_heldout, Swapped()).accuracy <= 0.2

    class Silent:
        name = "silent"

        def first_is_it(self, first, second, trial):
            return reader.first_is_it("", "", trial)

    assert observer_test(enc, of_train, of_heldout, Silent()).accuracy == 0.5


def test_claims_count_the_judgements_behind_them():
    planted = planted_judgements("choice", num_raters=60, num_items=8)
    enc, _, _, _ = groups(planted, 60)
    number = np.array([int(rater[1:]) for rater in enc.rater_ids])
    words = describe_groups(enc, planted.cluster[number])
    frame = planted.judgements.frame
    for cluster, profile in enumerate(words):
        claim = profile.claims[0]
        of_members = frame["rater_id"].str[1:].astype(int) % 2 == cluster
        says_so = (frame["item_id"] == claim.item) & (frame["choice"] == "ABC".index(claim.answer[-1]))
        assert claim.judgements == int((of_members & says_so).sum())
        assert set(claim.raters) <= set(frame.loc[of_members & says_so, "rater_id"])
        assert claim.share > claim.share_all


def test_a_model_reads_in_both_orders():
    prompts = []

    def shares(prompt, options):
        prompts.append(prompt)
        return [0.8, 0.2] if prompt.index("parks") < prompt.index("roads") else [0.2, 0.8]

    from plural_rlhf.methods.value_profiles import ObserverTrial

    trial = ObserverTrial(0, "Trees?", ("yes", "no"), np.array([0.9, 0.1]))
    reader = ModelReader(CallableModel("reader", option_shares=shares))
    assert reader.first_is_it("likes parks", "likes roads", trial) == pytest.approx(np.log(4))
    assert len(prompts) == 2
    assert "90% yes" in prompts[0]


@pytest.mark.parametrize(
    ("text", "profile"),
    [
        ("- Likes parks.\n- Likes trees.", "- Likes parks.\n- Likes trees."),
        (
            "Here you are:\n\n * Likes parks.\n\n• Likes parks.\n10. Trusts science.",
            "- Likes parks.\n- Trusts science.",
        ),
        ("- parks", None),
        ("", None),
        ("The person likes parks.", None),
        ("- " + "very long " * 200, None),
    ],
)
def test_profiles_are_read_from_lists_and_nothing_else(text, profile):
    assert parse_profile(text) == profile


def test_malformed_profiles_are_asked_for_again_and_a_stopped_run_goes_on(tmp_path):
    asked, broken = [], [True]

    def write(prompt, n, seed):
        asked.append(prompt)
        if broken[0] and "rater 4" in prompt:
            raise ConnectionError("gone")
        first_of_rater_3 = "rater 3" in prompt and sum("rater 3" in other for other in asked) == 1
        return ["what?"] if "rater 2" in prompt or first_of_rater_3 else ["- Likes parks."]

    def writer():
        model = CallableModel("writer", write=write, identity="w")
        model.batch_size = 1
        return ProfileWriter(model, AnswerStore(tmp_path / "profiles.jsonl"))

    judgements = [f"rater {u}: yes" for u in range(5)]
    with pytest.raises(ConnectionError):
        writer().write(judgements)
    assert len(asked) == 5
    broken[0] = False
    again = writer()
    profiles = again.write(judgements)
    assert [bool(profile) for profile in profiles] == [True, True, False, True, True]
    assert (again.without, again.malformed) == (1, 4)  # rater 2 three times, rater 3 once
    before = len(asked)
    assert before == 5 + 1 + 3  # rater 4; then raters 2 and 3; then rater 2
    assert writer().write(judgements) == profiles  # all is kept, malformed answers too
    assert len(asked) == before


def test_a_model_may_write_and_read_the_profiles_of_a_table(tmp_path):
    planted = planted_judgements("choice", num_raters=60, num_items=10, strength=4.0)

    def write(prompt, n, seed):
        said = [line for line in prompt.splitlines() if line.startswith("Question")]
        return ["\n".join(f"- Says {line}" for line in said)]

    def embed(texts):
        words = [f"Question {i}?: answer {letter}" for i in range(1, 11) for letter in "ABC"]
        return np.array([[float(f"{word}\n" in f"{text}\n") for word in words] for text in texts])

    model = CallableModel("writer", write=write, option_shares=lambda prompt, options: [0.6, 0.4])
    settings = ProfileSettings(encoder="writer", sizes=(2,), splits=1)
    results = run_profiles(planted.judgements, tmp_path, settings, model=model, embed=embed)
    assert (results.encoder, results.without_profile) == ("writer", 0)
    assert [one.reader for one in results.observer] == ["table", "writer"]
    assert results.observer[1].accuracy == 0.5  # it says 1 whatever it reads, and both orders are asked
    assert results.clusters[0].written.startswith("- Says Question")
    assert ProfileResults.read(tmp_path / "results.json").to_dict() == results.to_dict()
    rows = {row.name: row.info for row in results.information}
    assert rows["2 clusters"] > 0.1


def test_a_model_without_an_embedder_is_refused(tmp_path):
    model = CallableModel("writer", write=lambda prompt, n, seed: ["- a b"])
    with pytest.raises(JuryError, match="nothing turns them into vectors"):
        run_profiles(planted_judgements("choice").judgements, tmp_path, model=model)


def test_a_run_encodes_its_table_once(tmp_path, monkeypatch):
    judgements = planted_judgements("choice", num_raters=60, num_items=8).judgements
    encode, calls = Judgements.encode, []
    monkeypatch.setattr(Judgements, "encode", lambda self: calls.append(self) or encode(self))
    run_profiles(judgements, tmp_path, ProfileSettings(sizes=(2,), splits=1))
    assert len(calls) == 1
