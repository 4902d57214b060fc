"""Make Markdown tables from benchmark results: one per case, with intervals, aims and the command.

It reads the tidy rows that every benchmark writes. A case that is in several files becomes one table. A metric with
one number per method becomes a column, in the order of measurement; metrics with several, such as shares of clusters
or points of a curve, are omitted.

  python benchmarks/collapse.py --case reuse4 --json reuse4.json
  python benchmarks/make_tables.py reuse4.json
  python benchmarks/make_tables.py *.json --metrics jsd_nats valid_mass --output results.md
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any


__all__ = ["main", "tables"]

SPENT = ("generated", "scored", "seconds")

Row = Mapping[str, Any]


def tables(results: Iterable[Mapping[str, Any]], metrics: Sequence[str] = ()) -> str:
    """All cases as Markdown.

    Args:
        results: What the benchmarks wrote, `{"meta": …, "rows": …}`; of two values of the same thing the later counts.
        metrics: Columns; all by default.

    Raises:
        ValueError: A metric that is in none of the results.
    """
    rows: dict[str, dict[tuple[str, str], Row]] = {}
    aims: dict[str, dict[tuple[str, str], Row]] = {}
    about: dict[str, dict[str, None]] = {}
    for result in results:
        meta = result["meta"]
        versions = ", ".join(
            f"{name} {version}" for name, version in meta["versions"].items() if name in ("torch", "trl")
        )
        source = f"`{meta['command']}`, {meta['machine']['cores']} cores, {meta.get('device', 'cpu')}, {versions}"
        counts = Counter((row["case"], row["method"], row["metric"]) for row in result["rows"])
        for row in result["rows"]:
            case, method, metric = row["case"], row["method"], row["metric"]
            about.setdefault(case, {})[source] = None
            if metric == "aim":
                aims.setdefault(case, {})[method, row["aim"]] = row
            elif counts[case, method, metric] == 1:
                rows.setdefault(case, {})[method, metric] = row
    known = dict.fromkeys(metric for cells in rows.values() for _, metric in cells)
    for metric in metrics:
        if metric not in known:
            raise ValueError(f"metrics: {metric!r} was not measured; there are {', '.join(known)}")
    parts = [
        _table(case, cells, [m for m in metrics or known if any(m == metric for _, metric in cells)])
        + _aims(aims.get(case, {}).values())
        + "\n".join(f"- {source}" for source in about[case])
        for case, cells in rows.items()
        if not metrics or any(metric in metrics for _, metric in cells)
    ]
    return "\n\n".join(parts) + "\n"


def _table(case: str, cells: Mapping[tuple[str, str], Row], metrics: Sequence[str]) -> str:
    methods = dict.fromkeys(method for method, metric in cells if metric in metrics)
    units = {metric: row["unit"] for (_, metric), row in cells.items()}
    spent = [name for name in SPENT if any(row.get(name) is not None for row in cells.values())]
    lines = [
        ["", *(f"{metric}, {units[metric]}" for metric in metrics), *spent],
        ["---", *("--:" for _ in (*metrics, *spent))],
    ]
    for method in methods:
        own = [cells.get((method, metric)) for metric in metrics]
        any_row = next(row for row in own if row is not None)
        numbers = ["" if any_row.get(name) is None else f"{any_row[name]:,.0f}" for name in spent]
        lines.append([f"`{method}`", *("" if row is None else _value(row) for row in own), *numbers])
    return f"### {case}\n\n" + "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n\n"


def _value(row: Row) -> str:
    # A count of sequences is of those seeds alone that got there.
    if row.get("reached", row["n"]) < row["n"]:
        return f"{row['reached']} of {row['n']} seeds"
    value = _number(row["value"])
    return value if row["ci_low"] is None else f"{value} [{_number(row['ci_low'])}, {_number(row['ci_high'])}]"


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4f}" if abs(value) < 1 else f"{value:.3g}"


def _aims(aims: Iterable[Row]) -> str:
    said = [
        f"- {'reached' if row['value'] else '**missed**'}: `{row['method']}` {row['aim']}, is {_number(row['found'])}"
        for row in aims
    ]
    return "\n".join(said) + "\n" * bool(said)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", type=Path, nargs="+", metavar="FILE", help="JSON file of a benchmark")
    parser.add_argument("--metrics", nargs="+", default=[], metavar="METRIC", help="columns (default: all)")
    parser.add_argument("--output", type=Path, help="file for the tables (default: print them)")
    args = parser.parse_args()
    try:
        text = tables([json.loads(file.read_text(encoding="utf-8")) for file in args.files], args.metrics)
    except (OSError, ValueError) as error:
        parser.error(str(error))
    if args.output is None:
        print(text, end="")
    else:
        args.output.write_text(text, encoding="utf-8")
        print(f"Written to {args.output}")


if __name__ == "__main__":
    main()
