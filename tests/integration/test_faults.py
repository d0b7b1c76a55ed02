"""Bad files, bad folders, and runs killed at any moment: through the command line where a person would meet them."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.jobs import assert_same, quick_config, read_results
from tests.processes import wait_until
from tests.synthetic import tiny_collection
from umscosod.config import PipelineConfig
from umscosod.errors import Cancelled, UmscosodError
from umscosod.pipeline import label_groups
from umscosod.progress import stage_name
from umscosod.types import Status

ROOT = Path(__file__).resolve().parents[2]
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
LEFTOVER = re.compile(r"\.[0-9a-f]{32}\.tmp|\.writing-.*")


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("collection")
    tiny_collection(root, groups=2, images=2, size=80)
    return root / "image"


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> PipelineConfig:
    return quick_config(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="module")
def calls() -> list[tuple[int, int, str]]:
    """Every report of progress of an undisturbed run; filled by the fixture `whole`."""
    return []


@pytest.fixture(scope="module")
def whole(
    tmp_path_factory: pytest.TempPathFactory,
    images: Path,
    config: PipelineConfig,
    calls: list[tuple[int, int, str]],
) -> dict[str, bytes]:
    """Results of a run that nothing disturbed."""
    out = tmp_path_factory.mktemp("whole") / "out"
    label_groups(images, out, config, progress=lambda *report: calls.append(report), train=True)
    return read_results(out)


def command(images: Path, out: Path, cache: Path, *more: str) -> list[str]:
    """The command that `quick_config` is the settings of."""
    line = ["label", images, "--out", out, "--preset", "smoke", "--train", "always", "--device", "cpu"]
    settings = ["--config.train.epochs", 3, "--config.features.cache-dir", cache]
    return [sys.executable, "-m", "umscosod.cli", *map(str, [*line, *settings]), *more]


def run_cli(*arguments: Any) -> subprocess.CompletedProcess[str]:
    line = command(*arguments)
    return subprocess.run(line, capture_output=True, text=True, cwd=ROOT, env=ENVIRONMENT, check=False)


def assert_taken_up(out: Path, whole: dict[str, bytes]) -> None:
    """Everything is as in a run that nothing disturbed, every picture opens, and nothing temporary is left."""
    assert not [path for path in out.rglob("*") if LEFTOVER.fullmatch(path.name)]
    for path in [*out.rglob("*.png"), *out.rglob("*.jpg")]:
        with Image.open(path) as picture:
            picture.load()
    assert_same(read_results(out), whole)


# ---- bad files


@pytest.fixture(scope="module")
def spoilt(tmp_path_factory: pytest.TempPathFactory, images: Path) -> Path:
    """A collection with one of everything that goes wrong."""
    root = tmp_path_factory.mktemp("spoilt") / "my photos"
    coffee = Path(shutil.copytree(images / "coffee", root / "coffee"))
    good = (coffee / "coffee_00.jpg").read_bytes()
    (coffee / "corrupt.jpg").write_bytes(good[:200] + bytes(len(good) - 200))
    (coffee / "truncated.jpg").write_bytes(good[: len(good) // 2])
    (coffee / "zero.jpg").write_bytes(b"")
    (coffee / "text.jpg").write_text("this is no picture", encoding="utf-8")
    Image.new("RGB", (1, 1), "red").save(coffee / "pixel.png")
    (root / "empty").mkdir()
    (root / "single").mkdir()
    (root / "single" / "only.jpg").write_bytes(good)
    shutil.copytree(images / "shuttle", root / "Fußball — 写真")
    with Image.open(root / "Fußball — 写真" / "shuttle_00.jpg") as picture:
        picture.save(root / "Fußball — 写真" / "shuttle_00.png")
    (root / "Fußball — 写真" / "shuttle_01.jpg").rename(root / "Fußball — 写真" / "ein schönes Bild (1).jpg")
    return root


BAD = ["corrupt.jpg", "pixel.png", "text.jpg", "truncated.jpg", "zero.jpg"]


def test_bad_files_get_a_line_each_and_the_rest_is_labelled(tmp_path: Path, spoilt: Path) -> None:
    out = tmp_path / "out folder"
    done = run_cli(spoilt, out, tmp_path / "cache")
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr + done.stdout
    report = json.loads((out / "report.json").read_text(encoding="utf-8"))
    rows = {row["image"]: row for row in report["images"]}
    failed = {name: row["reason"] for name, row in rows.items() if row["status"] == "failed"}
    assert sorted(failed) == [f"coffee/{name}" for name in BAD]
    for name, reason in failed.items():
        assert Path(name).name in reason
        assert "\n" not in reason
        assert len([line for line in done.stdout.splitlines() if line.startswith(f"  {name}: ")]) == 1
    usable = [row for name, row in rows.items() if name not in failed]
    assert len(usable) == 6
    assert {row["status"] for row in usable} <= {"labelled", "empty"}
    assert "5 failed" in done.stdout
    stem = "Fußball — 写真/shuttle_00"
    assert [rows[f"{stem}.{kind}"]["output"] for kind in ("jpg", "png")] == [f"{stem}.jpg.png", f"{stem}.png.png"]
    assert len(re.findall("share a stem", done.stderr)) == 1
    assert len(re.findall("note: group 'single' has one image", done.stdout)) == 1
    masks = {path.relative_to(out / "masks").as_posix() for path in (out / "masks").rglob("*.*")}
    assert masks == {row["output"] for row in usable}
    page = (out / "index.html").read_text(encoding="utf-8")
    assert all(name in page for name in rows)


def test_a_folder_without_images_is_one_line_and_nothing_is_written(tmp_path: Path) -> None:
    (tmp_path / "bare" / "sub").mkdir(parents=True)
    (tmp_path / "bare" / "notes.txt").write_text("no pictures", encoding="utf-8")
    done = run_cli(tmp_path / "bare", tmp_path / "out", tmp_path / "cache")
    assert done.returncode == 2
    assert re.fullmatch(r"error: .*bare: no images found.*\n", done.stderr)
    assert done.stdout == ""
    assert not (tmp_path / "out").exists()


def test_nothing_to_label_is_exit_code_3_and_no_claim(tmp_path: Path) -> None:
    (tmp_path / "bad" / "cat").mkdir(parents=True)
    for name in ("a.jpg", "b.png"):
        (tmp_path / "bad" / "cat" / name).write_bytes(b"")
    done = run_cli(tmp_path / "bad", tmp_path / "out", tmp_path / "cache")
    assert done.returncode == 3, done.stderr
    assert "Traceback" not in done.stderr
    assert "nothing was labelled" in done.stdout
    assert "0 labelled, 0 empty, 2 failed" in done.stdout
    assert not re.search(r"\bdone\b", done.stdout + done.stderr)
    totals = json.loads((tmp_path / "out" / "report.json").read_text(encoding="utf-8"))["totals"]
    assert (totals["labelled"], totals["failed"]) == (0, 2)


# ---- killed between two units of work


def stop_at(stage: str, done: int, error: BaseException) -> Callable[[int, int, str], None]:
    def progress(so_far: int, total: int, name: str) -> None:
        if stage_name(name) == stage and so_far >= done:
            raise error

    return progress


STAGES = ("features", "pseudo-labels", "training", "prediction", "refinement")


@pytest.mark.parametrize(
    ("stage", "error"),
    [*((stage, KeyboardInterrupt()) for stage in STAGES), ("training", Cancelled("stop"))],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_a_run_stopped_in_any_stage_is_taken_up(
    tmp_path: Path,
    images: Path,
    config: PipelineConfig,
    whole: dict[str, bytes],
    calls: Sequence[tuple[int, int, str]],
    stage: str,
    error: BaseException,
) -> None:
    assert {stage_name(report[2]) for report in calls} == set(STAGES)
    reports = [report for report in calls if stage_name(report[2]) == stage]
    # first with nothing of the stage done, then, on what that left, with some of it done
    for done in (reports[0][0], reports[0][1] // 2 + 1):
        with pytest.raises(type(error)):
            label_groups(images, tmp_path / "out", config, progress=stop_at(stage, done, error), train=True)
        assert not (tmp_path / "out" / "report.json").exists()
    label_groups(images, tmp_path / "out", config, train=True)
    assert_taken_up(tmp_path / "out", whole)


# ---- an input that kills the process it is in

FRAGILE = """
import json, os, sys
sys.path[:] = json.loads(sys.argv[1])
from umscosod import workers
from umscosod.refine import crf
refine = crf.refine_mask
crf.refine_mask = lambda job, how: os.abort() if job.picture_HW3[:9, :9].mean() > 250 else refine(job, how)
workers.main()
"""


def test_an_image_that_kills_densecrf_is_named_and_the_rest_is_what_it_would_be(
    tmp_path: Path, images: Path, config: PipelineConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Workers of this toy die of a white corner."""
    shutil.copytree(images, tmp_path / "image")
    bad = sorted((tmp_path / "image").glob("*/*"))[1]
    with Image.open(bad) as opened:
        picture = opened.convert("RGB")
    picture.paste((255, 255, 255), (0, 0, 20, 20))
    picture.save(bad, quality=95)
    config = replace(config, refine=replace(config.refine, crf=replace(config.refine.crf, workers=2)))
    sound = label_groups(tmp_path / "image", tmp_path / "sound", config, train=False)
    monkeypatch.setattr("umscosod.workers._PROGRAM", FRAGILE)
    report = label_groups(tmp_path / "image", tmp_path / "out", config, train=False)
    hit = [row for row in report.rows if "DenseCRF died on it (SIGABRT)" in row.reason]
    assert [(row.image_id, row.status) for row in hit] == [(f"{bad.parent.name}/{bad.name}", Status.LABELLED)]
    assert len(report.rows) == len(sound.rows) == 4
    others = [f"masks/{row.output}" for row in report.rows if row not in hit]
    assert all((tmp_path / "out" / name).read_bytes() == (tmp_path / "sound" / name).read_bytes() for name in others)


