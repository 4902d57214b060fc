"""TRL trainers that end at a chosen distribution: `PluralGRPOTrainer` and its configuration."""

from plural_rlhf.trainers.plural_grpo_config import PluralGRPOConfig
from plural_rlhf.trainers.plural_grpo_trainer import PluralGRPOTrainer


__all__ = ["PluralGRPOConfig", "PluralGRPOTrainer"]
