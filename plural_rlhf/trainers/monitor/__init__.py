"""`CollapseMonitor`: what the log says about lost answers and lost clusters."""
