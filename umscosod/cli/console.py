"""The terminal: messages, bars, reports, and signals that end a job."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import shutil
import signal
import sys
import threading
from collections.abc import Iterable, Iterator
from types import FrameType
from typing import TYPE_CHECKING, Any, Self, TextIO

from tqdm import tqdm

from umscosod.errors import UmscosodError, count_of, one_line
from umscosod.progress import stage_name
from umscosod.types import Labelled, Status

if TYPE_CHECKING:
    from umscosod.pipeline import LabelReport, TrainReport

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


_LISTED = 20
_NO_REASON = "no reason given"
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029]")
_PLACES = (
    ("masks", "masks"),
    ("soft maps", "maps"),
    ("pseudo-labels", "pseudo"),
    ("report", "report.json"),
    ("contact sheet", "index.html"),
    ("run", "run"),
)


def printable(text: str) -> str:
    r"""Escape control characters but line breaks and tabs: names of files must not move the cursor or ring the bell.

    Examples
    --------
    >>> print(printable("cat\x1b[2J.jpg"))
    cat\u001b[2J.jpg
    """
    return _CONTROL.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def say(text: str, *, end: str = "\n", file: TextIO | None = None) -> None:
    """Print a text to standard output, or to `file`: the one way in which the command line says anything.

    Where the reader is gone, as in ``umscosod presets | head -1``, nothing more is said; the work goes on. So it does
    where a message for standard error cannot be written: there is nobody to tell.

    Raises
    ------
    UmscosodError
        Standard output cannot be written.
    """
    stream = sys.stdout if file is None else file
    try:
        print(printable(text), end=end, file=stream, flush=True)
    except OSError as error:
        silence(stream)
        if stream is sys.stdout and not isinstance(error, BrokenPipeError):
            raise UmscosodError(
                f"standard output cannot be written ({error.strerror}); what was done is kept: check where it leads"
            ) from error


def silence(stream: TextIO) -> None:
    """Let a stream lead nowhere from here on, or Python fails at its end with what is left in the buffer."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())
    os.close(nowhere)
    stream.flush()


class ProgressBar:
    """A `umscosod.progress.ProgressFn` that draws a bar with the time left; without a terminal, a line a stage.

    Parameters
    ----------
    stream : text stream, optional
        Standard error by default, so that standard output holds results only.
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stderr
        self._is_terminal = self._stream.isatty()
        self._stage = ""
        self._bar: tqdm[Any] | None = None

    def __call__(self, done: int, total: int, stage: str) -> None:
        """Show a report of progress."""
        name = stage_name(stage)
        if name != self._stage:
            self.close()
            self._stage = name
            if self._is_terminal:
                # tqdm itself draws nothing where a terminal claims a size of 0 x 0, as some in containers do
                columns, rows = shutil.get_terminal_size()
                self._bar = tqdm(total=total, desc=printable(name), file=self._stream, ncols=columns, nrows=rows)
            else:
                say(f"{name}: {total} to do", file=self._stream)
        if self._bar is not None:
            if stage != name:
                self._bar.set_postfix_str(printable(stage.removeprefix(name).lstrip(", ")), refresh=False)
            self._bar.total = total
            self._bar.update(done - self._bar.n)

    def close(self) -> None:
        """End the bar's line."""
        if self._bar is not None:
            self._bar.close()
        self._bar, self._stage = None, ""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class LineHandler(logging.Handler):
    """Write each log message as one line on standard error, above the progress bar if there is one.

    ``warning: text``, as compilers say it.
    """

    def emit(self, record: logging.LogRecord) -> None:
        """Write a message."""
        try:
            line = one_line(f"{record.levelname.lower()}: {record.getMessage()}")
            tqdm.write(printable(line), file=sys.stderr)
        except Exception:  # logging must never stop the work; this is logging's own way to say so
            self.handleError(record)


def set_up_logging(*, verbose: bool, is_first: bool = True) -> None:
    """Send warnings, and with `verbose` the package's information too, to standard error.

    Of several processes that do one job the first says them; the others say errors only.
    """
    level = logging.WARNING if is_first else logging.ERROR
    logging.basicConfig(handlers=[LineHandler()], level=level)
    logging.getLogger("umscosod").setLevel(logging.INFO if verbose and is_first else level)
    logging.captureWarnings(True)


def format_label_report(report: LabelReport) -> str:
    """End report of a run that labelled: counts, reasons, time, and where things are."""
    counts, total = report.counts, len(report.rows)
    lines = [f"note: {note}" for note in report.notes]
    for status in (Status.FAILED, Status.SKIPPED, Status.EMPTY):
        lines += _list_rows(report.rows, status)
    summary = ", ".join(f"{counts.get(status, 0)} {status.value}" for status in Status)
    speed = f"; {report.seconds:.1f} s, {report.seconds / total:.2f} s an image" if total else ""
    lines.append(f"{summary} of {count_of(total, 'image')}{speed}")
    uncertain = sum(row.status is Status.LABELLED and bool(row.reason) for row in report.rows)
    if uncertain:
        lines.append(f"{uncertain} labelled with low confidence: reasons in report.json and the contact sheet")
    if not counts.get(Status.LABELLED, 0):
        lines.append("nothing was labelled")
    lines += [f"{title:<14} {report.out / name}" for title, name in _PLACES if (report.out / name).exists()]
    return "\n".join(lines)


def format_train_report(report: TrainReport) -> str:
    """End report of a training: steps, loss, images left out, and where the network is."""
    lines = [f"note: {note}" for note in report.notes]
    for status in (Status.FAILED, Status.SKIPPED):
        lines += _list_rows(report.rows, status)
    lines.append(f"{count_of(report.steps, 'step')}, final loss {report.final_loss:.4f}")
    lines.append(f"checkpoint     {report.checkpoint}")
    return "\n".join(lines)


def _list_rows(rows: Iterable[Labelled], status: Status) -> list[str]:
    found = [row for row in rows if row.status is status]
    if not found:
        return []
    lines = [f"{status.value}:"]
    lines += [f"  {one_line(f'{row.image_id}: {row.reason or _NO_REASON}')}" for row in found[:_LISTED]]
    if len(found) > _LISTED:
        lines.append(f"  ... and {len(found) - _LISTED} more: see report.json")
    return lines
