"""The API reference: a page for each room of the packages that has public names.

The names are read from the stubs `__init__.pyi` (or the imports of an `__init__.py`) without importing anything, so a
new public name appears by itself. What a page says of a name comes from its docstring, through mkdocstrings.
"""

from __future__ import annotations

import ast
import re
import tomllib
from dataclasses import dataclass
from functools import cache
from pathlib import Path


ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("reward_models", "plural_rlhf")
OTHER_FACES = ("plural_rlhf.envs",)
"""Packages without a stub whose imported names are public."""


@dataclass(frozen=True)
class PublicName:
    """A name that a package offers, and the module that defines it (for a module: the module itself)."""

    face: str
    name: str
    module: str
    is_module: bool

    @property
    def path(self) -> str:
        """The name as it is imported."""
        return f"{self.face}.{self.name}"

    @property
    def place(self) -> str:
        """The full path of the definition."""
        return self.module if self.is_module else f"{self.module}.{self.name}"

    @property
    def room(self) -> str:
        """The folder or module, right below a package, that the name lives in."""
        return ".".join(self.module.split(".")[:2])


def faces() -> list[str]:
    """The packages that list public names: the two faces first, then their rooms."""
    stubs = [path.parent for package in PACKAGES for path in (ROOT / package).rglob("__init__.pyi")]
    found = {".".join(folder.relative_to(ROOT).parts) for folder in stubs} | set(OTHER_FACES)
    return sorted(found, key=lambda face: (face.count("."), face))


def public_names() -> list[PublicName]:
    """All public names of all faces; what two faces offer is in the list twice."""
    found = []
    for face in faces():
        tree = _tree(_face_file(face))
        listed = _listed(tree)
        for statement in tree.body:
            for alias in statement.names if isinstance(statement, ast.ImportFrom) else ():
                if listed is None or alias.name in listed:
                    found.append(_found(face, alias.name, _absolute(statement, face)))
    return found


def rooms() -> dict[str, list[PublicName]]:
    """The public names by room, each once, under its shortest path; rooms from the ground up, as the contracts say."""
    once: dict[str, PublicName] = {}
    for public in public_names():
        known = once.get(public.place)
        if known is None or public.path.count(".") < known.path.count("."):
            once[public.place] = public
    by_room: dict[str, list[PublicName]] = {}
    for public in once.values():
        by_room.setdefault(public.room, []).append(public)
    order = _layers()
    return {
        room: sorted(by_room[room], key=lambda public: (public.module, not public.is_module, public.name.lower()))
        for room in sorted(by_room, key=lambda room: (order.get(room, len(order)), room))
    }


def page_path(room: str) -> str:
    """Where the page of a room lies in the site."""
    return f"reference/{room.replace('.', '/')}.md"


def make_pages() -> dict[str, str]:
    """The Markdown of every page of the API reference, by path in the site."""
    pages = {page_path(room): _page(room, names) for room, names in rooms().items()}
    pages["reference/index.md"] = _index()
    return pages


def _index() -> str:
    out = ["# Public names", "A page for each room. What is not listed here may change without notice."]
    for package in PACKAGES:
        out += [f"## {package}", "| room | what it is for | names |\n|---|---|---|"]
        for room, names in rooms().items():
            if room.startswith(f"{package}."):
                links = ", ".join(f"[`{public.name}`][{public.path}]" for public in names)
                page = page_path(room).removeprefix("reference/")
                out[-1] += f"\n| [`{room.split('.')[1]}`]({page}) | {_summary(room)} | {links} |"
    return "\n\n".join(out) + "\n"


def _page(room: str, names: list[PublicName]) -> str:
    out = [f"# {room}", _directive(room, members="[]", show_root_heading="false", show_root_toc_entry="false")]
    table = "| name | module | what it is |\n|---|---|---|"
    for public in names:
        module = public.module.removeprefix(f"{room}.") if public.module != room else ""
        table += f"\n| [`{public.name}`][{public.path}] | {f'`{module}`' if module else ''} | {summary(public)} |"
    out.append(table)
    for public in names:
        out.append(_directive(public.path, **({"members": "[]"} if public.is_module else {})))
    return "\n\n".join(out) + "\n"


