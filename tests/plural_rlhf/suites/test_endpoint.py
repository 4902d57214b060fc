"""An OpenAI-compatible endpoint, tried against a server of that protocol on this machine."""

from __future__ import annotations

import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from plural_rlhf.methods.value_profiles import ProfileWriter
from plural_rlhf.suites import Context, OptionQuestion, OptionRequest
from plural_rlhf.suites.engine.answers import AnswerStore
from plural_rlhf.suites.models.endpoint import EndpointError, EndpointModel, _may_pass
from plural_rlhf.suites.models.protocol import NotSupported


class Server:
    """Answers chat completions; `script` gives the status of the next requests, 200 after it; `instead` answers."""

    def __init__(self):
        self.script, self.bodies, self.headers = [], [], []
        self.instead = []
        self.at_once = self.most_at_once = 0
        self.choices = lambda body: [{"message": {"content": " yes\nand no"}} for _ in range(body["n"])]
        lock, server = threading.Lock(), self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                with lock:
                    server.bodies.append(body)
                    server.headers.append(dict(self.headers))
                    server.at_once += 1
                    server.most_at_once = max(server.most_at_once, server.at_once)
                    status = server.script.pop(0) if server.script else 200
                time.sleep(0.02)
                with lock:
                    server.at_once -= 1
                usage = {"prompt_tokens": 10, "completion_tokens": 5}
                answer = {"choices": server.choices(body), "usage": usage} if status == 200 else {"error": "no"}
                with lock:
                    answer = server.instead.pop(0) if server.instead else answer
                self.send_response(status)
                if answer == "cut off":
                    self.send_header("Content-Length", "1000")
                self.end_headers()
                self.wfile.write(json.dumps(answer).encode())

            def log_message(self, *args):
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}/v1"
        threading.Thread(target=self.http.serve_forever, daemon=True).start()


@pytest.fixture
def server():
    server = Server()
    yield server
    server.http.shutdown()
    server.http.server_close()


def model(server, **settings):
    return EndpointModel("api", server.url, "llama", pause=0.01, **settings)


def test_texts_come_back_in_order_within_the_limit_and_are_counted(server, monkeypatch):
    monkeypatch.setenv("THE_KEY", "secret")
    server.choices = lambda body: [{"message": {"content": body["messages"][0]["content"] * 2}}] * body["n"]
    api = model(server, concurrency=3, key_env="THE_KEY", prices=(1.0, 2.0))
    texts = api.sample([f"p{i}" for i in range(12)], 2, max_new_tokens=7, temperature=0.5)
    assert texts == [[f"p{i}p{i}"] * 2 for i in range(12)]
    assert 1 < server.most_at_once <= 3
    assert server.headers[0]["Authorization"] == "Bearer secret"
    assert server.bodies[0] | {"seed": 0, "messages": []} == {
        "model": "llama", "messages": [], "n": 2, "seed": 0, "max_tokens": 7, "temperature": 0.5,
    }  # fmt: skip
    usage = api.usage_record()
    assert (usage["requests"], usage["prompt_tokens"], usage["completion_tokens"]) == (12, 120, 60)
    assert usage["cost"] == pytest.approx((120 * 1 + 60 * 2) / 1e6)


def test_an_endpoint_that_gives_one_text_at_a_time_is_asked_again(server):
    server.choices = lambda body: [{"message": {"content": f"text {body['seed']}"}}]
    [texts] = model(server).sample(["p"], 3)
    assert len(set(texts)) == 3  # each with another seed
    assert [body["n"] for body in server.bodies] == [3, 2, 1]


def test_errors_that_may_pass_are_tried_again(server):
    server.script = [429, 503, 500]
    api = model(server)
    assert api.sample(["p"], 1, stop=("\n",)) == [["yes"]]
    assert (api.usage.requests, api.usage.retries) == (1, 3)


def test_errors_that_stay_stop_at_once_or_in_the_end(server):
    server.script = [401]
    with pytest.raises(EndpointError, match=r"401.*Fix: check endpoint, model and the key in OPENAI_API_KEY"):
        model(server).sample(["p"], 1)
    assert len(server.bodies) == 1
    server.script = [503] * 5
    with pytest.raises(EndpointError, match="failed 5 times, at last with: 503"):
        model(server, tries=5).sample(["p"], 1)
    with pytest.raises(EndpointError, match="failed 2 times"):
        EndpointModel("api", "http://127.0.0.1:9", "llama", tries=2, pause=0.01).sample(["p"], 1)


def test_a_request_that_failed_for_good_ends_the_pauses_of_the_others(server):
    server.script = [503, 503, 503, 401]
    api = EndpointModel("api", server.url, "llama", concurrency=4, pause=86_400.0)
    raised = []

    def ask():
        with pytest.raises(EndpointError, match="401") as caught:
            api.sample([f"p{i}" for i in range(20)], 1)
        raised.append(caught)

    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    asking.join(60)  # else for ever, on any machine: a pause is a day
    assert raised
    assert len(server.bodies) == 4