# ---- killed at any write


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs a system that can fork")
@pytest.mark.parametrize(("mode", "count"), [("fresh", 8), ("overwrite", 6)])
def test_a_run_killed_before_any_write_is_taken_up(
    tmp_path: Path, images: Path, config: PipelineConfig, whole: dict[str, bytes], mode: str, count: int
) -> None:
    driver = [ROOT / "tests" / "integration" / "kill_at_write.py", images, tmp_path, config.features.cache_dir]
    line = [sys.executable, *map(str, [*driver, count, mode])]
    done = subprocess.run(line, capture_output=True, text=True, cwd=ROOT, env=ENVIRONMENT, check=False)
    assert done.returncode == 0, done.stderr
    drill = json.loads(done.stdout)
    assert_same(read_results(Path(drill["whole"])), whole)
    assert len(drill["runs"]) == count
    for run in drill["runs"]:
        assert (run["killed"], run["resumed"]) == (-signal.SIGKILL, 0), f"{run}\n{done.stderr}"
        assert_taken_up(Path(run["out"]), whole)


@pytest.mark.parametrize(
    ("stage", "written"), [("features", "cache/**/*.safetensors"), ("training", "out/run/metrics.*")]
)
def test_a_command_killed_from_outside_is_taken_up_by_the_same_command(
    tmp_path: Path, images: Path, whole: dict[str, bytes], stage: str, written: str
) -> None:
    out, cache = tmp_path / "out", tmp_path / "cache"
    with subprocess.Popen(
        command(images, out, cache), stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, env=ENVIRONMENT
    ) as process:
        assert process.stderr is not None
        reached = any(line.startswith(f"{stage}:") for line in process.stderr)
        wait_until(lambda: any(tmp_path.glob(written)))
        process.kill()
    assert reached
    assert process.returncode == -signal.SIGKILL
    again = run_cli(images, out, cache)
    assert again.returncode == 0, again.stderr
    assert_taken_up(out, whole)


# ---- the disk


@pytest.mark.parametrize(
    "pattern", ["step-00000004", "manifest.jsonl", "masks/*/*.png", "whitening.json", "index.html"]
)
def test_a_full_disk_is_an_error_that_names_the_file_and_the_run_is_taken_up(
    tmp_path: Path,
    images: Path,
    config: PipelineConfig,
    whole: dict[str, bytes],
    monkeypatch: pytest.MonkeyPatch,
    pattern: str,
) -> None:
    replace = Path.replace

    def fail(self: Path, target: Path) -> Path:
        if target.match(pattern):
            raise OSError(28, "No space left on device")
        return replace(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", fail)
        with pytest.raises(UmscosodError, match=r"cannot write .*No space left on device.*disk"):
            label_groups(images, tmp_path / "out", config, train=True)
    label_groups(images, tmp_path / "out", config, train=True)
    assert_taken_up(tmp_path / "out", whole)
