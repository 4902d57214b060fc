"""What scores texts in a run: a jury that it fits, a saved jury, or objectives."""
