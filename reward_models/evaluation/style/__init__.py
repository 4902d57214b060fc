"""What a cluster rewards, in words: differences of style and content between responses."""
