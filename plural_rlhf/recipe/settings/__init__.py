"""The settings of a run file, section by section."""
