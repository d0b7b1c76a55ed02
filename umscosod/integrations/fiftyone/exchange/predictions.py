"""Imports results of any other method as a run: matches files by group and name, and copies them."""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any, Literal

import numpy as np
from PIL import Image

from umscosod.config import PipelineConfig
from umscosod.data.files import real_path
from umscosod.data.folders import walk_files
from umscosod.data.foreign import MaskReader
from umscosod.data.images import read_upright_size
from umscosod.data.mask_rules import MaskRule, decide_rule
from umscosod.data.masks import write_png_atomic
from umscosod.errors import ConfigError, DataError, count_of
from umscosod.evaluation.scoring import open_grey
from umscosod.evaluation.trees import SUFFIXES, name_some
from umscosod.export.folder import path_inside
from umscosod.export.report import read_report
from umscosod.integrations.fiftyone.runs.jobs import Job, RunReport, SampleRow, flat_images, read_samples, run_job
from umscosod.integrations.fiftyone.runs.parts import Part
from umscosod.integrations.fiftyone.runs.record import IMPORT, Progress, find_run
from umscosod.pipeline import LabelReport
from umscosod.progress import ProgressFn
from umscosod.types import ByteArray, Labelled, Status

REPORT = "report.json"
STAGE = "import"
Kind = Literal["auto", "mask", "map"]
_WHITE = 255


def import_predictions(
    sample_collection: Any,
    folder: str | Path,
    field: str,
    *,
    group_field: str | None = None,
    kind: Kind = "auto",
    threshold: float = 0.5,
    out_dir: str | Path | None = None,
    overwrite: bool = False,
    editable: bool = False,
    progress: Progress = None,
) -> RunReport:
    """Import saliency maps or masks of another method as a run.

    Parameters
    ----------
    sample_collection : fiftyone.core.collections.SampleCollection
    folder : path
        ``FOLDER/GROUP/NAME.png`` as in results of benchmarks, or ``FOLDER/NAME.png``; or an output folder of
        ``umscosod label``, with masks, maps, confidence and status. It is only read: the run has copies.
    field : str
        Name of the mask field and of the run.
    group_field : str, optional
        Field whose value is the name of the group's folder. None: the image's own folder.
    kind : {"auto", "mask", "map"}
        Kind of the pictures; ``auto``: masks if they hold only two values. For an output folder it is known.
    threshold : float
        Value of a map (0 to 1) from which a pixel belongs to the mask.
    out_dir : path, optional
        Folder for the run's files.
    overwrite : bool
        Replace the labels of an earlier import into the field, but never a person's labels.
    editable, progress
        As for `umscosod.integrations.fiftyone.label_dataset`.

    Returns
    -------
    RunReport
        Samples without a prediction, or with several candidates, have a row ``skipped`` with the reason. Nothing is
        written for them, so a later call can add their prediction.

    Raises
    ------
    DataError
        There are no predictions in `folder`, none fits a sample, or another run owns the field.
    ConfigError
        `kind` or `threshold` is out of its bounds.

    Notes
    -----
    A picture of another size is resized to its image by Pillow's bilinear filter on 8 bits, as in `umscosod evaluate`;
    a mask is then thresholded at half. A result of another program has no confidence: nothing is known of it that
    compares with the confidence of our masks.
    """
    if kind not in ("auto", "mask", "map"):
        raise ConfigError(f"no kind {kind!r}; choose one of: auto, mask, map")
    if not 0.0 < threshold <= 1.0:
        raise ConfigError(f"threshold must be above 0 and at most 1, got {threshold}")
    source = real_path(Path(folder).expanduser())
    view = flat_images(sample_collection)
    predictions = PredictionFolder(source, by_folder=group_field is None)
    wanted = read_samples(view, group_field)
    matching = predictions.match(wanted)
    if not matching.found:
        first = wanted[0]
        raise DataError(
            f"no prediction in {predictions.folder} fits any of the {len(wanted)} samples: it holds "
            f"{name_some(predictions.names[:3])}, looked for {first.group}/{first.path.stem}.png and the like; "
            "give the folder whose sub-folders are the groups, or another group field"
        )
    has_maps = _has_maps(view._dataset, field, predictions, matching.found, kind)
    rule = _rule_of(matching.found, has_maps=has_maps)
    rule.check_clear(str(source))
    job = Job(
        key=field,
        group_field=group_field,
        out_dir=out_dir,
        config=PipelineConfig(),
        verb={"verb": "import", "folder": str(source), "threshold": threshold, "has_maps": has_maps},
        overwrite=overwrite,
        editable=editable,
        has_maps=has_maps,
    )

    def work(part: Part, progress: ProgressFn) -> LabelReport:
        return _do_part(part, predictions, threshold, rule, has_maps=has_maps, progress=progress)

    report = run_job(view.select(list(matching.found)), job, work, progress)
    return _with_unmatched(report, matching, wanted)


