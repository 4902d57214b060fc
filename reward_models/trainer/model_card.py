"""The README.md of a trained jury reward model: its clusters, its data, how to load it, its limits.

Knows nothing of trainers: everything comes in as plain values.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

import jinja2
import numpy as np
import yaml

from reward_models.borders import markdown_text
from reward_models.judgements.encoding import Encoded
from reward_models.whole_file import whole_file


__all__ = ["JuryCard", "data_counts"]

_TEMPLATE = """\
---
{{ metadata }}---

# {{ model_name | text }}

A reward model with one head per cluster of raters: it says how much each cluster likes a response, not only the
average.{% if base_model %} Fine-tuned from [{{ base_model | text }}](https://huggingface.co/\
{{ base_model | quote }}).{% endif %}


## Clusters

| cluster | share of raters | what sets it apart |
|---|---|---|
{% for name, share, description in clusters -%}
| {{ name | text }} | {{ "%.1f" | format(100 * share) }} % | {{ description | text }} |
{% endfor %}
Shares are the expected shares of the raters of the training data, not of any other population.

## Data

{% for name, count in counts.items() -%}
- {{ name | text }}: {{ count | text }}
{% endfor %}
{% if settings -%}
## Training

{% for name, value in settings.items() -%}
- {{ name | text }}: {{ value | text }}
{% endfor %}
{% endif -%}
{% if metrics -%}
## Evaluation

| metric | value |
|---|---|
{% for name, value in metrics.items() -%}
| `{{ name }}` | {{ "%.4g" | format(value) }} |
{% endfor %}
{% endif -%}
## How to load it

```python
from reward_models import JuryScorer

scorer = JuryScorer.from_pretrained("path/to/this/folder")
scorer.cluster_rewards([prompt], [response])  # (1, {{ clusters | length }}), one column per cluster, in logits
```

In TRL, after `import reward_models.jury.modeling_jury`, trainers with `reward_funcs="path/to/this/folder"` use the
mean of the clusters under their shares.

## Limits

- A cluster is a summary of judgements, not a group of persons: most raters belong to several clusters in part, and
  the model does not say who they are.
- Rewards of different clusters have no common unit. Compare a cluster's rewards of two responses to one prompt, and
  calibrate the heads to one scale before adding them up.
- The raters need not be the people affected; people who did not judge are not represented.
{% if special_tokens -%}
- Plain texts were read with the tokenizer's special tokens and an end token, as TRL's reward trainer does, and
  `JuryScorer` reads them so. Stock trainers with `reward_funcs="path/to/this/folder"` leave them out and score plain
  texts a little differently; conversations are the same.
{% endif %}"""


@dataclass(frozen=True)
class JuryCard:
    """Content of the model card.

    Attributes:
        model_name: Heading.
        cluster_names: `K` names.
        prevalence: `K` shares.
        counts: Counts of the training data by name, see `data_counts`.
        cluster_descriptions: `K` sentences; None leaves the column empty.
        base_model: Id of the backbone on the Hub; None if it has none.
        settings: Settings of the training by name.
        metrics: Metrics of the last evaluation.
        special_tokens: Whether plain texts were read with special tokens.
        tags: Tags of the Hub.

    Example:
        >>> card = JuryCard("city-jury", ["urban", "rural"], [0.7, 0.3], counts={"Raters": "40"})
        >>> [line for line in card.render().splitlines() if line.startswith("| urban")]
        ['| urban | 70.0 % |  |']
    """

    model_name: str
    cluster_names: Sequence[str]
    prevalence: Sequence[float]
    counts: dict[str, str]
    cluster_descriptions: Sequence[str] | None = None
    base_model: str | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)
    special_tokens: bool = False
    tags: Sequence[str] = ()

    def write(self, folder: str | Path) -> None:
        """Write the card as `README.md` into a folder, which is made if it does not exist."""
        Path(folder).mkdir(parents=True, exist_ok=True)
        with whole_file(Path(folder) / "README.md") as file:
            file.write(self.render())

    def render(self) -> str:
        """Return the card as Markdown. The licence is left open, for the publisher to choose."""
        metadata: dict[str, Any] = {
            "library_name": "transformers",
            "license": "other",
            "license_name": "to-be-chosen",
            "pipeline_tag": "text-classification",
            "tags": sorted({"reward-model", "pluralism", *self.tags}),
        }
        if self.base_model:
            metadata["base_model"] = self.base_model
        texts = self.cluster_descriptions or [""] * len(self.cluster_names)
        environment = jinja2.Environment(undefined=jinja2.StrictUndefined)
        environment.filters |= {"text": markdown_text, "quote": quote}
        template = environment.from_string(_TEMPLATE)
        return template.render(
            metadata=yaml.safe_dump(metadata, sort_keys=False),
            model_name=self.model_name,
            base_model=self.base_model,
            clusters=list(zip(self.cluster_names, self.prevalence, texts, strict=True)),
            counts=self.counts,
            settings=self.settings,
            metrics=self.metrics,
            special_tokens=self.special_tokens,
        )


def data_counts(enc: Encoded) -> dict[str, str]:
    """Count a table in words: judgements, raters, items, texts, judgements per rater, ties.

    Example:
        >>> from reward_models import planted_judgements
        >>> data_counts(planted_judgements("rating", num_raters=10, num_items=4).judgements.encode())["Judgements"]
        '40 (rating)'
    """
    per_rater = np.bincount(enc.rater, minlength=enc.n_raters)
    counts = {
        "Judgements": f"{len(enc):,} ({enc.kind})",
        "Raters": f"{enc.n_raters:,}, with a median of {int(np.median(per_rater)):,} judgements",
        "Items": f"{enc.n_items:,}",
        "Different texts": f"{len(np.unique(enc.alternatives[enc.alternatives >= 0])):,}",
    }
    if enc.kind == "preference":
        counts["Ties"] = f"{100 * float((enc.label == 2).mean()):.1f} %"
    return counts
