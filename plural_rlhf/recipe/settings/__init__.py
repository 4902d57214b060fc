"""The settings of a run file, section by section, and its faults in sentences."""
