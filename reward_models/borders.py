r"""Text of other people at the borders that it crosses: shown as it is, and never obeyed.

Questions, answers, clusters and raters come from files that anyone may have written. Each border has one function:

| border | a text could | function |
|---|---|---|
| terminal | move the cursor, clear the screen, reverse the line (control characters) | `visible`, `say` |
| tables, lines of `rich` | be read as markup: `[/]` raises, `[yes]` vanishes, `:heart:` changes | `cell`, `heading` |
| Markdown | become a link, HTML, mathematics or another column | `markdown_text` |

Paths may not get through either: `path_fault` and `folder_fault` say why.

HTML is escaped by Jinja, YAML by its writer, JSON by its writer; figures draw no mathematics (`FIGURE_STYLE`).
Knows nothing of what the texts say.
"""

from __future__ import annotations

import io
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any


if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

__all__ = [
    "FIGURE_STYLE",
    "any_terminal",
    "cell",
    "folder_fault",
    "heading",
    "lines_to",
    "markdown_text",
    "path_fault",
    "say",
    "visible",
]

FIGURE_STYLE: dict[str, Any] = {
    "text.parse_math": False,  # "$5 to $10" is a price
    "font.size": 9.0,
    "axes.titlesize": 9.5,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
}
"""Settings of matplotlib for every figure with names or texts of others."""

# Control characters but for tab and line break, marks that reverse the direction of a line, and halves of characters.
_UNSEEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
_MARKDOWN = re.compile(r"([\\`*_\[\]|$~#])")
WORD_WIDTH = 10  # of the headings of a run


def path_fault(path: object) -> str | None:
    r"""Say why a path that exists may not be found, or not be opened by libraries that take Unicode; None if it can.

    Under an ASCII locale Python keeps other letters of a path that it is given as halves of characters, and opens such
    files itself; a path with these letters in a file, such as YAML in UTF-8, it does not find.

    Example:
        >>> path_fault("models/jury") is None
        True
        >>> path_fault("models/j\udcc3\udcbcry").split(". Fix")[0]
        "the path 'models/j\\udcc3\\udcbcry' holds letters that Python does not decode in this locale"
    """
    try:
        str(path).encode()
        os.fsencode(str(path))
    except UnicodeEncodeError:
        return (
            f"the path {str(path)!r} holds letters that Python does not decode in this locale. Fix: set PYTHONUTF8=1, "
            "or give a path of plain letters"
        )
    return None


def folder_fault(path: object) -> str | None:
    """Make a folder unless it is there, and say why no files can be kept in it; None if they can.

    Example:
        >>> import tempfile
        >>> with tempfile.NamedTemporaryFile() as file:
        ...     folder_fault(f"{file.name}/cache").split(" (")[1]
        'Not a directory). Fix: give a folder that can be made and written to'
    """
    if fault := path_fault(path):
        return fault
    try:
        folder = Path(path)  # type: ignore[arg-type]
        folder.mkdir(parents=True, exist_ok=True)
        reason = None if os.access(folder, os.W_OK | os.X_OK) else "it is read-only"
    except OSError as error:
        reason = error.strerror or str(error)
    except (TypeError, ValueError) as error:  # no path at all, or one with a null character
        reason = str(error)
    if reason is None:
        return None
    return f"no files can be kept in {str(path)!r:.200} ({reason}). Fix: give a folder that can be made and written to"


def visible(text: object) -> str:
    r"""Return a text with each control character written out, e.g. the escape character as `\x1b`.

    Tabs and line breaks stay. Line breaks of Windows become plain ones.

    Example:
        >>> print(visible("yes\x1b[2J"))
        yes\x1b[2J
    """
    return _UNSEEN.sub(_written_out, str(text).replace("\r\n", "\n"))


def _written_out(match: re.Match[str]) -> str:
    number = ord(match.group())
    return f"\\x{number:02x}" if number < 256 else f"\\u{number:04x}"


def say(text: object, *, err: bool = False) -> None:
    """Print a line of text with each control character written out.

    Args:
        text: The line.
        err: Print to the standard error stream, as notes and errors are.

    Example:
        >>> say("Written to results.json")
        Written to results.json
    """
    print(visible(text), file=sys.stderr if err else sys.stdout)


def any_terminal() -> None:
    """Let a terminal that cannot show a character, such as one in ASCII, show its code; otherwise printing raises.

    Example:
        >>> any_terminal()
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def cell(text: object, style: str = "") -> Text:
    """Return a text for a table, a title or a line of `rich`, which takes brackets in a plain string for markup.

    Args:
        text: The text.
        style: A style of `rich`.

    Example:
        >>> cell("[yes] or [/]").plain
        '[yes] or [/]'
    """
    from rich.text import Text

    return Text(visible(text), style)


def heading(word: str, text: object, width: int = WORD_WIDTH) -> Text:
    """Return a line of a command: a bold word, then the text.

    Args:
        word: The word.
        text: The text.
        width: Column at which the text begins, if the word is not longer.

    Example:
        >>> heading("Jury", "2 heads, saved in runs/[trial]").plain
        'Jury      2 heads, saved in runs/[trial]'
    """
    from rich.text import Text

    return Text.assemble((f"{word:<{width}}", "bold"), visible(text))


def lines_to(console: Console) -> Callable[[str], None]:
    """Return a function that prints a text on a console of `rich`, for those who only tell what they do.

    Example:
        >>> from rich.console import Console
        >>> lines_to(Console(width=40))("[no] markup")
        [no] markup
    """
    return lambda text: console.print(cell(text), soft_wrap=True)


def markdown_text(text: object) -> str:
    r"""Return a text in one line that Markdown shows as it is: in a paragraph, a list, a heading or a table.

    Example:
        >>> print(markdown_text("$5 | <b> [here](x)"))
        \$5 \| &lt;b> \[here\](x)
    """
    escaped = _MARKDOWN.sub(r"\\\1", visible(text)).replace("&", "&amp;").replace("<", "&lt;")
    return " ".join(escaped.split())
