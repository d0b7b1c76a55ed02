"""Groups from folders, lists, CSV files and rows."""

from __future__ import annotations

import logging
import random
from pathlib import Path

import pytest

from umscosod.data.groups import groups_from_csv, groups_from_folder, groups_from_list, groups_from_rows
from umscosod.errors import DataError
from umscosod.types import ImageGroup


def _touch(root: Path, *names: str) -> Path:
    """Finding groups opens no file: empty ones will do."""
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def _ids(groups: list[ImageGroup]) -> dict[str, list[str]]:
    return {group.name: [image.id for image in group.images] for group in groups}


def test_each_folder_is_a_group_in_natural_order(tmp_path: Path) -> None:
    names = ["cat/10.jpg", "cat/9.JPG", "Bus/b.Png", "Bus/A.webp", "cat/small/x.tiff", "cat/notes.txt"]
    random.Random(0).shuffle(names)
    groups = groups_from_folder(_touch(tmp_path, *names))
    assert _ids(groups) == {
        "Bus": ["Bus/A.webp", "Bus/b.Png"],
        "cat": ["cat/9.JPG", "cat/10.jpg"],
        "cat/small": ["cat/small/x.tiff"],
    }
    assert [group.name for group in groups] == ["Bus", "cat", "cat/small"]
    assert groups[1].images[0].path == tmp_path / "cat/9.JPG"
    assert groups[1].images[0].output == "cat/9.png"


def test_images_in_the_root_are_one_group(tmp_path: Path) -> None:
    root = _touch(tmp_path / "holiday", "2.jpg", "10.jpg", "holiday/x.jpg")
    groups = groups_from_folder(root)
    assert _ids(groups) == {"holiday": ["holiday/x.jpg"], "holiday (top)": ["2.jpg", "10.jpg"]}
    assert groups[1].images[0].output == "2.png"


def test_the_current_folder_has_a_name_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(_touch(tmp_path / "here", "1.jpg"))
    assert [group.name for group in groups_from_folder(".")] == ["here"]


def test_what_is_no_data_is_passed_over(tmp_path: Path) -> None:
    _touch(tmp_path, "a/1.jpg", "a/._1.jpg", "a/Thumbs.db", ".git/x.png", "__MACOSX/a/1.jpg", "@eaDir/1.jpg")
    assert _ids(groups_from_folder(tmp_path)) == {"a": ["a/1.jpg"]}


def test_output_folder_inside_the_input_is_left_out(tmp_path: Path) -> None:
    _touch(tmp_path, "a/1.jpg", "out/masks/a/1.png")
    assert _ids(groups_from_folder(tmp_path, exclude=[tmp_path / "a" / ".." / "out"])) == {"a": ["a/1.jpg"]}
    assert len(groups_from_folder(tmp_path / "a", exclude=[tmp_path])) == 1  # what holds the root has no effect


def test_results_of_an_earlier_run_are_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    _touch(tmp_path, "a/1.jpg", "old/masks/a/1.png", "old/report.json", "old/index.html")
    assert list(_ids(groups_from_folder(tmp_path))) == ["a"]
    assert "earlier run" in caplog.text


