"""Synthetic copies of the releases: a few invented, harmless records under the release's own file and field names.

`SYNTHETIC` holds a writer for every release; it takes an empty folder and returns what to pass as `source`.
"""

import csv
import gzip
import json

import pandas as pd


def write_csv(path, header, *rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    return path


def write_lines(path, *records):
    path.parent.mkdir(parents=True, exist_ok=True)
    text = "\n".join(map(json.dumps, records))
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


def user(text):
    return {"role": "user", "content": text}


def assistant(text):
    return {"role": "assistant", "content": text}


def prism(folder):
    def said(turn, place, text, score, chosen):
        model = {"role": "model", "model_name": "m", "score": score, "if_chosen": chosen}
        return {"turn": turn, "within_turn_id": place, "content": text} | model

    history = [
        {"turn": 0, "within_turn_id": 0, "score": None, "if_chosen": None} | user("Tea or coffee?"),
        said(0, 1, "Coffee.", 81, True),
        said(0, 0, "Tea.", 40, False),
        said(0, 2, "Water.", 1, False),
        {"turn": 1, "within_turn_id": 0, "score": None, "if_chosen": None} | user("Why?"),
        said(1, 0, "It wakes you up.", 60, False),
        said(1, 1, "Taste.", 61, True),
    ]
    unanswered = [history[0], said(0, 0, "Hm.", 5, False), said(0, 1, "Er.", 5, False)]
    talks = [("c1", "u1", history), ("c2", "u2", unanswered)]
    fields = ("conversation_id", "user_id", "conversation_history")
    write_lines(folder / "conversations.jsonl", *(dict(zip(fields, talk, strict=True)) for talk in talks))
    about = {
        "religion": {"self_described": "x", "simplified": "No Affiliation"},
        "location": {"reside_country": "Chile"},
    }
    write_lines(folder / "survey.jsonl", {"user_id": "u1", "age": "18-24 years old", "gender": "Female"} | about)
    return folder


def dices(folder, size):
    header = ["id", "rater_id", "rater_gender", "rater_age", "item_id", "context", "response", "Q3_bias_overall"]
    return write_csv(
        folder / str(size) / f"diverse_safety_adversarial_dialog_{size}.csv",
        [*header, "Q_overall"],
        [0, 296, "Woman", "gen z", 7, "USER: How do I paint a fence?", "With a brush.", "No", "No"],
        [1, 297, "Man", "gen x+", 7, "USER: How do I paint a fence?", "With a brush.", "No", "Unsure"],
        [2, 298, "Man", "", 7, "USER: How do I paint a fence?", "With a brush.", "Yes", "Yes"],
        [3, 299, "Man", "", 7, "USER: How do I paint a fence?", "With a brush.", "Yes", ""],
    )


def helpsteer2(folder):
    pair = {"prompt": "Say hi.", "response_1": "Hi!", "response_2": "Hello.", "preference_strength": 1}
    found = [{"strength": s, "justification": "..."} for s in (-2, 0, 3, -100)]
    write_lines(
        folder / "preference" / "preference.jsonl.gz",
        pair | {"all_preferences_unprocessed": found},
        pair | {"all_preferences_unprocessed": str(found[:1])},
    )
    rated = {"prompt": "Say hi.", "response": "Hi!", "helpfulness": [4, 2, 3], "correctness": [4, 4, 0]}
    write_lines(folder / "disagreements" / "disagreements.jsonl.gz", rated)
    write_lines(folder / "train.jsonl", {"prompt": "not this file"})
    return folder


def helpsteer3(folder):
    record = {"domain": "general", "language": "english", "response1": "Hi!", "response2": "Hello."}
    record |= {"context": [user("Hi?"), assistant("Yes?"), user("Say hi.")], "overall_preference": 1}
    record["individual_preference"] = [{"score": s, "reasoning": "..."} for s in (-1, 2, 0)]
    write_lines(folder / "preference" / "train.jsonl.gz", record)
    write_lines(folder / "feedback" / "train.jsonl.gz", {"context": []})
    return folder


def multipref(folder):
    record = {
        "comparison_id": "k1",
        "prompt_id": "p",
        "text": "Name a colour.",
        "completion_a": "Red.",
        "model_a": "m",
    }
    record |= {"completion_b": "Blue.", "model_b": "n"}
    record["normal_worker_annotations"] = [
        {"evaluator": "e1", "overall_pref": "A-is-slightly-better", "helpful_pref": "Tie"},
        {"evaluator": "e2", "overall_pref": "Tie", "helpful_pref": "B-is-clearly-better"},
    ]
    record["expert_worker_annotations"] = [
        {"evaluator": "e9", "overall_pref": "B-is-clearly-better", "helpful_pref": None}
    ]
    path = folder / "data" / "train-00000-of-00001.parquet"
    path.parent.mkdir(parents=True)
    pd.DataFrame([record]).to_parquet(path)
    return folder


def chatbot_arena(folder):
    def vote(number, judge, winner, *turns):
        first = [user("Name a fruit."), assistant("Apple."), *turns]
        second = [user("Name a fruit."), assistant("Pear."), *turns]
        record = {"question_id": f"q{number}", "judge": judge, "winner": winner, "model_a": "m", "model_b": "n"}
        return record | {"conversation_a": first, "conversation_b": second, "turn": len(first) // 2}

    more = (user("Another."), assistant("Plum."))
    votes = [vote(1, "j1", "model_a"), vote(2, "j1", "tie (bothbad)"), vote(3, "j2", "model_b")]
    return write_lines(folder / "arena.jsonl", *votes, vote(4, "j2", "model_a", *more), vote(5, "j2", "tie"))


def community_alignment(folder):
    def choice(number, annotator, responses, preferred):
        record = {f"first_turn_response_{letter}": text for letter, text in zip("abcd", responses, strict=True)}
        record |= {"conversation_id": number, "annotator_id": annotator, "annotator_country": "brazil"}
        return record | {"first_turn_prompt": "Plan a day.", "first_turn_preferred_response": preferred}

    four = ["Sea.", "Art.<|end_of_text|>", "Run.", "Nap."]
    return write_lines(
        folder / "filtered.jsonl",
        choice(1, 11, four, "response_a"),
        choice(2, 12, four[::-1], "response_c"),
        choice(3, 12, four, "response_d"),  # the same four in another order: judged before
        choice(4, 13, ["Sea.", "Sea.", "Run.", "Nap."], "response_a"),
        choice(5, 13, four, None),
    )


def summarize_from_feedback(folder):
    def comparison(worker, texts, choice, split="train"):
        info = {
            "id": "t3_x",
            "title": "My cat",
            "post": "My cat sleeps all day.",
            "subreddit": "cats",
            "article": None,
        }
        summaries = [{"text": text, "policy": "p", "note": None} for text in texts]
        return {"info": info, "summaries": summaries, "choice": choice, "worker": worker, "split": split}

    return write_lines(
        folder / "comparisons" / "batch3.json",
        comparison("w1", ["Cat sleeps.", "Cat."], 0),
        comparison("w2", ["Cat.", "Cat sleeps."], 0, "valid1"),
        comparison("w1", ["Cat.", "Cat sleeps."], 1),  # the same pair, shown again
    ).parent


def global_opinion_qa(folder):
    shares = "defaultdict(<class 'list'>, {'Chile': [0.25, 0.75], 'Kenya': [0.5, 0.49], 'Peru': [0.5, 0.2]})"
    return write_csv(
        folder / "data" / "global_opinions.csv",
        ["question", "selections", "options", "source"],
        ["Is tea good?", shares, "['Yes', 'No']", "WVS"],
        ["", "defaultdict(<class 'list'>, {'Chile': [0.5, 0.5]})", "['Yes', 'No']", "GAS"],
        ["Rate tea.", "defaultdict(<class 'list'>, {'Chile': [0.1, 0.2, 0.7]})", "[1, 2, 'DK']", "WVS"],
        ["Rate it.", "defaultdict(<class 'list'>, {'Chile': [0.1, 0.2, 0.7]})", "['No', 'No']", "WVS"],
    )


def opinion_qa(folder):
    wave = folder / "human_resp" / "American_Trends_Panel_W26"
    listed = "['A lot', 'A little', 'None', 'Refused']"
    info = [
        ["TEA_W26", "How much tea?", listed, "[1.0, 2.0, 3.0]"],
        ["MILK_W26", "Milk?", "['Yes', 'No']", "[1.0, 2.0]"],
    ]
    write_csv(wave / "info.csv", ["key", "question", "references", "option_ordinal"], *info)
    write_csv(
        wave / "responses.csv",
        ["QKEY", "TEA_W26", "MILK_W26", "WEIGHT_W26", "POLPARTY", "SEX"],
        ["100197", "None", "Yes", "0.5", "Independent", "Male"],
        ["100260", "A lot", "", "2.0", "", "Female"],
        ["100314", "Refused", "No", "1.0", "", "Female"],
    )
    return folder


def popquorn(folder):
    return write_csv(
        folder / "offensiveness" / "raw_data.csv",
        ["instance_id", "user_id", "text", "offensiveness", "gender", "race", "age", "occupation", "education"],
        [5, 0, "Nice hat.", 1.0, "Man", "White", "35-39", "Retired", "College degree"],
        [5, 1, "Nice hat.", 3.0, "Woman", "Black", "20-24", "Student", "College degree"],
        [6, 1, "Hello.", "", "Woman", "Black", "20-24", "Student", "College degree"],
    )


def lewidi(folder):
    def item(answers):
        annotators = ",".join(answers)
        return {
            "annotation task": "sarcasm detection",
            "text": {"context": "Steve is late.", "response": "Great timing."},
            "annotators": annotators,
            "annotations": answers,
            "soft_label": {"1": 0.5, "2": 0.0, "3": 0.5},
        }

    (folder / "CSC_train.json").write_text(json.dumps({"31": item({"Ann7": "1", "Ann8": "3"})}, indent=1))
    (folder / "CSC_dev.json").write_text(json.dumps({"32": item({"Ann7": "3"})}, indent=1))
    meta = '{"Ann7": {"Gender": "Female", "Age": "24",}, "8": {"Gender": "nan", "Age": 31.0},}'  # with stray commas
    (folder / "CSC_annotators_meta.json").write_text(meta)
    return folder


def ukpconvarg1(folder):
    def argument(tag, number, text):
        return f"<{tag}><author>zz</author><stance>Yes</stance><text>{text}</text><id>{number}</id></{tag}>"

    votes = [("A3XX", "a2"), ("A1YY", "equal"), ("A3XX", "a1"), ("A9ZZ", "")]
    voted = "".join(
        f"<mTurkAssignment><turkID>{who}</turkID><value>{value}</value></mTurkAssignment>" for who, value in votes
    )
    pair = f"{argument('arg1', 'arg2', 'They hold up.')}{argument('arg2', 'arg1', 'They look good.')}"
    debate = "<debateMetaData><title>Wear hats?</title></debateMetaData>"
    pair = f"<annotatedArgumentPair>{pair}{debate}<mTurkAssignments>{voted}</mTurkAssignments></annotatedArgumentPair>"
    folder = folder / "UKPConvArg1-full-XML"
    folder.mkdir()
    (folder / "wear-hats_yes.xml").write_text(f'<?xml version="1.0"?><list>{pair}</list>')
    return folder


def polis(folder):
    folder = folder / "town.square"
    fields = ["participant", "group-id", "n-comments", "n-votes", "n-agree", "n-disagree", "0", "1", "2"]
    write_csv(folder / "participants-votes.csv", fields, [0, 1, 0, 2, 1, 1, 1, -1, ""], [3, "", 0, 2, 0, 0, 0, "", 1])
    comments = [[1, "x", 0, 9, 1, 0, 1, "More benches."], [1, "x", 1, 9, 0, 1, -1, "Fewer, dearer benches."]]
    header = ["timestamp", "datetime", "comment-id", "author-id", "agrees", "disagrees", "moderated", "comment-body"]
    write_csv(folder / "comments.csv", header, *comments)
    write_csv(folder / "summary.csv", ["topic", "The square, and its benches"], ["views", "12"])
    return folder.parent


def polarized_issues(folder):
    start, question = folder / "The square" / "the_square", ("q1", "What would you change?")
    about = [["Name", "The square"], ["Participants", "2"], ["Total Screener Polls", "2"], [""]]

    def part(name, header, *rows):
        path = write_csv(start.with_name(f"the_square_{name}.csv"), *about, header, *rows)
        path.write_text("\ufeff" + path.read_text() if name == "participants" else path.read_text())

    answers = ("t1", "More benches."), ("t2", "Nothing, it is fine."), ("t3", "Less noise."), ("t4", "")
    header = ["Question ID", "Question Text", "Participant ID", "Thought ID", "Thought Text"]
    part("verbatim_map", header, *([*question, "p1", *answer] for answer in answers))
    votes = ("p1", "t2", "Agree"), ("p1", "t1", "Disagree"), ("p9", "t1", "Agree"), ("p1", "t2", "Disagree")
    header = ["Question ID", "Participant ID", "Thought ID", "Vote", "Timestamp"]
    part("binary", header, *(["q1", *vote, "noon"] for vote in (*votes, ("p1", "t4", "Agree"))))
    pairs = (
        ("p1", "t1", "t2", "Thought A"),
        ("p2", "t1", "t2", "I'm not sure"),
        ("p2", "t3", "t1", "These are similar"),
    )
    header = ["Question ID", "Participant ID", "Thought A ID", "Thought B ID", "Vote", "Timestamp"]
    part("preference", header, *(["q1", *pair, "noon"] for pair in pairs))
    lives = ["Where do you live? - Town", "Where do you live? - Country"]
    header = ["", "", "Participant Id", "Sample Provider Id", "What is your age?", *lives]
    part(
        "participants",
        [*header, "What would you change?", "Sentiment", "All (%agree)", "Sentiment"],
        ["", "", "p1", "", "18-29", "--", "Country", "More benches.", "Neutral", "50%", "Positive"],
        ["", "", "p2", "", "--", "--", "--", "--", "--", "--"],
    )
    return folder


def pandalm(folder):
    record = {"idx": 0, "instruction": "Rewrite.", "input": float("nan"), "response1": "So.", "response2": "Thus."}
    answers = {"annotator1": 1, "annotator2": 0, "annotator3": 2}
    empty = record | answers | {"idx": 1, "input": "this", "response2": ""}
    path = folder / "data" / "testset-v1.json"
    path.parent.mkdir()
    path.write_text(json.dumps([record | answers, empty], indent=4))
    return folder


def value_prism(folder):
    value = ["Sharing a sandwich", "Value", "Kindness"]
    return write_csv(
        folder / "full" / "full.csv",
        ["situation", "vrd", "text", "explanation", "valence"],
        [*value, "...", "Supports"],
        ["Sharing a sandwich", "Duty", "To eat", "...", "Either"],
        [*value, "...", "Opposes"],
        [*value, "...", "supports"],
        ["Sharing a sandwich", "Right", "To rest", "...", ""],
    )


def ultrafeedback(folder):
    def completion(text, *ratings):
        names = ("instruction_following", "truthfulness", "honesty", "helpfulness")
        annotations = {name: {"Rating": r, "Rationale": "..."} for name, r in zip(names, ratings, strict=True)}
        return {"model": "m", "response": text, "annotations": annotations}

    record = {"source": "s", "instruction": "Add 2 and 2.", "models": ["m"] * 2}
    completions = [completion("4", "5", "5", "4", "3"), completion("four", "4", "5", "N/A", "5")]
    return write_lines(folder / "all.jsonl", record | {"completions": completions})


SYNTHETIC = {
    "prism": prism,
    "dices_350": lambda folder: dices(folder, 350),
    "dices_990": lambda folder: dices(folder, 990),
    "helpsteer2": helpsteer2,
    "helpsteer3": helpsteer3,
    "multipref": multipref,
    "chatbot_arena": chatbot_arena,
    "community_alignment": community_alignment,
    "summarize_from_feedback": summarize_from_feedback,
    "global_opinion_qa": global_opinion_qa,
    "opinion_qa": opinion_qa,
    "popquorn": popquorn,
    "lewidi": lewidi,
    "ukpconvarg1": ukpconvarg1,
    "polis": polis,
    "polarized_issues": polarized_issues,
    "pandalm": pandalm,
    "value_prism": value_prism,
    "ultrafeedback": ultrafeedback,
}
