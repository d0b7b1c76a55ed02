"""Where the feature cache lies."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from umscosod.features.cache import FeatureCache, default_root


def test_default_root_order(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("UMSCOSOD_CACHE", str(tmp_path / "own"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert FeatureCache(None).root == tmp_path / "own"
    monkeypatch.delenv("UMSCOSOD_CACHE")
    assert default_root() == tmp_path / "xdg" / "umscosod" / "features"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative/is/invalid")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setattr(sys, "platform", "linux")
    assert default_root() == tmp_path / "home" / ".cache" / "umscosod" / "features"
    monkeypatch.setattr(sys, "platform", "darwin")
    assert default_root() == tmp_path / "home" / "Library" / "Caches" / "umscosod" / "features"
