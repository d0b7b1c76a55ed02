"""A heap of pictures comes apart into groups, as a list that the other commands read."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest

from umscosod.config import GroupingConfig, PipelineConfig
from umscosod.data.groups import groups_from_csv
from umscosod.errors import ConfigError, DataError
from umscosod.grouping.discover import discover_groups, write_groups_csv
from umscosod.types import ImageGroup, ImageRef


def kinds(group: ImageGroup) -> list[str]:
    return sorted({image.path.name.split("-")[0] for image in group.images})


def test_a_heap_comes_apart(heap: Path, quick: PipelineConfig) -> None:
    seen: list[tuple[int, int, str]] = []
    found = discover_groups(
        heap,
        n_groups=3,
        config=quick,
        progress=lambda *report: seen.append(report),
    )
    assert [group.name for group in found.groups] == ["group-01", "group-02", "group-03"]
    assert all(check.cohesion > 0.0 and not check.reason for check in found.checks)
    assert sorted(kinds(group) for group in found.groups) == [["blue"], ["green"], ["red"]]
    assert found.leftover == ()
    assert seen[-1][0] == seen[-1][1]
    assert {stage for _, _, stage in seen} == {"features", "embed"}


def test_twice_the_same_and_written_for_the_other_commands(heap: Path, quick: PipelineConfig) -> None:
    first, second = (discover_groups(heap, config=quick) for _ in range(2))
    assert first.groups == second.groups
    assert first.checks == second.checks
    path = write_groups_csv(first.groups, heap.parent / "groups.csv")
    assert path.read_text(encoding="utf-8").splitlines()[1].startswith("heap/")  # can be moved with the images
    read = groups_from_csv(path)
    assert [(group.name, {image.path for image in group.images}) for group in read] == [
        (group.name, {image.path for image in group.images}) for group in first.groups
    ]


def test_groups_that_are_given_play_no_part(heap: Path, quick: PipelineConfig) -> None:
    files = sorted(heap.iterdir())
    images = tuple(ImageRef(id=path.name, path=path, output=path.stem + ".png") for path in files)
    given = [ImageGroup(name="a", images=images[::2]), ImageGroup(name="b", images=images[1::2])]
    as_given = discover_groups(given, n_groups=3, config=quick)
    from_folder = discover_groups(heap, n_groups=3, config=quick)
    assert [{i.path for i in group.images} for group in as_given.groups] == [
        {i.path for i in group.images} for group in from_folder.groups
    ]


def test_a_damaged_file_is_named_and_left_out(
    heap: Path, quick: PipelineConfig, caplog: pytest.LogCaptureFixture
) -> None:
    (heap / "broken.jpg").write_bytes(b"no picture")
    with caplog.at_level(logging.WARNING):
        found = discover_groups(heap, n_groups=3, config=quick)
    assert list(found.failures) == ["broken.jpg"]
    assert "broken.jpg" in caplog.text
    assert all(image.id != "broken.jpg" for group in found.groups for image in group.images)


def test_a_flat_picture_says_nothing_and_stops_nothing(heap: Path, quick: PipelineConfig) -> None:
    from PIL import Image

    Image.new("RGB", (96, 96), (10, 200, 30)).save(heap / "flat.png")
    found = discover_groups(heap, n_groups=3, config=quick)
    assert all(np.isfinite(check.cohesion) for check in found.checks)


def test_nothing_to_read(tmp_path: Path, quick: PipelineConfig) -> None:
    (tmp_path / "a.jpg").write_bytes(b"no picture")
    with pytest.raises(DataError, match="none of the 1 images can be read"):
        discover_groups(tmp_path, config=quick)
    with pytest.raises(DataError, match="no images to group"):
        discover_groups([], config=quick)
    with pytest.raises(ConfigError, match=r"grouping\.min_size must be >= 1"):
        discover_groups(tmp_path, config=quick, grouping=GroupingConfig(min_size=0))


def test_line_ends_and_control_characters_in_names_come_back_from_a_list(tmp_path: Path) -> None:
    names = ["a\rb.jpg", "a\nb.jpg", "a\r\nb.jpg", "a\x1b\x07b.jpg", "plain.jpg"]
    images = tuple(ImageRef(id=name, path=tmp_path / name, output=f"{name}.png") for name in names)
    path = write_groups_csv([ImageGroup(name="g", images=images)], tmp_path / "groups.csv")
    (read,) = groups_from_csv(path)
    assert {image.path.name for image in read.images} == set(names)


def test_a_list_that_is_there_may_hold_corrections(tmp_path: Path) -> None:
    group = ImageGroup(
        name='odd "name", with comma', images=(ImageRef(id="a", path=tmp_path / "ä, b.jpg", output="a"),)
    )
    path = write_groups_csv([group], tmp_path / "groups.csv")
    with pytest.raises(DataError, match="corrections"):
        write_groups_csv([group], path)
    write_groups_csv([group], path, overwrite=True)
    (read,) = groups_from_csv(path)
    assert (read.name, read.images[0].path) == (group.name, tmp_path / "ä, b.jpg")
    bad = ImageGroup(name="g", images=(ImageRef(id="a", path=tmp_path / "\udcff.jpg", output="a"),))
    with pytest.raises(DataError, match="not valid UTF-8"):
        write_groups_csv([bad], tmp_path / "bad.csv")
    assert not (tmp_path / "bad.csv").exists()


@pytest.mark.parametrize(("n_groups", "complaint"), [(0, "at least 1"), (10**12, "images make no")])
def test_a_number_of_groups_that_cannot_be_is_refused_before_anything_is_encoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, n_groups: int, complaint: str
) -> None:
    monkeypatch.setattr("umscosod.grouping.discover.encoded_collection", lambda *_, **__: pytest.fail("was encoded"))
    images = tuple(ImageRef(id=f"{i}.jpg", path=tmp_path / f"{i}.jpg", output=f"{i}.png") for i in range(9))
    with pytest.raises(ConfigError, match=complaint):
        discover_groups([ImageGroup(name="all", images=images)], n_groups=n_groups)
