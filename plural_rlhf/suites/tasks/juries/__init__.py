"""Tasks that ask a jury reward model what it rewards; the measures are those of `reward_models.evaluation`."""
