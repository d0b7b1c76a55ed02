"""The form of `label` offers every method, preset and backbone there is, and passes the choice on."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import get_args

import pytest

from plugin import settings
from plugin.settings import METHODS, NOT_LISTED, PRESETS, read_config, weights_words
from umscosod.config import Method
from umscosod.config.io import preset_names
from umscosod.features.backbone import backbone_names


def test_every_method_preset_and_backbone_has_words() -> None:
    assert sorted(METHODS) == sorted(get_args(Method))
    assert sorted(PRESETS) == sorted(preset_names())
    assert sorted([*NOT_LISTED, *weights_words()]) == sorted(backbone_names())
    for words in (METHODS, PRESETS, weights_words()):
        assert all(" " in text for text in words.values())


def test_each_backbone_says_whether_its_weights_are_here(monkeypatch: pytest.MonkeyPatch) -> None:
    def offered_weights() -> tuple[SimpleNamespace, ...]:
        paths = {"dino_vits8": Path("here"), "dino_vitb8": None}
        return tuple(SimpleNamespace(name=name, path=path, size_mb=343) for name, path in paths.items())

    monkeypatch.setattr(settings, "offered_weights", offered_weights)
    words = weights_words()
    assert words["dino_vits8"].endswith("(weights are here)")
    assert words["dino_vitb8"].endswith("(weights are not here, 343 MB)")


def test_the_choice_reaches_the_settings() -> None:
    assert read_config(SimpleNamespace(params={"method": "tokencut"})).method == "tokencut"
    assert read_config(SimpleNamespace(params={})).method == "ums"
