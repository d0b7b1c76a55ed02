"""Whole jobs over files with names that only a file system could love: each is labelled, or is one failed row."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from tests.unit.pipeline.conftest import Finished
from umscosod.config import PipelineConfig
from umscosod.data.groups import groups_from_csv, groups_from_folder
from umscosod.data.naming import assign_outputs
from umscosod.evaluation import evaluate
from umscosod.export.formats import FORMATS, export_results
from umscosod.pipeline import label_groups, make_pseudo_labels, predict, refine_maps, train
from umscosod.types import Status

NOT_UTF8 = os.fsdecode(b"caf\xe9")


def _allows(folder: Path, name: str) -> bool:
    try:
        (folder / name).touch()
        (folder / name).unlink()
    except OSError:
        return False
    return True


@pytest.fixture
def hostile(tmp_path: Path, images: Path) -> Path:
    """A group, named in Latin-1, of three images; so is one of its files, and two have the longest names there are."""
    if not _allows(tmp_path, f"{NOT_UTF8}.jpg"):
        pytest.skip("this file system takes names in UTF-8 only")
    root = tmp_path / "images"
    names = (f"{NOT_UTF8}.jpg", "l" * 251 + ".jpg", "l" * 251 + ".bmp", "\u732b" * 83 + ".jpg", "two\nlines\x1b[2J.jpg")
    sources = sorted((images / "coffee").iterdir())
    (root / NOT_UTF8).mkdir(parents=True)
    for number, name in enumerate(names):
        shutil.copy(sources[number % len(sources)], root / NOT_UTF8 / name)
    return root


def test_every_verb_copes_with_names_of_any_bytes_and_length(
    tmp_path: Path, hostile: Path, config: PipelineConfig
) -> None:
    out, pseudo = tmp_path / "out", tmp_path / "pseudo"
    groups = groups_from_folder(hostile)
    report = label_groups(hostile, out, config, train=True)
    assert {row.status for row in report.rows} <= {Status.LABELLED, Status.EMPTY}
    assert len(report.rows) == 5
    assert all((out / "masks" / image.output).is_file() for group in groups for image in group.images)
    assert label_groups(hostile, out, config, train=True).rows == report.rows  # resumed
    label_groups(hostile, out, config, train=False, overwrite=True)
    assert make_pseudo_labels(hostile, pseudo, config).exit_code == 0
    trained = train(hostile, pseudo, tmp_path / "trained", config)
    assert predict(hostile, tmp_path / "predicted", trained.checkpoint, config).exit_code == 0
    assert refine_maps(hostile, out, tmp_path / "refined", config).exit_code == 0
    assert len(evaluate(out / "masks", out / "masks").images) == 5
    for form in FORMATS:
        exported = export_results(out, tmp_path / form, form, images=groups, image_root=hostile)
        assert (exported.n_images, exported.skipped) == (5, ())


def test_files_that_cannot_be_opened_are_failed_rows(
    tmp_path: Path, images: Path, config: PipelineConfig, finished: Finished
) -> None:
    root = tmp_path / "images"
    shutil.copytree(images / "coffee", root / "coffee")
    (root / "coffee" / "loop.jpg").symlink_to("loop.jpg")
    (root / "coffee" / "gone.jpg").symlink_to("nowhere.jpg")
    os.mkfifo(root / "coffee" / "fifo.jpg")
    (root / "coffee" / "null.jpg").symlink_to("/dev/null")
    (root / "coffee" / "zero.png").symlink_to("/dev/zero")
    (root / "coffee" / "folder.jpg").mkdir()
    shutil.copy(images / "coffee" / "coffee_00.jpg", root / "coffee" / "folder.jpg" / "1.jpg")
    (root / "list.csv").write_text(
        "coffee/folder.jpg,coffee\ncoffee/coffee_00.jpg,coffee\n" + "x" * 5000 + ".jpg,coffee\n", encoding="utf-8"
    )
    report = label_groups(root, tmp_path / "out", config, train=False)
    failed = {Path(row.image_id).name: row.reason for row in report.rows if row.status is Status.FAILED}
    assert failed.keys() == {"loop.jpg", "gone.jpg", "fifo.jpg", "null.jpg", "zero.png"}
    assert all("\n" not in reason and str(root) in reason for reason in failed.values())
    report = label_groups(groups_from_csv(root / "list.csv"), tmp_path / "listed", config, train=False)
    assert [row.status for row in report.rows].count(Status.FAILED) == 2


@pytest.mark.parametrize("letter", ["l", "\u732b", os.fsdecode(b"\xe9"), "\U0001f408"])
def test_outputs_fit_the_file_system_and_differ(tmp_path: Path, letter: str) -> None:
    count = 251 // len(os.fsencode(letter))
    names = [f"g/{letter * count}{suffix}" for suffix in (".jpg", ".bmp", ".JPG", ".tif")]
    names += [f"g/{'x' * 250}", f"g/{'x' * 251}", f"g/{'x' * 252}"]  # from a list: no suffix to give way
    outputs = assign_outputs(names)
    assert len(set(outputs.values())) == len(names)
    assert all(len(os.fsencode(Path(output).name)) <= 255 for output in outputs.values())
    assert assign_outputs(reversed(names)) == outputs
    assert outputs["g/" + "x" * 250] == f"g/{'x' * 250}.png"
