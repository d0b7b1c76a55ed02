"""The form of `label` offers every method, preset and backbone there is, and passes the choice on."""

from __future__ import annotations

from types import SimpleNamespace
from typing import get_args

from plugin.settings import BACKBONES, METHODS, PRESETS, read_config
from umscosod.config import Method
from umscosod.config.io import preset_names
from umscosod.features.backbone import backbone_names


def test_every_method_preset_and_backbone_has_words() -> None:
    assert sorted(METHODS) == sorted(get_args(Method))
    assert sorted(PRESETS) == sorted(preset_names())
    assert sorted(BACKBONES) == sorted(backbone_names())
    for words in (METHODS, PRESETS, BACKBONES):
        assert all(" " in text for text in words.values())


def test_the_choice_reaches_the_settings() -> None:
    assert read_config(SimpleNamespace(params={"method": "tokencut"})).method == "tokencut"
    assert read_config(SimpleNamespace(params={})).method == "ums"
