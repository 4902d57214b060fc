"""What a policy is worth: its answer distributions held against people's."""
