# The public names of `plural_rlhf.methods.modular`, imported when first asked for (see `reward_models.lazy_names`).
from .answered import AskedQuestion as AskedQuestion
from .answered import answered_texts as answered_texts
from .answered import asked_questions as asked_questions
from .communities import FEWEST_RATERS as FEWEST_RATERS
from .communities import Community as Community
from .communities import communities_by_cluster as communities_by_cluster
from .communities import communities_by_trait as communities_by_trait
from .communities import raters_by_cluster as raters_by_cluster
from .communities import raters_by_trait as raters_by_trait
from .measure import EVERYBODY as EVERYBODY
from .measure import CommunityPeople as CommunityPeople
from .policy import ModularPolicy as ModularPolicy
from .pool import CommunityPool as CommunityPool
from .pool import TrainedCommunity as TrainedCommunity
