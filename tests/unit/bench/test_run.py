"""A bench on two tiny data sets: scores equal to `evaluate`, nothing done twice, failures kept apart."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.jobs import quick_config, read_tree
from tests.synthetic import tiny_collection
from umscosod.bench.entries import parse_methods
from umscosod.bench.run import run_bench, save_bench
from umscosod.bench.table import BenchReport, disagreement
from umscosod.cli import main
from umscosod.config import PipelineConfig
from umscosod.errors import Cancelled, ConfigError
from umscosod.evaluation import evaluate


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> PipelineConfig:
    return quick_config(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of two data sets, ``one`` and ``two``."""
    root = tmp_path_factory.mktemp("data")
    tiny_collection(root / "one", groups=1, images=3, size=96)
    tiny_collection(root / "two", groups=2, images=2, size=96, seed=1)
    return root


@pytest.fixture(scope="module")
def perfect(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The ground truth as the maps of another program."""
    root = tmp_path_factory.mktemp("perfect")
    for name in ("one", "two"):
        shutil.copytree(data / name / "gt", root / name)
    return root


@pytest.fixture(scope="module")
def done(
    data: Path, perfect: Path, config: PipelineConfig, tmp_path_factory: pytest.TempPathFactory
) -> tuple[BenchReport, str]:
    """A finished bench of two methods and a folder of maps, refined alike, and its tables."""
    methods = parse_methods(f"attention,pseudo,perfect={perfect}")
    report = run_bench([data], methods, tmp_path_factory.mktemp("bench"), config)
    return report, save_bench(report, shown=1)


def test_scores_are_those_of_evaluate(done: tuple[BenchReport, str], data: Path) -> None:
    report, _ = done
    assert report.datasets == ("one", "two")
    for name in report.datasets:
        for method in report.methods:
            folder, cell = report.out / name / method, report.cell(name, method)
            assert cell.masks is not None
            assert cell.masks.dataset == evaluate(folder / "masks", data / name / "gt").dataset
            assert cell.maps is not None
            assert cell.maps.dataset == evaluate(folder / "maps", data / name / "gt").dataset
            assert cell.seconds is not None
            assert cell.seconds > 0
    figures = [report.cell(name, "pseudo").figure("iou") for name in report.datasets]
    assert report.figure("pseudo", "iou") == pytest.approx(np.mean(figures))
    assert report.exit_code == 0


def test_the_tables_hold_the_figures(done: tuple[BenchReport, str]) -> None:
    report, text = done
    assert (report.out / "bench.md").read_text(encoding="utf-8") == text
    for title in ("## Mean of 2 data sets, final masks", "## one, final masks", "## Soft maps before refinement"):
        assert title in text
    row = next(line for line in text.split("## one")[1].splitlines() if line.startswith("| perfect"))
    cell = report.cell("one", "perfect").masks
    assert cell is not None
    assert re.findall(r"\d\.\d+", row)[:2] == [f"{cell.dataset.mae:.3f}", f"{cell.dataset.s:.3f}"]
    stored = json.loads((report.out / "bench.json").read_bytes())
    assert stored["mean"]["attention"]["iou"] == report.figure("attention", "iou")
    assert len(stored["cells"]) == 6


def test_the_page_shows_every_method_on_the_pictures_that_differ(done: tuple[BenchReport, str]) -> None:
    report, _ = done
    page = (report.out / "index.html").read_text(encoding="utf-8")
    assert page.count("<article>") == 2  # one of each data set
    assert page.count("<table>") == 4  # the mean, each data set, the soft maps
    for name in re.findall(r'src="([^"]+)"', page):
        with Image.open(report.out / name) as picture:
            assert max(picture.size) <= 240
    assert page.count("<figure>") == 2 * (2 + 3)  # image, ground truth, three methods
    assert "http" not in page


def test_ground_truths_of_ids_ask_and_are_scored_and_shown(
    data: Path, perfect: Path, config: PipelineConfig, tmp_path: Path
) -> None:
    shutil.copytree(data / "one", tmp_path / "one")
    for file in sorted((tmp_path / "one" / "gt").rglob("*.png")):
        mask_HW = np.asarray(Image.open(file)) > 0
        values = np.where(mask_HW, np.uint8(2), np.uint8(0))
        values[0] = 1
        values[1] = 255
        Image.fromarray(values).save(file)
    methods = parse_methods(f"perfect={perfect / 'one'},other={perfect / 'one'}")
    asked = run_bench([tmp_path / "one"], methods, tmp_path / "asked", config, as_is=True)
    assert "holds the values 0, 1, 2, 255, so several could be the object" in (asked.cells[0].error or "")
    report = run_bench([tmp_path / "one"], methods, tmp_path / "out", config, as_is=True, mask_value="2")
    scores = report.cells[0].masks
    assert scores is not None
    assert (scores.dataset.mae, scores.dataset.iou) == (0, 1)
    assert scores.ignored_share > 0
    assert any("2 is foreground, 255 is ignored" in note for note in report.notes)
    save_bench(report, shown=1)
    with Image.open(tmp_path / "out/thumbs/0-0-1.jpg") as truth, Image.open(tmp_path / "out/thumbs/0-0-2.jpg") as ours:
        unlike = np.abs(np.asarray(truth).astype(int) - np.asarray(ours))
    assert unlike.mean() < 8


def test_disagreement_by_hand() -> None:
    left, right, none = np.array([True, False]), np.array([False, True]), np.zeros(2, bool)
    assert disagreement([left, left]) == 0.0
    assert disagreement([left, right]) == 1.0
    assert disagreement([none, none]) == 0.0
    assert disagreement([left, left, right]) == pytest.approx(2 / 3)
    assert disagreement([left]) == 0.0


def test_the_same_call_again_scores_the_same_and_keeps_the_times(
    done: tuple[BenchReport, str], data: Path, perfect: Path, config: PipelineConfig
) -> None:
    report, _ = done
    before = {name: content for name, content in read_tree(report.out).items() if "/masks/" in name}
    again = run_bench([data], parse_methods(f"attention,pseudo,perfect={perfect}"), report.out, config)
    assert {name: content for name, content in read_tree(report.out).items() if "/masks/" in name} == before
    for first, second in zip(report.cells, again.cells, strict=True):
        assert first.seconds == second.seconds
        assert first.figure("iou") == second.figure("iou")


def test_a_stopped_bench_is_taken_up_and_has_no_time_for_what_was_cut(
    tmp_path: Path, data: Path, config: PipelineConfig, done: tuple[BenchReport, str]
) -> None:
    def cancel(done: int, total: int, stage: str) -> None:
        if stage == "one pseudo: refinement":
            raise Cancelled("stopped by the test")

    methods = parse_methods("attention,pseudo")
    with pytest.raises(Cancelled):
        run_bench([data / "one"], methods, tmp_path, config, progress=cancel)
    report = run_bench([data / "one"], methods, tmp_path, config)
    assert report.cell("one", "pseudo").seconds is None
    assert report.cell("one", "attention").seconds is not None
    assert report.cell("one", "pseudo").figure("iou") == done[0].cell("one", "pseudo").figure("iou")


def test_maps_as_they_are_and_a_single_data_set(
    tmp_path: Path, data: Path, perfect: Path, config: PipelineConfig
) -> None:
    report = run_bench([data / "one"], parse_methods(f"x={perfect / 'one'}"), tmp_path, config, as_is=True)
    assert report.cell("one", "x").figure("iou") == 1.0
    assert report.cell("one", "x").figure("mae") == 0.0
    assert not (tmp_path / "one").exists()
    assert "| x " in save_bench(report, shown=3)


def test_one_bad_method_or_data_set_ends_nothing_else(
    tmp_path: Path, data: Path, perfect: Path, config: PipelineConfig
) -> None:
    torn = tmp_path / "torn"
    shutil.copytree(perfect, torn)
    sorted((torn / "one").rglob("*.png"))[0].unlink()
    (tmp_path / "empty").mkdir()
    methods = parse_methods(f"attention,torn={torn},nowhere={tmp_path / 'nowhere'}")
    report = run_bench([tmp_path / "empty", data / "one", tmp_path / "missing"], methods, tmp_path / "out", config)
    assert report.cell("one", "attention").masks is not None
    assert "1 image failed" in report.cell("one", "torn").error
    assert "no folder of maps" in report.cell("one", "nowhere").error
    assert "not a benchmark layout" in report.cell("empty", "attention").error
    assert report.cell("missing", "attention").error
    assert report.figure("attention", "iou") is None
    assert report.exit_code == 1
    text = save_bench(report, shown=2)
    assert "## Not scored" in text
    assert "- one, torn: 1 image failed" in text


def test_an_unreadable_image_is_scored_for_nobody_and_said(tmp_path: Path, config: PipelineConfig) -> None:
    tiny_collection(tmp_path / "data", groups=1, images=3, size=96)
    broken = sorted((tmp_path / "data" / "image").rglob("*.jpg"))[0]
    broken.write_bytes(b"no picture")
    report = run_bench([tmp_path / "data"], parse_methods("attention"), tmp_path / "out", config)
    cell = report.cell("data", "attention")
    assert cell.masks is not None
    assert cell.masks.dataset.n == 2
    assert any("1 image cannot be read" in note for note in report.notes)


def test_other_settings_in_the_same_folder_are_an_error_of_the_cell(
    tmp_path: Path, data: Path, config: PipelineConfig
) -> None:
    methods = parse_methods("attention")
    run_bench([data / "one"], methods, tmp_path, config)
    other = replace(config, refine=replace(config.refine, th0=0.4))
    refused = run_bench([data / "one"], methods, tmp_path, other)
    assert "results of other settings" in refused.cell("one", "attention").error
    assert refused.exit_code == 3
    again = run_bench([data / "one"], methods, tmp_path, other, overwrite=True)
    assert again.cell("one", "attention").seconds is not None


def test_without_a_cache_it_is_refused(tmp_path: Path, data: Path, config: PipelineConfig) -> None:
    uncached = replace(config, features=replace(config.features, use_cache=False))
    with pytest.raises(ConfigError, match="use_cache"):
        run_bench([data], parse_methods("attention"), tmp_path, uncached)


def test_the_command(tmp_path: Path, data: Path, config: PipelineConfig, capsys: pytest.CaptureFixture[str]) -> None:
    line = ["bench", str(data / "one"), str(data / "two"), "--out", str(tmp_path / "out"), "--methods", "attention"]
    line += ["--preset", "smoke", "--config.features.cache-dir", config.features.cache_dir, "--shown", "0"]
    assert main(line) == 0
    assert "## Mean of 2 data sets, final masks" in capsys.readouterr().out
    assert (tmp_path / "out" / "bench.json").is_file()
    assert main([*line, "--shown", "-1"]) == 2
    assert main([*line, "--methods", "nothing"]) == 2
