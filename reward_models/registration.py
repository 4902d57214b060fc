"""Let transformers know saved juries as soon as it is used, without loading it before.

`AutoModelForSequenceClassification.from_pretrained("path/of/a/jury")`, and so `reward_funcs="path/of/a/jury"` in TRL,
needs the classes of a jury to be registered. Their module needs torch, so it is loaded when transformers loads its
own auto classes, by a hook on that one import. Knows the names of two modules and nothing of what they do.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType


__all__ = ["register_with_transformers"]

_AUTO_CLASSES = "transformers.models.auto.modeling_auto"
_JURY_CLASSES = "reward_models.jury.modeling_jury"


def register_with_transformers() -> None:
    """Register the classes of saved juries now if transformers has its auto classes, else once it loads them.

    Example:
        >>> import sys
        >>> register_with_transformers()
        >>> before = len(sys.meta_path)
        >>> register_with_transformers()  # once is enough
        >>> len(sys.meta_path) == before
        True
    """
    if _AUTO_CLASSES in sys.modules:
        importlib.import_module(_JURY_CLASSES)
    elif not any(isinstance(finder, _AutoClassesFinder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _AutoClassesFinder())


class _AutoClassesFinder(MetaPathFinder):
    """Finds the auto classes as the other finders do, and has the classes of juries loaded after them."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != _AUTO_CLASSES:
            return None
        for finder in [finder for finder in sys.meta_path if finder is not self]:
            spec = finder.find_spec(fullname, path, target)
            if spec is not None and spec.loader is not None:
                spec.loader = _ThenJuries(spec.loader)
                return spec
        return None


class _NextImport(MetaPathFinder):
    """Loads the classes of juries before the next import; finds nothing."""

    def find_spec(self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None) -> None:
        sys.meta_path.remove(self)
        _load_jury_classes()


class _ThenJuries(Loader):
    """Loads a module with its own loader, and then the classes of juries."""

    def __init__(self, loader: Loader) -> None:
        self.loader = loader

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self.loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        module.__loader__ = self.loader
        if module.__spec__ is not None:
            module.__spec__.loader = self.loader
        self.loader.exec_module(module)
        sys.meta_path[:] = [finder for finder in sys.meta_path if not isinstance(finder, _AutoClassesFinder)]
        _load_jury_classes()


def _load_jury_classes() -> None:
    try:
        importlib.import_module(_JURY_CLASSES)
    except ImportError as error:
        # One of its modules is being loaded, and has asked for transformers: it is there at some later import. If
        # something is missing instead, whoever asks for a jury is told.
        if (error.name or "").startswith("reward_models."):
            sys.meta_path.insert(0, _NextImport())