def test_group_of_one_and_non_ascii_names(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    composed, decomposed = "caf\u00e9", "cafe\u0301"
    _touch(tmp_path, f"{composed}/猫 1.jpg", f"{decomposed}/ü.jpg")
    names = {path.name for path in tmp_path.iterdir()}
    with caplog.at_level(logging.WARNING):
        groups = groups_from_folder(tmp_path)
    assert {group.name for group in groups} == names == {composed, decomposed}
    assert "one image only" in caplog.text


def test_one_stem_twice_keeps_the_extensions(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (group,) = groups_from_folder(_touch(tmp_path, "g/a.jpg", "g/a.png", "g/b.jpg"))
    assert [image.output for image in group.images] == ["g/a.jpg.png", "g/a.png.png", "g/b.png"]
    assert caplog.messages == [
        "folder g: 2 images share a stem; to keep their outputs apart these are named "
        "a.jpg -> a.jpg.png, a.png -> a.png.png"
    ]


def test_linked_folders_are_followed_once(tmp_path: Path) -> None:
    root = _touch(tmp_path / "root", "b/1.jpg")
    outside = _touch(tmp_path / "outside", "2.jpg")
    (root / "a").symlink_to(root / "b")  # sorts first, but the real folder wins
    (root / "b" / "loop").symlink_to(root)
    (root / "c").symlink_to(outside)
    (root / "d").symlink_to(outside)
    assert _ids(groups_from_folder(root)) == {"b": ["b/1.jpg"], "c": ["c/2.jpg"]}


def test_broken_link_is_kept_to_be_reported(tmp_path: Path) -> None:
    _touch(tmp_path, "a/1.jpg")
    (tmp_path / "a" / "2.jpg").symlink_to(tmp_path / "gone.jpg")
    assert _ids(groups_from_folder(tmp_path)) == {"a": ["a/1.jpg", "a/2.jpg"]}


def test_benchmark_layouts_give_their_images_only(tmp_path: Path) -> None:
    _touch(tmp_path, "A/image/cat/1.jpg", "A/gt/cat/1.png", "B/cat/1.jpg", "B/cat/GroundTruth/1.png")
    assert _ids(groups_from_folder(tmp_path / "A")) == {"cat": ["cat/1.jpg"]}
    assert _ids(groups_from_folder(tmp_path)) == {"A/cat": ["A/cat/1.jpg"], "B/cat": ["B/cat/1.jpg"]}


def test_a_group_may_be_called_masks(tmp_path: Path) -> None:
    _touch(tmp_path, "masks/venice.jpg", "hats/1.jpg")
    assert list(_ids(groups_from_folder(tmp_path))) == ["hats", "masks"]


def test_unusable_folders(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no images found.*\.jpg.*; not taken: 1 \.txt"):
        groups_from_folder(_touch(tmp_path, "a/readme.txt"))
    with pytest.raises(DataError, match="no such folder"):
        groups_from_folder(tmp_path / "none")
    with pytest.raises(DataError, match="is a file"):
        groups_from_folder(tmp_path / "a" / "readme.txt")


def test_names_with_a_backslash_are_left_out_and_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    root = _touch(tmp_path, "a/1.jpg", "a/x\\y.jpg", "a/\\.jpg", "b\\c/d/1.jpg")
    assert _ids(groups_from_folder(root)) == {"a": ["a/1.jpg"]}
    assert f"{root}: not taken: 3 with a backslash in the name: rename it" in caplog.messages


def test_a_folder_of_names_with_a_backslash_only_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no images found.*not taken: 1 with a backslash in the name: rename it"):
        groups_from_folder(_touch(tmp_path, "a/x\\y.jpg"))


def test_the_folder_that_is_given_may_have_a_backslash(tmp_path: Path) -> None:
    assert _ids(groups_from_folder(_touch(tmp_path / "x\\y", "1.jpg"))) == {"x_y": ["1.jpg"]}


def test_list(tmp_path: Path) -> None:
    pairs = [(tmp_path / "x/10.jpg", "cat"), (tmp_path / "x/9.jpg", "cat"), (tmp_path / "y/9.jpg", "cat")]
    groups = groups_from_list([*pairs, (str(tmp_path / "x/9.jpg"), "animal/all")])
    assert _ids(groups) == {"animal/all": ["animal/all/9.jpg"], "cat": ["cat/10.jpg", "cat/x/9.jpg", "cat/y/9.jpg"]}
    assert [image.output for image in groups[1].images] == ["cat/10.png", "cat/x/9.png", "cat/y/9.png"]
    assert groups[0].images[0].path == tmp_path / "x/9.jpg"


@pytest.mark.parametrize("group", ["../up", "/abs", "a/../../b", "a\\b", "nul\x00"])
def test_group_names_that_leave_the_output_folder_are_refused(group: str) -> None:
    with pytest.raises(DataError, match=r"item 1: .*must be a plain relative name"):
        groups_from_list([("x.jpg", group)])
    with pytest.raises(DataError, match="sample 7: "):
        groups_from_rows([("7", "x.jpg", group)])


def test_bad_items_are_named() -> None:
    with pytest.raises(DataError, match=r"item 1: the path is empty; item 3: b\.jpg has no group"):
        groups_from_list([("", "g"), ("a.jpg", "g"), ("b.jpg", " ")])
    with pytest.raises(DataError, match=r"item 2: .*already \(item 1\)"):
        groups_from_list([("a.jpg", "g"), ("./a.jpg", "g")])
    with pytest.raises(DataError, match="no rows"):
        groups_from_list([])
    with pytest.raises(DataError, match="and 3 more"):
        groups_from_list([("", "g")] * 8)
    with pytest.raises(DataError, match=r"'a/b/1\.jpg'"):
        groups_from_list([("/1.jpg", "a/b"), ("/b/1.jpg", "a"), ("/c/1.jpg", "a")])


def test_groups_that_nest_do_not_share_ids() -> None:
    groups = groups_from_list([("/d/1.jpg", "a/b"), ("/d/b/1.jpg", "a"), ("/d/c/1.jpg", "a")])
    ids = [image.id for group in groups for image in group.images]
    assert len(set(ids)) == 3


@pytest.mark.parametrize(
    "text",
    [
        "path,group\nx/1.jpg,cat\n\nx/2.jpg,dog\n",
        "x/1.jpg,cat\r\nx/2.jpg,dog\r\n",
        "\ufeffweight;Group;Path\n1;cat;x/1.jpg\n2;dog;x/2.jpg\n",
        "filepath\tgroup\nx/1.jpg\tcat\nx/2.jpg\tdog",
        '"x/1.jpg", cat/\nx/2.jpg,dog,extra\n',
    ],
    ids=["header", "no-header", "bom-semicolon-other-order", "tab", "quotes-spaces-extra"],
)
def test_csv(tmp_path: Path, text: str) -> None:
    path = tmp_path / "list.csv"
    path.write_bytes(text.encode())
    groups = groups_from_csv(path)
    assert _ids(groups) == {"cat": ["cat/1.jpg"], "dog": ["dog/2.jpg"]}
    assert groups[0].images[0].path == tmp_path / "x" / "1.jpg"


def test_csv_with_an_absolute_path(tmp_path: Path) -> None:
    path = tmp_path / "list.csv"
    path.write_text("/data/ü.jpg,g\n", encoding="utf-8")
    assert groups_from_csv(path)[0].images[0].path == Path("/data/ü.jpg")


def test_csv_rows_are_named_by_line(tmp_path: Path) -> None:
    path = tmp_path / "list.csv"
    path.write_text("path,group\n1.jpg,cat\n\n2.jpg\n,dog\n3.jpg,..\n", encoding="utf-8")
    with pytest.raises(
        DataError, match=r"line 4: .*2\.jpg has no group; line 5: the path is empty; line 6: "
    ) as caught:
        groups_from_csv(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"path,group\n", b"\xff\xfe\x00bad", None])
def test_unusable_csv(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "list.csv"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError, match=r"list\.csv"):
        groups_from_csv(path)


def test_rows_keep_their_ids() -> None:
    rows = [("65f0b", "/d/10.jpg", 3), ("65f0a", "/d/9.jpg", 3), ("65f0c", "/e/9.jpg", "cat"), ("z", "/e/9.jpg", "cat")]
    groups = groups_from_rows(rows)
    assert _ids(groups) == {"3": ["65f0a", "65f0b"], "cat": ["65f0c", "z"]}
    assert [image.output for image in groups[0].images] == ["3/9.png", "3/10.png"]
    outputs = [image.output for image in groups[1].images]  # two samples of one file
    assert len(set(outputs)) == 2
    assert all(output.startswith("cat/") for output in outputs)


def test_bad_rows_are_named() -> None:
    with pytest.raises(DataError, match=r"sample 5: /a\.jpg has no group"):
        groups_from_rows([("5", "/a.jpg", None)])
    with pytest.raises(DataError, match="id '5' occurs twice"):
        groups_from_rows([("5", "/a.jpg", "g"), ("5", "/b.jpg", "g")])
