"""What our docstrings say in ways of their own, put so that the reference shows it well; a griffe extension.

- `Example:` is a section of doctests, as `Examples:` is.
- `Parameters:` of a configuration, in the manner of TRL (groups by `> title`, types in parentheses), becomes one table
  for each group.
- Links of the transformers documentation, [`~trl.DPOConfig`], become code.
"""

from __future__ import annotations

import re
from typing import Any

from griffe import Extension, Object


GROUP = re.compile(r"^\s*> (?:Parameters that control )?(.+)$")
TYPED = re.compile(r"^(\s+\w+) \(`(.+?)`, \*optional\*(?:, defaults to (`.+`|\S.*?))?\):$")
LINK = re.compile(r"\[(`)~?([\w.]+`)\](?![\[(])")


class Docstrings(Extension):
    """Rewrites each docstring before it is parsed; line numbers stay as they are."""

    def on_object(self, *, obj: Object, **_: Any) -> None:
        """Called for each module, class, function and attribute."""
        if obj.docstring is not None:
            obj.docstring.value = rewritten(obj.docstring.value)


def rewritten(text: str) -> str:
    """A docstring in plain Google style, line by line."""
    text = re.sub(r"^(\s*)Example:$", r"\1Examples:", LINK.sub(r"\1\2", text), flags=re.MULTILINE)
    return "\n".join(_settings(text.split("\n"))) if re.search(r"^\s*Parameters:$", text, re.MULTILINE) else text


def _settings(lines: list[str]) -> list[str]:
    out, inside = [], False
    for line in lines:
        if line.strip() == "Parameters:":
            inside = True
            out.append("" if any(map(GROUP.match, lines)) else "Attributes:")
        elif inside and (group := GROUP.match(line)):
            out.append(f"Attributes: {group[1][0].upper()}{group[1][1:]}")
        elif inside and not line.strip() and out[-1].startswith("Attributes: "):
            out.insert(-1, "")  # the empty line goes before the title: a section begins right under it
        elif inside and (typed := TYPED.match(line)):
            out.append(f"{typed[1]} ({typed[2]}):{f' Default: {typed[3]}.' if typed[3] else ''}")
        else:
            out.append(line)
    return out
