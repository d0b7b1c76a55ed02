"""Imports benchmarks and folders of pictures as a FiftyOne data set: a sample an image, its group in a text field."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import fiftyone as fo
import fiftyone.utils.data as foud

from umscosod.data.benchmarks import open_benchmark
from umscosod.data.folders import iter_images, walk_files
from umscosod.data.groups import groups_from_folder
from umscosod.data.mask_rules import decide_rule
from umscosod.errors import DataError
from umscosod.evaluation.trees import SUFFIXES, name_some
from umscosod.export.folder import path_inside
from umscosod.export.report import read_report
from umscosod.integrations.fiftyone.runs.fields import TARGETS
from umscosod.types import Labelled, Status

REPORT = "report.json"


@dataclass(frozen=True, kw_only=True, slots=True)
class Wanted:
    """A sample without a prediction so far.

    Attributes
    ----------
    id : str
    image : Path
    group : str
        Value of the group field; without one the name of the image's folder.
    """

    id: str
    image: Path
    group: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Prediction:
    """The files that a folder holds for one name.

    Attributes
    ----------
    name : str
        Relative POSIX path of the picture, or of the image in a report.
    picture : Path or None
        Mask or map of another method.
    mask, map : Path or None
        Files of an output folder of ours.
    row : Labelled or None
        Its row of the report.
    """

    name: str
    picture: Path | None = None
    mask: Path | None = None
    map: Path | None = None
    row: Labelled | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Matching:
    """Outcome of `PredictionFolder.match`.

    Attributes
    ----------
    found : dict of str to Prediction
        By sample id.
    problems : dict of str to str
        Reasons by sample id: no candidate, or more than one.
    unused : tuple of str
        Names in the folder that fit no sample.
    """

    found: dict[str, Prediction]
    problems: dict[str, str]
    unused: tuple[str, ...]


class PredictionFolder:
    """An index of a folder ``GROUP/NAME.png``, ``NAME.png``, or an output folder of ``umscosod label``.

    Parameters
    ----------
    folder : Path
    by_folder : bool
        Groups are named by the images' folders: then ``a/cat`` also matches ``cat/1.png``. Otherwise group names must
        be equal.

    Raises
    ------
    DataError
        It is not a folder, or it holds no predictions.
    """

    def __init__(self, folder: Path, *, by_folder: bool) -> None:
        if not folder.is_dir():
            raise DataError(f"{folder} is no folder; give the folder that holds GROUP/NAME.png")
        self.folder, self._by_folder = folder, by_folder
        self.is_ours = (folder / REPORT).is_file()
        self._by_id: dict[str, Prediction] = {}
        self._by_stem: dict[str, list[tuple[PurePosixPath, Prediction]]] = defaultdict(list)
        predictions = _read_results(folder) if self.is_ours else _walk(folder)
        self.names: list[str] = []
        for group, prediction in predictions:
            self.names.append(prediction.name)
            file = PurePosixPath(prediction.name)
            stems = {file.stem}
            if prediction.row is not None:
                self._by_id[prediction.row.image_id] = prediction
                stems |= {file.name, PurePosixPath(prediction.row.output).stem}
            for stem in stems:
                self._by_stem[stem].append((group, prediction))
        if not self.names:
            raise DataError(f"no predictions in {folder}: looked for {', '.join(sorted(SUFFIXES))} in it and below")

    def match(self, samples: Iterable[Wanted]) -> Matching:
        """Find the prediction of each sample.

        A file fits by its name without suffix, or by the image's whole name (``7.jpg.png``). Files of the sample's
        group take precedence over files at the top of the folder. A file that fits several samples is assigned to none.
        """
        found: dict[str, Prediction] = {}
        problems: dict[str, str] = {}
        for sample in samples:
            if not sample.group:
                problems[sample.id] = f"{sample.image.name}: it has no group"
                continue
            candidates = self._candidates(sample)
            if len(candidates) == 1:
                found[sample.id] = candidates[0]
            elif candidates:
                names = name_some(sorted(candidate.name for candidate in candidates))
                problems[sample.id] = f"{sample.image.name}: several predictions fit ({names}); keep one of them"
            else:
                problems[sample.id] = f"{sample.image.name}: no prediction {sample.group}/{sample.image.stem}"
        takers = Counter(prediction.name for prediction in found.values())
        for sample_id, prediction in list(found.items()):
            if takers[prediction.name] > 1:
                del found[sample_id]
                problems[sample_id] = f"{prediction.name} fits {takers[prediction.name]} samples; sort it into groups"
        used = {prediction.name for prediction in found.values()}
        return Matching(found=found, problems=problems, unused=tuple(name for name in self.names if name not in used))

    def _candidates(self, sample: Wanted) -> list[Prediction]:
        if (own := self._by_id.get(sample.id)) is not None:
            return [own]
        image = PurePosixPath(sample.image.as_posix())
        named = [entry for key in {image.stem, image.name} for entry in self._by_stem.get(key, ())]
        distinct = {prediction.name: (group, prediction) for group, prediction in named}.values()
        exact = [prediction for group, prediction in distinct if group == PurePosixPath(sample.group)]
        if exact:  # a report has the image's whole name, which distinguishes 7.jpg from 7.bmp
            return [one for one in exact if one.row and PurePosixPath(one.name).name == image.name] or exact
        if self._by_folder:
            folders = image.parent.parts
            near = [one for group, one in distinct if group.parts and folders[-len(group.parts) :] == group.parts]
            if near:
                return near
        return [prediction for group, prediction in distinct if not group.parts]


def looks_like_masks(predictions: Mapping[str, Prediction]) -> bool:
    """Whether pictures hold but one value beside 0, or ids, indices or colours; an evenly spread sample is read."""
    rule = decide_rule([one.picture for one in predictions.values() if one.picture is not None])
    return rule.kind != "half" or set(rule.found) <= {0, rule.white}


def _walk(folder: Path) -> Iterable[tuple[PurePosixPath, Prediction]]:
    for path in walk_files(folder):
        if path.suffix.lower() in SUFFIXES:
            relative = path.relative_to(folder).as_posix()
            yield PurePosixPath(relative).parent, Prediction(name=relative, picture=path)


def _read_results(folder: Path) -> Iterable[tuple[PurePosixPath, Prediction]]:
    """Return the rows of a report with their files; each file is looked for when it is needed."""
    masks = folder / ("masks" if (folder / "masks").is_dir() else "pseudo")
    for row in read_report(folder / REPORT):
        is_there = row.status is not Status.FAILED
        yield (
            PurePosixPath(row.group),
            Prediction(
                name=row.image_id,
                mask=path_inside(masks, row.output) if is_there else None,
                map=path_inside(folder / "maps", row.output) if is_there and (folder / "maps").is_dir() else None,
                row=row,
            ),
        )


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
            if not name.isidentifier() or name.startswith("_"):
                raise DataError(f"field name {name!r} must be letters, digits and '_', starting with a letter")
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

    @property
    def has_sample_field_schema(self) -> bool:
        """True: the fields are known before the first sample."""
        return True

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