def test_refusals_and_empty_texts_are_counted(server):
    kinds = [
        {"message": {"content": None, "refusal": "I cannot"}},
        {"message": {"content": ""}},
        {"message": {"content": "half"}, "finish_reason": "content_filter"},
        {"message": {"content": "yes"}},
    ]
    server.choices = lambda body: kinds
    api = model(server)
    assert api.sample(["p"], 4) == [["", "", "", "yes"]]
    assert (api.usage.refusals, api.usage.empty) == (2, 1)


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ([], "has no choices"),
        (["yes"], "a choice without a message"),
        ([{"text": "yes"}], "a choice without a message"),
    ],
)
def test_an_answer_of_another_shape_is_an_error(server, choices, message):
    server.choices = lambda body: choices
    with pytest.raises(EndpointError, match=f"{message}.*Fix: give the address of chat completions"):
        model(server).sample(["p"], 1)


def test_a_text_in_parts_is_one_text(server):
    parts = [{"type": "text", "text": "yes, "}, {"type": "image"}, {"type": "text", "text": "please"}]
    server.choices = lambda body: [{"message": {"content": parts}}]
    assert model(server).sample(["p"], 1) == [["yes, please"]]


def test_an_error_that_comes_as_an_answer_is_an_error(server):
    """Gateways say 200 and put the error of the model behind them into the answer."""
    server.instead = [{"error": {"code": 429, "message": "rate limited"}}, {"error": {"message": "overloaded"}}]
    api = model(server)
    assert api.sample(["p"], 1, stop=("\n",)) == [["yes"]]
    assert (api.usage.requests, api.usage.retries) == (1, 2)
    server.instead = [{"error": {"code": 402, "message": "no credit"}}]
    with pytest.raises(EndpointError, match=r"no credit.*Fix: check endpoint, model and the key"):
        api.sample(["p"], 1)
    server.instead = [{"error": {"code": 429, "message": "quota"}}] * 3
    with pytest.raises(EndpointError, match=r"failed 3 times, at last with: .*quota"):
        model(server, tries=3).sample(["p"], 1)


def test_a_server_that_dies_in_the_middle_of_an_answer_is_asked_again(server):
    server.instead = ["cut off"]
    api = model(server)
    assert api.sample(["p"], 1, stop=("\n",)) == [["yes"]]
    assert api.usage.retries == 1


def test_an_endpoint_that_counts_no_tokens_costs_nothing(server):
    server.instead = [{"choices": [{"message": {"content": "yes"}}], "usage": {"prompt_tokens": "many"}}]
    api = model(server, prices=(1.0, 2.0))
    assert api.sample(["p"], 1) == [["yes"]]
    assert (api.usage.prompt_tokens, api.usage.cost) == (0, 0.0)


def test_what_was_answered_before_a_failure_is_not_asked_again(server, tmp_path):
    prompts = [f"p{i}" for i in range(20)]
    store = tmp_path / "urn.jsonl"
    server.script = [200] * 8 + [404] * 50
    with pytest.raises(EndpointError, match="404"):
        Context(model(server), store=AnswerStore(store)).sample(prompts, 1)
    server.script, asked = [], len(server.bodies)
    assert len(Context(model(server), store=AnswerStore(store)).sample(prompts, 1)) == 20
    assert len(server.bodies) - asked == 12


def test_profiles_that_were_answered_beside_a_failure_are_kept(server, tmp_path):
    server.choices = lambda body: [{"message": {"content": "- Likes parks."}}]
    server.script = [200, 200, 404]
    judgements, path = [f"Parks?: {n}" for n in range(5)], tmp_path / "profiles.jsonl"
    with pytest.raises(EndpointError, match="404") as failure:
        ProfileWriter(model(server, concurrency=1), AnswerStore(path)).write(judgements)
    assert failure.value.answered == {0: ["- Likes parks."], 1: ["- Likes parks."]}
    assert len(server.bodies) == 3
    assert ProfileWriter(model(server), AnswerStore(path)).write(judgements) == ["- Likes parks."] * 5
    assert len(server.bodies) == 3 + 3


def test_options_are_scored_by_samples_or_stated_shares_only(server):
    with pytest.raises(NotSupported, match="cannot give probabilities"):
        model(server).option_log_probs([OptionRequest("Parks?", ("yes", "no"))])
    question = OptionQuestion("Parks?", ("yes", "no"))
    server.choices = lambda body: [{"message": {"content": t}} for t in ("yes", "No.", "yes", "perhaps")][: body["n"]]
    [answer] = Context(model(server), scoring="sampling", option_samples=4).option_answers([question])
    assert (answer.shares.round(3).tolist(), answer.coverage) == ([0.667, 0.333], 0.75)
    server.choices = lambda body: [{"message": {"content": "yes: 70\nno: 30"}}]
    [answer] = Context(model(server), scoring="verbalised").option_answers([question])
    assert answer.shares.tolist() == [0.7, 0.3]


def test_only_errors_that_may_pass_are_tried_again():
    """Timeout, conflict, too early, too many requests, and everything that is the server's fault."""
    assert [code for code in range(400, 600) if _may_pass(code)] == [408, 409, 425, 429, *range(500, 600)]
