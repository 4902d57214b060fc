"""What a run that steers to individuals found, and its page."""
