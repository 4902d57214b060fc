"""The page of a run of Spectrum Tuning, and its results as types."""
