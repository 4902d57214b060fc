"""Models that a jury has to beat, and published methods to compare it with."""
