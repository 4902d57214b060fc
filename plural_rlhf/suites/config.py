"""The suite file: one YAML that says which models are asked which tasks, read strictly into `SuiteConfig`.

All faults of a file are reported at once. Whether data is there is only known when a task loads it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BeforeValidator, Field, field_validator, model_validator

from plural_rlhf.settings.base import AtLeastOne, NamedRun, Seats, Section, Seed, not_a_switch
from plural_rlhf.settings.faults import read_yaml, validated
from plural_rlhf.suites.engine.asking import LEAST_DRAWS, Asking, Scoring
from plural_rlhf.suites.models.pseudo import PSEUDO_MODELS
from plural_rlhf.suites.models.rewards import open_rewards
from plural_rlhf.suites.run import LoadedTask, Skipped, load_tasks
from plural_rlhf.suites.tasks.catalogue import SUITES, make_tasks
from plural_rlhf.suites.tasks.protocol import KEPT
from plural_rlhf.suites.tasks.questions import Layout
from reward_models.errors import did_you_mean
from reward_models.weights import parse_weights


__all__ = ["ModelSection", "SuiteConfig", "is_suite_file", "load_suite", "make_suite"]

KINDS = ("path", "run", "mixed", "endpoint", "callable", "recorded")
"""Keys that say what a model is, one of which each model has."""
READ_BY = {
    "jury": ("path",),
    "weights": ("path", "run", "mixed"),
    "mode": ("mixed",),
    "steered": ("run",),
    "chat": ("path", "run", "mixed"),
    "batch_size": ("path", "run", "mixed"),
    "model": ("endpoint",),
    "key_env": ("endpoint",),
    "concurrency": ("endpoint",),
    "prices": ("endpoint",),
    "gives": ("callable",),
}
"""Keys that only some kinds of model read."""


class ModelSection(Section):
    """One model of a suite.

    Example:
        >>> ModelSection(path="smollm2-135m").label
        'smollm2-135m'
    """

    name: str | None = Field(default=None, description="What the report calls it; by default its path or address.")
    path: str | None = Field(
        default=None,
        description="A causal language model: folder of a model or an adapter, hub id, smollm2-135m, tiny. Or the "
        "folder of a saved jury, which answers the tasks named jury-...",
    )
    run: Path | None = Field(
        default=None,
        description="Folder of a run: the model before training, every policy of the run and its jury, side by side.",
    )
    jury: Path | None = Field(
        default=None, description="With path: the saved jury that the policy was trained with; weights need it."
    )
    weights: str | dict[str, Seats] = Field(
        default="prevalence",
        description="With jury or run: whom the policy answers for: prevalence, a cluster, or seats by cluster. With "
        "mixed: uniform, an expert, or seats by expert.",
    )
    mixed: dict[str, str] | None = Field(
        default=None,
        description="Two or more experts by name, each as for path, whose tokens are mixed under weights: steering by "
        "decoding. All of them are in memory together.",
    )
    mode: Literal["mixture", "log_linear"] = Field(
        default="mixture",
        description="With mixed: mixture (an answer is one expert's, by its share) or log_linear (consensus at every "
        "token, with scoring: sampling only).",
    )
    steered: bool = Field(default=False, description="With run: ask its steered policy for every single cluster too.")
    chat: bool | None = Field(
        default=None,
        description="With path, run or mixed: whether prompts go through the chat template; null: if there is one.",
    )
    batch_size: AtLeastOne = Field(default=16, description="With path, run or mixed: prompts per forward pass.")
    endpoint: str | None = Field(
        default=None, description="Address of an OpenAI-compatible endpoint, e.g. http://localhost:8000/v1."
    )
    model: str | None = Field(default=None, description="With endpoint: the name of the model there.")
    key_env: str = Field(
        default="OPENAI_API_KEY", description="With endpoint: environment variable that holds the key."
    )
    concurrency: AtLeastOne = Field(default=4, description="With endpoint: most requests at a time.")
    prices: tuple[Annotated[float, Field(ge=0)], Annotated[float, Field(ge=0)]] = Field(
        default=(0.0, 0.0), description="With endpoint: price of a million prompt and of a million completion tokens."
    )
    callable: str | None = Field(default=None, description="A Python function, as package.module:function.")
    gives: Literal["option_shares", "texts"] = Field(
        default="texts",
        description="With callable: option_shares (called with prompt and options) or texts (with prompt, n, seed=).",
    )
    recorded: Path | None = Field(default=None, description="JSONL file of texts written before, by prompt.")

    @model_validator(mode="before")
    @classmethod
    def _path_alone(cls, values: Any) -> Any:
        return {"path": values} if isinstance(values, str) else values

    @model_validator(mode="after")
    def _one_kind(self) -> ModelSection:
        kinds = [kind for kind in KINDS if getattr(self, kind) is not None]
        if len(kinds) != 1:
            has = f"has {' and '.join(kinds)}" if kinds else f"has none of {', '.join(KINDS)}"
            raise ValueError(f"a model {has}; give it exactly one of {', '.join(KINDS)}")
        strays = [
            key
            for key, readers in READ_BY.items()
            if kinds[0] not in readers and getattr(self, key) != type(self).model_fields[key].default
        ]
        if strays:
            raise ValueError(f"{self.label}: {', '.join(strays)} belongs to models with {READ_BY[strays[0]][0]}")
        if self.endpoint is not None and self.model is None:
            raise ValueError(f"{self.label}: model is missing, the name of the model at the endpoint")
        if self.mixed is not None:
            self._check_experts(self.mixed)
        elif self.weights != "prevalence" and self.jury is None and self.run is None:
            raise ValueError(f"{self.label}: weights are set without jury, whose clusters they weigh")
        return self

    def _check_experts(self, experts: dict[str, str]) -> None:
        if len(experts) < 2:
            raise ValueError(f"{self.label}: mixed names {len(experts)} expert; give two or more, by name")
        if self.weights == "prevalence":
            raise ValueError(f"{self.label}: experts have no prevalence; give weights: uniform, or seats by expert")
        parse_weights(self.weights, list(experts), np.full(len(experts), 1 / len(experts)))

    @property
    def label(self) -> str:
        """Name in the report."""
        if self.name is not None:
            return self.name
        if self.mixed is not None:
            return " + ".join(self.mixed)
        return str(self.model or self.path or self.run or self.callable or self.recorded or self.endpoint)


class SuiteConfig(NamedRun):
    """All settings of a suite file.

    Example:
        >>> suite = SuiteConfig(models=[{"path": "tiny"}], tasks=["urn"])
        >>> suite.tasks, suite.output_dir.as_posix()
        (['urn'], 'runs/evaluation')
    """

    name: Annotated[str, Field(min_length=1)] = Field(default="evaluation", description="Name of the evaluation.")
    models: list[ModelSection] = Field(default=[], description="The models; the first is the one others are held to.")
    pseudo_models: list[str] = Field(
        default=["gold", "uniform", "marginal", "mode"],
        description="Rows that mark the scales: gold answers as people do, uniform guesses, marginal answers as "
        "people do on other items, mode always gives the most frequent answer.",
    )
    tasks: Annotated[list[str], Field(min_length=1)] = Field(
        default=["smoke"], description=f"Tasks by name, or suites: {', '.join(SUITES)}."
    )
    data: Path = Field(default=Path("data"), description="Folder of data sets that are not in a package.")
    max_items: AtLeastOne | None = Field(
        default=None, description="Most items per task, chosen at random; null for all."
    )
    items_of: dict[str, AtLeastOne] = Field(
        default={}, description="Most items of single tasks among `tasks`, by name, in place of max_items."
    )
    rewards: dict[str, str] = Field(
        default={},
        description="What texts are worth, for noveltybench and multi-objective: by name the folder of a saved jury, "
        "a reward model with one label (folder or hub id), or a function (package.module:name or file.py:name; it is "
        "called with prompts and completions as lists of messages, and returns a number per completion).",
    )
    seed: Seed = Field(default=0, description="Random seed, 0 to 4294967295.")
    scoring: Scoring = Field(
        default="log_probability",
        description="How a distribution over options is got: log-probability of whole answers, samples, or "
        "percentages that the model states.",
    )
    option_samples: AtLeastOne = Field(default=32, description="With scoring: sampling, samples per question.")
    permutations: bool = Field(
        default=True,
        description="Ask every question in another order and under other labels too: three times the work.",
    )
    layout: Layout = Field(
        default="list",
        description="How offered answers are shown: list (one per line, then Answer:), line (behind the bare "
        "question, as policies of a survey run are asked in training unless it says otherwise) or sentence (“Choose "
        "one answer: ...”).",
    )
    draws: Annotated[int, Field(ge=LEAST_DRAWS), BeforeValidator(not_a_switch)] = Field(
        default=1000, description=f"Bootstrap draws of the intervals, at least {LEAST_DRAWS}."
    )
    strict: bool = Field(default=False, description="Stop with an error where a task cannot be measured.")
    answers_dir: Path = Field(
        default=Path(KEPT),
        description="Folder of kept answers: what a model was asked once is not asked again.",
    )
    output_dir: Path = Field(
        default=Path("runs/evaluation"), description="Folder for the results; runs/<name> if it is not given."
    )

    @field_validator("pseudo_models")
    @classmethod
    def _known(cls, names: list[str]) -> list[str]:
        for name in names:
            if name not in PSEUDO_MODELS:
                raise ValueError(f"names {name!r}, which is no pseudo-model.{did_you_mean(name, PSEUDO_MODELS)}")
        return names

    @field_validator("tasks")
    @classmethod
    def _made(cls, names: list[str]) -> list[str]:
        make_tasks(names)
        return names

    @field_validator("items_of")
    @classmethod
    def _tasks_with_sizes(cls, sizes: dict[str, int]) -> dict[str, int]:
        if sizes:
            make_tasks(list(sizes))
        return sizes

    @model_validator(mode="after")
    def _sizes_of_asked_tasks(self) -> SuiteConfig:
        asked = [task.name for task in make_tasks(self.tasks)]
        strays = [name for name in self.items_of if name not in asked]
        if strays:
            raise ValueError(
                f"items_of gives sizes of {', '.join(map(repr, strays))}, which {'is' if len(strays) == 1 else 'are'} "
                "not asked. Fix: name the tasks in `tasks`, or leave them out of items_of"
            )
        return self

    @model_validator(mode="after")
    def _distinct(self) -> SuiteConfig:
        names = [*(model.label for model in self.models), *self.pseudo_models]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"models are called {', '.join(map(repr, twice))} more than once; give each its own name")
        if not names:
            raise ValueError("there is no model; name one in `models`, or a pseudo-model")
        return self

    def load_tasks(self) -> tuple[list[LoadedTask], list[Skipped]]:
        """Load the tasks with as many items as the settings say; see `run.load_tasks`."""
        return load_tasks(
            make_tasks(self.tasks),
            self.data,
            max_items=self.max_items,
            items_of=self.items_of,
            seed=self.seed,
            kept=self.answers_dir,
            rewards=open_rewards(self.rewards),
        )

    @property
    def asking(self) -> Asking:
        """How the models are asked."""
        return Asking(**{field.name: getattr(self, field.name) for field in fields(Asking)})


def is_suite_file(values: Mapping[str, Any]) -> bool:
    """Return whether the top-level keys of a YAML file are those of a suite, not of a run.

    Example:
        >>> is_suite_file({"models": [], "seed": 1}), is_suite_file({"plural": {}, "seed": 1})
        (True, False)
    """
    return bool({"models", "tasks", "pseudo_models"} & set(values))


def load_suite(path: str | Path, overrides: Sequence[str] = ()) -> SuiteConfig:
    """Read a suite file.

    Args:
        path: YAML file with any of the keys of `SuiteConfig`.
        overrides: Settings that replace those of the file, each `key=value` with a YAML value.

    Raises:
        ConfigError: The file is missing or is not a YAML mapping, or has unknown keys or invalid values.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder) / "suite.yaml"
        ...     _ = path.write_text("models: [{path: tiny}]")
        ...     load_suite(path, ["tasks=[urn]", "max_items=10"]).max_items
        10
    """
    path = Path(path)
    return make_suite(read_yaml(path), overrides, origin=str(path))


def make_suite(values: dict[str, Any], overrides: Sequence[str] = (), *, origin: str) -> SuiteConfig:
    """Validate settings that do not come from a suite file.

    Args:
        values: A mapping as a suite file holds it; the overrides are written into it.
        overrides: As for `load_suite`.
        origin: Where the values come from, for messages.

    Raises:
        ConfigError: Unknown keys or invalid values; the message lists every fault.

    Example:
        >>> make_suite({"models": [{"path": "tiny"}], "tasks": ["unr"]}, origin="notebook")
        Traceback (most recent call last):
        plural_rlhf.settings.faults.ConfigError: notebook: 1 fault
          - tasks = ["unr"]: unknown tasks: 'unr'. Did you mean 'urn'? ...
    """
    return validated(SuiteConfig, values, overrides, origin)
