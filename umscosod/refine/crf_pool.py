"""DenseCRF over many images at once: in processes, as it holds the GIL, so that threads gain nothing; or on a GPU."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Protocol

from umscosod.config import CrfConfig
from umscosod.device import count_cores
from umscosod.refine.crf import CrfInput, crf_available, refine_mask
from umscosod.types import BoolArray
from umscosod.workers import WorkerDiedError, WorkerPool

logger = logging.getLogger(__name__)

Refined = list[tuple[BoolArray, bool, str]]
"""Mask, whether DenseCRF ran, and why it did not, of each image; see `refine_masks`."""


class Refiner(Protocol):
    """Does DenseCRF in another place than this process; made by `open_pool`."""

    def begin(self, starts: Sequence[CrfInput], config: CrfConfig) -> Callable[[], Refined]:
        """See `begin_masks`."""
        ...


class CrfPool:
    """Processes for `refine_masks`.

    Parameters
    ----------
    pool : WorkerPool
    """

    def __init__(self, pool: WorkerPool) -> None:
        self.pool = pool
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="umscosod-crf")  # one group after the other

    def begin(self, starts: Sequence[CrfInput], config: CrfConfig) -> Callable[[], Refined]:
        """See `begin_masks`; who is interrupted while it waits stops the pool."""
        refined = self._thread.submit(self.refine_all, starts, config)

        def wait() -> Refined:
            try:
                return refined.result()
            except KeyboardInterrupt:
                self.pool.stop()
                raise

        return wait

    def refine_all(self, starts: Sequence[CrfInput], config: CrfConfig) -> Refined:
        """See `refine_masks`."""
        return list(self.pool.map(partial(self._refine, config), starts))

    def _refine(self, config: CrfConfig, start: CrfInput) -> tuple[BoolArray, bool, str]:
        try:
            return (*self.pool.call(refine_mask, start, config), "")
        except WorkerDiedError as death:
            if self.pool.is_stopped:
                raise
            logger.warning("a DenseCRF worker died (%s): its mask is left as it is, see its reason", death)
            return start.mask_HW, False, f"DenseCRF died on it ({death}): its border is that of its map"


def runs_in_torch(device: str) -> bool:
    """Whether a job on this device refines its masks there, see `umscosod.refine.crf_torch`."""
    return device.startswith("cuda")


def count_processes(config: CrfConfig, n_images: int | None = None, device: str = "cpu") -> int:
    """Count the processes that `open_pool` gives; 0 where DenseCRF runs elsewhere or not at all."""
    if runs_in_torch(device) or not config.enabled or not crf_available():
        return 0
    count = config.workers or count_cores()
    count = count if n_images is None else min(count, n_images)
    return count if count > 1 else 0


@contextlib.contextmanager
def open_pool(
    config: CrfConfig, n_images: int | None = None, device: str = "cpu", running: WorkerPool | None = None
) -> Iterator[Refiner | None]:
    """Open what does the work of `refine_masks`, for the length of a ``with`` block.

    Parameters
    ----------
    config : CrfConfig
        ``workers`` processes; 0: one per core that this process may use.
    n_images : int, optional
        Most images that one call of `refine_masks` will bring: no more processes than that.
    device : str
        Of the job. On CUDA there are no processes: `umscosod.refine.crf_torch.TorchCrf`, which needs no pydensecrf.
    running : WorkerPool, optional
        Taken where it has processes enough, and left as it is.

    Yields
    ------
    Refiner or None
        None, meaning in-process, for one worker or where the CRF is off or cannot be loaded.
    """
    if runs_in_torch(device) and config.enabled:
        from umscosod.refine.crf_torch import TorchCrf  # the rest of this room works without torch

        with contextlib.closing(TorchCrf(device)) as accelerated:
            yield accelerated
        return
    count = count_processes(config, n_images, device)
    if not count:
        yield None
        return
    if running is not None and running.count >= count:
        yield CrfPool(running)
        return
    with WorkerPool(count) as pool:
        yield CrfPool(pool)


def refine_masks(starts: Sequence[CrfInput], config: CrfConfig, pool: Refiner | None = None) -> Refined:
    """`refine_mask` over a group.

    Parameters
    ----------
    starts : sequence of CrfInput
        One per image.
    config : CrfConfig
    pool : Refiner, optional
        From `open_pool`. None: in this process. The results of processes are the same bits either way.

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
    return begin_masks(starts, config, pool)()


def begin_masks(starts: Sequence[CrfInput], config: CrfConfig, pool: Refiner | None = None) -> Callable[[], Refined]:
    """Begin `refine_masks` where there are processes for it: what is returned waits for it, or does the work."""
    if pool is None or not config.enabled:
        return lambda: [(*refine_mask(start, config), "") for start in starts]
    return pool.begin(starts, config)
