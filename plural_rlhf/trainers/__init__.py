"""TRL trainers that end at a chosen distribution, and a callback that says when a policy does not."""

from plural_rlhf.trainers.monitor.callback import CollapseMonitor
from plural_rlhf.trainers.plural_dpo_config import PluralDPOConfig
from plural_rlhf.trainers.plural_dpo_trainer import PluralDPOTrainer
from plural_rlhf.trainers.plural_grpo_config import PluralGRPOConfig
from plural_rlhf.trainers.plural_grpo_trainer import PluralGRPOTrainer


__all__ = ["CollapseMonitor", "PluralDPOConfig", "PluralDPOTrainer", "PluralGRPOConfig", "PluralGRPOTrainer"]
