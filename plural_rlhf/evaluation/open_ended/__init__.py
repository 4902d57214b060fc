"""What a policy for open prompts is worth, from recorded samples: approval, distance to people, diversity, drift."""
