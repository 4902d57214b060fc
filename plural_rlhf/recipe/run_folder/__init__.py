"""The folder of a run: its lock, its stages with hashes of what they read and wrote, and what a full disk leads to.

Knows nothing of how a stage works.
"""
