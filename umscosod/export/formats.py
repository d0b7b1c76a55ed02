"""Exports masks in any format, from items or from an output folder."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from umscosod.data.files import real_path
from umscosod.errors import ConfigError, DataError
from umscosod.export.coco import write_coco
from umscosod.export.cvat import write_cvat
from umscosod.export.folder import ExportFolder, open_export, path_inside
from umscosod.export.items import DEFAULT_CATEGORY, ExportItem, ExportReport, Masks, Options, iter_masks
from umscosod.export.png import write_mask
from umscosod.export.report import read_report
from umscosod.export.yolo import write_yolo
from umscosod.progress import ProgressFn, ignore_progress
from umscosod.types import ImageGroup, Labelled, Status

STAGE = "export"


def export_items(
    items: Sequence[ExportItem],
    out: str | os.PathLike[str],
    form: str,
    *,
    category: str = DEFAULT_CATEGORY,
    per_group: bool = False,
    per_region: bool = False,
    image_root: Path | None = None,
    overwrite: bool = False,
    progress: ProgressFn = ignore_progress,
) -> ExportReport:
    """Write masks in one of the `FORMATS`.

    Parameters
    ----------
    items : sequence of ExportItem
        Names only; masks are read one at a time.
    out : path
    form : str
        ``png``, ``coco``, ``yolo`` or ``cvat``.
    category, per_group, per_region, image_root
        See `umscosod.export.items.Options`. A PNG tree has no categories; ``yolo`` always has one object for each
        island.
    overwrite : bool
        See `umscosod.export.folder.open_export`.
    progress : callable
        Called after each image as ``(done, total, "export")``.

    Returns
    -------
    ExportReport
        ``n_objects`` counts the annotations; for ``yolo`` lines, for ``png`` images with an object.

    Raises
    ------
    ConfigError
        There is no such format, it has no categories or regions to choose, or the category has no name.
    DataError
        As `umscosod.export.folder.open_export`.
    """
    if form not in FORMATS:
        raise ConfigError(f"no format {form!r}; choose one of: {', '.join(FORMATS)}")
    if form == "png" and per_group:
        raise ConfigError("png has no categories: each group is a folder already; leave per_group out")
    if form in ("png", "yolo") and per_region:
        raise ConfigError(f"{form} has no choice of regions; leave per_region out")
    if form != "png" and not category.strip():
        raise ConfigError("the category needs a name, got ''; for example: co-salient")
    options = Options(category=category, per_group=per_group, per_region=per_region, image_root=image_root)
    with open_export(out, form, overwrite=overwrite) as folder:
        _WRITERS[form](folder, iter_masks(_report_each(items, progress), folder.counts), options)
    return folder.counts.report(folder.out)


def write_pngs(folder: ExportFolder, masks: Masks, _: Options) -> None:
    """Write each mask under its output's name: grey 0 and 255, at the mask's own size."""
    for item, mask_HW in masks:
        write_mask(folder.add(item.output), mask_HW)
        folder.counts.n_objects += bool(mask_HW.any())


_WRITERS = {"png": write_pngs, "coco": write_coco, "yolo": write_yolo, "cvat": write_cvat}
FORMATS = tuple(_WRITERS)


def export_results(
    results: str | os.PathLike[str],
    out: str | os.PathLike[str],
    form: str,
    *,
    images: Sequence[ImageGroup] | None = None,
    image_root: Path | None = None,
    category: str = DEFAULT_CATEGORY,
    per_group: bool = False,
    per_region: bool = False,
    overwrite: bool = False,
    progress: ProgressFn = ignore_progress,
) -> ExportReport:
    """Export the masks of an output folder.

    Parameters
    ----------
    results : path
        Output folder of ``umscosod label``, ``predict`` or ``pseudo``; for ``pseudo`` its pseudo-labels are exported.
    out, form, category, per_group, per_region, overwrite, progress
        See `export_items`.
    images : sequence of ImageGroup, optional
        The labelled groups. With them, names are paths below `image_root`, files are linked into a YOLO data set, and
        rotated EXIF orientations are counted. Without them, names are those of the report.
    image_root : Path, optional

    Returns
    -------
    ExportReport
        Failed images are among the skipped ones.

    Raises
    ------
    ConfigError
        See `export_items`.
    DataError
        There is no report in `results`, none of its images is in `images`, or `out` is unusable.
    """
    results = Path(results)
    rows = read_report(results / "report.json")
    masks = _find_masks(results, rows)
    if real_path(out) == real_path(results):
        raise DataError(f"{out}: is the folder of results itself; choose another folder")
    paths = None if images is None else {image.id: image.path.absolute() for group in images for image in group.images}
    if paths is not None and not any(row.image_id in paths for row in rows):
        raise DataError(f"none of the {len(rows)} images in {results} is among the images given; give those labelled")
    items: list[ExportItem] = []
    left_out: list[str] = []
    for row in rows:
        if reason := _unusable(row, paths):
            left_out.append(f"{row.image_id}: {reason}")
            continue
        image = Path(row.image_id) if paths is None else paths[row.image_id]
        items.append(
            ExportItem(
                image=image,
                output=row.output,
                group=row.group,
                mask=path_inside(masks, row.output),
                confidence=row.confidence,
            )
        )
    report = export_items(
        items,
        out,
        form,
        category=category,
        per_group=per_group,
        per_region=per_region,
        image_root=None if image_root is None else image_root.absolute(),
        overwrite=overwrite,
        progress=progress,
    )
    return replace(report, skipped=(*left_out, *report.skipped))


def _unusable(row: Labelled, paths: Mapping[str, Path] | None) -> str:
    """Return why a row of a report cannot be exported; ``""`` if it can."""
    if row.status is Status.FAILED:
        return f"failed ({row.reason})"
    return "" if paths is None or row.image_id in paths else "is not among the images given"


def _report_each(items: Sequence[ExportItem], progress: ProgressFn) -> Iterator[ExportItem]:
    for done, item in enumerate(items):
        progress(done, len(items), STAGE)
        yield item
    progress(len(items), len(items), STAGE)


def _find_masks(results: Path, rows: Sequence[Labelled]) -> Path:
    """Find the tree of masks; pseudo-labels only for a job that made no masks, never instead of missing masks."""
    if (results / "masks").is_dir():
        return results / "masks"
    if any(row.threshold > 0 for row in rows):  # only refinement sets a threshold
        raise DataError(f"{results}: its folder of masks is gone; give the command that made it again, then export")
    return results / "pseudo"
