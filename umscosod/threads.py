"""How many threads small linear algebra gets: one, since more cost more than they gain, and equal bits need it."""

from __future__ import annotations

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
