"""What a jury has to beat, and published methods beside it."""
