"""Examples as pages: prose, code, what each cell printed, and the figures that it drew.

The format of a script is in `CONTRIBUTING.md`. Each script is run once, cell by cell, in a process of its own; what it
showed is kept in `.cache/gallery` under the content of the script and the code of the packages (docstrings and
comments do not count), so that nothing runs twice. Knows nothing of the site; `hooks` puts the pages into it.
"""

from __future__ import annotations
import __future__

import ast
import hashlib
import io
import json
import os
import re
import subprocess
import sys
import tempfile
import tokenize
import types
from concurrent.futures import ThreadPoolExecutor
from contextlib import redirect_stdout
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path


ROOT = Path(__file__).resolve().parents[2]
CACHE = ROOT / ".cache" / "gallery"
TIME_LIMIT = 300  # seconds for one script
MARK = re.compile(r"# %%\s*(.*)")
DOCUMENTED = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
NOT_SHOWN = re.compile(r"\s*# (noqa\b.*|fmt: skip|type: ignore.*)$")


@dataclass
class Cell:
    """A part of a script: blocks of prose and code in turn, each code with the line it begins in."""

    title: str
    blocks: list[tuple[str, str, int]] = field(default_factory=list)

    def code(self) -> str:
        """The cell's code, at the lines at which it stands in the script."""
        lines: list[str] = []
        for kind, text, line in self.blocks:
            if kind == "code":
                lines += [""] * (line - len(lines)) + text.split("\n")
        return "\n".join(lines)


@dataclass
class Page:
    """A script as Markdown, and the files that belong beside it, by name."""

    name: str
    title: str
    short_title: str
    abstract: str
    markdown: str
    files: dict[str, bytes]


def split_cells(source: str) -> tuple[str, list[Cell]]:
    """The docstring of a script and its cells; the first cell has no title and holds what stands before any mark."""
    lines = source.split("\n")
    docstring = ast.parse(source).body[0]
    if not (isinstance(docstring, ast.Expr) and isinstance(docstring.value, ast.Constant)):
        raise ValueError("an example opens with a docstring: a title, then what it shows")
    comments = {
        token.start[0] - 1
        for token in tokenize.generate_tokens(io.StringIO(source).readline)
        if token.type == tokenize.COMMENT and token.start[1] == 0
    }
    cells, at = [Cell("")], docstring.end_lineno or 1
    code: list[str] = []

    def end_code() -> None:
        text = "\n".join(code)
        if text.strip():
            cells[-1].blocks.append(("code", text.rstrip(), at - len(code)))
        code.clear()

    while at < len(lines):
        end = at
        while end in comments and (end == at or not MARK.match(lines[end])):
            end += 1
        mark = MARK.match(lines[at]) if end > at else None
        alone = end > at and not lines[at - 1].strip() and (end == len(lines) or not lines[end].strip())
        if mark or alone:
            end_code()
            if mark:
                cells.append(Cell(mark[1].strip(" ─-")))
            prose = "\n".join(line[2:] for line in lines[at + bool(mark) : end]).strip()
            if prose:
                cells[-1].blocks.append(("prose", prose, at))
            at = end
        else:
            code.append(lines[at])
            at += 1
    end_code()
    return str(docstring.value.value), cells


def run_cells(script: Path, folder: Path) -> None:
    """Run a script cell by cell; leave figures and `shown.json`, a list of texts and figures for each cell."""
    import matplotlib.pyplot as plt

    source = script.read_text(encoding="utf-8")
    docstring, cells = split_cells(source)
    flags = __future__.annotations.compiler_flag if "from __future__ import annotations" in source else 0
    module = types.ModuleType("__main__", docstring)
    module.__file__ = str(script)
    sys.modules["__main__"], sys.argv, sys.path[0] = module, [str(script)], str(script.parent)
    shown = []
    for number, cell in enumerate(cells):
        printed = io.StringIO()
        with redirect_stdout(printed):
            exec(compile(cell.code(), str(script), "exec", flags, dont_inherit=True), vars(module))
        figures = {}
        for index in plt.get_fignums():
            figure = plt.figure(index)
            titles = [
                figure.get_suptitle(),
                *(axes.get_title(place) for axes in figure.axes for place in ("center", "left")),
            ]
            name = f"{number}-{index}.png"
            figure.savefig(folder / name, dpi=144)
            figures[name] = next((" ".join(title.split()) for title in titles if title), "")
        plt.close("all")
        shown.append({"text": printed.getvalue(), "figures": figures})
    (folder / "shown.json").write_text(json.dumps(shown), encoding="utf-8")


