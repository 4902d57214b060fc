"""Draw the results of benchmarks/collapse.py: the share of each cluster in each policy's answers.

python benchmarks/collapse.py --case jury-gap8 --json collapse.json
python benchmarks/draw_collapse.py collapse.json --output docs/img/collapse.png
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any


__all__ = ["main"]

# Okabe and Ito's colours, which most colour-blind people tell apart.
COLOURS = ("#0072B2", "#E69F00", "#009E73")
LETTERS = ("#00568A", "#9A6A00", "#00704F")  # the same, dark enough for text on white
PANELS = {
    "target": "What people want",
    "trl-grpo": "Stock GRPO\non the mean reward",
    "trl-rloo-same-beta": "Stock RLOO, beta 1\non the mean reward",
    "jury-rloo": "The two-line change:\nRLOO with JuryReward",
    "plural": "PluralGRPOTrainer,\nas many samples",
    "plural-exact": "PluralGRPOTrainer\nin exact mode",
}
INK, GRID = "#222222", "#BBBBBB"


def draw(result: dict[str, Any], case: str, output: Path) -> None:
    """Writes the figure of one case; its format follows the suffix of `output`."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    rows = [r for r in result["rows"] if r["case"] == case]
    about = result["meta"]["cases"][case]
    clusters, weights = about["clusters"], about["weights"]
    colour = {answer: COLOURS[k] for k, answers in enumerate(clusters.values()) for answer in answers}

    def of(method: str, metric: str) -> list[dict[str, Any]]:
        return [r for r in rows if r["method"] == method and r["metric"] == metric]

    target = [r["value"] for r in of("target", "probability")]
    figure, axes = plt.subplots(1, len(PANELS), figsize=(12.5, 4.4), sharey=True)
    figure.patch.set_facecolor("white")
    for axis, (method, title) in zip(axes, PANELS.items(), strict=True):
        bars = of(method, "probability")
        x = range(len(bars))
        axis.bar(x, [r["value"] for r in bars], color=[colour[r["answer"]] for r in bars], width=0.8)
        if method != "target":
            axis.step([i - 0.5 for i in range(len(target) + 1)], [*target, target[-1]], where="post", color=INK, lw=1)
        shares = {r["cluster"]: r["value"] for r in of(method, "share")}
        start = -0.5
        for k, (name, answers) in enumerate(clusters.items()):
            middle = start + len(answers) / 2
            start += len(answers)
            axis.text(middle, -0.135, percent(shares[name]), transform=axis.get_xaxis_transform(), color=LETTERS[k],
                      ha="center", va="top", fontsize=12, fontweight="bold")  # fmt: skip
        distance = of(method, "jsd_nats")
        axis.set_title(title, fontsize=10, color=INK, pad=18, fontweight="bold")
        said = f"off by {distance[0]['value']:.2g} nats" if distance else "the exact target"
        axis.text(0.5, 1.02, said, transform=axis.transAxes, ha="center", fontsize=9, color=INK)
        axis.set_xticks(list(x), [r["answer"] for r in bars], fontsize=8)
        axis.tick_params(length=0, colors=INK)
        axis.spines[["top", "right", "left"]].set_visible(False)
        axis.spines["bottom"].set_color(GRID)
        axis.grid(axis="y", color=GRID, lw=0.4)
        axis.set_axisbelow(True)
    top = max(0.5, max(r["value"] for r in rows if r["metric"] == "probability") * 1.05)
    axes[0].set_ylabel("probability of the answer", color=INK, fontsize=9)
    axes[0].set_yticks([0, 0.25, 0.5, 0.75, 1.0], ["0", "25%", "50%", "75%", "100%"], fontsize=8)
    axes[0].set_ylim(0, min(1.0, top))
    wanted = ", ".join(f"{weight:.0%} want {name} numbers" for name, weight in weights.items())
    figure.suptitle(heading(rows, weights), fontsize=12.5, fontweight="bold", color=INK, x=0.012, ha="left", y=0.985)
    seeds = of("trl-grpo", "jsd_nats")[0]["n"]
    figure.text(
        0.012, 0.905, f"{wanted}. Below: each cluster's share of the answers.", fontsize=10, color=INK, va="center"
    )
    note = (
        "Black line: the target. nats: Jensen-Shannon divergence to it, "
        f"mean of {seeds} seed{'s' if seeds != 1 else ''}. A 40,000-parameter Llama, "
        "the same start for all. Made by benchmarks/collapse.py"
    )
    figure.text(0.012, 0.025, note, fontsize=8, color=INK, va="center")
    figure.subplots_adjust(left=0.055, right=0.995, top=0.70, bottom=0.22, wspace=0.08)
    output.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(output, dpi=150)
    plt.close(figure)


def heading(rows: list[dict[str, Any]], weights: dict[str, float]) -> str:
    """The finding in words, from the numbers of the smallest cluster."""
    smallest = min(weights, key=weights.__getitem__)
    share = {r["method"]: r["value"] for r in rows if r["metric"] == "share" and r["cluster"] == smallest}
    return (
        f"{weights[smallest]:.0%} of the people get {percent(share['trl-grpo'])} of the answers under stock GRPO, "
        f"{percent(share['jury-rloo'])} with JuryReward, {percent(share['plural'])} with PluralGRPOTrainer"
    )


def percent(share: float) -> str:
    """A share for people, without a false zero."""
    if 0 < share < 0.001:
        return "≈0%"
    return f"{share:.1%}" if share < 0.0995 else f"{share:.0%}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("result", type=Path, help="JSON file of benchmarks/collapse.py")
    parser.add_argument("--case", default="jury-gap8", help="jury-gap4, jury-gap8 or rare (default: jury-gap8)")
    parser.add_argument("--output", type=Path, default=Path("docs/img/collapse.png"), help="PNG or SVG to write")
    args = parser.parse_args()
    draw(json.loads(args.result.read_text(encoding="utf-8")), args.case, args.output)
    print(f"Drawn: {args.output}")


if __name__ == "__main__":
    main()
