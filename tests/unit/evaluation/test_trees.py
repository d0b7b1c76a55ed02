from __future__ import annotations

import logging

import pytest

from umscosod.errors import DataError
from umscosod.evaluation.trees import pair_trees


def touch(root, *names):
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")


def test_pairs_by_relative_path_without_suffix(tmp_path):
    touch(tmp_path / "gt", "cat/a.png", "cat/deep/b.PNG", "hund/ä.v2.jpg", "c.bmp", "cat/notes.txt", "cat/.a.png")
    touch(tmp_path / "pred", "cat/a.jpg", "cat/deep/b.png", "hund/ä.v2.webp", "c.TIF")
    pairing = pair_trees(tmp_path / "pred", str(tmp_path / "gt"))
    assert [(pair.name, pair.group) for pair in pairing.pairs] == [
        ("c", "."),
        ("cat/a", "cat"),
        ("cat/deep/b", "cat/deep"),
        ("hund/ä.v2", "hund"),
    ]
    assert [pair.pred.name for pair in pairing.pairs] == ["c.TIF", "a.jpg", "b.png", "ä.v2.webp"]
    assert pairing.extra == ()


@pytest.mark.parametrize("name", ["gt", "GT"])
def test_a_data_set_root_stands_for_its_ground_truths(tmp_path, name):
    touch(tmp_path / "set", f"{name}/cat/a.png", "image/cat/a.jpg")
    touch(tmp_path / "pred", "cat/a.png")
    assert pair_trees(tmp_path / "pred", tmp_path / "set").gt_root == tmp_path / "set" / name


def test_a_benchmarks_own_names_are_known_beside_its_images(tmp_path):
    touch(tmp_path / "set", "GroundTruth/cat/a.png", "images/cat/a.jpg")
    touch(tmp_path / "pred", "cat/a.png")
    assert pair_trees(tmp_path / "pred", tmp_path / "set").gt_root == tmp_path / "set" / "GroundTruth"
    touch(tmp_path / "group named binary", "binary/a.png", "cat/a.png")
    touch(tmp_path / "pred", "binary/a.png")
    assert len(pair_trees(tmp_path / "pred", tmp_path / "group named binary").pairs) == 2


def test_linked_folders_are_followed_and_loops_end(tmp_path):
    touch(tmp_path / "store", "cat/a.png")
    touch(tmp_path / "gt", "hund/b.png")
    (tmp_path / "gt" / "cat").symlink_to(tmp_path / "store" / "cat", target_is_directory=True)
    (tmp_path / "gt" / "hund" / "back").symlink_to(tmp_path / "gt", target_is_directory=True)
    (tmp_path / "gt" / "also").symlink_to(tmp_path / "gt" / "hund", target_is_directory=True)
    touch(tmp_path / "pred", "also/b.png", "cat/a.png", "hund/b.png")
    names = [pair.name for pair in pair_trees(tmp_path / "pred", tmp_path / "gt").pairs]
    assert names == ["also/b", "cat/a", "hund/b"]


def test_an_output_folder_stands_for_its_masks_and_says_so(tmp_path, caplog):
    touch(tmp_path / "gt", "cat/a.png")
    touch(tmp_path / "out", "masks/cat/a.png", "maps/cat/a.png", "pseudo/cat/a.png")
    with caplog.at_level(logging.INFO, "umscosod"):
        assert pair_trees(tmp_path / "out", tmp_path / "gt").pred_root == tmp_path / "out" / "masks"
    assert "soft maps" in caplog.text
    assert pair_trees(tmp_path / "out" / "maps", tmp_path / "gt").pred_root == tmp_path / "out" / "maps"


def test_a_group_called_masks_is_a_group(tmp_path):
    touch(tmp_path / "gt", "masks/a.png", "cat/a.png")
    touch(tmp_path / "pred", "masks/a.png", "cat/a.png")
    assert len(pair_trees(tmp_path / "pred", tmp_path / "gt").pairs) == 2


def test_a_prediction_may_keep_the_pictures_suffix(tmp_path):
    touch(tmp_path / "gt", "cat/a.png", "cat/b.jpg.png")
    touch(tmp_path / "pred", "cat/a.jpg.png", "cat/b.jpg.png")
    pairing = pair_trees(tmp_path / "pred", tmp_path / "gt")
    assert [pair.pred.name for pair in pairing.pairs] == ["a.jpg.png", "b.jpg.png"]
    assert pairing.extra == ()


def test_missing_predictions_are_an_error_with_their_number_and_first_names(tmp_path):
    touch(tmp_path / "gt", *(f"cat/{index}.png" for index in range(9)))
    touch(tmp_path / "pred", "cat/0.png", "cat/1.png")
    with pytest.raises(DataError, match=r"7 of 9 ground truths .*cat/2, cat/3, cat/4, cat/5, cat/6, \.\.\."):
        pair_trees(tmp_path / "pred", tmp_path / "gt")


def test_extra_predictions_are_reported_not_scored(tmp_path, caplog):
    touch(tmp_path / "gt", "cat/a.png")
    touch(tmp_path / "pred", "cat/a.png", "cat/z.jpg")
    pairing = pair_trees(tmp_path / "pred", tmp_path / "gt")
    assert pairing.extra == ("cat/z.jpg",)
    assert "1 predictions" in caplog.text


@pytest.mark.parametrize(
    ("pred_names", "gt_names", "message"),
    [
        (["cat/a.png", "cat/a.jpg"], ["cat/a.png"], "two prediction files"),
        (["cat/a.png"], ["cat/a.png", "cat/a.jpg"], "two ground truth files"),
        (["cat/a.png.png", "cat/a.jpg.png"], ["cat/a.png"], "several predictions"),
        (["cat/a.txt"], ["cat/a.png"], "no prediction in"),
        (["cat/a.png"], ["cat/a.txt"], "no ground truth in"),
    ],
)
def test_what_cannot_be_paired_is_an_error(tmp_path, pred_names, gt_names, message):
    touch(tmp_path / "pred", *pred_names)
    touch(tmp_path / "gt", *gt_names)
    with pytest.raises(DataError, match=message):
        pair_trees(tmp_path / "pred", tmp_path / "gt")


def test_folders_that_are_none_are_named(tmp_path):
    touch(tmp_path, "gt/a.png", "file")
    with pytest.raises(DataError, match=r"prediction folder .*absent does not exist"):
        pair_trees(tmp_path / "absent", tmp_path / "gt")
    with pytest.raises(DataError, match=r"ground truth folder .*file is a file"):
        pair_trees(tmp_path / "gt", tmp_path / "file")