def show(script: Path) -> tuple[list[dict], dict[str, bytes]]:
    """What a script printed and drew, from the cache or by running it."""
    kept = CACHE / f"{script.stem}-{_key(script)}"
    if not (kept / "shown.json").is_file():
        kept.mkdir(parents=True, exist_ok=True)
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "MPLBACKEND": "Agg", "HF_HUB_OFFLINE": "1"}
        environment.setdefault("OMP_NUM_THREADS", "1")
        with tempfile.TemporaryDirectory() as elsewhere:
            done = subprocess.run(
                [sys.executable, __file__, str(script), str(kept)],
                cwd=elsewhere,
                env=environment,
                capture_output=True,
                text=True,
                timeout=TIME_LIMIT,
                check=False,
            )
        if done.returncode:
            raise RuntimeError(f"examples/{script.name} failed:\n{done.stderr[-3000:]}")
        for old in CACHE.glob(f"{script.stem}-*"):
            if old != kept:
                for file in old.iterdir():
                    file.unlink()
                old.rmdir()
    shown = json.loads((kept / "shown.json").read_text(encoding="utf-8"))
    return shown, {path.name: path.read_bytes() for path in kept.glob("*.png")}


def make_page(script: Path) -> Page:
    """A script as a page; runs it if it was not run before."""
    docstring, cells = split_cells(script.read_text(encoding="utf-8"))
    shown, files = show(script)
    title, _, text = docstring.strip().partition("\n")
    out = [f"# {title.rstrip('.')}", text.strip("\n")]
    for cell, seen in zip(cells, shown, strict=True):
        out += [f"## {cell.title}"] if cell.title else []
        for kind, block, _line in cell.blocks:
            out.append(block if kind == "prose" else _code(block, folded=not cell.title))
        if seen["text"].strip():
            out.append(_fenced(seen["text"].strip("\n"), 'text title="Output"'))
        out += [f"![{alt}]({script.stem}/{name})" for name, alt in seen["figures"].items()]
    title = title.rstrip(".")
    abstract = text.strip().partition("\n\n")[0].replace("\n", " ")
    return Page(script.stem, title, title.partition(":")[0], abstract, "\n\n".join(out) + "\n", files)


@cache
def make_pages(folder: Path = ROOT / "examples") -> list[Page]:
    """The pages of all numbered scripts, in their order."""
    scripts = sorted(folder.glob("[0-9][0-9]_*.py"))
    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(make_page, scripts))


def _code(block: str, folded: bool) -> str:
    lines = block.strip("\n").split("\n")
    fenced = _fenced("\n".join(NOT_SHOWN.sub("", line) for line in lines), "python")
    if not folded:
        return fenced
    return '??? note "Imports and set-up"\n' + "\n".join(f"    {line}" for line in fenced.split("\n"))


def _fenced(text: str, language: str) -> str:
    fence = "```" if "```" not in text else "````"
    return f"{fence}{language}\n{text}\n{fence}"


def _key(script: Path) -> str:
    content = script.read_bytes() + Path(__file__).read_bytes() + _code_of_packages()
    return hashlib.sha256(content).hexdigest()[:16]


@cache
def _code_of_packages() -> bytes:
    digest = hashlib.sha256()
    for path in sorted(
        path for package in ("reward_models", "plural_rlhf") for path in (ROOT / package).rglob("*.py")
    ):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            if isinstance(node, DOCUMENTED) and ast.get_docstring(node, clean=False) is not None:
                del node.body[0]
        digest.update(f"{path.relative_to(ROOT)} {ast.dump(tree)}".encode())
    return digest.digest()


if __name__ == "__main__":
    run_cells(Path(sys.argv[1]), Path(sys.argv[2]))
