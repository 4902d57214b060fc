# The public names of `plural_rlhf.trainers`, imported when first asked for (see `reward_models.lazy_names`).
from .monitor.callback import CollapseMonitor as CollapseMonitor
from .monitor.curves import Limits as Limits
from .monitor.findings import Finding as Finding
from .plural_dpo_config import PluralDPOConfig as PluralDPOConfig
from .plural_dpo_trainer import PluralDPOTrainer as PluralDPOTrainer
from .plural_grpo_config import PluralGRPOConfig as PluralGRPOConfig
from .plural_grpo_trainer import PluralGRPOTrainer as PluralGRPOTrainer
from .rehearsal import Rehearsal as Rehearsal
