"""The door for picture files: nothing but a picture is read, and no program is ever started."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.synthetic import tiny_collection
from umscosod.data.images import decode_image, open_picture, reading
from umscosod.data.masks import write_png_atomic
from umscosod.errors import DataError
from umscosod.export.report import write_report
from umscosod.types import Labelled, Status

ROOT = Path(__file__).resolve().parents[3]
POSTSCRIPT = b"""%!PS-Adobe-3.0 EPSF-3.0
%%BoundingBox: 0 0 96 96
%%EndComments
0 setgray 0 0 96 96 rectfill
showpage
%%EOF
"""
STARTS = ("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.fork", "os.forkpty")
OTHERS = ("git", "ldconfig", "uname")  # provenance of a run, and what other packages ask when they are imported
WATCH = f"""
import os, sys
started = []
def note(event, args):
    if event in {STARTS!r}:
        name = os.path.basename(os.fspath(args[0])) if args else event
        started.extend([] if name in {OTHERS!r} else [name])
sys.addaudithook(note)
try:
    exec(sys.argv[1], {{}})
except BaseException as error:
    print(type(error).__name__, error)
print("started", started)
"""


def watch(code: str) -> str:
    """Run code in a process of its own, and tell what it printed and which programs it started."""
    done = subprocess.run(
        [sys.executable, "-c", WATCH, code], cwd=ROOT, capture_output=True, text=True, check=False, timeout=300
    )
    assert "Traceback" not in done.stderr, done.stderr
    return done.stdout


def run_command(*words: object) -> str:
    return watch(f"from umscosod.cli import main; print('exit code', main({[str(word) for word in words]!r}))")


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """``image/coffee`` with three pictures, and ``gt/coffee`` with a PostScript file among the masks."""
    tiny_collection(tmp_path, groups=1, images=3, size=96)
    (tmp_path / "gt" / "coffee" / "coffee_01.png").write_bytes(POSTSCRIPT)
    return tmp_path


def test_pictures_are_opened_in_one_place_only() -> None:
    sources = [path for room in ("umscosod", "plugin", "zoo", "benchmarks") for path in (ROOT / room).rglob("*.py")]
    assert len(sources) > 100
    pattern = re.compile(r"\b(Image\.open|cv2\.imread|cv2\.VideoCapture|imageio|skimage\.io|torchvision\.io|iio\.)\b")
    found = [path.relative_to(ROOT).as_posix() for path in sources if pattern.search(path.read_text(encoding="utf-8"))]
    assert found == ["umscosod/data/images.py"]


def test_the_watch_sees_a_program_that_pillow_starts(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(POSTSCRIPT)
    assert "started ['gs" in watch(f"from PIL import Image; Image.open({str(tmp_path / 'a.png')!r}).load()")


def test_postscript_among_the_masks_of_an_evaluation_starts_nothing(photos: Path) -> None:
    said = run_command("evaluate", photos / "gt", photos / "gt")
    assert said.endswith("started []\n")
    assert "exit code 0" not in said


def test_postscript_among_hand_made_labels_starts_nothing(photos: Path) -> None:
    said = run_command(
        *("train", photos / "image", "--pseudo", photos / "gt", "--out", photos / "out", "--preset", "smoke"),
        *("--config.features.cache-dir", photos / "cache"),
    )
    assert said.endswith("started []\n")
    assert "exit code 1" in said


def test_postscript_among_stored_maps_and_images_starts_nothing(photos: Path) -> None:
    (photos / "image" / "coffee" / "coffee_02.jpg").write_bytes(POSTSCRIPT)
    said = run_command(
        *("refine", photos / "image", "--maps", photos / "gt", "--out", photos / "out", "--preset", "smoke"),
        *("--config.features.cache-dir", photos / "cache"),
    )
    assert said.endswith("started []\n")
    assert "exit code 1" in said


@pytest.mark.parametrize("form", ["yolo", "cvat"])
def test_postscript_among_results_starts_nothing_in_an_export(photos: Path, form: str) -> None:
    names = [f"coffee/coffee_0{number}" for number in range(3)]
    rows = [
        Labelled(image_id=f"{name}.jpg", group="coffee", output=f"{name}.png", status=Status.LABELLED) for name in names
    ]
    write_report(photos / "out" / "report.json", rows, {})
    (photos / "gt").rename(photos / "out" / "masks")
    said = run_command("export", photos / "out", "--format", form, "--to", photos / "to", "--images", photos / "image")
    assert said.endswith("started []\n")
    assert "2 images with" in said
    assert "1 left out" in said


def test_postscript_as_a_mask_in_a_review_starts_nothing(photos: Path) -> None:
    mask = str(photos / "gt" / "coffee" / "coffee_01.png")
    said = watch(
        "from pathlib import Path\n"
        "from umscosod.errors import DataError\n"
        "from umscosod.integrations.fiftyone.review.decide import check_size, read_mask_file\n"
        f"mask = Path({mask!r})\n"
        "for look in (read_mask_file, lambda path: check_size(path, path)):\n"
        "    try:\n"
        "        look(mask)\n"
        "    except DataError as error:\n"
        "        print(error)\n"
    )
    assert said.endswith("started []\n")
    assert said.count("coffee_01.png: ") == 2


def test_only_files_that_are_pictures_are_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "loop.png").symlink_to("loop.png")
    (tmp_path / "empty.png").write_bytes(b"")
    for name, reason in {
        "pipe.png": "is not a regular file",
        ".": "is not a regular file",
        "loop.png": "cannot be found",
        "none.png": "cannot be found",
        "empty.png": "the file is empty",
        "a\0b.png": "cannot be found",
    }.items():
        with pytest.raises(DataError, match=reason):
            open_picture(tmp_path / name)
    write_png_atomic(tmp_path / "good.png", np.zeros((2, 3), np.uint8))
    with open_picture(tmp_path / "good.png") as image:
        assert image.size == (3, 2)


@pytest.mark.parametrize("form", ["PNG", "JPEG", "BMP", "TIFF", "WEBP", "GIF", "PPM"])
def test_every_usual_format_is_read_whatever_its_suffix(tmp_path: Path, form: str) -> None:
    Image.new("L", (3, 2)).save(tmp_path / "a.bin", form)
    with open_picture(tmp_path / "a.bin") as image:
        assert image.size == (3, 2)


def test_a_jpeg_of_thousands_of_scans_is_refused_before_it_is_decoded(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / "sound.jpg", progressive=True)
    content = (tmp_path / "sound.jpg").read_bytes()
    with open_picture(tmp_path / "sound.jpg") as image:
        image.load()
    scans = content[content.index(b"\xff\xda") : -2]
    (tmp_path / "bomb.jpg").write_bytes(content[:-2] + scans * 50 + content[-2:])
    with pytest.raises(OSError, match=r"a JPEG of \d{3} scans, more than 100, takes too long to decode"):
        open_picture(tmp_path / "bomb.jpg")
    with pytest.raises(DataError, match=r"bomb\.jpg: the image is damaged .*a JPEG of \d{3} scans"):
        decode_image(tmp_path / "bomb.jpg")


def test_pillows_own_log_stays_off_the_screen(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    Image.new("RGB", (9, 9)).save(tmp_path / "a.tif")
    content = (tmp_path / "a.tif").read_bytes()
    tag = b"\x15\x01\x03\x00\x01\x00\x00\x00"  # samples per pixel: 3, made 60,000
    (tmp_path / "b.tif").write_bytes(content.replace(tag + b"\x03\x00", tag + b"\x60\xea"))
    assert (tmp_path / "b.tif").read_bytes() != content
    with pytest.raises(DataError, match=r"b\.tif: is not an image"):
        decode_image(tmp_path / "b.tif")
    assert caplog.messages == []


def test_what_the_system_says_is_told_without_the_path_again() -> None:
    message = r"^cannot read the mask a\.png: Permission denied; replace it$"
    with pytest.raises(DataError, match=message), reading("mask", Path("a.png"), "replace it"):
        raise PermissionError(13, "Permission denied", "a.png")
