"""Stops the process that starts with this folder on its PYTHONPATH, as Ctrl-Z does, at the moment that is asked for.

``UMSCOSOD_PAUSE_AT=EVENT:WORD``, an audit event of Python and a word in one of its arguments: ``import:torch``. What
the process starts itself is not stopped.
"""

import os
import signal
import sys

event_wanted, _, word = os.environ.pop("UMSCOSOD_PAUSE_AT", "").partition(":")


def pause(event: str, arguments: tuple[object, ...]) -> None:
    global event_wanted
    if event == event_wanted and any(word in str(argument) for argument in arguments):
        event_wanted = ""
        os.kill(os.getpid(), signal.SIGSTOP)


if event_wanted:
    sys.addaudithook(pause)
