"""Which samples are run and which are left alone: decided before anything is computed."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from umscosod.errors import DataError
from umscosod.integrations.fiftyone.runs.jobs import (
    SampleRow,
    choose_rows,
    flat_images,
    group_names_by_folder,
    read_rows,
)


def row(id_: str, group: str = "cat", *, done: bool = False, human: bool = False) -> SampleRow:
    return SampleRow(id=id_, path=Path(f"/data/{group}/{id_}.jpg"), group=group, is_done=done, is_human=human)


class FakeView:
    """Columns by name, as `SampleCollection.values` gives them."""

    def __init__(self, **columns: list[Any]) -> None:
        self.columns = {name.replace("__", "."): values for name, values in columns.items()}

    def values(self, names: str | list[str]) -> Any:
        return self.columns[names] if isinstance(names, str) else tuple(self.columns[name] for name in names)

    def has_field(self, name: str) -> bool:
        return name in self.columns


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


def test_rows_carry_group_and_what_became_of_them() -> None:
    view = FakeView(
        id=["a", "b", "c", "d"],
        filepath=["/d/cat/1.jpg", "/d/dog/2.jpg", "/d/dog/3.jpg", "/d/dog/4.jpg"],
        cosal_status=[None, "labelled", "failed", "labelled"],
        cosal_review=[None, "sent back", None, "rejected"],
        cosal__provenance=[None, "model", None, "human"],
    )
    rows = read_rows(view, None, "cosal")
    assert [one.group for one in rows] == ["cat", "dog", "dog", "dog"]
    assert [one.is_done for one in rows] == [False, False, True, True]  # what was sent back is to be done again
    assert [one.is_human for one in rows] == [False, False, False, True]


@pytest.mark.parametrize(
    ("review", "kept"), [("accepted", True), ("rejected", True), ("sent back", False), (None, False)]
)
def test_no_run_undoes_what_a_person_decided(review: str | None, kept: bool) -> None:
    view = FakeView(id=["a"], filepath=["/d/1.jpg"], cosal_status=["labelled"], cosal_review=[review])
    _, writes = choose_rows(read_rows(view, None, "cosal"), overwrite=True)
    assert bool(writes) is not kept


def test_fields_that_do_not_exist_yet_mean_nothing_is_done() -> None:
    (only,) = read_rows(FakeView(id=["a"], filepath=["/d/cat/1.jpg"]), None, "cosal")
    assert only == SampleRow(id="a", path=Path("/d/cat/1.jpg"), group="cat")


def test_an_empty_view_is_an_error() -> None:
    with pytest.raises(DataError, match="no samples"):
        read_rows(FakeView(id=[], filepath=[]), None, "cosal")


def test_groups_that_are_done_are_left_out_and_others_run_whole() -> None:
    rows = [row("1", "old", done=True), row("2", "old", done=True)]
    rows += [row("3", "new", done=True), row("4", "new"), row("5", "")]
    chosen, writes = choose_rows(rows, overwrite=False)
    assert [one.id for one in chosen] == ["3", "4"]
    assert writes == {"4"}
    chosen, writes = choose_rows(rows, overwrite=True)
    assert [one.id for one in chosen] == ["1", "2", "3", "4"]
    assert writes == {"1", "2", "3", "4"}


@pytest.mark.parametrize("overwrite", [True, False])
def test_a_persons_label_is_never_written_but_helps_its_group(overwrite: bool) -> None:
    chosen, writes = choose_rows([row("1", human=True), row("2")], overwrite=overwrite)
    assert [one.id for one in chosen] == ["1", "2"]
    assert writes == {"2"}
    assert choose_rows([row("1", human=True)], overwrite=overwrite) == ([], frozenset())


def test_samples_without_any_group_are_an_error() -> None:
    with pytest.raises(DataError, match="none of the 2 samples has a value"):
        choose_rows([row("1", ""), row("2", "")], overwrite=True)


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
