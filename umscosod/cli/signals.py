"""Ctrl-C, SIGTERM and a closed terminal end a command with one line; for the command line's own process only."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Any

_WORDS = {"SIGINT": "interrupted", "SIGTERM": "terminated", "SIGHUP": "terminal closed"}


class Stop:
    """Which signal asked the command to stop.

    Attributes
    ----------
    number : int
        0: none did.
    """

    number: int = 0

    def tell(self) -> int:
        """Say so on standard error; returns the exit code, 128 and the signal's number as shells have it."""
        number = self.number or signal.SIGINT
        with contextlib.suppress(OSError):  # the terminal is gone
            word = _WORDS[signal.Signals(number).name]
            print(f"\n{word}; the same command resumes from what was written", file=sys.stderr, flush=True)
        return 128 + number


@contextlib.contextmanager
def heed_signals() -> Iterator[Stop]:
    """Raise KeyboardInterrupt at the first signal, anywhere in the block; the second ends the process at once.

    Where an exception would be lost or turned into another one, in the middle of an import or in a destructor, the
    first ends the process too: results are written whole or not at all, and resumed from. Signals that the caller
    ignores, as ``nohup`` does, stay ignored. Outside the main thread signals are not ours to handle.

    Yields
    ------
    Stop
    """
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    numbers = [getattr(signal, name) for name in _WORDS if hasattr(signal, name)]
    before = {number: handler for number in numbers if (handler := signal.getsignal(number)) != signal.SIG_IGN}

    def handle(number: int, frame: FrameType | None) -> None:
        stop.number = number
        for each in before:
            signal.signal(each, signal.SIG_DFL)
        if _is_importing(frame):
            os._exit(stop.tell())
        raise KeyboardInterrupt

    show_unraisable = sys.unraisablehook

    def unraisable(caught: Any) -> None:
        if stop.number and issubclass(caught.exc_type, KeyboardInterrupt):
            os._exit(stop.tell())
        show_unraisable(caught)

    for number in before:
        signal.signal(number, handle)
    sys.unraisablehook = unraisable
    try:
        yield stop
    finally:
        if not stop.number:  # a process that was told to stop is about to end: no handler, no traceback
            sys.unraisablehook = show_unraisable
            for number, handler in before.items():
                signal.signal(number, handler)


def _is_importing(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False
