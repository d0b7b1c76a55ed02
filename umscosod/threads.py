"""How many threads small linear algebra gets: one, since more cost more than they gain, and equal bits need it.

And how many cores there are to share work among.
"""

from __future__ import annotations

import os
from contextlib import AbstractContextManager
from functools import lru_cache

from threadpoolctl import ThreadpoolController


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
