"""Hooks of MkDocs: the pages that are made at build time, links that leave `docs/`, and mathematics.

Made pages: the start page from the README, the API reference, the commands and the run file, the gallery, the change
log and the contributing guide. A link to any other file of the repository gets a copy of that file in the site.
"""

from __future__ import annotations

import html
import posixpath
import re
from pathlib import Path
from typing import Any

import commands
import gallery
import reference
from latex2mathml.converter import convert
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page


ROOT = Path(__file__).resolve().parents[2]
COPIED = {"README.md": "index.md", "CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md"}
FOLDERS = {"configs": "reference/run_file.md", "benchmarks": "results.md", "examples": "gallery/index.md"}
CODE = re.compile(r"(^ *(```+|~~~+).*?^ *\2|`(?:(?!\n\n)[^`])+`)", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"(\]\()([^)\s#:]+)(#[^)\s]*)?(\))")
MATHS = re.compile(r'<(span|div) class="arithmatex">\\[(\[](.*?)\\[)\]]</\1>', re.DOTALL)


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Fill in the entries of the navigation whose pages are made: `gallery/*` and `reference/*`."""
    made = {
        "gallery/*": [
            "gallery/index.md",
            *({page.short_title: f"gallery/{page.name}.md"} for page in gallery.make_pages()),
        ],
        "reference/*": _reference_navigation(),
    }

    def filled(entry: Any) -> Any:
        if isinstance(entry, list):
            return [filled(one) for one in entry]
        if isinstance(entry, dict):
            return {title: filled(inside) for title, inside in entry.items()}
        return made.get(entry, entry)

    config.nav = filled(config.nav)
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are made, and copies of the files that pages link to."""
    texts = {made: (_read(source), source) for source, made in COPIED.items()}
    texts |= {path: (text, path) for path, text in reference.make_pages().items()}
    texts["reference/commands.md"] = commands.commands_page(), "reference/commands.md"
    texts["reference/run_file.md"] = commands.run_file_page(), "reference/run_file.md"
    texts["reference/suite_file.md"] = commands.suite_file_page(), "reference/suite_file.md"
    pages = gallery.make_pages()
    texts["gallery/index.md"] = _gallery_index(pages), "gallery/index.md"
    for page in pages:
        texts[f"gallery/{page.name}.md"] = page.markdown, f"examples/{page.name}.py"
        for name, content in page.files.items():
            files.append(File.generated(config, f"gallery/{page.name}/{name}", content=content))
    for file in list(files.documentation_pages()):
        texts[file.src_uri] = file.content_string, f"docs/{file.src_uri}"
    for path, (text, source) in texts.items():
        for target in sorted(_copies(text, source)):
            if files.get_file_from_path(f"files/{target}") is None:
                files.append(File.generated(config, f"files/{target}", content=(ROOT / target).read_bytes()))
        if files.get_file_from_path(path) is None:
            files.append(File.generated(config, path, content=relink(text, source, path)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Turn the links of a page of `docs/` that leave it towards the site."""
    if page.file.generated_by:
        return markdown
    return relink(markdown, f"docs/{page.file.src_uri}", page.file.src_uri)


def on_page_content(content: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Mathematics as MathML, which browsers draw without a script."""
    return MATHS.sub(lambda m: convert(html.unescape(m[2]), display="block" if m[1] == "div" else "inline"), content)


def site_path(target: str) -> str | None:
    """Where a file of the repository is found in the site; None if there is no such file."""
    if target in COPIED:
        return COPIED[target]
    if target in FOLDERS:
        return FOLDERS[target]
    path = Path(target)
    if path.parent == Path("examples") and re.match(r"\d\d_", path.name):
        return f"gallery/{path.stem}.md"
    if path.parts[:1] == ("docs",):
        return "/".join(path.parts[1:])
    return f"files/{target}" if (ROOT / target).is_file() else None


def relink(markdown: str, source: str, page: str) -> str:
    """Rewrite relative links, written as they hold at `source` in the repository, so that they hold at `page`."""

    def turned(match: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join(posixpath.dirname(source), match[2]))
        found = site_path(target)
        if found is None:
            return match[0]
        return f"{match[1]}{posixpath.relpath(found, posixpath.dirname(page) or '.')}{match[3] or ''}{match[4]}"

    if source == page:  # made for the site
        return markdown
    parts = CODE.split(markdown)  # text, code, fence, text, …
    return "".join(LINK.sub(turned, part) if i % 3 == 0 else part for i, part in enumerate(parts) if i % 3 < 2)


def _copies(markdown: str, source: str) -> set[str]:
    """The files of the repository that a page links to and that are no pages."""
    text = "".join(part for i, part in enumerate(CODE.split(markdown)) if i % 3 == 0)
    folder = posixpath.dirname(source)
    targets = {posixpath.normpath(posixpath.join(folder, match[2])) for match in LINK.finditer(text)}
    return {target for target in targets if site_path(target) == f"files/{target}"}


def _reference_navigation() -> list[Any]:
    entries: list[Any] = ["reference/index.md"]
    for package in reference.PACKAGES:
        rooms = [room for room in reference.rooms() if room.startswith(f"{package}.")]
        entries.append({package: [{room.split(".")[1]: reference.page_path(room)} for room in rooms]})
    return entries


def _gallery_index(pages: list[gallery.Page]) -> str:
    out = [
        "# Gallery",
        "Scripts that are half prose, run when this site was made; every number and picture is what they showed.",
    ]
    for page in pages:
        out.append(f"## [{page.title}]({page.name}.md)\n\n{page.abstract}")
    return "\n\n".join(out) + "\n"


def _read(path: str) -> str:
    return (ROOT / path).read_text(encoding="utf-8")
