"""DenseCRF over many images at once, in processes: it holds the GIL, so threads gain nothing.

A worker reads jobs on its standard input and writes answers on its standard output. Its input ends when the pool closes
it or when the parent process dies, however it dies; then the worker ends. Both ways travel pickles, which no
third party writes.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import pickle  # between our own processes  # nosec B403
import queue
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import IO, Protocol

import cv2

from umscosod.config import CrfConfig
from umscosod.device import count_cores
from umscosod.errors import DataError
from umscosod.refine.crf import CrfInput, crf_available, refine_mask
from umscosod.types import BoolArray

logger = logging.getLogger(__name__)

_ENDS = (BrokenPipeError, EOFError, pickle.UnpicklingError)  # of the process at the other end; the last: amid a pickle


def _send(stream: IO[bytes], content: object) -> None:
    pickle.dump(content, stream, pickle.HIGHEST_PROTOCOL)
    stream.flush()


@contextlib.contextmanager
def _killed_at_end_of(descriptor: int) -> Iterator[None]:
    """Have the system end this process, inside the block, when a pipe's other end is closed.

    DenseCRF holds the GIL for seconds, on some pictures for minutes, in which no Python runs. SIGIO is sent at anything
    new on the pipe, and ends a process by default; the next job comes only after the answer, hence after the block.
    Where there is no such signal the process ends after the image.
    """
    if sys.platform == "win32":
        yield
        return
    import fcntl

    flags = fcntl.fcntl(descriptor, fcntl.F_GETFL)
    fcntl.fcntl(descriptor, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(descriptor, fcntl.F_SETFL, flags | os.O_ASYNC)
    try:
        yield
    finally:
        fcntl.fcntl(descriptor, fcntl.F_SETFL, flags)


def _answer(start: CrfInput, config: CrfConfig) -> tuple[BoolArray, bool] | DataError:
    try:
        return refine_mask(start, config)
    except DataError as error:  # the caller's error, to be raised there
        return error


def main() -> None:
    """Work until the input ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # it is the parent's to heed
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what a library prints must not pass for an answer
    cv2.setNumThreads(1)  # the workers as a whole already fill the cores
    with contextlib.suppress(*_ENDS):
        while True:
            start, config = pickle.load(sys.stdin.buffer)  # of the parent  # nosec B301
            with _killed_at_end_of(sys.stdin.fileno()):
                answer = _answer(start, config)
            _send(answers, answer)


_ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
# By -c: the worker finds modules exactly where this process does, whatever its folder and however sys.path came about.
_PROGRAM = "import json, sys; sys.path[:] = json.loads(sys.argv[1]); from umscosod.refine import crf_pool; "
_PROGRAM += "crf_pool.main()"


class _WorkerDiedError(Exception):
    """A worker ended in the middle of a job; the message says how."""


