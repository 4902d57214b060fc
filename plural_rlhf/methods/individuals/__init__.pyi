# The public names of `plural_rlhf.methods.individuals`, imported when first asked for (see `lazy_names`).
from .combination import Combination as Combination
from .demonstrations import most_informative as most_informative
from .demonstrations import most_recent as most_recent
from .demonstrations import most_similar as most_similar
from .jury_reader import JuryReader as JuryReader
from .metrics import LewidiScores as LewidiScores
from .metrics import lewidi_scores as lewidi_scores
from .predictions import individual_shares as individual_shares
from .predictions import steering_sequence as steering_sequence
from .predictions import with_traits as with_traits
from .tuning import tune_to_individuals as tune_to_individuals
