"""The pages keep up with the code: every setting is described, every page is in the menu."""

from __future__ import annotations

import functools
import importlib.util
import operator
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest
import yaml

from umscosod.config import PipelineConfig
from umscosod.config.io import load_config, parse_yaml, preset_values
from umscosod.config.schema import check_value, settings
from umscosod.network import afmm, decoder, fram, losses
from umscosod.pseudo import proposals, select
from umscosod.refine import rrbe

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
    assert "| `train.batch_images` | int, >= 1, <= 512 | `24` | One step is a group" in page
    assert "| `network.cfmm.rm_relu` | `always` `eval` | `always` |" in page
    assert "| `pseudo.hac_thresholds` | list of float, >= -1.0, <= 1.0 |" in page
    assert "| `refine.crf.bilateral_rgb` | float, >= 0.01, <= 10000.0 | `8.0` |" in page
    assert settings_page.on_page_markdown("another page") == "another page"


def test_every_setting_says_what_it_means(settings_page: ModuleType) -> None:
    rows = list(settings_page.iter_rows(PipelineConfig()))
    assert len(rows) > 50
    assert [name for name, _, _, meaning in rows if not meaning] == []


VALUE = r"\[[^\]]*\]|[\w.+-]*\w"
STATED = re.compile(rf"`([a-z0-9_.]+)` = ({VALUE})(?:\s\(`paper`: ({VALUE})[),])?")
ROW = re.compile(r"^\| `([a-z0-9_.]+)` \| (.+) \| (.+) \|$", re.MULTILINE)
NUMBERS_OF_THE_METHOD = (
    *("features.size_px", "train.batch_images", "train.learning_rate", "train.epochs"),
    *("pseudo.category_distance", "pseudo.top_k", "pseudo.weak_overlap"),
    *("pseudo.hac_thresholds", "pseudo.min_area_share"),
    *("network.decoder.channels", "refine.th0", "refine.alpha_c"),
    *("refine.th_clamp", "refine.empty_floor", "refine.sim_th"),
    *("refine.crf.confidence", "refine.crf.iterations", "refine.crf.size_px", "refine.crf.gaussian_xy_px"),
    *("refine.crf.gaussian_compat", "refine.crf.bilateral_xy_px", "refine.crf.bilateral_rgb"),
    "refine.crf.bilateral_compat",
)
CONSTANTS = {
    **dict.fromkeys(("SA_MASS", "WEAK_WEIGHT"), select),
    **dict.fromkeys(("PARENT_COVERAGE", "MAX_AREA_SHARE", "MAX_CORNERS", "NMS_IOU"), proposals),
    **dict.fromkeys(("HEADS", "HIDDEN_DIVISOR"), afmm),
    **{"ALPHA": fram, "STRIDE": decoder, "IOU_EPS": losses, "EMPTY_SHARE": rrbe},
}


def stated_in(page: str) -> list[tuple[str, str, str]]:
    """Setting, default and the paper's value (or "") wherever a page states them: ``name` = 3 (`paper`: 10)``."""
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    return STATED.findall(re.sub(r"\s*\n\s*", " ", text))


@functools.cache
def config_of(preset: str | None) -> PipelineConfig:
    return load_config(preset)


def value_of(preset: str | None, name: str) -> object:
    return operator.attrgetter(name)(config_of(preset))


@pytest.mark.parametrize(("page", "least"), [("method.md", 30), ("limits.md", 5)])
def test_every_number_of_the_method_on_a_page_is_that_of_its_setting(page: str, least: int) -> None:
    found = stated_in(page)
    assert len(found) >= least
    for name, default, paper in found:
        assert check_value(name, parse_yaml(default)) == value_of(None, name), f"{page}: {name} = {default}"
        published = parse_yaml(paper) if paper else value_of(None, name)
        assert check_value(name, published) == value_of("paper", name), f"{page}: {name}, `paper`: {paper or 'unsaid'}"


def test_every_constant_of_the_method_on_its_page_is_that_of_its_module() -> None:
    text = (ROOT / "docs" / "method.md").read_text(encoding="utf-8")
    found = {name: float(value) for name, value in re.findall(r"`([A-Z][A-Z_]+)` = ([\d.e-]*\d)", text)}
    assert found == {name: getattr(module, name) for name, module in CONSTANTS.items()}


def test_no_number_of_the_method_is_missing_from_its_page() -> None:
    assert set(NUMBERS_OF_THE_METHOD) - {name for name, _, _ in stated_in("method.md")} == set()


def test_the_page_of_the_method_lists_all_that_the_paper_preset_changes() -> None:
    text = (ROOT / "docs" / "method.md").read_text(encoding="utf-8")
    rows = {name: tuple(check_value(name, parse_yaml(cell)) for cell in cells) for name, *cells in ROW.findall(text)}
    changed = {name for name in settings() if value_of(None, name) != value_of("paper", name)}
    assert rows == {name: (value_of(None, name), value_of("paper", name)) for name in changed}
    assert changed <= set(preset_values("paper")), "what 'umscosod presets' prints"


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
