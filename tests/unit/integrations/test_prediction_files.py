"""Predictions find their samples by group and name; what is not clear is told, never guessed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from umscosod.errors import DataError
from umscosod.export.png import write_mask
from umscosod.export.report import write_report
from umscosod.integrations.fiftyone.exchange.predictions import PredictionFolder, looks_like_masks
from umscosod.integrations.fiftyone.runs.jobs import SampleRow
from umscosod.types import Labelled, Status


def write(root: Path, *names: str, value: int = 255) -> Path:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.array([[0, value]], np.uint8)).save(path)
    return root


def wanted(*images: str, group: str | None = None) -> list[SampleRow]:
    """One sample for each ``GROUP/NAME.jpg`` below /d/image; its id is that name."""
    return [SampleRow(id=name, path=Path("/d/image", name), group=group or str(Path(name).parent)) for name in images]


def names(folder: PredictionFolder, samples: list[SampleRow]) -> dict[str, str]:
    return {sample: prediction.name for sample, prediction in folder.match(samples).found.items()}


def test_group_and_name_without_suffix(tmp_path: Path) -> None:
    folder = PredictionFolder(write(tmp_path, "cat/1.png", "dog/1.png", "dog/2.jpg.png"), by_folder=False)
    matching = folder.match(wanted("cat/1.jpg", "dog/1.jpg", "dog/2.jpg", "dog/3.jpg"))
    assert {key: one.name for key, one in matching.found.items()} == {
        "cat/1.jpg": "cat/1.png",
        "dog/1.jpg": "dog/1.png",
        "dog/2.jpg": "dog/2.jpg.png",
    }
    assert matching.problems == {"dog/3.jpg": "3.jpg: no prediction dog/3"}
    assert matching.unused == ()


def test_two_files_for_a_sample_and_two_samples_for_a_file(tmp_path: Path) -> None:
    folder = PredictionFolder(write(tmp_path, "cat/1.png", "cat/1.bmp", "cat/7.png", "extra/9.png"), by_folder=True)
    matching = folder.match(wanted("cat/1.jpg", "cat/7.jpg", "cat/7.bmp"))
    assert matching.found == {}
    assert "several predictions fit (cat/1.bmp, cat/1.png)" in matching.problems["cat/1.jpg"]
    assert (
        matching.problems["cat/7.jpg"]
        == matching.problems["cat/7.bmp"]
        == ("cat/7.png fits 2 samples; sort it into groups")
    )
    assert "extra/9.png" in matching.unused


def test_files_at_the_top_come_last(tmp_path: Path) -> None:
    folder = PredictionFolder(write(tmp_path, "1.png", "2.png", "cat/2.png"), by_folder=True)
    assert names(folder, wanted("cat/1.jpg", "cat/2.jpg")) == {"cat/1.jpg": "1.png", "cat/2.jpg": "cat/2.png"}
    assert names(folder, wanted("cat/1.jpg", "dog/1.jpg")) == {}  # whose is it?


def test_folders_are_found_by_their_last_parts_but_groups_of_a_field_only_by_their_name(tmp_path: Path) -> None:
    root = write(tmp_path, "cat/1.png")
    samples = wanted("cat/1.jpg", group="photos/cat")
    assert names(PredictionFolder(root, by_folder=True), samples) == {"cat/1.jpg": "cat/1.png"}
    assert names(PredictionFolder(root, by_folder=False), samples) == {}
    assert names(PredictionFolder(root, by_folder=True), wanted("tomcat/1.jpg")) == {}


def test_a_sample_without_a_group_is_told(tmp_path: Path) -> None:
    folder = PredictionFolder(write(tmp_path, "1.png"), by_folder=False)
    sample = SampleRow(id="a", path=Path("/d/1.jpg"), group="")
    assert folder.match([sample]).problems == {"a": "1.jpg: it has no group"}


def test_an_output_folder_is_read_by_its_report(tmp_path: Path) -> None:
    rows = [
        Labelled(image_id="cat/7.jpg", group="cat", output="cat/7.jpg.png", status=Status.LABELLED, confidence=0.5),
        Labelled(image_id="cat/7.bmp", group="cat", output="cat/7.bmp.png", status=Status.LABELLED),
        Labelled(image_id="cat/8.jpg", group="cat", output="cat/8.png", status=Status.FAILED, reason="no image"),
        Labelled(image_id="64a0", group="dog", output="dog/5.png", status=Status.LABELLED),
    ]
    write_report(tmp_path / "report.json", rows, {})
    for row in rows:
        write_mask(tmp_path / "masks" / row.output, np.ones((1, 1), bool))
    folder = PredictionFolder(tmp_path, by_folder=True)
    found = folder.match(wanted("cat/7.jpg", "cat/7.bmp", "cat/8.jpg", "dog/5.jpg")).found
    assert found["cat/7.jpg"].mask == tmp_path / "masks/cat/7.jpg.png"
    assert found["cat/7.bmp"].mask == tmp_path / "masks/cat/7.bmp.png"
    assert found["cat/8.jpg"].mask is None
    assert found["dog/5.jpg"].row == rows[3]
    assert found["cat/7.jpg"].map is None  # there is no folder of maps
    by_id = folder.match([SampleRow(id="64a0", path=Path("/elsewhere/x.jpg"), group="moved")])
    assert by_id.found["64a0"].row == rows[3]


def test_a_report_that_leads_out_of_its_folder_is_refused(tmp_path: Path) -> None:
    home, secret = tmp_path / "out", tmp_path / "secret"
    row = Labelled(image_id="cat/7.jpg", group="cat", output="cat/7.png", status=Status.LABELLED)
    write_mask(secret / "7.png", np.ones((1, 1), bool))
    for output in ("../../secret/7.png", "../../..", str(secret / "7.png")):
        write_report(home / "report.json", [replace(row, output=output)], {})
        with pytest.raises(DataError, match="must be a plain relative name"):
            PredictionFolder(home, by_folder=True)
    write_report(home / "report.json", [row], {})
    for tree in ("masks", "maps"):
        (home / tree).mkdir(exist_ok=True)
        (home / tree / "cat").symlink_to(secret)
        with pytest.raises(DataError, match="a link on the way leads out of the output folder"):
            PredictionFolder(home, by_folder=True)
        (home / tree / "cat").unlink()
    assert PredictionFolder(home, by_folder=True).names == ["cat/7.jpg"]


def test_folders_without_predictions(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is no folder"):
        PredictionFolder(tmp_path / "none", by_folder=True)
    (tmp_path / "notes.txt").write_text("")
    with pytest.raises(DataError, match="no predictions in"):
        PredictionFolder(tmp_path, by_folder=True)


@pytest.mark.parametrize(("values", "expected"), [((255, 255), True), ((1, 1), True), ((255, 130), False)])
def test_masks_hold_two_values(tmp_path: Path, values: tuple[int, int], expected: bool) -> None:
    for number, value in enumerate(values):
        write(tmp_path, f"cat/{number}.png", value=value)
    folder = PredictionFolder(tmp_path, by_folder=True)
    assert looks_like_masks(folder.match(wanted("cat/0.jpg", "cat/1.jpg")).found) is expected
