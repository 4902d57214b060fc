"""`CollapseMonitor`: warnings about lost answers and lost clusters, read from the log."""
