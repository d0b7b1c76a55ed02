"""Fake benchmarks in their real layouts."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import pytest

from tests.data.coca import data as coca
from tests.data.coco9213 import data as coco9213
from tests.data.cosal2015 import data as cosal2015
from tests.data.cosod3k import data as cosod3k
from tests.data.duts_class import data as duts_class
from tests.data.fake import write_pairs
from umscosod.data.benchmarks import open_benchmark
from umscosod.data.groups import groups_from_folder
from umscosod.data.images import decode_image
from umscosod.data.masks import read_mask
from umscosod.errors import DataError

DEV = Path(__file__).resolve().parents[4] / "shared" / "data" / "dev"


@pytest.mark.parametrize("module", [coca, cosod3k, cosal2015, duts_class, coco9213], ids=lambda module: module.__name__)
def test_benchmark(tmp_path: Path, module: ModuleType) -> None:
    root = module.write(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    benchmark = open_benchmark(root)
    assert benchmark.name == root.name
    assert [group.name for group in benchmark.groups] == sorted(module.GROUPS, key=str.casefold)
    expected = {f"{group}/{stem}.jpg" for group, stems in module.GROUPS.items() for stem in stems}
    assert set(benchmark.masks) == expected == {image.id for group in benchmark.groups for image in group.images}
    for group in benchmark.groups:
        for image in group.images:
            mask = benchmark.masks[image.id]
            assert (mask.parent.name, mask.stem) == (group.name, image.path.stem)
            assert image.output == f"{group.name}/{mask.name}"
            assert decode_image(image.path).shape[:2] == read_mask(mask).shape
    assert list(benchmark.groups) == groups_from_folder(root)
    assert sorted(tmp_path.rglob("*")) == before  # read only


@pytest.mark.parametrize("images", ["image", "images", "img", "Image", "ims"])
@pytest.mark.parametrize("masks", ["gt", "GT", "gts", "binary", "groundtruth", "GroundTruths", "masks"])
def test_names_of_the_two_trees(tmp_path: Path, images: str, masks: str) -> None:
    write_pairs(tmp_path, images, masks, {"cat": ["1"]})
    assert open_benchmark(tmp_path).masks == {"cat/1.jpg": tmp_path / masks / "cat" / "1.png"}


def test_one_pair_of_trees_for_several_benchmarks(tmp_path: Path) -> None:
    write_pairs(tmp_path, "images", "gts", {"CoCA/cat": ["1"], "CoSal2015/cat": ["1"]})
    benchmark = open_benchmark(tmp_path)
    assert [group.name for group in benchmark.groups] == ["CoCA/cat", "CoSal2015/cat"]
    assert benchmark.masks["CoCA/cat/1.jpg"] == tmp_path / "gts/CoCA/cat/1.png"


def test_several_benchmarks_side_by_side(tmp_path: Path) -> None:
    coca.write(tmp_path)
    cosal2015.write(tmp_path)
    benchmark = open_benchmark(tmp_path)
    assert len(benchmark.groups) == 4
    assert benchmark.masks["CoCA/Accordion/000000005539.jpg"].parts[-3:] == (
        "binary",
        "Accordion",
        "000000005539.png",
    )


def test_masks_below_their_images(tmp_path: Path) -> None:
    write_pairs(tmp_path, "Car", "Car/GroundTruth", {"": ["0001", "0002"]})
    write_pairs(tmp_path, "Horse/image", "Horse/gt", {"": ["0001"]})
    benchmark = open_benchmark(tmp_path)
    assert set(benchmark.masks) == {"Car/0001.jpg", "Car/0002.jpg", "Horse/0001.jpg"}
    assert benchmark.masks["Car/0001.jpg"] == tmp_path / "Car/GroundTruth/0001.png"


def test_letter_case_and_extension_of_masks_may_differ(tmp_path: Path) -> None:
    write_pairs(tmp_path, "image", "gt", {"Cat": ["IMG_1"]}, image_suffix=".JPG", mask_suffix=".bmp")
    (tmp_path / "gt" / "Cat").rename(tmp_path / "gt" / "cat")
    assert open_benchmark(tmp_path).masks == {"Cat/IMG_1.JPG": tmp_path / "gt/cat/IMG_1.bmp"}


def test_png_is_preferred_among_masks_of_one_name(tmp_path: Path) -> None:
    write_pairs(tmp_path, "image", "gt", {"cat": ["1"]}, mask_suffix=".jpg")
    write_pairs(tmp_path, "image", "gt", {"cat": ["1"]})
    assert open_benchmark(tmp_path).masks["cat/1.jpg"].name == "1.png"


def test_gaps_are_counted_in_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_pairs(tmp_path, "image", "gt", {"cat": ["1", "2", "3"]})
    (tmp_path / "gt/cat/2.png").unlink()
    (tmp_path / "image/cat/3.jpg").unlink()
    benchmark = open_benchmark(tmp_path)
    assert set(benchmark.masks) == {"cat/1.jpg"}
    assert len(benchmark.groups[0].images) == 2
    assert "1 image without a mask: cat/2.jpg" in caplog.text
    assert "1 mask without an image" in caplog.text


def test_no_layout_and_no_masks(tmp_path: Path) -> None:
    write_pairs(tmp_path, "cats", "dogs", {"": ["1"]})
    with pytest.raises(DataError, match="not a benchmark layout"):
        open_benchmark(tmp_path)
    other = write_pairs(tmp_path / "b", "image", "gt", {"cat": ["1"]})
    (other / "gt/cat/1.png").rename(other / "gt/cat/other.png")
    with pytest.raises(DataError, match="none of the 1 images has a mask"):
        open_benchmark(other)
    with pytest.raises(DataError, match="no such folder"):
        open_benchmark(tmp_path / "none")


@pytest.mark.skipif(not DEV.is_dir(), reason="the development pictures are not at ../shared/data/dev")
def test_development_pictures() -> None:
    benchmark = open_benchmark(DEV)
    images = [image for group in benchmark.groups for image in group.images]
    assert (len(benchmark.groups), len(images), len(benchmark.masks)) == (23, 282, 282)
    assert decode_image(images[0].path).shape[:2] == read_mask(benchmark.masks[images[0].id]).shape
