"""The output folder: whose it is, of which settings and images, and what a killed run leaves."""

from __future__ import annotations

import json
import os
import shutil
import uuid
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.jobs import assert_same, read_results, read_tree
from tests.unit.pipeline.conftest import Finished
from umscosod.config import PipelineConfig
from umscosod.data.masks import write_png_atomic
from umscosod.errors import DataError, OtherResultsError
from umscosod.pipeline import label_groups
from umscosod.pipeline.job import GUARDED, JobFolder
from umscosod.types import ImageGroup, ImageRef, Labelled, Status

GROUP = ImageGroup(name="g", images=(ImageRef(id="g/a.jpg", path=Path("g/a.jpg"), output="g/a.png"),))
ROW = Labelled(image_id="g/a.jpg", group="g", output="g/a.png", status=Status.LABELLED, confidence=0.5, threshold=0.4)


def leftover(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f".{uuid.uuid4().hex}.tmp"
    path.write_bytes(b"half")
    return path


def test_other_settings_are_refused_and_what_differs_is_named(
    images: Path, config: PipelineConfig, finished: Finished
) -> None:
    before = read_tree(finished.out)
    other = replace(config, keep="network", seed=4, refine=replace(config.refine, th0=0.4))
    with pytest.raises(DataError) as caught:
        label_groups(images, finished.out, other)
    message = str(caught.value)
    assert "config.refine.th0: was 0.5, now 0.4" in message
    assert "config.seed: was 123, now 4" in message
    assert "--overwrite" in message
    assert message.count("was") == 2
    assert_same(read_tree(finished.out), before)


def test_a_folder_from_before_groups_per_step_is_taken_up_where_a_step_is_one_group(tmp_path: Path) -> None:
    JobFolder(tmp_path, {"config": {"train": {"epochs": 2}}}, overwrite=False)
    with pytest.raises(OtherResultsError, match=r"train\.groups_per_step: was 1, now 2"):
        JobFolder(tmp_path, {"config": {"train": {"epochs": 2, "groups_per_step": 2}}}, overwrite=False)
    JobFolder(tmp_path, {"config": {"train": {"epochs": 2, "groups_per_step": 1}}}, overwrite=False)


def test_a_job_that_another_process_writes_is_only_looked_at(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"job\.json of the first process cannot be found .*see the same folders"):
        JobFolder(tmp_path, {"n": 1}, overwrite=False, writes=False)
    assert list(tmp_path.iterdir()) == []
    first = JobFolder(tmp_path, {"n": 1}, overwrite=False)
    first.bind_images([], {})
    before = read_tree(tmp_path)
    (tmp_path / "run" / f".{'0' * 32}.tmp").touch()  # the first may be writing it now
    other = JobFolder(tmp_path, {"n": 1}, overwrite=False, writes=False)
    other.bind_images([], {})
    other.bind_labels("0")
    (tmp_path / "run" / f".{'0' * 32}.tmp").unlink()  # was left alone
    assert read_tree(tmp_path) == before
    with pytest.raises(OtherResultsError, match="other images"):
        other.bind_images([ImageGroup(name="a", images=(ImageRef(id="1", path=Path("1"), output="1.png"),))], {})
    with pytest.raises(OtherResultsError, match="n: was 1, now 2"):
        JobFolder(tmp_path, {"n": 2}, overwrite=False, writes=False)


def test_a_folder_of_an_earlier_version_is_taken_up_where_what_is_no_setting_any_more_had_todays_value(
    tmp_path: Path,
) -> None:
    now = {"config": {"seed": 1, "refine": {"th0": 0.5}, "features": {"size_px": 224}}, "mode": "label"}
    old = json.loads(json.dumps(now))
    old["config"]["refine"] |= {"connectivity": 8}
    old["config"]["features"]["embedded"] = {"slope": 2.0, "gradient_scales": [0.125, 0.3125, 0.625]}
    old["config"]["baselines"] = {"tokencut": {"tau": 0.2}}
    JobFolder(tmp_path / "same", old, overwrite=False)
    JobFolder(tmp_path / "same", now, overwrite=False)
    old["config"]["features"]["embedded"]["slope"] = 3.0
    JobFolder(tmp_path / "other", old, overwrite=False)
    with pytest.raises(DataError, match=r"\n  config.features.embedded.slope: was 3.0, now 2.0\nChoose another"):
        JobFolder(tmp_path / "other", now, overwrite=False)


def test_overwrite_leaves_what_a_fresh_folder_would_hold(
    tmp_path: Path, images: Path, config: PipelineConfig, finished: Finished
) -> None:
    out = tmp_path / "out"
    label_groups(images, out, replace(config, seed=4), train=False)
    (out / "notes.txt").write_text("mine", encoding="utf-8")
    label_groups(images, out, replace(config, keep="network"), overwrite=True)
    results = read_results(out)
    assert results.pop("notes.txt") == b"mine"
    assert_same(results, read_results(finished.out))


def test_other_images_are_refused(tmp_path: Path, images: Path, config: PipelineConfig, finished: Finished) -> None:
    shutil.copytree(images, tmp_path / "image")
    shutil.copytree(finished.out, tmp_path / "out")
    (tmp_path / "image" / "coffee" / "coffee_00.jpg").unlink()
    with pytest.raises(DataError, match=r"other images:\n.*added, removed, renamed or changed"):
        label_groups(tmp_path / "image", tmp_path / "out", replace(config, keep="network"))
    report = label_groups(tmp_path / "image", tmp_path / "out", replace(config, keep="network"), overwrite=True)
    assert len(report.rows) == 5
    assert not (tmp_path / "out" / "masks" / "coffee" / "coffee_00.png").exists()


@pytest.mark.parametrize("name", GUARDED)
@pytest.mark.parametrize("overwrite", [False, True])
def test_somebody_elses_files_are_never_touched(tmp_path: Path, name: str, overwrite: bool) -> None:
    theirs = tmp_path / name if "." in name else tmp_path / name / "cat" / "7.png"
    theirs.parent.mkdir(parents=True, exist_ok=True)
    theirs.write_bytes(b"precious")
    with pytest.raises(DataError, match=f"holds {name}, which this program did not write"):
        JobFolder(tmp_path, {}, overwrite=overwrite)
    assert read_tree(tmp_path) == {theirs.relative_to(tmp_path).as_posix(): b"precious"}


def test_other_files_and_empty_folders_are_no_obstacle(tmp_path: Path) -> None:
    (tmp_path / "masks").mkdir()
    (tmp_path / "readme.txt").write_text("mine", encoding="utf-8")
    JobFolder(tmp_path, {}, overwrite=False)
    assert (tmp_path / "run" / "job.json").is_file()


def test_a_file_in_the_place_of_the_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("a file", encoding="utf-8")
    with pytest.raises(DataError, match=r"cannot write .*out"):
        JobFolder(tmp_path / "out", {}, overwrite=False)


@pytest.mark.parametrize(
    "content",
    [
        b"{",
        b"",
        b"[]",
        b"{}",
        b"5",
        b"\x00\xff\xfe" * 9,
        b'{"settings": 3, "bound": {}}',
        b'{"settings": {}}',
        b'{"settings": {}, "bound": {"images": 5}}',
        b'{"settings": {"n": ' + b"9" * 5000 + b'}, "bound": {}}',
        b"[" * 100_000,
        b'{"settings": ' + b'{"a":' * 100_000,
        None,
    ],
    ids=lambda content: "folder" if content is None else f"{content[:28]!r}",
)
@pytest.mark.parametrize("overwrite", [False, True])
def test_a_damaged_job_file_is_refused_with_an_advice_that_works(
    tmp_path: Path, content: bytes | None, overwrite: bool
) -> None:
    out = tmp_path / "out"
    (out / "masks").mkdir(parents=True)
    (out / "masks" / "a.png").write_bytes(b"old")
    (out / "run").mkdir()
    if content is None:
        (out / "run" / "job.json").mkdir()
    else:
        (out / "run" / "job.json").write_bytes(content)
    with pytest.raises(DataError, match=r"job\.json.*; choose another --out, or move .*out away") as caught:
        JobFolder(out, {}, overwrite=overwrite)
    assert "\n" not in str(caught.value)
    out.rename(tmp_path / "away")
    JobFolder(out, {}, overwrite=overwrite)


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("link", ["masks", "maps", "run", "pseudo"])
def test_a_folder_of_results_that_is_a_link_is_refused_before_any_work(
    tmp_path: Path, link: str, overwrite: bool
) -> None:
    out = tmp_path / "out"
    JobFolder(out, {"n": 1}, overwrite=False)
    (tmp_path / "elsewhere").mkdir()
    if (out / link).exists():
        (out / link).rename(tmp_path / "moved")
    (out / link).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(DataError, match=f"out/{link} is a link; remove it or choose another --out"):
        JobFolder(out, {"n": 2}, overwrite=overwrite)


def test_overwrite_removes_what_the_job_wrote_and_nothing_through_a_link(tmp_path: Path) -> None:
    out, elsewhere = tmp_path / "out", tmp_path / "elsewhere"
    (elsewhere / "g").mkdir(parents=True)
    for name in ("a.png", "g/a.png"):
        (elsewhere / name).write_bytes(b"theirs")
    JobFolder(out, {"n": 1}, overwrite=False).bind_images([GROUP], {})
    (out / "masks").mkdir()
    (out / "masks" / "g").symlink_to(elsewhere)
    (out / "maps" / "g").mkdir(parents=True)
    (out / "maps" / "g" / "a.png").write_bytes(b"ours")
    (out / "maps" / "notes.txt").write_bytes(b"theirs")
    JobFolder(out, {"n": 2}, overwrite=True)
    assert sorted(read_tree(elsewhere).values()) == [b"theirs"] * 2
    assert not (out / "maps" / "g").exists()
    assert (out / "maps" / "notes.txt").read_bytes() == b"theirs"


def test_overwrite_clears_an_output_folder_that_is_itself_a_link(tmp_path: Path) -> None:
    out = tmp_path / "out"
    (tmp_path / "disk").mkdir()
    out.symlink_to(tmp_path / "disk")
    JobFolder(out, {"n": 1}, overwrite=False).bind_images([GROUP], {})
    (out / "masks" / "g").mkdir(parents=True)
    (out / "masks" / "g" / "a.png").write_bytes(b"ours")
    JobFolder(out, {"n": 2}, overwrite=True)
    assert not (out / "masks").exists()
    assert out.is_symlink()


def test_overwrite_takes_a_link_in_the_place_of_a_mask_and_leaves_its_target(tmp_path: Path) -> None:
    out, target = tmp_path / "out", tmp_path / "a.png"
    target.write_bytes(b"theirs")
    JobFolder(out, {"n": 1}, overwrite=False).bind_images([GROUP], {})
    (out / "masks" / "g").mkdir(parents=True)
    (out / "masks" / "g" / "a.png").symlink_to(target)
    JobFolder(out, {"n": 2}, overwrite=True)
    assert not (out / "masks").exists()
    assert target.read_bytes() == b"theirs"


@pytest.mark.parametrize("content", [None, "{", "5", "{}", '["../../a.png"]', "[[[["])
def test_results_whose_list_is_gone_or_damaged_are_not_cleared(tmp_path: Path, content: str | None) -> None:
    out = tmp_path / "out"
    JobFolder(out, {"n": 1}, overwrite=False).bind_images([GROUP], {})
    (out / "masks").mkdir()
    (out / "masks" / "b.png").write_bytes(b"whose?")
    listed = out / "run" / "outputs.json"
    if content is None:
        listed.unlink()
    else:
        listed.write_text(content, encoding="utf-8")
    if content == "{}":
        JobFolder(out, {"n": 2}, overwrite=True)  # lists nothing
    else:
        with pytest.raises(DataError, match=r"cannot clear .*choose another --out, or move .* away"):
            JobFolder(out, {"n": 2}, overwrite=True)
    assert (out / "masks" / "b.png").read_bytes() == b"whose?"


def test_a_run_killed_before_its_first_file_is_resumed(tmp_path: Path) -> None:
    leftover(tmp_path / "run")
    JobFolder(tmp_path, {}, overwrite=False)
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["job.json"]


def test_a_run_killed_while_it_cleared_clears_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    job = JobFolder(tmp_path, {"n": 1}, overwrite=False)
    job.bind_images([GROUP], {})
    job.save_rows(GROUP, [ROW])
    for name in ("masks/g/a.png", "maps/g/a.png", "thumbs/mask/g/a.jpg"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_bytes(b"old")
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", lambda path: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            JobFolder(tmp_path, {"n": 2}, overwrite=True)
    assert (tmp_path / "run" / "groups").exists()
    job = JobFolder(tmp_path, {"n": 2}, overwrite=False)
    assert job.load_rows(GROUP) is None
    assert [*read_tree(tmp_path)] == ["run/job.json"]


def test_what_cannot_be_cleared_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (JobFolder(tmp_path, {}, overwrite=False).run / "groups").mkdir()

    def refuse(path: Path) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(shutil, "rmtree", refuse)
    with pytest.raises(DataError, match=r"cannot clear .*Permission denied.*groups"):
        JobFolder(tmp_path, {}, overwrite=True)


def test_leftovers_go_and_files_of_others_stay(tmp_path: Path) -> None:
    JobFolder(tmp_path, {}, overwrite=False)
    ours = [leftover(tmp_path / folder) for folder in (".", "masks/g", "maps", "pseudo/g", "thumbs/mask", "run/groups")]
    theirs = [leftover(tmp_path / "elsewhere"), tmp_path / "masks" / "g" / "draft.tmp", tmp_path / ".mine.tmp"]
    for path in theirs[1:]:
        path.write_bytes(b"mine")
    JobFolder(tmp_path, {}, overwrite=False)
    assert not [path for path in ours if path.exists()]
    assert all(path.exists() for path in theirs)


@pytest.fixture
def done(tmp_path: Path) -> tuple[JobFolder, ImageGroup]:
    """A job whose one group, of an image of 6 x 4 pixels, is finished."""
    photo = tmp_path / "a.jpg"
    Image.new("RGB", (6, 4)).save(photo)
    group = replace(GROUP, images=(replace(GROUP.images[0], path=photo),))
    job = JobFolder(tmp_path / "out", {}, overwrite=False)
    assert job.load_rows(group) is None
    job.save_rows(group, [ROW])
    assert job.load_rows(group) is None
    for tree in ("masks", "maps"):
        write_png_atomic(job.out / tree / "g" / "a.png", np.zeros((4, 6), np.uint8))
    return job, group


def test_rows_count_with_their_files(done: tuple[JobFolder, ImageGroup]) -> None:
    job, group = done
    assert job.load_rows(group) == [ROW]


@pytest.mark.parametrize("tree", ["masks", "maps"])
@pytest.mark.parametrize("kind", ["missing", "empty", "torn", "other size", "no picture", "folder", "pipe"])
def test_a_group_with_a_mask_or_map_that_is_not_whole_is_done_again(
    done: tuple[JobFolder, ImageGroup], tree: str, kind: str
) -> None:
    job, group = done
    path = job.out / tree / "g" / "a.png"
    content = path.read_bytes()
    path.unlink()
    match kind:
        case "empty":
            path.write_bytes(b"")
        case "torn":
            path.write_bytes(content[:-3])
        case "other size":
            write_png_atomic(path, np.zeros((6, 4), np.uint8))
        case "no picture":
            path.write_bytes(b"x" * 200)
        case "folder":
            path.mkdir()
        case "pipe":
            os.mkfifo(path)
    assert job.load_rows(group) is None


@pytest.mark.parametrize(
    "content",
    [
        *(b"[]", b"{}", b"5", b"null", b"[5]", b"[null]", b'["a"]', b"[[]]", b"[{}]", b"", b"\x00\xff", b"[" * 100_000),
        *(json.dumps([asdict(ROW) | wrong]).encode() for wrong in (
            {"output": 5}, {"output": "../a.png"}, {"image_id": "g/b.jpg"}, {"group": "h"}, {"confidence": "1"},
            {"confidence": float("nan")}, {"status": "done"}, {"more": 1},
        )),
        json.dumps([asdict(ROW), asdict(ROW)]).encode(),
    ],
    ids=lambda content: content[-40:].decode("latin-1"),
)  # fmt: skip
def test_a_group_whose_rows_are_damaged_is_done_again(done: tuple[JobFolder, ImageGroup], content: bytes) -> None:
    job, group = done
    (file,) = (job.run / "groups").iterdir()
    file.write_bytes(content)
    assert job.load_rows(group) is None


def test_stored_maps_of_another_shape_are_made_again(tmp_path: Path) -> None:
    job = JobFolder(tmp_path, {}, overwrite=False)
    for shape in ((2, 4, 4), (0, 4, 4), (4, 4), (1,)):
        job.save_maps(GROUP, np.zeros(shape, np.float32))
        assert job.load_maps(GROUP) is None


def test_a_torn_mask_of_a_finished_job_is_made_again(
    tmp_path: Path, images: Path, config: PipelineConfig, finished: Finished
) -> None:
    out = tmp_path / "out"
    shutil.copytree(finished.out, out)
    (out / "masks" / "coffee" / "coffee_00.png").write_bytes(b"")
    (out / "maps" / "shuttle" / "shuttle_01.png").write_bytes(b"")
    label_groups(images, out, replace(config, keep="network"))
    assert_same(read_results(out), read_results(finished.out))


def test_maps_come_back_until_the_job_is_finished(tmp_path: Path) -> None:
    job = JobFolder(tmp_path, {}, overwrite=False)
    maps_NHW = np.random.default_rng(0).random((1, 4, 4)).astype(np.float16).astype(np.float32)
    job.save_maps(GROUP, maps_NHW)
    loaded = job.load_maps(GROUP)
    assert loaded is not None
    assert loaded.dtype == np.float32
    assert np.array_equal(loaded, maps_NHW)
    (file,) = (tmp_path / "run" / "maps").iterdir()
    file.write_bytes(file.read_bytes()[:-1])
    assert job.load_maps(GROUP) is None
    job.finish()
    assert not (tmp_path / "run" / "maps").exists()


def test_images_are_bound_by_name_order_group_and_content(tmp_path: Path) -> None:
    JobFolder(tmp_path, {}, overwrite=False).bind_images([GROUP], {"g/a.jpg": "1"})
    JobFolder(tmp_path, {}, overwrite=False).bind_images([GROUP], {"g/a.jpg": "1"})
    renamed = ImageGroup(name="h", images=GROUP.images)
    for groups, sha256 in (([GROUP], {"g/a.jpg": "2"}), ([GROUP], {}), ([renamed], {"g/a.jpg": "1"}), ([], {})):
        with pytest.raises(DataError, match="other images"):
            JobFolder(tmp_path, {}, overwrite=False).bind_images(groups, sha256)
    JobFolder(tmp_path, {}, overwrite=True).bind_images([renamed], {"g/a.jpg": "1"})
    assert json.loads((tmp_path / "run" / "job.json").read_text(encoding="utf-8"))["is_clearing"] is False


def test_a_second_job_is_turned_away_while_the_first_is_at_work(
    tmp_path: Path, images: Path, config: PipelineConfig, finished: Finished
) -> None:
    out, turned_away = tmp_path / "out", []

    def start_another(done: int, total: int, stage: str) -> None:
        if done == 1 and stage in ("features", "refinement"):
            with pytest.raises(DataError, match="is being worked on by another process") as caught:
                label_groups(images, out, replace(config, keep="network"), overwrite=True)
            turned_away.append(caught)

    label_groups(images, out, replace(config, keep="network"), progress=start_another)
    assert len(turned_away) == 2
    assert_same(read_results(out), read_results(finished.out))
