# The public names of `plural_rlhf`, and the only list of them: type checkers read this stub, and so does
# `__init__.py`, which imports the module of a name when it is first asked for. `X as X` is how a stub re-exports.
from reward_models.weights import parse_weights as parse_weights

from .core.rules import Rule as Rule
from .core.rules import aggregate as aggregate
from .core.targets import PoolTarget as PoolTarget
from .core.typicality import fit_typicality as fit_typicality
from .evaluation import answer_probabilities as answer_probabilities
from .policies.base_models import prepare_base_model as prepare_base_model
from .policies.mixed_decoder import MixedDecoder as MixedDecoder
from .policies.steerer import Steerer as Steerer
from .ranking.candidates import Candidates as Candidates
from .ranking.candidates import read_candidates as read_candidates
from .ranking.explain import explain as explain
from .ranking.rank import RankedPrompt as RankedPrompt
from .ranking.rank import rank as rank
from .recipe.config import load_config as load_config
from .rewards.jury_reward import JuryReward as JuryReward
from .rewards.validity_gate import ValidityGate as ValidityGate
from .trainers import CollapseMonitor as CollapseMonitor
from .trainers import Limits as Limits
from .trainers import PluralDPOConfig as PluralDPOConfig
from .trainers import PluralDPOTrainer as PluralDPOTrainer
from .trainers import PluralGRPOConfig as PluralGRPOConfig
from .trainers import PluralGRPOTrainer as PluralGRPOTrainer
from .trainers import Rehearsal as Rehearsal
from .trainers.distil import distil as distil
from .trainers.distil import distil_rows as distil_rows
from .weights.jury import Jury as Jury
from .weights.sampler import WeightSampler as WeightSampler
from .weights.wording import describe_weights as describe_weights

__version__: str
