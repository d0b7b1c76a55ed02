"""Stage 3 alone: other thresholds, filters or borders for soft maps made before, without a network pass."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Mapping
from pathlib import Path

from umscosod.config import PipelineConfig, RefineConfig
from umscosod.config_io import DEFAULT_PRESET, load_config
from umscosod.errors import DataError
from umscosod.features.blank import blank_pair
from umscosod.pipeline.choosing import STORED
from umscosod.pipeline.outputs import finish_job
from umscosod.pipeline.prepare import Images, Prepared, find_groups, prepare
from umscosod.pipeline.refiner import Refiner, open_workers
from umscosod.pipeline.results import LabelReport
from umscosod.pipeline.rows import mixed_notes
from umscosod.pipeline.stored import Maps, check_stored, find_stored, hash_stored, read_stored
from umscosod.progress import ProgressFn, ignore_progress
from umscosod.refine.threshold import map_confidence

logger = logging.getLogger(__name__)


def refine_maps(
    images: Images,
    maps: Maps,
    out: str | Path,
    config: PipelineConfig | None = None,
    *,
    overwrite: bool = False,
    progress: ProgressFn = ignore_progress,
) -> LabelReport:
    """Make masks anew from stored soft maps, by the settings under ``refine``.

    Parameters
    ----------
    images, out, overwrite, progress
        As for `umscosod.label_groups`; ``OUT/maps`` holds the maps that the masks were made from.
    maps : path, or mapping of str to Path
        Folder of 8-bit grey PNGs laid out like the outputs; the ``OUT`` of an earlier job stands for ``OUT/maps``. Or
        a file by image id.
    config : PipelineConfig, optional
        By default the ``fast`` preset. Only ``data``, ``features`` and ``refine`` have an effect.

    Returns
    -------
    LabelReport
        An image whose map is missing or damaged is ``failed``, and takes no part in its group.

    Raises
    ------
    DataError
        No image has a map, or the maps are among the results in `out`.
    UmscosodError
        As for `umscosod.label_groups`.

    Notes
    -----
    b_bar of eq. 6 is the mean of 1 - conf over all maps given. A saved map has 256 levels, so that masks can differ
    from those of the job it came from where a pixel lies within 1/255 of a threshold, and where the image is smaller
    than the network's input.

    With ``refine.region_filter`` off no backbone is loaded. With it on, the first backbone's tokens come from the
    feature cache, or are made; those of ``embedded`` are whitened by the statistics of the images given here, also
    where the maps came from a network that was trained on others.
    """
    started = time.monotonic()
    config = load_config(DEFAULT_PRESET) if config is None else config
    groups = find_groups(images, Path(out))
    files = find_stored(groups, maps, Path(out))
    pair = None if looks_at_tokens(config.refine) else blank_pair()
    mode = {"verb": "refine"}
    with prepare(groups, out, config, mode=mode, overwrite=overwrite, progress=progress, pair=pair) as prepared:
        prepared.job.bind_maps(hash_stored(files))
        b_bar = _calibrate(prepared, files, progress)
        with open_workers(prepared) as pool:
            refiner = Refiner(prepared=prepared, labels=None, b_bars={STORED: b_bar}, pool=pool, stored=files)
            rows = refiner.run(progress)
        notes = [*prepared.notes, *mixed_notes(rows)]
        return finish_job(prepared, [*rows, *prepared.failed_rows()], notes, started, files)


def looks_at_tokens(config: RefineConfig) -> bool:
    """Whether refinement needs a backbone."""
    return config.enabled and config.region_filter


def _calibrate(prepared: Prepared, files: Mapping[str, Path], progress: ProgressFn) -> float:
    """Read every map once for b_bar, and leave out the images that have none."""
    size_px = prepared.config.features.size_px
    images = [image for group in prepared.features.groups for image in group.images]
    doubts: list[float] = []
    reasons: dict[str, str] = {}
    resized: list[Path] = []
    for number, image in enumerate(images):
        progress(number, len(images), "stored maps")
        try:
            if image.id not in files:
                raise DataError("no soft map was given for it; add one, or leave the image out")
            map_HW = read_stored(files[image.id], (size_px, size_px))
            if check_stored(files[image.id], image):
                resized.append(files[image.id])
            doubts.append(1.0 - map_confidence(map_HW))
        except DataError as error:
            reasons[image.id] = str(error)
    progress(len(images), len(images), "stored maps")
    prepared.features.leave_out(reasons)
    if resized:
        logger.warning(
            "%d maps have another size than their images (%s is one): they are resized", len(resized), resized[0]
        )
    return math.fsum(doubts) / len(doubts) if doubts else 0.0
