# The public names of `plural_rlhf.report`, imported when first asked for (see `reward_models.lazy_names`).
from .html import write_report as write_report
from .html import write_text_report as write_text_report
from .results import ResultsError as ResultsError
from .results import RunResults as RunResults
from .tables import summary_table as summary_table