class _Worker:
    """One process. It ends with its input, so also when this process is killed, and holds none of its streams."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(  # this Python, on a module of ours  # nosec B603
            [sys.executable, "-c", _PROGRAM, json.dumps(sys.path, default=str)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, **_ONE_THREAD},
            start_new_session=True,  # Ctrl-C in a terminal is for this process to heed
        )
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self._jobs, self._answers = self.process.stdin, self.process.stdout

    def refine(self, start: CrfInput, config: CrfConfig) -> tuple[BoolArray, bool] | DataError:
        """See `refine_mask`; raises _WorkerDiedError."""
        try:
            _send(self._jobs, (start, config))
            answer: tuple[BoolArray, bool] | DataError = pickle.load(self._answers)  # of our worker  # nosec B301
        except _ENDS:
            code = self.process.wait()
            raise _WorkerDiedError(signal.Signals(-code).name if code < 0 else f"exit code {code}") from None
        return answer

    def close(self) -> None:
        """End it at once."""
        self.process.kill()
        with contextlib.suppress(BrokenPipeError):  # it died before it had read all of a job
            self._jobs.close()
        self._answers.close()
        self.process.wait()


class Refiner(Protocol):
    """Does DenseCRF in another place than this process; made by `open_pool`."""

    def refine_all(self, starts: Sequence[CrfInput], config: CrfConfig) -> list[tuple[BoolArray, bool, str]]:
        """See `refine_masks`."""
        ...


class CrfPool:
    """Processes for `refine_masks`; made by `open_pool`. They boot while the caller goes on."""

    def __init__(self, count: int) -> None:
        self.count = count
        self._workers = [_Worker() for _ in range(count)]
        self._idle: queue.SimpleQueue[_Worker] = queue.SimpleQueue()
        for worker in self._workers:
            self._idle.put(worker)
        self._is_stopped = False

    def refine_all(self, starts: Sequence[CrfInput], config: CrfConfig) -> list[tuple[BoolArray, bool, str]]:
        """See `refine_masks`."""
        with ThreadPoolExecutor(self.count) as threads:
            try:
                return list(threads.map(lambda start: self.refine(start, config), starts))
            except KeyboardInterrupt:
                self.stop()  # or the block would end only with the images at work
                raise

    def refine(self, start: CrfInput, config: CrfConfig) -> tuple[BoolArray, bool, str]:
        """See `refine_masks`, for one image."""
        worker, ended = self._idle.get(), ""
        try:
            for what in ("its image is tried in a fresh one", "its mask is left as it is, see its reason"):
                try:
                    answer = worker.refine(start, config)
                except _WorkerDiedError as death:
                    if self._is_stopped:
                        raise
                    worker.close()
                    place, ended = self._workers.index(worker), str(death)
                    self._workers[place] = worker = _Worker()
                    logger.warning("a DenseCRF worker died (%s): %s", ended, what)
                    continue
                if isinstance(answer, DataError):
                    raise answer
                return (*answer, "")
        finally:
            self._idle.put(worker)
        return start.mask_HW, False, f"DenseCRF died on it ({ended}): its border is that of its map"

    def stop(self) -> None:
        """End all processes at once, also those that are at work: they keep nothing."""
        self._is_stopped = True
        for worker in self._workers:
            worker.close()


def runs_in_torch(device: str) -> bool:
    """Whether a job on this device refines its masks there, see `umscosod.refine.crf_torch`."""
    return device.startswith("cuda")


@contextlib.contextmanager
def open_pool(config: CrfConfig, n_images: int | None = None, device: str = "cpu") -> Iterator[Refiner | None]:
    """Open what does the work of `refine_masks`, for the length of a ``with`` block.

    Parameters
    ----------
    config : CrfConfig
        ``workers`` processes; 0: one per core that this process may use.
    n_images : int, optional
        Most images that one call of `refine_masks` will bring: no more processes than that.
    device : str
        Of the job. On CUDA there are no processes: `umscosod.refine.crf_torch.TorchCrf`, which needs no pydensecrf.

    Yields
    ------
    Refiner or None
        None, meaning in-process, for one worker or where the CRF is off or cannot be loaded. Neither this process's
        environment nor its modules are touched, so that it may be called from any thread. The processes end with the
        block or with this process, however that ends.
    """
    if runs_in_torch(device) and config.enabled:
        from umscosod.refine.crf_torch import TorchCrf  # the rest of this room works without torch

        accelerated = TorchCrf(device)
        try:
            yield accelerated
        finally:
            accelerated.stop()
        return
    count = config.workers or count_cores()
    if n_images is not None:
        count = min(count, n_images)
    if count <= 1 or not config.enabled or not crf_available():
        yield None
        return
    pool = CrfPool(count)
    try:
        yield pool
    finally:
        pool.stop()


def refine_masks(
    starts: Sequence[CrfInput], config: CrfConfig, pool: Refiner | None = None
) -> list[tuple[BoolArray, bool, str]]:
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
    if pool is None or not config.enabled:
        return [(*refine_mask(start, config), "") for start in starts]
    return pool.refine_all(starts, config)
