"""What commands print, read as words."""

from __future__ import annotations


def words(text: str) -> str:
    """Printed text without frames and line breaks."""
    return " ".join(text.replace("│", " ").split())
