"""Profiles that a chat model writes from a rater's judgements, kept so that nothing is asked twice.

A profile is a list of short statements. A text of another form is malformed: it is asked for again with another seed,
at most so many times, and a rater without a usable profile has none (an empty text), which is counted. Every answer is
kept as soon as it is there, so that a run that was cut off goes on where it stopped. Knows nothing of clusters.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from plural_rlhf.suites.engine.answers import AnswerStore
from plural_rlhf.suites.models.endpoint import EndpointError
from plural_rlhf.suites.models.protocol import EvaluatedModel
from reward_models.content_hashes import value_hash
from reward_models.progress import track
from reward_models.seeds import derived_seed


__all__ = ["PROFILE_PROMPT", "ProfileWriter", "parse_profile"]

MOST_LETTERS = 1200  # of a profile
LEAST_WORDS = 2  # of a statement
MOST_STATEMENTS = 12

PROFILE_PROMPT = """Below is how one person answered some questions.

{judgements}

Describe what this person values, so that somebody who reads only your description could predict how the same person \
answers other questions. Write three to eight short statements, one per line, each beginning with "- ". Do not \
repeat the questions and do not guess age, gender or origin.

What this person values:
"""
"""What a model is asked; `{judgements}` stands for the rater's judgements, one per line."""


def parse_profile(text: str) -> str | None:
    r"""Return the statements of a profile, one per line; None if the text is malformed.

    Statements may begin with a dash, a bullet, a star or a number. What is said around them is left out. A text
    without statements, or with one of a single word, is malformed.

    Example:
        >>> print(parse_profile("Sure!\n1. Prefers parks to roads.\n2) Trusts experts.\n"))
        - Prefers parks to roads.
        - Trusts experts.
        >>> parse_profile("I cannot do that.") is None
        True
    """
    found = [match[1].strip() for match in re.finditer(r"(?m)^\s*(?:[-*•–]|\d+[.)])\s+(.+?)\s*$", text)]
    statements = list(dict.fromkeys(found))[:MOST_STATEMENTS]
    if not statements or any(len(statement.split()) < LEAST_WORDS for statement in statements):
        return None
    profile = "\n".join(f"- {statement}" for statement in statements)
    return profile if len(profile) <= MOST_LETTERS else None


class ProfileWriter:
    """Ask a model for the profile of each rater.

    Args:
        model: The model; it must be able to write texts.
        store: Where answers are kept; in memory only if it has no path.
        tries: Most tries per rater.
        prompt: The question, with `{judgements}`.
        max_new_tokens: Most tokens of a profile.
        temperature: Of the first try; further tries sample at 1.
        seed: Random seed.

    Attributes:
        malformed: Texts that were malformed, in all calls.
        without: Raters who have no profile after all tries, in the last call.

    Example:
        >>> from plural_rlhf.suites.models.functions import CallableModel
        >>> texts = iter(["no idea", "- Likes green cities."])  # a model that answers out of form at first
        >>> model = CallableModel("stub", write=lambda prompt, n, seed: [next(texts)])
        >>> writer = ProfileWriter(model, AnswerStore())
        >>> writer.write(["Parks?: yes", ""]), writer.malformed
        (['- Likes green cities.', ''], 1)
    """

    def __init__(
        self,
        model: EvaluatedModel,
        store: AnswerStore,
        *,
        tries: int = 3,
        prompt: str = PROFILE_PROMPT,
        max_new_tokens: int = 200,
        temperature: float = 0.0,
        seed: int = 0,
    ) -> None:
        self.model, self.store, self.tries, self.prompt = model, store, tries, prompt
        self.max_new_tokens, self.temperature, self.seed = max_new_tokens, temperature, seed
        self.malformed = self.without = 0

    def write(self, judgements: Sequence[str]) -> list[str]:
        """Return the profile of each rater, empty where there is none.

        Args:
            judgements: Each rater's judgements in words (`judgement_lines`); empty: the rater is not asked about.

        Raises:
            NotSupported: The model writes no texts.
            EndpointError: The endpoint failed; what was answered before is kept.
        """
        profiles: dict[int, str] = {}
        waiting = [row for row, text in enumerate(judgements) if text.strip()]
        asked = len(waiting)
        for attempt in range(self.tries):
            texts = self._texts([judgements[row] for row in waiting], attempt)
            parsed = [parse_profile(text) for text in texts]
            profiles |= {row: one for row, one in zip(waiting, parsed, strict=True) if one is not None}
            waiting = [row for row in waiting if row not in profiles]
            self.malformed += len(waiting)
            if not waiting:
                break
        self.without = asked - len(profiles)
        return [profiles.get(row, "") for row in range(len(judgements))]

    def _texts(self, judgements: Sequence[str], attempt: int) -> list[str]:
        """Ask for one text each; those that were asked before are read from the store."""
        prompts = [self.prompt.replace("{judgements}", text) for text in judgements]
        settings = [self.model.identity, attempt, self.tries, self.max_new_tokens, self.temperature, self.seed]
        keys = [value_hash([prompt, *settings])[:32] for prompt in prompts]
        new = [at for at, key in enumerate(keys) if self.store.get(key) is None]
        size = self.model.batch_size
        for start in track(range(0, len(new), size), f"profiles by {self.model.name}, try {attempt + 1}"):
            part = new[start : start + size]
            try:
                texts = self.model.sample(
                    [prompts[at] for at in part],
                    1,
                    seed=derived_seed(self.seed, "profiles of raters", attempt, start) % 2**31,
                    max_new_tokens=self.max_new_tokens,
                    temperature=self.temperature if attempt == 0 else 1.0,
                )
            except EndpointError as error:
                self.store.add((keys[part[place]], text) for place, [text] in sorted(error.answered.items()))
                raise
            self.store.add((keys[at], text) for at, [text] in zip(part, texts, strict=True))
        return [str(self.store.get(key)) for key in keys]
