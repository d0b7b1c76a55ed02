"""Which samples are run and which are left alone: decided before anything is computed."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from umscosod.errors import DataError
from umscosod.integrations.fiftyone.rows import (
    SampleRow,
    choose_rows,
    flat_images,
    group_names_by_folder,
    read_rows,
    refuse_to_replace_files,
)
from umscosod.types import ImageGroup, ImageRef


def row(id_: str, group: str = "cat", label_path: str | None = None) -> SampleRow:
    return SampleRow(
        id=id_,
        path=Path(f"/data/{group}/{id_}.jpg"),
        group=group,
        is_labelled=label_path is not None,
        label_path=label_path or "",
    )


class FakeView:
    """Two columns and one label field, as `SampleCollection.values` gives them."""

    def __init__(self, paths: dict[str, str], labels: dict[str, str | None] | None = None) -> None:
        self.paths, self.labels = paths, labels

    def values(self, names: list[str]) -> tuple[list[Any], list[Any]]:
        if names == ["id", "filepath"]:
            return list(self.paths), list(self.paths.values())
        assert self.labels is not None
        return list(self.labels), list(self.labels.values())

    def has_sample_field(self, name: str) -> bool:
        return self.labels is not None

    def exists(self, name: str) -> FakeView:
        return self


@pytest.mark.parametrize(
    ("paths", "names"),
    [
        ([], []),
        (["/d/cat/1.jpg"], ["cat"]),
        (["/d/cat/1.jpg", "/d/dog/1.jpg"], ["cat", "dog"]),
        (["/d/pets/1.jpg", "/d/pets/dog/1.jpg"], ["pets", "pets/dog"]),
        (["/d/a/x/1.jpg", "/d/b/x/1.jpg"], ["a/x", "b/x"]),
    ],
)
def test_folder_names_are_short_and_distinct(paths: list[str], names: list[str]) -> None:
    assert list(group_names_by_folder(map(Path, paths)).values()) == names


def test_rows_carry_group_and_present_label() -> None:
    view = FakeView({"a": "/d/cat/1.jpg", "b": "/d/dog/2.jpg"}, labels={"b": "/out/2.png"})
    assert read_rows(view, None, "cosal") == [
        SampleRow(id="a", path=Path("/d/cat/1.jpg"), group="cat"),
        SampleRow(id="b", path=Path("/d/dog/2.jpg"), group="dog", is_labelled=True, label_path="/out/2.png"),
    ]


def test_a_label_kept_in_the_database_has_no_file() -> None:
    (only,) = read_rows(FakeView({"a": "/d/cat/1.jpg"}, labels={"a": None}), None, "cosal")
    assert (only.is_labelled, only.label_path) == (True, "")


def test_an_empty_view_is_an_error() -> None:
    with pytest.raises(DataError, match="no samples"):
        read_rows(FakeView({}), None, "cosal")


def test_groups_that_are_done_are_left_out_and_others_run_whole() -> None:
    rows = [row("1", "done", "/a"), row("2", "done", "/b"), row("3", "part", "/c"), row("4", "part"), row("5", "")]
    assert [kept.id for kept in choose_rows(rows, overwrite=False)] == ["3", "4"]
    assert [kept.id for kept in choose_rows(rows, overwrite=True)] == ["1", "2", "3", "4"]


def test_nothing_left_to_label_is_an_error() -> None:
    with pytest.raises(DataError, match="all 1 samples have a label"):
        choose_rows([row("1", label_path="/a")], overwrite=False)
    with pytest.raises(DataError, match="none of the 2 samples has a value"):
        choose_rows([row("1", ""), row("2", "")], overwrite=True)


def test_a_file_of_a_kept_label_is_never_written_anew(tmp_path: Path) -> None:
    image = ImageRef(id="1", path=Path("/data/cat/1.jpg"), output="cat/1.png")
    groups = [ImageGroup(name="cat", images=(image,))]
    mask = tmp_path / "masks" / "cat" / "1.png"
    with pytest.raises(DataError, match="choose another output folder"):
        refuse_to_replace_files([row("1", label_path=str(mask)), row("2")], groups, tmp_path)
    refuse_to_replace_files([row("1", label_path="/elsewhere/1.png"), row("2")], groups, tmp_path)


@pytest.mark.parametrize(
    ("view", "message"),
    [
        (SimpleNamespace(_is_generated=True), "generated samples"),
        (SimpleNamespace(_is_generated=False, _is_dynamic_groups=False, media_type="group"), "select_group_slices"),
        (SimpleNamespace(_is_generated=False, _is_dynamic_groups=False, media_type="video"), "'video'"),
    ],
)
def test_views_that_are_no_plain_images_are_refused(view: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        flat_images(view)
