"""Evaluation mode for the time, and the device of a process: `reward_models.inference`."""

from __future__ import annotations

import pytest
import torch

from reward_models.inference import default_device, evaluating
from reward_models.judgements.texts import Text
from reward_models.jury.backbones.loading import truncate_backbone
from reward_models.jury.features import pooled_features
from reward_models.jury.tiny import tiny_causal_lm, tiny_tokenizer


def modes(model):
    return [module.training for module in model.modules()]


def test_every_module_gets_its_own_mode_back():
    model = torch.nn.Sequential(torch.nn.Dropout(), torch.nn.Dropout())
    model[1].eval()
    with evaluating(model):
        assert modes(model) == [False] * 3
    assert modes(model) == [True, True, False]


def test_modes_come_back_after_an_error():
    model = torch.nn.Dropout()
    with pytest.raises(ZeroDivisionError), evaluating(model):
        raise ZeroDivisionError
    assert model.training


def test_features_of_a_shortened_backbone_leave_the_mode_of_the_layers_it_shares():
    lm = tiny_causal_lm().train()
    short = truncate_backbone(lm, 1)  # made in training mode, which it keeps as its own
    lm.eval()
    pooled_features(short, tiny_tokenizer(), [Text("a", "b")])
    assert modes(lm) == [False] * len(modes(lm))


def test_each_process_has_an_accelerator_of_its_own(monkeypatch):
    monkeypatch.setenv("LOCAL_RANK", "3")
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda check_available: torch.device("cuda"))
    assert default_device() == torch.device("cuda", 3)
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda check_available: None)
    assert default_device() == torch.device("cpu")
