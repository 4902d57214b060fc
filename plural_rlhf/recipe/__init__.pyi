# The public names of `plural_rlhf.recipe`, imported when first asked for (see `reward_models.lazy_names`).
from .config import ConfigError as ConfigError
from .config import RunConfig as RunConfig
from .config import load_config as load_config
from .config import make_config as make_config
from .interruption import RunInterrupted as RunInterrupted
from .pipeline import Until as Until
from .pipeline import run as run
from .run_folder.errors import RunFolderError as RunFolderError
from .survey.labels import fit_labels as fit_labels
