"""Imports benchmarks and folders of pictures as a FiftyOne data set: a sample an image, its group in a text field."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fiftyone as fo
import fiftyone.utils.data as foud

from umscosod.data.benchmarks import open_benchmark
from umscosod.data.folders import iter_images
from umscosod.data.groups import groups_from_folder
from umscosod.errors import DataError
from umscosod.integrations.fiftyone.runs.fields import TARGETS, check_name

_Row = tuple[str, Path, Path | None]
"""Group, image, mask."""


class CoSODImporter(foud.GenericSampleDatasetImporter):  # type: ignore[misc]  # untyped base
    """Reads every layout that `umscosod.data.benchmarks` knows, and plain folders with one sub-folder a group.

    Samples hold absolute paths. No image is opened or copied, so a damaged file shows only when it is used. Samples are
    in natural order of groups and file names, so that two imports give the same order.

    Parameters
    ----------
    dataset_dir : path
        A benchmark folder, or any folder of images without masks.
    group_field : str
        Text field that gets the name of the group.
    gt_field : str
        Segmentation field that gets the mask file of images with a mask. Its values are shown unchanged: the
        evaluation handles masks with soft edges (values between 0 and 255). Absent if there are no masks at all.
    shuffle : bool
        Import in random order.
    seed : int, optional
        Seed of that order.
    max_samples : int, optional
        Import only this many.

    Raises
    ------
    DataError
        A bad field name; at the import: no folder, no images, or a benchmark whose masks fit no image.

    Examples
    --------
    ::

        dataset = fo.Dataset.from_importer(CoSODImporter(dataset_dir="CoSal2015"), name="cosal2015")
    """

    has_sample_field_schema = True  # the fields are known before the first sample

    def __init__(
        self,
        dataset_dir: str | Path | None = None,
        group_field: str = "cls",
        gt_field: str = "ground_truth",
        shuffle: bool = False,
        seed: int | None = None,
        max_samples: int | None = None,
    ) -> None:
        if dataset_dir is None:
            raise DataError("CoSODImporter needs dataset_dir, the folder of the benchmark or of the pictures")
        for name in (group_field, gt_field):
            check_name(name)
        if group_field == gt_field:
            raise DataError(f"group and mask cannot both be stored in the field {gt_field!r}; choose two names")
        super().__init__(dataset_dir=str(dataset_dir), shuffle=shuffle, seed=seed, max_samples=max_samples)
        self.group_field = group_field
        self.gt_field = gt_field
        self._rows: list[_Row] | None = None
        self._rest: Iterator[_Row] = iter(())
        self._has_masks = False

    @property
    def has_dataset_info(self) -> bool:
        """Whether there are masks, whose pixel value has a meaning to store."""
        return self._has_masks

    def setup(self) -> None:
        """Search the folder; FiftyOne calls this at the start of an import."""
        found = _read_folder(Path(self.dataset_dir))
        self._has_masks = any(mask is not None for _, _, mask in found)
        self._rows = list(self._preprocess_list(found))
        self._rest = iter(self._rows)

    def get_sample_field_schema(self) -> dict[str, Any]:
        """Return name and type of each field."""
        schema = {self.group_field: fo.StringField()}
        if self._has_masks:
            schema[self.gt_field] = fo.EmbeddedDocumentField(fo.Segmentation)
        return schema

    def get_dataset_info(self) -> dict[str, Any]:
        """Return the targets of the mask field only: other fields of the data set keep theirs."""
        return {"mask_targets": {self.gt_field: dict(TARGETS)}}

    def __len__(self) -> int:
        if self._rows is None:
            self.setup()
        return len(self._rows or ())

    def __next__(self) -> Any:
        if self._rows is None:
            self.setup()
        group, image, mask = next(self._rest)
        sample = fo.Sample(filepath=str(image), **{self.group_field: group})
        if mask is not None:
            sample[self.gt_field] = fo.Segmentation(mask_path=str(mask))
        return sample


class CoSODDataset(fo.types.Dataset):  # type: ignore[misc]  # untyped base
    """The importer as a data set type, for `fiftyone.Dataset.from_dir` and the ``--type`` of FiftyOne's command line.

    Examples
    --------
    ::

        dataset = fo.Dataset.from_dir(dataset_dir="CoSal2015", dataset_type=CoSODDataset, group_field="species")
    """

    def get_dataset_importer_cls(self) -> type[CoSODImporter]:
        """Return `CoSODImporter`."""
        return CoSODImporter


def _read_folder(root: Path) -> list[_Row]:
    """List groups, images and masks: as a benchmark if anything below `root` has the layout of one."""
    # The walk raises for what is no folder. A layout whose masks fit no image stays an error: it is not meant to be
    # a folder without masks.
    if any(image.layout is not None for image in iter_images(root)):
        benchmark = open_benchmark(root)
        groups, masks = benchmark.groups, benchmark.masks
    else:
        groups, masks = tuple(groups_from_folder(root)), {}
    return [(group.name, image.path, masks.get(image.id)) for group in groups for image in group.images]
