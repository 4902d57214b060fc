# The public names of `plural_rlhf.methods.new_questions`, imported when first asked for (see `lazy_names`).
from .groups import question_groups as question_groups
from .known import KnownQuestions as KnownQuestions
from .known import known_questions as known_questions
from .new import NewQuestion as NewQuestion
from .new import read_new_questions as read_new_questions
from .page import write_questions_report as write_questions_report
from .predict import GroupPrediction as GroupPrediction
from .predict import predict_questions as predict_questions
from .results import QuestionResults as QuestionResults
from .run import run_questions as run_questions
