# The public names of `plural_rlhf.methods.kaleidoscope`, imported when asked for (see `reward_models.lazy_names`).
from plural_rlhf.evaluation.steerable.valences import valence_accuracy as valence_accuracy
from plural_rlhf.evaluation.tables.valued_situations import Value as Value
from plural_rlhf.evaluation.tables.valued_situations import ValuedSituation as ValuedSituation
from plural_rlhf.evaluation.tables.valued_situations import ValuesError as ValuesError
from plural_rlhf.evaluation.tables.valued_situations import planted_valued_situations as planted_valued_situations
from plural_rlhf.evaluation.tables.valued_situations import read_valued_situations as read_valued_situations

from .fitted import FittedValueJudge as FittedValueJudge
from .fitted import fit_value_judge as fit_value_judge
from .fitted import load_value_judge as load_value_judge
from .judge import RelevantValue as RelevantValue
from .judge import ValueJudge as ValueJudge
from .judge import ambiguity as ambiguity
from .judge import overton_windows as overton_windows
from .judge import relevant_values as relevant_values
from .judge import situation_valence as situation_valence
from .judge import value_objectives as value_objectives
from .kaleido import KaleidoJudge as KaleidoJudge
from .measures import contrasts_right as contrasts_right
from .measures import heldout_valences as heldout_valences
from .vectors import BackboneVectors as BackboneVectors
from .vectors import TextVectors as TextVectors
from .vectors import word_vectors as word_vectors
