"""What the importer hands to FiftyOne, sample by sample; none of this needs a database."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

fo = pytest.importorskip("fiftyone")

from tests.data.coca import data as coca  # noqa: E402
from tests.data.coco9213 import data as coco9213  # noqa: E402
from tests.data.cosal2015 import data as cosal2015  # noqa: E402
from tests.data.cosod3k import data as cosod3k  # noqa: E402
from tests.data.duts_class import data as duts_class  # noqa: E402
from tests.data.fake import write_pairs  # noqa: E402
from umscosod.errors import DataError  # noqa: E402
from umscosod.integrations.fiftyone import CoSODImporter  # noqa: E402

DEV = Path(__file__).resolve().parents[4] / "shared" / "data" / "dev"


def read(importer: CoSODImporter) -> list[Any]:
    with importer:
        samples = list(importer)
        assert len(importer) == len(samples)
    return samples


def pairs(samples: list[Any]) -> list[tuple[str, str]]:
    return [(sample.cls, Path(sample.filepath).stem) for sample in samples]


@pytest.mark.parametrize("module", [coca, cosod3k, cosal2015, duts_class, coco9213], ids=lambda module: module.__name__)
def test_every_benchmark_layout(tmp_path: Path, module: ModuleType) -> None:
    importer = CoSODImporter(dataset_dir=module.write(tmp_path))
    samples = read(importer)
    assert set(pairs(samples)) == {(group, stem) for group, stems in module.GROUPS.items() for stem in stems}
    for sample in samples:
        image, mask = Path(sample.filepath), Path(sample.ground_truth.mask_path)
        assert mask.is_absolute()
        assert mask.is_file()
        assert (mask.parent.name, mask.stem) == (image.parent.name, image.stem)
    assert importer.get_sample_field_schema().keys() == {"cls", "ground_truth"}
    assert importer.get_dataset_info() == {"mask_targets": {"ground_truth": {255: "co-salient"}}}


def test_a_plain_folder_has_groups_and_no_masks(tmp_path: Path) -> None:
    root = write_pairs(tmp_path / "pets", "", "../gt", {"cat": ["10", "2"], "dog": ["1"]})
    importer = CoSODImporter(dataset_dir=root)
    samples = read(importer)
    assert pairs(samples) == [("cat", "2"), ("cat", "10"), ("dog", "1")]  # natural order
    assert not any(sample.has_field("ground_truth") for sample in samples)
    assert importer.get_sample_field_schema().keys() == {"cls"}
    assert not importer.has_dataset_info


def test_an_image_without_a_mask_is_imported_without_one(tmp_path: Path) -> None:
    write_pairs(tmp_path, "image", "gt", {"cat": ["1", "2"]})
    (tmp_path / "gt" / "cat" / "1.png").unlink()
    first, second = read(CoSODImporter(dataset_dir=tmp_path))
    assert not first.has_field("ground_truth")
    assert second.ground_truth.mask_path == str(tmp_path / "gt" / "cat" / "2.png")


def test_other_field_names(tmp_path: Path) -> None:
    write_pairs(tmp_path, "image", "gt", {"cat": ["1"]})
    importer = CoSODImporter(dataset_dir=tmp_path, group_field="species", gt_field="truth")
    (sample,) = read(importer)
    assert sample.species == "cat"
    assert sample.truth.mask_path == str(tmp_path / "gt" / "cat" / "1.png")
    assert importer.get_dataset_info() == {"mask_targets": {"truth": {255: "co-salient"}}}


def test_the_first_samples_only_and_a_seeded_order(tmp_path: Path) -> None:
    write_pairs(tmp_path, "image", "gt", {"cat": [str(number) for number in range(10)]})
    assert pairs(read(CoSODImporter(dataset_dir=tmp_path, max_samples=2))) == [("cat", "0"), ("cat", "1")]
    shuffled = pairs(read(CoSODImporter(dataset_dir=tmp_path, shuffle=True, seed=5)))
    assert shuffled == pairs(read(CoSODImporter(dataset_dir=tmp_path, shuffle=True, seed=5)))
    assert shuffled != sorted(shuffled)
    assert sorted(shuffled) == [("cat", str(number)) for number in range(10)]


def test_a_relative_folder_becomes_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_pairs(tmp_path / "bench", "image", "gt", {"cat": ["1"]})
    monkeypatch.chdir(tmp_path)
    (sample,) = read(CoSODImporter(dataset_dir="bench"))
    assert sample.filepath == str(tmp_path / "bench" / "image" / "cat" / "1.jpg")


def test_counting_or_reading_looks_through_the_folder_first(tmp_path: Path) -> None:
    write_pairs(tmp_path, "image", "gt", {"cat": ["1", "2"]})
    assert len(CoSODImporter(dataset_dir=tmp_path)) == 2
    assert next(CoSODImporter(dataset_dir=tmp_path)).cls == "cat"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"dataset_dir": None}, "needs dataset_dir"),
        ({"group_field": "two words"}, "'two words'"),
        ({"gt_field": "_truth"}, "'_truth'"),
        ({"group_field": "same", "gt_field": "same"}, "choose two names"),
    ],
)
def test_bad_options_are_named(tmp_path: Path, options: dict[str, Any], words: str) -> None:
    with pytest.raises(DataError, match=words):
        CoSODImporter(**{"dataset_dir": tmp_path, **options})


def test_no_folder_no_images_and_masks_of_something_else_are_errors(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="absent"):
        read(CoSODImporter(dataset_dir=tmp_path / "absent"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="no images"):
        read(CoSODImporter(dataset_dir=tmp_path / "empty"))
    bench = write_pairs(tmp_path / "bench", "image", "gt", {"cat": ["1"]})
    (bench / "gt" / "cat" / "1.png").rename(bench / "gt" / "cat" / "other.png")
    with pytest.raises(DataError, match="none of the 1 images has a mask"):
        read(CoSODImporter(dataset_dir=bench))


def test_a_benchmark_of_real_photographs() -> None:
    root = DEV / "PascalCoSeg"
    if not root.is_dir():
        pytest.skip(f"no development pictures at {root}")
    samples = read(CoSODImporter(dataset_dir=root))
    groups = {path.name for path in (root / "image").iterdir()}
    assert {sample.cls for sample in samples} == groups
    assert len(samples) == len(list((root / "image").glob("*/*.jpg")))
    assert all(Path(sample.ground_truth.mask_path).is_file() for sample in samples)
