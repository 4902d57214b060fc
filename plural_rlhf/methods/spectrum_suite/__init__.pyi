# The public names of `plural_rlhf.methods.spectrum_suite`, imported when first asked for (`reward_models.lazy_names`).
from .build import BuiltTask as BuiltTask
from .build import build_tasks as build_tasks
from .catalogue import Catalogue as Catalogue
from .catalogue import Source as Source
from .catalogue import SuiteTask as SuiteTask
from .catalogue import read_catalogue as read_catalogue
from .data import SuiteData as SuiteData
from .data import SuiteDataMissing as SuiteDataMissing
