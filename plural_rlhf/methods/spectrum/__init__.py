"""Spectrum Tuning: learn to imitate whatever distribution a few examples come from.

A sequence shows what its examples are drawn from (a description), and examples of it: the answers of one person, draws
of one random variable, texts of one kind. The model is trained to give the next example its probability, so that at
test time examples of a new person or distribution steer it (Spectrum Tuning, Sorensen and others; `docs/papers.md`).

Example:
    >>> from plural_rlhf.methods.spectrum import Example, SpectrumSequence
    >>> person = SpectrumSequence((Example("agree", "More parks?"), Example("disagree", "More roads?")), "One voter.")
    >>> len(person.examples)
    2
"""

from plural_rlhf.methods.spectrum.dataset import SpectrumDataset
from plural_rlhf.methods.spectrum.families import coin_flips, normal_draws, urn_draws
from plural_rlhf.methods.spectrum.losses import ExampleLosses, example_losses
from plural_rlhf.methods.spectrum.raters import rater_sequences
from plural_rlhf.methods.spectrum.sequences import Example, SpectrumSequence, read_sequences
from plural_rlhf.methods.spectrum.special_rows import copy_special_rows
from plural_rlhf.methods.spectrum.spectrum_config import SpectrumConfig
from plural_rlhf.methods.spectrum.spectrum_trainer import SpectrumTrainer
from plural_rlhf.methods.spectrum.template import TEMPLATES, SpectrumTemplate, template_for
from plural_rlhf.methods.spectrum.tokens import SpectrumTokens, encode_sequence


__all__ = [
    "TEMPLATES",
    "Example",
    "ExampleLosses",
    "SpectrumConfig",
    "SpectrumDataset",
    "SpectrumSequence",
    "SpectrumTemplate",
    "SpectrumTokens",
    "SpectrumTrainer",
    "coin_flips",
    "copy_special_rows",
    "encode_sequence",
    "example_losses",
    "normal_draws",
    "rater_sequences",
    "read_sequences",
    "template_for",
    "urn_draws",
]