def _has_maps(
    dataset: Any, field: str, predictions: PredictionFolder, found: Mapping[str, Prediction], kind: str
) -> bool:
    """Whether the run has soft maps; an existing import decides for ``auto``."""
    if predictions.is_ours:
        return any(prediction.map is not None for prediction in found.values())
    present = find_run(dataset, field) if kind == "auto" else None
    if present is not None and present.method == IMPORT:
        return bool(present.has_maps)
    return not looks_like_masks(found) if kind == "auto" else kind == "map"


def _rule_of(found: Mapping[str, Prediction], *, has_maps: bool) -> MaskRule:
    """Decide how the masks are read; masks that are made of maps need no rule."""
    masks = [one.mask or (None if has_maps else one.picture) for one in found.values()]
    return decide_rule([path for path in masks if path is not None])


def _with_unmatched(report: RunReport, matching: Matching, wanted: list[SampleRow]) -> RunReport:
    """Add the samples without a prediction, and the predictions that fit no sample."""
    problems = matching.problems
    left = [
        Labelled(image_id=id_, group=group, output=f"{id_}.png", status=Status.SKIPPED, reason=problems[id_])
        for id_, group in ((sample.id, sample.group) for sample in wanted)
        if id_ in problems
    ]
    notes = list(report.notes)
    if left:
        notes.append(f"{count_of(len(left), 'sample')} got nothing: {name_some([row.reason for row in left])}")
    if matching.unused:
        notes.append(
            f"{count_of(len(matching.unused), 'prediction fits', 'predictions fit')} no sample: "
            f"{name_some(list(matching.unused))}"
        )
    return replace(report, rows=(*report.rows, *left), notes=tuple(notes))


def _do_part(
    part: Part,
    predictions: PredictionFolder,
    threshold: float,
    rule: MaskRule,
    *,
    has_maps: bool,
    progress: ProgressFn,
) -> LabelReport:
    """Copy the predictions of a part's samples, one at a time; a bad one becomes a failed row."""
    started = time.monotonic()
    images = [(group.name, image) for group in part.groups for image in group.images]
    matching = predictions.match(SampleRow(id=image.id, path=image.path, group=group) for group, image in images)
    rows = []
    reader = MaskReader(rule)
    for done, (group, image) in enumerate(images):
        progress(done, len(images), STAGE)
        row = Labelled(image_id=image.id, group=group, output=image.output, status=Status.FAILED)
        prediction = matching.found.get(image.id)
        try:
            if prediction is None:  # it existed when the part began
                raise DataError(matching.problems[image.id])
            rows.append(_import_sample(part.folder, row, image.path, prediction, threshold, reader, has_maps=has_maps))
        except DataError as error:
            rows.append(replace(row, reason=str(error)))
    reader.warn()
    progress(len(images), len(images), STAGE)
    return LabelReport(rows=tuple(rows), out=part.folder, seconds=time.monotonic() - started)


def _import_sample(
    out: Path, row: Labelled, image: Path, found: Prediction, threshold: float, reader: MaskReader, *, has_maps: bool
) -> Labelled:
    """Write mask and map of one sample at its image's own size."""
    told = found.row
    if told is not None and told.status is Status.FAILED:
        return replace(row, reason=told.reason)
    size_hw, _ = read_upright_size(image)
    map_file = found.map if told is not None else found.picture
    grey_HW = _resize(open_grey(map_file), size_hw) if has_maps and map_file is not None else None
    if told is not None and found.mask is not None:
        mask_HW = _read_mask(found.mask, size_hw, reader)
    elif grey_HW is not None:
        mask_HW = grey_HW >= threshold * _WHITE
    else:
        assert found.picture is not None, "a prediction is a row of a report or a picture"
        mask_HW = _read_mask(found.picture, size_hw, reader)
    if grey_HW is not None:
        write_png_atomic(path_inside(out, f"maps/{row.output}"), grey_HW)
    write_png_atomic(path_inside(out, f"masks/{row.output}"), mask_HW.astype(np.uint8) * np.uint8(_WHITE))
    if told is not None:
        status = told.status if told.status is not Status.SKIPPED else Status.LABELLED
        return replace(row, status=status, confidence=told.confidence, reason=told.reason, source=told.source)
    if not mask_HW.any():
        return replace(row, status=Status.EMPTY, reason="the prediction is empty")
    return replace(row, status=Status.LABELLED, confidence=None, threshold=0.0 if grey_HW is None else threshold)


def _read_mask(path: Path, size_hw: tuple[int, int], reader: MaskReader) -> Any:
    """Read a mask at the size of its image, bool (H, W); another size is resized smoothly and thresholded at half."""
    mask_HW = reader.read(path).foreground
    if mask_HW.shape == size_hw:
        return mask_HW
    grey = Image.fromarray(mask_HW.astype(np.uint8) * np.uint8(_WHITE))
    return _resize(grey, size_hw) > _WHITE / 2


