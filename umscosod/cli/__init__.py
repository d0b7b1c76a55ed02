"""The command line ``umscosod``: parse, run, report, and an exit code a script can rely on."""

from __future__ import annotations

import io
import os
import re
import shutil
import sys
from collections.abc import Sequence

from umscosod.cli.console import heed_signals
from umscosod.errors import UmscosodError, one_line

USAGE = 2
_LAST_STREAM = 2  # standard error
_NARROWEST = 20
_NO_MEMORY = re.compile("out of memory|can't allocate memory")  # torch raises no MemoryError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Parameters
    ----------
    arguments : sequence of str, optional
        Without the program's name; by default those of the process.

    Returns
    -------
    int
        0 all well, 1 something failed, 2 the line was not understood or it cannot be done, 3 nothing was labelled,
        130 interrupted, 143 terminated, 129 its terminal was closed.

    Raises
    ------
    SystemExit
        After ``--help`` (0), or where flags are wrong (2).
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    _open_closed_streams()
    with heed_signals() as stop:
        try:
            return _run(given)
        except (KeyboardInterrupt, Exception) as error:
            if stop.number or isinstance(error, KeyboardInterrupt):  # a library may have made another error of it
                return stop.tell()
            message = _describe(error)
            if "--debug" in given or not message:
                raise
            from umscosod.cli.console import say  # late: the first second, too, can be interrupted

            say(f"error: {one_line(message)}", file=sys.stderr)
            return USAGE


def _describe(error: BaseException) -> str:
    """What the user is told of an error; ``""`` where it is a fault of ours, which needs its traceback."""
    if isinstance(error, (UmscosodError, OSError)):
        return str(error)
    if isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and _NO_MEMORY.search(str(error))):
        return "not enough memory; close other programs, or lower features.size_px, features.batch_size or the workers"
    if isinstance(error, ImportError) and ".so" in str(error):  # a shared object: damaged, or no memory to map it
        return f"a library cannot be loaded ({error}); free some memory, or install its package again"
    return ""


def _run(given: list[str]) -> int:
    from umscosod import __version__
    from umscosod.cli.commands import run
    from umscosod.cli.console import say, set_up_logging
    from umscosod.cli.parser import parse
    from umscosod.device import launched_as

    # Threads that spin while they wait starve whatever else runs here: two jobs at once on two cores took several times
    # as long as one after the other. Read when torch is loaded, which is later.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    if shutil.get_terminal_size().columns < _NARROWEST:  # where the help is laid out without an end
        os.environ["COLUMNS"] = str(_NARROWEST)
    _print_any_name()
    _refuse_removed_folder()
    if given in (["--version"], ["-V"]):
        say(f"umscosod {__version__}")
        return 0
    command, config = parse(given or ["--help"])
    set_up_logging(verbose=command.console.verbose, is_first=launched_as()[0] == 0)
    return run(command, config)


def _print_any_name() -> None:
    """Escape what the terminal's encoding lacks: a file name must not end the run whose outcome it is part of."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


def _open_closed_streams() -> None:
    """Where the caller closed a stream (``2>&-``), lead it nowhere.

    Else there is none to write to, and the next file that is opened takes its number: a mask, into which a library
    then writes its messages.
    """
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= _LAST_STREAM:
        os.set_inheritable(descriptor, True)
    os.close(descriptor)
    for descriptor, name in ((1, "stdout"), (2, "stderr")):
        if getattr(sys, name) is None:
            stream = os.fdopen(descriptor, "w", encoding="utf-8", errors="backslashreplace", closefd=False)
            setattr(sys, name, stream)


def _refuse_removed_folder() -> None:
    """Nothing relative can be found in a working directory that is gone, and libraries end the process there."""
    try:
        os.getcwd()  # noqa: PTH109
    except OSError as error:
        raise UmscosodError(f"the current folder cannot be found ({error.strerror}); change to another one") from error
