from .described import described_answers as described_answers
from .described import described_judgements as described_judgements
from .described import public_in_words as public_in_words
from .described import rater_words as rater_words