def _resize(grey: Image.Image, size_hw: tuple[int, int]) -> ByteArray:
    size_wh = size_hw[::-1]
    return np.asarray(grey if grey.size == size_wh else grey.resize(size_wh, Image.Resampling.BILINEAR))


@dataclass(frozen=True, kw_only=True, slots=True)
class Prediction:
    """The files that a folder holds for one name.

    Attributes
    ----------
    name : str
        Relative POSIX path of the picture, or of the image in a report.
    group : PurePosixPath
        Folder of the picture, or group in a report.
    picture : Path or None
        Mask or map of another method.
    mask, map : Path or None
        Files of an output folder of ours.
    row : Labelled or None
        Its row of the report.
    """

    name: str
    group: PurePosixPath
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
        self._by_stem: dict[str, list[Prediction]] = defaultdict(list)
        self.names: list[str] = []
        for prediction in _read_results(folder) if self.is_ours else _walk(folder):
            self.names.append(prediction.name)
            file = PurePosixPath(prediction.name)
            stems = {file.stem}
            if prediction.row is not None:
                self._by_id[prediction.row.image_id] = prediction
                stems |= {file.name, PurePosixPath(prediction.row.output).stem}
            for stem in stems:
                self._by_stem[stem].append(prediction)
        if not self.names:
            raise DataError(f"no predictions in {folder}: looked for {', '.join(sorted(SUFFIXES))} in it and below")

    def match(self, samples: Iterable[SampleRow]) -> Matching:
        """Find the prediction of each sample.

        A file fits by its name without suffix, or by the image's whole name (``7.jpg.png``). Files of the sample's
        group take precedence over files at the top of the folder. A file that fits several samples is assigned to none.
        """
        found: dict[str, Prediction] = {}
        problems: dict[str, str] = {}
        for sample in samples:
            candidates = self._candidates(sample)
            if not sample.group:
                problems[sample.id] = f"{sample.path.name}: it has no group"
            elif len(candidates) == 1:
                found[sample.id] = candidates[0]
            elif candidates:
                names = name_some(sorted(candidate.name for candidate in candidates))
                problems[sample.id] = f"{sample.path.name}: several predictions fit ({names}); keep one of them"
            else:
                problems[sample.id] = f"{sample.path.name}: no prediction {sample.group}/{sample.path.stem}"
        takers = Counter(prediction.name for prediction in found.values())
        for sample_id, prediction in list(found.items()):
            if takers[prediction.name] > 1:
                del found[sample_id]
                problems[sample_id] = f"{prediction.name} fits {takers[prediction.name]} samples; sort it into groups"
        used = {prediction.name for prediction in found.values()}
        return Matching(found=found, problems=problems, unused=tuple(name for name in self.names if name not in used))

    def _candidates(self, sample: SampleRow) -> list[Prediction]:
        if (own := self._by_id.get(sample.id)) is not None:
            return [own]
        image = PurePosixPath(sample.path.as_posix())
        named = [one for key in {image.stem, image.name} for one in self._by_stem.get(key, ())]
        distinct = {one.name: one for one in named}.values()
        exact = [one for one in distinct if one.group == PurePosixPath(sample.group)]
        if exact:  # a report has the image's whole name, which distinguishes 7.jpg from 7.bmp
            return [one for one in exact if one.row and PurePosixPath(one.name).name == image.name] or exact
        if self._by_folder:
            folders = image.parent.parts
            near = [one for one in distinct if one.group.parts and folders[-len(one.group.parts) :] == one.group.parts]
            if near:
                return near
        return [one for one in distinct if not one.group.parts]


def looks_like_masks(predictions: Mapping[str, Prediction]) -> bool:
    """Whether pictures hold but one value beside 0, or ids, indices or colours; an evenly spread sample is read."""
    rule = decide_rule([one.picture for one in predictions.values() if one.picture is not None])
    return rule.kind != "half" or set(rule.found) <= {0, rule.white}


def _walk(folder: Path) -> Iterator[Prediction]:
    for path in walk_files(folder):
        if path.suffix.lower() in SUFFIXES:
            relative = path.relative_to(folder).as_posix()
            yield Prediction(name=relative, group=PurePosixPath(relative).parent, picture=path)


def _read_results(folder: Path) -> Iterator[Prediction]:
    """Return the rows of a report with their files; each file is looked for when it is needed."""
    masks, maps = folder / ("masks" if (folder / "masks").is_dir() else "pseudo"), folder / "maps"
    for row in read_report(folder / REPORT):
        is_there = row.status is not Status.FAILED
        yield Prediction(
            name=row.image_id,
            group=PurePosixPath(row.group),
            mask=path_inside(masks, row.output) if is_there else None,
            map=path_inside(maps, row.output) if is_there and maps.is_dir() else None,
            row=row,
        )
