"""Worker processes of this machine: for work that holds the GIL, where threads gain nothing.

A worker reads calls on its standard input and writes answers on its standard output. Its input ends when the pool
closes it or when the parent process dies, however it dies; then the worker ends. Both ways travel pickles, which no
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
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import IO, Any, Self, TypeVar

import cv2

from umscosod.device import count_cores
from umscosod.engine import Home, Work, call_at_home, tell
from umscosod.errors import EngineError

logger = logging.getLogger(__name__)

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")

_ENDS = (BrokenPipeError, EOFError, pickle.UnpicklingError)  # of the process at the other end; the last: amid a pickle
_LEAST_IMAGES = 64  # starting a process takes as long as work on some twenty
_MOST_PROCESSES = 8  # for a job; each holds some 250 MB
_QUEUED = 2  # pieces of work for each worker: the one at work, and the next


def _send(stream: IO[bytes], content: bytes) -> None:
    stream.write(content)
    stream.flush()


@contextlib.contextmanager
def _killed_at_end_of(descriptor: int) -> Iterator[None]:
    """Have the system end this process, inside the block, when a pipe's other end is closed.

    DenseCRF holds the GIL for seconds, on some pictures for minutes, in which no Python runs. SIGIO is sent at anything
    new on the pipe, and ends a process by default; the next call comes only after the answer, hence after the block.
    Where there is no such signal the process ends after the call.
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


def _answer(function: Callable[..., Any], given: tuple[Any, ...]) -> bytes:
    """Pickle the result, or the error, which is to be raised at the caller's."""
    try:
        return pickle.dumps((function(*given), None), pickle.HIGHEST_PROTOCOL)
    except Exception as error:
        with contextlib.suppress(Exception):
            return pickle.dumps((None, error), pickle.HIGHEST_PROTOCOL)
        return pickle.dumps((None, RuntimeError(f"{type(error).__name__}: {error}")), pickle.HIGHEST_PROTOCOL)


