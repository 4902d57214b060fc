"""Names of the threads of this process, as Linux tells them. Imports no library, so a script may ask last of all."""

from __future__ import annotations

from pathlib import Path


__all__ = ["thread_names"]


def thread_names() -> list[str]:
    """Return the names of all threads; one that ends while they are read is left out."""
    names = []
    for task in Path("/proc/self/task").iterdir():
        try:
            names.append((task / "comm").read_text(encoding="utf-8").strip())
        except (FileNotFoundError, ProcessLookupError):  # it ended between the listing and the reading
            continue
    return names
