"""DenseCRF over many images at once. It holds the GIL, so threads gain nothing: processes do."""

from __future__ import annotations

import logging
import multiprocessing
import os
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import BrokenExecutor, Executor, ProcessPoolExecutor
from contextlib import contextmanager
from types import ModuleType

import cv2

from umscosod.config import CrfConfig
from umscosod.refine.crf import CrfInput, crf_available, refine_mask
from umscosod.types import BoolArray

logger = logging.getLogger(__name__)

_THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def _limit_threads() -> None:
    """One thread per worker: the pool as a whole already fills the cores."""
    cv2.setNumThreads(1)


def _report_ready() -> None:
    """Do nothing; a first job makes the pool start a process."""


@contextmanager
def _worker_environment() -> Iterator[None]:
    """Hand processes started inside one thread per library and an empty main module.

    Spawned processes import the caller's main module again. The CRF needs nothing of it, and a script without an
    ``if __name__ == "__main__"`` guard would start its whole run anew in each worker.
    """
    before = {name: os.environ.get(name) for name in _THREAD_VARIABLES}
    main = sys.modules["__main__"]
    os.environ.update(dict.fromkeys(_THREAD_VARIABLES, "1"))
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextmanager
def open_pool(config: CrfConfig) -> Iterator[Executor | None]:
    """Open processes for `refine_masks`, for the length of a ``with`` block.

    Parameters
    ----------
    config : CrfConfig
        ``workers`` processes; 0: one per core.

    Yields
    ------
    Executor or None
        None, meaning in-process, for one worker or where the CRF is off or cannot be loaded. Processes are spawned
        (safe beside torch's threads and CUDA) and boot while the caller goes on.
    """
    workers = config.workers or os.cpu_count() or 1
    if workers == 1 or not config.enabled or not crf_available():
        yield None
        return
    pool = ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), _limit_threads)
    try:
        with _worker_environment():
            # One job per worker, sent before the first can be ready, starts all of them in this environment.
            for _ in range(workers):
                pool.submit(_report_ready)
        yield pool
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def refine_masks(
    starts: Sequence[CrfInput], config: CrfConfig, pool: Executor | None = None
) -> list[tuple[BoolArray, bool]]:
    """`refine_mask` over a group.

    Parameters
    ----------
    starts : sequence of CrfInput
        One per image.
    config : CrfConfig
    pool : Executor, optional
        From `open_pool`. None: in this process. The results are the same bits either way.

    Returns
    -------
    list of (mask, did_run)
        In the order given.

    Raises
    ------
    DataError
        A picture is not uint8 RGB, or a map and its mask differ in shape.

    Notes
    -----
    A pool whose worker died (killed for memory, say) costs a warning and time, never the group: the whole of it is
    computed again in this process.
    """
    if pool is not None and config.enabled and len(starts) > 1:
        try:
            jobs = [pool.submit(refine_mask, start, config) for start in starts]
            return [job.result() for job in jobs]
        except BrokenExecutor as error:
            logger.warning("a DenseCRF worker died (%s): this group is refined in one process, more slowly", error)
    return [refine_mask(start, config) for start in starts]
