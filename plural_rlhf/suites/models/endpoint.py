"""Models behind an OpenAI-compatible endpoint: chat completions over HTTP, by the standard library alone.

Requests run side by side up to a limit. Errors that may pass (429, 5xx, no connection) are tried again after a pause
that grows; others stop the suite, whose finished answers are kept. Knows no task.
"""

from __future__ import annotations

import http.client
import json
import os
import threading
import urllib.error
import urllib.request
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any

from plural_rlhf.suites.models.protocol import EvaluatedModel, TextSettings
from reward_models.content_hashes import value_hash


__all__ = ["EndpointError", "EndpointModel", "Usage"]

LONGEST_PAUSE = 60.0


class EndpointError(ValueError):
    """An endpoint that cannot be used, or that failed too often.

    Attributes:
        answered: Texts of the other prompts of the call that were answered, by place.

    Example:
        >>> raise EndpointError("http://localhost:8000/v1: 401 Unauthorized. Fix: set OPENAI_API_KEY")
        Traceback (most recent call last):
        plural_rlhf.suites.models.endpoint.EndpointError: http://localhost:8000/v1: 401 Unauthorized. ...
    """

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.answered: dict[int, list[str]] = {}


@dataclass
class Usage:
    """What an endpoint was asked and what it cost, in this process; kept answers cost nothing.

    Attributes:
        requests: Requests that were answered.
        retries: Requests that had to be sent again.
        refusals: Texts that were refused by the model or stopped by a content filter; they count as empty texts.
        empty: Texts without a character, refusals aside.
        prompt_tokens: As the endpoint counts them; 0 if it does not.
        completion_tokens: The same of what it wrote.
        cost: In the currency of the prices that were given; 0 without prices.

    Example:
        >>> Usage(requests=2, completion_tokens=64).cost
        0.0
    """

    requests: int = 0
    retries: int = 0
    refusals: int = 0
    empty: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost: float = 0.0


