"""What a jury decides, what would make it decide otherwise, and who gains."""
