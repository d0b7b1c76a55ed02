"""Which image an entry is of: what users have is found, and nothing is ever taken for something else."""

from __future__ import annotations

from pathlib import Path

import pytest

from umscosod.pseudo.coco_proposer import Matching, match_entries
from umscosod.types import ImageRef


def match(images: list[str], entries: list[str], *, bare: bool = False, root: str = "/data/photos") -> Matching:
    """Match images by id below a root; the key of an entry is its name."""
    refs = [ImageRef(id=name, path=Path(root) / name, output=f"{i}.png") for i, name in enumerate(images)]
    return match_entries(refs, {name: name for name in entries}, has_numbers=bare)


@pytest.mark.parametrize(
    ("image", "entry"),
    [
        ("cat/1.jpg", "cat/1.jpg"),
        ("cat/1.jpg", "./cat\\1.jpg"),
        ("cat/1.jpg", "1.jpg"),
        ("cat/1.jpg", "1.png"),
        ("cat/1.jpg", "cat/1.png"),
        ("cat/1.jpg", "1"),
        ("cat/1.JPG", "1.jpg"),
        ("cat/my.photo.jpg", "my.photo"),
        ("cat/1.jpg", "/home/me/results/cat/1.jpg"),
        ("cat/1.jpg", "photos/cat/1.png"),
        ("1.jpg", "photos/1.jpg"),
        ("1.jpg", "1.jpg"),
        ("cat/000000000139.jpg", "train2017/000000000139.jpg"),
        ("cat/000000000139.jpg", "coco/train2017/000000000139.jpg"),
        ("cat/COCO_train2014_000000000139.jpg", "train2014/COCO_train2014_000000000139.png"),
        ("train2017/000000000139.jpg", "000000000139.png"),
    ],
)
def test_one_image_is_found_by_what_users_write(image: str, entry: str) -> None:
    assert match([image, "cat/other.jpg"], [entry, "another.jpg"]).found == {image: entry}


@pytest.mark.parametrize(
    ("image", "entry"),
    [
        ("b/01.jpg", "a/01.jpg"),
        ("b/01.jpg", "a/01.png"),
        ("01.jpg", "a/01.jpg"),
        ("b/01.jpg", "b/a/01.jpg"),
        ("b/a/01.jpg", "c/a/01.jpg"),
        ("cat/000139.jpg", "train2017/000139.jpg"),
        ("cat/000000000139.jpg", "dog/000000000139.jpg"),
        ("b/01.jpg", "x01.jpg"),
        ("b/01.jpg", ".jpg"),
        ("b/01.jpg", "/"),
        ("b/01.jpg", "139"),
        ("b/x.jpg", "139"),
        ("b/139_02.jpg", "139"),
    ],
)
@pytest.mark.parametrize("bare", [False, True])
def test_an_entry_of_another_image_is_never_taken(image: str, entry: str, bare: bool) -> None:
    matching = match([image], [entry], bare=bare)
    assert matching.found == {}
    assert list(matching.missed) == [image]
    assert matching.unused == (entry,)


def test_the_image_next_door_gets_nothing() -> None:
    matching = match(["b/01.jpg", "a/01.jpg"], ["a/01.jpg"])
    assert matching.found == {"a/01.jpg": "a/01.jpg"}
    assert matching.missed == {"b/01.jpg": "its namesake 'a/01.jpg' lies in another folder"}


@pytest.mark.parametrize("entry", ["01.jpg", "01.png", "01", "1"])
def test_a_name_that_two_images_have_is_nobodys(entry: str) -> None:
    matching = match(["a/01.jpg", "b/01.jpg"], [entry], bare=True)
    assert matching.found == {}
    assert all("give relative paths" in reason for reason in matching.missed.values())


def test_a_name_that_two_entries_have_is_nobodys() -> None:
    refs = [ImageRef(id="c/01.jpg", path=Path("/d/c/01.jpg"), output="0.png")]
    for names in ({"1": "c/01.jpg", "2": "c/01.jpg"}, {"1": "01.jpg", "2": "01.jpg"}, {"1": "01.png", "2": "01.bmp"}):
        matching = match_entries(refs, names, has_numbers=False)
        assert matching.found == {}
        cure = "leave one" if len(set(names.values())) == 1 else "give relative paths"
        assert cure in matching.missed["c/01.jpg"]


def test_folders_tell_files_of_one_name_apart_whatever_the_root_and_the_suffix() -> None:
    images = ["a/01.jpg", "b/01.jpg"]
    for entries in (["b/01.png", "a/01.png"], ["r/s/b/01.jpg", "r/s/a/01.jpg"]):
        found = match(images, entries).found
        assert {image: entry.split("/")[-2] for image, entry in found.items()} == {"a/01.jpg": "a", "b/01.jpg": "b"}


@pytest.mark.parametrize("image", ["cat/COCO_train2014_000000000139.jpg", "cat/000000000139.jpg", "cat/139.jpg"])
def test_a_number_is_found_in_a_bare_list_only(image: str) -> None:
    others = ["cat/COCO_train2014_000000000140.jpg", "cat/none.jpg"]
    matching = match([image, *others], ["139", "7"], bare=True)
    assert matching.found == {image: "139"}
    assert matching.unused == ("7",)
    if image != "cat/139.jpg":  # whose stem it is
        assert match([image, *others], ["139"]).found == {}


def test_a_number_that_two_images_hold_is_nobodys() -> None:
    assert match(["a/x_0139.jpg", "a/y_139.jpg"], ["139"], bare=True).found == {}
    assert match(["a/x_139.jpg"], ["139", "0139"], bare=True).found == {}


def test_an_entry_serves_one_image() -> None:
    matching = match(["a/139.jpg", "a/COCO_139.jpg"], ["139"], bare=True)
    assert matching.found == {"a/139.jpg": "139"}
    assert list(matching.missed) == ["a/COCO_139.jpg"]


def test_an_image_in_two_groups_is_one_file() -> None:
    path = Path("/data/train2017/01.jpg")
    images = [ImageRef(id=f"{group}/01.jpg", path=path, output=f"{group}.png") for group in ("cat", "dog")]
    for entry in ("01.jpg", "train2017/01.jpg", "01", "dog/01.jpg"):
        assert match_entries(images, {"7": entry}, has_numbers=True).found == {"cat/01.jpg": "7", "dog/01.jpg": "7"}


def test_images_whose_ids_are_no_names_are_found_by_their_paths() -> None:
    images = [ImageRef(id=f"65f{name}", path=Path(f"/d/{name}/01.jpg"), output=f"{name}.png") for name in "ab"]
    assert match_entries(images, {"1": "a/01.jpg", "2": "b/01.jpg"}, has_numbers=False).found == {
        "65fa": "1",
        "65fb": "2",
    }
    assert match_entries(images, {"1": "65fb"}, has_numbers=False).found == {"65fb": "1"}