class EndpointModel(EvaluatedModel):
    """A model behind `<url>/chat/completions`.

    Args:
        name: What the report calls it.
        url: Address up to and without `/chat/completions`, e.g. `http://localhost:8000/v1`.
        model: Name of the model at the endpoint.
        key_env: Environment variable that holds the key; none is sent if it is not set.
        concurrency: Most requests at a time.
        tries: Most tries of one request.
        pause: Seconds before the second try; each further pause is twice as long, or as long as `Retry-After` says.
        timeout: Seconds that one try may take.
        prices: Prices of a million prompt tokens and of a million completion tokens.

    Example:
        >>> api = EndpointModel("api", "http://localhost:8000/v1/", "llama", concurrency=8)
        >>> api.url, api.batch_size
        ('http://localhost:8000/v1', 16)
    """

    kind = "endpoint"

    def __init__(
        self,
        name: str,
        url: str,
        model: str,
        *,
        key_env: str = "OPENAI_API_KEY",
        concurrency: int = 4,
        tries: int = 6,
        pause: float = 1.0,
        timeout: float = 120.0,
        prices: tuple[float, float] = (0.0, 0.0),
    ) -> None:
        self.name = name
        self.url = url.rstrip("/")
        self.model = model
        self.key_env = key_env
        self.concurrency = concurrency
        self.tries = tries
        self.pause = pause
        self.timeout = timeout
        self.prices = prices
        self.batch_size = max(8, 2 * concurrency)
        self.identity = f"endpoint-{value_hash([self.url, model])[:24]}"
        self.usage = Usage()
        self._lock = threading.Lock()

    def write_texts(self, prompts: Sequence[str], n: int, settings: TextSettings) -> list[list[str]]:
        """Ask for `n` texts per prompt; an endpoint that gives fewer at a time is asked again for the rest.

        The seed is sent along, but an endpoint may ignore it.

        Raises:
            EndpointError: The endpoint refuses the request, or failed in every try. It holds what was answered.
        """
        options = {
            "max_tokens": settings.max_new_tokens,
            "temperature": settings.temperature,
            "stop": list(settings.stop)[:4] or None,
        }
        answered: dict[int, list[str]] = {}
        failures: list[EndpointError] = []
        failed = threading.Event()

        def ask(number: int) -> list[str]:
            try:
                answered[number] = ask_until_answered(number)
                return answered[number]
            except EndpointError as error:
                failures.append(error)  # the first is the reason; the others stop waiting
                failed.set()
                raise

        def ask_until_answered(number: int) -> list[str]:
            texts: list[str] = []
            while len(texts) < n:
                body = {
                    "model": self.model,
                    "messages": [{"role": "user", "content": prompts[number]}],
                    "n": n - len(texts),
                    "seed": (settings.seed + 1_000 * number + len(texts)) % 2**31,
                    **{key: value for key, value in options.items() if value is not None},
                }
                texts += self._texts(self._post(body, failed))
            return texts[:n]

        try:
            with ThreadPoolExecutor(max_workers=self.concurrency) as pool:
                return list(pool.map(ask, range(len(prompts))))
        except EndpointError:  # after all that were under way
            failures[0].answered = answered
            raise failures[0] from None

    @property
    def _advice(self) -> str:
        return f"check endpoint, model and the key in {self.key_env}"

    def usage_record(self) -> dict[str, Any]:
        """Return `usage` as a dictionary."""
        return asdict(self.usage)

    def _texts(self, answer: Any) -> list[str]:
        """Read the texts of an answer and count what it took."""
        choices = answer.get("choices") if isinstance(answer, dict) else None
        if not isinstance(choices, list) or not choices:
            raise self._other_shape("no choices", answer)
        texts, refusals = [], 0
        for choice in choices:
            message = choice.get("message") if isinstance(choice, dict) else None
            if not isinstance(message, dict):
                raise self._other_shape("a choice without a message", answer)
            refused = message.get("refusal") or choice.get("finish_reason") == "content_filter"
            refusals += bool(refused)
            texts.append("" if refused else _content(message.get("content")))
        tokens = answer.get("usage")
        prompt, completion = (_tokens(tokens, key) for key in ("prompt_tokens", "completion_tokens"))
        with self._lock:
            self.usage.requests += 1
            self.usage.refusals += refusals
            self.usage.empty += sum(not text.strip() for text in texts) - refusals
            self.usage.prompt_tokens += prompt
            self.usage.completion_tokens += completion
            self.usage.cost += (prompt * self.prices[0] + completion * self.prices[1]) / 1e6
        return texts

    def _other_shape(self, what: str, answer: Any) -> EndpointError:
        return EndpointError(
            f"{self.url}: the answer has {what}: {json.dumps(answer)[:200]}. Fix: give the address of chat "
            "completions of the OpenAI protocol, up to and without /chat/completions"
        )

    def _post(self, body: dict[str, Any], failed: threading.Event) -> Any:
        """Send a request until it is answered, at most `tries` times, or until another request has failed for good."""
        headers = {"Content-Type": "application/json"}
        if key := os.environ.get(self.key_env):
            headers["Authorization"] = f"Bearer {key}"
        address = f"{self.url}/chat/completions"
        request = urllib.request.Request(address, json.dumps(body).encode(), headers, method="POST")
        for attempt in range(1, self.tries + 1):
            if failed.is_set():
                raise EndpointError(f"{address}: not asked, because another request failed")
            wait = self.pause * 2 ** (attempt - 1)
            try:
                with urllib.request.urlopen(request, timeout=self.timeout) as response:
                    answer = json.load(response)
                if (code := _error_code(answer)) is None:
                    return answer
                reason = json.dumps(answer)[:300]
                if not _may_pass(code):
                    raise EndpointError(f"{address}: {reason}. Fix: {self._advice}")
            except urllib.error.HTTPError as error:
                reason = f"{error.code} {error.reason}"
                if not _may_pass(error.code):
                    text = error.read(300).decode(errors="replace")
                    raise EndpointError(f"{address}: {reason}: {text} Fix: {self._advice}") from error
                wait = max(wait, _seconds(error.headers.get("Retry-After")))
            except EndpointError:
                raise
            except (OSError, ValueError, http.client.HTTPException) as error:
                # No connection, a timeout, an answer that is cut off or is no JSON.
                reason = str(error)
            if attempt < self.tries:
                with self._lock:
                    self.usage.retries += 1
                failed.wait(min(wait, LONGEST_PAUSE))
        raise EndpointError(
            f"{address}: failed {self.tries} times, at last with: {reason}. What was answered before is kept: run the "
            "same command again to go on"
        )


def _may_pass(code: int) -> bool:
    """Return whether an error of this code may be gone at the next try."""
    return code in (408, 409, 425, 429) or code >= 500


def _error_code(answer: Any) -> int | None:
    """Return the code of an error that came in place of an answer, as gateways send it; None for an answer."""
    error = answer.get("error") if isinstance(answer, dict) and not answer.get("choices") else None
    if not error:
        return None
    code = error.get("code") if isinstance(error, dict) else None
    return code if isinstance(code, int) else 500


def _content(content: Any) -> str:
    """Return the text of a message, which may come in parts."""
    if isinstance(content, list):
        return "".join(str(part.get("text") or "") for part in content if isinstance(part, dict))
    return str(content or "")


def _tokens(usage: Any, key: str) -> int:
    """Return what an endpoint counted; 0 if it did not."""
    count = usage.get(key) if isinstance(usage, dict) else None
    return count if isinstance(count, int) else 0


def _seconds(header: str | None) -> float:
    try:
        return float(header or 0)
    except ValueError:  # a date
        return 0.0
