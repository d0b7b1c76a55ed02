"""Defines the input of an export, one item an image, and its counts."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from umscosod.data.foreign import MaskReader
from umscosod.data.images import read_upright_size
from umscosod.errors import DataError, count_of
from umscosod.types import BoolArray, Labelled, Status, check_relative

logger = logging.getLogger(__name__)


class Tally:
    """Counts rows by status and by source, and averages the confidence of labelled ones.

    Examples
    --------
    >>> tally = Tally()
    >>> row = Labelled(image_id="a", group="g", output="a.png", status=Status.LABELLED, confidence=0.5)
    >>> tally.add(row)
    >>> tally.as_dict()["labelled"], tally.as_dict()["failed"], tally.as_dict()["mean_confidence"]
    (1, 0, 0.5)
    """

    def __init__(self) -> None:
        self._statuses: Counter[Status] = Counter()
        self._sources: Counter[str] = Counter()
        self._groups: set[str] = set()
        self._mixed: set[str] = set()
        self._confidence = 0.0

    def add(self, row: Labelled) -> None:
        """Count one row."""
        self._statuses[row.status] += 1
        self._groups.add(row.group)
        if row.is_mixed:
            self._mixed.add(row.group)
        if row.source:
            self._sources[row.source] += 1
        if row.status is Status.LABELLED:
            self._confidence += row.confidence or 0.0

    def as_dict(self) -> dict[str, Any]:
        """Return ``images``, ``groups``, ``mixed_groups``, a count per status, ``sources``, and ``mean_confidence``.

        The mean is over labelled images, rounded to 6 digits; None if no image is labelled.
        """
        labelled = self._statuses[Status.LABELLED]
        return {
            "images": self._statuses.total(),
            "groups": len(self._groups),
            "mixed_groups": len(self._mixed),
            **{status.value: self._statuses[status] for status in Status},
            "sources": dict(sorted(self._sources.items())),
            "mean_confidence": round(self._confidence / labelled, 6) if labelled else None,
        }


DEFAULT_CATEGORY = "co-salient"
"""Name of the one category: the object has no name of its own."""
_NAMED_IN_SUMMARY = 3


@dataclass(frozen=True, kw_only=True, slots=True)
class ExportItem:
    """One mask to export.

    Attributes
    ----------
    image : Path
        Absolute path of the image file; a relative path is only a name, and no file is looked for.
    output : str
        Relative POSIX name of the mask, ``"cat/7.png"``: unique in the export.
    group : str
        Name of the category if each group is a category.
    mask : Path
        Mask file in any of the modes that `umscosod.data.foreign.MaskReader` reads.
    confidence : float or None
        In [0, 1]; None if unknown (a person's mask).
    """

    image: Path
    output: str
    group: str
    mask: Path
    confidence: float | None = None

    def __post_init__(self) -> None:
        check_relative(self.output, "output name")

    @property
    def image_file(self) -> Path | None:
        """The image file, if it is available."""
        return self.image if self.image.is_absolute() and self.image.is_file() else None


@dataclass(frozen=True, kw_only=True, slots=True)
class ExportReport:
    """Outcome of an export.

    Attributes
    ----------
    out : Path
        The folder written to.
    n_images : int
        Images in the export, also those with an empty mask.
    n_objects : int
        Annotations: one an image, or one a region.
    n_empty : int
        Images whose mask is empty: exported as images without an object.
    n_turned : int
        Images stored rotated, with an EXIF orientation; their masks are of the upright picture.
    n_dropped : int
        Regions that the format cannot hold (a polygon needs three points).
    n_unlabelled : int
        Requested images that have no mask yet; not an error.
    skipped : tuple of str
        Reasons, one for each skipped image.
    """

    out: Path
    n_images: int = 0
    n_objects: int = 0
    n_empty: int = 0
    n_turned: int = 0
    n_dropped: int = 0
    n_unlabelled: int = 0
    skipped: tuple[str, ...] = ()

    @property
    def is_success(self) -> bool:
        """Whether at least one image was written, and none was skipped."""
        return self.n_images > 0 and not self.skipped

    @property
    def summary(self) -> str:
        """Return one sentence for people.

        Examples
        --------
        >>> ExportReport(out=Path("coco"), n_images=3, n_objects=2, n_empty=1, skipped=("a.png: no such file",)).summary
        '3 images with 2 objects (1 without) exported to coco; 1 left out: a.png: no such file'
        """
        text = f"{count_of(self.n_images, 'image')} with {count_of(self.n_objects, 'object')}"
        if self.n_empty:
            text += f" ({self.n_empty} without)"
        text += f" exported to {self.out}"
        if self.n_unlabelled:
            text += f"; {self.n_unlabelled} without a mask"
        if self.n_dropped:
            text += f"; {count_of(self.n_dropped, 'region')} too small for a polygon"
        if self.n_turned:
            text += f"; {count_of(self.n_turned, 'image')} with a rotated EXIF orientation, which the masks fit upright"
        if self.skipped:
            more = len(self.skipped) - _NAMED_IN_SUMMARY
            text += f"; {len(self.skipped)} left out: {'; '.join(self.skipped[:_NAMED_IN_SUMMARY])}"
            text += f"; and {more} more" if more > 0 else ""
        return text


Masks = Iterator[tuple[ExportItem, BoolArray]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    """What the writers of formats with categories are asked for.

    Attributes
    ----------
    category : str
        Name of the one category.
    per_group : bool
        One category for each group, numbered in order of appearance.
    per_region : bool
        One annotation for each connected region; otherwise one an image.
    image_root : Path or None
        Names of images are relative to it; without it, a name is the item's path.
    """

    category: str = DEFAULT_CATEGORY
    per_group: bool = False
    per_region: bool = False
    image_root: Path | None = None


@dataclass(kw_only=True, slots=True)
class Counts:
    """The counts of a writer while it reads masks."""

    n_images: int = 0
    n_objects: int = 0
    n_empty: int = 0
    n_turned: int = 0
    n_dropped: int = 0
    skipped: list[str] = field(default_factory=list)

    def report(self, out: Path) -> ExportReport:
        """Return the counts as a report."""
        return ExportReport(out=out, **{**asdict(self), "skipped": tuple(self.skipped)})


def iter_masks(items: Iterable[ExportItem], counts: Counts) -> Masks:
    """Read masks one after the other, and count; one is in memory at a time.

    An unreadable mask, a mask of another size than its (upright) image, or a repeated output name is skipped and added
    to ``counts.skipped``: one bad file never ends an export.

    Yields
    ------
    (ExportItem, ndarray bool (H, W))
    """
    seen: set[str] = set()
    reader = MaskReader()
    for item in items:
        try:
            if item.output.casefold() in seen:
                raise DataError(f"{item.output}: two images would get this name; export them apart")
            mask_HW = reader.read(item.mask).foreground
            is_turned = _check_against_image(item, mask_HW)
        except DataError as error:
            logger.warning("left out of the export: %s", error)
            counts.skipped.append(str(error))
            continue
        seen.add(item.output.casefold())
        counts.n_images += 1
        counts.n_turned += is_turned
        counts.n_empty += not mask_HW.any()
        yield item, mask_HW
    reader.warn()
    if counts.n_turned:
        logger.warning(
            "%s with a rotated EXIF orientation: the masks fit them upright, not as readers see them who ignore "
            "EXIF; turn the files themselves to be safe",
            count_of(counts.n_turned, "image"),
        )


def _check_against_image(item: ExportItem, mask_HW: BoolArray) -> bool:
    """Compare sizes if the image file is available; return whether it is stored rotated (EXIF orientation)."""
    if item.image_file is None:
        return False
    size_hw, is_turned = read_upright_size(item.image_file)
    if size_hw != mask_HW.shape:
        raise DataError(
            f"{item.mask}: the mask has {mask_HW.shape[1]} x {mask_HW.shape[0]} pixels, its image {item.image} "
            f"{size_hw[1]} x {size_hw[0]}; make the mask at the image's own size"
        )
    return is_turned
