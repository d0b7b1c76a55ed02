"""Devices, cores, threads and processes that do the work, and seeds of the random numbers it draws.

Small linear algebra gets one thread: more cost more than they gain, and equal bits need one. A seed is a function of
the run's seed and of its purpose: there is no global state, so the order of work never matters.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import re
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import lru_cache
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from threadpoolctl import ThreadpoolController

from umscosod.errors import ConfigError
from umscosod.types import NAMES

if TYPE_CHECKING:
    import torch

logger = logging.getLogger(__name__)

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")

MOST_THREADS = 8
"""Of one kind of work: more hold more and gain little."""

_NAME = re.compile(r"auto|cpu|mps|cuda(:\d+)?")


def check_device(name: str) -> None:
    """Refuse a device that a job would refuse; torch is imported only for a name that another machine may have.

    Raises
    ------
    ConfigError
    """
    if _NAME.fullmatch(name) is None:
        raise _unknown(name)
    if name not in ("auto", "cpu"):
        resolve_device(name)


def resolve_device(name: str = "auto") -> torch.device:
    """Turn ``auto | cpu | cuda | cuda:N | mps`` into a device that exists here.

    Parameters
    ----------
    name : str
        ``auto`` picks CUDA, then MPS, then CPU.

    Returns
    -------
    torch.device

    Raises
    ------
    ConfigError
        The name is unknown, or that device is not available on this machine.
    """
    import torch

    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
        logger.info("device auto: %s", name)
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise _unknown(name) from error
    if str(device) != name:  # torch keeps N in 8 bits: it would read cuda:256 as cuda:0
        raise _unknown(name)
    available = {
        "cpu": True,
        "cuda": torch.cuda.is_available() and (device.index or 0) < torch.cuda.device_count(),
        "mps": torch.backends.mps.is_available(),
    }
    if not available.get(device.type, False):
        raise ConfigError(f"device {name!r} is not available on this machine; use --device auto or cpu")
    return device


def _unknown(name: str) -> ConfigError:
    return ConfigError(f"device {name!r} is unknown; use auto, cpu, cuda, cuda:N or mps")


FLOAT32, BFLOAT16 = "float32", "bfloat16"


def choose_precision(wanted: str, device: torch.device) -> str:
    """Choose the arithmetic of a frozen ViT.

    Parameters
    ----------
    wanted : {"auto", "float32"}
        ``auto`` is bfloat16 where the device has instructions for it, as torch tells: CUDA since Ampere; CPUs with
        AMX-BF16 or AVX512-BF16, if this torch has ``torch.cpu.get_capabilities``.
    device : torch.device

    Returns
    -------
    {"float32", "bfloat16"}
    """
    import torch

    if wanted != "auto":
        return wanted
    if device.type == "cuda":
        return BFLOAT16 if torch.cuda.is_bf16_supported(including_emulation=False) else FLOAT32
    if device.type == "cpu" and hasattr(torch.cpu, "get_capabilities"):
        found = torch.cpu.get_capabilities()
        return BFLOAT16 if found.get("amx_bf16") or found.get("avx512_bf16") else FLOAT32
    return FLOAT32


def precision_of(backbone: object) -> str:
    """Arithmetic of a backbone; ``"float32"`` where it does not say, in its attribute `precision`."""
    precision: str = getattr(backbone, "precision", FLOAT32)
    return precision


def autocast(device: torch.device) -> contextlib.AbstractContextManager[object]:
    """Give bfloat16 autocast on CUDA that supports it, and full float32 elsewhere."""
    import torch

    if device.type == "cuda" and choose_precision("auto", device) == BFLOAT16:
        return torch.autocast("cuda", dtype=torch.bfloat16)
    return contextlib.nullcontext()


_kernels_lock = threading.Lock()
_kernels_users = 0


@contextlib.contextmanager
def deterministic_kernels(device: torch.device) -> Iterator[None]:
    """Have an accelerator use deterministic kernels inside the block, where there are any; torch warns of the others.

    On the CPU nothing is to be done: every operation of training writes each number from one thread, in one order.

    Notes
    -----
    Torch has this setting for the whole process only. So on an accelerator other work of the process is done with such
    kernels too until the last block has ended; a setting that was on already is left alone.
    """
    global _kernels_users  # blocks may overlap, in jobs in several threads
    import torch

    if device.type == "cpu":
        yield
        return
    with _kernels_lock:
        is_ours = _kernels_users > 0 or not torch.are_deterministic_algorithms_enabled()
        if is_ours:
            _kernels_users += 1
            _set_deterministic(True)
    try:
        yield
    finally:
        with _kernels_lock:
            if is_ours:
                _kernels_users -= 1
                if not _kernels_users:
                    _set_deterministic(False)


def _set_deterministic(is_on: bool) -> None:
    import torch

    torch.use_deterministic_algorithms(is_on, warn_only=is_on)
    fills = torch.utils.deterministic  # a module that acts as an object with one property, unknown to type checkers
    fills.fill_uninitialized_memory = not is_on  # type: ignore[attr-defined]  # its default is on; filling costs time


@lru_cache(maxsize=1)
def _controller() -> ThreadpoolController:
    return ThreadpoolController()  # looking the loaded libraries up takes milliseconds: once is enough


_blas_lock = threading.Lock()
_blas_limits: list[Any] = []  # the limit itself, and a place for each block that was entered after it


@contextlib.contextmanager
def one_blas_thread() -> Iterator[None]:
    """Limit NumPy's and SciPy's BLAS to one thread inside the block; torch keeps its own threads.

    The limit is the whole process's. Where blocks overlap, in jobs in several threads, it ends with the last one.
    """
    with _blas_lock:
        _blas_limits.append(None if _blas_limits else _controller().limit(limits=1, user_api="blas"))
    try:
        yield
    finally:
        with _blas_lock:
            if len(_blas_limits) > 1:
                _blas_limits.pop()
            else:
                _blas_limits.pop().restore_original_limits()


def map_in_threads(
    work: Callable[[_Item], _Result], items: Iterable[_Item], threads: int
) -> Generator[_Result, None, None]:
    """Apply a function that uses torch to items, in order, some at once; torch's own threads are shared among them.

    A second core gains more by a second item than by a share in the small products of the first.

    Parameters
    ----------
    work : callable
        Safe to run in several threads at once.
    items : iterable
        Taken when there is room for them.
    threads : int
        >= 1; 1: all is done in the caller's thread.
    """
    if threads == 1:
        yield from map(work, items)
        return
    import torch

    count, met = torch.get_num_threads(), threading.Barrier(threads)

    def limit(number: int) -> None:
        torch.set_num_threads(number)
        torch.get_num_threads()  # a thread takes what was set last when it first asks
        met.wait()  # hence each thread of the pool comes here once

    pool = ThreadPoolExecutor(threads, "umscosod-map")
    try:
        list(pool.map(limit, [max(1, count // threads)] * threads))
        torch.set_num_threads(count)  # of this thread it is; threads that others start get what was set last
        yield from _map_by(pool, work, items, threads)
    finally:
        met.abort()  # where not all threads could be started, those that wait go on
        pool.shutdown(cancel_futures=True)


def map_on_cores(
    work: Callable[[_Item], _Result], items: Iterable[_Item], most: int = MOST_THREADS
) -> Generator[_Result, None, None]:
    """Apply a function that uses NumPy, SciPy or OpenCV to items, in order, by one thread a core.

    BLAS has one thread meanwhile. Where ``OMP_NUM_THREADS`` is 1, as in the processes of a pool, the caller's thread
    does all.

    Parameters
    ----------
    work : callable
        Safe to run in several threads at once. Threads gain where it spends its time without Python's lock (GIL).
    items : iterable
        Taken when there is room for them.
    most : int
        Threads at most: each holds what `work` needs for an item.
    """
    threads = min(most, count_threads())
    if threads == 1:
        with one_blas_thread():
            yield from map(work, items)
        return
    pool = ThreadPoolExecutor(threads, "umscosod-cores")
    try:
        with one_blas_thread():
            yield from _map_by(pool, work, items, threads)
    finally:
        pool.shutdown(cancel_futures=True)


def _map_by(
    pool: ThreadPoolExecutor, work: Callable[[_Item], _Result], items: Iterable[_Item], threads: int
) -> Iterator[_Result]:
    ahead: deque[Future[_Result]] = deque()
    for item in items:
        ahead.append(pool.submit(work, item))
        if len(ahead) > threads:
            yield ahead.popleft().result()
    while ahead:
        yield ahead.popleft().result()


def count_threads() -> int:
    """Threads that this process may work with: one a core, or as many as ``OMP_NUM_THREADS`` says if that is fewer."""
    told = os.environ.get("OMP_NUM_THREADS", "").split(",")[0].strip()  # the first number is of the outer level
    return min(count_cores(), max(1, int(told))) if told.isdecimal() else count_cores()


def count_cores() -> int:
    """Cores that this process may use: of a machine's many, a container or ``taskset`` may have left it few."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def launched_as() -> tuple[int, int]:
    """Rank of this process and number of processes that a launcher, such as ``torchrun``, started for one training.

    Returns
    -------
    rank, size : int
        ``RANK`` and ``WORLD_SIZE`` of the environment; (0, 1) without a launcher.

    Raises
    ------
    ConfigError
        They are no such numbers.
    """
    texts = os.environ.get("RANK", ""), os.environ.get("WORLD_SIZE", "1")
    if texts[1] == "1":
        return 0, 1
    rank, size = (int(text) if text.isdecimal() else -1 for text in texts)
    if not 0 <= rank < size:
        raise ConfigError(
            f"RANK is {texts[0]!r} and WORLD_SIZE {texts[1]!r} in the environment, which is no process of several; "
            "start them with torchrun, or unset both"
        )
    return rank, size


def derive_seed(seed: int, *purpose: str | int) -> int:
    """Mix a run's seed with the names of what it is for.

    Parameters
    ----------
    seed : int
        The run's seed.
    *purpose : str or int
        What the numbers are for, for example ``("train", "epoch", 3)``.

    Returns
    -------
    int
        In ``[0, 2**63)``, equal on every platform.

    Examples
    --------
    >>> derive_seed(1, "train", 0) == derive_seed(1, "train", 0)
    True
    >>> derive_seed(1, "train", 0) == derive_seed(1, "train", 1)
    False
    """
    text = "\x1f".join(str(part) for part in (seed, *purpose))
    return int.from_bytes(hashlib.sha256(text.encode("utf-8", NAMES)).digest()[:8], "big") >> 1


def numpy_generator(seed: int, *purpose: str | int) -> np.random.Generator:
    """Build a NumPy generator for one purpose of a run (see `derive_seed`)."""
    return np.random.default_rng(derive_seed(seed, *purpose))