def main() -> None:
    """Work until the input ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # it is the parent's to heed
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what a library prints must not pass for an answer
    cv2.setNumThreads(1)  # the workers as a whole already fill the cores
    with contextlib.suppress(*_ENDS):
        while True:
            function, given = pickle.load(sys.stdin.buffer)  # of the parent  # nosec B301
            with _killed_at_end_of(sys.stdin.fileno()):
                answer = _answer(function, given)
            _send(answers, answer)


_ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
# By -c: the worker finds modules exactly where this process does, whatever its folder and however sys.path came about.
_PROGRAM = "import json, sys; sys.path[:] = json.loads(sys.argv[1]); from umscosod import workers; workers.main()"


class WorkerDiedError(Exception):
    """A worker ended in the middle of a call; the message says how."""


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
        self._calls, self._answers = self.process.stdin, self.process.stdout

    def call(self, function: Callable[..., Any], given: tuple[Any, ...]) -> Any:
        """See `WorkerPool.call`."""
        try:
            _send(self._calls, pickle.dumps((function, given), pickle.HIGHEST_PROTOCOL))
            result, error = pickle.load(self._answers)  # of our worker  # nosec B301
        except _ENDS:
            code = self.process.wait()
            raise WorkerDiedError(signal.Signals(-code).name if code < 0 else f"exit code {code}") from None
        if error is not None:
            raise error
        return result

    def close(self) -> None:
        """End it at once."""
        self.process.kill()
        with contextlib.suppress(BrokenPipeError):  # it died before it had read all of a call
            self._calls.close()
        self._answers.close()
        self.process.wait()


class WorkerPool:
    """Worker processes; they boot while the caller goes on. They end with the block or with this process.

    Neither this process's environment nor its modules are touched, so that a pool may be used in any thread.

    Parameters
    ----------
    count : int
    """

    def __init__(self, count: int) -> None:
        self.count = count
        self._workers = [_Worker() for _ in range(count)]
        self._idle: queue.SimpleQueue[_Worker] = queue.SimpleQueue()
        for worker in self._workers:
            self._idle.put(worker)
        self._stopped = threading.Event()

    @property
    def is_stopped(self) -> bool:
        """Whether its workers were ended: a call then raises WorkerDiedError."""
        return self._stopped.is_set()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def call(self, function: Callable[..., Any], *given: Any) -> Any:
        """Call a function in the first worker that is idle; function, arguments and result can be pickled.

        Raises
        ------
        WorkerDiedError
            The worker died of it (killed for memory, say), and so did a fresh one.
        Exception
            As the function raises it.
        """
        worker = self._idle.get()
        try:
            if self._stopped.is_set():
                raise WorkerDiedError("the pool was stopped")
            for is_last in (False, True):
                try:
                    return worker.call(function, given)
                except WorkerDiedError as death:
                    if self._stopped.is_set():
                        raise
                    worker.close()
                    place = self._workers.index(worker)
                    self._workers[place] = worker = _Worker()
                    if self._stopped.is_set():  # meanwhile
                        worker.close()
                    if is_last or self._stopped.is_set():
                        raise
                    logger.warning("a worker process died (%s): its work is tried in a fresh one", death)
        finally:
            self._idle.put(worker)

    def map(self, function: Callable[[_Item], _Result], items: Iterable[_Item]) -> Iterator[_Result]:
        """Give what a function of this process, which uses `call`, makes of each item, in the order of the items.

        It is called in as many threads as there are workers. Where the caller leaves before the end, or is
        interrupted, the pool is stopped: the calls at work could go on for long.
        """
        waiting: deque[Future[_Result]] = deque()
        with ThreadPoolExecutor(self.count) as threads:
            try:
                for item in items:
                    waiting.append(threads.submit(function, item))
                    if len(waiting) >= _QUEUED * self.count:
                        yield waiting.popleft().result()
                while waiting:
                    yield waiting.popleft().result()
            except GeneratorExit:
                if waiting:
                    self.stop()
                raise
            except KeyboardInterrupt:
                self.stop()
                raise
            finally:
                threads.shutdown(wait=False, cancel_futures=True)

    def stop(self) -> None:
        """End all processes at once, also those that are at work: they keep nothing."""
        self._stopped.set()
        for worker in self._workers:
            worker.close()


def are_worth_processes(n_images: int) -> bool:
    """Whether the work on so many images is worth the start of processes."""
    return n_images >= _LEAST_IMAGES and count_cores() > 1


class LazyPool:
    """A pool of processes for several stages of a job: started when first needed, ended with the block.

    Attributes
    ----------
    running : WorkerPool or None
        None until it is needed.
    """

    def __init__(self) -> None:
        self.running: WorkerPool | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.running is not None:
            self.running.stop()

    def start(self, count: int | None = None) -> WorkerPool:
        """Give the pool; if this starts it, it has so many processes, or one a core up to 8."""
        self.running = self.running or WorkerPool(count or min(count_cores(), _MOST_PROCESSES))
        return self.running


class ProcessEngine:
    """An `umscosod.engine.Engine` of this machine's processes.

    Parameters
    ----------
    pool : WorkerPool
    """

    def __init__(self, pool: WorkerPool) -> None:
        self._pool = pool

    def network_device(self, here: str) -> str:
        """See `umscosod.engine.Engine.network_device`."""
        return here

    def map(self, work: Work[_Item, _Result], items: Iterable[_Item], *, network_on: str = "") -> Iterator[_Result]:
        """See `umscosod.engine.Engine.map`; a network that `work` holds goes with each item.

        Raises
        ------
        EngineError
            A worker died of an item, and so did a fresh one.
        """
        ask = partial(self._pool.call, call_at_home, work, Home.here())
        try:
            for result, told in self._pool.map(ask, items):
                tell(told)
                yield result
        except WorkerDiedError as death:
            raise EngineError(
                f"a worker process died twice of one piece of work ({death}); is there memory for {self._pool.count} "
                "processes? The same command resumes"
            ) from None
