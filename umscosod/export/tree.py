"""Masks as a tree of PNG files, named like the images."""

from __future__ import annotations

import os
from collections.abc import Iterable

from umscosod.export.folder import open_export
from umscosod.export.items import Counts, ExportItem, ExportReport, iter_masks
from umscosod.export.png import write_mask


def export_png(items: Iterable[ExportItem], out: str | os.PathLike[str], *, overwrite: bool = False) -> ExportReport:
    """Write each mask as ``OUT/<output>``: grey 0 and 255, at the mask's own size.

    Parameters
    ----------
    items : iterable of ExportItem
        Read one at a time.
    out : path
    overwrite : bool
        See `umscosod.export.folder.open_export`.

    Returns
    -------
    ExportReport
        ``n_objects`` counts images with an object.

    Raises
    ------
    DataError
        As `umscosod.export.folder.open_export`.
    """
    counts = Counts()
    with open_export(out, "png", counts, overwrite=overwrite) as folder:
        for item, mask_HW in iter_masks(items, counts):
            write_mask(folder.add(item.output), mask_HW)
            counts.n_objects += bool(mask_HW.any())
    return counts.report(folder.out)
