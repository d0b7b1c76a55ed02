"""DenseCRF in a process of its own: jobs on standard input, answers on standard output, until the input ends.

The input ends when `umscosod.refine.crf_pool` closes it or when the process that holds it dies, however it dies. Both
ways travel frames: a length of 8 bytes, then arrays as ``.npz``.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import signal
import struct
import sys
from collections.abc import Iterator
from dataclasses import asdict
from typing import IO, Any

import cv2
import numpy as np

from umscosod.config import CrfConfig
from umscosod.errors import DataError
from umscosod.refine.crf import CrfInput, refine_mask

Frame = dict[str, np.ndarray[Any, Any]]
_LENGTH = struct.Struct("<Q")


def write_frame(stream: IO[bytes], **arrays: Any) -> None:
    """Write arrays, numbers or texts as one frame.

    Raises
    ------
    OSError
        Nobody reads.
    """
    content = io.BytesIO()
    np.savez(content, **arrays)
    stream.write(_LENGTH.pack(content.tell()))
    stream.write(content.getbuffer())
    stream.flush()


def read_frame(stream: IO[bytes]) -> Frame | None:
    """Read one frame; None where the stream ends before it does."""
    head = stream.read(_LENGTH.size)
    if len(head) < _LENGTH.size:
        return None
    (length,) = _LENGTH.unpack(head)
    content = stream.read(length)
    if len(content) < length:
        return None
    with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
        return dict(arrays)


def write_job(stream: IO[bytes], start: CrfInput, config: CrfConfig) -> None:
    """Ask for one `refine_mask`. Raises OSError where nobody reads."""
    settings = json.dumps({"threshold": float(start.threshold), "config": asdict(config)})  # floats exactly, by repr
    write_frame(stream, map=start.map_HW, mask=start.mask_HW, picture=start.picture_HW3, settings=settings)


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


def _answer(job: Frame) -> dict[str, Any]:
    settings = json.loads(str(job["settings"]))
    start = CrfInput(
        map_HW=job["map"], mask_HW=job["mask"], threshold=settings["threshold"], picture_HW3=job["picture"]
    )
    try:
        mask_HW, did_run = refine_mask(start, CrfConfig(**settings["config"]))
    except DataError as error:  # the caller's error, to be raised there
        return {"error": str(error)}
    return {"mask": mask_HW, "did_run": did_run}


def main() -> None:
    """Work until the input ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # it is the parent's to heed
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what a library prints must not pass for an answer
    cv2.setNumThreads(1)  # the workers as a whole already fill the cores
    with contextlib.suppress(BrokenPipeError):  # the parent died meanwhile
        while (job := read_frame(sys.stdin.buffer)) is not None:
            with _killed_at_end_of(sys.stdin.fileno()):
                answer = _answer(job)
            write_frame(answers, **answer)
