"""Output names never clash; order is natural and total."""

from __future__ import annotations

import random
import unicodedata
from pathlib import PurePosixPath

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from umscosod.data.naming import assign_outputs, natural_key, shared_stems, unique_tails

STEMS = st.sampled_from(["a", "A", "a.jpg", "a.png", "\u00e9", "e\u0301", "a~2", "a.jpg~2", "\u00df", "ss", ".x"])
FILES = st.builds(lambda stem, suffix: stem + suffix, STEMS, st.sampled_from([".jpg", ".JPG", ".png", ".bmp"]))
FOLDERS = st.sampled_from(["", "a/", "a.png/", "a.jpg.png/", "A.png/", "a/a.png/"])
NAMES = st.lists(st.builds(lambda folder, file: folder + file, FOLDERS, FILES), min_size=1, max_size=30, unique=True)


def _as_lax_disks_see_it(path: str) -> str:
    return unicodedata.normalize("NFD", path.casefold())


@settings(max_examples=400, deadline=None)
@given(NAMES)
def test_outputs_never_clash(names: list[str]) -> None:
    # A tree cannot hold both the file a.png and the folder a.png/: such draws cannot come from a disk.
    folders = {str(parent) for name in names for parent in PurePosixPath(name).parents}
    names = [name for name in names if name not in folders]
    outputs = assign_outputs(names)
    assert list(outputs) == names
    by_folder: dict[str, list[str]] = {}
    for name, output in outputs.items():
        assert output.endswith(".png")
        assert PurePosixPath(output).parent == PurePosixPath(name).parent
        by_folder.setdefault(str(PurePosixPath(output).parent), []).append(PurePosixPath(output).name)
        assert output not in folders
    for files in by_folder.values():
        assert len({_as_lax_disks_see_it(file) for file in files}) == len(files)


@settings(max_examples=100, deadline=None)
@given(NAMES, st.randoms(use_true_random=False))
def test_outputs_do_not_depend_on_the_order(names: list[str], shuffler: random.Random) -> None:
    shuffled = list(names)
    shuffler.shuffle(shuffled)
    assert assign_outputs(names) == assign_outputs(shuffled)
    assert sorted(names, key=natural_key) == sorted(shuffled, key=natural_key)


@pytest.mark.parametrize(
    ("names", "outputs"),
    [
        (["g/a.jpg", "g/b.jpg"], ["g/a.png", "g/b.png"]),
        (["g/a.jpg", "g/a.png"], ["g/a.jpg.png", "g/a.png.png"]),
        (["g/a.jpg", "h/a.png"], ["g/a.png", "h/a.png"]),
        (["g/a.jpg", "g/a.bmp", "g/a.jpg.tif"], ["g/a.jpg.png", "g/a.bmp.png", "g/a.jpg.tif.png"]),
        (["a.jpg", "a.png/x.jpg"], ["a.jpg.png", "a.png/x.png"]),
        (["a.JPG", "a.jpg"], ["a.JPG.png", "a.jpg~2.png"]),
    ],
)
def test_names_by_hand(names: list[str], outputs: list[str]) -> None:
    assert list(assign_outputs(names).values()) == outputs


def test_shared_stems_lists_what_was_renamed() -> None:
    outputs = assign_outputs(["g/a.jpg", "g/a.png", "g/b.png", "c.png"])
    assert shared_stems(outputs) == {"g": ["g/a.jpg", "g/a.png"]}


def test_natural_order() -> None:
    names = ["b/1", "a10", "A2", "a2", "a2b", "a02", "é", "e\u0301", "10", "9", "1" * 200]
    ordered = sorted(names, key=natural_key)
    assert ordered[:3] == ["9", "10", "1" * 200]
    assert ordered.index("a2b") < ordered.index("a10") < ordered.index("b/1")
    assert {"A2", "a02", "a2"} == set(ordered[3:6])
    assert abs(ordered.index("é") - ordered.index("e\u0301")) == 1


def test_tails_grow_only_where_needed() -> None:
    pairs = [("g", "/x/a/1.jpg"), ("g", "/y/a/1.jpg"), ("g", "/y/a/2.jpg"), ("h", "/x/a/1.jpg")]
    assert unique_tails(pairs) == ["g/x/a/1.jpg", "g/y/a/1.jpg", "g/2.jpg", "h/1.jpg"]


def test_tails_of_the_same_file_stay_equal() -> None:
    assert unique_tails([("g", "/a/1.jpg"), ("g", "/a/1.jpg")]) == ["g/a/1.jpg"] * 2
