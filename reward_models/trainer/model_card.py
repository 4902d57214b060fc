"""The README.md of a trained jury: its clusters, what it learnt from, how to load it, what it cannot do.

Knows nothing of trainers: everything comes in as plain values.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import jinja2
import numpy as np
import yaml

from reward_models.judgements.encoding import Encoded


__all__ = ["JuryCard", "data_counts"]

_TEMPLATE = """\
---
{{ metadata }}---

# {{ model_name }}

A reward model with one head per cluster of raters: it says not only how much people like a response, but how much
which people like it.{% if base_model %} Fine-tuned from [{{ base_model }}](https://huggingface.co/{{ base_model }}).\
{% endif %}


## Clusters

| cluster | share of raters | what sets it apart |
|---|---|---|
{% for name, share, description in clusters -%}
| {{ name }} | {{ "%.1f" | format(100 * share) }} % | {{ description }} |
{% endfor %}
Shares are the expected shares of the raters of the training data, not of any other population.

## Data

{% for what, count in counts.items() -%}
- {{ what }}: {{ count }}
{% endfor %}
{% if settings -%}
## Training

{% for what, value in settings.items() -%}
- {{ what }}: {{ value }}
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

jury = JuryScorer.from_pretrained("path/to/this/folder")
jury.cluster_rewards([prompt], [response])  # (1, {{ clusters | length }}), one column per cluster, in logits
```

In TRL, after `import reward_models.jury.modeling_jury`, `reward_funcs="path/to/this/folder"` gives trainers the mean
of the clusters under their shares.

## Limits

- A cluster is a summary of judgements, not a group of persons: most raters belong to several in part, and nothing here
  says who they are.
- Rewards of different clusters have no common unit. Compare a cluster's rewards of two responses to one prompt, and
  bring the heads to one scale before adding them up.
- The raters who judged need not be the people affected; whoever did not judge is not represented.
{% if special_tokens -%}
- Plain texts were read with the tokenizer's special tokens and an end token, as TRL's reward trainer does. Scorers
  that leave them out (GRPO, RLOO, `JuryScorer`) score plain texts a little differently; conversations are the same.
{% endif %}"""


@dataclass(frozen=True)
class JuryCard:
    """What the card says.

    Attributes:
        model_name: Its heading.
        cluster_names: `K` names.
        prevalence: `K` shares.
        cluster_descriptions: `K` sentences; None leaves the column empty.
        counts: What it learnt from, see `data_counts`.
        base_model: Id of the backbone on the hub; None if it has none.
        settings: Settings of the training worth knowing, by name.
        metrics: Last evaluation.
        special_tokens: Whether plain texts were read with special tokens.
        tags: Tags of the hub.
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

    def render(self) -> str:
        """The card as Markdown. Its licence is left open, for whoever publishes the jury to choose."""
        metadata: dict[str, Any] = {
            "library_name": "transformers",
            "license": "other",
            "license_name": "to-be-chosen",
            "pipeline_tag": "text-classification",
            "tags": sorted({"reward-model", "pluralism", *self.tags}),
        }
        if self.base_model:
            metadata["base_model"] = self.base_model
        texts = [text.replace("|", "\\|") for text in (self.cluster_descriptions or [""] * len(self.cluster_names))]
        names = [name.replace("|", "\\|") for name in self.cluster_names]
        template = jinja2.Environment(undefined=jinja2.StrictUndefined).from_string(_TEMPLATE)
        return template.render(
            metadata=yaml.safe_dump(metadata, sort_keys=False),
            model_name=self.model_name,
            base_model=self.base_model,
            clusters=list(zip(names, self.prevalence, texts, strict=True)),
            counts=self.counts,
            settings=self.settings,
            metrics=self.metrics,
            special_tokens=self.special_tokens,
        )


def data_counts(enc: Encoded) -> dict[str, str]:
    """Counts of a table in words: judgements, raters, items, texts, judgements per rater, ties."""
    per_rater = np.bincount(enc.rater, minlength=enc.n_raters)
    counts = {
        "Judgements": f"{len(enc):,} ({enc.kind})",
        "Raters": f"{enc.n_raters:,}, with {int(np.median(per_rater)):,} judgements each in the middle",
        "Items": f"{enc.n_items:,}",
        "Different texts": f"{len(np.unique(enc.alternatives[enc.alternatives >= 0])):,}",
    }
    if enc.kind == "preference":
        counts["Ties"] = f"{100 * float((enc.label == 2).mean()):.1f} %"
    return counts
