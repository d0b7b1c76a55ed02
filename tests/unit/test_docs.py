"""The pages keep up with the code: every setting is described, every page is in the menu."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def settings_page(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.setattr(sys, "path", [*sys.path])  # the hook puts the checkout in front
    spec = importlib.util.spec_from_file_location("settings_page", ROOT / "docs" / "hooks" / "settings.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_settings_page_shows_defaults_bounds_and_meaning(settings_page: ModuleType) -> None:
    page = settings_page.on_page_markdown("before <!-- settings -->")
    assert "| `train.batch_images` | int, >= 1, <= 512 | `24` | One step = one group" in page
    assert "| `refine.connectivity` | `4` `8` | `8` |" in page
    assert "| `pseudo.hac_thresholds` | list of float |" in page
    assert settings_page.on_page_markdown("another page") == "another page"


def test_every_setting_says_what_it_means(settings_page: ModuleType) -> None:
    from umscosod.config import PipelineConfig

    rows = list(settings_page.iter_rows(PipelineConfig()))
    assert len(rows) > 50
    assert [name for name, _, _, meaning in rows if not meaning] == []


def test_every_page_is_in_the_menu() -> None:
    text = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    menu = yaml.safe_load(text)["nav"]

    def files(entries: list[dict[str, object]]) -> list[str]:
        found: list[str] = []
        for entry in entries:
            for target in entry.values():
                found += [target] if isinstance(target, str) else files(target)  # type: ignore[arg-type]
        return found

    pages = {path.relative_to(ROOT / "docs").as_posix() for path in (ROOT / "docs").rglob("*.md")}
    assert set(files(menu)) == pages
