"""`JuryRewardTrainer`: fine-tune a jury with TRL's reward trainer."""
