"""DenseCRF over many images at once, in processes: it holds the GIL, so threads gain nothing."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Sequence

from umscosod.config import CrfConfig
from umscosod.device import count_cores
from umscosod.refine.crf import CrfInput, crf_available, refine_mask
from umscosod.types import BoolArray
from umscosod.workers import WorkerDiedError, WorkerPool

logger = logging.getLogger(__name__)


@contextlib.contextmanager
def open_pool(config: CrfConfig, n_images: int | None = None) -> Iterator[WorkerPool | None]:
    """Open processes for `refine_masks`, for the length of a ``with`` block.

    Parameters
    ----------
    config : CrfConfig
        ``workers`` processes; 0: one per core that this process may use.
    n_images : int, optional
        Most images that one call of `refine_masks` will bring: no more processes than that.

    Yields
    ------
    WorkerPool or None
        None, meaning in-process, for one worker or where the CRF is off or cannot be loaded.
    """
    count = config.workers or count_cores()
    if n_images is not None:
        count = min(count, n_images)
    if count <= 1 or not config.enabled or not crf_available():
        yield None
        return
    with WorkerPool(count) as pool:
        yield pool


def refine_masks(
    starts: Sequence[CrfInput], config: CrfConfig, pool: WorkerPool | None = None
) -> list[tuple[BoolArray, bool, str]]:
    """`refine_mask` over a group.

    Parameters
    ----------
    starts : sequence of CrfInput
        One per image.
    config : CrfConfig
    pool : WorkerPool, optional
        From `open_pool`. None: in this process. The results are the same bits either way.

    Returns
    -------
    list of (mask, did_run, failure)
        In the order given. The failure is empty, or says why an image's mask is the one given.

    Raises
    ------
    DataError
        A picture is not uint8 RGB, or a map and its mask differ in shape.

    Notes
    -----
    An image whose worker died (killed for memory, say) is tried once more in a fresh one, never in this process, which
    it could end too. If that dies as well, its mask stays as it is: one image never costs the group.
    """
    if pool is None or not config.enabled:
        return [(*refine_mask(start, config), "") for start in starts]

    def refine(start: CrfInput) -> tuple[BoolArray, bool, str]:
        try:
            return (*pool.call(refine_mask, start, config), "")
        except WorkerDiedError as death:
            if pool.is_stopped:
                raise
            failure = f"DenseCRF died on it ({death}): its border is that of its map"
            logger.warning("a DenseCRF worker died (%s): its mask is left as it is, see its reason", death)
            return start.mask_HW, False, failure

    return list(pool.map(refine, starts))
