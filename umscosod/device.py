"""Devices, threads and cores: which processor does the work, and how much of it.

And how many cores there are to share work among.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
from contextlib import AbstractContextManager
from functools import lru_cache
from typing import TYPE_CHECKING

from threadpoolctl import ThreadpoolController

from umscosod.errors import ConfigError

if TYPE_CHECKING:
    import torch

logger = logging.getLogger(__name__)

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


def autocast(device: torch.device) -> contextlib.AbstractContextManager[object]:
    """Give bfloat16 autocast on CUDA that supports it, and full float32 elsewhere."""
    import torch

    if device.type == "cuda" and torch.cuda.is_bf16_supported():
        return torch.autocast("cuda", dtype=torch.bfloat16)
    return contextlib.nullcontext()


@lru_cache(maxsize=1)
def _controller() -> ThreadpoolController:
    return ThreadpoolController()  # looking the loaded libraries up takes milliseconds: once is enough


def one_blas_thread() -> AbstractContextManager[object]:
    """Limit NumPy's and SciPy's BLAS to one thread inside the block; torch keeps its own threads."""
    limiter: AbstractContextManager[object] = _controller().limit(limits=1, user_api="blas")
    return limiter


def count_cores() -> int:
    """Cores that this process may use: of a machine's many, a container or ``taskset`` may have left it few."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
