"""Steering a finished job: what changes and what does not, undo to the byte, kills, folders of examples."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.jobs import assert_same, read_tree, select
from tests.unit.pipeline.conftest import Finished
from umscosod import label_groups, predict, relabel, undo_relabel
from umscosod.cli import main
from umscosod.config import PipelineConfig
from umscosod.data.images import read_upright_size
from umscosod.data.masks import read_mask
from umscosod.errors import DataError
from umscosod.export.report import read_report
from umscosod.pipeline import steer
from umscosod.steering.examples import Example, Point
from umscosod.types import BoolArray

TREES = ("masks", "maps")


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory, images: Path, config: PipelineConfig) -> Path:
    out = tmp_path_factory.mktemp("steered") / "out"
    label_groups(images, out, config, train=False)
    return out


@pytest.fixture
def out(done: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(done, tmp_path / "out"))


def corner(image: Path) -> BoolArray:
    """A mask that no machine would find."""
    mask_HW = np.zeros(read_upright_size(image)[0], bool)
    mask_HW[:20, :20] = True
    return mask_HW


def files(out: Path) -> dict[str, bytes]:
    return select(read_tree(out), *TREES)


def first_of(images: Path, number: int = 0) -> tuple[str, str]:
    """Id and output of a picture."""
    group = sorted(path for path in images.iterdir() if path.is_dir())[0]
    image = sorted(group.iterdir())[number]
    return f"{group.name}/{image.name}", f"{group.name}/{image.stem}.png"


def test_an_example_is_kept_as_given_and_its_group_changes(out: Path, images: Path) -> None:
    name, output = first_of(images)
    before = files(out)
    shown = corner(images / name)
    report = relabel(out, {name: shown})
    assert np.array_equal(read_mask(out / "masks" / output), shown)
    changed = {key for key, content in files(out).items() if content != before[key]}
    group = output.split("/")[0]
    assert changed
    assert {key.split("/")[1] for key in changed} == {group}
    assert {key.split("/", 1)[1] for key in changed if key.startswith("masks/")} == {
        row.output for row in report.rows if row.image_id in report.changed
    }
    rows = {row.image_id: row for row in read_report(out / "report.json")}
    assert (rows[name].source, rows[name].confidence) == ("human", 1.0)
    assert {rows[row.image_id].source for row in report.rows if row.image_id != name} == {steer.STEERED}
    assert rows[name] in report.rows


def test_equal_examples_do_nothing_and_undo_restores_every_byte(out: Path, images: Path) -> None:
    name, _ = first_of(images)
    other, _ = first_of(images, 1)
    before, rows = files(out), read_report(out / "report.json")
    first = relabel(out, {name: corner(images / name)})
    steered = files(out)
    again = relabel(out, {name: corner(images / name)})
    assert (again.changed, again.rows) == ((), first.rows)
    relabel(out, {name: corner(images / name), other: Example(points=(Point(x=0.5, y=0.5),))})
    undo_relabel(out)
    assert_same(files(out), steered)
    undo_relabel(out)
    assert_same(files(out), before)
    assert read_report(out / "report.json") == rows
    with pytest.raises(DataError, match="no relabelling to take back"):
        undo_relabel(out)


def test_a_group_without_examples_gets_its_first_masks_back(out: Path, images: Path) -> None:
    name, output = first_of(images)
    before = files(out)
    relabel(out, {name: corner(images / name)})
    relabel(out, {}, groups=[output.split("/")[0]])
    assert_same(files(out), before)


def test_each_call_starts_from_the_first_masks(out: Path, images: Path, tmp_path: Path) -> None:
    name, _ = first_of(images)
    other, _ = first_of(images, 1)
    twin = shutil.copytree(out, tmp_path / "twin")
    relabel(out, {name: corner(images / name)})
    relabel(out, {other: corner(images / other)})
    relabel(twin, {other: corner(images / other)})
    assert_same(files(out), files(twin))


def test_the_job_is_answered_with_the_steered_masks(out: Path, images: Path, config: PipelineConfig) -> None:
    name, _ = first_of(images)
    relabel(out, {name: corner(images / name)})
    steered = files(out)
    report = label_groups(images, out, config, train=False)
    assert_same(files(out), steered)
    assert {row.image_id: row.source for row in report.rows}[name] == "human"


@pytest.mark.parametrize("stage", ["begin", "write", "publish"])
def test_a_killed_relabelling_is_taken_back_and_done_again(
    out: Path, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stage: str
) -> None:
    name, _ = first_of(images)
    whole = shutil.copytree(out, tmp_path / "whole")
    relabel(whole, {name: corner(images / name)})

    def kill(*args: object, **kwargs: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        if stage == "begin":
            patch.setattr(Path, "rename", kill)
        elif stage == "write":
            patch.setattr(steer.JobFolder, "save_rows", kill)
        else:
            patch.setattr(steer, "update_report", kill)
        with pytest.raises(KeyboardInterrupt):
            relabel(out, {name: corner(images / name)})
    relabel(out, {name: corner(images / name)})
    assert_same(files(out), files(whole))
    assert (out / "report.json").read_bytes() == (whole / "report.json").read_bytes()
    undo_relabel(out)
    undo_relabel(whole)
    assert_same(files(out), files(whole))


def test_what_a_person_made_before_stays(images: Path, config: PipelineConfig, tmp_path: Path) -> None:
    name, _ = first_of(images)
    other, own = first_of(images, 1)
    out = tmp_path / "out"
    label_groups(images, out, config, train=False)
    Image.fromarray(corner(images / other).astype(np.uint8) * 255).save(out / "pseudo" / own)
    label_groups(images, out, config, train=False, overwrite=True)
    kept = (out / "masks" / own).read_bytes()
    relabel(out, {name: corner(images / name)})
    assert (out / "masks" / own).read_bytes() == kept
    rows = {row.image_id: row.source for row in read_report(out / "report.json")}
    assert rows[other] == rows[name] == "human"


def test_predictions_are_steered_too(finished: Finished, images: Path, config: PipelineConfig, tmp_path: Path) -> None:
    name, output = first_of(images)
    predict(images, tmp_path / "out", finished.out, config)
    relabel(tmp_path / "out", {name: corner(images / name)})
    assert np.array_equal(read_mask(tmp_path / "out" / "masks" / output), corner(images / name))


def test_a_folder_of_examples_by_the_command_line(out: Path, images: Path, tmp_path: Path) -> None:
    name, output = first_of(images)
    _, second = first_of(images, 1)
    folder = tmp_path / "examples"
    (folder / output).parent.mkdir(parents=True)
    Image.fromarray(corner(images / name).astype(np.uint8)).save(folder / output)  # 0 and 1
    (folder / second).with_suffix(".json").write_text(json.dumps({"points": [[0.5, 0.5, True], [0, 0, False]]}))
    before = files(out)
    assert main(["steer", str(out), "--examples", str(folder)]) == 0
    assert np.array_equal(read_mask(out / "masks" / output), corner(images / name))
    assert main(["steer", str(out), "--undo"]) == 0
    assert_same(files(out), before)


def test_label_takes_examples(images: Path, config: PipelineConfig, tmp_path: Path, out: Path) -> None:
    name, _ = first_of(images)
    shown = {name: corner(images / name)}
    report = label_groups(images, tmp_path / "whole", config, train=False, examples=shown)
    relabel(out, shown)
    assert_same(files(tmp_path / "whole"), files(out))
    again = label_groups(images, tmp_path / "whole", config, train=False, examples=shown)
    assert again.rows == report.rows


def test_examples_for_all_reach_the_other_group(out: Path, images: Path) -> None:
    name, _ = first_of(images)
    report = relabel(out, {name: corner(images / name)}, examples_for="all")
    assert {row.group for row in report.rows} == {group.name for group in images.iterdir() if group.is_dir()}


@pytest.mark.parametrize(
    ("examples", "message"),
    [
        ({"no/such.jpg": np.zeros((4, 4), bool)}, "no image of this job"),
        ({"FIRST": np.zeros((4, 4), bool)}, "its image needs"),
        ({"FIRST": np.zeros((4, 4), np.uint8)}, "its image needs"),
    ],
)
def test_what_is_no_example_is_refused(out: Path, images: Path, examples: dict[str, BoolArray], message: str) -> None:
    named = {first_of(images)[0] if name == "FIRST" else name: mask for name, mask in examples.items()}
    before = files(out)
    with pytest.raises(DataError, match=message):
        relabel(out, named)
    assert_same(files(out), before)


def test_what_cannot_be_steered_says_why(out: Path, images: Path, tmp_path: Path) -> None:
    name, _ = first_of(images)
    with pytest.raises(DataError, match="there is no group 'x'"):
        relabel(out, {name: corner(images / name)}, groups=["x"])
    with pytest.raises(DataError, match="no folder of examples"):
        relabel(out, tmp_path / "nothing")
    (out / "run" / "collection.json").unlink()
    with pytest.raises(DataError, match="of an earlier version; label again with --overwrite"):
        relabel(out, {name: corner(images / name)})
    with pytest.raises(DataError, match="holds no result of this program"):
        relabel(tmp_path / "nowhere", {name: corner(images / name)})


def test_flags_of_steer(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["steer", str(out)]) == 2
    assert "give either --examples, or --undo" in capsys.readouterr().err
