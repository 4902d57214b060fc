"""Statistics with numpy and scipy only: distances between answer distributions, agreement, resampling."""