def _directive(path: str, **options: str) -> str:
    lines = [f"::: {path}"]
    if options:
        lines += ["    options:", *(f"      {key}: {value}" for key, value in options.items())]
    return "\n".join(lines)


def summary(public: PublicName) -> str:
    """What a public name is, in the first paragraph of its docstring."""
    return _summary(public.module) if public.is_module else _summary(public.module, public.name)


def _summary(module: str, name: str | None = None) -> str:
    tree = _tree(_module_file(module))
    body = _statements(tree)
    node = next((node for node in body if name in _defined(node)), tree)
    if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
        text = ast.get_docstring(node) or ""
    else:
        after = next(iter(body[body.index(node) + 1 :]), None)  # the text below a constant
        text = after.value.value if isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant) else ""
    first = " ".join(str(text).split("\n\n")[0].split())
    return re.sub(r"\[`~?([\w.]+)`\](?!\[)", r"`\1`", first).replace("|", "\\|")


def _found(face: str, name: str, module: str) -> PublicName:
    """Follow imports from a face to the module that defines a name."""
    here = module
    while True:
        for statement in _statements(
            _tree(_face_file(here) if _module_file(here).name == "__init__.py" else _module_file(here))
        ):
            if name in _defined(statement):
                return PublicName(face, name, here, is_module=False)
            if isinstance(statement, ast.ImportFrom) and name in {a.asname or a.name for a in statement.names}:
                here = _absolute(statement, here)
                break
        else:
            if not _exists(f"{here}.{name}"):
                raise LookupError(f"{face} offers {name!r}, which {here} does not define")
            return PublicName(face, name, f"{here}.{name}", is_module=True)


def _statements(tree: ast.AST) -> list[ast.stmt]:
    body = list(getattr(tree, "body", []))
    return body + [inner for s in body if isinstance(s, ast.If | ast.Try) for inner in s.body]


def _defined(statement: ast.stmt) -> set[str]:
    if isinstance(statement, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
        return {statement.name}
    if isinstance(statement, ast.Assign):
        return {target.id for target in statement.targets if isinstance(target, ast.Name)}
    if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
        return {statement.target.id}
    return set()


def _listed(tree: ast.Module) -> set[str] | None:
    """The names of `__all__`; None in a stub, whose imports are all public."""
    lists = [node.value for node in tree.body if isinstance(node, ast.Assign) and "__all__" in _defined(node)]
    return set(ast.literal_eval(lists[0])) if lists else None


def _absolute(statement: ast.ImportFrom, module: str) -> str:
    if not statement.level:
        return statement.module or ""
    package = module.split(".")
    if _module_file(module).name not in ("__init__.py", "__init__.pyi"):
        package = package[:-1]
    package = package[: len(package) - (statement.level - 1)]
    return ".".join([*package, *(statement.module or "").split(".")]).rstrip(".")


def _face_file(face: str) -> Path:
    folder = ROOT.joinpath(*face.split("."))
    return folder / ("__init__.pyi" if (folder / "__init__.pyi").is_file() else "__init__.py")


def _module_file(module: str) -> Path:
    path = ROOT.joinpath(*module.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def _exists(module: str) -> bool:
    return _module_file(module).is_file()


@cache
def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


@cache
def _layers() -> dict[str, int]:
    """How far up each room stands, as the import contracts have it."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"][
        "contracts"
    ]
    return {
        f"{package}.{room.strip()}": level + 100 * PACKAGES.index(package)
        for contract in contracts
        if contract["type"] == "layers"
        for package in contract["containers"]
        for level, layer in enumerate(reversed(contract["layers"]))
        for room in layer.split("|")
    }
