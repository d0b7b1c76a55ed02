"""Walking folders: what is taken, what is named, and what must not hang or overflow."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from umscosod.data import folders
from umscosod.data.benchmarks import open_benchmark
from umscosod.data.folders import iter_images, refuse_images_in
from umscosod.data.groups import groups_from_folder
from umscosod.data.images import readable_suffixes
from umscosod.errors import DataError


def touch(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def found(root: Path) -> list[str]:
    return [image.name for image in iter_images(root)]


@pytest.fixture
def nest() -> Iterator[Callable[[Path, int], None]]:
    """Make folders in folders, one level at a time: a path of them all may be too long for one call.

    Taken away again level by level, as `shutil.rmtree`, which pytest would use, is recursive.
    """
    roots = []

    def make(root: Path, levels: int) -> None:
        roots.append(root)
        here = os.open(root, os.O_RDONLY)
        for _ in range(levels):
            os.mkdir("d", dir_fd=here)
            below = os.open("d", os.O_RDONLY, dir_fd=here)
            os.close(here)
            here = below
        os.close(os.open("x.jpg", os.O_CREAT | os.O_WRONLY, dir_fd=here))
        os.close(here)

    yield make
    for root in roots:
        while (root / "d" / "d").is_dir():
            (root / "d" / "d").rename(root / "below")
            (root / "d").rmdir()
            (root / "below").rename(root / "d")


def test_what_is_not_taken_is_named_once_by_kind_and_count(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folders, "readable_suffixes", lambda: readable_suffixes() - {".heic", ".avif"})
    touch(tmp_path, *(f"g/{number}.HEIC" for number in range(3)), "g/a.mp4", "h/b.mp4", "h/notes.txt", "h/README")
    touch(tmp_path, "g/1.jpg", "g/2.jpg", "h/x.avif", "g/.hidden", "g/Thumbs.db", "h/desktop.ini")
    groups_from_folder(tmp_path)
    (message,) = [message for message in caplog.messages if "not taken" in message]
    assert message.startswith(f"{tmp_path}: not taken: 3 .heic (install pillow-heif to read them), 2 .mp4, ")
    for words in ("1 .txt", "1 without an extension", "1 .avif (this installation of Pillow cannot read them)"):
        assert words in message
    assert "thumbs" not in message.lower()
    assert "ini" not in message


def test_heic_is_taken_where_it_can_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folders, "readable_suffixes", lambda: readable_suffixes() | {".heic"})
    assert found(touch(tmp_path, "g/1.heic")) == ["g/1.heic"]


def test_groups_beside_a_benchmark_layout_are_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    touch(tmp_path, "images/cat/1.jpg", "masks/cat/1.png", "dogs/1.jpg", "loose.jpg")
    assert found(tmp_path) == ["cat/1.jpg"]
    assert "not what lies beside them: dogs, loose.jpg; move into images what belongs to it" in caplog.text


def test_links_in_a_circle_and_links_to_nothing_are_files_that_cannot_be_opened(tmp_path: Path) -> None:
    touch(tmp_path, "g/1.jpg")
    (tmp_path / "g" / "loop.jpg").symlink_to("loop.jpg")
    (tmp_path / "g" / "gone.jpg").symlink_to("nowhere.jpg")
    (tmp_path / "g" / "loop").symlink_to("loop")
    assert found(tmp_path) == ["g/1.jpg", "g/gone.jpg", "g/loop.jpg"]


def test_a_folder_named_like_an_image_is_a_folder(tmp_path: Path) -> None:
    assert found(touch(tmp_path, "g/a.jpg/1.jpg", "g/b.jpg")) == ["g/b.jpg", "g/a.jpg/1.jpg"]


def test_folders_that_link_in_a_circle_are_walked_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    root = touch(tmp_path / "root", "a/1.jpg", "b/2.jpg")
    touch(tmp_path, "not asked for/3.jpg")
    for folder, other in (("a", "b"), ("b", "a")):
        for number in range(4):
            (root / folder / f"to {number}").symlink_to(root / other)
    (root / "up").symlink_to("..")
    (root / "everything").symlink_to("/")
    assert found(root) == ["a/1.jpg", "b/2.jpg"]
    assert caplog.text.count("which holds the folder that is searched; not followed") == 2


def test_a_thousand_nested_folders_are_bounded_by_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, nest: Callable[[Path, int], None]
) -> None:
    touch(tmp_path, "g/1.jpg")
    nest(tmp_path, 1100)
    assert found(tmp_path) == ["g/1.jpg"]
    assert "lies more than 100 folders deep; its images are left out" in caplog.text


def test_the_root_of_the_file_system_is_refused(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("/")
    for root in (Path("/"), tmp_path / "link", Path("/usr/..")):
        with pytest.raises(DataError, match="is the root of the whole file system"):
            found(root)


@pytest.mark.parametrize("name", ["a\x00b", "loop", "file/below", "none", "n" * 300])
def test_a_folder_that_cannot_be_opened_is_one_line(tmp_path: Path, name: str) -> None:
    (tmp_path / "loop").symlink_to("loop")
    touch(tmp_path, "file")
    with pytest.raises(DataError, match="check the path"):
        found(tmp_path / name)


def test_results_are_left_out_from_their_first_file_on(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    touch(tmp_path, "g/1.jpg", "g/out/pseudo/1.png")
    (tmp_path / "g" / "out" / "run").mkdir()
    (tmp_path / "g" / "out" / "run" / "job.json").write_text('{"settings": {}, "bound": {}}')
    assert found(tmp_path) == ["g/1.jpg"]
    assert "earlier run" in caplog.text
    with pytest.raises(DataError, match=r"out: holds results of this program; give the folder that holds the images"):
        found(tmp_path / "g" / "out")


def test_a_folder_of_images_cannot_become_one_of_results(tmp_path: Path) -> None:
    touch(tmp_path, "g/deep/1.jpg")
    with pytest.raises(DataError, match=r"--out .*g holds images, such as deep/1.jpg"):
        refuse_images_in(tmp_path / "g")
    refuse_images_in(tmp_path / "g", exclude=[tmp_path / "g" / "deep"])
    refuse_images_in(tmp_path / "new")


def test_masks_are_found_once_through_links_in_a_circle(tmp_path: Path, nest: Callable[[Path, int], None]) -> None:
    touch(tmp_path, "image/cat/1.jpg", "gt/cat/1.png")
    for number in range(4):
        (tmp_path / "gt" / f"round {number}").symlink_to(tmp_path / "gt")
        (tmp_path / "gt" / "cat" / f"up {number}").symlink_to(tmp_path / "gt")
    nest(tmp_path / "gt" / "cat", 1100)
    assert open_benchmark(tmp_path).masks == {"cat/1.jpg": tmp_path / "gt" / "cat" / "1.png"}


def test_untaken_counts_add_up(tmp_path: Path) -> None:
    untaken: Counter[str] = Counter()
    list(iter_images(touch(tmp_path, "a/1.jpg", "a/1.txt", "b/2.TXT", "thumbs/1.jpg"), untaken=untaken))
    assert untaken == {".txt": 2, "folder called thumbs": 1}
