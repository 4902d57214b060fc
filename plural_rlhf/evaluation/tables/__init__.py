"""Data in the shapes `distribution` and `sequences`: generated, from packages, from published files."""
